"""Poolings that see elements beyond the border.

A pooling is bound by memory, and does not know borders: they come from `kernels/pad.pyx`.
Some channels at a time are copied with what lies around them, few enough that the copy
stays in the caches, and pooled there without padding; gradients go the other way.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from convcore import plan
from convcore.arguments import exact
from convcore.functional import _average_pooling
from convcore.functional._boxes import Box, box_of, fill, fold, sources
from convcore.functional._choices import BEYOND
from convcore.functional._outs import Pair, pair
from convcore.functional._pooling import (
    Shape,
    check_gradient,
    divisor_buffer,
    input_shape_of,
)
from convcore.functional.call import run
from convcore.problem import PoolProblem
from convcore.problem.border import BORDERS, bordered, check_reflect
from convcore.runtime.arrays import (
    NAMES,
    Array,
    batched_shape,
    checked,
    empty,
    flat,
    room,
)

_INT64 = np.dtype(np.int64)
_FEW = 4096  # elements of a channel with its borders whose places are kept
_CHUNK = 1 << 14  # indices that are looked up at a time, for the cache
PART_BYTES = 1 << 20  # of channels with their borders at a time, if one has no more


class Framed(NamedTuple):
    """What the arguments of a call decide."""

    problem: PoolProblem  # over the box
    box: Box  # x and what lies around it
    result: Shape  # of the pooling; without a batch where x has none


class Part(NamedTuple):
    """Some channels of x."""

    problem: PoolProblem
    some: slice  # of all, counted through the batch


_ZERO = 0
IGNORED = "ignore"  # what never wins a maximum


def is_plain(around: tuple[Any, Any], own: str) -> bool:
    """Tell whether nothing but what a pooling knows by itself lies around x."""
    mode, value = around
    if mode is own and value is _ZERO:  # the defaults
        return True
    plain = type(mode) is str and mode == own
    return plain and type(value) in (int, float) and not value


def framed(
    function: str,
    ndim: int,
    shape: Shape,
    window: tuple[Any, ...],
    mode: str,
    value: float,
    plain: str = "zeros",
) -> Framed:
    """Check the arguments of a pooling with a border: once for all equal calls.

    `window` as for `_pooling.job`; `plain` is the mode that the pooling knows by itself.
    """
    fit = exact((mode, value, *window[:-1])) and type(window[-1]) is bool
    make = _cached_frame if fit else _new_frame
    return make(function, ndim, shape, window, mode, value, plain)


def _new_frame(
    function: str,
    ndim: int,
    shape: Shape,
    window: tuple[Any, ...],
    mode: str,
    value: float,
    plain: str,
) -> Framed:
    """Do `framed`."""
    whole, single = batched_shape(function, "x", shape, ndim)
    names = tuple(dict.fromkeys((plain, *BORDERS)))
    mode, value = bordered(function, mode, value, names)
    problem = PoolProblem.framed(function, whole, *window)
    if mode == "reflect":
        check_reflect(function, whole[2:], problem.padding[3 - ndim :])
    box = box_of(function, problem, mode, value)
    none = ((0, 0),) * 3
    inner = replace(
        problem,
        in_extent=box.extent,
        stride=box.stride,
        dilation=box.dilation,
        padding=none,
    )
    result = problem.y_shape[1:] if single else problem.y_shape
    return Framed(inner, box, result)


_cached_frame = lru_cache(maxsize=1024)(_new_frame)


def average(
    function: str,
    ndim: int,
    x: Array,
    divisor: tuple[bool, int | None],
    window: tuple[Any, ...],
    around: tuple[str, float],
    out: Array | None = None,
) -> Array:
    """Compute means of windows: with anything but zeros around x, all of it counts."""
    if is_plain(around, "zeros"):
        return _average_pooling.average(function, ndim, x, divisor, window, out=out)
    dtype = checked(function, "x", x)
    how = framed(function, ndim, x.shape, window, *around)
    buffer = _divisor(function, divisor)
    y = room(function, out, how.result, dtype, x)
    for part, box in padded(how, flat(x, dtype)):
        run(plan_of(part, "average_fprop", dtype), buffer, box, some_of(y, how, part))
    return y


def average_backward(
    function: str,
    ndim: int,
    gradient: tuple[Array, Shape],
    divisor: tuple[bool, int | None],
    window: tuple[Any, ...],
    around: tuple[str, float],
    out: Array | None = None,
) -> Array:
    """Compute the gradient of x from that of the means; `gradient` comes with x's shape."""
    if is_plain(around, "zeros"):
        return _average_pooling.average_backward(
            function, ndim, gradient, divisor, window, out=out
        )
    grad_output, input_shape = gradient
    shape = input_shape_of(function, input_shape, ndim)
    dtype = checked(function, "grad_output", grad_output)
    how = framed(function, ndim, shape, window, *around)
    buffer = _divisor(function, divisor)
    check_gradient(function, grad_output, how.result)
    grad_x = room(function, out, shape, dtype, grad_output)
    grads = flat(grad_output, dtype)
    for part, box in folded(how, grad_x):
        run(
            plan_of(part, "average_dgrad", dtype),
            buffer,
            some_of(grads, how, part),
            box,
        )
    return grad_x


def maximum(
    function: str,
    ndim: int,
    x: Array,
    window: tuple[Any, ...],
    around: tuple[str, float],
    labelled: bool = False,
    out: Pair | None = None,
) -> tuple[Array, Array | None]:
    """Compute maxima, and flat indices into x and what lies around it if `labelled`."""
    dtype = checked(function, "x", x)
    how = framed(function, ndim, x.shape, window, *around, IGNORED)
    found = None
    if labelled:
        y, found = pair(function, out, how.result, (dtype, _INT64), x)
    else:
        y = room(function, out, how.result, dtype, x)
    direction = "max_fprop" if labelled else "max_values"
    for part, box in padded(how, flat(x, dtype)):
        labels = None if found is None else some_of(found, how, part)
        run(plan_of(part, direction, dtype), box, some_of(y, how, part), labels)
    return y, found


def maximum_backward(
    function: str,
    ndim: int,
    gradient: tuple[Array, Array, Shape],
    window: tuple[Any, ...],
    around: tuple[str, float],
) -> Array:
    """Compute the gradient of x from that of the maxima and what `maximum` found."""
    grad_output, found, shape = gradient
    dtype = checked(function, "grad_output", grad_output)
    how = framed(function, ndim, shape, window, *around, IGNORED)
    check_gradient(function, grad_output, how.result)
    grad_x, grads = empty(shape, dtype), flat(grad_output, dtype)
    for part, box in folded(how, grad_x):
        some = some_of(grads, how, part), some_of(found, how, part)
        run(plan_of(part, "max_dgrad", dtype), *some, box)
    return grad_x


def check_result(
    function: str,
    ndim: int,
    grad_output: Array,
    input_shape: Shape,
    window: tuple[Any, ...],
    around: tuple[str, float],
) -> None:
    """Check that a gradient has the shape of the pooling's result."""
    shape = input_shape_of(function, input_shape, ndim)
    checked(function, "grad_output", grad_output)
    how = framed(function, ndim, shape, window, *around, IGNORED)
    check_gradient(function, grad_output, how.result)


def indices_of(
    function: str,
    ndim: int,
    found: Array,
    shape: Shape,
    window: tuple[Any, ...],
    around: tuple[str, float],
) -> Array:
    """Write the flat indices into x in the place of what `maximum` found, and give them."""
    how = framed(function, ndim, shape, window, *around, IGNORED)
    small = prod(how.box.extent) <= _FEW
    table = (_cached_table if small else _table)(how.box)
    line = found.reshape(-1)  # a view: all of it was written here
    for first in range(0, line.size, _CHUNK):
        part = line[first : first + _CHUNK]
        part[:] = table.take(part, mode="clip")  # another thread may write there
    return found


def _table(box: Box) -> Array:
    """Tell for each place of a channel of a box which element of x is there."""
    flat_index, beyond = np.zeros((), np.int64), np.zeros((), bool)
    for axis in range(3):
        at = sources(box, axis)
        flat_index = np.add.outer(flat_index * box.inside[axis], at)
        beyond = np.logical_or.outer(beyond, at < 0)
    flat_index[beyond] = BEYOND
    return flat_index.reshape(-1)


_cached_table = lru_cache(maxsize=64)(_table)


def _divisor(function: str, divisor: tuple[bool, int | None]) -> Array:
    """Check what a mean divides by: there is no padding that could not count."""
    if divisor[0] is False:
        raise ValueError(
            f'{function}: count_include_pad=False needs padding_mode "zeros", in others '
            "padding is data"
        )
    return divisor_buffer(function, *divisor)


def plan_of(part: Part, direction: str, dtype: np.dtype[Any]) -> plan.Plan:
    """Choose the algorithm for a part."""
    return plan.select(part.problem, direction, NAMES[dtype.char])


def _parts(how: Framed, dtype: np.dtype[Any]) -> Iterator[Part]:
    """Cut the channels of all samples into parts."""
    channels = how.problem.n * how.problem.c
    each = max(1, PART_BYTES // (dtype.itemsize * prod(how.problem.in_extent)))
    for first in range(0, channels, each):
        some = slice(first, min(first + each, channels))
        yield Part(replace(how.problem, n=1, c=some.stop - first), some)


def some_of(array: Array, how: Framed, part: Part) -> Array:
    """Give those channels of a result."""
    return array.reshape(-1, *how.problem.out_extent)[part.some]


def padded(how: Framed, x: Array) -> Iterator[tuple[Part, Array]]:
    """Give each part of x with what lies around it."""
    planes = x.reshape(-1, *how.box.inside)
    for part in _parts(how, x.dtype):
        box = empty((part.problem.c, *how.problem.in_extent), x.dtype)
        fill(how.box, planes[part.some], box)
        yield part, box


def folded(how: Framed, grad_x: Array) -> Iterator[tuple[Part, Array]]:
    """Give room for the gradient of each part, and fold what was written there."""
    planes = grad_x.reshape(-1, *how.box.inside)
    for part in _parts(how, grad_x.dtype):
        box = empty((part.problem.c, *how.problem.in_extent), grad_x.dtype)
        yield part, box
        fold(how.box, box, planes[part.some])
