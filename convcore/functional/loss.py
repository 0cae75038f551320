"""Losses: one number that says how wrong an output is, and its gradient."""

from math import prod
from numbers import Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from convcore.arguments import integer
from convcore.functional._checks import like, share, vector
from convcore.functional._checks import reduction as check_reduction
from convcore.functional.softmax import log_softmax
from convcore.runtime.arrays import Array, empty, ready

__all__ = [
    "Reduction",
    "cross_entropy",
    "cross_entropy_backward",
    "mse_loss",
    "mse_loss_backward",
]

Loss = Array | np.floating[Any]
Reduction = Literal["mean", "sum", "none"]

_ieee = np.errstate(all="ignore")


@_ieee
def cross_entropy(
    x: Array,
    target: npt.NDArray[np.integer[Any]],
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Loss:
    """Measure how surprised the softmax of x is by the true classes.

    With L = log_softmax(x), s = `label_smoothing`, C classes, t the target and w the
    weight, one position costs::

        -(1 - s) * w[t] * L[t] - s / C * sum over c of w[c] * L[c]

    Parameters
    ----------
    x : (N, C), (N, C, ...) or (C,) float32 or float64
        Scores (logits) of the C classes.
    target : (N,), (N, ...) or () of any integer dtype
        True classes, from 0 to C - 1, or `ignore_index`.
    weight : (C,), dtype of x, optional
        Weight of each class; 1 by default.
    ignore_index : int
        A target that costs nothing, whatever the scores there.
    reduction : "mean", "sum" or "none"
        "mean" divides the sum by the sum of w[t] over all positions not ignored.
    label_smoothing : float
        Share of the target spread evenly over all classes, 0 <= s <= 1.

    Returns
    -------
    loss : scalar, or the shape of target for "none"; dtype of x
        The mean over no position at all is NaN.

    Raises
    ------
    ValueError, TypeError
        When shapes do not fit, a target is no class, or an argument has a wrong value
        or type.

    Notes
    -----
    Positions are computed in the dtype of x, and summed in float64.

    References
    ----------
    Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture for
    Computer Vision, 2015, section 7 (label smoothing).

    Examples
    --------
    >>> float(cross_entropy(np.array([[0.0, 0.0], [50.0, 0.0]]), np.array([1, 0])))
    0.34657359027997264
    """
    check_reduction("cross_entropy", reduction)
    case = _Case("cross_entropy", x, target, weight, ignore_index, label_smoothing)
    scores = log_softmax(case.x)
    zero = scores.dtype.type(0)
    # A class without weight costs nothing, not even when it is impossible.
    losses = np.where(
        case.of_target == 0, zero, -case.of_target * case.at_target(scores)
    )
    if case.spread:
        spread = (scores * case.spread_weight).sum(axis=1)
        losses -= np.where(case.kept, spread, zero)
    if reduction == "none":
        return losses.reshape(case.target_shape)
    total = losses.sum(dtype=np.float64)
    if reduction == "mean":
        total = total / case.total_weight
    return _rounded(total, scores)


@_ieee
def cross_entropy_backward(
    x: Array,
    target: npt.NDArray[np.integer[Any]],
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    grad_output: float | Array = 1.0,
) -> Array:
    """Take the gradient of `cross_entropy` with respect to the scores.

    Parameters
    ----------
    x, target, weight, ignore_index, reduction, label_smoothing
        As in the forward call.
    grad_output : float, or an array of the shape of target for "none"
        Gradient of the loss.

    Returns
    -------
    grad_x : shape and dtype of x
        Exactly 0 at ignored positions.

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy`, or when `grad_output` has another shape than the loss.

    Notes
    -----
    softmax(x) times the weights of a position's target, minus these weights.

    Examples
    --------
    >>> cross_entropy_backward(np.array([[0.0, 0.0]]), np.array([1]))
    array([[ 0.5, -0.5]])
    """
    name = "cross_entropy_backward"
    check_reduction(name, reduction)
    case = _Case(name, x, target, weight, ignore_index, label_smoothing)
    shape = case.target_shape if reduction == "none" else None
    scale = _gradient(name, grad_output, shape, case.x)
    if reduction == "mean":
        scale = scale / case.total_weight
    scale = scale.astype(case.x.dtype)
    if shape is not None:
        scale = scale.reshape(case.kept.shape)
    grad_x = log_softmax(case.x)
    np.exp(grad_x, out=grad_x)
    grad_x *= (case.of_target + case.spread_weight.sum())[:, None]
    grad_x -= case.spread_weight
    case.subtract_at_target(grad_x, case.of_target)
    grad_x *= scale[:, None] if scale.ndim else scale
    if not case.kept.all():
        np.copyto(grad_x, 0, where=~case.kept[:, None])
    return grad_x.reshape(np.shape(x))


@_ieee
def mse_loss(x: Array, target: Array, reduction: Reduction = "mean") -> Loss:
    """Measure the squared difference.

    Parameters
    ----------
    x : (...) float32 or float64
        Output of a network.
    target : shape and dtype of x
        What it should have been; nothing is broadcast.
    reduction : "mean", "sum" or "none"
        "mean" divides the sum by the number of elements.

    Returns
    -------
    loss : scalar, or the shape of x for "none"; dtype of x
        The mean over no element at all is NaN.

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes differ, or an argument has a wrong value or type.

    Notes
    -----
    Differences, squares and their sum are taken in float64.

    Examples
    --------
    >>> float(mse_loss(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
    2.0
    """
    check_reduction("mse_loss", reduction)
    x = ready("mse_loss", "x", x)
    target = like("mse_loss", "target", target, "x", x)
    squares = np.subtract(x, target, dtype=np.float64)
    squares = np.multiply(squares, squares)
    if reduction == "none":
        return squares.astype(x.dtype)
    total = np.float64(squares.sum())
    return _rounded(total / np.float64(x.size) if reduction == "mean" else total, x)


@_ieee
def mse_loss_backward(
    x: Array,
    target: Array,
    reduction: Reduction = "mean",
    grad_output: float | Array = 1.0,
) -> Array:
    """Take the gradient of `mse_loss` with respect to x; the target's is its negative.

    Parameters
    ----------
    x, target, reduction
        As in the forward call.
    grad_output : float, or an array of the shape of x for "none"
        Gradient of the loss.

    Returns
    -------
    grad_x : shape and dtype of x

    Raises
    ------
    ValueError, TypeError
        As `mse_loss`, or when `grad_output` has another shape than the loss.

    Examples
    --------
    >>> mse_loss_backward(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    array([ 0., -2.])
    """
    name = "mse_loss_backward"
    check_reduction(name, reduction)
    x = ready(name, "x", x)
    target = like(name, "target", target, "x", x)
    shape = x.shape if reduction == "none" else None
    scale = 2 * _gradient(name, grad_output, shape, x)
    if reduction == "mean":
        scale = scale / np.float64(x.size)
    grad_x = empty(x.shape, x.dtype)
    np.subtract(x, target, out=grad_x)
    np.multiply(grad_x, scale.astype(x.dtype), out=grad_x)
    return grad_x


def _rounded(total: np.float64, x: Array) -> np.floating[Any]:
    """Give a sum in the dtype of x."""
    rounded: np.floating[Any] = x.dtype.type(total)
    return rounded


class _Case:
    """Checked arguments of cross-entropy, with positions flattened to (N, rest).

    A position's target puts the weight `of_target` on its class, and `spread_weight` on
    every class.
    """

    def __init__(
        self,
        function: str,
        x: Array,
        target: npt.NDArray[np.integer[Any]],
        weight: Array | None,
        ignore_index: int,
        label_smoothing: float,
    ) -> None:
        x = ready(function, "x", x)
        batch = x.shape[:1] if x.ndim > 1 else ()
        classes, *rest = x.shape[len(batch) :] or [0]
        if classes == 0:
            raise ValueError(
                f"{function}: x must have shape (N, C), (N, C, ...) or (C,) with "
                f"C >= 1, got {x.shape}"
            )
        self.target_shape = (*batch, *rest)
        self.x = x.reshape(prod(batch), classes, prod(rest))
        ignore_index = integer(function, "ignore_index", ignore_index, -(2**63))
        self._index, self.kept = self._classes(function, target, classes, ignore_index)
        smoothing = share(function, "label_smoothing", label_smoothing)
        self.spread = smoothing / classes
        if weight is None:
            weight = np.ones(classes, x.dtype)
        weight = vector(function, "weight", weight, classes, x)
        weights = np.where(self.kept, weight[self._index], x.dtype.type(0))
        self.total_weight = np.float64(weights.sum(dtype=np.float64))
        self.of_target = (1 - smoothing) * weights  # (N, rest)
        self.spread_weight = (weight * self.spread)[:, None]  # (C, 1)

    def _classes(
        self,
        function: str,
        target: npt.NDArray[np.integer[Any]],
        classes: int,
        ignore_index: int,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Give the class of each position, 0 where ignored, and where it is kept."""
        if isinstance(target, np.ma.MaskedArray):
            raise TypeError(f"{function}: target must not be a masked array")
        target = np.asarray(target)
        if target.dtype.kind not in "iu":
            raise TypeError(
                f"{function}: target must hold integers, the true classes; got "
                f"{target.dtype}"
            )
        if target.shape != self.target_shape:
            raise ValueError(
                f"{function}: target must have shape {self.target_shape} for these "
                f"scores, got {target.shape}"
            )
        kept = target != ignore_index
        wrong = kept & ((target < 0) | (target >= classes))
        if wrong.any():
            raise ValueError(
                f"{function}: target must lie in 0..{classes - 1} or be ignore_index "
                f"({ignore_index}), got {target[wrong].flat[0]}"
            )
        index = np.where(kept, target, 0).astype(np.int64)
        flat = (self.x.shape[0], self.x.shape[2])
        return index.reshape(flat), kept.reshape(flat)

    def at_target(self, scores: Array) -> Array:
        """Pick from (N, C, rest) the class of each position: (N, rest)."""
        return np.take_along_axis(scores, self._index[:, None], axis=1)[:, 0]

    def subtract_at_target(self, scores: Array, values: Array) -> None:
        """Subtract from the class of each position, in place."""
        rest = self.at_target(scores) - values
        np.put_along_axis(scores, self._index[:, None], rest[:, None], axis=1)


def _gradient(
    function: str, grad_output: Any, shape: tuple[int, ...] | None, x: Array
) -> Array:
    """Give the gradient of the loss: 0-d float64, or an array of `shape`."""
    if shape is None:
        if np.ndim(grad_output) or not isinstance(grad_output, (Real, np.ndarray)):
            raise TypeError(
                f"{function}: grad_output must be a number, got {grad_output!r}"
            )
        return np.array(grad_output, np.float64)
    gradient = ready(function, "grad_output", grad_output, x.dtype)
    if gradient.shape != shape:
        raise ValueError(
            f"{function}: grad_output must have the shape of the loss {shape}, "
            f"got {gradient.shape}"
        )
    return gradient
