"""The gradient of x, tap by tap: where windows would meet padding, or a stride.

A gradient of x reads dy with kernel - 1 zeros around it. On small maps, and for kernels
that are large beside them, most products are with those zeros; here none is. A stride
leaves a window of each phase few taps; here the tile's sums are as long as without.

Source: Dumoulin and Visin, A guide to convolution arithmetic, arXiv:1603.07285, section 4;
Chellapilla, Puri and Simard (2006), for the sums over taps.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict, waste
from convcore.problem import ConvProblem, Direction

MOST_COLUMNS = 2048  # of dx: one row of sums is 384 KB on AVX-512
MOST_TAPS = 4096  # they are added one after the other: see `chain` in tile.pxd
TAPS_FOR_A_CHANNEL = 64
# The rest is taste: `python -m benchmarks.bench_conv --layer NAME`, 2026-11, with the
# names convnet-benchmarks/layerwise/L4 and small_spatial/3.
FEW_CHANNELS = 8  # of x: most lanes would be empty
SHORT_SUM = 32  # channels of y: a tile's sums are added to others after so many terms
LONG_SUM = 512  # channels of y, up to which pixels between zeros are written faster
ADDING = 8  # terms that take as long as adding a sum
# What else costs `direct` time: it computes each phase of a stride alone, from the few
# taps that it has, and leaves half of a panel empty where channels fill only the other.
VECTOR = 16  # scalars, on AVX-512
HALF_PANEL = 0.1


class ConvScatter:
    """The card of `kernels/conv_scatter.pyx`."""

    name = "scatter"
    transforms = False
    kernels: Mapping[Direction, Kernel] = {"dgrad": Kernel("conv_scatter", "dgrad")}

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept up to bounds on scratch and rounding errors."""
        if problem.in_extent[2] > MOST_COLUMNS:
            return Verdict(False, f"rows of more than {MOST_COLUMNS} scalars")
        oc = problem.oc // problem.g
        if problem.taps > min(MOST_TAPS, TAPS_FOR_A_CHANNEL * oc):
            return Verdict(False, "many taps, few channels of y")
        return Verdict(True, "rows of a bounded size")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer strides, or padding, and enough channels."""
        if problem.ic // problem.g <= FEW_CHANNELS:
            return Verdict(False, "few channels in the lanes")
        oc = problem.oc // problem.g
        if oc < SHORT_SUM:
            return Verdict(False, "short sums")
        if problem.taps == 1 and prod(problem.stride) > 1:
            return Verdict(oc <= LONG_SUM, "one tap: zeros between pixels")
        vectors = -(-problem.ic // problem.g // VECTOR)
        ratio = waste(problem) * (1 + vectors % 2 * HALF_PANEL / vectors)
        if prod(problem.stride) > 1:
            ratio *= 1 + min(1, prod(problem.stride) / problem.taps)
        return Verdict(
            ratio >= 1 + ADDING / oc,
            f"{ratio:.2f} times the cost, for padding and phases",
        )
