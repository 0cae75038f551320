"""The reference of pooling is judged by what does not know it."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from convcore import reference as ref
from convcore.problem import PoolProblem
from tests.oracle import (
    Array,
    assert_exact,
    distinct,
    exactly_equal,
    finite_difference_check,
    integers,
    normal,
)
from tests.strategies import generators, pool_problems

# Max pooling -----------------------------------------------------------------------


def windows_of(problem: PoolProblem) -> Iterator[tuple[tuple[int, ...], list[Any]]]:
    """Walk over the windows, each with the positions that it looks at, in order."""
    last = range(3 - problem.ndim, 3)
    for o in product(*(range(problem.out_extent[a]) for a in last)):
        starts = (
            s * problem.stride[a] - problem.padding[a][0]
            for a, s in zip(last, o, strict=True)
        )
        yield (
            o,
            [
                [start + k * problem.dilation[a] for k in range(problem.kernel[a])]
                for a, start in zip(last, starts, strict=True)
            ],
        )


def max_by_hand(problem: PoolProblem, x: Array) -> tuple[Array, Array]:
    """Pool one element at a time."""
    extent = problem.x_shape[2:]
    y = np.full(problem.y_shape, -np.inf, x.dtype)
    index = np.zeros(problem.y_shape, np.int64)
    for o, positions in windows_of(problem):
        for n, c in np.ndindex(problem.n, problem.c):
            seen = [
                (float(x[(n, c, *i)]), int(np.ravel_multi_index(i, extent)))
                for i in product(*positions)
                if all(0 <= p < e for p, e in zip(i, extent, strict=True))
            ]
            nans = [entry for entry in seen if math.isnan(entry[0])]
            if seen:
                best = nans[0] if nans else max(seen, key=lambda e: (e[0], -e[1]))
                y[(n, c, *o)], index[(n, c, *o)] = best
    return y, index


@given(pool_problems(max_channels=2, max_batch=2), generators())
def test_max_pool_is_the_loop_over_windows(
    problem: PoolProblem, rng: np.random.Generator
) -> None:
    # Few values, so that there are ties; NaN and infinities among them.
    x = rng.choice([-2.0, 0, 1, 1, np.nan, -np.inf, np.inf], size=problem.x_shape)
    y, index = ref.max_pool(problem, x)
    expected, expected_index = max_by_hand(problem, x)
    assert_exact(y, expected)
    assert_exact(index, expected_index)


def test_max_pool_takes_the_first_of_equals() -> None:
    x = np.ones((1, 1, 4, 4))
    _, index = ref.max_pool(PoolProblem.pool("pool", x.shape, 3, 1, 1), x)
    expected = [[0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6], [8, 8, 9, 10]]
    assert_exact(index, np.array([[expected]]))


def test_max_pool_points_at_the_first_nan() -> None:
    x = np.array([[[[9, np.nan], [np.nan, 9]]]], np.float32)
    y, index = ref.max_pool(PoolProblem.pool("pool", x.shape, 2), x)
    assert_exact(y, np.array([[[[np.nan]]]], np.float32))
    assert index.item() == 1


def test_padding_never_wins_a_maximum() -> None:
    for value in (-1.0, -np.inf, np.finfo(np.float64).min):
        x = np.full((1, 1, 3, 3), value)
        y, index = ref.max_pool(PoolProblem.pool("pool", x.shape, 3, 1, 1), x)
        assert_exact(y, x)
        assert_exact(index, np.array([[[[0, 0, 1], [0, 0, 1], [3, 3, 4]]]]))


def test_a_window_that_steps_over_the_input_is_minus_infinity() -> None:
    x = np.full((1, 1, 1), 3.0)
    problem = PoolProblem.pool("pool", x.shape, 2, padding=1, dilation=2)
    y, index = ref.max_pool(problem, x)
    assert_exact(y, np.array([[[-np.inf]]]))
    assert index.item() == 0
    # Nothing won, so the gradient goes nowhere.
    grad_x = ref.max_pool_backward(problem, np.ones((1, 1, 1)), index)
    assert_exact(grad_x, np.zeros((1, 1, 1)))


@given(pool_problems(), generators())
def test_max_pool_backward_adds_up_at_the_winners(
    problem: PoolProblem, rng: np.random.Generator
) -> None:
    x = distinct(rng, problem.x_shape, np.float64)
    grad_y = integers(rng, problem.y_shape, np.float64, terms=1)
    y, index = ref.max_pool(problem, x)
    expected = np.zeros((problem.n, problem.c, math.prod(problem.in_extent)))
    for n, c in np.ndindex(problem.n, problem.c):
        some = np.isfinite(y[n, c])  # -inf: no element, no winner
        np.add.at(expected[n, c], index[n, c][some], grad_y[n, c][some])
    grad_x = ref.max_pool_backward(problem, grad_y, index)
    assert_exact(grad_x, expected.reshape(problem.x_shape))


def test_max_pool_backward_adds_overlapping_windows() -> None:
    problem = PoolProblem.pool("pool", (1, 1, 3, 3), 2, 1)
    index = np.full((1, 1, 2, 2), 4)
    grad_x = ref.max_pool_backward(problem, np.ones((1, 1, 2, 2)), index)
    expected = np.zeros((1, 1, 3, 3))
    expected[0, 0, 1, 1] = 4
    assert_exact(grad_x, expected)


# Average pooling -------------------------------------------------------------------


def average_by_hand(problem: PoolProblem, x: Array, count_include_pad: bool) -> Array:
    """Pool one window at a time, counting elements one by one."""
    extent = problem.x_shape[2:]
    padding = problem.padding[-problem.ndim :]
    y = np.zeros(problem.y_shape)
    for o, positions in windows_of(problem):
        real = [
            i
            for i in product(*positions)
            if all(0 <= p < e for p, e in zip(i, extent, strict=True))
        ]
        count = len(real)
        if count_include_pad:
            count = sum(
                all(
                    p < e + hi for p, e, (_, hi) in zip(i, extent, padding, strict=True)
                )
                for i in product(*positions)
            )
        for n, c in np.ndindex(problem.n, problem.c):
            y[(n, c, *o)] = sum(x[(n, c, *i)] for i in real) / count
    return y


@given(pool_problems(max_dilation=1, max_channels=2, max_batch=2), generators())
def test_avg_pool_is_the_loop_over_windows(
    problem: PoolProblem, rng: np.random.Generator
) -> None:
    x = normal(rng, problem.x_shape, np.float64)
    for include in (True, False):
        expected = average_by_hand(problem, x, include)
        np.testing.assert_allclose(
            ref.avg_pool(problem, x, include), expected, rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize(
    ("extent", "arguments", "expected"),
    [
        ((5,), {"kernel_size": 2, "ceil_mode": True}, [1 / 2, 5 / 2, 4 / 1]),
        (
            (7, 7),
            {"kernel_size": 2, "stride": 3, "ceil_mode": True},
            [[4, 7, 9.5], [25, 28, 30.5], [42.5, 45.5, 48]],
        ),
    ],
)
def test_avg_pool_does_not_count_what_hangs_over(
    extent: tuple[int, ...], arguments: dict[str, Any], expected: list[Any]
) -> None:
    x = np.arange(float(math.prod(extent))).reshape(1, 1, *extent)
    problem = PoolProblem.pool("pool", x.shape, **arguments)
    assert_exact(ref.avg_pool(problem, x), np.array([[expected]]))


def test_avg_pool_counts_padding_but_not_the_overhang() -> None:
    x = np.ones((1, 1, 6, 6))
    problem = PoolProblem.pool("pool", x.shape, 3, 2, 1, ceil_mode=True)
    real, whole = np.array([2, 3, 3, 1]), np.array([3, 3, 3, 2])
    expected = np.outer(real, real) / np.outer(whole, whole)
    assert_exact(ref.avg_pool(problem, x), expected[None, None])
    assert_exact(
        ref.avg_pool(problem, x, count_include_pad=False), np.ones((1, 1, 4, 4))
    )


@given(pool_problems(max_dilation=1), generators())
def test_avg_pool_backward_is_adjoint(
    problem: PoolProblem, rng: np.random.Generator
) -> None:
    x = integers(rng, problem.x_shape, np.float64, terms=64)
    grad_y = integers(rng, problem.y_shape, np.float64, terms=64)
    exactly_equal(
        ref.avg_pool(problem, x, divisor_override=1) * grad_y,
        x * ref.avg_pool_backward(problem, grad_y, divisor_override=1),
    )
    for include, override in product((True, False), (None, 5)):
        forward = ref.avg_pool(problem, x, include, override)
        backward = ref.avg_pool_backward(problem, grad_y, include, override)
        np.testing.assert_allclose(
            (forward * grad_y).sum(), (x * backward).sum(), rtol=1e-9, atol=1e-7
        )


def test_avg_pool_divides_by_what_it_is_told() -> None:
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    problem = PoolProblem.pool("pool", x.shape, 2)
    expected = np.array([[[[10.0, 18], [42, 50]]]]) / 5
    assert_exact(ref.avg_pool(problem, x, divisor_override=5), expected)


def test_avg_pool_backward_leaves_gaps_at_zero() -> None:
    problem = PoolProblem.pool("pool", (1, 1, 5), 2, 3)
    grad_x = ref.avg_pool_backward(problem, np.ones((1, 1, 2)))
    assert_exact(grad_x, np.array([[[0.5, 0.5, 0, 0.5, 0.5]]]))


def test_adaptive_and_global_means() -> None:
    x = np.arange(48.0).reshape(1, 2, 4, 6)
    pool = PoolProblem.pool("pool", x.shape, (2, 3))
    assert_exact(ref.adaptive_avg_pool(x, (2, 2)), ref.avg_pool(pool, x))
    assert_exact(ref.adaptive_avg_pool(x, (4, 6)), x)
    whole = np.array([[[[11.5]], [[35.5]]]])
    assert_exact(ref.adaptive_avg_pool(x, (1, 1)), whole)
    assert_exact(ref.global_avg_pool(x), whole)
    # Windows overlap where the output does not divide the input, or exceeds it.
    line = np.array([[[1.0, 2, 4]]])
    assert_exact(ref.adaptive_avg_pool(line, (2,)), np.array([[[1.5, 3]]]))
    assert_exact(ref.adaptive_avg_pool(line, (5,)), np.array([[[1, 1.5, 2, 3, 4]]]))


@pytest.mark.parametrize(
    "size", [(1,), (3,), (7,), (2, 3), (5, 9), (2, 1, 3), (4, 4, 4)]
)
def test_adaptive_and_global_gradients_are_slopes(size: tuple[int, ...]) -> None:
    rng = np.random.default_rng(23)
    x = normal(rng, (2, 3, *(5, 4, 3)[: len(size)]), np.float64)
    grad_y = normal(rng, (2, 3, *size), np.float64)
    finite_difference_check(
        lambda a: (ref.adaptive_avg_pool(a, size) * grad_y).sum(),
        ref.adaptive_avg_pool_backward(grad_y, x.shape),
        x,
        rng,
    )
    corner = normal(rng, (2, 3, *(1,) * len(size)), np.float64)
    finite_difference_check(
        lambda a: (ref.global_avg_pool(a) * corner).sum(),
        ref.global_avg_pool_backward(corner, x.shape),
        x,
        rng,
    )


@pytest.mark.parametrize("text", ["max", "average"])
def test_pooling_gradients_are_slopes(text: str) -> None:
    rng = np.random.default_rng(24)
    x = distinct(rng, (2, 2, 7, 6), np.float64)  # no ties: smooth around x
    problem = PoolProblem.pool("pool", x.shape, 3, 2, ((1, 0), (1, 1)), ceil_mode=True)
    grad_y = normal(rng, problem.y_shape, np.float64)

    def pooled(a: Array) -> Array:
        if text == "max":
            return ref.max_pool(problem, a)[0]
        return ref.avg_pool(problem, a, count_include_pad=False)

    if text == "max":
        gradient = ref.max_pool_backward(problem, grad_y, ref.max_pool(problem, x)[1])
    else:
        gradient = ref.avg_pool_backward(problem, grad_y, count_include_pad=False)
    finite_difference_check(lambda a: (pooled(a) * grad_y).sum(), gradient, x, rng)
