"""Max pooling with one window for each plane, which holds all of it: a global maximum.

Lanes take neighbouring elements, and no row has a beginning; then as many planes as a
vector has lanes are turned to find the greatest of their lanes. With indices the bits of
all results are those of `flat`, so that choice may look at the batch; of values alone, a
zero may have the other sign.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import PoolProblem

# Many small planes, whose indices `turned` finds faster.
_MANY = 64
_SMALL = 64

_KERNEL = Kernel("pool_select", "fprop")


class PoolMaxPlanes:
    """The card of `fprop` in `kernels/pool_select.pyx`."""

    name = "planes"
    transforms = False
    kernels: Mapping[str, Kernel] = {"max_values": _KERNEL, "max_fprop": _KERNEL}

    def accepts(self, problem: PoolProblem, direction: str) -> Verdict:
        """Accept one window that holds every element of a plane."""
        if prod(problem.out_extent) != 1:
            return Verdict(False, "more than one window")
        if 0 in problem.kernel:
            return Verdict(True, "one window, of a plane")
        numbers = problem.geometry[1:]  # seven for each axis, clipped to the input
        axes = zip(
            numbers[0::7], numbers[2::7], numbers[4::7], numbers[6::7], strict=True
        )
        if any(k - lo < i or d != 1 for i, k, lo, d in axes):
            return Verdict(False, "elements that no window holds")
        return Verdict(True, "one window, of a plane")

    def prefers(self, problem: PoolProblem, direction: str) -> Verdict:
        """Prefer all, but for indices in many small planes."""
        few = problem.n * problem.c < _MANY
        if direction == "max_fprop" and not few and prod(problem.in_extent) < _SMALL:
            return Verdict(False, "many small planes")
        return Verdict(True, "full lanes, one pass")
