"""Stochastic pooling: of each window an element is drawn, large ones more often."""

from math import prod
from typing import Any

import numpy as np

from convcore.arguments import Seed, generator, uniform
from convcore.functional import _framed
from convcore.functional._average_pooling import average
from convcore.functional._choices import scatter
from convcore.functional._pooling import divisor_buffer
from convcore.functional.call import apply, run
from convcore.problem import Padding, PoolProblem, Size
from convcore.problem.border import BORDERS, border
from convcore.runtime.arrays import Array, batched_shape, checked, flat, room

__all__ = [
    "stochastic_pool1d",
    "stochastic_pool1d_backward",
    "stochastic_pool1d_mean",
    "stochastic_pool2d",
    "stochastic_pool2d_backward",
    "stochastic_pool2d_mean",
    "stochastic_pool3d",
    "stochastic_pool3d_backward",
    "stochastic_pool3d_mean",
]

_SUM = (True, 1)  # divided by 1


def stochastic_pool1d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    rng: Seed,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """Draw an element of each window; as `stochastic_pool2d`.

    x is (N, C, W) or (C, W).

    Examples
    --------
    >>> import numpy as np
    >>> y, indices = stochastic_pool1d(np.array([[[0.0, 3.0]]]), 2, rng=0)
    >>> y.item(), indices.item()
    (3.0, 1)
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    around = (padding_mode, padding_value)
    return _stochastic("stochastic_pool1d", 1, x, window, around, rng, out)


def stochastic_pool2d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    rng: Seed,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """Draw an element of each window, with a probability in proportion to its value.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
        Input, usually after a ReLU; any strides, copied once if it is not C-contiguous.
        N may be 0.
    kernel_size, stride, padding, ceil_mode
        As in `max_pool2d`.
    padding_mode, padding_value : str, float
        As in `max_pool2d`: with "ignore" padding is never drawn, with others what lies
        there may be.
    rng : numpy.random.Generator or int
        Generator to draw from, or a seed for a new one.
    out : ndarray, optional
        Array for y: contiguous, of its shape and dtype, that overlaps no input.

    Returns
    -------
    y : (N, C, OH, OW), dtype of x
        x where it was drawn. Elements that are not positive have probability 0; of a
        window of nothing else, and of one with NaN or +inf, it is the maximum.
    indices : (N, C, OH, OW) int64
        row * W + column of the element, in its own channel; -1 of zeros or a constant
        beyond the border.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    One uniform number of the dtype of x is drawn for each window, in C order. Sums of a
    window are of float64, in row-major order.

    References
    ----------
    .. [1] Zeiler and Fergus, Stochastic pooling for regularization of deep convolutional
       neural networks, arXiv:1301.3557, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[0.0, 0.0], [0.0, 3.0]]]])
    >>> stochastic_pool2d(x, 2, rng=0)
    (array([[[[3.]]]]), array([[[[3]]]]))
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    around = (padding_mode, padding_value)
    return _stochastic("stochastic_pool2d", 2, x, window, around, rng, out)


def stochastic_pool3d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    rng: Seed,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """Draw an element of each window; as `stochastic_pool2d`.

    x is (N, C, D, H, W) or (C, D, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> y, indices = stochastic_pool3d(np.array([[[[[0.0, 3.0]]]]]), (1, 1, 2), rng=0)
    >>> y.item(), indices.item()
    (3.0, 1)
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    around = (padding_mode, padding_value)
    return _stochastic("stochastic_pool3d", 3, x, window, around, rng, out)


def stochastic_pool1d_mean(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Take the mean of what `stochastic_pool1d` may draw; as with two axes.

    Examples
    --------
    >>> import numpy as np
    >>> stochastic_pool1d_mean(np.array([[[1.0, 3.0]]]), 2).item()
    2.5
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    around = (padding_mode, padding_value)
    return _mean("stochastic_pool1d_mean", 1, x, window, around, out)


def stochastic_pool2d_mean(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Take the mean of what `stochastic_pool2d` may draw, for inference.

    Parameters
    ----------
    x, kernel_size, stride, padding, ceil_mode, padding_mode, padding_value, out
        As in `stochastic_pool2d`.

    Returns
    -------
    y : (N, C, OH, OW), dtype of x
        sum(r * r) / sum(r) over the window, with r = max(x, 0); 0 where all r are 0.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    References
    ----------
    .. [1] Zeiler and Fergus, arXiv:1301.3557, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> stochastic_pool2d_mean(np.array([[[[1.0, 3.0]]]]), (1, 2))
    array([[[[2.5]]]])
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    around = (padding_mode, padding_value)
    return _mean("stochastic_pool2d_mean", 2, x, window, around, out)


def stochastic_pool3d_mean(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    padding_mode: str = "ignore",
    padding_value: float = 0,
    out: Array | None = None,
) -> Array:
    """Take the mean of what `stochastic_pool3d` may draw; as with two axes.

    Examples
    --------
    >>> import numpy as np
    >>> stochastic_pool3d_mean(np.array([[[[[1.0, 3.0]]]]]), (1, 1, 2)).item()
    2.5
    """
    window = (kernel_size, stride, padding, 1, ceil_mode)
    around = (padding_mode, padding_value)
    return _mean("stochastic_pool3d_mean", 3, x, window, around, out)


def stochastic_pool1d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    *,
    padding_mode: str = "ignore",
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `stochastic_pool1d`; as with two axes.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.full((1, 1, 2), 3.0), np.full((1, 1, 2), 1)
    >>> stochastic_pool1d_backward(grad, indices, (1, 1, 3)).ravel()
    array([0., 6., 0.])
    """
    gradient = (grad_output, indices, input_shape)
    return _backward("stochastic_pool1d_backward", 1, gradient, padding_mode, out)


def stochastic_pool2d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    *,
    padding_mode: str = "ignore",
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `stochastic_pool2d`: each goes to what was drawn.

    Parameters
    ----------
    grad_output : (N, C, OH, OW) or (C, OH, OW), float32 or float64
        Gradient of the loss with respect to y.
    indices : shape of grad_output, int64
        What `stochastic_pool2d` gave.
    input_shape : (N, C, H, W) or (C, H, W)
        Shape of the x that was pooled.
    padding_mode : str
        What `stochastic_pool2d` was called with: -1 is an index, whose gradient goes
        nowhere, with "zeros" and "constant" alone.
    out : ndarray, optional
        Array for grad_x: contiguous, of its shape and dtype, that overlaps no input.

    Returns
    -------
    grad_x : input_shape, dtype of grad_output
        Gradients of an element that was drawn several times are added in their order.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.full((1, 1, 1, 2), 3.0), np.full((1, 1, 1, 2), 1)
    >>> stochastic_pool2d_backward(grad, indices, (1, 1, 1, 3))
    array([[[[0., 6., 0.]]]])
    """
    gradient = (grad_output, indices, input_shape)
    return _backward("stochastic_pool2d_backward", 2, gradient, padding_mode, out)


def stochastic_pool3d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    *,
    padding_mode: str = "ignore",
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `stochastic_pool3d`; as with two axes.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.full((1, 1, 1, 1, 2), 3.0), np.full((1, 1, 1, 1, 2), 1)
    >>> stochastic_pool3d_backward(grad, indices, (1, 1, 1, 1, 3)).ravel()
    array([0., 6., 0.])
    """
    gradient = (grad_output, indices, input_shape)
    return _backward("stochastic_pool3d_backward", 3, gradient, padding_mode, out)


def _stochastic(
    function: str,
    ndim: int,
    x: Array,
    window: tuple[Any, ...],
    around: tuple[str, float],
    rng: Seed,
    out: Array | None,
) -> tuple[Array, Array]:
    """Do `stochastic_pool` in any rank."""
    draw = generator(function, rng)
    dtype = checked(function, "x", x)
    if not _framed.is_plain(around, _framed.IGNORED):
        return _framed_stochastic(function, ndim, x, window, around, draw, out)
    whole, single = batched_shape(function, "x", x.shape, ndim)
    problem = PoolProblem.pool(function, whole, *window)
    shape = problem.y_shape[1:] if single else problem.y_shape
    y = room(function, out, shape, dtype, x)
    found = np.empty(shape, np.int64)
    _draw(problem, flat(x, dtype), uniform(function, draw, shape, dtype), y, found)
    return y, found


def _framed_stochastic(
    function: str,
    ndim: int,
    x: Array,
    window: tuple[Any, ...],
    around: tuple[str, float],
    draw: np.random.Generator,
    out: Array | None,
) -> tuple[Array, Array]:
    """Draw from what lies around x, too."""
    how = _framed.framed(function, ndim, x.shape, window, *around, _framed.IGNORED)
    y = room(function, out, how.result, x.dtype.newbyteorder("="), x)
    found = np.empty(how.result, np.int64)
    draws = uniform(function, draw, how.result, y.dtype)
    for part, box in _framed.padded(how, flat(x, y.dtype)):
        some = (_framed.some_of(array, how, part) for array in (draws, y, found))
        _draw(part.problem, box, *some)
    return y, _framed.indices_of(function, ndim, found, x.shape, window, around)


def _draw(problem: PoolProblem, x: Array, draws: Array, y: Array, found: Array) -> None:
    """Draw an element of each window, and tell its place in its channel."""
    work = x.size + y.size * prod(map(min, problem.kernel, problem.in_extent))
    apply("pool_draw", "stochastic", problem.geometry, x, draws, y, found, work=work)


def _mean(
    function: str,
    ndim: int,
    x: Array,
    window: tuple[Any, ...],
    around: tuple[str, float],
    out: Array | None,
) -> Array:
    """Do `stochastic_pool_mean` in any rank."""
    dtype = checked(function, "x", x)
    with np.errstate(all="ignore"):
        if _framed.is_plain(around, _framed.IGNORED):
            rectified = np.maximum(x, 0)
            sums = average(function, ndim, rectified, _SUM, window)
            y = room(function, out, sums.shape, dtype, x)
            average(function, ndim, np.square(rectified), _SUM, window, out=y)
        else:
            how = _framed.framed(
                function, ndim, x.shape, window, *around, _framed.IGNORED
            )
            y = room(function, out, how.result, dtype, x)
            sums, divisor = np.empty_like(y), divisor_buffer(function, *_SUM)
            for part, box in _framed.padded(how, flat(x, dtype)):
                plan = _framed.plan_of(part, "average_fprop", dtype)
                np.maximum(box, 0, out=box)
                run(plan, divisor, box, _framed.some_of(sums, how, part))
                np.square(box, out=box)
                run(plan, divisor, box, _framed.some_of(y, how, part))
        return np.divide(y, sums, out=y, where=sums != 0)


def _backward(
    function: str,
    ndim: int,
    gradient: tuple[Array, Array, tuple[int, ...]],
    padding_mode: str,
    out: Array | None,
) -> Array:
    """Do `stochastic_pool_backward` in any rank."""
    mode: str = border(function, padding_mode, (_framed.IGNORED, *BORDERS))
    return scatter(function, ndim, gradient, out, mode in ("zeros", "constant"))
