"""How wrong results are: data to convolve, and errors in units of what rounding allows.

A unit is u * sum |x| |w|: the unit roundoff times the sum of the magnitudes of all
products of an element. One product that is rounded once errs by at most one unit. The
judge is `convcore.reference`, in a wider type.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
    "uniform": "uniform in [0, 1)",
    "offset": "1000 and normal noise: all products are nearly equal",
    "equal": "1.9: the roundings of each sum are alike",
    "cancelling": "one operand is 1 and noise of 0.001, the other has the sum 0",
}
DIRECT = "direct"
_AROUND = {"offset": (1000.0, 1.0), "equal": (1.9, 0.0), "cancelling": (1.0, 1e-3)}
# The second operand of each direction, and its axis that is not summed over.
_SECOND: dict[Direction, tuple[int, int]] = {
    "fprop": (1, 0),
    "dgrad": (1, 1),
    "wgrad": (2, 1),
}

_DEFINITIONS: dict[Direction, Callable[..., Array]] = {
    "fprop": reference.conv,
    "dgrad": reference.conv_grad_x,
    "wgrad": reference.conv_grad_weight,
}


@dataclass(frozen=True)
class Error:
    """The mean and the worst error of a result, in units.

    And the worst as a part of what a direct sum of K terms promises, 2 * sqrt(K) + 4.
    """

    mean: float
    worst: float
    of_bound: float


@dataclass(frozen=True)
class Judged:
    """A case with its arrays, the right result, and the unit of each element."""

    case: Case
    arrays: Data
    right: Array
    unit: Array
    terms: Array  # that are summed, for each element or all

    def error(self, algorithm: str) -> Error:
        """Run an algorithm by its name; "auto" is the library's choice."""
        peer = Convcore(algorithm)
        return self.error_of(peer.output(peer.prepare(self.case, self.arrays)()))

    def error_of(self, found: Array) -> Error:
        """Judge a result; where nothing but zeros is summed there is no error."""
        wrong = np.asarray(np.abs(found - self.right))
        errors = np.divide(wrong, self.unit, out=wrong, where=wrong > 0)
        part = errors / (2 * np.sqrt(self.terms) + 4)
        return Error(*(float(e) for e in (errors.mean(), errors.max(), part.max())))


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
    drawn = [_draw(rng, kind, shape) for shape in shapes]
    if kind == "cancelling":
        place, axis = _SECOND[direction]
        drawn[place] = rng.standard_normal(shapes[place])
        summed = tuple(a for a in range(problem.ndim + 2) if a != axis)
        drawn[place] -= drawn[place].mean(axis=summed, keepdims=True)
    arrays = Data(*(a.astype(dtype) for a in drawn))
    x, weight, grad_y = arrays.x, arrays.weight, arrays.grad_y
    function = _DEFINITIONS[direction]
    operands = {"fprop": (x, weight), "dgrad": (grad_y, weight), "wgrad": (x, grad_y)}
    wide: Any = np.float64 if dtype == "float32" else np.longdouble
    first, second = (a.astype(wide) for a in operands[direction])
    right = function(problem, first, second)
    unit = wide(np.finfo(dtype).eps) / 2
    unit = unit * function(problem, np.abs(first), np.abs(second))
    case = ConvRow("", "conv", problem).case(direction, dtype)
    return Judged(case, arrays, right, unit, _terms(problem, direction))


def _terms(problem: ConvProblem, direction: Direction) -> Array:
    """Count the products of each element, without zeros of the padding."""
    # Every sample, channel and filter counts alike: one of each is enough.
    one = replace(problem, n=1, g=1, ic=1, oc=1)
    x, w, y = (np.ones(s) for s in (one.x_shape, one.weight_shape, one.y_shape))
    operands = {"fprop": (x, w), "dgrad": (y, w), "wgrad": (x, y)}[direction]
    taps = _DEFINITIONS[direction](one, *operands)
    icg, ocg = problem.ic // problem.g, problem.oc // problem.g
    return taps * {"fprop": icg, "dgrad": ocg, "wgrad": problem.n}[direction]


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
    if kind == "uniform":
        return rng.random(shape)
    drawn = rng.standard_normal(shape)
    if kind in _AROUND:
        middle, noise = _AROUND[kind]
        return middle + noise * drawn
    if kind == "positive":
        return np.abs(drawn)
    if kind == "normal":
        return drawn
    scaled = shape if kind == "elements" else (1, shape[1], *(1,) * (len(shape) - 2))
    return drawn * 10.0 ** rng.uniform(-6, 6, scaled)
