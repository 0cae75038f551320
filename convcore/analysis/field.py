"""Receptive fields by arithmetic: what a pixel of each layer could see of the input."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from convcore import nn
from convcore.analysis.connections import PIXELWISE
from convcore.analysis.paths import checked_shape
from convcore.analysis.rules import Extents, windows
from convcore.analysis.window import Window

__all__ = ["ReceptiveField", "receptive_field"]

Number = int | float
_One = tuple[Fraction, Fraction, Fraction]  # size, jump and start along one axis


@dataclass(frozen=True)
class ReceptiveField:
    """What the pixels of one layer's output see; one number for each axis.

    Attributes
    ----------
    name : str
        The layer's place in the model, as in `state_dict`, and its class.
    extents : tuple of int
        Of the output.
    size : tuple of int
        Pixels of the input that one pixel sees, padding included. Behind transposed
        convolutions and adaptive poolings, where neighbours differ, an upper bound.
    jump : tuple of int or float
        Pixels of the input between the fields of neighbours. Behind transposed
        convolutions and adaptive poolings it may be a fraction.
    start : tuple of int or float
        First pixel of the input that the first output sees; below 0 in the padding.
    """

    name: str
    extents: Extents
    size: tuple[int, ...]
    jump: tuple[Number, ...]
    start: tuple[Number, ...]


@dataclass(frozen=True)
class _State:
    """A map on the way, and the fields of its pixels, axis by axis."""

    extents: Extents
    axes: tuple[_One, ...]
    flat: bool = False


def receptive_field(
    model: nn.Layer, input_shape: Sequence[int]
) -> list[ReceptiveField]:
    """Compute the theoretical receptive field of every layer.

    Parameters
    ----------
    model : nn.Layer
        As for `path_count`; `Flatten` joins all axes but the batch.
    input_shape : (C, *spatial)
        Of one sample.

    Returns
    -------
    list of ReceptiveField
        In order: one for each layer that is no chain. For `Residual` and `Concat` what
        all branches see together, after what is inside.

    Raises
    ------
    ValueError, TypeError
        When there is no rule for a layer, which the message names, when branches step
        through the input at different paces, or when an argument is wrong.

    Notes
    -----
    A layer with k taps, dilation d, stride s and a padding of p adds (k - 1) d jumps to
    the size, multiplies the jump by s and moves the start by -p jumps. A transposed
    convolution adds floor((k - 1) d / s), which its widest pixels see, and divides the
    jump by s.

    References
    ----------
    Araujo, Norris, Sim: Computing receptive fields of convolutional neural networks,
    Distill 2019, equations 1 to 8.

    Examples
    --------
    >>> from convcore import nn
    >>> model = nn.Sequential(nn.Conv1d(1, 8, 3, padding=1), nn.MaxPool1d(2),
    ...                       nn.Conv1d(8, 8, 3, padding=1))
    >>> for field in receptive_field(model, (1, 16)):
    ...     print(field.name, field.extents, field.size, field.jump, field.start)
    0 Conv1d (16,) (3,) (1,) (-1,)
    1 MaxPool1d (8,) (4,) (2,) (-1,)
    2 Conv1d (8,) (8,) (2,) (-3,)
    """
    extents = checked_shape("receptive_field", model, input_shape)[1:]
    one = Fraction(1), Fraction(1), Fraction(0)
    rows: list[ReceptiveField] = []
    _walk(model, "", _State(extents, (one,) * len(extents)), rows)
    return rows


def _walk(
    layer: nn.Layer, name: str, state: _State, rows: list[ReceptiveField]
) -> _State:
    """Follow the fields through a layer, and note them."""
    if isinstance(layer, nn.Sequential):
        for child_name, child in layer.named_children():
            state = _walk(child, _joined(name, child_name), state, rows)
        return state
    if isinstance(layer, (nn.Residual, nn.Concat)):
        states = [
            _walk(child, _joined(name, child_name), state, rows)
            for child_name, child in layer.named_children()
        ]
        state = _union(layer, states)
    else:
        state = _step(layer, state)
    rows.append(_row(f"{name} {type(layer).__name__}".strip(), state))
    return state


def _joined(name: str, child: str) -> str:
    return ".".join(filter(None, [name, child]))


def _step(layer: nn.Layer, state: _State) -> _State:
    """Follow the fields through one layer that holds no others."""
    if isinstance(layer, PIXELWISE):
        return state
    if isinstance(layer, nn.Flatten):
        rank = 2 + len(state.extents)
        if not state.flat and (layer.start_dim % rank, layer.end_dim % rank) != (
            1,
            rank - 1,
        ):
            raise ValueError(
                "receptive_field: Flatten must join all axes but the batch, got "
                f"start_dim {layer.start_dim}, end_dim {layer.end_dim}"
            )
        return _State(state.extents, state.axes, True)
    if isinstance(layer, nn.Linear):
        axes = len(state.extents)
        seen = range(axes) if state.flat else [axes - 1]
        found = tuple(
            Window(i, 1, i, i) if axis in seen else Window(i, i, 1)
            for axis, i in enumerate(state.extents)
        )
        state = _through(found, state)
        if not state.flat:
            extents = (*state.extents[:-1], layer.out_features)
            size, _, start = state.axes[-1]
            axis = (size, Fraction(0), start)
            state = _State(extents, (*state.axes[:-1], axis))
        return state
    if isinstance(layer, nn.GloballyConnected2d):
        whole = tuple(
            (size + (i - 1) * jump, Fraction(0), start)
            for i, (size, jump, start) in zip(state.extents, state.axes, strict=True)
        )
        return _State(layer.output_size, whole)
    if isinstance(
        layer, (nn.BorderPassthrough1d, nn.BorderPassthrough2d, nn.BorderPassthrough3d)
    ):
        return _beside(layer, state)
    if state.flat:
        name = type(layer).__name__
        raise ValueError(f"receptive_field: {name} must not stand behind Flatten")
    return _through(windows(layer, state.extents), state)


def _beside(layer: Any, state: _State) -> _State:
    """Join each pixel of a map with what the inner convolution puts into its place."""
    inner = _step(layer.layer, state)
    pairs = zip(state.extents, inner.extents, inner.axes, strict=True)
    axes = tuple(
        (size, jump, start - (i - o) // 2 * jump) for i, o, (size, jump, start) in pairs
    )
    return _union(layer, [state, _State(state.extents, axes)])


def _through(found: tuple[Window, ...], state: _State) -> _State:
    axes = tuple(map(_axis, found, state.axes))
    return _State(tuple(window.out for window in found), axes, state.flat)


def _axis(window: Window, field: _One) -> _One:
    """Follow the field through a layer along one axis."""
    size, jump, start = field
    if not window.kernel:  # adaptive
        outs, _ = window.links()
        longest = max(outs.tolist().count(o) for o in set(outs.tolist()))
        pace = Fraction(window.extent, window.out)
        return size + (longest - 1) * jump, jump * pace, start
    reach, low = (window.kernel - 1) * window.dilation, window.padding[0]
    if not window.transposed:
        return size + reach * jump, jump * window.stride, start - low * jump
    first = -((reach - low) // window.stride)  # the first input that reaches output 0
    size += reach // window.stride * jump
    return size, jump / window.stride, start + first * jump


def _union(layer: nn.Layer, states: list[_State]) -> _State:
    """Join what several branches see."""
    name = type(layer).__name__
    paces = {tuple(jump for _, jump, _ in state.axes) for state in states}
    if len(paces) > 1:
        raise ValueError(
            f"receptive_field: branches of {name} must step through the input at one "
            f"pace, got jumps {', '.join(str(_plain(p)) for p in sorted(paces))}"
        )
    extents = list(states[0].extents)
    if isinstance(layer, nn.Concat):
        rank = 2 if states[0].flat else 2 + len(extents)
        axis = layer.dim % rank - 2
        if axis >= 0:
            extents[axis] = sum(state.extents[axis] for state in states)
    axes = []
    for fields in zip(*(state.axes for state in states), strict=True):
        first = min(start for _, _, start in fields)
        end = max(start + size for size, _, start in fields)
        axes.append((end - first, fields[0][1], first))
    return _State(tuple(extents), tuple(axes), states[0].flat)


def _row(name: str, state: _State) -> ReceptiveField:
    sizes, jumps, starts = (_plain(values) for values in zip(*state.axes, strict=True))
    whole = tuple(math.ceil(size) for size in sizes)
    return ReceptiveField(name, state.extents, whole, jumps, starts)


def _plain(values: Sequence[Fraction]) -> tuple[Number, ...]:
    """Give integers where they are, floats where not."""
    return tuple(int(v) if v.denominator == 1 else float(v) for v in values)
