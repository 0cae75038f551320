"""Convolution with 3 taps an axis by Winograd's minimal filtering: fewer multiplications.

The error is at most `(2 * sqrt(K) + 22) * u * S`: K channels (tiles, for the gradient of
weight) are summed, u is the unit roundoff, and S the sum of the magnitudes of all that the
transforms add up (`reference.winograd.convolve`, with `magnitude`). In units of
u * sum |x| |w|, on normal data, the mean error is 3.4 times that of our direct sums for
F(4 x 4, 3 x 3), and 1.2 times for F(2 x 2, 3 x 3): `python -m benchmarks.bench_accuracy`.
A tile with data of very different sizes has errors of the size of the largest.

Subnormal numbers: weights are transformed 2^32 times as large (2^64 in float64) and lose
nothing. What an input loses adds 8 * h * (S(1, w) + 1) to the bound, h being half the
smallest number and S(1, w) the same S for inputs of ones; for the gradient of weight,
8 * h * (S(1, dy) + S(x, 1) + S(1, 1) + 1). Samples whose sums, so enlarged, overflow are
computed again by a direct sum: from some 1e26 on in float32.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
arXiv:1509.09308, sections 4 and 5.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict, rounded
from convcore.problem import ConvProblem, Direction

KEPT = 1 << 20  # transformed weights of all groups; more are made for every box
MOST_PHASES = 16  # of a dilation: the tiles that a box has at least
BOX = 40  # tiles, about
# Tiles, channels of a vector, and of two, that `effort` rounds up to: on AVX-512.
ROWS, VECTOR, PANEL = 4, 16, 32


class ConvWinograd:
    """The card of `kernels/conv_winograd.pyx` and `kernels/conv_winograd_weight.pyx`."""

    transforms = True

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size  # outputs of a tile along an axis
        self.kernels: Mapping[Direction, Kernel] = {
            "fprop": Kernel("conv_winograd", "fprop", "pack_fprop", (size,)),
            "dgrad": Kernel("conv_winograd", "dgrad", "pack_dgrad", (size,)),
            "wgrad": Kernel("conv_winograd_weight", "wgrad", None, (size,)),
        }

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept kernels of 3 taps along one or both of the last two axes, stride 1."""
        if prod(problem.stride) > 1:
            return Verdict(False, "a stride")
        if problem.kernel not in ((1, 3, 3), (1, 1, 3), (1, 3, 1)):
            return Verdict(False, "the kernel is not 3 x 3, 1 x 3 or 3 x 1")
        if problem.padding[0] != (0, 0):
            return Verdict(False, "padding along the first axis")
        phases = prod(problem.dilation[i] for i in (1, 2) if problem.kernel[i] > 1)
        if phases > MOST_PHASES:
            return Verdict(False, f"a dilation of more than {MOST_PHASES} phases")
        return Verdict(True, "3 taps, stride 1")

    def effort(self, problem: ConvProblem, direction: Direction) -> Mapping[str, float]:
        """Count products at each point of each tile, and what is transformed."""
        extent = problem.in_extent if direction == "dgrad" else problem.out_extent
        tiles, points = problem.n * extent[0], 1
        for i in (1, 2):
            d = problem.dilation[i]
            if problem.kernel[i] > 1:
                tiles *= d * -(-extent[i] // (self.size * d))
                points *= self.size + problem.kernel[i] - 1
            else:
                tiles *= extent[i]
        c, m = problem.ic // problem.g, problem.oc // problem.g
        if direction == "dgrad":
            c, m = m, c
        points *= problem.g
        weights = points * c * rounded(m, VECTOR)
        fresh = direction != "wgrad" and weights > KEPT
        return {
            "lanes": points * rounded(tiles, ROWS) * c * rounded(m, VECTOR),
            "gathered": points * tiles * rounded(c, VECTOR),
            "scattered": points * tiles * rounded(m, PANEL),
            "weights": 0 if fresh else weights,
            "fresh": weights * max(1, tiles / BOX) if fresh else 0,
        }
