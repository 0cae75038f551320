"""Max pooling row by row, where the rows lie: taps are picked out of two registers.

Nothing is copied first, which is most of the time for narrow planes, for single rows, and
where there are few taps. It takes what AVX-512 has: loads that leave out padding, and one
instruction that picks any lanes of two vectors; elsewhere `flat` is as fast. The bits of
all results are those of `flat`.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict
from convcore.algorithms.pool_max_turned import PoolMaxTurned
from convcore.problem import PoolProblem

_COLUMNS = 8  # most columns of a window: half of two vectors of float64
_TAPS = 256

# What was measured to be faster than `flat` and `turned`, with AVX-512.
_WIDTH = 64  # columns of x, of values alone
_MANY = 12  # taps, of values alone, in so many planes:
_PLANES = 16
_FAR = 2**21  # elements of x that no cache holds: labels of single rows

_KERNEL = Kernel("pool_max_rows", "fprop", isas=("x86_64_v4",))


class PoolMaxRows:
    """The card of `kernels/pool_max_rows.pyx`."""

    name = "rows"
    transforms = False
    _turned = PoolMaxTurned()
    kernels: Mapping[str, Kernel] = {
        "max_values": _KERNEL,
        "max_fprop": _KERNEL,
        "max_labels": _KERNEL,
    }

    def accepts(self, problem: PoolProblem, direction: str) -> Verdict:
        """Accept dense windows of few columns."""
        if 0 in problem.kernel:
            return Verdict(False, "windows of an adaptive pooling differ")
        if problem.wide:
            return Verdict(False, "padding of more than half a window")
        kernels, _, dilations = problem.clipped
        if set(dilations) != {1}:
            return Verdict(False, "the dilation is not 1")
        if kernels[2] > _COLUMNS or prod(kernels) > _TAPS:
            return Verdict(False, "large windows")
        if prod(problem.in_extent) >= 2**31:
            return Verdict(False, "indices beyond 32 bits")
        return Verdict(True, "dense windows of few columns")

    def prefers(self, problem: PoolProblem, direction: str) -> Verdict:
        """Prefer what takes longer to copy, or to turn, than to pool."""
        narrow = problem.clipped[0][2] == problem.stride[2] == 1
        if narrow and problem.in_extent[2] >= _WIDTH:
            return Verdict(True, "windows of one column")
        turned = self._turned
        taken = turned.accepts(problem, direction), turned.prefers(problem, direction)
        if taken[0].yes and taken[1].yes:
            return Verdict(False, "planes that are worth turning")
        near = problem.n * problem.c * prod(problem.in_extent) < _FAR
        if turned.has_long_rows(problem) and (near or direction == "max_values"):
            return Verdict(False, "long single rows")
        if direction != "max_values":
            return Verdict(True, "labels along rows first")
        if problem.stride[2] == 1:
            return Verdict(False, "windows that share columns")
        if prod(problem.clipped[0]) > _MANY and problem.n * problem.c >= _PLANES:
            return Verdict(False, "windows that share many rows")
        if problem.in_extent[:2] == (1, 1):
            return Verdict(True, "single rows")
        if problem.in_extent[2] <= _WIDTH:
            return Verdict(True, "narrow planes")
        return Verdict(False, "wide planes")
