"""Draws that keep the variance from layer to layer: Glorot's, He's and LeCun's."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from convcore.arguments import Seed, real
from convcore.init.drawing import drawn_normally, drawn_uniformly, weight_extents
from convcore.init.fans import RELU, fans_of
from convcore.runtime.arrays import Array

__all__ = [
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
]


def glorot_uniform(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw uniformly with variance gain**2 * 2 / (fan_in + fan_out).

    Parameters
    ----------
    shape : ints
        Shape of the weight; see `fan`.
    rng : numpy.random.Generator or int
        Generator to draw from, or a seed for a new one.
    groups, transposed
        As for `fan`.
    gain : float
        Factor of the standard deviation; see `gain`. At least 0.
    dtype : float32 or float64
        Type of the result. Values are drawn in float64, so that a seed gives the same
        weights, rounded, in float32.

    Returns
    -------
    ndarray
        New array of `shape` and `dtype`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    References
    ----------
    Glorot, Bengio: Understanding the difficulty of training deep feedforward neural
    networks, AISTATS 2010, equation 16.

    Examples
    --------
    >>> weight = glorot_uniform((16, 8, 3, 3), rng=0)
    >>> bool(abs(weight).max() <= (6 / (8 * 9 + 16 * 9)) ** 0.5)
    True
    """
    weight = (shape, groups, transposed)
    return _drawn(
        "glorot_uniform", drawn_uniformly, weight, rng, gain, dtype, both=True
    )


def glorot_normal(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw normally with variance gain**2 * 2 / (fan_in + fan_out).

    Parameters, errors and reference as for `glorot_uniform` (there: equation 12).

    Examples
    --------
    >>> glorot_normal((4, 2, 3), rng=0).shape
    (4, 2, 3)
    """
    weight = (shape, groups, transposed)
    return _drawn("glorot_normal", drawn_normally, weight, rng, gain, dtype, both=True)


def he_uniform(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = RELU,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw uniformly with variance gain**2 / fan_in: 2 / fan_in for ReLU.

    Parameters and errors as for `glorot_uniform`.

    References
    ----------
    He, Zhang, Ren, Sun: Delving Deep into Rectifiers, ICCV 2015, equation 10; for
    leaky ReLU equation 15, `gain=gain("leaky_relu", slope)`.

    Examples
    --------
    >>> weight = he_uniform((16, 8, 3, 3), rng=0)
    >>> bool(abs(weight).max() <= (6 / (8 * 9)) ** 0.5)
    True
    """
    weight = (shape, groups, transposed)
    return _drawn("he_uniform", drawn_uniformly, weight, rng, gain, dtype)


def he_normal(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = RELU,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw normally with variance gain**2 / fan_in: 2 / fan_in for ReLU.

    Parameters and errors as for `glorot_uniform`, reference as for `he_uniform`.

    Examples
    --------
    >>> he_normal((4, 2, 3), rng=0).shape
    (4, 2, 3)
    """
    weight = (shape, groups, transposed)
    return _drawn("he_normal", drawn_normally, weight, rng, gain, dtype)


def lecun_uniform(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw uniformly with variance gain**2 / fan_in.

    Parameters and errors as for `glorot_uniform`.

    References
    ----------
    LeCun, Bottou, Orr, Müller: Efficient BackProp, in Neural Networks: Tricks of the
    Trade, 1998, section 4.6, equation 16.

    Examples
    --------
    >>> weight = lecun_uniform((16, 8, 3, 3), rng=0)
    >>> bool(abs(weight).max() <= (3 / (8 * 9)) ** 0.5)
    True
    """
    weight = (shape, groups, transposed)
    return _drawn("lecun_uniform", drawn_uniformly, weight, rng, gain, dtype)


def lecun_normal(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw normally with variance gain**2 / fan_in.

    Parameters and errors as for `glorot_uniform`, reference as for `lecun_uniform`.

    Examples
    --------
    >>> lecun_normal((4, 2, 3), rng=0).shape
    (4, 2, 3)
    """
    weight = (shape, groups, transposed)
    return _drawn("lecun_normal", drawn_normally, weight, rng, gain, dtype)


def _drawn(
    function: str,
    draw: Callable[..., Array],
    weight: tuple[Sequence[int], int, bool],
    rng: Seed,
    gain: float,
    dtype: npt.DTypeLike,
    both: bool = False,
) -> Array:
    """Draw so that sums over fan_in, or the mean of both fans, have variance gain**2.

    `weight` is its shape, groups, and whether it is transposed.
    """
    shape, groups, transposed = weight
    fan_in, fan_out = fans_of(
        function, weight_extents(function, shape), groups, transposed
    )
    factor = real(function, "gain", gain, least=0)
    fan = (fan_in + fan_out) / 2 if both else fan_in
    return draw(function, shape, rng, factor / math.sqrt(fan), dtype)
