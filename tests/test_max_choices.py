"""Unpooling; adaptive, global, channel, fractional and stochastic pooling."""

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import kernels, nn, reference
from convcore.functional.fractional_max_pool import starts_of
from convcore.problem import PoolProblem
from convcore.runtime import cpu
from tests.oracle import Array, assert_bits_equal, assert_exact, normal
from tests.pool_helpers import (
    INF,
    NAN,
    any_call,
    dtypes,
    f,
    inner,
    isas,
    ranks,
    special,
    team_of,
)
from tests.pool_helpers import teams as team_sizes
from tests.strategies import Call, generators

SHAPES = {1: (23,), 2: (9, 7), 3: (5, 4, 6)}


def backward_of(operation: str, ndim: int) -> Any:
    return f(f"{operation}_backward", ndim)


# Unpooling -------------------------------------------------------------------------


@dtypes
@given(
    ndim=st.integers(1, 3),
    rng=generators(),
    isa=isas,
    team=team_sizes,
    n=st.integers(0, 3),
)
def test_unpooling_is_the_reference_and_its_own_adjoint(
    dtype: Any, ndim: int, rng: np.random.Generator, isa: str, team: int, n: int
) -> None:
    pooled = (n, 2, *rng.integers(1, 5, ndim).tolist())
    shape = (n, 2, *(2 * e for e in pooled[2:]))
    x = rng.integers(1, 9, pooled).astype(dtype)
    grad_y = rng.integers(1, 9, shape).astype(dtype)
    index = rng.integers(0, prod(shape[2:]), pooled)
    with cpu.use(isa), team_of(team):
        y = f("max_unpool", ndim)(x, index, 2)
        grad_x = backward_of("max_unpool", ndim)(grad_y, index)
    assert_exact(y, reference.max_unpool(x, index, shape))
    assert_exact(grad_x, reference.max_unpool_backward(grad_y, index))
    assert inner(y, grad_y) == inner(x, grad_x)


@ranks
def test_unpooling_undoes_pooling(ndim: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.permutation(2 * 8**ndim).astype(np.float32).reshape(1, 2, *(8,) * ndim)
    y, index = f("max_pool", ndim)(x, 2, return_indices=True)
    back = f("max_unpool", ndim)(y, index, 2)
    assert_exact(np.where(back == 0, x, back), x)
    assert np.count_nonzero(back) == np.count_nonzero(y)
    single = f("max_unpool", ndim)(y[0], index[0], 2)
    assert_bits_equal(single, back[0])
    out = np.empty_like(back)
    assert f("max_unpool", ndim)(y, index, 2, out=out) is out
    assert_bits_equal(out, back)


def test_shapes_of_unpooling() -> None:
    x, index = np.ones((1, 1, 2, 2)), np.zeros((1, 1, 2, 2), np.int64)
    assert F.max_unpool2d(x, index, 3, 2).shape == (1, 1, 5, 5)
    assert F.max_unpool2d(x, index, 3, 2, 1).shape == (1, 1, 3, 3)
    assert F.max_unpool2d(x, index, 2, output_size=(5, 4)).shape == (1, 1, 5, 4)
    whole = F.max_unpool2d(x, index, 2, output_size=(1, 1, 5, 3))
    assert whole.shape == (1, 1, 5, 3)
    for bad in ((6, 4), (4,), (2, 1, 4, 4), (4.0, 4)):
        with pytest.raises(ValueError, match="max_unpool2d: output_size must"):
            F.max_unpool2d(x, index, 2, output_size=bad)


@pytest.mark.parametrize("bad", [-1, 16, 2**62, -(2**63)])
def test_indices_of_unpooling_are_checked(bad: int) -> None:
    x, index = np.ones((1, 2, 2, 2)), np.zeros((1, 2, 2, 2), np.int64)
    index[0, 1, 0, 1] = bad
    with pytest.raises(ValueError, match="indices must lie in 0 .. 15") as error:
        F.max_unpool2d(x, index, 2)
    assert str(error.value).endswith(f"got {bad} at (0, 1, 0, 1)")
    with pytest.raises(ValueError, match="indices must lie in 0 .. 15"):
        F.max_unpool2d_backward(np.ones((1, 2, 4, 4)), index)
    with pytest.raises(ValueError, match="indices must lie in 0 .. 15"):
        F.global_max_pool2d_backward(
            np.ones((1, 2, 1, 1)), index[:, :, :1, 1:], (1, 2, 4, 4)
        )


def test_unpooling_refuses() -> None:
    x, index = np.ones((1, 2, 2, 2)), np.zeros((1, 2, 2, 2), np.int64)
    with pytest.raises(TypeError, match="indices must be int64"):
        F.max_unpool2d(x, index.astype(np.int32), 2)
    with pytest.raises(ValueError, match="indices must have the shape of x"):
        F.max_unpool2d(x, index[:, :1], 2)
    with pytest.raises(ValueError, match="every extent of the result"):
        F.max_unpool2d(x[..., :1, :1].copy(), index[..., :1, :1], 2, 1, 1)
    with pytest.raises(ValueError, match="grad_output must have"):
        F.max_unpool2d_backward(np.ones((1, 3, 4, 4)), index)
    with pytest.raises(ValueError, match="indices must have as many axes"):
        F.max_unpool2d_backward(np.ones((1, 2, 4, 4)), index[..., 0])


# Adaptive and global maxima --------------------------------------------------------


@dtypes
@given(ndim=st.integers(1, 3), rng=generators(), isa=isas, team=team_sizes)
def test_adaptive_maxima_are_the_reference(
    dtype: Any, ndim: int, rng: np.random.Generator, isa: str, team: int
) -> None:
    most = (40, 12, 6)[ndim - 1]
    shape = (2, 3, *rng.integers(1, most, ndim).tolist())
    size = tuple(rng.integers(1, most, ndim).tolist())
    x = special(rng, shape, dtype)
    expected, index = reference.adaptive_max_pool(x, size)
    grad_y = rng.integers(-9, 10, expected.shape).astype(dtype)
    with cpu.use(isa), team_of(team):
        y, found = f("adaptive_max_pool", ndim)(x, size, return_indices=True)
        alone = f("adaptive_max_pool", ndim)(x, size)
        grad_x = backward_of("adaptive_max_pool", ndim)(grad_y, index, shape)
    assert_exact(y, expected)
    assert_exact(alone, expected)
    assert_exact(found, index)
    assert_exact(grad_x, reference.choice_backward(grad_y, index, shape))


@dtypes
@pytest.mark.parametrize("cells", [1, 3, 15, 16, 17, 63, 64, 65, 200, 1000])
def test_global_maxima(cells: int, dtype: Any, isa: str) -> None:
    rng = np.random.default_rng(cells)
    for x in (
        special(rng, (3, 5, cells), dtype),
        normal(rng, (3, 5, cells), dtype),
        np.full((1, 2, cells), -INF, dtype),
        np.full((1, 2, cells), NAN, dtype),
    ):
        expected, index = reference.adaptive_max_pool(x, (1,))
        for n in (1, 3):
            with team_of(n):
                y, found = F.global_max_pool1d(x, return_indices=True)
                assert_exact(y, expected)
                assert_exact(found, index)
                assert_exact(F.global_max_pool1d(x), expected)
    last = np.zeros((1, 1, cells), dtype)
    last[..., -1] = NAN
    assert np.isnan(F.global_max_pool1d(last)).all()
    assert F.global_max_pool1d(last, True)[1].item() == cells - 1


@ranks
def test_global_maxima_without_a_batch_and_with_none(ndim: int) -> None:
    x = normal(np.random.default_rng(0), (2, 3, *SHAPES[ndim]), np.float32)
    y, index = f("global_max_pool", ndim)(x, return_indices=True)
    assert_exact(y.ravel(), x.reshape(6, -1).max(axis=1))
    assert_exact(f("global_max_pool", ndim)(x[0]), y[0])
    grad = np.arange(1.0, 7, dtype=np.float32).reshape(y.shape)
    grad_x = backward_of("global_max_pool", ndim)(grad, index, x.shape)
    assert_exact(grad_x, reference.choice_backward(grad, index, x.shape))
    none = np.empty((0, 3, *SHAPES[ndim]), np.float32)
    assert f("global_max_pool", ndim)(none).shape == (0, 3, *(1,) * ndim)


# Channels --------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("rest", [(), (5,), (3, 4), (2, 3, 4), (40, 40)])
@pytest.mark.parametrize(("kernel", "stride"), [(2, None), (3, 1), (3, 2), (7, None)])
def test_channels(rest: Any, kernel: int, stride: Any, dtype: Any, isa: str) -> None:
    rng = np.random.default_rng(0)
    x = special(rng, (2, 7, *rest), dtype)
    problem = PoolProblem.pool(
        "f", (2, 1, 7, prod(rest)), (kernel, 1), (stride or kernel, 1)
    )
    y, index = reference.max_pool(problem, x.reshape(problem.x_shape))
    grad_y = rng.integers(-9, 10, y.shape).astype(dtype)
    grad_x = reference.max_pool_backward(problem, grad_y, index).reshape(x.shape)
    shape = (2, y.shape[2], *rest)
    values, found = F.channel_max_pool(x, kernel, stride, return_indices=True)
    assert_exact(values, y.reshape(shape))
    assert_exact(found, (index // prod(rest)).reshape(shape))
    assert_exact(F.channel_max_pool(x, kernel, stride), values)
    grad = grad_y.reshape(shape)
    assert_exact(
        F.channel_max_pool_backward(grad, found, x.shape, kernel, stride), grad_x
    )
    out = np.full_like(x, 7)
    F.channel_max_pool_backward(grad, found, x.shape, kernel, stride, out=out)
    assert_exact(out, grad_x)
    actual, backward = nn.ChannelMaxPool(kernel, stride).forward(x)
    assert_exact(actual, values)
    assert_exact(backward(grad), grad_x)


@dtypes
@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [
        ((2, 300, 20), 257, 3),  # labels that are no bytes
        ((1, 9, 2049), 2, 2),  # blocks of 2048 pixels, a channel that nothing looks at
        ((1, 7, 4100), 3, 4),
        ((3, 6, 15), 3, 1),
        ((3, 6, 17), 3, 2),
        ((0, 6, 17), 3, 2),
    ],
)
def test_channels_in_blocks(
    shape: Any, kernel: int, stride: int, dtype: Any, isa: str
) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, shape).astype(dtype)
    problem = PoolProblem.pool("f", (shape[0], 1, *shape[1:]), (kernel, 1), (stride, 1))
    y, index = reference.max_pool(problem, x.reshape(problem.x_shape))
    grad_y = rng.integers(-9, 10, y.shape).astype(dtype)
    grad_x = reference.max_pool_backward(problem, grad_y, index).reshape(shape)
    for n in (1, 3):
        with team_of(n):
            values, found = F.channel_max_pool(x, kernel, stride, True)
            back = F.channel_max_pool_backward(
                grad_y[:, 0], found, shape, kernel, stride
            )
            actual, backward = nn.ChannelMaxPool(kernel, stride).forward(x)
            assert_exact(backward(grad_y[:, 0]), grad_x)
        assert_exact(values, y[:, 0])
        assert_exact(actual, values)
        assert_exact(found, index[:, 0] // shape[2])
        assert_exact(back, grad_x)


def test_channels_refuse() -> None:
    x = np.ones((2, 4, 3))
    for bad, match in (((5,), "must fit"), ((0,), "kernel_size"), ((2, 0), "stride")):
        with pytest.raises(ValueError, match=match):
            F.channel_max_pool(x, *bad)
    with pytest.raises(ValueError, match="at least 2 axes"):
        F.channel_max_pool(x[0, 0], 1)
    grad, index = np.ones((2, 2, 3)), np.zeros((2, 2, 3), np.int64)
    with pytest.raises(ValueError, match="own window"):
        F.channel_max_pool_backward(grad, index, x.shape, 2)
    for bad_channel in (-1, 4, 2**62):
        with pytest.raises(ValueError, match="indices must be channels"):
            F.channel_max_pool_backward(grad, index + bad_channel, x.shape, 2)


# Windows and winners that are drawn ------------------------------------------------


@dtypes
@ranks
def test_fractional_maxima_are_the_reference(ndim: int, dtype: Any, isa: str) -> None:
    rng = np.random.default_rng(ndim)
    x = special(rng, (2, 3, *SHAPES[ndim]), dtype)
    kernel = (2, 1, 3)[:ndim]
    size = tuple(max(1, e - k - 1) for e, k in zip(SHAPES[ndim], kernel, strict=True))
    y, index = f("fractional_max_pool", ndim)(x, kernel, size, None, True, rng=5)
    samples = np.random.default_rng(5).random((6, ndim))
    starts = starts_of(SHAPES[ndim], kernel, size, samples)
    cuts = np.cumsum(size)[:-1]
    each = tuple(
        part.reshape(2, 3, -1) for part in np.split(starts[:, 3 - ndim :], cuts, axis=1)
    )
    for part, extent, k in zip(each, SHAPES[ndim], kernel, strict=True):
        assert part.min() >= 0
        assert (part[..., -1] == extent - k).all()
        assert (np.diff(part) >= 0).all()
    expected = reference.fractional_max_pool(x, kernel, each)
    assert_exact(y, expected[0])
    assert_exact(index, expected[1])
    grad_y = rng.integers(-9, 10, y.shape).astype(dtype)
    assert_exact(
        backward_of("fractional_max_pool", ndim)(grad_y, index, x.shape),
        reference.choice_backward(grad_y, index, x.shape),
    )
    for n in (1, 3):
        with team_of(n):
            again = f("fractional_max_pool", ndim)(x, kernel, size, rng=5)
        assert_bits_equal(again, y)


def test_fractional_refuses() -> None:
    x = np.ones((1, 1, 6, 6))
    for arguments, match in (
        ((2,), "exactly one"),
        ((2, 3, 0.5), "exactly one"),
        ((3, 5), "1 <= output_size"),
        ((3, None, 0.01), "1 <= output_size"),
        ((3, None, 1.0), "output_ratio must be < 1"),
        ((3, None, (0.5,)), "output_ratio must be one number or 2"),
    ):
        with pytest.raises(ValueError, match=match):
            F.fractional_max_pool2d(x, *arguments, rng=0)
    with pytest.raises(TypeError, match="rng"):
        F.fractional_max_pool2d(x, 2, 3, rng=None)  # type: ignore[arg-type]


@any_call(max_dilation=1)
def test_stochastic_pooling_is_the_reference(
    dtype: Any, call: Call, rng: np.random.Generator, isa: str, team: int
) -> None:
    x = special(rng, call.x_shape, dtype)
    x[rng.random(x.shape) < 0.05] = INF
    draws = np.random.default_rng(3).random(call.problem.y_shape, dtype)
    expected = reference.stochastic_pool(call.problem, x, draws)
    with cpu.use(isa), team_of(team):
        y, index = f("stochastic_pool", call.ndim)(x, **call.keywords, rng=3)
    assert_exact(y, expected[0])
    assert_exact(index, expected[1])


BLOCKS: dict[str, tuple[Any, ...]] = {  # shape, kernel, stride, padding
    "rows of a block": ((3, 3, 61, 40), 3, 1, 1),
    "columns of a block": ((1, 2, 2500), 5, 3, 2),
    "one column": ((1, 9, 9, 1000), (1, 900), 1, 0),
    "windows that no block holds": ((2, 1, 40, 40), 33, 3, 0),
    "slabs": ((1, 5, 9, 20, 22), (3, 2, 3), (2, 1, 2), (1, 0, 1)),
    "as many planes as lanes": ((2, 8, 7, 7), 2, 2, 0),
    "no planes": ((0, 8, 7, 7), 2, 2, 0),
}
blocks = pytest.mark.parametrize("row", BLOCKS.values(), ids=list(BLOCKS))


@dtypes
@blocks
def test_stochastic_pooling_in_blocks(row: Any, dtype: Any, isa: str) -> None:
    shape, *window = row
    ndim = len(shape) - 2
    problem = PoolProblem.pool("f", shape, *window)
    x = special(np.random.default_rng(1), shape, dtype)
    draws = np.random.default_rng(3).random(problem.y_shape, dtype)
    expected = reference.stochastic_pool(problem, x, draws)
    for n in (1, 3):
        with team_of(n):
            y, index = f("stochastic_pool", ndim)(x, *window, rng=3)
            mean = getattr(F, f"stochastic_pool{ndim}d_mean")(x, *window)
        assert_exact(y, expected[0])
        assert_exact(index, expected[1])
        check_means(problem, x, mean)


def check_means(problem: PoolProblem, x: Array, mean: Array) -> None:
    """Of K positive terms sums have an error of K - 1 units, quotients of both twice that.

    One more for each square and for the quotient; float32 is rounded once.
    """
    wide = np.longdouble if x.dtype == np.float64 else np.float64
    right = reference.stochastic_pool_mean(problem, x.astype(wide))
    assert_exact(np.isfinite(mean), np.isfinite(right))
    fine = np.isfinite(right)
    assert_exact(mean[~fine].astype(wide), right[~fine])
    terms = 2 * prod(problem.kernel) if x.dtype == np.float64 else 1
    unit = np.finfo(x.dtype).eps / 2
    error = np.abs(mean[fine] - right[fine])
    limit = 1.01 * terms * unit * right[fine] + np.finfo(x.dtype).smallest_subnormal
    assert (error <= limit).all()


@any_call(max_dilation=1)
def test_means_of_stochastic_pooling_are_the_reference(
    dtype: Any, call: Call, rng: np.random.Generator, isa: str, team: int
) -> None:
    x = normal(rng, call.x_shape, dtype)
    x[rng.random(x.shape) < 0.02] = INF
    x[rng.random(x.shape) < 0.02] = NAN
    name = f"stochastic_pool{call.ndim}d_mean"
    with cpu.use(isa), team_of(team):
        mean = getattr(F, name)(x, **call.keywords)
        if call.x_shape[0]:
            alone = getattr(F, name)(x[:1].copy(), **call.keywords)
            assert_bits_equal(alone, mean[:1])
    check_means(call.problem, x, mean)


@pytest.mark.parametrize(
    ("dtype", "unit"),
    [
        (np.float32, 1e20),
        (np.float32, 1e-30),
        (np.float64, 1e200),
        (np.float64, 1e-200),
        (np.float64, 1.5e308),
        (np.float64, 5e-324),
    ],
)
def test_sums_of_stochastic_pooling_stay_in_range(
    dtype: Any, unit: float, isa: str
) -> None:
    """Squares of 1e20 were inf in float32, and the mean of them NaN."""
    rng = np.random.default_rng(0)
    x = np.asarray(rng.random((2, 5, 8, 8)) * unit, dtype)
    x[0] = unit
    problem = PoolProblem.pool("f", x.shape, 4, 2)
    mean = F.stochastic_pool2d_mean(x, 4, 2)
    assert (mean[0] > 0).all()
    assert np.isfinite(mean).all()
    check_means(problem, x, mean)
    draws = np.random.default_rng(3).random(problem.y_shape, dtype)
    y, index = reference.stochastic_pool(problem, x, draws)
    assert (y > 0).all()
    found = F.stochastic_pool2d(x, 4, 2, rng=3)
    assert_exact(found[0], y)
    assert_exact(found[1], index)


def test_stochastic_pooling_draws_in_proportion() -> None:
    x = np.broadcast_to(np.array([1.0, 0.0, 3.0, -5.0, 6.0]), (4000, 5)).ravel()
    y, index = F.stochastic_pool1d(x[None, None].copy(), 5, rng=1)
    counts = np.bincount(index.ravel() % 5, minlength=5) / 4000
    assert counts[1] == counts[3] == 0
    # Five standard deviations of a share of 4000 draws are at most 0.04.
    assert np.abs(counts - np.array([0.1, 0, 0.3, 0, 0.6])).max() < 0.04
    mean = F.stochastic_pool1d_mean(x[None, None].copy(), 5)
    for mode in ("ignore", "zeros"):
        out = np.full_like(mean, np.nan)
        given = x[None, None].copy()
        back = F.stochastic_pool1d_mean(given, 5, padding_mode=mode, out=out)
        assert back is out
        assert_bits_equal(out, mean)
        with pytest.raises(ValueError, match=r"^stochastic_pool1d_mean: out must not"):
            F.stochastic_pool1d_mean(given, 1, padding_mode=mode, out=given)
    assert np.allclose(mean, (1 + 9 + 36) / 10, rtol=1e-15)
    assert abs(y.mean() - mean.flat[0]) < 0.2
    grad_x = F.stochastic_pool1d_backward(np.ones_like(y), index, (1, 1, x.size))
    assert grad_x.sum() == 4000


def test_mean_of_windows_without_a_positive_element_is_zero() -> None:
    x: Array = -np.ones((1, 1, 2, 2), np.float32)
    assert_exact(F.stochastic_pool2d_mean(x, 2), np.zeros((1, 1, 1, 1), np.float32))


def test_indices_that_change_after_the_check_go_nowhere(isa: str) -> None:
    """Another thread may write to them during a call: no access outside."""
    module = kernels.load("pool_select", isa)
    sizes = np.array([1, 6, 4])
    index = np.array([0, 2**40, -(2**40), 6])
    x, cells = np.ones(4, np.float32), np.arange(6, dtype=np.float32)
    for function in (module.put, module.scatter_add):
        y, bad = np.full(6, np.nan, np.float32), np.empty(1, np.int64)
        function(sizes, x, index, y, bad, 1)
        assert y.tolist() == [1, 0, 0, 0, 0, 0]
        assert bad[0] == 1
        function(sizes, x, index[[0, 0, 0, 0]], y, bad, 1)
        assert bad[0] == 0
    grad_x, seen = np.empty(4, np.float32), np.empty(128, np.uint8)
    module.put_gradient(sizes, cells + 1, index, grad_x, bad, seen, 1)
    assert grad_x.tolist() == [1, 0, 0, 0]
    assert bad[0] == 1


def test_results_that_a_caller_gave_are_not_written_before_indices_are_checked() -> (
    None
):
    x, index = np.ones((1, 2, 2, 2)), np.zeros((1, 2, 2, 2), np.int64)
    index[0, 1, 1, 1] = 16
    for call, shape in (
        (lambda out: F.max_unpool2d(x, index, 2, out=out), (1, 2, 4, 4)),
        (
            lambda out: F.max_unpool2d_backward(np.ones((1, 2, 4, 4)), index, out=out),
            x.shape,
        ),
        (
            lambda out: F.adaptive_max_pool2d_backward(x, index, (1, 2, 4, 4), out=out),
            (1, 2, 4, 4),
        ),
        (
            lambda out: F.channel_max_pool_backward(x, index, (1, 4, 2, 2), 2, out=out),
            (1, 4, 2, 2),
        ),
    ):
        out = np.full(shape, 7.0)
        with pytest.raises(ValueError, match="indices must"):
            call(out)
        assert (out == 7).all()


@ranks
def test_unpooling_as_an_object(ndim: int) -> None:
    unpool = getattr(nn, f"MaxUnpool{ndim}d")(3, 2, 1)
    x = normal(np.random.default_rng(0), (2, 3, *SHAPES[ndim]), np.float32)
    pooled, index = f("max_pool", ndim)(x, 3, 2, 1, return_indices=True)
    y, backward = unpool.forward(pooled, index, SHAPES[ndim])
    assert_bits_equal(y, unpool(pooled, index, SHAPES[ndim]))
    assert_exact(y, reference.max_unpool(pooled, index, x.shape))
    grad_y = normal(np.random.default_rng(1), y.shape, np.float32)
    expected = reference.max_unpool_backward(grad_y, index)
    for _ in range(2):
        assert_exact(backward(grad_y), expected)
    with pytest.raises(ValueError, match=r"^MaxUnpool.d: grad_y must have shape"):
        backward(grad_y[..., :1])
    with pytest.raises(ValueError, match="indices must have the shape of x"):
        unpool.forward(pooled, index[:1])


def test_an_unpooling_is_no_layer() -> None:
    assert repr(nn.MaxUnpool2d(2)) == "MaxUnpool2d(kernel_size=2)"
    assert repr(nn.MaxUnpool1d(3, 2)) == "MaxUnpool1d(kernel_size=3, stride=2)"
    with pytest.raises(TypeError, match="every child must be a layer, got MaxUnpool"):
        nn.Sequential(nn.ReLU(), nn.MaxUnpool2d(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^MaxUnpool3d: kernel_size must"):
        nn.MaxUnpool3d(0)
