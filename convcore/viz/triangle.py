"""A triangle of numbers: Pascal's, and its wider relatives."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convcore.arguments import shown
from convcore.viz.tiles import check_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADES = "Blues"
DARK = 0.6  # of the shades: from here on text is white
CELL = 0.5  # inches
MOST_DIGITS = 5  # that fit into a cell at full size


def number_triangle(
    rows: Sequence[Sequence[int]],
    *,
    captions: Sequence[str] | None = None,
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw rows of numbers, each centred below the one before.

    Parameters
    ----------
    rows : sequence of sequences of int
        Not empty, and no number negative; for instance `analysis.path_triangle(3, 5)`.
    captions : sequence of str, optional
        One for each row, at its left.
    title : str, optional
        Text above the triangle.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's when not given.

    Returns
    -------
    matplotlib.axes.Axes
        The darker a cell, the larger its number beside the largest of its row.

    Raises
    ------
    ValueError
        When there is no row or an empty one, or captions are not as many as rows.

    Examples
    --------
    >>> ax = number_triangle([[1], [1, 1], [1, 2, 1]], title="Pascal")
    >>> [text.get_text() for text in ax.texts]
    ['1', '1', '1', '1', '2', '1']
    """
    check_labels("number_triangle", title, captions, ax)
    if not isinstance(rows, Sequence) or not all(
        isinstance(row, Sequence) and all(isinstance(n, int) and n >= 0 for n in row)
        for row in rows
    ):
        raise TypeError(
            "number_triangle: rows must be sequences of integers of at least 0, got "
            f"{shown(rows):.60}"
        )
    if not rows or not all(rows):
        raise ValueError(
            "number_triangle: rows must hold a number each, got an empty one"
        )
    if captions is not None and len(captions) != len(rows):
        raise ValueError(
            f"number_triangle: captions must be {len(rows)}, one for each row, got "
            f"{len(captions)}"
        )
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    widest = max(len(row) for row in rows)
    if ax is None:
        size = (CELL * widest + 1.6, CELL * len(rows) + 0.6)
        ax = Figure(figsize=size, dpi=120, layout="constrained").add_subplot()
    digits = max(len(str(number)) for row in rows for number in row)
    shades = colormaps[SHADES]
    for y, row in enumerate(rows):
        left = -len(row) / 2
        for x, number in enumerate(row):
            shade = 0.05 + 0.8 * number / (max(row) or 1)
            corner = (left + x, y)
            ax.add_patch(
                Rectangle(corner, 1, 1, facecolor=shades(shade), edgecolor="white")
            )
            ax.text(
                *(left + x + 0.5, y + 0.5, str(number)),
                ha="center",
                va="center",
                fontsize=10 * min(1, MOST_DIGITS / digits),
                color="white" if shade > DARK else "black",
            )
    ax.set_xlim(-widest / 2, widest / 2)
    ax.set_ylim(len(rows), 0)
    ax.set_aspect("equal")
    ax.set_frame_on(False)
    ax.set_xticks([])
    ax.set_yticks([y + 0.5 for y in range(len(rows))] if captions else [])
    if captions:
        ax.set_yticklabels(captions)
    ax.tick_params(length=0)
    if title:
        ax.set_title(title)
    return ax
