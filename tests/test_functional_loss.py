"""Losses: values, gradients, weights, ignored targets, errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import reference
from tests import oracle, strategies

REDUCTIONS = ("mean", "sum", "none")


@st.composite
def cross_entropy_calls(draw: st.DrawFn) -> dict[str, Any]:
    """Shapes and options; the data follow from them."""
    return {
        "shape": (
            draw(st.integers(1, 5)),
            draw(st.integers(1, 7)),
            *draw(st.lists(st.integers(1, 4), max_size=2)),
        ),
        "weighted": draw(st.booleans()),
        "ignore_index": draw(st.sampled_from([-100, 0, 2])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "target_dtype": draw(st.sampled_from(["i8", "i4", "u1", ">i2"])),
    }


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@given(call=cross_entropy_calls(), rng=strategies.generators())
def test_cross_entropy_as_the_reference(
    dtype: Any, reduction: Any, call: dict[str, Any], rng: np.random.Generator
) -> None:
    shape, wide = call["shape"], oracle.wider(dtype)
    x = oracle.normal(rng, shape, dtype)
    target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    target = target.astype(call["target_dtype"])
    target.flat[0] = next(c for c in (0, 1) if c != call["ignore_index"]) % shape[1]
    weight = None
    if call["weighted"]:
        weight = (oracle.normal(rng, shape[1:2], dtype) ** 2 + 0.1).astype(dtype)
    if (target == call["ignore_index"]).all():  # one class, and that is ignored
        call["ignore_index"] = -100
    options = (call["ignore_index"], reduction, call["label_smoothing"])
    wide_weight = None if weight is None else weight.astype(wide)
    loss = F.cross_entropy(x, target, weight, *options)
    right = reference.cross_entropy(x.astype(wide), target, wide_weight, *options)
    u = 64 * float(np.finfo(dtype).eps)
    oracle.assert_within(loss, right, u * (1 + np.abs(right)), dtype)
    g = oracle.normal(rng, right.shape, dtype)
    grad = F.cross_entropy_backward(x, target, weight, *options, g)
    right = reference.cross_entropy_backward(
        x.astype(wide), target, wide_weight, *options, g.astype(wide)
    )
    allowed = u * (np.abs(g).max() * (1 + np.abs(right)))
    oracle.assert_within(grad, right, allowed, dtype)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 4, 3), (2, 4, 3, 2)])
def test_cross_entropy_gradient_is_the_slope(
    shape: tuple[int, ...], smoothing: float, reduction: Any
) -> None:
    rng = np.random.default_rng(0)
    x = oracle.normal(rng, shape, np.float64)
    target_shape = () if len(shape) == 1 else (shape[0], *shape[2:])
    target = np.asarray(rng.integers(0, 4, target_shape))
    if target.ndim:
        target[-1] = -100
    weight = np.array([0.5, 1.0, 2.0, 0.25])
    options = (weight, -100, reduction, smoothing)

    def forward(x: Any) -> Any:
        return F.cross_entropy(x, target, *options)

    g = oracle.normal(rng, np.shape(forward(x)), np.float64)
    grad = F.cross_entropy_backward(x, target, *options, g)
    oracle.gradients_check(forward, [x], [grad], g, rng)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("shape", [(5,), (3, 1), (4, 37), (2, 5, 3), (2, 700, 33)])
def test_cross_entropy_of_probabilities(
    shape: tuple[int, ...], dtype: Any, smoothing: float, reduction: Any, isa: str
) -> None:
    rng = np.random.default_rng(0)
    classes = shape[min(1, len(shape) - 1)]
    x = oracle.normal(rng, shape, dtype)
    truth = np.abs(oracle.normal(rng, shape, dtype))
    weight = np.abs(oracle.normal(rng, (classes,), dtype))
    options = (weight, -100, reduction, smoothing)
    batched = [a.reshape(1, *a.shape) if len(shape) == 1 else a for a in (x, truth)]
    wide = oracle.wider(dtype)
    arguments = [a.astype(wide) for a in batched]
    wides = (*arguments, weight.astype(wide), -100, reduction, smoothing)
    right = np.asarray(reference.cross_entropy(*wides))
    shape_of_loss = () if reduction != "none" else (*shape[:1], *shape[2:])
    if len(shape) == 1:
        right, shape_of_loss = right.reshape(()), ()
    loss = F.cross_entropy(x, truth, *options)
    assert np.shape(loss) == shape_of_loss
    u = 64 * float(np.finfo(dtype).eps) * (1 + classes / 16)
    oracle.assert_within(loss, right, u * (1 + np.abs(right)), dtype)
    g = oracle.normal(rng, shape_of_loss, dtype)
    grad = F.cross_entropy_backward(x, truth, *options, g)
    grad_wide = g.astype(wide).reshape(-1) if len(shape) == 1 else g.astype(wide)
    if reduction != "none":
        grad_wide = g.astype(wide)
    back = reference.cross_entropy_backward(*wides, grad_wide).reshape(shape)
    allowed = u * np.abs(g).max() * (1 + np.abs(back).max())
    oracle.assert_within(grad, back, float(allowed), dtype)
    if len(shape) > 1:
        own = x.copy()
        assert F.cross_entropy_backward(own, truth, *options, g, out=own) is own
        oracle.assert_bits_equal(own, grad)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_probabilities_of_one_class_are_that_class(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    x = oracle.normal(rng, (6, 5, 4), np.float64)
    target = rng.integers(0, 5, (6, 4))
    truth = np.zeros_like(x)
    np.put_along_axis(truth, target[:, None], 1.0, axis=1)
    one = F.cross_entropy(x, target, reduction="none", label_smoothing=smoothing)
    other = F.cross_entropy(x, truth, reduction="none", label_smoothing=smoothing)
    np.testing.assert_allclose(one, other, rtol=1e-14)
    back = [F.cross_entropy_backward(x, t, reduction="sum") for t in (target, truth)]
    np.testing.assert_allclose(*back, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("shape", [(70, 1003), (3, 21, 40, 57), (2, 900, 35)])
def test_large_cross_entropy(
    shape: tuple[int, ...], dtype: Any, team: Any, isa: str
) -> None:
    """Rows and columns of several pieces: threads, the batch, in place."""
    rng = np.random.default_rng(0)
    x = oracle.normal(rng, shape, dtype)
    target = rng.integers(-1, shape[1], (shape[0], *shape[2:]))
    options: dict[str, Any] = {"ignore_index": -1, "label_smoothing": 0.1}
    results = []
    for count in (1, 3):
        team(count)
        loss = F.cross_entropy(x, target, reduction="none", **options)
        grad = F.cross_entropy_backward(x, target, reduction="sum", **options)
        results.append((loss, grad))
    for one, two in zip(*results, strict=True):
        oracle.assert_bits_equal(one, two)
    loss, grad = results[0]
    alone = F.cross_entropy(x[1:2], target[1:2], reduction="none", **options)
    oracle.assert_bits_equal(alone, loss[1:2])
    F.cross_entropy_backward(x, target, reduction="sum", **options, out=x)
    oracle.assert_bits_equal(x, grad)


def test_cross_entropy_by_hand() -> None:
    x = np.log([[0.25, 0.75], [0.5, 0.5]])
    loss = F.cross_entropy(x, np.array([1, 0]), np.array([1.0, 3.0]))
    right = -(3 * np.log(0.75) + np.log(0.5)) / 4
    assert float(loss) == pytest.approx(right)


def test_ignored_positions_cost_nothing_whatever_they_hold() -> None:
    x = np.array([[1.0, 2.0], [np.nan, np.inf]], np.float32)
    target = np.array([0, -100])
    for smoothing in (0.0, 0.3):
        loss = F.cross_entropy(x, target, label_smoothing=smoothing)
        alone = F.cross_entropy(x[:1], target[:1], label_smoothing=smoothing)
        assert loss == alone
        grad = F.cross_entropy_backward(x, target, label_smoothing=smoothing)
        np.testing.assert_array_equal(grad[1], 0)
        assert (grad[0] != 0).all()


def test_the_mean_over_nothing_is_nan_but_its_gradient_0() -> None:
    x, target = np.zeros((2, 3)), np.full(2, -100)
    assert np.isnan(F.cross_entropy(x, target))
    np.testing.assert_array_equal(F.cross_entropy_backward(x, target), 0)
    assert np.isnan(F.cross_entropy(x[:0], target[:0]))
    assert F.cross_entropy_backward(x[:0], target[:0]).shape == (0, 3)
    assert F.cross_entropy(x, target, reduction="sum") == 0
    assert np.isnan(F.mse_loss(x[:0], x[:0]))


def test_impossible_classes() -> None:
    """A score of -inf costs only where it is the target's."""
    x = np.array([[0.0, -np.inf, 0.0]])
    assert float(F.cross_entropy(x, np.array([0]))) == pytest.approx(np.log(2))
    assert F.cross_entropy(x, np.array([1])) == np.inf
    assert F.cross_entropy(x, np.array([0]), label_smoothing=0.1) == np.inf
    np.testing.assert_allclose(
        F.cross_entropy_backward(x, np.array([0])), [[-0.5, 0, 0.5]]
    )


def test_large_scores() -> None:
    x = np.array([[1e30, 0.0], [-1e30, 0.0]], np.float32)
    assert F.cross_entropy(x, np.array([0, 1])) == 0
    assert F.cross_entropy(x, np.array([1, 0])) == np.float32(1e30)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@given(
    shape=st.lists(st.integers(1, 5), max_size=4).map(tuple),
    rng=strategies.generators(),
)
def test_mse_as_the_reference(
    dtype: Any, reduction: Any, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    wide = oracle.wider(dtype)
    x, target = (oracle.normal(rng, shape, dtype) for _ in range(2))
    wides = (x.astype(wide), target.astype(wide))
    u = 8 * float(np.finfo(dtype).eps)
    loss = F.mse_loss(x, target, reduction)
    right = reference.mse_loss(*wides, reduction)
    oracle.assert_within(loss, right, u * (np.abs(right) + 1e-6), dtype)
    g = oracle.normal(rng, right.shape, dtype)
    grad = F.mse_loss_backward(x, target, reduction, g)
    right = reference.mse_loss_backward(*wides, reduction, g.astype(wide))
    oracle.assert_within(grad, right, u * (np.abs(right) + 1e-6), dtype)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mse_gradient_is_the_slope(reduction: Any) -> None:
    rng = np.random.default_rng(0)
    x, target = (oracle.normal(rng, (3, 4), np.float64) for _ in range(2))

    def forward(x: Any) -> Any:
        return F.mse_loss(x, target, reduction)

    g = oracle.normal(rng, np.shape(forward(x)), np.float64)
    grad = F.mse_loss_backward(x, target, reduction, g)
    oracle.gradients_check(forward, [x], [grad], g, rng)


def test_squares_do_not_overflow_before_the_mean() -> None:
    x = np.full(4, 1e19, np.float32)
    assert F.mse_loss(x, np.zeros(4, np.float32)) == np.float32(1e38)


X, T = np.zeros((2, 3)), np.array([0, 2])
ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": np.zeros(())}, ValueError, r"x must have shape \(N, C\)"),
    ({"x": np.zeros((2, 0))}, ValueError, r"x must have shape .* C >= 1"),
    ({"target": T[:1]}, ValueError, r"target must have shape \(2,\).*got \(1,\)"),
    ({"target": T[:, None]}, ValueError, r"target must have shape \(2,\)"),
    ({"target": T.astype(float)}, TypeError, "target must hold integers.*float64"),
    ({"target": T.astype(bool)}, TypeError, "target must hold integers.*bool"),
    ({"target": np.ma.masked_equal(T, 2)}, TypeError, "target must not be a masked"),
    ({"target": np.array([0, 3])}, ValueError, r"target must lie in 0\.\.2 .*got 3"),
    ({"target": np.array([0, -1])}, ValueError, r"target must lie in 0\.\.2 .*got -1"),
    (
        {"target": np.array([0, 2**64 - 100], np.uint64)},
        ValueError,
        "target must lie in .* got 18446744073709551516",
    ),
    ({"weight": np.ones(2)}, ValueError, r"weight must have shape \(3,\)"),
    ({"weight": np.ones(3, np.float32)}, TypeError, "weight must .*float64"),
    ({"ignore_index": 1.0}, TypeError, "ignore_index must be an integer"),
    ({"reduction": "average"}, ValueError, 'reduction must be "mean", "sum" or "none"'),
    ({"reduction": None}, ValueError, "reduction must be"),
    ({"label_smoothing": 1.5}, ValueError, "label_smoothing must be <= 1"),
    ({"label_smoothing": -0.1}, ValueError, "label_smoothing must be >= 0"),
]


@pytest.mark.parametrize("count", [1, 2])
def test_many_classes_are_looked_at_first(
    count: int, team: Callable[[int], None]
) -> None:
    """Also by several threads; nothing is written where one of them is wrong."""
    team(count)
    x = np.zeros((1, 3, 40000), np.float32)
    target = np.arange(40000).reshape(1, -1) % 4
    target[target == 3] = -7
    weight = np.array([1.0, 0.0, 1.0], np.float32)
    loss = F.cross_entropy(x, target, ignore_index=-7)
    assert loss == pytest.approx(np.log(3))
    half = F.cross_entropy(x, target, weight, -7, label_smoothing=0.25)
    assert half == pytest.approx(np.log(3) * (0.75 + 0.25 * 30000 / 20000 * 2 / 3))
    out = np.full_like(x, 5)
    for wrong in (3, -1, -(2**63), 2**63 - 1):
        target[0, -2] = wrong
        with pytest.raises(ValueError, match=f"target must lie in 0..2 .*got {wrong}"):
            F.cross_entropy_backward(x, target, ignore_index=-7, out=out)
        with pytest.raises(ValueError, match="target must lie in 0..2"):
            F.cross_entropy(x, target, ignore_index=-7)
    assert (out == 5).all()
    own = np.zeros((2, 1))
    target = own.view(np.int64)[:, 0]
    with pytest.raises(ValueError, match="out must not overlap an input"):
        F.cross_entropy_backward(np.zeros((2, 1)), target, out=own)


@pytest.mark.parametrize("name", ["cross_entropy", "cross_entropy_backward"])
@pytest.mark.parametrize(("change", "error", "message"), ERRORS)
def test_cross_entropy_errors(
    name: str, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"{name}: {message}"):
        getattr(F, name)(**{"x": X, "target": T, **change})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.cross_entropy_backward(X, T, grad_output=np.ones(2)),
            TypeError,
            "cross_entropy_backward: grad_output must be a number",
        ),
        (
            lambda: F.cross_entropy_backward(X, T, grad_output=None),  # type: ignore[arg-type]
            TypeError,
            "cross_entropy_backward: grad_output must be a number, got None",
        ),
        (
            lambda: F.cross_entropy_backward(
                X, T, reduction="none", grad_output=np.ones(3)
            ),
            ValueError,
            r"grad_output must have the shape of the loss \(2,\), got \(3,\)",
        ),
        (
            lambda: F.mse_loss(X, X[:1]),
            ValueError,
            r"mse_loss: target must have the shape of x \(2, 3\), got \(1, 3\)",
        ),
        (
            lambda: F.mse_loss_backward(X, X, "none", 1.0),
            TypeError,
            "mse_loss_backward: grad_output must be",
        ),
        (
            lambda: F.mse_loss(X, X, "max"),  # type: ignore[arg-type]
            ValueError,
            "mse_loss: reduction must be",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
