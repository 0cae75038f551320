"""Arrays at the door: checked, and made ready for kernels that take plain memory.

This is the only place that copies an input. Whatever its strides, byte order or
alignment, a kernel sees the same contiguous native values, so the results are the same
bits as for a contiguous array.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from convcore.runtime import buffers

Array = npt.NDArray[Any]

# Tests set this: fresh outputs and scratch are then NaN, so that an element that a kernel
# forgets to write, or reads before writing it, shows.
POISON = False

_LEAST, _empty = buffers.LEAST, np.empty  # looked up once: small calls feel it
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

DTYPES: dict[str, np.dtype[Any]] = {"float32": _FLOAT32, "float64": _FLOAT64}
NAMES = {"f": "float32", "d": "float64"}  # by `dtype.char`; `dtype.name` takes 1 us


def ready(
    function: str, argument: str, array: Any, dtype: np.dtype[Any] | None = None
) -> Array:
    """Give `array` as a C-contiguous, aligned, native float array; copy if it is not.

    Parameters
    ----------
    function, argument : str
        Named in the error.
    array : ndarray of float32 or float64
    dtype : dtype, optional
        What it has to be, that of the function's first array.

    Raises
    ------
    TypeError
        For anything but an ndarray, a masked array, another dtype.
    """
    if type(array) is np.ndarray:  # the usual case, at once
        native = array.dtype
        if (native is _FLOAT32 or native is _FLOAT64) and (
            dtype is None or dtype is native
        ):
            flags = array.flags
            if flags.carray or (flags.c_contiguous and flags.aligned):
                return array
    return flat(array, checked(function, argument, array, dtype))


def flat(array: Array, native: np.dtype[Any]) -> Array:
    """Do what `ready` does with an array that is `checked`, and so has that dtype."""
    if type(array) is np.ndarray and array.dtype is native:
        flags = array.flags
        if flags.c_contiguous and flags.aligned:
            return array
    return contiguous(array, native)


def contiguous(array: Array, dtype: np.dtype[Any]) -> Array:
    """Give an array as kernels read it, of that dtype: itself, or a copy.

    A copy lies in memory that results share, as those of megabytes come again and again.
    """
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return np.asarray(array, dtype)
    copy = buffers.empty(array.shape, dtype)
    np.copyto(copy, array)
    return copy


def checked(
    function: str, argument: str, array: Any, dtype: np.dtype[Any] | None = None
) -> np.dtype[Any]:
    """Check type and dtype as `ready` does, and give the native dtype."""
    if type(array) is np.ndarray:  # the usual case: the very dtypes that NumPy shares
        native = array.dtype
        if (native is _FLOAT32 or native is _FLOAT64) and (
            dtype is None or dtype is native
        ):
            return native
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{function}: {argument} must be a NumPy array without a mask, got "
            f"{type(array).__name__}"
        )
    native = array.dtype.newbyteorder("=")
    if native != _FLOAT32 and native != _FLOAT64:
        raise TypeError(
            f"{function}: {argument} must be float32 or float64, got {array.dtype}; "
            f"convert it with .astype(np.float32)"
        )
    if dtype is not None and native != dtype:
        raise TypeError(
            f"{function}: {argument} must have the same dtype as the other arrays, "
            f"{dtype}, got {array.dtype}"
        )
    return _FLOAT32 if native == _FLOAT32 else _FLOAT64


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Give an output array, not initialised."""
    if prod(shape) * dtype.itemsize < _LEAST:
        out = _empty(shape, dtype)
    else:
        out = buffers.empty(shape, dtype)
    if POISON and dtype.kind == "f":
        out.fill(np.nan)
    return out


def like(array: Array) -> Array:
    """Do the same for a result of the shape and dtype of a `ready` array."""
    if array.nbytes < _LEAST:
        out = _empty(array.shape, array.dtype)
    else:
        out = buffers.empty(array.shape, array.dtype)
    if POISON:
        out.fill(np.nan)
    return out


def room(
    function: str,
    out: Any,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *inputs: Array | None,
) -> Array:
    """Give the array to write to: `out` if it fits, or a new one."""
    if out is None:
        return empty(shape, dtype)
    check_out(function, out, shape, dtype, inputs)
    given: Array = out
    return given


def check_out(
    function: str,
    out: Any,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    inputs: Sequence[Array | None],
    name: str = "out",
) -> None:
    """Check an array to write to, which `name` calls in errors.

    Raises
    ------
    TypeError, ValueError
        When `out` is not exactly what is needed: it is never copied.
    """
    if type(out) is not np.ndarray:
        raise TypeError(
            f"{function}: {name} must be a NumPy array, got {type(out).__name__}"
        )
    if out.dtype != dtype or not out.dtype.isnative:
        raise TypeError(f"{function}: {name} must be native {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"{function}: {name} must have shape {shape}, got {out.shape}")
    flags = out.flags
    if not (flags.c_contiguous and flags.aligned and flags.writeable):
        raise ValueError(
            f"{function}: {name} must be C-contiguous, aligned and writeable"
        )
    for array in inputs:
        if array is not None and np.may_share_memory(out, array):
            raise ValueError(f"{function}: {name} must not overlap an input")


def overlap(vector: Array, other: Array) -> bool:
    """Tell whether a vector shares memory with a vector, or may with another array."""
    if vector.base is None and other.base is None:
        return vector is other
    if other.ndim == 1:
        return np.shares_memory(vector, other)
    return np.may_share_memory(vector, other)


def batched_shape(
    function: str, argument: str, shape: tuple[int, ...], ndim: int
) -> tuple[tuple[int, ...], bool]:
    """Give a shape with a batch axis, and whether it came without one.

    Parameters
    ----------
    shape : (N, C, *spatial) or (C, *spatial), with `ndim` spatial axes
    """
    if len(shape) == ndim + 2:
        return shape, False
    if len(shape) == ndim + 1:
        return (1, *shape), True
    raise ValueError(
        f"{function}: {argument} must have {ndim + 2} axes (batch, channels, spatial) "
        f"or {ndim + 1} without a batch, got shape {shape}"
    )
