"""Max pooling of small planes, one in each lane of a vector.

Planes are transposed in registers, pooled a vector at a time, and the results turned
back: all lanes are busy, whatever the width of a plane, the window and the stride. It
takes windows of any size, also those of adaptive poolings. The bits of all results are
those of `flat`, so the choice may look at the batch.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import PoolProblem

# As in kernels/pool_max_turned.pyx.
_NEAR = 256  # elements of a plane, and twice its windows, that need no scratch
_CELLS = 1280  # of a band, and twice its windows
_TAPS = 256  # whose numbers are bytes

_PLANES = 8  # half of the lanes of float32: with fewer, other kernels are as fast

_FEW = 8  # taps in large planes of three axes, for which `flat` is as fast

_KERNEL = Kernel("pool_max_turned", "fprop")


class PoolMaxTurned:
    """The card of `kernels/pool_max_turned.pyx`."""

    name = "turned"
    transforms = False
    kernels: Mapping[str, Kernel] = {
        "max_values": _KERNEL,
        "max_fprop": _KERNEL,
        "max_labels": _KERNEL,
    }

    def accepts(self, problem: PoolProblem, direction: str) -> Verdict:
        """Accept dense windows if the elements under a row of them fit the scratch."""
        kernels, _, dilations = problem.clipped
        adaptive = 0 in problem.kernel
        if not adaptive and set(dilations) != {1}:
            return Verdict(False, "the dilation is not 1")
        extents = zip(problem.in_extent, kernels, problem.out_extent, strict=True)
        reach = [min(i, k or (i - 1) // o + 2) for i, k, o in extents]
        taps = prod(reach if adaptive else kernels)
        if direction == "max_labels" and taps > _TAPS:
            return Verdict(False, "labels that are no bytes")
        wide, out = problem.in_extent[2], problem.out_extent[2]
        if max(reach[0] * reach[1] * max(wide, out), 2 * out) > self._most(problem):
            return Verdict(False, "windows or rows too long for the scratch")
        return Verdict(True, "a row of dense windows fits the scratch")

    @staticmethod
    def _most(problem: PoolProblem) -> int:
        """Give the vectors that there is room for."""
        cells = max(prod(problem.in_extent), 2 * prod(problem.out_extent))
        return _NEAR if cells <= _NEAR else _CELLS

    def prefers(self, problem: PoolProblem, direction: str) -> Verdict:
        """Prefer small planes, if there are some of them."""
        # Of adaptive windows, `places` may give a zero of the other sign, without labels.
        alone = 0 in problem.kernel and direction == "max_values"
        if problem.c * (1 if alone else problem.n) < _PLANES:
            return Verdict(False, f"fewer than {_PLANES} planes")
        if 0 in problem.kernel:
            return Verdict(True, "windows that differ, every lane busy")
        cells, windows = prod(problem.in_extent), prod(problem.out_extent)
        taps = prod(problem.clipped[0])
        if max(cells, 2 * windows) > _CELLS:
            if problem.in_extent[0] > 1 and taps > _FEW and direction != "max_values":
                return Verdict(True, "three axes in bands, every lane busy")
            return Verdict(False, "large planes")
        if 2 * windows < cells and cells > self._pays(taps, direction):
            return Verdict(False, "turning takes longer than what is done then")
        return Verdict(True, "small planes, every lane busy")

    @staticmethod
    def _pays(taps: int, direction: str) -> int:
        """Give the largest plane that is worth turning for few windows.

        Rows of a plane as vectors, as in other kernels, are full from some width on;
        two threads, float32, 2 x 2 and 3 x 3 with stride 2.
        """
        if taps <= 4:
            return 300 if direction == "max_values" else 420
        return 580 if direction == "max_values" else _CELLS
