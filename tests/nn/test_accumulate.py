"""Learning without a gradient of the input."""

import numpy as np
import pytest

from convcore import nn
from convcore.nn.weights import WeightBackward


def test_only_the_first_layer_of_a_chain_does_without_the_gradient_of_x(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4, 2))
    calls: list[tuple[str, ...]] = []
    plain = WeightBackward.__init__

    def spied(self, layer, gradients):  # type: ignore[no-untyped-def]
        def noted(grad, needs):  # type: ignore[no-untyped-def]
            calls.append(needs)
            return gradients(grad, needs)

        plain(self, layer, noted)

    monkeypatch.setattr(WeightBackward, "__init__", spied)
    y, backward = model.forward(np.ones((5, 3), np.float32))
    nn.accumulate(backward, np.ones_like(y))
    assert calls == [("x", "weight", "bias"), ("weight", "bias")]


def test_an_empty_chain_learns_nothing() -> None:
    y, backward = nn.Sequential().forward(np.ones(3))
    assert nn.accumulate(backward, y) is None


def test_any_callable_is_a_backward_pass() -> None:
    seen = []
    nn.accumulate(lambda grad: seen.append(grad) or grad, np.ones(2))
    assert len(seen) == 1
