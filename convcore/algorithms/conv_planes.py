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

from convcore.algorithms.base import Kernel, Verdict, has_small_ring, waste
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
MOST_SPLIT = 1 << 19  # scalars of the rows of a tile, where the stride is 2: 8 MB
FEW_RESULTS, PATCHED, PATCHED_TAPS = 4, 8, 64  # up to these, a border is no copy
LINE = 128  # outputs of a tile, at most, if there is a single row
MOST_SHARED = 7  # rows of a kernel whose taps are summed together
MOST_CHAIN = 96  # terms of a block, which is not cut: SHORT in kernels/tile.pxd
MOST_WEIGHTS = 1 << 15  # of a group, with a vector of 64 bytes each in the gradient
# The rest is taste: one core with AVX-512, float32, 2026-11. Counts are of channels in a
# group: those of the result share every load, those that are read cost nothing else.
FEW = 16  # of the result: with more, lanes full of channels are as fast
NEARLY_FULL = 12  # with more, that depends on the columns
COLUMNS = (9, 28)  # fewer leave half of the lanes empty, more do not fit into caches
FEW_READ = 8  # of x: where rows of y have so many columns, its channels do not matter:
LONG_ROW = 28
LONG_HALF = 56  # with stride 2, if all taps of a row read each second scalar
SHARED = 5  # rows of a kernel: more share loads badly
LOW = 3  # with more, sums in several chains leave the registers for a while
FEW_FOR_ONE_ROW = 4  # of both: there are no loads that the taps could share
FEW_WITH_STRIDE = 8  # of one of both
FEW_WEIGHTS = (2, 8)  # of x and of y in a gradient of weight: more fill lanes
FEW_LONG = ((4, 13), (8, 28))  # of y, and columns, with which those of x do not matter
FILLED = 0.57  # of columns, for strided gradients of weight
# In gradients of x `taps` is as fast, from so many channels of y on, for the fewest of x
# and for short rows.
MANY, FEWEST, SHORT_ROW = 64, 4, 12
WASTE = 1.5  # products with padding and without, over those without


class ConvPlanes:
    """The card of `kernels/conv_planes.pyx` and `kernels/conv_planes_weight.pyx`."""

    name = "planes"
    transforms = False
    kernels: Mapping[Direction, Kernel] = {
        "fprop": Kernel("conv_planes", "fprop"),
        "dgrad": Kernel("conv_planes", "dgrad", folds=has_small_ring),
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
        shared = problem.kernel[1] if problem.kernel[1] <= MOST_SHARED else 1
        if direction != "wgrad" and shared * problem.kernel[2] > MOST_CHAIN:
            return Verdict(False, f"chains of more than {MOST_CHAIN} terms")
        rows = problem.kernel[0] * problem.kernel[1]
        planes = [problem.in_extent, problem.out_extent]
        if max(d * (h + TILE_ROWS) for d, h, _ in planes) * rows > MOST_ROWS:
            return Verdict(False, f"planes with more than {MOST_ROWS} rows to load")
        ic, oc = problem.ic // problem.g, problem.oc // problem.g
        if max(ic, oc) * rows > MOST_TERMS:
            return Verdict(False, f"tiles with more than {MOST_TERMS} terms a column")
        if ic * oc * problem.taps > MOST_WEIGHTS:
            return Verdict(False, f"groups of more than {MOST_WEIGHTS} weights")
        line = direction == "fprop" and rows == max(problem.out_extent[:2]) == 1
        patched = not line and oc <= FEW_RESULTS and max(problem.padding[2]) <= PATCHED
        patched = patched and problem.kernel[2] <= PATCHED_TAPS
        copied = problem.border != "zeros" and not patched
        if direction != "dgrad" and (problem.stride[2] == 2 or copied):
            # Rows of a tile are split, each into two of these; those with a border are
            # copied as they are, where many results look at them.
            half = problem.out_extent[2]
            if line:
                half = min(half, LINE)
            half += problem.kernel[2] * problem.dilation[2] + 64
            if TILE_ROWS * rows * ic * half > MOST_SPLIT:
                return Verdict(False, f"tiles of more than {MOST_SPLIT} scalars")
        return Verdict(True, "strides 1 and 2, rows and kernels of moderate size")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer few channels of the result, where lanes full of them are half empty."""
        x, y = problem.ic // problem.g, problem.oc // problem.g
        columns = problem.out_extent[2]
        if problem.kernel[1] == 1:
            few = max(x, y) <= FEW_FOR_ONE_ROW
        elif direction == "wgrad":
            few = self._prefers_weight(x, y, columns, problem.stride[2])
        elif direction == "dgrad":
            few = self._prefers_gradient(problem, x, y)
        elif problem.stride[2] == 1:
            few = self._prefers_dense(problem, y, columns)
            low = problem.kernel[1] <= SHARED
            few = few or (low and x <= FEW_READ and columns >= LONG_ROW)
        else:
            few = self._prefers_strided(problem, x, y)
        return Verdict(few, "few channels a group" if few else "many channels a group")

    def _prefers_dense(self, problem: ConvProblem, result: int, columns: int) -> bool:
        """Tell whether so many channels of the result are few, with stride 1."""
        if result <= NEARLY_FULL:
            return True
        few = result <= FEW and problem.kernel[1] <= LOW
        return few and COLUMNS[0] <= columns <= COLUMNS[1]

    def _prefers_strided(self, problem: ConvProblem, x: int, y: int) -> bool:
        if problem.stride[1] > 1 and problem.kernel[1] > SHARED:
            return max(x, y) <= FEW_FOR_ONE_ROW
        if y <= FEW and min(x, y) <= FEW_WITH_STRIDE:
            return True
        one_half = problem.dilation[2] % 2 == 0 and problem.kernel[1] <= LOW
        return one_half and x <= FEW_READ and problem.out_extent[2] >= LONG_HALF

    def _prefers_gradient(self, problem: ConvProblem, x: int, y: int) -> bool:
        if prod(problem.stride) > 1:
            return max(x, y) <= FEW and min(x, y) <= FEW_WITH_STRIDE
        if waste(problem) > WASTE:
            return max(x, y) <= FEW
        columns = problem.in_extent[2]
        if y >= MANY and (x <= FEWEST or columns < SHORT_ROW):
            return False
        return self._prefers_dense(problem, x, columns)

    def _prefers_weight(self, x: int, y: int, columns: int, stride: int) -> bool:
        few = max(x, y) <= FEW and (x <= FEW_WEIGHTS[0] or y <= FEW_WEIGHTS[1])
        few = few and max(x, y) <= columns * (1 if stride == 1 else FILLED)
        if stride > 1:
            return few
        return few or any(y <= most and columns >= least for most, least in FEW_LONG)
