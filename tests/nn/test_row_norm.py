"""Layers that normalise each sample by itself."""

from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import nn
from tests import oracle


def test_names_are_those_of_torch() -> None:
    assert list(nn.LayerNorm((2, 3)).state_dict()) == ["weight", "bias"]
    assert list(nn.LayerNorm(3, bias=False).state_dict()) == ["weight"]
    assert list(nn.LayerNorm(3, elementwise_affine=False).state_dict()) == []
    assert list(nn.RMSNorm(3).state_dict()) == ["weight"]
    assert list(nn.GroupNorm(1, 3).state_dict()) == ["weight", "bias"]
    assert list(nn.InstanceNorm2d(3).state_dict()) == []
    layer = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
    assert list(layer.state_dict()) == [
        *("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    ]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.LayerNorm(5, elementwise_affine=False), (3, 5)),
        (nn.LayerNorm(5, bias=False, dtype=np.float64), (3, 5)),
        (nn.RMSNorm(5, 1e-3, elementwise_affine=False), (3, 5)),
        (nn.GroupNorm(2, 4, affine=False), (3, 4, 5)),
        (nn.InstanceNorm1d(4), (4, 5)),
        (nn.InstanceNorm2d(4), (4, 5, 3)),
        (
            nn.InstanceNorm3d(4, track_running_stats=True, dtype=np.float64),
            (2, 4, 5, 3, 2),
        ),
    ],
    ids=repr,
)
def test_without_some_parameters_or_a_batch(
    layer: nn.Layer, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    x, g = (oracle.normal(rng, shape, np.float64) for _ in range(2))
    _, backward = layer.forward(x)
    grad = backward(g)
    assert len(layer.parameters()) == (1 if "bias=False" in repr(layer) else 0)
    oracle.gradients_check(lambda x: layer.forward(x)[0], [x], [grad], g, rng)


def test_instance_norm_keeps_statistics() -> None:
    layer = nn.InstanceNorm1d(2, track_running_stats=True, dtype=np.float64)
    rng = np.random.default_rng(0)
    for _ in range(200):
        layer.forward(3 * oracle.normal(rng, (8, 2, 30), np.float64) + 2)
    np.testing.assert_allclose(layer.running_mean, 2, atol=0.5)
    np.testing.assert_allclose(layer.running_var, 9, atol=2)
    x = oracle.normal(rng, (3, 2, 7), np.float64)
    right = F.batch_norm(x, layer.running_mean, layer.running_var)
    oracle.assert_bits_equal(layer(x), right)
    layer.reset_parameters(0)
    np.testing.assert_array_equal(layer.running_mean, 0)
    np.testing.assert_array_equal(layer.running_var, 1)


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: nn.LayerNorm(0), ValueError, "LayerNorm: normalized_shape must be >= 1"),
    (lambda: nn.LayerNorm(3, bias=1), TypeError, "LayerNorm: bias must be a bool"),
    (lambda: nn.RMSNorm(3, -1.0), ValueError, "RMSNorm: eps must be >= 0"),
    (lambda: nn.GroupNorm(2, 3), ValueError, "GroupNorm: num_groups must divide"),
    (lambda: nn.GroupNorm(2, 4)(np.ones((2, 6))), ValueError, "4 channels"),
    (lambda: nn.InstanceNorm2d(2)(np.ones((2, 3))), ValueError, "must have 4 axes"),
    (lambda: nn.InstanceNorm1d(2)(np.ones((3, 3))), ValueError, "2 channels"),
    (lambda: nn.InstanceNorm1d(2, momentum=2.0), ValueError, "momentum must be <= 1"),
    (lambda: nn.LocalResponseNorm(0), ValueError, "LocalResponseNorm: size must"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
