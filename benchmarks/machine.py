"""Where, when and how a run took place."""

import os
import platform
import shlex
from datetime import datetime
from pathlib import Path

# What changes a measurement and is not on the command line.
_VARIABLES = (
    "CONVCORE_",
    "OMP_",
    "GOMP_",
    "OPENBLAS_",
    "MKL_",
    "ONEDNN_",
    "DNNL_",
    "ATEN_",
    "NPY_",
)
# What keeps a library from the instructions that it would choose itself.
_RESTRICTIONS = (
    "ATEN_CPU_CAPABILITY",
    "CONVCORE_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)


def describe() -> dict[str, str]:
    """Give processor, cores, system, Python and page size policy."""
    return {
        "cpu": _cpu_model(),
        "cores": str(len(_affinity())),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "huge pages": _huge_pages(),
    }


def command(module: str, arguments: list[str]) -> str:
    """Give the line that repeats the run, with the variables that matter in front."""
    named = [
        f"{name}={shlex.quote(value)}"
        for name, value in sorted(os.environ.items())
        if name.startswith(_VARIABLES)
    ]
    return " ".join([*named, "python", "-m", module, *map(shlex.quote, arguments)])


def origin(command: str, versions: dict[str, str]) -> dict[str, str]:
    """Tell where, when and how results of convcore alone were made."""
    return {
        "command": f"`{command}`",
        "date": now(),
        **describe(),
        "versions": ", ".join(f"{name} {text}" for name, text in versions.items()),
        "held back by": restrictions() or "nothing",
    }


def restrictions() -> str:
    """List the variables that hold a library back, as set; empty without any.

    A comparison is fair where nobody is held back, or everybody on purpose.
    """
    found = [
        f"{name}={os.environ[name]}" for name in _RESTRICTIONS if name in os.environ
    ]
    return ", ".join(found)


def now() -> str:
    """Give the date and time of the clock, with its zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def cores() -> int:
    """Count the processors that this process may use."""
    return len(_affinity())


class Neighbours:
    """Tells how much of the machine others used meanwhile."""

    def __init__(self) -> None:
        self._start = _system_ticks()
        self._own = _own_seconds()

    def report(self) -> str:
        """Describe the time since the start, once the workers have ended."""
        end = _system_ticks()
        if self._start is None or end is None:
            return "unknown"
        busy, stolen, total = (b - a for a, b in zip(self._start, end, strict=True))
        own = (_own_seconds() - self._own) * os.sysconf("SC_CLK_TCK")
        total = max(total, 1)
        others = max(busy - own, 0) / total
        return f"{others:.0%} of the CPU time, {stolen / total:.0%} stolen"


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    named = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return named[0] if named else platform.machine()


def _huge_pages() -> str:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text("utf-8")
    except OSError:
        return "unknown"
    return text.partition("[")[2].partition("]")[0]


def _system_ticks() -> tuple[int, int, int] | None:
    """Clock ticks of all processors: busy, stolen, all."""
    try:
        first = Path("/proc/stat").read_text("utf-8").splitlines()[0]
    except OSError:
        return None
    user, nice, system, idle, wait, irq, soft, stolen = map(int, first.split()[1:9])
    busy = user + nice + system + irq + soft
    return busy, stolen, busy + idle + wait + stolen


def _own_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
