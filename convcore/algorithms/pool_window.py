"""Placeholder card until the pooling kernels are in."""

from collections.abc import Mapping

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import PoolProblem


class PoolWindow:
    """Placeholder."""

    name = "window"
    summary = "one window at a time"
    kernels: Mapping[str, Kernel] = {}

    def accepts(self, problem: PoolProblem, direction: str) -> Verdict:
        """Accept everything."""
        return Verdict(True, "every problem")

    def prefers(self, problem: PoolProblem, direction: str) -> Verdict:
        """Prefer everything."""
        return Verdict(True, "nothing before it was preferred")
