"""Ctrl-C in the middle of a long call: it ends soon, and the next one is right.

Measured in CPU time of one thread, which a busy machine does not stretch by much. The
promise is 0.1 s: `python -m benchmarks.bench_interrupt` holds it over many more shapes.
"""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import convcore
from benchmarks.bench_interrupt import convolve, latency, training
from convcore import functional as F
from convcore import train
from convcore.problem import ConvProblem
from tests import conv_helpers, operations
from tests.fresh import answer

SECONDS = 0.4  # four times the promise
SPELLING = "n24g1ic64ih112oc64kh3ph1"
PROBLEM = ConvProblem.parse(SPELLING)
FAMILIES = [
    *(
        (PROBLEM, *found)
        for found in conv_helpers.accepting(PROBLEM)
        if found[1] != "bgrad"
    ),
    *(
        (problem, *found)
        for problem in map(
            ConvProblem.parse,
            ("n24g256ic256ih112oc256kh3ph1", "n8000g1ic2304ih1oc2304kh1"),
        )
        for found in conv_helpers.accepting(problem)
        if found[0] in ("depthwise", "planes", "dot") and found[1] != "bgrad"
    ),
]


@pytest.fixture(autouse=True)
def _timer() -> Iterator[None]:
    if not hasattr(signal, "ITIMER_PROF"):
        pytest.skip("no timer of CPU time here")
    before = signal.signal(signal.SIGPROF, signal.default_int_handler)
    with convcore.num_threads(1):
        yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def interrupt(call: Callable[[], Any]) -> None:
    """Interrupt a call, again and again if it is short, and look at the next one."""

    def often() -> None:
        for _ in range(40):
            call()

    right = operations.digest_of_few(61)
    wait = latency(often, 0.02)
    assert wait is not None, "it ended before"
    assert wait < SECONDS
    assert operations.digest_of_few(61) == right


@pytest.mark.parametrize(
    ("problem", "algorithm", "direction"), FAMILIES, ids=lambda part: str(part)
)
def test_convolution(problem: ConvProblem, algorithm: str, direction: Any) -> None:
    x, y, w = (
        np.ones(shape, np.float32)
        for shape in (problem.x_shape, problem.y_shape, problem.weight_shape)
    )
    arrays = {"fprop": (x, w, None, y), "dgrad": (y, w, None, x), "wgrad": (x, y, w)}
    interrupt(partial(convolve, problem, algorithm, direction, arrays[direction]))


X = np.ones((2, 16, 700, 700), np.float32)
WINDOW = (21, 1, 10)
CALLS: dict[str, Callable[[], Any]] = {
    "max_pool2d": lambda: F.max_pool2d(X, *WINDOW),
    "max_pool2d indices": lambda: F.max_pool2d(X, *WINDOW, return_indices=True),
    "max_pool2d_backward": lambda: F.max_pool2d_backward(
        X, F.max_pool2d(X, *WINDOW, return_indices=True)[1], X.shape, *WINDOW
    ),
    "avg_pool2d": lambda: F.avg_pool2d(X, *WINDOW),
    "avg_pool2d_backward": lambda: F.avg_pool2d_backward(X, X.shape, *WINDOW),
    "lp_pool2d": lambda: F.lp_pool2d(X, 3, 21, 1),
    "batch_norm": lambda: F.batch_norm(X, None, None, training=True),
    "batch_norm_backward": lambda: F.batch_norm_backward(
        X, X, None, None, training=True
    ),
    "layer_norm": lambda: F.layer_norm(X, X.shape[1:]),
    "layer_norm_backward": lambda: F.layer_norm_backward(X, X, X.shape[1:]),
    "softmax": lambda: F.softmax(X),
    "gelu": lambda: F.gelu(X),
    "keyed_dropout": lambda: F.keyed_dropout(X, 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_others(name: str) -> None:
    interrupt(CALLS[name])


def test_fit() -> None:
    """The values are those of a step that was whole."""
    model, x, fit = training(256, 48)
    interrupt(fit)
    assert np.isfinite(train.predict(model, x)).all()


def test_a_real_interrupt_of_several_threads() -> None:
    """SIGINT from outside, in a call of a minute or so."""
    code = """
import os, signal, threading, time
import numpy as np, convcore
from convcore import functional as F
convcore.set_num_threads(2)
x, w = np.ones((64, 256, 112, 112), "f4"), np.ones((1024, 256, 3, 3), "f4")
small = np.ones((2, 256, 20, 20), "f4")
right = F.conv2d(small, w)
def interrupt():
    global sent
    time.sleep(0.5)
    sent = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    F.conv2d(x, w)
    print("it ended before")
except KeyboardInterrupt:
    wait = time.monotonic() - sent
    print(wait < 5 and (F.conv2d(small, w) == right).all())
"""
    assert answer(code) == "True"
