"""Small calls of every operation both ways: `python -m tests.deep.memcheck LENGTH …`.

For `memcheck.sh`, or in a build that finds faults; lengths are those of `tests.guarded`.
"""

import sys

import numpy as np

from convcore.runtime import arrays, threads
from tests import guarded, oracle
from tests.deep import exact  # noqa: F401  (scratch without room behind it)


def main(lengths: list[int]) -> None:
    """Run every layer and operation both ways, and every algorithm of convolution."""
    arrays.POISON = (
        False  # what is not written stays unknown, and is reported if it counts
    )
    threads.team = lambda work: 1
    count = 0
    for dtype in oracle.DTYPES:
        for n in lengths:
            for name, case in guarded.of_length(n, dtype):
                print(f"{np.dtype(dtype)} {name}", file=sys.stderr, flush=True)
                case()
                count += 1
    print(count)


if __name__ == "__main__":
    main([int(n) for n in sys.argv[1:]])
