"""Convolution with large kernels by Fourier transforms of tiles (overlap-save).

Source: Mathieu, Henaff and LeCun, Fast Training of Convolutional Networks through FFTs,
arXiv:1312.5851; Vasilache et al., fbfft, arXiv:1412.7580, for tiles.
"""

from collections.abc import Mapping
from math import prod

from convcore.algorithms.base import Kernel, Verdict
from convcore.problem import ConvProblem, Direction

MOST_TAPS = 256  # of a kernel along one axis
MOST_TAPS_OF_TWO = 48  # along each of two
MOST_SCALARS = 900_000  # of the spectra of one tile: they have to fit into scratch


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

    def prefers(self, problem: ConvProblem, direction: Direction) -> Verdict:
        """Prefer enough channels and taps to pay for the transforms."""
        return Verdict(False, "not yet")


def _points(axes: list[int]) -> int:
    """Count the points of the smallest tile."""
    lengths = [next(n for n in (8, 16, 24, 32, 48, 64, 128, 256) if n >= k) for k in axes]
    return prod(lengths) // 2 + 2
