"""Activations: values, gradients, stability, and what is not finite."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import reference
from tests import oracle, strategies

DIMS = (0, 1, 2, -1)

PARAMETERS = [
    ("hardtanh", (-0.5, 2.25)),
    ("elu", (0.3,)),
    ("gelu", ("tanh",)),
    ("softplus", (2.0, 5.0)),
    ("softplus", (0.5, 20.0)),
]

# Name: forward of x, backward of (grad, x, y), and the same of the reference.
Case = tuple[Callable[..., Any], Callable[..., Any]]


def cases(module: Any) -> dict[str, Case]:
    """Every activation of a module that has their names."""
    table: dict[str, Case] = {
        "relu": (module.relu, lambda g, x, y: module.relu_backward(g, y)),
        "sigmoid": (module.sigmoid, lambda g, x, y: module.sigmoid_backward(g, y)),
        "tanh": (module.tanh, lambda g, x, y: module.tanh_backward(g, y)),
    }
    for name in ("relu6", "hardtanh"):
        forward, back = getattr(module, name), getattr(module, f"{name}_backward")
        table[name] = (forward, lambda g, x, y, b=back: b(g, y))
    for name in ("hardsigmoid", "hardswish", "selu", "silu", "gelu", "softplus", "elu"):
        forward, back = getattr(module, name), getattr(module, f"{name}_backward")
        table[name] = (forward, lambda g, x, y, b=back: b(g, x))
    for name, args in PARAMETERS:
        forward, back = getattr(module, name), getattr(module, f"{name}_backward")
        table[f"{name} {args}"] = (
            lambda x, f=forward, a=args: f(x, *a),
            lambda g, x, y, b=back, a=args: b(g, y if "tanh" in b.__name__ else x, *a),
        )
    for slope in (0.01, 0.3, -0.5, 2.0):
        table[f"leaky_relu {slope}"] = (
            partial(module.leaky_relu, negative_slope=slope),
            lambda g, x, y, s=slope: module.leaky_relu_backward(g, x, s),
        )
    for dim in DIMS:
        table[f"softmax {dim}"] = (
            partial(module.softmax, dim=dim),
            lambda g, x, y, d=dim: module.softmax_backward(g, y, d),
        )
        table[f"log_softmax {dim}"] = (
            partial(module.log_softmax, dim=dim),
            lambda g, x, y, d=dim: module.log_softmax_backward(g, y, d),
        )
    return table


OURS, THEIRS = cases(F), cases(reference)
NAMES = sorted(OURS)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("name", NAMES)
@given(
    shape=st.lists(st.integers(1, 7), min_size=3, max_size=5),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    rng=strategies.generators(),
)
def test_as_the_reference(
    name: str, dtype: Any, shape: list[int], scale: float, rng: np.random.Generator
) -> None:
    x = (scale * oracle.normal(rng, shape, dtype)).astype(dtype)
    g = oracle.normal(rng, shape, dtype)
    forward, backward = OURS[name]
    wide_forward, wide_backward = THEIRS[name]
    y = forward(x)
    wide = oracle.wider(dtype)
    right = wide_forward(x.astype(wide))
    u = float(np.finfo(dtype).eps)
    # A score of size s is off by s * u before the exponential, which is relative there.
    near = 16 * u * (1 + np.abs(x).max())
    if "tanh'" in name:  # the exponential takes x cubed
        near *= 1 + np.abs(x).max() ** 2
    least = 4 * float(np.finfo(dtype).smallest_subnormal)
    if (
        name == "gelu"
    ):  # x times a share that the reference rounds to a subnormal number
        least *= 1 + np.abs(x).max()
    allowed = near * np.abs(right) + near * ("log" in name) + least
    oracle.assert_within(y, right, allowed, dtype)
    grad = backward(g, x, y)
    right = wide_backward(g.astype(wide), x.astype(wide), y.astype(wide))
    oracle.assert_within(grad, right, 32 * u * max(x.shape) * np.abs(g).max(), dtype)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_slopes(name: str) -> None:
    rng = np.random.default_rng(0)
    x = oracle.normal(rng, (3, 4, 5), np.float64)
    for kink in (0, 1, -1, -0.5, 2.25, 2.5, 3, -3):  # no difference across one
        x[np.abs(x - kink) < 1e-3] += 0.01
    g = oracle.normal(rng, x.shape, np.float64)
    forward, backward = OURS[name]
    oracle.gradients_check(forward, [x], [backward(g, x, forward(x))], g, rng)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_sigmoid_is_exact_at_both_ends(dtype: Any) -> None:
    """exp(-x) of a large negative x would overflow; small results keep their digits."""
    tiny = np.finfo(dtype).tiny
    x = np.array([-np.inf, -1e30, np.log(tiny), np.log(tiny) - 3, 0, 50, 1e30, np.inf])
    right = np.array([0, 0, tiny, tiny * np.exp(-3.0), 0.5, 1, 1, 1], np.float64)
    y = F.sigmoid(x.astype(dtype))
    np.testing.assert_allclose(y, right, rtol=2e-4, atol=0)
    assert 0 < y[3] < tiny  # a subnormal number, not flushed to 0


def test_tanh_backward_keeps_digits_near_one() -> None:
    y = np.float32(1) - np.finfo(np.float32).eps * np.array([1, 2, 3], np.float32)
    exact = 1 - y.astype(np.float64) ** 2
    grad = F.tanh_backward(np.ones(3, np.float32), y)
    np.testing.assert_allclose(grad, exact, rtol=1e-6)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4, 1e30])
def test_softmax_of_large_scores(dtype: Any, shift: float) -> None:
    x = np.array([[0.0, 1.0, 2.0]], dtype) + dtype(shift)
    y, log_y = F.softmax(x), F.log_softmax(x)
    assert np.isfinite(y).all()
    assert np.isfinite(log_y).all()
    assert y.sum() == pytest.approx(1, rel=1e-6)
    if abs(shift) <= 1e4:
        right = reference.log_softmax(np.array([[0.0, 1.0, 2.0]]), 1)
        np.testing.assert_allclose(log_y, right, atol=1e-6)


def test_log_softmax_keeps_small_probabilities() -> None:
    y = F.log_softmax(np.array([[0.0, -1000.0]], np.float32))
    np.testing.assert_array_equal(y, [[0.0, -1000.0]])


NOT_FINITE = [
    # operation, x, y
    (F.relu, [np.nan, np.inf, -np.inf, -0.0], [np.nan, np.inf, 0.0, 0.0]),
    (
        F.leaky_relu,
        [np.nan, np.inf, -np.inf, -0.0],
        [np.nan, np.inf, -np.inf, -0.0],
    ),
    (F.sigmoid, [np.nan, np.inf, -np.inf, -0.0], [np.nan, 1.0, 0.0, 0.5]),
    (F.tanh, [np.nan, np.inf, -np.inf, -0.0], [np.nan, 1.0, -1.0, -0.0]),
    (F.relu6, [np.nan, np.inf, -np.inf, 7.0], [np.nan, 6.0, 0.0, 6.0]),
    (F.hardtanh, [np.nan, np.inf, -np.inf, 7.0], [np.nan, 1.0, -1.0, 1.0]),
    (F.hardsigmoid, [np.nan, np.inf, -np.inf, 0.0], [np.nan, 1.0, 0.0, 0.5]),
    (F.hardswish, [np.nan, np.inf, -np.inf, 1e38], [np.nan, np.inf, -0.0, 1e38]),
    (F.elu, [np.nan, np.inf, -np.inf, 1e38], [np.nan, np.inf, -1.0, 1e38]),
    (F.gelu, [np.nan, np.inf, -np.inf, 1e38], [np.nan, np.inf, -0.0, 1e38]),
    (
        partial(F.gelu, approximate="tanh"),
        [np.nan, np.inf, -np.inf, 1e38],
        [np.nan, np.inf, -0.0, 1e38],
    ),
    (F.silu, [np.nan, np.inf, -np.inf, 1e38], [np.nan, np.inf, -0.0, 1e38]),
    (F.softplus, [np.nan, np.inf, -np.inf, 1e38], [np.nan, np.inf, 0.0, 1e38]),
    (partial(F.softmax, dim=0), [0.0, -np.inf, 0.0], [0.5, 0.0, 0.5]),
    (partial(F.softmax, dim=0), [0.0, np.nan, 0.0], [np.nan] * 3),
    (partial(F.softmax, dim=0), [0.0, np.inf, 0.0], [np.nan] * 3),
    (partial(F.softmax, dim=0), [-np.inf] * 3, [np.nan] * 3),
    (partial(F.log_softmax, dim=0), [0.0, -np.inf], [0.0, -np.inf]),
]


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize(("operation", "x", "right"), NOT_FINITE)
def test_what_is_not_finite(
    operation: Callable[..., Any], x: list[float], right: list[float], dtype: Any
) -> None:
    """As IEEE says, without a warning, at any place of a long array."""
    y = operation(np.array(x, dtype))
    oracle.assert_exact(y, np.array(right, dtype))


@pytest.mark.parametrize("length", [1, 2, 7, 16, 33])
def test_relu_gives_no_negative_zero(length: int) -> None:
    y = F.relu(np.full(length, -0.0, np.float32))
    assert not np.signbit(y).any()


def test_not_finite_rows_leave_others_alone() -> None:
    x = np.zeros((3, 4), np.float32)
    x[1] = np.nan
    y = F.softmax(x)
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[[0, 2]], 0.25)


@pytest.mark.parametrize("backward", [F.relu_backward, F.leaky_relu_backward])
def test_the_kink_takes_the_lower_slope(backward: Callable[..., Any]) -> None:
    g, zero = np.array([2.0, np.inf]), np.zeros(2)
    slope = 0.0 if backward is F.relu_backward else 0.01
    right = [2 * slope, np.inf * slope if slope else 0.0]
    np.testing.assert_array_equal(backward(g, zero), right)


def test_relu_backward_of_nan_is_the_gradient() -> None:
    grad = F.relu_backward(np.array([3.0]), np.array([np.nan]))
    np.testing.assert_array_equal(grad, [3.0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.softmax(np.zeros((2, 3)), dim=2),
            ValueError,
            "softmax: dim must name one of 2 axes, got 2",
        ),
        (
            lambda: F.log_softmax(np.zeros(3)),
            ValueError,
            "log_softmax: dim must name one of 1 axes, got 1",
        ),
        (
            lambda: F.softmax(np.zeros((2, 3)), dim=1.0),
            TypeError,
            "softmax: dim must be an integer, got 1.0",
        ),
        (
            lambda: F.leaky_relu(np.zeros(3), np.nan),
            ValueError,
            "leaky_relu: negative_slope must be finite, got nan",
        ),
        (
            lambda: F.relu_backward(np.zeros(3), np.zeros(4)),
            ValueError,
            r"relu_backward: grad_output must have the shape of y \(4,\), got \(3,\)",
        ),
        (
            lambda: F.tanh_backward(np.zeros((1, 3)), np.zeros((2, 3))),
            ValueError,
            r"tanh_backward: grad_output must have the shape of y \(2, 3\)",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
