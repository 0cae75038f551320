"""The gradient of x of few channels, as one product for all taps.

With few channels of x there is little arithmetic for each patch of dy. Here nothing is
searched for: each place of dy is multiplied with the weights of all channels and taps,
and the products are added where they belong.

Source: Chellapilla, Puri and Simard, High Performance Convolutional Neural Networks for
Document Processing (2006); Vasudevan, Anderson and Gregg, Parallel Multi Channel
Convolution using General Matrix Multiplication, arXiv:1704.04428, for taps as rows.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict, waste
from convcore.problem import ConvProblem, Direction

MOST_SUMS = 1 << 18  # of one row of dx: 2 MB
MOST_ROWS = 1 << 16  # of the product: their places are listed, 16 bytes each
MOST_CHANNELS = 1 << 14  # of y in a group: NR places of all are kept together
MOST_TAPS = 4096  # they are added one after the other: see `chain` in tile.pxd
TAPS_FOR_A_CHANNEL = 64
GAP = 128  # sums around those of a row that nothing reads
# The rest is taste: `python -m benchmarks.bench_conv --layer NAME`, 2026-11, with the
# names googlenet_v1/conv1/7x7_s2 and small_spatial/1.
FEW_CHANNELS = 8  # of x: more fill a vector
FEW_FOR_ONE_ROW = 4  # where finding patches costs less
MANY = 64  # channels of y: adding a product to others does not count
LEAST = 16  # of them, where other algorithms would leave more lanes empty
WASTE = 1.5  # products with padding and without, over those without


class ConvTaps:
    """The card of `kernels/conv_taps.pyx`."""

    name = "taps"
    transforms = False
    kernels: Mapping[Direction, Kernel] = {"dgrad": Kernel("conv_taps", "dgrad")}

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept up to bounds on scratch and rounding errors."""
        ic, oc = problem.ic // problem.g, problem.oc // problem.g
        y, x = (min(problem.stride[i], problem.in_extent[i]) for i in (1, 2))
        sums = ic * problem.kernel[2] * y * (problem.out_extent[2] + GAP)
        if max(sums, (x + 2) * (problem.in_extent[2] // x + GAP)) > MOST_SUMS:
            return Verdict(False, f"a row with more than {MOST_SUMS} sums")
        if ic * problem.taps > MOST_ROWS or oc > MOST_CHANNELS:
            return Verdict(False, "many weights")
        if problem.taps > min(MOST_TAPS, TAPS_FOR_A_CHANNEL * oc):
            return Verdict(False, "many taps, few channels of y")
        return Verdict(True, "rows and kernels of moderate size")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer few channels of x, and sums of many terms."""
        ic, oc = problem.ic // problem.g, problem.oc // problem.g
        if problem.taps == 1:
            return Verdict(False, "one tap")
        others_waste = waste(problem) > WASTE or prod(problem.stride) > 1
        fewest = 2 * ic <= FEW_CHANNELS or others_waste
        if oc <= (LEAST if fewest else MANY - 1):
            return Verdict(False, "short sums")
        few = FEW_CHANNELS if prod(problem.kernel[:2]) > 1 else FEW_FOR_ONE_ROW
        return Verdict(ic <= few, "few channels of x, many of y")
