"""Lp pooling of windows, forward and backward.

Each operation is one function of the rank behind three public doors; the doors for two
axes hold the documentation of all three.
"""

from convcore.functional._lp_pooling import norms, norms_backward
from convcore.problem import Padding, Size
from convcore.runtime.arrays import Array

__all__ = [
    "lp_pool1d",
    "lp_pool1d_backward",
    "lp_pool2d",
    "lp_pool2d_backward",
    "lp_pool3d",
    "lp_pool3d_backward",
]


def lp_pool1d(
    x: Array,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    padding_mode: str = "zeros",
    padding_value: float = 0,
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
    around = (padding_mode, padding_value)
    return norms("lp_pool1d", 1, x, norm_type, window, out, around)


def lp_pool2d(
    x: Array,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    padding_mode: str = "zeros",
    padding_value: float = 0,
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
        As for `max_pool2d`.
    padding_mode, padding_value : str, float
        What lies around x, as for `conv2d`; zeros add nothing.
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
    Powers and sums are of float64 whatever the dtype. Whole p up to 8 are products, a few
    times what a copy of x takes; others cost some 2 ns for each element. With K elements in
    a window, y is right to (K + 10) / p + 12 units of rounding of float64, and for float32
    rounded once more. No power over- or underflows: a window whose sum would is divided
    by its largest magnitude first. Infinite p is a maximum of magnitudes, by way of
    temporary arrays.

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
    around = (padding_mode, padding_value)
    return norms("lp_pool2d", 2, x, norm_type, window, out, around)


def lp_pool3d(
    x: Array,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    padding_mode: str = "zeros",
    padding_value: float = 0,
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
    around = (padding_mode, padding_value)
    return norms("lp_pool3d", 3, x, norm_type, window, out, around)


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
    padding_mode: str = "zeros",
    padding_value: float = 0,
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
    around = (padding_mode, padding_value)
    arrays = (grad_output, x, y)
    return norms_backward(
        "lp_pool1d_backward", 1, arrays, norm_type, window, out, around
    )


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
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `lp_pool2d`.

    Parameters
    ----------
    grad_output : (N, C, OH, OW) or (C, OH, OW), float32 or float64
        Gradient of the loss with respect to the norms.
    x, y
        What was pooled, and the norms.
    norm_type, kernel_size, stride, ceil_mode, padding, padding_mode, padding_value
        What `lp_pool2d` was called with.
    out : ndarray, optional
        Where to write grad_x: C-contiguous, of its shape and dtype, no part of an input.

    Returns
    -------
    grad_x : shape and dtype of x
        sign(x) times the sum of grad_output * (|x| / y)^(p-1) over the windows that hold
        the element. Zeros get 0, also where the power has no slope there; for infinite p,
        the first of the largest magnitudes of a window gets all of its gradient, and the
        first NaN of a window NaN, the others 0.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Right to 8 |p - 1| + 16 + W units of rounding of float64 of the sum of magnitudes over
    the W windows of an element, and for float32 rounded once more. No power over- or
    underflows, as in the forward call.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[3.0], [-4.0]]]])
    >>> y = lp_pool2d(x, 2, (2, 1))
    >>> lp_pool2d_backward(np.full_like(y, 10.0), x, y, 2, (2, 1)).ravel()
    array([ 6., -8.])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    around = (padding_mode, padding_value)
    arrays = (grad_output, x, y)
    return norms_backward(
        "lp_pool2d_backward", 2, arrays, norm_type, window, out, around
    )


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
    padding_mode: str = "zeros",
    padding_value: float = 0,
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
    around = (padding_mode, padding_value)
    arrays = (grad_output, x, y)
    return norms_backward(
        "lp_pool3d_backward", 3, arrays, norm_type, window, out, around
    )
