"""Fit the prices of the cost model, by which transforms are chosen: cost_constants.py.

    python -m benchmarks.fit_cost_model --save times.json      measure, fit, write
    python -m benchmarks.fit_cost_model --load times.json      fit and write

On a quiet machine the former takes a quarter of an hour. All algorithms that accept a
layer are measured in turns, the least time of each counts; then for each algorithm and
direction prices that are not negative are fitted, so that the sum of squared relative
errors is the least: each times the share of the time that the best algorithm takes, for
where others are far ahead an estimate matters less. It prints how large the errors are, and
for how many of the layers the choice takes at most 5 % longer than the best algorithm.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter, thread_time

import numpy as np
from scipy.optimize import nnls

import convcore
from benchmarks import machine
from benchmarks.problems import suite
from convcore import plan
from convcore.algorithms import CONV, cost_constants, costs
from convcore.problem import ConvProblem, Direction
from convcore.runtime import cpu

_SUITES = ("core", "extra", "small")
_DIRECTIONS: tuple[Direction, ...] = ("fprop", "dgrad", "wgrad", "bgrad")
_PACKED: tuple[Direction, ...] = ("fprop", "dgrad")  # a layer keeps their weights
_LEAST_CALL = 1e-6  # seconds: `python -m benchmarks.bench_overhead`
_CLOSE = 1.05
ROUNDS = 5  # at the end, errors are relative to the geometric mean of time and estimate
_OUT = Path(cost_constants.__file__)

_MODULE = '''"""The prices of `costs.py` in seconds: written by `{command}`.

{machine}, {isa}, {threads}, float32, {date}. Typical error {error:.0%}.
"""

from collections.abc import Mapping

PRICES: Mapping[str, Mapping[str, float]] = {{
{prices}
}}
'''


@dataclass(frozen=True)
class Times:
    """The seconds of all algorithms that accept a question."""

    layer: str
    problem: str
    direction: Direction
    kept: bool
    seconds: dict[str, float]


@dataclass(frozen=True)
class Run:
    """Measurements, and where they come from."""

    machine: str
    isa: str
    threads: str
    date: str
    times: list[Times]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    given = _parser().parse_args(arguments)
    os.environ["CONVCORE_AUTOTUNE"] = "0"  # the rules alone
    run = _load(given.load) if given.load else _measure(given)
    if given.save:
        given.save.write_text(json.dumps(asdict(run), indent=1), "utf-8")
    prices = fit(run.times)
    costs.PRICES = prices  # for the report
    error = report(run.times)
    if given.dry:
        return
    given.out.write_text(
        _MODULE.format(
            command="python -m benchmarks.fit_cost_model",
            machine=run.machine,
            isa=run.isa,
            threads=run.threads,
            date=run.date,
            error=error,
            prices="\n".join(_entry(*item) for item in prices.items()),
        ),
        "utf-8",
    )
    print(f"written: {given.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--load", type=Path, help="fit to the measurements of this file")
    add("--save", type=Path, help="write the measurements to this file")
    add("--out", type=Path, default=_OUT, help="module to write (default: convcore's)")
    add("--dry", action="store_true", help="write no module")
    add("--threads", type=int, default=machine.cores())
    add("--seconds", type=float, default=0.1, help="for each algorithm (default 0.1)")
    add("--random", type=int, default=150, help="further problems (default 150)")
    add("--filter", default="", help="measure only layers whose name has this text")
    add(
        "--cpu-time",
        action="store_true",
        help="count the thread's CPU time: for one thread on a machine that is not quiet",
    )
    return parser


def _entry(name: str, prices: dict[str, float]) -> str:
    lines = [f'        "{amount}": {price!r},' for amount, price in prices.items()]
    return "\n".join([f'    "{name}": {{', *lines, "    },"])


def _load(path: Path) -> Run:
    content = json.loads(path.read_text("utf-8"))
    return Run(**content | {"times": [Times(**fields) for fields in content["times"]]})


# Measuring


def _measure(given: argparse.Namespace) -> Run:
    convcore.set_num_threads(given.threads)
    clock = thread_time if given.cpu_time else perf_counter
    times = []
    for layer, problem in _problems(given.random):
        if given.filter not in layer:
            continue
        for direction in _DIRECTIONS:
            for kept in (False, True) if direction in _PACKED else (False,):
                found = plan.measure(
                    problem,
                    direction,
                    kept=kept,
                    seconds=given.seconds,
                    hopeless=math.inf,
                    clock=clock,
                )
                times.append(Times(layer, str(problem), direction, kept, found))
        print(f"{layer} {problem}", file=sys.stderr, flush=True)
    return Run(
        machine=machine.describe()["cpu"],
        isa=cpu.isa(),
        threads=f"{given.threads} threads" if given.threads > 1 else "1 thread",
        date=machine.now()[:10],
        times=times,
    )


def _problems(count: int) -> Iterator[tuple[str, ConvProblem]]:
    """Give layers that are known, those of `core` also for one sample, and random ones."""
    for name in _SUITES:
        for row in suite(name):
            if isinstance(row.problem, ConvProblem):
                yield f"{name}:{row.name}", row.problem
    for row in suite("core"):
        if isinstance(row.problem, ConvProblem):
            yield f"one:{row.name}", replace(row.problem, n=1)
    rng = np.random.default_rng(0)
    for i in range(count):
        yield f"random:{i}", random_problem(rng)


def random_problem(rng: np.random.Generator) -> ConvProblem:
    """Draw a problem; most are dense, with 3 x 3 taps: what transforms could take."""
    while True:
        ic, oc = (int(2 ** rng.uniform(1, 9.5)) for _ in "xy")
        n, extent = int(2 ** rng.uniform(0, 4)), int(2 ** rng.uniform(2, 7))
        kernel = int(rng.choice([1, 3, 3, 3, 3, 5, 7]))
        stride = int(rng.choice([1, 1, 2]))
        g = int(rng.choice([1, 1, 1, 1, 2, 16]))
        kind = rng.choice(["dense", "depthwise", "covering"], p=[0.8, 0.1, 0.1])
        if kind == "depthwise":
            g, ic, oc = ic, 1, 1
        padding = kernel // 2
        if kind == "covering":
            extent, padding = kernel, 0
        problem = ConvProblem.parse(
            f"n{n}g{g}ic{g * ic}ih{extent}oc{g * oc}kh{kernel}sh{stride}ph{padding}"
        )
        if 1e5 < problem.macs < 1e9 and g * max(ic, oc) <= 2048:
            return problem


# Fitting


def fit(times: Sequence[Times]) -> dict[str, dict[str, float]]:
    """Fit the prices of each algorithm and direction to its times."""
    prices = {}
    for direction in _DIRECTIONS:
        for card in CONV:
            rows, seconds, weights = [], [], []
            for t in times:
                if t.direction == direction and card.name in t.seconds:
                    problem = ConvProblem.parse(t.problem).folded
                    amounts = costs.effort(card, problem, direction, t.kept)
                    rows.append([amounts.get(name, 0.0) for name in costs.AMOUNTS])
                    seconds.append(t.seconds[card.name])
                    weights.append(min(t.seconds.values()) / t.seconds[card.name])
            if rows:
                found = _nnls(np.array(rows), np.array(seconds), np.array(weights))
                prices[f"{card.name} {direction}"] = found
    return prices


def _nnls(
    rows: np.ndarray, seconds: np.ndarray, weights: np.ndarray
) -> dict[str, float]:
    """Find the prices with the least sum of squared relative errors times weights."""
    rows = rows / seconds[:, None]
    scale = np.maximum(np.sqrt((rows**2).sum(0)), 1e-300)
    rows /= scale
    ratio = np.ones(len(rows))
    for _ in range(ROUNDS):
        relative = weights / np.sqrt(ratio)
        found, _ = nnls(rows * relative[:, None], relative)
        ratio = np.maximum(rows @ found, 0.1)
    priced = dict(zip(costs.AMOUNTS, map(float, found / scale), strict=True))
    priced["call"] = max(priced["call"], _LEAST_CALL)
    return {name: float(f"{price:.4g}") for name, price in priced.items() if price}


def report(times: Sequence[Times]) -> float:
    """Print errors and choices; give the typical error, the median."""
    cards = {card.name: card for card in CONV}
    errors: dict[str, list[float]] = {}
    for t in times:
        problem = ConvProblem.parse(t.problem)
        for name, seconds in t.seconds.items():
            guess = costs.seconds(
                cards[name], problem.folded, t.direction, "float32", t.kept
            )
            key = f"{name} {t.direction}"
            errors.setdefault(key, []).append(abs(math.log(guess / seconds)))
    for key, found in errors.items():
        median, most = np.percentile(found, [50, 90])
        print(f"{key:<18}{len(found):5} times  error {median:5.0%}, 90 % {most:5.0%}")
    _report_choices(times)
    return float(np.median([e for found in errors.values() for e in found]))


def _report_choices(times: Sequence[Times]) -> None:
    """Print how many choices are close to the best, and those that are not."""
    plan.forget()
    ratios: dict[str, list[float]] = {}
    for t in times:
        if t.direction == "bgrad":
            continue
        problem = ConvProblem.parse(t.problem)
        chosen = plan.select(problem, t.direction, "float32", kept=t.kept).algorithm
        best = min(t.seconds, key=lambda name: t.seconds[name])
        ratio = t.seconds[chosen] / t.seconds[best]
        suite_name = t.layer.partition(":")[0]
        ratios.setdefault(suite_name + " kept" * t.kept, []).append(ratio)
        if ratio > _CLOSE:
            question = f"{t.problem} {t.direction}{' kept' * t.kept}"
            print(f"{t.layer}: {question}: {chosen} takes {ratio:.2f} times {best}")
    for name, found in ratios.items():
        close = sum(ratio <= _CLOSE for ratio in found)
        mean = float(np.exp(np.mean(np.log(found))))
        print(
            f"{name}: {close} of {len(found)} choices within 5 % of the best "
            f"({close / len(found):.1%}), {mean:.3f} times its time on average"
        )


if __name__ == "__main__":
    main()
