"""How a convolution is spelt, as oneDNN does it: `n1g1ic3ih224oc64kh7sh2ph3`."""

import re
from collections.abc import Sequence
from typing import Any

from convcore.problem.border import BORDERS
from convcore.problem.rules import shown

_AXES = "dhw"


def read(text: str) -> tuple[tuple[Any, ...], bool]:
    """Give the arguments of `ConvProblem.conv` that are spelt, and whether there is a relu.

    See `ConvProblem.parse`.
    """
    if not isinstance(text, str):
        raise TypeError(f"ConvProblem.parse: text must be a str, got {shown(text)}")
    whole, relu = text, text.endswith("relu")
    text, mode, value = _split_border(text.removesuffix("relu"))
    field = re.compile(r"(oc|ic|n|g|[iksp][dhw]|d[dhw])(\d{1,300}(?:_\d{1,300})?)")
    found = field.findall(text)
    fields = dict(found)
    if "".join(k + v for k, v in found) != text or len(fields) < len(found):
        raise ValueError(
            f"ConvProblem.parse: text must be a spelling, got {shown(whole)}"
        )
    firsts = [axis for axis in _AXES if "i" + axis in fields]
    if not firsts or not {"n", "ic", "oc"} <= fields.keys():
        raise ValueError(
            f"ConvProblem.parse: text {shown(text)} lacks n, ic, oc or an extent"
        )
    axes = _AXES[_AXES.index(firsts[0]) :]

    def each(letter: str, default: str | None = None) -> list[str]:
        values: list[str] = []
        for axis in axes:
            value = fields.get(letter + axis, values[-1] if values else default)
            if value is None:
                raise ValueError(
                    f"ConvProblem.parse: text {shown(text)} lacks {letter + axis}"
                )
            values.append(value)
        return values

    g = int(fields.get("g", "1"))
    ic, oc = int(fields["ic"]), int(fields["oc"])
    pads = [[int(v) for v in (p.split("_") * 2)[:2]] for p in each("p", "0")]
    arguments = (
        (int(fields["n"]), ic, *map(int, each("i"))),
        (oc, ic // max(g, 1), *map(int, each("k"))),
        [int(v) for v in each("s", "1")],
        pads,
        [int(v) for v in each("d", "1")],
        g,
        mode,
        value,
    )
    return arguments, relu


def _split_border(text: str) -> tuple[str, str, float]:
    """Split the spelling of a problem at the mode of its border: numbers, mode, value."""
    found = re.fullmatch(rf"(.*?)({'|'.join(BORDERS)})(.*)", text)
    if not found:
        return text, "zeros", 0.0
    numbers, mode, value = found.groups()
    try:
        return numbers, mode, float(value) if mode == "constant" else float(value or 0)
    except ValueError:
        raise ValueError(
            f"ConvProblem.parse: text must be a spelling, got {shown(text)}"
        ) from None


def spell(
    form: str, values: Sequence[object], first: int, default: object = None
) -> str:
    """Spell the axes from `first` on, leaving out what equals the axis before it."""
    text, last = "", default
    for axis, value in list(zip(_AXES, values, strict=True))[first:]:
        if value != last:
            text += form.format(axis) + str(value)
            last = value
    return text


def spell_pair(pair: tuple[int, int]) -> str:
    """Spell what lies before and after an axis: one number, if it is the same."""
    lo, hi = pair
    return str(lo) if lo == hi else f"{lo}_{hi}"
