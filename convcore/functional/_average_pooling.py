"""Average pooling as functions and layers share it: any rank, any divisor.

A call for some hundred elements is mostly what surrounds its kernel. So all that equal
small calls have in common is kept, and found by their arguments as they come.
"""

from array import array
from collections.abc import Callable
from math import prod
from operator import is_
from typing import Any

import numpy as np

from convcore import plan
from convcore.arguments import exact
from convcore.functional._pooling import (
    Shape,
    check_gradient,
    divisor_buffer,
    input_shape_of,
    job,
)
from convcore.functional.call import SILENT, run
from convcore.runtime import arrays, buffers, threads, workspace
from convcore.runtime.arrays import Array, checked, flat, room
from convcore.runtime.cpu import isa

_MOST = 4096  # calls that are kept
_empty, _ndarray = np.empty, np.ndarray  # looked up once: small calls feel it

Arguments = tuple[Any, ...]


# Of equal small calls: the arguments that were checked, window, divisor, input shape;
# kernel, geometry, divisor as an array; the shape of the result, bytes of scratch. A plain
# tuple: each name would cost 20 ns.
Kept = tuple[
    Arguments, Arguments, Shape, Callable[..., Any], "array[int]", Array, Shape, int
]
_kept: dict[Arguments, Kept] = {}


def _find(
    key: Arguments, window: Arguments, divisor: Arguments, input_shape: Shape = ()
) -> Kept | None:
    """Give what is kept for a call, if its arguments are also of the same types.

    Keys are equal for 1, 1.0 and True, of which only one has been checked.
    """
    try:
        kept = _kept.get(key)
    except TypeError:  # a list, say
        return None
    if kept is None or (
        (all(map(is_, window, kept[0])) or _are_alike(window, kept[0]))
        and (all(map(is_, divisor, kept[1])) or _are_alike(divisor, kept[1]))
        and (input_shape is kept[2] or _are_alike(input_shape, kept[2]))
    ):
        return kept
    return None


def _are_alike(given: Arguments, before: Arguments) -> bool:
    """Tell whether equal arguments are the same, or of the same types, also in tuples."""
    if all(map(is_, given, before)):
        return True
    for i, one in enumerate(given):
        other = before[i]
        if one is not other:
            kind = type(one)
            if kind is not type(other):
                return False
            if kind is tuple and not _are_alike(one, other):
                return False
    return True


def _is_fixed(value: Any) -> bool:
    """Tell whether a value is a bool, or may be a part of a key."""
    return type(value) is bool or exact((value,))


def _keep(
    key: Arguments,
    arguments: tuple[Arguments, Arguments, Shape],
    chosen: plan.Plan,
    divisor: Array,
    result: Shape,
) -> None:
    """Keep a call that is small, and whose arguments cannot change."""
    size = prod(result) * divisor.itemsize
    if not SILENT or chosen.work >= threads.SERIAL_MACS or size >= buffers.LEAST:
        return
    if not all(_is_fixed(value) for some in arguments for value in some):
        return
    if len(_kept) >= _MOST:
        _kept.clear()
    what = (chosen.kernel, chosen.geometry, divisor, result, chosen.scratch_bytes(1))
    _kept[key] = (*arguments, *what)


def _run(kept: Kept, x: Array, dtype: np.dtype[Any]) -> Array:
    """Do a small call."""
    _, _, _, kernel, geometry, divisor, result, size = kept
    y: Array = _empty(result, dtype)
    if size:
        scratch = workspace.lend(size)
        kernel(geometry, divisor, x, y, scratch, 1)
        workspace.take_back(scratch)
    else:
        kernel(geometry, divisor, x, y, None, 1)
    return y


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
    key: Arguments | None = None
    if out is None and type(x) is _ndarray and not arrays.POISON:
        dtype = x.dtype
        key = (function, x.shape, dtype, window, divisor, isa())
        kept = _find(key, window, divisor)
        if kept is not None:
            flags = x.flags
            if flags.c_contiguous and flags.aligned:
                return _run(kept, x, dtype)
    dtype = checked(function, "x", x)
    task = job(function, ndim, "average_fprop", (x.shape, dtype), window, adaptive)
    buffer = divisor_buffer(function, *divisor)
    y = room(function, out, task.result, dtype, x)
    run(task.plan, buffer, flat(x, dtype), y)
    if key is not None and dtype is x.dtype:
        _keep(key, (window, divisor, ()), task.plan, buffer, task.result)
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
    key: Arguments | None = None
    if out is None and type(grad_output) is _ndarray and not arrays.POISON:
        dtype = grad_output.dtype
        shape = grad_output.shape
        key = (function, shape, dtype, window, divisor, input_shape, isa())
        kept = _find(key, window, divisor, input_shape)
        if kept is not None:
            flags = grad_output.flags
            if flags.c_contiguous and flags.aligned:
                return _run(kept, grad_output, dtype)
    shape = input_shape_of(function, input_shape, ndim)
    dtype = checked(function, "grad_output", grad_output)
    task = job(function, ndim, "average_dgrad", (shape, dtype), window, adaptive)
    buffer = divisor_buffer(function, *divisor)
    check_gradient(function, grad_output, task.result)
    grad_x = room(function, out, shape, dtype, grad_output)
    run(task.plan, buffer, flat(grad_output, dtype), grad_x)
    if key is not None and dtype is grad_output.dtype and shape == input_shape:
        _keep(key, (window, divisor, shape), task.plan, buffer, shape)
    return grad_x
