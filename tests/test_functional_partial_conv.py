"""Partial convolution: values, masks, gradients, errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convcore import functional as F
from convcore import nn, reference
from convcore.functional._border import around, border_scale
from convcore.problem import ConvProblem
from tests import oracle, strategies


def function(ndim: int, suffix: str = "") -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(F, f"partial_conv{ndim}d{suffix}")
    return found


def mask_of(problem: ConvProblem, kind: str, rng: Any, dtype: Any) -> Any:
    """No mask, one for all, for each sample, or for each channel."""
    if kind == "none":
        return None
    n, channels, *space = problem.x_shape
    shape = {"all": (1, 1), "samples": (n, 1), "channels": (n, channels)}[kind]
    return (rng.random((*shape, *space)) < 0.6).astype(dtype)


@given(
    call=strategies.conv_calls(),
    kind=st.sampled_from(["none", "all", "samples", "channels"]),
    rng=strategies.generators(),
)
@settings(max_examples=60)
def test_values_and_gradients(call: strategies.Call, kind: str, rng: Any) -> None:
    """Integers in float64: all that rounds is the quotient, and what is made of it."""
    problem, how = call.problem, call.keywords
    data = oracle.operands(problem, rng, np.float64)
    mask = mask_of(problem, kind, rng, rng.choice([bool, np.float64]))
    full = None if mask is None else np.broadcast_to(mask, problem.x_shape)
    how = {
        k: v for k, v in how.items() if k in ("stride", "padding", "dilation", "groups")
    }
    y = function(call.ndim)(data.x, data.w, data.b, **how, mask=mask)
    right, real = reference.partial_conv(problem, data.x, data.w, data.b, full)
    if mask is not None:
        y, new = y
        assert new.dtype == mask.dtype
        np.testing.assert_array_equal(np.broadcast_to(new, y.shape) != 0, real)
    np.testing.assert_allclose(y, right, rtol=1e-14, atol=1e-9)
    assert (y[~real] == 0).all()
    back = function(call.ndim, "_backward")
    grads = back(data.grad_y, data.x, data.w, **how, mask=mask)
    rights = reference.partial_conv_backward(problem, data.grad_y, data.x, data.w, full)
    for grad, expected in zip(grads, rights, strict=True):
        np.testing.assert_allclose(grad, expected, rtol=1e-13, atol=1e-8)


def test_even_pictures_stay_even() -> None:
    """Taps that are halves and quarters of all: exact at every border."""
    x, weight = np.ones((2, 3, 6, 7), np.float32), np.ones((4, 3, 2, 4), np.float32)
    y = F.partial_conv2d(x, weight, np.full(4, 0.5, np.float32), padding="full")
    np.testing.assert_array_equal(y[:, :, :, [0, 1, 3, 4, 6, 8, 9]], np.float32(24.5))


def test_interior_is_the_convolution() -> None:
    rng = np.random.default_rng(0)
    x, weight = (
        oracle.integers(rng, (2, 3, 9, 9), terms=27),
        np.ones((4, 3, 3, 3), "f4"),
    )
    y, plain = F.partial_conv2d(x, weight, padding=1), F.conv2d(x, weight, padding=1)
    oracle.assert_exact(y[:, :, 1:-1, 1:-1], plain[:, :, 1:-1, 1:-1])
    oracle.assert_exact(y[:, :, 0, 0], plain[:, :, 0, 0] * np.float32(9 / 4))


def test_adjoint_exactly() -> None:
    """With ratios that are exact: two of two or one of two taps."""
    rng = np.random.default_rng(0)
    x, g = oracle.integers(rng, (2, 3, 8), np.float64, terms=99), np.ones((2, 4, 9)) * 3
    w = oracle.integers(rng, (4, 3, 2), np.float64, terms=99)
    for mask in (None, rng.random((2, 1, 8)) < 0.5):
        y = F.partial_conv1d(x, w, padding=1, mask=mask)
        y = y if mask is None else y[0]
        grads = F.partial_conv1d_backward(g, x, w, padding=1, mask=mask)
        assert grads[0] is not None
        assert grads[1] is not None
        oracle.exactly_equal(y * g, grads[0] * x, grads[1] * w)


def test_what_is_hidden_is_never_seen() -> None:
    x, mask = np.ones((1, 2, 6, 6)), np.ones((1, 1, 6, 6), bool)
    x[0, :, 2, 2] = np.nan
    mask[0, 0, 2, 2] = False
    weight = np.ones((1, 2, 3, 3))
    y, new = F.partial_conv2d(x, weight, mask=mask)
    np.testing.assert_array_equal(y, np.full((1, 1, 4, 4), 18.0))
    assert new.all()
    grads = F.partial_conv2d_backward(y, x, weight, mask=mask)
    assert all(grad is not None and np.isfinite(grad).all() for grad in grads)
    assert grads[0] is not None
    assert (grads[0][0, :, 2, 2] == 0).all()


def test_windows_over_nothing_are_0_without_a_bias() -> None:
    x, weight = np.ones((1, 1, 2)), np.full((1, 1, 1), np.inf)
    y = F.partial_conv1d(x, weight, np.ones(1), padding=2)
    np.testing.assert_array_equal(y, [[[0, 0, np.inf, np.inf, 0, 0]]])
    grads = F.partial_conv1d_backward(np.ones_like(y), x, weight, padding=2)
    np.testing.assert_array_equal(grads[2], [2.0])


def test_the_ratio_is_kept() -> None:
    problem = ConvProblem.conv("test", (1, 1, 9, 8), (1, 1, 3, 3), padding=1)
    other = ConvProblem.conv("test", (5, 2, 9, 8), (7, 2, 3, 3), padding=1)
    scale = border_scale(problem, np.dtype(np.float32))
    assert border_scale(other, np.dtype(np.float32)) is scale
    assert scale.box == ((1, 8), (1, 7))
    assert not scale.holes
    assert scale.ratio.dtype == np.float32
    assert not scale.ratio.flags.writeable


@given(
    cuts=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 6)),
        min_size=1,
        max_size=3,
    )
)
def test_slabs_are_what_is_outside(cuts: list[tuple[int, int, int]]) -> None:
    extent = tuple(size for _, _, size in cuts)
    box = tuple((min(a, size), min(a + b, size)) for a, b, size in cuts)
    seen, right = np.zeros(extent, int), np.ones(extent, int)
    for slab in around(box, extent):
        seen[slab] += 1
    right[tuple(slice(a, b) for a, b in box)] = 0
    np.testing.assert_array_equal(seen, right)


def test_unbatched_out_and_layers() -> None:
    x, weight = np.ones((2, 5, 4)), np.ones((3, 2, 3, 3))
    out = np.empty((3, 5, 4))
    y, new = F.partial_conv2d(x, weight, padding=1, mask=np.ones((1, 5, 4)), out=out)
    assert y is out
    assert new.shape == (1, 5, 4)
    np.testing.assert_array_equal(out, np.full((3, 5, 4), 18.0))
    layer = nn.PartialConv2d(2, 3, 3, padding=1, dtype=np.float64)
    mask = np.zeros((5, 4))[None]
    mask[0, 2, 2] = 1
    (one, new), backward = layer.forward(x, mask)
    oracle.assert_bits_equal(one, layer(x, mask)[0])
    assert (backward(np.ones_like(one)) != 0).sum() == 2
    assert new.sum() == 9


X, W = np.ones((2, 3, 6, 6)), np.ones((4, 3, 3, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.partial_conv2d(X, W, mask=X[:, :2]),
            ValueError,
            "mask must have the",
        ),
        (lambda: F.partial_conv2d(X, W, mask=X[0]), ValueError, "mask must have the"),
        (
            lambda: F.partial_conv2d(X, W, mask=X.astype("f4")),
            TypeError,
            "mask must be of",
        ),
        (lambda: F.partial_conv2d(X, W, mask=[1]), TypeError, "mask must be a NumPy"),
        (
            lambda: F.partial_conv2d(X, W, np.ones(3)),
            ValueError,
            "bias must have shape",
        ),
        (lambda: F.partial_conv2d(X, W[:, :2]), ValueError, "partial_conv2d: weight"),
        (
            lambda: F.partial_conv2d_backward(X, X, W),
            ValueError,
            "partial_conv2d_backward: grad_output must have the result's",
        ),
        (
            lambda: F.partial_conv2d(X, W[:3], padding=1, mask=X, out=X),
            ValueError,
            "out must not overlap",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
