"""The activation that a convolution applies to its results."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import algorithms, nn, plan
from convcore import functional as F
from convcore.problem import ConvProblem
from tests import oracle, strategies
from tests.cases import CASES
from tests.conv_helpers import CONV


@given(strategies.conv_calls(), st.sampled_from(oracle.DTYPES), st.booleans())
def test_same_bits_as_relu_of_the_result(
    call: strategies.Call, dtype: Any, biased: bool
) -> None:
    rng = np.random.default_rng(0)
    x, w, b = (
        oracle.normal(rng, shape, dtype)
        for shape in (call.x_shape, call.weight_shape, call.weight_shape[:1])
    )
    conv = CONV[call.ndim]
    bias = b if biased else None
    y = conv(x, w, bias, **call.keywords, activation="relu")
    oracle.assert_bits_equal(y, F.relu(conv(x, w, bias, **call.keywords)))


@pytest.mark.parametrize("name", CASES)
def test_every_algorithm_rectifies_to_the_last_bit(name: str, isa: str) -> None:
    """Values that are not finite, and zeros of both signs, among the results."""
    problem = ConvProblem.parse(CASES[name])
    a = oracle.operands(problem, np.random.default_rng(0))
    a.b[::2] = -0.0
    a.b[1::3] = np.nan
    a.b[2::5] = -np.inf
    a.w[::4] = 0
    for card in algorithms.CONV:
        if "fprop" in card.kernels and card.accepts(problem.folded, "fprop").yes:
            conv = CONV[problem.ndim]
            how: dict[str, Any] = {
                "stride": problem.stride[3 - problem.ndim :],
                "padding": problem.padding[3 - problem.ndim :],
                "dilation": problem.dilation[3 - problem.ndim :],
                "groups": problem.g,
                "algorithm": card.name,
            }
            y = conv(a.x, a.w, a.b, activation="relu", **how)
            oracle.assert_bits_equal(y, F.relu(conv(a.x, a.w, a.b, **how)))


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        ("tanh", "conv2d: activation must be \"relu\" or None, got 'tanh'"),
        (True, 'conv2d: activation must be "relu" or None, got True'),
        (F.relu, 'conv2d: activation must be "relu" or None, got <function relu'),
    ],
)
def test_other_activations_are_refused(activation: Any, words: str) -> None:
    x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    with pytest.raises(ValueError, match=words):
        F.conv2d(x, w, activation=activation)


def test_only_the_forward_pass_has_an_activation() -> None:
    problem = ConvProblem.parse("n1g1ic3ih8oc4kh3relu")
    assert problem.relu
    assert ConvProblem.parse(str(problem)) == problem
    with pytest.raises(ValueError, match="only fprop has an activation"):
        plan.select(problem, "wgrad", "float32")


# Layers ----------------------------------------------------------------------------


class Halved(nn.Conv2d):
    """A convolution that a user changed."""

    def __call__(self, x: Any) -> Any:
        return 0.5 * super().__call__(x)


CHAINS: dict[str, Callable[[], list[nn.Layer]]] = {
    "one": lambda: [nn.Conv2d(3, 4, 3, rng=0), nn.ReLU()],
    "two": lambda: [
        nn.Conv2d(3, 4, 3, rng=0),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, rng=1),
        nn.ReLU(),
    ],
    "relu twice": lambda: [nn.Conv2d(3, 4, 3, rng=0), nn.ReLU(), nn.ReLU()],
    "no relu behind": lambda: [nn.ReLU(), nn.Conv2d(3, 4, 3, rng=0)],
    "transposed": lambda: [nn.ConvTranspose2d(3, 4, 3, rng=0), nn.ReLU()],
    "changed by a user": lambda: [Halved(3, 4, 3, rng=0), nn.ReLU()],
    "another between": lambda: [nn.Conv2d(3, 4, 3, rng=0), nn.Tanh(), nn.ReLU()],
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_fuses_and_keeps_the_bits(name: str) -> None:
    layers = CHAINS[name]()
    x = oracle.normal(np.random.default_rng(0), (2, 3, 9, 9))
    expected = x
    for layer in layers:
        expected = layer(expected)
    chain = nn.Sequential(*layers)
    oracle.assert_bits_equal(chain(x), expected)


def test_a_chain_runs_no_relu_behind_a_convolution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("a pass of its own")

    monkeypatch.setattr(F, "relu", never)
    chain = nn.Sequential(nn.Conv2d(1, 2, 3, rng=0), nn.ReLU())
    assert chain(np.ones((1, 1, 5, 5), np.float32)).min() >= 0
