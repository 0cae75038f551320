"""Fractional max pooling: windows at places that a generator draws."""

from math import prod
from typing import Any

import numpy as np

from convcore.arguments import Seed, boolean, generator, real, shown, uniform
from convcore.functional._choices import scatter
from convcore.functional._outs import Pair, pair
from convcore.functional.call import apply
from convcore.problem import PoolProblem, Size
from convcore.runtime import buffers
from convcore.runtime.arrays import (
    Array,
    batched_shape,
    checked,
    empty,
    flat,
    room,
)

__all__ = [
    "fractional_max_pool1d",
    "fractional_max_pool1d_backward",
    "fractional_max_pool2d",
    "fractional_max_pool2d_backward",
    "fractional_max_pool3d",
    "fractional_max_pool3d_backward",
]

_INT64, _FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)


def fractional_max_pool1d(
    x: Array,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: float | tuple[float, ...] | None = None,
    return_indices: bool = False,
    *,
    rng: Seed,
    out: Array | None = None,
) -> Any:
    """Take maxima of windows whose places are drawn; as `fractional_max_pool2d`.

    x is (N, C, W) or (C, W).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.ones((1, 2, 9), np.float32)
    >>> fractional_max_pool1d(x, 2, output_ratio=0.7, rng=0).shape
    (1, 2, 6)
    """
    sizes = (kernel_size, output_size, output_ratio)
    return _fractional("fractional_max_pool1d", 1, x, sizes, rng, return_indices, out)


def fractional_max_pool2d(
    x: Array,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: float | tuple[float, ...] | None = None,
    return_indices: bool = False,
    *,
    rng: Seed,
    out: Array | None = None,
) -> Any:
    """Take maxima of windows whose places are drawn at random.

    Parameters
    ----------
    x : (N, C, H, W) or (C, H, W), float32 or float64
        Input; any strides, copied once if it is not C-contiguous. N may be 0.
    kernel_size : int or (int, int), >= 1
        Elements of a window along each axis.
    output_size : int or (int, int), optional
        Windows along each axis, with OH + KH - 1 <= H.
    output_ratio : float or (float, float), optional
        Windows for each element of an axis, between 0 and 1; in place of `output_size`.
    return_indices : bool
        Whether to tell where the maxima were.
    rng : numpy.random.Generator or int
        Generator to draw from, or a seed for a new one.
    out : ndarray, or tuple of two (ndarray or None), optional
        Array for y, or a tuple for y and the indices: contiguous, of their shapes and
        dtypes, that overlap no input. None is for new memory.

    Returns
    -------
    y : (N, C, OH, OW), dtype of x
        Without N when x came without it. NaN where a window holds one.
    indices : (N, C, OH, OW) int64
        With `return_indices`: row * W + column of the first NaN of each window, or else
        of the first of equal maxima.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    One float64 u is drawn for each sample, channel and axis, in that order, whatever the
    dtype. With a = (H - KH) / (OH - 1), window o < OH - 1 starts at row
    floor((o + u) * a) - floor(u * a), the last one at H - KH.

    References
    ----------
    .. [1] Graham, Fractional max-pooling, arXiv:1412.6071, section 2 ("pseudorandom",
       overlapping).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(36.0).reshape(1, 1, 6, 6)
    >>> fractional_max_pool2d(x, 2, output_size=4, rng=0).shape
    (1, 1, 4, 4)
    """
    sizes = (kernel_size, output_size, output_ratio)
    return _fractional("fractional_max_pool2d", 2, x, sizes, rng, return_indices, out)


def fractional_max_pool3d(
    x: Array,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: float | tuple[float, ...] | None = None,
    return_indices: bool = False,
    *,
    rng: Seed,
    out: Array | None = None,
) -> Any:
    """Take maxima of windows whose places are drawn; as `fractional_max_pool2d`.

    x is (N, C, D, H, W) or (C, D, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.ones((1, 2, 9, 9, 9), np.float32)
    >>> fractional_max_pool3d(x, 2, output_ratio=0.7, rng=0).shape
    (1, 2, 6, 6, 6)
    """
    sizes = (kernel_size, output_size, output_ratio)
    return _fractional("fractional_max_pool3d", 3, x, sizes, rng, return_indices, out)


def fractional_max_pool1d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `fractional_max_pool1d`; as with two axes.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.full((1, 1, 2), 3.0), np.full((1, 1, 2), 1)
    >>> fractional_max_pool1d_backward(grad, indices, (1, 1, 3)).ravel()
    array([0., 6., 0.])
    """
    gradient = (grad_output, indices, input_shape)
    return scatter("fractional_max_pool1d_backward", 1, gradient, out)


def fractional_max_pool2d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `fractional_max_pool2d`: each goes to its maximum.

    Parameters
    ----------
    grad_output : (N, C, OH, OW) or (C, OH, OW), float32 or float64
        Gradient of the loss with respect to the maxima.
    indices : shape of grad_output, int64
        What `fractional_max_pool2d` gave with `return_indices`.
    input_shape : (N, C, H, W) or (C, H, W)
        Shape of the x that was pooled.
    out : ndarray, optional
        Array for grad_x: contiguous, of its shape and dtype, that overlaps no input.

    Returns
    -------
    grad_x : input_shape, dtype of grad_output
        Gradients of an element that won several windows are added in their order.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.full((1, 1, 1, 2), 3.0), np.full((1, 1, 1, 2), 1)
    >>> fractional_max_pool2d_backward(grad, indices, (1, 1, 1, 3))
    array([[[[0., 6., 0.]]]])
    """
    gradient = (grad_output, indices, input_shape)
    return scatter("fractional_max_pool2d_backward", 2, gradient, out)


def fractional_max_pool3d_backward(
    grad_output: Array,
    indices: Array,
    input_shape: tuple[int, ...],
    *,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of `fractional_max_pool3d`; as with two axes.

    Examples
    --------
    >>> import numpy as np
    >>> grad, indices = np.full((1, 1, 1, 1, 2), 3.0), np.full((1, 1, 1, 1, 2), 1)
    >>> fractional_max_pool3d_backward(grad, indices, (1, 1, 1, 1, 3)).ravel()
    array([0., 6., 0.])
    """
    gradient = (grad_output, indices, input_shape)
    return scatter("fractional_max_pool3d_backward", 3, gradient, out)


def starts_of(
    extents: tuple[int, ...],
    kernel: tuple[int, ...],
    outputs: tuple[int, ...],
    samples: Array,
) -> Array:
    """Give where the windows start: (planes, outputs of all axes, one after the other).

    As kernels see them: three axes, the missing ones first, with one window at 0.
    """
    planes, end = len(samples), 3 - len(outputs)
    starts = buffers.empty((planes, end + sum(outputs)), _INT64)
    starts[:, :end] = 0
    for axis, (extent, k, count) in enumerate(
        zip(extents, kernel, outputs, strict=True)
    ):
        u = samples[:, axis, None]
        alpha = (extent - k) / (count - 1) if count > 1 else 0.0
        start = np.add(np.arange(count), u, out=empty((planes, count), _FLOAT64))
        np.floor(np.multiply(start, alpha, out=start), out=start)
        first = np.multiply(u, alpha, out=empty((planes, 1), _FLOAT64))
        start -= np.floor(first, out=first)
        start[:, -1] = extent - k
        begin, end = end, end + count
        starts[:, begin:end] = start
    return starts


def output_extents(
    function: str, extents: tuple[int, ...], sizes: tuple[Any, Any, Any]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Check the sizes of windows and of the output."""
    kernel_size, output_size, output_ratio = sizes
    ndim = len(extents)
    if (output_size is None) == (output_ratio is None):
        raise ValueError(
            f"{function}: exactly one of output_size and output_ratio must be given, "
            f"got {shown(output_size)} and {shown(output_ratio)}"
        )
    shape = (0, 1, *extents)
    kernel = PoolProblem.pool(function, shape, kernel_size).kernel[-ndim:]
    if output_size is not None:
        outputs = PoolProblem.adaptive(function, shape, output_size).out_extent[-ndim:]
    else:
        given = (
            output_ratio if isinstance(output_ratio, tuple) else (output_ratio,) * ndim
        )
        if len(given) != ndim:
            raise ValueError(
                f"{function}: output_ratio must be one number or {ndim}, got "
                f"{shown(output_ratio)}"
            )
        ratios = [real(function, "output_ratio", r, 0, 1) for r in given]
        outputs = tuple(int(e * r) for e, r in zip(extents, ratios, strict=True))
    for e, k, o in zip(extents, kernel, outputs, strict=True):
        if o < 1 or o + k - 1 > e:
            raise ValueError(
                f"{function}: 1 <= output_size <= extent - kernel_size + 1 must hold, "
                f"got {outputs} of {extents} with windows {kernel}"
            )
    return kernel, outputs


def _fractional(
    function: str,
    ndim: int,
    x: Array,
    sizes: tuple[Any, Any, Any],
    rng: Seed,
    return_indices: bool,
    out: Pair | None,
) -> Any:
    """Do `fractional_max_pool` in any rank."""
    boolean(function, "return_indices", return_indices)
    draw = generator(function, rng)
    dtype = checked(function, "x", x)
    whole, _ = batched_shape(function, "x", x.shape, ndim)
    kernel, outputs = output_extents(function, whole[2:], sizes)
    planes = whole[0] * whole[1]
    samples = uniform(function, draw, empty((planes, ndim), _FLOAT64))
    starts = starts_of(whole[2:], kernel, outputs, samples)
    shape, found = (*x.shape[:-ndim], *outputs), None
    if return_indices:
        y, found = pair(function, out, shape, (dtype, _INT64), x)
    else:
        y = room(function, out, shape, dtype, x)
    ones = (1, 1, 1, 1, 0, 0, 1) * (3 - ndim)
    geometry = (planes, *ones)
    for e, o, k in zip(whole[2:], outputs, kernel, strict=True):
        geometry += (e, o, k, 1, 0, 0, 1)
    work = x.size + y.size * prod(kernel)
    given = (geometry, flat(x, dtype), starts, y, found)
    apply("pool_max_places", "fractional", *given, work=work)
    return y if found is None else (y, found)
