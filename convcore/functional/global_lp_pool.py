"""Norms of whole channels, forward and backward: Lp pooling with one window.

Each is one function of the rank behind three public doors; the doors for two axes hold
the documentation of all three.
"""

from typing import Any

from convcore.functional._lp_pooling import norms, norms_backward
from convcore.runtime.arrays import Array, checked

__all__ = [
    "global_lp_pool1d",
    "global_lp_pool1d_backward",
    "global_lp_pool2d",
    "global_lp_pool2d_backward",
    "global_lp_pool3d",
    "global_lp_pool3d_backward",
]


def global_lp_pool1d(x: Array, norm_type: float, *, out: Array | None = None) -> Array:
    """Take the p-norm of each channel: `global_lp_pool2d` for one axis.

    Examples
    --------
    >>> import numpy as np
    >>> global_lp_pool1d(np.array([[[3.0, -4.0]]]), 2)
    array([[[5.]]])
    """
    return _global("global_lp_pool1d", 1, x, norm_type, out)


def global_lp_pool2d(x: Array, norm_type: float, *, out: Array | None = None) -> Array:
    """Take the p-norm of each channel.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
    norm_type : float, > 0
        As for `lp_pool2d`.
    out : ndarray, optional
        Where to write y: C-contiguous, of its shape and dtype, no part of an input.

    Returns
    -------
    y : (N, C, 1, 1), dtype of x
        Without N when x came without it.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> global_lp_pool2d(np.array([[[[1.0, -2.0], [2.0, 4.0]]]]), 2)
    array([[[[5.]]]])
    """
    return _global("global_lp_pool2d", 2, x, norm_type, out)


def global_lp_pool3d(x: Array, norm_type: float, *, out: Array | None = None) -> Array:
    """Take the p-norm of each channel: `global_lp_pool2d` for three axes.

    Examples
    --------
    >>> import numpy as np
    >>> global_lp_pool3d(np.full((1, 1, 2, 2, 2), -1.0), float("inf")).ravel()
    array([1.])
    """
    return _global("global_lp_pool3d", 3, x, norm_type, out)


def global_lp_pool1d_backward(
    grad_output: Array,
    x: Array,
    y: Array,
    norm_type: float,
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `global_lp_pool1d`, as `global_lp_pool2d_backward` does.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[3.0, -4.0]]])
    >>> y = global_lp_pool1d(x, 2)
    >>> global_lp_pool1d_backward(np.full_like(y, 10.0), x, y, 2).ravel()
    array([ 6., -8.])
    """
    arrays = (grad_output, x, y)
    return _global_backward("global_lp_pool1d_backward", 1, arrays, norm_type, out)


def global_lp_pool2d_backward(
    grad_output: Array,
    x: Array,
    y: Array,
    norm_type: float,
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `global_lp_pool2d`.

    Parameters
    ----------
    grad_output : (N, C, 1, 1) or (C, 1, 1), float32 or float64
        Gradient of the loss with respect to the norms.
    x, y
        What was pooled, and the norms.
    norm_type : float
        What `global_lp_pool2d` was called with.
    out : ndarray, optional
        Where to write grad_x: C-contiguous, of its shape and dtype, no part of an input.

    Returns
    -------
    grad_x : shape and dtype of x
        As of `lp_pool2d_backward`.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[3.0], [-4.0]]]])
    >>> y = global_lp_pool2d(x, 2)
    >>> global_lp_pool2d_backward(np.full_like(y, 10.0), x, y, 2).ravel()
    array([ 6., -8.])
    """
    arrays = (grad_output, x, y)
    return _global_backward("global_lp_pool2d_backward", 2, arrays, norm_type, out)


def global_lp_pool3d_backward(
    grad_output: Array,
    x: Array,
    y: Array,
    norm_type: float,
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `global_lp_pool3d`, as `global_lp_pool2d_backward` does.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[[3.0]], [[-4.0]]]]])
    >>> y = global_lp_pool3d(x, 2)
    >>> global_lp_pool3d_backward(np.full_like(y, 10.0), x, y, 2).ravel()
    array([ 6., -8.])
    """
    arrays = (grad_output, x, y)
    return _global_backward("global_lp_pool3d_backward", 3, arrays, norm_type, out)


def _global(
    function: str, ndim: int, x: Array, norm_type: float, out: Array | None
) -> Array:
    """Do `global_lp_pool` in any rank."""
    return norms(function, ndim, x, norm_type, _whole(function, ndim, x), out)


def _global_backward(
    function: str,
    ndim: int,
    arrays: tuple[Array, Array, Array],
    norm_type: float,
    out: Array | None,
) -> Array:
    """Do `global_lp_pool_backward` in any rank."""
    window = _whole(function, ndim, arrays[1])
    return norms_backward(function, ndim, arrays, norm_type, window, out)


def _whole(function: str, ndim: int, x: Array) -> tuple[Any, ...]:
    """Give the window that is a whole channel."""
    checked(function, "x", x)
    if x.ndim <= ndim or not all(x.shape[-ndim:]):
        return (
            1,
            None,
            0,
            1,
            False,
        )  # refused later, as any x with too few axes or an empty one
    return (x.shape[-ndim:], None, 0, 1, False)
