"""What the operations that are plain NumPy, and their layers, check alike."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from convcore.arguments import integer, one_of, real, shown
from convcore.runtime.arrays import Array, ready

GRADIENTS = ("x", "weight", "bias")


def axis(function: str, argument: str, dim: Any, ndim: int) -> int:
    """Give an axis of an array with `ndim` axes as an index from 0."""
    index = integer(function, argument, dim, -(2**63))
    if not -ndim <= index < ndim:
        raise ValueError(
            f"{function}: {argument} must name one of {ndim} axes, got {shown(dim)}"
        )
    return index % ndim


def like(function: str, argument: str, array: Any, other: str, model: Array) -> Array:
    """Make `array` ready, and check that its shape and dtype are those of `model`."""
    found = ready(function, argument, array, model.dtype)
    if found.shape != model.shape:
        raise ValueError(
            f"{function}: {argument} must have the shape of {other} {model.shape}, "
            f"got {found.shape}"
        )
    return found


def vector(function: str, argument: str, array: Any, length: int, x: Array) -> Array:
    """Make `array` ready, and check that it has one element for each channel of x."""
    found = ready(function, argument, array, x.dtype)
    if found.shape != (length,):
        raise ValueError(
            f"{function}: {argument} must have shape ({length},), one element per "
            f"channel of x, got {found.shape}"
        )
    return found


def share(function: str, argument: str, value: Any) -> float:
    """Give a float from 0 to 1."""
    number = real(function, argument, value, least=0)
    if number > 1:
        raise ValueError(f"{function}: {argument} must be <= 1, got {shown(value)}")
    return number


def reduction(function: str, value: Any) -> str:
    """Check how a loss is reduced."""
    return one_of(function, "reduction", value, ("mean", "sum", "none"))


def needed(
    function: str, needs: Iterable[str], names: tuple[str, ...] = GRADIENTS
) -> tuple[bool, ...]:
    """Tell for each of the names whether its gradient is asked for."""
    try:
        if type(needs) is tuple and needs == names:  # the usual case: all of them
            return (True,) * len(names)
    except ValueError:  # an array among them
        pass
    if isinstance(needs, (str, np.ndarray)) or not isinstance(needs, Iterable):
        raise TypeError(
            f"{function}: needs must be a collection of names from {names}, got "
            f"{shown(needs)}"
        )
    asked = tuple(needs)
    if any(not isinstance(name, str) or name not in names for name in asked):
        raise ValueError(
            f"{function}: needs must be names from {names}, got {shown(asked)}"
        )
    return tuple(name in asked for name in names)
