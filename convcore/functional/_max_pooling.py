"""Max pooling as functions and layers share it: any rank, labels of either kind."""

from array import array
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from convcore import plan
from convcore.functional._kept_calls import (
    LARGE,
    Kept,
    find,
    is_plain,
    keep,
    with_scratch,
)
from convcore.functional._outs import Pair, pair
from convcore.functional._pooling import (
    Shape,
    check_gradient,
    index_array,
    input_shape_of,
    job,
)
from convcore.functional.call import run
from convcore.runtime import arrays, buffers
from convcore.runtime.arrays import Array, check_out, checked, empty, flat, room
from convcore.runtime.cpu import isa

_TAPS = 256  # whose numbers are bytes
_BYTE, _INDEX = np.dtype(np.uint8), np.dtype(np.int64)
_ZERO = bytes(8)
_empty = np.empty  # looked up once: small calls feel it
_DIRECTIONS = {_BYTE.char: "max_labels", _INDEX.char: "max_fprop"}


def max_pool(
    function: str,
    ndim: int,
    x: Array,
    window: tuple[Any, ...],
    labels: np.dtype[Any] | None = None,
    out: Pair | None = None,
    adaptive: bool = False,
) -> tuple[Array, Array | None]:
    """Compute maxima, and labels of this type unless None; see `job`."""
    direction = "max_values" if labels is None else _DIRECTIONS[labels.char]
    key = None
    if out is None and is_plain(x) and not arrays.POISON:
        key = (function, ndim, adaptive, direction, x.shape, x.dtype, window, isa())
        kept = find(key, window)
        if kept is not None:
            _, _, chosen, kernel, geometry, _, size, result = kept
            if size == LARGE:
                y = buffers.empty(result, x.dtype)
                found = None if labels is None else buffers.empty(result, labels)
                run(chosen, x, y, found)
                return y, found
            y = _empty(result, x.dtype)
            found = None if labels is None else _empty(result, labels)
            if size:
                with_scratch(kernel, size, geometry, x, y, found)
            else:
                kernel(geometry, x, y, found, None, 1)
            return y, found
    dtype = checked(function, "x", x)
    task = job(function, ndim, direction, (x.shape, dtype), window, adaptive)
    found = None
    if labels is None:
        y = room(function, out, task.result, dtype, x)
    else:
        y, found = pair(function, out, task.result, (dtype, labels), x)
    run(task.plan, flat(x, dtype), y, found)
    if key is not None and dtype is x.dtype:
        keep(key, window, task.plan, task.result)
    return y, found


def max_pool_backward(
    function: str,
    ndim: int,
    gradient: tuple[Array, Array, Shape],
    window: tuple[Any, ...],
    out: Array | None = None,
    adaptive: bool = False,
) -> Array:
    """Compute the gradient of x from that of the maxima, their indices and x's shape."""
    grad_output, indices, input_shape = gradient
    key = None
    if out is None and is_plain(grad_output) and not arrays.POISON:
        given = grad_output.shape, grad_output.dtype
        key = (function, ndim, adaptive, input_shape, *given, window, isa())
        kept = find(key, window, input_shape)
        if (
            kept is not None
            and is_plain(indices)
            and (indices.dtype is _INDEX and indices.shape == given[0])
        ):
            return _kept_backward(function, kept, grad_output, indices, ndim)
    shape = input_shape_of(function, input_shape, ndim)
    dtype = checked(function, "grad_output", grad_output)
    # What nobody has seen yet may be given up: then indices are checked on the way.
    direction = "max_checked_dgrad" if out is None else "max_dgrad"
    task = job(function, ndim, direction, (shape, dtype), window, adaptive)
    check_gradient(function, grad_output, task.result)
    indices = index_array(function, indices, grad_output)
    channel = shape[-ndim:]
    if out is not None:
        check = job(function, ndim, "max_check", (shape, dtype), window, adaptive)
        refuse_indices(function, check.plan, indices, channel)
        check_out(function, out, shape, dtype, (grad_output, indices))
        run(task.plan, flat(grad_output, dtype), indices, out)
        return out
    grad_x, found = empty(shape, dtype), np.empty(1, np.int64)
    run(task.plan, flat(grad_output, dtype), indices, grad_x, found)
    if found[0] >= 0:
        raise outside(function, task.plan, indices, channel)
    if key is not None and dtype is grad_output.dtype:
        keep(key, window, task.plan, shape, input_shape)
    return grad_x


def _kept_backward(
    function: str, kept: Kept, grad_output: Array, indices: Array, ndim: int
) -> Array:
    """Do it with arrays of the right shapes, which is all that is not kept."""
    _, _, chosen, kernel, geometry, _, size, shape = kept
    found = array("q", _ZERO)
    make = buffers.empty if size == LARGE else _empty
    grad_x = make(shape, grad_output.dtype)
    if size == LARGE:
        run(chosen, grad_output, indices, grad_x, found)  # type: ignore[arg-type]
    elif size:
        with_scratch(kernel, size, geometry, grad_output, indices, grad_x, found)
    else:
        kernel(geometry, grad_output, indices, grad_x, found, None, 1)
    if found[0] >= 0:
        raise outside(function, chosen, indices, shape[-ndim:])
    return grad_x


def label_type(
    function: str, ndim: int, x: Array, window: tuple[Any, ...], adaptive: bool = False
) -> np.dtype[Any]:
    """Give the smallest type of labels that a layer can keep: a byte where it fits."""
    dtype = checked(function, "x", x)
    task = job(function, ndim, "max_fprop", (x.shape, dtype), window, adaptive)
    return _label_type(task.plan)


@lru_cache(maxsize=4096)
def _label_type(chosen: plan.Plan) -> np.dtype[Any]:
    """Do `label_type`: a plan is equal to itself alone, and so the quickest of keys."""
    problem = chosen.problem
    fits = prod(problem.kernel) <= _TAPS
    fits = fits and plan.is_possible(problem, "max_labels", chosen.isa)
    return _BYTE if fits else _INDEX


def gradient_of_labels(
    function: str,
    ndim: int,
    gradient: tuple[Array, Array, Shape],
    window: tuple[Any, ...],
    adaptive: bool = False,
) -> Array:
    """Do `max_pool_backward` with labels that come from `max_pool`: nothing to check."""
    grad_output, labels, shape = gradient
    dtype = checked(function, "grad_output", grad_output)
    direction = "max_dgrad" if labels.dtype == _INDEX else "max_labels_dgrad"
    task = job(function, ndim, direction, (shape, dtype), window, adaptive)
    check_gradient(function, grad_output, task.result)
    grad_x = empty(shape, dtype)
    run(task.plan, flat(grad_output, dtype), labels, grad_x)
    return grad_x


def refuse_indices(
    function: str, check: plan.Plan, indices: Array, channel: Shape
) -> None:
    """Raise if an index is not in its own window."""
    found = np.empty(1, np.int64)
    run(check, indices, found)
    if found[0] >= 0:
        raise outside(function, check, indices, channel)


def outside(
    function: str, asked: plan.Plan, indices: Array, channel: Shape
) -> ValueError:
    """Find the first index that is not in its own window: kernels tell only that."""
    search = plan.select(asked.problem, "max_check", asked.dtype, "window")
    found = np.empty(1, np.int64)
    run(search, indices, found)
    where = tuple(map(int, np.unravel_index(max(found[0], 0), indices.shape)))
    return ValueError(
        f"{function}: indices must each lie in their own window of a channel "
        f"{channel}, got {indices[where]} at {where}"
    )
