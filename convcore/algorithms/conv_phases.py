"""The gradient of x of a strided convolution with few channels, all phases at once.

With few channels of x there is little arithmetic for each patch of dy, and finding the
patches once for each of the stride's phases costs more than the sums. Here each patch is
found once; every phase takes the taps that are its own.

Source: Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient
Sub-Pixel Convolutional Neural Network, CVPR 2016, section 2.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import ConvProblem, Direction

MOST_PHASES = 64  # of which the sums are kept at once: 16 KB a phase on AVX-512
MOST_TAPS = 64  # of all phases together, whose patches are kept at once
FEW_CHANNELS = 8  # `python -m benchmarks.bench_conv --layer alexnet/conv1`, 2026-11


class ConvPhases:
    """The card of `kernels/conv_phases.pyx`."""

    name = "phases"
    transforms = False
    kernels: Mapping[Direction, Kernel] = {"dgrad": Kernel("conv_phases", "dgrad")}

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept strides that the dilations divide, up to a bound on scratch."""
        axes = list(zip(problem.stride, problem.dilation, problem.kernel, strict=True))
        if any(s % d for s, d, _ in axes):
            return Verdict(False, "a dilation does not divide its stride")
        if prod(map(min, problem.stride, problem.in_extent)) > MOST_PHASES:
            return Verdict(False, f"the stride has more than {MOST_PHASES} phases")
        if prod(k if s == 1 else (k - 1) * d // s + 2 for s, d, k in axes) > MOST_TAPS:
            return Verdict(False, f"the phases have more than {MOST_TAPS} taps")
        return Verdict(True, "few phases, of neighbouring taps")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer few channels of x, where finding patches is what costs."""
        strided = prod(problem.stride) > 1
        few = problem.ic // problem.g <= FEW_CHANNELS
        return Verdict(strided and few, "a stride, and few channels of x")
