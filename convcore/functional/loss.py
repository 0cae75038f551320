"""Losses: one number that says how wrong an output is, and its gradient."""

from numbers import Real
from typing import Any, Literal

import numpy as np

from convcore.arguments import shown
from convcore.functional._checks import like
from convcore.functional._checks import reduction as check_reduction
from convcore.functional._elementwise import check_place
from convcore.runtime.arrays import Array, empty, ready

__all__ = [
    "Reduction",
    "mse_loss",
    "mse_loss_backward",
]

Loss = Array | np.floating[Any]
Reduction = Literal["mean", "sum", "none"]

_ieee = np.errstate(all="ignore")


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
    return rounded(total / np.float64(x.size) if reduction == "mean" else total, x)


@_ieee
def mse_loss_backward(
    x: Array,
    target: Array,
    reduction: Reduction = "mean",
    grad_output: float | Array = 1.0,
    *,
    out: Array | None = None,
) -> Array:
    """Take the gradient of `mse_loss` with respect to x; the target's is its negative.

    Parameters
    ----------
    x, target, reduction
        As in the forward call.
    grad_output : float, or an array of the shape of x for "none"
        Gradient of the loss.
    out : shape and dtype of x, optional
        Where to write the gradient; x or target works in place.

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
    given = x, target
    check_reduction(name, reduction)
    x = ready(name, "x", x)
    target = like(name, "target", target, "x", x)
    shape = x.shape if reduction == "none" else None
    scale = 2 * gradient_of_loss(name, grad_output, shape, x)
    if reduction == "mean":
        scale = scale / np.float64(x.size)
    if out is None:
        out = empty(x.shape, x.dtype)
    else:
        check_place(name, out, x.shape, x.dtype, given)
    np.subtract(x, target, out=out)
    np.multiply(out, scale.astype(x.dtype), out=out)
    return out


def rounded(total: np.float64, x: Array) -> np.floating[Any]:
    """Give a sum in the dtype of x."""
    rounded: np.floating[Any] = x.dtype.type(total)
    return rounded


def gradient_of_loss(
    function: str, grad_output: Any, shape: tuple[int, ...] | None, x: Array
) -> Array:
    """Give the gradient of the loss: 0-d float64, or an array of `shape`."""
    if shape is None:
        if np.ndim(grad_output) or not isinstance(grad_output, (Real, np.ndarray)):
            raise TypeError(
                f"{function}: grad_output must be a number, got {shown(grad_output)}"
            )
        try:
            return np.array(grad_output, np.float64)
        except OverflowError:
            raise ValueError(
                f"{function}: grad_output must be a float64, got {shown(grad_output)}"
            ) from None
    gradient = ready(function, "grad_output", grad_output, x.dtype)
    if gradient.shape != shape:
        raise ValueError(
            f"{function}: grad_output must have the shape of the loss {shape}, "
            f"got {gradient.shape}"
        )
    return gradient
