"""A report as text: for the terminal while it is made, and as Markdown."""

from collections import Counter
from collections.abc import Sequence

from benchmarks.case import DIRECTIONS
from benchmarks.results import Record, Report, Section, Spread, geometric_mean

NONE = "-"
_LAYOUTS = {"torch-nchw": " nchw", "torch-channels_last": " nhwc"}
_CELL = len("12.34 (12.34-12.34) nchw")
_HOW_TO_READ = (
    "Columns of libraries: their time over that of {base}, the median of {pairs} "
    "rounds and its quartiles; above 1 {base} is faster. `of peak`: share of the "
    "multiply-add ceiling, `of copy`: time of a parallel copy of the same bytes over "
    "the time of the call, both measured in this run."
)


class Stream:
    """A table of a terminal, whose lines are printed while they come.

    Parameters
    ----------
    header : sequence of str
    widths : sequence of int
        The least width of each column; the first is flush left, the others right.
    """

    def __init__(self, header: Sequence[str], widths: Sequence[int]) -> None:
        self._widths = [max(len(h), w) for h, w in zip(header, widths, strict=True)]
        self.head = self.line(header)
        self.rule = "  ".join("-" * width for width in self._widths)

    def line(self, cells: Sequence[str]) -> str:
        """Give one aligned line."""
        cells = [
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, self._widths, strict=True))
        ]
        return "  ".join(cells).rstrip()


def stream(columns: Sequence[str], names: Sequence[str]) -> Stream:
    """Give the terminal's table of records, for rows of these names."""
    widths = [max(map(len, names)), 5, 9, 8, 7, 7, *[_CELL] * len(columns)]
    return Stream(header(columns), widths)


def header(columns: Sequence[str]) -> list[str]:
    """Name the cells of `cells`."""
    return ["layer", "dir", "ms", "GFLOP/s", "of peak", "of copy", *columns]


def label(name: str, op: str) -> str:
    """Name a row; all but convolutions share their names with each other."""
    return name if op.startswith("conv") else f"{name} {op}"


def cells(record: Record, base: str, peak: float, columns: Sequence[str]) -> list[str]:
    """Give the cells of one record."""
    first = [label(record.name, record.op), record.direction]
    ours = record.seconds.get(base)
    if ours is None:
        return [*first, *[NONE] * (4 + len(columns))]
    rate = record.flop / ours.median
    return [
        *first,
        f"{1e3 * ours.median:.4g}",
        f"{rate / 1e9:.1f}" if rate else NONE,
        f"{rate / peak:.0%}" if rate and peak else NONE,
        f"{record.copy_seconds / ours.median:.0%}",
        *(_ratio(record, column) for column in columns),
    ]


def _ratio(record: Record, column: str) -> str:
    spread = record.ratio.get(column)
    if spread is None:
        return NONE
    layout = _LAYOUTS.get(record.better[column], "") if column == "torch" else ""
    return f"{_number(spread.median)} ({_range(spread)}){layout}"


def _range(spread: Spread) -> str:
    return f"{_number(spread.low)}-{_number(spread.high)}"


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def summary(section: Section, column: str) -> tuple[list[str], list[list[str]]]:
    """Tabulate the geometric means of a column: families down, directions across."""
    found = [record for record in section.records if column in record.ratio]
    directions = [d for d in DIRECTIONS if any(r.direction == d for r in found)]
    families = list(dict.fromkeys(record.family for record in found))
    head = [f"x {column}", "rows", *directions, "all", "least", "under 0.9"]
    lines = []
    for family in [*families, "all"]:
        members = [r for r in found if family in (r.family, "all")]
        medians = {
            d: [r.ratio[column].median for r in members if d in ("all", r.direction)]
            for d in [*directions, "all"]
        }
        names = {(record.name, record.op) for record in members}
        means = [f"{geometric_mean(m):.2f}" if m else NONE for m in medians.values()]
        every = medians["all"]
        slow = sum(ratio < 0.9 for ratio in every)
        lines.append([family, str(len(names)), *means, f"{min(every):.2f}", str(slow)])
    return head, lines


def notes(section: Section, base: str) -> list[str]:
    """List what is missing or wrong, most frequent first."""
    lines = [
        f"{label(r.name, r.op)} {r.direction}: {peer} and {base} have different results"
        for r in section.records
        for peer in r.disagree
    ]
    missing = Counter(
        f"{peer}: {reason}"
        for r in section.records
        for peer, reason in r.skipped.items()
    )
    lines += [f"{text} ({count} cases)" for text, count in missing.most_common()]
    return lines


def title(section: Section) -> str:
    """Name a section, with its ceiling."""
    plural = "s" if section.threads > 1 else ""
    text = f"{section.dtype}, {section.threads} thread{plural}"
    return f"{text}, peak {section.peak / 1e9:.0f} GFLOP/s" if section.peak else text


def origin(report: Report) -> list[str]:
    """Tell where, when and how: one line each."""
    seen: dict[str, str] = {}
    for versions in report.versions.values():
        seen |= versions
    lines = {
        "command": f"`{report.command}`",
        "date": report.date + ", interrupted" * report.interrupted,
        **report.machine,
        "versions": ", ".join(f"{name} {version}" for name, version in seen.items()),
        "held back by": report.restricted or "nothing",
        "other processes": report.neighbours,
    }
    return [f"{name}: {value}" for name, value in lines.items()]


def aligned(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Give a whole table for a terminal."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    table = Stream(head, widths)
    return "\n".join([table.head, table.rule, *map(table.line, lines)])


def markdown(report: Report) -> str:
    """Give the report as a Markdown page."""
    base, columns = report.base, report.columns
    parts = [f"# {base} beside {', '.join(columns) or 'nothing'}"]
    parts.append("\n".join(f"- {line}" for line in origin(report)))
    parts.append(_HOW_TO_READ.format(base=base, pairs=report.pairs))
    for section in report.sections:
        parts.append(f"## {title(section)}")
        for column in columns:
            if any(column in record.ratio for record in section.records):
                parts.append(markdown_table(*summary(section, column)))
        head = ["layer", "problem", *header(columns)[1:]]
        lines = []
        for record in section.records:
            name, *rest = cells(record, base, section.peak, columns)
            lines.append([name, record.problem, *rest])
        parts.append(markdown_table(head, lines))
        parts.append("\n".join(f"- {line}" for line in notes(section, base)))
    return "\n\n".join(part for part in parts if part) + "\n"


def bullets(lines: dict[str, str]) -> str:
    """Give named facts as a list."""
    return "\n".join(f"- {name}: {value}" for name, value in lines.items())


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Give a table whose first column is flush left."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *lines))


def number(value: float) -> str:
    """Write three digits, without an exponent."""
    return f"{float(f'{value:.3g}'):.10g}"
