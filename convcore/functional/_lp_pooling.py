"""What Lp poolings of windows and of whole channels do alike, in any rank."""

import math
import struct
from functools import lru_cache
from typing import Any

import numpy as np

from convcore.arguments import real
from convcore.functional._pooling import check_gradient, job, room
from convcore.functional.call import run
from convcore.functional.max_pool import (
    max_pool1d,
    max_pool1d_backward,
    max_pool2d,
    max_pool2d_backward,
    max_pool3d,
    max_pool3d_backward,
)
from convcore.runtime.arrays import Array, checked, flat

_MAX = {1: max_pool1d, 2: max_pool2d, 3: max_pool3d}
_MAX_BACKWARD = {1: max_pool1d_backward, 2: max_pool2d_backward, 3: max_pool3d_backward}


def _power(function: str, norm_type: float) -> float:
    """Check p."""
    if norm_type == math.inf:
        return math.inf
    power = real(function, "norm_type", norm_type, 0)
    if power == 0:
        raise ValueError(f"{function}: norm_type must be > 0, got {norm_type!r}")
    return power


@lru_cache(maxsize=64)
def _bits(power: float) -> Array:
    """Give p as the kernels read it."""
    bits = np.array(struct.unpack("q", struct.pack("d", power)), np.int64)
    bits.flags.writeable = False
    return bits


def norms(
    function: str,
    ndim: int,
    x: Array,
    norm_type: float,
    window: tuple[Any, ...],
    out: Array | None,
) -> Array:
    """Do `lp_pool` in any rank; `window` is the rest of `PoolProblem.pool`."""
    dtype = checked(function, "x", x)
    power = _power(function, norm_type)
    task = job(function, ndim, "power_fprop", (x.shape, dtype), window)
    y = room(function, out, task.result, dtype, x)
    if power == math.inf:
        y[...] = _MAX[ndim](np.abs(flat(x, dtype)), *window)
    else:
        run(task.plan, _bits(power), flat(x, dtype), y)
    return y


def norms_backward(
    function: str,
    ndim: int,
    arrays: tuple[Array, Array, Array],
    norm_type: float,
    window: tuple[Any, ...],
    out: Array | None,
) -> Array:
    """Do `lp_pool_backward` in any rank; arrays: grad_output, x and y."""
    grad_output, x, y = arrays
    dtype = checked(function, "grad_output", grad_output)
    checked(function, "x", x, dtype)
    checked(function, "y", y, dtype)
    power = _power(function, norm_type)
    task = job(function, ndim, "power_dgrad", (x.shape, dtype), window)
    check_gradient(function, grad_output, task.result)
    if y.shape != task.result:
        raise ValueError(
            f"{function}: y must have the result's shape {task.result}, got {y.shape}"
        )
    grad_x = room(function, out, x.shape, dtype, *arrays)
    values = flat(x, dtype)
    if power == math.inf:
        _, indices = _MAX[ndim](np.abs(values), *window, return_indices=True)
        given = _MAX_BACKWARD[ndim](grad_output, indices, x.shape, *window)
        with np.errstate(invalid="ignore"):
            np.multiply(given, np.sign(values), out=grad_x)
    else:
        rest = flat(grad_output, dtype), flat(y, dtype), values
        run(task.plan, _bits(power), *rest, grad_x)
    return grad_x
