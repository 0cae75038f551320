"""The same bits: for each number of threads, in each run, alone and in a batch.

Every public operation, forward and backward, every algorithm by its name, every layer and
50 steps of training are run in fresh processes with 1, 2, 3, 4 and 8 threads: 20 times
in each, but 5 times in float64 and for layers, and 4 times for the training; see
tests/determinism.py. `python -m pytest -m nightly tests/test_determinism.py` does so for
all problems of the tests, each instruction set, and 20 processes.
"""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convcore import functional
from convcore.algorithms import CONV, POOL
from convcore.runtime import cpu
from tests import determinism

THREADS = (1, 2, 3, 4, 8)
REPEATS = 20
SECONDS = 1800  # of a process, at most: a hang

Report = dict[str, Any]


def started(*arguments: Any, **variables: str) -> "subprocess.Popen[str]":
    """Start a process that runs everything."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.determinism", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
        # Threads that wait sleep: here there are more of them than processors.
        env={**os.environ, "OMP_WAIT_POLICY": "passive", **variables},
    )


def ended(process: "subprocess.Popen[str]") -> Report:
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    report: Report = json.loads(out)
    return report


def check(report: Report, right: Report, what: str) -> None:
    """Compare with what another process found."""
    assert not report["wrong"], f"{what}: {report['wrong']}"
    assert report["digests"].keys() == right["digests"].keys()
    differ = [
        name
        for name, digest in right["digests"].items()
        if report["digests"][name] != digest
    ]
    assert not differ, f"{what}: {differ}"


@pytest.fixture(scope="module")
def reports() -> Iterator[dict[int, Report]]:
    """What a process with each number of threads says; all run at once."""
    processes = {team: started(team, REPEATS) for team in THREADS}
    try:
        yield {team: ended(process) for team, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()


@pytest.mark.parametrize("team", THREADS)
def test_bits_depend_neither_on_threads_nor_on_the_run(
    team: int, reports: dict[int, Report]
) -> None:
    check(reports[team], reports[1], f"{team} threads")


def test_every_public_operation_was_run(reports: dict[int, Report]) -> None:
    public = {
        name
        for name in functional.__all__
        if inspect.isfunction(getattr(functional, name))
    }
    assert set(reports[1]["called"]) >= public


def test_every_algorithm_was_run(reports: dict[int, Report]) -> None:
    """By its name; what is the only one of its direction, by the public functions."""
    run = {tuple(name.split(" ")[:2]) for name in reports[1]["digests"]}
    for card in (*CONV, *POOL):
        for direction, kernel in card.kernels.items():
            if kernel.isas and cpu.isa() not in kernel.isas:
                continue
            if card in CONV or direction in determinism.POOL_BUFFERS:
                assert (card.name, direction) in run
            else:
                assert sum(direction in other.kernels for other in POOL) == 1


@pytest.mark.nightly
@pytest.mark.parametrize("isa", cpu.available())
def test_bits_of_all_problems_on_each_instruction_set(isa: str) -> None:
    right = ended(started(1, 1, "deep", CONVCORE_ISA=isa))
    repeats = REPEATS if isa == cpu.isa() else len(determinism.OFFSETS)
    for team in THREADS:
        report = ended(started(team, repeats, "deep", CONVCORE_ISA=isa))
        check(report, right, f"{team} threads, {isa}")


@pytest.mark.nightly
@pytest.mark.parametrize("team", THREADS)
def test_bits_of_twenty_processes(team: int) -> None:
    right = ended(started(1, 1))
    for _ in range(REPEATS):
        check(ended(started(team, 1)), right, f"{team} threads")
