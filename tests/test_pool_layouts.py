"""Average pooling in each of its layouts: rows by places, planes in lanes, long rows."""

from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import reference
from convcore.problem import PoolProblem
from tests.oracle import Array, assert_bits_equal, assert_exact, assert_within, wider
from tests.pool_helpers import NAN, dtypes, f, team_of

# Shape, window (kernel, stride, padding): some blocks in a row, with and without ends that
# cut windows off; windows side by side, with gaps, one element apart; elements behind the
# last window; planes for lanes, and too few of them; several tables of rows.
STRIDED = [
    ((3, 5, 1300), (4, 4, 0)),
    ((2, 3, 1302), (4, 4, 2)),
    ((2, 2, 1100), (3, 5, 1)),
    ((2, 3, 1200), (25, 1, 12)),
    ((2, 2, 1234), (3, 2, 1)),
    ((1, 2, 3, 700), (6, 3, 3)),
    ((1, 2, 40, 41), (3, 5, 1)),
    ((1, 2, 40, 44), (5, 3, 2)),
    ((9, 1, 17, 17), (5, 3, 0)),
    ((3, 3, 7, 9), (1, 1, 0)),
    ((1, 2, 33, 70), (8, 8, 0)),
    ((1, 2, 20, 300), (20, 20, 0)),
    ((1, 1, 300, 40), (17, 2, 8)),
    ((3, 3, 4, 6, 7), (2, 3, 0)),
    ((1, 2, 5, 20, 21), (3, 4, 1)),
]
ADAPTIVE: list[tuple[tuple[int, ...], Any]] = [
    ((9, 2, 15, 15), (7, 7)),
    ((1, 3, 2, 3), (4, 2)),
    ((2, 3, 60, 60), (7, 7)),
    ((2, 3, 60, 60), (6, 6)),
    ((2, 2, 1100), (7,)),
    ((2, 2, 1100), (700,)),
    ((2, 2, 7), (900,)),
    ((3, 3, 7, 7), (14, 14)),
    ((1, 2, 50, 100), (7, 33)),
    ((1, 1, 300, 20), (100, 7)),
    ((2, 2, 9, 30, 30), (4, 4, 7)),
]


def integers(shape: tuple[int, ...], dtype: Any) -> Array:
    """Draw small integers."""
    return np.random.default_rng(3).integers(-9, 10, shape).astype(dtype)


@dtypes
@pytest.mark.parametrize(("shape", "window"), STRIDED, ids=str)
def test_strided_windows(shape: Any, window: Any, dtype: Any, isa: str) -> None:
    ndim = len(shape) - 2
    problem = PoolProblem.pool("pool", shape, *window)
    x, grad_y = integers(shape, dtype), integers(problem.y_shape, dtype)
    for n in (1, 3):
        with team_of(n):
            y = f("sum_pool", ndim)(x, *window)
            grad_x = f("sum_pool_backward", ndim)(grad_y, shape, *window)
        assert_exact(y, reference.avg_pool(problem, x, True, 1))
        assert_exact(grad_x, reference.avg_pool_backward(problem, grad_y, True, 1))
    for count_pad in (True, False):
        rule = {"count_include_pad": count_pad}
        check(
            f("avg_pool", ndim)(x, *window, **rule),
            reference.avg_pool(problem, x.astype(wider(dtype)), count_pad),
            dtype,
        )
        check(
            f("avg_pool_backward", ndim)(grad_y, shape, *window, **rule),
            reference.avg_pool_backward(
                problem, grad_y.astype(wider(dtype)), count_pad
            ),
            dtype,
        )


@dtypes
@pytest.mark.parametrize(("shape", "out"), ADAPTIVE, ids=str)
def test_adaptive_windows(shape: Any, out: Any, dtype: Any, isa: str) -> None:
    ndim = len(shape) - 2
    x, grad_y = integers(shape, dtype), integers((*shape[:2], *out), dtype)
    y = reference.adaptive_avg_pool(x.astype(wider(dtype)), out)
    grad_x = reference.adaptive_avg_pool_backward(grad_y.astype(wider(dtype)), shape)
    for n in (1, 3):
        with team_of(n):
            check(f("adaptive_avg_pool", ndim)(x, out), y, dtype)
            back = f("adaptive_avg_pool_backward", ndim)(grad_y, shape)
            check(back, grad_x, dtype)


def check(actual: Array, expected: Array, dtype: Any) -> None:
    """Compare sums of at most some thousand integers up to 9, divided once or twice."""
    allowed = 2.0**-24 * np.abs(expected) if dtype == np.float32 else 0
    assert_within(actual, expected, allowed + 2.0**-38, dtype)


@dtypes
@pytest.mark.parametrize(("shape", "out"), ADAPTIVE, ids=str)
def test_nan_stays_in_adaptive_windows(shape: Any, out: Any, dtype: Any) -> None:
    ndim = len(shape) - 2
    for which in (0, 1):
        x, grad_y = np.zeros(shape, dtype), np.zeros((*shape[:2], *out), dtype)
        x.reshape(-1)[which * (x.size // 2)] = NAN
        grad_y.reshape(-1)[which * (grad_y.size // 2)] = NAN
        y = f("adaptive_avg_pool", ndim)(x, out)
        grad_x = f("adaptive_avg_pool_backward", ndim)(grad_y, shape)
        expected = reference.adaptive_avg_pool(x, out)
        assert np.array_equal(np.isnan(y), np.isnan(expected))
        expected = reference.adaptive_avg_pool_backward(grad_y, shape)
        assert np.array_equal(np.isnan(grad_x), np.isnan(expected))


@dtypes
def test_planes_in_lanes_are_alone(dtype: Any, isa: str) -> None:
    """The bits of a plane are those that it has without the others."""
    x = np.random.default_rng(4).standard_normal((11, 1, 13, 13)).astype(dtype)
    y = F.adaptive_avg_pool2d(x, 6)
    grad_x = F.adaptive_avg_pool2d_backward(y, x.shape)
    for i in range(len(x)):
        assert_bits_equal(F.adaptive_avg_pool2d(x[i], 6), y[i])
        back = F.adaptive_avg_pool2d_backward(y[i], x[i].shape)
        assert_bits_equal(back, grad_x[i])
