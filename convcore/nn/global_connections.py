"""Layers whose units see chosen inputs from the whole image."""

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore import init
from convcore.arguments import Seed, boolean, generator, integer
from convcore.nn.layer import Backward, check_gradient
from convcore.nn.weights import Grads, WeightBackward, WeightLayer
from convcore.problem import Size
from convcore.problem.rules import check_addressable, sizes
from convcore.runtime.arrays import Array, batched_shape, checked

__all__ = ["GloballyConnected2d"]


class _Table:
    """Connections, checked and sorted, for as long as they stay the same.

    Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self._kept: F.Connections | None = None

    def of(self, index: Array, inputs: int) -> F.Connections:
        """Give the connections of an index, which anybody may have written to."""
        kept = self._kept
        if kept is None or not np.array_equal(kept.index, index):
            kept = self._kept = F.Connections(index, inputs)
        return kept

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Table, ()


class GloballyConnected2d(WeightLayer):
    """Let each output unit see a fixed random set of inputs from the whole image.

    To be summed with a convolution, which sees what is near: `nn.Residual` adds the two.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of x and of y.
    connections : int
        Inputs that each output unit sees: different ones, drawn from all channels and
        places; at most as many as there are.
    input_size : int or (int, int)
        Extents of x.
    output_size : int or (int, int), optional
        Extents of y; by default those of x.
    bias : bool
        Whether to add a bias, one for each output unit.
    dtype : float32 or float64
        Of the parameters, and of what the layer takes.
    rng : numpy.random.Generator or int
        Source of the connections and of the first weights.
    weight_init : init.Initializer
        Draws the weights, with the fan of one unit; biases start at 0.

    Attributes
    ----------
    weight : Parameter, (out_channels * OH * OW, connections)
    bias : Parameter, (out_channels * OH * OW,), or None
    connections : (out_channels * OH * OW, connections), int64
        Flat indices into (in_channels, H, W), in rising order; saved with the weights.
        `reset_parameters` leaves them as they are.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type; when connections that were loaded, or
        written, are out of range.

    See Also
    --------
    convcore.functional.sparse_linear

    Examples
    --------
    >>> from convcore import nn
    >>> far = GloballyConnected2d(3, 8, 5, 16, rng=0)
    >>> layer = nn.Residual(nn.Conv2d(3, 8, 3, padding=1), far)
    >>> layer(np.ones((2, 3, 16, 16), np.float32)).shape
    (2, 8, 16, 16)
    >>> far.parameter_count() == 8 * 16 * 16 * (5 + 1)
    True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        connections: int,
        input_size: Size,
        output_size: Size | None = None,
        bias: bool = True,
        *,
        rng: Seed,
        dtype: npt.DTypeLike = np.float32,
        weight_init: init.Initializer = init.he_uniform,
    ) -> None:
        name = type(self).__name__
        self.in_channels = integer(name, "in_channels", in_channels, 1)
        self.out_channels = integer(name, "out_channels", out_channels, 1)
        self.input_size = sizes(name, "input_size", input_size, 2)
        wanted = input_size if output_size is None else output_size
        self.output_size = sizes(name, "output_size", wanted, 2)
        inputs = self.in_channels * prod(self.input_size)
        units = self.out_channels * prod(self.output_size)
        count = integer(name, "connections", connections, 1)
        check_addressable(name, "x", (self.in_channels, *self.input_size))
        check_addressable(
            name, "the weight", (self.out_channels, *self.output_size, count)
        )
        if count > inputs:
            raise ValueError(
                f"{name}: connections must be at most {inputs}, the inputs, got {count}"
            )
        boolean(name, "bias", bias)
        draw = generator(name, rng)
        self.connections = _drawn_rows(draw, units, count, inputs)
        self._table = _Table()
        self._set_weights((units, count), units, bias, dtype, draw, weight_init)

    def _rows(self, x: Array) -> Array:
        """Check the shape of x, and give a row for each sample."""
        name = type(self).__name__
        checked(name, "x", x)
        shape, _ = batched_shape(name, "x", x.shape, 2)
        if shape[1:] != (self.in_channels, *self.input_size):
            raise ValueError(
                f"{name}: x must have shape (N, {self.in_channels}, "
                f"{self.input_size[0]}, {self.input_size[1]}), got {np.shape(x)}"
            )
        return x.reshape(shape[0], prod(shape[1:]))

    def _connected(self) -> F.Connections:
        inputs = self.in_channels * prod(self.input_size)
        return self._table.of(self.connections, inputs)

    def __call__(self, x: Array) -> Array:
        """Compute y for inference."""
        rows = self._rows(x)
        y = F.sparse_linear(rows, self.weight.value, self._connected(), self._bias)
        leading = x.shape[: x.ndim - 3]
        return y.reshape(*leading, self.out_channels, *self.output_size)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """Compute y for training, and the function that takes its gradient."""
        y, rows, table = self(x), self._rows(x), self._connected()
        shape, right = x.shape, y.shape

        def gradients(grad_y: Array, needs: tuple[str, ...]) -> Grads:
            check_gradient(type(self).__name__, grad_y, right)
            flat = grad_y.reshape(len(rows), -1 if len(rows) else len(self.connections))
            grads = F.sparse_linear_backward(
                flat, rows, self.weight.value, table, needs=needs
            )
            grad_x = None if grads[0] is None else grads[0].reshape(shape)
            return grad_x, grads[1], grads[2]

        return y, WeightBackward(self, gradients)

    def _arguments(self) -> str:
        parts: list[Any] = [
            f"{self.in_channels}, {self.out_channels}",
            f"connections={self.connections.shape[1]}",
            f"input_size={self.input_size}",
            f"output_size={self.output_size}",
            *([] if self.bias else ["bias=False"]),
        ]
        return ", ".join(parts)


def _drawn_rows(
    rng: np.random.Generator, rows: int, count: int, inputs: int
) -> npt.NDArray[np.int64]:
    """Draw different numbers below `inputs` for each row, in rising order.

    Where few of many are drawn, rows with a number twice are drawn again, which takes
    less than shuffling all numbers for each.
    """
    if count * count > inputs:
        drawn = np.stack([rng.permutation(inputs)[:count] for _ in range(rows)])
        return np.sort(drawn.astype(np.int64), axis=1)
    drawn = np.sort(rng.integers(inputs, size=(rows, count)), axis=1)
    while (again := (np.diff(drawn, axis=1) == 0).any(axis=1)).any():
        drawn[again] = np.sort(
            rng.integers(inputs, size=(int(again.sum()), count)), axis=1
        )
    return drawn.astype(np.int64)
