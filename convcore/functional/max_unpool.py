"""Max unpooling: values back to where their maxima were, zeros elsewhere."""

from math import prod
from typing import Any

from convcore.functional._choices import follow, scattered_shape
from convcore.functional._pooling import check_gradient, index_array
from convcore.problem import Size
from convcore.runtime.arrays import Array, checked, flat
from convcore.runtime.workspace import ALIGNMENT

__all__ = [
    "max_unpool1d",
    "max_unpool1d_backward",
    "max_unpool2d",
    "max_unpool2d_backward",
    "max_unpool3d",
    "max_unpool3d_backward",
]


def max_unpool1d(
    x: Array,
    indices: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: tuple[int, ...] | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Put the values of max pooling back; as `max_unpool2d`.

    x is (N, C, W) or (C, W).

    Examples
    --------
    >>> import numpy as np
    >>> max_unpool1d(np.array([[[5.0, 7.0]]]), np.array([[[1, 2]]]), 2)
    array([[[0., 5., 7., 0.]]])
    """
    window = (kernel_size, stride, padding, output_size)
    return _max_unpool("max_unpool1d", 1, x, indices, window, out)


def max_unpool2d(
    x: Array,
    indices: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: tuple[int, ...] | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Put the values of max pooling back to where they came from.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
        Maxima, or values for their places.
    indices : shape of x, int64
        row * W + column in the channel of y, as `max_pool2d` gives them.
    kernel_size, stride, padding : int or one int per axis
        What `max_pool2d` was called with; they tell the shape of y.
    output_size : one int per axis, or a whole shape, optional
        Extents of y, where pooling left out some: less than a stride from the default.
    out : ndarray, optional
        Array for y: contiguous, of its shape and dtype, that overlaps no input.

    Returns
    -------
    y : (N, C, H, W), dtype of x
        H = (OH - 1) * stride - 2 * padding + KH by default, W likewise. 0 where no index
        points. Where several do, the value of the last one in index order.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Every index has to lie in its channel; that is checked before anything is written.

    References
    ----------
    .. [1] Zeiler and Fergus, Visualizing and understanding convolutional networks,
       arXiv:1311.2901, section 2.1.

    Examples
    --------
    >>> import numpy as np
    >>> max_unpool2d(np.array([[[[5.0]]]]), np.array([[[[2]]]]), 2)
    array([[[[0., 0.],
             [5., 0.]]]])
    """
    window = (kernel_size, stride, padding, output_size)
    return _max_unpool("max_unpool2d", 2, x, indices, window, out)


def max_unpool3d(
    x: Array,
    indices: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: tuple[int, ...] | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Put the values of max pooling back; as `max_unpool2d`.

    x is (N, C, D, H, W) or (C, D, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> max_unpool3d(np.full((1, 1, 1, 1, 1), 5.0), np.full((1, 1, 1, 1, 1), 6), 2).ravel()
    array([0., 0., 0., 0., 0., 0., 5., 0.])
    """
    window = (kernel_size, stride, padding, output_size)
    return _max_unpool("max_unpool3d", 3, x, indices, window, out)


def max_unpool1d_backward(
    grad_output: Array, indices: Array, *, out: Array | None = None
) -> Array:
    """Compute the gradient of `max_unpool1d`, as `max_unpool2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> max_unpool1d_backward(np.array([[[1.0, 2.0, 4.0]]]), np.array([[[2, 0]]]))
    array([[[4., 1.]]])
    """
    return _max_unpool_backward("max_unpool1d_backward", 1, grad_output, indices, out)


def max_unpool2d_backward(
    grad_output: Array, indices: Array, *, out: Array | None = None
) -> Array:
    """Compute the gradient of `max_unpool2d`: each is taken from its place.

    Parameters
    ----------
    grad_output : (N, C, H, W) or (C, H, W), float32 or float64
        Gradient of the loss with respect to y.
    indices : (N, C, OH, OW) or (C, OH, OW), int64
        As in the forward call.
    out : ndarray, optional
        Array for grad_x: contiguous, of its shape and dtype, that overlaps no input.

    Returns
    -------
    grad_x : shape of indices, dtype of grad_output
        0 for a value that a later one with the same index had replaced.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> grad = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> max_unpool2d_backward(grad, np.array([[[[2, 2, 1]]]]))
    array([[[[0., 3., 2.]]]])
    """
    return _max_unpool_backward("max_unpool2d_backward", 2, grad_output, indices, out)


def max_unpool3d_backward(
    grad_output: Array, indices: Array, *, out: Array | None = None
) -> Array:
    """Compute the gradient of `max_unpool3d`, as `max_unpool2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> grad = np.arange(8.0).reshape(1, 1, 2, 2, 2)
    >>> max_unpool3d_backward(grad, np.full((1, 1, 1, 1, 1), 6)).item()
    6.0
    """
    return _max_unpool_backward("max_unpool3d_backward", 3, grad_output, indices, out)


def _max_unpool(
    function: str,
    ndim: int,
    x: Array,
    indices: Array,
    window: tuple[Any, ...],
    out: Array | None,
) -> Array:
    """Do `max_unpool` in any rank."""
    dtype = checked(function, "x", x)
    indices = index_array(function, indices, x, "x")
    shape = scattered_shape(function, ndim, x.shape, window)
    arrays = (x, flat(x, dtype), indices, shape)
    return follow(function, ndim, "put", shape, arrays, out)


def _max_unpool_backward(
    function: str, ndim: int, grad_output: Array, indices: Array, out: Array | None
) -> Array:
    """Do `max_unpool_backward` in any rank."""
    dtype = checked(function, "grad_output", grad_output)
    indices = index_array(function, indices, None)
    lead = grad_output.ndim - ndim
    if lead not in (1, 2) or grad_output.shape[:lead] != indices.shape[:lead]:
        shape = (*indices.shape[:lead], *grad_output.shape[lead:])
        check_gradient(function, grad_output, shape)
        raise ValueError(
            f"{function}: grad_output must have {ndim + 2} axes or {ndim + 1}, got "
            f"{grad_output.shape}"
        )
    if indices.ndim != grad_output.ndim:
        raise ValueError(
            f"{function}: indices must have as many axes as grad_output, got "
            f"{indices.shape} and {grad_output.shape}"
        )
    source = flat(grad_output, dtype)
    arrays = (grad_output, source, indices, indices.shape)
    shape = grad_output.shape
    cells = prod(shape[-ndim:])
    seen = -(-cells // ALIGNMENT) * ALIGNMENT  # a byte a cell, for each thread
    return follow(function, ndim, "put_gradient", shape, arrays, out, seen)
