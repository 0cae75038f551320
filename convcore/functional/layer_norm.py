"""Layer and RMS normalisation: each sample by itself, over its last axes."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from convcore.arguments import exact, integer, real, shown
from convcore.functional._outs import Outs
from convcore.functional._rows import Rows, gradients, kept, normalised, rows_of
from convcore.runtime.arrays import Array, ready

__all__ = ["layer_norm", "layer_norm_backward", "rms_norm", "rms_norm_backward"]

Shape = tuple[int, ...]
Gradients = tuple[Array | None, Array | None, Array | None]


def layer_norm(
    x: Array,
    normalized_shape: int | Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Normalise over the last axes: (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : (..., *normalized_shape) float32 or float64
        Input; mean and (biased) variance are taken of each element of the first axes.
    normalized_shape : int or sequence of int
        Extents of the last axes.
    weight, bias : normalized_shape, dtype of x, optional
        Scale and shift of each element; 1 and 0 by default.
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
    One read and one write, as long as a row fits the cache. Sums are taken in float64: a
    large mean costs no digits. The bits of a row depend on that row alone.

    References
    ----------
    Ba, Kiros, Hinton: Layer Normalization, 2016, section 3.

    Examples
    --------
    >>> layer_norm(np.array([[1.0, 3.0], [5.0, 5.0]]), 2, eps=0.01).round(2)
    array([[-1.,  1.],
           [ 0.,  0.]])
    """
    return layer_normalised(
        "layer_norm", x, normalized_shape, (weight, bias), eps, out, False
    )[0]


def layer_norm_backward(
    grad_output: Array,
    x: Array,
    normalized_shape: int | Sequence[int],
    weight: Array | None = None,
    eps: float = 1e-5,
    *,
    needs: Collection[str] = ("x", "weight", "bias"),
    mean: Array | None = None,
    rstd: Array | None = None,
    out: Outs | None = None,
) -> Gradients:
    """Take the gradients of `layer_norm`.

    With h = (x - mean) / sqrt(var + eps), and means over a row::

        grad_bias   = sum of g over the rows
        grad_weight = sum of g * h over the rows
        grad_x      = (gw - mean(gw) - h * mean(gw * h)) / sqrt(var + eps), gw = g * weight

    Parameters
    ----------
    grad_output : shape and dtype of x
        Gradient of the output, g.
    x, normalized_shape, weight, eps
        As in the forward call.
    needs : names among "x", "weight", "bias"
        Gradients to compute.
    mean, rstd : float64, an element for each row, optional
        Mean and 1 / sqrt(var + eps), where they are known; both or none.
    out : tuple of (array or None), optional
        Where to write the three results, in their order; None for new memory.

    Returns
    -------
    grad_x, grad_weight, grad_bias : shape of x, normalized_shape twice; dtype of x
        None where not needed.

    Raises
    ------
    ValueError, TypeError
        As `layer_norm`, or when `needs` has another name.

    Examples
    --------
    >>> x = np.array([[1.0, 3.0]])
    >>> grads = layer_norm_backward(x, x, 2, eps=0.0)
    >>> [grad.tolist() for grad in grads]
    [[[0.0, 0.0]], [-1.0, 3.0], [1.0, 3.0]]
    """
    return layer_gradients(
        "layer_norm_backward",
        (grad_output, x),
        normalized_shape,
        weight,
        eps,
        needs,
        (mean, rstd),
        out,
    )


def rms_norm(
    x: Array,
    normalized_shape: int | Sequence[int],
    weight: Array | None = None,
    eps: float | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Divide by the root of the mean square over the last axes, and multiply by a weight.

    Parameters
    ----------
    x : (..., *normalized_shape) float32 or float64
        Input.
    normalized_shape : int or sequence of int
        Extents of the last axes.
    weight : normalized_shape, dtype of x, optional
        Scale of each element; 1 by default.
    eps : float, optional
        Added to the mean square; by default the machine epsilon of the dtype.
    out : (like x), optional
        Where to write y; contiguous, and no part of x.

    Returns
    -------
    y : shape and dtype of x
        x / sqrt(mean(x**2) + eps) * weight.

    Raises
    ------
    ValueError, TypeError
        When shapes do not fit, or dtypes differ.

    References
    ----------
    Zhang, Sennrich: Root Mean Square Layer Normalization, NeurIPS 2019, section 3.

    Examples
    --------
    >>> rms_norm(np.array([[3.0, 4.0, 5.0, 5.0, 5.0]]), 5, eps=0.0).round(3)
    array([[0.671, 0.894, 1.118, 1.118, 1.118]])
    """
    return rms_normalised("rms_norm", x, normalized_shape, weight, eps, out, False)[0]


def rms_norm_backward(
    grad_output: Array,
    x: Array,
    normalized_shape: int | Sequence[int],
    weight: Array | None = None,
    eps: float | None = None,
    *,
    needs: Collection[str] = ("x", "weight"),
    rstd: Array | None = None,
    out: Outs | None = None,
) -> tuple[Array | None, Array | None]:
    """Take the gradients of `rms_norm`.

    With h = x / sqrt(mean(x**2) + eps), and means over a row::

        grad_weight = sum of g * h over the rows
        grad_x      = (gw - h * mean(gw * h)) / sqrt(mean(x**2) + eps), gw = g * weight

    Parameters
    ----------
    grad_output : shape and dtype of x
        Gradient of the output, g.
    x, normalized_shape, weight, eps
        As in the forward call.
    needs : names among "x", "weight"
        Gradients to compute.
    rstd : float64, an element for each row, optional
        1 / sqrt(mean(x**2) + eps), where it is known.
    out : tuple of (array or None), optional
        Where to write the two results, in their order; None for new memory.

    Returns
    -------
    grad_x, grad_weight : shape of x, normalized_shape; dtype of x
        None where not needed.

    Raises
    ------
    ValueError, TypeError
        As `rms_norm`, or when `needs` has another name.

    Examples
    --------
    >>> x = np.array([[2.0, 2.0]])
    >>> grad_x, grad_weight = rms_norm_backward(np.array([[1.0, 0.0]]), x, 2, eps=0.0)
    >>> grad_x, grad_weight
    (array([[ 0.25, -0.25]]), array([1., 0.]))
    """
    mean = None if rstd is None else np.zeros(np.shape(rstd))
    grad_x, grad_weight = rms_gradients(
        "rms_norm_backward",
        (grad_output, x),
        normalized_shape,
        weight,
        eps,
        needs,
        (mean, rstd),
        out,
    )
    return grad_x, grad_weight


def layer_normalised(
    name: str,
    x: Array,
    normalized_shape: Any,
    affine: tuple[Any, Any],
    eps: float,
    out: Any,
    keep: bool,
) -> tuple[Array, Any]:
    """Do `layer_norm`, and give the statistics of the rows, too, if they are kept."""
    x = ready(name, "x", x)
    job = _job(name, x, normalized_shape, eps, True)
    return normalised(name, x, job, affine, out, keep)


def layer_gradients(
    name: str,
    arrays: tuple[Array, Array],
    normalized_shape: Any,
    weight: Any,
    eps: float,
    needs: Any,
    known: Any,
    out: Any = None,
) -> Gradients:
    """Do `layer_norm_backward`; `known` are the statistics, joined or apart."""
    grad_output, x = arrays
    x = ready(name, "x", x)
    job = _job(name, x, normalized_shape, eps, True)
    statistics = kept(name, known, job)
    return gradients(name, grad_output, x, job, weight, needs, statistics, out)


def rms_normalised(
    name: str,
    x: Array,
    normalized_shape: Any,
    weight: Any,
    eps: float | None,
    out: Any,
    keep: bool,
) -> tuple[Array, Any]:
    """Do `rms_norm`, and give the statistics of the rows, too, if they are kept."""
    x = ready(name, "x", x)
    job = _job(name, x, normalized_shape, _rms_eps(eps, x), False)
    return normalised(name, x, job, (weight, None), out, keep)


def rms_gradients(
    name: str,
    arrays: tuple[Array, Array],
    normalized_shape: Any,
    weight: Any,
    eps: float | None,
    needs: Any,
    known: Any,
    out: Any = None,
) -> tuple[Array | None, Array | None]:
    """Do `rms_norm_backward`; `known` are the statistics, joined or apart."""
    grad_output, x = arrays
    x = ready(name, "x", x)
    job = _job(name, x, normalized_shape, _rms_eps(eps, x), False)
    statistics = kept(name, known, job)
    return gradients(name, grad_output, x, job, weight, needs, statistics, out)[:2]


def _rms_eps(eps: float | None, x: Array) -> float:
    return float(np.finfo(x.dtype).eps) if eps is None else eps


def _job(function: str, x: Array, normalized: Any, eps: float, centred: bool) -> Rows:
    """Check shapes and numbers: once for all equal calls."""
    if type(normalized) is list:
        normalized = tuple(normalized)
    fit = type(eps) is float and exact((normalized,))
    make = _cached_job if fit else _new_job
    return make(function, x.shape, normalized, eps, centred)


def _new_job(
    function: str, shape: Shape, normalized: Any, eps: float, centred: bool
) -> Rows:
    wanted = extents(function, normalized)
    eps = real(function, "eps", eps, least=0)
    apart = len(shape) - len(wanted)
    if apart < 0 or shape[apart:] != wanted:
        raise ValueError(
            f"{function}: x must end with the extents normalized_shape {wanted}, got "
            f"{shape}"
        )
    rows = prod(shape[:apart])
    return rows_of((rows, 1, prod(wanted), 1), wanted, eps, centred)


_cached_job = lru_cache(maxsize=4096)(_new_job)


def extents(function: str, normalized: Any) -> Shape:
    """Check `normalized_shape`, and give it as a tuple of ints."""
    given = normalized if isinstance(normalized, (tuple, list)) else (normalized,)
    if not given:
        raise ValueError(
            f"{function}: normalized_shape must have an axis, got {shown(normalized)}"
        )
    return tuple(integer(function, "normalized_shape", extent, 1) for extent in given)
