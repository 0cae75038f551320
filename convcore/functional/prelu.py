"""PReLU: a leaky ReLU whose slopes are learned."""

from collections.abc import Iterable
from math import prod

import numpy as np

from convcore.functional._checks import needed
from convcore.functional._elementwise import check_like, check_place
from convcore.functional._outs import Outs, places
from convcore.functional.call import apply
from convcore.runtime.arrays import Array, checked, empty, flat, ready

__all__ = ["prelu", "prelu_backward"]

_SHORT = (
    64  # elements: shorter planes are computed as rows, with a slope for each element
)
_BOOL = np.dtype(np.bool_)
_PIECE = 8192  # elements of one sum: PIECE of kernels/elements.pxd


def prelu(x: Array, weight: Array, *, out: Array | None = None) -> Array:
    """Multiply what is negative by the slope of its channel.

    Parameters
    ----------
    x : (N, C, ...), (...) float32 or float64
        Input; any shape where there is one slope.
    weight : (C,) or (1,), dtype of x
        Slopes, one for each channel or one for all.
    out : (...), dtype of x, optional
        Where to write y; x itself works in place.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When x is no array of float32 or float64, the slopes are not as many as the
        channels, or `out` does not fit.

    References
    ----------
    He, Zhang, Ren, Sun: Delving Deep into Rectifiers, 2015, section 2.1.

    Examples
    --------
    >>> prelu(np.array([[-2.0, -2.0, 3.0]]), np.array([0.5, 0.25, 0.1]))
    array([[-1. , -0.5,  3. ]])
    """
    dtype = checked("prelu", "x", x)
    slopes = _slopes("prelu", x, weight)
    source = flat(x, dtype)
    if out is None:
        out = empty(x.shape, dtype)
    else:
        check_place("prelu", out, x.shape, dtype, (x,))
        check_place("prelu", out, x.shape, dtype, (weight,))
    if source.size:
        sizes, slopes = _sizes(x.shape, slopes)
        apply("prelu", "forward", sizes, source, slopes, out, work=source.size // 4)
    return out


def prelu_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    *,
    needs: Iterable[str] = ("x", "weight"),
    out: Outs | None = None,
) -> tuple[Array | None, Array | None]:
    """Take the gradients of `prelu`.

    Parameters
    ----------
    grad_output : (...), dtype of x
        Gradient of the output.
    x : (N, C, ...), (...) float32 or float64
        Input of `prelu`.
    weight : (C,) or (1,), dtype of x
        As in the forward call.
    needs : collection of "x", "weight"
        The gradients to compute.
    out : tuple of (array or None), optional
        Where to write the two results, in their order; None for new memory.

    Returns
    -------
    grad_x : (...), dtype of x, or None
        The gradient, times the slope where x is not positive.
    grad_weight : shape and dtype of weight, or None
        The sum of x times the gradient where x is not positive; 0 elsewhere, whatever
        the gradient is there.

    Raises
    ------
    TypeError, ValueError
        When shapes or dtypes differ, or are not legal, or `needs` holds another name.

    Notes
    -----
    Sums are taken over pieces of a channel in the dtype of x, in several chains, and
    added in float64.

    Examples
    --------
    >>> x, weight = np.array([[-2.0, 3.0]]), np.array([0.5, 0.5])
    >>> prelu_backward(np.array([[1.0, 1.0]]), x, weight)
    (array([[0.5, 1. ]]), array([-2.,  0.]))
    """
    name = "prelu_backward"
    need_x, need_weight = asked = needed(name, needs, ("x", "weight"))
    dtype = checked(name, "x", x)
    checked(name, "grad_output", grad_output, dtype)
    check_like(name, grad_output, "x", x)
    slopes = _slopes(name, x, weight)
    grads, source = flat(grad_output, dtype), flat(x, dtype)
    wanted = asked, (x.shape, slopes.shape)
    grad_x, grad_weight = places(name, out, wanted, dtype, (grad_output, x, weight))
    if not source.size:
        if grad_weight is not None:
            grad_weight.fill(0)
        return grad_x, grad_weight
    sizes, each = _sizes(x.shape, slopes)
    rows = bool(sizes[3])
    sums = None
    if need_weight and not rows:
        sums = empty((sizes[0], -(-sizes[1] // _PIECE)), dtype)
    if need_x or sums is not None:
        work = source.size // 4
        apply("prelu", "backward", sizes, grads, source, each, grad_x, sums, work=work)
    if grad_weight is None:
        return grad_x, None
    if rows:
        sums = _row_sums(grads, source, slopes)
    assert sums is not None
    total = sums.reshape(-1, slopes.size, sums.size // len(sums) if not rows else 1)
    with np.errstate(all="ignore"):
        grad_weight[...] = total.sum(axis=(0, 2), dtype=np.float64)
    return grad_x, grad_weight


def _row_sums(grads: Array, x: Array, slopes: Array) -> Array:
    """Sum x dy over short planes, where x is not positive: (N, C)."""
    sums, planes = empty(x.shape[:2], x.dtype), prod(x.shape[:2])
    sizes, work = (planes, prod(x.shape[2:]), slopes.size, 0), x.size // 4
    apply("prelu", "backward", sizes, grads, x, slopes, None, sums, work=work)
    return sums


def _slopes(function: str, x: Array, weight: Array) -> Array:
    """Check that there is one slope, or one for each channel."""
    slopes = ready(function, "weight", weight, checked(function, "x", x))
    channels = x.shape[1] if x.ndim > 1 else 1
    if slopes.shape != (1,) and slopes.shape != (channels,):
        raise ValueError(
            f"{function}: weight must have shape (1,) or ({channels},), one slope per "
            f"channel of x, got {slopes.shape}"
        )
    return slopes


def _sizes(
    shape: tuple[int, ...], slopes: Array
) -> tuple[tuple[int, int, int, int], Array]:
    """Give the sizes for the kernel, and the slopes as it reads them."""
    if slopes.size == 1:
        return (1, prod(shape), 1, 0), slopes
    inner = prod(shape[2:])
    if inner >= _SHORT:
        return (shape[0] * shape[1], inner, slopes.size, 0), slopes
    row = shape[1] * inner
    return (shape[0], row, row, 1), np.repeat(slopes, inner)
