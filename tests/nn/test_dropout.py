"""The Dropout layer: masks from its own source, none in inference."""

import copy

import numpy as np
import pytest

from convcore import nn
from tests import oracle


def test_every_pass_has_its_own_mask() -> None:
    layer, x = nn.Dropout(0.5, rng=0), np.ones((4, 50), np.float32)
    one, backward_one = layer.forward(x)
    two, backward_two = layer.forward(x)
    assert (one != two).any()
    oracle.assert_bits_equal(backward_two(x), two)
    oracle.assert_bits_equal(backward_one(x), one)


def test_masks_can_be_repeated() -> None:
    x = np.ones((4, 50), np.float32)
    one, two = nn.Dropout(0.5, rng=7), nn.Dropout(0.5, rng=7)
    oracle.assert_bits_equal(one.forward(x)[0], two.forward(x)[0])
    twin = copy.deepcopy(one)
    oracle.assert_bits_equal(twin.forward(x)[0], one.forward(x)[0])


def test_two_in_a_row_need_masks_of_their_own() -> None:
    """With one mask for both, the mean of ones came out as 2."""
    x = np.ones((100, 100), np.float32)
    with pytest.raises(TypeError, match="rng"):
        nn.Dropout(0.5)  # type: ignore[call-arg]
    draw = np.random.default_rng(0)
    model = nn.Sequential(nn.Dropout(0.5, rng=draw), nn.Dropout(0.5, rng=draw))
    y, _ = model.forward(x)
    # The elements are 4 with probability 1/4: a standard deviation of sqrt(3) / 100.
    assert abs(float(y.mean()) - 1) < 6 * 3**0.5 / 100


def test_inference_passes_everything_on() -> None:
    layer, x = nn.Dropout(1.0, rng=0), np.ones(3)
    assert layer(x) is x
    np.testing.assert_array_equal(layer.forward(x)[0], 0)
