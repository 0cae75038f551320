"""What equal calls have in common, found by their arguments as they come.

A call for some hundred elements is mostly what surrounds its kernel: checks, and the
search for a plan. Those whose arguments cannot change are done once. Small calls have one
thread, and results that NumPy allocates, so they leave out more.
"""

from collections.abc import Callable
from math import prod
from operator import is_
from typing import Any

import numpy as np

from convcore.arguments import exact
from convcore.functional.call import SILENT
from convcore.plan import Plan
from convcore.runtime import buffers, threads, workspace

Arguments = tuple[Any, ...]
Shape = tuple[int, ...]

# The arguments that were checked, and the shape among them; the plan, its kernel, its
# geometry and what else the kernel gets that arguments decide; bytes of scratch, or LARGE
# of a call that is not small; the shape of the result. A plain tuple: each name would cost
# 20 ns.
Kept = tuple[Arguments, Shape, Plan, Callable[..., Any], Any, Any, int, Shape]

LARGE = -1
_MOST = 4096  # calls that are kept
_ITEM = 8  # bytes of an element of a result, at most
_kept: dict[Arguments, Kept] = {}


def find(key: Arguments, arguments: Arguments, shape: Shape = ()) -> Kept | None:
    """Give what is kept for a call, if its arguments are also of the same types.

    `key` holds the arguments and whatever else decides. Keys are equal for 1, 1.0 and
    True, of which only one has been checked.
    """
    try:
        kept = _kept.get(key)
    except TypeError:  # a list, say
        return None
    if kept is None or (
        (all(map(is_, arguments, kept[0])) or _are_alike(arguments, kept[0]))
        and (shape is kept[1] or _are_alike(shape, kept[1]))
    ):
        return kept
    return None


def keep(
    key: Arguments,
    arguments: Arguments,
    chosen: Plan,
    result: Shape,
    shape: Shape = (),
    more: Any = None,
) -> None:
    """Keep a call, if its arguments cannot change."""
    if not (SILENT and all(map(_is_fixed, (*arguments, shape)))):
        return
    if len(_kept) >= _MOST:
        _kept.clear()
    small = prod(result) * _ITEM < buffers.LEAST and chosen.work < threads.SERIAL_MACS
    size = chosen.scratch_bytes(1) if small else LARGE
    given = chosen.kernel, chosen.geometry, more, size
    _kept[key] = (arguments, shape, chosen, *given, result)


def with_scratch(kernel: Callable[..., Any], size: int, *arrays: Any) -> None:
    """Run the kernel of a small call that needs scratch, as `call.run` does."""
    scratch = workspace.lend(size)
    try:
        kernel(*arrays, scratch, 1)
    finally:
        workspace.take_back(scratch)


def is_plain(array: Any) -> bool:
    """Tell whether a kernel can read an array as it is."""
    if type(array) is not np.ndarray:
        return False
    flags = array.flags
    return bool(flags.c_contiguous and flags.aligned)


def _are_alike(given: Arguments, before: Arguments) -> bool:
    """Tell whether equal arguments are the same, or of the same types, also in tuples."""
    if all(map(is_, given, before)):
        return True
    for one, other in zip(given, before, strict=True):
        if one is not other:
            kind = type(one)
            if kind is not type(other):
                return False
            if kind is tuple and not _are_alike(one, other):
                return False
    return True


def _is_fixed(value: Any) -> bool:
    """Tell whether a value is a bool, or may be a part of a key."""
    return type(value) is bool or exact((value,))
