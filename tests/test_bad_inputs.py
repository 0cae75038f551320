"""What crashed, hung or lied elsewhere: 248 cases with their sources, in full.

An error has to name the function, and what the case says ("named": an entry of a state, a
file, the output) or else an argument.

Cases with huge numbers run in a process of their own, which a crash or a call without end
costs and not the tests.
"""

import inspect
import json
import math
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bad_inputs import (
    CASES,
    SKIPPED,
    SKIPPED_OPERATIONS,
    decoded,
    facts,
    function,
    outcome,
)

Outcome = dict[str, Any]

HUGE = 2**30
SECONDS = 60  # most of a case: none takes one
HEAVY = {name for name, case in CASES.items() if "heavy" in (case.get("tags") or ())}


class Worker:
    """A process that runs cases, one at a time, and is replaced when it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, name: str) -> Outcome:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.bad_inputs"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parent.parent,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        clock = threading.Timer(SECONDS, process.kill)
        clock.start()
        try:
            process.stdin.write(name + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        finally:
            clock.cancel()
        if not answer:
            return {"died": process.wait()}
        found: Outcome = json.loads(answer)
        return found

    def stop(self) -> None:
        if self._process is not None:
            self._process.communicate()


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    started = Worker()
    yield started
    started.stop()


def numbers_of(value: Any) -> Iterator[int]:
    """Walk over the integers of a case."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from numbers_of(inner)
    elif isinstance(value, int):
        yield value
    elif isinstance(value, str) and "2**3" in value:
        yield 2**31


def is_dangerous(case: Outcome) -> bool:
    numbers = list(numbers_of(case["args"]))
    return any(abs(n) >= HUGE for n in numbers) or "heavy" in case.get("tags", ())


def close(actual: Any, expected: Any) -> bool:
    return bool(
        np.allclose(np.array(actual, float), np.array(expected, float), 1e-6, 0)
    )


CHECKS: dict[str, Callable[[list[Outcome], Any], bool]] = {
    "shape": lambda r, v: bool(r[0]["shape"] == v),
    "all": lambda r, v: bool(r[0]["all"] == float(v)),
    "values": lambda r, v: bool(
        np.array_equal(np.array(r[0]["values"], float), np.array(v, float), True)
        or close(r[0]["values"], v)
    ),
    "a": lambda r, v: bool(r[0]["values"] == v),
    "indices": lambda r, v: bool(r[1]["values"] == v),
    "index_points_at": lambda r, v: bool(r[1]["values"] == [[[[1]]]]),
    "sum": lambda r, v: bool(r[0]["sum"] == v),
    "sample1_all": lambda r, v: bool((np.array(r[0]["values"][1]) == v).all()),
    "corner": lambda r, v: bool(r[0]["values"][0][0][0][0] == v),
    "centre": lambda r, v: bool(_centre(r[0]["values"][0][0]) == float(v)),
    "border": lambda r, v: bool(np.isnan(r[0]["values"][0][0][0]).all()),
    "no_nan": lambda r, v: not np.isnan(r[0]["values"]).any(),
    "any_of": lambda r, v: bool(
        any(math.isclose(r[0]["all"], float(x), rel_tol=1e-6) for x in v)
    ),
    "exact": lambda r, v: True,
}


def _centre(plane: list[list[float]]) -> float:
    return plane[len(plane) // 2][len(plane) // 2]


def named(op: str) -> bool:
    return op not in SKIPPED_OPERATIONS


CALLED = [name for name, case in CASES.items() if named(case["op"])]


@pytest.mark.parametrize("name", CALLED)
def test_case(name: str, worker: Worker) -> None:
    if name in SKIPPED:
        pytest.skip(SKIPPED[name])
    if name in HEAVY:
        pytest.skip("gigabytes of memory: runs in the nightly tests")
    run_case(name, worker)


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(HEAVY))
def test_heavy_case(name: str, worker: Worker) -> None:
    run_case(name, worker)


def run_case(name: str, worker: Worker) -> None:
    case = CASES[name]
    found = worker.ask(name) if is_dangerous(case) else outcome(case)
    assert "died" not in found, f"{case['source']}: {case['note']}"
    if case["expect"] == "result":
        check_result(case, found)
        return
    expected = case["expect"].removeprefix("error:")
    assert found.get("error") == expected, f"{found}: {case['note']} ({case['source']})"
    told, _, text = found["text"].partition(":")
    assert told.replace(".", "").replace("_", "").isalnum(), found["text"]
    named = [case["named"]] if "named" in case else {*case["args"], *parameters(case)}
    assert any(re.search(rf"\b{re.escape(n)}\b", text) for n in named), found["text"]


def parameters(case: Outcome) -> Iterable[str]:
    """Name what an error may speak of, where the case names nothing itself."""
    return inspect.signature(function(case["op"])).parameters


def check_result(case: Outcome, found: Outcome) -> None:
    """Compare with what the case expects; else with the contiguous native copies."""
    assert "result" in found, found
    expected = case.get("value")
    if expected is not None:
        for fact, value in expected.items():
            assert CHECKS[fact](found["result"], value), (fact, value, found)
        return
    arguments = {key: decoded(value, {}) for key, value in case["args"].items()}
    copies = {
        key: np.array(value, value.dtype.newbyteorder("="), order="C", subok=False)
        if isinstance(value, np.ndarray)
        else value
        for key, value in arguments.items()
    }
    assert found["result"] == [facts(function(case["op"])(**copies))]
    if "exact" in case["tags"][0]:
        integers = {
            key: value.astype(np.int64) if isinstance(value, np.ndarray) else value
            for key, value in copies.items()
        }
        assert found["result"] == [facts(exact_convolution(**integers))]


def exact_convolution(x: Any, weight: Any, stride: int = 1, padding: int = 0) -> Any:
    """Convolve integers with NumPy alone."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    size = weight.shape[2:]
    seen = np.lib.stride_tricks.sliding_window_view(x, size, (2, 3))
    return np.einsum("ncyxkl,ockl->noyx", seen[:, :, ::stride, ::stride], weight)


def test_every_case_is_called_or_skipped_for_a_reason() -> None:
    assert len(CASES) == 248
    for name, case in CASES.items():
        if named(case["op"]) and name not in SKIPPED:
            assert callable(function(case["op"])), name
    skipped = [case for case in CASES.values() if not named(case["op"])]
    assert {case["op"] for case in skipped} == set(SKIPPED_OPERATIONS)
