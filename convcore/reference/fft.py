"""Convolution by Fourier transforms of tiles, from its definition.

The transform of a circular correlation is a product (the convolution theorem):

    y[t] = sum over j of w[j] * d[(t + j) mod n]    <=>    Y = D * conj(W)

Of a tile of n inputs and k taps the first n - k + 1 outputs never wrap around: they are
those of a convolution. Tiles of outputs lie side by side, their inputs overlap
(overlap-save). Sums over channels, or over tiles for the gradient of weight, are made of
the transforms.

Source: Oppenheim and Schafer, Discrete-Time Signal Processing, section 8.7.3.
"""

from collections.abc import Sequence

import numpy as np

from convcore.problem import ConvProblem, Direction
from convcore.reference.tiles import Array, by_groups, patches


def correlate(d: Array, w: Array) -> Array:
    """Give the outputs of one tile that do not wrap around.

    Examples
    --------
    >>> correlate(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 0.0, -1.0])).round(12)
    array([-2., -2.])
    """
    n = len(d)
    y: Array = np.fft.irfft(np.fft.rfft(d) * np.conj(np.fft.rfft(w, n)), n)
    return y[: n - len(w) + 1]


def convolve(
    problem: ConvProblem,
    direction: Direction,
    first: Array,
    second: Array,
    lengths: Sequence[int],
    *,
    magnitude: bool = False,
    least: float = 0.0,
) -> Array:
    """Compute a direction of a convolution by transforms of tiles.

    Parameters
    ----------
    problem : ConvProblem
        Stride and dilation 1, a kernel along the last two axes.
    direction : "fprop", "dgrad" or "wgrad"
    first, second : ndarray
        x and weight; grad_y and weight; x and grad_y.
    lengths : (int, int)
        Of tiles, at least as long as the kernel.
    magnitude : bool
        Give what the rounding errors of each result are measured in instead: the sum of
        |d| |w|, where |d| is the root of the sum of the squares of a tile, and |w| the sum
        of the magnitudes of what it is multiplied by.
    least : float
        The smallest normal number of a type. Rounding to multiples of less than that adds
        as much to `magnitude` as if each |d| of n numbers were larger by 2 sqrt(n) of it.

    Returns
    -------
    result : float64
    """
    taps = problem.kernel[1:]
    return by_groups(
        problem,
        direction,
        first,
        second,
        lambda x, w, pads, extent: _forward(
            x, w, pads, extent, lengths, magnitude, least
        ),
        lambda x, dy, pads: _weight_gradient(
            x, dy, pads, taps, lengths, magnitude, least
        ),
    )


def _forward(
    images: Array,
    weight: Array,
    pads: Sequence[int],
    extent: Sequence[int],
    lengths: Sequence[int],
    magnitude: bool,
    least: float,
) -> Array:
    """Convolve (n, c, h, w) with (m, c, ky, kx)."""
    size = [length - k + 1 for length, k in zip(lengths, weight.shape[2:], strict=True)]
    tiles = [-(-e // s) for e, s in zip(extent, size, strict=True)]
    d = patches(images, pads, size, lengths, tiles)
    if magnitude:
        sums = np.einsum("nctu,mc->nmtu", _root(d, least), np.abs(weight).sum((2, 3)))
        y = np.broadcast_to(sums[..., None, None], (*sums.shape, *size))
    else:
        v, u = np.fft.rfft2(d), np.conj(np.fft.rfft2(weight, lengths))
        y = np.fft.irfft2(np.einsum("nctupq,mcpq->nmtupq", v, u), lengths)
        y = y[..., : size[0], : size[1]]
    n, m, t, u_ = y.shape[:4]
    y = y.swapaxes(3, 4).reshape(n, m, t * size[0], u_ * size[1])
    return y[:, :, : extent[0], : extent[1]]


def _weight_gradient(
    images: Array,
    dy: Array,
    pads: Sequence[int],
    taps: Sequence[int],
    lengths: Sequence[int],
    magnitude: bool,
    least: float,
) -> Array:
    """Give the gradient of (m, c, ky, kx)."""
    size = [length - k + 1 for length, k in zip(lengths, taps, strict=True)]
    tiles = [-(-e // s) for e, s in zip(dy.shape[2:], size, strict=True)]
    d = patches(images, pads, size, lengths, tiles)
    e = patches(dy, (0, 0), size, size, tiles)
    if magnitude:
        sums = np.einsum("nctu,nmtu->mc", _root(d, least), np.abs(e).sum((4, 5)))
        return np.broadcast_to(sums[..., None, None], (*sums.shape, *taps))
    v, w = np.fft.rfft2(d), np.conj(np.fft.rfft2(e, lengths))
    dw: Array = np.fft.irfft2(np.einsum("nctupq,nmtupq->mcpq", v, w), lengths)
    return dw[:, :, : taps[0], : taps[1]]


def _root(d: Array, least: float) -> Array:
    """Give the norm of each tile, whose squares may leave the range, and what is added."""
    largest = np.abs(d).max((4, 5), keepdims=True, initial=0.0)
    part = d / np.where(largest > 0, largest, 1.0)
    norm: Array = np.sqrt((part * part).sum((4, 5))) * largest[..., 0, 0]
    norm += 2 * np.sqrt(d.shape[4] * d.shape[5]) * least
    return norm
