"""Measure how long a call goes on after Ctrl-C, in CPU time of one thread.

    python -m benchmarks.bench_interrupt            # all: some four minutes
    python -m benchmarks.bench_interrupt pool fit   # those with one of these in the name

Each call is large enough to take a second or more, or has a shape that makes one step of
it long: few outputs of long sums, windows of millions of elements, one row of all. A timer
of CPU time raises KeyboardInterrupt after a while, as Ctrl-C would, and the time until it
arrives is measured: with CPU time a busy machine makes no difference. The worst of several
moments is printed; "ended" where the call was shorter than the first of them.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import convcore
from convcore import algorithms, nn, optim, plan, train
from convcore import functional as F
from convcore.functional.call import run
from convcore.problem import ConvProblem, Direction

LIMIT = 0.1  # seconds
MOMENTS = (0.03, 0.09, 0.2, 0.35, 0.6)  # seconds after the begin

PROBLEMS = (
    "n16g1ic128ih112oc128kh3ph1",
    "n16g1ic1024ih56oc1024kh1",
    "n4g256ic256ih224oc256kh3ph1",
    "n16g1ic3ih448oc64kh7sh2ph3",
    "n8g1ic128ih224oc128kh3sh2ph1",
    "n1g1ic1ih900oc1kh301ph150",  # many taps
    "n1g1ic16ih300oc16kh101ph50",
    "n2g1ic4096ih40oc2kh40",  # few outputs of long sums
    "n1g1ic1iw90000000oc1kw3",  # one row
    "n1g1ic2ih6000oc2kh3",
    "n4096g1ic8192ih1oc4096kh1",  # fully connected
    "n1g4ic4iw30000000oc16kw2sw2",
)

Call = Callable[[], Any]


def convolutions() -> Iterator[tuple[str, Call]]:
    """Every algorithm, in every direction."""
    for spelling in PROBLEMS:
        problem = ConvProblem.parse(spelling)
        x, y, w = (
            np.ones(shape, np.float32)
            for shape in (problem.x_shape, problem.y_shape, problem.weight_shape)
        )
        for card in algorithms.CONV:
            for direction in card.kernels:
                if card.accepts(problem.folded, direction).yes:
                    arrays = {
                        "fprop": (x, w, None, y),
                        "dgrad": (y, w, None, x),
                        "wgrad": (x, y, w),
                        "bgrad": (y, np.ones(problem.oc, np.float32)),
                    }[direction]
                    name = f"conv {spelling} {card.name} {direction}"
                    yield name, partial(convolve, problem, card.name, direction, arrays)


def convolve(
    problem: ConvProblem, algorithm: str, direction: Direction, arrays: Any
) -> None:
    """Run one algorithm."""
    chosen = plan.select(problem, direction, "float32", algorithm)
    run(replace(chosen), *arrays)


def poolings() -> Iterator[tuple[str, Call]]:
    """Every family, over small windows and over large ones."""
    for shape, window in (
        ((8, 64, 400, 400), (3, 2, 1)),
        ((8, 64, 400, 400), (3, 1, 1)),
        ((1, 1, 3000, 3000), (301, 1, 150)),
        ((1, 1, 3000, 3000), (1000, 500, 500)),
        ((1, 1, 1, 60_000_000), ((1, 9), (1, 2), (0, 4))),
    ):
        x = np.zeros(shape, np.float32)
        x[..., ::7] = 1
        for name in ("max_pool2d", "avg_pool2d"):
            pool = getattr(F, name)
            yield f"{name} {shape} {window}", partial(pool, x, *window)
        yield (
            f"max_pool2d indices {shape} {window}",
            partial(F.max_pool2d, x, *window, return_indices=True),
        )
        yield f"lp_pool2d {shape} {window}", partial(F.lp_pool2d, x, 3, *window[:2])
        yield (
            f"avg_pool2d_backward {shape} {window}",
            partial(average_gradient, x, window),
        )
        yield (
            f"MaxPool2d backward {shape} {window}",
            partial(max_gradient, x, window),
        )
        yield f"global_avg_pool2d {shape}", partial(F.global_avg_pool2d, x)
        yield f"global_max_pool2d {shape}", partial(F.global_max_pool2d, x)
        yield f"adaptive_avg_pool2d {shape}", partial(F.adaptive_avg_pool2d, x, (1, 7))
        if shape[2] > 1:
            yield f"blur_pool2d {shape}", partial(F.blur_pool2d, x)


def average_gradient(x: Any, window: Any) -> Any:
    """Pool one channel, and go back."""
    y = F.avg_pool2d(x[:, :1], *window)
    return F.avg_pool2d_backward(y, x[:, :1].shape, *window)


def max_gradient(x: Any, window: Any) -> Any:
    """Pool with a layer's bytes, and go back."""
    y, backward = nn.MaxPool2d(*window).forward(x)
    return backward(y)


def others() -> Iterator[tuple[str, Call]]:
    """Functions of many elements, and of one long row."""
    for shape in ((8, 64, 400, 400), (1, 80_000_000, 1), (1, 2, 40_000_000)):
        x = np.ones(shape, np.float32)
        few = x.reshape(2, -1, 50)
        functions: dict[str, Call] = {
            "gelu": partial(F.gelu, x),
            "gelu_backward": partial(F.gelu_backward, x, x),
            "keyed_dropout": partial(F.keyed_dropout, x, 1),
            "softmax": partial(F.softmax, x),
            "softmax -1": partial(F.softmax, x, -1),
            "softmax_backward": partial(F.softmax_backward, x, x),
            "batch_norm": partial(F.batch_norm, few, None, None, training=True),
            "batch_norm_backward": partial(
                F.batch_norm_backward, few, few, None, None, training=True
            ),
            "layer_norm": partial(F.layer_norm, x, shape[1:]),
            "layer_norm_backward": partial(F.layer_norm_backward, x, x, shape[1:]),
            "group_norm": partial(F.group_norm, x, 2),
            "group_norm_backward": partial(F.group_norm_backward, x, x, 2),
            "local_response_norm": partial(F.local_response_norm, x, 5),
            "mse_loss": partial(F.mse_loss, x, x),
            "prelu_backward": partial(F.prelu_backward, x, x, np.ones(1, np.float32)),
            "pad": partial(F.pad, x, (3, 3)),
        }
        for name, call in functions.items():
            yield f"{name} {shape}", call
        targets = np.zeros((shape[0], *shape[2:]), np.int64)
        yield f"cross_entropy {shape}", partial(F.cross_entropy, x, targets)


def training(images: int, size: int) -> tuple[nn.Layer, Any, Callable[..., Any]]:
    """Give a network, images, and a call that trains the one with the other."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, 3, size, size)).astype(np.float32)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1, rng=rng),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.GlobalAvgPool2d(),
        nn.Flatten(),
        nn.Linear(128, 10, rng=rng),
    )
    fit = partial(
        train.fit,
        model,
        x,
        rng.integers(0, 10, images),
        loss=nn.CrossEntropyLoss(),
        optimizer=optim.Adam(model.parameters()),
        epochs=100,
        progress=False,
    )
    return model, x, fit


def trainings() -> Iterator[tuple[str, Call]]:
    """`fit` and `predict`."""
    model, x, fit = training(512, 64)
    for batch in (8, 512):
        yield f"fit {batch}", partial(fit, batch_size=batch)
    yield "predict", lambda: train.predict(model, np.concatenate([x] * 8))


def latency(call: Call, moment: float) -> float | None:
    """Interrupt a call after so many seconds; None if it ends before."""
    begin, end = time.process_time(), 0.0
    try:
        signal.setitimer(signal.ITIMER_PROF, moment)
        call()
        end = time.process_time()
        while time.process_time() < begin + moment + 1:  # it comes here, if it is late
            pass
    except KeyboardInterrupt:
        if not end:  # in the call; the timer is a few ms early or late
            return max(0.0, time.process_time() - begin - moment)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return end - begin - moment if end > begin + moment + 0.01 else None


def main() -> int:
    """Print a line for each call, the slow ones last; fail if one is over the limit."""
    convcore.set_num_threads(1)
    signal.signal(signal.SIGPROF, signal.default_int_handler)
    words = sys.argv[1:]
    found: list[tuple[float, str]] = []
    for group in (convolutions, poolings, others, trainings):
        for name, call in group():
            if words and not any(word in name for word in words):
                continue
            waits: list[float] = []
            for moment in MOMENTS:
                wait = latency(call, moment)
                if wait is None:
                    break
                waits.append(wait)
            print(f"{max(waits):7.3f} s" if waits else "  ended  ", name, flush=True)
            found += [(max(waits), name)] if waits else []
    found.sort()
    print(f"\n{len(found)} calls; the slowest:")
    for wait, name in found[-10:]:
        print(f"{wait:7.3f} s {name}")
    return int(found[-1][0] > LIMIT) if found else 0


if __name__ == "__main__":
    sys.exit(main())
