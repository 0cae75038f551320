"""Normalisation: give something mean 0 and variance 1, then let it choose."""

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


def layer_norm(
    x: Array,
    axes: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    centred: bool = True,
) -> Array:
    """Normalise over the last axes.

    Parameters
    ----------
    x : (...)
    axes : int
        How many axes are normalised together.
    weight, bias : extents of the last axes, optional
        1 and 0 where not given.
    centred : bool
        Whether to take the mean off; without, this is RMS normalisation.

    Returns
    -------
    y : shape of x
        `weight * (x - mean) / sqrt(mean((x - mean)**2) + eps) + bias`.

    References
    ----------
    Ba, Kiros and Hinton, "Layer Normalization", 2016, section 3; Zhang and Sennrich,
    "Root Mean Square Layer Normalization", 2019, section 3.
    """
    y, _ = _normal(x, axes, eps, centred)
    with ieee():
        if weight is not None:
            y = y * weight
        if bias is not None:
            y = y + bias
    return y


def layer_norm_backward(
    grad_y: Array,
    x: Array,
    axes: int,
    weight: Array | None = None,
    eps: float = 1e-5,
    centred: bool = True,
) -> tuple[Array, Array, Array]:
    """Give the gradients of x, weight and bias.

    Parameters
    ----------
    grad_y, x : (...)
    axes, weight, eps, centred : as in `layer_norm`

    Returns
    -------
    grad_x : shape of x
        Less what would only shift (if there is a mean) or stretch a row.
    grad_weight, grad_bias : extents of the last axes
    """
    last = tuple(range(x.ndim - axes, x.ndim))
    first = tuple(range(x.ndim - axes))
    normal, scale = _normal(x, axes, eps, centred)
    with ieee():
        grad_bias = grad_y.sum(axis=first)
        grad_weight = (grad_y * normal).sum(axis=first)
        inner = grad_y if weight is None else grad_y * weight
        stretch = (inner * normal).mean(axis=last, keepdims=True)
        shift = inner.mean(axis=last, keepdims=True) if centred else 0
        grad_x = (inner - shift - normal * stretch) * scale
    return grad_x, grad_weight, grad_bias


def group_norm(
    x: Array,
    groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Normalise groups of channels of each sample; `groups` = c: instance norm.

    Parameters
    ----------
    x : (n, c, *spatial)
    groups : int
        Divides c; neighbours belong together.
    weight, bias : (c,), optional
        1 and 0 where not given.

    Returns
    -------
    y : shape of x

    References
    ----------
    Wu and He, "Group Normalization", 2018, section 3.
    """
    y, _ = _normal(_grouped(x, groups), 1, eps, True)
    y = y.reshape(x.shape)
    with ieee():
        if weight is not None:
            y = y * _spread(weight, x)
        if bias is not None:
            y = y + _spread(bias, x)
    return y


def group_norm_backward(
    grad_y: Array,
    x: Array,
    groups: int,
    weight: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Give the gradients of x, weight and bias.

    Parameters
    ----------
    grad_y, x : (n, c, *spatial)
    groups, weight, eps : as in `group_norm`

    Returns
    -------
    grad_x : shape of x
    grad_weight, grad_bias : (c,)
    """
    normal, _ = _normal(_grouped(x, groups), 1, eps, True)
    sums = (0, *range(2, x.ndim))
    with ieee():
        inner = grad_y if weight is None else grad_y * _spread(weight, x)
        grad_bias = grad_y.sum(axis=sums)
        grad_weight = (grad_y * normal.reshape(x.shape)).sum(axis=sums)
    grad_x, _, _ = layer_norm_backward(
        _grouped(inner, groups), _grouped(x, groups), 1, None, eps
    )
    return grad_x.reshape(x.shape), grad_weight, grad_bias


def local_response_norm(
    x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """Divide each channel by its neighbours.

    Parameters
    ----------
    x : (n, c, *spatial)
    size : int
        Channels of a window, from `c - size // 2` on; outside are zeros.

    Returns
    -------
    y : shape of x
        `x / (k + alpha / size * (sum of x**2 over the window))**beta`.

    References
    ----------
    Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional
    Neural Networks", 2012, section 3.3; there without the division by `size`.
    """
    with ieee():
        y: Array = x * _response(x, size, alpha, k) ** -x.dtype.type(beta)
    return y


def local_response_norm_backward(
    grad_y: Array,
    x: Array,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> Array:
    """Give the gradient of x.

    Parameters
    ----------
    grad_y, x : (n, c, *spatial)
    size, alpha, beta, k : as in `local_response_norm`

    Returns
    -------
    grad_x : shape of x
        Through the element itself, and through all windows that hold it.
    """
    t, power = _response(x, size, alpha, k), x.dtype.type(beta)
    with ieee():
        terms = grad_y * x * t ** -(power + 1)
        others = np.zeros_like(terms)
        for c in range(x.shape[1]):
            others[:, _window(c, size, x)] += terms[:, c : c + 1]
        factor = x.dtype.type(2 * alpha * beta / size)
        grad_x: Array = grad_y * t**-power - factor * x * others
    return grad_x


def _response(x: Array, size: int, alpha: float, k: float) -> Array:
    """Give k + alpha / size * (sum of x**2 over the window of each channel)."""
    squares = np.empty_like(x)
    with ieee():
        for c in range(x.shape[1]):
            squares[:, c] = (x[:, _window(c, size, x)] ** 2).sum(axis=1)
        t: Array = x.dtype.type(k) + x.dtype.type(alpha / size) * squares
    return t


def _window(channel: int, size: int, x: Array) -> slice:
    """Give the channels in the window of one."""
    first = channel - size // 2
    return slice(max(first, 0), min(first + size, x.shape[1]))


def _normal(x: Array, axes: int, eps: float, centred: bool) -> tuple[Array, Array]:
    """Give x with mean 0 and variance 1 over the last axes, and 1 / deviation."""
    last = tuple(range(x.ndim - axes, x.ndim))
    with ieee():
        if centred:
            x = x - x.mean(axis=last, keepdims=True)
        var = (x * x).mean(axis=last, keepdims=True)
        scale = 1 / np.sqrt(var + x.dtype.type(eps))
        return x * scale, scale


def _grouped(x: Array, groups: int) -> Array:
    """View x as rows to be normalised: (n, groups, rest)."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups * prod(x.shape[2:]))


def _statistics(x: Array) -> tuple[Array, Array, int]:
    """Give mean, variance and number of elements of each channel."""
    axes = (0, *range(2, x.ndim))
    with ieee():
        return x.mean(axis=axes), x.var(axis=axes), x.shape[0] * prod(x.shape[2:])


def _spread(values: Array, x: Array) -> Array:
    """Shape one value per channel for broadcasting over x."""
    return values.reshape(-1, *(1,) * (x.ndim - 2))
