"""The reference is judged by what does not know it.

Arrays worked by hand, scipy, numpy.convolve, plain Python loops over windows, exact
adjoint identities on integers, and finite differences in float64.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import scipy.signal
import scipy.special
from hypothesis import given

from convcore import reference as ref
from convcore.problem import ConvProblem, PoolProblem
from tests.oracle import (
    Array,
    assert_close_to_reference,
    assert_exact,
    convolved,
    exactly_equal,
    gradients_check,
    integers,
    operands,
)
from tests.strategies import (
    Call,
    conv_problems,
    conv_transpose_calls,
    generators,
    pool_problems,
)

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
