"""Batch normalisation: give each channel mean 0 and variance 1, then let it choose."""

from math import prod

import numpy as np

from convcore.reference.taps import Array, ieee


def batch_norm(
    x: Array,
    running_mean: Array,
    running_var: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Normalise each channel by the batch (training) or by what was seen before.

    Parameters
    ----------
    x : (n, c, *spatial)
    running_mean, running_var : (c,)
    weight, bias : (c,), optional
        1 and 0 where not given.
    training : bool
        Take mean and variance from x itself, and mix them into the running ones:
        `(1 - momentum) * running + momentum * batch`.
    eps : float
        Added to the variance, so that a constant channel does not divide by 0.

    Returns
    -------
    y : shape of x
        `weight * (x - mean) / sqrt(var + eps) + bias`, var dividing by the m elements
        of a channel.
    running_mean, running_var : (c,)
        The new ones, not written into the old; this variance divides by m - 1.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by
    Reducing Internal Covariate Shift", 2015, algorithm 1.
    """
    if training:
        mean, var, m = _statistics(x)
        with ieee():
            unbiased = var * m / (m - 1)
            running_mean = (1 - momentum) * running_mean + momentum * mean
            running_var = (1 - momentum) * running_var + momentum * unbiased
    else:
        mean, var = running_mean, running_var
    with ieee():
        y = (x - _spread(mean, x)) / np.sqrt(_spread(var, x) + x.dtype.type(eps))
        if weight is not None:
            y = y * _spread(weight, x)
        if bias is not None:
            y = y + _spread(bias, x)
    return y, running_mean.astype(x.dtype), running_var.astype(x.dtype)


def batch_norm_backward(
    grad_y: Array,
    x: Array,
    running_mean: Array,
    running_var: Array,
    weight: Array | None = None,
    training: bool = False,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Give the gradients of x, weight and bias.

    Parameters
    ----------
    grad_y, x : (n, c, *spatial)
    running_mean, running_var : (c,)
        As they were in the forward pass; used when not training.
    weight : (c,), optional
    training, eps : as in `batch_norm`

    Returns
    -------
    grad_x : shape of x
        In training the mean and the variance depend on x, too: the part of the
        gradient that would only shift or stretch the channel is taken out.
    grad_weight, grad_bias : (c,)
    """
    mean, var, m = _statistics(x) if training else (running_mean, running_var, 1)
    sums = (0, *range(2, x.ndim))
    with ieee():
        scale = 1 / np.sqrt(_spread(var, x) + x.dtype.type(eps))
        normal = (x - _spread(mean, x)) * scale
        grad_bias = grad_y.sum(axis=sums)
        grad_weight = (grad_y * normal).sum(axis=sums)
        grad_x = grad_y
        if training:
            shift, stretch = _spread(grad_bias / m, x), _spread(grad_weight / m, x)
            grad_x = grad_x - shift - normal * stretch
        grad_x = grad_x * scale
        if weight is not None:
            grad_x = grad_x * _spread(weight, x)
    return grad_x, grad_weight, grad_bias


def _statistics(x: Array) -> tuple[Array, Array, int]:
    """Give mean, variance and number of elements of each channel."""
    axes = (0, *range(2, x.ndim))
    with ieee():
        return x.mean(axis=axes), x.var(axis=axes), x.shape[0] * prod(x.shape[2:])


def _spread(values: Array, x: Array) -> Array:
    """Shape one value per channel for broadcasting over x."""
    return values.reshape(-1, *(1,) * (x.ndim - 2))
