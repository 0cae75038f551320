"""The array behind every grid: many small images laid out as one."""

import math
from typing import Any

import numpy as np

from convcore.arguments import integer, shown
from convcore.runtime.arrays import Array

MOST_GAP = 1 << 20  # elements: wider than any picture


def tile(images: Array, columns: int | None = None, gap: int = 1) -> Array:
    """Lay images out in rows, left to right and top to bottom.

    Parameters
    ----------
    images : (N, H, W) ndarray of float32 or float64
        One image or more, all of one size.
    columns : int, optional
        Images in a row; as square a grid as possible when not given.
    gap : int
        Elements between two images; at least 0.

    Returns
    -------
    (rows * (H + gap) - gap, columns * (W + gap) - gap) ndarray, dtype of images
        The grid; NaN in the gaps and in places without an image, which matplotlib
        leaves transparent.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Examples
    --------
    >>> tile(np.array([[[1.0]], [[2.0]], [[3.0]]]), columns=2)
    array([[ 1., nan,  2.],
           [nan, nan, nan],
           [ 3., nan, nan]])
    """
    images = checked_images("tile", "images", images, 3)
    count, height, width = images.shape
    if columns is None:
        columns = math.ceil(math.sqrt(count))
    columns = min(integer("tile", "columns", columns, 1), count)
    gap = integer("tile", "gap", gap, 0)
    if gap > MOST_GAP:
        raise ValueError(f"tile: gap must be <= {MOST_GAP}, got {gap}")
    rows = math.ceil(count / columns)
    shape = (rows * columns, height + gap, width + gap)
    cells = np.full(shape, np.nan, images.dtype)
    cells[:count, :height, :width] = images
    grid = cells.reshape(rows, columns, height + gap, width + gap).swapaxes(1, 2)
    flat = grid.reshape(rows * (height + gap), columns * (width + gap))
    return flat[: flat.shape[0] - gap, : flat.shape[1] - gap]


def check_labels(
    function: str, title: Any, captions: Any = None, ax: Any = None
) -> None:
    """Raise unless a title is a text, captions are texts, and `ax` can be drawn into."""
    if title is not None and not isinstance(title, str):
        raise TypeError(f"{function}: title must be a str, got {shown(title):.60}")
    if captions is not None and (
        not isinstance(captions, (list, tuple))
        or not all(isinstance(caption, str) for caption in captions)
    ):
        raise TypeError(
            f"{function}: captions must be a list of str, got {shown(captions):.60}"
        )
    if ax is not None and not hasattr(ax, "add_patch"):
        raise TypeError(
            f"{function}: ax must be a matplotlib Axes, got {shown(ax):.60}"
        )


def checked_images(function: str, argument: str, images: Any, ndim: int) -> Array:
    """Give the images, which are a non-empty float array of `ndim` axes."""
    if not isinstance(images, np.ndarray) or images.dtype.kind != "f":
        kind = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"{function}: {argument} must be a float array, got {kind}")
    if images.ndim != ndim or not images.size:
        raise ValueError(
            f"{function}: {argument} must have {ndim} axes and no empty one, "
            f"got shape {images.shape}"
        )
    return images
