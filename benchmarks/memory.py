"""What the system says about the memory of this process."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of ru_maxrss


def peak_bytes() -> int:
    """Give the most memory that this program has had in RAM.

    Linux counts `ru_maxrss` from before the program was started, when the process was
    still its parent's copy; VmHWM is of the program alone.
    """
    return (
        _status("VmHWM") or _UNIT * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )


def resident_bytes() -> int:
    """Give the memory that it has in RAM now; its peak where the system does not say."""
    return _status("VmRSS") or peak_bytes()


def faults(call: Callable[[], object], repetitions: int) -> float:
    """Count the page faults of a call: pages that the system had to find and clear."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(repetitions):
        call()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return (after - before) / repetitions


def _status(field: str) -> int:
    """Read a line of /proc/self/status, in bytes; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(field))
