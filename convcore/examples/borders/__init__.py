"""In a network of convolutions, are pixels in the middle over-represented in the output?

    pictures     paths, influence, the triangle, effective receptive fields
    numbers      paths of the edge beside those of the centre, as a table
    experiment   digits in the middle and at the border, read with each remedy
    remedies     the networks: one line for each remedy

    python -m convcore.examples.borders --out DIR                 pictures and numbers
    python -m convcore.examples.borders --out DIR --experiment    and the experiment

`docs/guides/borders.md` explains what comes out.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from convcore.examples.borders import experiment, numbers, pictures
from convcore.runtime.config import __version__

__all__ = ["CannotRun", "draw", "learn", "prepare"]

COMMAND = "python -m convcore.examples.borders"
_NEEDED_TO_DRAW = {"matplotlib.figure": "matplotlib"}
_NEEDED_TO_LEARN = {"sklearn.datasets": "scikit-learn"}


class CannotRun(Exception):
    """The example cannot start: something is not installed, or there is no place."""


def prepare(out: Path, *, learns: bool, draws: bool) -> None:
    """Find out what would stop the program later, and make the directory.

    Raises
    ------
    CannotRun
        When a package is missing, or the directory cannot be made.
    """
    needed = _NEEDED_TO_DRAW if draws else {}
    if learns:
        needed = needed | _NEEDED_TO_LEARN
    missing = []
    for module, package in needed.items():
        try:
            import_module(module)
        except ImportError:
            missing.append(package)
    if missing:
        raise CannotRun(
            f"needs {' and '.join(missing)}, not installed here; "
            'run: pip install "convcore[demo]"'
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotRun(f"cannot make the directory {out}: {error}") from None


def draw(out: Path, seed: int = 0) -> None:
    """Write the pictures and the table of numbers, and print the table."""
    table = [*numbers.HEAD, *numbers.ratio_rows()]
    _write(
        out / "numbers.md",
        "Paths of an edge pixel beside those of a central one",
        COMMAND,
        "Stride 1; inputs wide enough, as `analysis.path_ratio` says.",
        table,
    )
    print("\n".join(table), flush=True)
    for name, picture in pictures.all_pictures(seed).items():
        path = out / f"{name}.png"
        pictures.save(picture(), path)
        print(path, flush=True)


def learn(
    out: Path,
    *,
    seeds: Sequence[int] = range(experiment.SEEDS),
    epochs: int = experiment.EPOCHS,
) -> None:
    """Run the experiment; print its table line by line, and write it."""
    from convcore.demo import data

    table = list(experiment.HEAD)
    print("\n".join(table), flush=True)
    for result in experiment.run(data.load(), seeds=seeds, epochs=epochs):
        table.append(experiment.row(result))
        print(table[-1], flush=True)
    _write(
        out / "experiment.md",
        "Digits in the middle and at the border",
        f"{COMMAND} --experiment --seeds {len(seeds)} --epochs {epochs}",
        "Held-out digits that are read well, in percent: mean and standard deviation "
        f"over {len(seeds)} seeds.",
        table,
    )


def _write(
    path: Path, title: str, command: str, caption: str, table: Sequence[str]
) -> None:
    """Write a page of results, and what made it."""
    lines = [
        f"# {title}",
        "",
        f"- command: `{command}`",
        f"- version: convcore {__version__}",
        "",
        caption,
        "",
        *table,
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
