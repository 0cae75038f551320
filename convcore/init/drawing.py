"""What all initialisers check and draw alike."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convcore.arguments import Seed, generator, integer, shown
from convcore.runtime.arrays import Array

_ITEM_BYTES = 8  # drawn in float64, whatever the dtype


def extents_of(function: str, shape: Any) -> tuple[int, ...]:
    """Give the shape as a tuple of ints >= 1."""
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise TypeError(
            f"{function}: shape must be a tuple of integers, got {shown(shape)}"
        )
    if not shape:
        raise ValueError(f"{function}: shape must have an axis, got {shown(shape)}")
    extents = tuple(integer(function, "every extent of shape", e, 1) for e in shape)
    if math.prod(extents) * _ITEM_BYTES >= 2**63:
        raise ValueError(
            f"{function}: shape must be addressable with 63 bits, got {shown(shape)}"
        )
    return extents


def weight_extents(function: str, shape: Any) -> tuple[int, ...]:
    """Give the shape of a weight, which has two axes of channels."""
    extents = extents_of(function, shape)
    if len(extents) < 2:
        raise ValueError(
            f"{function}: shape must have 2 axes or more, got {shown(shape)}"
        )
    return extents


def float_type(function: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Give the dtype, which is float32 or float64."""
    try:
        kind = np.dtype(dtype)
    except (TypeError, ValueError):
        kind = np.dtype(object)
    if dtype is None or kind not in (np.float32, np.float64):
        raise TypeError(
            f"{function}: dtype must be float32 or float64, got {shown(dtype)}"
        )
    return kind


def drawn_uniformly(
    function: str, shape: Any, rng: Seed, std: float, dtype: npt.DTypeLike
) -> Array:
    """Draw uniformly around 0 with the standard deviation `std`."""
    extents, kind = extents_of(function, shape), float_type(function, dtype)
    bound = math.sqrt(3.0) * std
    return (
        generator(function, rng)
        .uniform(-bound, bound, extents)
        .astype(kind, copy=False)
    )


def drawn_normally(
    function: str, shape: Any, rng: Seed, std: float, dtype: npt.DTypeLike
) -> Array:
    """Draw normally around 0 with the standard deviation `std`."""
    extents, kind = extents_of(function, shape), float_type(function, dtype)
    return (std * generator(function, rng).standard_normal(extents)).astype(
        kind, copy=False
    )
