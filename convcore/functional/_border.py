"""Borders: what lies around a box, and how much of a window lies on real elements."""

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from convcore.problem import ConvProblem
from convcore.runtime.arrays import Array

Box = tuple[tuple[int, int], ...]  # (begin, end) along each axis
Slab = tuple[slice, ...]

_NARROW = 8  # columns


def around(box: Box, extent: tuple[int, ...]) -> Iterator[Slab]:
    """Cut what is outside of a box into slabs that do not overlap.

    Few columns come one by one: NumPy then walks down each, and not along a few elements
    of every row.

    Examples
    --------
    >>> [slab[-1] for slab in around(((1, 4),), (5,))]
    [slice(0, 1, None), slice(4, 5, None)]
    """
    inside: list[slice] = []
    for axis, ((begin, end), size) in enumerate(zip(box, extent, strict=True)):
        rest = [slice(0, other) for other in extent[axis + 1 :]]
        for lo, hi in ((0, begin), (max(begin, end), size)):
            step = 1 if inside and not rest and hi - lo <= _NARROW else max(hi - lo, 1)
            for at in range(lo, hi, step):
                yield (*inside, slice(at, at + step), *rest)
        if begin >= end:
            return
        inside.append(slice(begin, end))


class Scale(NamedTuple):
    """By what the sums of a partial convolution are multiplied.

    Attributes
    ----------
    ratio : broadcast over (N, C_out, *spatial)
        All taps over those that count; 0 where there is none.
    box : (begin, end) along each spatial axis
        Where the ratio is known to be 1.
    holes : bool
        Whether there is a window in which no tap counts.
    """

    ratio: Array
    box: Box
    holes: bool


def border_scale(problem: ConvProblem, dtype: np.dtype[Any]) -> Scale:
    """Give all taps over those on real elements, for each window.

    Parameters
    ----------
    problem : ConvProblem
    dtype : float32 or float64
        Of the ratio.

    Returns
    -------
    scale : Scale
        Its ratio has the problem's spatial axes of y. It is kept for the next call, and
        not to be written to.

    Notes
    -----
    The taps on real elements are a product of those along each axis.
    """
    n = problem.ndim
    return _border_scale(
        problem.in_extent[-n:],
        problem.kernel[-n:],
        problem.stride[-n:],
        problem.padding[-n:],
        problem.dilation[-n:],
        problem.out_extent[-n:],
        dtype,
    )


@lru_cache(maxsize=128)
def _border_scale(
    extent: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Box,
    dilation: tuple[int, ...],
    out: tuple[int, ...],
    dtype: np.dtype[Any],
) -> Scale:
    counted = np.ones(())
    box: Box = ()
    for axis in zip(extent, kernel, stride, padding, dilation, out, strict=True):
        counts = _counts(*axis)
        full = np.flatnonzero(counts == axis[1])
        box += ((int(full[0]), int(full[-1]) + 1) if full.size else (0, 0),)
        counted = counted[..., None] * counts
    ratio = np.zeros(counted.shape)
    np.divide(float(prod(kernel)), counted, out=ratio, where=counted > 0)
    ratio = ratio.astype(dtype)
    ratio.flags.writeable = False
    return Scale(ratio, box, bool((counted == 0).any()))


def _counts(
    extent: int,
    kernel: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    out: int,
) -> Array:
    """Count the taps of each window that are on real elements, along one axis."""
    step = min(stride, extent + sum(padding))  # beyond which there is one window
    way = padding[0] - np.arange(out) * step  # from the first tap to the first element
    first = np.maximum(0, -(-way // dilation))
    last = np.minimum(kernel - 1, (extent - 1 + way) // dilation)
    counts: Array = np.maximum(0, last - first + 1)
    return counts
