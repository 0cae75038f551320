"""Memory of large results, used again once nobody holds them.

The system gives fresh memory page by page, at the first write, and clears it: for results
of megabytes that takes longer than a layer that is bound by memory. So results of LEAST
bytes and more lie in blocks that come back here when their array and all views of it are
gone, and go to a later result of about the same size. Nobody knows a block but the base
of its array: what is held anywhere, by whatever kind of view, is never used again.

Blocks that wait for that have at most `LIMIT` bytes, the oldest leave first; any number
inside of `keep_memory`, where the same sizes are needed again and again.

======================  ==============================================================
CONVCORE_KEEP_BYTES     that limit, 0 for none; by default 1/16 of the memory of the
                        machine or container, and at most 256 MiB
======================  ==============================================================
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf, prod
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

# Bytes; below, NumPy's own memory is faster, by 2 us. Above, the system may get it back at
# each end, when it lies at the end of the heap, and must clear it again: steps of LeNet,
# with results of 300 and 400 KB, had 0 or 680 page faults, and took a quarter more then.
LEAST = 1 << 18
ALIGNMENT = 64  # bytes: a cache line, and the widest vector
_STEPS = 4  # sizes of blocks between powers of two: at most a fifth is not used
_MOST = 256 << 20


class _Memory(NamedTuple):
    """The memory of a block."""

    array: npt.NDArray[np.uint8]
    address: int
    size: int


class _Store:
    """Blocks that wait.

    Nobody waits for the lock: a signal handler, or the end of an array, may come in the
    middle of a change that this very thread makes.
    """

    def __init__(self) -> None:
        self.bytes = 0  # of all that wait
        self._freed: deque[_Memory] = deque()  # on their way; its methods are atomic
        self._waiting: dict[int, deque[tuple[int, _Memory]]] = {}  # by size, with turns
        self._turn = 0
        self._lock = Lock()

    def take(self, size: int) -> _Memory:
        """Take a block that waits, the last that came, or a fresh one."""
        if self._lock.acquire(blocking=False):
            try:
                same = self._waiting.get(size)
                if same:
                    self.bytes -= size
                    return same.pop()[1]
            finally:
                self._lock.release()
        array = np.empty(size + ALIGNMENT, np.uint8)
        start = array.ctypes.data
        return _Memory(array, start + -start % ALIGNMENT, size)

    def give_back(self, memory: _Memory) -> None:
        """Let a block wait that nobody holds any more."""
        self._freed.append(memory)
        self.settle()

    def settle(self) -> None:
        """Do what there is to do: sort in what came back, and keep to the limit.

        Whoever finds the lock taken leaves that to its holder, which looks again after it
        has given up the lock.
        """
        while (self._freed or self.bytes > _limit()) and self._lock.acquire(False):
            try:
                while self._freed:
                    memory = self._freed.popleft()
                    self._turn += 1
                    same = self._waiting.setdefault(memory.size, deque())
                    same.append((self._turn, memory))
                    self.bytes += memory.size
                self._trim(_limit())
            finally:
                self._lock.release()

    def release(self) -> None:
        """Give all that waits back to the system."""
        self.settle()
        if self._lock.acquire(blocking=False):
            try:
                self._trim(0)
            finally:
                self._lock.release()

    def _trim(self, most: float) -> None:
        while self.bytes > most:
            oldest = min(
                (q for q in self._waiting.values() if q), key=lambda q: q[0][0]
            )
            self.bytes -= oldest.popleft()[1].size


class _Block:
    """The base of one array: when it ends, nobody holds the memory any more."""

    __slots__ = ("__array_interface__", "memory")

    def __init__(self, memory: _Memory, shape: tuple[int, ...], kind: str) -> None:
        self.memory = memory
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": kind,
            "data": (memory.address, False),
        }

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending():
            _store.give_back(self.memory)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Give an array that is not initialised; aligned to ALIGNMENT if it is large.

    Raises
    ------
    MemoryError
        When there is not enough memory.
    """
    size = prod(shape) * dtype.itemsize
    if size < LEAST:
        return np.empty(shape, dtype)
    memory = _store.take(_size_of_block(size))
    return np.asarray(_Block(memory, shape, dtype.str))


@contextmanager
def keep_memory() -> Iterator[None]:
    """Keep the memory of all results that end, for those that come, without a limit.

    For a loop of one's own whose steps need the same sizes again and again; `train.fit`
    and `train.predict` do it themselves. Afterwards, what is above the limit goes back
    to the system. It holds for all threads.

    Examples
    --------
    >>> import convcore
    >>> with convcore.keep_memory():
    ...     pass  # the steps
    """
    token = object()
    _keepers[token] = None
    try:
        yield
    finally:
        del _keepers[token]
        _store.settle()


def release() -> None:
    """Give the blocks that wait back to the system."""
    _store.release()


def waiting() -> int:
    """Count the bytes of the blocks that wait."""
    return _store.bytes


def _limit() -> float:
    return inf if _keepers else LIMIT


def _size_of_block(size: int) -> int:
    """Round up to one of the sizes of blocks."""
    step = max(1, (1 << (size - 1).bit_length() - 1) // _STEPS)
    return -(-size // step) * step


def _memory_of_machine(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Give the bytes that this process may use: the machine's, or the container's."""
    sizes = []
    with suppress(
        OSError, ValueError, AttributeError
    ):  # other systems, or no such file
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no number
            sizes.append(int((cgroup / name).read_text()))
    return min((size for size in sizes if size > 0), default=_MOST)


def _checked_limit(given: str | None) -> int:
    """Read the environment variable."""
    if given is None:
        return min(_MOST, _memory_of_machine() // 16)
    if not (given.isascii() and given.isdigit()):
        raise ValueError(
            f"CONVCORE_KEEP_BYTES: must be a whole number of bytes, got {given!r}"
        )
    return int(given)


def _after_fork() -> None:
    """Begin anew in a child: another thread of the parent may have been in the middle."""
    global _store
    _store = _Store()


LIMIT = _checked_limit(os.environ.get("CONVCORE_KEEP_BYTES"))
_keepers: dict[object, None] = {}
_store = _Store()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
