"""Sums of windows, forward and backward, for 1, 2 and 3 axes.

A sum is a mean that is divided by 1: see `avg_pool2d`.
"""

from convcore.functional._framed import average, average_backward
from convcore.problem import Padding, Size
from convcore.runtime.arrays import Array

__all__ = [
    "sum_pool1d",
    "sum_pool1d_backward",
    "sum_pool2d",
    "sum_pool2d_backward",
    "sum_pool3d",
    "sum_pool3d_backward",
]

_BY_ONE = (True, 1)  # the divisor


def sum_pool1d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Take the sum of each window: as `sum_pool2d`, with x (N, C, W) or (C, W).

    Examples
    --------
    >>> import numpy as np
    >>> sum_pool1d(np.array([[[1.0, 2.0, 3.0, 4.0]]]), 2)
    array([[[3., 7.]]])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    around = (padding_mode, padding_value)
    return average("sum_pool1d", 1, x, _BY_ONE, window, around, out)


def sum_pool2d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Take the sum of each window along two axes.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
    kernel_size, stride, padding, ceil_mode, padding_mode, padding_value
        As for `avg_pool2d`.
    out : ndarray, optional
        Where to write y: C-contiguous, of its shape and dtype, no part of an input.

    Returns
    -------
    y : (N, C, OH, OW), dtype of x
        Shape as for `avg_pool2d`; padding adds nothing.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Sums are of float64 whatever the dtype, rounded once; bound by memory.

    Examples
    --------
    >>> import numpy as np
    >>> sum_pool2d(np.arange(9.0).reshape(1, 1, 3, 3), 2, stride=1)
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    around = (padding_mode, padding_value)
    return average("sum_pool2d", 2, x, _BY_ONE, window, around, out)


def sum_pool3d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Take the sum of each window: as `sum_pool2d`, with x (N, C, D, H, W) or (C, D, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> sum_pool3d(np.arange(16.0).reshape(1, 1, 4, 2, 2), 2).ravel()
    array([28., 92.])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    around = (padding_mode, padding_value)
    return average("sum_pool3d", 3, x, _BY_ONE, window, around, out)


def sum_pool1d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `sum_pool1d`, as `sum_pool2d_backward` does.

    Examples
    --------
    >>> import numpy as np
    >>> sum_pool1d_backward(np.array([[[2.0, 4.0]]]), (1, 1, 5), 2, stride=3)
    array([[[2., 2., 0., 4., 4.]]])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    gradient = (grad_output, input_shape)
    name = "sum_pool1d_backward"
    around = (padding_mode, padding_value)
    return average_backward(name, 1, gradient, _BY_ONE, window, around, out)


def sum_pool2d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `sum_pool2d`: each goes to all of its window.

    Parameters
    ----------
    grad_output : (N, C, OH, OW) or (C, OH, OW), float32 or float64
        Gradient of the loss with respect to the sums.
    input_shape : (N, C, H, W) or (C, H, W)
        Shape of the x that was pooled.
    kernel_size, stride, padding, ceil_mode, padding_mode, padding_value
        What `sum_pool2d` was called with.
    out : ndarray, optional
        Where to write grad_x: C-contiguous, of its shape and dtype, no part of an input.

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
    >>> sum_pool2d_backward(np.ones((1, 1, 2, 2)), (1, 1, 3, 3), 2, stride=1)
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    gradient = (grad_output, input_shape)
    name = "sum_pool2d_backward"
    around = (padding_mode, padding_value)
    return average_backward(name, 2, gradient, _BY_ONE, window, around, out)


def sum_pool3d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `sum_pool3d`, as `sum_pool2d_backward` does.

    Examples
    --------
    >>> import numpy as np
    >>> sum_pool3d_backward(np.array([[[[[2.0]]]]]), (1, 1, 2, 2, 2), 2).ravel()
    array([2., 2., 2., 2., 2., 2., 2., 2.])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    gradient = (grad_output, input_shape)
    name = "sum_pool3d_backward"
    around = (padding_mode, padding_value)
    return average_backward(name, 3, gradient, _BY_ONE, window, around, out)
