"""Max pooling over feature maps: each group of neighbouring channels keeps its greatest."""

from typing import Any

import numpy as np

from convcore.arguments import boolean, integer
from convcore.functional import _max_pooling
from convcore.functional._outs import pair
from convcore.functional._pooling import (
    check_gradient,
    image_of,
    index_array,
    input_shape_of,
    job,
)
from convcore.runtime import buffers
from convcore.runtime.arrays import Array, checked, flat, room

__all__ = ["channel_max_pool", "channel_max_pool_backward"]

_INT64 = np.dtype(np.int64)


def channel_max_pool(
    x: Array,
    kernel_size: int,
    stride: int | None = None,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Take the maximum over neighbouring channels, element by element.

    Parameters
    ----------
    x : (N, C, ...) float32 or float64
        Input; any strides, copied once if it is not C-contiguous. N may be 0.
    kernel_size : int, >= 1
        Channels that compete. With the default stride this is maxout, with so many
        pieces.
    stride : int, >= 1, optional
        Channels between neighbouring groups; by default `kernel_size`.
    return_indices : bool
        Whether to tell which channels won.
    out : ndarray, or tuple of two (ndarray or None), optional
        Array for y, or a tuple for y and the indices: contiguous, of their shapes and
        dtypes, that overlap no input. None is for new memory.

    Returns
    -------
    y : (N, (C - kernel_size) // stride + 1, ...), dtype of x
        NaN where a group holds one.
    indices : shape of y, int64
        With `return_indices`: the channel of the first NaN of each group, or else of the
        first of equal maxima.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    The channels of a sample are the rows of one image, in which `max_pool2d` has a window
    of one column.

    References
    ----------
    .. [1] Goodfellow, Warde-Farley, Mirza, Courville and Bengio, Maxout networks,
       arXiv:1302.4389, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> channel_max_pool(np.array([[1.0, 5.0, 4.0, 2.0]]), 2, return_indices=True)
    (array([[5., 4.]]), array([[1, 2]]))
    """
    name = "channel_max_pool"
    boolean(name, "return_indices", return_indices)
    dtype = checked(name, "x", x)
    image = image_of(name, x.shape)
    window = window_of(name, kernel_size, stride)
    rows = job(name, 2, "max_values", (image, dtype), window).result[2]
    shape = (x.shape[0], rows, *x.shape[2:])
    pooled = (image[0], 1, rows, image[3])
    source = flat(x, dtype).reshape(image)
    if not return_indices:
        y = room(name, out, shape, dtype, x)
        _max_pooling.max_pool(name, 2, source, window, None, y.reshape(pooled))
        return y
    y, found = pair(name, out, shape, (dtype, _INT64), x)
    views = y.reshape(pooled), found.reshape(pooled)
    _max_pooling.max_pool(name, 2, source, window, _INT64, views)
    np.floor_divide(found, image[3], out=found)
    return y, found


def channel_max_pool_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    kernel_size: int,
    stride: int | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `channel_max_pool`: each goes to the channel that won.

    Parameters
    ----------
    grad_output : shape of y, float32 or float64
        Gradient of the loss with respect to the maxima.
    indices : shape of grad_output, int64
        What `channel_max_pool` gave with `return_indices`.
    input_shape : (N, C, ...)
        Shape of the x that was pooled.
    kernel_size, stride
        As in the forward call.
    out : ndarray, optional
        Array for grad_x: contiguous, of its shape and dtype, that overlaps no input.

    Returns
    -------
    grad_x : input_shape, dtype of grad_output

    Raises
    ------
    ValueError
        For a value or shape that does not fit, and when an index is not in its group.
    TypeError
        For a type or dtype that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> channel_max_pool_backward(np.array([[7.0]]), np.array([[1]]), (1, 2), 2)
    array([[0., 7.]])
    """
    name = "channel_max_pool_backward"
    dtype = checked(name, "grad_output", grad_output)
    axes = len(input_shape) if isinstance(input_shape, (tuple, list)) else 0
    shape = input_shape_of(name, input_shape, max(axes - 2, 0))
    image = image_of(name, shape)
    window = window_of(name, kernel_size, stride)
    pooled = job(name, 2, "max_dgrad", (image, dtype), window).result
    check_gradient(name, grad_output, (shape[0], pooled[2], *shape[2:]))
    indices = index_array(name, indices, grad_output)
    if indices.size and not 0 <= indices.min() <= indices.max() < image[2]:
        wild = (indices < 0) | (indices >= image[2])
        where = tuple(map(int, np.argwhere(wild)[0]))
        raise ValueError(
            f"{name}: indices must be channels, 0 .. {image[2] - 1}, got "
            f"{indices[where]} at {where}"
        )
    places = buffers.empty(pooled, _INT64)
    np.multiply(indices.reshape(pooled), image[3], out=places)
    places += np.arange(image[3])
    gradient = (flat(grad_output, dtype).reshape(pooled), places, image)
    grad_x = room(name, out, shape, dtype, grad_output, indices)
    _max_pooling.max_pool_backward(name, 2, gradient, window, grad_x.reshape(image))
    return grad_x


def window_of(function: str, kernel_size: int, stride: int | None) -> tuple[Any, ...]:
    """Give the window of `max_pool2d` over channels that are rows."""
    kernel = integer(function, "kernel_size", kernel_size, 1)
    step = kernel if stride is None else integer(function, "stride", stride, 1)
    return (kernel, 1), (step, 1), 0, 1, False
