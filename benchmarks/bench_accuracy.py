"""Measure how wrong each algorithm of convolution is, beside the direct one.

    python -m benchmarks.bench_accuracy --out benchmarks/results/accuracy

3x3 layers with as many input as output channels, in all three directions. Errors are in
units of u * sum |x| |w|; see `benchmarks.errors`. Nothing is timed: the numbers are the
same in each run with the same instruction set.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.case import DIRECTIONS, DTYPES
from benchmarks.errors import DATA, DIRECT, Error, accepting, direction_of, judge
from benchmarks.peers.with_convcore import Convcore
from benchmarks.render import NONE, aligned, bullets, markdown_table
from benchmarks.results import geometric_mean
from convcore.problem import ConvProblem

_PROBLEM = "n2g1ic{c}ih14oc{c}kh3ph1"
_CHANNELS = (16, 32, 64, 128, 256, 512)
_HOW_TO_READ = (
    "An error is in units of u · Σ|x||w|: the unit roundoff times the sum of the "
    "magnitudes of the products of the element. The judge is `convcore.reference` in a "
    "wider type. The problems are `{problem}`, C being the channels; in the gradient of "
    "the weights, which sums over pixels, every C has as many terms."
)

Found = dict[tuple[str, str, str, int], Error]  # data, direction, algorithm, channels
Table = tuple[Sequence[str], list[list[str]]]


def measure(
    kinds: Iterable[str], directions: Iterable[str], channels: Sequence[int], dtype: str
) -> Found:
    """Measure the errors of every algorithm that accepts a problem."""
    found: Found = {}
    for kind in kinds:
        for direction in map(direction_of, directions):
            for c in channels:
                problem = ConvProblem.parse(_PROBLEM.format(c=c))
                judged = judge(problem, direction, dtype, kind)
                for name in accepting(problem, direction):
                    found[kind, direction, name, c] = judged.error(name)
    return found


def summary(found: Found) -> Table:
    """Tabulate all channels together: beside the direct sum, and the worst."""
    head = ["data", "direction", "algorithm", "mean, direct = 1", "worst, units"]
    lines = []
    for kind, direction, name in dict.fromkeys(key[:3] for key in found):
        errors = {
            c: error
            for (*what, c), error in found.items()
            if what == [kind, direction, name]
        }
        ratios = [
            error.mean / found[kind, direction, DIRECT, c].mean
            for c, error in errors.items()
        ]
        worst = max(error.worst for error in errors.values())
        cells = [_number(geometric_mean(ratios)), _number(worst)]
        lines.append([kind, direction, name, *cells])
    return head, lines


def table(found: Found, kind: str, channels: Sequence[int]) -> Table:
    """Tabulate the mean and the worst errors of one kind of data."""
    head = ["direction", "algorithm", *(f"C = {c}" for c in channels)]
    lines = []
    for direction, name in dict.fromkeys(key[1:3] for key in found if key[0] == kind):
        errors = [found.get((kind, direction, name, c)) for c in channels]
        cells = [
            f"{_number(e.mean)} / {_number(e.worst)}" if e else NONE for e in errors
        ]
        lines.append([direction, name, *cells])
    return head, lines


def _number(value: float) -> str:
    """Write three digits, without an exponent."""
    return f"{float(f'{value:.3g}'):.10g}"


def page(
    found: Found, channels: Sequence[int], dtype: str, origin: dict[str, str]
) -> str:
    """Give the results as a Markdown page."""
    parts = [
        f"# Errors of the algorithms of convolution, {dtype}",
        bullets(origin),
        _HOW_TO_READ.format(problem=_PROBLEM.format(c="C")),
        "## All channels together",
        "The mean error over that of `direct`, as a geometric mean over the channels, "
        "and the worst error.",
        markdown_table(*summary(found)),
    ]
    for kind in dict.fromkeys(key[0] for key in found):
        parts += [f"## {kind.capitalize()}", f"Numbers {DATA[kind]}. Mean / worst."]
        parts.append(markdown_table(*table(found, kind, channels)))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--channels", type=int, nargs="+", default=list(_CHANNELS))
    add("--data", nargs="+", choices=DATA, default=list(DATA))
    add("--directions", nargs="+", choices=DIRECTIONS, default=list(DIRECTIONS))
    add("--dtype", choices=DTYPES, default="float32", help="float64 takes minutes")
    add("--out", type=Path, help="write OUT.md, too")
    given = parser.parse_args()
    versions = Convcore().start(machine.cores())
    found = measure(given.data, given.directions, given.channels, given.dtype)
    print(f"{given.dtype}, mean / worst error in units of u * sum |x| |w|")
    for kind in given.data:
        print(f"\n{kind}: {DATA[kind]}")
        print(aligned(*table(found, kind, given.channels)))
    print(f"\nall channels together\n{aligned(*summary(found))}")
    if given.out:
        command = machine.command("benchmarks.bench_accuracy", sys.argv[1:])
        origin = machine.origin(command, versions)
        text = page(found, given.channels, given.dtype, origin)
        given.out.with_suffix(".md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
