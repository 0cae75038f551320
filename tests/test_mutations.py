"""Legal calls with one thing wrong, of everything public; and what they leave behind.

`python -m pytest -m nightly tests/test_mutations.py` makes 100,000 of them.
"""

import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import calls, mutations
from benchmarks.calls import Call
from benchmarks.mutations import Mutant, wrong
from tests import mutations as worker

QUICK, DEEP = 6_000, 100_000


def ran(first: int, stop: int, *what: str) -> list[dict[str, Any]]:
    """Run calls in a process of their own, which says when and where a call hangs."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutations", str(first), str(stop), *what],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    lines = done.stdout.splitlines()
    assert not done.returncode, f"{done.returncode} in {lines[-1:]}\n{done.stderr}"
    return [json.loads(line) for line in lines]


def check(first: int, stop: int, *what: str) -> None:
    """Run the calls in two processes at once, and see that all is right."""
    ends = (first, (first + stop) // 2, stop)
    with ThreadPoolExecutor() as pool:
        parts = pool.map(lambda part: ran(*part, *what), pairwise(ends))
        calls = [call for part in parts for call in part]
    bad = [f"{c['seed']}: {c['what']}: {c['found']}" for c in calls if c["found"]]
    assert not bad, "\n".join(bad)
    assert len(calls) == stop - first


def test_wrong_calls_are_refused_by_name() -> None:
    check(0, QUICK)


@pytest.mark.nightly
def test_very_many_wrong_calls() -> None:
    check(QUICK, DEEP)


def test_wrong_calls_leave_nothing_behind() -> None:
    check(0, 1_100, "leaks")  # one of each


@pytest.mark.nightly
def test_very_many_wrong_calls_leave_nothing_behind() -> None:
    check(1_100, 20_000, "leaks")


def test_everything_public_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new public name needs an example, or a row in `tests/mutations.py`."""
    monkeypatch.chdir(tmp_path)  # files of weights
    legal, _ = worker.legal()
    names = {call.name for call in legal}
    missing = set(calls.public()) - names
    assert not missing
    for layer in worker.LAYERS:
        assert f"{layer}.backward" in names
    for name in calls.NOT_CALLED:
        module, _, own = name.rpartition(".")
        assert any(m.__name__ == module and hasattr(m, own) for m in calls.MODULES), (
            name
        )


HELD: list[Any] = []


def say(x: Any, out: Any = None) -> Any:
    """What a mutated call may do wrong, by the first element of x."""
    match x.flat[0]:
        case 1:
            raise ValueError("say: x must be 0")
        case 2:
            raise ValueError("x must be 0")
        case 3:
            raise ValueError("say: must be 0")
        case 4:
            raise AttributeError("say: x")
        case 5:
            x[...] = 6
        case 7:
            HELD.append(x)


@pytest.mark.parametrize(
    ("first", "found"),
    [
        *((0, None), (1, None), (2, "function's name"), (3, "argument's name")),
        *((4, "AttributeError"), (5, "writes to x"), (7, "keeps a reference")),
    ],
)
def test_what_is_wrong_is_seen(first: int, found: str | None) -> None:
    words = mutations.words_of([("tests.say", say)])
    call = Call("tests.say", say, (), {"x": np.full(3, first, float)})
    said = wrong(Mutant(call, ""), words)
    assert (found is None and said is None) or (found and said and found in said)


def test_what_must_be_refused_and_is_not_is_seen() -> None:
    words = mutations.words_of([("tests.say", say)])
    call = Call("tests.say", say, (), {"x": np.zeros(3)})
    assert wrong(Mutant(call, "", refused=True), words) == "should have been refused"


def twice(x: Any, *, out: Any = None) -> Any:
    """Several results, and the first one not asked for."""
    return None, 2 * x


def test_a_result_is_laid_over_an_input_where_another_is_none() -> None:
    laid = set()
    for seed in range(100):
        call = Call("tests.twice", twice, (), {"x": np.ones(3)})
        mutant = mutations.mutated(call, random.Random(seed))
        if mutant.refused:
            x, out = mutant.call.kwargs["x"], mutant.call.kwargs["out"]
            assert out[0] is None
            assert out[1].shape == x.shape
            assert np.shares_memory(x, out[1])
            assert x.tolist() == [1, 1, 1]
            laid.add(out[1].ctypes.data - x.ctypes.data)
    assert laid == {8, 16}


def test_hangs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call without end ends the process, and says where it was."""
    code = """
from tests import mutations as m
def endless(x):
    while True: pass
m.SECONDS = 1
m.legal = lambda: ([m.Call("endless", endless, (1,), {})], {"endless": {"x"}})
m.main(["0", "5"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode
    assert "Timeout" in done.stderr
    assert '"seed": 0' in done.stdout
