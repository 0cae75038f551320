"""What all normalisations do alike: vectors at the door, numbers for the kernels."""

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from convcore.functional._checks import vector
from convcore.runtime.arrays import Array, check_out, like, ready

Wide = npt.NDArray[np.float64]


def bits(value: float) -> int:
    """Give the bits of a float64 as an integer, the type of a kernel's sizes."""
    number: int = _INTEGER.unpack(_REAL.pack(value))[0]
    return number


def per_channel(
    function: str, argument: str, array: Any, channels: int, x: Array
) -> Array | None:
    """Check a vector with an element for each channel, or None; make it ready."""
    if array is None:
        return None
    if (  # the usual case
        type(array) is np.ndarray
        and array.dtype is x.dtype
        and array.shape == (channels,)
        and array.flags.carray
    ):
        return array
    return vector(function, argument, array, channels, x)


def result(function: str, out: Any, x: Array, *others: Array | None) -> Array:
    """Give an array like x to write to, or check the one that the caller gave."""
    if out is None:
        return like(x)
    check_out(function, out, x.shape, x.dtype, (x, *others))
    given: Array = out
    return given


def statistics_of(
    function: str, mean: Any, rstd: Any, count: int
) -> tuple[Wide, Wide] | None:
    """Check statistics that a caller has kept, and give them as kernels take them.

    Parameters
    ----------
    mean, rstd : (count,) float64, or None
        Of the channels or rows, in order; of any shape.
    """
    if mean is None and rstd is None:
        return None
    deviation = _statistic(function, "rstd", rstd, count)
    return _statistic(function, "mean", mean, count), deviation


def _statistic(function: str, argument: str, array: Any, count: int) -> Wide:
    """Check one of them."""
    if (  # the usual case
        type(array) is np.ndarray
        and array.dtype is _FLOAT64
        and array.size == count
        and array.flags.carray
    ):
        return array
    if not isinstance(array, np.ndarray) or array.dtype != np.float64:
        kind = getattr(array, "dtype", type(array).__name__)
        raise TypeError(
            f"{function}: {argument} must be an array of float64, as mean and rstd "
            f"are kept together, got {kind}"
        )
    if array.size != count:
        raise ValueError(
            f"{function}: {argument} must have {count} elements, got shape "
            f"{array.shape}"
        )
    return ready(function, argument, array)


_FLOAT64 = np.dtype(np.float64)
_REAL, _INTEGER = struct.Struct("d"), struct.Struct("q")
