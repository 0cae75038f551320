"""Convolution with 3 taps an axis by Winograd's minimal filtering: fewer multiplications.

The error is at most `(2 * sqrt(K) + 22) * u * S`: K channels (tiles, for the gradient of
weight) are summed, u is the unit roundoff, and S the sum of the magnitudes of all that the
transforms add up (`reference.winograd.convolve`, with `magnitude`). In units of
u * sum |x| |w|, on normal data, the mean error is 3.4 times that of our direct sums for
F(4 x 4, 3 x 3), and 1.2 times for F(2 x 2, 3 x 3): `python -m benchmarks.bench_accuracy`.
A tile with data of very different sizes has errors of the size of the largest.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
arXiv:1509.09308, sections 4 and 5.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import ConvProblem, Direction

MOST_CHANNELS = 1024  # of a group: the weights of 32 outputs have to fit into L3
# The rest is taste: one core with AVX-512, float32, 2026-11.
FEWEST = 12  # channels, of x or y: with fewer, transforms take as long as products
FEWEST_IN_LINES = 48  # the same for one axis, where only half as much is saved
TILES = 4  # of all samples: a row of the register tile each
TILES_OF_GRADIENT = 8  # the same, terms of a sum for each of 36 / 9 times the weights
TINY = 2  # extents of a map that a tile of 2 x 2 covers


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
        """Accept dense kernels of 3 taps along one or both of the last two axes."""
        if prod(problem.stride) > 1 or prod(problem.dilation) > 1:
            return Verdict(False, "a stride or a dilation")
        if problem.kernel not in ((1, 3, 3), (1, 1, 3), (1, 3, 1)):
            return Verdict(False, "the kernel is not 3 x 3, 1 x 3 or 3 x 1")
        if problem.padding[0] != (0, 0):
            return Verdict(False, "padding along the first axis")
        if max(problem.ic, problem.oc) // problem.g > MOST_CHANNELS:
            return Verdict(False, f"more than {MOST_CHANNELS} channels a group")
        return Verdict(True, "3 taps, stride 1")

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer channels that pay for the transforms, tiles that pay for weights."""
        fewest = min(problem.ic, problem.oc) // problem.g
        axes = sum(k > 1 for k in problem.kernel)
        if fewest < (FEWEST if axes == 2 else FEWEST_IN_LINES):
            return Verdict(False, "few channels")
        extents = [
            o for o, k in zip(problem.out_extent, problem.kernel, strict=True) if k > 1
        ]
        if (max(extents) <= TINY) != (self.size == 2):
            return Verdict(False, "a map for tiles of the other size")
        tiles = max(problem.n, 1) * prod(
            -(-o // (self.size if k > 1 else 1))
            for o, k in zip(problem.out_extent, problem.kernel, strict=True)
        )
        if tiles < (TILES_OF_GRADIENT if direction == "wgrad" else TILES):
            return Verdict(False, "few tiles for as many weights")
        return Verdict(True, "3 taps, channels and tiles for the transforms")
