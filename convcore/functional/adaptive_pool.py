"""Means over windows that follow from the shapes: global and adaptive average pooling.

Both are one function of the rank behind three public doors; a global mean is an
adaptive one with an output of 1 along each axis.
"""

from collections.abc import Sequence

from convcore.functional._average_pooling import average, average_backward
from convcore.functional._pooling import input_shape_of
from convcore.runtime.arrays import Array, checked

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool1d_backward",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool3d",
    "adaptive_avg_pool3d_backward",
    "global_avg_pool1d",
    "global_avg_pool1d_backward",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "global_avg_pool3d",
    "global_avg_pool3d_backward",
]

OutputSize = int | Sequence[int | None]

_OF_WINDOW = (False, None)  # the divisor: the elements of a window


def global_avg_pool1d(x: Array, *, out: Array | None = None) -> Array:
    """Take the mean of each channel: as `global_avg_pool2d`, for (N, C, W) or (C, W).

    Examples
    --------
    >>> import numpy as np
    >>> global_avg_pool1d(np.array([[[1.0, 2.0, 6.0]]]))
    array([[[3.]]])
    """
    return _adaptive("global_avg_pool1d", 1, x, 1, out)


def global_avg_pool2d(x: Array, *, out: Array | None = None) -> Array:
    """Take the mean of each channel.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
        Input; any strides, copied once if it is not C-contiguous. N may be 0.
    out : ndarray, optional
        Where to write y: C-contiguous, of its shape and dtype, no part of x.

    Returns
    -------
    y : (N, C, 1, 1), dtype of x
        Without N when x came without it.

    Raises
    ------
    ValueError
        For a shape that does not fit.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Bound by memory: x is read once. Sums are of float64, as for `avg_pool2d`.

    References
    ----------
    .. [1] Lin, Chen and Yan, Network in network, arXiv:1312.4400, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> global_avg_pool2d(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[1.5]]]])
    """
    return _adaptive("global_avg_pool2d", 2, x, 1, out)


def global_avg_pool3d(x: Array, *, out: Array | None = None) -> Array:
    """Take the mean of each channel: as `global_avg_pool2d`, for (N, C, D, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> global_avg_pool3d(np.arange(8.0).reshape(1, 2, 2, 1, 2)).ravel()
    array([1.5, 5.5])
    """
    return _adaptive("global_avg_pool3d", 3, x, 1, out)


def global_avg_pool1d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `global_avg_pool1d`, as `global_avg_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> global_avg_pool1d_backward(np.array([[[3.0]]]), (1, 1, 3))
    array([[[1., 1., 1.]]])
    """
    return _adaptive_backward(
        "global_avg_pool1d_backward", 1, grad_output, input_shape, 1, out=out
    )


def global_avg_pool2d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `global_avg_pool2d`: each is shared out in its channel.

    Parameters
    ----------
    grad_output : (N, C, 1, 1) or (C, 1, 1), float32 or float64
        Gradient of the loss with respect to the means.
    input_shape : (N, C, H, W) or (C, H, W)
        Shape of the x that was pooled.
    out : ndarray, optional
        Where to write grad_x: C-contiguous, of its shape and dtype.

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
    >>> global_avg_pool2d_backward(np.array([[[[6.0]]]]), (1, 1, 1, 3))
    array([[[[2., 2., 2.]]]])
    """
    return _adaptive_backward(
        "global_avg_pool2d_backward", 2, grad_output, input_shape, 1, out=out
    )


def global_avg_pool3d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `global_avg_pool3d`, as `global_avg_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> global_avg_pool3d_backward(np.array([[[[[6.0]]]]]), (1, 1, 1, 1, 2)).ravel()
    array([3., 3.])
    """
    return _adaptive_backward(
        "global_avg_pool3d_backward", 3, grad_output, input_shape, 1, out=out
    )


def adaptive_avg_pool1d(
    x: Array, output_size: OutputSize, *, out: Array | None = None
) -> Array:
    """Take means over equal parts of one axis, as near as may be.

    As `adaptive_avg_pool2d`, with x (N, C, W) or (C, W).

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool1d(np.array([[[1.0, 2.0, 4.0]]]), 5)
    array([[[1. , 1.5, 2. , 3. , 4. ]]])
    """
    return _adaptive("adaptive_avg_pool1d", 1, x, output_size, out)


def adaptive_avg_pool2d(
    x: Array, output_size: OutputSize, *, out: Array | None = None
) -> Array:
    """Take means over equal parts of two axes, as near as may be.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
        Input; any strides, copied once if it is not C-contiguous. N may be 0.
    output_size : int or (int, int), >= 1
        Means along each axis; more than there are elements, too. None in a pair keeps
        the extent of x.
    out : ndarray, optional
        Where to write y: C-contiguous, of its shape and dtype, no part of x.

    Returns
    -------
    y : (N, C, OH, OW), dtype of x
        Row o is the mean over rows floor(o * H / OH) to ceil((o + 1) * H / OH) - 1 of
        x, columns likewise; without N when x came without it.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Sums are of float64, and their bits do not depend on the number of threads, as for
    `avg_pool2d`. Neighbouring windows share elements where OH does not divide H.

    References
    ----------
    .. [1] He, Zhang, Ren and Sun, Spatial pyramid pooling in deep convolutional
       networks for visual recognition, arXiv:1406.4729, section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool2d(np.arange(6.0).reshape(1, 1, 2, 3), (1, 2))
    array([[[[2., 3.]]]])
    """
    return _adaptive("adaptive_avg_pool2d", 2, x, output_size, out)


def adaptive_avg_pool3d(
    x: Array, output_size: OutputSize, *, out: Array | None = None
) -> Array:
    """Take means over equal parts of three axes, as near as may be.

    As `adaptive_avg_pool2d`, with x (N, C, D, H, W) or (C, D, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool3d(np.arange(8.0).reshape(1, 1, 2, 2, 2), (2, 1, 1)).ravel()
    array([1.5, 5.5])
    """
    return _adaptive("adaptive_avg_pool3d", 3, x, output_size, out)


def adaptive_avg_pool1d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `adaptive_avg_pool1d`.

    As `adaptive_avg_pool2d_backward`, with one axis.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool1d_backward(np.array([[[2.0, 4.0]]]), (1, 1, 3))
    array([[[1., 3., 2.]]])
    """
    name = "adaptive_avg_pool1d_backward"
    return _adaptive_backward(name, 1, grad_output, input_shape, out=out)


def adaptive_avg_pool2d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `adaptive_avg_pool2d`: each is shared out in its window.

    Parameters
    ----------
    grad_output : (N, C, OH, OW) or (C, OH, OW), float32 or float64
        Gradient of the loss with respect to the means; its extents are what
        `output_size` was.
    input_shape : (N, C, H, W) or (C, H, W)
        Shape of the x that was pooled.
    out : ndarray, optional
        Where to write grad_x: C-contiguous, of its shape and dtype.

    Returns
    -------
    grad_x : input_shape, dtype of grad_output

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Every element gathers from the windows that hold it, as in `avg_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool2d_backward(np.ones((1, 1, 1, 1)), (1, 1, 2, 2))
    array([[[[0.25, 0.25],
             [0.25, 0.25]]]])
    """
    name = "adaptive_avg_pool2d_backward"
    return _adaptive_backward(name, 2, grad_output, input_shape, out=out)


def adaptive_avg_pool3d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `adaptive_avg_pool3d`.

    As `adaptive_avg_pool2d_backward`, with three axes.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool3d_backward(np.ones((1, 1, 1, 1, 1)), (1, 1, 1, 1, 4)).ravel()
    array([0.25, 0.25, 0.25, 0.25])
    """
    name = "adaptive_avg_pool3d_backward"
    return _adaptive_backward(name, 3, grad_output, input_shape, out=out)


def _adaptive(
    function: str, ndim: int, x: Array, output_size: OutputSize, out: Array | None
) -> Array:
    """Do `adaptive_avg_pool` in any rank."""
    return average(function, ndim, x, _OF_WINDOW, (output_size,), True, out)


def _adaptive_backward(
    function: str,
    ndim: int,
    grad_output: Array,
    input_shape: tuple[int, ...],
    output_size: OutputSize | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Do `adaptive_avg_pool_backward` in any rank; by default to grad_output's size."""
    if output_size is None:
        checked(function, "grad_output", grad_output)
        shape = input_shape_of(function, input_shape, ndim)
        if grad_output.ndim != len(shape) or not all(grad_output.shape[-ndim:]):
            raise ValueError(
                f"{function}: grad_output must have {len(shape)} axes as x has, none of "
                f"the last {ndim} empty, got shape {grad_output.shape}"
            )
        output_size = grad_output.shape[-ndim:]
    gradient = (grad_output, input_shape)
    window = (output_size,)
    return average_backward(function, ndim, gradient, _OF_WINDOW, window, True, out)
