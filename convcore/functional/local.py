"""Locally connected layers: convolutions whose weights are not shared between places."""

from array import array
from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from convcore.arguments import exact
from convcore.functional._boxes import Box, box_of, fill, fold
from convcore.functional._checks import GRADIENTS, needed
from convcore.functional._outs import Outs, places
from convcore.functional.call import apply
from convcore.plan import operation
from convcore.problem import ConvProblem, Padding, Size, Triple
from convcore.runtime import cpu, workspace
from convcore.runtime.arrays import (
    Array,
    batched_shape,
    checked,
    empty,
    flat,
    ready,
    room,
)

__all__ = [
    "locally_connected1d",
    "locally_connected1d_backward",
    "locally_connected2d",
    "locally_connected2d_backward",
]

Grads = tuple[Array | None, Array | None, Array | None]
_MODULE = "conv_local"


class Job(NamedTuple):
    """What the shapes of a call decide."""

    seen: tuple[int, ...]  # shape of x with what windows see around it
    result: tuple[int, ...]  # shape of y, without a batch where x has none
    sizes: "array[int]"  # of the kernels
    work: int
    scalars: int  # of scratch, for each thread
    box: Box | None  # x and what lies around it, if that is not zeros


def locally_connected1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Apply a kernel of its own to every window along one axis.

    As `locally_connected2d`, with x (N, C_in, W), weight (C_in, C_out, KW, OW) and bias
    (C_out, OW).

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.array([[[1.0, 2.0, 4.0]]]), np.array([[[[1.0, 0.0], [0.0, 10.0]]]])
    >>> locally_connected1d(x, weight)
    array([[[ 1., 40.]]])
    """
    how = (stride, padding, dilation, 1, padding_mode, padding_value)
    return _forward("locally_connected1d", 1, (x, weight, bias, out), how)


def locally_connected2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Apply a kernel of its own to every window along two axes.

    Parameters
    ----------
    x : (N, C_in, H, W) or (C_in, H, W), float32 or float64
        Input; copied once if it is not C-contiguous. N may be 0.
    weight : (OH, KH, C_in, C_out, KW, OW), dtype of x
        `weight[oy, ky, c, o, kx, ox]` is what `conv2d` would share as
        `weight[o, c, ky, kx]`: in an order in which it is read from its first to its last
        byte, once for 16 samples, for y and for the gradient of x.
    bias : (C_out, OH, OW), dtype of x, optional
        One for each output.
    stride, padding, dilation, padding_mode, padding_value
        As for `conv2d`.
    out : (N, C_out, OH, OW), dtype of x, optional
        Where to write; C-contiguous, and not overlapping an input.

    Returns
    -------
    y : (N, C_out, OH, OW), dtype of x
        Extents as for `conv2d`; without N when x came without it.

    Raises
    ------
    ValueError, TypeError
        When a value, shape, type or dtype does not fit; the message names the argument.

    Notes
    -----
    Where a convolution has OH * OW terms for the gradient of each weight, this has one:
    what is learned at one place, say at the border, is of no use at another. The weights
    are the largest array by far: up to four samples take the time to read them, 16
    samples two to five times as long, for their arithmetic. Sums, bits and errors are as
    those of `conv2d`; padding is of real zeros. With another `padding_mode` x is copied
    with its border.

    References
    ----------
    .. [1] LeCun, Generalization and network design strategies, 1989, section 4.
    .. [2] Taigman, Yang, Ranzato and Wolf, DeepFace, CVPR 2014, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> weight = np.ones((2, 2, 1, 1, 2, 2))
    >>> weight[0, :, :, :, :, 1] = 0
    >>> locally_connected2d(np.ones((1, 1, 3, 3)), weight)
    array([[[[4., 0.],
             [4., 4.]]]])
    """
    how = (stride, padding, dilation, 1, padding_mode, padding_value)
    return _forward("locally_connected2d", 2, (x, weight, bias, out), how)


def locally_connected1d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    needs: Collection[str] = GRADIENTS,
    out: Outs | None = None,
) -> Grads:
    """Compute the gradients of `locally_connected1d`: see that for two axes.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.array([[[1.0, 2.0, 4.0]]]), np.array([[[[1.0, 0.0], [0.0, 10.0]]]])
    >>> locally_connected1d_backward(np.ones((1, 1, 2)), x, weight, needs=["x"])[0]
    array([[[ 1.,  0., 10.]]])
    """
    operands = (grad_output, x, weight, needs)
    how = (stride, padding, dilation, 1, padding_mode, padding_value)
    return _backward("locally_connected1d_backward", 1, operands, how, out)


def locally_connected2d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    needs: Collection[str] = GRADIENTS,
    out: Outs | None = None,
) -> Grads:
    """Compute the gradients of `locally_connected2d` with respect to x, weight and bias.

    Parameters
    ----------
    grad_output : (N, C_out, OH, OW) or (C_out, OH, OW), float32 or float64
        Gradient of the loss with respect to the result.
    x, weight, stride, padding, dilation, padding_mode, padding_value
        What `locally_connected2d` was called with.
    needs : collection of "x", "weight", "bias"
        Which gradients to compute.
    out : tuple of (array or None), optional
        Where to write the three results, in their order; None for new memory.

    Returns
    -------
    grad_x, grad_weight, grad_bias : arrays of the shapes of x, weight, bias, or None
        None where not needed.

    Raises
    ------
    ValueError, TypeError
        As `locally_connected2d`, and when grad_output does not have the shape of the
        result.

    Notes
    -----
    The weights are read once for grad_x, and grad_weight is written once, for each 16
    samples. Bits do not depend on threads.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.ones((1, 1, 3, 3)), np.ones((2, 2, 1, 1, 2, 2))
    >>> locally_connected2d_backward(np.ones((1, 1, 2, 2)), x, weight)[0]
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    operands = (grad_output, x, weight, needs)
    how = (stride, padding, dilation, 1, padding_mode, padding_value)
    return _backward("locally_connected2d_backward", 2, operands, how, out)


def _forward(
    function: str,
    ndim: int,
    operands: tuple[Array, Array, Array | None, Array | None],
    how: tuple[Any, ...],
) -> Array:
    """Write y."""
    x, weight, bias, out = operands
    dtype = checked(function, "x", x)
    checked(function, "weight", weight, dtype)
    job = _job_of(function, ndim, x.shape, weight.shape, how)
    if bias is not None:
        bias = ready(function, "bias", bias, dtype)
        if bias.shape != job.result[-ndim - 1 :]:
            raise ValueError(
                f"{function}: bias must have shape {job.result[-ndim - 1 :]}, one for "
                f"each output, got {bias.shape}"
            )
    y = room(function, out, job.result, dtype, x, weight, bias)
    _run("fprop", job, _seen(job, flat(x, dtype)), flat(weight, dtype), bias, y)
    return y


def _backward(
    function: str,
    ndim: int,
    operands: tuple[Array, Array, Array, Collection[str]],
    how: tuple[Any, ...],
    out: Outs | None,
) -> Grads:
    """Write the gradients that are needed."""
    grad_output, x, weight, needs = operands
    asked = needed(function, needs)
    dtype = checked(function, "x", x)
    checked(function, "weight", weight, dtype)
    checked(function, "grad_output", grad_output, dtype)
    job = _job_of(function, ndim, x.shape, weight.shape, how)
    if grad_output.shape != job.result:
        raise ValueError(
            f"{function}: grad_output must have the result's shape {job.result}, got "
            f"{grad_output.shape}"
        )
    wanted = asked, (x.shape, weight.shape, job.result[-ndim - 1 :])
    grad_x, grad_weight, grad_bias = places(
        function, out, wanted, dtype, (grad_output, x, weight)
    )
    dy = flat(grad_output, dtype)
    if grad_x is not None:
        given = grad_x if job.box is None else empty(job.seen, dtype)
        _run("dgrad", job, dy, flat(weight, dtype), given)
        if job.box is not None:
            fold(
                job.box, _planes(given, job.box.extent), _planes(grad_x, job.box.inside)
            )
    if grad_weight is not None:
        _run("wgrad", job, _seen(job, flat(x, dtype)), dy, grad_weight)
    if grad_bias is not None:
        _add_samples(dy.reshape(-1, *job.result[-ndim - 1 :]), grad_bias)
    return grad_x, grad_weight, grad_bias


def _seen(job: Job, x: Array) -> Array:
    """Give all of x that windows see."""
    if job.box is None:
        return x
    seen = empty(job.seen, x.dtype)
    fill(job.box, _planes(x, job.box.inside), _planes(seen, job.box.extent))
    return seen


def _planes(array: Array, extent: Triple) -> Array:
    count = array.size // prod(extent)
    return array.reshape(count, *extent)


@np.errstate(all="ignore")
def _add_samples(grads: Array, total: Array) -> None:
    """Write the sum over the samples, added in order."""
    total.fill(0)
    for grad in grads:
        np.add(total, grad, out=total)


def _run(direction: str, job: Job, *buffers: Array | None) -> None:
    """Call the kernel with scratch."""
    first = buffers[0]
    assert first is not None
    apply(
        f"{_MODULE}_weight" if direction == "wgrad" else _MODULE,
        direction,
        job.sizes,
        *buffers,
        work=job.work,
        scratch=workspace.ALIGNMENT,
        of_each=job.scalars * first.itemsize,
    )


def _job_of(
    function: str,
    ndim: int,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    how: tuple[Any, ...],
) -> Job:
    """Check shapes and arguments: once for all equal calls."""
    make = _cached_job if exact(how) else _new_job
    return make(function, ndim, x_shape, weight_shape, how, cpu.isa())


def _new_job(
    function: str,
    ndim: int,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    how: tuple[Any, ...],
    isa: str,
) -> Job:
    """Do `_job_of`; the instruction set is a part of the key."""
    shape, single = batched_shape(function, "x", x_shape, ndim)
    if len(weight_shape) != (6 if ndim == 2 else 4):
        axes = "(OH, KH, in, out, KW, OW)" if ndim == 2 else "(in, out, KW, OW)"
        raise ValueError(
            f"{function}: weight must have the axes {axes}, got shape {weight_shape}"
        )
    *rows, inputs, outputs, width, columns = weight_shape
    shared = (outputs, inputs, *rows[1:], width)
    problem = ConvProblem.conv(function, shape, shared, *how)
    places = (*rows[:1], columns)
    if problem.y_shape[2:] != places:
        raise ValueError(
            f"{function}: weight must have kernels for the outputs "
            f"{problem.y_shape[2:]} of x {x_shape}, got those for {places}; weight "
            f"{weight_shape}"
        )
    box = None
    if problem.border != "zeros":
        box = box_of(function, problem, problem.border, problem.value)
        problem = replace(
            problem.core,
            in_extent=box.extent,
            stride=box.stride,
            dilation=box.dilation,
            padding=((0, 0),) * 3,
        )
    sizes = array("q", problem.geometry)
    scalars = operation(_MODULE, "scratch_scalars")(sizes)
    result = problem.y_shape[1:] if single else problem.y_shape
    return Job(problem.x_shape, result, sizes, problem.macs, scalars, box)


_cached_job = lru_cache(maxsize=1024)(_new_job)
