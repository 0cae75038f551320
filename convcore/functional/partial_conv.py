"""Partial convolution: only what is real counts, and sums are scaled up to all taps."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np

from convcore.arguments import shown
from convcore.functional import _convolution
from convcore.functional._border import Scale, around, border_scale
from convcore.functional._checks import GRADIENTS, needed
from convcore.functional._convolution import Grads
from convcore.functional._outs import Outs, Pair, check, places
from convcore.functional.call import run
from convcore.problem import ConvProblem, Padding, Size
from convcore.runtime import buffers
from convcore.runtime.arrays import (
    Array,
    batched_shape,
    check_out,
    checked,
    contiguous,
    empty,
    flat,
)

__all__ = [
    "partial_conv1d",
    "partial_conv1d_backward",
    "partial_conv2d",
    "partial_conv2d_backward",
    "partial_conv3d",
    "partial_conv3d_backward",
]

_FLOAT64, _BOOL = np.dtype(np.float64), np.dtype(np.bool_)

Result = Any  # y; with a mask, y and the new mask


def partial_conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    mask: Array | None = None,
    flip: bool = False,
    out: Pair | None = None,
    algorithm: str = "auto",
) -> Result:
    """Convolve what is real along one axis: see `partial_conv2d`.

    Examples
    --------
    >>> partial_conv1d(np.ones((1, 1, 4)), np.ones((1, 1, 3)), padding=1)
    array([[[3., 3., 3., 3.]]])
    """
    how = (stride, padding, dilation, groups, "zeros", 0, None, algorithm)
    return _forward("partial_conv1d", 1, (x, weight, bias, out), how, flip, mask)


def partial_conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    mask: Array | None = None,
    flip: bool = False,
    out: Pair | None = None,
    algorithm: str = "auto",
) -> Result:
    """Convolve what is real along two axes, and scale each sum up to all taps.

    Where a window sees padding, or elements that the mask hides, a convolution sums
    fewer terms, and its output is smaller: at borders, or beside holes. Here::

        y = conv(x * mask) * (taps / taps on real elements) + bias,   0 where there is none

    Parameters
    ----------
    x, weight, bias, stride, padding, dilation, groups, flip, algorithm
        As for `conv2d`.
    mask : (N or 1, C_in or 1, H, W), bool or dtype of x, optional
        What is real: everything but 0; without N when x comes without it. Without a mask
        all of x is, and only padding is not. With a mask for each channel, the taps of
        all channels of a group are counted together.
    out : ndarray, or tuple of two (ndarray or None), optional
        Array for y or, with a mask, a tuple for y and the new mask: contiguous, of their
        shapes and dtypes, that overlap no input. None is for new memory.

    Returns
    -------
    y : (N, C_out, OH, OW), dtype of x
    new_mask : (N or 1, C_out or 1, OH, OW), dtype of mask
        Only where there is a mask: 1 where a tap was real, the mask for the next layer.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`, and when the mask has another shape or dtype.

    Notes
    -----
    Without a mask the factors are products of counts along each axis, kept from call to
    call, and only outputs that see padding are multiplied: 1.05 to 1.15 times the time of
    `conv2d` for maps of some hundred thousand elements, more for small ones.
    With one, the mask is convolved, too: one channel, in float64, so that counts are
    exact. What the mask hides is never read into a sum, NaN or not.

    References
    ----------
    .. [1] Liu, Reda, Shih, Wang, Tao and Catanzaro, Image inpainting for irregular holes
       using partial convolutions, arXiv:1804.07723, equations 1 and 2.
    .. [2] Liu, Shih, Wang, Reda, Sapra, Yu, Tao and Catanzaro, Partial convolution based
       padding, arXiv:1811.11718, section 3.

    Examples
    --------
    >>> x, weight = np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3))
    >>> partial_conv2d(x, weight, padding=1)
    array([[[[9., 9., 9.],
             [9., 9., 9.],
             [9., 9., 9.]]]])
    >>> mask = np.eye(3)[None, None]
    >>> y, new = partial_conv2d(x, weight[..., :2], mask=mask)
    >>> y, new
    (array([[[[6., 6.]]]]), array([[[[1., 1.]]]]))
    """
    how = (stride, padding, dilation, groups, "zeros", 0, None, algorithm)
    return _forward("partial_conv2d", 2, (x, weight, bias, out), how, flip, mask)


def partial_conv3d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    mask: Array | None = None,
    flip: bool = False,
    out: Pair | None = None,
    algorithm: str = "auto",
) -> Result:
    """Convolve what is real along three axes: see `partial_conv2d`.

    Examples
    --------
    >>> y = partial_conv3d(np.ones((1, 1, 2, 2, 2)), np.ones((1, 1, 3, 3, 3)), padding=1)
    >>> y.min().item(), y.max().item()
    (27.0, 27.0)
    """
    how = (stride, padding, dilation, groups, "zeros", 0, None, algorithm)
    return _forward("partial_conv3d", 3, (x, weight, bias, out), how, flip, mask)


def partial_conv1d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    mask: Array | None = None,
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    out: Outs | None = None,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `partial_conv1d`: see those for two axes.

    Examples
    --------
    >>> x, weight = np.ones((1, 1, 4)), np.ones((1, 1, 3))
    >>> partial_conv1d_backward(x, x, weight, padding=1, needs=["x"])[0]
    array([[[2.5, 3.5, 3.5, 2.5]]])
    """
    how = (stride, padding, dilation, groups, "zeros", 0, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return _backward("partial_conv1d_backward", 1, operands, how, flip, mask, out)


def partial_conv2d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    mask: Array | None = None,
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    out: Outs | None = None,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `partial_conv2d` with respect to x, weight and bias.

    Parameters
    ----------
    grad_output : (N, C_out, OH, OW) or (C_out, OH, OW), float32 or float64
        Gradient of the loss with respect to y.
    x, weight, stride, padding, dilation, groups, mask, flip, algorithm
        What `partial_conv2d` was called with.
    needs : collection of "x", "weight", "bias"
        Which gradients to compute.
    out : tuple of (array or None), optional
        Where to write the three results, in their order; None for new memory.

    Returns
    -------
    grad_x, grad_weight, grad_bias : arrays of the shapes of x, weight, (C_out,), or None
        None where not needed. That of x is 0 where the mask hides it.

    Raises
    ------
    ValueError, TypeError
        As `conv2d_backward`, and for the mask.

    Examples
    --------
    >>> x, weight = np.ones((1, 1, 2, 2)), np.ones((1, 1, 3, 3))
    >>> partial_conv2d_backward(x, x, weight, padding=1, needs=["x"])[0]
    array([[[[9., 9.],
             [9., 9.]]]])
    """
    how = (stride, padding, dilation, groups, "zeros", 0, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return _backward("partial_conv2d_backward", 2, operands, how, flip, mask, out)


def partial_conv3d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    mask: Array | None = None,
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    out: Outs | None = None,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `partial_conv3d`: see those for two axes.

    Examples
    --------
    >>> x = np.ones((1, 1, 2, 2, 2))
    >>> grads = partial_conv3d_backward(x, x, np.ones((1, 1, 3, 3, 3)), padding=1)
    >>> grads[0].max().item(), grads[2]
    (27.0, array([8.]))
    """
    how = (stride, padding, dilation, groups, "zeros", 0, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return _backward("partial_conv3d_backward", 3, operands, how, flip, mask, out)


def renormalised(
    function: str,
    ndim: int,
    operands: tuple[Array, Array, Array | None, Array | None],
    how: tuple[Any, ...],
    flip: bool,
    border: str,
) -> Array:
    """Do what `border="renormalise"` asks of a convolution."""
    check_border(function, border, *how[4:7:2])
    y: Array = _forward(function, ndim, operands, how, flip, None)
    return y


def renormalised_backward(
    function: str,
    ndim: int,
    operands: tuple[Array, Array, Array, Collection[str]],
    how: tuple[Any, ...],
    flip: bool,
    border: str,
    out: Outs | None,
) -> Grads:
    """Do the backward pass of that."""
    check_border(function, border, *how[4:7:2])
    return _backward(function, ndim, operands, how, flip, None, out)


def check_border(
    function: str, border: Any, padding_mode: str, activation: str | None = None
) -> None:
    """Refuse what cannot be scaled up: sums that padding or an activation changed."""
    if not isinstance(border, str):
        raise TypeError(
            f"{function}: border must be a string or None, got {shown(border)}"
        )
    if border != "renormalise":
        raise ValueError(
            f'{function}: border must be "renormalise" or None, got {shown(border)}'
        )
    if padding_mode != "zeros":
        raise ValueError(
            f'{function}: border "renormalise" needs padding_mode "zeros", got '
            f"{shown(padding_mode)}"
        )
    if activation is not None:
        raise ValueError(
            f'{function}: border "renormalise" takes no activation, got {shown(activation)}'
        )


def _forward(
    function: str,
    ndim: int,
    operands: tuple[Array, Array, Array | None, Any],
    how: tuple[Any, ...],
    flip: bool,
    mask: Array | None,
) -> Result:
    """Convolve without the bias, scale, then add it."""
    x, weight, bias, out = operands
    dtype = checked(function, "x", x)
    problem = _problem(function, ndim, x, weight, how)
    real = None if mask is None else _real(function, mask, x, problem)
    if bias is not None:
        bias = _convolution._checked_bias(function, bias, problem.oc, dtype)
    new = None
    if out is not None:
        lead = problem.ndim + 2 - x.ndim
        shape, inputs = problem.y_shape[lead:], (x, weight, bias, mask)
        if mask is not None and real is not None and type(out) is tuple:
            batch, channels = len(real), problem.oc if real.shape[1] > 1 else 1
            shapes = shape, (batch, channels, *problem.y_shape[2:])[lead:]
            check(function, out, shapes, (dtype, mask.dtype.newbyteorder("=")), inputs)
            out, new = out
        else:
            check_out(function, out, shape, dtype, inputs)
    seen = x if real is None else _hidden(x, real)
    y = _convolution.forward(function, ndim, (seen, weight, None, out), how, flip)
    scale = scale_of(problem, dtype, real)
    apply_scale(y.reshape(problem.y_shape), scale, bias)
    if mask is None or real is None:
        return y
    seeing = _told(np.greater, scale.ratio, 0)
    seeing = seeing.reshape(seeing.shape[len(problem.y_shape) - y.ndim :])
    if new is None:
        return y, contiguous(seeing, mask.dtype.newbyteorder("="))
    np.copyto(new, seeing)
    return y, new


def _backward(
    function: str,
    ndim: int,
    operands: tuple[Array, Array, Array, Collection[str]],
    how: tuple[Any, ...],
    flip: bool,
    mask: Array | None,
    out: Outs | None,
) -> Grads:
    """Scale the gradient of y, and take the gradients of the convolution from it."""
    grad_output, x, weight, needs = operands
    asked = needed(function, needs)
    dtype = checked(function, "x", x)
    checked(function, "grad_output", grad_output, dtype)
    problem = _problem(function, ndim, x, weight, how)
    real = None if mask is None else _real(function, mask, x, problem)
    if flip is not False:
        weight = _convolution.checked_turn(function, weight, flip)
    make, state = _convolution.finder(how)
    shapes = (x.shape, weight.shape)
    job = partial(make, function, ndim, shapes, dtype, how, False, state)
    shape = job("bgrad").result
    _convolution._check_gradient(function, grad_output, x, shape)
    wanted = asked, (x.shape, weight.shape, (problem.oc,))
    grad_x, grad_weight, grad_bias = places(
        function, out, wanted, dtype, (grad_output, x, weight, mask)
    )
    seen = x if real is None else _hidden(x, real)
    scale = scale_of(problem, dtype, real)
    scaled = empty(problem.y_shape, dtype)
    np.copyto(scaled, grad_output.reshape(problem.y_shape))
    if grad_bias is not None:  # of what the bias was added to
        summed = grad_output
        if scale.holes:
            summed = empty(scaled.shape, dtype)
            np.copyto(summed, scaled)
            np.copyto(summed, 0, where=_told(np.equal, scale.ratio, 0))
        run(job("bgrad").plan, flat(summed, dtype), grad_bias)
    apply_scale(scaled, scale, None)
    sums = (scaled, seen, weight)
    _convolution.write_gradients(job, sums, flip, False, (grad_x, grad_weight))
    if grad_x is not None and real is not None:
        unseen = np.logical_not(real, out=real)
        np.copyto(grad_x.reshape(problem.x_shape), 0, where=unseen)
    return grad_x, grad_weight, grad_bias


def scale_of(
    problem: ConvProblem, dtype: np.dtype[Any], real: Array | None = None
) -> Scale:
    """Give what the sums of a problem are multiplied by.

    Parameters
    ----------
    problem : ConvProblem
    dtype : float32 or float64
        Of y.
    real : (N or 1, ic or 1, *spatial) of bool, optional
        Which elements count; without it all do, and the padding does not.
    """
    if real is None:
        return border_scale(problem, dtype)
    counts, most = _counted(problem, real)
    holes = bool(counts.min(initial=1) == 0)
    with np.errstate(divide="ignore"):
        ratio = np.divide(float(most), counts, out=counts)
    np.copyto(ratio, 0, where=_told(np.isinf, ratio))
    return Scale(contiguous(ratio, dtype), ((0, 0),) * problem.ndim, holes)


@np.errstate(all="ignore")
def apply_scale(y: Array, scale: Scale, bias: Array | None) -> None:
    """Scale sums in place, and add the bias; 0 where nothing counts.

    Of the gradient of y, without a bias, it makes that of the convolution's result.
    """
    for slab in around(scale.box, y.shape[2:]):
        place: tuple[Any, ...] = (..., *slab)
        y[place] *= scale.ratio[place]
    if bias is not None:
        y += bias.reshape(-1, *(1,) * (y.ndim - 2))
    if scale.holes:
        np.copyto(y, 0, where=_told(np.equal, scale.ratio, 0))


def _counted(problem: ConvProblem, real: Array) -> tuple[Array, int]:
    """Count the taps of each window that are real, and all: (N or 1, oc or 1, *spatial).

    In float64, where no algorithm that transforms is chosen, and integers are exact.
    """
    per_channel = real.shape[1] > 1
    groups = problem.g if per_channel else 1
    channels = real.shape[1] // groups
    kernel = problem.kernel[-problem.ndim :]
    how = (
        problem.stride[-problem.ndim :],
        problem.padding[-problem.ndim :],
        problem.dilation[-problem.ndim :],
        groups,
        "zeros",
        0,
        None,
        "auto",
    )
    ones = np.ones((groups, channels, *kernel))
    operands = (contiguous(real, _FLOAT64), ones, None, None)
    name = f"conv{problem.ndim}d"
    counts = _convolution.forward(name, problem.ndim, operands, how, False)
    if per_channel:
        n, _, *extents = counts.shape
        each = empty((n, groups, problem.oc // groups, *extents), _FLOAT64)
        np.copyto(each, counts[:, :, None])
        counts = each.reshape(n, problem.oc, *extents)
    return counts, channels * problem.taps


def _problem(
    function: str, ndim: int, x: Array, weight: Array, how: tuple[Any, ...]
) -> ConvProblem:
    """Check shapes and arguments."""
    checked(function, "weight", weight, checked(function, "x", x))
    shape, _ = batched_shape(function, "x", x.shape, ndim)
    return ConvProblem.conv(function, shape, weight.shape, *how[:4])


def _real(function: str, mask: Any, x: Array, problem: ConvProblem) -> Array:
    """Check a mask, and tell what is not 0: (N or 1, C or 1, *spatial) of bool."""
    if not isinstance(mask, np.ndarray) or isinstance(mask, np.ma.MaskedArray):
        raise TypeError(
            f"{function}: mask must be a NumPy array, got {type(mask).__name__}"
        )
    if mask.dtype != np.bool_ and mask.dtype.newbyteorder("=") != x.dtype.newbyteorder(
        "="
    ):
        raise TypeError(
            f"{function}: mask must be of bool or {x.dtype}, as x, got {mask.dtype}"
        )
    leading = x.ndim - problem.ndim
    fits = mask.ndim == x.ndim and mask.shape[leading:] == x.shape[leading:]
    pairs = zip(mask.shape[:leading], x.shape[:leading], strict=False)
    if not fits or any(own not in (1, other) for own, other in pairs):
        raise ValueError(
            f"{function}: mask must have the shape of x {x.shape}, or 1 for its batch or "
            f"its channels, got {mask.shape}"
        )
    real = _told(np.not_equal, mask, 0)
    return real.reshape((1,) * (problem.ndim + 2 - mask.ndim) + mask.shape)


def _told(test: Callable[..., Array], array: Array, *others: float) -> Array:
    """Tell of each element whether it passes a test."""
    return test(array, *others, out=buffers.empty(array.shape, _BOOL))


def _hidden(x: Array, real: Array) -> Array:
    """Copy x, with 0 where it is not real."""
    seen = empty(x.shape, x.dtype.newbyteorder("="))
    seen.fill(0)
    rest = seen.reshape((1,) * (real.ndim - x.ndim) + x.shape)
    np.copyto(rest, x, where=real)
    return seen
