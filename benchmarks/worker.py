"""One library in a process of its own: requests come in, one line of JSON each.

    python -m benchmarks.worker PEER THREADS

=======================================  =============================================
request                                  answer
=======================================  =============================================
(at the start)                           {"versions": {name: version},
                                          "resident": bytes after the import}
{"do": "prepare", "case": {fields},      {"repetitions": n, "digest": [numbers]}
 "limit": seconds}
{"do": "run"}                            {"seconds": of one call}
{"do": "output"}                         {"shape": [...], "values": [...]}
{"do": "compute", "case": {fields},      {"saved": file, an .npy}
 "arrays": file, an .npz}
{"do": "memory"}                         {"faults": page faults of one call,
                                          "peak": bytes in RAM at most}
=======================================  =============================================

What cannot be done answers {"unsupported": reason}, what fails {"error": message}.
The end of the input ends the worker.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import IO, Any

import numpy as np

from benchmarks import memory, timing
from benchmarks.case import Array, Case, Data, data
from benchmarks.elementwise import ElementwiseCase
from benchmarks.networks import NetworkCase
from benchmarks.peers import Peer, Unsupported, load
from benchmarks.pool_extra import PoolExtraCase
from benchmarks.windows import WindowCase

_KINDS: tuple[type[Case], ...] = (
    Case,
    WindowCase,
    PoolExtraCase,
    ElementwiseCase,
    NetworkCase,
)
_FAULT_CALLS = 3  # a mean of fewer page faults says little
_DIGEST_ELEMENTS = 1_000_003  # elements that a digest looks at, at most


class Server:
    """Answers requests with one library.

    Parameters
    ----------
    peer : Peer
        Already started.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._call: Callable[[], Any] | None = None
        self._repetitions = 1

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        if request["do"] == "prepare":
            self._call = None  # free the last case before the next one is built
            case = case_from_json(request["case"])
            call = self._peer.prepare(case, data(case))
            start = perf_counter()
            result = call()
            seconds = perf_counter() - start
            if seconds > request["limit"]:
                raise Unsupported(f"{seconds:.1f} s a call")
            output = self._peer.output(result)
            digest = digest_of(output if case.repeatable else np.zeros(output.shape))
            del result, output
            self._repetitions = timing.calibrate(call)
            self._call = call
            return {"repetitions": self._repetitions, "digest": digest}
        if request["do"] == "compute":
            return self._computed(request["case"], Path(request["arrays"]))
        if self._call is None:
            raise RuntimeError("nothing is prepared")
        if request["do"] == "run":
            return {"seconds": timing.sample(self._call, self._repetitions)}
        if request["do"] == "output":
            output = self._peer.output(self._call())
            return {"shape": output.shape, "values": output.ravel().tolist()}
        if request["do"] == "memory":
            found = memory.faults(self._call, max(self._repetitions, _FAULT_CALLS))
            return {"faults": found, "peak": memory.peak_bytes()}
        raise ValueError(f"unknown request {request['do']!r}")

    def _computed(self, fields: dict[str, Any], file: Path) -> dict[str, Any]:
        """Run a case on arrays of a file, once; leave the result beside it."""
        with np.load(file) as loaded:
            arrays = Data(loaded["x"], loaded["weight"], loaded["grad_y"])
        output = self._peer.output(self._peer.prepare(case_from_json(fields), arrays)())
        saved = file.with_suffix(".npy")
        np.save(saved, output)
        return {"saved": str(saved)}


def case_from_json(fields: dict[str, Any]) -> Case:
    """Build the case from what its `as_json` gave, lists back to tuples."""
    values = {name: _tuples(value) for name, value in fields.items()}
    name = values.pop("class")
    return next(kind for kind in _KINDS if kind.__name__ == name)(**values)


def digest_of(output: Array) -> list[float]:
    """Sum up an output so that two libraries can be compared.

    Parameters
    ----------
    output : C-contiguous array

    Returns
    -------
    list of float
        The element count, then, over at most a million elements spread evenly: their
        norm, and their products with two waves, which tell permutations apart.
    """
    flat = output.ravel()
    values = flat[:: flat.size // _DIGEST_ELEMENTS + 1].astype(np.float64)
    at = np.arange(values.size)
    waves = [float((values * np.cos(k * at)).sum()) for k in (0.1, 2.3)]
    return [float(flat.size), float(np.sqrt((values * values).sum())), *waves]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def main() -> None:
    """Serve until the input ends."""
    name, threads = sys.argv[1], int(sys.argv[2])
    replies = _private_stdout()
    try:
        peer = load(name)
        first: dict[str, Any] = {"versions": peer.start(threads)}
        first["resident"] = memory.resident_bytes()
    except Exception as error:
        _send(replies, {"error": f"{type(error).__name__}: {error}"})
        return
    _send(replies, first)
    server = Server(peer)
    for line in sys.stdin:
        try:
            reply = server.answer(json.loads(line))
        except Unsupported as reason:
            reply = {"unsupported": str(reason)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        _send(replies, reply)


def _private_stdout() -> IO[str]:
    """Keep stdout for replies: what libraries print goes to stderr."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def _send(replies: IO[str], reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
