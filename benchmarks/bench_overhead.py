"""Measure what a call costs that has next to nothing to compute, beside PyTorch.

    python -m benchmarks.bench_overhead --python ../torchvenv/bin/python

Arrays of one channel and eight elements an axis; layers of sixteen features. Both
libraries are a process of their own, with one thread, and take turns. The numbers are
microseconds of CPU time a call: the smallest mean of a few thousand calls. Without
`--python`, or where it has no torch, convcore is measured alone.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.render import Stream

_ROOT = Path(__file__).parent.parent
_EXTENT, _FEATURES = 8, 16
_CALLS = 3000  # of a sample: some 10 ms

Call = Callable[[], Any]
Calls = dict[str, Call]


def convcore_calls() -> Calls:
    """Name the calls of convcore."""
    np, F, nn = map(import_module, ("numpy", "convcore.functional", "convcore.nn"))
    import_module("convcore").set_num_threads(1)

    def backward(n: int, *arrays: Any) -> Call:
        return partial(getattr(F, f"conv{n}d_backward"), *arrays)

    return _calls(F, nn, partial(np.ones, dtype=np.float32), backward)


def torch_calls() -> Calls:
    """Name those of PyTorch; the backward one is what its autograd calls."""
    torch = import_module("torch")
    torch.set_num_threads(1)
    torch.inference_mode().__enter__()
    gradients = torch.ops.aten.convolution_backward.default

    def backward(n: int, *arrays: Any) -> Call:
        one, none = [1] * n, [0] * n
        how = ([1], one, none, one, False, none, 1, [True, True, True])
        return partial(gradients, *arrays, *how)

    return _calls(torch.nn.functional, torch.nn, torch.ones, backward)


def _calls(
    F: Any, nn: Any, ones: Callable[..., Any], backward: Callable[..., Call]
) -> Calls:
    """Name the calls of a library, given its two modules and what they do not share."""
    calls: Calls = {}
    bias = ones((1,))
    for n in (1, 2, 3):
        x, w = ones((1, 1, *(_EXTENT,) * n)), ones((1, 1, *(3,) * n))
        conv = getattr(F, f"conv{n}d")
        calls |= {
            f"conv{n}d": partial(conv, x, w),
            f"conv{n}d, bias": partial(conv, x, w, bias),
            f"conv{n}d, bias, padding": partial(conv, x, w, bias, padding=1),
            f"conv{n}d, backward": backward(n, conv(x, w), x, w),
            f"conv_transpose{n}d": partial(getattr(F, f"conv_transpose{n}d"), x, w),
            f"max_pool{n}d": partial(getattr(F, f"max_pool{n}d"), x, 2),
            f"avg_pool{n}d": partial(getattr(F, f"avg_pool{n}d"), x, 2),
        }
    x, rows = ones((1, 1, _EXTENT, _EXTENT)), ones((1, _FEATURES))
    w, b = ones((_FEATURES, _FEATURES)), ones((_FEATURES,))
    return {
        **calls,
        "linear": partial(F.linear, rows, w, b),
        "relu": partial(F.relu, x),
        "Conv2d": partial(nn.Conv2d(1, 1, 3), x),
        "Linear": partial(nn.Linear(_FEATURES, _FEATURES), rows),
        "ReLU": partial(nn.ReLU(), x),
    }


_LIBRARIES = {"convcore": convcore_calls, "torch": torch_calls}


def serve(library: str) -> None:
    """Answer the name of a call with its microseconds, line by line."""
    calls = _LIBRARIES[library]()
    print("|".join(calls), flush=True)
    for line in sys.stdin:
        call = calls[line.strip()]
        best = float("inf")
        for _ in range(3):
            begin = time.thread_time_ns()
            for _ in range(_CALLS):
                call()
            best = min(best, (time.thread_time_ns() - begin) / _CALLS / 1e3)
        print(best, flush=True)


class _Server:
    """A library in its process."""

    def __init__(self, python: str, library: str) -> None:
        command = [python, "-m", "benchmarks.bench_overhead", "--serve", library]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
        )
        self.names = self._answer().split("|")

    def ask(self, name: str) -> float:
        assert self._process.stdin is not None
        print(name, file=self._process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> None:
        """End the process: the end of its input does."""
        with self._process:
            pass

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a library does not run there; see above")
        return line.strip()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="an interpreter that has torch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=_LIBRARIES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    servers = [_Server(sys.executable, "convcore")]
    if given.python:
        servers.append(_Server(given.python, "torch"))
    table = Stream(
        ("call", "convcore us", "torch us", "torch / convcore"), (24, 11, 9, 16)
    )
    print(f"{table.head}\n{table.rule}")
    for name in servers[0].names:
        turns = [[server.ask(name) for server in servers] for _ in range(given.rounds)]
        best = [min(times) for times in zip(*turns, strict=True)]
        other = best[1] if len(best) > 1 else float("nan")
        line = (name, f"{best[0]:.2f}", f"{other:.2f}", f"{other / best[0]:.2f}")
        print(table.line(line), flush=True)
    for server in servers:
        server.close()


if __name__ == "__main__":
    main()
