"""Every algorithm of convolution, run as the functional layer does."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from convcore import algorithms, plan
from convcore import functional as F
from convcore.functional.call import run
from convcore.problem import ConvProblem
from tests import oracle

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_BACKWARD = {1: F.conv1d_backward, 2: F.conv2d_backward, 3: F.conv3d_backward}
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
TRANSPOSE_BACKWARD = {
    1: F.conv_transpose1d_backward,
    2: F.conv_transpose2d_backward,
    3: F.conv_transpose3d_backward,
}
ALL_THREADS = 10**9  # multiply-adds that are enough for them
DIRECTIONS: tuple[oracle.Direction, ...] = ("fprop", "dgrad", "wgrad", "bgrad")


def accepting(
    problem: ConvProblem, transforms: bool = True
) -> Iterator[tuple[str, oracle.Direction]]:
    """Every algorithm's name with every direction in which it takes the problem.

    Those that transform their operands have bounds of their own, and are not exact.
    """
    for card in algorithms.CONV:
        for direction in card.kernels:
            if card.transforms and not transforms:
                continue
            if card.accepts(problem.folded, direction).yes:
                yield card.name, direction


def compute(
    problem: ConvProblem,
    algorithm: str,
    direction: oracle.Direction,
    *arrays: Any,
    work: int = 0,
) -> Any:
    """Run one algorithm as the functional layer does; the oracle's argument order.

    By one thread, unless `work` is enough for more or a test sets their number.
    """
    shapes = {
        "fprop": problem.y_shape,
        "dgrad": problem.x_shape,
        "wgrad": problem.weight_shape,
        "bgrad": (problem.oc,),
    }
    dtype = arrays[0].dtype
    if direction in ("fprop", "dgrad") and len(arrays) == 2:
        arrays = (*arrays, None)
    out = np.full(shapes[direction], np.nan, dtype)
    chosen = plan.select(problem, direction, dtype.name, algorithm)
    run(replace(chosen, work=work), *arrays, out)
    return out


def takes_bias(direction: oracle.Direction) -> bool:
    """Tell whether a direction adds a bias, and so is asked with one and without."""
    return direction in ("fprop", "dgrad")


def arguments(
    direction: oracle.Direction, a: oracle.Operands, bias: bool = True
) -> tuple[Any, ...]:
    """The arrays that a direction reads."""
    return {
        "fprop": (a.x, a.w, a.b if bias else None),
        "dgrad": (a.grad_y, a.w, a.transposed_b if bias else None),
        "wgrad": (a.x, a.grad_y),
        "bgrad": (a.grad_y,),
    }[direction]


def check_exactly(problem: ConvProblem, dtype: Any, seed: int = 0) -> None:
    """Compare every direction of every algorithm with the reference, bit by bit.

    Once by all threads; what else a bias or ReLU may change, one of them shows.
    """
    a = oracle.operands(problem, np.random.default_rng(seed), dtype)
    for algorithm, direction in accepting(problem, transforms=False):
        work = ALL_THREADS
        for bias in (True, False) if takes_bias(direction) else (False,):
            given_arrays = arguments(direction, a, bias)
            for relu in (False, True) if direction == "fprop" and bias else (False,):
                asked = replace(problem, relu=relu)
                oracle.assert_exact(
                    compute(asked, algorithm, direction, *given_arrays, work=work),
                    oracle.run(asked, direction, *given_arrays),
                    f"{algorithm} {direction} of {asked}",
                )
                work = 0
