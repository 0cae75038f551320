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

from convcore.algorithms.base import Kernel, Verdict, waste
from convcore.problem import ConvProblem, Direction

MOST_PHASES = 16  # of a gradient of x along z and y: SWEEPS in the kernel
WIDEST = 1 << 18  # scalars of a row: a row of zeros and the row's masks are in scratch
MOST_MASKS = (
    1 << 20
)  # (scalar, tap of a row): an eighth or less of it are masks, 4 bytes
FARTHEST = 1 << 40  # scalars that a window may reach: the kernel counts in 64 bits
MOST_ROWS = 1 << 18  # addresses of the rows of a plane's tiles: 2 MB
TILE_ROWS = 16  # at most in a tile, the last of an axis included
MOST_TERMS = 1 << 14  # (channel, row of the kernel) of a tile, with 16 addresses each
MOST_WEIGHTS = 1 << 15  # of a group, with a vector of 64 bytes each in the gradient
# The most channels of x or y in a group for which it was faster than the product of
# matrices, but for weight gradients with 7 x 7 taps and stride 2: one core with AVX-512,
# float32, 2026-11. A kernel of one row has no loads that its taps could share.
FEW_CHANNELS = 16
FEW_FOR_ONE_ROW = 4
# Gradients of x with stride 1 from more channels of y: against the algorithms after it in
# the list, in one run. From 64 channels of y on, `taps` is as fast for the fewest channels
# of x and for short rows. With more than 12, lanes that hold them are nearly full.
SHORT_ROW = 12
MANY = 64
FEWEST = 4
NEARLY_FULL = 12
WASTE = 1.5  # products with padding and without, over those without


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
        reach = max(
            k * d for k, d in zip(problem.kernel, problem.dilation, strict=True)
        )
        if reach > FARTHEST:
            return Verdict(False, f"windows that reach more than {FARTHEST} scalars")
        row = max(problem.in_extent[2], problem.out_extent[2])
        if row > WIDEST or row * problem.kernel[2] > MOST_MASKS:
            return Verdict(False, f"rows of more than {WIDEST} scalars or many taps")
        rows = problem.kernel[0] * problem.kernel[1]
        planes = [problem.in_extent, problem.out_extent]
        if max(d * (h + TILE_ROWS) for d, h, _ in planes) * rows > MOST_ROWS:
            return Verdict(False, f"planes with more than {MOST_ROWS} rows to load")
        ic, oc = problem.ic // problem.g, problem.oc // problem.g
        if max(ic, oc) * rows > MOST_TERMS:
            return Verdict(False, f"tiles with more than {MOST_TERMS} terms a column")
        if ic * oc * problem.taps > MOST_WEIGHTS:
            return Verdict(False, f"groups of more than {MOST_WEIGHTS} weights")
        return Verdict(True, "strides 1 and 2, rows and kernels of moderate size")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer few channels a group, where finding patches is what costs."""
        most = FEW_CHANNELS if problem.kernel[1] > 1 else FEW_FOR_ONE_ROW
        few = max(problem.ic, problem.oc) // problem.g <= most
        if not few and direction == "dgrad" and prod(problem.stride) == 1:
            few = self._gradient(problem)
        return Verdict(few, "few channels a group")

    def _gradient(self, problem: ConvProblem) -> bool:
        """Tell whether it is fast for few channels of x and many of y."""
        ic, oc = problem.ic // problem.g, problem.oc // problem.g
        if ic > FEW_CHANNELS or problem.kernel[1] == 1 or waste(problem) > WASTE:
            return False
        if oc >= MANY:
            return FEWEST < ic <= NEARLY_FULL and problem.in_extent[2] >= SHORT_ROW
        if problem.in_extent[2] < SHORT_ROW:
            return ic <= FEW_CHANNELS // 2
        return ic <= NEARLY_FULL
