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

_FLOAT64 = np.dtype(np.float64)
_ieee = np.errstate(all="ignore")


@_ieee
def mse_loss(
    x: Array,
    target: Array,
    reduction: Reduction = "mean",
    *,
    out: Array | None = None,
) -> Loss:
    """Measure the squared difference.

    Parameters
    ----------
    x : (...) float32 or float64
        Output of a network.
    target : shape and dtype of x
        What it should have been; nothing is broadcast.
    reduction : "mean", "sum" or "none"
        "mean" divides the sum by the number of elements.
    out : shape and dtype of x, optional
        Where to write the losses, for "none"; x or target works in place.

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
    name = "mse_loss"
    given = x, target
    check_reduction(name, reduction)
    x = ready(name, "x", x)
    target = like(name, "target", target, "x", x)
    if reduction != "none":
        no_place(name, out)
    elif out is None:
        out = empty(x.shape, x.dtype)
    else:
        check_place(name, out, x.shape, x.dtype, given)
    squares = np.subtract(x, target, out=empty(x.shape, _FLOAT64), dtype=_FLOAT64)
    np.multiply(squares, squares, out=squares)
    if out is not None:
        np.copyto(out, squares, casting="same_kind")
        return out
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
    scale = gradient_of_loss(name, grad_output, shape, x)
    if out is None:
        out = empty(x.shape, x.dtype)
    else:
        check_place(name, out, x.shape, x.dtype, given)
    if shape is None:
        scale = 2 * scale / np.float64(x.size if reduction == "mean" else 1)
        scale = scale.astype(x.dtype)
    else:
        scale = np.multiply(scale, 2, out=empty(shape, x.dtype))
    np.subtract(x, target, out=out)
    return np.multiply(out, scale, out=out)


def no_place(function: str, out: Any) -> None:
    """Refuse memory for a loss that is one number."""
    if out is not None:
        raise ValueError(
            f'{function}: out must be None unless reduction is "none", got '
            f"{type(out).__name__}"
        )


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
