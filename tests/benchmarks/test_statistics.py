"""Samples, digests, ratios, and what is said about a run."""

import dataclasses

import numpy as np
import pytest

from benchmarks import machine, measure, render, results, timing, worker
from benchmarks.problems import suite


def test_a_sample_is_long_enough_and_bounded(monkeypatch):
    calls = []
    repetitions = timing.calibrate(lambda: calls.append(None))
    assert 1 < repetitions <= timing.MAX_REPETITIONS
    calls.clear()
    assert timing.sample(lambda: calls.append(None), 5) >= 0
    assert len(calls) > 6  # many of them to warm up
    monkeypatch.setattr(timing, "WARM_SECONDS", 0.0)
    calls.clear()
    timing.sample(lambda: calls.append(None), 5)
    assert len(calls) <= 6


def test_a_slow_call_is_not_repeated(monkeypatch):
    monkeypatch.setattr(timing, "LONG_SECONDS", -1.0)
    calls = []
    assert timing.calibrate(lambda: calls.append(None)) == 1
    assert len(calls) == 1
    timing.sample(lambda: calls.append(None), 1)
    assert len(calls) == 2


def test_digests_tell_results_apart():
    rng = np.random.default_rng(5)
    output = rng.random((40, 50))
    digest = worker.digest_of(output)
    assert measure.agree(digest, worker.digest_of(output + 1e-12), 1e-9)
    swapped = output.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    lost = np.where(np.arange(50) == 7, np.nan, output)
    for wrong in (swapped, lost, output[:39], output * 1.001):
        assert not measure.agree(digest, worker.digest_of(wrong), 1e-4)


def test_the_geometric_mean_and_the_quartiles():
    assert results.geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    spread = results.Spread.of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert dataclasses.astuple(spread) == (3.0, 2.0, 4.0, 1.0, 5.0)
    assert dataclasses.astuple(results.Spread.of([7.0])) == (7.0,) * 5


def test_the_better_layout_counts_and_ratios_are_taken_by_rounds():
    row = suite("tiny")[0]
    found = measure.Measurement(
        seconds={
            "convcore": [1.0, 2.0, 4.0],
            "torch-nchw": [9.0, 9.0, 9.0],
            "torch-channels_last": [3.0, 4.0, 4.0],
        },
        skipped={"window": "too slow"},
    )
    case = row.case("fprop", "float32")
    line = results.record(row, case, 1, found, "convcore", ["torch", "window"], 1.0)
    assert line.better == {"torch": "torch-channels_last"}
    assert line.ratio["torch"].median == 2.0  # of 3, 2 and 1
    cells = render.cells(line, "convcore", 1e12, ["torch", "window"])
    assert cells[-2:] == ["2.00 (1.50-2.50) nhwc", "-"]
    section = results.Section("float32", 1, 1e12, [line])
    head, lines = render.summary(section, "torch")
    assert head == ["x torch", "rows", "fprop", "all", "least", "under 0.9"]
    assert lines[-1] == ["all", "1", "2.00", "2.00", "2.00", "0"]
    assert render.notes(section, "convcore") == ["window: too slow (1 cases)"]


def test_the_command_names_the_variables_that_change_it(monkeypatch):
    monkeypatch.setenv("CONVCORE_ISA", "x86_64_v3")
    line = machine.command("benchmarks.report", ["--filter", "3x3 a"])
    assert "CONVCORE_ISA=x86_64_v3" in line
    assert line.endswith("python -m benchmarks.report --filter '3x3 a'")


def test_what_holds_a_library_back_is_said(monkeypatch):
    for name in machine._RESTRICTIONS:
        monkeypatch.delenv(name, raising=False)
    assert machine.restrictions() == ""
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert machine.restrictions() == "OPENBLAS_CORETYPE=Haswell"
