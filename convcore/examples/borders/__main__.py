"""The command line: `python -m convcore.examples.borders`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from convcore.examples import borders
from convcore.examples.borders.experiment import EPOCHS, SEEDS

REFUSED = 2  # as argparse has it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit code."""
    parser = argparse.ArgumentParser(
        prog=borders.COMMAND,
        description=borders.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("borders"),
        metavar="DIR",
        help="where pictures and tables go (default: borders)",
    )
    parser.add_argument(
        "--experiment",
        action="store_true",
        help="train the networks, which takes some minutes",
    )
    parser.add_argument(
        "--no-pictures", dest="pictures", action="store_false", help="draw none"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N")
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="N")
    given = parser.parse_args(arguments)
    if given.seeds < 1 or given.epochs < 1:
        parser.error("--seeds and --epochs must be >= 1")
    try:
        borders.prepare(given.out, learns=given.experiment, draws=given.pictures)
    except borders.CannotRun as error:
        print(f"{borders.COMMAND}: {error}", file=sys.stderr)
        return REFUSED
    if given.pictures:
        borders.draw(given.out)
    if given.experiment:
        borders.learn(given.out, seeds=range(given.seeds), epochs=given.epochs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
