"""Activations: what stands between two layers, and its gradient.

The backward of ReLU, sigmoid, tanh and the softmaxes reads the output y, which the
next layer keeps anyway; that of leaky ReLU reads the input.

Every operation works element by element, the softmaxes row by row, so the bits of a
sample depend on nothing but that sample. Inf and NaN are values like any other: they
give what IEEE arithmetic gives, and no warning.
"""

from math import prod

import numpy as np

from convcore.arguments import real
from convcore.functional._checks import axis, like
from convcore.functional._select import zeroed
from convcore.runtime.arrays import Array, empty, ready

__all__ = [
    "leaky_relu",
    "leaky_relu_backward",
    "log_softmax",
    "log_softmax_backward",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
]

_ieee = np.errstate(all="ignore")


@_ieee
def relu(x: Array) -> Array:
    """Replace what is negative by 0.

    Parameters
    ----------
    x : (...) float32 or float64
        Input; NaN stays NaN.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    TypeError
        When x is no array of float32 or float64.

    Examples
    --------
    >>> relu(np.array([-1.0, 0.5]))
    array([0. , 0.5])
    """
    x = ready("relu", "x", x)
    y = empty(x.shape, x.dtype)
    np.maximum(x, 0, out=y)
    return y


@_ieee
def relu_backward(grad_output: Array, y: Array) -> Array:
    """Pass the gradient on where the output is positive.

    Parameters
    ----------
    grad_output : (...), dtype of y
        Gradient of the output.
    y : (...) float32 or float64
        Output of `relu`; its input does as well.

    Returns
    -------
    grad_x : (...), dtype of y
        Exactly 0 where y is 0 (the gradient at the kink is taken as 0), `grad_output`
        elsewhere, also where y is NaN.

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ, or are not legal.

    Examples
    --------
    >>> relu_backward(np.array([3.0, 4.0]), np.array([0.0, 0.5]))
    array([0., 4.])
    """
    y = ready("relu_backward", "y", y)
    grad_output = like("relu_backward", "grad_output", grad_output, "y", y)
    return zeroed(grad_output, np.asarray(y <= 0))


@_ieee
def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """Multiply what is negative by a small slope.

    Parameters
    ----------
    x : (...) float32 or float64
        Input; NaN stays NaN.
    negative_slope : float
        Factor below 0; finite.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    ValueError, TypeError
        When x is no array of float32 or float64, or the slope is not finite.

    References
    ----------
    Maas, Hannun, Ng: Rectifier Nonlinearities Improve Neural Network Acoustic Models,
    ICML 2013 workshop, section 2.

    Examples
    --------
    >>> leaky_relu(np.array([-2.0, 0.5]), 0.25)
    array([-0.5,  0.5])
    """
    slope = real("leaky_relu", "negative_slope", negative_slope)
    x = ready("leaky_relu", "x", x)
    y = empty(x.shape, x.dtype)
    np.minimum(x, 0, out=y)
    np.multiply(y, slope, out=y)
    np.add(y, np.maximum(x, 0), out=y)  # one of the two terms is 0
    return y


@_ieee
def leaky_relu_backward(
    grad_output: Array, x: Array, negative_slope: float = 0.01
) -> Array:
    """Pass the gradient on, times the slope where the input is not positive.

    Parameters
    ----------
    grad_output : (...), dtype of x
        Gradient of the output.
    x : (...) float32 or float64
        Input of `leaky_relu`.
    negative_slope : float
        As in the forward call.

    Returns
    -------
    grad_x : (...), dtype of x

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ, or are not legal, or the slope is not finite.

    Examples
    --------
    >>> leaky_relu_backward(np.array([4.0, 4.0]), np.array([-2.0, 0.5]), 0.25)
    array([1., 4.])
    """
    slope = real("leaky_relu_backward", "negative_slope", negative_slope)
    x = ready("leaky_relu_backward", "x", x)
    grad_output = like("leaky_relu_backward", "grad_output", grad_output, "x", x)
    above = np.asarray(x > 0)
    grad_x = zeroed(grad_output, above)
    np.multiply(grad_x, slope, out=grad_x)
    np.add(grad_x, zeroed(grad_output, ~above), out=grad_x)  # one of the two is 0
    return grad_x


@_ieee
def sigmoid(x: Array) -> Array:
    """Squeeze into 0..1: 1 / (1 + exp(-x)).

    Parameters
    ----------
    x : (...) float32 or float64
        Input.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    TypeError
        When x is no array of float32 or float64.

    Notes
    -----
    Taken as exp(min(x, 0)) / (1 + exp(-abs(x))), where nothing can overflow; results
    down to the smallest subnormal number keep their digits.

    Examples
    --------
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    x = ready("sigmoid", "x", x)
    y = empty(x.shape, x.dtype)
    np.abs(x, out=y)
    np.negative(y, out=y)
    np.exp(y, out=y)
    np.add(y, 1, out=y)
    np.divide(np.exp(np.minimum(x, 0)), y, out=y)
    return y


@_ieee
def sigmoid_backward(grad_output: Array, y: Array) -> Array:
    """Multiply the gradient by the slope y * (1 - y).

    Parameters
    ----------
    grad_output : (...), dtype of y
        Gradient of the output.
    y : (...) float32 or float64
        Output of `sigmoid`.

    Returns
    -------
    grad_x : (...), dtype of y

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ, or are not legal.

    Examples
    --------
    >>> sigmoid_backward(np.array([8.0]), np.array([0.5]))
    array([2.])
    """
    y = ready("sigmoid_backward", "y", y)
    grad_output = like("sigmoid_backward", "grad_output", grad_output, "y", y)
    grad_x = empty(y.shape, y.dtype)
    np.subtract(1, y, out=grad_x)
    np.multiply(grad_x, y, out=grad_x)
    np.multiply(grad_x, grad_output, out=grad_x)
    return grad_x


@_ieee
def tanh(x: Array) -> Array:
    """Squeeze into -1..1 by the hyperbolic tangent.

    Parameters
    ----------
    x : (...) float32 or float64
        Input.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    TypeError
        When x is no array of float32 or float64.

    Examples
    --------
    >>> tanh(np.array([0.0, 100.0]))
    array([0., 1.])
    """
    x = ready("tanh", "x", x)
    y = empty(x.shape, x.dtype)
    np.tanh(x, out=y)
    return y


@_ieee
def tanh_backward(grad_output: Array, y: Array) -> Array:
    """Multiply the gradient by the slope 1 - y**2.

    Parameters
    ----------
    grad_output : (...), dtype of y
        Gradient of the output.
    y : (...) float32 or float64
        Output of `tanh`.

    Returns
    -------
    grad_x : (...), dtype of y

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ, or are not legal.

    Notes
    -----
    The slope is taken as (1 - y) * (1 + y), whose digits do not cancel near y = 1.

    Examples
    --------
    >>> tanh_backward(np.array([4.0]), np.array([0.5]))
    array([3.])
    """
    y = ready("tanh_backward", "y", y)
    grad_output = like("tanh_backward", "grad_output", grad_output, "y", y)
    grad_x = empty(y.shape, y.dtype)
    np.subtract(1, y, out=grad_x)
    np.multiply(grad_x, 1 + y, out=grad_x)
    np.multiply(grad_x, grad_output, out=grad_x)
    return grad_x


@_ieee
def softmax(x: Array, dim: int = 1) -> Array:
    """Turn scores into probabilities: exp(x), divided by its sum along one axis.

    Parameters
    ----------
    x : (...) float32 or float64
        Scores; any number of axes from 1 on.
    dim : int
        Axis along which the results sum to 1; by default that of the channels.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    ValueError, TypeError
        When x is no array of float32 or float64, or has no axis `dim`.

    Notes
    -----
    The maximum is taken off first, so that no exponential overflows. A row with NaN or
    +inf, or of nothing but -inf, becomes NaN.

    Examples
    --------
    >>> softmax(np.array([[0.0, 0.0, -np.inf]]))
    array([[0.5, 0.5, 0. ]])
    """
    x = ready("softmax", "x", x)
    rows = _rows(x, axis("softmax", "dim", dim, x.ndim))
    y = _below_maximum(rows)
    np.exp(y, out=y)
    np.divide(y, y.sum(axis=1, keepdims=True), out=y)
    return y.reshape(x.shape)


@_ieee
def softmax_backward(grad_output: Array, y: Array, dim: int = 1) -> Array:
    """Take the gradient of `softmax`: y * (g - sum(g * y)) along the axis.

    Parameters
    ----------
    grad_output : (...), dtype of y
        Gradient of the output, g.
    y : (...) float32 or float64
        Output of `softmax`.
    dim : int
        As in the forward call.

    Returns
    -------
    grad_x : (...), dtype of y

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ, or are not legal, or y has no axis `dim`.

    Examples
    --------
    >>> softmax_backward(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))
    array([[ 0.25, -0.25]])
    """
    name = "softmax_backward"
    y = ready(name, "y", y)
    grad_output = like(name, "grad_output", grad_output, "y", y)
    dim = axis(name, "dim", dim, y.ndim)
    rows, grads = _rows(y, dim), _rows(grad_output, dim)
    grad_x = empty(rows.shape, y.dtype)
    np.multiply(grads, rows, out=grad_x)
    np.subtract(grads, grad_x.sum(axis=1, keepdims=True), out=grad_x)
    np.multiply(grad_x, rows, out=grad_x)
    return grad_x.reshape(y.shape)


@_ieee
def log_softmax(x: Array, dim: int = 1) -> Array:
    """Take the logarithm of `softmax`, without losing small probabilities.

    Parameters
    ----------
    x : (...) float32 or float64
        Scores; any number of axes from 1 on.
    dim : int
        Axis along which the exponentials of the results sum to 1.

    Returns
    -------
    y : (...), dtype of x
        x - max - log(sum(exp(x - max))).

    Raises
    ------
    ValueError, TypeError
        When x is no array of float32 or float64, or has no axis `dim`.

    Examples
    --------
    >>> log_softmax(np.array([[0.0, -1000.0]]))
    array([[    0., -1000.]])
    """
    x = ready("log_softmax", "x", x)
    rows = _rows(x, axis("log_softmax", "dim", dim, x.ndim))
    y = _below_maximum(rows)
    np.subtract(y, np.log(np.exp(y).sum(axis=1, keepdims=True)), out=y)
    return y.reshape(x.shape)


@_ieee
def log_softmax_backward(grad_output: Array, y: Array, dim: int = 1) -> Array:
    """Take the gradient of `log_softmax`: g - exp(y) * sum(g) along the axis.

    Parameters
    ----------
    grad_output : (...), dtype of y
        Gradient of the output, g.
    y : (...) float32 or float64
        Output of `log_softmax`.
    dim : int
        As in the forward call.

    Returns
    -------
    grad_x : (...), dtype of y

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ, or are not legal, or y has no axis `dim`.

    Examples
    --------
    >>> log_softmax_backward(np.array([[1.0, 0.0]]), np.log([[0.5, 0.5]]))
    array([[ 0.5, -0.5]])
    """
    name = "log_softmax_backward"
    y = ready(name, "y", y)
    grad_output = like(name, "grad_output", grad_output, "y", y)
    dim = axis(name, "dim", dim, y.ndim)
    rows, grads = _rows(y, dim), _rows(grad_output, dim)
    grad_x = empty(rows.shape, y.dtype)
    np.exp(rows, out=grad_x)
    np.multiply(grad_x, grads.sum(axis=1, keepdims=True), out=grad_x)
    np.subtract(grads, grad_x, out=grad_x)
    return grad_x.reshape(y.shape)


def _rows(x: Array, dim: int) -> Array:
    """View x as (outer, extent of dim, inner).

    NumPy adds along the middle axis one step after the other (in a fixed tree when
    inner is 1), whatever outer is: a sample's sums never depend on its batch.
    """
    return x.reshape(prod(x.shape[:dim]), x.shape[dim], prod(x.shape[dim + 1 :]))


def _below_maximum(rows: Array) -> Array:
    """Subtract from each row its maximum."""
    y = empty(rows.shape, rows.dtype)
    if rows.size:
        np.subtract(rows, rows.max(axis=1, keepdims=True), out=y)
    return y
