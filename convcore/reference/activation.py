"""Activations: functions of one element, and the softmax family.

Each has its gradient beside it. `relu`, `relu6`, `hardtanh`, `sigmoid`, `tanh` and the
softmaxes need only their own output y for it, the others need their input x.
"""

import math

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


def relu6(x: Array) -> Array:
    """Cut off below 0 and above 6."""
    return hardtanh(x, 0.0, 6.0)


def relu6_backward(grad_y: Array, y: Array) -> Array:
    """Let the gradient through where 0 < y < 6, or y is NaN."""
    return hardtanh_backward(grad_y, y, 0.0, 6.0)


def hardtanh(x: Array, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """Cut off at both ends; NaN stays NaN."""
    low, high = x.dtype.type(min_val), x.dtype.type(max_val)
    return np.where(x < low, low, np.where(x > high, high, x))


def hardtanh_backward(
    grad_y: Array, y: Array, min_val: float = -1.0, max_val: float = 1.0
) -> Array:
    """Let the gradient through where min_val < y < max_val, or y is NaN."""
    ends = (y <= y.dtype.type(min_val)) | (y >= y.dtype.type(max_val))
    return np.where(ends, np.zeros_like(grad_y), grad_y)


def hardsigmoid(x: Array) -> Array:
    """Climb from 0 at -3 to 1 at 3: `min(max(x + 3, 0), 6) / 6`."""
    with ieee():
        return np.where(x <= -3, 0, np.where(x >= 3, 1, (x + 3) / 6)).astype(x.dtype)


def hardsigmoid_backward(grad_y: Array, x: Array) -> Array:
    """Give `grad_y / 6` where -3 < x < 3."""
    with ieee():
        return np.where((x <= -3) | (x >= 3), np.zeros_like(grad_y), grad_y / 6)


def hardswish(x: Array) -> Array:
    """Give 0 up to -3, x from 3 on, and `x * (x + 3) / 6` between."""
    with ieee():
        return np.where(x <= -3, np.zeros_like(x), np.where(x >= 3, x, x * (x + 3) / 6))


def hardswish_backward(grad_y: Array, x: Array) -> Array:
    """Give `grad_y` times 0, 1, and `x / 3 + 1/2` between."""
    with ieee():
        inside = np.where(x >= 3, grad_y, grad_y * (x / 3 + x.dtype.type(0.5)))
    return np.where(x <= -3, np.zeros_like(grad_y), inside)


def prelu(x: Array, weight: Array) -> Array:
    """Scale what is negative by the slope of its channel, or by the only one."""
    with ieee():
        return np.where(x > 0, x, _per_channel(x, weight) * x)


def prelu_backward(grad_y: Array, x: Array, weight: Array) -> tuple[Array, Array]:
    """Give the gradients of x, and of the slopes: sums of `grad_y * x` where x <= 0."""
    slope = _per_channel(x, weight)
    with ieee():
        grad_x = np.where(x > 0, grad_y, slope * grad_y)
        terms = np.where(x > 0, np.zeros_like(x), grad_y * x)
    axes = tuple(a for a in range(x.ndim) if slope.ndim == 0 or slope.shape[a] == 1)
    return grad_x, terms.sum(axis=axes).reshape(weight.shape)


def _per_channel(x: Array, weight: Array) -> Array:
    """Let the slopes lie along axis 1."""
    if weight.size == 1:
        return weight.reshape(())
    return weight.reshape(1, -1, *(1,) * (x.ndim - 2))


def elu(x: Array, alpha: float = 1.0) -> Array:
    """Give x where x > 0, `alpha * (exp(x) - 1)` elsewhere."""
    with ieee():
        return np.where(x > 0, x, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)))


def elu_backward(grad_y: Array, x: Array, alpha: float = 1.0) -> Array:
    """Scale the gradient by `alpha * exp(x)` where x is not > 0."""
    with ieee():
        slope = x.dtype.type(alpha) * np.exp(np.minimum(x, 0))
        return np.where(x > 0, grad_y, grad_y * slope)


# Klambauer et al., Self-Normalizing Neural Networks, 2017, section 2.
_ALPHA, _SCALE = "1.67326324235437728481704", "1.05070098735548049341933"


def selu(x: Array) -> Array:
    """Scale an `elu`."""
    alpha, scale = x.dtype.type(_ALPHA), x.dtype.type(_SCALE)
    with ieee():
        y: Array = scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
    return y


def selu_backward(grad_y: Array, x: Array) -> Array:
    """Scale the gradient by that of `selu`."""
    alpha, scale = x.dtype.type(_ALPHA), x.dtype.type(_SCALE)
    with ieee():
        slope = scale * np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0)))
        grad_x: Array = grad_y * slope
    return grad_x


def normal_share(x: Array) -> Array:
    """Give the share of the standard normal distribution below x: `erfc(-x/sqrt(2)) / 2`.

    By the standard library, in float64: one element after the other. What is lost of the
    argument there is put right by the slope.
    """
    root = np.sqrt(np.longdouble(0.5))
    arguments = -x.astype(np.longdouble) * root
    shares = np.array([math.erfc(float(z)) / 2 for z in arguments.flat])
    with ieee():
        lost = arguments - arguments.astype(np.float64)
        density = np.exp(-arguments * arguments) / np.sqrt(np.longdouble(np.pi))
        mended = shares.reshape(x.shape) - np.where(density > 0, density * lost, 0)
    return mended.astype(x.dtype)


def gelu(x: Array, approximate: str = "none") -> Array:
    """Multiply x by `normal_share(x)`, or by an approximation; -inf gives the limit 0."""
    with ieee():
        share = normal_share(x) if approximate == "none" else sigmoid(_gelu_gate(x))
        return np.where(x == -np.inf, np.zeros_like(x), x * share)


def gelu_backward(grad_y: Array, x: Array, approximate: str = "none") -> Array:
    """Scale the gradient by the slope; at both ends of the numbers it is 0 and 1."""
    with ieee():
        if approximate == "none":
            density = np.exp(-x * x / 2) / np.sqrt(2 * x.dtype.type(np.pi))
            slope = normal_share(x) + np.where(np.isinf(x), 0, x * density)
        else:
            near = np.clip(x, -100, 100)
            share = sigmoid(_gelu_gate(near))
            bend = np.sqrt(8 / x.dtype.type(np.pi)) * (1 + 3 * 0.044715 * near * near)
            slope = share + near * share * sigmoid(-_gelu_gate(near)) * bend
        grad_x: Array = grad_y * slope
    return grad_x


def _gelu_gate(x: Array) -> Array:
    """Give what the sigmoid of the tanh form takes: (1 + tanh(u)) / 2 = sigmoid(2 u)."""
    gate: Array = np.sqrt(8 / x.dtype.type(np.pi)) * (x + 0.044715 * x * x * x)
    return gate


def silu(x: Array) -> Array:
    """Multiply x by `sigmoid(x)`; -inf gives the limit 0."""
    with ieee():
        return np.where(x == -np.inf, np.zeros_like(x), x * sigmoid(x))


def silu_backward(grad_y: Array, x: Array) -> Array:
    """Scale the gradient by `s + x * s * (1 - s)`; at both ends that is 0 and 1."""
    with ieee():
        rest = np.where(np.isinf(x), 0, x * sigmoid(x) * sigmoid(-x))
        scaled: Array = grad_y * (sigmoid(x) + rest)
    return scaled


def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """Give `log(1 + exp(beta * x)) / beta`, and x where beta * x is above the threshold."""
    with ieee():
        z = x * x.dtype.type(beta)
        soft = (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / x.dtype.type(beta)
        return np.where(z > x.dtype.type(threshold), x, soft)


def softplus_backward(
    grad_y: Array, x: Array, beta: float = 1.0, threshold: float = 20.0
) -> Array:
    """Scale the gradient by `sigmoid(beta * x)`, and leave it above the threshold."""
    with ieee():
        z = x * x.dtype.type(beta)
        return np.where(z > x.dtype.type(threshold), grad_y, grad_y * sigmoid(z))


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
