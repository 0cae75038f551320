"""What the demo prints and draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from convcore import nn, train, viz
from convcore.demo.model import trace
from convcore.demo.timing import Timing
from convcore.runtime.arrays import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MISREAD = 32  # digits that the picture of the misread ones has room for
RIGHT_INSTEAD = 8  # digits that it shows when none was misread


def history_table(history: train.History) -> str:
    """Spell the losses and the held-out accuracy, a line per epoch."""
    lines = ["epoch    loss  held-out loss  held-out accuracy"]
    lines += [
        f"{epoch:5d}  {loss:6.4f}  {held_out:13.4f}  {accuracy:17.2%}"
        for epoch, (loss, held_out, accuracy) in enumerate(
            zip(
                history.loss,
                history.validation_loss,
                history.metrics["accuracy"],
                strict=True,
            ),
            1,
        )
    ]
    return "\n".join(lines)


def confusion_table(matrix: Array) -> str:
    """Spell a confusion matrix, dots for zeros.

    Examples
    --------
    >>> print(confusion_table(np.array([[40, 2], [0, 7]])))
             read as  0    1
    digit 0          40    2
          1           .    7
    """
    labels = "".join(f"{label:5d}" for label in range(len(matrix)))
    lines = [f"{'read as':>16}{labels[2:]}"]
    for label, row in enumerate(matrix):
        cells = "".join(f"{count or '.':>5}" for count in row)
        lines.append(f"{'' if label else 'digit':5}{label:2d}{'':7}{cells}")
    return "\n".join(lines)


def timing_table(timings: Sequence[Timing]) -> str:
    """Spell how long kernels and NumPy took, and the ratio."""
    rows = [(t.layer, t.kernels, t.numpy) for t in timings]
    rows.append(("all", sum(t.kernels for t in timings), sum(t.numpy for t in timings)))
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'layer':{width}}     kernels       NumPy  times faster"]
    lines += [
        f"{name:{width}}  {kernels * 1e3:7.2f} ms  {numpy * 1e3:7.1f} ms"
        f"  {numpy / kernels:12.1f}"
        for name, kernels, numpy in rows
    ]
    return "\n".join(lines)


def save_pictures(
    out: Path, model: nn.Sequential, history: train.History, x: Array, y: Array
) -> list[Path]:
    """Draw filters, activations, losses and the misread digits, as PNG files.

    Parameters
    ----------
    out : Path
        Directory that exists.
    model : nn.Sequential
        Trained.
    history : train.History
    x, y : (N, 1, H, W) and (N,) ndarray
        Held-out digits.

    Returns
    -------
    list of Path
        The files.
    """
    scores = train.predict(model, x)
    figures = {
        "filters": filters(model),
        "activations": activations(model, x, y, scores),
        "loss": losses(history),
        "misread": misread(x, y, scores),
    }
    paths = []
    for name, figure in figures.items():
        paths.append(out / f"{name}.png")
        figure.savefig(paths[-1])
    return paths


def filters(model: nn.Sequential) -> "Figure":
    """Draw the kernels of the first convolution."""
    first = next(layer for layer in model.layers() if isinstance(layer, nn.Conv2d))
    weight = first.weight.value
    kernel = " × ".join(map(str, weight.shape[2:]))
    ax = viz.filter_grid(
        weight,
        columns=8,
        title=f"What the first layer learned: {len(weight)} filters of {kernel}",
    )
    return cast("Figure", ax.figure)


def activations(model: nn.Sequential, x: Array, y: Array, scores: Array) -> "Figure":
    """Draw the way of the first digit that was read well."""
    index = int(np.argmax(scores.argmax(axis=1) == y))
    digit = x[index : index + 1]
    steps = [("input", digit[0])]
    steps += [
        (type(layer).__name__, output[0])
        for layer, _, output in trace(model, digit)
        if not isinstance(layer, nn.Flatten)
    ]
    steps[-1] = ("scores", steps[-1][1])
    return viz.activation_grid(steps, title=f"A {y[index]} on its way to the scores")


def losses(history: train.History) -> "Figure":
    """Draw the losses of the training."""
    accuracy = history.metrics["accuracy"][-1]
    ax = viz.loss_curve(
        history.loss,
        history.validation_loss,
        title=f"Cross-entropy while training; {accuracy:.2%} of held-out digits right",
    )
    return cast("Figure", ax.figure)


def misread(x: Array, y: Array, scores: Array) -> "Figure":
    """Draw the digits that were read wrong."""
    read = scores.argmax(axis=1)
    wrong = np.flatnonzero(read != y)
    shown = wrong[:MOST_MISREAD]
    title = f"Misread: {len(wrong)} of {len(y)} held-out digits"
    if len(shown) < len(wrong):
        title += f"; here the first {len(shown)}"
    if not len(wrong):
        shown = np.arange(RIGHT_INSTEAD)
        title += f"; here {RIGHT_INSTEAD} that were read right"
    captions = [f"{y[i]} read as {read[i]}" for i in shown]
    return viz.image_grid(x[shown, 0], captions, title=title)
