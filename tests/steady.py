"""Steps of a network in a process of its own: page faults and memory of each.

`run` repeats a kind of step; `Fresh` is what would be wrong, a layer that takes new memory.
"""

import ctypes
import resource
import sys
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np

import convcore
from convcore import nn, optim, train
from convcore.runtime import buffers

WARM, STEPS, BATCH = 20, 40, 16
PAGES = buffers.LEAST // resource.getpagesize()
_DISABLE_LARGE_PAGES = 41  # PR_SET_THP_DISABLE: one fault could stand for 512 pages

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda parameters: optim.SGD(parameters, lr=0.01, momentum=0.9),
    "adam": optim.Adam,
}
KINDS = (*(f"fit {name}" for name in OPTIMIZERS), "backward", "call", "predict")


class Fresh(nn.Layer):
    """The identity, in pages that this process has never had."""

    def __call__(self, x: Any) -> Any:
        y = np.frombuffer(mmap(-1, x.nbytes), x.dtype).reshape(x.shape)
        np.copyto(y, x)
        return y

    def forward(self, x: Any) -> tuple[Any, Any]:
        return self(x), lambda grad: grad


class Look(train.Callback):
    """Look after each step."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def on_batch_end(self, run: Any = None) -> None:
        status = Path("/proc/self/status").read_text("utf-8").splitlines()
        fields = dict(line.split(":", 1) for line in status)
        resident, peak = (
            1024 * int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM")
        )
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self.seen.append((faults, resident, peak))


def network(*more: nn.Layer) -> nn.Sequential:
    """Build a network whose smallest image is as large as what is kept at least."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 64, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Dropout(0.25, rng=3),
        *more,
        nn.Flatten(),
        nn.Linear(64 * 64, 20),
        rng=0,
    )


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4 * BATCH, 3, 32, 32), np.float32)
    return x, rng.integers(0, 20, len(x))


def passes(model: nn.Layer, x: Any, y: Any) -> tuple[Any, Any, Any]:
    """Do a forward and a backward pass; give outputs, their gradient and that of x."""
    model.zero_grad()
    outputs, backward = model.forward(x)
    _, loss_backward = nn.CrossEntropyLoss().forward(outputs, y)
    grad = loss_backward()
    return outputs, grad, backward(grad)


def run(kind: str, *more: nn.Layer) -> None:
    """Print the faults of all steps after the first, and by how much memory grew."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_DISABLE_LARGE_PAGES, 1, 0, 0, 0)
    model, look, (x, y) = network(*more), Look(), data()
    if kind.startswith("fit"):
        train.fit(
            model,
            x,
            y,
            loss=nn.CrossEntropyLoss(),
            optimizer=OPTIMIZERS[kind.split()[1]](model.parameters()),
            batch_size=BATCH,
            epochs=(WARM + STEPS) * BATCH // len(x),
            callbacks=[look],
            progress=False,
        )
    else:
        calls: dict[str, Callable[[], Any]] = {
            "backward": lambda: passes(model, x[:BATCH], y[:BATCH]),
            "call": lambda: model(x[:BATCH]),
            "predict": lambda: train.predict(model, x, BATCH),
        }
        with convcore.keep_memory():
            for _ in range(WARM + STEPS):
                calls[kind]()
                look.on_batch_end()
    assert len(look.seen) == WARM + STEPS
    first, last = look.seen[WARM - 1], look.seen[-1]
    print(*(after - before for before, after in zip(first, last, strict=True)))
