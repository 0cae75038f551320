"""Whether memory, open files and threads of this process grow."""

import ctypes
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.memory import resident_bytes

M_ARENA_MAX = -8  # of glibc's malloc.h


class Sample(NamedTuple):
    """What the process has at a moment; files and threads are 0 where nobody tells."""

    at: float  # seconds
    resident: int  # bytes
    files: int
    threads: int  # of the system, those of OpenMP among them


def gather_memory() -> None:
    """Have all threads allocate from one heap, where the C library can do that.

    Each has one of its own otherwise, in which what is freed stays: with threads that come
    and go, the free parts grow for minutes, while the used ones do not.
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose is not None:
        choose(M_ARENA_MAX, 1)


def sample() -> Sample:
    """Look at the process, once the C library has given back what nobody holds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    return Sample(time.monotonic(), resident_bytes(), _entries("fd"), _entries("task"))


def growth(points: Sequence[tuple[float, float]]) -> float:
    """Give by how much the straight line nearest to the points rises along them."""
    if len(points) < 3:
        return 0.0
    at, value = np.array(points, float).T
    slope = float(np.polyfit(at - at[0], value, 1)[0])
    return slope * float(at[-1] - at[0])


def _entries(folder: str) -> int:
    path = Path("/proc/self") / folder
    return len(os.listdir(path)) if path.is_dir() else 0
