"""Convolutions with fewer weights: counts that are published, tables, errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import nn, optim
from tests import oracle

F64: dict[str, Any] = {"dtype": np.float64}


@pytest.mark.parametrize(
    ("second", "count"),
    [
        (nn.SharedDepthwiseConv2d(20, 50, 5, bias=False), 1430),
        (nn.SharedKernelConv2d(20, 50, 5, bias=False), 1430),
        (nn.Conv2d(20, 50, 5, bias=False), 25180),
        (nn.SeparableConv2d(20, 50, 5, bias=False), 9 * 20 + 25 * 20 + 20 * 50),
    ],
    ids=lambda value: type(value).__name__,
)
def test_published_counts(second: nn.Layer, count: int) -> None:
    first = nn.Conv2d(1, 20, 3, bias=False)
    assert nn.Sequential(first, second).parameter_count() == count


def test_counts_count_each_scalar_once() -> None:
    layer = nn.Linear(3, 2)
    assert nn.Sequential(layer, nn.ReLU(), layer).parameter_count() == 8
    assert nn.Sequential(nn.BatchNorm2d(5), nn.Flatten()).parameter_count() == 10
    masked = nn.MaskedConv2d(6, 16, 5, connections=nn.lenet5_connections())
    assert nn.Sequential(masked).parameter_count() == 1516


def test_the_table_of_lenet() -> None:
    table = nn.lenet5_connections()
    assert [int(row.sum()) for row in table] == [3] * 6 + [4] * 9 + [6]
    np.testing.assert_array_equal(np.flatnonzero(table[5]), [0, 1, 5])
    np.testing.assert_array_equal(np.flatnonzero(table[12]), [0, 1, 3, 4])


@pytest.mark.parametrize(
    "optimiser",
    [
        lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
        lambda p: optim.Adam(p, 0.1),
    ],
)
def test_masked_weights_stay_0(optimiser: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(0)
    layer = nn.MaskedConv2d(6, 16, 5, connections=nn.lenet5_connections())
    apart = layer.connections == 0
    assert (layer.weight.value[apart] == 0).all()
    assert (layer.weight.value[~apart] != 0).all()
    step = optimiser(layer.parameters())
    x = oracle.normal(rng, (2, 6, 7, 7))
    before = layer.weight.value.copy()
    for _ in range(3):
        step.zero_grad()
        y, backward = layer.forward(x)
        backward(y)
        assert layer.weight.grad is not None
        assert (layer.weight.grad[apart] == 0).all()
        step.step()
    assert (layer.weight.value[apart] == 0).all()
    assert (layer.weight.value[~apart] != before[~apart]).all()
    layer.reset_parameters(1)
    assert (layer.weight.value[apart] == 0).all()


def test_what_is_written_where_nothing_is_connected_has_no_effect() -> None:
    layer = nn.MaskedConv1d(2, 1, 1, connections=np.array([[True, False]]))
    x = np.array([[[1.0], [np.inf]]], np.float32)
    layer.weight.value = np.array([[[2.0], [np.nan]]], np.float32)
    assert np.isnan(layer(x)).all()  # 0 times infinity
    x[0, 1] = 3
    assert layer(x).item() == 2
    assert nn.Sequential(layer, nn.ReLU())(-x).item() == 0


def test_inference_sees_a_table_that_changes() -> None:
    """Packed weights are kept only for the table that they were packed with."""
    rng = np.random.default_rng(0)
    x = oracle.normal(rng, (2, 32, 9, 9))
    table = np.ones((40, 32), bool)
    layer = nn.MaskedConv2d(32, 40, 3, connections=table, padding_mode="reflect", rng=0)
    layer.padding = 1
    for row in (3, 7, 11):
        layer.connections[row] = 0
        y = layer(x)
        oracle.assert_bits_equal(y, layer(x))
        seen = layer.weight.value * layer.connections[..., None, None].astype(
            np.float32
        )
        bias = layer.bias and layer.bias.value
        again = F.conv2d(x, seen, bias, padding=1, padding_mode="reflect")
        np.testing.assert_allclose(y, again, rtol=0, atol=1e-4)
        assert (y[:, row] == 0).all()


def test_unbatched() -> None:
    x = oracle.integers(np.random.default_rng(0), (4, 6, 6), np.float64, terms=50)
    for make in (nn.SharedDepthwiseConv2d, nn.SharedKernelConv2d, nn.SeparableConv2d):
        layer = make(4, 3, 3, **F64)
        y, backward = layer.forward(x)
        oracle.assert_bits_equal(y, layer(x[None])[0])
        assert backward(np.ones_like(y)).shape == x.shape


def test_shared_kernels_are_equal_planes() -> None:
    rng = np.random.default_rng(0)
    x = oracle.integers(rng, (2, 5, 7, 7), np.float64, terms=45)
    layer = nn.SharedKernelConv2d(5, 3, 3, bias=False, **F64)
    layer.weight.value = oracle.integers(rng, (3, 1, 3, 3), np.float64, terms=45)
    full = np.repeat(layer.weight.value, 5, axis=1)
    y, backward = layer.forward(x)
    oracle.assert_exact(y, F.conv2d(x, full))
    grad_x, grad_weight, _ = F.conv2d_backward(y, x, full)
    assert grad_x is not None
    assert grad_weight is not None
    oracle.assert_exact(backward(y), grad_x)
    assert layer.weight.grad is not None
    oracle.assert_exact(layer.weight.grad, grad_weight.sum(axis=1, keepdims=True))


REMEDIES: tuple[dict[str, Any], ...] = (
    *({"padding_mode": mode} for mode in ("reflect", "symmetric", "circular")),
    {"padding_mode": "constant", "padding_value": 2.0},
    {"border": "renormalise"},
)


@pytest.mark.parametrize("remedy", REMEDIES, ids=str)
@pytest.mark.parametrize(
    ("make", "groups"),
    [
        (lambda **how: nn.Conv2d(4, 4, 3, 1, 2, **how), 1),
        (
            lambda **how: nn.MaskedConv2d(
                4, 4, 3, 1, 2, connections=np.eye(4, dtype=bool), **how
            ),
            1,
        ),
        (lambda **how: nn.SharedDepthwiseConv2d(4, 4, 3, 1, 2, **how), 4),
        (lambda **how: nn.SharedKernelConv2d(4, 4, 3, 1, 2, **how), 1),
        (lambda **how: nn.SeparableConv2d(4, 4, 3, 1, 2, **how), 4),
    ],
    ids=["Conv", "Masked", "SharedDepthwise", "SharedKernel", "Separable"],
)
def test_every_remedy_is_an_argument(
    make: Any, groups: int, remedy: dict[str, Any]
) -> None:
    """Layers are `conv2d` with the weights that they share."""
    rng = np.random.default_rng(0)
    x = oracle.integers(rng, (2, 4, 5, 6), np.float64, terms=400)
    layer = make(**remedy, **F64)
    first = getattr(layer, "depthwise", layer)
    seen = oracle.integers(rng, first.weight.value.shape, np.float64, terms=400)
    first.weight.value = seen
    if isinstance(layer, nn.MaskedConv2d):
        seen = layer._masked(seen)
    elif isinstance(layer, nn.SharedDepthwiseConv2d):
        seen = np.tile(seen, (4, 1, 1, 1))
    elif isinstance(layer, nn.SharedKernelConv2d):
        seen = np.repeat(seen, 4, axis=1)
    how = {"padding": 2, "groups": groups, **remedy}
    y, backward = first.forward(x)
    np.testing.assert_allclose(y, F.conv2d(x, seen, **how), rtol=1e-12, atol=1e-9)
    oracle.assert_bits_equal(first(x), y)
    grad_x, _, _ = F.conv2d_backward(y, x, seen, **how)
    np.testing.assert_allclose(backward(y), grad_x, rtol=1e-12, atol=1e-9)
    told = next(iter(remedy)) + "="
    assert told in repr(layer)
    # In a chain the activation comes by itself where a remedy has none.
    rectified = nn.Sequential(first, nn.ReLU())(x)
    oracle.assert_bits_equal(rectified, np.maximum(y, 0))


@pytest.mark.parametrize(
    "make", [nn.Conv2d, nn.MaskedConv2d, nn.SharedKernelConv2d, nn.SeparableConv2d]
)
def test_errors_of_remedies(make: Any) -> None:
    table = {"connections": np.ones((4, 4), bool)} if make is nn.MaskedConv2d else {}
    for how, message in (
        ({"border": "scale"}, 'border must be "renormalise" or None'),
        ({"border": "renormalise", "padding_mode": "reflect"}, "needs padding_mode"),
        ({"padding_mode": "mirror"}, "padding_mode must be one of"),
        ({"padding_value": 1.0}, 'padding_value needs padding_mode "constant"'),
    ):
        with pytest.raises(ValueError, match=message):
            make(4, 4, 3, padding=1, **how, **table)


def test_a_batch_norm_stays_behind_a_renormalised_border() -> None:
    """Where a window sees nothing at all, the layer gives 0 and no bias."""
    chain = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=4, border="renormalise"), nn.BatchNorm2d(3)
    )
    x = np.ones((2, 2, 5, 5), np.float32)
    chain.forward(x)
    oracle.assert_bits_equal(nn.fold_batch_norm(chain)(x), chain(x))


X = np.ones((2, 3, 6, 6), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: nn.SharedKernelConv2d(4, 2, 3)(X),
            ValueError,
            r"SharedKernelConv2d: x must have 4 channels, got shape \(2, 3, 6, 6\)",
        ),
        (
            lambda: nn.SharedDepthwiseConv2d(4, 2, 3)(X[0, 0]),
            ValueError,
            "x must have 4 ax",
        ),
        (lambda: nn.SharedDepthwiseConv2d(4, 0, 3), ValueError, "filters must be >= 1"),
        (
            lambda: nn.SeparableConv2d(4, 2, 3, depth_multiplier=0),
            ValueError,
            "depth_mult",
        ),
        (
            lambda: nn.MaskedConv2d(4, 2, 3, connections=np.ones((2, 3), bool)),
            ValueError,
            r"connections must have shape \(2, 4\)",
        ),
        (
            lambda: nn.MaskedConv2d(4, 2, 3, connections=np.ones((2, 4))),
            TypeError,
            "connections must be an array of bool, got float64",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
