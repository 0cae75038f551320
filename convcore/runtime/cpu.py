"""The instruction set that the kernels use: the best one that the processor runs.

The environment variable CONVCORE_ISA lowers the choice; `use` does so for a while.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from convcore.kernels import probe

_BEST_FIRST = ("x86_64_v4", "x86_64_v3", "baseline")


def available() -> tuple[str, ...]:
    """List the instruction sets that are built and run here, the best one first."""
    return tuple(
        isa
        for isa in _BEST_FIRST
        if probe.runs(isa) and find_spec(f"convcore.kernels.{isa}.conv_gemm")
    )


def _checked(source: str, isa: str) -> str:
    if isa not in available():
        raise ValueError(
            f"{source}: the instruction set must be one of {', '.join(available())} "
            f"on this machine, got {isa!r}"
        )
    return isa


_current = _checked("CONVCORE_ISA", os.environ.get("CONVCORE_ISA") or available()[0])


def isa() -> str:
    """Name the instruction set in use."""
    return _current


@contextmanager
def use(isa: str) -> Iterator[None]:
    """Use another instruction set inside a `with` block, in the whole process."""
    global _current
    before, _current = _current, _checked("use", isa)
    try:
        yield
    finally:
        _current = before
