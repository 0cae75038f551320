"""The gradient of x, tap by tap: where most windows would meet padding.

A gradient of x reads dy with kernel - 1 zeros around it. On small maps, and for kernels
that are large beside them, most products are with those zeros; here none is.

Source: Dumoulin and Visin, A guide to convolution arithmetic, arXiv:1603.07285, section 4;
Chellapilla, Puri and Simard (2006), for the sums over taps.
"""

from collections.abc import Mapping

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import ConvProblem, Direction

MOST_COLUMNS = 2048  # of dx: one row of sums is 256 KB on AVX-512
TAPS_FOR_A_CHANNEL = (
    64  # the taps are added one after the other: see `chain` in tile.pxd
)
# The rest is taste: `python -m benchmarks.bench_conv --layer NAME`, 2026-11, with the
# names convnet-benchmarks/layerwise/L4 and small_spatial/3.
WASTE = 1.25  # products with padding and without, over those without
FEW_CHANNELS = 8  # of x: most lanes would be empty
SHORT_SUM = 48  # channels of y: a tile's sums are added to others after so many terms


class ConvScatter:
    """The card of `kernels/conv_scatter.pyx`."""

    name = "scatter"
    kernels: Mapping[Direction, Kernel] = {"dgrad": Kernel("conv_scatter", "dgrad")}

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept one or two axes, up to bounds on scratch and rounding errors."""
        if (
            problem.in_extent[0] > 1
            or problem.kernel[0] > 1
            or problem.padding[0] != (0, 0)
        ):
            return Verdict(False, "three axes")
        if problem.in_extent[2] > MOST_COLUMNS:
            return Verdict(False, f"rows of more than {MOST_COLUMNS} scalars")
        if problem.taps > TAPS_FOR_A_CHANNEL * (problem.oc // problem.g):
            return Verdict(False, "many taps, few channels of y")
        return Verdict(True, "one or two axes, rows of a bounded size")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer much padding, and enough channels."""
        if problem.ic // problem.g <= FEW_CHANNELS:
            return Verdict(False, "few channels in the lanes")
        if problem.oc // problem.g < SHORT_SUM:
            return Verdict(False, "short sums")
        waste = 1.0
        for i, o, s in zip(
            problem.in_extent, problem.out_extent, problem.stride, strict=True
        ):
            waste *= i / min(i, o * s)
        return Verdict(waste >= WASTE, f"{waste:.2f} products for each that counts")
