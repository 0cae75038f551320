"""Optimisers that tests share, and steps of them."""

import numpy as np
import pytest

from convcore import nn, optim

FLOATS = (np.float32, np.float64)
OPTIMISERS = [
    pytest.param(optim.SGD, {"lr": 0.125}, id="sgd"),
    pytest.param(optim.SGD, {"lr": 0.125, "momentum": 0.5}, id="momentum"),
    pytest.param(
        optim.SGD,
        {"lr": 0.125, "momentum": 0.5, "nesterov": True, "weight_decay": 0.25},
        id="nesterov",
    ),
    pytest.param(optim.Adam, {"lr": 0.125}, id="adam"),
    pytest.param(
        optim.Adam,
        {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.01},
        id="adam-decay",
    ),
]


def parameter(values, dtype=np.float64):
    return nn.Parameter(np.array(values, dtype))


def take(optimiser, *gradients):
    """One step with these gradients, None where a parameter has none."""
    optimiser.zero_grad()
    for target, gradient in zip(optimiser.parameters, gradients, strict=True):
        if gradient is not None:
            target.add_grad(np.asarray(gradient, target.value.dtype))
    optimiser.step()


def everything(optimiser):
    """All that a step may change, as bytes."""
    arrays = [p.value for p in optimiser.parameters]
    return [a.tobytes() for a in [*arrays, *optimiser.state_dict().values()]]


def two_parameters():
    return [parameter([1.0, -2.0]), parameter([[3.0]])]
