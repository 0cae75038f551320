"""Max pooling, forward and backward, for 1, 2 and 3 axes.

Each operation is one function of the rank behind three public doors; the doors for two
axes hold the documentation of all three.
"""

from typing import Any, Literal, overload

import numpy as np

from convcore.arguments import shown
from convcore.functional import _framed, _max_pooling
from convcore.functional._choices import scatter
from convcore.functional._outs import Pair
from convcore.problem import Padding, Size
from convcore.runtime.arrays import Array

__all__ = [
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool3d",
    "max_pool3d_backward",
]

_INT64 = np.dtype(np.int64)


@overload
def max_pool1d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array: ...
@overload
def max_pool1d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Pair | None = None,
) -> tuple[Array, Array]: ...
def max_pool1d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Pair | None = None,
) -> Array | tuple[Array, Array]:
    """Take the maximum of each window along one axis.

    As `max_pool2d`, with x (N, C, W) or (C, W).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0, 3.0, 3.0, 2.0]]])
    >>> max_pool1d(x, 2, stride=1, return_indices=True)
    (array([[[3., 3., 3.]]]), array([[[1, 1, 2]]]))
    """
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    around = (padding_mode, padding_value)
    return _max_pool("max_pool1d", 1, x, window, return_indices, around, out)


@overload
def max_pool2d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array: ...
@overload
def max_pool2d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Pair | None = None,
) -> tuple[Array, Array]: ...
def max_pool2d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Pair | None = None,
) -> Array | tuple[Array, Array]:
    """Take the maximum of each window along two axes.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
        Input; any strides, copied once if it is not C-contiguous. N may be 0.
    kernel_size : int or (int, int), >= 1
        Elements of a window along each axis.
    stride : int or (int, int), >= 1, optional
        Elements of x between neighbouring windows; by default `kernel_size`.
    padding : int, (int, int), ((lo, hi), (lo, hi)), "valid", "same" or "full"
        Elements before and after each axis of x that never win; less than what a window
        spans: with "full", one less, every window that meets x has its maximum. torch
        stops at half a window.
    dilation : int or (int, int), >= 1
        Elements of x between neighbouring elements of a window; 1 is dense.
    ceil_mode : bool
        Whether a last window that hangs over the padded end counts, too. One that would
        start in the padding at the end is left out.
    return_indices : bool
        Whether to tell where the maxima were.
    padding_mode : str
        "ignore": what lies around x never wins; otherwise what lies there, as for
        `conv2d`, and then the padding may be of any width.
    padding_value : float
        Of a "constant" border.
    out : ndarray, or tuple of two (ndarray or None), optional
        Array for y, or a tuple for y and the indices: contiguous, of their shapes and
        dtypes, that overlap no input. None is for new memory.

    Returns
    -------
    y : (N, C, OH, OW), dtype of x
        OH = floor((H + lo + hi - dilation * (KH - 1) - 1) / stride) + 1, with ceil for
        floor in `ceil_mode`, OW likewise; without N when x came without it. NaN where
        a window holds one; -inf where a dilated window steps over x.
    indices : (N, C, OH, OW) int64
        With `return_indices`: row * W + column, in its own channel, of the first NaN
        of each window, or else of the first of equal maxima, in row-major order; 0
        where a window steps over x. Of what lies around x it is the index of the element
        of x that is shown there; -1 where zeros or a constant win, which `max_unpool2d`
        refuses.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Bound by memory: x is read once, y (8 bytes more with an index) written once. Layers
    keep one byte in place of the index.
    Nothing is rounded, and nothing depends on the number of threads. Between 0 and -0,
    which are equal, the zero that comes out without indices may have either sign.

    References
    ----------
    .. [1] Goodfellow, Bengio and Courville, Deep Learning (2016), section 9.3.
    .. [2] Gil and Kimmel, IEEE TPAMI 24 (2002) (one axis after the other).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 2.0, 5.0], [4.0, 3.0, 0.0]]]])
    >>> max_pool2d(x, 2, stride=1, return_indices=True)
    (array([[[[4., 5.]]]]), array([[[[3, 2]]]]))
    """
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    around = (padding_mode, padding_value)
    return _max_pool("max_pool2d", 2, x, window, return_indices, around, out)


@overload
def max_pool3d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array: ...
@overload
def max_pool3d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Pair | None = None,
) -> tuple[Array, Array]: ...
def max_pool3d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Pair | None = None,
) -> Array | tuple[Array, Array]:
    """Take the maximum of each window along three axes.

    As `max_pool2d`, with x (N, C, D, H, W) or (C, D, H, W); indices are
    (slice * H + row) * W + column.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(16.0).reshape(1, 1, 4, 2, 2)
    >>> y, indices = max_pool3d(x, 2, return_indices=True)
    >>> y.ravel(), indices.ravel()
    (array([ 7., 15.]), array([ 7, 15]))
    """
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    around = (padding_mode, padding_value)
    return _max_pool("max_pool3d", 3, x, window, return_indices, around, out)


def max_pool1d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `max_pool1d`; as `max_pool2d_backward`, with one axis.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.array([[[1.0, 2.0, 4.0]]]), np.array([[[1, 1, 2]]])
    >>> max_pool1d_backward(grad, indices, (1, 1, 4), 2, stride=1)
    array([[[0., 3., 4., 0.]]])
    """
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    name = "max_pool1d_backward"
    gradient = (grad_output, indices, input_shape)
    around = (padding_mode, padding_value)
    return _max_pool_backward(name, 1, gradient, window, around, out)


def max_pool2d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `max_pool2d`: each goes to the element that won.

    Parameters
    ----------
    grad_output : (N, C, OH, OW) or (C, OH, OW), float32 or float64
        Gradient of the loss with respect to the maxima.
    indices : shape of grad_output, int64
        What `max_pool2d` gave with `return_indices`. Each has to be in its own window;
        with a `padding_mode` in the channel, or -1 with "zeros" and "constant".
    input_shape : (N, C, H, W) or (C, H, W)
        Shape of the x that was pooled.
    kernel_size, stride, padding, dilation, ceil_mode, padding_mode, padding_value
        What `max_pool2d` was called with.
    out : ndarray, optional
        Array for grad_x: contiguous, of its shape and dtype, that overlaps no input.

    Returns
    -------
    grad_x : input_shape, dtype of grad_output
        Elements that won no window get exactly 0. The gradient of a window that steps
        over x, or in which zeros or a constant won, goes nowhere: it has no element.

    Raises
    ------
    ValueError
        For a value or shape that does not fit, and when an index is not in its own
        window: checked before anything is written to `out`; no gradient is ever lost.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    The gradients of an element that won several windows are added in the dtype of
    grad_output, in the row-major order of the windows, whatever the number of threads.
    Memory: grad_output and the indices are read, those twice with `out`; grad_x is
    written.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.ones((1, 1, 2, 2)), np.full((1, 1, 2, 2), 4)
    >>> max_pool2d_backward(grad, indices, (1, 1, 3, 3), 2, stride=1)
    array([[[[0., 0., 0.],
             [0., 4., 0.],
             [0., 0., 0.]]]])
    """
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    name = "max_pool2d_backward"
    gradient = (grad_output, indices, input_shape)
    around = (padding_mode, padding_value)
    return _max_pool_backward(name, 2, gradient, window, around, out)


def max_pool3d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `max_pool3d`; as `max_pool2d_backward`, with three axes.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.ones((1, 1, 1, 1, 1)), np.full((1, 1, 1, 1, 1), 6)
    >>> max_pool3d_backward(grad, indices, (1, 1, 2, 2, 2), 2).ravel()
    array([0., 0., 0., 0., 0., 0., 1., 0.])
    """
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    name = "max_pool3d_backward"
    gradient = (grad_output, indices, input_shape)
    around = (padding_mode, padding_value)
    return _max_pool_backward(name, 3, gradient, window, around, out)


def _max_pool(
    function: str,
    ndim: int,
    x: Array,
    window: tuple[Any, ...],
    return_indices: bool,
    around: tuple[str, float],
    out: Pair | None,
) -> Array | tuple[Array, Array]:
    """Do `max_pool` in any rank; `window` is the rest of `PoolProblem.pool`."""
    if not isinstance(return_indices, bool):
        raise TypeError(
            f"{function}: return_indices must be a bool, got {shown(return_indices)}"
        )
    if _framed.is_plain(around, _framed.IGNORED):
        labels = _INT64 if return_indices else None
        y, indices = _max_pooling.max_pool(function, ndim, x, window, labels, out)
        return y if indices is None else (y, indices)
    if not return_indices:
        return _framed.maximum(function, ndim, x, window, around, False, out)[0]
    y, found = _framed.maximum(function, ndim, x, window, around, True, out)
    assert found is not None
    indices = _framed.indices_of(function, ndim, found, x.shape, window, around)
    return y, indices


def _max_pool_backward(
    function: str,
    ndim: int,
    gradient: tuple[Array, Array, tuple[int, ...]],
    window: tuple[Any, ...],
    around: tuple[str, float],
    out: Array | None,
) -> Array:
    """Do the backward pass in any rank, by the indices of the maxima."""
    if _framed.is_plain(around, _framed.IGNORED):
        return _max_pooling.max_pool_backward(function, ndim, gradient, window, out)
    grad_output, _, input_shape = gradient
    _framed.check_result(function, ndim, grad_output, input_shape, window, around)
    beyond = around[0] in ("zeros", "constant")
    return scatter(function, ndim, gradient, out, beyond)
