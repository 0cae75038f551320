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
MOST_PHASES = 64  # of a strided gradient, one after the other in each task
# The rest is taste: `python -m benchmarks.bench_conv`, 2026-11.
FEW_CHANNELS = 8  # of the result x or y: most lanes would be empty
FEW_TERMS = 64  # of a pointwise product, that is better done in place
CACHED = 400_000  # scalars of x and y of a sample, up to which that is so


class ConvDirect:
    """The card of `kernels/conv_direct.pyx` and `kernels/conv_direct_weight.pyx`."""

    name = "direct"
    transforms = False
    kernels: Mapping[Direction, Kernel] = {
        "fprop": Kernel("conv_direct", "fprop", "pack_fprop"),
        "dgrad": Kernel("conv_direct", "dgrad", "pack_dgrad"),
        "wgrad": Kernel("conv_direct_weight", "wgrad"),
    }

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept windows that fit into a band, and a bounded number of phases."""
        reach = zip(problem.kernel, problem.dilation, strict=True)
        if problem.taps > MOST_TAPS:
            return Verdict(False, f"more than {MOST_TAPS} taps")
        if prod((k - 1) * d + 1 for k, d in reach) > MOST_WINDOW:
            return Verdict(False, f"a window spans more than {MOST_WINDOW} scalars")
        phases = prod(map(min, problem.stride, problem.in_extent))
        if direction == "dgrad" and phases > MOST_PHASES:
            return Verdict(False, f"the stride has more than {MOST_PHASES} phases")
        return Verdict(True, "windows of a bounded size")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer what fills the lanes with channels."""
        lanes = problem.ic if direction == "dgrad" else problem.oc
        if lanes // problem.g <= FEW_CHANNELS and direction != "wgrad":
            return Verdict(False, "few channels in the lanes")
        pointwise = problem.taps == 1 and prod(problem.stride) == 1
        few = problem.terms(direction) <= FEW_TERMS
        cached = prod(problem.x_shape[1:]) + prod(problem.y_shape[1:]) <= CACHED
        if pointwise and direction != "wgrad" and few and cached:
            return Verdict(False, "pointwise, few terms, small maps")
        return Verdict(True, "channels fill the lanes")
