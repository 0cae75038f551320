"""How many threads a kernel uses. The results never depend on it.

A call uses, in this order of precedence: one thread, in a child that was forked (OpenMP's
threads do not survive a fork) or when the work is small; the number of `num_threads`, in
its block; that of `set_num_threads`; the number that OpenMP gives (OMP_NUM_THREADS,
threadpoolctl), which without OMP_NUM_THREADS is held to the processors that affinity and
the container's cgroup quota leave. It is never more than four for each of those.

Calls of several Python threads at once share that number, and where the system refuses
threads a call has fewer: `kernels/teams.pyx`.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from convcore.kernels import probe, teams
from convcore.problem.rules import integer
from convcore.runtime import cgroup

# Below this many multiply-adds, waking a second thread costs more than it saves:
# `python -m benchmarks.bench_threads`, 2026-11.
SERIAL_MACS = 100_000
_MOST_PER_CPU = 4

_requested: int | None = None
_within: ContextVar[int | None] = ContextVar("convcore.num_threads", default=None)
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def visible_cpus() -> int:
    """Count the processors that this process may use: affinity and cgroup quota."""
    # Not os.sched_getaffinity: with OMP_PROC_BIND, OpenMP ties this thread to one
    # processor and knows the others as well.
    cpus = probe.processors()
    granted = cgroup.processors()
    return cpus if granted is None else max(1, min(cpus, granted))


_CPUS = visible_cpus()


def _is_asked(text: str) -> bool:
    """Tell whether OpenMP takes the value of OMP_NUM_THREADS: positive numbers."""
    return all(re.fullmatch(r"\s*\+?0*[1-9]\d*\s*", n) for n in text.split(","))


_ASKED = _is_asked(os.environ.get("OMP_NUM_THREADS", ""))  # as OpenMP, at the start


def set_num_threads(n: int | None) -> None:
    """Set the number of threads of every later call in this process.

    Parameters
    ----------
    n : int or None
        At least 1 and at most four times the visible processors; None gives the
        decision back to OpenMP.

    Raises
    ------
    ValueError, TypeError
        When n is out of range, or no integer.

    Examples
    --------
    >>> import convcore
    >>> convcore.set_num_threads(1)
    >>> convcore.get_num_threads()
    1
    >>> convcore.set_num_threads(None)
    """
    global _requested
    _requested = None if n is None else _checked("set_num_threads", n)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Set the number of threads of the calls inside of a `with` block.

    Parameters
    ----------
    n : int
        At least 1 and at most four times the visible processors.

    Raises
    ------
    ValueError, TypeError
        When n is out of range, or no integer.

    Notes
    -----
    It holds in this thread, or asynchronous task, alone, and goes before
    `set_num_threads`. What was before comes back at the end, also after an exception.

    Examples
    --------
    >>> import convcore
    >>> with convcore.num_threads(1):
    ...     convcore.get_num_threads()
    1
    """
    token = _within.set(_checked("num_threads", n))
    try:
        yield
    finally:
        _within.reset(token)


def _checked(function: str, n: object) -> int:
    number = integer(function, "n", n)
    most = _MOST_PER_CPU * _CPUS
    if not 1 <= number <= most:
        raise ValueError(f"{function}: n must be in 1 .. {most}, got {number}")
    return number


def get_num_threads() -> int:
    """Give the number of threads that a large call would use now, if it were alone."""
    if _forked or not probe.openmp():
        return 1
    within = _within.get()
    if within is not None:
        return within
    requested = _requested  # another thread may set it meanwhile
    if requested is not None:
        return requested
    threads = min(probe.max_threads(), _MOST_PER_CPU * _CPUS)
    return threads if _ASKED else min(threads, _CPUS)


def team(macs: int) -> int:
    """Give the number of threads for a call of so many multiply-adds, in this thread."""
    return 1 if macs < SERIAL_MACS else teams.share(get_num_threads())
