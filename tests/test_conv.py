"""Convolution: every algorithm, direction, dtype and instruction set."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from convcore import algorithms, plan, reference
from convcore import functional as F
from convcore.functional.call import run
from convcore.kernels import load
from convcore.problem import ConvProblem
from convcore.runtime import cpu
from tests import oracle
from tests.cases import CASES, around_dots, around_tiles

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_BACKWARD = {1: F.conv1d_backward, 2: F.conv2d_backward, 3: F.conv3d_backward}
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
TRANSPOSE_BACKWARD = {
    1: F.conv_transpose1d_backward,
    2: F.conv_transpose2d_backward,
    3: F.conv_transpose3d_backward,
}
DIRECTIONS: tuple[oracle.Direction, ...] = ("fprop", "dgrad", "wgrad", "bgrad")


def accepting(problem: ConvProblem) -> Iterator[tuple[str, oracle.Direction]]:
    """Every algorithm's name with every direction in which it takes the problem."""
    for card in algorithms.CONV:
        for direction in card.kernels:
            if card.accepts(problem, direction).yes:
                yield card.name, direction


def compute(
    problem: ConvProblem,
    algorithm: str,
    direction: oracle.Direction,
    *arrays: Any,
) -> Any:
    """Run one algorithm as the functional layer does; the oracle's argument order."""
    shapes = {
        "fprop": problem.y_shape,
        "dgrad": problem.x_shape,
        "wgrad": problem.weight_shape,
        "bgrad": (problem.oc,),
    }
    dtype = arrays[0].dtype
    if direction in ("fprop", "dgrad") and len(arrays) == 2:
        arrays = (*arrays, None)
    out = np.full(shapes[direction], np.nan, dtype)
    chosen = plan.select(problem, direction, dtype.name, algorithm)
    run(replace(chosen, work=10**9), *arrays, out)  # enough for all threads
    return out


def arguments(
    direction: oracle.Direction, a: oracle.Operands, bias: bool = True
) -> tuple[Any, ...]:
    """The arrays that a direction reads."""
    return {
        "fprop": (a.x, a.w, a.b if bias else None),
        "dgrad": (a.grad_y, a.w, a.transposed_b if bias else None),
        "wgrad": (a.x, a.grad_y),
        "bgrad": (a.grad_y,),
    }[direction]


def check_exactly(problem: ConvProblem, dtype: Any, seed: int = 0) -> None:
    """Compare every direction of every algorithm with the reference, bit by bit."""
    a = oracle.operands(problem, np.random.default_rng(seed), dtype)
    for algorithm, direction in accepting(problem):
        for bias in (True, False):
            given_arrays = arguments(direction, a, bias)
            oracle.assert_exact(
                compute(problem, algorithm, direction, *given_arrays),
                oracle.run(problem, direction, *given_arrays),
                f"{algorithm} {direction} of {problem}",
            )


# Against the reference -------------------------------------------------------------


@given(
    oracle.conv_problems(channels=(1, 2, 3, 7, 15)),
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
    oracle.conv_problems(channels=(1, 3, 17, 40)),
    oracle.generators(),
    st.sampled_from(oracle.DTYPES),
)
def test_error_is_within_the_promise(
    problem: ConvProblem, rng: np.random.Generator, dtype: Any
) -> None:
    a = oracle.operands(problem, rng, dtype, kind="normal")
    for algorithm, direction in accepting(problem):
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
    for algorithm, direction in accepting(problem):
        arrays = arguments(direction, a)
        if data == "positive":
            arrays = tuple(np.abs(array) for array in arrays)
        if data == "equal":
            arrays = tuple(np.full_like(array, 0.7) for array in arrays)
        oracle.assert_close_to_reference(
            compute(problem, algorithm, direction, *arrays), problem, direction, *arrays
        )


@given(oracle.conv_problems(), st.sampled_from(cpu.available()))
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


@given(oracle.conv_calls(), st.booleans(), st.sampled_from(oracle.DTYPES))
def test_public_convolution(call: oracle.Call, flip: bool, dtype: Any) -> None:
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


@given(oracle.conv_transpose_calls(), st.booleans(), st.sampled_from(oracle.DTYPES))
def test_public_transposed_convolution(
    call: oracle.Call, flip: bool, dtype: Any
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


@given(oracle.conv_calls(max_batch=2), oracle.generators())
def test_gradients_are_slopes(call: oracle.Call, rng: np.random.Generator) -> None:
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


@given(oracle.conv_calls())
def test_linear_in_both_arguments(call: oracle.Call) -> None:
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


@given(oracle.conv_calls(groups=(2, 3), max_batch=2))
def test_groups_are_separate_convolutions(call: oracle.Call) -> None:
    rng = np.random.default_rng(0)
    x, w = oracle.normal(rng, call.x_shape), oracle.normal(rng, call.weight_shape)
    keywords = dict(call.keywords)
    g = keywords.pop("groups")
    parts = zip(np.split(x, g, axis=1), np.split(w, g), strict=True)
    separate = [CONV[call.ndim](xg, wg, **keywords) for xg, wg in parts]
    oracle.assert_bits_equal(
        CONV[call.ndim](x, w, **call.keywords), np.concatenate(separate, axis=1)
    )


@given(oracle.conv_calls(ndims=(2,)))
def test_dilation_is_a_kernel_stuffed_with_zeros(call: oracle.Call) -> None:
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


@given(oracle.conv_calls(ndims=(2,)))
def test_padding_is_zeros_around_x(call: oracle.Call) -> None:
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


# Bits ------------------------------------------------------------------------------

BIG = [
    "n3g1ic20ih23oc37kh3ph1",
    "n2g1ic3ih50oc70kh5sh3ph2",
    "n2g2ic40ih17oc30kh3sh2ph1",
    "n2g3ic3ih40oc3kh5ph2",
    "n1g1ic2iw20000oc3kw5",
    "n2g1ic300ih5oc40kh2",
    "n3g5ic5ih50oc10kh3ph1",
    "n3g5ic20ih31oc15kh5sh2ph2",
    "n1g1ic1ih300oc1kh3ph1",
    "n2g1ic70ih30oc80kh3ph1",
    "n5g1ic40ih12oc60kh5",
    "n1g1ic40iw3000oc50kw3pw4dw4",
]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("text", BIG)
def test_bits_do_not_depend_on_threads(
    text: str,
    direction: oracle.Direction,
    isa: str,
    team: Callable[[int], None],
) -> None:
    problem = ConvProblem.parse(text)
    for dtype in oracle.DTYPES:
        a = oracle.operands(problem, np.random.default_rng(2), dtype, kind="normal")
        arrays = arguments(direction, a)
        for algorithm, own in accepting(problem):
            if own != direction:
                continue
            team(1)
            alone = compute(problem, algorithm, direction, *arrays)
            for n in (2, 3, 8, 8):
                team(n)
                oracle.assert_bits_equal(
                    compute(problem, algorithm, direction, *arrays),
                    alone,
                    f"{algorithm}, {n} threads",
                )


@given(oracle.conv_calls(channels=(1, 3, 17), max_batch=5, room=9))
def test_bits_do_not_depend_on_the_batch(call: oracle.Call) -> None:
    rng = np.random.default_rng(0)
    x, w = oracle.normal(rng, call.x_shape), oracle.normal(rng, call.weight_shape)
    b = oracle.normal(rng, call.weight_shape[:1])
    y = CONV[call.ndim](x, w, b, **call.keywords)
    grad_x, _, _ = CONV_BACKWARD[call.ndim](y, x, w, **call.keywords, needs=["x"])
    assert grad_x is not None
    for i in range(len(x)):
        one = CONV[call.ndim](x[i : i + 1], w, b, **call.keywords)
        oracle.assert_bits_equal(one, y[i : i + 1])
        grad, _, _ = CONV_BACKWARD[call.ndim](
            y[i : i + 1], x[i : i + 1], w, **call.keywords, needs=["x"]
        )
        assert grad is not None
        oracle.assert_bits_equal(grad, grad_x[i : i + 1])


def layouts(x: Any) -> Iterator[tuple[str, Any]]:
    """The values of x in other layouts."""
    yield "Fortran", np.asfortranarray(x)
    yield "big-endian", x.astype(x.dtype.newbyteorder(">"))
    yield "negative strides", x[..., ::-1].copy()[..., ::-1]
    wide = np.empty((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    yield "every second", wide[..., ::2]
    raw = np.empty(x.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(x.dtype).reshape(x.shape)
    misaligned[...] = x
    yield "misaligned", misaligned
    fixed = x.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed
    yield "transposed", np.ascontiguousarray(np.swapaxes(x, 0, -1)).swapaxes(0, -1)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_any_layout_gives_the_same_bits(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, w, b = (oracle.normal(rng, s, dtype) for s in ((2, 4, 6, 5), (6, 2, 3, 3), (6,)))
    y = F.conv2d(x, w, b, 1, 1, groups=2)
    grads = F.conv2d_backward(y, x, w, 1, 1, groups=2)
    for name, other in layouts(x):
        oracle.assert_bits_equal(F.conv2d(other, w, b, 1, 1, groups=2), y, name)
        again = F.conv2d_backward(y, other, w, 1, 1, groups=2)
        for grad, right in zip(again, grads, strict=True):
            oracle.assert_bits_equal(grad, right, name)
    for name, other in layouts(w):
        oracle.assert_bits_equal(F.conv2d(x, other, b, 1, 1, groups=2), y, name)
    for name, other in layouts(y):
        again = F.conv2d_backward(other, x, w, 1, 1, groups=2)
        for grad, right in zip(again, grads, strict=True):
            oracle.assert_bits_equal(grad, right, name)


def test_zero_strides() -> None:
    """The gradient of a sum is one number, broadcast."""
    x, w = np.ones((2, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
    g = np.broadcast_to(np.float32(1), (2, 1, 2, 2))
    for grad, right in zip(
        F.conv2d_backward(g, x, w), F.conv2d_backward(g.copy(), x, w), strict=True
    ):
        oracle.assert_bits_equal(grad, right)


def test_inputs_are_never_written() -> None:
    rng = np.random.default_rng(0)
    arrays = [oracle.normal(rng, s) for s in ((2, 3, 6, 6), (4, 3, 3, 3), (4,))]
    before = [a.copy() for a in arrays]
    y = F.conv2d(*arrays, padding=1)
    F.conv2d_backward(y, *arrays[:2], padding=1)
    for array, right in zip(arrays, before, strict=True):
        oracle.assert_bits_equal(array, right)


# Values that are not ordinary ------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_field(value: float, isa: str) -> None:
    problem = ConvProblem.parse("n2g2ic4ih9iw40oc6kh3ph1")
    a = oracle.operands(problem, np.random.default_rng(0), np.float32, kind="normal")
    a.x[1, 2, 4, 7] = value
    y = F.conv2d(a.x, a.w, padding=1, groups=2)
    touched = np.zeros(y.shape, bool)
    touched[1, 3:, 3:6, 6:9] = True
    np.testing.assert_array_equal(~np.isfinite(y), touched)
    a.grad_y[0, 1, 8, 39] = value
    grad_x, grad_w, grad_b = F.conv2d_backward(a.grad_y, a.x, a.w, 1, 1, groups=2)
    touched = np.zeros(a.x.shape, bool)
    touched[0, :2, 7:, 38:] = True
    np.testing.assert_array_equal(~np.isfinite(grad_x), touched)
    assert not np.isfinite(grad_w[1]).any()
    assert np.isfinite(grad_w[[0, 2]]).all()
    assert not np.isfinite(grad_b[1])


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_finite_stays_everywhere(name: str, isa: str) -> None:
    """One NaN in x, or in grad_output: it reaches what its windows connect, no more."""
    problem = ConvProblem.parse(CASES[name])
    if problem.n == 0:
        return
    rng = np.random.default_rng(0)
    x, w, dy = (
        np.ones(shape, np.float32)
        for shape in (problem.x_shape, problem.weight_shape, problem.y_shape)
    )
    at_x, at_y = (tuple(int(rng.integers(n)) for n in a.shape) for a in (x, dy))
    x[at_x] = dy[at_y] = np.nan
    one_x, one_y = np.isnan(x).astype(float), np.isnan(dy).astype(float)
    ones = w.astype(float)
    fields = {
        "fprop": reference.conv(problem, one_x, ones),
        "dgrad": reference.conv_grad_x(problem, one_y, ones),
        "wgrad": reference.conv_grad_weight(problem, one_x, np.ones(dy.shape)),
    }
    clean = np.ones(dy.shape, np.float32)
    arrays = {"fprop": (x, w), "dgrad": (dy, w), "wgrad": (x, clean)}
    for algorithm, direction in accepting(problem):
        if direction in fields:
            result = compute(problem, algorithm, direction, *arrays[direction])
            np.testing.assert_array_equal(
                np.isnan(result), fields[direction] > 0, f"{algorithm} {direction}"
            )


def test_padding_is_a_real_zero(isa: str) -> None:
    """0 * inf is NaN on the border, whatever the algorithm."""
    y = F.conv2d(
        np.ones((1, 1, 3, 3), np.float32),
        np.full((1, 1, 3, 3), np.inf, np.float32),
        padding=1,
    )[0, 0]
    assert y[1, 1] == np.inf
    assert np.isnan(np.delete(y.ravel(), 4)).all()


def test_subnormals_are_kept(isa: str) -> None:
    x = np.full((1, 1, 3, 3), 1e-40, np.float32)
    oracle.assert_bits_equal(F.conv2d(x, np.ones((1, 1, 1, 1), np.float32)), x)


def test_import_leaves_the_floating_point_mode_alone() -> None:
    code = (
        "import convcore, sys, numpy as np; "
        "assert sys.float_info.min / 2 != 0; "
        "assert np.float32(1e-45) * np.float32(1) != 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_absurd_but_legal_geometry(isa: str) -> None:
    ones = np.ones((1, 1, 9), np.float32)
    kernel = np.ones((1, 1, 9), np.float32)
    y = F.conv1d(ones, 4 * kernel, padding="same", dilation=2**31)
    oracle.assert_exact(y, 4 * ones)
    y = F.conv1d(ones, kernel, stride=2**62)
    oracle.assert_exact(y, np.full((1, 1, 1), 9, np.float32))
    grads = F.conv1d_backward(y, ones, kernel, stride=2**62)
    oracle.assert_exact(grads[0], 9 * ones)
    oracle.assert_exact(grads[1], 9 * ones)
    t = F.conv_transpose1d(ones[:, :, :1], kernel, stride=2**62)
    oracle.assert_exact(t, ones)


def test_an_empty_batch_of_huge_images() -> None:
    x = np.empty((0, 1, 2**30, 2**30), np.float32)
    w = np.ones((1, 1, 3, 3), np.float32)
    y = F.conv2d(x, w)
    assert y.shape == (0, 1, 2**30 - 2, 2**30 - 2)
    grads = F.conv2d_backward(y, x, w)
    assert [g.shape for g in grads if g is not None] == [x.shape, w.shape, (1,)]
    assert grads[1] is not None
    assert not grads[1].any()


# out= and needs= -------------------------------------------------------------------


def test_out_is_written_and_returned() -> None:
    rng = np.random.default_rng(0)
    x, w = oracle.normal(rng, (2, 3, 6, 6)), oracle.normal(rng, (4, 3, 3, 3))
    out = np.full((2, 4, 4, 4), np.nan, np.float32)
    assert F.conv2d(x, w, out=out) is out
    oracle.assert_bits_equal(out, F.conv2d(x, w))
    out = np.full((2, 3, 6, 6), np.nan, np.float32)
    y = F.conv2d(x, w)
    assert F.conv_transpose2d(y, w, out=out) is out
    oracle.assert_bits_equal(out, F.conv_transpose2d(y, w))


def bad_outs() -> Iterator[tuple[Any, type[Exception], str]]:
    """What must not be taken for out, and why."""
    yield np.empty((1, 1, 2, 3), np.float32), ValueError, "shape"
    yield np.empty((1, 1, 2, 2)), TypeError, "float32"
    yield np.empty((1, 1, 2, 2), ">f4"), TypeError, "native"
    yield np.empty((1, 1, 2, 2), np.float32, order="F")[..., ::-1], ValueError, "C-cont"
    fixed = np.empty((1, 1, 2, 2), np.float32)
    fixed.flags.writeable = False
    yield fixed, ValueError, "writeable"
    yield [[1.0]], TypeError, "list"


@pytest.mark.parametrize(("out", "error", "words"), [*bad_outs()])
def test_out_is_refused_never_copied(
    out: Any, error: type[Exception], words: str
) -> None:
    x, w = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
    with pytest.raises(error, match=f"conv2d: out must .*{words}"):
        F.conv2d(x, w, out=out)


def test_out_must_not_overlap_an_input() -> None:
    buffer = np.ones(24, np.float32)
    x, out = buffer[:16].reshape(1, 1, 4, 4), buffer[8:].reshape(1, 1, 4, 4)
    with pytest.raises(ValueError, match="conv2d: out must not overlap"):
        F.conv2d(x, np.ones((1, 1, 3, 3), np.float32), padding=1, out=out)


def test_only_what_is_needed_is_computed() -> None:
    x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    g = np.ones((1, 1, 2, 2))
    assert [r is None for r in F.conv2d_backward(g, x, w, needs=["weight"])] == [
        True,
        False,
        True,
    ]
    with pytest.raises(ValueError, match="conv2d_backward: needs must be"):
        F.conv2d_backward(g, x, w, needs=["w"])
    with pytest.raises(TypeError, match="conv2d_backward: needs must be"):
        F.conv2d_backward(g, x, w, needs="weight")
    with pytest.raises(TypeError, match="conv2d_backward: needs must be"):
        F.conv2d_backward(g, x, w, needs=5)  # type: ignore[arg-type]
    names = (name for name in ["x", "bias"])  # an iterator is used up only once
    grads = F.conv2d_backward(g, x, w, needs=names)  # type: ignore[arg-type]
    assert [r is None for r in grads] == [False, True, False]


# Errors ----------------------------------------------------------------------------

X, W = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"stride": (0, 1)}, ValueError, r"conv2d: stride must be >= 1, got \(0, 1\)"),
    ({"stride": 1.5}, TypeError, "conv2d: stride must be an integer, got 1.5"),
    ({"stride": True}, TypeError, "conv2d: stride must be an integer, got True"),
    ({"stride": (1, 1, 1)}, ValueError, "conv2d: stride must be one integer or 2"),
    ({"padding": -1}, ValueError, "conv2d: padding must be >= 0, got -1"),
    ({"padding": "foo"}, ValueError, "conv2d: padding must be .*'foo'"),
    ({"padding": 2**31}, ValueError, "conv2d: the output must be addressable"),
    ({"padding": 2**62}, ValueError, "conv2d: the padded extent of x must be"),
    ({"padding": ((1, 2, 3), 0)}, ValueError, "conv2d: padding pairs must be"),
    ({"dilation": 0}, ValueError, "conv2d: dilation must be >= 1, got 0"),
    ({"dilation": 2**62}, ValueError, "conv2d: the kernel must fit"),
    ({"groups": 0}, ValueError, "conv2d: groups must be >= 1, got 0"),
    ({"groups": 1.0}, TypeError, "conv2d: groups must be an integer, got 1.0"),
    ({"groups": 2}, ValueError, "conv2d: weight expects 1 x groups"),
    ({"x": None}, TypeError, "conv2d: x must be a NumPy array.*NoneType"),
    ({"x": [[1.0]]}, TypeError, "conv2d: x must be a NumPy array.*list"),
    ({"x": X.astype(int)}, TypeError, r"conv2d: x must be float32.*astype\(np.float"),
    ({"x": X.astype(object)}, TypeError, "conv2d: x must be float32 or float64"),
    ({"x": np.ma.masked_less(X, 2)}, TypeError, "conv2d: x must be .* without a mask"),
    ({"x": X.astype(float)}, TypeError, "conv2d: weight must have the same dtype"),
    ({"x": X[0, 0]}, ValueError, r"conv2d: x must have 4 axes"),
    ({"x": X[:, :, :0]}, ValueError, "conv2d: every extent of x but the batch"),
    ({"x": X[:, :0]}, ValueError, "conv2d: every extent of x but the batch"),
    ({"weight": None}, TypeError, "conv2d: weight must be a NumPy array"),
    ({"weight": W[0]}, ValueError, "conv2d: weight must have 4 axes"),
    ({"weight": W[:, :, :0]}, ValueError, "conv2d: every extent of weight"),
    ({"weight": np.ones((1, 1, 5, 5), "f4")}, ValueError, "conv2d: the kernel must"),
    ({"weight": np.ones((1, 2, 3, 3), "f4")}, ValueError, "conv2d: weight expects 2"),
    ({"bias": np.ones(2, "f4")}, ValueError, r"conv2d: bias must have shape \(1,\)"),
    ({"bias": np.ones(1)}, TypeError, "conv2d: bias must have the same dtype"),
    ({"flip": 1}, TypeError, "conv2d: flip must be a bool, got 1"),
    ({"algorithm": "magic"}, ValueError, "conv2d: algorithm must be .*'magic'"),
    ({"algorithm": []}, ValueError, r"conv2d: algorithm must be .*\[\]"),
]


@pytest.mark.parametrize(("change", "error", "message"), ERRORS)
def test_errors(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        F.conv2d(**{"x": X, "weight": W, **change})


TRANSPOSE_ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"output_padding": 2, "stride": 2}, ValueError, "output_padding must be below"),
    ({"output_padding": -1}, ValueError, "output_padding must be >= 0, got -1"),
    ({"padding": 3}, ValueError, "the output must not be empty"),
    ({"stride": 0}, ValueError, "stride must be >= 1, got 0"),
    ({"stride": 2**62}, ValueError, "the output must be addressable"),
    ({"weight": np.ones((2, 1, 3, 3), "f4")}, ValueError, "weight expects 2 input"),
    ({"groups": 2}, ValueError, "groups must divide the input channels"),
    ({"bias": np.ones(2, "f4")}, ValueError, r"bias must have shape \(1,\)"),
]


@pytest.mark.parametrize(("change", "error", "message"), TRANSPOSE_ERRORS)
def test_transpose_errors(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"conv_transpose2d: {message}"):
        F.conv_transpose2d(**{"x": X, "weight": W, **change})


@pytest.mark.parametrize(
    ("grad", "error", "message"),
    [
        (np.ones((1, 1, 9, 9), "f4"), ValueError, "have the result's shape"),
        (np.ones((2, 1, 2, 2), "f4"), ValueError, "have the result's shape"),
        (np.ones((1, 2, 2), "f4"), ValueError, "as many axes as x"),
        (np.ones((1, 1, 2, 2)), TypeError, "the same dtype"),
        (None, TypeError, "NumPy array"),
    ],
)
def test_backward_errors(grad: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"conv2d_backward: grad_output must .*{message}"):
        F.conv2d_backward(grad, X, W)


SAME_KEY: list[dict[str, Any]] = [  # for a dictionary, what a legal call has
    {"stride": True},
    {"stride": 1.0},
    {"stride": (1, True)},
    {"stride": (1.0, 1)},
    {"padding": False},
    {"padding": 0.0},
    {"padding": (0, False)},
    {"padding": ((0, 0), (0, 0.0))},
    {"dilation": np.True_},
    {"dilation": (1, np.float64(1))},
    {"groups": True},
    {"groups": 1.0},
    {"flip": 0},
]
LEGAL: list[dict[str, Any]] = [
    {},
    {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)},
    {"padding": ((0, 0), (0, 0))},
    {"stride": [1, 1], "padding": [[0, 0], (0, 0)], "dilation": [1, np.int8(1)]},
    {"stride": np.int64(1), "padding": np.uint8(0), "groups": np.int32(1)},
    {"padding": "valid"},
]


@pytest.mark.parametrize("change", SAME_KEY, ids=str)
def test_no_cache_lets_an_argument_through(change: dict[str, Any]) -> None:
    """1, 1.0 and True have one hash: a legal call before must not make them legal."""
    y = F.conv2d(X, W)
    for legal in LEGAL:
        oracle.assert_bits_equal(F.conv2d(X, W, **legal), y)
    name = next(iter(change))
    for _ in range(2):
        with pytest.raises(TypeError, match=f"conv2d: {name} must be"):
            F.conv2d(X, W, **change)
        with pytest.raises(TypeError, match=f"conv2d_backward: {name} must be"):
            F.conv2d_backward(y, X, W, **change)


def buffers(**change: Any) -> list[Any]:
    """The arrays of one call of a kernel, some of them changed."""
    arrays: dict[str, Any] = {
        "x": np.ones((1, 1, 4, 4), np.float32),
        "weight": np.ones((1, 1, 3, 3), np.float32),
        "bias": None,
        "y": np.ones((1, 1, 2, 2), np.float32),
        "scratch": np.empty(1 << 16, np.uint8),
    }
    return list((arrays | change).values())


@pytest.mark.parametrize(
    "change",
    [
        {"x": np.ones((1, 1, 4, 8), np.float32)[..., ::2]},
        {"x": np.ones((1, 1, 4, 4), np.int32)},
        {"x": np.ones((1, 1, 4, 4), np.float32).astype(">f4")},
        {"x": np.ones((1, 1, 4, 2), np.float64)},
        {"x": np.frombuffer(b"1" * 65, np.float32, 16, 1)},
        {"x": None},
        {"y": np.frombuffer(b"1" * 16, np.float32)},  # read-only
        {"y": np.ones((1, 1, 2, 2))},
        {"scratch": np.empty(100, np.uint8)},
        {"scratch": None},
        {"bias": np.ones(2, np.float32)},
        {"weight": "1" * 36},
    ],
    ids=str,
)
def test_kernels_refuse_what_is_no_plain_buffer(change: Any, isa: str) -> None:
    chosen = plan.select(ConvProblem.parse("n1g1ic1ih4oc1kh3"), "fprop", "float32")
    chosen.kernel(chosen.geometry, *buffers(), 1)
    arrays = buffers(**change)
    counts = [sys.getrefcount(array) for array in arrays]
    with pytest.raises((ValueError, BufferError, TypeError)):
        chosen.kernel(chosen.geometry, *arrays, 1)
    assert [sys.getrefcount(array) for array in arrays] == counts  # all let go
    with pytest.raises(ValueError, match="threads"):
        chosen.kernel(chosen.geometry, *buffers(), 0)


def test_kernels_refuse_buffers_of_another_size() -> None:
    """Behind the door nothing is checked but this."""
    problem = ConvProblem.parse("n1g1ic1ih4oc1kh3")
    for direction, buffers in (
        ("fprop", (15, 9, 0, 4)),
        ("fprop", (16, 9, 2, 4)),
        ("dgrad", (4, 8, 0, 16)),
        ("wgrad", (16, 5, 9)),
        ("bgrad", (4, 2)),
    ):
        chosen = plan.select(problem, direction, "float32")
        arrays = [np.ones(size, np.float32) for size in buffers]
        with pytest.raises(ValueError, match="buffer does not have"):
            run(chosen, *arrays)


# Interruption ----------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
@pytest.mark.parametrize("direction", ["fprop", "wgrad"])
def test_a_signal_is_answered_in_the_middle(direction: str) -> None:
    """A handler that raises ends the call; the next call is right."""

    class Stop(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stop

    problem = ConvProblem.parse("n200g1ic64ih56oc64kh3ph1")
    x, w = np.ones(problem.x_shape, "f4"), np.ones(problem.weight_shape, "f4")

    def work() -> None:
        for _ in range(1000):  # whatever the machine's speed, it ends in a call
            if direction == "fprop":
                F.conv2d(x, w, padding=1)
            else:
                F.conv2d_backward(x, x, w, padding=1, needs=["weight"])

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(Stop):
            work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    small = ConvProblem.parse("n1g1ic2ih5oc3kh3")
    check_exactly(small, np.float32)
