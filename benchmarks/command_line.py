"""What the command lines share: lists with commas, counts, files to write."""

import argparse
from collections.abc import Callable
from pathlib import Path


def out_files(path: Path | None) -> tuple[Path, Path] | None:
    """Give the two files to write, in a folder that exists."""
    if path is None:
        return None
    stem = path.with_suffix("") if path.suffix in (".md", ".json") else path
    if not stem.parent.is_dir():
        raise ValueError(f"--out: no folder {stem.parent}")
    return stem.with_name(f"{stem.name}.md"), stem.with_name(f"{stem.name}.json")


def names(*words: str) -> Callable[[str], list[str]]:
    """Make the type of a list with commas, of certain words where some are given."""

    def read(text: str) -> list[str]:
        found = [name.strip() for name in text.split(",") if name.strip()]
        for name in found:
            if words and name not in words:
                raise argparse.ArgumentTypeError(
                    f"{name!r} is none of {', '.join(words)}"
                )
        return list(dict.fromkeys(found))

    return read


def count(text: str) -> int:
    """Read an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def counts(text: str) -> list[int]:
    """Read counts with commas."""
    return [count(part) for part in text.split(",")]
