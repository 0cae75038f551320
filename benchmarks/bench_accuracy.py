r"""Measure how wrong results are, beside what is promised, and beside PyTorch.

    python -m benchmarks.bench_accuracy --python ../torchvenv/bin/python \
        --out benchmarks/results/accuracy

Three suites: "range", every algorithm of convolution over the whole range of shapes;
"operations", poolings, normalisations, softmax, activations and losses; "channels", 3x3
layers with as many input as output channels, algorithms beside the direct one. Errors are
in units of u * sum |x| |w|; see `benchmarks.errors`. Nothing is timed: the numbers are
the same in each run with the same instruction set. The exit code is 1 where an error is
beyond what is promised.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

from benchmarks import accuracy_operations, accuracy_range, machine
from benchmarks.case import DIRECTIONS, DTYPES
from benchmarks.command_line import names
from benchmarks.errors import DATA, DIRECT, Error, accepting, direction_of, judge
from benchmarks.peer_results import asked
from benchmarks.peers.with_convcore import Convcore
from benchmarks.render import NONE, aligned, bullets, markdown_table, number
from benchmarks.results import geometric_mean
from convcore.problem import ConvProblem

_PROBLEM = "n2g1ic{c}ih14oc{c}kh3ph1"
_CHANNELS = (16, 32, 64, 128, 256, 512)
_SUITES = ("range", "operations", "channels")
_DATA = ("normal", "positive", "channels", "elements")
_TORCH = "torch-nchw"
_UNITS = (
    "An error is in units of u · Σ|x||w|: the unit roundoff times the sum of the "
    "magnitudes of the products of the element. The judge is `convcore.reference` in a "
    "wider type."
)
_HOW_TO_READ = (
    "The mean error over that of `direct`, as a geometric mean over the channels, and "
    "the worst error. The problems are `{problem}`, C being the channels; in the gradient "
    "of the weights, which sums over pixels, every C has as many terms."
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
        cells = [number(geometric_mean(ratios)), number(worst)]
        lines.append([kind, direction, name, *cells])
    return head, lines


def table(found: Found, kind: str, channels: Sequence[int]) -> Table:
    """Tabulate the mean and the worst errors of one kind of data."""
    head = ["direction", "algorithm", *(f"C = {c}" for c in channels)]
    lines = []
    for direction, name in dict.fromkeys(key[1:3] for key in found if key[0] == kind):
        errors = [found.get((kind, direction, name, c)) for c in channels]
        cells = [f"{number(e.mean)} / {number(e.worst)}" if e else NONE for e in errors]
        lines.append([direction, name, *cells])
    return head, lines


Section = tuple[str, str, Table]  # title, text above, table


def of_channels(found: Found, channels: Sequence[int], dtype: str) -> list[Section]:
    """Tabulate the suite "channels"."""
    first = (
        f"3x3 layers, {dtype}",
        _HOW_TO_READ.format(problem=_PROBLEM.format(c="C")),
        summary(found),
    )
    rest = [
        (
            f"3x3 layers, {dtype}, {kind}",
            f"Numbers {DATA[kind]}. Mean / worst.",
            table(found, kind, channels),
        )
        for kind in dict.fromkeys(key[0] for key in found)
    ]
    return [first, *rest]


def of_range(found: Sequence[accuracy_range.Found]) -> list[Section]:
    """Tabulate the suite "range"."""
    data = "; ".join(f"{name}: {DATA[name]}" for name in accuracy_range.DATA)
    spelt = "; ".join(f"{k}: `{v}`" for k, v in accuracy_range.PROBLEMS.items())
    text = (
        "The worst error over all problems and data, and the worst part of the bound, "
        "(2√K + 4) units for a sum of K terms. Algorithms that transform their "
        f"operands have bounds of their own. Data: {data}. Problems: {spelt}."
    )
    sections: list[Section] = [("Algorithms", text, accuracy_range.by_algorithm(found))]
    text = (
        "The worst error over all data: of the algorithm that is chosen under "
        '`precision("strict")`, of all direct sums, of all transforms, and of PyTorch. '
        '"drawn" is the first without equal terms, which the goal is about.'
    )
    for dtype in DTYPES:
        by_problem = accuracy_range.by_problem(found, dtype)
        sections.append((f"Problems, {dtype}", text, by_problem))
    return sections


def of_operations(found: Sequence[accuracy_operations.Found]) -> list[Section]:
    """Tabulate the suite "operations"."""
    data = "; ".join(f"{k}: {v}" for k, v in accuracy_operations.DATA.items())
    text = (
        "The worst error over shapes and data, in units of u times what is added up; see "
        f"`benchmarks.accuracy_operations`. Data of x: {data}."
    )
    goal = accuracy_range.GOAL
    return [("Operations", text, accuracy_operations.table(found, goal))]


def page(sections: Iterable[Section], origin: dict[str, str]) -> str:
    """Give the results as a Markdown page."""
    parts = ["# Errors", bullets(origin), _UNITS]
    for title, text, found in sections:
        parts += [f"## {title}", text, markdown_table(*found)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--suite", type=names(*_SUITES), default=list(_SUITES), help=", ".join(_SUITES))
    add("--python", help="an interpreter that has torch, for a column")
    add("--channels", type=int, nargs="+", default=list(_CHANNELS))
    add("--data", nargs="+", choices=_DATA, default=list(_DATA), help="of channels")
    add("--directions", nargs="+", choices=DIRECTIONS, default=list(DIRECTIONS))
    add("--dtype", choices=DTYPES, default="float32", help="of channels")
    add("--out", type=Path, help="write OUT.md, too")
    given = parser.parse_args()
    cores = machine.cores()
    versions = Convcore().start(cores)
    sections: list[Section] = []
    wrong: list[str] = []
    with asked(_TORCH, cores, given.python) if given.python else nullcontext() as torch:
        versions |= torch.versions if torch else {}
        if "range" in given.suite:
            ranged = list(
                accuracy_range.measure(accuracy_range.PROBLEMS, DTYPES, torch)
            )
            sections += of_range(ranged)
            wrong += accuracy_range.beyond(ranged)
        if "operations" in given.suite:
            several = [
                *accuracy_operations.measure(accuracy_operations.CASES, DTYPES, torch),
                *accuracy_operations.measure_powers(DTYPES),
            ]
            sections += of_operations(several)
            wrong += accuracy_operations.beyond(several)
    if "channels" in given.suite:
        found = measure(given.data, given.directions, given.channels, given.dtype)
        sections += of_channels(found, given.channels, given.dtype)
    for title, _, tabulated in sections:
        print(f"\n{title}\n{aligned(*tabulated)}")
    if given.out:
        command = machine.command("benchmarks.bench_accuracy", sys.argv[1:])
        origin = machine.origin(command, versions)
        given.out.with_suffix(".md").write_text(page(sections, origin), "utf-8")
    if wrong:
        sys.exit("beyond what is promised:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
