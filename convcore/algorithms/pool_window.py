"""Pooling window by window, in two passes: over the rows of a window, then along W.

The first pass goes through neighbouring columns whatever the stride, so its lanes are
always full; the second reads what the first left in L1. Windows too long for that, and
adaptive ones, are taken one at a time. Gradients are gathered by the cells that they
belong to. It accepts everything, so it ends the list.

Source: Gil and Kimmel, Efficient Dilation, Erosion, Opening and Closing Algorithms,
IEEE TPAMI 24 (2002): a rectangular window is two windows of one axis.
"""

from collections.abc import Mapping

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import PoolProblem


class PoolWindow:
    """The card of `kernels/pool_max.pyx` and `kernels/pool_average.pyx`."""

    name = "window"
    transforms = False
    kernels: Mapping[str, Kernel] = {
        "max_values": Kernel("pool_max", "fprop"),
        "max_fprop": Kernel("pool_max", "fprop"),
        "max_check": Kernel("pool_max", "check"),
        "max_dgrad": Kernel("pool_max", "dgrad"),
        "max_checked_dgrad": Kernel("pool_max", "checked_dgrad"),
        "average_fprop": Kernel("pool_average", "fprop"),
        "average_dgrad": Kernel("pool_average", "dgrad"),
        "power_fprop": Kernel("pool_power", "fprop"),
        "power_dgrad": Kernel("pool_power", "dgrad"),
    }

    def accepts(self, problem: PoolProblem, direction: str) -> Verdict:
        """Accept every problem."""
        return Verdict(True, "every problem")

    def prefers(self, problem: PoolProblem, direction: str) -> Verdict:
        """Prefer every problem that came so far down the list."""
        return Verdict(True, "nothing before it was preferred")
