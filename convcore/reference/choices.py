"""Poolings that pick one element of a window by its flat index, and unpooling.

Arrays are (n, c, *spatial); an index counts the elements of one channel in row-major
order.
"""

from collections.abc import Iterator
from math import prod

import numpy as np

from convcore.problem import PoolProblem
from convcore.reference.pool import _adaptive_window
from convcore.reference.taps import Array, ieee, taps


def max_unpool(x: Array, index: Array, y_shape: tuple[int, ...]) -> Array:
    """Put each x at its index in its channel, in order: the last one stays.

    Examples
    --------
    >>> max_unpool(np.array([[[5.0, 7.0]]]), np.array([[[1, 1]]]), (1, 1, 3))
    array([[[0., 7., 0.]]])
    """
    y = np.zeros((*y_shape[:2], prod(y_shape[2:])), dtype=x.dtype)
    for i in np.ndindex(x.shape):
        y[(*i[:2], index[i])] = x[i]
    return y.reshape(y_shape)


def max_unpool_backward(grad_y: Array, index: Array) -> Array:
    """Take each gradient from its place, if no later x was put there."""
    flat = grad_y.reshape(*grad_y.shape[:2], prod(grad_y.shape[2:]))
    grad_x = np.zeros(index.shape, dtype=grad_y.dtype)
    last: dict[tuple[int, ...], tuple[int, ...]] = {}
    for i in np.ndindex(index.shape):
        last[(*i[:2], int(index[i]))] = i
    for place, i in last.items():
        grad_x[i] = flat[place]
    return grad_x


def choice_backward(grad_y: Array, index: Array, input_shape: tuple[int, ...]) -> Array:
    """Add each gradient to the element of its channel that the index tells."""
    grad_x = np.zeros((*input_shape[:2], prod(input_shape[2:])), dtype=grad_y.dtype)
    with ieee():
        for i in np.ndindex(index.shape):
            grad_x[(*i[:2], index[i])] += grad_y[i]
    return grad_x.reshape(input_shape)


def adaptive_max_pool(x: Array, output_size: tuple[int, ...]) -> tuple[Array, Array]:
    """Take maxima over windows that cut each axis into equal parts, as near as may be.

    Examples
    --------
    >>> adaptive_max_pool(np.array([[[1.0, 2.0, 4.0]]]), (2,))
    (array([[[2., 4.]]]), array([[[1, 2]]]))
    """
    y = np.empty((*x.shape[:2], *output_size), dtype=x.dtype)
    index = np.empty(y.shape, dtype=np.int64)
    places = np.arange(prod(x.shape[2:])).reshape(x.shape[2:])
    for o in np.ndindex(output_size):
        window = _adaptive_window(x.shape[2:], output_size, o)
        y[(..., *o)], index[(..., *o)] = _first_max(x[window], places[window])
    return y, index


def fractional_max_pool(
    x: Array, kernel: tuple[int, ...], starts: tuple[Array, ...]
) -> tuple[Array, Array]:
    """Take maxima over windows that start at given places.

    Parameters
    ----------
    x : (n, c, *spatial), floating
    kernel : one int per spatial axis
    starts : (n, c, outputs) int64 for each spatial axis
    """
    y = np.empty((*x.shape[:2], *(s.shape[2] for s in starts)), dtype=x.dtype)
    index = np.empty(y.shape, dtype=np.int64)
    places = np.arange(prod(x.shape[2:])).reshape(x.shape[2:])
    for n, c, *o in np.ndindex(y.shape):
        window = tuple(
            slice(s[n, c, i], s[n, c, i] + k)
            for s, i, k in zip(starts, o, kernel, strict=True)
        )
        one, where = _first_max(x[n, c][window][None, None], places[window])
        y[(n, c, *o)], index[(n, c, *o)] = one.item(), where.item()
    return y, index


def stochastic_pool(
    problem: PoolProblem, x: Array, draws: Array
) -> tuple[Array, Array]:
    """Walk through the positive elements of each window up to the draw's share of them.

    Parameters
    ----------
    problem : PoolProblem
    x, draws : problem.x_shape, problem.y_shape
        Draws are numbers u with 0 <= u < 1: taken is the first element up to which the
        sum exceeds u times the whole; the last positive one where rounding leaves none.
        Sums beyond the range of float64 are those of x / 2**64.

    Returns
    -------
    y : problem.y_shape
    index : problem.y_shape, int64
        The maximum, as in `max_pool`, where it is NaN, infinite, or not positive.
    """
    draws = draws.reshape(problem.n, problem.c, *problem.out_extent)
    y = np.empty(draws.shape, dtype=x.dtype)
    index = np.empty(draws.shape, dtype=np.int64)
    for o, values, places in _windows(problem, x):
        one, where = _first_max(values[None, None], np.arange(len(values)))
        chosen = int(where.item())
        if 0 < one.item() < np.inf:
            parts = np.maximum(values.astype(np.float64), 0)
            with ieee():
                shares = np.cumsum(parts)
                if np.isinf(shares[-1]):
                    shares = np.cumsum(np.ldexp(parts, -64))
            beyond = np.flatnonzero(shares > float(draws[o]) * shares[-1])
            chosen = int(beyond[0] if beyond.size else np.flatnonzero(parts)[-1])
        y[o], index[o] = values[chosen], places[chosen]
    return y.reshape(problem.y_shape), index.reshape(problem.y_shape)


def stochastic_pool_mean(problem: PoolProblem, x: Array) -> Array:
    """Take the mean of what may be drawn: sum(r * r) / sum(r), r = max(x, 0).

    In units of the power of two above the maximum, in which no sum leaves its range.

    Examples
    --------
    >>> problem = PoolProblem.pool("f", (1, 1, 2), 2)
    >>> stochastic_pool_mean(problem, np.array([[[1.0, 3.0]]]))
    array([[[2.5]]])
    """
    y = np.zeros((problem.n, problem.c, *problem.out_extent), dtype=x.dtype)
    for o, values, _ in _windows(problem, x):
        best = values.max()
        if np.isfinite(best) and best > 0:
            _, exponent = np.frexp(best)
            parts = np.maximum(values, 0).astype(np.result_type(x, np.float64))
            parts = np.ldexp(parts, -exponent)
            mean = np.square(parts).sum() / parts.sum()
            y[o] = np.ldexp(mean, exponent)
        elif not best <= 0:
            y[o] = best
    return y.reshape(problem.y_shape)


def _windows(
    problem: PoolProblem, x: Array
) -> Iterator[tuple[tuple[int, ...], Array, Array]]:
    """Give each window's place, its elements, and their places in their channel."""
    flat = x.reshape(problem.n, problem.c, prod(problem.in_extent))
    places = np.full((*problem.out_extent, prod(problem.kernel)), -1)
    numbers = np.arange(flat.shape[2]).reshape(problem.in_extent)
    for k, tap in enumerate(taps(problem)):
        places[(*tap.out[1:], k)] = numbers[tap.inp[1:]]
    for n, c, *o in np.ndindex(problem.n, problem.c, *problem.out_extent):
        inside = places[tuple(o)][places[tuple(o)] >= 0]
        yield (n, c, *o), flat[n, c][inside], inside


def _first_max(window: Array, places: Array) -> tuple[Array, Array]:
    """Give maxima of (n, c, ...), and the places of the first NaN or maximum."""
    flat = window.reshape(*window.shape[:2], -1)
    chosen = np.argmax(flat, axis=-1)  # the first NaN, or else the first maximum
    y = np.take_along_axis(flat, chosen[..., None], -1)[..., 0]
    return y, places.ravel()[chosen]
