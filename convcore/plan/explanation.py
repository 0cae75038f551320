"""Why an algorithm is chosen, in words."""

from math import inf
from typing import Any, cast

from convcore import algorithms
from convcore.algorithms import costs
from convcore.plan import choice
from convcore.plan.choice import Problem, Question
from convcore.plan.measurement import measure as measured_seconds
from convcore.problem import ConvProblem, Direction, PoolProblem
from convcore.problem.rules import shown


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

    Notes
    -----
    A gradient of x is explained with zeros around x. What it gets from beyond another
    border is added by the kernel, if it can (`Plan.folds`), or found by gradients of their
    own, of its sides or of all of a padded x.

    Examples
    --------
    >>> head, *lines = explain(ConvProblem.parse("n1g1ic3ih8oc4kh3sh3")).splitlines()
    >>> head
    'n1g1ic3ih8oc4kh3sh3 fprop, 432 multiply-adds; times: estimated'
    >>> lines[0].split()
    ['dot', 'refuses:', 'the', 'kernel', 'does', 'not', 'cover', 'the', 'input']
    >>> next(line.split()[1] for line in lines if line.startswith("*"))
    'gemm'
    """
    if not isinstance(problem, ConvProblem | PoolProblem):
        raise TypeError(
            f"explain: problem must be a ConvProblem or PoolProblem, got {shown(problem)}"
        )
    for name, text in (("direction", direction), ("dtype", dtype)):
        if not isinstance(text, str):
            raise TypeError(f"explain: {name} must be a str, got {shown(text)}")
    ranked = algorithms.CONV if isinstance(problem, ConvProblem) else algorithms.POOL
    directions = sorted({name for card in ranked for name in card.kernels})
    if direction not in directions:
        raise ValueError(
            f"explain: direction must be one of {', '.join(directions)}, got "
            f"{shown(direction)}"
        )
    for name, flag in (("kept", kept), ("measure", measure)):
        if not isinstance(flag, bool):
            raise TypeError(f"explain: {name} must be a bool, got {shown(flag)}")
    if direction == "dgrad" and isinstance(problem, ConvProblem):
        problem = problem.core  # what a border adds is a sum of its own: see Notes
    chosen = choice.select(problem, direction, dtype, kept=kept).algorithm
    folded = choice.folded_of(problem)
    cards = choice.cards_of(problem, direction)
    if not isinstance(problem, ConvProblem):
        lines = [
            _line(c, c.name == chosen, "", _words(c, folded, direction)) for c in cards
        ]
        return "\n".join([f"{problem} {direction}", *lines])
    way = cast(Direction, direction)
    question = Question(problem, way, dtype, kept)
    found = measured_seconds(problem, way, dtype, kept) if measure else {}
    times = "estimated, measured" if measure else "estimated"
    lines = [f"{problem} {direction}, {problem.macs} multiply-adds; times: {times}"]
    for card in cards:
        time = _milliseconds(choice.estimate(card, question))
        if measure:
            time += _milliseconds(found.get(card.name, inf))
        words = _words(card, folded, direction)
        if card.transforms and card.accepts(folded, direction).yes:
            words += f"; {_gain(card, card.name == chosen, question)}"
        lines.append(_line(card, card.name == chosen, time, words))
    if choice.tuned_for(question) == chosen:
        lines.append(f"autotune found {chosen} to be the fastest")
    return "\n".join(lines)


def _line(card: Any, chosen: bool, times: str, words: str) -> str:
    return f"{'*' if chosen else ' '} {card.name:<10}{times}  {words}"


def _milliseconds(seconds: float) -> str:
    return f"{'' if seconds == inf else f'{1e3 * seconds:.3g} ms':>12}"


def _words(card: Any, folded: Problem, direction: str) -> str:
    """Say what a card says."""
    accepts = card.accepts(folded, direction)
    if not accepts.yes:
        return f"refuses: {accepts.why}"
    if card.transforms:
        return f"accepts: {accepts.why}"
    prefers = card.prefers(folded, direction)
    taste = "prefers" if prefers.yes else "leaves it"
    return f"accepts: {accepts.why}; {taste}: {prefers.why}"


def _gain(card: Any, chosen: bool, question: Question) -> str:
    """Compare a transform with the direct sum that would be chosen."""
    direct = choice.direct_of(question.problem, question.direction)
    own = choice.estimate(card, question)
    taste = "prefers" if chosen else "leaves it"
    if not choice.fast():
        return f"{taste}: the precision is strict"
    if question.dtype != "float32":
        return f"{taste}: only for float32"
    if question.problem.macs < costs.LEAST:
        return f"{taste}: fewer than {costs.LEAST} multiply-adds"
    if own == inf:
        return f"{taste}: there is no estimate"
    ratio = choice.estimate(direct, question) / own
    return f"{taste}: {ratio:.2f} times as fast as {direct.name}, by estimate"
