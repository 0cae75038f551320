"""Plans: which algorithm computes a problem, and why.

>>> from convcore.problem import ConvProblem
>>> problem = ConvProblem.parse("n1g1ic3ih224oc64kh7sh2ph3")
>>> select(problem, "fprop", "float32").algorithm
'direct'
"""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import ModuleType
from typing import Any

from convcore import algorithms
from convcore.algorithms.base import ConvAlgorithm, Kernel, PoolAlgorithm
from convcore.kernels import load
from convcore.problem import ConvProblem, PoolProblem
from convcore.runtime import cpu, precision

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

    def exact(self) -> "Plan":
        """Choose what computes a result again that a transform could not: one sample's.

        The gradient of weight is computed again whole.
        """
        problem = self.problem
        if self.direction != "wgrad":
            problem = replace(problem, n=1)
        return _select(problem, self.direction, self.dtype, "auto", False, self.isa)

    def pack(self, weight: Any, packed: Any, threads: int) -> None:
        """Pack weights: the kernel then takes `packed` in their place."""
        assert self._pack is not None
        self._pack(self.geometry, weight, packed, threads)


def select(
    problem: Problem, direction: str, dtype: str, algorithm: str = "auto"
) -> Plan:
    """Choose the algorithm of a problem: the first that accepts and prefers it.

    Those that transform their operands are only chosen for float32, and not under
    `precision("strict")`.

    Parameters
    ----------
    problem : ConvProblem or PoolProblem
    direction : str
        "fprop", "dgrad", "wgrad" or "bgrad" of a convolution; of a pooling, a name in
        its cards' `kernels`.
    dtype : "float32" or "float64"
    algorithm : str
        "auto", or the name of an algorithm that has to accept the problem.

    Raises
    ------
    ValueError
        When there is no such algorithm, or it does not accept the problem.
    """
    return _select(problem, direction, dtype, algorithm, _fast(dtype), cpu.isa())


def _fast(dtype: str) -> bool:
    """Tell whether transforms may be chosen."""
    return dtype == "float32" and precision.current() == "fast"


def check_algorithm(function: str, algorithm: str) -> None:
    """Refuse an algorithm that no convolution has, in the name of `function`."""
    if algorithm == "auto":
        return
    names = ["auto", *(card.name for card in algorithms.CONV)]
    if algorithm not in names:
        raise ValueError(
            f"{function}: algorithm must be one of {', '.join(map(repr, names))}, got "
            f"{algorithm!r}"
        )


def explain(
    problem: Problem, direction: str = "fprop", dtype: str = "float32"
) -> str:
    """Tell for each algorithm, in order, whether it accepts and prefers the problem.

    Returns
    -------
    text : str
        A line for the problem, then one for each algorithm; the chosen one is marked.

    Examples
    --------
    >>> print(explain(ConvProblem.parse("n1g1ic3ih8oc4kh3sh3")))
    n1g1ic3ih8oc4kh3sh3 fprop, 432 multiply-adds
      dot       refuses: the kernel does not cover the input
      depthwise refuses: several channels a group
      planes    refuses: a stride above 2 along the last axis
      winograd  refuses: a stride or a dilation
      winograd2 refuses: a stride or a dilation
      fft       refuses: a stride or a dilation
      direct    accepts: windows of a bounded size; leaves it: few channels in the lanes
    * gemm      accepts: every problem; prefers: nothing before it was preferred
    """
    if not isinstance(problem, ConvProblem | PoolProblem):
        raise TypeError(
            f"explain: problem must be a ConvProblem or PoolProblem, got {problem!r}"
        )
    lines = [_headline(problem, direction)]
    chosen = False
    fast = _fast(dtype)
    folded = _folded(problem)
    for card in _cards(problem, direction):
        accepts = card.accepts(folded, direction)
        text = f"{'accepts' if accepts.yes else 'refuses'}: {accepts.why}"
        taken = False
        if accepts.yes:
            prefers = card.prefers(folded, direction)
            text += f"; {'prefers' if prefers.yes else 'leaves it'}: {prefers.why}"
            taken = prefers.yes and not chosen and (fast or not card.transforms)
        chosen = chosen or taken
        lines.append(f"{'*' if taken else ' '} {card.name:<10}{text}")
    return "\n".join(lines)


def _headline(problem: Problem, direction: str) -> str:
    if isinstance(problem, ConvProblem):
        return f"{problem} {direction}, {problem.macs} multiply-adds"
    return f"{problem} {direction}"


def _folded(problem: Problem) -> Problem:
    """Give what cards and kernels see."""
    return problem.folded if isinstance(problem, ConvProblem) else problem


def _packing(problem: Problem, *how: str) -> tuple[Any, ...]:
    """Give what packed weights depend on: nothing of extents or the batch."""
    assert isinstance(problem, ConvProblem)
    weights = (problem.g, problem.ic, problem.oc, problem.kernel)
    return *how, *weights, problem.stride, problem.dilation


def _cards(problem: Problem, direction: str) -> Sequence[Any]:
    """List the cards of a kind of problem that have the direction."""
    ranked: Sequence[ConvAlgorithm] | Sequence[PoolAlgorithm] = (
        algorithms.CONV if isinstance(problem, ConvProblem) else algorithms.POOL
    )
    cards = [card for card in ranked if direction in card.kernels]
    if not cards:
        raise ValueError(f"plan: no algorithm has the direction {direction!r}")
    return cards


@lru_cache(maxsize=4096)
def _select(
    problem: Problem, direction: str, dtype: str, algorithm: str, fast: bool, isa: str
) -> Plan:
    cards = _cards(problem, direction)
    if isinstance(problem, ConvProblem) and problem.relu and direction != "fprop":
        raise ValueError(
            f"plan: only fprop has an activation, got {problem} {direction}"
        )
    folded = _folded(problem)
    if algorithm == "auto":
        card = next(
            c
            for c in cards
            if (fast or not c.transforms)
            and c.accepts(folded, direction).yes
            and c.prefers(folded, direction).yes
        )
    else:
        named = [c for c in cards if c.name == algorithm]
        if not named:
            names = ", ".join(repr(c.name) for c in cards)
            raise ValueError(
                f'plan: algorithm must be "auto" or one of {names}, got {algorithm!r}'
            )
        card = named[0]
        verdict = card.accepts(folded, direction)
        if not verdict.yes:
            raise ValueError(
                f"plan: algorithm {algorithm!r} does not accept {problem}: {verdict.why}"
            )
    kernel: Kernel = card.kernels[direction]
    module = load(kernel.module, isa)
    geometry = array("q", (*folded.geometry, *kernel.options))
    packing = None
    if kernel.pack:
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
        module,
        getattr(module, kernel.pack) if kernel.pack else None,
    )
