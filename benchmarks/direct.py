"""Time convcore alone, in this process: for those who change a kernel."""

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks import machine, timing
from benchmarks.case import DIRECTIONS, DTYPES, Case, data
from benchmarks.peers import Unsupported
from benchmarks.peers.with_convcore import Convcore
from benchmarks.problems import suite, suites
from benchmarks.render import NONE, Stream, label
from benchmarks.results import Spread
from benchmarks.roofline import FMA_FLOP, Roofline
from benchmarks.rows import Row, named

_SPELT = {"conv": "conv", "pool": "max_pool", "elementwise": "relu"}  # without a name
_HEADER = ("layer", "dir", "algorithm", "ms", "least", "GFLOP/s", "of peak", "GB/s")

Algorithms = Callable[[Row, str], Iterable[str]]


@dataclass(frozen=True)
class Options:
    """What all of the direct benchmarks ask for."""

    rows: list[Row]
    directions: list[str]
    dtype: str
    threads: int
    samples: int


def parser(description: str | None, layer: str) -> argparse.ArgumentParser:
    """Give the parser of the common options; `layer` is the default of --layer."""
    made = argparse.ArgumentParser(description=description)
    add = made.add_argument
    add(
        "--layer",
        default=layer,
        help="a regular expression that the name has, or a problem in its spelling "
        f"(default {layer}); `python -m benchmarks.report --list --suite "
        f"{','.join(suites())}` lists the names",
    )
    add("--n", type=int, help="batch, instead of that of the rows")
    add("--directions", nargs="+", choices=DIRECTIONS, default=list(DIRECTIONS))
    add("--dtype", choices=DTYPES, default="float32")
    add("--threads", type=int, default=machine.cores())
    add("--samples", type=int, default=15, help="of 20 ms or one call (default 15)")
    return made


def options(
    made: argparse.ArgumentParser, given: argparse.Namespace, kind: str
) -> Options:
    """Read the common options; `kind` is that of the rows."""
    try:
        rows = _rows(given.layer, kind)
    except ValueError as error:
        made.error(str(error))
    if given.n is not None:
        rows = [row.with_batch(given.n) for row in rows]
    return Options(rows, given.directions, given.dtype, given.threads, given.samples)


def run(options: Options, algorithms: Algorithms) -> None:
    """Print a line for each row, direction and algorithm."""
    Convcore().start(options.threads)
    peak = _peak(options.dtype, options.threads)
    print(f"{options.dtype}, {options.threads} threads, peak {peak / 1e9:.0f} GFLOP/s")
    names = [label(row.name, row.op) for row in options.rows]
    table = Stream(_HEADER, [max(map(len, names)), 5, 9, 9, 9, 7, 7, 6])
    print(f"{table.head}\n{table.rule}")
    for row in options.rows:
        for direction in options.directions:
            if direction not in row.directions:
                continue
            case = row.case(direction, options.dtype)
            for algorithm in algorithms(row, direction):
                try:
                    seconds = _samples(case, algorithm, options.samples)
                except Unsupported as reason:
                    print(f"{label(row.name, row.op)} {direction}: {reason}")
                    continue
                cells = _cells(case, seconds, peak)
                print(
                    table.line([label(row.name, row.op), direction, algorithm, *cells]),
                    flush=True,
                )


def _rows(layer: str, kind: str) -> list[Row]:
    """Give the rows whose name has the expression, or one row of a spelling."""
    if re.fullmatch(r"n\d+[cg]\w+", layer):
        return [named(layer, _SPELT[kind], layer)]
    known = dict.fromkeys(row for name in suites() for row in suite(name))
    wanted = re.compile(layer)
    rows = [
        r
        for r in known
        if r.kind == kind
        and (wanted.search(r.name) or wanted.search(label(r.name, r.op)))
    ]
    if not rows:
        raise ValueError(f"--layer: no {kind} layer is named {layer!r}")
    return rows


def _samples(case: Case, algorithm: str, count: int) -> Spread:
    call = Convcore(algorithm).prepare(case, data(case))
    repetitions = timing.calibrate(call)
    return Spread.of([timing.sample(call, repetitions) for _ in range(count)])


def _cells(case: Case, seconds: Spread, peak: float) -> Sequence[str]:
    rate = case.flop / seconds.median
    return (
        f"{1e3 * seconds.median:.4g}",
        f"{1e3 * seconds.least:.4g}",
        f"{rate / 1e9:.1f}" if rate else NONE,
        f"{rate / peak:.0%}" if rate else NONE,
        f"{case.bytes / seconds.median / 1e9:.1f}",
    )


def _peak(dtype: str, threads: int) -> float:
    roofline = Roofline()
    roofline.start(threads)
    case = Case("fma", "fprop", dtype)
    call = roofline.prepare(case, data(case))
    repetitions = timing.calibrate(call)
    return FMA_FLOP / min(timing.sample(call, repetitions) for _ in range(5))
