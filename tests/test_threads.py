"""How many threads a call uses, and that its bits do not tell."""

import platform
import re
import struct
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convcore
from convcore.kernels import probe, teams
from convcore.runtime import cgroup, threads
from tests import operations
from tests.fresh import answer

needs_openmp = pytest.mark.skipif(
    not threads.probe.openmp(), reason="built without OpenMP"
)
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="as on Linux")
GET = "import convcore; print(convcore.get_num_threads())"


# Numbers that are asked for --------------------------------------------------------


@needs_openmp
@pytest.mark.usefixtures("own_threads")
def test_set_num_threads() -> None:
    convcore.set_num_threads(3)
    assert convcore.get_num_threads() == 3
    assert threads.team(10**9) == 3
    assert threads.team(10) == 1
    convcore.set_num_threads(None)
    assert convcore.get_num_threads() >= 1


@needs_openmp
@pytest.mark.usefixtures("own_threads")
def test_num_threads_ends_with_its_block() -> None:
    convcore.set_num_threads(3)
    with convcore.num_threads(2):
        assert convcore.get_num_threads() == threads.team(10**9) == 2
        with suppress(KeyError), convcore.num_threads(1):
            assert convcore.get_num_threads() == 1
            raise KeyError
        convcore.set_num_threads(4)  # for the others
        assert convcore.get_num_threads() == 2
    assert convcore.get_num_threads() == 4


@needs_openmp
def test_num_threads_is_of_one_thread() -> None:
    before = convcore.get_num_threads()
    with convcore.num_threads(before + 1), ThreadPoolExecutor(1) as pool:
        assert pool.submit(convcore.get_num_threads).result() == before


@pytest.mark.parametrize(
    ("n", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (10**6, ValueError),
        (2**64, ValueError),
        (1.0, TypeError),
        (True, TypeError),
        ("2", TypeError),
    ],
)
@pytest.mark.parametrize("name", ["set_num_threads", "num_threads"])
def test_bad_numbers_of_threads(name: str, n: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{name}: n must be"), getattr(convcore, name)(n):
        pass


@needs_openmp
def test_omp_num_threads_is_obeyed() -> None:
    assert answer(GET, OMP_NUM_THREADS="3") == "3"


@needs_openmp
def test_omp_thread_limit_is_obeyed() -> None:
    """It bounds all that OpenMP starts, whatever a call asks for."""
    code = (
        "import os; from tests import operations as o; o.always_use(4); "
        "before = len(os.listdir('/proc/self/task')); o.digest_of_few(40); "
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    if sys.platform == "linux":
        assert answer(code, OMP_THREAD_LIMIT="2") in "01"


@needs_openmp
def test_threadpoolctl_is_obeyed() -> None:
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    code = (
        "import convcore, threadpoolctl; from convcore.runtime import threads\n"
        "import numpy as np; convcore.functional.relu(np.ones(3))\n"
        "with threadpoolctl.threadpool_limits(1):\n"
        "    print(threads.team(10**9), end=' ')\n"
        "print(threads.team(10**9))"
    )
    assert answer(code, OMP_NUM_THREADS="2") == "1 2"


def test_a_cgroup_quota_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    for granted, expected in ((None, 8), (3, 3), (100, 8)):
        monkeypatch.setattr(probe, "processors", lambda: 8)
        monkeypatch.setattr(cgroup, "processors", lambda granted=granted: granted)
        assert threads.visible_cpus() == expected


@needs_linux
@needs_openmp
def test_affinity_is_respected() -> None:
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); " + GET
    assert answer(code) == "1"


# Threads of Python -----------------------------------------------------------------


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work` in so many threads, which begin together."""
    gate = threading.Barrier(count)

    def begin(i: int) -> Any:
        gate.wait()
        return work(i)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


@pytest.mark.usefixtures("own_threads")
def test_several_python_threads_at_once() -> None:
    """Each runs all operations of its own choice, in its own order."""
    convcore.set_num_threads(2)
    everything = list(operations.every(operations.FEW))
    right = {name: operations.digest(run()) for name, run in everything}

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for i in rng.permutation(len(everything))[:150]:
            name, run = everything[i]
            assert operations.digest(run()) == right[name], name

    at_once(8, work)
    assert teams.in_flight() == 0


@needs_openmp
@needs_linux
def test_calls_at_once_share_the_threads() -> None:
    """Eight callers: no more threads than each one's share, and none that stay."""
    code = """
import os, threading, time, numpy as np, convcore
from convcore import functional as F
from convcore.kernels import teams
convcore.set_num_threads(4)
x, w = np.ones((8, 64, 56, 56), "f4"), np.ones((64, 64, 3, 3), "f4")
most = crowd = 0
busy = True
def count():
    return len(os.listdir("/proc/self/task"))
def work():
    while busy:
        F.conv2d(x, w, algorithm="gemm")
before = count()
callers = [threading.Thread(target=work) for _ in range(8)]
for caller in callers:
    caller.start()
end = time.monotonic() + 60
while not crowd and time.monotonic() < end:
    time.sleep(0.01)
    if teams.in_flight() == 8:
        crowd = teams.share(4)
most = count()
busy = False
for caller in callers:
    caller.join()
while count() > before and time.monotonic() < end:  # they end soon after
    time.sleep(0.01)
print(crowd, most - before <= 8 * 4, count() - before, teams.in_flight())
"""
    assert answer(code) == "1 True 0 0"


# Stacks ----------------------------------------------------------------------------


def test_small_stacks_are_enough() -> None:
    """Python threads of 256 KiB, and OpenMP's of 64, with every operation."""
    code = (
        "import threading; from tests import operations as o; o.always_use({})\n"
        "threading.stack_size({} << 10)\n"
        "def work(): print(o.digest_of_all(o.every()))\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()"
    )
    cases = (
        (code.format(1, 8192), {}),
        (code.format(2, 256), {"OMP_STACKSIZE": "64k"}),
    )
    right, found = at_once(2, lambda i: answer(cases[i][0], **cases[i][1]))
    assert found == right


def test_stacks_that_are_too_small_are_not_used() -> None:
    """A call does without threads of less than 64 KiB."""
    code = """
import numpy as np, convcore
from convcore import functional as F
convcore.set_num_threads(2)
x, w = np.ones((4, 64, 56, 56), "f4"), np.ones((64, 64, 3, 3), "f4")
F.cross_entropy(np.ones((4096, 50), "f4"), np.zeros(4096, int))
print(F.conv2d(x, w, padding=1).sum(dtype=float))
"""
    found = at_once(3, lambda i: answer(code, OMP_STACKSIZE=("16k", "32k", "8m")[i]))
    assert len(set(found)) == 1


FRAME = re.compile(rb"(?:\x48\x81\xec|\x4c\x8d\x9c\x24)(....)", re.DOTALL)
MOST = 56 << 10  # bytes that a thread of 64 KiB has for a function, about
OF_CALLERS = {
    "pool_max_scatter"
}  # their large frames are not those of OpenMP's threads


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86-64 instructions")
def test_no_function_has_a_large_frame() -> None:
    """`sub $n, %rsp`, and what GCC writes instead where it touches every page."""
    kernels = Path(convcore.__file__).parent / "kernels"
    large = {}
    for file in kernels.rglob("*.so"):
        sizes = [abs(*struct.unpack("<i", n)) for n in FRAME.findall(file.read_bytes())]
        size = max((n for n in sizes if n < 1 << 24), default=0)
        if size > MOST and file.name.split(".")[0] not in OF_CALLERS:
            large[str(file.relative_to(kernels))] = size
    assert not large


# Threads that are refused ----------------------------------------------------------

REFUSED = {
    "processes": """
if os.getuid() == 0:  # whom no such limit binds
    os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
""",
    "memory": """
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 20),) * 2)
""",
}


@needs_linux
@needs_openmp
@pytest.mark.parametrize("what", REFUSED)
def test_refused_threads_are_done_without(what: str) -> None:
    """GCC's OpenMP ends the process."""
    code = f"""
import os, resource
from tests import operations as o
o.always_use(1)
right = o.digest_of_few(9)
before = len(os.listdir("/proc/self/task"))
{REFUSED[what]}
o.always_use(4)
assert o.digest_of_few(9) == right
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert answer(code) == "0"
