"""What happens beside the training: history, callbacks, the progress bar."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from convcore.arguments import shown
from convcore.nn import Layer
from convcore.optim import Optimizer


@dataclass
class History:
    """What `fit` measured, one entry per finished epoch.

    Parameters
    ----------
    loss : list of float
        Mean of the batches' losses, weighted by their sizes, each taken before its
        step.
    lr : list of float
        Learning rate.
    validation_loss : list of float
        Loss on the validation data after the epoch; empty without them.
    metrics : dict of str to list of float
        The same for each metric.
    """

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Run:
    """Where `fit` is: what every callback gets.

    Parameters
    ----------
    model : Layer
    optimizer : Optimizer
    epochs, batches : int
        Epochs of the run; batches of an epoch.
    history : History
        The finished epochs.
    epoch, batch : int
        The present ones, from 0.
    loss : float
        Loss of the last batch.
    stop : bool
        A callback sets it to end the run after this epoch.
    """

    model: Layer
    optimizer: Optimizer
    epochs: int
    batches: int
    history: History
    epoch: int = 0
    batch: int = 0
    loss: float = math.nan
    stop: bool = False


class Callback:
    """Called by `fit`; a subclass writes the methods that it needs.

    Examples
    --------
    >>> class EarlyStop(Callback):
    ...     def on_epoch_end(self, run):
    ...         losses = run.history.validation_loss
    ...         run.stop = losses[-1] > min(losses)
    """

    def on_epoch_begin(self, run: Run) -> None:
        """Come before the first batch of an epoch."""

    def on_batch_end(self, run: Run) -> None:
        """Come after a step."""

    def on_epoch_end(self, run: Run) -> None:
        """Come when `run.history` holds the epoch."""


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raise when a callback lacks a method."""
    for callback in callbacks:
        for method in ("on_epoch_begin", "on_batch_end", "on_epoch_end"):
            if isinstance(callback, type) or not hasattr(callback, method):
                raise TypeError(
                    f"fit: callbacks must be train.Callback objects, got {shown(callback)}"
                )


class ProgressBar(Callback):
    """A tqdm bar that counts the batches of the whole run."""

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bar: Any = None

    def on_epoch_begin(self, run: Run) -> None:
        """Name the epoch; the bar comes with the first one."""
        if self._bar is None:
            total = run.epochs * run.batches
            self._bar = self._tqdm(total=total, unit="batch", dynamic_ncols=True)
        self._bar.set_description(f"epoch {run.epoch + 1}/{run.epochs}", refresh=False)

    def on_batch_end(self, run: Run) -> None:
        """Count the batch."""
        self._bar.update()

    def on_epoch_end(self, run: Run) -> None:
        """Show what the epoch came to."""
        history = run.history
        shown = {"loss": f"{history.loss[-1]:.4f}"}
        shown |= {name: f"{values[-1]:.4f}" for name, values in history.metrics.items()}
        self._bar.set_postfix(shown)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def progress_bars(progress: bool | None) -> list[ProgressBar]:
    """Give the bar that was asked for, or none."""
    if progress is not None and not isinstance(progress, bool):
        raise TypeError(
            f"fit: progress must be True, False or None, got {shown(progress)}"
        )
    if progress is False:
        return []
    try:
        return [ProgressBar(import_module("tqdm.auto").tqdm)]
    except ImportError:
        if progress is None:
            return []
        raise ModuleNotFoundError(
            "fit: progress=True needs tqdm, which is not installed; "
            'run: pip install "convcore[demo]"'
        ) from None
