"""Blur pooling: a low-pass filter before the stride, forward and backward.

Each operation is one function of the rank behind three public doors; the doors for two
axes hold the documentation of all three.
"""

from functools import lru_cache
from math import prod
from typing import Any, cast

from convcore.functional._pooling import (
    Shape,
    check_gradient,
    input_shape_of,
)
from convcore.functional.call import apply
from convcore.problem import Size
from convcore.problem.border import BORDERS, Border, border, check_reflect
from convcore.problem.rules import (
    check_addressable,
    check_extents,
    fold,
    sizes,
)
from convcore.runtime.arrays import Array, batched_shape, checked, flat, room

__all__ = [
    "blur_pool1d",
    "blur_pool1d_backward",
    "blur_pool2d",
    "blur_pool2d_backward",
    "blur_pool3d",
    "blur_pool3d_backward",
]

_MODES = tuple(mode for mode in BORDERS if mode != "constant")
_MOST = 15  # taps along an axis


def blur_pool1d(
    x: Array,
    kernel_size: Size = 3,
    stride: Size = 2,
    *,
    padding_mode: str = "reflect",
    out: Array | None = None,
) -> Array:
    """Blur, and take every stride-th element: `blur_pool2d` for one axis.

    Examples
    --------
    >>> import numpy as np
    >>> blur_pool1d(np.array([[[4.0, 8.0, 0.0, 4.0]]]))
    array([[[6., 3.]]])
    """
    window = (kernel_size, stride, padding_mode)
    return _blur("blur_pool1d", 1, x, window, out)


def blur_pool2d(
    x: Array,
    kernel_size: Size = 3,
    stride: Size = 2,
    *,
    padding_mode: str = "reflect",
    out: Array | None = None,
) -> Array:
    """Blur with a binomial filter, and take every stride-th element, along two axes.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
        Input; any strides, copied once if it is not C-contiguous. N may be 0.
    kernel_size : int or (int, int), 1 to 15
        Taps of the filter along each axis: 3 is (1, 2, 1) / 4, 5 is (1, 4, 6, 4, 1) / 16.
    stride : int or (int, int), >= 1
        Elements of x between neighbouring results.
    padding_mode : str
        What x continues with, as for `conv2d`, but no constant: (kernel_size - 1) // 2
        elements before each axis, and kernel_size // 2 after it.
    out : ndarray, optional
        Where to write y: C-contiguous, of its shape and dtype, no part of an input.

    Returns
    -------
    y : (N, C, OH, OW), dtype of x
        OH = ceil(H / stride), OW likewise; without N when x came without it.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; "reflect" needs two elements along an axis
        with padding.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Max pooling that is nearly blind to shifts is `max_pool2d` with a stride of 1, then
    this. Sums are of float64, and rounded once.

    References
    ----------
    .. [1] Zhang, Making convolutional networks shift-invariant again, ICML 2019,
       section 3.2; arXiv:1904.11486.

    Examples
    --------
    >>> import numpy as np
    >>> blur_pool2d(np.full((1, 1, 4, 4), 3.0)).ravel()
    array([3., 3., 3., 3.])
    """
    window = (kernel_size, stride, padding_mode)
    return _blur("blur_pool2d", 2, x, window, out)


def blur_pool3d(
    x: Array,
    kernel_size: Size = 3,
    stride: Size = 2,
    *,
    padding_mode: str = "reflect",
    out: Array | None = None,
) -> Array:
    """Blur, and take every stride-th element: `blur_pool2d` for three axes.

    Examples
    --------
    >>> import numpy as np
    >>> blur_pool3d(np.ones((1, 1, 2, 2, 2)), 2).ravel()
    array([1.])
    """
    window = (kernel_size, stride, padding_mode)
    return _blur("blur_pool3d", 3, x, window, out)


def blur_pool1d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    kernel_size: Size = 3,
    stride: Size = 2,
    *,
    padding_mode: str = "reflect",
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `blur_pool1d`, as `blur_pool2d_backward` does.

    Examples
    --------
    >>> import numpy as np
    >>> blur_pool1d_backward(np.array([[[4.0, 8.0]]]), (1, 1, 4))
    array([[[2., 4., 4., 2.]]])
    """
    window = (kernel_size, stride, padding_mode)
    name = "blur_pool1d_backward"
    return _blur_backward(name, 1, grad_output, input_shape, window, out)


def blur_pool2d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    kernel_size: Size = 3,
    stride: Size = 2,
    *,
    padding_mode: str = "reflect",
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `blur_pool2d`.

    Parameters
    ----------
    grad_output : (N, C, OH, OW) or (C, OH, OW), float32 or float64
        Gradient of the loss with respect to the results.
    input_shape : (N, C, H, W) or (C, H, W)
        Shape of the x that was blurred.
    kernel_size, stride, padding_mode
        What `blur_pool2d` was called with.
    out : ndarray, optional
        Where to write grad_x: C-contiguous, of its shape and dtype, no part of an input.

    Returns
    -------
    grad_x : input_shape, dtype of grad_output
        The exact transpose: what fell on padding comes back to where it was copied from.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> blur_pool2d_backward(np.full((1, 1, 1, 1), 16.0), (1, 1, 2, 2))
    array([[[[4., 4.],
             [4., 4.]]]])
    """
    window = (kernel_size, stride, padding_mode)
    name = "blur_pool2d_backward"
    return _blur_backward(name, 2, grad_output, input_shape, window, out)


def blur_pool3d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    kernel_size: Size = 3,
    stride: Size = 2,
    *,
    padding_mode: str = "reflect",
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `blur_pool3d`, as `blur_pool2d_backward` does.

    Examples
    --------
    >>> import numpy as np
    >>> blur_pool3d_backward(np.ones((1, 1, 1, 1, 1)), (1, 1, 1, 1, 2), 1).ravel()
    array([1., 0.])
    """
    window = (kernel_size, stride, padding_mode)
    name = "blur_pool3d_backward"
    return _blur_backward(name, 3, grad_output, input_shape, window, out)


def _blur(
    function: str, ndim: int, x: Array, window: tuple[Any, ...], out: Array | None
) -> Array:
    """Do `blur_pool` in any rank."""
    dtype = checked(function, "x", x)
    geometry, shape, work = _sizes(function, ndim, x.shape, *window)
    y = room(function, out, shape, dtype, x)
    apply("pool_blur", "forward", geometry, flat(x, dtype), y, work=work)
    return y


def _blur_backward(
    function: str,
    ndim: int,
    grad_output: Array,
    input_shape: Shape,
    window: tuple[Any, ...],
    out: Array | None,
) -> Array:
    """Do `blur_pool_backward` in any rank."""
    dtype = checked(function, "grad_output", grad_output)
    whole = input_shape_of(function, input_shape, ndim)
    geometry, shape, work = _sizes(function, ndim, whole, *window)
    check_gradient(function, grad_output, shape)
    grad_x = room(function, out, whole, dtype, grad_output)
    given = flat(grad_output, dtype)
    apply("pool_blur", "backward", geometry, given, grad_x, work=work)
    return grad_x


def _sizes(
    function: str,
    ndim: int,
    shape: Shape,
    kernel_size: Size,
    stride: Size,
    padding_mode: str,
) -> tuple[tuple[int, ...], Shape, int]:
    """Check everything; give what the kernel reads, the shape of y, and the work."""
    kernel = sizes(function, "kernel_size", kernel_size, ndim)
    strides = sizes(function, "stride", stride, ndim)
    padding_mode = border(function, padding_mode, _MODES)
    return _checked_sizes(function, shape, kernel, strides, padding_mode)


@lru_cache(maxsize=1024)
def _checked_sizes(
    function: str,
    shape: Shape,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding_mode: str,
) -> tuple[tuple[int, ...], Shape, int]:
    """Do `_sizes` once for all equal calls."""
    ndim = len(kernel)
    whole, single = batched_shape(function, "x", shape, ndim)
    check_extents(function, "x", whole)
    check_addressable(function, "x", whole)
    if max(kernel) > _MOST:
        raise ValueError(f"{function}: kernel_size must be <= {_MOST}, got {kernel}")
    extents = whole[2:]
    if padding_mode == "reflect":
        check_reflect(function, extents, tuple(((k - 1) // 2, k // 2) for k in kernel))
    out = tuple(-(-i // s) for i, s in zip(extents, stride, strict=True))
    stride = tuple(min(i, s) for i, s in zip(extents, stride, strict=True))
    folded = (fold(each, 1) for each in (extents, out, kernel, stride))
    planes = whole[0] * whole[1]
    geometry = (
        planes,
        *(number for axis in zip(*folded, strict=True) for number in axis),
        BORDERS.index(cast(Border, padding_mode)),
    )
    y_shape = (*whole[:2], *out)
    work = prod(whole) + prod(y_shape) * prod(kernel)
    return geometry, y_shape[1:] if single else y_shape, work
