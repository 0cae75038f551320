"""Batch normalisation: each channel with mean 0 and variance 1, then its own scale.

Whatever the dtype of x, statistics are summed and values are computed in float64, in
blocks small enough for the cache, and rounded once. Data with a mean of 10**4 and a
deviation of 1 keep all the digits that float32 gave them.
"""

from collections.abc import Collection, Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convcore.arguments import real
from convcore.functional._checks import like, needed, share, vector
from convcore.runtime.arrays import Array, empty, ready

__all__ = ["batch_norm", "batch_norm_backward"]

Wide = npt.NDArray[np.float64]

# Elements of a block: 512 KiB in float64, so that its few passes stay in the L2 cache.
_BLOCK = 2**16

_ieee = np.errstate(all="ignore")


@_ieee
def batch_norm(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Normalise each channel: (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : (N, C) or (N, C, ...) float32 or float64
        Input.
    running_mean, running_var : (C,), dtype of x, or both None in training
        In inference the statistics to use. In training they are updated in place, to
        (1 - momentum) * running + momentum * batch, with the unbiased variance of the
        batch; they must be writeable then.
    weight, bias : (C,), dtype of x, optional
        Scale and shift; 1 and 0 by default.
    training : bool
        Whether to use the (biased) statistics of this batch.
    momentum : float
        Share of the new statistics, 0 <= momentum <= 1.
    eps : float
        Added to the variance; at least 0.

    Returns
    -------
    y : shape and dtype of x

    Raises
    ------
    ValueError, TypeError
        When a vector has not one element per channel, dtypes differ, or, in training, a
        channel has less than two values. Then the running statistics are as before.

    Notes
    -----
    The variance takes a second pass over x, around the mean. The bits of an inference
    do not depend on the batch.

    References
    ----------
    Ioffe, Szegedy: Batch Normalization: Accelerating Deep Network Training by Reducing
    Internal Covariate Shift, ICML 2015, algorithm 1.

    Examples
    --------
    >>> mean, var = np.zeros(1), np.ones(1)
    >>> batch_norm(np.array([[1.0], [3.0]]), mean, var, training=True, eps=0.0)
    array([[-1.],
           [ 1.]])
    >>> mean, var
    (array([0.2]), array([1.1]))
    """
    name = "batch_norm"
    rows = _rows(name, x)
    channels = rows.shape[1]
    new = share(name, "momentum", momentum)
    eps = real(name, "eps", eps, least=0)
    stored = _stored(name, running_mean, running_var, rows, training)
    gain = None if weight is None else vector(name, "weight", weight, channels, rows)
    shift = None if bias is None else vector(name, "bias", bias, channels, rows)

    statistics = _batch_statistics(name, rows) if training else stored
    assert statistics is not None
    scale = 1 / np.sqrt(statistics.var + eps)
    if gain is not None:
        scale = scale * gain[:, None]
    y = empty(rows.shape, rows.dtype)
    for block in _blocks(rows):
        wide = np.subtract(rows[block], statistics.mean, dtype=np.float64)
        wide *= scale
        if shift is not None:
            wide += shift[:, None]
        y[block] = wide
    if training and stored is not None:
        count = rows.shape[0] * rows.shape[2]
        unbiased = statistics.var * (count / (count - 1))
        _update(running_mean, stored.mean, statistics.mean, new)
        _update(running_var, stored.var, unbiased, new)
    return y.reshape(np.shape(x))


@_ieee
def batch_norm_backward(
    grad_output: Array,
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    training: bool = False,
    eps: float = 1e-5,
    *,
    needs: Collection[str] = ("x", "weight", "bias"),
) -> tuple[Array | None, Array | None, Array | None]:
    """Take the gradients of `batch_norm`.

    With h = (x - mean) / sqrt(var + eps), scale = weight / sqrt(var + eps) and sums
    over all m values of a channel::

        grad_bias   = sum(g)
        grad_weight = sum(g * h)
        grad_x      = scale * g                                         in inference
        grad_x      = scale * (g - grad_bias / m - h * grad_weight / m)   in training

    Parameters
    ----------
    grad_output : shape and dtype of x
        Gradient of the output, g.
    x, running_mean, running_var, weight, training, eps
        As in the forward call. In training the statistics are taken from x again, and
        the running ones are not looked at: they may be None.
    needs : names among "x", "weight", "bias"
        Gradients to compute.

    Returns
    -------
    grad_x, grad_weight, grad_bias : shape of x, (C,), (C,), dtype of x
        None where not needed.

    Raises
    ------
    ValueError, TypeError
        As `batch_norm`, or when `needs` has another name.

    References
    ----------
    Ioffe, Szegedy, ICML 2015, section 3.

    Examples
    --------
    >>> x = np.array([[1.0], [3.0]])
    >>> grads = batch_norm_backward(x, x, None, None, training=True, eps=0.0)
    >>> [grad.tolist() for grad in grads]
    [[[0.0], [0.0]], [2.0], [4.0]]
    """
    name = "batch_norm_backward"
    needs_x, needs_weight, needs_bias = needed(name, needs, ("x", "weight", "bias"))
    rows = _rows(name, x)
    channels = rows.shape[1]
    grads = like(name, "grad_output", grad_output, "x", ready(name, "x", x))
    grads = grads.reshape(rows.shape)
    eps = real(name, "eps", eps, least=0)
    gain = None if weight is None else vector(name, "weight", weight, channels, rows)
    if training:
        statistics = _batch_statistics(name, rows)
    else:
        found = _stored(name, running_mean, running_var, rows, training)
        assert found is not None
        statistics = found

    inverse = 1 / np.sqrt(statistics.var + eps)
    sum_g, sum_gh = np.zeros((channels, 1)), np.zeros((channels, 1))
    if needs_weight or needs_bias or training:
        for block in _blocks(rows):
            g = grads[block].astype(np.float64)
            sum_g += _channel_sums(g)
            g *= _normalised(rows[block], statistics.mean, inverse)
            sum_gh += _channel_sums(g)

    grad_x = None
    if needs_x:
        count = rows.shape[0] * rows.shape[2]
        scale = inverse if gain is None else inverse * gain[:, None]
        grad_x = empty(rows.shape, rows.dtype)
        for block in _blocks(rows):
            wide = grads[block].astype(np.float64)
            if training:
                normalised = _normalised(rows[block], statistics.mean, inverse)
                normalised *= sum_gh / count
                wide -= normalised
                wide -= sum_g / count
            wide *= scale
            grad_x[block] = wide
        grad_x = grad_x.reshape(np.shape(x))
    return (
        grad_x,
        sum_gh[:, 0].astype(rows.dtype) if needs_weight else None,
        sum_g[:, 0].astype(rows.dtype) if needs_bias else None,
    )


class _Statistics(NamedTuple):
    """Mean and variance of each channel, (C, 1), to go with (n, C, rest)."""

    mean: Wide
    var: Wide


def _rows(function: str, x: Array) -> Array:
    """View x as (N, C, rest)."""
    x = ready(function, "x", x)
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ValueError(
            f"{function}: x must have shape (N, C) or (N, C, ...) with every extent "
            f"but the batch >= 1, got {x.shape}"
        )
    return x.reshape(*x.shape[:2], prod(x.shape[2:]))


def _blocks(rows: Array) -> Iterator[slice]:
    """Cut the batch into runs of about _BLOCK elements, by the shape of one sample."""
    samples = max(1, _BLOCK // prod(rows.shape[1:]))
    for start in range(0, rows.shape[0], samples):
        yield slice(start, start + samples)


def _channel_sums(wide: Wide) -> Wide:
    """Sum (n, C, rest) over all but the channels: (C, 1)."""
    sums: Wide = wide.sum(axis=2).sum(axis=0)
    return sums[:, None]


def _normalised(rows: Array, mean: Wide, inverse: Wide) -> Wide:
    wide: Wide = np.subtract(rows, mean, dtype=np.float64)
    wide *= inverse
    return wide


def _batch_statistics(function: str, rows: Array) -> _Statistics:
    """Take mean and biased variance of each channel over the batch."""
    samples, channels, rest = rows.shape
    count = samples * rest
    if count < 2:
        raise ValueError(
            f"{function}: training needs more than one value per channel, got {count} "
            f"in x (N, C, ...) = {(samples, channels, rest)}"
        )
    mean = np.zeros((channels, 1))
    for block in _blocks(rows):
        mean += _channel_sums(rows[block].astype(np.float64))
    mean /= count
    var = np.zeros((channels, 1))
    for block in _blocks(rows):
        centred = np.subtract(rows[block], mean, dtype=np.float64)
        centred *= centred
        var += _channel_sums(centred)
    var /= count
    return _Statistics(mean, var)


def _stored(
    function: str, running_mean: Any, running_var: Any, rows: Array, training: bool
) -> _Statistics | None:
    """Check the running statistics and give them in float64."""
    if running_mean is None and running_var is None and training:
        return None
    found = []
    for argument, values in (
        ("running_mean", running_mean),
        ("running_var", running_var),
    ):
        if values is None:
            raise ValueError(f"{function}: {argument} must be given, got None")
        found.append(vector(function, argument, values, rows.shape[1], rows))
        if training and not (isinstance(values, np.ndarray) and values.flags.writeable):
            raise ValueError(
                f"{function}: {argument} must be a writeable array, training updates it"
            )
    mean, var = (values.astype(np.float64)[:, None] for values in found)
    return _Statistics(mean, var)


def _update(running: Any, old: Wide, batch: Wide, new: float) -> None:
    """Mix a share of new statistics into the caller's array, in place."""
    running[...] = ((1 - new) * old + new * batch)[:, 0]
