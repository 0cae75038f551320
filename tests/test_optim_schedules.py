"""Schedules of learning rates."""

import math

import pytest

from convcore import optim
from tests.optim_helpers import (
    parameter,
)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda o: optim.StepLR(o, 2, 0.5), [8, 8, 4, 4, 2, 2]),
        (lambda o: optim.StepLR(o, 1), [8, 0.8, 0.08]),
        (lambda o: optim.CosineLR(o, 2), [8, 4, 0, 0, 0]),
        (lambda o: optim.CosineLR(o, 3, 2.0), [8, 6.5, 3.5, 2, 2]),
    ],
)
def test_schedules_by_hand(make, expected):
    optimiser = optim.SGD([parameter([1.0])], lr=8)
    schedule = make(optimiser)
    rates = [optimiser.lr]
    for _ in expected[1:]:
        schedule.step()
        rates.append(optimiser.lr)
    assert rates == pytest.approx(expected, rel=1e-15, abs=1e-15)


def test_schedule_takes_up_where_it_was():
    first = optim.CosineLR(optim.SGD([parameter([1.0])], lr=8), 10)
    for _ in range(3):
        first.step()
    second = optim.CosineLR(optim.SGD([parameter([1.0])], lr=1), 10)
    second.load_state_dict(first.state_dict())
    assert second.optimizer.lr == first.optimizer.lr
    first.step()
    second.step()
    assert second.optimizer.lr == first.optimizer.lr


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda o: optim.StepLR(o, 0), ValueError, "StepLR: step_size must be >= 1"),
        (lambda o: optim.StepLR(o, 1.5), TypeError, "StepLR: step_size must be an int"),
        (lambda o: optim.StepLR(o, 1, -1), ValueError, "StepLR: gamma must be >= 0"),
        (lambda o: optim.CosineLR(o, 0), ValueError, "CosineLR: t_max must be >= 1"),
        (
            lambda o: optim.CosineLR(o, 1, math.nan),
            ValueError,
            "CosineLR: eta_min must be finite",
        ),
        (
            lambda o: optim.CosineLR(None, 1),
            TypeError,
            "CosineLR: optimizer must be an Optimizer, got NoneType",
        ),
        (
            lambda o: optim.StepLR(o, 1).load_state_dict({"epoch": 1}),
            ValueError,
            "StepLR.load_state_dict: state must have the names base_lr and epoch",
        ),
        (
            lambda o: optim.StepLR(o, 1).load_state_dict({"epoch": -1, "base_lr": 1}),
            ValueError,
            "StepLR.load_state_dict: epoch must be >= 0, got -1",
        ),
    ],
)
def test_bad_schedules(call, error, message):
    optimiser = optim.SGD([parameter([1.0])], lr=8)
    with pytest.raises(error, match=f"^{message}"):
        call(optimiser)
    assert optimiser.lr == 8
