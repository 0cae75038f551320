"""Loss layers against their functions, and training with them."""

from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import nn
from tests import oracle

RNG = np.random.default_rng(0)
X = oracle.normal(RNG, (4, 3), np.float64)
CLASSES = np.array([0, 2, 1, 2])
WEIGHT = np.array([1.0, 2.0, 0.5])
LOSSES: list[tuple[Any, Any, Any]] = [
    (nn.CrossEntropyLoss(), F.cross_entropy, ()),
    (
        nn.CrossEntropyLoss(WEIGHT, 2, "sum", 0.1),
        F.cross_entropy,
        (WEIGHT, 2, "sum", 0.1),
    ),
    (nn.MSELoss(), F.mse_loss, ()),
    (nn.MSELoss("sum"), F.mse_loss, ("sum",)),
]


@pytest.mark.parametrize(("layer", "function", "options"), LOSSES)
def test_as_the_function(layer: Any, function: Any, options: Any) -> None:
    target = CLASSES if function is F.cross_entropy else X[::-1].copy()
    right = function(X, target, *options)
    loss, backward = layer.forward(X, target)
    assert loss == right
    assert layer(X, target) == right
    one = np.float64(1)
    for grad, factor in ((backward(), one), (backward(-2.0), np.float64(-2))):
        oracle.gradients_check(
            lambda x: function(x, target, *options),
            [X],
            [grad],
            factor,
            np.random.default_rng(1),
        )


@pytest.mark.parametrize("layer", [nn.CrossEntropyLoss, nn.MSELoss])
def test_none_keeps_the_shape(layer: Any) -> None:
    target = CLASSES if layer is nn.CrossEntropyLoss else X + 1
    loss, backward = layer(reduction="none").forward(X, target)
    assert loss.shape == np.shape(target)
    assert backward(np.ones(loss.shape)).shape == X.shape


def test_repr_shows_the_arguments() -> None:
    assert repr(nn.MSELoss("sum")) == "MSELoss(reduction='sum')"
    assert repr(nn.CrossEntropyLoss()) == "CrossEntropyLoss()"
    shown = repr(nn.CrossEntropyLoss(WEIGHT, 2, "sum", 0.1))
    assert shown == (
        "CrossEntropyLoss(weight=(3,), ignore_index=2, reduction='sum', "
        "label_smoothing=0.1)"
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.CrossEntropyLoss(reduction="max"), ValueError, "reduction must be"),
        (lambda: nn.MSELoss("max"), ValueError, "MSELoss: reduction must be"),
        (
            lambda: nn.CrossEntropyLoss(label_smoothing=2),
            ValueError,
            "CrossEntropyLoss: label_smoothing must be <= 1",
        ),
        (
            lambda: nn.CrossEntropyLoss([1.0, 2.0]),
            TypeError,
            "Loss: weight must be a Num",
        ),
    ],
)
def test_wrong_arguments_are_found_by_the_constructor(
    make: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_network_learns_with_a_loss() -> None:
    """Plain gradient steps by hand: forward, backward, step."""
    x = oracle.normal(np.random.default_rng(0), (60, 2), np.float64)
    target = (x[:, 0] * x[:, 1] > 0).astype(int)
    model = nn.Sequential(
        nn.Linear(2, 16, dtype=np.float64),
        nn.ReLU(),
        nn.Linear(16, 2, dtype=np.float64),
        rng=1,
    )
    criterion = nn.CrossEntropyLoss()
    first = criterion(model(x), target)
    for _ in range(300):
        model.zero_grad()
        scores, backward = model.forward(x)
        _, loss_backward = criterion.forward(scores, target)
        backward(loss_backward())
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.value -= 0.5 * parameter.grad
    assert criterion(model(x), target) < 0.2 * first
    assert (model(x).argmax(axis=1) == target).mean() > 0.95
