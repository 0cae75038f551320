"""Lp pooling: norms of windows and of channels, forward and backward."""

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import reference
from convcore.problem import PoolProblem
from convcore.runtime import cpu
from tests.oracle import (
    Array,
    assert_bits_equal,
    assert_exact,
    assert_within,
    normal,
    wider,
)
from tests.pool_helpers import INF, NAN, dtypes, f, isas, ranks, team_of, teams
from tests.strategies import Call, generators, pool_calls

POWERS = (1, 2, 3, 4, 5, 6, 7, 8, 1.5, 3.5, 20.25, 0.5, INF)


def units(dtype: Any, power: float, terms: int) -> tuple[float, float]:
    """Bound the relative errors of norms, and of gradients by the terms of a sum.

    Powers: up to p roundings by products, 4 p + 6 others; sums: one for each term; of
    both a root takes 1 / p, and adds up to 4 / p + 6 of its own. Gradients: two powers of
    p - 1, a quotient, a product, a sum. All in float64; float32 is rounded once more.
    """
    if power == INF:
        return 0.0, 2.0**-24 if dtype == np.float32 else 2.0**-53
    norm = 2.0**-53 * ((terms + 10) / power + 12)
    slope = 2.0**-53 * (8 * abs(power - 1) + 16 + terms)
    if dtype == np.float32:
        return 2.0**-24 + norm, 2.0**-24 + slope
    return norm, slope


def check_norms(
    problem: PoolProblem, x: Array, grad_y: Array, power: float, **window: Any
) -> None:
    """Compare with the reference on wider numbers, both ways."""
    dtype, ndim = x.dtype, problem.ndim
    y = f("lp_pool", ndim)(x, power, **window)
    grad_x = f("lp_pool_backward", ndim)(grad_y, x, y, power, **window)
    with_more = wider(dtype)
    wide, wide_y, wide_grad = (a.astype(with_more) for a in (x, y, grad_y))
    norms = reference.lp_pool(problem, wide, power)
    norm_unit, unit = units(dtype, power, prod(problem.kernel))
    assert_within(y, norms, norm_unit * norms, dtype)
    expected = reference.lp_pool_backward(problem, wide_grad, wide, wide_y, power)
    terms = reference.lp_pool_backward(
        problem, np.abs(wide_grad), np.abs(wide), wide_y, power
    )
    assert_within(grad_x, expected, unit * terms, dtype)


@dtypes
@given(
    call=pool_calls(max_dilation=1),
    rng=generators(),
    power=st.sampled_from(POWERS),
    isa=isas,
    team=teams,
)
def test_lp_pool_is_the_reference(
    dtype: Any, call: Call, rng: np.random.Generator, power: float, isa: str, team: int
) -> None:
    x = normal(rng, call.x_shape, dtype)
    x[rng.random(x.shape) < 0.2] = 0
    grad_y = normal(rng, call.problem.y_shape, dtype)
    window = dict(call.keywords)
    window.pop("dilation", None)
    with cpu.use(isa), team_of(team):
        check_norms(call.problem, x, grad_y, power, **window)


@pytest.mark.parametrize("power", [1, 2, 3, 4, 3.5])
def test_norms_of_long_rows_and_windows(power: float, isa: str) -> None:
    """Blocks are 512 columns: an element may lie in more windows, or a window in more."""
    rng = np.random.default_rng(6)
    for width, kernel, stride in (
        *((1700, 700, 1), (2600, 1100, 2), (1300, 9, 13), (1300, 5, 1), (1300, 6, 2)),
        *((1200, 7, 3), (1200, 3, 8), (1100, 250, 5), (1300, 255, 1), (1300, 256, 1)),
    ):
        x = normal(rng, (1, 2, 3, width))
        window = {"kernel_size": (2, kernel), "stride": (1, stride)}
        problem = PoolProblem.pool("pool", x.shape, *window.values())
        check_norms(problem, x, normal(rng, problem.y_shape), power, **window)


@pytest.mark.parametrize("kernel", [254, 255, 256, 257])
def test_lines_of_shares_have_room_for_their_zeros(kernel: int, isa: str) -> None:
    """Single rows of blocks inside of x: 256 wrote 2 KB behind a line on the stack."""
    rng = np.random.default_rng(8)
    x = normal(rng, (1, 1, 2100))
    problem = PoolProblem.pool("pool", x.shape, kernel, 1)
    grad_y = normal(rng, problem.y_shape)
    check_norms(problem, x, grad_y, 2, kernel_size=kernel, stride=1)


@pytest.mark.parametrize("power", [2, 5, 1.5])
def test_rows_are_kept_for_the_windows_that_share_them(power: float, isa: str) -> None:
    """As many rows as fit, and more than do: along two axes and along three."""
    rng = np.random.default_rng(7)
    for extent, kernel, stride in (
        ((70, 130), (3, 3), (1, 1)),
        ((70, 130), (3, 3), (2, 2)),
        ((90, 40), (60, 5), (3, 2)),
        ((140, 9), (131, 3), (2, 1)),
        ((9, 20, 33), (3, 4, 3), (1, 2, 2)),
        ((20, 20, 20), (13, 14, 3), (2, 1, 3)),
    ):
        x = normal(rng, (1, 2, *extent))
        window = {"kernel_size": kernel, "stride": stride}
        problem = PoolProblem.pool("pool", x.shape, *window.values())
        check_norms(problem, x, normal(rng, problem.y_shape), power, **window)


@dtypes
@ranks
def test_global_norms_are_norms_of_channels(ndim: int, dtype: Any) -> None:
    rng = np.random.default_rng(4)
    x = normal(rng, (2, 3, *(40, 9, 5)[:ndim]), dtype)
    for power in POWERS:
        y = f("global_lp_pool", ndim)(x, power)
        problem = PoolProblem.pool("pool", x.shape, x.shape[2:])
        right = reference.lp_pool(problem, x.astype(wider(dtype)), power)
        assert_within(y, right, units(dtype, power, 40 * 9 * 5)[0] * right, dtype)
        back = f("global_lp_pool_backward", ndim)(y, x, y, power)
        same = f("lp_pool_backward", ndim)(y, x, y, power, x.shape[2:])
        assert_bits_equal(back, same)
        assert_bits_equal(f("global_lp_pool", ndim)(x[0], power), y[0])


def test_norms_by_hand() -> None:
    x = np.array([[[3.0, -4.0, 0.0, 0.0]]])
    y = F.lp_pool1d(x, 2, 2)
    assert y.tolist() == [[[5.0, 0.0]]]
    grad = F.lp_pool1d_backward(np.full((1, 1, 2), 10.0), x, y, 2, 2)
    assert grad.ravel().tolist() == [6.0, -8.0, 0.0, 0.0]
    large = np.full((1, 1, 4), 1e30, np.float32)
    assert F.lp_pool1d(large, 2, 4).item() == np.float32(2e30)
    signs = F.lp_pool1d_backward(
        np.full((1, 1, 1), 2.0),
        np.array([[[-3.0, 0.0, NAN]]]),
        np.ones((1, 1, 1)),
        1,
        3,
    )
    assert_exact(signs, np.array([[[-2.0, 0.0, NAN]]]))


# Range ------------------------------------------------------------------------------


def test_no_power_leaves_the_range(isa: str) -> None:
    """Squares of 1e200 in float64 were infinite, their gradients 0 or NaN."""
    for size in (1e200, 1e-200, 1e308, 1e-300):
        x = np.array([[[size, -size, 0, size]]])
        y = F.lp_pool1d(x, 2, 4)
        np.testing.assert_allclose(y, np.hypot(np.hypot(size, size), size), rtol=1e-15)
        back = F.lp_pool1d_backward(np.full_like(y, 3.0), x, y, 2, 4)
        share = 3 * (size / y.item())
        np.testing.assert_allclose(back, [[[share, -share, 0, share]]], rtol=1e-15)
    for power in (3, 16):
        large = np.full((1, 1, 4), 1e20, np.float32)
        y = F.lp_pool1d(large, power, 4)
        np.testing.assert_allclose(y, 1e20 * 4 ** (1 / power), rtol=2e-7)
        back = F.lp_pool1d_backward(y, large, y, power, 4)
        np.testing.assert_allclose(back, y.item() * 4.0 ** (1 / power - 1), rtol=4e-7)


@dtypes
@pytest.mark.parametrize("power", [1, 2, 3, 7, 0.3, 1.25, 12.5, 400.5, 3e6, 1e300])
def test_sizes_of_all_exponents_in_one_row(dtype: Any, power: float, isa: str) -> None:
    """A small window beside a large one keeps its digits, and so does its gradient."""
    rng = np.random.default_rng(8)
    form = np.finfo(dtype)
    low, high = form.minexp + form.nmant, form.maxexp - 3 - int(2 / power)
    scale = np.repeat(rng.integers(low, high, 90), 4)
    x = np.ldexp(rng.uniform(-2, 2, 360), scale).astype(dtype).reshape(1, 3, 1, 120)
    window: dict[str, Any] = {"kernel_size": (1, 4)}
    problem = PoolProblem.pool("pool", x.shape, (1, 4))
    y = F.lp_pool2d(x, power, **window)
    wide = x.astype(np.longdouble)
    norms = reference.lp_pool(problem, wide, power)
    norm_unit, unit = units(dtype, power, 4)
    if power > 1e6:  # the root takes an error of the logarithm with it
        norm_unit = unit = 8 * float(form.eps)
    assert_within(y, norms, norm_unit * norms + 2 * form.smallest_subnormal, dtype)
    grad = np.ldexp(1 + rng.random(y.shape), rng.integers(low, high, y.shape) // 2)
    grad = grad.astype(dtype)
    back = F.lp_pool2d_backward(grad, x, y, power, **window)
    if power > 1e6:
        assert np.isfinite(back).all()
        return
    expected = reference.lp_pool_backward(
        problem, grad.astype(np.longdouble), wide, y.astype(np.longdouble), power
    )
    expected = np.where(np.abs(expected) > form.max, np.copysign(INF, x), expected)
    allowed = unit * np.abs(expected) + form.smallest_subnormal
    assert_within(back, expected, allowed, dtype)


@dtypes
@pytest.mark.parametrize("power", [1, 2, 3, 5, 1.5, 9.5])
def test_what_is_not_finite_stays_in_its_windows(
    dtype: Any, power: float, isa: str
) -> None:
    x = np.ones((1, 1, 1, 64), dtype)
    x[..., 9], x[..., 30], x[..., 50] = NAN, INF, -INF
    y = F.lp_pool2d(x, power, (1, 2))
    assert np.isnan(y[0, 0, 0]).nonzero()[0].tolist() == [4]
    assert np.isinf(y[0, 0, 0]).nonzero()[0].tolist() == [15, 25]
    back = F.lp_pool2d_backward(np.ones_like(y), x, y, power, (1, 2))
    odd = np.isnan(back[0, 0, 0]).nonzero()[0].tolist()
    assert odd == ([9] if power == 1 else [8, 9, 30, 50])


@dtypes
def test_the_first_nan_of_a_window_gets_its_infinite_norm(dtype: Any, isa: str) -> None:
    """The others got NaN, too, though nothing was theirs."""
    x = np.array([[[1, NAN, NAN, 0, 0, 0, -2, 2, 1]]], dtype)
    y = F.lp_pool1d(x, INF, 3)
    assert_exact(y, np.array([[[NAN, 0, 2]]], dtype))
    back = F.lp_pool1d_backward(np.full_like(y, 5), x, y, INF, 3)
    assert_exact(back, np.array([[[0, NAN, 0, 0, 0, 0, -5, 0, 0]]], dtype))


def test_powers_are_right_to_their_bound(isa: str) -> None:
    """The gradient of windows of one element, whose norms are said to be 1: a power."""
    rng = np.random.default_rng(9)
    for q in (0.5, 2.5, -0.25, 7.7, -0.9, 33.3, 1.0 / 3):
        x = np.ldexp(1 + rng.random(4000), rng.integers(-20, 20, 4000)).reshape(
            1, 1, -1
        )
        one = np.ones_like(x)
        found = F.lp_pool1d_backward(one, x, one, 1 + q, 1)
        right = x.astype(np.longdouble) ** np.longdouble((1 + q) - 1)
        bound = (4 * abs(q) + 6) * 2.0**-53
        assert float(np.abs(found / right - 1).max()) <= bound


@pytest.mark.parametrize("power", [0, -1, NAN, -INF])
def test_no_norm_has_such_a_power(power: float) -> None:
    with pytest.raises(ValueError, match=r"lp_pool1d: norm_type"):
        F.lp_pool1d(np.ones((1, 1, 4)), power, 2)


def test_norms_of_the_gradient_have_the_shape_of_the_result() -> None:
    x = np.ones((1, 1, 4))
    with pytest.raises(ValueError, match=r"y must have the result's shape \(1, 1, 2\)"):
        F.lp_pool1d_backward(np.ones((1, 1, 2)), x, np.ones((1, 1, 3)), 2, 2)
