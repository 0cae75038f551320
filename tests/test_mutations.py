"""Legal calls with one thing wrong, of every public function and layer.

`python -m pytest -m nightly tests/test_mutations.py` makes 100,000 of them.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import mutations

SECONDS = 60  # of one call, at most: none takes one
QUICK, DEEP = 6_000, 100_000

# Types and protocols, and what sets something for the whole process.
NOT_CALLED = {
    *("convcore.functional.Approximate", "convcore.functional.Reduction"),
    *("convcore.nn.Backward", "convcore.nn.load_npz", "convcore.nn.save_npz"),
    *("convcore.get_num_threads", "convcore.num_threads", "convcore.set_num_threads"),
    *("convcore.precision", "convcore.keep_memory", "convcore.release_memory"),
    "convcore.show_config",
    *mutations.ABSTRACT,
}


def run(first: int, stop: int) -> tuple[list[str], int]:
    """Run calls in a process of their own; give what is wrong, and how many it ran."""
    wrong, done, last = [], 0, "nothing"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.mutations"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{first} {stop}\n")
        process.stdin.close()
        with watched(process) as alive:
            for line in process.stdout:
                alive()
                found = json.loads(line)
                if "what" in found:
                    last = f"{found['seed']}: {found['what']}"
                    continue
                done += 1
                if found["wrong"]:
                    wrong.append(f"{last}: {found['wrong']}")
    if process.returncode:
        wrong.append(f"{last}: the process ended with {process.returncode}")
    return wrong, done


@contextmanager
def watched(process: "subprocess.Popen[str]") -> Iterator[Callable[[], None]]:
    """End a process that does not say for SECONDS that it is alive."""
    heard = time.monotonic()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1):
            if time.monotonic() - heard > SECONDS:
                process.kill()

    def alive() -> None:
        nonlocal heard
        heard = time.monotonic()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield alive
    finally:
        over.set()
        thread.join()


def test_wrong_calls_are_refused_by_name() -> None:
    wrong, done = run(0, QUICK)
    assert not wrong, "\n".join(wrong)
    assert done == QUICK


@pytest.mark.nightly
def test_very_many_wrong_calls() -> None:
    wrong, done = run(QUICK, DEEP)
    assert not wrong, "\n".join(wrong)
    assert done == DEEP - QUICK


def test_everything_public_is_called() -> None:
    targets = mutations.public()
    calls = mutations.completed(mutations.recorded(targets), targets)
    missing = set(targets) - {call.name for call in calls} - NOT_CALLED
    assert not missing
