"""Pooling: each output is the maximum or the mean of one window of one channel.

Inside, arrays are (n, c, D, H, W). Padding is not part of the data: it never wins a
maximum and adds nothing to a sum, but `count_include_pad` lets it count in the mean.
"""

from math import prod
from types import EllipsisType

import numpy as np

from convcore.problem import PoolProblem
from convcore.problem.border import source_index
from convcore.reference.taps import Array, Tap, ieee, taps


def max_pool(problem: PoolProblem, x: Array) -> tuple[Array, Array]:
    """Take the maximum of each window, and remember where it was.

    Parameters
    ----------
    problem : PoolProblem
    x : problem.x_shape, floating

    Returns
    -------
    y : problem.y_shape, dtype of x
        NaN if there is a NaN in the window. -inf if a dilated window steps over the
        input and holds no element at all.
    index : problem.y_shape, int64
        Where y came from in the channel, `(z*H + y)*W + x`: the first NaN, or else the
        first maximum, in row-major order; 0 for a window that holds no element.

    Examples
    --------
    >>> x = np.array([[[1.0, 3.0, 3.0, 2.0]]])
    >>> max_pool(PoolProblem.pool("max_pool1d", x.shape, 2), x)
    (array([[[3., 3.]]]), array([[[1, 2]]]))
    """
    x = x.reshape(problem.n, problem.c, *problem.in_extent)
    windows = (problem.n, problem.c, *problem.out_extent)
    y = np.full(windows, -np.inf, dtype=x.dtype)
    index = np.zeros(windows, dtype=np.int64)
    empty = np.ones(windows, dtype=bool)
    for tap in taps(problem) if problem.n else ():
        value, best = x[tap.inp], y[tap.out]
        wins = empty[tap.out] | (value > best) | (np.isnan(value) & ~np.isnan(best))
        y[tap.out] = np.where(wins, value, best)
        index[tap.out] = np.where(wins, _flat_index(problem, tap), index[tap.out])
        empty[tap.out] = False
    return y.reshape(problem.y_shape), index.reshape(problem.y_shape)


def max_pool_backward(problem: PoolProblem, grad_y: Array, index: Array) -> Array:
    """Send each gradient to the element that won its window.

    Parameters
    ----------
    problem : PoolProblem
    grad_y : problem.y_shape
    index : problem.y_shape, int64
        As `max_pool` gives it. An index that is not in its window gets nothing, so
        the gradient of a window without elements goes nowhere.

    Returns
    -------
    grad_x : problem.x_shape
    """
    windows = (problem.n, problem.c, *problem.out_extent)
    grad_y, index = grad_y.reshape(windows), index.reshape(windows)
    grad_x = np.zeros((problem.n, problem.c, *problem.in_extent), dtype=grad_y.dtype)
    with ieee():
        for tap in taps(problem) if problem.n else ():
            won = index[tap.out] == _flat_index(problem, tap)
            grad_x[tap.inp] += np.where(won, grad_y[tap.out], 0)
    return grad_x.reshape(problem.x_shape)


def avg_pool(
    problem: PoolProblem,
    x: Array,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Take the mean of each window.

    Parameters
    ----------
    problem : PoolProblem
    x : problem.x_shape, floating
    count_include_pad : bool
        Whether the zeros of the padding count as elements. What a last window of
        `ceil_mode` hangs over the padded end never counts.
    divisor_override : int, optional
        Divide each sum by this instead.

    Returns
    -------
    y : problem.y_shape, dtype of x

    Examples
    --------
    >>> x = np.array([[[1.0, 2.0, 3.0, 4.0, 5.0]]])
    >>> avg_pool(PoolProblem.pool("avg_pool1d", x.shape, 2, ceil_mode=True), x)
    array([[[1.5, 3.5, 5. ]]])
    """
    x = x.reshape(problem.n, problem.c, *problem.in_extent)
    y = np.zeros((problem.n, problem.c, *problem.out_extent), dtype=x.dtype)
    if problem.n:
        with ieee():
            for tap in taps(problem):
                y[tap.out] += x[tap.inp]
            y /= _divisor(problem, y.dtype, count_include_pad, divisor_override)
    return y.reshape(problem.y_shape)


def avg_pool_backward(
    problem: PoolProblem,
    grad_y: Array,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Share each gradient out evenly among the elements of its window.

    Parameters
    ----------
    problem : PoolProblem
    grad_y : problem.y_shape
    count_include_pad, divisor_override : as in `avg_pool`

    Returns
    -------
    grad_x : problem.x_shape
    """
    grad_y = grad_y.reshape(problem.n, problem.c, *problem.out_extent)
    grad_x = np.zeros((problem.n, problem.c, *problem.in_extent), dtype=grad_y.dtype)
    if problem.n:
        with ieee():
            share = grad_y / _divisor(
                problem, grad_y.dtype, count_include_pad, divisor_override
            )
            for tap in taps(problem):
                grad_x[tap.inp] += share[tap.out]
    return grad_x.reshape(problem.x_shape)


def adaptive_avg_pool(x: Array, output_size: tuple[int, ...]) -> Array:
    """Take means over windows that cut each axis into equal parts, as near as may be.

    Parameters
    ----------
    x : (n, c, *spatial), floating
    output_size : one int per spatial axis
        Output o of an axis covers `floor(o*L/size)` to `ceil((o+1)*L/size)`; windows
        overlap where size does not divide L, or exceeds it.

    Returns
    -------
    y : (n, c, *output_size), dtype of x

    Examples
    --------
    >>> adaptive_avg_pool(np.array([[[1.0, 2.0, 4.0]]]), (5,))
    array([[[1. , 1.5, 2. , 3. , 4. ]]])
    """
    y = np.zeros((*x.shape[:2], *output_size), dtype=x.dtype)
    axes = tuple(range(2, x.ndim))
    with ieee():
        for o in np.ndindex(output_size):
            window = _adaptive_window(x.shape[2:], output_size, o)
            y[(..., *o)] = x[window].mean(axis=axes)
    return y


def adaptive_avg_pool_backward(grad_y: Array, input_shape: tuple[int, ...]) -> Array:
    """Share each gradient out evenly among the elements of its window.

    Parameters
    ----------
    grad_y : (n, c, *output_size)
    input_shape : (n, c, *spatial)

    Returns
    -------
    grad_x : input_shape
    """
    grad_x = np.zeros(input_shape, dtype=grad_y.dtype)
    size = grad_y.shape[2:]
    everywhere = (..., *(None,) * len(size))
    with ieee():
        for o in np.ndindex(size):
            window = _adaptive_window(input_shape[2:], size, o)
            count = prod(grad_x[window].shape[2:])
            grad_x[window] += (grad_y[(..., *o)] / count)[everywhere]
    return grad_x


def global_avg_pool(x: Array) -> Array:
    """Take the mean of each channel: (n, c, *spatial) to (n, c, 1, ...)."""
    with ieee():
        mean: Array = x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)
    return mean


def global_avg_pool_backward(grad_y: Array, input_shape: tuple[int, ...]) -> Array:
    """Share each gradient, (n, c, 1, ...), out evenly among its channel."""
    return np.broadcast_to(grad_y / prod(input_shape[2:]), input_shape).copy()


def _flat_index(problem: PoolProblem, tap: Tap) -> Array:
    """Give the elements under `tap` their numbers in the channel, row by row."""
    _, height, width = problem.in_extent
    z, y, x = np.ix_(*(np.arange(p.start, p.stop, p.step) for p in tap.inp[1:]))
    return (z * height + y) * width + x


def _divisor(
    problem: PoolProblem,
    dtype: np.dtype[np.generic],
    count_include_pad: bool,
    divisor_override: int | None,
) -> Array:
    """Give what the sum of each window is divided by: (od, oh, ow), or one number."""
    if divisor_override is not None:
        return np.array(divisor_override, dtype=dtype)
    counts = []
    for extent, out, kernel, s, (lo, hi), d in zip(
        problem.in_extent,
        problem.out_extent,
        problem.kernel,
        problem.stride,
        problem.padding,
        problem.dilation,
        strict=True,
    ):
        begin, end = (-lo, extent + hi) if count_include_pad else (0, extent)
        counts.append([_between(begin, end, s * o - lo, kernel, d) for o in range(out)])
    z, y, x = np.ix_(*(np.array(count, dtype=dtype) for count in counts))
    divisor: Array = z * y * x
    return divisor


def _between(begin: int, end: int, start: int, kernel: int, dilation: int) -> int:
    """Count the taps of the window at `start` that fall into begin <= i < end."""
    first = max(0, -((start - begin) // dilation))
    last = min(kernel - 1, (end - 1 - start) // dilation)
    return max(0, last - first + 1)


def _adaptive_window(
    extent: tuple[int, ...], size: tuple[int, ...], output: tuple[int, ...]
) -> tuple[EllipsisType | slice, ...]:
    """Give the part of the input that one output of adaptive pooling covers."""
    return (
        ...,
        *(
            slice(o * i // parts, -(-(o + 1) * i // parts))
            for i, parts, o in zip(extent, size, output, strict=True)
        ),
    )


def lp_pool(problem: PoolProblem, x: Array, power: float) -> Array:
    """Take the p-norm of each window: (sum of |x|^p)^(1/p), or the largest |x|.

    Parameters
    ----------
    problem : PoolProblem
    x : problem.x_shape, floating
    power : float, > 0
        p, which may be infinite.

    Returns
    -------
    y : problem.y_shape, dtype of x

    Examples
    --------
    >>> x = np.array([[[3.0, -4.0, 0.0, 2.0]]])
    >>> lp_pool(PoolProblem.pool("lp_pool1d", x.shape, 2), x, 2)
    array([[[5., 2.]]])
    """
    most = max_pool(problem, np.abs(x))[0]
    if power == np.inf:
        return most
    x = x.reshape(problem.n, problem.c, *problem.in_extent)
    y = np.zeros((problem.n, problem.c, *problem.out_extent), dtype=x.dtype)
    most = most.reshape(y.shape)
    scaled = (power > 1) & (most > 0) & np.isfinite(most)  # else powers leave the type
    scale = np.where(scaled, most, 1)
    with ieee():
        for tap in taps(problem) if problem.n else ():
            y[tap.out] += (np.abs(x[tap.inp]) / scale[tap.out]) ** power
        y = scale * y ** (1 / power)
    return y.reshape(problem.y_shape)


def lp_pool_backward(
    problem: PoolProblem, grad_y: Array, x: Array, y: Array, power: float
) -> Array:
    """Give each element its share of the gradients of the norms it is part of.

    Parameters
    ----------
    problem : PoolProblem
    grad_y, y : problem.y_shape
    x : problem.x_shape
    power : float, > 0

    Returns
    -------
    grad_x : problem.x_shape
        0 for zeros; for infinite p, only the first maximum of a window, or its first
        NaN, gets something.
    """
    if power == np.inf:
        _, index = max_pool(problem, np.abs(x))
        share = max_pool_backward(problem, grad_y, index)
        with ieee():
            return np.where(share == 0, 0, share * np.sign(x))
    windows = (problem.n, problem.c, *problem.out_extent)
    x = x.reshape(problem.n, problem.c, *problem.in_extent)
    grad_x = np.zeros(x.shape, dtype=grad_y.dtype)
    grad_y, y = grad_y.reshape(windows), y.reshape(windows)
    with ieee():
        for tap in taps(problem) if problem.n else ():
            slope = (np.abs(x[tap.inp]) / y[tap.out]) ** (power - 1)
            grad_x[tap.inp] += np.where(y[tap.out] == 0, 0, grad_y[tap.out] * slope)
        grad_x = np.where(x == 0, 0, grad_x * np.sign(x))
    return grad_x.reshape(problem.x_shape)


def blur_matrix(extent: int, kernel: int, stride: int, mode: str) -> Array:
    """Give what blur pooling of one axis multiplies by: (results, extent), float64.

    Examples
    --------
    >>> blur_matrix(4, 3, 2, "reflect") * 4
    array([[2., 2., 0., 0.],
           [0., 1., 2., 1.]])
    """
    weights = np.array([1.0])
    for _ in range(kernel - 1):
        weights = np.convolve(weights, [0.5, 0.5])
    lo = (kernel - 1) // 2
    matrix = np.zeros((-(-extent // stride), extent))
    for o, row in enumerate(matrix):
        for k, weight in enumerate(weights):
            place = source_index(o * stride + k - lo, extent, mode)
            if place is not None:
                row[place] += weight
    return matrix


def blur_pool(
    x: Array, kernel: tuple[int, ...], stride: tuple[int, ...], mode: str
) -> Array:
    """Blur with a binomial filter along each axis, and take every stride-th element.

    Parameters
    ----------
    x : (n, c, *spatial), floating
    kernel, stride : one int per spatial axis
    mode : "zeros", "reflect", "replicate" or "circular"

    Returns
    -------
    y : (n, c, *ceil(spatial / stride)), dtype of x
    """
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), 2):
        matrix = blur_matrix(x.shape[axis], k, s, mode).astype(x.dtype)
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ matrix.T, -1, axis)
    return x


def blur_pool_backward(
    grad_y: Array,
    input_shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    mode: str,
) -> Array:
    """Multiply by the transposed matrices of `blur_pool`."""
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), 2):
        matrix = blur_matrix(input_shape[axis], k, s, mode).astype(grad_y.dtype)
        grad_y = np.moveaxis(np.moveaxis(grad_y, axis, -1) @ matrix, -1, axis)
    return grad_y
