"""Average pooling as functions and layers share it: any rank, any divisor."""

from typing import Any

import numpy as np

from convcore.functional._kept_calls import (
    LARGE,
    Kept,
    find,
    is_plain,
    keep,
    with_scratch,
)
from convcore.functional._pooling import (
    Shape,
    check_gradient,
    divisor_buffer,
    input_shape_of,
    job,
)
from convcore.functional.call import run
from convcore.runtime import arrays, buffers
from convcore.runtime.arrays import Array, checked, flat, room
from convcore.runtime.cpu import isa

_empty = np.empty  # looked up once: small calls feel it


def average(
    function: str,
    ndim: int,
    x: Array,
    divisor: tuple[bool, int | None],
    window: tuple[Any, ...],
    adaptive: bool = False,
    out: Array | None = None,
) -> Array:
    """Compute the means of windows; see `job`."""
    key, arguments = None, (*window, *divisor)
    if out is None and is_plain(x) and not arrays.POISON:
        key = (function, ndim, adaptive, x.shape, x.dtype, arguments, isa())
        kept = find(key, arguments)
        if kept is not None:
            return _again(kept, x)
    dtype = checked(function, "x", x)
    task = job(function, ndim, "average_fprop", (x.shape, dtype), window, adaptive)
    buffer = divisor_buffer(function, *divisor)
    y = room(function, out, task.result, dtype, x)
    run(task.plan, buffer, flat(x, dtype), y)
    if key is not None and dtype is x.dtype:
        keep(key, arguments, task.plan, task.result, more=buffer)
    return y


def average_backward(
    function: str,
    ndim: int,
    gradient: tuple[Array, Shape],
    divisor: tuple[bool, int | None],
    window: tuple[Any, ...],
    adaptive: bool = False,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of x from that of the means; `gradient` comes with x's shape."""
    grad_output, input_shape = gradient
    key, arguments = None, (*window, *divisor)
    if out is None and is_plain(grad_output) and not arrays.POISON:
        given = grad_output.shape, grad_output.dtype
        key = (function, ndim, adaptive, input_shape, *given, arguments, isa())
        kept = find(key, arguments, input_shape)
        if kept is not None:
            return _again(kept, grad_output)
    shape = input_shape_of(function, input_shape, ndim)
    dtype = checked(function, "grad_output", grad_output)
    task = job(function, ndim, "average_dgrad", (shape, dtype), window, adaptive)
    buffer = divisor_buffer(function, *divisor)
    check_gradient(function, grad_output, task.result)
    grad_x = room(function, out, shape, dtype, grad_output)
    run(task.plan, buffer, flat(grad_output, dtype), grad_x)
    if key is not None and dtype is grad_output.dtype:
        keep(key, arguments, task.plan, shape, input_shape, buffer)
    return grad_x


def _again(kept: Kept, x: Array) -> Array:
    """Do a call that is like one before."""
    _, _, chosen, kernel, geometry, divisor, size, shape = kept
    if size == LARGE:
        y = buffers.empty(shape, x.dtype)
        run(chosen, divisor, x, y)
        return y
    y = _empty(shape, x.dtype)
    if size:
        with_scratch(kernel, size, geometry, divisor, x, y)
    else:
        kernel(geometry, divisor, x, y, None, 1)
    return y
