"""Max pooling with one window as large as a plane."""

from typing import Any

import numpy as np
import pytest

from convcore import plan
from convcore.problem import PoolProblem
from tests.oracle import assert_exact
from tests.pool_helpers import dtypes, special
from tests.test_max_pool_turned import results, values

# Planes of less than a vector, of four and more; groups of 2, 4, 8 or 16 planes.
SHAPES = {
    "no plane": ((0, 3, 13, 13), 13, 0),
    "one element": ((1, 17, 1, 1), 1, 0),
    "less than a vector": ((1, 19, 3), 3, 0),
    "one plane": ((1, 1, 9, 9), 9, 0),
    "a whole group": ((2, 8, 8, 8), 8, 0),
    "several groups": ((3, 11, 5, 6, 7), (5, 6, 7), 0),
    "hundreds of elements": ((1, 18, 33, 31), (33, 31), 0),
    "larger than the plane": ((1, 5, 7, 6), (9, 8), ((1, 1), (2, 0))),
}


@dtypes
@pytest.mark.parametrize(("shape", "kernel", "padding"), SHAPES.values(), ids=SHAPES)
def test_planes_have_the_results_of_windows(
    shape: Any, kernel: Any, padding: Any, dtype: Any, isa: str
) -> None:
    rng = np.random.default_rng(7)
    for problem in (
        PoolProblem.pool("pool", shape, kernel, None, padding),
        PoolProblem.adaptive("pool", shape, 1),
    ):
        for x in (values(rng, shape, dtype), special(rng, shape, dtype)):
            for team in (1, 2):
                (y,) = results(problem, "max_values", x, "planes", team)
                assert_exact(y, results(problem, "max_values", x, "window", 1)[0])
                for one, two in zip(
                    results(problem, "max_fprop", x, "planes", team),
                    results(problem, "max_fprop", x, "window", 1),
                    strict=True,
                ):
                    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("at", [0, 5, 63, 64, 300, 1022])
def test_the_first_of_equal_maxima_in_any_lane(at: int, isa: str) -> None:
    x = np.zeros((1, 33, 1023), np.float32)
    x[0, :, at:] = np.where(np.arange(at, 1023) % 3 == at % 3, 2, 1)
    problem = PoolProblem.pool("pool", x.shape, 1023)
    _, index = results(problem, "max_fprop", x, "planes", 1)
    assert (index[:33] == at).all()


def test_what_planes_do_not_take() -> None:
    card = next(c for c in plan.choice.algorithms.POOL if c.name == "planes")
    for window in ((3, 1, 1), (2, 2, 0), (2, 1, 0, 2)):
        problem = PoolProblem.pool("pool", (1, 1, 3, 3), *window)
        assert not card.accepts(problem, "max_fprop").yes


def test_what_planes_are_chosen_for() -> None:
    for shape, direction, name in (
        ((4, 32, 32, 32), "max_values", "planes"),
        ((4, 32, 32, 32), "max_fprop", "planes"),
        ((4, 32, 7, 7), "max_fprop", "turned"),
        ((4, 15, 7, 7), "max_fprop", "planes"),
    ):
        problem = PoolProblem.pool("pool", shape, shape[2:])
        assert plan.select(problem, direction, "float32").algorithm == name
