"""Paths from the pixels of an input to the output of a network: how many there are."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from convcore import nn
from convcore.analysis.connections import Pixels, connect
from convcore.analysis.window import Window
from convcore.arguments import integer, one_of, shown
from convcore.problem import ConvProblem, Padding
from convcore.problem.border import BORDERS
from convcore.runtime.arrays import Array

__all__ = ["path_count", "path_ratio", "path_triangle"]


def path_count(
    model: nn.Layer,
    input_shape: Sequence[int],
    *,
    dtype: npt.DTypeLike | None = None,
) -> Array:
    """Count the paths from every pixel of the input to the output.

    The graph has one node for each pixel of each map. A layer connects a pixel of its
    output with a pixel of its input once for each tap of the window that lies there; with
    a padding mode that repeats pixels, a window can hold the same one more than once. What
    lies in a padding of zeros, or of a constant, is no pixel. A path takes one connection
    of each layer. Paths to all pixels of the output are counted, so the result is the
    gradient of their sum in a network with one channel, no activation, and weights of 1.

    Channels are counted once: a map of 64 channels is one map. In a chain of layers that
    are not grouped, counting them too would multiply every number by the same factor.

    Parameters
    ----------
    model : nn.Layer
        Convolutions, transposed or not, poolings (of any kind, but for fractional ones,
        whose windows are drawn), `Flatten`, `Linear`, in `Sequential`, `Residual` and
        `Concat`. Activations, normalisations, dropout, softmax and poolings over channels
        leave pixels where they are. After `Flatten` (of all axes) the outputs of `Linear`
        are channels, so each pixel has one connection with them. See `connect` for
        layers of one's own.
    input_shape : (C, *spatial)
        Of one sample, with one to three spatial axes.
    dtype : float64, optional
        Count in floating point: rounded, but faster where counts are beyond 2**63.

    Returns
    -------
    spatial ndarray
        int64 if all numbers on the way fit; Python's integers (dtype object) if not; so
        counts are exact unless a dtype is given.

    Raises
    ------
    ValueError
        When there is no rule for a layer, which the message names, or a shape does not
        fit.
    TypeError
        When an argument has a wrong type.

    Notes
    -----
    Layers are products of windows along the axes, so they are taken back axis by axis, in
    a time that grows with the sum of the kernel's extents, not with their product. In a
    chain of such layers the counts of two axes are the product of the counts of each.

    Examples
    --------
    >>> from convcore import nn
    >>> path_count(nn.Sequential(nn.Conv1d(1, 8, 3), nn.Conv1d(8, 8, 3)), (1, 7))
    array([1, 3, 6, 7, 6, 3, 1])
    >>> path_count(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()), (1, 3, 3))
    array([[4, 6, 4],
           [6, 9, 6],
           [4, 6, 4]])
    """
    if dtype is not None and not _is_float64(dtype):
        raise ValueError(
            f"path_count: dtype must be float64 or None, got {shown(dtype)}"
        )
    extents = checked_shape("path_count", model, input_shape)[1:]
    after, back = connect(model, Pixels(extents))
    return back(np.ones(after.extents, np.int64 if dtype is None else np.float64))


def _is_float64(dtype: Any) -> bool:
    try:
        return bool(np.dtype(dtype) == np.float64)
    except (TypeError, ValueError):
        return False


def path_ratio(
    kernel_size: int,
    depth: int,
    padding: Padding = "same",
    padding_mode: str = "zeros",
    *,
    place: Literal["edge", "corner"] = "edge",
    ndim: int = 2,
) -> Array:
    """Compare the paths of a pixel at the border with those of one at the centre.

    Parameters
    ----------
    kernel_size : int
        Taps along each axis, of all layers; their stride is 1.
    depth : int
        Layers; at least 1.
    padding, padding_mode
        Of all layers, as for `nn.Conv1d`.
    place : "edge" or "corner"
        In the middle of an edge, where one axis ends, or in a corner, where all do.
    ndim : int
        Axes that end in a corner.

    Returns
    -------
    (depth,) float64 ndarray
        The number of paths at the border divided by that at the centre, for networks of
        1, 2, ..., `depth` layers; 1 is fair. An edge is the same for any number of axes,
        as the counts of other axes cancel; a corner is its `ndim`-th power.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Notes
    -----
    Each ratio is computed exactly, in an input of 2 depth (kernel_size - 1) + 1 pixels: so
    wide that no path from its centre, over all layers, comes to a border, and none from
    one border to the other. A wider input has the same ratios. Without padding the ratio
    is kernel_size ** -depth: one path against kernel_size of them at each layer.

    Examples
    --------
    >>> path_ratio(3, 3, "valid").round(3)
    array([0.333, 0.111, 0.037])
    >>> path_ratio(3, 3).round(3)
    array([0.667, 0.556, 0.481])
    >>> path_ratio(3, 3, padding_mode="symmetric")
    array([1., 1., 1.])
    """
    kernel = integer("path_ratio", "kernel_size", kernel_size, 1)
    depth = integer("path_ratio", "depth", depth, 1)
    ndim = integer("path_ratio", "ndim", ndim, 1)
    one_of("path_ratio", "place", place, ("edge", "corner"))
    one_of("path_ratio", "padding_mode", padding_mode, BORDERS)
    extent = 2 * depth * (kernel - 1) + 1
    axes = ndim if place == "corner" else 1
    ratios = []
    for layers in range(1, depth + 1):
        counts = _chain(kernel, layers, padding, padding_mode, extent)
        ratios.append(float(Fraction(int(counts[0]), int(counts[extent // 2])) ** axes))
    return np.array(ratios)


def path_triangle(kernel_size: int, layers: int) -> list[list[int]]:
    """Count the paths between one pixel and those that it sees, layer by layer.

    Parameters
    ----------
    kernel_size : int
        Taps of every layer along the axis; the stride is 1, and no border is near.
    layers : int
        Rows below the tip; at least 0.

    Returns
    -------
    list of lists of int
        Row l has l (kernel_size - 1) + 1 numbers: the paths from the pixel at the tip to
        each pixel l layers away. Each number is the sum of the `kernel_size` numbers
        above it. Two taps make Pascal's triangle, three the trinomial one. Their shape
        tends to a Gaussian with a standard deviation of
        sqrt(l (kernel_size**2 - 1) / 12) pixels.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    References
    ----------
    Luo, Li, Urtasun, Zemel: Understanding the effective receptive field in deep
    convolutional neural networks, NIPS 2016, section 2.1.

    Examples
    --------
    >>> path_triangle(2, 3)
    [[1], [1, 1], [1, 2, 1], [1, 3, 3, 1]]
    >>> path_triangle(3, 5)[5]
    [1, 5, 15, 30, 45, 51, 45, 30, 15, 5, 1]
    """
    kernel = integer("path_triangle", "kernel_size", kernel_size, 1)
    layers = integer("path_triangle", "layers", layers, 0)
    rows = [[1]]
    for _ in range(layers):
        above = rows[-1]
        row = [0] * (len(above) + kernel - 1)
        for place, number in enumerate(above):
            for tap in range(kernel):
                row[place + tap] += number
        rows.append(row)
    return rows


def checked_shape(
    function: str, model: Any, input_shape: Sequence[int]
) -> tuple[int, ...]:
    """Check a layer and the shape of one sample, (C, *spatial); give the shape."""
    if not isinstance(model, nn.Layer):
        raise TypeError(f"{function}: model must be a layer, got {shown(model):.60}")
    if not isinstance(input_shape, (tuple, list)) or not 2 <= len(input_shape) <= 4:
        raise ValueError(
            f"{function}: input_shape must be (C, *spatial) with 1 to 3 spatial axes, "
            f"got {shown(input_shape)}"
        )
    return tuple(integer(function, "input_shape", extent, 1) for extent in input_shape)


def _chain(kernel: int, layers: int, padding: Padding, mode: str, extent: int) -> Array:
    """Count the paths of a chain of equal layers along one axis."""
    steps = []
    for _ in range(layers):
        problem = ConvProblem.conv(
            "path_ratio", (1, 1, extent), (1, 1, kernel), padding=padding
        )
        pads, out = problem.padding[-1], problem.out_extent[-1]
        steps.append(Window(extent, out, kernel, padding=pads, mode=mode))
        extent = out
    counts = np.ones(extent, np.int64)
    for window in reversed(steps):
        counts = window.pull(counts, 0)
    return counts
