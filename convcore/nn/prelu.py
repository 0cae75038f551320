"""PReLU: a leaky ReLU that learns its slopes."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore.arguments import integer, real
from convcore.init import constant
from convcore.nn.layer import Backward, Layer, changed, given
from convcore.nn.parameter import Parameter
from convcore.runtime.arrays import Array

__all__ = ["PReLU"]


class PReLU(Layer):
    """Multiply what is negative by a slope that is learned.

    Parameters
    ----------
    num_parameters : int
        1, or the number of channels: a slope for each.
    init : float
        First value of the slopes; finite.
    dtype : float32 or float64
        Of the slopes, and of what the layer takes.

    Attributes
    ----------
    weight : Parameter, (num_parameters,)

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.prelu

    Examples
    --------
    >>> layer = PReLU()
    >>> y, backward = layer.forward(np.array([[-4.0, 1.0]], np.float32))
    >>> y, backward(np.ones((1, 2), np.float32))
    (array([[-1.,  1.]], dtype=float32), array([[0.25, 1.  ]], dtype=float32))
    >>> layer.weight.grad
    array([-4.], dtype=float32)
    """

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 0.25,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.num_parameters = integer("PReLU", "num_parameters", num_parameters, 1)
        self.init = real("PReLU", "init", init)
        slopes = constant((self.num_parameters,), self.init, dtype=dtype)
        self.weight = Parameter(slopes, "weight")

    def __call__(self, x: Array) -> Array:
        return F.prelu(x, self.weight.value)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        def backward(grad_y: Array) -> Array:
            grad_x, grad_weight = F.prelu_backward(grad_y, x, self.weight.value)
            self.weight.add_grad(given(grad_weight))
            return given(grad_x)

        return self(x), backward

    def _reset(self, rng: np.random.Generator) -> None:
        self.weight.value = np.full_like(self.weight.value, self.init)

    def _arguments(self) -> str:
        return ", ".join([str(self.num_parameters), *changed(self, init=0.25)])
