"""Batch normalisation: values, statistics, gradients, stability, errors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import reference
from tests import oracle, strategies
from tests.norm_helpers import Rows, along_channels

NEEDS = ("x", "weight", "bias")


def statistics(rng: np.random.Generator, channels: int, dtype: Any) -> list[Any]:
    """Mean, variance, weight and bias."""
    mean, var, weight, bias = oracle.normal(rng, (4, channels), dtype)
    return [mean, (var**2 + 0.25).astype(dtype), weight, bias]


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, ...]:
    rest = draw(st.lists(st.integers(1, 5), max_size=3))
    batch, channels = draw(st.integers(2, 6)), draw(st.integers(1, 7))
    return (batch, channels, *rest)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@given(
    shape=shapes(),
    momentum=st.sampled_from([0.0, 0.1, 1.0]),
    eps=st.sampled_from([1e-5, 0.1]),
    rng=strategies.generators(),
)
def test_as_the_reference(
    dtype: Any,
    training: bool,
    affine: bool,
    shape: tuple[int, ...],
    momentum: float,
    eps: float,
    rng: np.random.Generator,
) -> None:
    wide = oracle.wider(dtype)
    x = oracle.normal(rng, shape, dtype)
    mean, var, weight, bias = statistics(rng, shape[1], dtype)
    if not affine:
        weight = bias = None
    w_weight, w_bias = (None if v is None else v.astype(wide) for v in (weight, bias))
    right, right_mean, right_var = reference.batch_norm(
        *(v.astype(wide) for v in (x, mean, var)),
        w_weight,
        w_bias,
        training,
        momentum,
        eps,
    )
    g = oracle.normal(rng, shape, dtype)
    grads = F.batch_norm_backward(g, x, mean, var, weight, training, eps)
    right_grads = reference.batch_norm_backward(
        *(v.astype(wide) for v in (g, x, mean, var)), w_weight, training, eps
    )
    old_mean, old_var = mean.astype(wide), var.astype(wide)
    y = F.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
    axes = (0, *range(2, x.ndim))
    if training:
        rows = Rows.of(x, axes, eps)
    else:
        rows = Rows.known(x, axes, old_mean, old_var, eps)
    w, b = (0 if v is None else along_channels(v, x.ndim) for v in (w_weight, w_bias))
    w = np.ones(1, wide) if weight is None else w
    oracle.assert_within(y, right, rows.allowed(right, w, b), dtype)
    u = np.finfo(dtype).eps
    size = np.abs(right_mean) + np.abs(x).max()
    oracle.assert_within(mean, right_mean, u * size, dtype)
    oracle.assert_within(var, right_var, u * (right_var + x.var()) * x.size, dtype)
    allowed = rows.gradients_allowed(g, w, training)
    for grad, expected, room in zip(grads, right_grads, allowed, strict=True):
        oracle.assert_within(grad, expected, room.reshape(expected.shape), dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 6), (2, 3, 4, 5), (2, 1, 2, 3, 2)])
def test_gradients_are_slopes(shape: tuple[int, ...], training: bool) -> None:
    rng = np.random.default_rng(0)
    x, g = (oracle.normal(rng, shape, np.float64) for _ in range(2))
    mean, var, weight, bias = statistics(rng, shape[1], np.float64)

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return F.batch_norm(x, mean.copy(), var.copy(), weight, bias, training)

    grads = F.batch_norm_backward(g, x, mean, var, weight, training)
    oracle.gradients_check(forward, [x, weight, bias], grads, g, rng)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e6])
def test_a_large_mean_costs_no_digits(offset: float) -> None:
    """E[x**2] - E[x]**2 in float32 would be off by more than the variance itself."""
    x = (oracle.normal(np.random.default_rng(0), (64, 2, 50)) + offset).astype("f4")
    exact = x.astype(np.float64)
    centred = exact - exact.mean(axis=(0, 2), keepdims=True)
    right = centred / np.sqrt(exact.var(axis=(0, 2), keepdims=True) + 1e-5)
    y = F.batch_norm(x, None, None, training=True)
    np.testing.assert_allclose(y, right, rtol=1e-6, atol=2e-6)
    mean, var = np.full(2, offset, np.float32), np.ones(2, np.float32)
    y = F.batch_norm(x, mean, var, eps=0.0)
    np.testing.assert_allclose(y, exact - offset, rtol=1e-6)


@pytest.mark.parametrize(
    "shape", [(500, 3, 97), (3000, 70), (2, 3, 40000), (70, 50, 31)]
)
def test_more_than_one_chunk(shape: tuple[int, ...]) -> None:
    """Statistics over chunks of samples, and pieces of channels, are those over all."""
    x = oracle.normal(np.random.default_rng(0), shape, np.float64)
    assert x.size > 2 * 2**15
    y = F.batch_norm(x, None, None, training=True)
    zeros, ones = np.zeros(shape[1]), np.ones(shape[1])
    right, _, _ = reference.batch_norm(x, zeros, ones, training=True)
    np.testing.assert_allclose(y, right, rtol=1e-12, atol=1e-12)
    g = x[::-1].copy()
    grads = F.batch_norm_backward(g, x, None, None, training=True)
    for grad, expected in zip(
        grads,
        reference.batch_norm_backward(g, x, zeros, ones, training=True),
        strict=True,
    ):
        np.testing.assert_allclose(grad, expected, rtol=1e-9, atol=1e-9)


def test_running_statistics_by_hand() -> None:
    """The biased variance normalises (2/3), the unbiased one is kept (1)."""
    x = np.array([[1.0], [2.0], [3.0]])
    mean, var = np.zeros(1), np.zeros(1)
    y = F.batch_norm(x, mean, var, training=True, momentum=0.25, eps=0.0)
    np.testing.assert_allclose(y[:, 0], [-np.sqrt(1.5), 0, np.sqrt(1.5)])
    np.testing.assert_allclose([*mean, *var], [0.5, 0.25])


def test_running_statistics_may_be_strided_views() -> None:
    both = np.zeros((3, 2))
    both[:, 1] = 1
    x = oracle.normal(np.random.default_rng(0), (4, 3), np.float64)
    mean, var = np.zeros(3), np.ones(3)
    F.batch_norm(x, mean, var, training=True)
    F.batch_norm(x, both[:, 0], both[:, 1], training=True)
    np.testing.assert_array_equal(both, np.stack([mean, var], axis=1))


def test_inference_changes_no_statistics() -> None:
    mean, var = np.zeros(3), np.ones(3)
    mean.flags.writeable = var.flags.writeable = False
    F.batch_norm(np.ones((2, 3)), mean, var)


@pytest.mark.parametrize("needs", [(), ("x",), ("bias",), ("weight", "x")])
@pytest.mark.parametrize("training", [True, False])
def test_only_what_is_needed(needs: tuple[str, ...], training: bool) -> None:
    rng = np.random.default_rng(0)
    x, g = (oracle.normal(rng, (4, 3, 5)) for _ in range(2))
    mean, var, weight, _ = statistics(rng, 3, np.float32)
    right = F.batch_norm_backward(g, x, mean, var, weight, training)
    grads = F.batch_norm_backward(g, x, mean, var, weight, training, needs=needs)
    for name, grad, whole in zip(NEEDS, grads, right, strict=True):
        if name in needs:
            assert grad is not None
            assert whole is not None
            oracle.assert_bits_equal(grad, whole)
        else:
            assert grad is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_channel(value: float) -> None:
    x = oracle.normal(np.random.default_rng(0), (4, 3, 5))
    x[1, 2, 3] = value
    y = F.batch_norm(x, None, None, training=True)
    assert np.isfinite(y[:, :2]).all()
    assert np.isnan(y[1, 2, 3])
    y = F.batch_norm(x, np.zeros(3, np.float32), np.ones(3, np.float32))
    assert np.isfinite(np.delete(y.ravel(), 1 * 15 + 2 * 5 + 3)).all()


def test_a_constant_channel_becomes_the_bias() -> None:
    x, bias = np.full((4, 2, 3), 7.5, np.float32), np.array([1, -2], np.float32)
    y = F.batch_norm(x, None, None, None, bias, training=True)
    np.testing.assert_array_equal(y, np.broadcast_to(bias[:, None], x.shape))


ONES = np.ones(3, np.float32)
X = np.ones((2, 3, 4), np.float32)
ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": np.ones(3, np.float32)}, ValueError, r"x must have shape \(N, C\)"),
    (
        {"x": np.ones((2, 0, 4), np.float32)},
        ValueError,
        "x must .* every extent but the",
    ),
    (
        {"x": np.ones((2, 3, 0), np.float32)},
        ValueError,
        "x must .* every extent but the",
    ),
    ({"running_mean": ONES[:2]}, ValueError, r"running_mean must have shape \(3,\)"),
    ({"running_var": ONES[:1]}, ValueError, r"running_var must have shape \(3,\)"),
    ({"weight": ONES[:0]}, ValueError, r"weight must have shape \(3,\).*got \(0,\)"),
    ({"bias": np.ones((3, 1), np.float32)}, ValueError, "bias must have shape"),
    ({"weight": np.ones(3)}, TypeError, "weight must .*float32.*float64"),
    ({"running_mean": None}, ValueError, "running_mean must be given"),
    ({"running_var": None, "training": True}, ValueError, "running_var must be given"),
    ({"momentum": 1.5}, ValueError, "momentum must be <= 1, got 1.5"),
    ({"momentum": np.nan}, ValueError, "momentum must be finite"),
    ({"eps": -1e-5}, ValueError, "eps must be >= 0"),
]


@pytest.mark.parametrize(("change", "error", "message"), ERRORS)
def test_errors(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {
        "x": X,
        "running_mean": ONES.copy(),
        "running_var": ONES.copy(),
    }
    with pytest.raises(error, match=f"batch_norm: {message}"):
        F.batch_norm(**{**arguments, **change})


@pytest.mark.parametrize(
    ("x", "count"),
    [
        (np.ones((1, 3), np.float32), 1),
        (np.ones((1, 3, 1, 1), np.float32), 1),
        (np.ones((0, 3, 4), np.float32), 0),
    ],
)
def test_training_needs_two_values_per_channel(x: Any, count: int) -> None:
    mean, var = np.full(3, 5, np.float32), np.full(3, 7, np.float32)
    message = f"batch_norm: training needs more than one value per channel, got {count}"
    with pytest.raises(ValueError, match=message):
        F.batch_norm(x, mean, var, training=True)
    np.testing.assert_array_equal(mean, 5)
    np.testing.assert_array_equal(var, 7)


def test_failed_training_leaves_the_statistics() -> None:
    """A later argument is wrong: nothing may have been updated by then."""
    mean, var = np.full(3, 5, np.float32), np.full(3, 7, np.float32)
    with pytest.raises(ValueError, match="bias must have shape"):
        F.batch_norm(X, mean, var, ONES, ONES[:2], training=True)
    var.flags.writeable = False
    with pytest.raises(ValueError, match="running_var must be a writeable array"):
        F.batch_norm(X, mean, var, training=True)
    np.testing.assert_array_equal(mean, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad_output": X[:1]}, r"grad_output must have the shape of x \(2, 3, 4\)"),
        ({"weight": ONES[:2]}, r"weight must have shape \(3,\)"),
        ({"needs": ("x", "y")}, "needs must be names from"),
        ({"training": False}, "running_mean must be given"),
        ({"x": X[:1, :, :1], "grad_output": X[:1, :, :1]}, "more than one value"),
    ],
)
def test_backward_errors(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "grad_output": X,
        "x": X,
        "running_mean": None,
        "running_var": None,
        "training": True,
    }
    with pytest.raises(ValueError, match=f"batch_norm_backward: .*{message}"):
        F.batch_norm_backward(**{**arguments, **change})
