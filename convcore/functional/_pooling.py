"""What all poolings do alike: check their arrays, and run a direction of a problem."""

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from convcore import plan
from convcore.arguments import exact, integer, shown
from convcore.problem import PoolProblem
from convcore.problem.rules import check_addressable
from convcore.runtime import cpu
from convcore.runtime.arrays import NAMES, Array, batched_shape, contiguous

Shape = tuple[int, ...]

_LARGEST = 2**63 - 1  # the kernels count in int64
_INT64 = np.dtype(np.int64)


class Job(NamedTuple):
    """What the shapes of a call decide, for one direction of its problem."""

    plan: plan.Plan
    result: Shape  # of the pooling; without a batch where x has none


def job(
    function: str,
    ndim: int,
    direction: str,
    x: tuple[Shape, np.dtype[Any]],
    window: tuple[Any, ...],
    adaptive: bool = False,
) -> Job:
    """Check shapes and arguments, and choose the algorithm: once for all equal calls.

    Parameters
    ----------
    x : (shape, dtype)
    window : tuple
        The rest of `PoolProblem.pool` up to `ceil_mode`, or of `PoolProblem.adaptive`.
    """
    numbers, ceil_mode = (window, False) if adaptive else (window[:-1], window[-1])
    fit = exact(numbers) and type(ceil_mode) is bool
    make = _cached_job if fit else _new_job
    return make(function, ndim, direction, x, window, adaptive, cpu.isa())


def _new_job(
    function: str,
    ndim: int,
    direction: str,
    x: tuple[Shape, np.dtype[Any]],
    window: tuple[Any, ...],
    adaptive: bool,
    isa: str,
) -> Job:
    """Do `job`; the instruction set is here as a part of the key."""
    shape, dtype = x
    whole, single = batched_shape(function, "x", shape, ndim)
    make = PoolProblem.adaptive if adaptive else PoolProblem.pool
    problem = make(function, whole, *window)
    chosen = plan.select(problem, direction, NAMES[dtype.char])
    return Job(chosen, problem.y_shape[1:] if single else problem.y_shape)


_cached_job = lru_cache(maxsize=4096)(_new_job)


def input_shape_of(function: str, shape: Any, ndim: int) -> Shape:
    """Check the argument `input_shape`, and give it as a tuple of ints."""
    if type(shape) is tuple and exact(shape):
        return _cached_shape(function, shape, ndim)
    return _new_shape(function, shape, ndim)


def _new_shape(function: str, shape: Any, ndim: int) -> Shape:
    """Do `input_shape_of`."""
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"{function}: input_shape must be a tuple, got {shown(shape)}")
    given = tuple(integer(function, "input_shape", extent, 0) for extent in shape)
    whole = (1, *given) if len(given) == ndim + 1 else given
    if len(whole) != ndim + 2 or min(whole[1:]) < 1:
        raise ValueError(
            f"{function}: input_shape must have {ndim + 2} extents (batch, channels, "
            f"spatial) or {ndim + 1} without a batch, all but the batch >= 1, "
            f"got {shown(shape)}"
        )
    check_addressable(function, "input_shape", given)
    return given


_cached_shape = lru_cache(maxsize=4096)(_new_shape)


def image_of(function: str, shape: Shape) -> tuple[int, int, int, int]:
    """Give a shape in which channels are rows: (N, 1, C, elements of a channel)."""
    if len(shape) < 2:
        raise ValueError(
            f"{function}: x must have at least 2 axes (batch, channels, ...), got "
            f"shape {shape}"
        )
    return shape[0], 1, shape[1], prod(shape[2:])


def check_gradient(function: str, grad_output: Any, shape: Shape) -> None:
    """Check the shape of `grad_output` against that of the result."""
    if grad_output.shape != shape:
        raise ValueError(
            f"{function}: grad_output must have the result's shape {shape}, got "
            f"{grad_output.shape}"
        )


def index_array(
    function: str, indices: Any, values: Array | None, against: str = "grad_output"
) -> Array:
    """Check type and shape of `indices`; give them contiguous and native."""
    if type(indices) is np.ndarray and indices.dtype is _INT64:  # the usual case
        flags = indices.flags
        fits = values is None or indices.shape == values.shape
        if fits and flags.c_contiguous and flags.aligned:
            return indices
    if not isinstance(indices, np.ndarray) or isinstance(indices, np.ma.MaskedArray):
        raise TypeError(
            f"{function}: indices must be a NumPy array without a mask, got "
            f"{type(indices).__name__}"
        )
    if indices.dtype.newbyteorder("=") != _INT64:
        raise TypeError(f"{function}: indices must be int64, got {indices.dtype}")
    if values is not None and indices.shape != values.shape:
        raise ValueError(
            f"{function}: indices must have the shape of {against} "
            f"{values.shape}, got {indices.shape}"
        )
    return contiguous(indices, _INT64)


def divisor_buffer(
    function: str, count_include_pad: bool, divisor_override: int | None
) -> Array:
    """Check what a mean divides by; give it as the kernels read it."""
    if not isinstance(count_include_pad, bool):
        raise TypeError(
            f"{function}: count_include_pad must be a bool, got {shown(count_include_pad)}"
        )
    divisor = 0
    if divisor_override is not None:
        divisor = integer(function, "divisor_override", divisor_override, 1)
        if divisor > _LARGEST:
            raise ValueError(
                f"{function}: divisor_override must be < 2**63, got {divisor_override}"
            )
    return _divisor_buffer(divisor, count_include_pad)


@lru_cache(maxsize=64)
def _divisor_buffer(divisor: int, count_include_pad: bool) -> Array:
    buffer = np.array([divisor, count_include_pad], _INT64)
    buffer.flags.writeable = False
    return buffer
