"""Border pass-through: what a "valid" window operation loses is carried on as it is."""

from typing import Any

import numpy as np

from convcore.arguments import integer, shown
from convcore.functional._border import Box, around
from convcore.functional._outs import Outs, places
from convcore.runtime.arrays import Array, batched_shape, checked, room

__all__ = [
    "border_passthrough1d",
    "border_passthrough1d_backward",
    "border_passthrough2d",
    "border_passthrough2d_backward",
    "border_passthrough3d",
    "border_passthrough3d_backward",
]

Shape = tuple[int, ...]


def border_passthrough1d(x: Array, inner: Array, *, out: Array | None = None) -> Array:
    """Put `inner` into the middle of a copy of x: see `border_passthrough2d`.

    Examples
    --------
    >>> border_passthrough1d(np.array([[1.0, 2, 3, 4]]), np.array([[8.0, 9]]))
    array([[1., 8., 9., 4.]])
    """
    return _forward("border_passthrough1d", 1, x, inner, out)


def border_passthrough2d(x: Array, inner: Array, *, out: Array | None = None) -> Array:
    """Put `inner` into the middle of a copy of x.

    So y has the extents of x, and on its border what x has there: no element of the
    border that only few windows saw is lost.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
        What is carried on where `inner` does not reach.
    inner : (N, C, IH, IW) or (C, IH, IW), dtype of x
        What a convolution without padding made of x, or another array that is no larger.
    out : shape and dtype of x, optional
        Where to write; C-contiguous, and not overlapping an input.

    Returns
    -------
    y : shape and dtype of x
        `inner` from (H - IH) // 2 and (W - IW) // 2 on, where "same" padding would have
        its outputs: of an odd number of lines, the odd one is at the end. x elsewhere.

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes do not fit.

    Examples
    --------
    >>> border_passthrough2d(np.ones((1, 3, 3)), np.full((1, 1, 2), 7.0))
    array([[[1., 1., 1.],
            [7., 7., 1.],
            [1., 1., 1.]]])
    """
    return _forward("border_passthrough2d", 2, x, inner, out)


def border_passthrough3d(x: Array, inner: Array, *, out: Array | None = None) -> Array:
    """Put `inner` into the middle of a copy of x: see `border_passthrough2d`.

    Examples
    --------
    >>> border_passthrough3d(np.ones((1, 3, 3, 3)), np.zeros((1, 1, 1, 1))).sum().item()
    26.0
    """
    return _forward("border_passthrough3d", 3, x, inner, out)


def border_passthrough1d_backward(
    grad_output: Array, inner_shape: Shape, *, out: Outs | None = None
) -> tuple[Array, Array]:
    """Compute the gradients of `border_passthrough1d`: see those for two axes.

    Examples
    --------
    >>> border_passthrough1d_backward(np.array([[1.0, 2, 3, 4]]), (1, 2))
    (array([[1., 0., 0., 4.]]), array([[2., 3.]]))
    """
    return _backward("border_passthrough1d_backward", 1, grad_output, inner_shape, out)


def border_passthrough2d_backward(
    grad_output: Array, inner_shape: Shape, *, out: Outs | None = None
) -> tuple[Array, Array]:
    """Compute the gradients of `border_passthrough2d` with respect to x and `inner`.

    Parameters
    ----------
    grad_output : (N, C, H, W) or (C, H, W), float32 or float64
        Gradient of the loss with respect to y.
    inner_shape : tuple of int
        Shape of `inner`.
    out : tuple of (array or None), optional
        Where to write the two results, in their order; None for new memory.

    Returns
    -------
    grad_x : shape of grad_output
        The gradient on the border, and 0 in the middle.
    grad_inner : inner_shape
        The gradient in the middle.

    Raises
    ------
    ValueError, TypeError
        When shapes do not fit, or the dtype is not legal.

    Examples
    --------
    >>> border_passthrough2d_backward(np.ones((1, 3, 3)), (1, 1, 2))[0]
    array([[[1., 1., 1.],
            [0., 0., 1.],
            [1., 1., 1.]]])
    """
    return _backward("border_passthrough2d_backward", 2, grad_output, inner_shape, out)


def border_passthrough3d_backward(
    grad_output: Array, inner_shape: Shape, *, out: Outs | None = None
) -> tuple[Array, Array]:
    """Compute the gradients of `border_passthrough3d`: see those for two axes.

    Examples
    --------
    >>> grad = np.ones((1, 3, 3, 3))
    >>> border_passthrough3d_backward(grad, (1, 1, 1, 1))[0].sum().item()
    26.0
    """
    return _backward("border_passthrough3d_backward", 3, grad_output, inner_shape, out)


def _forward(
    function: str, ndim: int, x: Array, inner: Array, out: Array | None
) -> Array:
    """Write y."""
    dtype = checked(function, "x", x)
    checked(function, "inner", inner, dtype)
    box = _box(function, ndim, "x", x.shape, inner.shape)
    y = room(function, out, x.shape, dtype, x, inner)
    for slab in around(box, x.shape[-ndim:]):
        place: tuple[Any, ...] = (..., *slab)
        y[place] = x[place]
    y[_middle(box)] = inner
    return y


def _backward(
    function: str, ndim: int, grad_output: Array, inner_shape: Shape, out: Any
) -> tuple[Array, Array]:
    """Write the gradients."""
    dtype = checked(function, "grad_output", grad_output)
    if not isinstance(inner_shape, (tuple, list)):
        raise TypeError(
            f"{function}: inner_shape must be a tuple, got {shown(inner_shape)}"
        )
    shape = tuple(integer(function, "inner_shape", extent, 0) for extent in inner_shape)
    box = _box(function, ndim, "grad_output", grad_output.shape, shape)
    shapes = (grad_output.shape, shape)
    grad_x, grad_inner = places(
        function, out, ((True, True), shapes), dtype, (grad_output,)
    )
    assert grad_x is not None
    assert grad_inner is not None
    np.copyto(grad_x, grad_output)
    grad_x[_middle(box)] = 0
    np.copyto(grad_inner, grad_output[_middle(box)])
    return grad_x, grad_inner


def _middle(box: Box) -> tuple[Any, ...]:
    return (..., *(slice(begin, end) for begin, end in box))


def _box(function: str, ndim: int, name: str, shape: Shape, inner: Shape) -> Box:
    """Check shapes, and find the middle."""
    batched_shape(function, name, shape, ndim)
    fits = len(inner) == len(shape) and inner[:-ndim] == shape[:-ndim]
    pairs = list(zip(shape[-ndim:], inner[-ndim:], strict=False))
    if not fits or any(not 0 <= own <= other for other, own in pairs):
        raise ValueError(
            f"{function}: inner must have the batch and the channels of {name} {shape}, "
            f"and no larger extents, got {inner}"
        )
    return tuple(((other - own) // 2, (other - own) // 2 + own) for other, own in pairs)
