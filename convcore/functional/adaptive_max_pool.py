"""Maxima over windows that follow from the shapes: global and adaptive max pooling."""

from math import prod
from typing import Any

import numpy as np

from convcore.arguments import boolean
from convcore.functional import _max_pooling
from convcore.functional._choices import scatter
from convcore.functional._outs import Pair, pair
from convcore.functional.adaptive_pool import OutputSize
from convcore.functional.call import apply
from convcore.runtime.arrays import Array, batched_shape, checked, flat, room

__all__ = [
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_backward",
    "global_max_pool1d",
    "global_max_pool1d_backward",
    "global_max_pool2d",
    "global_max_pool2d_backward",
    "global_max_pool3d",
    "global_max_pool3d_backward",
]

_INT64 = np.dtype(np.int64)


def global_max_pool1d(
    x: Array, return_indices: bool = False, *, out: Array | None = None
) -> Any:
    """Take the maximum of each channel; as `global_max_pool2d`.

    x is (N, C, W) or (C, W).

    Examples
    --------
    >>> import numpy as np
    >>> global_max_pool1d(np.array([[[1.0, 5.0, 5.0]]]), return_indices=True)
    (array([[[5.]]]), array([[[1]]]))
    """
    return _global("global_max_pool1d", 1, x, return_indices, out)


def global_max_pool2d(
    x: Array, return_indices: bool = False, *, out: Array | None = None
) -> Any:
    """Take the maximum of each channel.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
        Input; any strides, copied once if it is not C-contiguous. N may be 0.
    return_indices : bool
        Whether to tell where the maxima were.
    out : ndarray, or tuple of two (ndarray or None), optional
        Array for y, or a tuple for y and the indices: contiguous, of their shapes and
        dtypes, that overlap no input. None is for new memory.

    Returns
    -------
    y : (N, C, 1, 1), dtype of x
        Without N when x came without it. NaN where a channel holds one.
    indices : (N, C, 1, 1) int64
        With `return_indices`: row * W + column of the first NaN of each channel, or else
        of the first of equal maxima.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Bound by memory: x is read once.

    Examples
    --------
    >>> import numpy as np
    >>> global_max_pool2d(np.array([[[[1.0, 5.0], [5.0, 3.0]]]]), return_indices=True)
    (array([[[[5.]]]]), array([[[[1]]]]))
    """
    return _global("global_max_pool2d", 2, x, return_indices, out)


def global_max_pool3d(
    x: Array, return_indices: bool = False, *, out: Array | None = None
) -> Any:
    """Take the maximum of each channel; as `global_max_pool2d`.

    x is (N, C, D, H, W) or (C, D, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> global_max_pool3d(np.arange(8.0).reshape(1, 1, 2, 2, 2)).item()
    7.0
    """
    return _global("global_max_pool3d", 3, x, return_indices, out)


def adaptive_max_pool1d(
    x: Array,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Take maxima over equal parts; as `adaptive_max_pool2d`.

    x is (N, C, W) or (C, W).

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_max_pool1d(np.array([[[1.0, 2.0, 4.0]]]), 2, return_indices=True)
    (array([[[2., 4.]]]), array([[[1, 2]]]))
    """
    return _adaptive("adaptive_max_pool1d", 1, x, output_size, return_indices, out)


def adaptive_max_pool2d(
    x: Array,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Take maxima over equal parts of two axes, as near as may be.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
        Input; any strides, copied once if it is not C-contiguous. N may be 0.
    output_size : int or (int, int), >= 1
        Maxima along each axis; None in a pair keeps the extent of x.
    return_indices : bool
        Whether to tell where the maxima were.
    out : ndarray, or tuple of two (ndarray or None), optional
        Array for y, or a tuple for y and the indices: contiguous, of their shapes and
        dtypes, that overlap no input. None is for new memory.

    Returns
    -------
    y : (N, C, OH, OW), dtype of x
        Row o is the maximum over rows floor(o * H / OH) to ceil((o + 1) * H / OH) - 1 of
        x, columns likewise; NaN where a window holds one.
    indices : (N, C, OH, OW) int64
        With `return_indices`: row * W + column of the first NaN of each window, or else
        of the first of equal maxima.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Windows are searched one by one.

    References
    ----------
    .. [1] He, Zhang, Ren and Sun, Spatial pyramid pooling in deep convolutional
       networks for visual recognition, arXiv:1406.4729, section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_max_pool2d(np.arange(6.0).reshape(1, 1, 2, 3), (1, 2))
    array([[[[4., 5.]]]])
    """
    return _adaptive("adaptive_max_pool2d", 2, x, output_size, return_indices, out)


def adaptive_max_pool3d(
    x: Array,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Take maxima over equal parts; as `adaptive_max_pool2d`.

    x is (N, C, D, H, W) or (C, D, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_max_pool3d(np.arange(8.0).reshape(1, 1, 2, 2, 2), (2, 1, 1)).ravel()
    array([3., 7.])
    """
    return _adaptive("adaptive_max_pool3d", 3, x, output_size, return_indices, out)


def global_max_pool1d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `global_max_pool1d`, as `global_max_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.full((1, 1, 1), 6.0), np.full((1, 1, 1), 1)
    >>> global_max_pool1d_backward(grad, indices, (1, 1, 3)).ravel()
    array([0., 6., 0.])
    """
    gradient = (grad_output, indices, input_shape)
    return scatter("global_max_pool1d_backward", 1, gradient, out)


def global_max_pool2d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `global_max_pool2d`: each goes to the element that won.

    Parameters
    ----------
    grad_output : (N, C, 1, 1) or (C, 1, 1), float32 or float64
        Gradient of the loss with respect to the maxima.
    indices : shape of grad_output, int64
        What `global_max_pool2d` gave with `return_indices`.
    input_shape : (N, C, H, W) or (C, H, W)
        Shape of the x that was pooled.
    out : ndarray, optional
        Array for grad_x: contiguous, of its shape and dtype, that overlaps no input.

    Returns
    -------
    grad_x : input_shape, dtype of grad_output
        Gradients of an element that won several windows are added in their order.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.array([[[[6.0]]]]), np.array([[[[1]]]])
    >>> global_max_pool2d_backward(grad, indices, (1, 1, 1, 3))
    array([[[[0., 6., 0.]]]])
    """
    gradient = (grad_output, indices, input_shape)
    return scatter("global_max_pool2d_backward", 2, gradient, out)


def global_max_pool3d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `global_max_pool3d`, as `global_max_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.full((1, 1, 1, 1, 1), 6.0), np.full((1, 1, 1, 1, 1), 1)
    >>> global_max_pool3d_backward(grad, indices, (1, 1, 1, 1, 3)).ravel()
    array([0., 6., 0.])
    """
    gradient = (grad_output, indices, input_shape)
    return scatter("global_max_pool3d_backward", 3, gradient, out)


def adaptive_max_pool1d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `adaptive_max_pool1d`, as `adaptive_max_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.full((1, 1, 1), 6.0), np.full((1, 1, 1), 1)
    >>> adaptive_max_pool1d_backward(grad, indices, (1, 1, 3)).ravel()
    array([0., 6., 0.])
    """
    gradient = (grad_output, indices, input_shape)
    return scatter("adaptive_max_pool1d_backward", 1, gradient, out)


def adaptive_max_pool2d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `adaptive_max_pool2d`: each goes to the element that won.

    Parameters
    ----------
    grad_output : (N, C, OH, OW) or (C, OH, OW), float32 or float64
        Gradient of the loss with respect to the maxima.
    indices : shape of grad_output, int64
        What `adaptive_max_pool2d` gave with `return_indices`.
    input_shape : (N, C, H, W) or (C, H, W)
        Shape of the x that was pooled.
    out : ndarray, optional
        Array for grad_x: contiguous, of its shape and dtype, that overlaps no input.

    Returns
    -------
    grad_x : input_shape, dtype of grad_output
        Gradients of an element that won several windows are added in their order.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.array([[[[6.0]]]]), np.array([[[[1]]]])
    >>> adaptive_max_pool2d_backward(grad, indices, (1, 1, 1, 3))
    array([[[[0., 6., 0.]]]])
    """
    gradient = (grad_output, indices, input_shape)
    return scatter("adaptive_max_pool2d_backward", 2, gradient, out)


def adaptive_max_pool3d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `adaptive_max_pool3d`, as `adaptive_max_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.full((1, 1, 1, 1, 1), 6.0), np.full((1, 1, 1, 1, 1), 1)
    >>> adaptive_max_pool3d_backward(grad, indices, (1, 1, 1, 1, 3)).ravel()
    array([0., 6., 0.])
    """
    gradient = (grad_output, indices, input_shape)
    return scatter("adaptive_max_pool3d_backward", 3, gradient, out)


def _global(
    function: str, ndim: int, x: Array, return_indices: bool, out: Pair | None
) -> Any:
    """Do `global_max_pool` in any rank."""
    boolean(function, "return_indices", return_indices)
    dtype = checked(function, "x", x)
    whole, _ = batched_shape(function, "x", x.shape, ndim)
    if min(whole[1:]) < 1:
        raise ValueError(
            f"{function}: every extent of x but the batch must be >= 1, got {x.shape}"
        )
    shape = (*x.shape[: x.ndim - ndim], *(1,) * ndim)
    indices = None
    if return_indices:
        y, indices = pair(function, out, shape, (dtype, _INT64), x)
    else:
        y = room(function, out, shape, dtype, x)
    sizes = (y.size, prod(whole[2:]), 1)
    apply("pool_select", "maxima", sizes, flat(x, dtype), y, indices, work=x.size)
    return y if indices is None else (y, indices)


def _adaptive(
    function: str,
    ndim: int,
    x: Array,
    output_size: OutputSize,
    return_indices: bool,
    out: Pair | None,
) -> Any:
    """Do `adaptive_max_pool` in any rank."""
    boolean(function, "return_indices", return_indices)
    labels = _INT64 if return_indices else None
    window = (output_size,)
    y, indices = _max_pooling.max_pool(function, ndim, x, window, labels, out, True)
    return y if indices is None else (y, indices)
