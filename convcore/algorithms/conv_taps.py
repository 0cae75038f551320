"""The gradient of x of few channels, as one product for all taps.

With few channels of x there is little arithmetic for each patch of dy. Here nothing is
searched for: each place of dy is multiplied with the weights of all channels and taps,
and the products are added where they belong.

Source: Chellapilla, Puri and Simard, High Performance Convolutional Neural Networks for
Document Processing (2006); Vasudevan, Anderson and Gregg, Parallel Multi Channel
Convolution using General Matrix Multiplication, arXiv:1704.04428, for taps as rows.
"""

from collections.abc import Mapping

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import ConvProblem, Direction

MOST_SUMS = 1 << 18  # of one row of dx: 2 MB
MOST_TAPS = 4096  # they are added one after the other: see `chain` in tile.pxd
TAPS_FOR_A_CHANNEL = 64
MOST_WEIGHTS = 1 << 20  # channels of y and rows of the product, packed


class ConvTaps:
    """The card of `kernels/conv_taps.pyx`."""

    name = "taps"
    kernels: Mapping[Direction, Kernel] = {"dgrad": Kernel("conv_taps", "dgrad")}

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept up to bounds on scratch and rounding errors."""
        ic, oc = problem.ic // problem.g, problem.oc // problem.g
        phases = min(problem.stride[1], problem.in_extent[1])
        row = problem.out_extent[2] + 128
        if ic * problem.kernel[2] * phases * row > MOST_SUMS:
            return Verdict(False, f"a row of more than {MOST_SUMS} sums")
        if problem.in_extent[2] > MOST_SUMS:
            return Verdict(False, f"a row of more than {MOST_SUMS} scalars")
        if problem.taps > min(MOST_TAPS, TAPS_FOR_A_CHANNEL * oc):
            return Verdict(False, "many taps, few channels of y")
        return Verdict(True, "rows and kernels of moderate size")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer few channels of x."""
        return Verdict(False, "not yet")
