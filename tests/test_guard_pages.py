"""No kernel reads or writes a byte outside of its arrays: in the build that is shipped."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from convcore.runtime import cpu

if sys.platform == "win32":
    pytest.skip("no mprotect", allow_module_level=True)


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def runs() -> "dict[str, subprocess.CompletedProcess[str]]":
    """What a process for each instruction set says; all run at once."""
    isas = cpu.available()
    with ThreadPoolExecutor(len(isas)) as pool:
        done = pool.map(lambda isa: python("-m", "tests.guarded", isa), isas)
        return dict(zip(isas, done, strict=True))


@pytest.mark.parametrize("isa", cpu.available())
def test_all_tails_of_every_operation(
    isa: str, runs: "dict[str, subprocess.CompletedProcess[str]]"
) -> None:
    """A page that is closed follows, or precedes, every array of every kernel."""
    done = runs[isa]
    assert done.returncode == 0, f"{done.stdout[-200:]}{done.stderr[-2000:]}"
    assert int(done.stdout.splitlines()[-1]) > 2000


@pytest.mark.parametrize(("side", "place"), [("end", 3), ("begin", -1)])
def test_the_pages_are_closed(side: str, place: int) -> None:
    """What the test above stands on: one element beyond is fatal, the ends are not."""
    code = f"""
import ctypes
import numpy as np
from tests import fence
def read(array, place):
    return (ctypes.c_float * 1).from_address(array.ctypes.data + 4 * place)[0]
array = np.ones(3, np.float32)
with fence.side("{side}"):
    assert fence.fenced(read)(array, 0) == fence.fenced(read)(array, 2) == 1
    print("inside", flush=True)
    fence.fenced(read)(array, {place})
"""
    done = python("-c", code)
    assert done.stdout == "inside\n", done.stderr
    assert done.returncode == -signal.SIGSEGV
