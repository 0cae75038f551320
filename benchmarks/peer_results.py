"""What another library computes from given arrays, in a process of its own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.case import Array, Case, Data
from benchmarks.measure import Worker, workers

_SECONDS = 120.0  # of one answer, at most


class Results:
    """A library that is asked for results.

    Parameters
    ----------
    worker : Worker
    folder : Path
        Where arrays are handed over.
    """

    def __init__(self, worker: Worker, folder: Path) -> None:
        self._worker, self._file = worker, folder / "arrays.npz"
        self.versions = worker.versions

    def result(self, case: Case, arrays: Data) -> Array | None:
        """Compute a case; None where the library cannot."""
        np.savez(self._file, x=arrays.x, weight=arrays.weight, grad_y=arrays.grad_y)
        request = {"do": "compute", "case": case.as_json(), "arrays": str(self._file)}
        answer = self._worker.ask(request, _SECONDS)
        if "unsupported" in answer:
            return None
        if "error" in answer:
            raise RuntimeError(f"{self._worker.peer}: {answer['error']}")
        found: Array = np.load(answer["saved"])
        return found


@contextmanager
def asked(peer: str, threads: int, python: str) -> Iterator[Results]:
    """Start a library's process, and end it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        workers([peer], threads, python) as started,
    ):
        yield Results(started[peer], Path(folder))
