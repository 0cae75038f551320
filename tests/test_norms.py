"""Layer, RMS, group, instance and local response normalisation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import reference
from tests import oracle, strategies
from tests.norm_helpers import Rows

dtypes = pytest.mark.parametrize("dtype", oracle.DTYPES)


def widened(*arrays: Any) -> list[Any]:
    return [a if a is None else a.astype(oracle.wider(a.dtype)) for a in arrays]


# Layer and RMS ---------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("affine", ["both", "weight", "bias", "none"])
@pytest.mark.parametrize("centred", [True, False])
@given(
    first=st.lists(st.integers(1, 4), max_size=2),
    last=st.lists(st.integers(1, 45), min_size=1, max_size=2),
    rng=strategies.generators(),
)
def test_rows_as_the_reference(
    centred: bool,
    affine: str,
    dtype: Any,
    first: list[int],
    last: list[int],
    rng: np.random.Generator,
) -> None:
    shape, eps = (*first, *last), 1e-3
    x = oracle.normal(rng, shape, dtype) + np.asarray(rng.integers(-3, 4), dtype)
    g = oracle.normal(rng, shape, dtype)
    weight = oracle.normal(rng, last, dtype) if affine in ("both", "weight") else None
    bias = oracle.normal(rng, last, dtype) if affine in ("both", "bias") else None
    if not centred:
        bias = None
    wide_x, wide_g, wide_weight, wide_bias = widened(x, g, weight, bias)
    axes = len(last)
    right = reference.layer_norm(wide_x, axes, wide_weight, wide_bias, eps, centred)
    right_grads = reference.layer_norm_backward(
        wide_g, wide_x, axes, wide_weight, eps, centred
    )
    grads: tuple[Any, ...]
    if centred:
        y = F.layer_norm(x, last, weight, bias, eps)
        grads = F.layer_norm_backward(g, x, last, weight, eps)
    else:
        y = F.rms_norm(x, tuple(last), weight, eps)
        grads = F.rms_norm_backward(g, x, last, weight, eps)
    over = tuple(range(x.ndim - axes, x.ndim))
    rows = Rows.of(x, over, eps, centred=centred)
    w = np.ones(1) if weight is None else wide_weight
    b = 0 if bias is None else wide_bias
    oracle.assert_within(y, right, rows.allowed(right, w, b), dtype)
    allowed, _, _ = rows.gradients_allowed(g, w)
    oracle.assert_within(grads[0], right_grads[0], allowed, dtype)
    check_sums(rows, g, grads[1:], right_grads[1:], tuple(range(x.ndim - axes)), dtype)


def check_sums(
    rows: Rows, g: Any, grads: Any, rights: Any, axes: tuple[int, ...], dtype: Any
) -> None:
    """Compare the gradients of weight and bias, sums over some axes."""
    size = np.abs(g) * (2 + np.abs(rows.h)) * (rows.u + 1e-13 * (1 + rows.far) ** 2)
    for grad, right, terms in zip(
        grads, rights, (size, rows.u * np.abs(g)), strict=False
    ):
        allowed = 4 * terms.sum(axis=axes).reshape(right.shape)
        oracle.assert_within(grad, right, allowed, dtype)


def test_rms_eps_is_that_of_the_dtype() -> None:
    for dtype in oracle.DTYPES:
        x = np.full((1, 4), 1e-9, dtype)
        eps = float(np.finfo(dtype).eps)
        oracle.assert_bits_equal(F.rms_norm(x, 4), F.rms_norm(x, 4, None, eps))


# Group and instance ----------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("affine", [True, False])
@given(
    groups=st.integers(1, 4),
    each=st.integers(1, 3),
    space=st.lists(st.integers(1, 9), max_size=3),
    batch=st.integers(1, 3),
    rng=strategies.generators(),
)
def test_groups_as_the_reference(
    affine: bool,
    dtype: Any,
    groups: int,
    each: int,
    space: list[int],
    batch: int,
    rng: np.random.Generator,
) -> None:
    shape, eps = (batch, groups * each, *space), 1e-3
    x, g = (oracle.normal(rng, shape, dtype) for _ in range(2))
    weight, bias = oracle.normal(rng, (2, shape[1]), dtype) if affine else (None, None)
    wide_x, wide_g, wide_weight, wide_bias = widened(x, g, weight, bias)
    right = reference.group_norm(wide_x, groups, wide_weight, wide_bias, eps)
    rights = reference.group_norm_backward(wide_g, wide_x, groups, wide_weight, eps)
    y = F.group_norm(x, groups, weight, bias, eps)
    grads = F.group_norm_backward(g, x, groups, weight, eps)
    split = x.reshape(batch, groups, each, -1)
    rows = Rows.of(split, (2, 3), eps)
    w = np.ones(1) if weight is None else wide_weight.reshape(groups, each, 1)
    b = 0 if bias is None else wide_bias.reshape(groups, each, 1)
    allowed = rows.allowed(right.reshape(split.shape), w, b).reshape(shape)
    oracle.assert_within(y, right, allowed, dtype)
    allowed, _, _ = rows.gradients_allowed(g.reshape(split.shape), w)
    oracle.assert_within(grads[0], rights[0], allowed.reshape(shape), dtype)
    check_sums(rows, g.reshape(split.shape), grads[1:], rights[1:], (0, 3), dtype)
    if each == 1 and space and np.prod(space) > 1:
        oracle.assert_bits_equal(
            F.instance_norm(x, None, None, weight, bias, eps=eps), y
        )
        same = F.instance_norm_backward(g, x, weight=weight, eps=eps)
        for one, other in zip(same, grads, strict=True):
            oracle.assert_bits_equal(one, other)


def test_instance_norm_with_running_statistics() -> None:
    rng = np.random.default_rng(0)
    x, g = (oracle.normal(rng, (4, 3, 5, 6), np.float64) for _ in range(2))
    mean, var = np.full(3, 5.0), np.full(3, 7.0)
    F.instance_norm(x, mean, var, momentum=0.25)
    means, variances = x.mean(axis=(2, 3)), x.var(axis=(2, 3), ddof=1)
    np.testing.assert_allclose(mean, 0.75 * 5 + 0.25 * means.mean(axis=0))
    np.testing.assert_allclose(var, 0.75 * 7 + 0.25 * variances.mean(axis=0))
    y = F.instance_norm(x, mean, var, use_input_stats=False)
    oracle.assert_bits_equal(y, F.batch_norm(x, mean, var))
    grads = F.instance_norm_backward(g, x, mean, var, use_input_stats=False)
    for one, other in zip(grads, F.batch_norm_backward(g, x, mean, var), strict=True):
        oracle.assert_bits_equal(one, other)


# Local response --------------------------------------------------------------------


@dtypes
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 70)),
    size=st.sampled_from([1, 2, 3, 4, 5, 8, 9, 40]),
    beta=st.sampled_from([0.75, 0.5, 1.0, 0.6, 0.0, 3.2]),
    rng=strategies.generators(),
)
def test_local_response_as_the_reference(
    dtype: Any,
    shape: tuple[int, ...],
    size: int,
    beta: float,
    rng: np.random.Generator,
) -> None:
    x, g = (oracle.normal(rng, shape, dtype) for _ in range(2))
    how = size, 0.7, beta, 1.5
    wide_x, wide_g = widened(x, g)
    right = reference.local_response_norm(wide_x, *how)
    # t: size + 4 roundings; the power: beta times those, and 4 beta + 6 of its own.
    steps = (min(size, shape[1]) + 8) * (beta + 1) + 8
    u = float(np.finfo(dtype).eps) / 2
    y = F.local_response_norm(x, *how)
    oracle.assert_within(y, right, steps * u * np.abs(right), dtype)
    grad = F.local_response_norm_backward(g, x, *how)
    expected = reference.local_response_norm_backward(wide_g, wide_x, *how)
    others = np.abs(wide_g) * np.abs(wide_x)
    sizes = np.abs(wide_g) + 1.4 * beta * np.abs(wide_x) * others.sum(
        axis=1, keepdims=True
    )
    oracle.assert_within(grad, expected, 2 * steps * u * sizes, dtype)


@dtypes
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.6])
@pytest.mark.parametrize("value", [np.inf, np.nan, 1e30, 1e-30])
def test_local_response_of_odd_values(
    value: float, beta: float, dtype: Any, isa: str
) -> None:
    """They reach the windows that hold them, and nothing else changes."""
    x = oracle.normal(np.random.default_rng(0), (2, 9, 50), dtype)
    plain = F.local_response_norm(x, 3, 0.5, beta)
    g = np.ones_like(x)
    plain_grad = F.local_response_norm_backward(g, x, 3, 0.5, beta)
    x[1, 4, 20] = value
    y = F.local_response_norm(x, 3, 0.5, beta)
    grad = F.local_response_norm_backward(g, x, 3, 0.5, beta)
    right = reference.local_response_norm(x, 3, 0.5, beta)
    np.testing.assert_allclose(y, right, rtol=1e-5)
    right = reference.local_response_norm_backward(g, x, 3, 0.5, beta)
    np.testing.assert_allclose(grad, right, rtol=1e-4, atol=1e-6)
    for actual, before, reach in ((y, plain, 1), (grad, plain_grad, 2)):
        near = slice(4 - reach, 5 + reach)
        actual[1, near, 20] = before[1, near, 20]
        oracle.assert_bits_equal(actual, before)


@dtypes
def test_powers_of_local_response(dtype: Any, isa: str) -> None:
    """t is k alone: right to 4 beta + 6 units of rounding, for t of all exponents."""
    rng = np.random.default_rng(3)
    x = np.ones((1, 2, 40), dtype)
    for exponent in (-100, -30, -1, 0, 1, 17, 100):
        for beta in (0.3, 0.6, 1.1, -0.4):
            k = float(dtype(np.ldexp(1 + rng.random(), exponent)))
            y = F.local_response_norm(x, 1, 0.0, beta, k)
            right = oracle.wider(dtype)(k) ** oracle.wider(dtype)(-beta)
            allowed = (4 * abs(beta) + 6) * float(np.finfo(dtype).eps) / 2
            assert abs(float(y[0, 0, 0] / right) - 1) <= allowed
            assert (y == y[0, 0, 0]).all()


@dtypes
@pytest.mark.parametrize("beta", [0.75, 0.6, 2.0])
@pytest.mark.parametrize("k", [0.0, 1e-42, -1.0])
def test_local_response_without_a_floor(k: float, beta: float, dtype: Any) -> None:
    """Where t may be 0, subnormal or negative, powers are taken as IEEE says."""
    x = np.array([[[0.0, 1.0, 2.0, 1e-22, -3.0] * 4] * 3], dtype)
    y = F.local_response_norm(x, 1, 1.0, beta, k)
    with np.errstate(all="ignore"):
        t = x.dtype.type(k) + x * x
        right = x * (t.astype(np.float64) ** -beta).astype(dtype)
    np.testing.assert_allclose(y, right, rtol=2e-6 if dtype is np.float32 else 1e-13)


# What all of them promise ----------------------------------------------------------

Function = Callable[..., Any]


def every_result(x: Any, g: Any) -> list[Any]:
    """Run all normalisations of (N, 8, ...), forward and backward."""
    c, last = x.shape[1], x.shape[-1:]
    w = np.linspace(-1, 2, c, dtype=x.dtype)
    v = np.linspace(1, 2, last[0], dtype=x.dtype)
    zeros, ones = np.zeros(c, x.dtype), np.ones(c, x.dtype)
    return [
        F.batch_norm(x, zeros, ones, w, w),
        F.batch_norm(x, None, None, w, w, training=True),
        *F.batch_norm_backward(g, x, None, None, w, training=True),
        *F.batch_norm_backward(g, x, zeros, ones, w),
        F.layer_norm(x, last, v, v),
        *F.layer_norm_backward(g, x, last, v),
        F.layer_norm(x, x.shape[1:]),
        *F.layer_norm_backward(g, x, x.shape[1:]),
        F.rms_norm(x, last, v),
        *F.rms_norm_backward(g, x, last, v),
        F.group_norm(x, 2, w, w),
        *F.group_norm_backward(g, x, 2, w),
        F.instance_norm(x, weight=w, bias=w),
        *F.instance_norm_backward(g, x, weight=w),
        F.local_response_norm(x, 5),
        F.local_response_norm_backward(g, x, 5),
    ]


SHAPES = [(5, 8, 33, 40), (40, 8, 300), (300, 8, 7, 5), (3, 8, 17000), (90, 8, 61)]


@dtypes
@pytest.mark.parametrize("shape", SHAPES)
def test_bits_do_not_depend_on_threads(
    shape: tuple[int, ...], dtype: Any, isa: str, team: Callable[[int], None]
) -> None:
    rng = np.random.default_rng(0)
    x, g = (oracle.normal(rng, shape, dtype) for _ in range(2))
    team(1)
    right = every_result(x, g)
    for count in (2, 3):
        team(count)
        for actual, expected in zip(every_result(x, g), right, strict=True):
            oracle.assert_bits_equal(actual, expected)


@dtypes
@pytest.mark.parametrize("shape", [(3, 8, 5, 7), (3, 8, 67)])
def test_nothing_outside_of_the_arrays_counts(
    shape: tuple[int, ...], dtype: Any, isa: str
) -> None:
    """NaN before and behind x and g change nothing, and outputs end where they end."""
    rng = np.random.default_rng(0)
    right = [oracle.normal(rng, shape, dtype) for _ in range(2)]
    inside = []
    for array in right:
        roomy = np.full(array.size + 128, np.nan, dtype)
        roomy[64:-64] = array.ravel()
        inside.append(roomy[64:-64].reshape(shape))
    for actual, expected in zip(
        every_result(*inside), every_result(*right), strict=True
    ):
        assert np.isfinite(actual).all()
        oracle.assert_bits_equal(actual, expected)
    forward: dict[str, Function] = {
        "batch": lambda x, **o: F.batch_norm(x, None, None, training=True, **o),
        "inference": lambda x, **o: F.batch_norm(x, *stored(x), **o),
        "layer": lambda x, **o: F.layer_norm(x, x.shape[-1:], **o),
        "rms": lambda x, **o: F.rms_norm(x, x.shape[-1:], **o),
        "group": lambda x, **o: F.group_norm(x, 4, **o),
        "instance": F.instance_norm,
        "local": lambda x, **o: F.local_response_norm(x, 5, **o),
        "back": lambda x, **o: F.local_response_norm_backward(x, x, 5, **o),
    }
    x = inside[0]
    for name, function in forward.items():
        room = np.full(x.size + 64, 7, dtype)
        out = room[32:-32].reshape(shape)
        assert function(x, out=out) is out
        oracle.assert_bits_equal(out, function(x), name)
        assert (room[:32] == 7).all()
        assert (room[-32:] == 7).all()
        with pytest.raises(ValueError, match="out must not overlap an input"):
            function(x, out=x)
        with pytest.raises(ValueError, match="out must have shape"):
            function(x, out=out[:1])


def stored(x: Any) -> tuple[Any, Any]:
    return np.zeros(x.shape[1], x.dtype), np.ones(x.shape[1], x.dtype)


@pytest.mark.parametrize("offset", [1e4, -1e6])
def test_a_large_mean_costs_no_digits(offset: float, isa: str) -> None:
    """Of rows: what float32 holds of the data is what the result is made of."""
    rng = np.random.default_rng(0)
    x = (oracle.normal(rng, (6, 8, 200)) + offset).astype(np.float32)
    x[0, 0, 0] = 0  # the value that sums are taken around is far from all others
    g = oracle.normal(rng, x.shape) + np.clip(x - np.float32(offset), -3, 3)
    exact, slopes = x.astype(np.float64), g.astype(np.float64)
    none = 0 * exact[0, :, 0]
    for y, right in (
        (F.layer_norm(x, 200), reference.layer_norm(exact, 1)),
        (F.group_norm(x, 2), reference.group_norm(exact, 2)),
        (F.instance_norm(x), reference.group_norm(exact, 8)),
        (
            F.batch_norm(x, None, None, training=True),
            reference.batch_norm(exact, none, none, training=True)[0],
        ),
        (
            F.layer_norm_backward(g, x, 200)[0],
            reference.layer_norm_backward(slopes, exact, 1)[0],
        ),
        (
            F.group_norm_backward(g, x, 2)[0],
            reference.group_norm_backward(slopes, exact, 2)[0],
        ),
        (
            F.batch_norm_backward(g, x, None, None, training=True)[0],
            reference.batch_norm_backward(slopes, exact, none, none, training=True)[0],
        ),
    ):
        np.testing.assert_allclose(y, right, rtol=1e-6, atol=2e-6)


def test_statistics_that_are_known_are_not_taken_again() -> None:
    rng = np.random.default_rng(0)
    x, g = (oracle.normal(rng, (4, 6, 5, 7), np.float64) for _ in range(2))

    def known(axes: tuple[int, ...], centred: bool = True) -> dict[str, Any]:
        mean = x.mean(axis=axes) if centred else 0
        kept = np.expand_dims(mean, axes) if centred else 0
        var = ((x - kept) ** 2).mean(axis=axes)
        rstd = {"rstd": 1 / np.sqrt(var + 1e-5)}
        return {"mean": mean, **rstd} if centred else rstd

    pairs: list[tuple[Any, Any]] = [
        (
            F.batch_norm_backward(g, x, None, None, training=True),
            F.batch_norm_backward(g, x, None, None, training=True, **known((0, 2, 3))),
        ),
        (F.layer_norm_backward(g, x, 7), F.layer_norm_backward(g, x, 7, **known((3,)))),
        (
            F.rms_norm_backward(g, x, 7, None, 1e-5),
            F.rms_norm_backward(g, x, 7, None, 1e-5, **known((3,), False)),
        ),
        (
            F.instance_norm_backward(g, x),
            F.instance_norm_backward(g, x, **known((2, 3))),
        ),
    ]
    for one, other in pairs:
        for actual, expected in zip(other, one, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)
    for wrong, error, message in (
        ({"mean": np.ones(6)}, TypeError, "rstd must be an array of float64"),
        ({"mean": np.ones(5), "rstd": np.ones(6)}, ValueError, "mean must have 6"),
        (
            {"mean": np.ones(6, "f4"), "rstd": np.ones(6)},
            TypeError,
            "mean must be an array of float64",
        ),
    ):
        with pytest.raises(error, match=f"batch_norm_backward: {message}"):
            F.batch_norm_backward(g, x, None, None, training=True, **wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(value: float, isa: str) -> None:
    x = oracle.normal(np.random.default_rng(0), (3, 6, 40))
    x[1, 2, 0] = value  # the value that sums are taken around
    for y, rows in (
        (F.layer_norm(x, 40), (1, slice(2, 3))),
        (F.rms_norm(x, 40), (1, slice(2, 3))),
        (F.group_norm(x, 2), (1, slice(0, 3))),
        (F.instance_norm(x), (1, slice(2, 3))),
    ):
        inside = np.zeros(x.shape, bool)
        inside[rows] = True
        assert np.isfinite(y[~inside]).all()
        assert np.isnan(y[1, 2, 0])


def test_empty_batches() -> None:
    x = np.empty((0, 6, 5), np.float32)
    for y in (
        F.batch_norm(x, *stored(x)),
        F.layer_norm(x, 5),
        F.rms_norm(x, 5),
        F.group_norm(x, 2),
        F.instance_norm(x),
        F.local_response_norm(x, 3),
    ):
        assert y.shape == x.shape
    for grads in (
        F.batch_norm_backward(x, x, *stored(x)),
        F.layer_norm_backward(x, x, 5),
        F.rms_norm_backward(x, x, 5),
        F.group_norm_backward(x, x, 2),
        F.instance_norm_backward(x, x),
    ):
        assert grads[0].shape == x.shape
        for grad in grads[1:]:
            assert (grad == 0).all()


X = np.ones((2, 6, 5), np.float32)
ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.layer_norm(X, 6), ValueError, "layer_norm: x must end with"),
    (lambda: F.layer_norm(X, ()), ValueError, "normalized_shape must have an axis"),
    (lambda: F.layer_norm(X, 5.0), TypeError, "normalized_shape must be an integer"),
    (
        lambda: F.layer_norm(X, 5, X[0, 0, :4]),
        ValueError,
        r"weight must have shape \(5,\)",
    ),
    (lambda: F.layer_norm(X, 5, eps=-1.0), ValueError, "eps must be >= 0"),
    (lambda: F.layer_norm(X, 5, np.ones(5)), TypeError, "weight must .* float32"),
    (lambda: F.rms_norm(X, [7, 6, 5, 5]), ValueError, "rms_norm: x must end with"),
    (lambda: F.rms_norm(X, 5, eps="a"), TypeError, "eps must be a real number"),
    (lambda: F.rms_norm_backward(X, X, 5, needs=("bias",)), ValueError, "needs must"),
    (lambda: F.group_norm(X, 4), ValueError, "num_groups must divide"),
    (lambda: F.group_norm(X, 0), ValueError, "num_groups must be >= 1"),
    (lambda: F.group_norm(X, True), TypeError, "num_groups must be an integer"),
    (lambda: F.group_norm(X[0, 0], 1), ValueError, r"x must have shape \(N, C\)"),
    (lambda: F.group_norm_backward(X[:1], X, 2), ValueError, "grad_output must have"),
    (lambda: F.instance_norm(X[..., 0]), ValueError, "x must have shape"),
    (lambda: F.instance_norm(X[..., :1]), ValueError, "at least 2 values"),
    (lambda: F.instance_norm(X, X[0, :, 0]), ValueError, "running_var must be given"),
    (lambda: F.instance_norm(X, use_input_stats=1), TypeError, "must be a bool"),
    (lambda: F.instance_norm(X, momentum=2.0), ValueError, "momentum must be <= 1"),
    (lambda: F.local_response_norm(X, 0), ValueError, "size must be >= 1"),
    (lambda: F.local_response_norm(X, 2**70), ValueError, "size must be <= 2"),
    (lambda: F.local_response_norm(X, 2.0), TypeError, "size must be an integer"),
    (lambda: F.local_response_norm(X, 2, np.nan), ValueError, "alpha must be finite"),
    (lambda: F.local_response_norm(X[0, 0], 2), ValueError, "x must have shape"),
    (lambda: F.local_response_norm_backward(X[1:], X, 2), ValueError, "grad_output"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
