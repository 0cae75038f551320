"""Pooling over feature maps: windows along the channels, at every place by itself."""

from typing import Any

from convcore.arguments import shown
from convcore.functional._pooling import (
    check_gradient,
    divisor_buffer,
    image_of,
    input_shape_of,
    job,
)
from convcore.functional.call import run
from convcore.problem import Padding
from convcore.problem.rules import paddings, sizes
from convcore.runtime.arrays import Array, checked, flat, room

__all__ = ["channel_avg_pool", "channel_avg_pool_backward"]


def channel_avg_pool(
    x: Array,
    kernel_size: int,
    stride: int | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Take the mean of each window of neighbouring channels, at every place.

    Parameters
    ----------
    x : (N, C, ...), float32 or float64
        Input with any spatial axes, or none; copied once if it is not C-contiguous.
    kernel_size : int, >= 1
        Channels of a window.
    stride : int, >= 1, optional
        Channels between neighbouring windows; by default `kernel_size`.
    padding : int, or ((lo, hi),)
        Channels of zeros before and after those of x; less than a window.
    ceil_mode, count_include_pad, divisor_override
        As for `avg_pool1d`, along the channels.
    out : ndarray, optional
        Where to write y: C-contiguous, of its shape and dtype, no part of x.

    Returns
    -------
    y : (N, OC, ...), dtype of x
        OC = floor((C + lo + hi - kernel_size) / stride) + 1, with ceil for floor in
        `ceil_mode`.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Bound by memory: planes are added as they lie. Sums are of float64.

    References
    ----------
    .. [1] Goodfellow, Warde-Farley, Mirza, Courville and Bengio, Maxout networks,
       ICML 2013, section 2: there with the maximum.

    Examples
    --------
    >>> import numpy as np
    >>> channel_avg_pool(np.array([[1.0, 3.0, 5.0, 9.0]]), 2)
    array([[2., 7.]])
    """
    name = "channel_avg_pool"
    dtype = checked(name, "x", x)
    window = _window(name, kernel_size, stride, padding, ceil_mode)
    task = job(name, 2, "average_fprop", (image_of(name, x.shape), dtype), window)
    divisor = divisor_buffer(name, count_include_pad, divisor_override)
    shape = (x.shape[0], task.result[2], *x.shape[2:])
    y = room(name, out, shape, dtype, x)
    run(task.plan, divisor, flat(x, dtype), y)
    return y


def channel_avg_pool_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    kernel_size: int,
    stride: int | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `channel_avg_pool`: shared out among each window.

    Parameters
    ----------
    grad_output : (N, OC, ...), float32 or float64
        Gradient of the loss with respect to the means.
    input_shape : (N, C, ...)
        Shape of the x that was pooled.
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        What `channel_avg_pool` was called with.
    out : ndarray, optional
        Where to write grad_x, as in `channel_avg_pool`.

    Returns
    -------
    grad_x : input_shape, dtype of grad_output

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> channel_avg_pool_backward(np.array([[2.0, 4.0]]), (1, 4), 2)
    array([[1., 1., 2., 2.]])
    """
    name = "channel_avg_pool_backward"
    dtype = checked(name, "grad_output", grad_output)
    axes = len(input_shape) if isinstance(input_shape, (tuple, list)) else 0
    whole = input_shape_of(name, input_shape, max(axes - 2, 0))
    window = _window(name, kernel_size, stride, padding, ceil_mode)
    task = job(name, 2, "average_dgrad", (image_of(name, whole), dtype), window)
    divisor = divisor_buffer(name, count_include_pad, divisor_override)
    check_gradient(name, grad_output, (whole[0], task.result[2], *whole[2:]))
    grad_x = room(name, out, whole, dtype, grad_output)
    run(task.plan, divisor, flat(grad_output, dtype), grad_x)
    return grad_x


def _window(
    function: str,
    kernel_size: int,
    stride: int | None,
    padding: Padding,
    ceil_mode: bool,
) -> tuple[Any, ...]:
    """Check the arguments of one axis; give those of the rows of an image."""
    (kernel,) = sizes(function, "kernel_size", kernel_size, 1)
    (step,) = (kernel,) if stride is None else sizes(function, "stride", stride, 1)
    pads = paddings(function, padding, 1)
    if isinstance(pads, str):
        raise TypeError(f"{function}: padding must be integers, got {shown(pads)}")
    return ((kernel, 1), (step, 1), (pads[0], (0, 0)), 1, ceil_mode)
