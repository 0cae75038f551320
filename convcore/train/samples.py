"""Checks of arrays whose first axis counts samples."""

from typing import Any

import numpy as np


def check_samples(function: str, argument: str, x: Any) -> None:
    """Raise when x is no array of samples."""
    if not isinstance(x, np.ndarray):
        raise TypeError(
            f"{function}: {argument} must be a numpy.ndarray, got {type(x).__name__}"
        )
    if not x.ndim:
        raise ValueError(
            f"{function}: {argument} must have a first axis of samples, got a scalar"
        )


def check_data(function: str, x: Any, y: Any, prefix: str = "") -> None:
    """Raise when x and y are not as many samples as targets, at least one."""
    check_samples(function, f"{prefix}x", x)
    check_samples(function, f"{prefix}y", y)
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"{function}: {prefix}x and {prefix}y must be equally many samples, at "
            f"least 1, got {len(x)} and {len(y)}"
        )
