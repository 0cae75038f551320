"""What an algorithm's card says.

A card is small: when the algorithm is right (`accepts`), when it is fast (`prefers`), and
which kernel functions it is made of. Truth and taste stay apart: `accepts` never looks at
speed, `prefers` never at correctness. Tests run every algorithm that accepts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from convcore.problem import ConvProblem, Direction, PoolProblem

MOST_EXTRAS = 4096  # (place beside x, tap) that a kernel lists: 100 KB


class Verdict(NamedTuple):
    """Yes or no, and why: what `plan.explain` prints."""

    yes: bool
    why: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """A compiled function: a module of `convcore.kernels`, and a name in it.

    It is called as `function(geometry, *arrays, scratch, threads)`; the module's
    `scratch_size(geometry, direction, itemsize, threads)` tells the scalars of scratch,
    which come as an array of bytes; None if it needs none. With `pack`, the name of a
    function `pack(geometry, weight, packed, threads)`, it takes those bytes for the
    weights, and needs so much less scratch; `packed_size(geometry, direction, itemsize)`
    tells how many scalars that is, 0 if these weights are never packed. They do not depend
    on the batch, and of extents only on what `tile_lengths(geometry, direction, itemsize)`
    tells, if the module has that.
    `options` are integers that the geometry ends with; `isas` are the instruction sets for
    which it is meant, if not for all. `folds` tells to which borders a gradient of x gives
    their share by itself: the geometry then says what lies around x.

    A kernel that transforms its operands gives back None, or a byte for each sample (one
    for a gradient of weight), set where a result is not finite: a transform spreads that,
    or made it.
    """

    module: str
    function: str
    pack: str | None = None
    options: tuple[int, ...] = ()
    isas: tuple[str, ...] = ()
    folds: Callable[[ConvProblem], bool] | None = None


class ConvAlgorithm(Protocol):
    """The card of a convolution algorithm."""

    name: str
    transforms: bool  # its operands: beyond the error of a direct sum
    kernels: Mapping[Direction, Kernel]

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Tell whether the result is right."""


class DirectAlgorithm(ConvAlgorithm, Protocol):
    """The card of an algorithm that sums the products of the definition."""

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Tell whether it is the one to take, given that those before it were not."""


class TransformAlgorithm(ConvAlgorithm, Protocol):
    """The card of an algorithm that transforms its operands: chosen by its estimate."""

    def effort(self, problem: ConvProblem, direction: Direction) -> Mapping[str, float]:
        """Count what it does, in the amounts of `algorithms.costs`, for the estimate."""


class PoolAlgorithm(Protocol):
    """The card of a pooling algorithm."""

    name: str
    transforms: bool
    kernels: Mapping[str, Kernel]

    def accepts(self, problem: PoolProblem, direction: str) -> Verdict:
        """Tell whether the result is right."""

    def prefers(self, problem: PoolProblem, direction: str) -> Verdict:
        """Tell whether it is the one to take, given that those before it were not."""


def waste(problem: ConvProblem) -> float:
    """Count the products of a gradient of x with padding, for each without.

    Examples
    --------
    >>> waste(ConvProblem.parse("n1g1ic1iw5oc1kw5"))
    5.0
    """
    ratio = 1.0
    for i, o, k, s, (low, _), d in zip(
        problem.in_extent,
        problem.out_extent,
        problem.kernel,
        problem.stride,
        problem.padding,
        problem.dilation,
        strict=True,
    ):
        # Tap t brings output q to place s * q + d * t - low, if that is in 0 .. i - 1.
        shifts = range(-low, d * k - low, d)
        pairs = sum(
            max(0, min(o, -(-(i - shift) // s)) - max(0, -(shift // s)))
            for shift in shifts
        )
        ratio *= i * k / s / max(pairs, 1)
    return ratio


def has_small_ring(problem: ConvProblem) -> bool:
    """Tell whether planes of one channel a group have a border that a kernel can list."""
    if problem.ic != problem.g or problem.oc != problem.g:
        return False
    if problem.in_extent[0] > 1 or problem.kernel[0] > 1 or any(problem.padding[0]):
        return False
    beside = zip(problem.padding, problem.kernel, strict=True)
    return sum(sum(pair) * taps for pair, taps in beside) <= MOST_EXTRAS


def rounded(count: int, unit: int) -> int:
    """Round up to a multiple of `unit`."""
    return -(-count // unit) * unit
