"""Time the activations, normalisations, softmaxes and losses of convcore.

python -m benchmarks.bench_elementwise --layer "resnet_50/res2 relu" --threads 1
"""

from benchmarks import direct


def main() -> None:
    """Run the command line."""
    parser = direct.parser(__doc__, "^resnet_50/res2 ")
    options = direct.options(parser, parser.parse_args(), "elementwise")
    direct.run(options, lambda row, direction: ("auto",))


if __name__ == "__main__":
    main()
