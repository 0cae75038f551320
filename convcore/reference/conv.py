"""Convolution, its three gradients, and its transpose.

The problem holds all geometry; arrays come and go in the caller's rank. Inside, x is
(n, g, ic/g, D, H, W), w is (g, oc/g, ic/g, KD, KH, KW), y is (n, g, oc/g, OD, OH, OW),
and in the sums the letters are `n g c o z y x`, c for input and o for output channels.
"""

from dataclasses import replace
from itertools import product

import numpy as np

from convcore.problem import ConvProblem
from convcore.problem.border import source_index
from convcore.reference.pad import pad, pad_grad
from convcore.reference.taps import Array, Tap, ieee, taps


def conv(problem: ConvProblem, x: Array, w: Array, b: Array | None = None) -> Array:
    """Convolve: slide the kernels over x without turning them around.

    Parameters
    ----------
    problem : ConvProblem
    x : problem.x_shape
    w : problem.weight_shape
    b : (oc,), optional

    Returns
    -------
    y : problem.y_shape, dtype of x and w
        `y[o, window] = b[o] + sum over (c, k) of w[o, c, k] * x[c, s*window + d*k - p]`,
        and 0 where that is negative if `problem.relu`

    Examples
    --------
    >>> x, w = np.array([[[1.0, 2.0, 4.0]]]), np.array([[[1.0, 10.0]]])
    >>> conv(ConvProblem.conv("conv1d", x.shape, w.shape), x, w)
    array([[[21., 42.]]])
    """
    x, w = x.reshape(_x_axes(problem)), w.reshape(_w_axes(problem))
    if problem.border != "zeros":
        return conv(_enlarged(problem), _padded_x(problem, x), w, b)
    y = np.zeros(_y_axes(problem), dtype=np.result_type(x, w))
    with ieee():
        for tap in taps(problem):
            w_tap = w[tap.kernel]  # (g, oc/g, ic/g)
            y[tap.out] += np.einsum("ngczyx,goc->ngozyx", x[tap.inp], w_tap)
            if problem.n and not np.isfinite(w_tap).all():
                # Only here do the zeros of the padding matter: 0 * inf is NaN.
                zeros = (0 * w_tap).sum(axis=-1)  # (g, oc/g)
                y[..., _padded(problem, tap)] += zeros[..., None]
        y = y.reshape(problem.y_shape)
        if b is not None:
            y = y + _per_channel(problem, b)
        return np.maximum(y, 0) if problem.relu else y


def conv_loops(
    problem: ConvProblem, x: Array, w: Array, b: Array | None = None
) -> Array:
    """Convolve as the formula says, one multiplication at a time.

    The slow twin of `conv`, with the same arguments and result.
    """
    x = x.reshape(problem.n, problem.ic, *problem.in_extent)
    w = w.reshape(problem.oc, problem.ic // problem.g, *problem.kernel)
    y = np.zeros((problem.n, problem.oc, *problem.out_extent), np.result_type(x, w))
    ic_g, oc_g = problem.ic // problem.g, problem.oc // problem.g
    (pz, _), (py, _), (px, _) = problem.padding
    (sz, sy, sx), (dz, dy, dx) = problem.stride, problem.dilation
    depth, height, width = problem.in_extent
    with ieee():
        for n, o, oz, oy, ox in np.ndindex(y.shape):
            first_c = o // oc_g * ic_g  # first input channel of the group of o
            total = y.dtype.type(0)
            for c, kz, ky, kx in product(range(ic_g), *map(range, problem.kernel)):
                iz = sz * oz + dz * kz - pz
                iy = sy * oy + dy * ky - py
                ix = sx * ox + dx * kx - px
                value = x.dtype.type(problem.value)
                jz = source_index(iz, depth, problem.border)
                jy = source_index(iy, height, problem.border)
                jx = source_index(ix, width, problem.border)
                if jz is not None and jy is not None and jx is not None:
                    value = x[n, first_c + c, jz, jy, jx]
                total += w[o, c, kz, ky, kx] * value
            if b is not None:
                total += b[o]
            y[n, o, oz, oy, ox] = np.maximum(total, 0) if problem.relu else total
    return y.reshape(problem.y_shape)


def conv_grad_x(problem: ConvProblem, grad_y: Array, w: Array) -> Array:
    """Give each element of x its share of every output that it went into.

    Parameters
    ----------
    problem : ConvProblem
    grad_y : problem.y_shape
    w : problem.weight_shape

    Returns
    -------
    grad_x : problem.x_shape
        `grad_x[c, i] = sum over (o, k) of w[o, c, k] * grad_y[o, window]`, over the
        windows with `s*window + d*k - p = i`; 0 where there is none. What elements
        beyond the border get goes to the elements of x that they are.
    """
    if problem.border != "zeros":
        first = 3 - problem.ndim
        return pad_grad(
            conv_grad_x(_enlarged(problem), grad_y, w),
            problem.in_extent[first:],
            problem.padding[first:],
            problem.border,
        )
    grad_y, w = grad_y.reshape(_y_axes(problem)), w.reshape(_w_axes(problem))
    grad_x = np.zeros(_x_axes(problem), dtype=np.result_type(grad_y, w))
    with ieee():
        for tap in taps(problem):
            grad_x[tap.inp] += np.einsum(
                "ngozyx,goc->ngczyx", grad_y[tap.out], w[tap.kernel]
            )
    return grad_x.reshape(problem.x_shape)


def conv_grad_weight(problem: ConvProblem, x: Array, grad_y: Array) -> Array:
    """Correlate x with the gradient of y: the gradient of w.

    Parameters
    ----------
    problem : ConvProblem
    x : problem.x_shape
    grad_y : problem.y_shape

    Returns
    -------
    grad_w : problem.weight_shape
        `grad_w[o, c, k] = sum over (n, window) of grad_y[n, o, window] *
        x[n, c, s*window + d*k - p]`; 0 for an empty batch.
    """
    x, grad_y = x.reshape(_x_axes(problem)), grad_y.reshape(_y_axes(problem))
    if problem.border != "zeros":
        return conv_grad_weight(_enlarged(problem), _padded_x(problem, x), grad_y)
    grad_w = np.zeros(_w_axes(problem), dtype=np.result_type(x, grad_y))
    finite = np.isfinite(grad_y).all()
    with ieee():
        for tap in taps(problem):
            grad_w[tap.kernel] = np.einsum(
                "ngozyx,ngczyx->goc", grad_y[tap.out], x[tap.inp]
            )
            if not finite:  # the zeros of the padding, as in conv
                zeros = 0 * grad_y[..., _padded(problem, tap)]  # (n, g, oc/g, windows)
                grad_w[tap.kernel] += zeros.sum(axis=(0, -1))[..., None]
    return grad_w.reshape(problem.weight_shape)


def conv_grad_bias(problem: ConvProblem, grad_y: Array) -> Array:
    """Add up the gradient of y over samples and windows: (oc,)."""
    grad_y = grad_y.reshape(problem.n, problem.oc, *problem.out_extent)
    with ieee():
        total: Array = grad_y.sum(axis=(0, 2, 3, 4))
    return total


def conv_transpose(
    problem: ConvProblem, x: Array, w: Array, b: Array | None = None
) -> Array:
    """Spread each element of x over the window that it belongs to.

    Parameters
    ----------
    problem : ConvProblem
        The convolution that is transposed, as `ConvProblem.transposed` builds it.
    x : problem.y_shape
    w : problem.weight_shape
        Read as (C_in, C_out / groups, *kernel).
    b : (ic,), optional

    Returns
    -------
    y : problem.x_shape
        The gradient of x of the problem, where x stands for the gradient of y.

    Examples
    --------
    >>> x, w = np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0]]])
    >>> problem = ConvProblem.transposed("conv_transpose1d", x.shape, w.shape)
    >>> conv_transpose(problem, x, w)
    array([[[ 1., 12., 20.]]])
    """
    y = conv_grad_x(problem, x, w)
    with ieee():
        return y if b is None else y + _per_channel(problem, b)


def conv_transpose_grad_x(problem: ConvProblem, grad_y: Array, w: Array) -> Array:
    """Convolve grad_y (problem.x_shape): the transpose of a transpose."""
    return conv(problem, grad_y, w)


def conv_transpose_grad_weight(problem: ConvProblem, x: Array, grad_y: Array) -> Array:
    """Correlate as `conv_grad_weight` does, x and grad_y having changed places."""
    return conv_grad_weight(problem, grad_y, x)


def flip_kernel(w: Array) -> Array:
    """Turn every kernel around along all of its axes: (out, in/groups, *kernel).

    Examples
    --------
    >>> flip_kernel(np.array([[[1, 2, 3]]]))
    array([[[3, 2, 1]]])
    """
    return np.flip(w, axis=tuple(range(2, w.ndim)))


def _x_axes(problem: ConvProblem) -> tuple[int, ...]:
    return (problem.n, problem.g, problem.ic // problem.g, *problem.in_extent)


def _y_axes(problem: ConvProblem) -> tuple[int, ...]:
    return (problem.n, problem.g, problem.oc // problem.g, *problem.out_extent)


def _w_axes(problem: ConvProblem) -> tuple[int, ...]:
    g = problem.g
    return (g, problem.oc // g, problem.ic // g, *problem.kernel)


def _per_channel(problem: ConvProblem, b: Array) -> Array:
    """Shape a bias for broadcasting over (n, channels, *spatial)."""
    return b.reshape(-1, *(1,) * problem.ndim)


def _enlarged(problem: ConvProblem) -> ConvProblem:
    """Give the problem over x with its padding, which has none any more."""
    extents = zip(problem.in_extent, problem.padding, strict=True)
    d, h, w = (i + lo + hi for i, (lo, hi) in extents)
    no_pads = ((0, 0), (0, 0), (0, 0))
    return replace(problem.core, in_extent=(d, h, w), padding=no_pads)


def _padded_x(problem: ConvProblem, x: Array) -> Array:
    """Give x with what lies beyond its border, as the enlarged problem takes it."""
    padded = pad(x, problem.padding, problem.border, problem.value)
    return padded.reshape(_enlarged(problem).x_shape)


def _padded(problem: ConvProblem, tap: Tap) -> Array:
    """Mark the windows whose `tap` lies on padding: bool, (od, oh, ow)."""
    mask = np.ones(problem.out_extent, dtype=bool)
    mask[tap.out] = False
    return mask
