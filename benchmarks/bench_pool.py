"""Time the poolings of convcore.

python -m benchmarks.bench_pool --layer resnet_50/pool1 --directions fprop
"""

from benchmarks import direct


def main() -> None:
    """Run the command line."""
    parser = direct.parser(__doc__, "^resnet_50/pool1$")
    options = direct.options(parser, parser.parse_args(), "pool")
    direct.run(options, lambda row, direction: ("auto",))


if __name__ == "__main__":
    main()
