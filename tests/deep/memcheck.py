"""Small calls of every operation, forward and backward, for `tests/deep/memcheck.sh`."""

import sys

import numpy as np

from convcore.runtime import arrays, threads
from tests import guarded, oracle
from tests.deep import exact  # noqa: F401  (scratch without room behind it)

SIZES = (3, 9)  # less than a vector, and more


def main() -> None:
    """Run every layer and operation both ways, and every algorithm of convolution."""
    arrays.POISON = (
        False  # what is not written stays unknown, and is reported if it counts
    )
    threads.team = lambda work: 1
    count = 0
    for dtype in oracle.DTYPES:
        for n in SIZES:
            for name, case in guarded.of_length(n, dtype):
                print(f"{np.dtype(dtype)} {name}", file=sys.stderr, flush=True)
                case()
                count += 1
    print(count)


if __name__ == "__main__":
    main()
