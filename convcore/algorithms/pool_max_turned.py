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
_LANES = 16  # of float32, at most

# What was measured to be faster than `flat` and `rows`, with AVX-512.
_LONG = 128  # columns of a single row
_NEAR_CACHE = 2**18  # elements of x that a cache holds: turning costs less there
_MUCH = 3 << 19  # elements of x that wait for memory, whatever is done with them
_FEW = 8  # taps in large planes of three axes, for which others are as fast
_CUBE = 27  # and in wide ones
_MANY = 12  # taps in planes of two axes, up to which others are as fast
_NARROW = 32  # columns

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
        """Accept windows if the elements under a row of them fit the scratch."""
        kernels, _, dilations = problem.clipped
        adaptive = 0 in problem.kernel
        if adaptive:
            dilations = (1, 1, 1)
        elif problem.steps_over:
            return Verdict(False, "windows that step over all elements")
        extents = zip(
            problem.in_extent, kernels, problem.out_extent, dilations, strict=True
        )
        reach = [
            min(i, (k - 1) * d + 1 if k else (i - 1) // o + 2) for i, k, o, d in extents
        ]
        if direction == "max_labels" and prod(reach if adaptive else kernels) > _TAPS:
            return Verdict(False, "labels that are no bytes")
        slabs = (reach[0] - 1) // dilations[0] + 1
        wide, out = problem.in_extent[2], problem.out_extent[2]
        if max(slabs * reach[1] * max(wide, out), 2 * out) > self._most(problem):
            return Verdict(False, "windows or rows too long for the scratch")
        return Verdict(True, "a row of windows fits the scratch")

    @staticmethod
    def _most(problem: PoolProblem) -> int:
        """Give the vectors that there is room for."""
        cells = max(prod(problem.in_extent), 2 * prod(problem.out_extent))
        return _NEAR if cells <= _NEAR else _CELLS

    def prefers(self, problem: PoolProblem, direction: str) -> Verdict:
        """Prefer enough planes, unless bands of large ones share much of their work."""
        planes = problem.n * problem.c
        # Of adaptive windows, `places` may give a zero of the other sign, without labels.
        alone = 0 in problem.kernel and direction == "max_values"
        if (problem.c if alone else planes) < _PLANES:
            return Verdict(False, f"fewer than {_PLANES} planes")
        if 0 in problem.kernel:
            return Verdict(True, "windows that differ, every lane busy")
        if self.has_long_rows(problem):
            return Verdict(False, "long single rows")
        values, taps = direction == "max_values", prod(problem.clipped[0])
        cells, windows = prod(problem.in_extent), prod(problem.out_extent)
        if max(cells, 2 * windows) > _CELLS:
            return self._prefers_bands(problem, values)
        step = max(problem.clipped[1])
        gains = planes >= _LANES and (
            planes * cells < _MUCH or step > 2 or taps > _MANY
        )
        if not gains and 2 * windows < cells and cells > self._pays(taps, values):
            return Verdict(False, "turning takes longer than what is done then")
        return Verdict(True, "small planes, every lane busy")

    @staticmethod
    def has_long_rows(problem: PoolProblem) -> bool:
        """Tell whether planes are single rows, along which lanes are as busy."""
        single = problem.in_extent[:2] == (1, 1) and problem.in_extent[2] >= _LONG
        return single and problem.clipped[1][2] <= 2 and problem.clipped[2][2] == 1

    @staticmethod
    def _prefers_bands(problem: PoolProblem, values: bool) -> Verdict:
        """Choose for large planes, whose bands share rows with their neighbours."""
        kernels, strides, dilations = problem.clipped
        planes, width = problem.n * problem.c, problem.in_extent[2]
        taps = prod(kernels)
        if planes < _LANES:
            return Verdict(False, "large planes, and lanes without one")
        if set(dilations) != {1}:
            return Verdict(True, "dilated windows, every lane busy")
        few = planes * prod(problem.in_extent) < _NEAR_CACHE
        if problem.in_extent[0] > 1:
            if few or (taps > _FEW and (width <= _NARROW or taps > _CUBE)):
                return Verdict(True, "three axes in bands, every lane busy")
            return Verdict(False, "large planes, few taps")
        if few and (values or strides[2] > 2):
            return Verdict(True, "planes in bands, few in all")
        if taps <= _MANY:
            return Verdict(False, "large planes, few taps")
        if values and strides[2] <= 2 and width > _NARROW:
            return Verdict(False, "large planes whose windows share columns")
        return Verdict(True, "many taps, every lane busy")

    @staticmethod
    def _pays(taps: int, values: bool) -> int:
        """Give the largest plane that is worth turning for few windows, of few planes.

        Rows of a plane as vectors, as in other kernels, are full from some width on;
        two threads, float32, 2 x 2 and 3 x 3 with stride 2.
        """
        if taps <= 4:
            return 300 if values else 420
        return 580
