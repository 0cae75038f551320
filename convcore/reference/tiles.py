"""Images cut into tiles, for the definitions of what computes convolutions tile by tile."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from convcore.problem import ConvProblem, Direction

Array = npt.NDArray[np.floating]


def three_axes(a: Array) -> tuple[int, ...]:
    """Give the shape with three spatial axes."""
    return *a.shape[:2], *(1,) * (5 - a.ndim), *a.shape[2:]


def groups_of(a: Array, groups: int) -> list[Array]:
    """Split (n, g * c, d, h, w) into groups of (n * d, c, h, w)."""
    a = a.reshape(three_axes(a)).swapaxes(1, 2)
    return np.split(a.reshape(-1, *a.shape[2:]), groups, axis=1)


def patches(
    images: Array,
    pads: Sequence[int],
    size: Sequence[int],
    reach: Sequence[int],
    tiles: Sequence[int],
) -> Array:
    """Cut images into patches (n, c, tiles y, tiles x, reach y, reach x).

    Patch t of an axis begins at t * size - pad; outside there are zeros.
    """
    index = []
    for axis, (pad, s, r, t) in enumerate(zip(pads, size, reach, tiles, strict=True)):
        at = s * np.arange(t)[:, None] - pad + np.arange(r)
        inside = (at >= 0) & (at < images.shape[2 + axis])
        index.append((np.where(inside, at, 0), inside))
    (y, y_inside), (x, x_inside) = index
    cut = images[:, :, y[:, None, :, None], x[None, :, None, :]]
    result: Array = cut * (y_inside[:, None, :, None] & x_inside[None, :, None, :])
    return result


def by_groups(
    problem: ConvProblem,
    direction: Direction,
    first: Array,
    second: Array,
    convolve: Callable[[Array, Array, Sequence[int], Sequence[int]], Array],
    weight_gradient: Callable[[Array, Array, Sequence[int]], Array],
) -> Array:
    """Compute a direction of a convolution of stride 1, given how a group is computed.

    Parameters
    ----------
    problem : ConvProblem
        Stride 1, a kernel along the last two axes.
    direction : "fprop", "dgrad" or "wgrad"
    first, second : ndarray
        x and weight; grad_y and weight; x and grad_y.
    convolve : function
        Of images (n, c, h, w), weight (m, c, ky, kx), what is padded before both axes, and
        the extents of the result.
    weight_gradient : function
        Of images (n, c, h, w), grad_y (n, m, oh, ow), and the same padding.

    Returns
    -------
    result : float64
    """
    pads, taps = [low for low, _ in problem.padding[1:]], problem.kernel[1:]
    one, two = first.astype(np.float64), second.astype(np.float64)
    if direction == "wgrad":
        pairs = zip(groups_of(one, problem.g), groups_of(two, problem.g), strict=True)
        parts = [weight_gradient(x, dy, pads) for x, dy in pairs]
        return np.concatenate(parts).reshape(problem.weight_shape)
    extent, shape = problem.out_extent[1:], problem.y_shape
    weights = [w[:, :, 0] for w in np.split(two.reshape(three_axes(two)), problem.g)]
    if direction == "dgrad":
        extent, shape = problem.in_extent[1:], problem.x_shape
        reach = [d * (k - 1) for d, k in zip(problem.dilation[1:], taps, strict=True)]
        pads = [r - p for r, p in zip(reach, pads, strict=True)]
        weights = [w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3) for w in weights]
    results = [
        convolve(images, w, pads, extent)
        for images, w in zip(groups_of(one, problem.g), weights, strict=True)
    ]
    y = np.stack(results, 1)  # (n * d, g, m, h, w)
    y = y.reshape(problem.n, problem.in_extent[0], shape[1], *extent)
    return y.swapaxes(1, 2).reshape(shape)
