"""Gradients of x where something else than zeros lies around it.

What windows see beyond the border are elements of x: these get a second share of the
gradient. Kernels of planes of one channel a group add it themselves (`Plan.folds`). For all
others it is found in one of two ways, whichever is estimated to be faster:

- sides: the kernels sum what belongs to x where it lies, as with zeros, and each side of
  the padding is a gradient of its own, of the windows and taps that reach it, added to the
  elements of x that lie there. As many products as the padding takes, and no more:

      +---------------------+
      |       before y      |
      +----+-----------+----+      A side along y is as wide as x and its padding, one
      |    |     x     |    |      along x as high as x.
      +----+-----------+----+
      |       behind y      |
      +---------------------+

- whole: the gradient of all of a padded x, some samples at a time, folded onto x. Tiles
  of a transform often cover the padding for nothing.
"""

import struct
from array import array
from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import inf, prod
from typing import NamedTuple

import numpy as np

from convcore import plan
from convcore.functional.call import apply, run
from convcore.problem import ConvProblem, Pair
from convcore.problem.border import BORDERS, Border
from convcore.runtime.arrays import Array, empty, flat

Range = tuple[int, int]

WHOLE_BYTES = 1 << 22  # of padded gradients at a time, if a sample has no more
SIDE = 1.7  # times as long as estimated: small problems, and operands that are cut out
CALL = 1.5e-5  # seconds for what is done around a kernel
SPARSE = (
    8  # positions for one that a window reaches: with more, each is a side by itself
)
DENSE = ("direct", "gemm", "planes", "depthwise", "phases")  # all taps of each element
_ALL = (None, None)
FOLD = 4e-11  # seconds for a byte of a padded gradient: written, read, folded


class Part(NamedTuple):
    """The gradient of some samples of a padded x."""

    plan: plan.Plan
    some: slice
    shape: tuple[int, ...]
    sizes: "array[int]"  # for the kernel that folds it


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
    mode: Border,
    value: float = 0.0,
) -> "array[int]":
    """Give the integers of kernels/pad.pyx."""
    bits = struct.unpack("q", struct.pack("d", value))[0]
    return array("q", (planes, *count, *first, *extent, BORDERS.index(mode), bits))


def add_sides(
    sides: tuple[Side, ...], grad_y: Array, weight: Array, grad_x: Array
) -> None:
    """Add to the gradient of x what it gets from beyond its border.

    Arrays have three spatial axes.
    """
    dtype = grad_x.dtype
    for side in sides:
        share = empty(side.shape, dtype)
        seen, reaching = grad_y[side.windows], _cut(weight, side)
        run(side.plan, flat(seen, dtype), reaching, None, share)
        apply("pad", "fold", side.sizes, share, grad_x, work=share.size)


def _cut(weight: Array, side: Side) -> Array:
    """Cut the taps of a side out of the weights: of rows, tap by tap is faster."""
    cut = weight[side.taps]
    if cut.shape[-1] == 1 or cut.shape == weight.shape:
        return flat(cut, weight.dtype)
    reaching = empty(cut.shape, weight.dtype)
    for tap in np.ndindex(cut.shape[2:]):
        reaching[(..., *tap)] = cut[(..., *tap)]
    return reaching


def fold_whole(
    parts: tuple[Part, ...], grad_y: Array, weight: Array, grad_x: Array
) -> None:
    """Write the gradient of x by that of a padded x. Arrays have three spatial axes."""
    for part in parts:
        share = empty(part.shape, grad_x.dtype)
        run(part.plan, grad_y[part.some], weight, None, share)
        apply("pad", "fold", part.sizes, share, grad_x[part.some], work=share.size)


@lru_cache(maxsize=1024)
def parts_of(
    problem: ConvProblem, dtype: str, algorithm: str, fast: bool, isa: str
) -> tuple[Part, ...]:
    """List the parts that `fold_whole` is done in; `fast` and `isa` as parts of the key."""
    item = 4 if dtype == "float32" else 8
    whole = _padded(problem)
    each = max(1, WHOLE_BYTES // (item * prod(whole.x_shape[1:])))
    before = tuple(-lo for lo, _ in problem.padding)
    parts = []
    for first in range(0, problem.n, each):
        some = slice(first, min(first + each, problem.n))
        part = replace(whole, n=some.stop - first)
        channels = part.n * part.ic
        parts.append(
            Part(
                plan.select(part, "dgrad", dtype, algorithm),
                some,
                (part.n, part.ic, *part.in_extent),
                frame(
                    channels, part.in_extent, before, problem.in_extent, problem.border
                ),
            )
        )
    return tuple(parts)


@lru_cache(maxsize=4096)
def whole_is_faster(
    problem: ConvProblem, dtype: str, algorithm: str, fast: bool, isa: str
) -> bool:
    """Tell whether `fold_whole` is estimated to be faster than `add_sides`.

    `fast` and `isa` are here as parts of the key. Where the choice of an algorithm may not
    look at the batch, neither does this.
    """
    bound = algorithm != "auto" or not fast
    if bound:
        problem = replace(problem, n=1)
    padded = _padded(problem)
    try:
        chosen = plan.select(padded, "dgrad", dtype, algorithm)
    except ValueError:  # the algorithm takes x, but not a padded x
        return False
    item = 4 if dtype == "float32" else 8
    whole = plan.seconds(chosen) + FOLD * item * prod(padded.x_shape)
    if chosen.algorithm in DENSE:
        whole *= prod(padded.in_extent) / prod(problem.in_extent)
    sides = plan.seconds(plan.select(problem.core, "dgrad", dtype, algorithm))
    for side in sides_of(problem, dtype, bound, isa):
        sides += CALL + SIDE * plan.seconds(side.plan)
    return whole + CALL < sides < inf


def forget() -> None:
    """Forget which algorithms were chosen, after measurements that change choices."""
    for cached in (parts_of, whole_is_faster, sides_of):
        cached.cache_clear()


def _padded(problem: ConvProblem) -> ConvProblem:
    """Give the problem over a padded x."""
    extents = zip(problem.in_extent, problem.padding, strict=True)
    d, h, w = (i + lo + hi for i, (lo, hi) in extents)
    none: Pair = (0, 0)
    return replace(problem.core, in_extent=(d, h, w), padding=(none, none, none))


@lru_cache(maxsize=4096)
def sides_of(
    problem: ConvProblem, dtype: str, bound: bool, isa: str
) -> tuple[Side, ...]:
    """List the sides of x where its gradient gets more than zeros would give.

    `bound` to bits that do not depend on the batch: then they are direct sums. `isa` is
    here as a part of the key.
    """
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
            pieces = [_pieces(problem, *each) for each in enumerate(spans)]
            for piece in product(*pieces):
                side = _side(problem, dtype, list(piece), bound)
                if side is not None:
                    sides.append(side)
    return tuple(sides)


def _pieces(problem: ConvProblem, axis: int, span: Range) -> list[Range]:
    """Cut positions of an axis into those that windows reach, where they are few."""
    found = _reach(problem, axis, span)
    if found is None:
        return []
    (first, stop), taps, windows, _ = found
    if stop - first <= SPARSE * (taps[1] - taps[0]) * (windows[1] - windows[0]):
        return [span]
    lo = problem.padding[axis][0]
    at = {
        problem.stride[axis] * window + problem.dilation[axis] * tap - lo
        for window in range(*windows)
        for tap in range(*taps)
    }
    return [(i, i + 1) for i in sorted(at) if first <= i < stop]


def _side(
    problem: ConvProblem, dtype: str, spans: list[Range], bound: bool
) -> Side | None:
    """Describe the gradient of a box of positions; None if no window sees it."""
    axes = [_reach(problem, axis, span) for axis, span in enumerate(spans)]
    if None in axes:
        return None
    found = [axis for axis in axes if axis is not None]
    (dz, dy, dx), (kz, ky, kx), (oz, oy, ox) = (
        [stop - first for first, stop in (axis[i] for axis in found)] for i in range(3)
    )
    pz, py, px = (axis[3] for axis in found)
    part = replace(
        problem.core,
        in_extent=(dz, dy, dx),
        kernel=(kz, ky, kx),
        out_extent=(oz, oy, ox),
        padding=(pz, py, px),
        ndim=3,
    )
    algorithm = plan.direct_of(part, "dgrad").name if bound else "auto"
    return Side(
        plan.select(part, "dgrad", dtype, algorithm),
        tuple(slice(*span) for span in (_ALL, _ALL, *(axis[2] for axis in found))),
        tuple(slice(*span) for span in (_ALL, _ALL, *(axis[1] for axis in found))),
        part.x_shape,
        frame(
            problem.n * problem.ic,
            part.in_extent,
            tuple(axis[0][0] for axis in found),
            problem.in_extent,
            problem.border,
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
