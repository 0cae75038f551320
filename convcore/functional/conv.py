"""Convolution and transposed convolution, forward and backward, for 1, 2 and 3 axes.

"Convolution" is what networks call so: cross-correlation, the kernel is not turned
around. `flip=True` turns it around along every axis, the convolution of mathematics.

Each operation is one function of the rank behind three public doors; the gradients of a
transposed convolution are the other directions of the problem that it transposes.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from convcore import plan
from convcore.arguments import exact
from convcore.functional._checks import GRADIENTS, needed
from convcore.functional.call import PackedWeight, run
from convcore.problem import ConvProblem, Direction, Padding, Size
from convcore.runtime import cpu
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

Grads = tuple[Array | None, Array | None, Array | None]


def conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    flip: bool = False,
    activation: str | None = None,
    out: Array | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve along one axis.

    As `conv2d`, with x (N, C_in, W) and weight (C_out, C_in / groups, KW).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    >>> conv1d(x, np.array([[[1.0, 10.0]]]))
    array([[[21., 32., 43.]]])
    """
    how = (stride, padding, dilation, groups, activation, algorithm)
    return forward("conv1d", 1, (x, weight, bias, out), how, flip)


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    flip: bool = False,
    activation: str | None = None,
    out: Array | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve along two axes.

    Parameters
    ----------
    x : (N, C_in, H, W) or (C_in, H, W), float32 or float64
        Input; any strides, copied once if it is not C-contiguous. N may be 0.
    weight : (C_out, C_in / groups, KH, KW), dtype of x
        One kernel for each pair of an output channel and an input channel of its group.
    bias : (C_out,), dtype of x, optional
        Added to every output of a channel.
    stride : int or (int, int), >= 1
        Elements of x between neighbouring windows.
    padding : int, (int, int), ((lo, hi), (lo, hi)), "valid", "same" or "full"
        Zeros before and after each axis of x. "valid" is none, "same" gives
        ceil(H / stride) outputs with the odd zero at the end, "full" gives an output for
        every window that meets x.
    dilation : int or (int, int), >= 1
        Elements of x between neighbouring taps of the kernel; 1 is dense.
    groups : int
        Parts of the channels that do not see each other; divides C_in and C_out.
    flip : bool
        Turn the kernel around first: the convolution of mathematics.
    activation : "relu", optional
        Replace negative results by 0 before they leave the cache: the bits that `relu`
        would give, without its pass over memory. `conv2d_backward` is that of the
        convolution alone; it takes what `relu_backward(grad_output, y)` gives.
    out : (N, C_out, OH, OW), dtype of x, optional
        Where to write; C-contiguous, and not overlapping an input.
    algorithm : str
        "auto", or the name of one: see `convcore.explain`.

    Returns
    -------
    y : (N, C_out, OH, OW), dtype of x
        OH = floor((H + lo + hi - dilation * (KH - 1) - 1) / stride) + 1, OW likewise;
        without N when x came without it.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    2 * N * C_out * OH * OW * (C_in / groups) * KH * KW floating-point operations. Sums are
    formed in the dtype of x, in an order that depends on the shape of one sample alone:
    the same bits for any number of threads and any batch. The error is at most
    (2 * sqrt(K) + 4) * u * (sum of |x||weight| + |bias|) for K terms.

    References
    ----------
    .. [1] Dumoulin and Visin, A guide to convolution arithmetic for deep learning,
       arXiv:1603.07285, sections 2 and 5.1 (dilation).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> conv2d(x, np.ones((1, 1, 2, 2)))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    how = (stride, padding, dilation, groups, activation, algorithm)
    return forward("conv2d", 2, (x, weight, bias, out), how, flip)


def conv3d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    flip: bool = False,
    activation: str | None = None,
    out: Array | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve along three axes.

    As `conv2d`, with x (N, C_in, D, H, W) and weight (C_out, C_in / groups, KD, KH, KW).

    Examples
    --------
    >>> import numpy as np
    >>> conv3d(np.ones((1, 2, 3, 3, 3)), np.ones((1, 2, 3, 3, 3))).item()
    54.0
    """
    how = (stride, padding, dilation, groups, activation, algorithm)
    return forward("conv3d", 3, (x, weight, bias, out), how, flip)


def conv1d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `conv1d`; as `conv2d_backward`, with one spatial axis.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.array([[[1.0, 2.0, 3.0]]]), np.array([[[1.0, 10.0]]])
    >>> conv1d_backward(np.ones((1, 1, 2)), x, weight)
    (array([[[ 1., 11., 10.]]]), array([[[3., 5.]]]), array([2.]))
    """
    how = (stride, padding, dilation, groups, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return _backward("conv1d_backward", 1, operands, how, flip)


def conv2d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `conv2d` with respect to x, weight and bias.

    Parameters
    ----------
    grad_output : (N, C_out, OH, OW) or (C_out, OH, OW), float32 or float64
        Gradient of the loss with respect to the result of the convolution.
    x, weight, stride, padding, dilation, groups, flip, algorithm
        What `conv2d` was called with.
    needs : collection of "x", "weight", "bias"
        Which gradients to compute.

    Returns
    -------
    grad_x, grad_weight, grad_bias : arrays of the shapes of x, weight, (C_out,), or None
        None where not needed.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`, and when grad_output does not have the shape of the result.

    Notes
    -----
    As many operations for each of grad_x and grad_weight as `conv2d` needs. A strided
    gradient of x is computed phase by phase; no zero is ever inserted and multiplied.
    Elements of x that no window reaches get exactly 0. The bits of all three do not
    depend on the number of threads.

    References
    ----------
    .. [1] Dumoulin and Visin, arXiv:1603.07285, section 4.
    .. [2] Goodfellow, Bengio and Courville, Deep Learning (2016), section 9.5.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> grad_x, _, _ = conv2d_backward(np.ones((1, 1, 2, 2)), x, weight, needs=["x"])
    >>> grad_x
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    how = (stride, padding, dilation, groups, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return _backward("conv2d_backward", 2, operands, how, flip)


def conv3d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `conv3d`; as `conv2d_backward`, with three spatial axes.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.ones((1, 1, 2, 2, 2)), np.ones((1, 1, 2, 2, 2))
    >>> conv3d_backward(np.ones((1, 1, 1, 1, 1)), x, weight, needs=["bias"])
    (None, None, array([1.]))
    """
    how = (stride, padding, dilation, groups, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return _backward("conv3d_backward", 3, operands, how, flip)


def conv_transpose1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    flip: bool = False,
    out: Array | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve transposed along one axis.

    As `conv_transpose2d`, with x (N, C_in, W) and weight (C_in, C_out / groups, KW).

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose1d(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0]]]), stride=2)
    array([[[ 1., 10.,  2., 20.]]])
    """
    how = (stride, padding, output_padding, groups, dilation, None, algorithm)
    return forward("conv_transpose1d", 1, (x, weight, bias, out), how, flip, True)


def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    flip: bool = False,
    out: Array | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve transposed along two axes: the adjoint of `conv2d`, plus a bias.

    Parameters
    ----------
    x : (N, C_in, H, W) or (C_in, H, W), float32 or float64
    weight : (C_in, C_out / groups, KH, KW), dtype of x
    bias : (C_out,), dtype of x, optional
    stride : int or (int, int), >= 1
        Elements of the result between the kernels that neighbours in x put there.
    padding : int, (int, int), ((lo, hi), (lo, hi)), "valid", "same" or "full"
        Elements cut from the result: the padding of the convolution that is transposed.
        "same" gives H * stride + output_padding outputs.
    output_padding : int or (int, int)
        Elements added at the end of each axis; below the stride or the dilation.
    groups, dilation, flip, out, algorithm
        As in `conv2d`; groups divides C_in.

    Returns
    -------
    y : (N, C_out, OH, OW), dtype of x
        OH = (H - 1) * stride - lo - hi + dilation * (KH - 1) + output_padding + 1.

    Raises
    ------
    ValueError, TypeError
        For an argument that does not fit; the message names it.

    Notes
    -----
    Computed as the gradient of x of a convolution, with its cost, bounds and promises.

    References
    ----------
    .. [1] Dumoulin and Visin, arXiv:1603.07285, section 4.
    .. [2] Zeiler et al., Deconvolutional Networks, CVPR 2010.

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)))
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    how = (stride, padding, output_padding, groups, dilation, None, algorithm)
    return forward("conv_transpose2d", 2, (x, weight, bias, out), how, flip, True)


def conv_transpose3d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    flip: bool = False,
    out: Array | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve transposed along three axes.

    As `conv_transpose2d`, with x (N, C_in, D, H, W) and weight
    (C_in, C_out / groups, KD, KH, KW).

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose3d(np.ones((1, 1, 1, 1, 1)), np.ones((1, 2, 2, 2, 2))).shape
    (1, 2, 2, 2, 2)
    """
    how = (stride, padding, output_padding, groups, dilation, None, algorithm)
    return forward("conv_transpose3d", 3, (x, weight, bias, out), how, flip, True)


def conv_transpose1d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `conv_transpose1d`.

    As `conv_transpose2d_backward`, with one spatial axis.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0]]])
    >>> conv_transpose1d_backward(np.ones((1, 1, 3)), x, weight)
    (array([[[11., 11.]]]), array([[[3., 3.]]]), array([3.]))
    """
    how = (stride, padding, output_padding, groups, dilation, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return _backward("conv_transpose1d_backward", 1, operands, how, flip, True)


def conv_transpose2d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `conv_transpose2d` with respect to x, weight and bias.

    Parameters
    ----------
    grad_output : (N, C_out, OH, OW) or (C_out, OH, OW), float32 or float64
        Gradient of the loss with respect to the result.
    x, weight, stride, padding, output_padding, groups, dilation, flip, algorithm
        What `conv_transpose2d` was called with.
    needs : collection of "x", "weight", "bias"
        Which gradients to compute.

    Returns
    -------
    grad_x, grad_weight, grad_bias : arrays of the shapes of x, weight, (C_out,), or None
        None where not needed.

    Raises
    ------
    ValueError, TypeError
        As `conv_transpose2d`, and when grad_output does not have the result's shape.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2))
    >>> grads = conv_transpose2d_backward(np.ones((1, 1, 3, 3)), x, weight)
    >>> [grad.ravel().tolist() for grad in grads]
    [[4.0, 4.0, 4.0, 4.0], [4.0, 4.0, 4.0, 4.0], [9.0]]
    """
    how = (stride, padding, output_padding, groups, dilation, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return _backward("conv_transpose2d_backward", 2, operands, how, flip, True)


def conv_transpose3d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `conv_transpose3d`.

    As `conv_transpose2d_backward`, with three spatial axes.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.ones((1, 1, 1, 1, 1)), np.ones((1, 1, 2, 2, 2))
    >>> conv_transpose3d_backward(np.ones((1, 1, 2, 2, 2)), x, weight, needs=["x"])
    (array([[[[[8.]]]]]), None, None)
    """
    how = (stride, padding, output_padding, groups, dilation, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return _backward("conv_transpose3d_backward", 3, operands, how, flip, True)


class Job(NamedTuple):
    """What the shapes of a call decide, for one direction of its problem."""

    plan: plan.Plan
    result: tuple[int, ...]  # shape; without a batch where x has none
    channels: int  # of the result


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
        weight = _turned(function, weight, flip)
    direction: Direction = "dgrad" if transposed else "fprop"
    shapes = (x.shape, weight.shape)
    job = job_of(function, ndim, direction, shapes, dtype, how, transposed)
    if bias is not None:
        bias = _checked_bias(function, bias, job.channels, dtype)
    if out is None:
        out = empty(job.result, dtype)
    else:
        check_out(function, out, job.result, dtype, (x, weight, bias))
    weight = flat(weight, dtype)
    if kept is not None:
        weight = kept.of(job.plan, weight)
    run(job.plan, flat(x, dtype), weight, bias, out)
    return out


def _backward(
    function: str,
    ndim: int,
    operands: tuple[Array, Array, Array, Collection[str]],
    how: tuple[Any, ...],
    flip: bool,
    transposed: bool = False,
) -> Grads:
    """Do the backward pass of a convolution, or of a transposed one, in any rank.

    The latter exchanges the roles of x and y in its problem, and so the directions.
    `operands` are grad_output, x, weight and needs.
    """
    grad_output, x, weight, needs = operands
    needs_x, needs_weight, needs_bias = needed(function, needs)
    dtype = checked(function, "x", x)
    checked(function, "weight", weight, dtype)
    if flip is not False:
        weight = _turned(function, weight, flip)
    checked(function, "grad_output", grad_output, dtype)
    shapes = (x.shape, weight.shape)

    def job(direction: Direction) -> Job:
        return job_of(function, ndim, direction, shapes, dtype, how, transposed)

    _check_gradient(function, grad_output, x, job("bgrad").result)
    grad_x = grad_weight = grad_bias = None
    dy = flat(grad_output, dtype)
    if needs_x:
        grad_x = empty(x.shape, dtype)
        direction: Direction = "fprop" if transposed else "dgrad"
        run(job(direction).plan, dy, flat(weight, dtype), None, grad_x)
    if needs_weight:
        x = flat(x, dtype)
        grad_weight = empty(weight.shape, dtype)
        run(job("wgrad").plan, *((dy, x) if transposed else (x, dy)), grad_weight)
        if flip:
            grad_weight = flat(_turned(function, grad_weight, flip), dtype)
    if needs_bias:
        grad_bias = empty((job("bgrad").channels,), dtype)
        run(job("bgrad").plan, dy, grad_bias)
    return grad_x, grad_weight, grad_bias


def job_of(
    function: str,
    ndim: int,
    direction: Direction,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    dtype: np.dtype[Any],
    how: tuple[Any, ...],
    transposed: bool,
) -> Job:
    """Check shapes and arguments, and choose the algorithm: once for all equal calls."""
    make = _cached_job if exact(how) else _new_job
    return make(function, ndim, direction, shapes, dtype, how, transposed, cpu.isa())


def _new_job(
    function: str,
    ndim: int,
    direction: Direction,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    dtype: np.dtype[Any],
    how: tuple[Any, ...],
    transposed: bool,
    isa: str,
) -> Job:
    """Do `job_of`; the instruction set is here as a part of the key."""
    *geometry, activation, algorithm = how
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
    chosen = plan.select(problem, direction, NAMES[dtype.char], algorithm)
    return Job(chosen, result[1:] if single else result, channels)


_cached_job = lru_cache(maxsize=4096)(_new_job)


def _activated(function: str, problem: ConvProblem, activation: str) -> ConvProblem:
    """Give the problem with an activation of its results."""
    if activation != "relu":
        raise ValueError(
            f'{function}: activation must be "relu" or None, got {activation!r}'
        )
    return replace(problem, relu=True)


def _turned(function: str, weight: Array, flip: bool) -> Array:
    """Turn a kernel around along every spatial axis if `flip`."""
    if not isinstance(flip, bool):
        raise TypeError(f"{function}: flip must be a bool, got {flip!r}")
    index: tuple[Any, ...] = (..., *(slice(None, None, -1),) * (weight.ndim - 2))
    turned: Array = weight[index]
    return turned


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
