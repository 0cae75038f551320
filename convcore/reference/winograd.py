"""Winograd's minimal filtering from its definition.

F(m, r) computes m outputs of a kernel with r taps from m + r - 1 products. Polynomials are
multiplied by their values at as many points, one of them infinity:

    y = A^T [(G w) * (B^T d)]

for an input d of m + r - 1 elements. `transforms` makes the three matrices of the points;
`convolve` computes every direction of a convolution with them. With the magnitudes of all
matrices and arrays it gives the scale of the rounding errors.

Source: Winograd, Arithmetic Complexity of Computations (1980), chapter IV; Lavin and Gray,
Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308, section 4.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convcore.problem import ConvProblem, Direction
from convcore.reference.tiles import by_groups, patches

Array = npt.NDArray[np.floating]

# The finite points of F(m, 3): exact in binary, and of little growth.
POINTS: dict[int, tuple[Fraction, ...]] = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (
        Fraction(0),
        Fraction(3, 4),
        Fraction(-3, 4),
        Fraction(3, 2),
        Fraction(-3, 2),
    ),
}


class Transforms(NamedTuple):
    """The matrices of F(m, r); n = m + r - 1."""

    a: Array  # (n, m)
    b: Array  # (n, n)
    g: Array  # (n, r)


def transforms(points: Sequence[Fraction], taps: int) -> Transforms:
    """Make the matrices of the finite points and infinity.

    Parameters
    ----------
    points : sequence of Fraction
        All different; n - 1 of them.
    taps : int
        Of the kernel.

    Examples
    --------
    >>> m = transforms(POINTS[2], 3)
    >>> d, w = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 0.0, -1.0])
    >>> m.a.T @ ((m.g @ w) * (m.b.T @ d))
    array([-2., -2.])
    """
    n = len(points) + 1
    outputs = n - taps + 1
    a = np.zeros((n, outputs))
    b = np.zeros((n, n))
    g = np.zeros((n, taps))
    a[-1, -1] = g[-1, -1] = 1
    for i, x in enumerate(points):
        others = [p for p in points if p != x]
        # The product of (x - p) over the others makes row i vanish at each other point.
        scale = prod((x - p for p in others), start=Fraction(1))
        a[i] = [float(x**k) for k in range(outputs)]
        g[i] = [float(x**k / scale) for k in range(taps)]
        b[: n - 1, i] = _product(others)
    b[:, -1] = _product(points)
    return Transforms(a, b, g)


def _product(roots: Sequence[Fraction]) -> list[float]:
    """Give the coefficients of the polynomial with these roots, the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        low = [-root * c for c in coefficients] + [Fraction(0)]
        high = [Fraction(0), *coefficients]
        coefficients = [p + q for p, q in zip(low, high, strict=True)]
    return [float(c) for c in coefficients]


def convolve(
    problem: ConvProblem,
    direction: Direction,
    first: Array,
    second: Array,
    size: int,
    *,
    magnitude: bool = False,
) -> Array:
    """Compute a direction of a convolution by F(size, 3) along each axis with taps.

    Parameters
    ----------
    problem : ConvProblem
        Stride 1, 1 or 3 taps along the last two axes, 1 along the first.
    direction : "fprop", "dgrad" or "wgrad"
    first, second : ndarray
        x and weight; grad_y and weight; x and grad_y.
    size : 2 or 4
    magnitude : bool
        Take every matrix and array by its magnitude.

    Returns
    -------
    result : float64
    """
    taps, apart = problem.kernel[1:], problem.dilation[1:]
    matrices = [_axis(k, size, magnitude) for k in taps]
    one, two = (np.abs(a) if magnitude else a for a in (first, second))
    return by_groups(
        problem,
        direction,
        one,
        two,
        lambda x, w, pads, extent: _forward(x, w, pads, apart, extent, matrices),
        lambda x, dy, pads: _weight_gradient(x, dy, pads, apart, taps, matrices),
    )


@cache
def _axis(taps: int, size: int, magnitude: bool) -> Transforms:
    """Give the matrices of an axis; without taps they are the number 1."""
    if taps == 1:
        return Transforms(np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1)))
    made = transforms(POINTS[size], taps)
    return Transforms(*map(np.abs, made)) if magnitude else made


class _Phase(NamedTuple):
    """What a dilation leaves of an axis: its pixels are a convolution of their own."""

    outputs: slice
    inputs: slice
    pad: int


def _phases(
    pads: Sequence[int], apart: Sequence[int], extent: Sequence[int]
) -> Iterator[tuple[_Phase, _Phase]]:
    """List the phases of both axes; there is one without a dilation."""
    axes = [
        [
            # Output f + d * t reads f - p + d * (t + k).
            _Phase(slice(f, None, d), slice((f - p) % d, None, d), -((f - p) // d))
            for f in range(min(d, e))
        ]
        for p, d, e in zip(pads, apart, extent, strict=True)
    ]
    yield from product(*axes)


def _forward(
    images: Array,
    weight: Array,
    pads: Sequence[int],
    apart: Sequence[int],
    extent: Sequence[int],
    matrices: Sequence[Transforms],
) -> Array:
    """Convolve (n, c, h, w) with (m, c, ky, kx)."""
    y = np.zeros((len(images), len(weight), *extent))
    for py, px in _phases(pads, apart, extent):
        part = y[:, :, py.outputs, px.outputs]
        source = images[:, :, py.inputs, px.inputs]
        if source.size:
            part[...] = _dense(source, weight, (py.pad, px.pad), part, matrices)
    return y


def _dense(
    images: Array,
    weight: Array,
    pads: Sequence[int],
    like: Array,
    matrices: Sequence[Transforms],
) -> Array:
    """Convolve without a dilation, to an array of a shape like this."""
    my, mx = matrices
    size, extent = (my.a.shape[1], mx.a.shape[1]), like.shape[2:]
    tiles = [-(-e // s) for e, s in zip(extent, size, strict=True)]
    d = patches(images, pads, size, (len(my.b), len(mx.b)), tiles)
    v = np.einsum("ip,nctuij,jq->nctupq", my.b, d, mx.b)
    u = np.einsum("pi,mcij,qj->mcpq", my.g, weight, mx.g)
    s = np.einsum("nctupq,mcpq->nmtupq", v, u)
    y: Array = np.einsum("pi,nmtupq,qj->nmtiuj", my.a, s, mx.a)
    n, m, t, i, u_, j = y.shape
    return y.reshape(n, m, t * i, u_ * j)[:, :, : extent[0], : extent[1]]


def _weight_gradient(
    images: Array,
    dy: Array,
    pads: Sequence[int],
    apart: Sequence[int],
    taps: Sequence[int],
    matrices: Sequence[Transforms],
) -> Array:
    """Give the gradient of (m, c, ky, kx)."""
    my, mx = matrices
    size = my.a.shape[1], mx.a.shape[1]
    s = np.zeros((dy.shape[1], images.shape[1], len(my.b), len(mx.b)))
    for py, px in _phases(pads, apart, dy.shape[2:]):
        x = images[:, :, py.inputs, px.inputs]
        part = dy[:, :, py.outputs, px.outputs]
        tiles = [-(-e // s) for e, s in zip(part.shape[2:], size, strict=True)]
        if x.size:
            d = patches(x, (py.pad, px.pad), size, (len(my.b), len(mx.b)), tiles)
            e = patches(part, (0, 0), size, size, tiles)
            v = np.einsum("ip,nctuij,jq->nctupq", my.b, d, mx.b)
            w = np.einsum("pi,nmtuij,qj->nmtupq", my.a, e, mx.a)
            s += np.einsum("nctupq,nmtupq->mcpq", v, w)
    dw: Array = np.einsum("pi,mcpq,qj->mcij", my.g, s, mx.g)
    return dw.reshape(*s.shape[:2], *taps)
