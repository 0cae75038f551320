"""Copies of x with what lies around it, as far as windows see it.

A box has x and what lies around it, plane by plane. Where windows lie far apart, what is
between them could be of any size: then it has the elements that they see, one window after
the other::

    x      windows of 3, 9 apart, "circular"          box
    a b c  [b c a] b c a b c a [b c a] b c ...        b c a | b c a | ...
"""

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from convcore.functional._sides import frame
from convcore.functional.call import apply
from convcore.problem import ConvProblem, PoolProblem
from convcore.problem.border import Border
from convcore.problem.rules import Triple
from convcore.runtime.arrays import Array

SPARSE = 8  # positions for one that a window sees: with more, the others are left out
LARGE = 1 << 28  # elements of a channel of a box that need no reason,
REASON = 16  # and for each element of x and of y, if they are more
_FAR = 2**62  # beyond every addressable extent


class Span(NamedTuple):
    """A box along one axis."""

    inside: int  # elements of x
    extent: int  # of the box
    first: int  # position of its first element, counted in x
    stride: int  # of windows in the box
    dilation: int
    seen: (
        tuple[int, int, int, int] | None
    )  # out, kernel, stride, dilation: what it holds


class Box(NamedTuple):
    """What windows see of each plane."""

    spans: tuple[Span, Span, Span]
    mode: Border
    value: float

    @property
    def extent(self) -> Triple:
        """Its extents."""
        d, h, w = (span.extent for span in self.spans)
        return d, h, w

    @property
    def inside(self) -> Triple:
        """The extents of x."""
        d, h, w = (span.inside for span in self.spans)
        return d, h, w

    @property
    def stride(self) -> Triple:
        """Steps of windows in the box."""
        d, h, w = (span.stride for span in self.spans)
        return d, h, w

    @property
    def dilation(self) -> Triple:
        """Steps of the elements of a window in the box."""
        d, h, w = (span.dilation for span in self.spans)
        return d, h, w


def box_of(
    function: str, problem: ConvProblem | PoolProblem, mode: Border, value: float
) -> Box:
    """Find what the windows of a problem see, padding and all.

    Raises
    ------
    ValueError
        When that is far more than x and y have: windows that reach beyond all memory.
    """
    d, h, w = (
        _span(i, o, k, s, lo, step)
        for i, o, k, s, (lo, _), step in zip(
            problem.in_extent,
            problem.out_extent,
            problem.kernel,
            problem.stride,
            problem.padding,
            problem.dilation,
            strict=True,
        )
    )
    box = Box((d, h, w), mode, value)
    reason = REASON * (prod(problem.in_extent) + prod(problem.out_extent))
    if prod(box.extent) > max(LARGE, reason):
        raise ValueError(
            f"{function}: padding with elements must not be larger than memory: windows "
            f"see {prod(box.extent)} elements around {prod(problem.in_extent)} of a "
            f"channel, got padding {problem.padding[-problem.ndim :]}"
        )
    return box


def _span(i: int, out: int, k: int, s: int, lo: int, dilation: int) -> Span:
    """Hold all from the first window to the last or, if that is far, what they see."""
    reach = (k - 1) * dilation + 1
    extent = max(lo + i, (out - 1) * s + reach)  # and all of x
    if extent <= SPARSE * out * k:
        return Span(i, extent, -lo, s, dilation, None)
    seen = (out, k, min(s, _FAR), min(dilation, _FAR))
    return Span(i, out * k, -lo, k, 1, seen)


def fill(box: Box, planes: Array, to: Array) -> None:
    """Write the boxes of planes (planes, D, H, W)."""
    if _is_dense(box):
        apply("pad", "pad", _sizes(box, len(planes)), planes, to, work=to.size)
        return
    (z, y, x), outside = _picked(box)
    np.copyto(to, planes[:, z, y, x])
    np.copyto(to, to.dtype.type(box.value), where=outside)


@np.errstate(all="ignore")
def fold(box: Box, grads: Array, to: Array) -> None:
    """Write the gradient of planes from that of their boxes."""
    if _is_dense(box):
        apply("pad", "fold", _sizes(box, len(to)), grads, to, work=grads.size)
        return
    (z, y, x), outside = _picked(box)
    to.fill(0)
    shares = np.where(outside, grads.dtype.type(0), grads)
    place: Any = (slice(None), z, y, x)
    np.add.at(to, place, shares)


def sources(box: Box, axis: int) -> Array:
    """Tell which element of x lies at each place of a box along an axis; -1 for none."""
    span = box.spans[axis]
    if span.seen is None:
        at = np.arange(span.extent) + span.first
    else:
        out, k, s, d = span.seen
        at = np.add.outer(np.arange(out) * s, np.arange(k) * d).ravel() + span.first
    i = span.inside
    if box.mode in ("zeros", "constant"):
        return np.where((at >= 0) & (at < i), at, -1)
    if box.mode == "replicate":
        return np.clip(at, 0, i - 1)
    if box.mode == "circular":
        return at % i
    period = max(1, 2 * (i - 1)) if box.mode == "reflect" else 2 * i
    at %= period
    return np.where(at < i, at, period - at - (box.mode == "symmetric"))


def _is_dense(box: Box) -> bool:
    return all(span.seen is None for span in box.spans)


@lru_cache(maxsize=1024)
def _sizes(box: Box, planes: int) -> Any:
    """Give what the kernel reads that fills and folds."""
    d, h, w = (span.first for span in box.spans)
    return frame(planes, box.extent, (d, h, w), box.inside, box.mode, box.value)


def _picked(box: Box) -> tuple[tuple[Array, Array, Array], Array]:
    """Index x for each place of the box; where none lies there, anything, and True."""
    z, y, x = np.ix_(*(sources(box, axis) for axis in range(3)))
    outside = (z < 0) | (y < 0) | (x < 0)
    return (z, y, x), outside
