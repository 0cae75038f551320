"""The `convcore` command: `convcore demo` and `convcore info`.

Exit codes: 0 done, 2 bad arguments or a missing extra, 130 interrupted by Ctrl-C.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import convcore

REFUSED = 2  # as argparse has it
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the program's name; that of this process when not given.

    Returns
    -------
    int
        Exit code.
    """
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        return command(options)
    except KeyboardInterrupt:
        print(f"convcore {options.command}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convcore", description="Convolutional networks on NumPy arrays."
    )
    parser.add_argument(
        "--version", action="version", version=f"convcore {convcore.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="train a small network on handwritten digits",
        description=(
            "Train a LeNet-style network on the 1,797 handwritten digits that "
            "scikit-learn ships, test it on a quarter that it never saw, time the "
            "kernels against plain NumPy, and save pictures of what it learned."
        ),
    )
    demo.set_defaults(run=_demo)
    demo.add_argument("--quick", action="store_true", help="end within 10 seconds")
    demo.add_argument(
        "--seed",
        type=_integer(0),
        default=0,
        metavar="N",
        help="of the first weights and of the order of the digits (default: 0)",
    )
    demo.add_argument(
        "--epochs",
        type=_integer(1),
        metavar="N",
        help="times that every training digit is seen",
    )
    demo.add_argument(
        "--threads", type=_integer(1), metavar="N", help="threads of the kernels"
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("convcore-demo"),
        metavar="DIR",
        help="where the pictures go (default: convcore-demo)",
    )
    demo.add_argument(
        "--no-pictures",
        dest="pictures",
        action="store_false",
        help="save none; needs no matplotlib",
    )

    info = commands.add_parser(
        "info", help="show the instruction set, threads and versions in use"
    )
    info.add_argument(
        "--fingerprint",
        action="store_true",
        help="print a digest of results instead, the same on every machine",
    )
    info.set_defaults(run=_info)
    return parser


def _integer(least: int) -> Callable[[str], int]:
    """Give a reader of integers of at least `least`, for argparse."""

    def read(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be >= {least}, got {number}")
        return number

    read.__name__ = "integer"  # argparse names it: "invalid integer value: 'x'"
    return read


def _demo(options: argparse.Namespace) -> int:
    """Train on digits."""
    from convcore import demo

    settings = demo.Settings(
        quick=options.quick,
        seed=options.seed,
        epochs=options.epochs,
        out=options.out if options.pictures else None,
    )
    try:
        if options.threads is not None:
            convcore.set_num_threads(options.threads)
    except ValueError as error:
        return _refused(f"--threads: {error}")
    try:
        demo.run(settings)
    except demo.CannotRun as error:
        return _refused(str(error))
    return 0


def _refused(why: str) -> int:
    print(f"convcore demo: {why}", file=sys.stderr)
    return REFUSED


def _info(options: argparse.Namespace) -> int:
    """Show the configuration, or what the kernels compute with it."""
    if options.fingerprint:
        from convcore.fingerprint import fingerprint

        print(fingerprint())
    else:
        convcore.show_config()
    return 0
