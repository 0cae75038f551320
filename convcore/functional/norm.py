"""Batch and instance normalisation: statistics for each channel, then its own scale."""

from array import array
from collections.abc import Collection
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from convcore.arguments import boolean, real
from convcore.functional._checks import like, needed, share
from convcore.functional._norms import (
    Wide,
    bits,
    per_channel,
    result,
    statistics_of,
)
from convcore.functional._outs import Outs, places
from convcore.functional.call import apply
from convcore.plan import operation
from convcore.runtime.arrays import Array, overlap, ready

__all__ = ["batch_norm", "batch_norm_backward"]

Pair = tuple[Array | None, Array | None]


def batch_norm(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
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
    out : (like x), optional
        Where to write y; contiguous, and no part of x.

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
    Two reads of x and one write of y in training; one read and one write in inference,
    whose bits do not depend on the batch. Statistics are summed in float64 around a value
    of the channel: data with a mean of 10**4 and a deviation of 1 keep all the digits that
    float32 gave them.

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
    running = running_mean, running_var
    if training is True:
        y, _ = trained(name, x, running, (weight, bias), momentum, eps, out)
        return y
    x = ready(name, "x", x)
    job = _job(name, x.shape, training, eps, momentum)
    mean, var = running_pair(name, running, job.channels, x)
    weight = per_channel(name, "weight", weight, job.channels, x)
    bias = per_channel(name, "bias", bias, job.channels, x)
    y = result(name, out, x, weight, bias, mean, var)
    apply(
        *("norm_channels", "infer", job.sizes, x, weight, bias, mean, var, y),
        work=x.size,
        scratch=job.scratch,
    )
    return y


def trained(
    name: str,
    x: Array,
    running: Pair,
    affine: Pair,
    momentum: float = 0.1,
    eps: float = 1e-5,
    out: Array | None = None,
) -> tuple[Array, Wide]:
    """Do `batch_norm` in training, and give mean and 1 / deviation, too: (2, C).

    Parameters
    ----------
    running, affine : pairs of (C,), or of None
    """
    given = x, *affine
    x = ready(name, "x", x)
    job = _job(name, x.shape, True, eps, momentum)
    channels = job.channels
    mean, var = stored = (
        (None, None)
        if running[0] is None and running[1] is None
        else running_pair(name, running, channels, x, given)
    )
    weight = per_channel(name, "weight", affine[0], channels, x)
    bias = per_channel(name, "bias", affine[1], channels, x)
    y = result(name, out, x, weight, bias, *running)
    statistics = np.empty((2, channels))
    apply(
        *("norm_channels", "forward", job.sizes, x, weight, bias, mean, var, y),
        statistics,
        work=2 * x.size,
        scratch=job.scratch,
    )
    if stored[0] is not running[0]:
        running[0][...] = stored[0]  # type: ignore[index]
    if stored[1] is not running[1]:
        running[1][...] = stored[1]  # type: ignore[index]
    return y, statistics


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
    mean: Array | None = None,
    rstd: Array | None = None,
    out: Outs | None = None,
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
    mean, rstd : (C,) float64, optional
        Mean and 1 / sqrt(var + eps) of the batch, where they are known from the forward
        pass; both or none. Only in training.
    out : tuple of (array or None), optional
        Where to write the three results, in their order; None for new memory.

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
    asked = needed(name, needs)
    inputs: list[Array | None] = [grad_output, x, weight]
    x = ready(name, "x", x)
    job = _job(name, x.shape, training, eps, 0.0)
    channels = job.channels
    grads = like(name, "grad_output", grad_output, "x", x)
    weight = per_channel(name, "weight", weight, channels, x)
    if not training:
        running = running_mean, running_var
        statistics = running_pair(name, running, channels, x)
        inputs += running
    else:
        known = statistics_of(name, mean, rstd, channels)
        statistics = _statistics(x, job) if known is None else known
    shapes = (x.shape, (channels,), (channels,))
    grad_x, grad_weight, grad_bias = places(name, out, (asked, shapes), x.dtype, inputs)
    apply(
        *("norm_channels", "backward", job.sizes, grads, x, weight, *statistics),
        *(grad_x, grad_weight, grad_bias),
        work=2 * x.size,
        scratch=job.scratch,
    )
    return grad_x, grad_weight, grad_bias


class _Job(NamedTuple):
    """What shape and numbers decide."""

    channels: int
    sizes: "array[int]"
    scratch: int


def _job(
    function: str, shape: tuple[int, ...], training: bool, eps: float, momentum: float
) -> _Job:
    """Check shape and numbers: once for all equal calls."""
    if type(eps) is float and type(momentum) is float and type(training) is bool:
        return _cached_job(function, shape, training, eps, momentum)
    return _new_job(function, shape, training, eps, momentum)


def _new_job(
    function: str, shape: tuple[int, ...], training: bool, eps: float, momentum: float
) -> _Job:
    if len(shape) < 2 or 0 in shape[1:]:
        raise ValueError(
            f"{function}: x must have shape (N, C) or (N, C, ...) with every extent "
            f"but the batch >= 1, got {shape}"
        )
    boolean(function, "training", training)
    momentum = share(function, "momentum", momentum)
    eps = real(function, "eps", eps, least=0)
    folded = shape[0], shape[1], prod(shape[2:])
    count = folded[0] * folded[2]
    if training and count < 2:
        raise ValueError(
            f"{function}: training needs more than one value per channel, got {count} "
            f"in x (N, C, ...) = {folded}"
        )
    scratch: int = operation("norm_channels", "scratch_size")(*folded)
    sizes = array("q", (*folded, int(training), bits(eps), bits(momentum)))
    return _Job(shape[1], sizes, scratch)


_cached_job = lru_cache(maxsize=4096)(_new_job)


def running_pair(
    function: str,
    running: Pair,
    channels: int,
    x: Array,
    inputs: tuple[Array | None, ...] | None = None,
) -> Pair:
    """Check the running statistics.

    With `inputs` they are written: they must be writeable then, and overlap none of these
    and not each other.
    """
    mean, var = running
    for argument, values in (("running_mean", mean), ("running_var", var)):
        if values is None:
            raise ValueError(f"{function}: {argument} must be given, got None")
    ready_mean = per_channel(function, "running_mean", mean, channels, x)
    ready_var = per_channel(function, "running_var", var, channels, x)
    if inputs is not None:
        others = var, *inputs
        for argument, values in (("running_mean", mean), ("running_var", var)):
            if not (isinstance(values, np.ndarray) and values.flags.writeable):
                raise ValueError(
                    f"{function}: {argument} must be a writeable array, training "
                    f"updates it"
                )
            for other in others:
                if other is None or not isinstance(other, np.ndarray):
                    continue
                if overlap(values, other):
                    raise ValueError(
                        f"{function}: {argument} must not overlap an input or the "
                        f"other statistic, training updates it"
                    )
            others = inputs
    return ready_mean, ready_var


def _statistics(x: Array, job: _Job) -> Pair:
    """Take mean and 1 / deviation of each channel: (2, C)."""
    statistics = np.empty((2, job.channels))
    nothing = (None,) * 5
    apply(
        *("norm_channels", "forward", job.sizes, x, *nothing, statistics),
        work=x.size,
        scratch=job.scratch,
    )
    return statistics[0], statistics[1]
