"""Influence and receptive fields, against their definitions."""

from math import prod

import numpy as np
import pytest

from convcore import analysis, nn
from tests.analysis_helpers import Unknown, conv, linear, transpose


def differences(model, x, unit, step=1e-6):
    """The derivative of one output by every input, from a small change of each."""
    derivative = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            y, _ = model.forward(moved[None])
            derivative[index] += sign * y.reshape(-1)[unit] / (2 * step)
    return derivative


def smooth(rng):
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, dtype=np.float64),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Residual(nn.Conv2d(3, 3, 3, padding=1, dtype=np.float64)),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(12, 3, dtype=np.float64),
        rng=rng,
    )


@pytest.mark.parametrize("reset", [True, False])
def test_influence_is_what_a_small_change_does(reset):
    model, shape, draws, batch = smooth(1), (2, 4, 5), 2, 3
    influence = analysis.influence_map(
        model, shape, 7, draws=draws, batch=batch, reset=reset
    )
    rng = np.random.default_rng(7)
    twin, sums, turns = smooth(1), np.zeros(shape), []
    for _ in range(draws):
        if reset:
            twin.reset_parameters(rng)
        x = rng.standard_normal((batch, *shape))
        for sample in x:
            if not turns:
                turns = rng.permutation(3).tolist()
            sums += abs(differences(twin, sample, turns.pop(0)))
    expected = sums.mean(axis=0) / (draws * batch)
    np.testing.assert_allclose(influence, expected, rtol=1e-7)


def test_the_model_stays_as_it_is():
    model = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.BatchNorm1d(2), rng=0)
    before = model.state_dict()
    analysis.influence_map(model, (1, 6), 0, draws=2, batch=4)
    analysis.effective_receptive_field(model, (1, 6), 0, draws=2, batch=4, reset=False)
    after = model.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_influence_goes_with_the_root_of_the_paths():
    chain = nn.Sequential(
        *[nn.Conv1d(4, 4, 3, padding=1, bias=False) for _ in range(4)]
    )
    head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 15, 1, bias=False))
    model = nn.Sequential(chain, head)
    influence = analysis.influence_map(model, (4, 15), 0, draws=400, batch=1)
    roots = np.sqrt(analysis.path_count(model, (4, 15)).astype(float))
    ratio = influence / roots
    np.testing.assert_allclose(ratio / ratio.mean(), 1, atol=0.12)
    again = analysis.influence_map(model, (4, 15), 0, draws=400, batch=1)
    np.testing.assert_array_equal(again, influence)


def test_an_effective_field_is_smaller_and_gaussian():
    depth = 6
    chain = nn.Sequential(
        *[nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(depth)]
    )
    field = analysis.effective_receptive_field(chain, (3, 19, 19), 0, draws=60)
    assert field.map.shape == (19, 19)
    assert field.map.max() == 1
    theoretical = analysis.receptive_field(chain, (3, 19, 19))[-1].size[0]
    assert theoretical == 2 * depth + 1
    assert field.size < theoretical
    # the root of a Gaussian is a Gaussian, sqrt(2) times as wide
    expected = np.sqrt(2 * depth * (3**2 - 1) / 12)
    assert field.sigma == pytest.approx((expected, expected), rel=0.1)
    alone = analysis.effective_receptive_field(conv(1, 1, 1, 1), (1, 5), 0)
    assert alone.map.tolist() == [0, 0, 1, 0, 0]
    assert (alone.size, alone.sigma) == (1, (0,))


FIELDS = {
    "chain": lambda: nn.Sequential(
        conv(1, 1, 1, 3, padding=1), conv(1, 1, 1, 5, stride=2), conv(1, 1, 1, 2)
    ),
    "dilated": lambda: nn.Sequential(
        conv(1, 1, 1, 3, dilation=2, padding=2), nn.SumPool1d(3, 2), conv(1, 1, 1, 3)
    ),
    "up": lambda: nn.Sequential(
        conv(1, 1, 1, 3, stride=2, padding=1),
        transpose(1, 1, 1, 4, stride=2, padding=1),
    ),
    "up, odd": lambda: nn.Sequential(
        transpose(1, 1, 1, 3, stride=2), conv(1, 1, 1, 3), nn.SumPool1d(2)
    ),
    "residual": lambda: nn.Residual(
        nn.Sequential(conv(1, 1, 1, 3, padding=1), conv(1, 1, 1, 3, padding=1))
    ),
    "concat": lambda: nn.Concat(
        conv(1, 1, 1, 3, padding=1), conv(1, 1, 1, 7, padding=3)
    ),
    "border passed on": lambda: nn.Sequential(
        conv(1, 1, 1, 3, padding=1), nn.BorderPassthrough1d(conv(1, 1, 1, 7))
    ),
    "whole": lambda: nn.Sequential(conv(1, 1, 1, 3), nn.GlobalAvgPool1d()),
    "flat": lambda: nn.Sequential(conv(1, 1, 1, 3), nn.Flatten(), linear(22, 1)),
    "adaptive": lambda: nn.Sequential(
        conv(1, 1, 1, 3, padding=1), nn.AdaptiveAvgPool1d(4)
    ),
}


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields_are_where_gradients_are(name):
    model, extent = FIELDS[name](), 24
    field = analysis.receptive_field(model, (1, extent))[-1]
    y, backward = model.forward(np.ones((1, 1, extent)))
    seen = []
    for unit in range(prod(y.shape)):
        grad = np.zeros(y.size)
        grad[unit] = 1
        pixels = np.flatnonzero(backward(grad.reshape(y.shape)))
        seen.append((pixels[0], pixels[-1]))
    [size], [jump], [start] = field.size, field.jump, field.start
    if y.ndim == 3:
        assert field.extents == y.shape[2:]
    assert seen[0][0] == max(start, 0)
    widest = max(last - first + 1 for first, last in seen)
    assert widest <= size <= widest + (name == "up, odd")  # there it is a bound
    if field.extents[0] > 8:
        units = field.extents[0]
        pace = (seen[3 * units // 4][0] - seen[units // 4][0]) / (
            3 * units // 4 - units // 4
        )
        assert pace == pytest.approx(jump, abs=0.2)


def test_receptive_fields_of_a_network_by_hand():
    model = nn.Sequential(
        nn.Conv2d(1, 8, 7, stride=2, padding=3),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Sequential(nn.Residual(nn.Conv2d(8, 8, (3, 1), padding=(1, 0)))),
        nn.Flatten(),
        nn.Linear(8 * 64, 2),
    )
    rows = analysis.receptive_field(model, (1, 32, 32))
    assert [(row.name, row.size, row.jump, row.start) for row in rows] == [
        ("0 Conv2d", (7, 7), (2, 2), (-3, -3)),
        ("1 ReLU", (7, 7), (2, 2), (-3, -3)),
        ("2 MaxPool2d", (11, 11), (4, 4), (-5, -5)),
        ("3.0 Conv2d", (19, 11), (4, 4), (-9, -5)),
        ("3.0 Residual", (19, 11), (4, 4), (-9, -5)),
        ("4 Flatten", (19, 11), (4, 4), (-9, -5)),
        ("5 Linear", (47, 39), (32, 32), (-9, -5)),
    ]


def test_global_connections_may_see_everything():
    links = nn.GloballyConnected2d(1, 1, 3, (6, 7), (2, 3), rng=0)
    field = analysis.receptive_field(nn.Sequential(conv(2, 1, 1, 3), links), (1, 8, 9))
    assert (field[1].size, field[1].start) == ((8, 9), (0, 0))
    assert field[1].extents == (2, 3)


def test_receptive_field_errors():
    uneven = nn.Concat(nn.Conv1d(1, 1, 3, stride=2, padding=1), nn.Conv1d(1, 1, 3))
    with pytest.raises(ValueError, match="branches of Concat must step"):
        analysis.receptive_field(uneven, (1, 8))
    with pytest.raises(ValueError, match="got Unknown"):
        analysis.receptive_field(Unknown(), (1, 8))
    with pytest.raises(ValueError, match="Flatten must join all axes"):
        analysis.receptive_field(nn.Flatten(2), (1, 8, 8))
    with pytest.raises(ValueError, match="Conv1d must not stand behind"):
        analysis.receptive_field(
            nn.Sequential(nn.Flatten(), nn.Conv1d(1, 1, 1)), (1, 8)
        )
