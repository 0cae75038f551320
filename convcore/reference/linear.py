"""The fully connected layer."""

import numpy as np

from convcore.reference.taps import Array, ieee


def linear(x: Array, w: Array, b: Array | None = None) -> Array:
    """Multiply each row of x with every row of w.

    Parameters
    ----------
    x : (..., in)
    w : (out, in)
    b : (out,), optional

    Returns
    -------
    y : (..., out)
        `y[o] = b[o] + sum over i of w[o, i] * x[i]`

    Examples
    --------
    >>> linear(np.array([1, 2]), np.array([[1, 10], [0, 1]]), np.array([100, 200]))
    array([121, 202])
    """
    with ieee():
        y: Array = np.einsum("...i,oi->...o", x, w)
        return y if b is None else y + b


def linear_backward(grad_y: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
    """Give the gradients of x, w and b.

    Parameters
    ----------
    grad_y : (..., out)
    x : (..., in)
    w : (out, in)

    Returns
    -------
    grad_x : (..., in)
    grad_w : (out, in)
    grad_b : (out,)
        The last two are sums over all leading axes.
    """
    with ieee():
        grad_x = np.einsum("...o,oi->...i", grad_y, w)
        grad_w = np.einsum(
            "ro,ri->oi", grad_y.reshape(-1, w.shape[0]), x.reshape(-1, w.shape[1])
        )
        grad_b = grad_y.sum(axis=tuple(range(grad_y.ndim - 1)))
    return grad_x, grad_w, grad_b
