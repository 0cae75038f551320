"""How long the algorithms that may be chosen take here, on arrays made up for that."""

from collections.abc import Callable
from math import inf, prod
from time import perf_counter
from typing import Any

from convcore.plan import choice
from convcore.plan.choice import Plan, Question
from convcore.problem import ConvProblem, Direction
from convcore.runtime import arrays, stopwatch, threads, workspace

HOPELESS = 4.0  # times the least estimate: not measured


def measure(
    problem: ConvProblem,
    direction: Direction = "fprop",
    dtype: str = "float32",
    kept: bool = False,
    *,
    seconds: float = 0.1,
    hopeless: float = HOPELESS,
    clock: stopwatch.Clock = perf_counter,
) -> dict[str, float]:
    """Measure the algorithms that `select` could take, with the present threads.

    Parameters
    ----------
    problem : ConvProblem
    direction : "fprop", "dgrad", "wgrad" or "bgrad"
    dtype : "float32" or "float64"
    kept : bool
        Whether the weights are there already, packed, as a layer keeps them.
    seconds : float
        For each algorithm, about.
    hopeless : float
        Times the least estimate, above which an algorithm is left out.
    clock : callable
        Gives seconds.

    Returns
    -------
    dict of str to float
        The least seconds of one call of each, the fastest first.

    Examples
    --------
    >>> times = measure(ConvProblem.parse("n1g1ic3ih8oc4kh3sh3"), seconds=0.001)
    >>> sorted(times)
    ['direct', 'gemm']
    """
    question = Question(problem, direction, dtype, kept)
    known = {
        card.name: choice.estimate(card, question)
        for card in choice.accepting(question)
        if choice.fast() or not card.transforms
    }
    most = hopeless * min(known.values())
    names = [name for name, time in known.items() if time <= most or time == inf]
    operands = _operands(problem, direction, dtype)
    calls = {}
    for name in names:
        chosen = choice.select(problem, direction, dtype, name)
        calls[name] = _call(chosen, operands, kept)
    return stopwatch.race(calls, seconds, clock)


def _operands(problem: ConvProblem, direction: str, dtype: str) -> list[Any]:
    """Make up the arrays of a direction, in the order of its kernels."""
    x, weight, y, bias = (
        arrays.empty((prod(shape),), arrays.DTYPES[dtype])
        for shape in (
            problem.x_shape,
            problem.weight_shape,
            problem.y_shape,
            (problem.oc,),
        )
    )
    for array in (x, weight, y):
        array.fill(0.5)
    operands: dict[str, list[Any]] = {
        "fprop": [x, weight, None, y],
        "dgrad": [y, weight, None, x],
        "wgrad": [x, y, weight],
        "bgrad": [y, bias],
    }
    return operands[direction]


def _call(plan: Plan, operands: list[Any], kept: bool) -> Callable[[], object]:
    """Give what calls the kernel of a plan as `functional.call` does."""
    team = threads.team(plan.work)
    given = list(operands)
    packed = kept and plan.packing is not None
    if packed:
        room = workspace.lend(plan.packed_bytes())  # for good
        plan.pack(given[1], room, team)
        given[1] = room
    size = plan.scratch_bytes(team, packed)

    def call() -> None:
        scratch = workspace.lend(size) if size else None
        plan.kernel(plan.geometry, *given, scratch, team)
        if scratch is not None:
            workspace.take_back(scratch)

    return call
