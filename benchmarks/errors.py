"""How wrong results are: data to convolve, and errors in units of what rounding allows.

A unit is u * sum |x| |w|: the unit roundoff times the sum of the magnitudes of all
products of an element. One product that is rounded once errs by at most one unit. The
judge is `convcore.reference`, in a wider type.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from benchmarks.case import Array, Case, Data
from benchmarks.peers.with_convcore import Convcore
from benchmarks.rows import ConvRow
from convcore import plan, precision, reference
from convcore.algorithms import CONV
from convcore.problem import ConvProblem, Direction

# What the numbers are like.
DATA = {
    "normal": "from the standard normal distribution",
    "positive": "their magnitudes: no sum cancels",
    "channels": "normal, each channel of x, weight and grad_y times 10**U(-6, 6)",
    "elements": "normal, each element of x, weight and grad_y times 10**U(-6, 6)",
}
DIRECT = "direct"

_DEFINITIONS: dict[Direction, Callable[..., Array]] = {
    "fprop": reference.conv,
    "dgrad": reference.conv_grad_x,
    "wgrad": reference.conv_grad_weight,
}


@dataclass(frozen=True)
class Error:
    """The mean and the worst error of a result, in units."""

    mean: float
    worst: float


@dataclass(frozen=True)
class Judged:
    """A case with its arrays, the right result, and the unit of each element."""

    case: Case
    arrays: Data
    right: Array
    unit: Array

    def error(self, algorithm: str) -> Error:
        """Run an algorithm by its name; "auto" is the library's choice."""
        peer = Convcore(algorithm)
        found = peer.output(peer.prepare(self.case, self.arrays)())
        errors = np.abs(found - self.right) / self.unit
        return Error(float(errors.mean()), float(errors.max()))


def judge(
    problem: ConvProblem, direction: Direction, dtype: str, kind: str, seed: int = 0
) -> Judged:
    """Draw data, and compute what is right.

    Parameters
    ----------
    problem : ConvProblem
    direction : "fprop", "dgrad" or "wgrad"
    dtype : "float32" or "float64"
        Judged in float64, and in long double.
    kind : str
        A name in `DATA`.
    seed : int
    """
    rng = np.random.default_rng(seed)
    shapes = problem.x_shape, problem.weight_shape, problem.y_shape
    arrays = Data(*(_draw(rng, kind, shape).astype(dtype) for shape in shapes))
    x, weight, grad_y = arrays.x, arrays.weight, arrays.grad_y
    function = _DEFINITIONS[direction]
    operands = {"fprop": (x, weight), "dgrad": (grad_y, weight), "wgrad": (x, grad_y)}
    wide: Any = np.float64 if dtype == "float32" else np.longdouble
    first, second = (a.astype(wide) for a in operands[direction])
    right = function(problem, first, second)
    unit = wide(np.finfo(dtype).eps) / 2
    unit = unit * function(problem, np.abs(first), np.abs(second))
    return Judged(
        ConvRow("", "conv", problem).case(direction, dtype), arrays, right, unit
    )


def accepting(problem: ConvProblem, direction: Direction) -> list[str]:
    """Name every algorithm that accepts a problem, "direct" first."""
    names = [
        card.name
        for card in CONV
        if direction in card.kernels and card.accepts(problem.folded, direction).yes
    ]
    return sorted(names, key=lambda name: name != DIRECT)


def direct_sum(problem: ConvProblem, direction: Direction, dtype: str) -> str:
    """Name the algorithm that is chosen where none may transform its operands."""
    with precision("strict"):
        return plan.select(problem, direction, dtype).algorithm


def transforming(problem: ConvProblem, direction: Direction) -> list[str]:
    """Name those of `accepting` that transform their operands."""
    transforms = {card.name for card in CONV if card.transforms}
    return [name for name in accepting(problem, direction) if name in transforms]


def direction_of(text: str) -> Direction:
    """Narrow the type of a direction that the command line has checked."""
    return cast(Direction, text)


def _draw(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    drawn = rng.standard_normal(shape)
    if kind == "positive":
        return np.abs(drawn)
    if kind == "normal":
        return drawn
    scaled = shape if kind == "elements" else (1, shape[1], *(1,) * (len(shape) - 2))
    return drawn * 10.0 ** rng.uniform(-6, 6, scaled)
