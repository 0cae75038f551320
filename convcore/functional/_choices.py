"""What operations do alike that pick one element of a channel by its flat index."""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from convcore.arguments import exact, shown
from convcore.functional._pooling import (
    Shape,
    check_gradient,
    index_array,
    input_shape_of,
)
from convcore.functional.call import apply
from convcore.problem import PoolProblem
from convcore.problem.rules import ANY_EXTENT
from convcore.runtime import buffers
from convcore.runtime.arrays import Array, batched_shape, checked, flat, room

_BOOL = np.dtype(np.bool_)
BEYOND = -1  # index of what lies beyond the border, and is no element of x


def sizes_of(ndim: int, indices: Array, shape: Shape) -> tuple[int, int, int]:
    """Give what kernels know of indices into channels of `shape`: its planes."""
    cells, planes = prod(shape[-ndim:]), prod(shape[:-ndim])
    return planes, cells, indices.size // planes if planes else 0


def check_planes(function: str, ndim: int, indices: Array, shape: Shape) -> None:
    """Raise if an index lies outside of its channel of `shape`."""
    sizes, found = sizes_of(ndim, indices, shape), np.empty(1, np.int64)
    apply("pool_select", "check", sizes, indices, found, work=indices.size)
    if found[0] >= 0:
        where = tuple(map(int, np.unravel_index(found[0], indices.shape)))
        raise ValueError(
            f"{function}: indices must lie in 0 .. {sizes[1] - 1}, those of a channel "
            f"{shape[-ndim:]}, got {indices[where]} at {where}"
        )


def follow(
    function: str,
    ndim: int,
    kernel: str,
    shape: Shape,
    arrays: tuple[Array, Array, Array, Shape],
    out: Array | None,
    of_each: int = 0,
) -> Array:
    """Run a kernel that follows indices, which are checked on the way.

    Those of a call with `out` before it is written: a result may be given up only if
    nobody has seen it yet. `arrays` are an argument, its values as kernels read them,
    indices into channels of `shape`, and the shape of the result.
    """
    argument, values, indices, result = arrays
    sizes, bad = sizes_of(ndim, indices, shape), np.empty(1, np.int64)
    if out is not None:
        check_planes(function, ndim, indices, shape)
    to = room(function, out, result, values.dtype, argument, indices)
    given = (sizes, values, indices, to, bad)
    work = values.size + to.size
    apply("pool_select", kernel, *given, work=work, of_each=of_each)
    if bad[0]:
        check_planes(function, ndim, indices, shape)
        raise ValueError(f"{function}: indices must stay as they are during the call")
    return to


def scatter(
    function: str,
    ndim: int,
    gradient: tuple[Array, Array, Shape],
    out: Array | None = None,
    beyond: bool = False,
) -> Array:
    """Add each gradient to the element that its index tells.

    With `beyond`, an index may be `BEYOND`; that gradient goes nowhere.
    """
    grad_output, indices, input_shape = gradient
    shape = input_shape_of(function, input_shape, ndim)
    dtype = checked(function, "grad_output", grad_output)
    lead = len(shape) - ndim
    axes = grad_output.shape[lead:]
    if len(axes) != ndim:
        axes = (1,) * ndim
    check_gradient(function, grad_output, (*shape[:lead], *axes))
    indices = index_array(function, indices, grad_output)
    source = flat(grad_output, dtype)
    if beyond:
        lost = np.equal(indices, BEYOND, out=buffers.empty(indices.shape, _BOOL))
        indices, source = _without(lost, indices), _without(lost, source)
    arrays = (grad_output, source, indices, shape)
    return follow(function, ndim, "scatter_add", shape, arrays, out)


def _without(lost: Array, array: Array) -> Array:
    """Copy an array, with 0 for what is lost."""
    rest = buffers.empty(array.shape, array.dtype)
    np.copyto(rest, array)
    np.copyto(rest, 0, where=lost)
    return rest


def scattered_shape(
    function: str, ndim: int, pooled: Shape, window: tuple[Any, ...]
) -> Shape:
    """Find the shape that max pooling had made `pooled` of: once for all equal calls."""
    make = _cached_shape if exact(window) else _new_shape
    return make(function, ndim, pooled, window)


def _new_shape(
    function: str, ndim: int, pooled: Shape, window: tuple[Any, ...]
) -> Shape:
    """Do `scattered_shape`."""
    kernel_size, stride, padding, output_size = window
    whole, single = batched_shape(function, "x", pooled, ndim)
    lead = whole[1:2] if single else whole[:2]
    # The smallest input with so many windows, found by the rules of pooling themselves.
    ones = PoolProblem.pool(
        function, (0, 1, *(ANY_EXTENT,) * ndim), kernel_size, stride, padding
    )
    low = tuple(
        (o - 1) * s + k - sum(p)
        for o, s, k, p in zip(
            whole[2:],
            ones.stride[-ndim:],
            ones.kernel[-ndim:],
            ones.padding[-ndim:],
            strict=True,
        )
    )
    steps = ones.stride[-ndim:]
    if output_size is None:
        extents = low
    else:
        if not isinstance(output_size, (tuple, list)):
            raise TypeError(
                f"{function}: output_size must be a tuple of integers, got "
                f"{shown(output_size)}"
            )
        given = tuple(output_size)
        extents = given[-ndim:]
        if len(given) not in (ndim, len(pooled)) or given[: len(given) - ndim] not in (
            (),
            pooled[: len(pooled) - ndim],
        ):
            raise ValueError(
                f"{function}: output_size must have {ndim} extents, or those of x "
                f"{pooled} before them, got {shown(output_size)}"
            )
        for e, a, s in zip(extents, low, steps, strict=True):
            if not isinstance(e, (int, np.integer)) or not a - s < e < a + s:
                raise ValueError(
                    f"{function}: output_size must be within a stride {steps} of "
                    f"{low}, got {shown(output_size)}"
                )
    if min(extents) < 1:
        raise ValueError(
            f"{function}: every extent of the result must be >= 1, got {extents}"
        )
    shape = (*lead, *map(int, extents))
    PoolProblem.adaptive(function, (1, *shape[-ndim - 1 :]), 1)  # is it addressable?
    return shape


_cached_shape = lru_cache(maxsize=1024)(_new_shape)
