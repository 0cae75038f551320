"""The reference is judged by what does not know it.

Arrays worked by hand, scipy, numpy.convolve, plain Python loops over windows, exact
adjoint identities on integers, and finite differences in float64.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.special
from hypothesis import given

from convcore import reference as ref
from convcore.problem import ConvProblem, PoolProblem
from tests.oracle import (
    DTYPES,
    Array,
    Call,
    assert_bits_equal,
    assert_close_to_reference,
    assert_exact,
    conv_problems,
    conv_transpose_calls,
    distinct,
    finite_difference_check,
    generators,
    gradients_check,
    integers,
    normal,
    operands,
    pool_problems,
)


def convolved(x: Any, w: Any, b: Any = None, **geometry: Any) -> Array:
    """Convolve arrays or nested lists of any rank."""
    x, w = np.asarray(x, float), np.asarray(w, float)
    problem = ConvProblem.conv("conv", x.shape, w.shape, **geometry)
    return ref.conv(problem, x, w, None if b is None else np.asarray(b, float))


def exactly_equal(*sums: Array) -> None:
    """Compare sums of integers, added up as Python integers."""
    first, *rest = (sum(map(int, s.ravel())) for s in sums)
    assert all(other == first for other in rest)


# Taps ------------------------------------------------------------------------------


FAR = range(10**6)  # longer than any extent: a slice of it lists what the slice means


def meetings(problem: ConvProblem | PoolProblem, axis: int) -> set[tuple[int, ...]]:
    """List (tap, window, element) along one axis by trying all of them."""
    s, lo, d = problem.stride[axis], problem.padding[axis][0], problem.dilation[axis]
    return {
        (k, o, s * o + d * k - lo)
        for k in range(problem.kernel[axis])
        for o in range(problem.out_extent[axis])
        if 0 <= s * o + d * k - lo < problem.in_extent[axis]
    }


@given(conv_problems() | pool_problems())
def test_taps_join_every_window_with_its_elements(
    problem: ConvProblem | PoolProblem,
) -> None:
    walked = list(ref.taps(problem))
    assert [tap.kernel[1:] for tap in walked] == sorted({t.kernel[1:] for t in walked})
    joined = [
        where
        for tap in walked
        for where in product(
            *(
                [(k, o, i) for o, i in zip(FAR[out], FAR[inp], strict=True)]
                for k, out, inp in zip(
                    tap.kernel[1:], tap.out[1:], tap.inp[1:], strict=True
                )
            )
        )
    ]
    everything = product(*(meetings(problem, axis) for axis in range(3)))
    assert sorted(joined) == sorted(everything)


def test_taps_of_a_window_far_longer_than_the_input() -> None:
    half = 2**39
    problem = PoolProblem.pool("pool", (1, 1, 4), 2 * half, half, half, ceil_mode=True)
    assert problem.out_extent == (1, 1, 2)
    assert [
        (tap.kernel[-1], tap.out[-1], tap.inp[-1]) for tap in ref.taps(problem)
    ] == [
        (k, slice(o, o + 1), slice(i, i + 1, half))
        for o, first in ((1, 0), (0, half))
        for i, k in enumerate(range(first, first + 4))
    ]


# Convolution -----------------------------------------------------------------------


def test_conv_in_1d_by_hand() -> None:
    x, w = [[[1, 2, 4, 8]]], [[[1, 10, 100]]]
    assert_exact(convolved(x, w), np.array([[[421.0, 842]]]))
    assert_exact(convolved(x, w, [5]), np.array([[[426.0, 847]]]))
    assert_exact(convolved(x, w, padding=1), np.array([[[210.0, 421, 842, 84]]]))
    assert_exact(
        convolved(x, w, padding=[(2, 0)]), np.array([[[100.0, 210, 421, 842]]])
    )
    assert_exact(
        convolved(x, w, padding="full", stride=2), np.array([[[100.0, 421, 84]]])
    )
    assert_exact(convolved(x, [[[1, 10]]], dilation=2), np.array([[[41.0, 82]]]))


def test_conv_in_2d_by_hand() -> None:
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    w = np.array([[[[1.0, 10], [100, 1000]]]])
    assert_exact(convolved(x, w), np.array([[[[4310.0, 5421], [7643, 8754]]]]))


def test_conv_in_3d_by_hand() -> None:
    x = np.arange(8.0).reshape(1, 1, 2, 2, 2)
    w = 10.0 ** np.arange(8).reshape(1, 1, 2, 2, 2)
    assert_exact(convolved(x, w), np.full((1, 1, 1, 1, 1), 76543210.0))


def test_conv_groups_order_their_outputs_group_by_group() -> None:
    x = np.arange(18.0).reshape(1, 2, 3, 3)
    w = np.arange(16.0).reshape(4, 1, 2, 2)
    expected = [
        [[19.0, 25], [37, 43]],
        [[51, 73], [117, 139]],
        [[425, 463], [539, 577]],
        [[601, 655], [763, 817]],
    ]
    assert_exact(convolved(x, w, groups=2), np.array([expected]))


def test_conv_same_puts_the_odd_zero_at_the_end() -> None:
    x = [[[1, 2, 3, 4, 5]]]
    assert_exact(
        convolved(x, [[[1, 10]]], padding="same"), np.array([[[21.0, 32, 43, 54, 5]]])
    )


@given(conv_problems(channels=(1, 2), room=2, max_kernel=3, max_batch=2), generators())
def test_conv_is_its_loops(problem: ConvProblem, rng: np.random.Generator) -> None:
    data = operands(problem, rng, np.float32)
    fast = ref.conv(problem, data.x, data.w, data.b)
    assert_exact(fast, ref.conv_loops(problem, data.x, data.w, data.b))
    bare = ref.conv(problem, data.x, data.w)
    assert_exact(bare, ref.conv_loops(problem, data.x, data.w))


def stuffed(w: Array, dilation: tuple[int, ...]) -> Array:
    """Put dilation - 1 zeros between the elements of each kernel."""
    for axis, d in enumerate(dilation, start=2):
        between = [np.zeros_like(w)] * (d - 1)
        shape = list(w.shape)
        shape[axis] *= d
        w = np.stack([w, *between], axis=axis + 1).reshape(shape)
        w = np.delete(w, range(shape[axis] - d + 1, shape[axis]), axis=axis)
    return w


def scipy_conv(problem: ConvProblem, x: Array, w: Array) -> Array:
    """Convolve by scipy, one pair of channels at a time, over data padded in memory."""
    x = np.pad(x, ((0, 0), (0, 0), *problem.padding[-problem.ndim :]))
    w = stuffed(w, problem.dilation[-problem.ndim :])
    step = tuple(slice(None, None, s) for s in problem.stride[-problem.ndim :])
    ic_g, oc_g = problem.ic // problem.g, problem.oc // problem.g
    y = np.zeros(problem.y_shape)
    for n, o, c in np.ndindex(problem.n, problem.oc, ic_g):
        plane = x[n, o // oc_g * ic_g + c]
        full = scipy.signal.correlate(plane, w[o, c], mode="valid", method="direct")
        y[n, o] += full[step]
    return y


@given(conv_problems(), generators())
def test_conv_is_that_of_scipy(problem: ConvProblem, rng: np.random.Generator) -> None:
    data = operands(problem, rng, np.float64)
    expected = scipy_conv(problem, data.x, data.w)
    assert_exact(ref.conv(problem, data.x, data.w), expected)
    biased = expected + data.b.reshape(-1, *(1,) * problem.ndim)
    assert_exact(ref.conv(problem, data.x, data.w, data.b), biased)


def test_flipped_kernels_give_the_convolution_of_mathematics() -> None:
    rng = np.random.default_rng(21)
    for ndim, shape in enumerate([(9,), (5, 7), (3, 4, 5)], start=1):
        x = integers(rng, (1, 1, *shape), np.float64, terms=99)
        w = integers(rng, (1, 1, *(2, 3, 4)[:ndim]), np.float64, terms=99)
        y = convolved(x, ref.flip_kernel(w), padding="full")[0, 0]
        assert_exact(y, scipy.signal.convolve(x[0, 0], w[0, 0], method="direct"))
        if ndim == 1:
            assert_exact(y, np.convolve(x[0, 0], w[0, 0]))
            assert_exact(
                convolved(x, w, padding="valid")[0, 0], np.correlate(x[0, 0], w[0, 0])
            )


def test_conv_keeps_the_dtype_and_may_be_wider_or_integer() -> None:
    problem = ConvProblem.parse("n1g1ic2iw4oc3kw2")
    for dtype in (np.float32, np.float64, np.longdouble, np.int64):
        x, w, y = (
            np.ones(s, dtype)
            for s in (problem.x_shape, problem.weight_shape, problem.y_shape)
        )
        for result in (
            ref.conv(problem, x, w, np.ones(3, dtype)),
            ref.conv_loops(problem, x, w, np.ones(3, dtype)),
            ref.conv_grad_x(problem, y, w),
            ref.conv_grad_weight(problem, x, y),
            ref.conv_grad_bias(problem, y),
        ):
            assert result.dtype == dtype


# Gradients of convolution ----------------------------------------------------------


@given(conv_problems(), generators())
def test_conv_gradients_are_adjoint(
    problem: ConvProblem, rng: np.random.Generator
) -> None:
    data = operands(problem, rng, np.float64)
    x, w, grad_y = data.x, data.w, data.grad_y
    exactly_equal(
        ref.conv(problem, x, w) * grad_y,
        x * ref.conv_grad_x(problem, grad_y, w),
        w * ref.conv_grad_weight(problem, x, grad_y),
    )
    zero = np.zeros_like(w)
    exactly_equal(
        ref.conv(problem, x, zero, data.b) * grad_y,
        data.b * ref.conv_grad_bias(problem, grad_y),
    )


def test_conv_gradients_are_slopes() -> None:
    problem = ConvProblem.parse("n2g2ic4ih5iw6oc6kh3kw2sh2ph1_2pw0dh1dw2")
    rng = np.random.default_rng(22)
    data = operands(problem, rng, np.float64, "normal")
    gradients_check(
        lambda *arguments: ref.conv(problem, *arguments),
        [data.x, data.w, data.b],
        [
            ref.conv_grad_x(problem, data.grad_y, data.w),
            ref.conv_grad_weight(problem, data.x, data.grad_y),
            ref.conv_grad_bias(problem, data.grad_y),
        ],
        data.grad_y,
        rng,
    )


def test_conv_grad_weight_by_hand() -> None:
    # A stride of 3 leaves the last two of four columns unread.
    x, grad_y = np.arange(4.0).reshape(1, 1, 4), np.ones((1, 1, 1))
    problem = ConvProblem.conv("conv", x.shape, (1, 1, 2), stride=3)
    assert_exact(ref.conv_grad_weight(problem, x, grad_y), np.array([[[0.0, 1]]]))
    assert_exact(
        ref.conv_grad_x(problem, grad_y, np.array([[[5.0, 7]]])),
        np.array([[[5.0, 7, 0, 0]]]),
    )


def test_conv_grad_x_by_hand() -> None:
    problem = ConvProblem.conv("conv", (1, 1, 4, 4), (1, 1, 3, 3))
    grad_x = ref.conv_grad_x(problem, np.ones((1, 1, 2, 2)), np.ones((1, 1, 3, 3)))
    expected = [[1.0, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]
    assert_exact(grad_x, np.array([[expected]]))


def test_an_empty_batch_has_the_gradient_zero() -> None:
    problem = ConvProblem.conv("conv", (0, 1, 4, 4), (2, 1, 3, 3))
    x, grad_y = np.zeros((0, 1, 4, 4)), np.zeros((0, 2, 2, 2))
    assert_exact(ref.conv_grad_weight(problem, x, grad_y), np.zeros((2, 1, 3, 3)))
    assert_exact(ref.conv_grad_bias(problem, grad_y), np.zeros(2))
    assert ref.conv_grad_x(problem, grad_y, np.ones((2, 1, 3, 3))).shape == x.shape


# Transposed convolution ------------------------------------------------------------


def scipy_transposed(call: Call, x: Array, w: Array) -> Array:
    """Spread x, convolve by scipy as mathematics does, and cut the padding off."""
    keys = call.keywords
    g, stride = keys["groups"], keys["stride"]
    spread = stuffed(x, stride)
    w = stuffed(w, keys["dilation"])
    ic_g, oc_g = call.x_shape[1] // g, w.shape[1]
    y = np.zeros(call.problem.x_shape)
    for n, o, c in np.ndindex(x.shape[0], g * oc_g, ic_g):
        channel = o // oc_g * ic_g + c
        full = scipy.signal.convolve(
            spread[n, channel], w[channel, o % oc_g], method="direct"
        )
        full = np.pad(full, [(0, more) for more in keys["output_padding"]])
        ends = zip(full.shape, keys["padding"], strict=True)
        y[n, o] += full[tuple(slice(lo, size - hi) for size, (lo, hi) in ends)]
    return y


@given(conv_transpose_calls(), generators())
def test_conv_transpose_is_that_of_scipy(call: Call, rng: np.random.Generator) -> None:
    data = operands(call.problem, rng, np.float64)
    expected = scipy_transposed(call, data.grad_y, data.w)
    assert_exact(ref.conv_transpose(call.problem, data.grad_y, data.w), expected)
    bias = data.transposed_b
    assert_exact(
        ref.conv_transpose(call.problem, data.grad_y, data.w, bias),
        expected + bias.reshape(-1, *(1,) * call.ndim),
    )


@given(conv_transpose_calls(), generators())
def test_conv_transpose_gradients_are_adjoint(
    call: Call, rng: np.random.Generator
) -> None:
    data = operands(call.problem, rng, np.float64)
    x, w, grad_y = data.grad_y, data.w, data.x
    exactly_equal(
        ref.conv_transpose(call.problem, x, w) * grad_y,
        x * ref.conv_transpose_grad_x(call.problem, grad_y, w),
        w * ref.conv_transpose_grad_weight(call.problem, x, grad_y),
    )


def test_conv_transpose_leaves_gaps_to_the_bias() -> None:
    x = np.array([[[1.0, 2, 3]]])
    problem = ConvProblem.transposed("f", x.shape, (1, 1, 1), stride=3, padding=1)
    y = ref.conv_transpose(problem, x, np.ones((1, 1, 1)), np.array([7.0]))
    assert_exact(y, np.array([[[7.0, 7, 9, 7, 7]]]))


# Absurd, but legal -----------------------------------------------------------------


@pytest.mark.parametrize("dilation", [2**31, 2**40])
def test_conv_with_a_dilation_that_only_the_centre_survives(dilation: int) -> None:
    x = np.full((1, 1, 9), 2.0)
    y = convolved(x, np.full((1, 1, 9), 2.0), padding="same", dilation=dilation)
    assert_exact(y, np.full((1, 1, 9), 4.0))


@pytest.mark.parametrize("stride", [2**31, 2**62, 2**70])
def test_a_stride_beyond_all_bounds_leaves_one_window(stride: int) -> None:
    x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    assert_exact(convolved(x, w, stride=stride), np.full((1, 1, 1, 1), 9.0))
    problem = ConvProblem.conv("conv", x.shape, w.shape, stride=stride)
    one = np.ones((1, 1, 1, 1))
    assert ref.conv_grad_x(problem, one, w).sum() == 9
    assert_exact(ref.conv_grad_weight(problem, x, one), w)
    pool = PoolProblem.pool("pool", x.shape, 2, stride)
    assert_exact(ref.max_pool(pool, x)[0], one)
    assert_exact(ref.avg_pool(pool, x), one)


def test_padding_wider_than_the_kernel_shows_the_bias() -> None:
    y = convolved(np.ones((1, 1, 2, 2)), [[[[1]]]], [7], padding=3)
    expected = np.full((1, 1, 8, 8), 7.0)
    expected[..., 3:5, 3:5] = 8
    assert_exact(y, expected)


def test_an_empty_batch_may_have_extents_that_fit_no_memory() -> None:
    shape = (0, 1, 2**29, 2**29)
    x = np.empty(shape)
    problem = ConvProblem.conv("conv", shape, (1, 1, 3, 3))
    w = np.full((1, 1, 3, 3), np.inf)
    y = ref.conv(problem, x, w)
    assert y.shape == (0, 1, 2**29 - 2, 2**29 - 2)
    assert ref.conv_grad_x(problem, y, w).shape == shape
    assert_exact(ref.conv_grad_weight(problem, x, y), np.zeros((1, 1, 3, 3)))
    pool = PoolProblem.pool("pool", shape, 3)
    y, index = ref.max_pool(pool, x)
    assert y.shape == index.shape == pool.y_shape
    assert ref.max_pool_backward(pool, y, index).shape == shape
    assert ref.avg_pool(pool, x).shape == pool.y_shape
    assert ref.avg_pool_backward(pool, y).shape == shape


def test_pooling_windows_may_be_far_longer_than_the_input() -> None:
    half = 2**39
    x = np.array([[[1.0, 5, 3, 2]]])
    problem = PoolProblem.pool("pool", x.shape, 2 * half, half, half, ceil_mode=True)
    y, index = ref.max_pool(problem, x)
    assert_exact(y, np.array([[[5.0, 5]]]))
    assert_exact(index, np.array([[[1, 1]]]))
    only_data = ref.avg_pool(problem, x, count_include_pad=False)
    assert_exact(only_data, np.array([[[11 / 4, 11 / 4]]]))
    # The first window lies on half of padding and all that follows; the second starts
    # at 0 and ends with the padding behind the input.
    with_padding = ref.avg_pool(problem, x)
    assert_exact(with_padding, 11 / np.array([[[2.0 * half, 4 + half]]]))


# Inf, NaN --------------------------------------------------------------------------


def test_nan_stays_in_its_receptive_field() -> None:
    x, w = np.zeros((2, 1, 6, 6)), np.zeros((1, 1, 3, 3))
    x[0, 0, 3, 3] = np.nan
    y = convolved(x, w, padding=1)
    expected = np.zeros((2, 1, 6, 6))
    expected[0, 0, 2:5, 2:5] = np.nan
    assert_exact(y, expected)


def test_padding_is_a_real_zero_also_for_infinite_weights() -> None:
    x, w = np.ones((1, 1, 3, 3)), np.full((1, 1, 3, 3), np.inf)
    expected = np.full((1, 1, 3, 3), np.nan)
    expected[..., 1, 1] = np.inf
    problem = ConvProblem.conv("conv", x.shape, w.shape, padding=1)
    assert_exact(ref.conv(problem, x, w), expected)
    assert_exact(ref.conv_loops(problem, x, w), expected)
    # The weight gradient multiplies with the very same zeros.
    assert_exact(ref.conv_grad_weight(problem, x, w), expected)
    # The input gradient sums over windows that exist; there are no zeros in it.
    assert_exact(ref.conv_grad_x(problem, x, w), np.full((1, 1, 3, 3), np.inf))


def test_padding_is_a_real_zero_also_under_a_tap_that_meets_nothing_else() -> None:
    x, w = np.ones((1, 1, 1)), np.array([[[2, np.inf]]])
    problem = ConvProblem.conv("conv", x.shape, w.shape, padding=[(0, 1)])
    nan = np.array([[[np.nan]]])
    assert_exact(ref.conv(problem, x, w), nan)
    assert_exact(ref.conv_loops(problem, x, w), nan)
    assert_exact(
        ref.conv_grad_weight(problem, x, np.inf * x), np.array([[[np.inf, np.nan]]])
    )


@given(conv_problems(channels=(1, 2), room=2, max_kernel=3, max_batch=2), generators())
def test_conv_is_its_loops_on_inf_and_nan(
    problem: ConvProblem, rng: np.random.Generator
) -> None:
    data = operands(problem, rng, np.float64)
    for array in (data.x, data.w):
        array[rng.random(array.shape) < 0.05] = np.inf
        array[rng.random(array.shape) < 0.05] = np.nan
    assert_exact(
        ref.conv(problem, data.x, data.w, data.b),
        ref.conv_loops(problem, data.x, data.w, data.b),
    )


@given(conv_problems(channels=(1, 2)), generators())
def test_conv_grad_weight_on_inf_is_the_sum_over_padded_data(
    problem: ConvProblem, rng: np.random.Generator
) -> None:
    data = operands(problem, rng, np.float64)
    data.grad_y[rng.random(data.grad_y.shape) < 0.05] = np.inf
    # The same problem without padding, over data that was padded in memory.
    padded = np.pad(data.x, ((0, 0), (0, 0), *problem.padding[-problem.ndim :]))
    depth, height, width = (
        lo + i + hi
        for i, (lo, hi) in zip(problem.in_extent, problem.padding, strict=True)
    )
    valid = replace(
        problem, in_extent=(depth, height, width), padding=((0, 0), (0, 0), (0, 0))
    )
    assert_exact(
        ref.conv_grad_weight(problem, data.x, data.grad_y),
        ref.conv_grad_weight(valid, padded, data.grad_y),
    )


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


# Linear, dropout -------------------------------------------------------------------


def test_linear_is_a_product_with_the_transposed_weight() -> None:
    rng = np.random.default_rng(31)
    x, w, b = (integers(rng, s, np.float64, terms=5) for s in ((2, 3, 5), (4, 5), (4,)))
    assert_exact(ref.linear(x, w), x @ w.T)
    assert_exact(ref.linear(x, w, b), x @ w.T + b)
    assert_exact(ref.linear(x[0, 0], w, b), w @ x[0, 0] + b)


def test_linear_is_a_convolution_with_one_tap() -> None:
    rng = np.random.default_rng(32)
    x, w, b = (integers(rng, s, np.float64, terms=5) for s in ((3, 5), (4, 5), (4,)))
    y = convolved(x[..., None], w[..., None], b)
    assert_exact(ref.linear(x, w, b), y[..., 0])


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,)])
def test_linear_gradients_are_slopes(lead: tuple[int, ...]) -> None:
    rng = np.random.default_rng(33)
    x, w, b, grad_y = (
        normal(rng, s, np.float64) for s in ((*lead, 5), (4, 5), (4,), (*lead, 4))
    )
    gradients = ref.linear_backward(grad_y, x, w)
    gradients_check(ref.linear, [x, w, b], gradients, grad_y, rng)


def test_dropout_scales_what_it_keeps() -> None:
    x = np.array([1.0, 2, 3, 4])
    mask = np.array([True, False, True, True])
    assert_exact(ref.dropout(x, mask, 0.75), np.array([4.0, 0, 12, 16]))
    assert_exact(ref.dropout_backward(x, mask, 0.75), np.array([4.0, 0, 12, 16]))
    assert_exact(ref.dropout(x, np.ones(4, bool), 0.0), x)
    assert_exact(ref.dropout(x, np.zeros(4, bool), 1.0), np.zeros(4))


def test_dropout_keeps_the_mean() -> None:
    rng = np.random.default_rng(34)
    mask = rng.random(100_000) >= 0.3
    # One standard deviation of this mean is 0.002.
    assert abs(ref.dropout(np.ones(mask.size), mask, 0.3).mean() - 1) < 0.01


def test_dropout_drops_inf_and_nan_for_good() -> None:
    x = np.array([np.inf, np.nan, -np.inf])
    assert_bits_equal(ref.dropout(x, np.zeros(3, bool), 0.5), np.zeros(3))


# Activations -----------------------------------------------------------------------

EDGES = np.array([-np.inf, -1e4, -1.5, -0.0, 0.0, 1e-300, 2.0, 1e4, np.inf, np.nan])


def test_relus_by_hand() -> None:
    x = np.array([-4.0, -0.0, 0.0, 3.0, np.nan, np.inf, -np.inf])
    assert_exact(ref.relu(x), np.array([0.0, 0, 0, 3, np.nan, np.inf, 0]))
    leaky = np.array([-2.0, 0, 0, 3, np.nan, np.inf, -np.inf])
    assert_exact(ref.leaky_relu(x, 0.5), leaky)
    ones = np.ones(5)
    x = np.array([-4.0, -1.0, 0.0, 3.0, 5.0])
    assert_exact(ref.relu_backward(ones, ref.relu(x)), np.array([0.0, 0, 0, 1, 1]))
    slopes = np.array([0.25, 0.25, 0.25, 1, 1])
    assert_exact(ref.leaky_relu_backward(ones, x, 0.25), slopes)


def test_sigmoid_and_tanh_at_the_edges_of_floating_point() -> None:
    np.testing.assert_allclose(
        ref.sigmoid(EDGES), scipy.special.expit(EDGES), rtol=1e-15
    )
    np.testing.assert_allclose(ref.tanh(EDGES), np.tanh(EDGES), rtol=1e-15)
    power = np.exp(np.array([-3.0, 0.5, 2]))
    np.testing.assert_allclose(
        ref.tanh(np.log(power)), (power - 1 / power) / (power + 1 / power), rtol=1e-14
    )


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmaxes_are_those_of_scipy(dim: int) -> None:
    x = 300 * normal(np.random.default_rng(41), (4, 5, 3), np.float64)
    x[0, 0, 0] = -np.inf
    y, log_y = ref.softmax(x, dim), ref.log_softmax(x, dim)
    np.testing.assert_allclose(y, scipy.special.softmax(x, axis=dim), rtol=1e-12)
    np.testing.assert_allclose(
        log_y, scipy.special.log_softmax(x, axis=dim), rtol=1e-12
    )
    np.testing.assert_allclose(y.sum(axis=dim), 1, rtol=1e-12)


def test_softmaxes_do_not_overflow() -> None:
    x = np.array([[1000.0, 1000, -1000]])
    assert_exact(ref.softmax(x, 1), np.array([[0.5, 0.5, 0]]))
    expected = np.array([[-np.log(2), -np.log(2), -2000 - np.log(2)]])
    np.testing.assert_allclose(ref.log_softmax(x, 1), expected, rtol=1e-14)


ACTIVATIONS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "relu": (ref.relu, lambda g, x: ref.relu_backward(g, ref.relu(x))),
    "leaky_relu": (ref.leaky_relu, ref.leaky_relu_backward),
    "sigmoid": (ref.sigmoid, lambda g, x: ref.sigmoid_backward(g, ref.sigmoid(x))),
    "tanh": (ref.tanh, lambda g, x: ref.tanh_backward(g, ref.tanh(x))),
    "softmax": (
        lambda x: ref.softmax(x, 1),
        lambda g, x: ref.softmax_backward(g, ref.softmax(x, 1), 1),
    ),
    "log_softmax": (
        lambda x: ref.log_softmax(x, -2),
        lambda g, x: ref.log_softmax_backward(g, ref.log_softmax(x, -2), -2),
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_gradients_are_slopes(name: str) -> None:
    function, backward = ACTIVATIONS[name]
    rng = np.random.default_rng(42)
    x = normal(rng, (3, 4, 5), np.float64)
    x += 0.1 * np.sign(x)  # away from the corner of the relus
    grad_y = normal(rng, x.shape, np.float64)
    finite_difference_check(
        lambda a: (function(a) * grad_y).sum(), backward(grad_y, x), x, rng
    )


@pytest.mark.parametrize("dtype", [*DTYPES, np.longdouble])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_the_dtype(name: str, dtype: type) -> None:
    function, backward = ACTIVATIONS[name]
    x: Array = np.ones((2, 3, 4), dtype)
    assert function(x).dtype == backward(x, x).dtype == dtype


# Batch normalisation ---------------------------------------------------------------


def test_batch_norm_by_hand() -> None:
    x = np.array([[[1.0, 3]], [[5, 7]]])  # one channel: mean 4, variance 5, or 20/3
    mean, var = np.array([2.0]), np.array([9.0])
    y, new_mean, new_var = ref.batch_norm(
        x, mean, var, np.array([10.0]), np.array([1.0]), True, momentum=0.25, eps=0.0
    )
    expected = 1 + 10 * np.array([[[-3.0, -1]], [[1, 3]]]) / math.sqrt(5)
    np.testing.assert_allclose(y, expected, rtol=1e-14)
    np.testing.assert_allclose(new_mean, [0.75 * 2 + 0.25 * 4], rtol=1e-14)
    np.testing.assert_allclose(new_var, [0.75 * 9 + 0.25 * 20 / 3], rtol=1e-14)
    assert_exact(mean, np.array([2.0]))  # the old ones are left alone
    y, same_mean, same_var = ref.batch_norm(x, mean, var, eps=16.0)
    assert_exact(y, np.array([[[-0.2, 0.2]], [[0.6, 1]]]))
    assert_exact(same_mean, mean)
    assert_exact(same_var, var)


@pytest.mark.parametrize("spatial", [(), (6,), (4, 3), (2, 3, 2)])
def test_batch_norm_gives_mean_zero_and_variance_one(spatial: tuple[int, ...]) -> None:
    rng = np.random.default_rng(51)
    x = 100 + 7 * normal(rng, (9, 3, *spatial), np.float64)
    y, _, _ = ref.batch_norm(x, np.zeros(3), np.ones(3), training=True)
    axes = (0, *range(2, x.ndim))
    np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=axes), 1, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("spatial", [(), (5,), (4, 3), (2, 3, 2)])
def test_batch_norm_gradients_are_slopes(
    spatial: tuple[int, ...], training: bool
) -> None:
    rng = np.random.default_rng(52)
    x, grad_y = (normal(rng, (4, 3, *spatial), np.float64) for _ in "xy")
    weight, bias, mean = (normal(rng, (3,), np.float64) for _ in "wbm")
    var = np.array([0.5, 1, 2])
    gradients = ref.batch_norm_backward(grad_y, x, mean, var, weight, training, 0.1)

    def normalised(x: Array, weight: Array, bias: Array) -> Array:
        return ref.batch_norm(x, mean, var, weight, bias, training, eps=0.1)[0]

    gradients_check(normalised, [x, weight, bias], gradients, grad_y, rng)


def test_batch_norm_without_weight_is_that_with_ones() -> None:
    rng = np.random.default_rng(53)
    x, grad_y = (normal(rng, (4, 3, 5), np.float64) for _ in "xy")
    mean, var, one, zero = np.zeros(3), np.ones(3), np.ones(3), np.zeros(3)
    for training in (True, False):
        y, _, _ = ref.batch_norm(x, mean, var, training=training)
        weighted, _, _ = ref.batch_norm(x, mean, var, one, zero, training)
        assert_exact(y, weighted)
        bare = ref.batch_norm_backward(grad_y, x, mean, var, None, training)
        for a, b in zip(
            bare,
            ref.batch_norm_backward(grad_y, x, mean, var, one, training),
            strict=True,
        ):
            assert_exact(a, b)


def test_batch_norm_keeps_the_dtype() -> None:
    x, one = np.ones((2, 3, 4), np.float32), np.ones(3, np.float32)
    for training in (True, False):
        results = ref.batch_norm(x, one, one, one, one, training)
        gradients = ref.batch_norm_backward(x, x, one, one, one, training)
        assert all(r.dtype == np.float32 for r in (*results, *gradients))


# Losses ----------------------------------------------------------------------------


def test_cross_entropy_by_hand() -> None:
    x = np.log(np.array([[1.0, 1, 2], [6, 1, 1], [1, 7, 8]]))
    target = np.array([2, 0, 1])
    surprise = -np.log(np.array([2 / 4, 6 / 8, 7 / 16]))
    np.testing.assert_allclose(
        ref.cross_entropy(x, target, reduction="none"), surprise, rtol=1e-14
    )
    np.testing.assert_allclose(
        ref.cross_entropy(x, target), surprise.mean(), rtol=1e-14
    )
    np.testing.assert_allclose(
        ref.cross_entropy(x, target, reduction="sum"), surprise.sum(), rtol=1e-14
    )
    weight = np.array([1.0, 2, 5])
    weighted = (5 * surprise[0] + surprise[1] + 2 * surprise[2]) / 8
    np.testing.assert_allclose(
        ref.cross_entropy(x, target, weight), weighted, rtol=1e-14
    )
    ignoring = (5 * surprise[0] + 2 * surprise[2]) / 7
    np.testing.assert_allclose(
        ref.cross_entropy(x, target, weight, ignore_index=0), ignoring, rtol=1e-14
    )


def test_cross_entropy_smooths_labels_with_the_mean_over_classes() -> None:
    rng = np.random.default_rng(61)
    x, target = normal(rng, (6, 4), np.float64), rng.integers(0, 4, 6)
    sharp = ref.cross_entropy(x, target, reduction="none")
    every = [ref.cross_entropy(x, np.full(6, c), reduction="none") for c in range(4)]
    smooth = ref.cross_entropy(x, target, reduction="none", label_smoothing=0.3)
    np.testing.assert_allclose(smooth, 0.7 * sharp + 0.3 * np.mean(every, axis=0))
    ignoring = ref.cross_entropy(
        x, target, ignore_index=target[0], reduction="none", label_smoothing=0.3
    )
    assert_exact(ignoring, np.where(target == target[0], 0, smooth))


def test_cross_entropy_over_positions_is_that_of_each() -> None:
    rng = np.random.default_rng(62)
    x, target = normal(rng, (2, 4, 3, 5), np.float64), rng.integers(0, 4, (2, 3, 5))
    rows = np.moveaxis(x, 1, -1).reshape(-1, 4)
    np.testing.assert_allclose(
        ref.cross_entropy(x, target), ref.cross_entropy(rows, target.ravel())
    )


def test_cross_entropy_of_certainty_is_finite_and_of_nothing_is_nan() -> None:
    x = np.array([[0.0, -np.inf], [1e4, -1e4]])
    target = np.array([0, 0])
    assert_exact(ref.cross_entropy(x, target, reduction="none"), np.zeros(2))
    nothing = np.array([-100, -100])
    assert np.isnan(ref.cross_entropy(x, nothing))
    assert_exact(ref.cross_entropy_backward(x, nothing), np.zeros((2, 2)))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("spatial", [(), (3,), (2, 3)])
def test_cross_entropy_gradients_are_slopes(
    reduction: str, smoothing: float, weighted: bool, spatial: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(63)
    x, target = (
        normal(rng, (5, 4, *spatial), np.float64),
        rng.integers(0, 4, (5, *spatial)),
    )
    target[1] = 7  # ignored
    weight = np.array([0.5, 1, 2, 0.0]) if weighted else None
    arguments = (weight, 7, reduction, smoothing)
    grad = normal(rng, target.shape if reduction == "none" else (), np.float64)
    finite_difference_check(
        lambda a: (ref.cross_entropy(a, target, *arguments) * grad).sum(),
        ref.cross_entropy_backward(x, target, *arguments, grad),
        x,
        rng,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_loss_and_its_gradient(reduction: str) -> None:
    rng = np.random.default_rng(64)
    x, target = (normal(rng, (3, 4), np.float64) for _ in "xt")
    squares = (x - target) ** 2
    expected = {"mean": squares.mean(), "sum": squares.sum(), "none": squares}
    loss = ref.mse_loss(x, target, reduction)
    np.testing.assert_allclose(loss, expected[reduction], rtol=1e-14)
    grad = normal(rng, loss.shape, np.float64)
    finite_difference_check(
        lambda a: (ref.mse_loss(a, target, reduction) * grad).sum(),
        ref.mse_loss_backward(x, target, reduction, grad),
        x,
        rng,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_keep_the_dtype(reduction: str, dtype: type) -> None:
    x: Array = np.ones((2, 3), dtype)
    weight: Array = np.ones(3, dtype)
    target = np.array([0, 2])
    for result in (
        ref.cross_entropy(x, target, weight, reduction=reduction, label_smoothing=0.1),
        ref.cross_entropy_backward(x, target, weight, reduction=reduction),
        ref.mse_loss(x, x, reduction),
        ref.mse_loss_backward(x, x, reduction),
    ):
        assert result.dtype == dtype


# The reference in float32 keeps the promise that it judges by ------------------------


@given(conv_problems(), generators())
def test_the_reference_in_float32_is_within_the_bound(
    problem: ConvProblem, rng: np.random.Generator
) -> None:
    data = operands(problem, rng, np.float32, "normal")
    x, w, b, grad_y = data.x, data.w, data.b, data.grad_y
    y = ref.conv(problem, x, w, b)
    assert_close_to_reference(y, problem, "fprop", x, w, b)
    grad_x = ref.conv_grad_x(problem, grad_y, w)
    assert_close_to_reference(grad_x, problem, "dgrad", grad_y, w)
    grad_w = ref.conv_grad_weight(problem, x, grad_y)
    assert_close_to_reference(grad_w, problem, "wgrad", x, grad_y)
