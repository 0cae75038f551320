"""Arrays whose first axis counts samples: their checks, and batches of them."""

from typing import Any

import numpy as np

from convcore.runtime import buffers
from convcore.runtime.arrays import Array

_SHORT = 1 << 10  # bytes of a sample: a copy of its own takes 0.1 us


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


def chosen_samples(array: Array, order: Array) -> Array:
    """Copy samples in this order: `array[order]`, in memory that results share."""
    sample = array.nbytes // len(array)
    plain = type(array) is np.ndarray and array.dtype.kind in "biuf"
    whole = array.flags.c_contiguous and array.flags.aligned
    if not plain or sample * len(order) < buffers.LEAST:
        return array[order]
    if not whole and sample < _SHORT:
        return array[order]
    batch = buffers.empty((len(order), *array.shape[1:]), array.dtype)
    if whole:
        return np.take(array, order, axis=0, out=batch, mode="clip")
    for place, index in enumerate(order):  # `take` would copy all of it first
        batch[place] = array[index]
    return batch


def check_data(function: str, x: Any, y: Any, prefix: str = "") -> None:
    """Raise when x and y are not as many samples as targets, at least one."""
    check_samples(function, f"{prefix}x", x)
    check_samples(function, f"{prefix}y", y)
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"{function}: {prefix}x and {prefix}y must be equally many samples, at "
            f"least 1, got {len(x)} and {len(y)}"
        )
