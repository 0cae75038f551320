"""Layers that keep the border that a convolution without padding would lose."""

from collections.abc import Callable
from typing import Any, ClassVar

from convcore import functional as F
from convcore.arguments import Seed, generator, shown
from convcore.nn.conv import Conv1d, Conv2d, Conv3d, _Conv
from convcore.nn.layer import Backward, Layer
from convcore.nn.parameter import add
from convcore.nn.weights import default_generator
from convcore.problem import ConvProblem
from convcore.problem.rules import ANY_EXTENT
from convcore.runtime.arrays import Array

__all__ = ["BorderPassthrough1d", "BorderPassthrough2d", "BorderPassthrough3d"]


class _BorderPassthrough(Layer):
    ndim: ClassVar[int]
    _conv: ClassVar[type[_Conv]]
    _functions: ClassVar[tuple[Callable[..., Array], Callable[..., Any]]]

    def __init__(
        self, layer: Layer, projection: Layer | None = None, *, rng: Seed | None = None
    ) -> None:
        name = type(self).__name__
        if not isinstance(layer, _Conv) or layer._transposed or layer.ndim != self.ndim:
            raise TypeError(
                f"{name}: layer must be a convolution over {self.ndim} axes, got "
                f"{type(layer).__name__}"
            )
        if projection is not None and not isinstance(projection, Layer):
            raise TypeError(
                f"{name}: projection must be a layer, got {type(projection).__name__}"
            )
        _check_valid(name, layer)
        self.layer = layer
        if projection is None and layer.in_channels != layer.out_channels:
            channels = (layer.in_channels, layer.out_channels)
            draw = default_generator(self, channels) if rng is None else rng
            projection = self._conv(
                *channels,
                1,
                bias=False,
                dtype=layer.weight.read().dtype,
                rng=generator(name, draw),
            )
        self.projection = projection

    def __call__(self, x: Array) -> Array:
        """Compute y for inference."""
        join, _ = self._functions
        carried = x if self.projection is None else self.projection(x)
        return join(carried, self.layer(x))

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """Compute y for training, and the function that takes its gradient."""
        join, join_backward = self._functions
        inner, inner_backward = self.layer.forward(x)
        carried, carried_backward = x, None
        if self.projection is not None:
            carried, carried_backward = self.projection.forward(x)
        shape = inner.shape

        def backward(grad_y: Array) -> Array:
            grad_carried, grad_inner = join_backward(grad_y, shape)
            if carried_backward is not None:
                grad_carried = carried_backward(grad_carried)
            return add(inner_backward(grad_inner), grad_carried)

        return join(carried, inner), backward

    def _arguments(self) -> str:
        lines = [f"  ({name}): {child}\n" for name, child in self.named_children()]
        return "\n" + "".join(lines)


def _check_valid(name: str, layer: _Conv) -> None:
    """Refuse a convolution whose outputs do not lie over a middle of its inputs."""
    problem = ConvProblem.conv(
        name,
        (0, layer.in_channels, *(ANY_EXTENT,) * layer.ndim),
        layer.weight.read().shape,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )
    if problem.stride != (1, 1, 1) or problem.padding != ((0, 0),) * 3:
        raise ValueError(
            f"{name}: layer must have stride 1 and no padding, got stride "
            f"{shown(layer.stride)}, padding {shown(layer.padding)}"
        )


class BorderPassthrough1d(_BorderPassthrough):
    """Carry the border on: `BorderPassthrough2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _conv = Conv1d
    _functions = F.border_passthrough1d, F.border_passthrough1d_backward


class BorderPassthrough2d(_BorderPassthrough):
    """Convolve without padding, and carry on the border that this loses.

    Inside, y is the convolution, each output where the middle of its window is. On the
    ring around it, of (kernel - 1) * dilation lines in all, y has the elements of x at
    the same places: the output has the extents of x, and nothing of the border is lost
    or mixed with zeros.

    Parameters
    ----------
    layer : Conv2d
        With stride 1 and no padding; also one with a table of connections.
    projection : Layer, optional
        What makes channels of y from those of x, for the ring: such as a convolution of
        1 x 1. Without one, channels are carried on as they are; where y has others than
        x, a convolution of 1 x 1 without bias is made, and learned.
    rng : numpy.random.Generator or int, optional
        Source of that projection's first weights; see `convcore.nn` for the default.

    Attributes
    ----------
    layer : Conv2d
    projection : Layer or None

    Raises
    ------
    ValueError, TypeError
        When the layer has another stride, padding or type.

    See Also
    --------
    convcore.functional.border_passthrough2d

    Notes
    -----
    The projection is computed at all places, 1 / (KH * KW) of the convolution's work.

    Examples
    --------
    >>> from convcore import nn
    >>> layer = BorderPassthrough2d(nn.Conv2d(3, 3, 3))
    >>> x = np.ones((1, 3, 8, 8), np.float32)
    >>> y = layer(x)
    >>> y.shape, bool((y[:, :, 0] == x[:, :, 0]).all())
    ((1, 3, 8, 8), True)
    """

    ndim = 2
    _conv = Conv2d
    _functions = F.border_passthrough2d, F.border_passthrough2d_backward


class BorderPassthrough3d(_BorderPassthrough):
    """Carry the border on: `BorderPassthrough2d` for (N, C, D, H, W)."""

    ndim = 3
    _conv = Conv3d
    _functions = F.border_passthrough3d, F.border_passthrough3d_backward
