"""Gradients from flat indices, which the kernel checks on its way."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume

from convcore import plan, reference
from convcore.algorithms.pool_max_scatter import PoolMaxScatter
from convcore.functional import max_pool2d_backward
from convcore.kernels import load
from convcore.problem import PoolProblem
from convcore.runtime import cpu
from tests.oracle import Array, assert_exact
from tests.pool_helpers import any_call, dtypes, problems, room, special
from tests.strategies import Call


def gradient(
    problem: PoolProblem, grad_y: Array, index: Array, name: str, team: int
) -> tuple[Array | None, bool]:
    """Give the gradient if the kernel is content, and what it says of the indices."""
    dtype = grad_y.dtype.name
    chosen = plan.select(problem, "max_checked_dgrad", dtype, name)
    grad_x = np.empty(problem.x_shape, grad_y.dtype)
    found, again = np.full(1, 5), np.full(1, 5)
    chosen.kernel(chosen.geometry, grad_y, index, grad_x, found, None, team)
    check = plan.select(problem, "max_check", dtype, name)
    check.kernel(check.geometry, index, again, None, team)
    assert (found[0] < 0) == (again[0] < 0)
    return (grad_x if found[0] < 0 else None), bool(found[0] < 0)


# Runs of 1024 windows, pieces of 512, planes of 4096 windows in short rows.
SHAPES = {
    "a plane in one run": ((2, 3, 13, 13), 3, 2, 0),
    "less than a vector": ((5, 3, 7, 7), 3, 2, 1),
    "planes of one element": ((2, 3, 1, 1), 1, 1, 0),
    "a plane of a whole run": ((1, 2, 32, 32), 3, 1, 1),
    "three axes in one run": ((1, 2, 9, 14, 14), 3, 1, 1),
    "rows": ((1, 2, 40, 60), 3, 1, 1),
    "three axes in rows": ((1, 2, 6, 9, 70), (2, 3, 4), (1, 2, 2), (1, 1, 2)),
    "the longest row of one run": ((1, 2, 1024), 3, 1, 1),
    "two pieces": ((1, 2, 1025), 5, 1, 2),
    "three pieces": ((2, 1, 3100), 3, 2, 1),
    "many pieces, two rows": ((1, 1, 2, 9000), (2, 4), (1, 3), (1, 2)),
    "uneven padding": ((2, 3, 17, 18), 4, 2, ((2, 1), (1, 0))),
    "stride above the kernel": ((2, 3, 50, 50), 2, 3, 1),
    "257 taps": ((1, 2, 600), 257, 2, 128),
    "one column": ((3, 2, 40, 1), 3, 1, 1),
    "many planes in one run": ((5, 7, 4, 5), (3, 2), (1, 2), (1, 0)),
    "a plane that L2 does not keep": ((1, 1, 200, 200), (3, 9), (2, 8), 1),
    "a large plane of short rows": ((1, 1, 260, 90), (3, 5), 3, 1),
    "dilation 2": ((2, 3, 13, 13), 3, 2, 1, 2),
    "dilation 3, rows": ((1, 2, 40, 60), 3, 1, 3, 3),
    "dilations, three axes": ((1, 2, 9, 14, 14), 3, 1, (1, 2, 4), (2, 5, 4)),
    "dilation 12, pieces": ((1, 2, 2400), 5, 1, 20, 12),
    "dilation of one element": ((1, 2, 30, 1), 3, 1, 1, (2, 1)),
}


@dtypes
@problems(SHAPES)
def test_every_wrong_index_is_seen(problem: PoolProblem, dtype: Any, isa: str) -> None:
    shape = problem.x_shape
    rng = np.random.default_rng(2)
    _, index = reference.max_pool(problem, special(rng, shape, dtype))
    grad_y = rng.standard_normal(index.shape).astype(dtype)
    good, _ = gradient(problem, grad_y, index, "window", 1)
    for team in (1, 2):
        mine, content = gradient(problem, grad_y, index, "scatter", team)
        assert content
        assert mine is not None
        assert good is not None
        assert mine.tobytes() == good.tobytes()
    cells = int(np.prod(problem.in_extent))
    near = [-1, 1, shape[-1], -shape[-1], 2, cells, -cells, 2**32, -(2**32), 2**62]
    places = {0, index.size - 1, *rng.integers(0, index.size, 25).tolist()}
    for place in places:
        for step in near:
            wrong = index.copy()
            wrong.ravel()[place] += step
            told = [
                gradient(problem, grad_y, wrong, name, 1)
                for name in ("scatter", "window")
            ]
            assert told[0][1] == told[1][1], (place, step)
            if told[0][0] is not None and told[1][0] is not None:
                assert told[0][0].tobytes() == told[1][0].tobytes()


@any_call()
def test_scatter_is_the_reference(
    dtype: Any, call: Call, rng: np.random.Generator, isa: str, team: int
) -> None:
    assume(PoolMaxScatter().accepts(call.problem, "max_dgrad").yes)
    _, index = reference.max_pool(call.problem, special(rng, call.x_shape, dtype))
    grad_y = rng.integers(-9, 10, index.shape).astype(dtype)
    with cpu.use(isa):
        mine, content = gradient(call.problem, grad_y, index, "scatter", team)
    assert content
    assert mine is not None
    assert_exact(mine, reference.max_pool_backward(call.problem, grad_y, index))


@any_call(max_dilation=1)
def test_labels_are_scattered_to_the_bits_of_a_gather(
    dtype: Any, call: Call, rng: np.random.Generator, isa: str, team: int
) -> None:
    """The choice looks at the batch; and bytes that are no tap get nothing."""
    problem, results = call.problem, []
    assume(not problem.wide)
    y, x = np.empty(problem.y_shape, dtype), special(rng, call.x_shape, dtype)
    labels = np.empty(problem.y_shape, np.uint8)
    grad_y = rng.standard_normal(problem.y_shape).astype(dtype)
    with cpu.use(isa):
        chosen = plan.select(problem, "max_labels", y.dtype.name, "flat")
        chosen.kernel(chosen.geometry, x, y, labels, room(chosen), 1)
        labels[rng.random(labels.shape) < 0.1] = 255
        for name in ("flat", "scatter"):
            chosen = plan.select(problem, "max_labels_dgrad", y.dtype.name, name)
            grad_x = np.full(problem.x_shape, 55, dtype)
            scratch = room(chosen, team)
            chosen.kernel(chosen.geometry, grad_y, labels, grad_x, scratch, team)
            results.append(grad_x.tobytes())
    assert results[0] == results[1]


def test_few_large_planes_are_cut() -> None:
    for shape, name in (((1, 1, 300, 300), "window"), ((8, 1, 300, 300), "scatter")):
        problem = PoolProblem.pool("pool", shape, 2)
        assert plan.select(problem, "max_checked_dgrad", "float32").algorithm == name
        grad_y, index = np.ones(problem.y_shape), np.zeros(problem.y_shape, np.int64)
        with pytest.raises(ValueError, match=r"got 0 at \(0, 0, 0, 1\)$"):
            max_pool2d_backward(grad_y, index, shape, 2)


def test_windows_that_step_over_everything_and_that_reach_far_are_refused() -> None:
    card = PoolMaxScatter()
    for shape, dilation, padding in (((1, 1, 2), 5, 3), ((1, 1, 2100, 2100), 1000, 0)):
        problem = PoolProblem.pool(
            "pool", shape, 2 + (len(shape) > 3), 1, padding, dilation
        )
        assert not card.accepts(problem, "max_dgrad").yes
        chosen = plan.select(problem, "max_dgrad", "float32", "window")
        scatter = load("pool_max_scatter", cpu.isa())
        index = np.zeros(problem.y_shape, np.int64)
        with pytest.raises(ValueError, match="kernel"):
            scatter.check(chosen.geometry, index, np.zeros(1, np.int64), None, 1)


def test_nothing_is_read_or_written_behind_the_arrays() -> None:
    for shape in ((2, 3, 5, 5), (1, 2, 33, 70)):
        problem = PoolProblem.pool("pool", shape, 3, 1, 1)
        rng = np.random.default_rng(0)
        _, index = reference.max_pool(problem, rng.standard_normal(shape))
        size = index.size
        more = np.full(size + 64, 2**40)
        more[:size] = index.ravel()
        grad_y, grad_x = np.ones(size + 64), np.full(size + 64, 55.0)
        chosen = plan.select(problem, "max_checked_dgrad", "float64", "scatter")
        found = np.zeros(1, np.int64)
        chosen.kernel(
            chosen.geometry, grad_y[:size], more[:size], grad_x[:size], found, None, 1
        )
        assert found[0] == -1
        assert (grad_x[size:] == 55).all()
        assert grad_x[:size].sum() == size
