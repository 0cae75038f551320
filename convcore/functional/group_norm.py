"""Group and instance normalisation: each sample by itself, some channels together."""

from collections.abc import Collection
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from convcore.arguments import boolean, integer, real
from convcore.functional._checks import share
from convcore.functional._norms import Wide
from convcore.functional._outs import Outs
from convcore.functional._rows import Rows, gradients, kept, normalised, rows_of
from convcore.functional.norm import batch_norm, batch_norm_backward, running_pair
from convcore.runtime.arrays import Array, ready

__all__ = [
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
]

Shape = tuple[int, ...]
Gradients = tuple[Array | None, Array | None, Array | None]


def group_norm(
    x: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Normalise groups of channels: (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : (N, C) or (N, C, ...) float32 or float64
        Input; mean and (biased) variance are taken of each group of each sample.
    num_groups : int
        Groups into which the channels are cut; divides C.
    weight, bias : (C,), dtype of x, optional
        Scale and shift of each channel; 1 and 0 by default.
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
        When shapes do not fit, or dtypes differ.

    Notes
    -----
    One read and one write, as long as a group fits the cache. Sums are taken in float64:
    a large mean costs no digits. The bits of a sample depend on that sample alone.

    References
    ----------
    Wu, He: Group Normalization, ECCV 2018, section 3.

    Examples
    --------
    >>> group_norm(np.array([[1.0, 3.0, 5.0, 5.0]]), 2, eps=0.01).round(2)
    array([[-1.,  1.,  0.,  0.]])
    """
    return group_normalised(
        "group_norm", x, num_groups, (weight, bias), eps, out, False
    )[0]


def group_norm_backward(
    grad_output: Array,
    x: Array,
    num_groups: int,
    weight: Array | None = None,
    eps: float = 1e-5,
    *,
    needs: Collection[str] = ("x", "weight", "bias"),
    mean: Array | None = None,
    rstd: Array | None = None,
    out: Outs | None = None,
) -> Gradients:
    """Take the gradients of `group_norm`.

    With h = (x - mean) / sqrt(var + eps), and means over a group of a sample::

        grad_bias   = sum of g over samples and space
        grad_weight = sum of g * h over samples and space
        grad_x      = (gw - mean(gw) - h * mean(gw * h)) / sqrt(var + eps), gw = g * weight

    Parameters
    ----------
    grad_output : shape and dtype of x
        Gradient of the output, g.
    x, num_groups, weight, eps
        As in the forward call.
    needs : names among "x", "weight", "bias"
        Gradients to compute.
    mean, rstd : float64, an element for each sample and group, optional
        Mean and 1 / sqrt(var + eps), where they are known; both or none.
    out : tuple of (array or None), optional
        Where to write the three results, in their order; None for new memory.

    Returns
    -------
    grad_x, grad_weight, grad_bias : shape of x, (C,), (C,), dtype of x
        None where not needed.

    Raises
    ------
    ValueError, TypeError
        As `group_norm`, or when `needs` has another name.

    Examples
    --------
    >>> x = np.array([[1.0, 3.0]])
    >>> grads = group_norm_backward(x, x, 1, eps=0.0)
    >>> [grad.tolist() for grad in grads]
    [[[0.0, 0.0]], [-1.0, 3.0], [1.0, 3.0]]
    """
    return group_gradients(
        "group_norm_backward",
        (grad_output, x),
        num_groups,
        weight,
        eps,
        needs,
        (mean, rstd),
        out,
    )


def instance_norm(
    x: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Normalise each channel of each sample: (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : (N, C, ...) float32 or float64
        Input, with at least one axis of space.
    running_mean, running_var : (C,), dtype of x, or both None
        With `use_input_stats` they are updated in place, by the averages of means and
        unbiased variances over the samples; without, they are what is used.
    weight, bias : (C,), dtype of x, optional
        Scale and shift of each channel; 1 and 0 by default.
    use_input_stats : bool
        Whether to use the (biased) statistics of the input.
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
        When shapes do not fit, dtypes differ, or a channel has less than two values.

    References
    ----------
    Ulyanov, Vedaldi, Lempitsky: Instance Normalization, 2016, equation 2.

    Examples
    --------
    >>> instance_norm(np.array([[[1.0, 3.0], [5.0, 5.0]]]), eps=0.01).round(2)
    array([[[-1.,  1.],
            [ 0.,  0.]]])
    """
    name = "instance_norm"
    boolean(name, "use_input_stats", use_input_stats)
    if not use_input_stats:
        x = ready(name, "x", x)
        _spatial(name, x, 1)
        running = running_mean, running_var
        return batch_norm(x, *running, weight, bias, False, momentum, eps, out=out)
    return instance_normalised(
        name, x, (running_mean, running_var), (weight, bias), momentum, eps, out
    )[0]


def instance_norm_backward(
    grad_output: Array,
    x: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    use_input_stats: bool = True,
    eps: float = 1e-5,
    *,
    needs: Collection[str] = ("x", "weight", "bias"),
    mean: Array | None = None,
    rstd: Array | None = None,
    out: Outs | None = None,
) -> Gradients:
    """Take the gradients of `instance_norm`: those of `group_norm` with C groups.

    Parameters
    ----------
    grad_output : shape and dtype of x
        Gradient of the output.
    x, running_mean, running_var, weight, use_input_stats, eps
        As in the forward call; running statistics only without `use_input_stats`.
    needs : names among "x", "weight", "bias"
        Gradients to compute.
    mean, rstd : float64, an element for each sample and channel, optional
        Mean and 1 / sqrt(var + eps) of the input, where they are known; both or none.
    out : tuple of (array or None), optional
        Where to write the three results, in their order; None for new memory.

    Returns
    -------
    grad_x, grad_weight, grad_bias : shape of x, (C,), (C,), dtype of x
        None where not needed.

    Raises
    ------
    ValueError, TypeError
        As `instance_norm`, or when `needs` has another name.

    Examples
    --------
    >>> x = np.array([[[1.0, 3.0]]])
    >>> grads = instance_norm_backward(x, x, eps=0.0)
    >>> [grad.tolist() for grad in grads]
    [[[[0.0, 0.0]]], [2.0], [4.0]]
    """
    name = "instance_norm_backward"
    boolean(name, "use_input_stats", use_input_stats)
    x = ready(name, "x", x)
    if not use_input_stats:
        _spatial(name, x, 1)
        running = running_mean, running_var
        return batch_norm_backward(
            grad_output, x, *running, weight, False, eps, needs=needs, out=out
        )
    _spatial(name, x, 2)
    return group_gradients(
        name, (grad_output, x), None, weight, eps, needs, (mean, rstd), out
    )


def instance_normalised(
    name: str,
    x: Array,
    running: tuple[Array | None, Array | None],
    affine: tuple[Any, Any],
    momentum: float,
    eps: float,
    out: Any = None,
) -> tuple[Array, Wide]:
    """Do `instance_norm` by the input, and give the statistics of the rows, too."""
    given = x, *affine
    x = ready(name, "x", x)
    _spatial(name, x, 2)
    new = share(name, "momentum", momentum)
    stored = None
    if running[0] is not None or running[1] is not None:
        stored = running_pair(name, running, x.shape[1], x, given)
    y, statistics = group_normalised(name, x, None, affine, eps, out, True)
    if stored is not None and len(x):
        _update(running, stored, statistics, x.shape, (new, eps))
    return y, statistics


def group_normalised(
    name: str,
    x: Array,
    num_groups: Any,
    affine: tuple[Any, Any],
    eps: float,
    out: Any,
    keep: bool,
) -> tuple[Array, Any]:
    """Do `group_norm`, and give the statistics of the rows, too, if they are kept.

    Without a number of groups, each channel is one.
    """
    x = ready(name, "x", x)
    return normalised(name, x, _job(name, x, num_groups, eps), affine, out, keep)


def group_gradients(
    name: str,
    arrays: tuple[Array, Array],
    num_groups: Any,
    weight: Any,
    eps: float,
    needs: Any,
    known: Any,
    out: Any = None,
) -> Gradients:
    """Do `group_norm_backward`; `known` are the statistics, joined or apart."""
    grad_output, x = arrays
    x = ready(name, "x", x)
    job = _job(name, x, num_groups, eps)
    statistics = kept(name, known, job)
    return gradients(name, grad_output, x, job, weight, needs, statistics, out)


def _job(function: str, x: Array, num_groups: Any, eps: float) -> Rows:
    """Check shapes and numbers: once for all equal calls."""
    fit = type(eps) is float and (num_groups is None or type(num_groups) is int)
    return (_cached_job if fit else _new_job)(function, x.shape, num_groups, eps)


def _new_job(function: str, shape: Shape, num_groups: Any, eps: float) -> Rows:
    if len(shape) < 2 or 0 in shape[1:]:
        raise ValueError(
            f"{function}: x must have shape (N, C) or (N, C, ...) with every extent "
            f"but the batch >= 1, got {shape}"
        )
    eps = real(function, "eps", eps, least=0)
    channels, rest = shape[1], prod(shape[2:])
    groups = channels
    if num_groups is not None:
        groups = integer(function, "num_groups", num_groups, 1)
    if channels % groups:
        raise ValueError(
            f"{function}: num_groups must divide the channels of x, got num_groups "
            f"{groups}, x {shape}"
        )
    extents = shape[0], groups, channels // groups * rest, rest
    return rows_of(extents, (channels,), eps)


_cached_job = lru_cache(maxsize=4096)(_new_job)


def _spatial(function: str, x: Array, least: int) -> None:
    """Check that a channel has so many values."""
    shape = x.shape
    if len(shape) < 3 or prod(shape[2:]) < least:
        raise ValueError(
            f"{function}: x must have shape (N, C, ...) with at least {least} values "
            f"in a channel, got {shape}"
        )


@np.errstate(all="ignore")
def _update(
    running: Any, stored: Any, statistics: Wide, shape: Shape, numbers: Any
) -> None:
    """Mix averages over the samples into the running statistics, in place."""
    new, eps = numbers
    count = prod(shape[2:])
    means, rstds = statistics.reshape(2, *shape[:2])
    variances = (1 / rstds**2 - eps) * (count / (count - 1))
    for target, old, found in zip(running, stored, (means, variances), strict=True):
        target[...] = (1 - new) * old.astype(np.float64) + new * found.mean(axis=0)
