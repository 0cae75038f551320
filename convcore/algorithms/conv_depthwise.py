"""Depthwise convolution with channels in the vector lanes.

Small planes leave most lanes of a vector of pixels empty, and a stride takes two loads for
one. Here as many planes as a vector has lanes are transposed in registers, and every pixel
is a vector: no masks, no tails, any stride.

Source: Zhang, Lo and Lu, High Performance Depthwise and Pointwise Convolutions on Mobile
Devices, AAAI 2020.
"""

from collections.abc import Mapping

from convcore.algorithms.base import Kernel, Verdict, has_small_ring
from convcore.problem import ConvProblem, Direction

MOST_STRIDE = 2
MOST_TAPS = 96  # summed one after the other
MOST_VECTORS = 4096  # of the rows that one row of the result reads: 256 KB
# The rest is taste: one core with AVX-512, float32, 2026-11.
FEW_GROUPS = 16  # fewer leave lanes empty
SMALL = {"fprop": 12, "dgrad": 12, "wgrad": 20}  # columns, for dense rows
STRIDED = {"fprop": 112, "dgrad": 64, "wgrad": 128}  # and for stride 2
BORDERED = {1: 40, 2: 128}  # with a border, by stride: here it is pixels of the band
RINGED = 28  # and for the gradient of x, of dense rows
DILATED = 28  # and for stride 2, dilated


class ConvDepthwise:
    """The card of `kernels/conv_depthwise.pyx` and `kernels/conv_depthwise_weight.pyx`."""

    name = "depthwise"
    transforms = False
    kernels: Mapping[Direction, Kernel] = {
        "fprop": Kernel("conv_depthwise", "fprop"),
        "dgrad": Kernel("conv_depthwise", "dgrad", folds=has_small_ring),
        "wgrad": Kernel("conv_depthwise_weight", "wgrad"),
    }

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept one channel a group, two axes, strides 1 and 2, and bounded scratch."""
        if problem.ic != problem.g or problem.oc != problem.g:
            return Verdict(False, "several channels a group")
        if problem.in_extent[0] > 1 or problem.kernel[0] > 1 or any(problem.padding[0]):
            return Verdict(False, "three axes")
        if max(problem.stride) > MOST_STRIDE:
            return Verdict(False, f"a stride above {MOST_STRIDE}")
        if problem.taps > MOST_TAPS:
            return Verdict(False, f"more than {MOST_TAPS} taps")
        high, wide = ((problem.kernel[i] - 1) * problem.dilation[i] + 2 for i in (1, 2))
        wide += max(problem.in_extent[2], problem.stride[2] * problem.out_extent[2])
        if high * wide > MOST_VECTORS:
            return Verdict(False, f"rows to read of more than {MOST_VECTORS} scalars")
        return Verdict(True, "one channel a group, rows and kernels of moderate size")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer small planes, and strides, if there are channels enough."""
        if problem.g < FEW_GROUPS:
            return Verdict(False, "few channels in the lanes")
        columns = max(problem.in_extent[2], problem.out_extent[2])
        most = (SMALL if problem.stride[2] == 1 else STRIDED)[direction]
        if problem.border != "zeros":
            bordered = BORDERED[problem.stride[2]] if direction != "dgrad" else RINGED
            most = max(most, bordered)
        if problem.stride[2] > 1 and problem.dilation[2] > 1:
            most = DILATED
        if columns > most:
            return Verdict(False, "long rows")
        return Verdict(True, "small planes, or a stride")
