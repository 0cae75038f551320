"""What all poolings do alike: check their arrays, and run a direction of a problem."""

from functools import lru_cache
from typing import Any

import numpy as np

from convcore import plan
from convcore.arguments import integer
from convcore.functional.call import run
from convcore.problem import PoolProblem
from convcore.runtime.arrays import NAMES, Array, batched, checked, empty, ready

Shape = tuple[int, ...]

_LARGEST = 2**63 - 1  # the kernels count in int64
_INT64 = np.dtype(np.int64)


def input_array(function: str, x: Any, ndim: int) -> tuple[Array, bool]:
    """Check x; give it with a batch axis, and whether it came without one."""
    checked(function, "x", x)
    return batched(function, "x", x, ndim)


def input_shape_of(function: str, shape: Any, ndim: int) -> tuple[Shape, bool]:
    """Check the argument `input_shape`; give it as `input_array` gives an array."""
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"{function}: input_shape must be a tuple, got {shape!r}")
    given = tuple(integer(function, "input_shape", extent, 0) for extent in shape)
    single = len(given) == ndim + 1
    whole = (1, *given) if single else given
    if len(whole) != ndim + 2 or min(whole[1:]) < 1:
        raise ValueError(
            f"{function}: input_shape must have {ndim + 2} extents (batch, channels, "
            f"spatial) or {ndim + 1} without a batch, all but the batch >= 1, "
            f"got {shape!r}"
        )
    return whole, single


def gradient_array(
    function: str, grad_output: Any, problem: PoolProblem, single: bool
) -> Array:
    """Check `grad_output` against the shape of the result; give it ready."""
    checked(function, "grad_output", grad_output)
    shape = problem.y_shape[1:] if single else problem.y_shape
    if grad_output.shape != shape:
        raise ValueError(
            f"{function}: grad_output must have the result's shape {shape}, got "
            f"{grad_output.shape}"
        )
    return ready(function, "grad_output", grad_output)


def index_array(function: str, indices: Any, grad_output: Array) -> Array:
    """Check type and shape of `indices`; give them contiguous and native."""
    if not isinstance(indices, np.ndarray) or isinstance(indices, np.ma.MaskedArray):
        raise TypeError(
            f"{function}: indices must be a NumPy array without a mask, got "
            f"{type(indices).__name__}"
        )
    if indices.dtype.newbyteorder("=") != _INT64:
        raise TypeError(f"{function}: indices must be int64, got {indices.dtype}")
    if indices.shape != grad_output.shape:
        raise ValueError(
            f"{function}: indices must have the shape of grad_output "
            f"{grad_output.shape}, got {indices.shape}"
        )
    return np.require(np.asarray(indices), _INT64, ("C", "A"))


def divisor_buffer(
    function: str, count_include_pad: bool, divisor_override: int | None
) -> Array:
    """Check what a mean divides by; give it as the kernels read it."""
    if not isinstance(count_include_pad, bool):
        raise TypeError(
            f"{function}: count_include_pad must be a bool, got {count_include_pad!r}"
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


def average(function: str, problem: PoolProblem, divisor: Array, x: Array) -> Array:
    """Compute the means of a problem's windows."""
    x = ready(function, "x", x)
    y = empty(problem.y_shape, x.dtype)
    start(problem, "average_fprop", x.dtype, divisor, x, y)
    return y


def average_backward(problem: PoolProblem, divisor: Array, grad_output: Array) -> Array:
    """Compute the gradient of x, given that of the means."""
    grad_x = empty(problem.x_shape, grad_output.dtype)
    start(problem, "average_dgrad", grad_output.dtype, divisor, grad_output, grad_x)
    return grad_x


def start(
    problem: PoolProblem,
    direction: str,
    dtype: np.dtype[Any],
    *buffers: Array | None,
) -> None:
    """Choose the algorithm of a direction and run it."""
    run(plan.select(problem, direction, NAMES[dtype.char]), *buffers)
