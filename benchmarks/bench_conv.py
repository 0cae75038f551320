"""Time the convolutions of convcore, each algorithm that accepts a layer.

python -m benchmarks.bench_conv --layer res2a_branch2b --threads 1
"""

from collections.abc import Iterator
from typing import cast

from benchmarks import direct
from benchmarks.rows import Row
from convcore.algorithms import CONV
from convcore.problem import ConvProblem, Direction

# A transposed convolution runs the kernels of the convolution that it transposes.
_TURNED = {"fprop": "dgrad", "dgrad": "fprop", "wgrad": "wgrad"}


def main() -> None:
    """Run the command line."""
    parser = direct.parser(__doc__, "^resnet_50/")
    parser.add_argument(
        "--algorithm", default="all", help='one by name, "auto", or all (the default)'
    )
    given = parser.parse_args()
    options = direct.options(parser, given, "conv")

    def algorithms(row: Row, direction: str) -> Iterator[str]:
        if given.algorithm != "all":
            yield given.algorithm
            return
        assert isinstance(row.problem, ConvProblem)
        turned = _TURNED[direction] if row.op == "conv_transpose" else direction
        way = cast(Direction, turned)
        for card in CONV:
            if way in card.kernels and card.accepts(row.problem.folded, way).yes:
                yield card.name

    direct.run(options, algorithms)


if __name__ == "__main__":
    main()
