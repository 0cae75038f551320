"""What lies beyond the border of an array, made real: padding, and its gradient."""

from collections.abc import Sequence

import numpy as np

from convcore.problem import Pair
from convcore.problem.border import source_index
from convcore.reference.taps import Array, ieee


def pad(
    x: Array, padding: Sequence[Pair], mode: str = "zeros", value: float = 0.0
) -> Array:
    """Write an array with what lies around it along its last axes.

    Parameters
    ----------
    x : (..., *spatial)
    padding : one (lo, hi) pair for each of the spatial axes
        Elements before and after.
    mode : str
        One of `convcore.problem.border.BORDERS`.
    value : float
        What a "constant" border holds.

    Returns
    -------
    y : (..., *padded), dtype of x

    Examples
    --------
    >>> pad(np.array([1, 2, 3]), [(2, 3)], "reflect")
    array([3, 2, 1, 2, 3, 2, 1, 2])
    """
    for axis, (extent, pair) in enumerate(_axes(x.shape, padding), -len(padding)):
        x = np.moveaxis(x, axis, 0)
        fill = np.full(x.shape[1:], value, x.dtype)
        found = [source_index(i, extent, mode) for i in _positions(extent, pair)]
        x = np.stack([fill if i is None else x[i] for i in found])
        x = np.moveaxis(x, 0, axis)
    return x


def pad_grad(
    grad_y: Array, extents: Sequence[int], padding: Sequence[Pair], mode: str = "zeros"
) -> Array:
    """Add the gradient of every padded element to that of the element it was.

    Parameters
    ----------
    grad_y : (..., *padded)
    extents : ints
        Of the spatial axes without padding.
    padding, mode
        As for `pad`.

    Returns
    -------
    grad_x : (..., *extents), dtype of grad_y

    Examples
    --------
    >>> pad_grad(np.ones(8), [3], [(2, 3)], "reflect")
    array([2., 4., 2.])
    """
    with ieee():
        for axis, (extent, pair) in enumerate(
            zip(extents, padding, strict=True), -len(padding)
        ):
            rows = np.moveaxis(grad_y, axis, 0)
            folded = np.zeros((extent, *rows.shape[1:]), grad_y.dtype)
            for row, i in zip(rows, _positions(extent, pair), strict=True):
                found = source_index(i, extent, mode)
                if found is not None:
                    folded[found] += row
            grad_y = np.moveaxis(folded, 0, axis)
    return grad_y


def _axes(shape: tuple[int, ...], padding: Sequence[Pair]) -> list[tuple[int, Pair]]:
    """Join the extents of the last axes with their padding."""
    return list(zip(shape[-len(padding) :], padding, strict=True))


def _positions(extent: int, pair: Pair) -> range:
    """Walk over an axis with its padding."""
    return range(-pair[0], extent + pair[1])
