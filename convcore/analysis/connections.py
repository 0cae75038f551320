"""What a model connects: pixels of its output with pixels of its input.

`connect` follows a model forward, and gives the function that takes counts of paths back
from its output to its input, as the layers' `forward` gives the function that takes
gradients back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce, singledispatch
from math import prod
from typing import Any

import numpy as np

from convcore import nn
from convcore.analysis.rules import Extents, windows
from convcore.analysis.window import Window, total
from convcore.runtime.arrays import Array

Back = Callable[[Array], Array]

# Pixel by pixel, as far as connections go. Normalisations also connect pixels by their
# mean and variance, which all pixels share; this is left out.
PIXELWISE = (
    *(nn.ELU, nn.GELU, nn.SELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh),
    *(nn.LeakyReLU, nn.PReLU, nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.SiLU, nn.Softplus),
    *(nn.Tanh, nn.Softmax, nn.LogSoftmax, nn.Dropout),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm),
    *(nn.ChannelAvgPool, nn.ChannelMaxPool),
)


@dataclass(frozen=True, slots=True)
class Pixels:
    """A map: its spatial extents, and whether `Flatten` has joined them to channels."""

    extents: Extents
    flat: bool = False

    @property
    def rank(self) -> int:
        """Axes of a batch of such maps."""
        return 2 if self.flat else 2 + len(self.extents)


@singledispatch
def connect(layer: Any, pixels: Pixels) -> tuple[Pixels, Back]:
    """Follow a layer from its input to its output, and give the way back.

    Parameters
    ----------
    layer : nn.Layer
        Any layer, or container of layers.
    pixels : Pixels
        Its input.

    Returns
    -------
    Pixels
        Its output.
    function
        Takes the number of paths from each pixel of the output to the end, an array of
        these extents, and gives the number of paths from each pixel of the input.

    Raises
    ------
    ValueError
        When there is no rule for a layer; the message names it.

    Notes
    -----
    A layer without a rule of its own is asked for its `windows`. To give a rule to a
    class, decorate a function with `connect.register`:

    >>> class Mirror(nn.Layer):
    ...     def __call__(self, x):
    ...         return x[..., ::-1]
    ...     def forward(self, x):
    ...         return self(x), lambda grad: grad[..., ::-1]
    >>> @connect.register
    ... def mirrored(layer: Mirror, pixels):
    ...     return pixels, lambda counts: counts[..., ::-1]

    Examples
    --------
    >>> from convcore import nn
    >>> after, back = connect(nn.Conv1d(1, 1, 3), Pixels((5,)))
    >>> after.extents, back(np.ones(3, int))
    ((3,), array([1, 2, 3, 2, 1]))
    """
    if isinstance(layer, PIXELWISE):
        return pixels, lambda counts: counts
    found = windows(layer, pixels.extents)
    name = type(layer).__name__
    if pixels.flat:
        raise ValueError(f"analysis: {name} must not stand behind Flatten")
    return _windowed(found)


def _windowed(found: tuple[Window, ...]) -> tuple[Pixels, Back]:
    """Go through a layer that is a product of windows, axis by axis."""

    def back(counts: Array) -> Array:
        # The axes that a layer makes smaller come last on the way back.
        order = sorted(range(len(found)), key=lambda a: found[a].extent - found[a].out)
        for axis in order:
            counts = found[axis].pull(counts, axis)
        return counts

    return Pixels(tuple(window.out for window in found)), back


@connect.register
def _sequential(layer: nn.Sequential, pixels: Pixels) -> tuple[Pixels, Back]:
    steps = []
    for child in layer:
        pixels, step = connect(child, pixels)
        steps.append(step)
    return pixels, lambda counts: reduce(lambda c, s: s(c), reversed(steps), counts)


@connect.register
def _residual(layer: nn.Residual, pixels: Pixels) -> tuple[Pixels, Back]:
    inside, body = connect(layer.body, pixels)
    around, shortcut = connect(layer.shortcut, pixels)
    if inside != around:
        raise ValueError(
            "analysis: body and shortcut of Residual must give the same extents, got "
            f"{inside.extents} and {around.extents}"
        )
    return inside, lambda counts: total(body(counts), shortcut(counts))


@connect.register
def _concat(layer: nn.Concat, pixels: Pixels) -> tuple[Pixels, Back]:
    outs, backs = zip(*(connect(b, pixels) for b in layer.branches), strict=True)
    axis = layer.dim % outs[0].rank - 2
    if axis < -1 or any(out.flat != outs[0].flat for out in outs):
        raise ValueError("analysis: Concat must not join samples, nor maps with rows")
    if axis == -1 and not outs[0].flat:  # channels: all branches have the same pixels
        if any(out != outs[0] for out in outs):
            raise ValueError(
                "analysis: branches of Concat must give the same extents, got "
                f"{', '.join(str(out.extents) for out in outs)}"
            )
        return outs[0], lambda counts: reduce(total, [back(counts) for back in backs])
    axis = max(axis, 0)
    ends = np.cumsum([out.extents[axis] for out in outs]).tolist()
    extents = (*outs[0].extents[:axis], ends[-1], *outs[0].extents[axis + 1 :])

    def back(counts: Array) -> Array:
        parts = np.split(counts, ends[:-1], axis)
        return reduce(total, [b(p) for b, p in zip(backs, parts, strict=True)])

    return Pixels(extents, outs[0].flat), back


@connect.register
def _flatten(layer: nn.Flatten, pixels: Pixels) -> tuple[Pixels, Back]:
    if pixels.flat:
        return pixels, lambda counts: counts
    first, last = layer.start_dim % pixels.rank, layer.end_dim % pixels.rank
    extents = pixels.extents
    flat = first == 1
    if first < 1 or (flat and prod(extents[last - 1 :]) > 1):
        raise ValueError(
            "analysis: Flatten must join all axes but the batch, or spatial axes "
            f"alone, got start_dim {layer.start_dim}, end_dim {layer.end_dim}"
        )
    spatial = slice(0, len(extents)) if flat else slice(first - 2, last - 1)
    joined = (prod(extents[spatial]),)
    after = (*extents[: spatial.start], *joined, *extents[spatial.stop :])
    return Pixels(after, flat), lambda counts: counts.reshape(extents)


@connect.register
def _linear(layer: nn.Linear, pixels: Pixels) -> tuple[Pixels, Back]:
    # Behind Flatten outputs are channels; else the last axis is mixed, in each channel.
    out = 1 if pixels.flat else layer.out_features
    extent = pixels.extents[-1]
    if not pixels.flat and extent != layer.in_features:
        raise ValueError(
            f"analysis: Linear must stand behind Flatten or have in_features {extent} "
            f"as the last axis of its input, got {layer.in_features}"
        )
    joined = Window(1, out, 1, stride=0), Window(extent, 1, extent)

    def back(counts: Array) -> Array:
        for window in joined:  # every output sees all inputs
            counts = window.pull(counts, -1)
        return counts

    return Pixels((*pixels.extents[:-1], out), pixels.flat), back
