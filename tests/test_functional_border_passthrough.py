"""Border pass-through: nothing is lost, gradients, errors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import nn, reference
from tests import oracle, strategies


@given(
    pairs=st.lists(
        st.tuples(st.integers(1, 7), st.integers(0, 7)), min_size=1, max_size=3
    ),
    leading=st.sampled_from([(2,), (3, 2), (0, 2)]),
    rng=strategies.generators(),
)
def test_exact(
    pairs: list[tuple[int, int]], leading: tuple[int, ...], rng: Any
) -> None:
    ndim = len(pairs)
    shape = (*leading, *(size for size, _ in pairs))
    inner_shape = (*leading, *(min(pair) for pair in pairs))
    x, inner, g = (oracle.distinct(rng, s) for s in (shape, inner_shape, shape))
    y = getattr(F, f"border_passthrough{ndim}d")(x, inner)
    oracle.assert_exact(y, reference.border_passthrough(x, inner))
    grads = getattr(F, f"border_passthrough{ndim}d_backward")(g, inner_shape)
    right = reference.border_passthrough_backward(g, inner_shape)
    for grad, expected in zip(grads, right, strict=True):
        oracle.assert_exact(grad, expected)
    total = (y * g).astype(np.float64).sum()
    assert total == (x * grads[0]).sum(dtype="f8") + (inner * grads[1]).sum(dtype="f8")


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (4, 1), (3, 2), (1, 1)])
def test_no_border_is_lost(kernel: int, dilation: int) -> None:
    rng = np.random.default_rng(0)
    layer = nn.BorderPassthrough2d(nn.Conv2d(3, 3, kernel, dilation=dilation))
    x = oracle.distinct(rng, (2, 3, 9, 10))
    y, lost = layer(x), (kernel - 1) * dilation
    lo, hi = lost // 2, lost - lost // 2
    inside = np.zeros((9, 10), bool)
    inside[lo : 9 - hi, lo : 10 - hi] = True
    oracle.assert_bits_equal(y[..., ~inside], x[..., ~inside])
    right = layer.layer(x)
    oracle.assert_bits_equal(y[:, :, lo : 9 - hi, lo : 10 - hi], right)
    same = F.conv2d(
        x, layer.layer.weight.value, padding="same", dilation=dilation, algorithm="gemm"
    )
    np.testing.assert_allclose(y[..., inside], same[..., inside], rtol=1e-3, atol=1e-3)


def test_the_layer_is_adjoint_exactly() -> None:
    rng = np.random.default_rng(0)
    conv = nn.Conv2d(2, 2, 3, bias=False, dtype=np.float64)
    conv.weight.value = oracle.integers(rng, (2, 2, 3, 3), np.float64, terms=99)
    layer = nn.BorderPassthrough2d(conv)
    x, g = (oracle.integers(rng, (3, 2, 6, 7), np.float64, terms=99) for _ in range(2))
    y, backward = layer.forward(x)
    oracle.exactly_equal(y * g, backward(g) * x)


def test_projections() -> None:
    x = np.ones((1, 2, 5), np.float32)
    layer = nn.BorderPassthrough1d(nn.Conv1d(2, 3, 3), rng=1)
    assert list(layer.state_dict()) == [
        "layer.weight",
        "layer.bias",
        "projection.weight",
    ]
    oracle.assert_bits_equal(layer(x)[..., 0], layer.projection(x)[..., 0])
    fixed = nn.Sequential(nn.ReLU())
    same = nn.BorderPassthrough1d(nn.Conv1d(2, 2, 3), fixed)
    assert same(-x)[0, 0, 0] == 0
    assert nn.BorderPassthrough1d(nn.Conv1d(2, 2, 3)).projection is None


X = np.ones((2, 3, 6, 6))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: nn.BorderPassthrough2d(nn.Conv2d(1, 1, 3, stride=2)),
            ValueError,
            "layer must have stride 1 and no padding, got stride 2, padding 0",
        ),
        (
            lambda: nn.BorderPassthrough2d(nn.Conv2d(1, 1, 3, padding="same")),
            ValueError,
            "got stride 1, padding 'same'",
        ),
        (
            lambda: nn.BorderPassthrough2d(nn.Conv1d(1, 1, 3)),
            TypeError,
            "layer must be a convolution over 2 axes, got Conv1d",
        ),
        (
            lambda: nn.BorderPassthrough2d(nn.ConvTranspose2d(1, 1, 3)),
            TypeError,
            "got ConvTranspose2d",
        ),
        (
            lambda: nn.BorderPassthrough2d(nn.Conv2d(1, 1, 3), 1),
            TypeError,
            "projection",
        ),
        (lambda: F.border_passthrough2d(X, X[:, :2]), ValueError, "inner must have"),
        (lambda: F.border_passthrough2d(X[..., 1:], X), ValueError, "inner must have"),
        (lambda: F.border_passthrough2d(X, X.astype("f4")), TypeError, "inner must"),
        (
            lambda: F.border_passthrough2d(X, X, out=X),
            ValueError,
            "out must not overlap",
        ),
        (lambda: F.border_passthrough1d(X, X), ValueError, "x must have 3 axes"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
