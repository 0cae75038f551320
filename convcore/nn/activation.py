"""Activations: they learn nothing, and keep the input or the output for backward."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

from convcore import functional as F
from convcore.arguments import integer, real
from convcore.nn.layer import Backward, Layer, changed
from convcore.runtime.arrays import Array

__all__ = ["LeakyReLU", "LogSoftmax", "ReLU", "Sigmoid", "Softmax", "Tanh"]


class ReLU(Layer):
    """Replace what is negative by 0.

    See Also
    --------
    convcore.functional.relu

    Examples
    --------
    >>> import numpy as np
    >>> y, backward = ReLU().forward(np.array([-1.0, 2.0]))
    >>> y, backward(np.array([3.0, 4.0]))
    (array([0., 2.]), array([0., 4.]))
    """

    def __call__(self, x: Array) -> Array:
        return F.relu(x)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        y = self(x)
        return y, lambda grad_y: F.relu_backward(grad_y, y)


class LeakyReLU(Layer):
    """Multiply what is negative by a small slope.

    Parameters
    ----------
    negative_slope : float
        Factor below 0; finite.

    See Also
    --------
    convcore.functional.leaky_relu
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = real("LeakyReLU", "negative_slope", negative_slope)

    def __call__(self, x: Array) -> Array:
        return F.leaky_relu(x, self.negative_slope)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        return self(x), lambda grad_y: F.leaky_relu_backward(
            grad_y, x, self.negative_slope
        )

    def _arguments(self) -> str:
        return ", ".join(changed(self, negative_slope=0.01))


class Sigmoid(Layer):
    """Squeeze into 0..1.

    See Also
    --------
    convcore.functional.sigmoid
    """

    def __call__(self, x: Array) -> Array:
        return F.sigmoid(x)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        y = self(x)
        return y, lambda grad_y: F.sigmoid_backward(grad_y, y)


class Tanh(Layer):
    """Squeeze into -1..1.

    See Also
    --------
    convcore.functional.tanh
    """

    def __call__(self, x: Array) -> Array:
        return F.tanh(x)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        y = self(x)
        return y, lambda grad_y: F.tanh_backward(grad_y, y)


class Softmax(Layer):
    """Turn scores into probabilities.

    Parameters
    ----------
    dim : int
        Axis along which the results sum to 1; by default that of the channels.

    See Also
    --------
    convcore.functional.softmax
    """

    def __init__(self, dim: int = 1) -> None:
        self.dim = integer(type(self).__name__, "dim", dim, -(2**63))

    def __call__(self, x: Array) -> Array:
        return F.softmax(x, self.dim)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        y = self(x)
        return y, lambda grad_y: F.softmax_backward(grad_y, y, self.dim)

    def _arguments(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Layer):
    """Take the logarithm of `Softmax`, without losing small probabilities.

    Parameters
    ----------
    dim : int
        Axis along which the exponentials of the results sum to 1.

    See Also
    --------
    convcore.functional.log_softmax
    """

    def __init__(self, dim: int = 1) -> None:
        self.dim = integer(type(self).__name__, "dim", dim, -(2**63))

    def __call__(self, x: Array) -> Array:
        return F.log_softmax(x, self.dim)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        y = self(x)
        return y, lambda grad_y: F.log_softmax_backward(grad_y, y, self.dim)

    def _arguments(self) -> str:
        return f"dim={self.dim}"
