"""Activations that bend smoothly: sigmoid, tanh and softplus."""

from convcore.arguments import real, shown
from convcore.functional._elementwise import (
    SIGMOID,
    SOFTPLUS,
    TANH,
    Bits,
    backward,
    bits,
    forward,
)
from convcore.runtime.arrays import Array

__all__ = [
    "sigmoid",
    "sigmoid_backward",
    "softplus",
    "softplus_backward",
    "tanh",
    "tanh_backward",
]


def sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """Squeeze into 0..1: 1 / (1 + exp(-x)).

    Parameters
    ----------
    x : (...) float32 or float64
        Input; any shape.
    out : (...), dtype of x, optional
        Where to write y; x itself works in place.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When x is no array of float32 or float64, or `out` does not fit.

    Notes
    -----
    Taken as exp(min(x, 0)) / (1 + exp(-abs(x))), where nothing can overflow; results
    down to the smallest subnormal number keep their digits: 3 units in the last place.

    Examples
    --------
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    return forward("sigmoid", SIGMOID, x, out)


def sigmoid_backward(
    grad_output: Array, y: Array, *, out: Array | None = None
) -> Array:
    """Multiply the gradient by the slope y * (1 - y).

    Parameters
    ----------
    grad_output : (...), dtype of y
        Gradient of the output.
    y : (...) float32 or float64
        Output of `sigmoid`; x is not needed.
    out : (...), dtype of y, optional
        Where to write the gradient; `grad_output` or y works in place.

    Returns
    -------
    grad_x : (...), dtype of y

    Raises
    ------
    TypeError, ValueError
        When shapes or dtypes differ, or are not legal, or `out` does not fit.

    Examples
    --------
    >>> sigmoid_backward(np.array([8.0]), np.array([0.5]))
    array([2.])
    """
    kept = ("y", y)
    return backward("sigmoid_backward", SIGMOID, grad_output, kept, out)


def tanh(x: Array, *, out: Array | None = None) -> Array:
    """Squeeze into -1..1 by the hyperbolic tangent.

    Parameters
    ----------
    x : (...) float32 or float64
        Input; any shape.
    out : (...), dtype of x, optional
        Where to write y; x itself works in place.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When x is no array of float32 or float64, or `out` does not fit.

    Notes
    -----
    At most 3 units in the last place off.

    Examples
    --------
    >>> tanh(np.array([0.0, 100.0]))
    array([0., 1.])
    """
    return forward("tanh", TANH, x, out)


def tanh_backward(grad_output: Array, y: Array, *, out: Array | None = None) -> Array:
    """Multiply the gradient by the slope 1 - y**2.

    Parameters
    ----------
    grad_output : (...), dtype of y
        Gradient of the output.
    y : (...) float32 or float64
        Output of `tanh`; x is not needed.
    out : (...), dtype of y, optional
        Where to write the gradient; `grad_output` or y works in place.

    Returns
    -------
    grad_x : (...), dtype of y

    Raises
    ------
    TypeError, ValueError
        When shapes or dtypes differ, or are not legal, or `out` does not fit.

    Notes
    -----
    The slope is taken as (1 - y) * (1 + y), whose digits do not cancel near y = 1.

    Examples
    --------
    >>> tanh_backward(np.array([4.0]), np.array([0.5]))
    array([3.])
    """
    kept = ("y", y)
    return backward("tanh_backward", TANH, grad_output, kept, out)


def softplus(
    x: Array, beta: float = 1.0, threshold: float = 20.0, *, out: Array | None = None
) -> Array:
    """Smooth a ReLU: log(1 + exp(beta * x)) / beta.

    Parameters
    ----------
    x : (...) float32 or float64
        Input; any shape.
    beta : float
        Sharpness of the bend; finite, not 0.
    threshold : float
        Where beta * x is above it, the result is x.
    out : (...), dtype of x, optional
        Where to write y; x itself works in place.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When x is no array of float32 or float64, beta or threshold is not legal, or
        `out` does not fit.

    Notes
    -----
    Taken as (max(z, 0) + log1p(exp(-abs(z)))) / beta with z = beta * x, where nothing can
    overflow, and small results keep their digits.

    References
    ----------
    Dugas, Bengio, Belisle, Nadeau, Garcia: Incorporating Second-Order Functional
    Knowledge for Better Option Pricing, NIPS 2000, section 3.

    Examples
    --------
    >>> softplus(np.array([-np.inf, 0.0, 30.0])).round(4)
    array([ 0.    ,  0.6931, 30.    ])
    """
    numbers = _softplus_numbers("softplus", beta, threshold)
    return forward("softplus", SOFTPLUS, x, out, numbers)


def softplus_backward(
    grad_output: Array,
    x: Array,
    beta: float = 1.0,
    threshold: float = 20.0,
    *,
    out: Array | None = None,
) -> Array:
    """Multiply the gradient by the slope 1 / (1 + exp(-beta * x)).

    Parameters
    ----------
    grad_output : (...), dtype of x
        Gradient of the output.
    x : (...) float32 or float64
        Input of `softplus`.
    beta : float
        As in the forward call.
    threshold : float
        As in the forward call.
    out : (...), dtype of x, optional
        Where to write the gradient; `grad_output` or x works in place.

    Returns
    -------
    grad_x : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When shapes or dtypes differ, or are not legal, beta or threshold is not
        legal, or `out` does not fit.

    Notes
    -----
    The slope is 1 above the threshold.

    Examples
    --------
    >>> softplus_backward(np.array([2.0, 2.0]), np.array([0.0, 30.0]))
    array([1., 2.])
    """
    numbers = _softplus_numbers("softplus_backward", beta, threshold)
    kept = ("x", x)
    return backward("softplus_backward", SOFTPLUS, grad_output, kept, out, numbers)


def _softplus_numbers(function: str, beta: float, threshold: float) -> Bits:
    """Check the numbers, and give them to the kernel."""
    sharpness = real(function, "beta", beta)
    if sharpness == 0:
        raise ValueError(f"{function}: beta must not be 0, got {shown(beta)}")
    return bits(sharpness, real(function, "threshold", threshold), 1 / sharpness)
