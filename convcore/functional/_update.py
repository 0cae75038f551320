"""The step of an optimiser, in place.

Every update is one call into C, and what makes them follow each other is C, too: Python's
signal handlers, which run between byte codes, have no place to come in.
"""

from array import array
from collections.abc import Iterator, Sequence

from convcore.plan.operation import operation
from convcore.runtime import threads
from convcore.runtime.arrays import Array

_WORK = 4  # of an element, in multiply-adds: what memory takes for it


def updates(
    function: str, rows: Sequence[tuple[Array | None, ...]]
) -> Iterator[object]:
    """Prepare the updates of some parameters; each is done when the iterator goes on.

    Parameters
    ----------
    function : str
        "sgd" or "adam", of kernels/update.pyx.
    rows : sequence of tuples
        For each parameter its settings, gradient, value and running averages:
        contiguous arrays of one dtype; but for the settings of one size.
    """
    kernel = operation("update", function)
    sizes = [row[1].size if row[1] is not None else 0 for row in rows]
    geometries = [array("q", (size,)) for size in sizes]
    teams = [threads.team(_WORK * size) for size in sizes]
    return map(kernel, geometries, *zip(*rows, strict=True), teams)
