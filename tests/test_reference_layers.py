"""The reference of the other layers is judged by what does not know it."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.signal
import scipy.special

from convcore import reference as ref
from tests.oracle import (
    DTYPES,
    Array,
    assert_bits_equal,
    assert_exact,
    convolved,
    finite_difference_check,
    gradients_check,
    integers,
    normal,
)

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


# Other normalisations --------------------------------------------------------------


def test_rows_by_hand() -> None:
    x = np.array([[1.0, 3, 5, 5]])
    assert_exact(ref.layer_norm(x[:, :2], 1, eps=0.0), np.array([[-1.0, 1]]))
    weight, bias = np.array([2.0, 3]), np.array([10.0, 20])
    y = ref.layer_norm(x[:, :2], 1, weight, bias, eps=0.0)
    assert_exact(y, np.array([[8.0, 23]]))
    grouped = ref.group_norm(x, 2, eps=1.0)
    root = np.sqrt(2.0)
    np.testing.assert_allclose(grouped, [[-1 / root, 1 / root, 0, 0]])
    halves = ref.layer_norm(np.array([[3.0, 4]]), 1, eps=0.0, centred=False)
    np.testing.assert_allclose(halves, np.array([[3, 4]]) / np.sqrt(12.5))


def test_local_response_by_hand() -> None:
    x = np.array([[1.0, 2, 3]])
    y = ref.local_response_norm(x, 2, alpha=2.0, beta=1.0, k=1.0)
    assert_exact(y, np.array([[1 / 2, 2 / 6, 3 / 14]]))
    y = ref.local_response_norm(x, 3, alpha=3.0, beta=1.0, k=1.0)
    assert_exact(y, np.array([[1 / 6, 2 / 15, 3 / 14]]))


def test_norm_gradients_are_slopes() -> None:
    rng = np.random.default_rng(0)
    x, grad_y = (normal(rng, (3, 6, 4), np.float64) for _ in range(2))
    weight, bias = normal(rng, (2, 6), np.float64)
    for groups in (1, 2, 6):
        gradients_check(
            lambda x, w, b, groups=groups: ref.group_norm(x, groups, w, b),
            [x, weight, bias],
            ref.group_norm_backward(grad_y, x, groups, weight),
            grad_y,
            rng,
        )
    lines = normal(rng, (2, 6, 4), np.float64)
    for centred in (True, False):
        gradients_check(
            lambda x, w, b, c=centred: ref.layer_norm(x, 2, w, b, 1e-5, c),
            [x, *lines],
            ref.layer_norm_backward(grad_y, x, 2, lines[0], 1e-5, centred),
            grad_y,
            rng,
        )
    for size in (1, 4, 5):
        how = size, 0.5, 0.75, 2.0
        gradients_check(
            lambda x, how=how: ref.local_response_norm(x, *how),
            [x],
            [ref.local_response_norm_backward(grad_y, x, *how)],
            grad_y,
            rng,
        )
