"""Convolution with a kernel as large as its input: one dot product for each output.

A sample and the weights of an output channel lie in memory in the same order, so both are
read where they are, by vectors; the gradients are sums of such rows. The general algorithm
packs all weights for every call, which is most of the work for a few samples.

Source: Goto and van de Geijn, High-performance implementation of the level-3 BLAS, ACM
TOMS 35 (2008).
"""

from collections.abc import Mapping

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import ConvProblem, Direction


class ConvDot:
    """The card of `kernels/conv_dot.pyx` and `kernels/conv_dot_gradient.pyx`."""

    name = "dot"
    transforms = False
    kernels: Mapping[Direction, Kernel] = {
        "fprop": Kernel("conv_dot", "fprop"),
        "dgrad": Kernel("conv_dot_gradient", "dgrad"),
        "wgrad": Kernel("conv_dot_gradient", "wgrad"),
        "bgrad": Kernel("conv_dot_gradient", "bgrad"),
    }

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept a kernel that covers the whole input, without padding."""
        if problem.kernel != problem.in_extent:
            return Verdict(False, "the kernel does not cover the input")
        if any(lo or hi for lo, hi in problem.padding):
            return Verdict(False, "the input is padded")
        return Verdict(True, "the kernel covers the input")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer every problem that it accepts."""
        return Verdict(True, "no weight is packed")
