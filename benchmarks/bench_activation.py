"""Time activations, softmax and dropout beside a copy of the same bytes, on one thread.

    python -m benchmarks.bench_activation [--dtype float64] [--size 33554432]

prints, for each operation, milliseconds of processor time (the least of several runs) and
the share of the copy's speed: a forward pass reads one array and writes one, as a copy
does; a backward pass reads one more. Above 100 % are operations that store past the
caches where the copy does not.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import convcore
from convcore import functional as F

RUNS = 7
NAMES = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "tanh"),
    *("softplus", "hardtanh", "hardsigmoid", "hardswish", "softmax", "log_softmax"),
)


def least(call: Callable[[], Any]) -> float:
    """Give the least processor time of this thread in milliseconds."""
    call()
    times = []
    for _ in range(RUNS):
        begin = time.thread_time_ns()
        call()
        times.append(time.thread_time_ns() - begin)
    return min(times) / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--size", type=int, default=1 << 25)
    given = parser.parse_args()
    convcore.set_num_threads(1)
    shape = (max(1, given.size // 1024), 1024)  # rows for the softmaxes
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(given.dtype)
    g = rng.standard_normal(shape).astype(given.dtype)
    out = np.zeros_like(F.relu(x))
    copy = least(lambda: np.copyto(out, x))
    print(f"{given.dtype} {x.size}: copy {copy:.2f} ms")
    for name in NAMES:
        forward, backward = getattr(F, name), getattr(F, f"{name}_backward")
        one = least(lambda f=forward: f(x, out=out))  # type: ignore[misc]
        two = least(lambda f=backward: f(g, x, out=out))  # type: ignore[misc]
        print(
            f"{name:12} forward {one:8.2f} ms {copy / one:5.0%}   "
            f"backward {two:8.2f} ms {1.5 * copy / two:5.0%}"
        )
    one = least(lambda: F.keyed_dropout(x, 1, out=out))
    print(f"{'dropout':12} forward {one:8.2f} ms {copy / one:5.0%}")


if __name__ == "__main__":
    main()
