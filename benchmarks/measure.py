"""Measure libraries against each other: processes that take turns, A B A B.

Only one process works at a time. The others keep their thread pools, and a pool spins
for a while after a call (libgomp some milliseconds, OpenBLAS up to tens), which would
slow down whoever comes next. So each turn waits until the last worker's CPU clock
stands still. Wait policies of the runtimes are left alone: OMP_WAIT_POLICY=passive
would quieten them, too, but is not what users run, and makes every short call wake its
threads anew.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.case import Case
from benchmarks.peers import needs_convcore

START_SECONDS = 120.0  # to import a library
QUIET_SECONDS = 0.003  # a clock that stands still this long belongs to sleepers
PATIENCE_SECONDS = 1.0  # for it to stand still
BLIND_PAUSE_SECONDS = 0.05  # where other processes' clocks cannot be read

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_ROOT = Path(__file__).parent.parent


class WorkerError(Exception):
    """A worker cannot start, died, or was too slow; says which."""


class Worker:
    """One library in its process.

    Parameters
    ----------
    peer : str
        As in `peers`.
    threads : int
        Set once, for the life of the process: BLAS pools take no later change.
    python : str
        The interpreter of peers that do without convcore.

    Raises
    ------
    WorkerError
        When the library cannot be imported there.
    """

    def __init__(self, peer: str, threads: int, python: str = sys.executable) -> None:
        self.peer, self.threads = peer, threads
        self._python = sys.executable if needs_convcore(peer) else python
        self._start()

    def _start(self) -> None:
        environment = dict(os.environ)
        environment |= dict.fromkeys(_THREAD_VARIABLES, str(self.threads))
        command = [self._python, "-m", "benchmarks.worker", self.peer]
        try:
            self._process = subprocess.Popen(
                [*command, str(self.threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=_ROOT,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the parent to handle
            )
        except OSError as error:
            raise WorkerError(f"{self._python} does not run: {error}") from None
        self._replies: queue.Queue[str] = queue.Queue()
        reader = (self._process, self._replies)
        threading.Thread(target=_read, args=reader, daemon=True).start()
        try:
            hello = self._receive(START_SECONDS)
            if "error" in hello:
                raise WorkerError(f"{self.peer}: {hello['error']} ({self._python})")
        except WorkerError:
            self.close()
            raise
        self.versions: dict[str, str] = hello["versions"]
        self.imported_bytes: int = hello["resident"]

    def _receive(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._replies.get(timeout=seconds)
        except queue.Empty:
            raise WorkerError(f"over {seconds:g} s") from None
        if not line:
            code = self._process.wait()
            raise WorkerError(f"{self.peer} died with code {code}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises
        ------
        WorkerError
            When no answer comes within `seconds`, or the process dies. It is
            replaced by a new one then, in which nothing is prepared.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return self._receive(seconds)
        except (WorkerError, OSError) as error:
            self.close()
            self._start()
            raise WorkerError(str(error)) from None

    def settle(self) -> None:
        """Wait until the process sleeps."""
        end = time.monotonic() + PATIENCE_SECONDS
        before = self._cpu_seconds()
        if before is None:
            time.sleep(BLIND_PAUSE_SECONDS)
            return
        while time.monotonic() < end:
            time.sleep(QUIET_SECONDS)
            after = self._cpu_seconds()
            if after is None or after - before < 0.1 * QUIET_SECONDS:
                return
            before = after

    def _cpu_seconds(self) -> float | None:
        """CPU time of all threads of the process; None where it cannot be read."""
        if not sys.platform.startswith("linux"):
            return None
        try:  # the clock that clock_getcpuclockid(3) gives for a process
            return time.clock_gettime((~self._process.pid << 3) | 2)
        except OSError:
            return None

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not sent yet goes with the process
                    pipe.close()


@contextmanager
def workers(
    peers: list[str], threads: int, python: str = sys.executable
) -> Iterator[dict[str, Worker]]:
    """Start one worker for each peer, and end all of them whatever happens."""
    started: dict[str, Worker] = {}
    try:
        for peer in peers:
            started[peer] = Worker(peer, threads, python)
        yield started
    finally:
        for worker in started.values():
            worker.close()


@dataclass
class Measurement:
    """The samples of one case: `seconds[peer][i]` was taken in round i.

    Parameters
    ----------
    seconds : dict of list of float
        Seconds of one call, by peer.
    skipped : dict of str
        Why a peer has no samples.
    disagree : list of str
        Peers whose result is not that of the first one.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    disagree: list[str] = field(default_factory=list)


def measure(
    libraries: dict[str, Worker], case: Case, rounds: int, limit: float
) -> Measurement:
    """Time a case in every library.

    Parameters
    ----------
    libraries : dict of Worker
        By peer; results are compared with the first one's.
    case : Case
    rounds : int
        Samples of each library. Every other round goes backwards, so that none is
        always the one that follows a certain other.
    limit : float
        Seconds of one call, beyond which a library is skipped for this case.

    Returns
    -------
    Measurement
    """
    found = Measurement()
    patience = 30 + 5 * limit  # making the data, and a few calls; else it hangs
    digests: dict[str, list[float]] = {}
    for peer, worker in libraries.items():
        request = {"do": "prepare", "case": case.as_json(), "limit": limit}
        reply = _asked(worker, request, patience, found)
        if reply is not None:
            digests[peer] = reply["digest"]
            found.seconds[peer] = []
        worker.settle()
    reference = next(iter(digests.values()), [])
    for peer, digest in digests.items():
        if not agree(reference, digest, case.tolerance):
            found.disagree.append(peer)
    for turn in range(rounds):
        order = list(found.seconds)
        for peer in reversed(order) if turn % 2 else order:
            reply = _asked(libraries[peer], {"do": "run"}, patience, found)
            if reply is None:
                del found.seconds[peer]
            else:
                found.seconds[peer].append(reply["seconds"])
            libraries[peer].settle()
    return found


def agree(reference: list[float], digest: list[float], tolerance: float) -> bool:
    """Compare two digests: the same size, and values within tolerance x norm."""
    size, norm = reference[:2]
    return digest[0] == size and all(
        abs(a - b) <= tolerance * max(norm, 1e-30)
        for a, b in zip(reference[1:], digest[1:], strict=True)
    )


def _read(process: "subprocess.Popen[str]", replies: "queue.Queue[str]") -> None:
    """Pass on the lines of a worker, and an empty one at their end."""
    assert process.stdout is not None
    for line in process.stdout:
        replies.put(line)
    replies.put("")


def _asked(
    worker: Worker, request: dict[str, Any], seconds: float, found: Measurement
) -> dict[str, Any] | None:
    """Ask; where nothing comes of it, note why."""
    try:
        reply = worker.ask(request, seconds)
    except WorkerError as error:
        found.skipped[worker.peer] = str(error)
        return None
    for problem in ("unsupported", "error"):
        if problem in reply:
            found.skipped[worker.peer] = reply[problem]
            return None
    return reply
