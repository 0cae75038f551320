"""Max pooling with stride 1 and results as large as x, where the planes lie in memory.

All planes are one line; strings of bits tell for each place of a plane which taps stay in
it. Nothing is copied and no row has a beginning, which is what narrow planes cost
elsewhere. The bits of all results are those of `flat`, so the choice may look at the
batch: the strings have to be written first.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict
from convcore.algorithms.pool_max_flat import PoolMaxFlat
from convcore.problem import PoolProblem

# As in kernels/pool_max_same.pyx.
_STRINGS = 16384
_SPARE = 24
_ROWS = 64

# Widest planes for which it is faster than `flat`, with AVX-512: at 112 columns values
# take 7.4 ms where those take 6.4. Labels are found faster by `turned` and `flat`.
_WIDTH = {"max_values": 64, "max_labels_dgrad": 2**63}
_PLANES = 64  # what writing the strings takes is then little


class PoolMaxSame:
    """The card of `kernels/pool_max_same.pyx`."""

    name = "same"
    transforms = False
    kernels: Mapping[str, Kernel] = {
        "max_values": Kernel("pool_max_same", "fprop"),
        "max_labels_dgrad": Kernel("pool_max_same", "dgrad"),
    }
    _flat = PoolMaxFlat()

    def accepts(self, problem: PoolProblem, direction: str) -> Verdict:
        """Accept dense windows, one element apart, as many as there are elements."""
        if 0 in problem.kernel or problem.in_extent != problem.out_extent:
            return Verdict(False, "not as many windows as elements")
        kernels, strides, dilations = problem.clipped
        if set(strides) != {1} or set(dilations) != {1}:
            return Verdict(False, "the stride or the dilation is not 1")
        rows, columns = kernels[0] * kernels[1], kernels[2]
        each = prod(problem.in_extent) // 8 + _SPARE
        if max(rows, columns) > _ROWS or (rows + columns) * each > _STRINGS:
            return Verdict(False, "a large plane or window")
        if not self._flat.accepts(problem, direction).yes:
            return Verdict(False, "many taps")
        return Verdict(True, "stride 1, as many windows as elements")

    def prefers(self, problem: PoolProblem, direction: str) -> Verdict:
        """Prefer narrow planes, if there are some of them."""
        if problem.n * problem.c < _PLANES:
            return Verdict(False, f"fewer than {_PLANES} planes")
        if problem.in_extent[2] > _WIDTH[direction]:
            return Verdict(False, "wide planes")
        return Verdict(True, "nothing is copied")
