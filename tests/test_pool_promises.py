"""What pooling promises beside right results: bits, special values, indices."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from convcore import functional as F
from convcore import reference
from convcore.problem import PoolProblem
from tests.oracle import Array, assert_bits_equal, assert_exact, normal
from tests.pool_helpers import (
    INF,
    NAN,
    dtypes,
    f,
    ranks,
    team_of,
)
from tests.strategies import Call, generators, pool_calls

# Bits ------------------------------------------------------------------------------


def every_result(ndim: int, x: Array, grad_y: Array) -> list[Array]:
    """Run all operations with one window; grad_y has the shape of its results."""
    window, rule = (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}
    y, index = f("max_pool", ndim)(x, *window, ceil_mode=True, return_indices=True)
    size = grad_y.shape[2:]
    return [
        y,
        index,
        f("max_pool", ndim)(x, *window, ceil_mode=True),
        f("max_pool_backward", ndim)(grad_y, index, x.shape, *window, ceil_mode=True),
        f("avg_pool", ndim)(x, *window, **rule),
        f("avg_pool", ndim)(x, 3, 2, 1, True),
        f("avg_pool_backward", ndim)(grad_y, x.shape, *window, **rule),
        f("avg_pool_backward", ndim)(grad_y, x.shape, *window, ceil_mode=True),
        f("adaptive_avg_pool", ndim)(x, size),
        f("adaptive_avg_pool_backward", ndim)(grad_y, x.shape),
        f("global_avg_pool", ndim)(x),
        f("global_avg_pool_backward", ndim)(y[(..., *(slice(1),) * ndim)], x.shape),
    ]


def case(ndim: int, dtype: Any) -> tuple[Array, Array]:
    """Give data for `every_result`: a batch of 3, several tasks."""
    rng = np.random.default_rng(7)
    spatial = [(1501,), (60, 71), (12, 20, 22)][ndim - 1]
    return (
        normal(rng, (3, 5, *spatial), dtype),
        normal(rng, (3, 5, *(i // 2 + 1 for i in spatial)), dtype),
    )


@dtypes
@ranks
def test_bits_do_not_depend_on_threads_nor_on_the_batch(
    ndim: int, dtype: Any, isa: str
) -> None:
    x, grad_y = case(ndim, dtype)
    with team_of(1):
        expected = every_result(ndim, x, grad_y)
    for n in (2, 3, 8):
        with team_of(n):
            for actual, same in zip(
                every_result(ndim, x, grad_y), expected, strict=True
            ):
                assert_bits_equal(actual, same, f"{n} threads")
    alone = every_result(ndim, x[1:2], grad_y[1:2])
    for actual, same in zip(alone, expected, strict=True):
        assert_bits_equal(actual, same[1:2], "one sample")


def layouts(array: Array) -> Iterator[tuple[str, Array]]:
    """Give the same values in other layouts of memory."""
    yield "Fortran", np.asfortranarray(array)
    turned = (slice(None, None, -1),) * array.ndim
    yield "negative strides", np.ascontiguousarray(array[turned])[turned]
    roomy = np.repeat(array, 2, axis=-1)
    yield "every second", roomy[..., ::2]
    frozen = array.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    yield "foreign byte order", array.astype(array.dtype.newbyteorder())
    raw = np.empty(array.nbytes + 1, np.uint8)
    odd = raw[1:].view(array.dtype).reshape(array.shape)
    odd[...] = array
    yield "misaligned", odd
    yield "subclass", array.view(type("Sub", (np.ndarray,), {}))
    first = array[..., :1]
    yield "zero strides", np.broadcast_to(first, array.shape)


@dtypes
@ranks
def test_layouts_of_memory_change_nothing(ndim: int, dtype: Any) -> None:
    x, grad_y = case(ndim, dtype)
    for (name, other), (_, other_grad) in zip(layouts(x), layouts(grad_y), strict=True):
        kept = other.copy()
        expected = every_result(
            ndim,
            np.array(other, dtype, order="C"),
            np.array(other_grad, dtype, order="C"),
        )
        for actual, same in zip(
            every_result(ndim, other, other_grad), expected, strict=True
        ):
            assert_bits_equal(actual, same, name)
            assert type(actual) is np.ndarray
        assert_exact(other, kept)


@ranks
def test_layouts_of_indices_change_nothing(ndim: int) -> None:
    x, grad_y = case(ndim, np.float32)
    window = (3, 2, 1, 1, True)
    _, index = f("max_pool", ndim)(x, *window, return_indices=True)
    backward = f("max_pool_backward", ndim)
    expected = backward(grad_y, index, x.shape, *window)
    for name, other in layouts(index):
        if name != "zero strides":
            actual = backward(grad_y, other, list(x.shape), *window)
            assert_bits_equal(actual, expected, name)


@ranks
def test_without_a_batch(ndim: int) -> None:
    x, grad_y = case(ndim, np.float64)
    window = (3, 2, 1)
    pairs: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("max_pool", window, {"ceil_mode": True}),
        ("avg_pool", window, {"ceil_mode": True}),
        ("adaptive_avg_pool", (3,), {}),
        ("global_avg_pool", (), {}),
    ]
    for operation, arguments, keywords in pairs:
        function = f(operation, ndim)
        batch = function(x[:1], *arguments, **keywords)
        assert_bits_equal(function(x[0], *arguments, **keywords), batch[0], operation)
    _, index = f("max_pool", ndim)(x[:1], *window, 1, True, True)
    values, single = f("max_pool", ndim)(x[0], *window, 1, True, return_indices=True)
    assert values.shape == single.shape == grad_y.shape[1:]
    assert_exact(single, index[0])
    one = grad_y[0]
    for actual, batch in (
        (
            f("max_pool_backward", ndim)(one, single, x.shape[1:], *window, 1, True),
            f("max_pool_backward", ndim)(
                one[None], index, x[:1].shape, *window, 1, True
            ),
        ),
        (
            f("avg_pool_backward", ndim)(one, x.shape[1:], *window, True),
            f("avg_pool_backward", ndim)(one[None], x[:1].shape, *window, True),
        ),
        (
            f("adaptive_avg_pool_backward", ndim)(one, x.shape[1:]),
            f("adaptive_avg_pool_backward", ndim)(one[None], x[:1].shape),
        ),
    ):
        assert_bits_equal(actual, batch[0])


# Values that are no numbers, or nearly none ----------------------------------------


@dtypes
@ranks
def test_nan_stays_in_its_windows_and_its_first_index_is_told(
    ndim: int, dtype: Any, isa: str
) -> None:
    x = np.zeros((1, 1, *(7,) * ndim), dtype)
    centre: tuple[int, ...] = (0, 0, *(3,) * ndim)
    x[centre] = NAN
    x[(*centre[:-1], 4)] = NAN
    y, index = f("max_pool", ndim)(x, 3, 1, 1, return_indices=True)
    sees = np.zeros(x.shape, bool)
    sees[(0, 0, *(slice(2, 5),) * (ndim - 1), slice(2, 6))] = True
    for result in (
        y,
        f("max_pool", ndim)(x, 3, 1, 1),
        f("avg_pool", ndim)(x, 3, 1, 1),
    ):
        assert np.array_equal(np.isnan(result), sees)
    first = np.ravel_multi_index(centre, x.shape)
    assert set(index[sees].tolist()) == {first, first + 1}
    assert (index[0, 0, ..., 5][sees[0, 0, ..., 5]] == first + 1).all()
    assert (index[0, 0, ..., :5][sees[0, 0, ..., :5]] == first).all()


@dtypes
@pytest.mark.parametrize("kernel", [(2, 2), (3, 300)])
def test_values_that_look_like_a_start_value(dtype: Any, kernel: Any) -> None:
    shape = (1, 1, 4, 600)  # a window of 300 is searched on its own
    window = (kernel, 1, tuple(k // 2 for k in kernel))
    for value in (-INF, np.finfo(dtype).min, -0.0, np.finfo(dtype).smallest_subnormal):
        x = np.full(shape, value, dtype)
        y, index = F.max_pool2d(x, *window, return_indices=True)
        assert (y == x.dtype.type(value)).all()
        expected = reference.max_pool(PoolProblem.pool("pool", shape, *window), x)[1]
        assert_exact(index, expected)
        grad_x = F.max_pool2d_backward(np.ones_like(y), index, shape, *window)
        assert grad_x.sum() == y.size


@dtypes
def test_inf_is_a_maximum_like_any_other(dtype: Any) -> None:
    x = np.array([[[1, INF, 2, -INF, INF, INF]]], dtype)
    y, index = F.max_pool1d(x, 2, return_indices=True)
    assert_exact(y, np.array([[[INF, 2, INF]]], dtype))
    assert index.ravel().tolist() == [1, 2, 4]
    mean = F.avg_pool1d(x, 3, 1)
    assert_exact(mean, np.array([[[INF, NAN, NAN, NAN]]], dtype))


def test_first_of_equal_maxima_in_row_major_order() -> None:
    x = np.ones((1, 1, 4, 4), np.float32)
    _, index = F.max_pool2d(x, 3, 1, 1, return_indices=True)
    expected = [[0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6], [8, 8, 9, 10]]
    assert_exact(index[0, 0], np.array(expected))
    # Columns are compared first: the winner of a later column may be on an earlier row.
    x = np.array([[[[0, 5.0], [5, 0]]]])
    assert F.max_pool2d(x, 2, return_indices=True)[1].item() == 1


@ranks
def test_window_that_steps_over_the_input(ndim: int) -> None:
    x = np.full((2, 1, *(1,) * ndim), 7.0, np.float32)
    window = (2, 1, 1, 2)
    y, index = f("max_pool", ndim)(x, *window, return_indices=True)
    assert (y == -INF).all()
    assert (index == 0).all()
    assert_exact(f("max_pool", ndim)(x, *window), y)
    grad_x = f("max_pool_backward", ndim)(np.ones_like(y), index, x.shape, *window)
    assert_exact(grad_x, np.zeros_like(x))


def test_rows_of_windows_that_step_over_the_input() -> None:
    full, thin = np.ones((1, 1, 3, 5), np.float32), np.ones((1, 1, 1, 5), np.float32)
    window = ((2, 1), 1, (1, 0), (2, 1))
    assert (F.max_pool2d(full, *window) == 1).all()  # leaves ones in the same scratch
    y, index = F.max_pool2d(thin, *window, return_indices=True)
    assert_exact(y, np.full((1, 1, 1, 5), -INF, np.float32))
    assert_exact(index, np.zeros((1, 1, 1, 5), np.int64))


def test_gradient_past_windows_that_step_over_the_input() -> None:
    # Windows over -2, 1; -1, 2; 0, 3; ...: with two elements, the third holds the 0.
    x = np.array([[[4.0, 9.0]]])
    y, index = F.max_pool1d(x, 2, 1, 2, 3, return_indices=True)
    assert_exact(y, np.array([[[9, -INF, 4]]]))
    assert index.ravel().tolist() == [1, 0, 0]
    actual = F.max_pool1d_backward(
        np.array([[[1.0, 2, 4]]]), index, x.shape, 2, 1, 2, 3
    )
    assert_exact(actual, np.array([[[4.0, 1.0]]]))


def test_mean_of_large_numbers_is_finite() -> None:
    x = np.full((1, 1, 300), 3e38, np.float32)
    three = np.float32(3e38)
    for y in (
        F.avg_pool1d(x, 2),
        F.avg_pool1d(x, 280),
        F.global_avg_pool1d(x),
        F.adaptive_avg_pool1d(x, 7),
    ):
        assert (y == three).all()
    # Three windows over each element: their gradients add up before the division.
    grad_x = F.avg_pool1d_backward(x, (1, 1, 302), 3, 1)
    assert (grad_x[0, 0, 2:-2] == three).all()


def test_mean_keeps_small_differences_from_a_large_mean() -> None:
    rng = np.random.default_rng(4)
    x = (1e4 + rng.standard_normal((1, 1, 128, 128))).astype(np.float32)
    exact = math.fsum(x.ravel().tolist()) / x.size
    assert F.global_avg_pool2d(x).item() == np.float32(exact)


@dtypes
def test_subnormal_means_are_kept(dtype: Any) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.full((1, 1, 8), 4 * tiny, dtype)
    assert (F.avg_pool1d(x, 4) == 4 * tiny).all()
    assert (F.avg_pool1d(x, 4, divisor_override=16) == tiny).all()


# Integers beyond 32 and 63 bits ----------------------------------------------------


def test_huge_integers_that_are_legal() -> None:
    x = np.array([[[3.0, 8.0, 1.0]]])
    for huge in (2**31, 2**62, 2**100):
        assert F.max_pool1d(x, 2, huge).item() == 8
        assert F.avg_pool1d(x, 3, huge).item() == 4
        assert F.max_pool1d(x, 1, 2, 0, huge).ravel().tolist() == [3, 1]
        # One window hangs over by far; of it, three elements exist.
        assert F.max_pool1d(x, huge, huge, ceil_mode=True).item() == 8
        assert F.avg_pool1d(x, huge, huge, ceil_mode=True).item() == 4
        wide = F.avg_pool1d_backward(
            np.array([[[6.0]]]), x.shape, huge, huge, ceil_mode=True
        )
        assert wide.ravel().tolist() == [2, 2, 2]
        assert F.max_pool1d(x, 2, huge * 2**41, 0, 2**40, ceil_mode=True).item() == 3


def test_huge_padding_that_is_legal() -> None:
    half = 2**57
    x = np.array([[[3.0, 8.0]]])
    y = F.max_pool1d(x, 2, half, half, 2 * half, return_indices=True)
    assert [a.ravel().tolist() for a in y] == [[-INF], [0]]
    # The divisor, 2**58, is beyond 2**53, and its cube beyond 2**63.
    assert F.avg_pool1d(x, 2 * half, 1, half)[0, 0, 0] == 11 / (2 * half)
    cube = F.avg_pool3d(np.ones((1, 1, 1, 1, 1)), 2 * half, 2 * half, half)
    assert cube.item() == 1 / (2.0 * half) ** 3
    grad = F.avg_pool3d_backward(cube, (1, 1, 1, 1, 1), 2 * half, 2 * half, half)
    assert grad.item() == 1 / (2.0 * half) ** 6
    assert F.avg_pool1d(x, 2, divisor_override=2**63 - 1).item() == 11 / 2**63


def test_empty_batch() -> None:
    big = np.empty((0, 1, 2**30, 2**30), np.float32)
    y, index = F.max_pool2d(big, 3, return_indices=True)
    assert y.shape == index.shape == (0, 1, 357913941, 357913941)
    assert F.max_pool2d_backward(y, index, big.shape, 3).shape == big.shape
    assert F.avg_pool2d(big, 3).shape == y.shape
    assert F.avg_pool2d_backward(y, big.shape, 3).shape == big.shape
    assert F.global_avg_pool2d(big).shape == (0, 1, 1, 1)
    assert F.adaptive_avg_pool2d(big, 2**20).shape == (0, 1, 2**20, 2**20)
    empty = F.adaptive_avg_pool2d_backward(
        np.empty((0, 1, 3, 3), np.float32), big.shape
    )
    assert empty.shape == big.shape
    deep = np.empty((0, 1, 2**19, 2**20, 2**20))
    assert F.max_pool3d(deep, 2).shape == (0, 1, 2**18, 2**19, 2**19)


# Indices ---------------------------------------------------------------------------


@given(call=pool_calls(), rng=generators())
def test_every_index_is_used_or_refused(call: Call, rng: np.random.Generator) -> None:
    """An index in its window counts, the maximum or not; one outside is an error."""
    problem: PoolProblem = call.problem
    cells = math.prod(problem.in_extent)
    index = rng.integers(0, cells, problem.y_shape)
    grad_y = rng.integers(1, 10, problem.y_shape).astype(np.float32)
    held = np.zeros((problem.n * problem.c, math.prod(problem.out_extent), cells), bool)
    for tap in reference.taps(problem):
        windows = np.arange(held.shape[1]).reshape(problem.out_extent)[tap.out[1:]]
        elements = np.arange(cells).reshape(problem.in_extent)[tap.inp[1:]]
        held[:, windows.ravel(), elements.ravel()] = True
    flat = index.reshape(held.shape[:2])
    used = np.take_along_axis(held, flat[..., None], -1)[..., 0]
    allowed = used | ~held.any(axis=-1)
    arguments = (grad_y, index, call.x_shape)
    backward = f("max_pool_backward", call.ndim)
    if allowed.all():
        grad_x = backward(*arguments, **call.keywords)
        lost = grad_y.reshape(flat.shape)[~used].sum()
        assert grad_x.sum() == grad_y.sum() - lost
    else:
        where = np.unravel_index(np.flatnonzero(~allowed)[0], problem.y_shape)
        with pytest.raises(ValueError, match="indices must each lie") as error:
            backward(*arguments, **call.keywords)
        place = tuple(map(int, where))
        assert str(error.value).endswith(f"got {index[where]} at {place}")


@pytest.mark.parametrize(
    ("shape", "kernel", "places"),
    [
        ((1, 36, 32, 1024), 2, [(0, 35, 15, 511), (0, 1, 3, 100), (0, 0, 1, 5)]),
        # A round is 64 parts of 64 blocks, a row three blocks: the second round starts
        # in the middle of row 1365.
        (
            (1, 2, 1024, 1100),
            1,
            [(0, 1, 1023, 1099), (0, 1, 341, 512), (0, 1, 341, 511)],
        ),
    ],
    ids=["several parts", "several rounds"],
)
def test_first_bad_index_is_told_whoever_finds_it(
    shape: Any, kernel: int, places: list[tuple[int, ...]]
) -> None:
    y, index = F.max_pool2d(np.zeros(shape, np.float32), kernel, return_indices=True)
    for bad in places:
        index[bad] = -1
        for n in (1, 2, 3, 8):
            with team_of(n), pytest.raises(ValueError, match="indices") as error:
                F.max_pool2d_backward(y, index, shape, kernel)
            assert str(error.value).endswith(f"got -1 at {bad}")
