"""Max pooling with a plane in each lane: its bits are those of the other kernels."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from hypothesis import assume

from convcore import nn, plan
from convcore.problem import PoolProblem
from convcore.runtime import cpu
from tests.oracle import Array, assert_exact
from tests.pool_helpers import any_call, dtypes, f, problems, special
from tests.strategies import Call

KINDS = {"max_values": None, "max_labels": np.uint8, "max_fprop": np.int64}


def results(
    problem: PoolProblem, direction: str, x: Array, name: str, team: int
) -> list[Array]:
    """Run a kernel between guards; give the maxima and what it tells of them."""
    chosen = plan.select(problem, direction, x.dtype.name, name)
    size, kind = int(np.prod(problem.y_shape)), KINDS[direction]
    y = np.full(size + 64, 77, x.dtype)
    found = None if kind is None else np.full(size + 64, 99, kind)
    labels = None if found is None else found[:size]
    lent = chosen.scratch_bytes(team)
    scratch = np.full(lent + 64, 255, np.uint8) if lent else None
    chosen.kernel(chosen.geometry, x, y[:size], labels, scratch, team)
    assert (y[size:] == 77).all()
    assert found is None or (found[size:] == 99).all()
    return [y] if found is None else [y, found]


def assert_same_bits(
    problem: PoolProblem, x: Array, other: str, team: int, kinds: Iterable[str] = KINDS
) -> None:
    for direction in kinds:
        mine = results(problem, direction, x, "turned", team)
        for one, two in zip(
            mine, results(problem, direction, x, other, 1), strict=True
        ):
            assert one.tobytes() == two.tobytes(), direction


def values(rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
    """Draw ties, signs of zero, NaN and infinities."""
    return rng.choice(np.array([-1, -0.0, 0.0, 1, -np.inf, np.nan], dtype), shape)


@any_call()
def test_turned_has_the_bits_of_flat(
    dtype: Any, call: Call, rng: np.random.Generator, isa: str, team: int
) -> None:
    assume(not call.problem.steps_over)
    x = values(rng, call.x_shape, dtype)
    with cpu.use(isa):
        if call.problem.wide:  # which flat does not take
            kinds = ("max_values", "max_fprop")
            assert_same_bits(call.problem, x, "window", team, kinds)
        else:
            assert_same_bits(call.problem, x, "flat", team)


# 256 vectors on the stack, 1280 that are lent; groups of 2, 4, 8 or 16 planes.
SHAPES = {
    "no plane": ((0, 3, 13, 13), 3, 2, 0),
    "one window": ((3, 7, 13, 13), 13, 1, 0),
    "less than a vector of windows": ((1, 17, 5, 5), 3, 2, 1),
    "several groups": ((3, 15, 13, 13), 3, 2, 0),
    "a whole group": ((4, 16, 7, 7), 3, 1, 1),
    "one row": ((2, 9, 60), 3, 2, 1),
    "lent": ((1, 18, 28, 28), 3, 2, 1),
    "bands": ((1, 5, 60, 45), 3, 2, 1),
    "bands of three axes": ((1, 5, 5, 24, 30), (3, 2, 3), (2, 1, 2), (1, 1, 0)),
    "bands, stride 1": ((1, 18, 60, 45), 3, 1, 1),
    "dilation 2": ((2, 9, 13, 13), 3, 2, 2, 2),
    "dilations in bands": ((1, 18, 60, 45), (3, 4), 1, (1, 3), (2, 3)),
    "dilations, three axes": ((1, 5, 9, 24, 10), (3, 2, 3), (2, 1, 2), 1, (3, 5, 2)),
    "256 taps": ((1, 17, 20, 20), 16, 4, 8),
    "stride above the kernel": ((2, 9, 25, 25), 2, 5, 1),
    "uneven padding": ((2, 9, 17, 18), 4, 2, ((2, 1), (1, 0))),
}


@dtypes
@problems(SHAPES, ceil_mode=True)
def test_turned_on_shapes_around_its_limits(
    problem: PoolProblem, dtype: Any, isa: str
) -> None:
    rng = np.random.default_rng(4)
    for draw in (values, special):
        x = draw(rng, problem.x_shape, dtype)
        for team in (1, 2):
            assert_same_bits(problem, x, "flat", team)


@dtypes
def test_turned_takes_adaptive_and_large_windows(dtype: Any, isa: str) -> None:
    rng = np.random.default_rng(5)
    shape, made = (2, 9, 30, 31), PoolProblem.adaptive
    large = PoolProblem.pool("pool", shape, (30, 20), 1)
    for problem in (made("pool", shape, (7, 5)), made("pool", shape, 1), large):
        for x in (values(rng, shape, dtype), special(rng, shape, dtype)):
            for direction in ("max_values", "max_fprop"):
                mine, other = (
                    results(problem, direction, x, name, 1)
                    for name in ("turned", "window")
                )
                for one, two in zip(mine, other, strict=True):
                    assert_exact(one, two)


def test_what_turned_is_chosen_for() -> None:
    for shape, name in (
        ((1, 8, 13, 13), "turned"),
        ((1, 7, 13, 13), "flat"),
        ((1, 64, 40, 40), "flat"),
        ((1, 16, 8, 40, 40), "turned"),
    ):
        problem = PoolProblem.pool("pool", shape, 3, 2)
        with cpu.use("baseline"):
            chosen = plan.select(problem, "max_fprop", "float32").algorithm
        assert chosen == name


def test_gradients_of_windows_that_only_turned_takes() -> None:
    """Labels that a layer keeps have a kernel that reads them, or they are indices."""
    rng = np.random.default_rng(6)
    some = ((8, 7), (8, 7), (0, 0))
    for shape, window in (
        ((1, 8, 18, 18), ((16, 17), 1, 0)),
        ((1, 8, 18, 18), (2, 9, 0)),
        ((1, 8, 16, 16, 4), ((16, 16, 1), 1, some)),
    ):
        ndim = len(shape) - 2
        x = rng.standard_normal(shape)
        y, index = f("max_pool", ndim)(x, *window, return_indices=True)
        grad_y = rng.standard_normal(y.shape)
        actual, backward = getattr(nn, f"MaxPool{ndim}d")(*window).forward(x)
        assert_exact(actual, y)
        expected = f("max_pool_backward", ndim)(grad_y, index, shape, *window)
        assert_exact(backward(grad_y), expected)
