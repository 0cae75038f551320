"""Whether memory, open files and threads of this process grow."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.memory import resident_bytes


class Sample(NamedTuple):
    """What the process has at a moment; files and threads are 0 where nobody tells."""

    at: float  # seconds
    resident: int  # bytes
    files: int
    threads: int  # of the system, those of OpenMP among them


def sample() -> Sample:
    """Look at the process."""
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
