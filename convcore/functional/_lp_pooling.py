"""What Lp poolings of windows and of whole channels do alike, in any rank."""

import math
import struct
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np

from convcore.arguments import real, shown
from convcore.functional import _framed, _max_pooling
from convcore.functional._boxes import fold
from convcore.functional._pooling import check_gradient, job
from convcore.functional.call import apply, run
from convcore.runtime.arrays import Array, checked, empty, flat, like, room

_ZEROS = ("zeros", 0)  # what lies around x, and adds nothing


def check_power(function: str, norm_type: float) -> float:
    """Refuse a p that no norm has."""
    if isinstance(norm_type, Real) and norm_type == math.inf:
        return math.inf
    power = real(function, "norm_type", norm_type, 0)
    if power == 0:
        raise ValueError(f"{function}: norm_type must be > 0, got {shown(norm_type)}")
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
    around: tuple[str, float] = _ZEROS,
) -> Array:
    """Do `lp_pool` in any rank; `window` is the rest of `PoolProblem.pool`."""
    dtype = checked(function, "x", x)
    power = check_power(function, norm_type)
    if _framed.is_plain(around, "zeros"):
        task = job(function, ndim, "power_fprop", (x.shape, dtype), window)
        y = room(function, out, task.result, dtype, x)
        if power == math.inf:
            sizes = _magnitudes(flat(x, dtype))
            _max_pooling.max_pool(function, ndim, sizes, window, out=y)
        else:
            run(task.plan, _bits(power), flat(x, dtype), y)
        return y
    how = _framed.framed(function, ndim, x.shape, window, *around)
    y = room(function, out, how.result, dtype, x)
    if power == math.inf:
        sizes = _magnitudes(flat(x, dtype))
        _framed.maximum(function, ndim, sizes, window, _size(around), out=y)
        return y
    for part, box in _framed.padded(how, flat(x, dtype)):
        task_plan = _framed.plan_of(part, "power_fprop", dtype)
        run(task_plan, _bits(power), box, _framed.some_of(y, how, part))
    return y


def norms_backward(
    function: str,
    ndim: int,
    arrays: tuple[Array, Array, Array],
    norm_type: float,
    window: tuple[Any, ...],
    out: Array | None,
    around: tuple[str, float] = _ZEROS,
) -> Array:
    """Do `lp_pool_backward` in any rank; arrays: grad_output, x and y."""
    grad_output, x, y = arrays
    dtype = checked(function, "grad_output", grad_output)
    checked(function, "x", x, dtype)
    checked(function, "y", y, dtype)
    power = check_power(function, norm_type)
    sizes = None if power != math.inf else _magnitudes(flat(x, dtype))
    given = flat(grad_output, dtype), flat(y, dtype), flat(x, dtype)
    if _framed.is_plain(around, "zeros"):
        task = job(function, ndim, "power_dgrad", (x.shape, dtype), window)
        _check_results(function, grad_output, y, task.result)
        grad_x = room(function, out, x.shape, dtype, *arrays)
        if sizes is None:
            run(task.plan, _bits(power), *given, grad_x)
            return grad_x
        kind = _max_pooling.label_type(function, ndim, sizes, window)
        _, found = _max_pooling.max_pool(function, ndim, sizes, window, kind)
        assert found is not None
        back = (grad_output, found, x.shape)
        shares = _max_pooling.gradient_of_labels(function, ndim, back, window)
    else:
        how = _framed.framed(function, ndim, x.shape, window, *around)
        _check_results(function, grad_output, y, how.result)
        grad_x = room(function, out, x.shape, dtype, *arrays)
        if sizes is None:
            _spread(how, _bits(power), given, grad_x)
            return grad_x
        most = (window, _size(around))
        _, found = _framed.maximum(function, ndim, sizes, *most, labelled=True)
        assert found is not None
        back = (grad_output, found, x.shape)
        shares = _framed.maximum_backward(function, ndim, back, *most)
    apply(
        *("pool_power", "signs", (grad_x.size,), shares, given[2], grad_x),
        work=grad_x.size,
    )
    return grad_x


def _magnitudes(x: Array) -> Array:
    """Give |x| in memory that is used again."""
    sizes: Array = np.abs(x, out=like(x))
    return sizes


def _spread(
    how: _framed.Framed, bits: Array, given: tuple[Array, Array, Array], grad_x: Array
) -> None:
    """Fold the gradient of x and what lies around it, from those of y, y and x."""
    grads, y, x = given
    dtype = x.dtype
    planes = grad_x.reshape(-1, *how.box.inside)
    for part, box in _framed.padded(how, x):
        share = empty(box.shape, dtype)
        some = (_framed.some_of(array, how, part) for array in (grads, y))
        run(_framed.plan_of(part, "power_dgrad", dtype), bits, *some, box, share)
        fold(how.box, share, planes[part.some])


def _size(around: tuple[str, float]) -> tuple[str, float]:
    """Give what lies around magnitudes."""
    return around[0], abs(around[1])


def _check_results(function: str, grad_output: Array, y: Array, shape: Any) -> None:
    check_gradient(function, grad_output, shape)
    if y.shape != shape:
        raise ValueError(
            f"{function}: y must have the result's shape {shape}, got {y.shape}"
        )
