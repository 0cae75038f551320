"""Max pooling with planes laid out so that each tap of a window is one address offset.

Lanes run on through rows and planes, so narrow planes fill them, too; with strides, rows
and columns are taken apart by their phases. Of values alone the rows of a window are
reduced first; with labels each tap is compared in its order, so that the first of equal
maxima wins. Labels are bytes, the numbers of taps, for layers, and torch's flat int64
indices for everybody else.

Source: Gil and Kimmel, Efficient Dilation, Erosion, Opening and Closing Algorithms,
IEEE TPAMI 24 (2002): a rectangular window is two windows of one axis.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import PoolProblem

# As in kernels/pool_flat.pxd and kernels/pool_max_flat_gradient.pyx.
_TAPS = 256
_PHASES = 8
_CELLS = 3072  # of x, in all phases
_SUMS = 4096  # of dx
_WINDOWS = 2048  # of dy
_GAP = 16
_COLUMNS = 16  # of a piece, at least


class PoolMaxFlat:
    """The card of `pool_max_flat.pyx` and `pool_max_flat_gradient.pyx`."""

    name = "flat"
    transforms = False
    kernels: Mapping[str, Kernel] = {
        "max_values": Kernel("pool_max_flat", "fprop"),
        "max_fprop": Kernel("pool_max_flat", "fprop"),
        "max_labels": Kernel("pool_max_flat", "fprop"),
        "max_labels_dgrad": Kernel("pool_max_flat_gradient", "dgrad"),
    }

    def accepts(self, problem: PoolProblem, direction: str) -> Verdict:
        """Accept windows of few taps, in which a piece of x fits the scratch."""
        if 0 in problem.kernel:
            return Verdict(False, "windows of an adaptive pooling differ")
        if problem.wide:
            return Verdict(False, "padding of more than half a window")
        kernels, strides, dilations = problem.clipped
        if prod(kernels) > _TAPS:
            return Verdict(False, f"more than {_TAPS} taps")
        phases = prod(strides)
        if max(strides) > _PHASES or phases > _SUMS // (4 * _GAP):
            return Verdict(False, "windows far apart")
        if prod(problem.in_extent) >= 2**31:
            return Verdict(False, "indices beyond 32 bits")
        shifts = [
            (k - 1) * d // s
            for k, d, s in zip(kernels, dilations, strides, strict=True)
        ]
        cells = (shifts[0] + 1) * (shifts[1] + 1) * (shifts[2] + _COLUMNS)
        if cells > min(_CELLS // phases, _SUMS // phases - _GAP, _WINDOWS - _GAP):
            return Verdict(False, "windows that reach far")
        return Verdict(True, "few taps, close together")

    def prefers(self, problem: PoolProblem, direction: str) -> Verdict:
        """Prefer every problem that it accepts."""
        return Verdict(True, "full lanes, whatever the width of a plane")
