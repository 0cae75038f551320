"""Plans: which algorithm computes a problem.

>>> from convcore.problem import ConvProblem
>>> problem = ConvProblem.parse("n1g1ic3ih224oc64kh7sh2ph3")
>>> select(problem, "fprop", "float32").algorithm
'direct'
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import inf
from types import ModuleType
from typing import Any, NamedTuple, cast

from convcore import algorithms
from convcore.algorithms import costs
from convcore.algorithms.base import ConvAlgorithm, Kernel, PoolAlgorithm
from convcore.kernels import load
from convcore.problem import ConvProblem, Direction, PoolProblem
from convcore.problem.rules import one_of, shown
from convcore.runtime import cpu, precision, tuned

Problem = ConvProblem | PoolProblem
_ITEM_BYTES = {"float32": 4, "float64": 8}


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The choice for one problem, direction, dtype and instruction set.

    `kernel(geometry, *buffers, scratch, threads)` runs it. What a kernel that transforms
    its operands gives back, if anything, is for `exact`.
    """

    problem: Problem
    direction: str
    dtype: str
    isa: str
    algorithm: str
    work: int  # multiply-adds, or what costs as much
    geometry: "array[int]"
    kernel: Callable[..., Any]
    packing: tuple[Any, ...] | None  # what packed weights depend on, if it takes such
    folds: bool  # whether a gradient of x has the share of what lies beyond its border
    _module: ModuleType
    _pack: Callable[..., None] | None = None
    _scratch: dict[tuple[int, bool], int] = field(default_factory=dict)

    def scratch_bytes(self, threads: int, packed: bool = False) -> int:
        """Give the bytes of scratch for so many threads, less if weights come packed."""
        size = self._scratch.get((threads, packed))
        if size is None:
            item = _ITEM_BYTES[self.dtype]
            size = item * self._module.scratch_size(
                self.geometry, self.direction, item, threads
            )
            if packed:
                size -= self.packed_bytes()
            self._scratch[threads, packed] = size
        return size

    def packed_bytes(self) -> int:
        """Give the bytes of packed weights."""
        item = _ITEM_BYTES[self.dtype]
        scalars: int = self._module.packed_size(self.geometry, self.direction, item)
        return item * scalars

    def exact(self, n: int | None = None) -> "Plan":
        """Choose what computes again what a transform could not: all, or n samples."""
        problem = self.problem if n is None else replace(self.problem, n=n)
        return _select(
            problem, self.direction, self.dtype, "auto", False, False, self.isa
        )

    def pack(self, weight: Any, packed: Any, threads: int) -> None:
        """Pack weights: the kernel then takes `packed` in their place."""
        assert self._pack is not None
        self._pack(self.geometry, weight, packed, threads)


class Question(NamedTuple):
    """What `select` is asked, where the algorithm is "auto"."""

    problem: ConvProblem
    direction: Direction
    dtype: str
    kept: bool


def select(
    problem: Problem,
    direction: str,
    dtype: str,
    algorithm: str = "auto",
    kept: bool = False,
) -> Plan:
    """Choose the algorithm of a problem.

    Of those that sum the products of the definition it is the first that accepts and
    prefers the problem. What transforms its operands takes its place if that is estimated
    to be faster (`algorithms.costs`), for float32, and not under `precision("strict")`.
    There nothing looks at the batch; elsewhere what `convcore.autotune` found on this
    machine goes before all rules.

    Parameters
    ----------
    problem : ConvProblem or PoolProblem
    direction : str
        "fprop", "dgrad", "wgrad" or "bgrad" of a convolution; of a pooling, a name in
        its cards' `kernels`.
    dtype : "float32" or "float64"
    algorithm : str
        "auto", or the name of an algorithm that has to accept the problem.
    kept : bool
        Whether the weights are packed already in most calls, as a layer keeps them.

    Raises
    ------
    ValueError
        When there is no such algorithm, or it does not accept the problem.

    Notes
    -----
    The gradient of x is that with zeros around x, whatever lies there, unless the plan
    `folds`: see `functional._sides` for the rest.
    """
    bordered = None
    if direction == "dgrad" and isinstance(problem, ConvProblem):
        if problem.border not in ("zeros", "constant"):
            bordered = problem
        problem = problem.core
    asked = _asked.get()
    if asked is not None and algorithm == "auto" and isinstance(problem, ConvProblem):
        asked.append(Question(problem, cast(Direction, direction), dtype, kept))
    chosen = _select(problem, direction, dtype, algorithm, kept, fast(), cpu.isa())
    return chosen if bordered is None else _folding(chosen, bordered, algorithm)


def fast() -> bool:
    """Tell whether transforms, the batch and measurements count."""
    return not precision.is_strict()


_asked: ContextVar[list[Question] | None] = ContextVar("convcore.asked", default=None)


@contextmanager
def questions() -> Iterator[list[Question]]:
    """Collect what `select` is asked inside of a `with` block, in this thread."""
    asked: list[Question] = []
    token = _asked.set(asked)
    try:
        with precision.uncached():
            yield asked
    finally:
        _asked.reset(token)


def check_algorithm(function: str, algorithm: str) -> None:
    """Refuse an algorithm that no convolution has, in the name of `function`."""
    names = ("auto", *(card.name for card in algorithms.CONV))
    one_of(function, "algorithm", algorithm, names)


def folded_of(problem: Problem) -> Problem:
    """Give what cards and kernels see."""
    return problem.folded if isinstance(problem, ConvProblem) else problem


def _packing(problem: Problem, *how: str) -> tuple[Any, ...]:
    """Give what packed weights depend on: nothing of extents or the batch."""
    assert isinstance(problem, ConvProblem)
    weights = (problem.g, problem.ic, problem.oc, problem.kernel)
    return *how, *weights, problem.stride, problem.dilation


def cards_of(problem: Problem, direction: str) -> Sequence[Any]:
    """List the cards of a kind of problem that have the direction, on this processor."""
    ranked: Sequence[ConvAlgorithm] | Sequence[PoolAlgorithm] = (
        algorithms.CONV if isinstance(problem, ConvProblem) else algorithms.POOL
    )
    found = [(card, card.kernels.get(direction)) for card in ranked]  # type: ignore[call-overload]
    cards = [c for c, k in found if k and (not k.isas or cpu.isa() in k.isas)]
    if not cards:
        raise ValueError(f"plan: no algorithm has the direction {shown(direction)}")
    return cards


@lru_cache(maxsize=4096)
def _select(
    problem: Problem,
    direction: str,
    dtype: str,
    algorithm: str,
    kept: bool,
    fast_mode: bool,
    isa: str,
) -> Plan:
    cards = cards_of(problem, direction)
    if isinstance(problem, ConvProblem) and problem.relu and direction != "fprop":
        raise ValueError(
            f"plan: only fprop has an activation, got {problem} {direction}"
        )
    if algorithm != "auto":
        card = _named(cards, problem, direction, algorithm)
    elif fast_mode and isinstance(problem, ConvProblem):
        question = Question(problem, cast(Direction, direction), dtype, kept)
        card = _fastest(question, isa)
    else:
        card = direct_of(problem, direction)
    folded = folded_of(problem)
    kernel: Kernel = card.kernels[direction]
    module = load(kernel.module, isa)
    geometry = array("q", (*folded.geometry, *kernel.options))
    pack = packing = None
    if kernel.pack and module.packed_size(geometry, direction, _ITEM_BYTES[dtype]):
        pack = getattr(module, kernel.pack)
        packing = _packing(folded, direction, dtype, card.name, isa)
        if hasattr(module, "tile_lengths"):
            packing += module.tile_lengths(geometry, direction, _ITEM_BYTES[dtype])
    return Plan(
        problem,
        direction,
        dtype,
        isa,
        card.name,
        problem.work(direction),
        geometry,
        getattr(module, kernel.function),
        packing,
        False,
        module,
        pack,
    )


def _folding(chosen: Plan, problem: ConvProblem, algorithm: str) -> Plan:
    """Give a plan that folds what lies beyond the border of x, if a kernel can.

    That of the plan; or, if it is the usual one with zeros, the usual one with the border.
    """
    card = next(c for c in cards_of(problem, "dgrad") if c.name == chosen.algorithm)
    if algorithm == "auto" and card is direct_of(problem.core, "dgrad"):
        card = direct_of(problem, "dgrad")
    kernel: Kernel = card.kernels["dgrad"]
    folded = problem.folded
    if kernel.folds is None or not kernel.folds(folded):
        return chosen
    plan = _select(
        problem.core, "dgrad", chosen.dtype, card.name, False, False, chosen.isa
    )
    geometry = array("q", (*folded.geometry, *kernel.options))
    return replace(plan, problem=problem, geometry=geometry, folds=True, _scratch={})


forget = _select.cache_clear


def _named(
    cards: Sequence[Any], problem: Problem, direction: str, algorithm: str
) -> Any:
    """Give the card of a name, if it accepts the problem."""
    named = [c for c in cards if c.name == algorithm]
    if not named:
        names = ", ".join(repr(c.name) for c in cards)
        raise ValueError(
            f'plan: algorithm must be "auto" or one of {names}, got {shown(algorithm)}'
        )
    verdict = named[0].accepts(folded_of(problem), direction)
    if not verdict.yes:
        raise ValueError(
            f"plan: algorithm {shown(algorithm)} does not accept {problem}: {verdict.why}"
        )
    return named[0]


def _fastest(question: Question, isa: str) -> Any:
    """Give the card that was the fastest here, or else the one that is estimated to be."""
    cards = accepting(question)
    measured = tuned.lookup(key_of(question), isa)
    for card in cards:
        if card.name == measured:
            return card
    best = direct_of(question.problem, question.direction)
    least = estimate(best, question) / costs.GAIN
    if question.problem.macs < costs.LEAST or least == inf:
        return best
    for card in cards:
        time = estimate(card, question)
        if card.transforms and time < least:
            best, least = card, time
    return best


def direct_cards(problem: Problem, direction: str) -> Iterator[Any]:
    """List the cards of direct sums that accept and prefer the problem."""
    folded = folded_of(problem)
    for card in cards_of(problem, direction):
        fits = not card.transforms and card.accepts(folded, direction).yes
        if fits and card.prefers(folded, direction).yes:
            yield card


def direct_of(problem: Problem, direction: str) -> Any:
    """Give the first of them."""
    return next(direct_cards(problem, direction))


@lru_cache(maxsize=4096)
def is_possible(problem: Problem, direction: str, _isa: str) -> bool:
    """Tell whether there is one; the instruction set is a part of the key."""
    return any(True for _ in direct_cards(problem, direction))


def accepting(question: Question) -> list[Any]:
    """List the cards that accept, transforms only for float32."""
    problem, direction, dtype, _ = question
    folded = folded_of(problem)
    return [
        card
        for card in cards_of(problem, direction)
        if (dtype == "float32" or not card.transforms)
        and card.accepts(folded, direction).yes
    ]


def estimate(card: Any, question: Question) -> float:
    """Give the estimated seconds of a convolution; infinite if a card refuses it."""
    problem, direction, dtype, kept = question
    folded = problem.folded
    if not card.accepts(folded, direction).yes:
        return inf
    return costs.seconds(card, folded, direction, dtype, kept)


def seconds(chosen: Plan) -> float:
    """Give the estimated seconds of a convolution; infinite if there is no estimate."""
    assert isinstance(chosen.problem, ConvProblem)
    direction = cast(Direction, chosen.direction)
    cards = cards_of(chosen.problem, direction)
    card = next(card for card in cards if card.name == chosen.algorithm)
    return estimate(card, Question(chosen.problem, direction, chosen.dtype, False))


def tuned_for(question: Question) -> str | None:
    """Name the algorithm that was measured to be the fastest here, if that counts."""
    return tuned.lookup(key_of(question), cpu.isa()) if fast() else None


def key_of(question: Question) -> str:
    """Spell a question, for what is kept in a file; an activation makes no difference."""
    spelling = str(question.problem).removesuffix("relu")
    end = " kept" if question.kept else ""
    return f"{spelling} {question.direction} {question.dtype}{end}"
