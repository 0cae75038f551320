"""What Linux's control groups leave to this process: processors and memory.

A limit may be set on the group that a process is in or on any group above, and the
smallest holds. Version 2 has one tree of groups, version 1 one for each controller; in a
container the root that can be seen is often the container's own group.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def processors(root: Path = _ROOT, own: Path = _OWN) -> int | None:
    """Give the processors' worth of time that is granted, rounded up; None for all."""
    granted = []
    for folder in _groups("cpu", root, own):
        for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with suppress(OSError, ValueError, ZeroDivisionError):  # "max": no number
                words = [
                    w for name in files for w in (folder / name).read_text().split()
                ]
                quota, period = map(int, words)
                if quota > 0:
                    granted.append(-(-quota // period))
    return min(granted, default=None)


def memory(root: Path = _ROOT, own: Path = _OWN) -> int | None:
    """Give the bytes that are granted; None for all."""
    granted = []
    for folder in _groups("memory", root, own):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                granted.append(int((folder / name).read_text()))
    return min((size for size in granted if size > 0), default=None)


def _groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """List the folders of the process's groups and of all groups above."""
    yield root
    yield root / controller
    with suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            tree = root / controller if controllers else root
            group = PurePosixPath(path.removeprefix("/"))
            if ".." not in group.parts:  # above what this namespace shows
                yield from (tree / above for above in (group, *group.parents))
