"""The gradient of max pooling from flat indices or labels: each window adds to what won.

The indices are looked at, many at once, before they are used, so that those that a caller
gives need no pass of their own. An addition takes 3 cycles a window, however narrow the
planes are; a gather looks at every tap of every window, which pays where rows are long and
need not be copied.
"""

from collections.abc import Mapping
from math import prod
from operator import mul

from convcore.algorithms.base import Kernel, Verdict
from convcore.algorithms.pool_max_flat import PoolMaxFlat
from convcore.problem import PoolProblem

# As in kernels/pool_max_scatter.pyx.
_RUN = 1024
_PIECE = 512
_REACH = 2**22

_SOME = 2  # planes: with one, the threads of `window` make up for what it does more
_PLANES = 8  # enough for the threads of a machine
_CELLS = 65536  # of a plane that `window` does not cut either
_TAPS = 256  # whose numbers are bytes
_WIDTH = 64  # of single rows: longer ones are gathered faster


class PoolMaxScatter:
    """The card of `kernels/pool_max_scatter.pyx`."""

    name = "scatter"
    transforms = False
    kernels: Mapping[str, Kernel] = {
        "max_labels_dgrad": Kernel("pool_max_scatter", "dgrad"),
        "max_check": Kernel("pool_max_scatter", "check"),
        "max_dgrad": Kernel("pool_max_scatter", "dgrad"),
        "max_checked_dgrad": Kernel("pool_max_scatter", "checked_dgrad"),
    }

    _flat = PoolMaxFlat()

    def accepts(self, problem: PoolProblem, direction: str) -> Verdict:
        """Accept windows of neighbouring rows in planes that 32 bits address."""
        if 0 in problem.kernel:
            return Verdict(False, "windows of an adaptive pooling differ")
        kernels, _, dilations = problem.clipped
        if prod(problem.in_extent) >= 2**31:
            return Verdict(False, "indices beyond 32 bits")
        if direction == "max_labels_dgrad":
            if set(dilations) != {1}:
                return Verdict(False, "the dilation is not 1")
            if prod(kernels) > _TAPS:
                return Verdict(False, f"more than {_TAPS} taps")
            return Verdict(True, "dense windows")
        if problem.steps_over:
            return Verdict(False, "windows that step over all elements")
        extents = problem.in_extent
        slabs, rows, columns = map(mul, kernels, dilations)
        if (slabs * extents[1] + rows) * extents[2] >= _REACH:
            return Verdict(False, "windows that reach far")
        if problem.out_extent[2] > _RUN and columns - dilations[2] >= _PIECE:
            return Verdict(False, "long windows in long rows")
        return Verdict(True, "an element in each window")

    def prefers(self, problem: PoolProblem, direction: str) -> Verdict:
        """Prefer small planes, and many."""
        if direction == "max_labels_dgrad":
            return self._prefers_labels(problem, direction)
        if problem.n * problem.c < _SOME and prod(problem.in_extent) > _CELLS:
            return Verdict(False, "one large plane")
        return Verdict(True, "an addition a window")

    def _prefers_labels(self, problem: PoolProblem, direction: str) -> Verdict:
        """Leave to a gather what it does faster."""
        if not self._flat.accepts(problem, direction).yes:
            return Verdict(True, "nothing else takes it")
        if problem.n * problem.c < _PLANES and prod(problem.in_extent) > _CELLS:
            return Verdict(False, "few large planes")
        if problem.in_extent == problem.out_extent:
            return Verdict(False, "as many windows as elements")
        if problem.in_extent[:2] == (1, 1) and problem.in_extent[2] > _WIDTH:
            return Verdict(False, "long single rows")
        return Verdict(True, "an addition a window")
