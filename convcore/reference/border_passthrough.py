"""Border pass-through, from its definition."""

from convcore.reference.taps import Array


def border_passthrough(x: Array, inner: Array) -> Array:
    """Put `inner` into the middle of a copy of x.

    Parameters
    ----------
    x : (..., *extents)
    inner : the same number of axes, none longer

    Returns
    -------
    y : shape of x
        `inner` from (extent of x - extent of inner) // 2 on along each axis, x elsewhere

    Examples
    --------
    >>> import numpy as np
    >>> border_passthrough(np.arange(5), np.array([9, 9]))
    array([0, 9, 9, 3, 4])
    """
    y = x.copy()
    y[_middle(x.shape, inner.shape)] = inner
    return y


def border_passthrough_backward(
    grad_y: Array, inner_shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """Give the gradients of x, 0 in the middle, and of `inner`, the middle."""
    middle = _middle(grad_y.shape, inner_shape)
    grad_x = grad_y.copy()
    grad_x[middle] = 0
    return grad_x, grad_y[middle]


def _middle(shape: tuple[int, ...], inner: tuple[int, ...]) -> tuple[slice, ...]:
    pairs = zip(shape, inner, strict=True)
    return tuple(slice((a - b) // 2, (a - b) // 2 + b) for a, b in pairs)
