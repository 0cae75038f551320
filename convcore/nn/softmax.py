"""Softmax and its logarithm, along one axis."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

from convcore import functional as F
from convcore.arguments import integer
from convcore.nn.layer import Backward, Layer
from convcore.runtime.arrays import Array

__all__ = ["LogSoftmax", "Softmax"]


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
