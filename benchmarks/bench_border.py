"""Time convolutions with borders beside the same with zeros, in turns.

    python -m benchmarks.bench_border [--modes reflect circular] [--suite core] [--n 8]
        [--threads 2] [--pairs 5] [--filter resnet]

prints, for each layer with padding and each direction, the milliseconds with zeros and
for each mode the median of the ratios of neighbouring runs, then their geometric means.
"""

import argparse
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from statistics import geometric_mean, median
from typing import Any

import numpy as np

import convcore
from benchmarks.problems import suite
from convcore import functional as F
from convcore.problem import ConvProblem
from convcore.problem.border import BORDERS

DIRECTIONS = ("fprop", "dgrad", "wgrad")
LEAST = 0.02  # seconds of a run; short calls are repeated


def problems(
    name: str, pattern: str, n: int | None
) -> Iterator[tuple[str, ConvProblem]]:
    """List the convolutions of a suite that have padding."""
    for row in suite(name):
        problem = row.problem
        if row.op != "conv" or not re.search(pattern, row.name):
            continue
        if any(map(any, problem.padding)):
            yield row.name, problem if n is None else replace(problem, n=n)


def call_of(problem: ConvProblem, direction: str, mode: str) -> Callable[[], object]:
    """Give a call of one direction."""
    rng, first = np.random.default_rng(0), 3 - problem.ndim
    shapes = (problem.x_shape, problem.weight_shape, problem.y_shape)
    x, w, grad_y = (rng.standard_normal(s, np.float32) for s in shapes)
    how: dict[str, Any] = {
        "stride": problem.stride[first:],
        "padding": problem.padding[first:],
        "dilation": problem.dilation[first:],
        "groups": problem.g,
        "padding_mode": mode,
    }
    if direction == "fprop":
        conv = getattr(F, f"conv{problem.ndim}d")
        return lambda: conv(x, w, **how)
    backward = getattr(F, f"conv{problem.ndim}d_backward")
    needs = ("x",) if direction == "dgrad" else ("weight",)
    return lambda: backward(grad_y, x, w, needs=needs, **how)


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Give the time of a call."""
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def ratio(zeros: Callable[[], object], other: Callable[[], object], pairs: int) -> Any:
    """Give the time with zeros, and the median ratio of the other's to it."""
    for call in (zeros, other):
        seconds(call, 1)
    repeats = max(1, round(LEAST / seconds(zeros, 1)))
    found = [(seconds(zeros, repeats), seconds(other, repeats)) for _ in range(pairs)]
    return median(a for a, _ in found), median(b / a for a, b in found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", nargs="+", default=["reflect"], choices=BORDERS[1:])
    parser.add_argument("--suite", default="core")
    parser.add_argument("--filter", default="")
    parser.add_argument("--n", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    convcore.set_num_threads(given.threads)
    ratios: dict[tuple[str, str], list[float]] = {}
    for name, problem in problems(given.suite, given.filter, given.n):
        if prod(problem.in_extent) == 1:
            continue
        for direction in DIRECTIONS:
            zeros, cells = call_of(problem, direction, "zeros"), []
            for mode in given.modes:
                other = call_of(problem, direction, mode)
                base, found = ratio(zeros, other, given.pairs)
                ratios.setdefault((direction, mode), []).append(found)
                cells.append(f"{mode} {found:.2f}")
            line = f"{name:48} {direction} {base * 1e3:9.3f} ms  {'  '.join(cells)}"
            print(line, flush=True)
    for (direction, mode), found in ratios.items():
        print(f"{direction} {mode}: geometric mean {geometric_mean(found):.3f}")


if __name__ == "__main__":
    main()
