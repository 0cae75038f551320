"""Why an algorithm is chosen, in words."""

from math import inf
from typing import Any, cast

from convcore.algorithms import costs
from convcore.plan import choice
from convcore.plan.choice import Problem
from convcore.plan.measurement import measure as measured_seconds
from convcore.problem import ConvProblem, Direction, PoolProblem


def explain(
    problem: Problem,
    direction: str = "fprop",
    dtype: str = "float32",
    *,
    kept: bool = False,
    measure: bool = False,
) -> str:
    """Tell for each algorithm whether it accepts the problem, and how long it takes.

    Parameters
    ----------
    problem : ConvProblem or PoolProblem
    direction, dtype : str
        As `plan.select` takes them.
    kept : bool
        Whether the weights are packed already, as a layer keeps them in inference.
    measure : bool
        Whether to measure, too, on arrays made up for that: all of a convolution's
        algorithms that may be chosen, but those that are hopeless by estimate.

    Returns
    -------
    text : str
        A line for the problem, then one for each algorithm; the chosen one is marked.
        For a convolution it has the estimated milliseconds (`algorithms.costs`: those of
        another machine) and, on demand, the measured ones.

    Examples
    --------
    >>> for line in explain(ConvProblem.parse("n1g1ic3ih8oc4kh3sh3")).splitlines():
    ...     print(line[:12], *line.split(" ms  ")[1:])
    n1g1ic3ih8oc
      dot
      depthwise
      planes
      winograd
      winograd2
      direct     accepts: windows of a bounded size; leaves it: few channels in the lanes
    * gemm       accepts: every problem; prefers: nothing before it was preferred
    """
    if not isinstance(problem, ConvProblem | PoolProblem):
        raise TypeError(
            f"explain: problem must be a ConvProblem or PoolProblem, got {problem!r}"
        )
    chosen = choice.select(problem, direction, dtype, kept=kept).algorithm
    times: dict[str, str] = {}
    if isinstance(problem, ConvProblem):
        way = cast(Direction, direction)
        times = _estimates(problem, way, dtype, kept)
        if measure:
            found = measured_seconds(problem, way, dtype, kept)
            for name in times:
                times[name] += ", measured" + _milliseconds(found.get(name))
    lines = [_headline(problem, direction)]
    folded = choice.folded_of(problem)
    for card in choice.cards_of(problem, direction):
        mark = "*" if card.name == chosen else " "
        time = times.get(card.name, "")
        lines.append(f"{mark} {card.name:<10}{time}  {_words(card, folded, direction)}")
    return "\n".join(lines)


def _headline(problem: Problem, direction: str) -> str:
    if isinstance(problem, ConvProblem):
        return f"{problem} {direction}, {problem.macs} multiply-adds"
    return f"{problem} {direction}"


def _estimates(
    problem: ConvProblem, direction: Direction, dtype: str, kept: bool
) -> dict[str, str]:
    """Give the estimated times of all algorithms, blanks where there is none."""
    folded = problem.folded
    return {
        card.name: _milliseconds(
            costs.seconds(card, folded, direction, dtype, kept)
            if card.accepts(folded, direction).yes
            else None
        )
        for card in choice.cards_of(problem, direction)
    }


def _milliseconds(seconds: float | None) -> str:
    if seconds is None or seconds == inf:
        return f"{'-':>10}   "
    return f"{1e3 * seconds:10.4g} ms"


def _words(card: Any, folded: Problem, direction: str) -> str:
    """Say what a card says."""
    accepts = card.accepts(folded, direction)
    if not accepts.yes:
        return f"refuses: {accepts.why}"
    text = f"accepts: {accepts.why}"
    if card.transforms:
        return f"{text}; transforms: if it is estimated to be faster"
    prefers = card.prefers(folded, direction)
    return f"{text}; {'prefers' if prefers.yes else 'leaves it'}: {prefers.why}"
