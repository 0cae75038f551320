"""The fully connected layer: values, gradients, shapes, errors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import reference
from tests import oracle, strategies


@st.composite
def extents(draw: st.DrawFn) -> tuple[tuple[int, ...], int, int]:
    """Leading axes, in and out."""
    leading = draw(st.lists(st.integers(0, 5), max_size=3))
    features = st.sampled_from([1, 2, 3, 16, 17, 33])
    return tuple(leading), draw(features), draw(features)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@given(shape=extents(), biased=st.booleans(), rng=strategies.generators())
def test_exact_on_integers(
    dtype: Any,
    shape: tuple[tuple[int, ...], int, int],
    biased: bool,
    rng: np.random.Generator,
) -> None:
    leading, inputs, outputs = shape
    rows = int(np.prod(leading, dtype=int))

    def draw(*shape: int) -> Any:
        return oracle.integers(rng, shape, dtype, terms=max(inputs, outputs, rows))

    x, weight = draw(*leading, inputs), draw(outputs, inputs)
    bias, g = draw(outputs) if biased else None, draw(*leading, outputs)
    oracle.assert_exact(F.linear(x, weight, bias), reference.linear(x, weight, bias))
    right = reference.linear_backward(g, x, weight)
    for grad, expected in zip(F.linear_backward(g, x, weight), right, strict=True):
        assert grad is not None
        oracle.assert_exact(grad, expected)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_error_is_within_the_promise(dtype: Any) -> None:
    rng, wide = np.random.default_rng(0), oracle.wider(dtype)
    x, weight = (oracle.normal(rng, s, dtype) for s in ((20, 700), (50, 700)))
    u = float(np.finfo(dtype).eps) / 2
    size = reference.linear(np.abs(x).astype(wide), np.abs(weight).astype(wide))
    right = reference.linear(x.astype(wide), weight.astype(wide))
    allowed = (2 * np.sqrt(700) + 4) * u * size
    oracle.assert_within(F.linear(x, weight), right, allowed, dtype)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize(("inputs", "outputs"), [(1000, 70), (3, 300)])
def test_bits_of_a_row_do_not_depend_on_other_rows(
    inputs: int, outputs: int, dtype: Any
) -> None:
    rng = np.random.default_rng(0)
    x, weight, g = (
        oracle.normal(rng, s, dtype)
        for s in ((301, inputs), (outputs, inputs), (301, outputs))
    )
    y = F.linear(x, weight)
    grad_x = F.linear_backward(g, x, weight, ["x"])[0]
    assert grad_x is not None
    for lo, hi in ((0, 1), (150, 151), (300, 301), (17, 201)):
        oracle.assert_bits_equal(F.linear(x[lo:hi], weight), y[lo:hi])
        part = F.linear_backward(g[lo:hi], x[lo:hi], weight, ["x"])[0]
        assert part is not None
        oracle.assert_bits_equal(part, grad_x[lo:hi])


@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
def test_gradients_are_slopes(leading: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, weight, bias, g = (
        oracle.normal(rng, s, np.float64)
        for s in ((*leading, 5), (3, 5), (3,), (*leading, 3))
    )
    grads = F.linear_backward(g, x, weight)
    oracle.gradients_check(F.linear, [x, weight, bias], grads, g, rng)


def test_an_empty_batch_has_gradients_of_0() -> None:
    grads = F.linear_backward(np.ones((0, 3)), np.ones((0, 5)), np.ones((3, 5)))
    assert grads[0] is not None
    assert grads[0].shape == (0, 5)
    np.testing.assert_array_equal(grads[1], np.zeros((3, 5)))
    np.testing.assert_array_equal(grads[2], np.zeros(3))


def test_only_what_is_needed() -> None:
    grads = F.linear_backward(np.ones((2, 3)), np.ones((2, 5)), np.ones((3, 5)), ["x"])
    assert [grad is None for grad in grads] == [False, True, True]


X, W = np.ones((2, 5)), np.ones((3, 5))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.linear(X, W[:, :4]),
            ValueError,
            r"linear: weight expects rows of 4, got x \(2, 5\); weight \(3, 4\)",
        ),
        (lambda: F.linear(np.ones(()), W), ValueError, "weight expects rows of 5"),
        (
            lambda: F.linear(X, W[0]),
            ValueError,
            r"linear: weight must have shape \(out, in\), both >= 1, got \(5,\)",
        ),
        (lambda: F.linear(X[:, :0], W[:, :0]), ValueError, "both >= 1"),
        (
            lambda: F.linear(X, W, np.ones(5)),
            ValueError,
            r"linear: bias must have shape \(3,\)",
        ),
        (lambda: F.linear(X, W.astype("f4")), TypeError, "linear: weight must"),
        (
            lambda: F.linear_backward(X, X, W),
            ValueError,
            r"linear_backward: grad_output must have shape \(2, 3\), got \(2, 5\)",
        ),
        (
            lambda: F.linear_backward(np.ones((2, 3)), X, W, ["grad"]),
            ValueError,
            "linear_backward: needs must be",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
