"""Grids of images: filters, activations, inputs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from convcore.arguments import integer, shown
from convcore.runtime.arrays import Array
from convcore.viz.tiles import check_labels, checked_images, tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Zero is white, and stays so next to colours; its two ends are the colours of bars.
SIGNED, POSITIVE, NEGATIVE = "RdBu_r", "#b2182b", "#2166ac"
INK = "gray_r"
FINE = 10  # parts of an element, so that a gap can be a tenth of an image
MOST_TICKS = 20


def filter_grid(
    weight: Array,
    *,
    columns: int | None = None,
    title: str = "Filters",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw every kernel plane of a 2-D convolution's weight.

    Parameters
    ----------
    weight : (C_out, C_in / groups, kh, kw) float ndarray
        One row per filter and one column per input channel; when there is one input
        channel, the filters fill a grid of their own.
    columns : int, optional
        Planes in a row.
    title : str
        Text above the grid.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's when not given.

    Returns
    -------
    matplotlib.axes.Axes
        White is zero, red positive and blue negative, on one scale for all filters.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Examples
    --------
    >>> filter_grid(np.ones((6, 1, 3, 3)), title="First layer").get_title()
    'First layer'
    """
    check_labels("filter_grid", title, ax=ax)
    weight = checked_images("filter_grid", "weight", weight, 4)
    if columns is None and weight.shape[1] > 1:
        columns = weight.shape[1]
    planes = weight.reshape(-1, *weight.shape[2:])
    if columns is None:
        columns = math.ceil(math.sqrt(len(planes)))
    columns = integer("filter_grid", "columns", columns, 1)
    if ax is None:
        ax = _figure(*_inches(planes.shape, columns)).add_subplot()
    image = _draw_planes(ax, planes, columns)
    ax.set_title(title)
    ax.figure.colorbar(image, ax=ax, shrink=0.7, label="weight")
    return ax


def activation_grid(
    steps: Sequence[tuple[str, Array]],
    *,
    most: int = 16,
    title: str = "Activations, layer by layer",
) -> "Figure":
    """Draw one input and what each layer made of it.

    Parameters
    ----------
    steps : sequence of (name, array)
        In order, from the input on. An array is (C, H, W), drawn as a row of channels,
        or (C,), drawn as bars; without the batch axis.
    most : int
        Channels that are drawn of each array; at least 1.
    title : str
        Text above the figure.

    Returns
    -------
    matplotlib.figure.Figure
        One row per step, each on its own scale, because the sizes of activations
        differ. White is zero, red positive and blue negative.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Examples
    --------
    >>> steps = [("input", np.ones((1, 4, 4))), ("scores", np.ones(3))]
    >>> figure = activation_grid(steps)
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['input  1 × 4 × 4', 'scores  3']
    """
    function = "activation_grid"
    check_labels(function, title)
    most = integer(function, "most", most, 1)
    if not isinstance(steps, Sequence) or not all(
        isinstance(step, tuple) and len(step) == 2 and isinstance(step[0], str)
        for step in steps
    ):
        raise TypeError(
            f"{function}: steps must be a sequence of (name, array), "
            f"got {shown(steps):.60}"
        )
    if not steps:
        raise ValueError(f"{function}: steps must hold at least one, got none")
    arrays = [
        checked_images(
            function, f"steps {name!r}", array, 1 if np.ndim(array) == 1 else 3
        )
        for name, array in steps
    ]
    figure = _figure(0.62 * most, 0.95 * len(steps) + 0.6)
    figure.suptitle(title)
    for ax, (name, _), array in zip(
        np.atleast_1d(figure.subplots(len(steps))), steps, arrays, strict=True
    ):
        if array.ndim == 1:
            _draw_bars(ax, array)
        else:
            _draw_channels(ax, array[:most], most)
        some = f", first {most}" if array.ndim == 3 and len(array) > most else ""
        extents = " × ".join(map(str, array.shape))
        ax.set_title(f"{name}  {extents}{some}", loc="left", fontsize=9)
    legend = "white 0, red positive, blue negative; each row on its own scale"
    if any(array.ndim == 1 for array in arrays):
        legend += "; black edge: the largest"
    figure.supxlabel(legend, fontsize=8)
    return figure


def image_grid(
    images: Array,
    captions: Sequence[str] | None = None,
    *,
    columns: int = 8,
    title: str | None = None,
) -> "Figure":
    """Draw images with a caption above each.

    Parameters
    ----------
    images : (N, H, W) float ndarray
        One image or more; small values light, large ones dark, as ink on paper.
    captions : sequence of str, optional
        One for each image.
    columns : int
        Images in a row; at least 1.
    title : str, optional
        Text above the figure.

    Returns
    -------
    matplotlib.figure.Figure
        All images on one scale.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type, or the captions are not as many as
        the images.

    Examples
    --------
    >>> figure = image_grid(np.ones((2, 8, 8)), ["a", "b"])
    >>> [ax.get_title() for ax in figure.axes]
    ['a', 'b']
    """
    check_labels("image_grid", title, captions)
    images = checked_images("image_grid", "images", images, 3)
    columns = min(integer("image_grid", "columns", columns, 1), len(images))
    if captions is not None and len(captions) != len(images):
        raise ValueError(
            f"image_grid: captions must be {len(images)}, one for each image, "
            f"got {len(captions)}"
        )
    rows = math.ceil(len(images) / columns)
    width = 1.15 * columns + 0.3
    if title:
        width = max(width, 0.1 * len(title))  # inches: about a letter's
    figure = _figure(width, 1.4 * rows + (0.4 if title else 0))
    if title:
        figure.suptitle(title)
    low, high = float(images.min()), float(images.max())
    for index, image in enumerate(images):
        ax = figure.add_subplot(rows, columns, index + 1)
        ax.imshow(image, cmap=INK, vmin=low, vmax=high)
        _bare(ax)
        if captions is not None:
            ax.set_title(captions[index], fontsize=9)
    return figure


def _figure(width: float, height: float) -> "Figure":
    """Make a figure, in inches, that belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _inches(shape: tuple[int, ...], columns: int) -> tuple[float, float]:
    """Give a figure's size that fits a grid of planes, its title and colour bar."""
    count, height, width = shape
    rows = math.ceil(count / columns)
    inch = 6.0 / max(rows * height, columns * width)
    return max(columns * width * inch, 2.0) + 1.2, max(rows * height * inch, 2.0) + 0.5


def _bare(ax: "Axes") -> None:
    """Take away ticks and frame."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_frame_on(False)


def _draw_planes(ax: "Axes", planes: Array, columns: int) -> "AxesImage":
    """Draw planes in a grid, framed, on one scale around zero."""
    from matplotlib.patches import Rectangle

    limit = float(np.abs(planes).max()) or 1.0
    _, height, width = planes.shape
    fine = planes.repeat(FINE, axis=1).repeat(FINE, axis=2)
    image = ax.imshow(
        tile(fine, columns, gap=width), cmap=SIGNED, vmin=-limit, vmax=limit
    )
    for index in range(len(planes)):
        row, column = divmod(index, columns)
        left, top = column * (FINE + 1) * width, row * (FINE * height + width)
        frame = Rectangle((left - 0.5, top - 0.5), FINE * width, FINE * height)
        frame.set(fill=False, edgecolor="0.6", linewidth=0.6, clip_on=False)
        ax.add_patch(frame)
    _bare(ax)
    return image


def _draw_channels(ax: "Axes", array: Array, most: int) -> None:
    """Draw channels in a row, as wide as if there were `most`."""
    _draw_planes(ax, array, len(array))
    pitch = (FINE + 1) * array.shape[2]
    ax.set_xlim(-1.5, most * pitch - array.shape[2] + 0.5)
    ax.set_anchor("W")


def _draw_bars(ax: "Axes", array: Array) -> None:
    """Draw a vector as bars, the largest with a black edge."""
    places = np.arange(len(array))
    colours = [POSITIVE if value > 0 else NEGATIVE for value in array]
    widths = np.where(places == array.argmax(), 1.2, 0.0)
    ax.bar(places, array, color=colours, edgecolor="black", linewidth=widths)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xlim(-0.6, len(array) - 0.4)
    _bare(ax)
    if len(array) <= MOST_TICKS:
        ax.set_xticks(places)
        ax.tick_params(labelsize=8, length=0)
