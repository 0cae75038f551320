"""Locally connected layers: values, gradients, borders, shapes, errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convcore import functional as F
from convcore import nn, reference
from convcore.problem import ConvProblem
from convcore.problem.border import BORDERS
from convcore.runtime import cpu
from tests import oracle, strategies

How = tuple[Any, Any, Any]


def function(ndim: int, suffix: str = "") -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(F, f"locally_connected{ndim}d{suffix}")
    return found


def weight_shape(problem: ConvProblem) -> tuple[int, ...]:
    *rows, columns = problem.y_shape[2:]
    *taps, width = problem.weight_shape[2:]
    return (*rows, *taps, problem.ic, problem.oc, width, columns)


def draw(problem: ConvProblem, rng: Any, dtype: Any) -> list[Any]:
    """x, weight, bias and a gradient of y, all sums of which are exact."""
    most = max(problem.terms(d) for d in ("fprop", "dgrad")) + problem.n
    shapes = (problem.x_shape, weight_shape(problem), problem.y_shape[1:])
    return [
        oracle.integers(rng, shape, dtype, terms=most)
        for shape in (*shapes, problem.y_shape)
    ]


def check(
    problem: ConvProblem, how: How, rng: Any, dtype: Any, mode: str = "zeros"
) -> None:
    """Compare with the reference, exactly."""
    x, weight, bias, g = draw(problem, rng, dtype)
    around = {"padding_mode": mode, "padding_value": 2 if mode == "constant" else 0}
    problem = ConvProblem.conv(
        "test", problem.x_shape, problem.weight_shape, *how, **around
    )
    y = function(problem.ndim)(x, weight, bias, *how, **around)
    oracle.assert_exact(y, reference.local(problem, x, weight, bias))
    grads = function(problem.ndim, "_backward")(g, x, weight, *how, **around)
    right = reference.local_backward(problem, g, x, weight)
    for grad, expected in zip(grads, right, strict=True):
        oracle.assert_exact(grad, expected)


@st.composite
def calls(draw: st.DrawFn) -> tuple[ConvProblem, How]:
    """Legal problems, and the arguments that make them."""
    ndim = draw(st.integers(1, 2))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    kernel, stride, dilation = each(1, 5), each(1, 3), each(1, 3)
    padding = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in kernel)
    more = (*each(0, 3)[:-1], draw(st.sampled_from([0, 1, 7, 15, 16, 17, 35])))
    extent = tuple(
        (k - 1) * d + 1 + m for k, d, m in zip(kernel, dilation, more, strict=True)
    )
    n = draw(st.sampled_from([0, 1, 2, 3, 33]))
    inputs, outputs = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    how = (stride, padding, dilation)
    shapes = ((n, inputs, *extent), (outputs, inputs, *kernel))
    return ConvProblem.conv("test", *shapes, *how), how


MODES = st.sampled_from(["zeros", "zeros", *BORDERS])


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("isa", cpu.available())
@given(call=calls(), rng=strategies.generators(), mode=MODES)
@settings(max_examples=25)
def test_exact_on_integers(
    dtype: Any, isa: str, call: Any, rng: Any, mode: str
) -> None:
    problem, _ = call
    if mode == "reflect" and 1 in problem.x_shape[2:]:
        mode = "symmetric"
    with cpu.use(isa):
        check(*call, rng, dtype, mode)


@pytest.mark.parametrize(
    ("x_shape", "shared", "how"),
    [
        ((2, 3, 700), (2, 3, 19), (1, 9, 1)),  # blocks of columns, and of taps
        ((2, 1, 2, 600), (3, 1, 2, 17), (1, "same", 3)),
        ((40, 40, 3, 70), (3, 40, 3, 3), (1, 1, 1)),  # of samples and of channels
        ((33, 2, 5, 40), (70, 2, 2, 2), (2, 0, 1)),
        ((1, 1, 1, 1), (1, 1, 1, 1), (2**62, 0, 2**62)),
        ((1, 1, 2, 3), (1, 1, 2, 1), (1, 5, 1)),  # windows that see padding alone
    ],
)
def test_blocks_and_corners(x_shape: Any, shared: Any, how: How) -> None:
    problem = ConvProblem.conv("test", x_shape, shared, *how)
    check(problem, how, np.random.default_rng(0), np.float64)


@pytest.mark.parametrize("mode", BORDERS)
def test_equal_weights_are_a_convolution(mode: str) -> None:
    rng = np.random.default_rng(0)
    x = oracle.integers(rng, (3, 4, 9, 8), terms=36)
    shared = oracle.integers(rng, (5, 4, 3, 3), terms=36)
    weight = np.empty((9, 3, 4, 5, 3, 8), np.float32)
    weight[:] = shared.transpose(2, 1, 0, 3)[..., None]
    how = {"padding": 1, "padding_mode": mode}
    y = F.locally_connected2d(x, weight, **how)
    oracle.assert_exact(y, F.conv2d(x, shared, **how))
    layer = nn.LocallyConnected2d(4, 5, (9, 8), 3, bias=False, **how)
    layer.weight.value = weight
    again, backward = layer.forward(x)
    oracle.assert_bits_equal(again, y)
    grad_x, _, _ = F.conv2d_backward(y, x, shared, **how)
    assert grad_x is not None
    np.testing.assert_allclose(backward(y), grad_x, rtol=1e-6)


def test_padding_far_beyond_x_takes_no_memory() -> None:
    """Only what windows see is copied."""
    problem = ConvProblem.conv("test", (2, 3, 4), (2, 3, 2), 2**38, 2**40)
    check(problem, (2**38, 2**40, 1), np.random.default_rng(0), np.float64)
    x, w, _, g = draw(problem, np.random.default_rng(0), np.float64)
    how = {"stride": 2**38, "padding": 2**40, "padding_mode": "reflect"}
    y = F.locally_connected1d(x, w, **how)
    grads = F.locally_connected1d_backward(g, x, w, **how)
    assert grads[0] is not None
    oracle.exactly_equal(y * g, grads[0] * x, grads[1] * w)


def test_adjoint_exactly() -> None:
    how: How = (2, ((1, 0), (2, 1)), 2)
    problem = ConvProblem.conv("test", (3, 2, 8, 9), (4, 2, 2, 3), *how)
    x, weight, _, g = draw(problem, np.random.default_rng(0), np.float64)
    y = F.locally_connected2d(x, weight, None, *how)
    grads = F.locally_connected2d_backward(g, x, weight, *how, needs=["x", "weight"])
    assert grads[0] is not None
    assert grads[1] is not None
    oracle.exactly_equal(y * g, grads[0] * x, grads[1] * weight)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_error_is_within_the_promise(dtype: Any) -> None:
    rng, wide = np.random.default_rng(0), oracle.wider(dtype)
    problem = ConvProblem.conv("test", (4, 30, 6, 20), (8, 30, 3, 5), 1, "same")
    x, weight, g = (
        oracle.normal(rng, shape, dtype)
        for shape in (problem.x_shape, weight_shape(problem), problem.y_shape)
    )
    how = (1, "same")
    results = [
        F.locally_connected2d(x, weight, None, *how),
        *F.locally_connected2d_backward(g, x, weight, *how, needs=["x", "weight"])[:2],
    ]

    def judged(*arrays: Any) -> list[Any]:
        one, two, three = (a.astype(wide) for a in arrays)
        right = reference.local_backward(problem, three, one, two)
        return [reference.local(problem, one, two), *right[:2]]

    rights, scales = judged(x, weight, g), judged(*map(np.abs, (x, weight, g)))
    u = float(np.finfo(dtype).eps) / 2
    for result, right, scale, terms in zip(
        results, rights, scales, (450, 120, 4), strict=True
    ):
        allowed = (2 * np.sqrt(terms) + 4) * u * scale
        oracle.assert_within(result, right, allowed, dtype)


def test_bits_do_not_depend_on_threads_or_the_batch(team: Any) -> None:
    rng = np.random.default_rng(0)
    x, weight, g = (
        oracle.normal(rng, shape)
        for shape in ((35, 3, 7, 21), (7, 3, 3, 5, 3, 21), (35, 5, 7, 21))
    )
    team(1)
    y = F.locally_connected2d(x, weight, padding=1)
    right = F.locally_connected2d_backward(g, x, weight, padding=1)
    for threads in (2, 3, 8):
        team(threads)
        oracle.assert_bits_equal(F.locally_connected2d(x, weight, padding=1), y)
        grads = F.locally_connected2d_backward(g, x, weight, padding=1)
        for grad, expected in zip(grads, right, strict=True):
            assert grad is not None
            assert expected is not None
            oracle.assert_bits_equal(grad, expected)
    part = F.locally_connected2d(x[33:34], weight, padding=1)
    oracle.assert_bits_equal(part, y[33:34])


def test_infinities_stay_in_their_window() -> None:
    x, weight = np.ones((1, 1, 4, 20)), np.ones((4, 3, 1, 1, 3, 20))
    x[0, 0, 1, 7], weight[3, 0, 0, 0, 1, 15] = np.inf, np.nan
    y = F.locally_connected2d(x, weight, padding=1)
    bad = np.zeros((4, 20), bool)
    bad[0:3, 6:9] = bad[3, 15] = True
    np.testing.assert_array_equal(~np.isfinite(y[0, 0]), bad)


def test_out_and_unbatched() -> None:
    x, weight = np.ones((2, 5)), np.ones((2, 3, 2, 4))
    out = np.empty((3, 4))
    assert F.locally_connected1d(x, weight, out=out) is out
    np.testing.assert_array_equal(out, np.full((3, 4), 4.0))
    grads = F.locally_connected1d_backward(np.ones((3, 4)), x, weight, needs=["bias"])
    assert grads[:2] == (None, None)
    np.testing.assert_array_equal(grads[2], np.ones((3, 4)))


X, W = np.ones((2, 3, 6, 6)), np.ones((4, 3, 3, 2, 3, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.locally_connected2d(X, W[0]),
            ValueError,
            "weight must have the axes",
        ),
        (
            lambda: F.locally_connected2d(X, W, padding=1),
            ValueError,
            r"kernels for the outputs \(6, 6\).*got those for \(4, 4\)",
        ),
        (
            lambda: F.locally_connected2d(X[:, :2], W),
            ValueError,
            "2d: weight expects 3",
        ),
        (lambda: F.locally_connected2d(X, W, np.ones(2)), ValueError, "bias must have"),
        (
            lambda: F.locally_connected2d(X, W.astype("f4")),
            TypeError,
            "weight must have",
        ),
        (
            lambda: F.locally_connected2d(X, W, stride=0),
            ValueError,
            "stride must be >= 1",
        ),
        (lambda: F.locally_connected2d(X, W, out=X), ValueError, "out must have shape"),
        (
            lambda: F.locally_connected2d_backward(X, X, W),
            ValueError,
            "grad_output must have the result's shape",
        ),
        (lambda: nn.LocallyConnected2d(1, 1, 2, 3), ValueError, "the kernel must fit"),
        (
            lambda: F.locally_connected2d(X, W, padding_mode="mirror"),
            ValueError,
            "locally_connected2d: padding_mode must be one of",
        ),
        (
            lambda: nn.LocallyConnected1d(
                1, 1, 1, 1, padding=1, padding_mode="reflect"
            ),
            ValueError,
            'LocallyConnected1d: "reflect" needs at least 2',
        ),
        (
            lambda: nn.LocallyConnected1d(1, 1, 0, 3),
            ValueError,
            "input_size must be >=",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
