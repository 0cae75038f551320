"""Compare convcore with other libraries, layer by layer, in one run.

    python -m benchmarks.report --suite core --peers window,torch --threads 1,2

Every library works in a process of its own, and they take turns. Ratios are taken
round by round, between neighbours in time; above 1 convcore is faster. README.md in
this folder tells how to read the table.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import machine, render
from benchmarks.case import DIRECTIONS, DTYPES, Case
from benchmarks.command_line import count, counts, names, out_files
from benchmarks.measure import Worker, WorkerError, measure, workers
from benchmarks.peers import COLUMNS, LIBRARIES
from benchmarks.problems import suite, suites
from benchmarks.results import Report, Section, as_json, record
from benchmarks.roofline import Ceilings
from benchmarks.rows import Row, named

PEAK_EVERY = 10  # cases between two looks at the ceiling
_DEFAULT_PEERS = ("window", "torch")  # of them those that are installed
_ROOFLINE = "roofline"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0; 1 if the base lacks a result, a library gives another one, or the run did
        not come to its end. A wrong command line exits with 2.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options = parser.parse_args(given)
    try:
        rows = _rows(options)
        if options.list:
            for row in rows:
                print(f"{row.name}  {row.op}  {row.spelling}")
            return 0
        columns = _columns(options)
        out = out_files(options.out)
    except (ValueError, WorkerError) as error:
        parser.error(str(error))
    report = Report(
        command=machine.command("benchmarks.report", given),
        date=machine.now(),
        machine=machine.describe(),
        restricted=machine.restrictions(),
        base=options.base,
        columns=columns,
        pairs=options.pairs,
    )
    if report.restricted:
        print(f"held back by the environment: {report.restricted}", file=sys.stderr)
    neighbours = machine.Neighbours()
    try:
        for threads in options.threads:
            _measure(options, rows, threads, report)
    except (KeyboardInterrupt, WorkerError) as error:
        print(f"interrupted: {error or 'Ctrl-C'}", file=sys.stderr)
        report.interrupted = True
    report.neighbours = neighbours.report()
    print("\n".join(render.origin(report)))
    if out:
        markdown, data = out
        markdown.write_text(render.markdown(report), "utf-8")
        data.write_text(as_json(report), "utf-8")
        print(f"written: {markdown} {data}")
    return _exit_code(report)


def _measure(
    options: argparse.Namespace, rows: list[Row], threads: int, report: Report
) -> None:
    """Measure all rows with one number of threads, into new sections of the report."""
    columns, base = report.columns, report.base
    peers = [base, *(p for c in columns for p in COLUMNS[c] if p != base)]
    names = [render.label(row.name, row.op) for row in rows]
    table = render.stream(columns, names)
    with workers(
        [*dict.fromkeys(peers), _ROOFLINE], threads, options.python
    ) as started:
        report.versions |= {peer: worker.versions for peer, worker in started.items()}
        ceilings = Ceilings(started.pop(_ROOFLINE))
        for dtype in options.dtype:
            section = Section(dtype, threads, ceilings.measure_peak(dtype))
            report.sections.append(section)
            print(f"\n{render.title(section)}\n{table.head}\n{table.rule}", flush=True)
            for row, case in _cases(rows, options.directions, dtype):
                found = measure(started, case, options.pairs, options.limit)
                copy = ceilings.copy_seconds(case.bytes)
                line = record(row, case, threads, found, base, columns, copy)
                section.records.append(line)
                cells = render.cells(line, base, section.peak, columns)
                print(table.line(cells), flush=True)
                if len(section.records) % PEAK_EVERY == 0:
                    section.peak = ceilings.measure_peak(dtype)
            section.peak = ceilings.measure_peak(dtype)
            _print_summary(section, report)


def _cases(
    rows: list[Row], directions: list[str], dtype: str
) -> Iterator[tuple[Row, Case]]:
    """Give each row in the directions that it has."""
    for row in rows:
        for direction in directions:
            if direction in row.directions:
                yield row, row.case(direction, dtype)


def _print_summary(section: Section, report: Report) -> None:
    print(f"\ngeometric means, {render.title(section)}")
    for column in report.columns:
        if any(column in line.ratio for line in section.records):
            print(render.aligned(*render.summary(section, column)) + "\n")
    for note in render.notes(section, report.base):
        print(f"note: {note}")
    print(flush=True)


def _exit_code(report: Report) -> int:
    """Tell whether the base has all results and nobody a different one."""
    records = [line for section in report.sections for line in section.records]
    missing = any(report.base not in line.seconds for line in records)
    wrong = any(line.disagree for line in records)
    return int(report.interrupted or missing or wrong)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--suite",
        type=names(),
        default=["core"],
        help=f"suites, with commas: {', '.join(suites())} (default core)",
    )
    add(
        "--problem",
        action="append",
        default=[],
        help="a convolution as ConvProblem spells it, instead of a suite; repeatable",
    )
    add("--filter", default="", help="regular expression that `name op problem` has")
    add("--n", type=count, help="batch, instead of that of the rows")
    add(
        "--peers",
        type=names(*COLUMNS),
        help=f"libraries, with commas: {', '.join(COLUMNS)} (default: "
        f"{', '.join(_DEFAULT_PEERS)} where installed); torch is the better layout",
    )
    add(
        "--base",
        choices=LIBRARIES,
        default="convcore",
        help="the library that they are compared with (default convcore)",
    )
    add("--threads", type=counts, default=[machine.cores()], help="counts, with commas")
    add("--dtype", type=names(*DTYPES), default=["float32"], help=", ".join(DTYPES))
    add(
        "--directions",
        type=names(*DIRECTIONS),
        default=list(DIRECTIONS),
        help=", ".join(DIRECTIONS),
    )
    add("--pairs", type=count, default=7, help="rounds (default 7)")
    add(
        "--limit",
        type=float,
        default=10.0,
        help="seconds of one call, beyond which a library is skipped (default 10)",
    )
    add(
        "--python",
        default=sys.executable,
        help="interpreter of the libraries that do without convcore, where torch is",
    )
    add("--out", type=Path, help="write PATH.md and PATH.json")
    add("--list", action="store_true", help="print the rows and stop")
    return parser


def _rows(options: argparse.Namespace) -> list[Row]:
    """Give the rows that the options name."""
    rows = [named(text, "conv", text) for text in options.problem]
    if not rows:
        rows = [row for name in options.suite for row in suite(name)]
    try:
        wanted = re.compile(options.filter)
    except re.error as error:
        raise ValueError(f"--filter: {error}, got {options.filter!r}") from None
    rows = [r for r in rows if wanted.search(f"{r.name} {r.op} {r.spelling}")]
    rows = [r for r in rows if set(options.directions) & set(r.directions)]
    if not rows:
        raise ValueError(
            f"no row has --filter {options.filter!r} and one of the directions "
            f"{', '.join(options.directions)}"
        )
    if options.n is not None:
        rows = [row.with_batch(options.n) for row in rows]
    return rows


def _columns(options: argparse.Namespace) -> list[str]:
    """Give the peers asked for, or the default ones that can be imported."""
    if options.peers is not None:
        return list(options.peers)
    found = []
    for column in _DEFAULT_PEERS:
        try:
            Worker(COLUMNS[column][0], 1, options.python).close()
        except WorkerError as error:
            print(f"without {column}: {error}", file=sys.stderr)
        else:
            found.append(column)
    return found


if __name__ == "__main__":
    sys.exit(main())
