"""Draws and values that look at nothing but the shape."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convcore.arguments import Seed, real
from convcore.init.drawing import drawn_normally, extents_of, float_type
from convcore.runtime.arrays import Array

__all__ = ["constant", "normal"]


def normal(
    shape: Sequence[int],
    rng: Seed,
    std: float = 0.01,
    *,
    groups: int = 1,
    transposed: bool = False,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw normally with mean 0 and a standard deviation of `std`.

    Parameters
    ----------
    shape : ints
        Shape of the result, one axis or more.
    rng : numpy.random.Generator or int
        Generator to draw from, or a seed for a new one.
    std : float
        Standard deviation; at least 0.
    groups, transposed
        Not looked at: they are here so that every initialiser is called alike.
    dtype : float32 or float64
        Type of the result.

    Returns
    -------
    ndarray
        New array of `shape` and `dtype`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Examples
    --------
    >>> normal((3, 2), rng=0, std=0.02).dtype
    dtype('float32')
    """
    return drawn_normally(
        "normal", shape, rng, real("normal", "std", std, least=0), dtype
    )


def constant(
    shape: Sequence[int], value: float = 0.0, *, dtype: npt.DTypeLike = np.float32
) -> Array:
    """Fill an array with one value: for biases and scales, not for weights.

    Channels that start equal get equal gradients and stay equal for ever.

    Parameters
    ----------
    shape : ints
        Shape of the result, one axis or more.
    value : float
        The finite value.
    dtype : float32 or float64
        Type of the result.

    Returns
    -------
    ndarray
        New array of `shape` and `dtype`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Examples
    --------
    >>> constant((3,), 0.5)
    array([0.5, 0.5, 0.5], dtype=float32)
    """
    extents = extents_of("constant", shape)
    number = real("constant", "value", value)
    return np.full(extents, number, dtype=float_type("constant", dtype))
