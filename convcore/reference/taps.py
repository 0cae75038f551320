"""Which input elements and which windows one element of the kernel joins.

Along one axis, tap k of window o lies on input element `i = s*o + d*k - lo`. For a
fixed k, the windows whose tap falls on a real element are a run of consecutive ones,
and their elements are s apart: two slices. Nothing is ever padded in memory, so
geometry may be as absurd as the shape rules allow (a stride or a dilation of 2**62).
"""

from collections.abc import Iterator
from itertools import product
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convcore.problem import ConvProblem, PoolProblem

Array = npt.NDArray[Any]
Index = tuple[EllipsisType, slice, slice, slice]


def ieee() -> np.errstate:
    """Let Inf and NaN come and go as IEEE arithmetic has it, without warnings."""
    return np.errstate(all="ignore")


class Tap(NamedTuple):
    """One element of the kernel, and the windows in which it meets the input.

    Attributes
    ----------
    kernel : (EllipsisType, int, int, int)
        Index of the tap in a weight of any leading axes.
    out, inp : (EllipsisType, slice, slice, slice)
        Windows, and the input element under the tap in each; equally many.
    """

    kernel: tuple[EllipsisType, int, int, int]
    out: Index
    inp: Index


def taps(problem: ConvProblem | PoolProblem) -> Iterator[Tap]:
    """Walk over the kernel in row-major order.

    A convolution has a weight for every tap, and every tap comes. Of a pooling window
    that is too long to walk over, those come that meet the input in some window.

    Parameters
    ----------
    problem : ConvProblem or PoolProblem

    Yields
    ------
    Tap
        Its slices are empty where the tap falls into padding in every window.

    Examples
    --------
    >>> problem = ConvProblem.conv("conv1d", (1, 1, 5), (1, 1, 3), padding=1)
    >>> [(tap.out[-1], tap.inp[-1]) for tap in taps(problem)][0]
    (slice(1, 5, None), slice(0, 4, 1))
    """
    weighted = isinstance(problem, ConvProblem)
    axes = [
        [
            (k, *_meet(i, o, s, k * d - lo))
            for k in (range(kernel) if weighted else _reached(i, o, kernel, s, lo, d))
        ]
        for i, o, kernel, s, (lo, _), d in zip(
            problem.in_extent,
            problem.out_extent,
            problem.kernel,
            problem.stride,
            problem.padding,
            problem.dilation,
            strict=True,
        )
    ]
    for (kz, oz, iz), (ky, oy, iy), (kx, ox, ix) in product(*axes):
        yield Tap((..., kz, ky, kx), (..., oz, oy, ox), (..., iz, iy, ix))


def _meet(extent: int, out: int, stride: int, offset: int) -> tuple[slice, slice]:
    """Find the windows with `0 <= stride * window + offset < extent`."""
    first = max(0, -(offset // stride))  # rounds up, as Python's // rounds down
    last = min(out - 1, (extent - 1 - offset) // stride)
    if first > last:
        return slice(0, 0), slice(0, 0)
    start, stop = (stride * window + offset for window in (first, last))
    return slice(first, last + 1), slice(start, stop + 1, stride)


def _reached(
    extent: int, out: int, kernel: int, stride: int, lo: int, dilation: int
) -> range | list[int]:
    """List the taps that matter along one axis, in order."""
    if kernel <= extent * out:
        return range(kernel)
    # Longer than all that it can ever touch: ask each window instead.
    touched: set[int] = set()
    for window in range(out):
        offset = stride * window - lo
        first = max(0, -(offset // dilation))
        last = min(kernel - 1, (extent - 1 - offset) // dilation)
        touched.update(range(first, last + 1))
    return sorted(touched)
