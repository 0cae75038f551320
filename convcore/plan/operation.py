"""Operations with one kernel each: nothing to choose but the instruction set."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from convcore.kernels import load
from convcore.runtime import cpu


def operation(module: str, function: str) -> Callable[..., Any]:
    """Give a compiled function, for the instruction set in use.

    Parameters
    ----------
    module, function : str
        A module of `convcore.kernels`, and a name in it. The function is called as
        `function(sizes, *arrays, threads)`, with the integers that tell the sizes of the
        arrays as an array of int64.
    """
    return _operation(module, function, cpu.isa())


@lru_cache(maxsize=1024)
def _operation(module: str, function: str, isa: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(load(module, isa), function)
    return found
