"""BatchNorm layers: statistics, momentum, modes, ranks."""

from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import nn
from tests import oracle


def batch(*shape: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return 3 * oracle.normal(rng, shape, np.float64) + 2


def test_forward_learns_statistics_and_inference_uses_them() -> None:
    layer = nn.BatchNorm2d(3, dtype=np.float64)
    for seed in range(200):
        layer.forward(batch(8, 3, 4, 4, seed=seed))
    np.testing.assert_allclose(layer.running_mean, 2, atol=0.5)
    np.testing.assert_allclose(layer.running_var, 9, atol=2)
    y = layer(batch(64, 3, 4, 4, seed=1000))
    np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=0.2)
    assert layer.num_batches_tracked == 200


def test_without_momentum_statistics_are_plain_averages() -> None:
    layer = nn.BatchNorm1d(2, momentum=None, dtype=np.float64)
    batches = [batch(5, 2, seed=seed) for seed in range(4)]
    for x in batches:
        layer.forward(x)
    means = [x.mean(axis=0) for x in batches]
    variances = [x.var(axis=0, ddof=1) for x in batches]
    np.testing.assert_allclose(layer.running_mean, np.mean(means, axis=0))
    np.testing.assert_allclose(layer.running_var, np.mean(variances, axis=0))


def test_without_statistics_inference_uses_its_batch() -> None:
    layer = nn.BatchNorm1d(2, track_running_stats=False, dtype=np.float64)
    x = batch(5, 2)
    oracle.assert_bits_equal(layer(x), layer.forward(x)[0])
    assert list(layer.state_dict()) == ["weight", "bias"]
    layer.reset_parameters(0)


def test_without_scale_and_shift() -> None:
    layer = nn.BatchNorm1d(2, affine=False, dtype=np.float64)
    x, g, rng = batch(5, 2), batch(5, 2, seed=1), np.random.default_rng(0)
    assert layer.parameters() == []
    _, backward = layer.forward(x)
    oracle.gradients_check(lambda x: layer.forward(x)[0], [x], [backward(g)], g, rng)


def test_a_failed_forward_counts_nothing() -> None:
    layer = nn.BatchNorm1d(2)
    before = layer.state_dict()
    with pytest.raises(ValueError, match="more than one value per channel"):
        layer.forward(np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="got 0"):
        layer.forward(np.ones((0, 2), np.float32))
    for name, array in layer.state_dict().items():
        oracle.assert_bits_equal(array, before[name])


def test_reset_forgets() -> None:
    layer = nn.BatchNorm1d(2, dtype=np.float64)
    fresh = layer.state_dict()
    layer.forward(batch(5, 2))
    layer.weight.value = np.array([3.0, 4.0])  # type: ignore[union-attr]
    layer.reset_parameters(0)
    for name, array in layer.state_dict().items():
        oracle.assert_bits_equal(array, fresh[name])


def test_backward_is_that_of_the_batch_not_of_later_ones() -> None:
    layer, x = nn.BatchNorm1d(2, dtype=np.float64), batch(5, 2)
    _, backward = layer.forward(x)
    layer.forward(batch(9, 2, seed=3) * 50)
    right, _, _ = F.batch_norm_backward(x, x, None, None, np.ones(2), training=True)
    assert right is not None
    oracle.assert_bits_equal(backward(x), right)


@pytest.mark.parametrize(
    ("layer", "shape", "ranks"),
    [
        (nn.BatchNorm1d(3), (2, 3, 4, 5), "2 or 3"),
        (nn.BatchNorm2d(3), (3, 4, 5), "4"),
        (nn.BatchNorm3d(3), (2, 3, 4, 5), "5"),
    ],
)
def test_ranks(layer: Any, shape: tuple[int, ...], ranks: str) -> None:
    message = f"{type(layer).__name__}: x must have {ranks} axes"
    for call in (layer, layer.forward):
        with pytest.raises(ValueError, match=message):
            call(np.ones(shape, np.float32))


def test_another_number_of_channels() -> None:
    with pytest.raises(ValueError, match=r"running_mean must have shape \(4,\)"):
        nn.BatchNorm2d(3)(np.ones((2, 4, 5, 5), np.float32))
