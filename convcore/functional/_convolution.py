"""What stands behind the doors of convolution and of transposed convolution.

Each operation is one function of the rank; a transposed convolution and its gradients
are the other directions of the problem that it transposes.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from convcore import plan
from convcore.arguments import exact, shown
from convcore.functional import _sides
from convcore.functional._checks import needed
from convcore.functional._outs import places
from convcore.functional.call import PackedWeight, run
from convcore.problem import ConvProblem, Direction
from convcore.runtime import cpu, precision
from convcore.runtime.arrays import (
    NAMES,
    Array,
    batched_shape,
    check_out,
    checked,
    empty,
    flat,
    ready,
)

# In place of "auto", for the inference of a layer: it keeps the weights packed, so that
# packing them counts for nothing. It does not matter whether it does so this time: equal
# calls have equal bits.
LAYER = "auto, weights kept"

Grads = tuple[Array | None, Array | None, Array | None]


class Job(NamedTuple):
    """What the shapes of a call decide, for one direction of its problem."""

    plan: plan.Plan
    result: tuple[int, ...]  # shape; without a batch where x has none
    channels: int  # of the result
    border: ConvProblem | None = (
        None  # of a gradient of x that gets more than from zeros
    )
    algorithm: str = "auto"


def forward(
    function: str,
    ndim: int,
    operands: tuple[Array, Array, Array | None, Array | None],
    how: tuple[Any, ...],
    flip: bool,
    transposed: bool = False,
    kept: PackedWeight | None = None,
) -> Array:
    """Do a convolution, or a transposed one, in any rank.

    The latter is the gradient of x of its problem. `operands` are x, weight, bias and
    out; `how` is the rest of what makes the problem, the activation
    and the algorithm. `kept` is where
    a layer keeps its packed weights.
    """
    x, weight, bias, out = operands
    dtype = checked(function, "x", x)
    checked(function, "weight", weight, dtype)
    if flip is not False:
        weight = checked_turn(function, weight, flip)
    direction: Direction = "dgrad" if transposed else "fprop"
    shapes = (x.shape, weight.shape)
    make, state = finder(how)
    job = make(function, ndim, shapes, dtype, how, transposed, state, direction)
    if bias is not None:
        bias = _checked_bias(function, bias, job.channels, dtype)
    if out is None:
        out = empty(job.result, dtype)
    else:
        check_out(function, out, job.result, dtype, (x, weight, bias))
    weight = flat(weight, dtype)
    packed = None
    if kept is not None and job.plan.packing is not None:
        packed = kept.of(job.plan, weight)
    source = flat(x, dtype)
    if job.border is None:
        run(job.plan, source, weight, bias, out, packed=packed)
    else:
        _spread(job, source, weight, bias, out)
    return out


def backward(
    function: str,
    ndim: int,
    operands: tuple[Array, Array, Array, Collection[str]],
    how: tuple[Any, ...],
    flip: bool,
    transposed: bool = False,
    out: Any = None,
) -> Grads:
    """Do the backward pass of a convolution, or of a transposed one, in any rank.

    The latter exchanges the roles of x and y in its problem, and so the directions.
    `operands` are grad_output, x, weight and needs; `out` is as `places` takes it.
    """
    grad_output, x, weight, needs = operands
    asked = needed(function, needs)
    dtype = checked(function, "x", x)
    checked(function, "weight", weight, dtype)
    if flip is not False:
        weight = checked_turn(function, weight, flip)
    checked(function, "grad_output", grad_output, dtype)
    shapes = (x.shape, weight.shape)
    make, state = finder(how)
    job = partial(make, function, ndim, shapes, dtype, how, transposed, state)
    sums = job("bgrad")
    _check_gradient(function, grad_output, x, sums.result)
    wanted = asked, (x.shape, weight.shape, (sums.channels,))
    inputs = (grad_output, x, weight)
    grad_x, grad_weight, grad_bias = places(function, out, wanted, dtype, inputs)
    dy = flat(grad_output, dtype)
    write_gradients(job, (dy, x, weight), flip, transposed, (grad_x, grad_weight))
    if grad_bias is not None:
        run(sums.plan, dy, grad_bias)
    return grad_x, grad_weight, grad_bias


def write_gradients(
    job: Callable[[Direction], Job],
    operands: tuple[Array, Array, Array],
    flip: bool,
    transposed: bool,
    grads: tuple[Array | None, Array | None],
) -> None:
    """Write the gradients of x and weight, where there is an array for them.

    `operands` are dy, `flat`; x, and weight, which is turned already if `flip`.
    """
    dy, x, weight = operands
    dtype = dy.dtype
    grad_x, grad_weight = grads
    if grad_x is not None:
        direction: Direction = "fprop" if transposed else "dgrad"
        chosen, weights = job(direction), flat(weight, dtype)
        if chosen.border is None:
            run(chosen.plan, dy, weights, None, grad_x)
        else:
            _spread(chosen, dy, weights, None, grad_x)
    if grad_weight is not None:
        x = flat(x, dtype)
        found = empty(weight.shape, dtype) if flip else grad_weight
        run(job("wgrad").plan, *((dy, x) if transposed else (x, dy)), found)
        if flip:
            np.copyto(grad_weight, turned(found))


def finder(how: tuple[Any, ...]) -> tuple[Callable[..., Job], tuple[str, str]]:
    """Give what finds the job of a direction, once for all equal calls.

    And what it has to know besides the call: the instruction set and the precision.
    """
    return _cached_job if exact(how) else _new_job, (cpu.isa(), precision.current())


def _new_job(
    function: str,
    ndim: int,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    dtype: np.dtype[Any],
    how: tuple[Any, ...],
    transposed: bool,
    state: tuple[str, str],
    direction: Direction,
) -> Job:
    """Check shapes and arguments, and choose the algorithm; `state` is part of the key."""
    *geometry, activation, algorithm = how
    kept = type(algorithm) is str and algorithm == LAYER
    if kept:
        algorithm = "auto"
    plan.check_algorithm(function, algorithm)
    x_shape, single = batched_shape(function, "x", shapes[0], ndim)
    make = ConvProblem.transposed if transposed else ConvProblem.conv
    problem = make(function, x_shape, shapes[1], *geometry)
    if activation is not None:
        problem = _activated(function, problem, activation)
    result = problem.x_shape if transposed else problem.y_shape
    channels = result[1]
    if direction == "bgrad":  # a sum for each channel of the result, whatever made it
        ones = (channels, *(1,) * (ndim + 1))
        problem, algorithm = (
            ConvProblem.conv(function, result, ones, groups=channels),
            "auto",
        )
    try:
        chosen = plan.select(problem, direction, NAMES[dtype.char], algorithm, kept)
    except ValueError as error:  # an algorithm that does not accept it
        raise ValueError(f"{function}: {str(error).removeprefix('plan: ')}") from None
    border = None
    if direction == "dgrad" and problem.border not in ("zeros", "constant"):
        border = None if chosen.folds else problem
    return Job(chosen, result[1:] if single else result, channels, border, algorithm)


_cached_job = lru_cache(maxsize=4096)(_new_job)


def forget() -> None:
    """Forget which algorithms were chosen, after measurements that change choices."""
    _cached_job.cache_clear()
    _sides.forget()


def _spread(
    job: Job, grad_y: Array, weight: Array, bias: Array | None, grad_x: Array
) -> None:
    """Write a gradient of x to which what lies beyond its border adds."""
    problem, algorithm = job.border, job.algorithm
    assert problem is not None
    n, oc, ic = problem.n, problem.oc, problem.ic
    grads = (
        grad_y.reshape(n, oc, *problem.out_extent),
        weight.reshape(oc, ic // problem.g, *problem.kernel),
        grad_x.reshape(n, ic, *problem.in_extent),
    )
    how = (problem, job.plan.dtype, algorithm, plan.fast(), cpu.isa())
    if bias is None and _sides.whole_is_faster(*how):
        _sides.fold_whole(_sides.parts_of(*how), *grads)
        return
    run(job.plan, grad_y, weight, bias, grad_x)
    bound = algorithm != "auto" or not plan.fast()
    _sides.add_sides(_sides.sides_of(problem, job.plan.dtype, bound, cpu.isa()), *grads)


def _activated(function: str, problem: ConvProblem, activation: str) -> ConvProblem:
    """Give the problem with an activation of its results."""
    if not isinstance(activation, str) or activation != "relu":
        raise ValueError(
            f'{function}: activation must be "relu" or None, got {shown(activation)}'
        )
    return replace(problem, relu=True)


def checked_turn(function: str, weight: Array, flip: bool) -> Array:
    """Give the weight as kernels take it: turned if `flip`, which has to be a bool."""
    if not isinstance(flip, bool):
        raise TypeError(f"{function}: flip must be a bool, got {shown(flip)}")
    return turned(weight)


def turned(weight: Array) -> Array:
    """Turn a kernel around along every spatial axis."""
    index: tuple[Any, ...] = (..., *(slice(None, None, -1),) * (weight.ndim - 2))
    result: Array = weight[index]
    return result


def _check_gradient(
    function: str, grad_output: Array, x: Array, shape: tuple[int, ...]
) -> None:
    """Check the shape of grad_output against that of the result."""
    if grad_output.shape == shape:
        return
    if grad_output.ndim != x.ndim:
        raise ValueError(
            f"{function}: grad_output must have as many axes as x, got shapes "
            f"{grad_output.shape} and {x.shape}"
        )
    raise ValueError(
        f"{function}: grad_output must have the result's shape {shape}, got "
        f"{grad_output.shape}"
    )


def _checked_bias(
    function: str, bias: Array, channels: int, dtype: np.dtype[Any]
) -> Array:
    """Make a bias ready, one element for each output channel."""
    bias = ready(function, "bias", bias, dtype)
    if bias.shape != (channels,):
        raise ValueError(
            f"{function}: bias must have shape ({channels},), one for each output "
            f"channel, got {bias.shape}"
        )
    return bias
