r"""Train whole networks, beside PyTorch: time, memory and page faults of a step.

    python -m benchmarks.bench_train --python ../torchvenv/bin/python --threads 2 \
        --out benchmarks/results/train

A step is forward pass, cross-entropy, backward pass and SGD with momentum, in a loop of
one's own or by `train.fit`, which draws the order of the samples as well. Every network
and library has a process of its own, so that its peak of memory is that of the network;
they take turns. README.md in this folder tells how to read the tables.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine, render
from benchmarks.command_line import count, counts, out_files
from benchmarks.measure import Measurement, Worker, WorkerError, measure, workers
from benchmarks.networks import FIT, INFER, NETWORKS, TRAIN, NetworkCase
from benchmarks.peers import NETWORK_LIBRARIES
from benchmarks.results import Spread

BASE, *TORCH = NETWORK_LIBRARIES
LIMIT_SECONDS = 60.0  # of a step
INFERENCE_BATCHES = (1, 8)
_MIB = 1 << 20
_SHORT = {name: name.replace("-network", "") for name in NETWORK_LIBRARIES}


@dataclass
class Record:
    """What was found about one network, mode and thread count; by library.

    Parameters
    ----------
    network, mode : str
    x_shape : tuple of int
    threads : int
    samples : dict of list of float
        Seconds of one step, in the order of the rounds.
    losses : dict of list of float
        Of the first steps, the same in every library but for rounding.
    peak, imported : dict of int
        Bytes in RAM: at most, and after the import.
    faults : dict of float
        Page faults of one step, in steady state.
    skipped : dict of str
    disagree : list of str
        Libraries with other losses or scores.
    """

    network: str
    mode: str
    x_shape: tuple[int, ...]
    threads: int
    samples: dict[str, list[float]] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    imported: dict[str, int] = field(default_factory=dict)
    faults: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    disagree: list[str] = field(default_factory=list)

    @property
    def better(self) -> str | None:
        """The layout of torch with the smaller median."""
        medians = {
            p: Spread.of(self.samples[p]).median for p in TORCH if p in self.peak
        }
        return min(medians, key=lambda peer: medians[peer]) if medians else None

    @property
    def ratio(self) -> Spread | None:
        """Seconds of that layout over ours, round by round."""
        best = self.better
        if best is None or BASE not in self.samples:
            return None
        pairs = zip(self.samples[BASE], self.samples[best], strict=True)
        return Spread.of([theirs / ours for ours, theirs in pairs])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0; 1 if convcore has no result or somebody a different one.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options = parser.parse_args(given)
    cases = [c for c in _cases() if re.search(options.filter, _name(c))]
    if not cases:
        parser.error(f"--filter: no network is named {options.filter!r}")
    try:
        out = out_files(options.out)
    except ValueError as error:
        parser.error(str(error))
    peers = [BASE, *TORCH] if options.python else [BASE]
    python = options.python or sys.executable
    records: list[Record] = []
    versions: dict[str, str] = {}
    neighbours = machine.Neighbours()
    print(_table([]).head, flush=True)
    try:
        for threads in options.threads:
            for case in cases:
                with workers(peers, threads, python) as started:
                    record = _measured(case, threads, started, options.pairs)
                    for worker in started.values():
                        versions |= worker.versions
                records.append(record)
                print(_table([]).line(_cells(record)), flush=True)
    except WorkerError as error:
        parser.error(str(error))
    origin = machine.origin(machine.command("benchmarks.bench_train", given), versions)
    origin["other processes"] = neighbours.report()
    print("\n".join(f"{name}: {value}" for name, value in origin.items()))
    if out:
        _write(*out, origin, records)
    wrong = [r for r in records if r.disagree or BASE not in r.peak]
    return int(bool(wrong))


def _measured(
    case: NetworkCase, threads: int, started: dict[str, Worker], pairs: int
) -> Record:
    """Time a network in all libraries, then look at their memory."""
    found: Measurement = measure(started, case, pairs, LIMIT_SECONDS)
    record = Record(
        case.op,
        case.direction,
        case.x_shape,
        threads,
        samples=found.seconds,
        skipped=found.skipped,
        disagree=found.disagree,
    )
    for peer in found.seconds:
        worker = started[peer]
        memory = worker.ask({"do": "memory"}, 10 * LIMIT_SECONDS)
        record.faults[peer], record.peak[peer] = memory["faults"], memory["peak"]
        record.imported[peer] = worker.imported_bytes
        if case.direction != INFER:
            output = worker.ask({"do": "output"}, LIMIT_SECONDS)
            record.losses[peer] = output["values"]
    return record


def _cases() -> Iterator[NetworkCase]:
    """Give the training steps, and after them the inferences of the network."""
    for name, network in NETWORKS.items():
        for mode in (TRAIN, FIT):
            yield NetworkCase(name, mode, "float32", network.x_shape)
        for batch in INFERENCE_BATCHES:
            shape = (batch, *network.x_shape[1:])
            yield NetworkCase(name, INFER, "float32", shape)


def _name(case: NetworkCase) -> str:
    return f"{case.op} {case.direction} n{case.x_shape[0]}"


_HEADER = (
    "network",
    "mode",
    "batch",
    "threads",
    "ms",
    "torch ms",
    "x torch",
    "peak MB",
    "torch MB",
    "of torch",
    "faults",
    "torch faults",
)


def _table(names: Sequence[str]) -> render.Stream:
    widths = (12, 5, 5, 7, 8, 8, 16, 7, 8, 8, 7, 12)
    return render.Stream(_HEADER, widths)


def _cells(record: Record) -> list[str]:
    """Give the line of a record; "-" where there is nothing."""
    first = [record.network, record.mode, str(record.x_shape[0]), str(record.threads)]
    best, ratio = record.better, record.ratio
    numbers = [
        _milliseconds(record, BASE),
        _milliseconds(record, best),
        f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})" if ratio else "-",
        _megabytes(record, BASE),
        _megabytes(record, best),
        f"{record.peak[BASE] / record.peak[best]:.2f}" if best and ratio else "-",
        _number(record.faults, BASE),
        _number(record.faults, best),
    ]
    return [*first, *numbers]


def _milliseconds(record: Record, peer: str | None) -> str:
    samples = record.samples.get(peer or "")
    return f"{1e3 * Spread.of(samples).median:.4g}" if samples else "-"


def _megabytes(record: Record, peer: str | None) -> str:
    peak = record.peak.get(peer or "")
    if peak is None:
        return "-"
    return f"{peak / _MIB:.0f}"


def _number(numbers: dict[str, float], peer: str | None) -> str:
    return f"{numbers[peer]:.0f}" if peer in numbers else "-"


def _details(record: Record) -> list[str]:
    """Say what the table leaves out: every library, its memory, the losses."""
    title = f"{record.network} {record.mode}, batch {record.x_shape[0]}"
    lines = []
    for peer in record.peak:
        spread = Spread.of(record.samples[peer])
        text = (
            f"{title}, {record.threads} threads, {_SHORT[peer]}: "
            f"{1e3 * spread.median:.4g} ms ({1e3 * spread.low:.4g}-"
            f"{1e3 * spread.high:.4g}), peak {_megabytes(record, peer)} MB, after "
            f"import {record.imported[peer] / _MIB:.0f} MB, "
            f"{record.faults[peer]:.0f} page faults"
        )
        if record.losses.get(peer):
            text += ", losses " + " ".join(f"{x:.6f}" for x in record.losses[peer])
        lines.append(text)
    lines += [f"{title}: {p} has a different result" for p in record.disagree]
    lines += [f"{title}: {p}: {why}" for p, why in record.skipped.items()]
    return lines


_HOW_TO_READ = (
    "Milliseconds of a step and MB in RAM at most, of the process; torch is the better "
    "of its two layouts. `x torch`: its time over that of convcore, the median of the "
    "rounds and its quartiles; `of torch`: our peak over that of torch; faults: pages "
    "that the system had to clear in a step."
)


def _write(
    markdown: Path, data: Path, origin: dict[str, str], records: list[Record]
) -> None:
    """Write the page and the JSON file."""
    page = [
        "# Training and inference of whole networks",
        render.bullets(origin),
        _HOW_TO_READ,
        render.markdown_table(_HEADER, [_cells(record) for record in records]),
        "\n".join(f"- {line}" for record in records for line in _details(record)),
    ]
    markdown.write_text("\n\n".join(page) + "\n", "utf-8")
    found: dict[str, Any] = {**origin, "records": [asdict(r) for r in records]}
    data.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(f"written: {markdown} {data}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--filter", default="^(?!tiny)", help='regular expression: "resnet.* train"')
    add("--threads", type=counts, default=[machine.cores()], help="with commas")
    add("--pairs", type=count, default=7, help="rounds (default 7)")
    add("--python", help="an interpreter that has torch; without it convcore alone")
    add("--out", type=Path, help="write PATH.md and PATH.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
