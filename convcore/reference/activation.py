"""Activations: functions of one element, and the softmax family.

Each has its gradient beside it. `relu`, `sigmoid`, `tanh` and the softmaxes need only
their own output y for it, `leaky_relu` needs its input x.
"""

import numpy as np

from convcore.reference.taps import Array, ieee


def relu(x: Array) -> Array:
    """Cut off what is negative: `max(x, 0)`; NaN stays NaN."""
    return np.where(x <= 0, np.zeros_like(x), x)


def relu_backward(grad_y: Array, y: Array) -> Array:
    """Let the gradient through where y > 0, or is NaN."""
    return np.where(y <= 0, np.zeros_like(grad_y), grad_y)


def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """Scale what is negative: x where x > 0, `negative_slope * x` elsewhere."""
    slope = np.asarray(negative_slope, dtype=x.dtype)
    with ieee():
        return np.where(x > 0, x, slope * x)


def leaky_relu_backward(grad_y: Array, x: Array, negative_slope: float = 0.01) -> Array:
    """Scale the gradient by `negative_slope` where x is not > 0."""
    slope = np.asarray(negative_slope, dtype=x.dtype)
    with ieee():
        return np.where(x > 0, grad_y, slope * grad_y)


def sigmoid(x: Array) -> Array:
    """Squash into (0, 1): `1 / (1 + exp(-x))`, by an exp that cannot overflow."""
    small = np.exp(-np.abs(x))
    y: Array = np.where(x >= 0, 1, small) / (1 + small)
    return y


def sigmoid_backward(grad_y: Array, y: Array) -> Array:
    """Give `grad_y * y * (1 - y)`."""
    with ieee():
        grad_x: Array = grad_y * (y * (1 - y))
    return grad_x


def tanh(x: Array) -> Array:
    """Squash into (-1, 1): `(exp(x) - exp(-x)) / (exp(x) + exp(-x))`."""
    y: Array = np.tanh(x)
    return y


def tanh_backward(grad_y: Array, y: Array) -> Array:
    """Give `grad_y * (1 - y**2)`."""
    with ieee():
        grad_x: Array = grad_y * (1 - y * y)
    return grad_x


def log_softmax(x: Array, dim: int) -> Array:
    """Take the logarithm of the softmax along axis `dim`.

    `x - log(sum(exp(x)))`. Subtracting the maximum first changes nothing but keeps
    exp from overflowing.
    """
    with ieee():
        shifted = x - x.max(axis=dim, keepdims=True)
        y: Array = shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))
    return y


def log_softmax_backward(grad_y: Array, y: Array, dim: int) -> Array:
    """Give `grad_y - exp(y) * sum(grad_y)`, the sum along `dim`."""
    with ieee():
        grad_x: Array = grad_y - np.exp(y) * grad_y.sum(axis=dim, keepdims=True)
    return grad_x


def softmax(x: Array, dim: int) -> Array:
    """Turn the numbers along axis `dim` into weights: positive, with the sum 1.

    `exp(x) / sum(exp(x))`, after subtracting the maximum as in `log_softmax`.

    Examples
    --------
    >>> softmax(np.array([0.0, np.log(3.0)]), 0)
    array([0.25, 0.75])
    """
    with ieee():
        power = np.exp(x - x.max(axis=dim, keepdims=True))
        y: Array = power / power.sum(axis=dim, keepdims=True)
    return y


def softmax_backward(grad_y: Array, y: Array, dim: int) -> Array:
    """Give `y * (grad_y - sum(grad_y * y))`, the sum along `dim`."""
    with ieee():
        grad_x: Array = y * (grad_y - (grad_y * y).sum(axis=dim, keepdims=True))
    return grad_x
