"""Convolution: every algorithm, direction, dtype and instruction set."""

from typing import Any

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import reference
from convcore.kernels import load
from convcore.problem import ConvProblem
from convcore.runtime import cpu
from tests import oracle, strategies
from tests.cases import CASES, around_dots, around_tiles
from tests.conv_helpers import (
    CONV,
    CONV_BACKWARD,
    TRANSPOSE,
    TRANSPOSE_BACKWARD,
    accepting,
    arguments,
    check_exactly,
    compute,
)

# Against the reference -------------------------------------------------------------


@given(
    strategies.conv_problems(channels=(1, 2, 3, 7, 15)),
    st.sampled_from(oracle.DTYPES),
    st.sampled_from(cpu.available()),
)
def test_exact_on_integers(problem: ConvProblem, dtype: Any, isa: str) -> None:
    with cpu.use(isa):
        check_exactly(problem, dtype)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_named_cases(name: str, dtype: Any, isa: str) -> None:
    check_exactly(ConvProblem.parse(CASES[name]), dtype)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_around_the_tile(dtype: Any, isa: str) -> None:
    mr, nr, kc = load("conv_gemm", isa).tile(np.dtype(dtype).itemsize)
    for problem in [*around_tiles(mr, nr, kc), *around_dots()]:
        check_exactly(problem, dtype)


@given(
    strategies.conv_problems(channels=(1, 3, 17, 40)),
    strategies.generators(),
    st.sampled_from(oracle.DTYPES),
)
def test_error_is_within_the_promise(
    problem: ConvProblem, rng: np.random.Generator, dtype: Any
) -> None:
    a = oracle.operands(problem, rng, dtype, kind="normal")
    for algorithm, direction in accepting(problem, transforms=False):
        given_arrays = arguments(direction, a)
        oracle.assert_close_to_reference(
            compute(problem, algorithm, direction, *given_arrays),
            problem,
            direction,
            *given_arrays,
        )


LONG_SUMS = (
    "n1g1ic230ih7iw6oc150kh3ph1",
    "n3g1ic13ih5oc11kh3ph1",
    "n1g1ic65iw70oc66kw1",
    "n1g1ic300iw33oc300kw1",
    "n1g1ic2iw3000oc16kw1200",
    "n4g1ic5ih40oc7kh11sh4",
    "n700g1ic3iw1oc20kw1",
    "n1g5ic5iw9000oc10kw9pw4",
    "n1g1ic3ih9oc700kh5",
    "n1g1ic20ih9oc700kh7",
    "n1g1ic100ih16oc3kh3ph1",
    "n1g1ic256ih9oc8kh3ph1",
    "n1g1ic12ih12oc250kh3ph1",
    "n1g1ic5ih24oc2kh17kw19",
    "n1g1ic16ih9oc3kh5ph2",
    "n1g1ic8ih9oc3kh7ph3",
    "n1g1ic1iw600oc1kw300",
    "n1g1ic1iw600oc1kw90",
    "n512g32ic32ih1oc32kh3ph1",
    "n512g32ic32ih2iw1oc32kh3ph1",
    "n3g16ic16ih45oc16kh3sh2ph1",
    "n1g17ic17ih5iw150oc17kh9ph4",
)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("data", ["normal", "positive", "equal"])
@pytest.mark.parametrize("spelling", LONG_SUMS)
def test_long_sums_are_within_the_promise(
    spelling: str, data: str, dtype: Any, isa: str
) -> None:
    """Rounding errors of equal terms all have one sign: blocks of terms keep them small."""
    problem = ConvProblem.parse(spelling)
    a = oracle.operands(problem, np.random.default_rng(1), dtype, kind="normal")
    for algorithm, direction in accepting(problem, transforms=False):
        arrays = arguments(direction, a)
        if data == "positive":
            arrays = tuple(np.abs(array) for array in arrays)
        if data == "equal":
            arrays = tuple(np.full_like(array, 0.7) for array in arrays)
        oracle.assert_close_to_reference(
            compute(problem, algorithm, direction, *arrays), problem, direction, *arrays
        )


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("value", [0.7, 1.9])
def test_equal_terms_of_many_taps(value: float, dtype: Any, isa: str) -> None:
    """`phases` once summed all taps of 32 channels in one chain: twice the bound."""
    problem = ConvProblem.parse("n1g1ic3id4ih5oc32kd3pd1")
    dy = np.full(problem.y_shape, value, dtype)
    w = np.full(problem.weight_shape, value, dtype)
    for algorithm, direction in accepting(problem, transforms=False):
        if direction == "dgrad":
            oracle.assert_close_to_reference(
                compute(problem, algorithm, direction, dy, w), problem, direction, dy, w
            )


@given(strategies.conv_problems(), st.sampled_from(cpu.available()))
def test_directions_are_adjoint(problem: ConvProblem, isa: str) -> None:
    """<conv(x, w), g> = <x, dgrad(g, w)> = <w, wgrad(x, g)>, exactly on integers."""
    rng = np.random.default_rng(0)
    x, w, g = (
        rng.integers(-3, 4, shape).astype(np.float64)
        for shape in (problem.x_shape, problem.weight_shape, problem.y_shape)
    )
    with cpu.use(isa):
        y = compute(problem, "auto", "fprop", x, w)
        grad_x = compute(problem, "auto", "dgrad", g, w)
        grad_w = compute(problem, "auto", "wgrad", x, g)
    assert (y * g).sum() == (x * grad_x).sum() == (w * grad_w).sum()


@given(strategies.conv_calls(), st.booleans(), st.sampled_from(oracle.DTYPES))
def test_public_convolution(call: strategies.Call, flip: bool, dtype: Any) -> None:
    a = oracle.operands(call.problem, np.random.default_rng(0), dtype)
    turn = (..., *(slice(None, None, -1 if flip else 1),) * call.ndim)
    y = CONV[call.ndim](a.x, a.w, a.b, **call.keywords, flip=flip)
    oracle.assert_exact(y, reference.conv(call.problem, a.x, a.w[turn], a.b))
    grads = CONV_BACKWARD[call.ndim](a.grad_y, a.x, a.w, **call.keywords, flip=flip)
    expected = (
        reference.conv_grad_x(call.problem, a.grad_y, a.w[turn]),
        reference.conv_grad_weight(call.problem, a.x, a.grad_y)[turn],
        reference.conv_grad_bias(call.problem, a.grad_y),
    )
    for grad, right in zip(grads, expected, strict=True):
        oracle.assert_exact(grad, right)


@given(strategies.conv_transpose_calls(), st.sampled_from(cpu.available()))
def test_problems_that_only_transposing_makes(call: strategies.Call, isa: str) -> None:
    """With output_padding and one-sided padding, extents differ and products agree."""
    with cpu.use(isa):
        check_exactly(call.problem, np.float32)


def test_swapped_axes_of_a_pointwise_transposed_convolution() -> None:
    """3 x 4 outputs of 4 x 3 inputs: as many, but not the same."""
    how: dict[str, Any] = {
        "padding": ((0, 0), (0, 1)),
        "output_padding": (1, 0),
        "dilation": (2, 1),
    }
    problem = ConvProblem.transposed("t", (1, 40, 3, 4), (40, 20, 1, 1), **how)
    assert problem.in_extent == (1, 4, 3)
    assert problem.out_extent == (1, 3, 4)
    check_exactly(problem, np.float32)


@given(strategies.conv_transpose_calls(), st.booleans(), st.sampled_from(oracle.DTYPES))
def test_public_transposed_convolution(
    call: strategies.Call, flip: bool, dtype: Any
) -> None:
    a = oracle.operands(call.problem, np.random.default_rng(0), dtype)
    turn = (..., *(slice(None, None, -1 if flip else 1),) * call.ndim)
    x, b, grad_y = a.grad_y, a.transposed_b, a.x
    y = TRANSPOSE[call.ndim](x, a.w, b, **call.keywords, flip=flip)
    oracle.assert_exact(y, reference.conv_transpose(call.problem, x, a.w[turn], b))
    grads = TRANSPOSE_BACKWARD[call.ndim](grad_y, x, a.w, **call.keywords, flip=flip)
    expected = (
        reference.conv(call.problem, grad_y, a.w[turn]),
        reference.conv_grad_weight(call.problem, grad_y, x)[turn],
        grad_y.sum(axis=(0, *range(2, grad_y.ndim))),
    )
    for grad, right in zip(grads, expected, strict=True):
        oracle.assert_exact(grad, right)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("mode", ["valid", "full", "same"])
def test_agrees_with_scipy(ndim: int, mode: str) -> None:
    """A second judge, written by others."""
    rng = np.random.default_rng(ndim)
    x, w = rng.standard_normal((8, 9, 7)[:ndim]), rng.standard_normal((3, 5, 1)[:ndim])
    y = CONV[ndim](x[None, None], w[None, None], padding=mode)
    right = scipy.signal.correlate(x, w, mode, method="direct")
    np.testing.assert_allclose(y[0, 0], right, rtol=0, atol=1e-13)
    y = CONV[ndim](x[None, None], w[None, None], padding=mode, flip=True)
    right = scipy.signal.convolve(x, w, mode, method="direct")
    np.testing.assert_allclose(y[0, 0], right, rtol=0, atol=1e-13)


@given(strategies.conv_calls(max_batch=2), strategies.generators())
def test_gradients_are_slopes(call: strategies.Call, rng: np.random.Generator) -> None:
    a = oracle.operands(call.problem, rng, np.float64, kind="normal")
    conv, keywords = CONV[call.ndim], call.keywords
    gx, gw, gb = CONV_BACKWARD[call.ndim](a.grad_y, a.x, a.w, **keywords)
    for gradient, at, function in (
        (gx, a.x, lambda x: conv(x, a.w, a.b, **keywords)),
        (gw, a.w, lambda w: conv(a.x, w, a.b, **keywords)),
        (gb, a.b, lambda b: conv(a.x, a.w, b, **keywords)),
    ):

        def loss(v: Any, function: Any = function) -> Any:
            return (function(v) * a.grad_y).sum()

        assert gradient is not None
        oracle.finite_difference_check(loss, gradient, at, rng)


# Properties that need no reference -------------------------------------------------


@given(strategies.conv_calls())
def test_linear_in_both_arguments(call: strategies.Call) -> None:
    conv = CONV[call.ndim]
    rng = np.random.default_rng(0)
    x, x2 = (oracle.integers(rng, call.x_shape, terms=4000) for _ in "ab")
    w, w2 = (oracle.integers(rng, call.weight_shape, terms=4000) for _ in "ab")
    keywords = call.keywords
    oracle.assert_exact(
        conv(x + 2 * x2, w, **keywords),
        conv(x, w, **keywords) + 2 * conv(x2, w, **keywords),
    )
    oracle.assert_exact(
        conv(x, w - w2, **keywords), conv(x, w, **keywords) - conv(x, w2, **keywords)
    )


@given(strategies.conv_calls(groups=(2, 3), max_batch=2))
def test_groups_are_separate_convolutions(call: strategies.Call) -> None:
    rng = np.random.default_rng(0)
    x, w = oracle.normal(rng, call.x_shape), oracle.normal(rng, call.weight_shape)
    keywords = dict(call.keywords)
    g = keywords.pop("groups")
    parts = zip(np.split(x, g, axis=1), np.split(w, g), strict=True)
    separate = [CONV[call.ndim](xg, wg, **keywords) for xg, wg in parts]
    oracle.assert_bits_equal(
        CONV[call.ndim](x, w, **call.keywords), np.concatenate(separate, axis=1)
    )


@given(strategies.conv_calls(ndims=(2,)))
def test_dilation_is_a_kernel_stuffed_with_zeros(call: strategies.Call) -> None:
    rng = np.random.default_rng(0)
    keywords = dict(call.keywords)
    dh, dw = keywords.pop("dilation")
    x, w = (
        oracle.integers(rng, s, terms=2000) for s in (call.x_shape, call.weight_shape)
    )
    kh, kw = w.shape[2:]
    stuffed = np.zeros((*w.shape[:2], (kh - 1) * dh + 1, (kw - 1) * dw + 1), w.dtype)
    stuffed[:, :, ::dh, ::dw] = w
    oracle.assert_exact(
        F.conv2d(x, w, **call.keywords), F.conv2d(x, stuffed, **keywords)
    )


@given(strategies.conv_calls(ndims=(2,)))
def test_padding_is_zeros_around_x(call: strategies.Call) -> None:
    rng = np.random.default_rng(0)
    x, w = oracle.normal(rng, call.x_shape), oracle.normal(rng, call.weight_shape)
    keywords = dict(call.keywords, padding="valid")
    padded = np.pad(x, ((0, 0), (0, 0), *call.problem.padding[1:]))
    oracle.assert_bits_equal(
        F.conv2d(x, w, **call.keywords), F.conv2d(padded, w, **keywords)
    )


def test_pointwise_is_a_matrix_product() -> None:
    rng = np.random.default_rng(0)
    x, w = (
        oracle.integers(rng, (2, 5, 3, 4), terms=5),
        oracle.integers(rng, (7, 5, 1, 1), terms=5),
    )
    right = np.einsum("nchw,oc->nohw", x, w[:, :, 0, 0])
    oracle.assert_exact(F.conv2d(x, w), right)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_unbatched_is_a_batch_of_one(ndim: int) -> None:
    rng = np.random.default_rng(0)
    x, w, b = (
        oracle.normal(rng, s)
        for s in ((2, 6, 5, 4)[: ndim + 1], (3, 2) + (3,) * ndim, (3,))
    )
    y = CONV[ndim](x, w, b, padding=1)
    oracle.assert_bits_equal(y, CONV[ndim](x[None], w, b, padding=1)[0])
    grads = CONV_BACKWARD[ndim](y, x, w, padding=1)
    batch = CONV_BACKWARD[ndim](y[None], x[None], w, padding=1)
    assert grads[0] is not None
    assert batch[0] is not None
    oracle.assert_bits_equal(grads[0], batch[0][0])
    t = TRANSPOSE[ndim](y, w)
    oracle.assert_bits_equal(t, TRANSPOSE[ndim](y[None], w)[0])
    grads = TRANSPOSE_BACKWARD[ndim](t, y, w)
    assert grads[0] is not None
    assert grads[0].shape == y.shape
