"""A layer along one axis: which elements of its input each element of its output sees.

Every convolution and pooling is a product of such windows, one for each axis.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from convcore.arguments import integer, shown
from convcore.problem.border import border, check_reflect, source_index
from convcore.runtime.arrays import Array

_MOST = 2**63 - 1  # the largest int64


@dataclass(frozen=True, slots=True)
class Window:
    """The connections of one layer along one axis.

    Parameters
    ----------
    extent, out : int
        Elements of its input and of its output.
    kernel : int
        Taps; 0 for an adaptive window, which cuts the input into `out` parts.
    stride, dilation : int
        Steps between windows and between taps.
    padding : (int, int)
        Elements before and after the axis.
    mode : str
        What they are: see `source_index`.
    transposed : bool
        Whether the layer is the transpose of a convolution from `out` to `extent`
        elements, whose arguments these are.
    """

    extent: int
    out: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    padding: tuple[int, int] = (0, 0)
    mode: str = "zeros"
    transposed: bool = False

    def links(self) -> tuple[Array, Array]:
        """List all connections, as the element of y and that of x of each.

        An element of x that a window holds twice, by its padding, is listed twice.
        """
        if not self.kernel:
            return _parts(self.extent, self.out)
        if self.transposed:
            outs, ins = _links(self, self.extent, self.out)
            return ins, outs
        return _links(self, self.out, self.extent)

    def pull(self, counts: Array, axis: int) -> Array:
        """Take counts at each output back to the inputs, along one axis of the array."""
        outs, ins = self.links()
        along = np.moveaxis(counts, axis, 0)
        fan = int(np.bincount(ins).max()) if len(ins) else 0
        along = with_room(along, fan)
        result = np.zeros((self.extent, *along.shape[1:]), along.dtype)
        np.add.at(result, ins, along[outs])
        return np.moveaxis(result, 0, axis)


def axis_counts(
    extent: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    padding: tuple[int, int] = (0, 0),
    mode: str = "zeros",
) -> Array:
    """Count the windows that each element of an axis is in.

    Parameters
    ----------
    extent, kernel, stride, dilation, padding, mode
        As for `Window`.

    Returns
    -------
    (extent,) int64 ndarray

    Examples
    --------
    >>> axis_counts(6, 3)
    array([1, 2, 3, 3, 2, 1])
    >>> axis_counts(6, 3, padding=(1, 1))
    array([2, 3, 3, 3, 3, 2])
    >>> axis_counts(6, 3, padding=(1, 1), mode="reflect")
    array([2, 4, 3, 3, 4, 2])
    """
    name = "axis_counts"
    extent, kernel = (
        integer(name, "extent", extent, 1),
        integer(name, "kernel", kernel, 1),
    )
    stride = integer(name, "stride", stride, 1)
    dilation = integer(name, "dilation", dilation, 1)
    if not isinstance(padding, tuple) or len(padding) != 2:
        raise ValueError(f"{name}: padding must be two integers, got {shown(padding)}")
    low, high = (integer(name, "padding", number, 0) for number in padding)
    padding, reach = (low, high), (kernel - 1) * dilation + 1
    border(name, mode, argument="mode")
    if mode == "reflect" and max(padding):
        check_reflect(name, (extent,), (padding,), "the axis")
    if reach > extent + sum(padding):
        raise ValueError(
            f"{name}: kernel must reach {extent + sum(padding)} elements at most, got "
            f"one of {reach}"
        )
    out = (extent + sum(padding) - reach) // stride + 1
    window = Window(extent, out, kernel, stride, dilation, padding, mode)
    return window.pull(np.ones(out, np.int64), 0)


def total(one: Array, other: Array) -> Array:
    """Add counts of the same pixels, exactly."""
    larger = one if _largest(one) > _largest(other) else other
    dtype = with_room(larger, 2).dtype
    result: Array = one.astype(dtype) + other.astype(dtype)
    return result


def with_room(counts: Array, fan: int) -> Array:
    """Turn int64 into Python's integers if a sum of `fan` counts may not fit."""
    if counts.dtype.kind == "i" and fan * _largest(counts) > _MOST:
        return counts.astype(object)
    return counts


def _largest(counts: Array) -> Any:
    return counts.max() if counts.dtype.kind == "f" else int(counts.max())


def _parts(extent: int, out: int) -> tuple[Array, Array]:
    """List the connections of an adaptive window."""
    bounds = [(o * extent // out, -(-(o + 1) * extent // out)) for o in range(out)]
    outs = [o for o, (first, end) in enumerate(bounds) for _ in range(first, end)]
    ins = [i for first, end in bounds for i in range(first, end)]
    return np.array(outs, np.intp), np.array(ins, np.intp)


@lru_cache(maxsize=256)
def _links(window: Window, out: int, extent: int) -> tuple[Array, Array]:
    """List the connections of a convolution from `extent` to `out` elements."""
    low, high = window.padding
    outs, ins = [], []
    for o in range(out):
        for tap in range(window.kernel):
            place = o * window.stride + tap * window.dilation - low
            if place >= extent + high:
                break  # a last window hangs over the padding: nothing is there
            source = source_index(place, extent, window.mode)
            if source is not None:
                outs.append(o)
                ins.append(source)
    return np.array(outs, np.intp), np.array(ins, np.intp)
