"""Convolution with channels in the lanes, reading x where it lies.

Source: Georganas et al., Anatomy of High-Performance Deep Learning Convolutions on SIMD
Architectures, SC 2018, section II.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import ConvProblem, Direction

MOST_TAPS = 4096
MOST_WINDOW = 32768  # scalars of one channel from a window's first tap to its last


class ConvDirect:
    """The card of `kernels/conv_direct.pyx`."""

    name = "direct"
    kernels: Mapping[Direction, Kernel] = {
        "fprop": Kernel("conv_direct", "fprop"),
        "dgrad": Kernel("conv_direct", "dgrad"),
        "wgrad": Kernel("conv_direct_weight", "wgrad"),
    }

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept windows that fit into a band."""
        reach = zip(problem.kernel, problem.dilation, strict=True)
        if prod(problem.kernel) > MOST_TAPS:
            return Verdict(False, f"more than {MOST_TAPS} taps")
        if prod((k - 1) * d + 1 for k, d in reach) > MOST_WINDOW:
            return Verdict(False, f"a window spans more than {MOST_WINDOW} scalars")
        return Verdict(True, "windows of a bounded size")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer enough output channels to fill the lanes."""
        channels = problem.oc if direction == "fprop" else problem.ic
        return Verdict(channels // problem.g > 8, "channels fill the lanes")
