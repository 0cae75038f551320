"""How long an algorithm would take: a sum of what it does, each at its price.

    seconds = sum of price * amount

The amounts follow from the problem alone (`effort`), the prices were fitted to
measurements, per algorithm and direction, by `python -m benchmarks.fit_cost_model`; they
are in `cost_constants.py`, with the machine and the date. They are those of one machine,
for float32; another one has other prices, but much the same ratios between them, and it is
ratios that decide.

This chooses between a direct sum and what transforms its operands, where any rule of a few
extents would be wrong somewhere. Among direct sums the cards' rules choose (`prefers`).

================  ==================================================================
amount            of
================  ==================================================================
call              1
products          multiply-adds, as the kernel does them
lanes             those with the result's channels, or columns, rounded up to a vector
columns
gathered          elements that are looked for: patches; tiles before and after transforms
scattered
source, result    scalars of x and y, or of the gradients that take their place
weights           scalars of the weights, transformed or as they are, that are read
packing           the same, 0 where a layer keeps them packed
far, far_packing  of both, those beyond what a cache holds
fresh             scalars of weights that are transformed for every box, and never kept
================  ==================================================================
"""

from collections.abc import Mapping
from math import inf, prod

from convcore.algorithms import cost_constants
from convcore.algorithms.base import ConvAlgorithm, rounded
from convcore.problem import ConvProblem, Direction

PRICES = cost_constants.PRICES
AMOUNTS = (
    "call",
    "products",
    "lanes",
    "columns",
    "gathered",
    "scattered",
    "source",
    "result",
    "weights",
    "packing",
    "far",
    "far_packing",
    "fresh",
)
VECTOR = 16  # scalars
CACHED = 1 << 20  # weights: 4 MB
# A transform costs accuracy: it has to be so much faster than a direct sum.
GAIN = 1.05
# Multiply-adds below which nothing transforms: there the prices were not fitted, and a few
# microseconds are not worth it.
LEAST = 100_000


def seconds(
    card: ConvAlgorithm,
    problem: ConvProblem,
    direction: Direction,
    dtype: str = "float32",
    kept: bool = False,
) -> float:
    """Estimate the time of a call.

    Parameters
    ----------
    card : ConvAlgorithm
        One that accepts the problem.
    problem : ConvProblem
        As kernels see it (`ConvProblem.folded`).
    kept : bool
        Whether the weights are there already, packed.

    Returns
    -------
    float
        Seconds; infinite for an algorithm that was never measured. float64 is taken to
        be half as fast: a vector has half as many.

    Examples
    --------
    >>> from convcore.algorithms import CONV
    >>> gemm = CONV[-1]
    >>> small, large = map(ConvProblem.parse, ("n1g1ic9ih9oc9kh3", "n9g1ic9ih99oc9kh3"))
    >>> 0 < seconds(gemm, small, "fprop") < seconds(gemm, large, "fprop")
    True
    """
    prices = PRICES.get(f"{card.name} {direction}")
    if prices is None:
        return inf
    amounts = effort(card, problem, direction, kept)
    time = sum(price * amounts.get(amount, 0.0) for amount, price in prices.items())
    return 2 * time if dtype == "float64" else time


def effort(
    card: ConvAlgorithm, problem: ConvProblem, direction: Direction, kept: bool = False
) -> Mapping[str, float]:
    """Count what an algorithm does: as its card says, or else a direct sum."""
    source, result = prod(problem.x_shape), prod(problem.y_shape)
    if direction == "dgrad":
        source, result = result, source
    amounts: dict[str, float] = {"call": 1.0, "source": source, "result": result}
    if direction == "bgrad":
        return amounts | {"source": result}
    own = getattr(card, "effort", _sums)
    amounts |= own(problem, direction)
    amounts["far"] = max(amounts["weights"] - CACHED, 0.0)
    if not kept:
        amounts |= {"packing": amounts["weights"], "far_packing": amounts["far"]}
    return amounts


def _sums(problem: ConvProblem, direction: Direction) -> Mapping[str, float]:
    """Count the products of the definition, with lanes full of channels, or of columns."""
    lanes = (problem.ic if direction == "dgrad" else problem.oc) // problem.g
    columns = problem.out_extent[2]
    products = problem.macs
    return {
        "products": products,
        "lanes": products / lanes * rounded(lanes, VECTOR),
        "columns": products / columns * rounded(columns, VECTOR),
        "gathered": products / lanes,
        "weights": prod(problem.weight_shape),
    }
