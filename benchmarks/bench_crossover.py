"""Find where direct sums, Winograd's filtering and the FFT cross over, in time and error.

    python -m benchmarks.bench_crossover --out docs/guides/crossover

Two rows of problems: kernels of 1x1 to 31x31 over 32 channels of 56x56, and 3x3 kernels
over 4 to 256 channels. "direct" is what the library chooses under `precision("strict")`;
beside it is every algorithm that transforms its operands and accepts the problem. Times
are milliseconds of CPU time of one thread, the least of some samples in turns; errors are
those of `benchmarks.errors`, on normal data. `--out` writes a table, OUT.md, and a plot,
OUT.png, for which it needs matplotlib.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from benchmarks.case import DIRECTIONS, DTYPES
from benchmarks.errors import (
    DIRECT,
    Error,
    direct_sum,
    direction_of,
    judge,
    transforming,
)
from benchmarks.peers.with_convcore import Convcore
from benchmarks.render import NONE, Stream, bullets, markdown_table
from convcore.problem import ConvProblem, Direction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KERNELS = tuple(range(1, 32, 2))
_CHANNELS = (4, 8, 16, 32, 48, 64, 96, 128, 192, 256)
_SAMPLE_SECONDS = 0.01
_WARM_SECONDS = 0.1

# Told apart without colour: marker, line, grey.
_STYLES: dict[str, dict[str, Any]] = {
    "direct": {"marker": "o", "linestyle": "-", "color": "#000000"},
    "winograd": {"marker": "^", "linestyle": "--", "color": "#d55e00"},
    "winograd2": {"marker": "v", "linestyle": ":", "color": "#e69f00"},
    "fft": {"marker": "D", "linestyle": "-.", "color": "#0072b2"},
}
_OTHER = {"marker": "s", "linestyle": (0, (5, 1, 1, 1)), "color": "#777777"}
_NAMES = {
    "direct": "direct sum",
    "winograd": "Winograd, 4x4 outputs a tile",
    "winograd2": "Winograd, 2x2 outputs a tile",
    "fft": "FFT",
}


@dataclass(frozen=True)
class Sweep:
    """Problems that differ in one number.

    Parameters
    ----------
    title, variable : str
        Of the whole, and of the number.
    problems : dict of int to ConvProblem
    """

    title: str
    variable: str
    problems: dict[int, ConvProblem]


@dataclass(frozen=True)
class Point:
    """What one algorithm does with one problem."""

    algorithm: str  # by which name it ran
    milliseconds: float
    error: Error


Found = dict[int, dict[str, Point]]  # by the number of the sweep, and the line


def sweeps(kernels: Sequence[int], channels: Sequence[int], extent: int) -> list[Sweep]:
    """Make the two rows of problems."""
    c = 32
    by_kernel = {
        k: ConvProblem.parse(f"n1g1ic{c}ih{extent}oc{c}kh{k}ph{k // 2}")
        for k in kernels
    }
    by_channels = {
        c: ConvProblem.parse(f"n1g1ic{c}ih{extent}oc{c}kh3ph1") for c in channels
    }
    size = f"{extent}x{extent}"
    return [
        Sweep(f"{c} channels, {size}", "kernel size", by_kernel),
        Sweep(f"3x3 kernels, {size}", "channels", by_channels),
    ]


def measure(
    problem: ConvProblem, direction: Direction, dtype: str, rounds: int
) -> dict[str, Point]:
    """Measure every line's point of one problem."""
    lines = {DIRECT: direct_sum(problem, direction, dtype)}
    lines |= {name: name for name in transforming(problem, direction)}
    judged = judge(problem, direction, dtype, "normal")
    calls = {
        line: Convcore(name).prepare(judged.case, judged.arrays)
        for line, name in lines.items()
    }
    errors = {line: judged.error(name) for line, name in lines.items()}
    _spend(_WARM_SECONDS, *calls.values())
    repetitions = {
        line: max(1, round(_SAMPLE_SECONDS / max(_seconds(call, 1), 1e-6)))
        for line, call in calls.items()
    }
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for line, call in calls.items():
            best[line] = min(best[line], _seconds(call, repetitions[line]))
    return {
        line: Point(name, 1e3 * best[line], errors[line])
        for line, name in lines.items()
    }


def _spend(seconds: float, *calls: Callable[[], Any]) -> None:
    """Make calls for so long: a processor that slept is slow for a while."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for call in calls:
            call()


def _seconds(call: Callable[[], Any], repetitions: int) -> float:
    """Give the CPU time of one call, the mean of several."""
    begin = time.thread_time_ns()
    for _ in range(repetitions):
        call()
    return (time.thread_time_ns() - begin) / repetitions / 1e9


def crossings(sweep: Sweep, found: Found) -> str:
    """Tell in a sentence which line is the fastest where."""
    fastest = {
        number: min(points, key=lambda line: points[line].milliseconds)
        for number, points in found.items()
    }
    numbers = sorted(fastest)
    starts = [numbers[0]] + [
        b for a, b in pairwise(numbers) if fastest[a] != fastest[b]
    ]
    ends = [numbers[numbers.index(s) - 1] for s in starts[1:]] + [numbers[-1]]
    parts = [
        f"{fastest[s]} from {s} to {e}" if s != e else f"{fastest[s]} at {s}"
        for s, e in zip(starts, ends, strict=True)
    ]
    return f"Fastest by {sweep.variable}: {', '.join(parts)}."


def table(sweep: Sweep, found: Found) -> tuple[list[str], list[list[str]]]:
    """Tabulate times and errors."""
    lines = lines_of([found])
    head = [sweep.variable, "direct is", *(f"{line}, ms" for line in lines)]
    head += [f"{line}, error" for line in lines]
    rows = []
    for number, points in found.items():
        times, errors = [], []
        for line in lines:
            point = points.get(line)
            times.append(f"{point.milliseconds:.3g}" if point else NONE)
            errors.append(
                f"{point.error.mean:.2g} / {point.error.worst:.2g}" if point else NONE
            )
        rows.append([str(number), points[DIRECT].algorithm, *times, *errors])
    return head, rows


def lines_of(results: Sequence[Found]) -> list[str]:
    """Name all lines, "direct" first."""
    names = (name for found in results for points in found.values() for name in points)
    return list(dict.fromkeys([DIRECT, *names]))


def page(
    sweeps: Sequence[Sweep], results: Sequence[Found], origin: dict[str, str], plot: str
) -> str:
    """Give the results as a Markdown page."""
    parts = ["# Where direct sums, Winograd and the FFT cross over", bullets(origin)]
    parts.append(
        "Milliseconds of CPU time of one thread; mean / worst error on normal data, in "
        "units of u · Σ|x||w|. `direct` is what the library chooses under "
        '`precision("strict")`; the second column names it.'
    )
    parts.append(f"![Time and error of each algorithm]({plot})")
    for sweep, found in zip(sweeps, results, strict=True):
        parts += [f"## {sweep.title}", crossings(sweep, found)]
        parts.append(markdown_table(*table(sweep, found)))
    return "\n\n".join(parts) + "\n"


def draw(sweeps: Sequence[Sweep], results: Sequence[Found], path: Path) -> None:
    """Draw times above errors, a column for each sweep."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(10, 7.5), dpi=110, layout="constrained")
    axes = figure.subplots(2, len(sweeps), sharex="col")
    axes[1, 1].sharey(axes[1, 0])
    for column, (sweep, found) in enumerate(zip(sweeps, results, strict=True)):
        time_axes, error_axes = axes[0, column], axes[1, column]
        for line in lines_of(results):
            numbers = [n for n in found if line in found[n]]
            points = [found[n][line] for n in numbers]
            direct = [found[n][DIRECT].milliseconds for n in numbers]
            if column == 0:
                times = [p.milliseconds for p in points]
            else:
                times = [
                    d / p.milliseconds for d, p in zip(direct, points, strict=True)
                ]
            _plot(time_axes, line, numbers, times)
            _plot(error_axes, line, numbers, [p.error.mean for p in points])
        time_axes.set_title(sweep.title)
        error_axes.set_xlabel(sweep.variable)
        error_axes.set_ylabel("mean error, in units of u · Σ|x||w|")
        error_axes.set_yscale("log")
        for ax in (time_axes, error_axes):
            ax.grid(alpha=0.3)
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel("CPU time, ms (lower is better)")
    axes[0, 1].set_ylabel("speed over the direct sum (higher is better)")
    axes[0, 1].set_ylim(bottom=0)
    axes[1, 1].set_xscale("log", base=2)
    shown = [list(results[0]), [n for n in results[1] if n & (n - 1) == 0]]
    for ax, numbers in zip(axes[1], shown, strict=True):
        ax.set_xticks(numbers, [str(n) for n in numbers], fontsize=9)
        ax.xaxis.minorticks_off()
    for ax in (axes[0, 0], *axes[1]):
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.minorticks_off()
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=len(labels), frameon=False
    )
    figure.savefig(path)


def _plot(ax: "Axes", line: str, x: list[int], y: list[float]) -> None:
    style = _STYLES.get(line, _OTHER)
    label = _NAMES.get(line, line)
    ax.plot(x, y, label=label, markersize=6, linewidth=1.6, **style)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--kernels", type=int, nargs="+", default=list(_KERNELS), help="odd sizes")
    add("--channels", type=int, nargs="+", default=list(_CHANNELS))
    add("--extent", type=int, default=56, help="of the map along both axes")
    add("--direction", choices=DIRECTIONS, default="fprop")
    add("--dtype", choices=DTYPES, default="float32")
    add("--rounds", type=int, default=15)
    add("--out", type=Path, help="write OUT.md and OUT.png, too")
    given = parser.parse_args()
    versions = Convcore().start(1)
    direction = direction_of(given.direction)
    rows = sweeps(given.kernels, given.channels, given.extent)
    results: list[Found] = []
    for sweep in rows:
        print(f"{sweep.title}, {direction}, {given.dtype}")
        stream = Stream(
            (sweep.variable, "line", "algorithm", "ms", "mean", "worst"),
            (11, 9, 9, 8, 7, 7),
        )
        print(f"{stream.head}\n{stream.rule}")
        found: Found = {}
        for number, problem in sweep.problems.items():
            found[number] = measure(problem, direction, given.dtype, given.rounds)
            for line, p in found[number].items():
                cells = (f"{p.milliseconds:.3g}", *map("{:.3g}".format, _both(p.error)))
                print(stream.line((str(number), line, p.algorithm, *cells)), flush=True)
        results.append(found)
        print(f"{crossings(sweep, found)}\n")
    if given.out:
        plot = given.out.with_suffix(".png")
        command = machine.command("benchmarks.bench_crossover", sys.argv[1:])
        text = page(rows, results, machine.origin(command, versions), plot.name)
        given.out.with_suffix(".md").write_text(text, "utf-8")
        draw(rows, results, plot)


def _both(error: Error) -> tuple[float, float]:
    return error.mean, error.worst


if __name__ == "__main__":
    main()
