"""Softmax and its logarithm, along any axis."""

from array import array
from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

from convcore.functional._checks import axis
from convcore.functional._elementwise import check_like, check_place
from convcore.functional.call import single
from convcore.runtime import cpu
from convcore.runtime.arrays import Array, like, ready
from convcore.runtime.threads import team

__all__ = ["log_softmax", "log_softmax_backward", "softmax", "softmax_backward"]

Job = tuple[Callable[..., Any], "array[int]"]


def softmax(x: Array, dim: int = 1, *, out: Array | None = None) -> Array:
    """Turn scores into probabilities: exp(x), divided by its sum along one axis.

    Parameters
    ----------
    x : (...) float32 or float64
        Scores; any number of axes from 1 on.
    dim : int
        Axis along which the results sum to 1; by default that of the channels.
    out : (...), dtype of x, optional
        Where to write y; x itself works in place.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    ValueError, TypeError
        When x is no array of float32 or float64, has no axis `dim`, or `out`
        does not fit.

    Notes
    -----
    One pass over the memory, where a row or some columns fit into the cache. The maximum
    is taken off first, so that no exponential overflows. A row with NaN or
    +inf, or of nothing but -inf, becomes NaN.

    Examples
    --------
    >>> softmax(np.array([[0.0, 0.0, -np.inf]]))
    array([[0.5, 0.5, 0. ]])
    """
    return _forward("softmax", False, x, dim, out)


def softmax_backward(
    grad_output: Array, y: Array, dim: int = 1, *, out: Array | None = None
) -> Array:
    """Take the gradient of `softmax`: y * (g - sum(g * y)) along the axis.

    Parameters
    ----------
    grad_output : (...), dtype of y
        Gradient of the output, g.
    y : (...) float32 or float64
        Output of `softmax`.
    dim : int
        As in the forward call.
    out : (...), dtype of y, optional
        Where to write the gradient; `grad_output` or y works in place.

    Returns
    -------
    grad_x : (...), dtype of y

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ, or are not legal, y has no axis `dim`, or
        `out` does not fit.

    Examples
    --------
    >>> softmax_backward(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))
    array([[ 0.25, -0.25]])
    """
    return _backward("softmax_backward", False, grad_output, y, dim, out)


def log_softmax(x: Array, dim: int = 1, *, out: Array | None = None) -> Array:
    """Take the logarithm of `softmax`, without losing small probabilities.

    Parameters
    ----------
    x : (...) float32 or float64
        Scores; any number of axes from 1 on.
    dim : int
        Axis along which the exponentials of the results sum to 1.
    out : (...), dtype of x, optional
        Where to write y; x itself works in place.

    Returns
    -------
    y : (...), dtype of x
        x - max - log(sum(exp(x - max))).

    Raises
    ------
    ValueError, TypeError
        When x is no array of float32 or float64, has no axis `dim`, or `out`
        does not fit.

    Examples
    --------
    >>> log_softmax(np.array([[0.0, -1000.0]]))
    array([[    0., -1000.]])
    """
    return _forward("log_softmax", True, x, dim, out)


def log_softmax_backward(
    grad_output: Array, y: Array, dim: int = 1, *, out: Array | None = None
) -> Array:
    """Take the gradient of `log_softmax`: g - exp(y) * sum(g) along the axis.

    Parameters
    ----------
    grad_output : (...), dtype of y
        Gradient of the output, g.
    y : (...) float32 or float64
        Output of `log_softmax`.
    dim : int
        As in the forward call.
    out : (...), dtype of y, optional
        Where to write the gradient; `grad_output` or y works in place.

    Returns
    -------
    grad_x : (...), dtype of y

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ, or are not legal, y has no axis `dim`, or
        `out` does not fit.

    Examples
    --------
    >>> log_softmax_backward(np.array([[1.0, 0.0]]), np.log([[0.5, 0.5]]))
    array([[ 0.5, -0.5]])
    """
    return _backward("log_softmax_backward", True, grad_output, y, dim, out)


def _forward(function: str, log: bool, x: Any, dim: int, out: Any) -> Array:
    """Check x, its axis and `out`, and write y."""
    source = ready(function, "x", x)
    kernel, sizes = _job(function, "forward", log, source.shape, dim)
    if out is None:
        out = like(source)
    else:
        check_place(function, out, source.shape, source.dtype, (x,))
    if source.size:
        kernel(sizes, source, out, team(4 * source.size))
    result: Array = out
    return result


def _backward(
    function: str, log: bool, grad_output: Any, y: Any, dim: int, out: Any
) -> Array:
    """Check gradient, y, its axis and `out`, and write the gradient of x."""
    source = ready(function, "y", y)
    gradient = ready(function, "grad_output", grad_output, source.dtype)
    check_like(function, gradient, "y", source)
    kernel, sizes = _job(function, "backward", log, source.shape, dim)
    if out is None:
        out = like(source)
    else:
        check_place(function, out, source.shape, source.dtype, (grad_output, y))
    if source.size:
        kernel(sizes, gradient, source, out, team(2 * source.size))
    result: Array = out
    return result


def _job(
    function: str, direction: str, log: bool, shape: tuple[int, ...], dim: int
) -> Job:
    """Give the kernel, and the shape as it takes it: once for all equal calls.

    Not `apply`, as for activations.
    """
    make = _cached_job if type(dim) is int else _new_job
    return make(function, direction, log, shape, dim, cpu.isa())


def _new_job(
    function: str, direction: str, log: bool, shape: tuple[int, ...], dim: int, isa: str
) -> Job:
    """Check the axis; log, outer, extent of dim, inner."""
    along = axis(function, "dim", dim, len(shape))
    around = prod(shape[:along]), shape[along], prod(shape[along + 1 :])
    return single("softmax", direction), array("q", (log, *around))


_cached_job = lru_cache(maxsize=1024)(_new_job)
