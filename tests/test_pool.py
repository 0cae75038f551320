"""Pooling, kernels and functions: judged by the reference and by arrays worked by hand.

Fresh outputs are NaN (conftest), so an element that a kernel leaves out is seen.
"""

import signal
import time
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import plan, reference
from convcore.problem import PoolProblem
from convcore.runtime import cpu
from tests.oracle import assert_bits_equal, assert_exact, assert_within, normal, wider
from tests.pool_helpers import (
    any_call,
    dtypes,
    f,
    inner,
    isas,
    ranks,
    special,
    team_of,
    teams,
    whole,
)
from tests.strategies import Call, generators, pool_calls

# The reference, on legal problems of any kind --------------------------------------


@any_call()
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


@any_call()
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


# The rest --------------------------------------------------------------------------


def test_plan_names_the_algorithm() -> None:
    problem = PoolProblem.pool("pool", (1, 1, 8, 8), 2, 1)
    assert plan.select(problem, "max_values", "float32").algorithm == "flat"
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
