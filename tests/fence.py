"""Kernels whose arrays lie beside pages that nobody may touch.

`install` has every compiled function get copies of its arrays: each ends where such a
page begins, or begins where one ends, and scratch has the size that was asked for. A
kernel that reads or writes a byte too far ends the process with a signal.
"""

import ctypes
import mmap
import sys
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

import convcore.plan  # noqa: F401
from convcore.kernels import load
from convcore.runtime import arrays, workspace

LINE = workspace.ALIGNMENT
PAGE = mmap.PAGESIZE
PROT_NONE = 0
SIDES = ("end", "begin")

_c = ctypes.CDLL(None, use_errno=True)
_free: defaultdict[int, list[Any]] = defaultdict(list)  # rooms by their bytes
_side = SIDES[0]


@contextmanager
def side(name: str) -> Iterator[None]:
    """Choose the end of arrays that lies beside a closed page."""
    global _side
    before, _side = _side, name
    try:
        yield
    finally:
        _side = before


def _room(size: int) -> Any:
    """Give at least so many bytes between two closed pages."""
    size = max(PAGE, 1 << max(size - 1, 0).bit_length())
    if _free[size]:
        return _free[size].pop()
    pages = mmap.mmap(-1, size + 2 * PAGE)
    raw = np.frombuffer(pages, np.uint8)
    for place in (0, PAGE + size):
        address = ctypes.c_void_p(raw.ctypes.data + place)
        if _c.mprotect(address, ctypes.c_size_t(PAGE), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    return raw[PAGE : PAGE + size]


def _placed(room: Any, values: Any) -> Any:
    """Copy an array to the end or the beginning of a room."""
    first = room.nbytes - values.nbytes if _side == "end" else 0
    placed = (
        room[first : first + values.nbytes].view(values.dtype).reshape(values.shape)
    )
    placed[...] = values
    return placed


def fenced(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Give a kernel that runs on copies of its arrays; what it writes is copied back."""

    def run(*args: Any) -> Any:
        moved: dict[tuple[int, int], tuple[Any, Any, Any]] = {}  # one for equal places
        given = list(args)
        for i, arg in enumerate(args):
            own = np.frombuffer(arg, np.int64) if isinstance(arg, array) else arg
            if not isinstance(own, np.ndarray) or not own.flags.c_contiguous:
                continue
            key = (own.ctypes.data, own.nbytes)
            if key not in moved:
                room = _room(own.nbytes)
                moved[key] = (room, own, _placed(room, own))
            given[i] = moved[key][2]
        try:
            return kernel(*given)
        finally:
            for room, own, placed in moved.values():
                if own.flags.writeable:
                    own[...] = placed
                _free[room.nbytes].append(room)

    return run


class Fenced:
    """A module of kernels, all of them fenced."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return fenced(getattr(self._module, name))


def lend(size: int) -> Any:
    """Lend the cache lines that hold so many bytes, and not one more."""
    buffer = np.empty(-(-size // LINE) * LINE, np.uint8)
    if arrays.POISON:
        buffer.fill(0xFF)
    return buffer


def install() -> None:
    """Fence every kernel that is loaded from now on, and its scratch, for good."""
    workspace.lend = lend
    workspace.take_back = lambda buffer: None
    for place in ("convcore.plan.choice", "convcore.plan.operation"):
        sys.modules[place].load = lambda name, isa: Fenced(load(name, isa))  # type: ignore[attr-defined]
