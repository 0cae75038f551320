"""The machine's two ceilings, measured in the run that they judge.

Arithmetic: independent chains of multiply-adds in registers, in every thread, with the
instruction set that the kernels use. Memory: a parallel copy that moves as many bytes
as the operation has to, half of them in and half out.
"""

from collections.abc import Callable
from functools import partial
from math import inf, log2
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.case import Array, Case, Data

if TYPE_CHECKING:
    from benchmarks.measure import Worker

FMA_FLOP = 10**9  # of one call: milliseconds
ROUNDS = 5  # the best one counts: a ceiling is what can be reached
SERIAL_BYTES = (
    1 << 18
)  # below it, one thread copies in less time than it takes to wake two
STEPS = 8  # sizes of copies between one power of two and the next
REQUEST_SECONDS = 60.0


class Roofline:
    """The kernels of the ceilings, as a peer."""

    def start(self, threads: int) -> dict[str, str]:
        """Load the kernel of the instruction set in use."""
        from convcore import kernels
        from convcore.runtime import cpu

        self._threads = threads
        self._kernel = kernels.load("roofline", cpu.isa())
        return {}

    def prepare(self, case: Case, arrays: Data) -> Callable[[], Any]:
        """Give the call of "fma" or of "copy" (x to another buffer)."""
        if case.op == "copy":
            into = np.empty_like(arrays.x)
            threads = self._threads if into.nbytes >= SERIAL_BYTES else 1
            return partial(self._kernel.copy, arrays.x, into, threads)
        tile = self._kernel.tile_bytes() // np.dtype(case.dtype).itemsize
        sums = np.zeros(tile * self._threads, case.dtype)
        steps = np.array([FMA_FLOP // (2 * sums.size)])
        line = np.array([0.5, 1.0], case.dtype)  # acc * factor + term
        return partial(self._kernel.fma, steps, line, sums, self._threads)

    def output(self, result: Any) -> Array:
        """There is nothing to compare."""
        return np.zeros(1)


class Ceilings:
    """Measures ceilings through a worker, and remembers them.

    Parameters
    ----------
    worker : Worker
        Of the peer "roofline".
    """

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._peak: dict[str, float] = {}
        self._copy: dict[int, float] = {}

    def measure_peak(self, dtype: str) -> float:
        """Measure multiply-adds now; give the best rate so far in FLOP/s."""
        now = FMA_FLOP / self._best(Case("fma", "fprop", dtype))
        self._peak[dtype] = max(now, self._peak.get(dtype, 0.0))
        return self._peak[dtype]

    def copy_seconds(self, moved: int) -> float:
        """Give the seconds in which a copy moves that many bytes, read or written.

        Measured once for sizes within 5 %, and scaled: near the size of a cache, a power
        of two less may be three times as fast.
        """
        step = round(log2(max(moved, 1024)) * STEPS)
        bucket = round(2 ** (step / STEPS))
        if bucket not in self._copy:
            elements = bucket // 2 // np.dtype("float32").itemsize
            case = Case("copy", "fprop", "float32", x_shape=(elements,))
            self._copy[bucket] = self._best(case)
        return self._copy[bucket] * moved / bucket

    def _best(self, case: Case) -> float:
        request = {"do": "prepare", "case": case.as_json(), "limit": REQUEST_SECONDS}
        reply = self._worker.ask(request, REQUEST_SECONDS)
        if "error" in reply:
            raise RuntimeError(f"roofline: {reply['error']}")
        best = inf
        for _ in range(ROUNDS):
            answer = self._worker.ask({"do": "run"}, REQUEST_SECONDS)
            best = min(best, float(answer["seconds"]))
        self._worker.settle()
        return best
