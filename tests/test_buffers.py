"""Memory of results: used again when nobody holds it, and never before."""

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import convcore
from convcore import functional as F
from convcore.runtime import arrays, buffers, cgroup

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
SHAPE = (3, 1 << 18)  # 3 MB


@pytest.fixture(autouse=True)
def nothing_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gc.collect()
    limit_of(monkeypatch, 64 << 20)
    convcore.release_memory()
    yield
    monkeypatch.undo()
    buffers._set_limit()
    convcore.release_memory()


def limit_of(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(buffers, "LIMIT", limit)
    buffers._set_limit()


def address(array: Any) -> int:
    return int(array.ctypes.data)


def test_memory_is_used_again() -> None:
    first = buffers.empty(SHAPE, FLOAT32)
    where = address(first)
    del first
    again = buffers.empty((SHAPE[1], 3), FLOAT32)
    assert address(again) == where
    assert again.shape == (SHAPE[1], 3)
    del again
    assert address(buffers.empty((3, 1 << 17), FLOAT64)) == where


@pytest.mark.parametrize("size", [1, 131071, 131072, 131073, 700_001, 5_000_011])
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64, np.dtype(np.int64)])
def test_arrays_are_whole_aligned_and_plain(size: int, dtype: Any) -> None:
    for _ in range(2):
        a = buffers.empty((size,), dtype)
        assert type(a) is np.ndarray
        assert (a.dtype, a.shape, a.dtype.isnative) == (dtype, (size,), True)
        assert a.flags.c_contiguous
        assert a.flags.aligned
        assert a.flags.writeable
        a[:] = 7
        assert a.nbytes < buffers.LEAST or address(a) % buffers.ALIGNMENT == 0


@pytest.mark.parametrize(
    "hold",
    [
        lambda a: a[1:],
        lambda a: a.T[::2],
        lambda a: a.view(np.int32),
        lambda a: a.reshape(-1)[5:6],
        memoryview,
        lambda a: np.frombuffer(a, np.uint8),
        lambda a: np.from_dlpack(a),
        lambda a: a.flat,
        lambda a: iter(a),
        lambda a: np.lib.stride_tricks.sliding_window_view(a, (1, 3)),
        lambda a: {"deep": [a.real]},
    ],
)
def test_what_is_held_is_not_used_again(hold: Any) -> None:
    a = buffers.empty(SHAPE, FLOAT32)
    where = address(a)
    held = hold(a)
    del a
    other = buffers.empty(SHAPE, FLOAT32)
    assert address(other) != where
    del other, held
    both = [buffers.empty(SHAPE, FLOAT32) for _ in range(2)]
    assert where in map(address, both)


def test_what_an_exception_holds_is_not_used_again() -> None:
    def fail() -> None:
        a = buffers.empty(SHAPE, FLOAT32)
        places.append(address(a))
        raise RuntimeError

    places: list[int] = []
    try:
        fail()
    except RuntimeError as error:
        held = error
        assert address(buffers.empty(SHAPE, FLOAT32)) not in places
        assert held.__traceback__ is not None


def test_the_oldest_leave_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    mb = 1 << 20
    limit_of(monkeypatch, 4 * mb)
    one, two, three = (buffers.empty((n * mb,), np.dtype("u1")) for n in (2, 2, 1))
    places = [address(a) for a in (one, two, three)]
    del one, two, three
    assert buffers.waiting() == 3 * mb
    found = [address(buffers.empty((n * mb,), np.dtype("u1"))) for n in (2, 1)]
    assert found == places[1:]
    big = buffers.empty((5 * mb,), np.dtype("u1"))
    del big
    assert buffers.waiting() == 3 * mb


def test_keeping_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_of(monkeypatch, 0)
    with buffers.keep_memory():
        buffers.empty(SHAPE, FLOAT32)
        with buffers.keep_memory():
            pass
        assert buffers.waiting() >= 3 << 20
    assert buffers.waiting() == 0


def test_memory_can_be_given_back() -> None:
    a = buffers.empty(SHAPE, FLOAT32)
    a[:] = 7
    held = a[1:]
    buffers.empty(SHAPE, FLOAT32)
    assert buffers.waiting() > 0
    convcore.release_memory()
    assert buffers.waiting() == 0
    assert (held == 7).all()


def test_the_last_that_came_is_taken_first() -> None:
    one, two = (buffers.empty(SHAPE, FLOAT32) for _ in range(2))
    places = [address(one), address(two)]
    del one, two
    assert address(buffers.empty(SHAPE, FLOAT32)) == places[1]


def test_memory_that_waits_is_given_up_for_other_sizes() -> None:
    """Otherwise a call fails though there is memory enough."""
    code = (
        "import resource, numpy as np\n"
        "from convcore.runtime import buffers\n"
        "f = np.dtype('u1')\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (450 << 20),) * 2)\n"
        "buffers.empty((192 << 20,), f)\n"
        "assert buffers.waiting() == 192 << 20\n"
        "a = buffers.empty((320 << 20,), f)\n"
        "assert buffers.waiting() == 0\n"
        "try:\n"
        "    buffers.empty((448 << 20,), f)\n"
        "except MemoryError as error:\n"
        "    assert 'no memory for' in str(error)\n"
    )
    environment = os.environ | {"CONVCORE_KEEP_BYTES": str(256 << 20)}
    if not sys.platform.startswith("linux"):
        pytest.skip("no such limit here")
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_interruptions_lose_nothing() -> None:
    """A signal in the middle of a change left the lock shut, and memory nowhere."""

    def interrupt(*_: Any) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                while True:
                    buffers.empty(SHAPE, FLOAT32)
            except InterruptedError:
                continue
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert buffers.waiting() <= 2 * (3 << 20)
    held = [buffers.empty(SHAPE, FLOAT32) for _ in range(3)]
    assert buffers.waiting() == 0
    del held
    assert buffers.waiting() == 3 * (3 << 20)


def test_a_base_cannot_be_copied() -> None:
    """Two copies would give the same memory back."""
    base = buffers.empty(SHAPE, FLOAT32).base
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="reduce"):
            copied(base)


def test_results_can_be_made_read_only_and_back() -> None:
    a = buffers.empty(SHAPE, FLOAT32)
    a.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        a[0] = 1
    a.flags.writeable = True
    a[0] = 1


def test_keeping_ends_after_an_error_and_within_itself() -> None:
    @buffers.keep_memory()
    def work(depth: int) -> None:
        if depth:
            work(depth - 1)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        work(3)
    assert not buffers._keepers


def test_threads_never_share_memory() -> None:
    """Each writes its own number, and looks for it again."""

    def work(number: int) -> int:
        rng = np.random.default_rng(number)
        held: list[Any] = []
        for turn in range(300):
            shape = (1 << 17) * int(rng.integers(1, 4))
            a = buffers.empty((shape,), FLOAT32)
            a[:: 1 << 10] = mark = number * 1000 + turn
            held.append((a[1 << 10 :], mark))
            if len(held) > 3:
                view, expected = held.pop(int(rng.integers(4)))
                assert (view[:: 1 << 10] == expected).all()
        return len(held)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [3] * 8
    assert buffers.waiting() <= buffers.LIMIT


def test_threads_never_share_results() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 4, 300, 300)).astype(np.float32)

    def work(number: int) -> None:
        w = np.full((1, 4, 1, 1), number, np.float32)
        right = x.sum(1, keepdims=True) * number
        results = [F.conv2d(x, w) for _ in range(3)]
        for _ in range(20):
            results.append(F.conv2d(x, w))
            assert np.array_equal(results.pop(0), right)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(1, 5)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_keeps_what_waits_but_not_for_others() -> None:
    """Threads of the parent that keep memory are not there."""
    code = (
        "import os, sys, numpy as np\n"
        "from convcore.runtime import buffers\n"
        "f = np.dtype('f4')\n"
        "a = buffers.empty((1 << 20,), f); a[:] = 7\n"
        "buffers.empty((1 << 20,), f)\n"
        "kept = buffers.keep_memory(); kept.__enter__()\n"
        "pid = os.fork()\n"
        "if pid:\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "assert buffers.waiting() == 4 << 20 and (a == 7).all()\n"
        "del a\n"
        "assert buffers.waiting() == 8 << 20\n"
        "assert not buffers._keepers\n"
        "kept.__exit__(None, None, None)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_arrays_that_live_until_the_end() -> None:
    code = (
        "import numpy as np, convcore\n"
        "from convcore.runtime import buffers\n"
        "a = buffers.empty((1 << 20,), np.dtype('f4')); np.held = a"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""


@pytest.mark.parametrize("given", ["-1", "many", "1.5", "", "²"])
def test_a_limit_that_is_no_number(given: str) -> None:
    with pytest.raises(ValueError, match="CONVCORE_KEEP_BYTES: must be a whole number"):
        buffers._checked_limit(given)


def test_the_limit() -> None:
    assert buffers._checked_limit("0") == 0
    assert buffers._checked_limit("123456789") == 123456789
    assert 0 < buffers._checked_limit(None) <= 256 << 20


def test_the_memory_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "memory", lambda: None)
    machine = buffers._memory_of_machine()
    assert machine == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(cgroup, "memory", lambda: machine // 3)
    assert buffers._memory_of_machine() == machine // 3


def test_results_come_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "POISON", False)
    x = np.ones((1, 2, 512, 512), np.float32)
    places = set()
    for _ in range(5):
        places.add(address(F.conv2d(x, np.ones((2, 2, 1, 1), np.float32))))
    assert len(places) == 1
