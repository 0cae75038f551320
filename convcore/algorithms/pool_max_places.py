"""Max pooling over windows whose places a table tells: those of adaptive poolings.

Narrow windows stand side by side in the lanes, and a pick from two vectors of columns
gives an element of each; wide ones have their columns in the lanes. With labels the bits
of all results are those of `turned`, so that choice may look at the batch; of values
alone, a zero may have the other sign.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import PoolProblem

_TAPS = 256  # whose numbers are bytes

# SSE2 has no picks: there it takes up to three times as long as window by window.
_KERNEL = Kernel("pool_max_places", "fprop", isas=("x86_64_v3", "x86_64_v4"))


class PoolMaxPlaces:
    """The card of `kernels/pool_max_places.pyx` and of its gradient."""

    name = "places"
    transforms = False
    kernels: Mapping[str, Kernel] = {
        "max_values": _KERNEL,
        "max_fprop": _KERNEL,
        "max_labels": _KERNEL,
        "max_labels_dgrad": Kernel("pool_max_places_gradient", "dgrad"),
    }

    def accepts(self, problem: PoolProblem, direction: str) -> Verdict:
        """Accept adaptive windows; with bytes as labels, small ones."""
        if 0 not in problem.kernel:
            return Verdict(False, "windows that are all alike")
        extents = zip(problem.in_extent, problem.out_extent, strict=True)
        taps = prod(min(i, (i - 1) // o + 2) for i, o in extents)
        if direction.startswith("max_labels") and taps > _TAPS:
            return Verdict(False, f"more than {_TAPS} taps")
        return Verdict(True, "adaptive windows")

    def prefers(self, problem: PoolProblem, direction: str) -> Verdict:
        """Prefer all that came so far down the list."""
        return Verdict(True, "windows of a row side by side")
