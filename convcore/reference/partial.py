"""Partial convolution: sums over what is real, scaled up to all taps."""

from typing import Any

import numpy as np

from convcore.problem import ConvProblem
from convcore.reference.conv import conv, conv_grad_weight, conv_grad_x
from convcore.reference.taps import Array, ieee


def partial_conv(
    problem: ConvProblem,
    x: Array,
    w: Array,
    b: Array | None = None,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """Convolve what is real, and multiply by all taps over those on real elements.

    Parameters
    ----------
    problem : ConvProblem
    x, w, b : as for `conv`
    mask : problem.x_shape, of 0 and 1, optional
        What is real: all of x, without it.

    Returns
    -------
    y : problem.y_shape
        `conv(x * mask) * taps / real taps + b`, and 0 where no tap is real
    real : problem.y_shape, of bool
        Where a tap is real.

    Examples
    --------
    >>> problem = ConvProblem.conv("partial", (1, 1, 3), (1, 1, 3), padding=1)
    >>> partial_conv(problem, np.ones((1, 1, 3)), np.ones((1, 1, 3)))[0]
    array([[[3., 3., 3.]]])
    """
    real = np.ones(problem.x_shape, bool) if mask is None else mask != 0
    ratio = _ratio(problem, real, x.dtype)
    with ieee():
        y = conv(problem, np.where(real, x, x.dtype.type(0)), w) * ratio
        if b is not None:
            y = y + b.reshape(-1, *(1,) * problem.ndim)
    return np.where(ratio > 0, y, y.dtype.type(0)), ratio > 0


def partial_conv_backward(
    problem: ConvProblem, grad_y: Array, x: Array, w: Array, mask: Array | None = None
) -> tuple[Array, Array, Array]:
    """Give the gradients of x, w and b."""
    real = np.ones(problem.x_shape, bool) if mask is None else mask != 0
    ratio = _ratio(problem, real, x.dtype)
    zero = x.dtype.type(0)
    with ieee():
        grad_x = conv_grad_x(problem, grad_y * ratio, w)
        grad_w = conv_grad_weight(problem, np.where(real, x, zero), grad_y * ratio)
        shares = np.where(ratio > 0, grad_y, zero)
        grad_b = shares.sum(axis=(0, *range(2, shares.ndim)))
    return np.where(real, grad_x, zero), grad_w, grad_b


def _ratio(problem: ConvProblem, real: Array, dtype: np.dtype[Any]) -> Array:
    """Divide all taps by the real ones; 0 where there is none."""
    counts = conv(
        problem, real.astype(np.int64), np.ones(problem.weight_shape, np.int64)
    )
    most = problem.taps * problem.ic // problem.g
    return np.where(counts > 0, most / np.maximum(counts, 1), 0).astype(dtype)
