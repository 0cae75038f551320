"""Find the work from which a second thread pays: `SERIAL_MACS` of runtime/threads.py.

    python -m benchmarks.bench_threads

Convolutions of growing work are timed with one thread and with all of them, in turns;
the threshold belongs where the ratio passes 1 for good.
"""

import argparse

from benchmarks import machine, timing
from benchmarks.case import data
from benchmarks.peers.with_convcore import Convcore
from benchmarks.render import Stream
from benchmarks.results import Spread
from benchmarks.rows import ConvRow
from convcore.problem import ConvProblem
from convcore.runtime import threads

_EXTENTS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
_SHAPE = "n1g1ic16ih{}oc16kh3ph1"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument("--samples", type=int, default=15)
    given = parser.parse_args()
    threads.SERIAL_MACS = 0
    table = Stream(
        ("problem", "macs", "one us", "all us", "one / all"), (28, 10, 9, 9, 9)
    )
    print(f"{given.threads} threads\n{table.head}\n{table.rule}")
    for extent in _EXTENTS:
        problem = ConvProblem.parse(_SHAPE.format(extent))
        case = ConvRow("", "conv", problem).case("fprop", "float32")
        call = Convcore().prepare(case, data(case))
        one: list[float] = []
        every: list[float] = []
        for _ in range(given.samples):
            for count, samples in ((1, one), (given.threads, every)):
                threads.set_num_threads(count)
                samples.append(timing.sample(call, timing.calibrate(call)))
        ratio = Spread.of([a / b for a, b in zip(one, every, strict=True)]).median
        line = (
            str(problem),
            str(problem.macs),
            f"{1e6 * Spread.of(one).median:.1f}",
            f"{1e6 * Spread.of(every).median:.1f}",
            f"{ratio:.2f}",
        )
        print(table.line(line), flush=True)


if __name__ == "__main__":
    main()
