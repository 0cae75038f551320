"""Padding as an operation of its own, and its gradient."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

from convcore.arguments import shown
from convcore.functional._sides import frame
from convcore.functional.call import apply
from convcore.problem.border import Border, border, check_reflect, constant
from convcore.problem.rules import Pair, check_addressable, fold, integer
from convcore.runtime.arrays import Array, checked, flat, room

__all__ = ["pad", "pad_backward"]

_Pads = tuple[Pair, ...]


def pad(
    x: Array,
    pad: Sequence[int],
    mode: str = "constant",
    value: float = 0.0,
    *,
    out: Array | None = None,
) -> Array:
    """Write an array with what lies around it.

    Convolutions take `padding_mode` and make no such array; poolings make one of some
    channels at a time.

    Parameters
    ----------
    x : (...) float32 or float64
        Input with at least as many axes as are padded.
    pad : 2, 4 or 6 ints, >= 0
        Elements before and after the last axis, then before and after the one before
        it, as torch has it.
    mode : str
        "constant" (`value`), "zeros", "reflect", "symmetric", "replicate" or "circular";
        see `conv2d`. Widths beyond the array repeat the pattern, as in `numpy.pad`.
    value : float
        Of a constant border; finite.
    out : ndarray, optional
        Where to write y: C-contiguous, of its shape and dtype, no part of x.

    Returns
    -------
    y : (...), dtype of x
        Each padded axis is longer by its two pads.

    Raises
    ------
    ValueError
        For a negative pad, a mode that does not exist, an axis of no elements, one of a
        single element with "reflect", or an `out` that does not fit.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Bound by memory: x is read once and y written once.

    Examples
    --------
    >>> import numpy as np
    >>> pad(np.array([1.0, 2.0, 3.0]), (2, 1), "reflect")
    array([3., 2., 1., 2., 3., 2.])
    >>> pad(np.array([1.0, 2.0, 3.0]), (2, 1), "symmetric")
    array([2., 1., 1., 2., 3., 3.])
    """
    name = "pad"
    dtype = checked(name, "x", x)
    pads = _pairs(name, pad, x.ndim)
    mode = border(name, mode, argument="mode")
    value = constant(name, "value", value)
    _check_value(name, mode, value)
    shape, sizes = _frame(name, x.shape, pads, mode, value)
    y = room(name, out, shape, dtype, x)
    apply("pad", "pad", sizes, flat(x, dtype), y, work=y.size)
    return y


def pad_backward(
    grad_output: Array,
    pad: Sequence[int],
    mode: str = "constant",
    *,
    out: Array | None = None,
) -> Array:
    """Take the gradient of `pad`: each element of x gets those of all its places.

    Parameters
    ----------
    grad_output : (...) float32 or float64
        Gradient of the padded array.
    pad, mode
        As in the forward call.
    out : ndarray, optional
        Where to write grad_x: C-contiguous, of its shape and dtype, no part of
        grad_output.

    Returns
    -------
    grad_x : (...), dtype of grad_output
        Each padded axis is shorter by its two pads.

    Raises
    ------
    ValueError, TypeError
        As `pad`, and when the pads leave nothing of an axis.

    Notes
    -----
    What lies in x comes first in every sum, then the other places in a fixed order.

    Examples
    --------
    >>> import numpy as np
    >>> pad_backward(np.ones(6), (2, 1), "reflect")
    array([1., 3., 2.])
    """
    name = "pad_backward"
    dtype = checked(name, "grad_output", grad_output)
    pads = _pairs(name, pad, grad_output.ndim)
    mode = border(name, mode, argument="mode")
    lead = grad_output.ndim - len(pads)
    axes = zip(grad_output.shape[lead:], pads, strict=True)
    extents = tuple(extent - lo - hi for extent, (lo, hi) in axes)
    if min(extents) < 1:
        raise ValueError(
            f"{name}: pad must leave at least one element of each axis, got "
            f"{shown(pad)} for "
            f"grad_output {grad_output.shape}"
        )
    shape = (*grad_output.shape[:lead], *extents)
    _, sizes = _frame(name, shape, pads, mode, 0.0)
    grad_x = room(name, out, shape, dtype, grad_output)
    apply("pad", "fold", sizes, flat(grad_output, dtype), grad_x, work=grad_output.size)
    return grad_x


def _pairs(function: str, pad: Any, ndim: int) -> _Pads:
    """Give a pair for each padded axis, in the order of the axes."""
    if not isinstance(pad, (tuple, list)):
        raise TypeError(
            f"{function}: pad must be a tuple of integers, got {shown(pad)}"
        )
    if len(pad) not in (2, 4, 6):
        raise ValueError(
            f"{function}: pad must have 2, 4 or 6 entries, got {shown(pad)}"
        )
    if len(pad) > 2 * ndim:
        raise ValueError(
            f"{function}: pad must not have more pairs than the array has axes, {ndim}, "
            f"got {shown(pad)}"
        )
    numbers = [integer(function, "pad", n) for n in pad]
    if min(numbers) < 0:
        raise ValueError(f"{function}: pad must be >= 0, got {shown(pad)}")
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return tuple(pairs)[::-1]


def _check_value(function: str, mode: Border, value: float) -> None:
    """Refuse a value that would not be used."""
    if value and mode != "constant":
        raise ValueError(
            f'{function}: value needs mode "constant", got {shown(value)} '
            f"with {shown(mode)}"
        )


@lru_cache(maxsize=1024)
def _frame(
    function: str, shape: tuple[int, ...], pads: _Pads, mode: Border, value: float
) -> tuple[tuple[int, ...], Any]:
    """Check the shape of x; give that of y, and what the kernel reads."""
    lead = len(shape) - len(pads)
    extents = shape[lead:]
    if min(extents) < 1:
        raise ValueError(f"{function}: padded axes must not be empty, got x {shape}")
    if mode == "reflect":
        check_reflect(function, extents, pads)
    padded = tuple(lo + i + hi for i, (lo, hi) in zip(extents, pads, strict=True))
    whole = (*shape[:lead], *padded)
    check_addressable(function, "the output", whole)
    before = tuple(-lo for lo, _ in pads)
    return whole, frame(
        prod(shape[:lead]),
        fold(padded, 1),
        fold(before, 0),
        fold(extents, 1),
        mode,
        value,
    )
