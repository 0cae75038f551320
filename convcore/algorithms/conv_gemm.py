"""Convolution as one blocked matrix product over packed patches.

The patches of a few hundred outputs at a time are packed into a panel (im2col, but never
more than a fraction of L2 of it), the weights once a call, and every multiply-add happens
in the register tile. A strided gradient of x is one dense product for each phase of the
stride. It accepts everything, so it ends the list.

Source: Chellapilla, Puri and Simard, High Performance Convolutional Neural Networks for
Document Processing (2006), section 4; Goto and van de Geijn, ACM TOMS 34 (2008).
"""

from collections.abc import Mapping

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import ConvProblem, Direction


class ConvGemm:
    """The card of `kernels/conv_gemm.pyx` and `kernels/conv_gemm_weight.pyx`."""

    name = "gemm"
    transforms = False
    kernels: Mapping[Direction, Kernel] = {
        "fprop": Kernel("conv_gemm", "fprop"),
        "dgrad": Kernel("conv_gemm", "dgrad"),
        "wgrad": Kernel("conv_gemm_weight", "wgrad"),
        "bgrad": Kernel("conv_gemm_weight", "bgrad"),
    }

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept every problem."""
        return Verdict(True, "every problem")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer every problem that came so far down the list."""
        return Verdict(True, "nothing before it was preferred")
