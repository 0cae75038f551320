"""How exact a result has to be: what the choice of an algorithm may trade for speed.

"fast", the default, may choose algorithms that transform their operands (Winograd, FFT)
for float32: fewer multiplications, errors a few times larger. "strict" never does, nor
does float64. An algorithm that a call names is taken in either.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import get_ident

from convcore.problem.rules import one_of

MODES = ("fast", "strict")


_VARIABLE = "CONVCORE_PRECISION"
_default = one_of(_VARIABLE, "precision", os.environ.get(_VARIABLE, "fast"), MODES)
_mode: ContextVar[str] = ContextVar("convcore.precision")


def current() -> str:
    """Give the precision of this thread or task."""
    return _mode.get(_default)


def is_strict() -> bool:
    """Tell whether the mode is "strict", whatever `uncached` has named it."""
    return current().startswith("strict")


_count = itertools.count()


@contextmanager
def uncached() -> Iterator[None]:
    """Name the mode anew: caches of choices, which have it in their keys, are empty."""
    token = _mode.set(f"{current()} {get_ident()}.{next(_count)}")
    try:
        yield
    finally:
        _mode.reset(token)


@contextmanager
def precision(mode: str) -> Iterator[None]:
    """Set the precision of the calls inside of a `with` block.

    Parameters
    ----------
    mode : "fast" or "strict"
        "fast" may choose Winograd's filtering or the FFT for float32. "strict" keeps every
        result within the bound of a direct sum, and chooses by one sample's shape alone.

    Raises
    ------
    ValueError
        For any other mode.

    Notes
    -----
    It holds in this thread, or asynchronous task, alone. The default of the process is the
    environment variable `CONVCORE_PRECISION`, or else "fast".

    Examples
    --------
    >>> import convcore
    >>> with convcore.precision("strict"):
    ...     problem = convcore.ConvProblem.parse("n8g1ic64ih56oc64kh3ph1")
    ...     print(convcore.plan.select(problem, "fprop", "float32").algorithm)
    direct
    """
    _, *name = current().split(" ")  # that of `uncached` stays
    token = _mode.set(" ".join([one_of("precision", "mode", mode, MODES), *name]))
    try:
        yield
    finally:
        _mode.reset(token)
