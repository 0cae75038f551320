"""Initialisers: the first values of a layer's weights.

Each one takes the shape of the weight and a random generator, and returns a new array.
Weights are (out, in / groups, *kernel), those of transposed layers
(in, out / groups, *kernel), those of linear layers (out, in).

The variance-preserving ones draw with a standard deviation of::

    lecun    gain / sqrt(fan_in)                    gain 1
    he       gain / sqrt(fan_in)                    gain sqrt(2), for ReLU
    glorot   gain * sqrt(2 / (fan_in + fan_out))    gain 1

normal, or uniform on [-sqrt(3) * std, sqrt(3) * std). All have zero mean and give every
channel other values, so that channels can learn different things.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from convcore.arguments import Seed
from convcore.init.fans import fan, gain
from convcore.init.matrices import orthogonal
from convcore.init.plain import constant, normal
from convcore.init.variance import (
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
)
from convcore.runtime.arrays import Array

__all__ = [
    "Initializer",
    "constant",
    "fan",
    "gain",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
]


class Initializer(Protocol):
    """What a layer calls for its weight: any function here but `constant`."""

    def __call__(
        self,
        shape: Sequence[int],
        rng: Seed,
        *,
        groups: int = 1,
        transposed: bool = False,
        dtype: npt.DTypeLike = np.float32,
    ) -> Array:
        """Give a new array of `shape` and `dtype`."""
        ...
