"""Average pooling, forward and backward, for 1, 2 and 3 axes.

Each operation is one function of the rank behind three public doors; the doors for two
axes hold the documentation of all three.
"""

from convcore.functional._framed import average, average_backward
from convcore.problem import Padding, Size
from convcore.runtime.arrays import Array

__all__ = [
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool3d",
    "avg_pool3d_backward",
]


def avg_pool1d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Take the mean of each window along one axis.

    As `avg_pool2d`, with x (N, C, W) or (C, W); `divisor_override`, which torch has for
    two and three axes only, is there for one, too.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0, 2.0, 3.0, 4.0, 5.0]]])
    >>> avg_pool1d(x, 2, ceil_mode=True)
    array([[[1.5, 3.5, 5. ]]])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    divisor = (count_include_pad, divisor_override)
    around = (padding_mode, padding_value)
    return average("avg_pool1d", 1, x, divisor, window, around, out)


def avg_pool2d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Take the mean of each window along two axes.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
        Input; any strides, copied once if it is not C-contiguous. N may be 0.
    kernel_size : int or (int, int), >= 1
        Elements of a window along each axis.
    stride : int or (int, int), >= 1, optional
        Elements of x between neighbouring windows; by default `kernel_size`.
    padding : int, (int, int), ((lo, hi), (lo, hi)), "valid", "same" or "full"
        Elements before and after each axis of x; of zeros less than a window, so that
        each has an element of x: "full" has all windows that meet x.
    ceil_mode : bool
        Whether a last window that hangs over the padded end counts, too. One that would
        start in the padding at the end is left out.
    count_include_pad : bool
        Whether the mean divides by the zeros of the padding, too. It never does by what
        hangs over the padded end.
    divisor_override : int, >= 1, optional
        Divide every sum by this instead.
    padding_mode, padding_value : str, float
        What lies there, as for `conv2d`. Everything but zeros is data: a window divides
        by all of its elements, and may hang over the end of the padding, too.
    out : ndarray, optional
        Where to write y: C-contiguous, of its shape and dtype, no part of x.

    Returns
    -------
    y : (N, C, OH, OW), dtype of x
        OH = floor((H + lo + hi - KH) / stride) + 1, with ceil for floor in `ceil_mode`,
        OW likewise; without N when x came without it.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Bound by memory: x is read once, y written once. Sums are of float64 whatever the
    dtype, divided and then rounded once: a mean of finite float32 never overflows.
    Their order depends on the shape of one channel alone: the same bits for any number
    of threads and any batch.

    References
    ----------
    .. [1] LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to
       document recognition, Proc. IEEE 86 (1998), section II.A (sub-sampling).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> avg_pool2d(x, 2, stride=1)
    array([[[[2., 3.],
             [5., 6.]]]])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    divisor = (count_include_pad, divisor_override)
    around = (padding_mode, padding_value)
    return average("avg_pool2d", 2, x, divisor, window, around, out)


def avg_pool3d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Take the mean of each window along three axes.

    As `avg_pool2d`, with x (N, C, D, H, W) or (C, D, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool3d(np.arange(16.0).reshape(1, 1, 4, 2, 2), 2).ravel()
    array([ 3.5, 11.5])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    divisor = (count_include_pad, divisor_override)
    around = (padding_mode, padding_value)
    return average("avg_pool3d", 3, x, divisor, window, around, out)


def avg_pool1d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `avg_pool1d`; as `avg_pool2d_backward`, with one axis.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool1d_backward(np.array([[[2.0, 4.0]]]), (1, 1, 5), 2, stride=3)
    array([[[1., 1., 0., 2., 2.]]])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    divisor = (count_include_pad, divisor_override)
    name = "avg_pool1d_backward"
    gradient = (grad_output, input_shape)
    around = (padding_mode, padding_value)
    return average_backward(name, 1, gradient, divisor, window, around, out)


def avg_pool2d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `avg_pool2d`: each is shared out among its window.

    Parameters
    ----------
    grad_output : (N, C, OH, OW) or (C, OH, OW), float32 or float64
        Gradient of the loss with respect to the means.
    input_shape : (N, C, H, W) or (C, H, W)
        Shape of the x that was pooled.
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    padding_mode, padding_value
        What `avg_pool2d` was called with.
    out : ndarray, optional
        Where to write grad_x, as in `avg_pool2d`.

    Returns
    -------
    grad_x : input_shape, dtype of grad_output
        Elements in no window get exactly 0.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    Every element gathers from the windows that hold it, in row-major order, in float64,
    and is rounded once. Where all windows have the same divisor, it divides the sum;
    otherwise each part is divided, axis by axis.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool2d_backward(np.full((1, 1, 2, 2), 4.0), (1, 1, 3, 3), 2, stride=1)
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    divisor = (count_include_pad, divisor_override)
    name = "avg_pool2d_backward"
    gradient = (grad_output, input_shape)
    around = (padding_mode, padding_value)
    return average_backward(name, 2, gradient, divisor, window, around, out)


def avg_pool3d_backward(
    grad_output: Array,
    input_shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `avg_pool3d`; as `avg_pool2d_backward`, with three axes.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool3d_backward(np.array([[[[[16.0]]]]]), (1, 1, 2, 2, 2), 2).ravel()
    array([2., 2., 2., 2., 2., 2., 2., 2.])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    divisor = (count_include_pad, divisor_override)
    name = "avg_pool3d_backward"
    gradient = (grad_output, input_shape)
    around = (padding_mode, padding_value)
    return average_backward(name, 3, gradient, divisor, window, around, out)
