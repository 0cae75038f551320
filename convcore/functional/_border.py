"""Gradients of x where something else than zeros lies around it.

What windows see beyond the border are elements of x: these get a second share of the
gradient. The kernels sum what belongs to x where it lies, as with zeros. What belongs to
the padding is summed here, side by side, and added to the elements that lie there:

    +---------------------+      Each side is a gradient of its own, of the windows
    |       before y      |      and taps that reach it: as many products as the
    +----+-----------+----+      padding takes, and nothing as large as x besides.
    |    |     x     |    |
    +----+-----------+----+      A side along y is as wide as x and its padding, one
    |       behind y      |      along x as high as x.
    +---------------------+
"""

import struct
from array import array
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from convcore import plan
from convcore.functional.call import apply, run
from convcore.problem import ConvProblem
from convcore.problem.border import BORDERS
from convcore.runtime.arrays import Array, flat

Range = tuple[int, int]


class Side(NamedTuple):
    """The gradient of the padding on one side of x."""

    plan: plan.Plan
    windows: tuple[slice, ...]  # that see it, in (od, oh, ow)
    taps: tuple[slice, ...]  # that reach it, in (kd, kh, kw)
    shape: tuple[int, ...]
    sizes: "array[int]"  # for the kernel that adds it to x


def frame(
    planes: int,
    count: tuple[int, ...],
    first: tuple[int, ...],
    extent: tuple[int, ...],
    mode: str,
    value: float = 0.0,
    adds: bool = False,
) -> "array[int]":
    """Give the integers of kernels/pad.pyx."""
    bits = struct.unpack("q", struct.pack("d", value))[0]
    border = BORDERS.index(mode)  # type: ignore[arg-type]
    return array("q", (planes, *count, *first, *extent, border, bits, adds))


def add_sides(
    sides: tuple[Side, ...], grad_y: Array, weight: Array, grad_x: Array
) -> None:
    """Add to the gradient of x what it gets from beyond its border."""
    for side in sides:
        problem = side.plan.problem
        assert isinstance(problem, ConvProblem)
        share = np.empty(side.shape, grad_x.dtype)
        seen, reaching = grad_y[side.windows], weight[side.taps]
        dtype = grad_x.dtype
        run(side.plan, flat(seen, dtype), flat(reaching, dtype), None, share)
        apply("pad", "fold", side.sizes, share, grad_x, work=share.size)


@lru_cache(maxsize=4096)
def sides_of(problem: ConvProblem, dtype: str) -> tuple[Side, ...]:
    """List the sides of x where its gradient gets more than zeros would give."""
    if problem.border in ("zeros", "constant"):
        return ()
    sides = []
    for axis, (lo, hi) in enumerate(problem.padding):
        extent = problem.in_extent[axis]
        for span in ((-lo, 0), (extent, extent + hi)):
            spans = [
                span
                if other == axis
                else (0, i)
                if other < axis
                else (-before, i + behind)
                for other, (i, (before, behind)) in enumerate(
                    zip(problem.in_extent, problem.padding, strict=True)
                )
            ]
            side = _side(problem, dtype, spans)
            if side is not None:
                sides.append(side)
    return tuple(sides)


def _side(problem: ConvProblem, dtype: str, spans: list[Range]) -> Side | None:
    """Describe the gradient of a box of positions; None if no window sees it."""
    axes = [_reach(problem, axis, span) for axis, span in enumerate(spans)]
    if None in axes:
        return None
    found = [axis for axis in axes if axis is not None]
    (dz, dy, dx), (kz, ky, kx), (oz, oy, ox) = (
        [stop - first for first, stop in (axis[i] for axis in found)] for i in range(3)
    )
    part = replace(
        problem.core,
        in_extent=(dz, dy, dx),
        kernel=(kz, ky, kx),
        out_extent=(oz, oy, ox),
        padding=tuple(axis[3] for axis in found),
        ndim=3,
    )
    card = plan.direct_of(part, "dgrad")  # whose choice does not look at the batch
    return Side(
        plan.select(part, "dgrad", dtype, card.name),
        (..., *(slice(*axis[2]) for axis in found)),  # type: ignore[arg-type]
        (..., *(slice(*axis[1]) for axis in found)),  # type: ignore[arg-type]
        part.x_shape,
        frame(
            problem.n * problem.ic,
            part.in_extent,
            tuple(axis[0][0] for axis in found),
            problem.in_extent,
            problem.border,
            adds=True,
        ),
    )


def _reach(
    problem: ConvProblem, axis: int, span: Range
) -> tuple[Range, Range, Range, tuple[int, int]] | None:
    """Find what meets positions first .. stop of an axis.

    Gives the positions that are met, the taps and the windows that meet them, and the
    padding of the problem that these make; None if there are none.
    """
    s, d, k = problem.stride[axis], problem.dilation[axis], problem.kernel[axis]
    lo, windows = problem.padding[axis][0], problem.out_extent[axis]
    first, stop = (
        place + lo for place in span
    )  # tap t of window o is at s * o + d * t
    if first == stop:
        return None
    o0 = max(0, -((d * (k - 1) - first) // s))
    o1 = min(windows - 1, (stop - 1) // s)
    if o0 > o1:
        return None
    t0 = max(0, -((s * o1 - first) // d))
    t1 = min(k - 1, (stop - 1 - s * o0) // d)
    if t0 > t1:
        return None
    first = max(first, s * o0 + d * t0)
    stop = min(stop, s * o1 + d * t1 + 1)
    if first >= stop:
        return None
    before = first - s * o0 - d * t0
    behind = s * o1 + d * t1 + 1 - stop
    return (first - lo, stop - lo), (t0, t1 + 1), (o0, o1 + 1), (before, behind)
