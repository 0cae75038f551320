"""Arguments to canonical tuples, and the rules that all problems share.

Each function names the public function and the argument in its error.
"""

import operator
from collections.abc import Sequence
from math import prod
from typing import Any, TypeVar

Triple = tuple[int, int, int]
Pair = tuple[int, int]
Size = int | Sequence[int]
Padding = str | int | Sequence[int | Sequence[int]]

MAX_BYTES = 2**63 - 1  # what a Py_ssize_t can address
_BEYOND = 2**1000  # can be shown, and is a float
_ITEM_BYTES = 8  # every extent is checked for float64, so that dtype never matters
# No window is too large for it, and a batch of 0 needs no memory: with an input of this
# extent, only arguments that fit no input at all are refused.
ANY_EXTENT = 2**40
_T = TypeVar("_T")


def shown(value: Any) -> str:
    """Give a value's text for an error: Python refuses that of very large integers."""
    try:
        return repr(value)
    except ValueError:
        return f"a {type(value).__name__} that is too long to show"


def integer(function: str, argument: str, value: Any) -> int:
    """Give `value` as an int; a bool, a float or a string is not an index."""
    number: int = value
    if type(value) is not int:
        try:
            if isinstance(value, bool):
                raise TypeError
            number = operator.index(value)
        except TypeError:
            raise TypeError(
                f"{function}: {argument} must be an integer, got {shown(value)}"
            ) from None
    if not -_BEYOND < number < _BEYOND:
        raise ValueError(f"{function}: {argument} must be < 2**1000, got more digits")
    return number


def one_of(function: str, argument: str, value: Any, names: Sequence[str]) -> str:
    """Give `value` if it is one of these strings; it may be anything, an array as well."""
    if isinstance(value, str) and value in names:
        return value
    *first, last = [f'"{name}"' for name in names]
    known = f"{', '.join(first)} or {last}"
    if len(names) > 3:
        known = f"one of {', '.join(first)}, {last}"
    raise ValueError(f"{function}: {argument} must be {known}, got {shown(value)}")


def sizes(
    function: str, argument: str, value: Any, ndim: int, least: int = 1
) -> tuple[int, ...]:
    """Give one int of at least `least` per axis, from one int or one per axis."""
    if isinstance(value, (tuple, list)):
        sizes = tuple(integer(function, argument, v) for v in value)
        if len(sizes) != ndim:
            raise ValueError(
                f"{function}: {argument} must be one integer or {ndim}, got {shown(value)}"
            )
    else:
        sizes = (integer(function, argument, value),) * ndim
    if min(sizes) < least:
        raise ValueError(
            f"{function}: {argument} must be >= {least}, got {shown(value)}"
        )
    return sizes


def paddings(function: str, value: Any, ndim: int) -> str | tuple[Pair, ...]:
    """Give one (lo, hi) pair per axis, or the padding's name."""
    if isinstance(value, str):
        if value in ("valid", "same", "full") or (value == "causal" and ndim == 1):
            return value
        along_one = ', "causal"' if ndim == 1 else ""
        raise ValueError(
            f'{function}: padding must be "valid", "same", "full"{along_one} or '
            f"integers, got {shown(value)}"
        )
    if isinstance(value, (tuple, list)):
        if len(value) != ndim:
            raise ValueError(
                f"{function}: padding must have {ndim} entries, got {shown(value)}"
            )
        entries = list(value)
    else:
        entries = [value] * ndim
    pairs = []
    for entry in entries:
        if isinstance(entry, (tuple, list)):
            if len(entry) != 2:
                raise ValueError(
                    f"{function}: padding pairs must be (lo, hi), got {shown(value)}"
                )
            lo, hi = (integer(function, "padding", e) for e in entry)
        else:
            lo = hi = integer(function, "padding", entry)
        if lo < 0 or hi < 0:
            raise ValueError(f"{function}: padding must be >= 0, got {shown(value)}")
        pairs.append((lo, hi))
    return tuple(pairs)


def named_padding(
    padding: str | tuple[Pair, ...],
    extent: tuple[int, ...],
    reach: tuple[int, ...],
    stride: tuple[int, ...],
) -> tuple[Pair, ...]:
    """Turn "valid", "same", "full" and "causal" into pairs; pairs stay what they are."""
    if padding == "valid":
        return ((0, 0),) * len(extent)
    if padding == "full":
        return tuple((r - 1, r - 1) for r in reach)
    if padding == "causal":
        return tuple((r - 1, 0) for r in reach)
    if padding == "same":
        pairs = []
        for i, r, s in zip(extent, reach, stride, strict=True):
            windows = -(-i // s)
            total = max((windows - 1) * s + r - i, 0)
            pairs.append((total // 2, total - total // 2))
        return tuple(pairs)
    assert not isinstance(padding, str)
    return padding


def check_shape(function: str, argument: str, shape: tuple[int, ...]) -> None:
    """Refuse what is no shape of an array."""
    if type(shape) is not tuple or any(type(extent) is not int for extent in shape):
        raise TypeError(
            f"{function}: shape of {argument} must be a tuple of int, got {shape!r}"
        )


def rank(function: str, argument: str, shape: tuple[int, ...]) -> int:
    """Give the spatial rank of a batched shape."""
    if not 3 <= len(shape) <= 5:
        raise ValueError(
            f"{function}: {argument} must have 1 to 3 spatial axes behind "
            f"(batch, channels), got shape {shape}"
        )
    return len(shape) - 2


def fold(values: Sequence[_T], one: _T) -> tuple[_T, _T, _T]:
    """Put ones in front until there are three axes."""
    d, h, w = (one,) * (3 - len(values)) + tuple(values)
    return d, h, w


def check_extents(function: str, argument: str, shape: tuple[int, ...]) -> None:
    """Refuse empty extents: the batch may be 0, every other one is at least 1."""
    if min(shape[1:]) < 1 or shape[0] < 0:
        raise ValueError(
            f"{function}: every extent of {argument} but the batch must be >= 1, "
            f"got shape {shape}"
        )


def check_addressable(function: str, role: str, shape: tuple[int, ...]) -> None:
    """Refuse what 63 bits cannot address."""
    if prod(shape) * _ITEM_BYTES > MAX_BYTES:
        raise ValueError(
            f"{function}: {role} must be addressable with 63 bits, got shape {shape}"
        )
