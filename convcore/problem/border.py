"""What lies beyond the border of an array: the modes, and the element each one finds.

Positions are counted in the array, so that -1 is the first one before it. Widths beyond
the array repeat the pattern, as `numpy.pad` does:

    mode        -4 -3 -2 -1 | 0 1 2 | 3 4 5 6
    zeros        0  0  0  0 | a b c | 0 0 0 0
    constant     v  v  v  v | a b c | v v v v
    reflect      a  b  c  b | a b c | b a b c     the border element is the mirror
    symmetric    c  c  b  a | a b c | c b a a     the mirror lies between two elements
    replicate    a  a  a  a | a b c | c c c c
    circular     c  a  b  c | a b c | a b c a
"""

import math
from numbers import Real
from typing import Any, Literal, cast

from convcore.problem.rules import one_of, shown

Border = Literal["zeros", "constant", "reflect", "symmetric", "replicate", "circular"]

BORDERS: tuple[Border, ...] = (
    "zeros",
    "constant",
    "reflect",
    "symmetric",
    "replicate",
    "circular",
)


def source_index(i: int, extent: int, mode: str) -> int | None:
    """Give the element that a mode finds at position `i`; None where it finds none.

    Parameters
    ----------
    i : int
        A position, in the array or outside of it.
    extent : int, >= 1
        Elements of the array; at least 2 for "reflect".
    mode : str
        One of `BORDERS`.

    Examples
    --------
    >>> [source_index(i, 3, "reflect") for i in range(-4, 7)]
    [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    """
    if 0 <= i < extent:
        return i
    if mode in ("zeros", "constant"):
        return None
    if mode == "replicate":
        return 0 if i < 0 else extent - 1
    if mode == "circular":
        return i % extent
    period = 2 * (extent - 1) if mode == "reflect" else 2 * extent
    i %= period
    return i if i < extent else period - i - (mode == "symmetric")


def border(
    function: str,
    mode: Any,
    names: tuple[str, ...] = BORDERS,
    argument: str = "padding_mode",
) -> Border:
    """Give a padding mode if it is one of `names`."""
    if not isinstance(mode, str):
        raise TypeError(f"{function}: {argument} must be a string, got {shown(mode)}")
    return cast(Border, one_of(function, argument, mode, names))


def constant(function: str, argument: str, value: Any) -> float:
    """Give what a constant border is filled with as a finite float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{function}: {argument} must be a real number, got {shown(value)}"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{function}: {argument} must be finite, got {shown(value)}")
    return number


def bordered(
    function: str, mode: Any, value: Any, names: tuple[str, ...] = BORDERS
) -> tuple[Border, float]:
    """Check `padding_mode` and `padding_value` together, and give both."""
    mode, number = (
        border(function, mode, names),
        constant(function, "padding_value", value),
    )
    if number and mode != "constant":
        raise ValueError(
            f'{function}: padding_value needs padding_mode "constant", got {shown(number)} '
            f"with {shown(mode)}"
        )
    return mode, number


def check_reflect(
    function: str,
    extents: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    of: str = "x",
) -> None:
    """Refuse to reflect an axis of an array that has nothing besides the mirror."""
    for axis, (extent, pair) in enumerate(zip(extents, pads, strict=True)):
        if extent == 1 and any(pair):
            raise ValueError(
                f'{function}: "reflect" needs at least 2 elements along '
                f"an axis with padding, got extent 1 of {of} along spatial axis {axis} "
                f"with padding {pair}"
            )
