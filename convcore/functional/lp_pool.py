"""Lp pooling, of windows and of whole channels, forward and backward.

Each operation is one function of the rank behind three public doors; the doors for two
axes hold the documentation of all three.
"""

import math
import struct
from functools import lru_cache
from typing import Any

import numpy as np

from convcore.arguments import real
from convcore.functional._pooling import check_gradient, job, room
from convcore.functional.call import run
from convcore.functional.max_pool import (
    max_pool1d,
    max_pool1d_backward,
    max_pool2d,
    max_pool2d_backward,
    max_pool3d,
    max_pool3d_backward,
)
from convcore.problem import Padding, Size
from convcore.runtime.arrays import Array, checked, flat

__all__ = [
    "global_lp_pool1d",
    "global_lp_pool1d_backward",
    "global_lp_pool2d",
    "global_lp_pool2d_backward",
    "global_lp_pool3d",
    "global_lp_pool3d_backward",
    "lp_pool1d",
    "lp_pool1d_backward",
    "lp_pool2d",
    "lp_pool2d_backward",
    "lp_pool3d",
    "lp_pool3d_backward",
]

_MAX = {1: max_pool1d, 2: max_pool2d, 3: max_pool3d}
_MAX_BACKWARD = {1: max_pool1d_backward, 2: max_pool2d_backward, 3: max_pool3d_backward}


def lp_pool1d(
    x: Array,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    out: Array | None = None,
) -> Array:
    """Take the p-norm of each window: `lp_pool2d` for one axis.

    Examples
    --------
    >>> import numpy as np
    >>> lp_pool1d(np.array([[[3.0, -4.0, 0.0, 2.0]]]), 2, 2)
    array([[[5., 2.]]])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    return _norms("lp_pool1d", 1, x, norm_type, window, out)


def lp_pool2d(
    x: Array,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    out: Array | None = None,
) -> Array:
    """Take the p-norm of each window along two axes: (sum of |x|^p)^(1/p).

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
        Input; any strides, copied once if it is not C-contiguous. N may be 0.
    norm_type : float, > 0
        p: 1 sums magnitudes, 2 is the Euclidean norm, infinity the largest magnitude.
    kernel_size, stride, padding, ceil_mode
        As for `max_pool2d`; padding adds nothing.
    out : ndarray, optional
        Where to write y: C-contiguous, of its shape and dtype, no part of an input.

    Returns
    -------
    y : (N, C, OH, OW), dtype of x
        Shape as for `max_pool2d`.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Sums are of float64 whatever the dtype, and rounded once. For p of 1 and 2, bound by
    memory; for others by `pow`, some 10 ns for each element and row of windows over it.
    Infinite p is a maximum of magnitudes, by way of two temporary arrays.

    torch has no magnitude: its odd powers keep the sign, and a window whose sum is negative
    gives 0; nor does it have `padding`. It scales windows that hang over the end in
    `ceil_mode` as if they were whole; here they are sums of what exists.

    References
    ----------
    .. [1] Gulcehre, Cho, Pascanu and Bengio, Learned-norm pooling for deep feedforward
       and recurrent neural networks, arXiv:1311.1780, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> lp_pool2d(np.array([[[[1.0, -2.0], [2.0, 4.0]]]]), 2, 2)
    array([[[[5.]]]])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    return _norms("lp_pool2d", 2, x, norm_type, window, out)


def lp_pool3d(
    x: Array,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    out: Array | None = None,
) -> Array:
    """Take the p-norm of each window: `lp_pool2d` for three axes.

    Examples
    --------
    >>> import numpy as np
    >>> lp_pool3d(np.full((1, 1, 2, 2, 2), -1.0), 1, 2).ravel()
    array([8.])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    return _norms("lp_pool3d", 3, x, norm_type, window, out)


def lp_pool1d_backward(
    grad_output: Array,
    x: Array,
    y: Array,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `lp_pool1d`, as `lp_pool2d_backward` does.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[3.0, -4.0]]])
    >>> y = lp_pool1d(x, 2, 2)
    >>> lp_pool1d_backward(np.full_like(y, 10.0), x, y, 2, 2).ravel()
    array([ 6., -8.])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    arrays = (grad_output, x, y)
    return _norms_backward("lp_pool1d_backward", 1, arrays, norm_type, window, out)


def lp_pool2d_backward(
    grad_output: Array,
    x: Array,
    y: Array,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `lp_pool2d`.

    Parameters
    ----------
    grad_output : (N, C, OH, OW) or (C, OH, OW), float32 or float64
        Gradient of the loss with respect to the norms.
    x, y
        What was pooled, and the norms.
    norm_type, kernel_size, stride, ceil_mode, padding
        What `lp_pool2d` was called with.
    out : ndarray, optional
        Where to write grad_x: C-contiguous, of its shape and dtype, no part of an input.

    Returns
    -------
    grad_x : shape and dtype of x
        sign(x) |x|^(p-1) times the sum of grad_output * y^(1-p) over the windows that hold
        the element. Zeros get 0, also where the power has no slope there; for infinite p,
        the first of the largest magnitudes of a window gets all of its gradient.

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
    >>> y = lp_pool2d(x, 2, (2, 1))
    >>> lp_pool2d_backward(np.full_like(y, 10.0), x, y, 2, (2, 1)).ravel()
    array([ 6., -8.])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    arrays = (grad_output, x, y)
    return _norms_backward("lp_pool2d_backward", 2, arrays, norm_type, window, out)


def lp_pool3d_backward(
    grad_output: Array,
    x: Array,
    y: Array,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `lp_pool3d`, as `lp_pool2d_backward` does.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[[3.0]], [[-4.0]]]]])
    >>> y = lp_pool3d(x, 2, (2, 1, 1))
    >>> lp_pool3d_backward(np.full_like(y, 10.0), x, y, 2, (2, 1, 1)).ravel()
    array([ 6., -8.])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    arrays = (grad_output, x, y)
    return _norms_backward("lp_pool3d_backward", 3, arrays, norm_type, window, out)


def global_lp_pool1d(x: Array, norm_type: float, *, out: Array | None = None) -> Array:
    """Take the p-norm of each channel: `global_lp_pool2d` for one axis.

    Examples
    --------
    >>> import numpy as np
    >>> global_lp_pool1d(np.array([[[3.0, -4.0]]]), 2)
    array([[[5.]]])
    """
    name = "global_lp_pool1d"
    return _norms(name, 1, x, norm_type, _whole(name, 1, x), out)


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
    name = "global_lp_pool2d"
    return _norms(name, 2, x, norm_type, _whole(name, 2, x), out)


def global_lp_pool3d(x: Array, norm_type: float, *, out: Array | None = None) -> Array:
    """Take the p-norm of each channel: `global_lp_pool2d` for three axes.

    Examples
    --------
    >>> import numpy as np
    >>> global_lp_pool3d(np.full((1, 1, 2, 2, 2), -1.0), float("inf")).ravel()
    array([1.])
    """
    name = "global_lp_pool3d"
    return _norms(name, 3, x, norm_type, _whole(name, 3, x), out)


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
    name = "global_lp_pool1d_backward"
    arrays = (grad_output, x, y)
    return _norms_backward(name, 1, arrays, norm_type, _whole(name, 1, x), out)


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
    name = "global_lp_pool2d_backward"
    arrays = (grad_output, x, y)
    return _norms_backward(name, 2, arrays, norm_type, _whole(name, 2, x), out)


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
    name = "global_lp_pool3d_backward"
    arrays = (grad_output, x, y)
    return _norms_backward(name, 3, arrays, norm_type, _whole(name, 3, x), out)


def _whole(function: str, ndim: int, x: Array) -> tuple[Any, ...]:
    """Give the window that is a whole channel."""
    checked(function, "x", x)
    if x.ndim <= ndim:
        return (1, None, 0, 1, False)  # refused later, as any x with too few axes
    return (x.shape[-ndim:], None, 0, 1, False)


def _power(function: str, norm_type: float) -> float:
    """Check p."""
    if norm_type == math.inf:
        return math.inf
    power = real(function, "norm_type", norm_type, 0)
    if power == 0:
        raise ValueError(f"{function}: norm_type must be > 0, got {norm_type!r}")
    return power


@lru_cache(maxsize=64)
def _bits(power: float) -> Array:
    """Give p as the kernels read it."""
    bits = np.array(struct.unpack("q", struct.pack("d", power)), np.int64)
    bits.flags.writeable = False
    return bits


def _norms(
    function: str,
    ndim: int,
    x: Array,
    norm_type: float,
    window: tuple[Any, ...],
    out: Array | None,
) -> Array:
    """Do `lp_pool` in any rank."""
    dtype = checked(function, "x", x)
    power = _power(function, norm_type)
    task = job(function, ndim, "power_fprop", (x.shape, dtype), window)
    y = room(function, out, task.result, dtype, x)
    if power == math.inf:
        y[...] = _MAX[ndim](np.abs(flat(x, dtype)), *window)
    else:
        run(task.plan, _bits(power), flat(x, dtype), y)
    return y


def _norms_backward(
    function: str,
    ndim: int,
    arrays: tuple[Array, Array, Array],
    norm_type: float,
    window: tuple[Any, ...],
    out: Array | None,
) -> Array:
    """Do `lp_pool_backward` in any rank."""
    grad_output, x, y = arrays
    dtype = checked(function, "grad_output", grad_output)
    checked(function, "x", x, dtype)
    checked(function, "y", y, dtype)
    power = _power(function, norm_type)
    task = job(function, ndim, "power_dgrad", (x.shape, dtype), window)
    check_gradient(function, grad_output, task.result)
    if y.shape != task.result:
        raise ValueError(
            f"{function}: y must have the result's shape {task.result}, got {y.shape}"
        )
    grad_x = room(function, out, x.shape, dtype, *arrays)
    values = flat(x, dtype)
    if power == math.inf:
        _, indices = _MAX[ndim](np.abs(values), *window, return_indices=True)
        given = _MAX_BACKWARD[ndim](grad_output, indices, x.shape, *window)
        with np.errstate(invalid="ignore"):
            np.multiply(given, np.sign(values), out=grad_x)
    else:
        rest = flat(grad_output, dtype), flat(y, dtype), values
        run(task.plan, _bits(power), *rest, grad_x)
    return grad_x
