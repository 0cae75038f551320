"""Max pooling over feature maps: each group of neighbouring channels keeps its greatest."""

from typing import Any

import numpy as np

from convcore.arguments import boolean, integer
from convcore.functional import _max_pooling
from convcore.functional._outs import pair
from convcore.functional._pooling import (
    Shape,
    check_gradient,
    image_of,
    index_array,
    input_shape_of,
    job,
)
from convcore.functional.call import apply
from convcore.runtime.arrays import Array, checked, empty, flat, room

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
    y, indices = pair(name, out, shape, (dtype, _INT64), x)
    view = y.reshape(pooled)
    labels = _max_pooling.label_type(name, 2, source, window)
    if labels == _INT64:
        both = view, indices.reshape(pooled)
        _max_pooling.max_pool(name, 2, source, window, labels, both)
        np.floor_divide(indices, image[3], out=indices)
        return y, indices
    _, found = _max_pooling.max_pool(name, 2, source, window, labels, view)
    sizes = _sizes(image, rows, window)
    apply("pool_channels", "indices", sizes, found, indices, work=y.size)
    return y, indices


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
    sizes, found = _sizes(image, pooled[2], window), np.empty(1, np.int64)
    if out is not None:  # nothing is written to it before all indices are checked
        apply("pool_channels", "check", sizes, indices, found, work=indices.size)
        _refuse(name, indices, sizes, found)
    grad_x = room(name, out, shape, dtype, grad_output, indices)
    source = flat(grad_output, dtype)
    work = grad_x.size + grad_output.size
    apply("pool_channels", "dgrad", sizes, source, indices, grad_x, found, work=work)
    _refuse(name, indices, sizes, found)
    return grad_x


def gradient_of_taps(
    function: str,
    grad_output: Array,
    taps: Array,
    image: Shape,
    window: tuple[Any, ...],
) -> Array:
    """Compute the gradient of an image from bytes that `max_pool` gave."""
    dtype = checked(function, "grad_output", grad_output)
    sizes, found = _sizes(image, taps.shape[2], window), np.empty(1, np.int64)
    grad_x, source = empty(image, dtype), flat(grad_output, dtype)
    work = grad_x.size + grad_output.size
    apply("pool_channels", "dgrad", sizes, source, taps, grad_x, found, work=work)
    return grad_x


def _sizes(image: Shape, groups: int, window: tuple[Any, ...]) -> tuple[int, ...]:
    """Give what the kernel has to know."""
    (kernel, _), (stride, _) = window[:2]
    return image[0], image[2], image[3], groups, kernel, stride


def _refuse(
    function: str, indices: Array, sizes: tuple[int, ...], found: Array
) -> None:
    """Raise if the kernel has found a bad index: it tells only that."""
    if not found[0]:
        return
    _, channels, _, groups, kernel, stride = sizes
    first = np.arange(groups).reshape(-1, *(1,) * (indices.ndim - 2)) * stride
    wild = (indices < 0) | (indices >= channels)
    if wild.any():
        rule = f"be channels, 0 .. {channels - 1}"
    else:
        wild = (indices < first) | (indices >= first + kernel)
        rule = f"each lie in their own window of {kernel} channels"
    where = tuple(map(int, np.unravel_index(np.argmax(wild), wild.shape)))
    raise ValueError(
        f"{function}: indices must {rule}, got {indices[where]} at {where}"
    )


def window_of(function: str, kernel_size: int, stride: int | None) -> tuple[Any, ...]:
    """Give the window of `max_pool2d` over channels that are rows."""
    kernel = integer(function, "kernel_size", kernel_size, 1)
    step = kernel if stride is None else integer(function, "stride", stride, 1)
    return (kernel, 1), (step, 1), 0, 1, False
