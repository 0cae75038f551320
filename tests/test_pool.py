"""Pooling, kernels and functions: judged by the reference and by arrays worked by hand.

Fresh outputs are NaN (conftest), so an element that a kernel leaves out is seen.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import plan, reference
from convcore.problem import PoolProblem
from convcore.runtime import cpu, threads
from tests.oracle import (
    DTYPES,
    Array,
    Call,
    assert_bits_equal,
    assert_exact,
    assert_within,
    generators,
    normal,
    pool_calls,
    wider,
)

NAN, INF = np.nan, np.inf

# Every count of elements in a window of the strategies divides it, so that means of its
# multiples are integers and every comparison can be exact.
WHOLE = (3 * 4) ** 3

dtypes = pytest.mark.parametrize("dtype", DTYPES)
ranks = pytest.mark.parametrize("ndim", [1, 2, 3])
isas = st.sampled_from(cpu.available())
teams = st.sampled_from([1, 2, 3])


def f(operation: str, ndim: int) -> Callable[..., Any]:
    """Give the function of an operation for a rank: `f("max_pool", 2)`."""
    name, backward, _ = operation.partition("_backward")
    function: Callable[..., Any] = getattr(F, f"{name}{ndim}d{backward}")
    return function


@contextmanager
def team_of(n: int) -> Iterator[None]:
    """Use n threads, however small the work is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "team", lambda work: n)
        yield


def special(rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
    """Draw few small integers, so that there are ties, with NaN and -inf among them."""
    x: Array = rng.integers(-2, 3, shape).astype(dtype)
    x[rng.random(shape) < 0.3] = -INF
    x[rng.random(shape) < 0.05] = NAN
    return x


def whole(rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
    """Draw small multiples of WHOLE."""
    return np.asarray(rng.integers(-4, 5, shape) * WHOLE, dtype)


def inner(a: Array, b: Array) -> int:
    """Give the inner product of integers, exactly."""
    return sum(int(x) * int(y) for x, y in zip(a.ravel(), b.ravel(), strict=True))


# The reference, on legal problems of any kind --------------------------------------


@dtypes
@given(call=pool_calls(), rng=generators(), isa=isas, team=teams)
def test_max_pool_is_the_reference(
    dtype: Any, call: Call, rng: np.random.Generator, isa: str, team: int
) -> None:
    x = special(rng, call.x_shape, dtype)
    before = x.copy()
    y, index = reference.max_pool(call.problem, x)
    with cpu.use(isa), team_of(team):
        values, indices = f("max_pool", call.ndim)(
            x, **call.keywords, return_indices=True
        )
        alone = f("max_pool", call.ndim)(x, **call.keywords)
    assert_exact(values, y)
    assert_exact(indices, index)
    assert_exact(alone, y)
    assert_bits_equal(x, before)


@dtypes
@given(call=pool_calls(), rng=generators(), isa=isas, team=teams)
def test_max_pool_backward_is_the_reference(
    dtype: Any, call: Call, rng: np.random.Generator, isa: str, team: int
) -> None:
    x = rng.integers(-3, 4, call.x_shape).astype(dtype)
    y, index = reference.max_pool(call.problem, x)
    grad_y = rng.integers(-9, 10, y.shape).astype(dtype)
    with cpu.use(isa), team_of(team):
        grad_x = f("max_pool_backward", call.ndim)(
            grad_y, index, call.x_shape, **call.keywords
        )
    assert_exact(grad_x, reference.max_pool_backward(call.problem, grad_y, index))
    if np.isfinite(y).all():
        assert inner(y, grad_y) == inner(x, grad_x)


@dtypes
@given(
    call=pool_calls(max_dilation=1),
    rng=generators(),
    count_include_pad=st.booleans(),
    divisor=st.sampled_from([None, None, 1, 3]),
    isa=isas,
    team=teams,
)
def test_avg_pool_is_the_reference_and_its_own_adjoint(
    dtype: Any,
    call: Call,
    rng: np.random.Generator,
    count_include_pad: bool,
    divisor: int | None,
    isa: str,
    team: int,
) -> None:
    x = whole(rng, call.x_shape, dtype)
    grad_y = whole(rng, call.problem.y_shape, dtype)
    rule: dict[str, Any] = {
        "count_include_pad": count_include_pad,
        "divisor_override": divisor,
    }
    with cpu.use(isa), team_of(team):
        y = f("avg_pool", call.ndim)(x, **call.keywords, **rule)
        grad_x = f("avg_pool_backward", call.ndim)(
            grad_y, call.x_shape, **call.keywords, **rule
        )
    assert_exact(y, reference.avg_pool(call.problem, x, *rule.values()))
    assert_exact(
        grad_x, reference.avg_pool_backward(call.problem, grad_y, *rule.values())
    )
    assert inner(y, grad_y) == inner(x, grad_x)


@st.composite
def adaptive_calls(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw a shape of x, and an output size below, at or above its extents."""
    ndim = draw(st.integers(1, 3))
    most = (40, 12, 6)[ndim - 1]
    spatial, sizes = (
        tuple(draw(st.integers(1, most)) for _ in range(ndim)) for _ in range(2)
    )
    return (draw(st.integers(0, 2)), draw(st.integers(1, 3)), *spatial), sizes


@dtypes
@given(call=adaptive_calls(), rng=generators(), isa=isas, team=teams)
def test_adaptive_avg_pool_is_the_reference(
    dtype: Any, call: Any, rng: np.random.Generator, isa: str, team: int
) -> None:
    shape, size = call
    ndim = len(size)
    x, grad_y = normal(rng, shape, dtype), normal(rng, (*shape[:2], *size), dtype)
    with cpu.use(isa), team_of(team):
        y = f("adaptive_avg_pool", ndim)(x, size)
        grad_x = f("adaptive_avg_pool_backward", ndim)(grad_y, shape)
    with_more = wider(dtype)
    for actual, function, *arguments in (
        (y, reference.adaptive_avg_pool, x, size),
        (grad_x, reference.adaptive_avg_pool_backward, grad_y, shape),
    ):
        source, rest = arguments
        expected = function(source.astype(with_more), rest)
        size_of_terms = function(np.abs(source).astype(with_more), rest)
        assert_within(actual, expected, rounding(dtype) * size_of_terms, dtype)


def rounding(dtype: Any) -> float:
    """Bound the relative error: sums of doubles, one rounding to float32 or a few."""
    return 1.01 * 2.0**-24 if dtype == np.float32 else 40 * 2.0**-53


@dtypes
@ranks
def test_global_avg_pool_is_the_mean(dtype: Any, ndim: int) -> None:
    rng = np.random.default_rng(5)
    shape = (2, 3, *(9, 11, 13)[:ndim])
    x = whole(rng, shape, dtype)
    y = f("global_avg_pool", ndim)(x)
    expected = reference.global_avg_pool(x.astype(np.float64)).astype(dtype)
    assert_exact(y, expected)
    assert_exact(f("adaptive_avg_pool", ndim)(x, 1), expected)
    grad_y = rng.integers(-9, 9, y.shape).astype(dtype) * dtype(9 * 11 * 13)
    grad_x = f("global_avg_pool_backward", ndim)(grad_y, shape)
    assert_exact(grad_x, reference.global_avg_pool_backward(grad_y, shape))
    assert_exact(f("adaptive_avg_pool_backward", ndim)(grad_y, shape), grad_x)


# Shapes around the blocks of the kernels -------------------------------------------

# 512 columns make a block, 65536 cells a band of the max gradient, 16777216 elements a
# round between two looks for Ctrl-C.
SHAPES = {
    "a row of several blocks": ((1, 2, 1300), 3, 1, 1, 1),
    "several blocks, stride 2": ((1, 1, 2100), 3, 2, 1, 1),
    "several blocks, stride 3": ((2, 1, 1600), 4, 3, 0, 1),
    "stride above the kernel": ((1, 3, 1200), 2, 3, 0, 1),
    "longest window in columns": ((1, 1, 600), 256, 1, 128, 1),
    "shortest window on its own": ((1, 1, 600), 257, 1, 128, 1),
    "dilated beyond the columns": ((1, 1, 700), 3, 1, 200, 200),
    "windows far apart": ((1, 2, 40, 40), 2, 7, 0, 1),
    "maximum over time": ((3, 4, 50), 50, None, 0, 1),
    "window of the whole plane": ((2, 3, 9, 9), 9, None, 0, 1),
    "the last task is the smallest": ((8, 32, 28, 28), 2, 2, 0, 1),
    "plane of several bands": ((1, 1, 300, 300), 3, 2, 1, 1),
    "row of several bands": ((1, 1, 140000), 3, 2, 1, 1),
    "slices over several bands": ((1, 1, 20, 70, 70), 3, 2, 1, 1),
    "indices of several parts": ((1, 36, 32, 1024), 2, 2, 0, 1),
    "several rounds": ((1, 1, 400, 1000), 8, 1, 4, 1),
}
shapes = pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "dilation"), SHAPES.values(), ids=SHAPES
)


@shapes
def test_max_pool_on_shapes_around_the_blocks(
    shape: Any, kernel: int, stride: Any, padding: int, dilation: int, isa: str
) -> None:
    ndim, rng = len(shape) - 2, np.random.default_rng(1)
    window = (kernel, stride, padding, dilation)
    problem = PoolProblem.pool("pool", shape, *window)
    x = rng.integers(-9, 10, shape).astype(np.float32)
    y, index = reference.max_pool(problem, x)
    grad_y = rng.integers(-9, 10, y.shape).astype(np.float32)
    grad_x = reference.max_pool_backward(problem, grad_y, index)
    for n in (1, 2, 3, 8):
        with team_of(n):
            values, indices = f("max_pool", ndim)(x, *window, return_indices=True)
            assert_exact(values, y)
            assert_exact(indices, index)
            assert_exact(f("max_pool", ndim)(x, *window), y)
            actual = f("max_pool_backward", ndim)(grad_y, index, shape, *window)
            assert_exact(actual, grad_x)


@shapes
def test_avg_pool_on_shapes_around_the_blocks(
    shape: Any, kernel: int, stride: Any, padding: int, dilation: int, isa: str
) -> None:
    if dilation > 1:
        kernel, padding = 401, 200  # what the dilated window spans
    ndim, rng = len(shape) - 2, np.random.default_rng(2)
    window = (kernel, stride, padding)
    problem = PoolProblem.pool("pool", shape, *window)
    x = rng.integers(-9, 10, shape).astype(np.float32)
    grad_y = rng.integers(-9, 10, problem.y_shape).astype(np.float32)
    for count_pad in (True, False):
        with team_of(2):
            y = f("avg_pool", ndim)(x, *window, count_include_pad=count_pad)
            grad_x = f("avg_pool_backward", ndim)(
                grad_y, shape, *window, count_include_pad=count_pad
            )
        wide = reference.avg_pool(problem, x.astype(np.float64), count_pad)
        assert_exact(y, wide.astype(np.float32))
        expected, terms = (
            reference.avg_pool_backward(problem, g.astype(np.float64), count_pad)
            for g in (grad_y, np.abs(grad_y))
        )
        assert_within(grad_x, expected, rounding(np.float32) * terms, np.float32)


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


# Arrays worked by hand -------------------------------------------------------------


def table(*rows: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("x", "arguments", "expected"),
        [row[1:] for row in rows],
        ids=[r[0] for r in rows],
    )


@table(
    ("no ceil", [1, 2, 3, 4, 5], (2, 2, 0, 1, False), [2, 4]),
    ("ceil", [1, 2, 3, 4, 5], (2, 2, 0, 1, True), [2, 4, 5]),
    ("ceil adds nothing where it fits", [1, 2, 3, 4], (2, 2, 0, 1, True), [2, 4]),
    ("a start in the right padding", [1, 2, 3, 4, 5], (2, 2, 1, 1, True), [1, 3, 5]),
    ("the same, longer window", [1, 2, 3, 4, 5], (3, 3, 1, 1, True), [2, 5]),
    (
        "kernel 1 would start outside",
        [1, 2, 3, 4, 5, 6, 7],
        (1, 2, 0, 1, True),
        [1, 3, 5, 7],
    ),
    ("kernel 1, even extent", [1, 2, 3, 4, 5, 6], (1, 2, 0, 1, True), [1, 3, 5]),
    ("overhang with dilation", [1, 2, 3, 4, 5, 6], (2, 3, 0, 2, True), [3, 6]),
    ("hangs over by more than a stride", [5, 1], (5, 9, 0, 1, True), [5]),
    ("unlike paddings", [1, 2, 3, 4], (2, 2, [(1, 0)], 1, False), [1, 3]),
    ("unlike paddings, ceil", [1, 2, 3, 4], (2, 2, [(1, 0)], 1, True), [1, 3, 4]),
    ("padding never wins", [-3, -1, -2], (3, 1, 1, 1, False), [-1, -1, -1]),
)
def test_max_pool1d_by_hand(x: Any, arguments: Any, expected: Any) -> None:
    actual = F.max_pool1d(np.array([[x]], np.float32), *arguments)
    assert_exact(actual, np.array([[expected]], np.float32))


@table(
    ("ceil: overhang is not counted", [1, 2, 3, 4, 5], (2, 2, 0, True), [1.5, 3.5, 5]),
    ("padding counts", [2, 4, 6], (2, 1, 1), [1, 3, 5, 3]),
    ("padding does not count", [2, 4, 6], (2, 1, 1, False, False), [2, 3, 5, 6]),
    ("padding counts, overhang not", [2, 4, 6, 8], (3, 2, 1, True), [2, 6, 4]),
    ("neither counts", [2, 4, 6, 8], (3, 2, 1, True, False), [3, 6, 8]),
    ("a divisor of its own", [2, 4, 6], (2, 1, 1, False, True, 1), [2, 6, 10, 6]),
    ("unlike paddings", [2, 4, 6], (2, 2, [(0, 1)]), [3, 3]),
    ("window beyond the overhang", [3, 6], (5, 9, 0, True), [4.5]),
)
def test_avg_pool1d_by_hand(x: Any, arguments: Any, expected: Any) -> None:
    actual = F.avg_pool1d(np.array([[x]], np.float32), *arguments)
    assert_exact(actual, np.array([[expected]], np.float32))


def test_avg_pool2d_divides_by_what_lies_on_the_padded_input() -> None:
    y = F.avg_pool2d(np.ones((1, 1, 6, 6)), 3, 2, 1, ceil_mode=True)
    along = np.array([2.0, 3.0, 3.0, 1.0])  # ones of a window along an axis
    count = np.array([3.0, 3.0, 3.0, 2.0])  # elements, with padding, without overhang
    expected = np.outer(along, along) / np.outer(count, count)
    assert_exact(y[0, 0], expected)


def test_avg_pool2d_with_ceil_mode_by_hand() -> None:
    x = np.arange(49, dtype=np.float32).reshape(1, 1, 7, 7)
    expected = [[4, 7, 9.5], [25, 28, 30.5], [42.5, 45.5, 48]]
    actual = F.avg_pool2d(x, 2, 3, ceil_mode=True)
    assert_exact(actual, np.array([[expected]], np.float32))


@pytest.mark.parametrize(
    ("shape", "arguments", "size"),
    [
        ((8, 10), (3, 4, 0, 1, True), (2, 3)),
        ((5, 5), (2, 2, 1, 1, True), (3, 3)),
        ((5, 5), (3, 3, 1, 1, True), (2, 2)),
        ((6, 7), (1, 2, 0, 1, True), (3, 4)),
        ((4, 4), (2, 2**62), (1, 1)),
    ],
)
def test_max_pool2d_shapes(shape: Any, arguments: Any, size: Any) -> None:
    actual = F.max_pool2d(np.ones((1, 1, *shape), np.float32), *arguments)
    assert_exact(actual, np.ones((1, 1, *size), np.float32))


@pytest.mark.parametrize("ndim", [2, 3])
def test_axes_have_their_own_windows(ndim: int) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(-9, 10, (2, 2, *(6, 7, 8)[:ndim])).astype(np.float32)
    window = ((1, 2, 3)[:ndim], (3, 1, 2)[:ndim], (0, 1, 1)[:ndim], (2, 2, 1)[:ndim])
    y, index = f("max_pool", ndim)(x, *window, return_indices=True)
    problem = PoolProblem.pool("pool", x.shape, *window)
    expected = reference.max_pool(problem, x)
    assert_exact(y, expected[0])
    assert_exact(index, expected[1])


def test_gradient_of_elements_in_no_window_is_zero() -> None:
    actual = F.avg_pool1d_backward(np.ones((1, 1, 2)), (1, 1, 5), 2, 3)
    assert_exact(actual, np.array([[[0.5, 0.5, 0, 0.5, 0.5]]]))


def test_adaptive_windows_by_hand() -> None:
    x = np.array([[[1.0, 2.0, 4.0]]])
    assert_exact(F.adaptive_avg_pool1d(x, 5), np.array([[[1, 1.5, 2, 3, 4]]]))
    assert_exact(F.adaptive_avg_pool1d(x, 2), np.array([[[1.5, 3.0]]]))
    assert_exact(F.adaptive_avg_pool1d(x, (3,)), x)
    image = np.arange(12.0).reshape(1, 1, 3, 4)
    assert F.adaptive_avg_pool2d(image, (None, 2)).shape == (1, 1, 3, 2)
    assert_exact(F.adaptive_avg_pool2d(image, (None, None)), image)


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


# The rest --------------------------------------------------------------------------


def test_plan_names_the_algorithm() -> None:
    problem = PoolProblem.pool("pool", (1, 1, 8, 8), 2)
    assert plan.select(problem, "max_fprop", "float32").algorithm == "window"
    assert "* window" in plan.explain(problem, "average_dgrad")


def test_kernels_refuse_buffers_of_another_size(isa: str) -> None:
    problem = PoolProblem.pool("pool", (1, 1, 4, 4), 2)
    x, y, few = np.ones(16), np.ones(4), np.ones(3)
    index, divisor, none = np.zeros(4, np.int64), np.zeros(2, np.int64), np.empty(0)
    for direction, buffers in (
        ("max_fprop", (x, few, index)),
        ("max_fprop", (few, y, index)),
        ("max_fprop", (x, y, index[:3])),
        ("max_check", (index[:3], divisor)),
        ("max_dgrad", (few, index, x)),
        ("max_dgrad", (y, index[:3], x)),
        ("max_dgrad", (y, index, few)),
        ("average_fprop", (divisor, x, few)),
        ("average_dgrad", (divisor, y, few)),
    ):
        chosen = plan.select(problem, direction, "float64")
        with pytest.raises(ValueError, match="size of its problem"):
            chosen.kernel(chosen.geometry, *buffers, none, 1)
        with pytest.raises(ValueError, match="geometry"):
            chosen.kernel(chosen.geometry[:-1], *buffers, none, 1)


def test_ctrl_c_stops_a_long_call() -> None:
    x = np.zeros((1, 1, 400_000), np.float32)

    def handler(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    begin = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            F.max_pool1d(x, 100_000, 1)  # 3e10 comparisons
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.perf_counter() - begin < 2
    assert F.max_pool1d(x, 2).shape == (1, 1, 200_000)
