"""Steps and states of optimisers: all or nothing."""

import math
import random
import signal
from time import perf_counter

import numpy as np
import pytest

from convcore import nn, optim
from convcore.optim import optimizer
from tests.interrupts import interrupt_everywhere
from tests.optim_helpers import (
    OPTIMISERS,
    everything,
    parameter,
    take,
    two_parameters,
)


@pytest.mark.parametrize(("kind", "settings"), OPTIMISERS)
def test_a_step_is_all_or_nothing_under_interrupts(kind, settings):
    states = []

    def prepare():
        nonlocal optimiser
        optimiser = kind(two_parameters(), **settings)
        take(optimiser, [1.0, 2.0], [[3.0]])
        for target in optimiser.parameters:
            target.add_grad(np.ones(target.value.shape))
        return optimiser.step

    def check():
        states.append(everything(optimiser))
        # New values always have a new version; a new version may have old values.
        versions = [p.version for p in optimiser.parameters]
        assert states[-1] == before or versions == newer

    optimiser = None
    step = prepare()
    before = everything(optimiser)
    newer = [p.version + 1 for p in optimiser.parameters]
    step()
    after = everything(optimiser)
    files = ("optimizer.py", "sgd.py", "adam.py", "parameter.py", "_update.py")
    interrupts = interrupt_everywhere(prepare, check, files)
    assert interrupts > 100
    assert all(state in (before, after) for state in states)
    assert states[0] == before
    assert states[-1] == after


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
def test_a_step_is_all_or_nothing_under_signals():
    """Signals also come while C code runs; there they have to wait for the end."""
    draw = random.Random(0)
    optimiser = optim.SGD([parameter(np.zeros(3000)) for _ in range(100)], lr=1)
    take(optimiser, *[np.ones(3000)] * 100)
    usual = math.inf
    for _ in range(5):
        start = perf_counter()
        optimiser.step()
        usual = min(usual, perf_counter() - start)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupts = 0
    try:
        for _ in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.01, 1) * usual)
                optimiser.step()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupts += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            values = {p.value[0] for p in optimiser.parameters}
            assert values == {-optimiser.updates / 100}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupts > 10


@pytest.mark.parametrize(("kind", "settings"), OPTIMISERS)
def test_a_failing_update_changes_nothing(kind, settings, monkeypatch):
    optimiser = kind(two_parameters(), **settings)
    take(optimiser, [1.0, 2.0], [[3.0]])
    before = everything(optimiser)
    updates = optimizer.updates

    def fail(function, rows):
        updates(function, rows)  # prepared, but not done
        raise MemoryError

    monkeypatch.setattr(optimizer, "updates", fail)
    with pytest.raises(MemoryError):
        optimiser.step()
    assert everything(optimiser) == before


@pytest.mark.parametrize(("kind", "settings"), OPTIMISERS)
@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda p: setattr(p, "grad", np.ones((1, 1), np.float32)),
            TypeError,
            "must be float64, got float32",
        ),
        (
            lambda p: setattr(p, "grad", np.ones(1)),
            ValueError,
            r"must have shape \(1, 1\), got \(1,\)",
        ),
        (
            lambda p: p.value.setflags(write=False),
            ValueError,
            "must be writeable, got a read-only array",
        ),
    ],
)
def test_a_bad_gradient_changes_nothing(kind, settings, spoil, error, message):
    optimiser = kind(two_parameters(), **settings)
    take(optimiser, [1.0, 2.0], [[3.0]])
    before = everything(optimiser)
    spoil(optimiser.parameters[1])
    with pytest.raises(error, match=rf"^{kind.__name__}.step: .*{message}"):
        optimiser.step()
    assert everything(optimiser) == before


@pytest.mark.parametrize(("kind", "settings"), OPTIMISERS)
def test_state_dict_takes_up_where_it_was(kind, settings, tmp_path):
    gradients = [[0.5, 1.0], [[2.0]]]
    first = kind(two_parameters(), **settings)
    for _ in range(3):
        take(first, *gradients)
    np.savez(tmp_path / "state.npz", **first.state_dict())
    values = [nn.Parameter(p.value.copy()) for p in first.parameters]
    second = kind(values, **{**settings, "lr": 77.0})
    with np.load(tmp_path / "state.npz", allow_pickle=False) as state:
        second.load_state_dict(state)
    assert second.lr == settings["lr"]
    assert everything(second) == everything(first)
    take(first, *gradients)
    take(second, *gradients)
    assert everything(second) == everything(first)


def test_loading_is_all_or_nothing_under_interrupts():
    def prepare():
        nonlocal optimiser
        optimiser = optim.Adam(two_parameters(), lr=0.5)
        return lambda: optimiser.load_state_dict(state)

    optimiser = None
    prepare()
    before = everything(optimiser)
    state = {
        n: a / 2 if n != "steps" else a + 7 for n, a in optimiser.state_dict().items()
    }
    optimiser.load_state_dict(state)
    after, seen = everything(optimiser), []
    interrupt_everywhere(
        prepare, lambda: seen.append(everything(optimiser)), ("optimizer.py",)
    )
    assert all(found in (before, after) for found in seen)
    assert seen[0] == before
    assert seen[-1] == after


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({1: 2, "lr": 3}, "must have str as names, got 1, int"),
        (None, "must be a mapping, got NoneType"),
    ],
)
def test_a_state_without_names(state, message):
    optimiser = optim.SGD([parameter([1.0])], lr=0.1)
    with pytest.raises(TypeError, match=f"^SGD.load_state_dict: state {message}$"):
        optimiser.load_state_dict(state)
    schedule = optim.StepLR(optimiser, 1)
    with pytest.raises(TypeError, match=f"^StepLR.load_state_dict: state {message}$"):
        schedule.load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mean.0": None}, ValueError, r"got \[\] more and \['mean.0'\] less"),
        ({"extra": np.ones(1)}, ValueError, r"got \['extra'\] more and \[\] less"),
        ({"mean.1": np.ones(1)}, ValueError, r"mean.1 must have shape \(1, 1\), got"),
        ({"mean.1": np.ones((1, 1), int)}, TypeError, "mean.1 must be float64, got i"),
        ({"lr": np.array(math.nan)}, ValueError, "lr must be finite, got nan"),
        ({"beta1": np.array(1.0)}, ValueError, "beta1 must be < 1.0, got 1.0"),
        ({"steps": np.array([1, -1])}, ValueError, r"steps must be >= 0, got \[ 1 -1"),
    ],
)
def test_a_bad_state_dict_changes_nothing(change, error, message):
    optimiser = optim.Adam(two_parameters())
    take(optimiser, [1.0, 2.0], [[3.0]])
    before = everything(optimiser)
    state = {
        name: array + (array.dtype.kind == "f")
        for name, array in optimiser.state_dict().items()
        if name not in ("beta1", "beta2")
    } | {"beta1": np.array(0.5), "beta2": np.array(0.5)}
    state = {n: a for n, a in (state | change).items() if a is not None}
    with pytest.raises(error, match=f"^Adam.load_state_dict: .*{message}"):
        optimiser.load_state_dict(state)
    assert everything(optimiser) == before
