"""The training loop."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from convcore.arguments import Seed, generator, integer, shown
from convcore.nn import Layer, accumulate
from convcore.nn.parameter import commit
from convcore.optim import Optimizer, Schedule
from convcore.runtime import buffers
from convcore.runtime.arrays import Array
from convcore.train.callbacks import (
    Callback,
    History,
    ProgressBar,
    Run,
    check_callbacks,
    progress_bars,
)
from convcore.train.predicting import predict
from convcore.train.samples import check_data, chosen_samples

Metric = Callable[[Array, Array], float]


class Loss(Protocol):
    """What `fit` asks of a loss; `nn.CrossEntropyLoss` and `nn.MSELoss` have it."""

    def __call__(self, x: Array, target: Array) -> Any:
        """Give the loss as a number."""
        ...

    def forward(self, x: Array, target: Array) -> tuple[Any, Callable[[], Array]]:
        """Give the loss, and the function that gives the gradient of x."""
        ...


@buffers.keep_memory()
def fit(
    model: Layer,
    x: Array,
    y: Array,
    *,
    loss: Loss,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int = 64,
    seed: Seed = 0,
    validation: tuple[Array, Array] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    schedule: Schedule | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
) -> History:
    """Train a model on mini-batches.

    Parameters
    ----------
    model : nn.Layer
        Changed in place.
    x : (N, ...) ndarray of float32 or float64
        Samples, N >= 1.
    y : (N, ...) ndarray
        Targets, as the loss wants them.
    loss : nn.CrossEntropyLoss, nn.MSELoss or alike
        Gives `loss.forward(outputs, targets)` -> (number, backward).
    optimizer : optim.Optimizer
        Made from the model's parameters, or from some of them.
    epochs : int
        Times that every sample is seen; at least 0.
    batch_size : int
        Samples of a step; the last batch of an epoch may be smaller.
    seed : int or numpy.random.Generator
        Gives the order of the samples, another in each epoch.
    validation : (x, y), optional
        Held-out data, measured after each epoch in inference mode.
    metrics : mapping of str to function, optional
        `function(outputs, targets)` -> float, measured on the validation data;
        for instance `{"accuracy": accuracy}`.
    schedule : optim.Schedule, optional
        Stepped after each epoch.
    callbacks : sequence of Callback
        Called in order.
    progress : bool, optional
        True shows a tqdm progress bar on stderr, False none; the default is to show it
        when tqdm is installed.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type; before any step.
    FloatingPointError
        When the loss of a batch is NaN or infinite; that batch makes no step.
    ModuleNotFoundError
        When `progress` is True and tqdm is not installed.

    Notes
    -----
    After any exception, a KeyboardInterrupt included, the parameters and the running
    statistics are those of the last finished step.

    Examples
    --------
    >>> from convcore import nn, optim
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(64, 1)
    >>> model = nn.Linear(1, 1)
    >>> optimizer = optim.SGD(model.parameters(), lr=0.3)
    >>> history = fit(model, x, 2 * x, loss=nn.MSELoss(), optimizer=optimizer,
    ...               epochs=20, batch_size=16, progress=False)
    >>> bool(abs(model(x) - 2 * x).max() < 0.01)
    True
    """
    check_data("fit", x, y)
    epochs = integer("fit", "epochs", epochs, 0)
    batch_size = integer("fit", "batch_size", batch_size, 1)
    rng = generator("fit", seed, "seed")
    if validation is not None:
        if not isinstance(validation, (tuple, list)) or len(validation) != 2:
            raise TypeError(
                f"fit: validation must be a pair, got {shown(validation):.40}"
            )
        check_data("fit", *validation, prefix="validation ")
        if validation[0].dtype != x.dtype:
            raise TypeError(
                f"fit: validation x must be {x.dtype} as x is, got "
                f"{validation[0].dtype}"
            )
    elif metrics:
        raise ValueError("fit: metrics must come with validation data, got none")
    _check_trained(model, optimizer)
    _check_helpers(optimizer, loss, metrics, schedule)
    if not isinstance(callbacks, Iterable):
        raise TypeError(
            f"fit: callbacks must be a sequence, got {shown(callbacks):.60}"
        )
    if validation is not None:
        loss(
            model(validation[0][:1]), validation[1][:1]
        )  # raises what would come later
    listeners = [*callbacks, *progress_bars(progress)]
    check_callbacks(listeners)

    history = History(metrics={name: [] for name in metrics or ()})
    batches = -(-len(x) // batch_size)
    run = Run(model, optimizer, epochs, batches, history)
    try:
        for epoch in range(epochs):
            run.epoch = epoch
            for listener in listeners:
                listener.on_epoch_begin(run)
            samples = _shuffled(x, y, batch_size, rng)
            history.loss.append(_train_epoch(run, samples, loss, listeners))
            history.lr.append(optimizer.lr)
            if validation is not None:
                outputs = predict(model, validation[0], batch_size)
                history.validation_loss.append(_number(loss(outputs, validation[1])))
                for name, metric in (metrics or {}).items():
                    history.metrics[name].append(float(metric(outputs, validation[1])))
            if schedule is not None:
                schedule.step()
            for listener in listeners:
                listener.on_epoch_end(run)
            if run.stop:
                break
    finally:
        for listener in listeners:
            if isinstance(listener, ProgressBar):
                listener.close()
    return history


def _shuffled(
    x: Array, y: Array, batch_size: int, rng: np.random.Generator
) -> Iterator[tuple[Array, Array]]:
    """Give every sample and its target once, in batches."""
    order = rng.permutation(len(x))
    for start in range(0, len(x), batch_size):
        chosen = order[start : start + batch_size]
        yield chosen_samples(x, chosen), chosen_samples(y, chosen)


def _train_epoch(
    run: Run,
    batches: Iterable[tuple[Array, Array]],
    loss: Loss,
    listeners: Sequence[Callback],
) -> float:
    """Learn from every batch, and give the mean loss of the samples."""
    total, samples = 0.0, 0
    for batch, (x, y) in enumerate(batches):
        run.batch = batch
        run.loss = _train_batch(run, x, y, loss)
        total += run.loss * len(x)
        samples += len(x)
        for listener in listeners:
            listener.on_batch_end(run)
    return total / samples


def _train_batch(run: Run, x: Array, y: Array, loss: Loss) -> float:
    """Make one step, or leave parameters and running statistics as they were."""
    model, optimizer = run.model, run.optimizer
    statistics = [(buffer, buffer.copy()) for buffer in _buffers(model)]
    updates = optimizer.updates
    try:
        model.zero_grad()
        outputs, backward = model.forward(x)
        result, loss_backward = loss.forward(outputs, y)
        value = _number(result)
        if not math.isfinite(value):
            raise FloatingPointError(
                f"fit: loss must be finite, got {value} in epoch {run.epoch}, "
                f"batch {run.batch}; parameters are those of the step before"
            )
        accumulate(backward, loss_backward())
        optimizer.step()
    except BaseException:
        if optimizer.updates == updates:  # else the step was done when Ctrl-C came
            commit(statistics)
        raise
    return value


def _buffers(model: Layer) -> list[Array]:
    """Give the running statistics: the arrays that layers keep beside parameters."""
    return [
        item
        for layer in model.layers()
        for item in vars(layer).values()
        if isinstance(item, np.ndarray)
    ]


def _number(loss: Any) -> float:
    """Give the value of a loss, which is one number."""
    if np.ndim(loss):
        raise ValueError(f"fit: loss must be one number, got shape {np.shape(loss)}")
    return float(loss)


def _check_helpers(optimizer: Any, loss: Any, metrics: Any, schedule: Any) -> None:
    """Raise when a loss, a metric or a schedule could not be used."""
    if isinstance(loss, type) or not callable(getattr(loss, "forward", None)):
        raise TypeError(
            "fit: loss must have a method forward, as nn.CrossEntropyLoss() has, got "
            f"{shown(loss):.60}"
        )
    if metrics is not None and not (
        isinstance(metrics, Mapping) and all(map(callable, metrics.values()))
    ):
        raise TypeError(
            f"fit: metrics must map names to functions, got {shown(metrics):.60}"
        )
    if schedule is None:
        return
    if not isinstance(schedule, Schedule):
        raise TypeError(
            f"fit: schedule must be an optim.Schedule, got {shown(schedule):.60}"
        )
    if schedule.optimizer is not optimizer:
        raise ValueError("fit: schedule must be made for optimizer, got one of another")


def _check_trained(model: Any, optimizer: Any) -> None:
    """Raise when the optimiser would change anything but the model."""
    if not isinstance(model, Layer):
        raise TypeError(f"fit: model must be a Layer, got {type(model).__name__}")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"fit: optimizer must be an Optimizer, got {type(optimizer).__name__}"
        )
    own = {id(parameter) for parameter in model.parameters()}
    strange = [p.name for p in optimizer.parameters if id(p) not in own]
    if strange:
        raise ValueError(
            "fit: optimizer must hold parameters of model only, got "
            f"{len(strange)} others, the first named {shown(strange[0])}"
        )
