"""Scalar arguments: the checks that initialisers, optimisers and training share.

Each function gives the value back in its one canonical type, or raises with the text
`function: argument rule, got what`. Shapes are checked in `problem`, arrays in
`runtime.arrays`.
"""

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from convcore.problem import rules
from convcore.problem.rules import one_of, shown

__all__ = [
    "Seed",
    "boolean",
    "exact",
    "generator",
    "integer",
    "one_of",
    "real",
    "shown",
    "state_of_names",
    "uniform",
]

Seed = int | np.random.Generator


def integer(function: str, argument: str, value: Any, least: int) -> int:
    """Give `value` as an int of at least `least`; a bool or a float is none."""
    number = rules.integer(function, argument, value)
    if number < least:
        raise ValueError(
            f"{function}: {argument} must be >= {least}, got {shown(value)}"
        )
    return number


def exact(values: Iterable[Any]) -> bool:
    """Tell whether `values` are nothing but ints, strings and None, in tuples or not.

    Then they may be the key of a cache. It takes 1, 1.0 and True for the same, and would
    answer for a float or a bool that no check has seen.
    """
    for value in values:
        kind = type(value)
        if kind is int or kind is str or value is None:
            continue
        if kind is not tuple or not exact(value):
            return False
    return True


def boolean(function: str, argument: str, value: Any) -> bool:
    """Give `value` if it is True or False; no number and no string is."""
    if not isinstance(value, bool):
        raise TypeError(f"{function}: {argument} must be a bool, got {shown(value)}")
    return value


def real(
    function: str,
    argument: str,
    value: Any,
    least: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Give `value` as a finite float with `least <= value < below`."""
    if type(value) is float and least <= value < below and value > -math.inf:
        return value  # the usual case, at once; below is at most Inf, and NaN is not
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{function}: {argument} must be a real number, got {shown(value)}"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{function}: {argument} must be finite, got {shown(value)}")
    if number < least:
        raise ValueError(
            f"{function}: {argument} must be >= {least}, got {shown(value)}"
        )
    if number >= below:
        raise ValueError(
            f"{function}: {argument} must be < {below}, got {shown(value)}"
        )
    return number


def generator(function: str, rng: Any, argument: str = "rng") -> np.random.Generator:
    """Give the Generator itself, or a new one from an int seed.

    None is refused: it would seed from the operating system, and no run could be
    repeated.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, bool) or not hasattr(rng, "__index__"):
        raise TypeError(
            f"{function}: {argument} must be a numpy.random.Generator or an int seed, "
            f"got {shown(rng)}"
        )
    return np.random.default_rng(integer(function, argument, rng, 0))


def uniform(
    function: str,
    rng: np.random.Generator,
    room: np.ndarray[Any, Any],
) -> np.ndarray[Any, Any]:
    """Draw numbers u with 0 <= u < 1: kernels rely on it, and a subclass draws anything.

    The plain generator draws into `room`, an array as it is wanted.
    """
    shape, dtype = room.shape, room.dtype
    if type(rng) is np.random.Generator:
        return rng.random(dtype=dtype, out=room)
    u = rng.random(shape, dtype=dtype)
    fits = type(u) is np.ndarray and u.shape == shape and u.dtype == dtype
    if not fits or (u.size and not (u.min() >= 0 and u.max() < 1)):
        raise ValueError(
            f"{function}: rng must draw numbers from 0 to below 1, {dtype} of shape "
            f"{shape}"
        )
    return np.ascontiguousarray(u)


def state_of_names(function: str, state: Any) -> None:
    """Raise unless `state` is a mapping whose keys are names."""
    if not isinstance(state, Mapping):
        raise TypeError(
            f"{function}: state must be a mapping, got {type(state).__name__}"
        )
    for name in state:
        if not isinstance(name, str):
            raise TypeError(
                f"{function}: state must have str as names, "
                f"got {name!r}, {type(name).__name__}"
            )
