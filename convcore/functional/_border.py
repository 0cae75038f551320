"""Borders: what lies around a box, and how much of a window lies on real elements."""

from collections.abc import Iterator
from functools import lru_cache
from math import prod

import numpy as np

from convcore.problem import ConvProblem
from convcore.runtime.arrays import Array

Box = tuple[tuple[int, int], ...]  # (begin, end) along each axis
Slab = tuple[slice, ...]


def around(box: Box, extent: tuple[int, ...]) -> Iterator[Slab]:
    """Cut what is outside of a box into slabs that do not overlap.

    Examples
    --------
    >>> [slab[-1] for slab in around(((1, 4),), (5,))]
    [slice(0, 1, None), slice(4, 5, None)]
    """
    inside: list[slice] = []
    for axis, ((begin, end), size) in enumerate(zip(box, extent, strict=True)):
        rest = [slice(0, other) for other in extent[axis + 1 :]]
        for lo, hi in ((0, begin), (max(begin, end), size)):
            if lo < hi:
                yield (*inside, slice(lo, hi), *rest)
        if begin >= end:
            return
        inside.append(slice(begin, end))


def border_ratio(problem: ConvProblem) -> tuple[Array, Box]:
    """Give all taps over those on real elements, for each window; 0 where there is none.

    Parameters
    ----------
    problem : ConvProblem

    Returns
    -------
    ratio : float64, the problem's spatial axes of y
        Not to be written to: kept for the next call.
    box : (begin, end) along each axis
        The windows that see no padding: the ratio is 1 there.

    Notes
    -----
    The taps on real elements are a product of those along each axis.
    """
    return _border_ratio(
        problem.in_extent[-problem.ndim :],
        problem.kernel[-problem.ndim :],
        problem.stride[-problem.ndim :],
        problem.padding[-problem.ndim :],
        problem.dilation[-problem.ndim :],
        problem.out_extent[-problem.ndim :],
    )


@lru_cache(maxsize=128)
def _border_ratio(
    extent: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Box,
    dilation: tuple[int, ...],
    out: tuple[int, ...],
) -> tuple[Array, Box]:
    counted = np.ones(())
    box: Box = ()
    for axis in zip(extent, kernel, stride, padding, dilation, out, strict=True):
        counts = _counts(*axis)
        full = np.flatnonzero(counts == axis[1])
        box += ((int(full[0]), int(full[-1]) + 1) if full.size else (0, 0),)
        counted = counted[..., None] * counts
    ratio = np.zeros(counted.shape)
    np.divide(float(prod(kernel)), counted, out=ratio, where=counted > 0)
    ratio.flags.writeable = False
    return ratio, box


def _counts(
    extent: int,
    kernel: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    out: int,
) -> Array:
    """Count the taps of each window that are on real elements, along one axis."""
    way = (
        padding[0] - np.arange(out) * stride
    )  # from the first tap to the first element
    first = np.maximum(0, -(-way // dilation))
    last = np.minimum(kernel - 1, (extent - 1 + way) // dilation)
    counts: Array = np.maximum(0, last - first + 1)
    return counts
