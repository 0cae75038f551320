"""Errors over the whole range of shapes, beside the bound that is promised, and PyTorch.

Small problems of every kind of layer, and sums of 100,000 terms; every algorithm that
accepts one, both dtypes, all directions, five kinds of data. What is shown is the worst
error of all, in the units of `benchmarks.errors`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.case import DIRECTIONS
from benchmarks.errors import (
    Error,
    Judged,
    accepting,
    direct_sum,
    direction_of,
    judge,
)
from benchmarks.peer_results import Results
from benchmarks.render import NONE, number
from convcore.algorithms import CONV
from convcore.problem import ConvProblem

GOAL = 16  # units: what a direct sum of any length should stay below, of drawn data
EQUAL = "equal"  # the worst case: nothing averages out
DATA = ("normal", "uniform", "offset", "equal", "cancelling")
PROBLEMS: Mapping[str, str] = {
    "1x1": "n2g1ic256ih14oc64kh1",
    "1x1 strided": "n2g1ic128ih14oc96kh1sh2",
    "3x3": "n2g1ic64ih14oc64kh3ph1",
    "3x3, 512 channels": "n1g1ic512ih7oc64kh3ph1",
    "3x3 strided": "n2g1ic64ih28oc64kh3sh2ph1",
    "3x3 dilated": "n1g1ic32ih28oc32kh3ph2dh2",
    "5x5": "n1g1ic32ih14oc32kh5ph2",
    "7x7": "n1g1ic16ih28oc16kh7ph3",
    "first layer": "n1g1ic3ih56oc64kh7sh2ph3",
    "31x31": "n1g1ic8ih40oc9kh31ph3",
    "grouped": "n2g4ic64ih14oc64kh3ph1",
    "depthwise 3x3": "n2g64ic64ih28oc64kh3ph1",
    "depthwise 7x7": "n2g32ic32ih28oc32kh7ph3",
    "depthwise strided": "n2g64ic64ih28oc64kh3sh2ph1",
    "signal": "n2g1ic16iw1000oc32kw9pw4",
    "volume": "n1g1ic16id6ih10oc32kd3pd1",
    "fully connected": "n16g1ic512ih7oc16kh7",
    "100,008 terms, 3x3": "n1g1ic11112ih5oc4kh3",
    "100,000 terms, 1x1": "n1g1ic100000iw3oc4kw1",
    "100,000 pixels": "n4g1ic3ih160oc8kh3ph1",
    "100,000 pixels, depthwise": "n4g16ic16ih160oc16kh3ph1",
}
_TRANSFORMS = {card.name for card in CONV if card.transforms}


@dataclass(frozen=True)
class Found:
    """An error, and whose it is."""

    problem: str  # its name
    terms: int
    dtype: str
    direction: str
    data: str
    algorithm: str  # or a library
    error: Error

    @property
    def transforms(self) -> bool:
        """Whether the algorithm has a bound of its own."""
        return self.algorithm in _TRANSFORMS


def measure(
    problems: Iterable[str], dtypes: Iterable[str], torch: Results | None
) -> Iterator[Found]:
    """Measure the errors of every algorithm, and of PyTorch if it is there."""
    for name in problems:
        problem = ConvProblem.parse(PROBLEMS[name])
        for dtype in dtypes:
            for direction in map(direction_of, DIRECTIONS):
                terms = problem.terms(direction)
                for data in DATA:
                    judged = judge(problem, direction, dtype, data)
                    for algorithm, error in _errors(judged, problem, torch):
                        where = (name, terms, dtype, direction, data)
                        yield Found(*where, algorithm, error)


def _errors(
    judged: Judged, problem: ConvProblem, torch: Results | None
) -> Iterator[tuple[str, Error]]:
    direction = direction_of(judged.case.direction)
    for algorithm in accepting(problem, direction):
        yield algorithm, judged.error(algorithm)
    found = torch.result(judged.case, judged.arrays) if torch else None
    if found is not None:
        yield "torch", judged.error_of(found)


Table = tuple[list[str], list[list[str]]]


def by_algorithm(found: Iterable[Found]) -> Table:
    """Tabulate the worst error of each algorithm, and which part of the bound it is."""
    head = ["algorithm", "dtype", "direction", "worst, units", "in", "of the bound"]
    head += [f"<= {GOAL}", "equal terms, units"]
    groups: dict[tuple[str, str, str], list[Found]] = {}
    order = {card.name: place for place, card in enumerate(CONV)}
    for f in found:
        groups.setdefault((f.algorithm, f.dtype, f.direction), []).append(f)
    lines = []
    for key in sorted(
        groups, key=lambda k: (order.get(k[0], 99), k[1], DIRECTIONS.index(k[2]))
    ):
        worst = max(
            (f for f in groups[key] if f.data != EQUAL), key=lambda f: f.error.worst
        )
        equal = max(f.error.worst for f in groups[key] if f.data == EQUAL)
        part = max(f.error.of_bound for f in groups[key])
        share = "its own" if worst.transforms else f"{part:.0%}"
        where = f"{worst.problem}, {worst.data}"
        cells = [number(worst.error.worst), where, share, mark(worst.error.worst)]
        lines.append([*key, *cells, number(equal)])
    return head, lines


def by_problem(found: Iterable[Found], dtype: str) -> Table:
    """Tabulate direct sums, transforms and PyTorch over the problems."""
    columns = ("drawn", "chosen", "direct sums", "transforms", "torch")
    head = ["problem", "direction", "K", "bound", *columns, f"<= {GOAL}"]
    groups: dict[tuple[str, str, int], dict[str, float]] = {}
    for f in found:
        if f.dtype != dtype:
            continue
        worst = groups.setdefault((f.problem, f.direction, f.terms), {})
        for column in _columns(f):
            worst[column] = max(worst.get(column, 0), f.error.worst)
    lines = []
    for (name, direction, terms), worst in groups.items():
        cells = [number(worst[c]) if c in worst else NONE for c in columns]
        bound = number(2 * terms**0.5 + 4)
        good = mark(worst["drawn"])
        lines.append([name, direction, str(terms), bound, *cells, good])
    return head, lines


def _columns(found: Found) -> list[str]:
    """Name the columns of the table that an error counts in."""
    if found.algorithm == "torch" or found.transforms:
        return ["torch" if found.algorithm == "torch" else "transforms"]
    problem = ConvProblem.parse(PROBLEMS[found.problem])
    chosen = direct_sum(problem, direction_of(found.direction), found.dtype)
    if found.algorithm != chosen:
        return ["direct sums"]
    return ["direct sums", "chosen", *["drawn"] * (found.data != EQUAL)]


def beyond(found: Iterable[Found]) -> list[str]:
    """Name the direct sums that are beyond what is promised: none."""
    return [
        f"{f.algorithm} {f.direction} {f.dtype} of {f.problem}, {f.data}: "
        f"{f.error.of_bound:.0%}"
        for f in found
        if f.algorithm != "torch" and not f.transforms and not f.error.of_bound <= 1
    ]


def mark(worst: float) -> str:
    """Tell whether an error is within the goal."""
    return "yes" if worst <= GOAL else "no"
