"""Locally connected layers, and sums over chosen inputs: weights that are not shared.

The weight of a locally connected layer has the axes (OH, KH, in, out, KW, OW), in one
dimension (in, out, KW, OW). In the sums the letters are `n c o y x`, and tap (ky, kx) has
the weights w[y, ky, c, o, kx, x].
"""

import numpy as np

from convcore.problem import ConvProblem
from convcore.reference.conv import _enlarged, _padded_x
from convcore.reference.pad import pad_grad
from convcore.reference.taps import Array, Tap, ieee, taps


def local(problem: ConvProblem, x: Array, w: Array, b: Array | None = None) -> Array:
    """Convolve with weights of their own for every window.

    Parameters
    ----------
    problem : ConvProblem
        With one group and one or two axes: that of a convolution of the same shapes.
    x : problem.x_shape
    w : (OH, KH, in, out, KW, OW), or (in, out, KW, OW)
    b : (out, OH, OW), or (out, OW), optional

    Returns
    -------
    y : problem.y_shape

    Examples
    --------
    >>> x, w = np.array([[[1, 2, 4]]]), np.array([[[[1, 0], [0, 10]]]])
    >>> local(ConvProblem.conv("local", (1, 1, 3), (1, 1, 2)), x, w)
    array([[[ 1, 40]]])
    """
    if problem.border != "zeros":
        padded = _padded_x(problem, x.reshape(_x_axes(problem)))
        return local(_enlarged(problem), padded, w, b)
    w = w.reshape(_w_axes(problem))
    y = np.zeros(_y_axes(problem), np.result_type(x, w))
    with ieee():
        for tap in taps(problem):
            y += np.einsum("ncyx,ycox->noyx", _under(problem, x, tap), w[_index(tap)])
        y = y.reshape(problem.y_shape)
        return y if b is None else y + b


def local_backward(
    problem: ConvProblem, grad_y: Array, x: Array, w: Array
) -> tuple[Array, Array, Array]:
    """Give the gradients of x, w and b.

    Parameters
    ----------
    problem, x, w
        As for `local`.
    grad_y : problem.y_shape
    """
    if problem.border != "zeros":
        first = 3 - problem.ndim
        sides = problem.in_extent[first:], problem.padding[first:], problem.border
        padded = _padded_x(problem, x.reshape(_x_axes(problem)))
        grad_x, grad_w, grad_b = local_backward(_enlarged(problem), grad_y, padded, w)
        return pad_grad(grad_x, *sides), grad_w, grad_b
    axes = w.reshape(_w_axes(problem))
    g = grad_y.reshape(_y_axes(problem))
    grad_x = np.zeros(_x_axes(problem), grad_y.dtype)
    grad_w = np.zeros(_w_axes(problem), grad_y.dtype)
    with ieee():
        for tap in taps(problem):
            shares = np.einsum("noyx,ycox->ncyx", g, axes[_index(tap)])
            grad_x[tap.inp] += shares[:, :, None][tap.out]
            grad_w[_index(tap)] = np.einsum(
                "ncyx,noyx->ycox", _under(problem, x, tap), g
            )
        grad_b = grad_y.sum(axis=0)
    return grad_x.reshape(problem.x_shape), grad_w.reshape(w.shape), grad_b


def sparse_linear(
    x: Array, w: Array, connections: Array, b: Array | None = None
) -> Array:
    """Sum over chosen elements: y[o] = b[o] + sum over j of w[o, j] x[connections[o, j]].

    Parameters
    ----------
    x : (n, inputs)
    w : (outputs, j)
    connections : (outputs, j), integers from 0 to inputs - 1
    b : (outputs,), optional

    Examples
    --------
    >>> sparse_linear(np.array([[1, 2, 4]]), np.array([[1, 10]]), np.array([[0, 2]]))
    array([[41]])
    """
    with ieee():
        y: Array = np.einsum("noj,oj->no", x[:, connections], w)
        return y if b is None else y + b


def sparse_linear_backward(
    grad_y: Array, x: Array, w: Array, connections: Array
) -> tuple[Array, Array, Array]:
    """Give the gradients of x, w and b."""
    grad_x = np.zeros(x.shape, grad_y.dtype)
    with ieee():
        for row, grads in zip(grad_x, grad_y, strict=True):
            np.add.at(row, connections, w * grads[:, None])
        grad_w = np.einsum("no,noj->oj", grad_y, x[:, connections])
        return grad_x, grad_w, grad_y.sum(axis=0)


def _index(tap: Tap) -> tuple[slice | int, ...]:
    """Index the weights of a tap: (y, c, o, x) is left."""
    every = slice(None)
    _, _, ky, kx = tap.kernel
    return every, ky, every, every, kx


def _under(problem: ConvProblem, x: Array, tap: Tap) -> Array:
    """Give what a tap sees in each window, with the zeros of the padding."""
    seen = np.zeros((problem.n, problem.ic, *problem.out_extent), x.dtype)
    seen[tap.out] = x.reshape(_x_axes(problem))[tap.inp]
    return seen[:, :, 0]


def _x_axes(problem: ConvProblem) -> tuple[int, ...]:
    return (problem.n, problem.ic, *problem.in_extent)


def _w_axes(problem: ConvProblem) -> tuple[int, ...]:
    (_, oh, ow), (_, kh, kw) = problem.out_extent, problem.kernel
    return (oh, kh, problem.ic, problem.oc, kw, ow)


def _y_axes(problem: ConvProblem) -> tuple[int, ...]:
    return (problem.n, problem.oc, *problem.out_extent[1:])
