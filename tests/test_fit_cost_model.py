"""The prices of the cost model: fitted to times that the test makes up."""

import json
import runpy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fit_cost_model
from benchmarks.fit_cost_model import Run, Times, fit, random_problem
from convcore import plan
from convcore.algorithms import CONV, costs
from convcore.problem import ConvProblem


@pytest.fixture
def times() -> list[Times]:
    """What a machine would measure that has exactly the prices in use."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(150):
        problem = random_problem(rng)
        for direction in ("fprop", "bgrad"):
            seconds = {
                card.name: costs.seconds(card, problem.folded, direction)
                for card in CONV
                if direction in card.kernels
                and card.accepts(problem.folded, direction).yes
            }
            layer = f"core:{number}"
            found.append(Times(layer, str(problem), direction, False, seconds))
    return found


def test_prices_are_found_again(times: list[Times]) -> None:
    prices = fit(times)
    assert {"direct fprop", "winograd fprop", "dot bgrad"} <= prices.keys()
    for t in times:
        problem = ConvProblem.parse(t.problem).folded
        for card in CONV:
            if card.name in t.seconds:
                amounts = costs.effort(card, problem, t.direction)
                found = prices[f"{card.name} {t.direction}"]
                time = sum(
                    price * amounts.get(name, 0) for name, price in found.items()
                )
                assert time == pytest.approx(t.seconds[card.name], rel=0.03, abs=1e-7)


def test_what_is_written_can_be_imported(
    times: list[Times],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(costs, "PRICES", costs.PRICES)  # the command replaces them
    monkeypatch.setenv("CONVCORE_AUTOTUNE", "1")
    run = Run("a machine", "x86_64_v4", "3 threads", "2026-01-02", times)
    source, module = tmp_path / "times.json", tmp_path / "constants.py"
    source.write_text(json.dumps(asdict(run)))
    fit_cost_model.main(["--load", str(source), "--out", str(module)])
    assert runpy.run_path(str(module))["PRICES"] == fit(times)
    head = module.read_text()
    assert "a machine, x86_64_v4, 3 threads, float32, 2026-01-02" in head
    assert "choices within 5 % of the best" in capsys.readouterr().out
    plan.forget()


def test_random_problems_are_large_enough_to_measure() -> None:
    rng = np.random.default_rng(0)
    problems = [random_problem(rng) for _ in range(100)]
    assert all(1e5 < p.macs < 1e9 for p in problems)
    assert any(p.g == p.ic for p in problems)
    assert any(p.kernel == p.in_extent for p in problems)
