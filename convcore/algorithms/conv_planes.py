"""Depthwise convolution and groups of few channels, with pixels in the vector lanes.

With few channels a group there is little arithmetic for each patch, and a product of
matrices spends its time on finding patches. Here nothing is packed: a tile of rows by
one vector of columns reads the planes where they lie, borders masked, and every loaded
row feeds all the taps of its column.

Source: Zhang, Franchetti and Low, High Performance Zero-Memory Overhead Direct
Convolutions, ICML 2018.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import ConvProblem, Direction

MOST_PHASES = 16  # of a gradient of x along z and y: SWEEPS in the kernel
WIDEST = 1 << 18  # scalars of a row: there is a row of zeros in scratch
MOST_ROWS = 1 << 14  # addresses in a tile's table: 128 KB
FARTHEST = 1 << 40  # scalars that a window may reach: the kernel counts in 64 bits
FEW_CHANNELS = 16  # of x and of y in a group: `python -m benchmarks.bench_conv`, 2026-11


class ConvPlanes:
    """The card of `kernels/conv_planes.pyx` and `kernels/conv_planes_weight.pyx`."""

    name = "planes"
    kernels: Mapping[Direction, Kernel] = {
        "fprop": Kernel("conv_planes", "fprop"),
        "dgrad": Kernel("conv_planes", "dgrad"),
        "wgrad": Kernel("conv_planes_weight", "wgrad"),
    }

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept strides 1 and 2 along the last axis, up to bounds on scratch."""
        if problem.stride[2] > 2:
            return Verdict(False, "a stride above 2 along the last axis")
        if prod(problem.stride[:2]) > MOST_PHASES:
            return Verdict(False, f"strides with more than {MOST_PHASES} phases")
        reach = max(k * d for k, d in zip(problem.kernel, problem.dilation, strict=True))
        if reach > FARTHEST:
            return Verdict(False, f"windows that reach more than {FARTHEST} scalars")
        if max(problem.in_extent[2], problem.out_extent[2]) > WIDEST:
            return Verdict(False, f"rows of more than {WIDEST} scalars")
        channels = max(problem.ic, problem.oc) // problem.g
        if 16 * channels * prod(problem.kernel[:2]) > MOST_ROWS:
            return Verdict(False, f"tiles with more than {MOST_ROWS} addresses")
        return Verdict(True, "strides 1 and 2, rows of moderate length")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer few channels a group, where finding patches is what costs."""
        few = max(problem.ic, problem.oc) // problem.g <= FEW_CHANNELS
        return Verdict(few, "few channels a group")
