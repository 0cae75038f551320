"""Sums over chosen inputs: a fully connected layer of which few connections are left."""

from collections.abc import Collection
from math import prod
from typing import Any

import numpy as np

from convcore.arguments import integer
from convcore.functional._checks import GRADIENTS, needed
from convcore.functional._outs import Outs, places
from convcore.functional.call import apply
from convcore.runtime.arrays import Array, checked, contiguous, empty, ready, room

__all__ = ["Connections", "sparse_linear", "sparse_linear_backward"]

Grads = tuple[Array | None, Array | None, Array | None]


def _unchanging(array: Array) -> Array:
    """Copy an array to memory that can never be written: kernels trust what is there."""
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)


class Connections:
    """Keep which inputs each output sees, checked, and the same seen from the inputs.

    Parameters
    ----------
    index : (outputs, connections), int64
        Inputs of each output, from 0 to `inputs` - 1; copied. One may stand twice.
    inputs : int
        How many there are.

    Raises
    ------
    ValueError, TypeError
        When an index is out of range, or the array has another type or shape.

    Examples
    --------
    >>> Connections(np.array([[0, 2], [1, 2]]), 3).outputs
    2
    """

    def __init__(self, index: Array, inputs: int) -> None:
        self._index = _unchanging(_checked_index("Connections", "index", index))
        self._inputs = integer("Connections", "inputs", inputs, 1)
        least, most = self._index.min(), self._index.max()
        if least < 0 or most >= inputs:
            raise ValueError(
                f"Connections: index must be from 0 to {inputs - 1}, got {least} to {most}"
            )
        start = np.arange(0, self._index.size + 1, self.count, dtype=np.int64)
        self._start = _unchanging(start)
        self._transposed: tuple[Array, Array, Array] | None = None

    @property
    def index(self) -> Array:
        """Inputs of each output, (outputs, connections); nobody can write to it."""
        return self._index

    @property
    def inputs(self) -> int:
        """How many inputs there are."""
        return self._inputs

    @property
    def outputs(self) -> int:
        """How many outputs there are."""
        return len(self._index)

    @property
    def count(self) -> int:
        """How many inputs each output sees."""
        return int(self._index.shape[1])

    @property
    def start(self) -> Array:
        """Where the entries of each output begin."""
        return self._start

    @property
    def transposed(self) -> tuple[Array, Array, Array]:
        """Starts, outputs and places of the entries, sorted by their input: made once."""
        if self._transposed is None:
            flat = self.index.ravel()
            place = np.argsort(flat, kind="stable").astype(np.int64)
            start = np.zeros(self.inputs + 1, np.int64)
            np.cumsum(np.bincount(flat, minlength=self.inputs), out=start[1:])
            made = start, place // self.count, place
            self._transposed = (
                _unchanging(made[0]),
                _unchanging(made[1]),
                _unchanging(made[2]),
            )
        return self._transposed


def sparse_linear(
    x: Array,
    weight: Array,
    connections: Array | Connections,
    bias: Array | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Sum over chosen elements of each row.

    y[o] = bias[o] + sum over j of weight[o, j] * x[connections[o, j]]

    Parameters
    ----------
    x : (..., inputs) float32 or float64
        Rows; any number of leading axes.
    weight : (outputs, j), dtype of x
        Of each connection.
    connections : (outputs, j) int64, or Connections
        Which inputs each output sees. An array is checked, and sorted for the gradient
        of x, in every call; `Connections` once.
    bias : (outputs,), dtype of x, optional
        Added to each row of the result.
    out : (..., outputs), dtype of x, optional
        Where to write; C-contiguous, and not overlapping an input.

    Returns
    -------
    y : (..., outputs), dtype of x

    Raises
    ------
    ValueError, TypeError
        When shapes do not fit, an index is out of range, or dtypes differ.

    Notes
    -----
    2 * rows * outputs * j operations. Rows are turned into lanes first, so that an index
    serves all of them. Each sum is taken in the order of the connections, whatever the
    other rows and the number of threads.

    Examples
    --------
    >>> x, weight = np.array([[1.0, 2.0, 4.0]]), np.array([[1.0, 10.0], [2.0, 0.5]])
    >>> sparse_linear(x, weight, np.array([[0, 2], [1, 2]]))
    array([[41.,  6.]])
    """
    name = "sparse_linear"
    dtype = checked(name, "x", x)
    weight = ready(name, "weight", weight, dtype)
    table = _table(name, connections, x, weight)
    if bias is not None:
        bias = ready(name, "bias", bias, dtype)
        if bias.shape != (table.outputs,):
            raise ValueError(
                f"{name}: bias must have shape ({table.outputs},), got {bias.shape}"
            )
    shape = (*x.shape[:-1], table.outputs)
    y = room(name, out, shape, dtype, x, weight, bias)
    source = _lanes(x, dtype)
    sums = empty((table.outputs, source.shape[1]), dtype)
    entries = (table.start, table.index, None)
    _gather((table.outputs, table.inputs), entries, weight, source, bias, sums)
    np.copyto(y.reshape(-1, table.outputs), sums.T)
    return y


def sparse_linear_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    connections: Array | Connections,
    *,
    needs: Collection[str] = GRADIENTS,
    out: Outs | None = None,
) -> Grads:
    """Compute the gradients of `sparse_linear` with respect to x, weight and bias.

    Parameters
    ----------
    grad_output : (..., outputs), dtype of x
        Gradient of the loss with respect to y.
    x, weight, connections
        What `sparse_linear` was called with.
    needs : collection of "x", "weight", "bias"
        Which gradients to compute.
    out : tuple of (array or None), optional
        Where to write the three results, in their order; None for new memory.

    Returns
    -------
    grad_x, grad_weight, grad_bias : arrays of the shapes of x, weight, (outputs,), or None
        None where not needed; the last two are sums over all rows.

    Raises
    ------
    ValueError, TypeError
        As `sparse_linear`, and when grad_output does not have the shape of the result.

    Notes
    -----
    The gradient of x is a sum for each input over the outputs that see it: no two threads
    add to one element.

    Examples
    --------
    >>> x, weight = np.array([[1.0, 2.0, 4.0]]), np.array([[1.0, 10.0], [2.0, 0.5]])
    >>> grad, index = np.array([[1.0, 2.0]]), np.array([[0, 2], [1, 2]])
    >>> [array.tolist() for array in sparse_linear_backward(grad, x, weight, index)]
    [[[1.0, 4.0, 11.0]], [[1.0, 4.0], [4.0, 8.0]], [1.0, 2.0]]
    """
    name = "sparse_linear_backward"
    asked = needed(name, needs)
    inputs = grad_output, x, weight
    dtype = checked(name, "x", x)
    weight = ready(name, "weight", weight, dtype)
    checked(name, "grad_output", grad_output, dtype)
    table = _table(name, connections, x, weight)
    if grad_output.shape != (*x.shape[:-1], table.outputs):
        raise ValueError(
            f"{name}: grad_output must have shape {(*x.shape[:-1], table.outputs)}, got "
            f"{grad_output.shape}"
        )
    shapes = (x.shape, weight.shape, (table.outputs,))
    grad_x, grad_weight, grad_bias = places(name, out, (asked, shapes), dtype, inputs)
    grads = _lanes(grad_output, dtype)
    if grad_x is not None:
        sums = empty((table.inputs, grads.shape[1]), dtype)
        rows = (table.inputs, table.outputs)
        _gather(rows, table.transposed, weight, grads, None, sums)
        np.copyto(grad_x.reshape(-1, table.inputs), sums.T)
    if grad_weight is not None:
        source = _lanes(x, dtype)
        sizes = (table.outputs, table.inputs, source.shape[1], weight.size)
        entries = (table.start, table.index, None)
        arrays = (*entries, None, source, grads, grad_weight)
        apply("sparse", "run", sizes, *arrays, work=weight.size * (source.shape[1] + 1))
    if grad_bias is not None:
        with np.errstate(all="ignore"):
            grads.sum(axis=1, out=grad_bias)
    return grad_x, grad_weight, grad_bias


def _gather(
    extents: tuple[int, int],
    entries: tuple[Array, Array, Array | None],
    weight: Array,
    source: Array,
    bias: Array | None,
    sums: Array,
) -> None:
    """Call the kernel."""
    sizes = (*extents, source.shape[1], weight.size)
    work = weight.size * (source.shape[1] + 1)
    apply("sparse", "run", sizes, *entries, weight, source, bias, sums, work=work)


def _lanes(x: Array, dtype: np.dtype[Any]) -> Array:
    """Copy rows to the last axis: (elements of a row, rows)."""
    rows = prod(x.shape[:-1])
    return contiguous(x.reshape(rows, x.shape[-1]).T, dtype)


def _table(function: str, connections: Any, x: Array, weight: Array) -> Connections:
    """Check the connections, and that all shapes fit."""
    if x.ndim == 0 or x.shape[-1] < 1:
        raise ValueError(f"{function}: x must have rows, got shape {x.shape}")
    if isinstance(connections, Connections):
        table = connections
    else:
        table = Connections(
            _checked_index(function, "connections", connections), x.shape[-1]
        )
    if x.shape[-1] != table.inputs:
        raise ValueError(
            f"{function}: connections expect rows of {table.inputs}, got x {x.shape}"
        )
    if weight.shape != table.index.shape:
        raise ValueError(
            f"{function}: weight must have the shape of connections "
            f"{table.index.shape}, got {weight.shape}"
        )
    return table


def _checked_index(function: str, argument: str, index: Any) -> Array:
    """Copy an array of indices, of at least one for each output."""
    if not isinstance(index, np.ndarray) or index.dtype.newbyteorder("=") != np.int64:
        kind = getattr(index, "dtype", type(index).__name__)
        raise TypeError(f"{function}: {argument} must be an array of int64, got {kind}")
    if index.ndim != 2 or 0 in index.shape:
        raise ValueError(
            f"{function}: {argument} must have shape (outputs, connections), both >= 1, "
            f"got {index.shape}"
        )
    return np.array(index, np.int64, order="C")
