"""Losses: one number that says how wrong an output is, and its gradient."""

import numpy as np

from convcore.reference.activation import log_softmax
from convcore.reference.taps import Array, ieee


def cross_entropy(
    x: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Charge the model the surprise, -log(probability), of the right class.

    Parameters
    ----------
    x : (n, classes, *spatial)
        Scores; their softmax over the classes is the probability.
    target : (n, *spatial), integers; or shape and dtype of x
        The right class; or the probability of each class.
    weight : (classes,), optional
        What each class counts; 1 where not given.
    ignore_index : int
        A target that costs nothing.
    reduction : "mean", "sum" or "none"
        "mean" divides by the sum of the weights of the targets that are not ignored;
        it is NaN when all are. With probabilities it divides by the number of positions.
    label_smoothing : float in [0, 1]
        The share of the truth that is given to all classes evenly.

    Returns
    -------
    loss : (), or (n, *spatial) for "none"
        `-sum over classes of truth * log(probability)`

    Examples
    --------
    >>> loss = cross_entropy(np.log([[0.25, 0.75]]), np.array([1]))
    >>> round(float(np.exp(-loss)), 12)
    0.75
    """
    truth, total = _truth(x, target, weight, ignore_index, label_smoothing)
    with ieee():
        # A class without truth costs nothing, not even when it is impossible.
        terms = np.where(truth == 0, 0, truth * log_softmax(x, dim=1))
        return _reduced(-terms.sum(axis=1), total, reduction)


def cross_entropy_backward(
    x: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    grad_loss: Array | float = 1.0,
) -> Array:
    """Give the gradient of x: `probability * sum(truth) - truth`, reduced.

    Parameters
    ----------
    x, target, weight, ignore_index, reduction, label_smoothing : as in `cross_entropy`
    grad_loss : (), or (n, *spatial) for "none"

    Returns
    -------
    grad_x : shape and dtype of x
    """
    truth, total = _truth(x, target, weight, ignore_index, label_smoothing)
    with ieee():
        probability = np.exp(log_softmax(x, dim=1))
        grad_x = probability * truth.sum(axis=1, keepdims=True) - truth
        scale = np.expand_dims(_scale(grad_loss, total, reduction, x), axis=1)
        # An ignored target has the gradient 0, even when "mean" divides by nothing.
        return np.where(truth.any(axis=1, keepdims=True), grad_x * scale, 0)


def mse_loss(x: Array, target: Array, reduction: str = "mean") -> Array:
    """Charge the square of each difference.

    Parameters
    ----------
    x, target : one shape and dtype
    reduction : "mean", "sum" or "none"

    Returns
    -------
    loss : (), or the shape of x for "none"
    """
    with ieee():
        return _reduced((x - target) ** 2, x.dtype.type(x.size), reduction)


def mse_loss_backward(
    x: Array,
    target: Array,
    reduction: str = "mean",
    grad_loss: Array | float = 1.0,
) -> Array:
    """Give the gradient of x: `2 * (x - target)`, reduced. That of target is minus it.

    Parameters
    ----------
    x, target, reduction : as in `mse_loss`
    grad_loss : (), or the shape of x for "none"

    Returns
    -------
    grad_x : shape and dtype of x
    """
    with ieee():
        scale = _scale(grad_loss, x.dtype.type(x.size), reduction, x)
        return 2 * (x - target) * scale


def _truth(
    x: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[Array, Array]:
    """Give the weighted truth about each class, and what "mean" divides by.

    Returns
    -------
    truth : (n, classes, *spatial)
        `weight * ((1 - smoothing) * (class is target) + smoothing / classes)`;
        nothing at all for an ignored target.
    total : ()
    """
    classes = x.shape[1]
    smoothing = x.dtype.type(label_smoothing)
    if weight is None:
        weight = np.ones(classes, dtype=x.dtype)
    weight = weight.reshape(-1, *(1,) * (x.ndim - 2))
    if target.dtype.kind == "f":
        truth = weight * ((1 - smoothing) * target + smoothing / classes)
        return truth, np.asarray(x.size // classes, x.dtype)
    kept = np.expand_dims(target != ignore_index, axis=1)  # (n, 1, *spatial)
    each = np.arange(classes).reshape(-1, *(1,) * (x.ndim - 2))  # (classes, 1, ...)
    right = kept & (np.expand_dims(target, axis=1) == each)
    truth = weight * ((1 - smoothing) * right + smoothing / classes * kept)
    total: Array = (weight * right).sum()
    return truth.astype(x.dtype), total


def _reduced(losses: Array, total: Array, reduction: str) -> Array:
    if reduction == "none":
        return losses
    loss: Array = losses.sum()
    return loss / total if reduction == "mean" else loss


def _scale(grad_loss: Array | float, total: Array, reduction: str, x: Array) -> Array:
    """Give the factor that the reduction and what follows put on each gradient."""
    grad = np.asarray(grad_loss, dtype=x.dtype)
    if reduction == "mean":
        grad = grad / total
    if grad.ndim == 0:
        grad = grad.reshape((1,) * (x.ndim - 1))
    return grad
