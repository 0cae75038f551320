"""Convolution with large kernels by Fourier transforms of tiles (overlap-save).

The error is at most `4 * (2 * sqrt(K) + 7 * log2(N)) * u * S`: K channels (tiles, for the
gradient of weight) are summed, N is the number of elements of a tile, u the unit roundoff,
and S the sum over them of |d| |w|: |d| is the root of the sum of the squares of a tile, |w|
the sum of the magnitudes of what it is multiplied by (`reference.fft.convolve`, with
`magnitude`).

For, with errors in the Euclidean norm: a transform is wrong by at most 7 u log2(N) of its
norm (Higham, Accuracy and Stability, theorem 24.2), which by Parseval and Cauchy-Schwarz is
as much of |d| |w| for x, for weight, and for the way back, where |D W| <= |D| max |W| and
max |W| <= |w|. Each part of a complex product of three real ones is the difference of two
sums of at most sqrt(2) |D| |W| each, wrong by (2 sqrt(K) + 4) u of them: both parts
together by 4 times that. A tile with data of very different sizes has errors of the size
of the largest.

Subnormal numbers are rounded to multiples of 2 t u, t the smallest normal one. Weights (dy,
for their gradient) are lifted by 2^40, or 2^80 in float64, before they are transformed, and
never feel it. In transforms of x (dy, for its gradient) it does as much as if each |d| were
larger by 2 sqrt(N) t, and it adds t u to a result. In float32 that is never more than some
N 2^-50 a channel: weights so large that it would be overflow when they are lifted. Whatever
overflows, as do sums above some 2^70, is computed again by a direct sum.

Source: Mathieu, Henaff and LeCun, Fast Training of Convolutional Networks through FFTs,
arXiv:1312.5851; Vasilache et al., fbfft, arXiv:1412.7580, for tiles.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict, rounded
from convcore.problem import ConvProblem, Direction

MOST_TAPS = 256  # of a kernel along one axis
MOST_TAPS_OF_TWO = 48  # along each of two
MOST_SCALARS = 900_000  # of the spectra of one tile: they have to fit into scratch
# Channels that `effort` rounds up to, and outputs of a tile that it takes for usual.
LANES, TILE = 16, 16
# Weights whose spectra, usually six times as large, would take more than 128 MB: they are
# transformed in every call.
KEPT = 5 << 20


class ConvFft:
    """The card of `kernels/conv_fft.pyx` and `kernels/conv_fft_weight.pyx`."""

    name = "fft"
    transforms = True
    kernels: Mapping[Direction, Kernel] = {
        "fprop": Kernel("conv_fft", "fprop", "pack_fprop"),
        "dgrad": Kernel("conv_fft", "dgrad", "pack_dgrad"),
        "wgrad": Kernel("conv_fft_weight", "wgrad"),
    }

    def accepts(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Accept kernels along one or both of the last two axes, of a bounded size."""
        if prod(problem.stride) > 1 or prod(problem.dilation) > 1:
            return Verdict(False, "a stride or a dilation")
        if problem.kernel[0] > 1 or problem.padding[0] != (0, 0):
            return Verdict(False, "taps or padding along the first axis")
        axes = [k for k in problem.kernel if k > 1]
        if not axes:
            return Verdict(False, "a single tap")
        most = MOST_TAPS if len(axes) == 1 else MOST_TAPS_OF_TWO
        if max(axes) > most:
            return Verdict(False, f"more than {most} taps along an axis")
        channels = max(problem.ic, problem.oc) // problem.g
        if _points(axes) * 3 * (channels + 64) > MOST_SCALARS:
            return Verdict(False, "too many channels a group for such taps")
        return Verdict(True, "stride 1, taps of a bounded number")

    def effort(self, problem: ConvProblem, direction: Direction) -> Mapping[str, float]:
        """Count the points of all tiles, and what is done at each."""
        extent = problem.in_extent if direction == "dgrad" else problem.out_extent
        points = problem.n * extent[0] * problem.g
        for e, k in zip(extent[1:], problem.kernel[1:], strict=True):
            points *= e + (k - 1) * -(-e // max(k, TILE))
        c, m = problem.ic // problem.g, problem.oc // problem.g
        if direction == "dgrad":
            c, m = m, c
        weights = problem.g * problem.taps * c * rounded(m, LANES)
        amounts = {
            "lanes": points * c * rounded(m, LANES),
            "gathered": points * rounded(c, LANES),
            "scattered": points * rounded(m, LANES),
            "weights": weights,
        }
        if direction != "wgrad" and weights > KEPT:
            amounts["packing"] = weights
        return amounts


def _points(axes: list[int]) -> int:
    """Count the points of the smallest tile."""
    lengths = [
        next(n for n in (8, 16, 24, 32, 48, 64, 128, 256) if n >= k) for k in axes
    ]
    return prod(lengths) // 2 + 2
