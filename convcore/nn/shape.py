"""Layers that only change the shape."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

from convcore import functional as F
from convcore.arguments import integer
from convcore.nn.layer import Backward, Layer, changed
from convcore.runtime.arrays import Array

__all__ = ["Flatten"]


class Flatten(Layer):
    """Join neighbouring axes into one; by default all but the batch.

    Parameters
    ----------
    start_dim, end_dim : int
        First and last axis to join.

    See Also
    --------
    convcore.functional.flatten

    Examples
    --------
    >>> import numpy as np
    >>> Flatten()(np.zeros((2, 3, 4, 5))).shape
    (2, 60)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = integer("Flatten", "start_dim", start_dim, -(2**63))
        self.end_dim = integer("Flatten", "end_dim", end_dim, -(2**63))

    def __call__(self, x: Array) -> Array:
        return F.flatten(x, self.start_dim, self.end_dim)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        y, input_shape = self(x), x.shape
        return y, lambda grad_y: F.flatten_backward(grad_y, input_shape)

    def _arguments(self) -> str:
        return ", ".join(changed(self, start_dim=1, end_dim=-1))
