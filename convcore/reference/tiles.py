"""Images cut into tiles, for the definitions of what computes convolutions tile by tile."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


def three_axes(a: Array) -> tuple[int, ...]:
    """Give the shape with three spatial axes."""
    return *a.shape[:2], *(1,) * (5 - a.ndim), *a.shape[2:]


def groups_of(a: Array, groups: int) -> list[Array]:
    """Split (n, g * c, d, h, w) into groups of (n * d, c, h, w)."""
    a = a.reshape(three_axes(a)).swapaxes(1, 2)
    return np.split(a.reshape(-1, *a.shape[2:]), groups, axis=1)


def patches(
    images: Array,
    pads: Sequence[int],
    size: Sequence[int],
    reach: Sequence[int],
    tiles: Sequence[int],
) -> Array:
    """Cut images into patches (n, c, tiles y, tiles x, reach y, reach x).

    Patch t of an axis begins at t * size - pad; outside there are zeros.
    """
    index = []
    for axis, (pad, s, r, t) in enumerate(zip(pads, size, reach, tiles, strict=True)):
        at = s * np.arange(t)[:, None] - pad + np.arange(r)
        inside = (at >= 0) & (at < images.shape[2 + axis])
        index.append((np.where(inside, at, 0), inside))
    (y, y_inside), (x, x_inside) = index
    cut = images[:, :, y[:, None, :, None], x[None, :, None, :]]
    result: Array = cut * (y_inside[:, None, :, None] & x_inside[None, :, None, :])
    return result
