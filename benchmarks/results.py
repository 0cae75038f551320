"""What a run found: records, their sections, and the means over them."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from math import exp, log
from statistics import quantiles
from typing import Any

from benchmarks.case import Case
from benchmarks.measure import Measurement
from benchmarks.peers import COLUMNS
from benchmarks.rows import Row


@dataclass(frozen=True)
class Spread:
    """Median, quartiles and extremes of some samples."""

    median: float
    low: float
    high: float
    least: float
    most: float

    @staticmethod
    def of(samples: list[float]) -> "Spread":
        """Sum up the samples; one alone is its own quartiles."""
        if len(samples) == 1:
            return Spread(*samples * 5)
        low, middle, high = quantiles(samples, n=4, method="inclusive")
        return Spread(middle, low, high, min(samples), max(samples))


@dataclass(frozen=True)
class Record:
    """One case, as it goes into the JSON file.

    Parameters
    ----------
    name, op, problem, family, direction, dtype, threads
        What was measured.
    flop, bytes : int
        Of one call.
    copy_seconds : float
        In which a copy moves as many bytes.
    samples : dict of list of float
        Seconds of one call, by peer, in the order of the rounds.
    seconds : dict of Spread
        The same, summed up.
    better : dict of str
        By column: the peer that counts, the one with the smaller median.
    ratio : dict of Spread
        By column: that peer's seconds over those of the base, round by round.
    skipped : dict of str
        Why a peer has no numbers.
    disagree : list of str
        Peers whose result is not the base's.
    """

    name: str
    op: str
    problem: str
    family: str
    direction: str
    dtype: str
    threads: int
    flop: int
    bytes: int
    copy_seconds: float
    samples: dict[str, list[float]]
    seconds: dict[str, Spread]
    better: dict[str, str]
    ratio: dict[str, Spread]
    skipped: dict[str, str]
    disagree: list[str]


@dataclass
class Section:
    """The records of one dtype and thread count.

    Parameters
    ----------
    dtype : str
    threads : int
    peak : float
        The ceiling of the arithmetic in FLOP/s.
    records : list of Record
    """

    dtype: str
    threads: int
    peak: float = 0.0
    records: list[Record] = field(default_factory=list)


@dataclass
class Report:
    """All that a run has to say, and what the JSON file holds.

    Parameters
    ----------
    command, date, neighbours : str
        How and when it ran, and what else kept the machine busy.
    machine : dict of str
    restricted : str
        Variables that hold a library back.
    versions : dict of dict of str
        By peer.
    base : str
        The peer that the others are compared with.
    columns : list of str
    pairs : int
        Rounds.
    sections : list of Section
    interrupted : bool
        Whether rows are missing at the end.
    """

    command: str
    date: str
    machine: dict[str, str]
    restricted: str
    base: str
    columns: list[str]
    pairs: int
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    neighbours: str = "unknown"
    interrupted: bool = False


def record(
    row: Row,
    case: Case,
    threads: int,
    found: Measurement,
    base: str,
    columns: Iterable[str],
    copy_seconds: float,
) -> Record:
    """Sum up the measurement of a row's case."""
    seconds = {peer: Spread.of(samples) for peer, samples in found.seconds.items()}
    better, ratio = {}, {}
    for column in columns:
        peers = [peer for peer in COLUMNS[column] if peer in seconds and peer != base]
        if peers and base in seconds:
            best = min(peers, key=lambda peer: seconds[peer].median)
            better[column] = best
            pairs = zip(found.seconds[base], found.seconds[best], strict=True)
            ratio[column] = Spread.of([theirs / ours for ours, theirs in pairs])
    return Record(
        name=row.name,
        op=row.op,
        problem=row.spelling,
        family=row.family,
        direction=case.direction,
        dtype=case.dtype,
        threads=threads,
        flop=case.flop,
        bytes=case.bytes,
        copy_seconds=copy_seconds,
        samples=found.seconds,
        seconds=seconds,
        better=better,
        ratio=ratio,
        skipped=found.skipped,
        disagree=found.disagree,
    )


def as_json(report: Report) -> str:
    """Give the report as JSON, one record a line, numbers to six digits."""
    fields = _rounded(asdict(report))
    sections = fields.pop("sections")
    parts = []
    for section in sections:
        records = ",\n".join(map(json.dumps, section.pop("records")))
        head = json.dumps(section).removesuffix("}")
        parts.append(f'{head}, "records": [\n{records}\n]}}')
    head = json.dumps(fields, indent=1).removesuffix("\n}")
    return head + ',\n "sections": [\n' + ",\n".join(parts) + "\n]}\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def geometric_mean(values: Iterable[float]) -> float:
    """Give the exponential of the mean logarithm.

    Examples
    --------
    >>> geometric_mean([2.0, 8.0])
    4.0
    """
    logs = [log(value) for value in values]
    return exp(sum(logs) / len(logs))
