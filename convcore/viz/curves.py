"""Curves of a training run."""

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from convcore.arguments import shown
from convcore.viz.tiles import check_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss_curve(
    loss: Sequence[float],
    validation: Sequence[float] | None = None,
    *,
    title: str = "Loss",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the loss per epoch, on a logarithmic scale.

    Parameters
    ----------
    loss : sequence of float
        Mean training loss of each epoch.
    validation : sequence of float, optional
        Loss on held-out data after each epoch.
    title : str
        Text above the curves.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure's when not given.

    Returns
    -------
    matplotlib.axes.Axes
        Epochs are counted from 1. Values that are not positive leave a gap.

    Raises
    ------
    ValueError
        When there is no epoch, or the two sequences differ in length.

    Examples
    --------
    >>> loss_curve([1.0, 0.1], [1.1, 0.3]).get_yscale()
    'log'
    """
    check_labels("loss_curve", title, ax=ax)
    for name, values in (("loss", loss), ("validation", validation)):
        if values is not None and (
            not isinstance(values, (Sequence, np.ndarray))
            or (isinstance(values, np.ndarray) and values.ndim != 1)
            or not all(isinstance(value, Real) for value in values)
        ):
            raise TypeError(
                f"loss_curve: {name} must be a sequence of numbers, got {shown(values):.60}"
            )
    if not len(loss):
        raise ValueError("loss_curve: loss must hold at least one epoch, got none")
    if validation is not None and len(validation) != len(loss):
        raise ValueError(
            f"loss_curve: validation must have {len(loss)} epochs, "
            f"got {len(validation)}"
        )
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if ax is None:
        ax = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained").add_subplot()
    epochs = np.arange(1, len(loss) + 1)
    ax.plot(epochs, loss, marker="o", markersize=3, label="training")
    if validation is not None:
        ax.plot(epochs, validation, marker="s", markersize=3, label="held out")
        ax.legend(frameon=False)
    ax.set_yscale("log", nonpositive="mask")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    ax.set_title(title)
    ax.grid(alpha=0.3, which="both")
    return ax
