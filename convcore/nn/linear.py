"""The fully connected layer."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore import init
from convcore.arguments import Seed, integer
from convcore.nn.layer import Backward
from convcore.nn.weights import Grads, WeightBackward, WeightLayer
from convcore.problem import ConvProblem
from convcore.runtime.arrays import Array

__all__ = ["Linear"]


class Linear(WeightLayer):
    """Multiply each row by a matrix, and add a bias.

    Parameters
    ----------
    in_features, out_features : int
        Extents of a row of x and of y; at least 1.
    bias : bool
        Whether to add a bias.
    dtype : float32 or float64
        Of the parameters, and of what the layer takes.
    rng : numpy.random.Generator or int, optional
        Source of the first weights; see `convcore.nn` for the default.
    weight_init : init.Initializer
        Draws the weights; biases start at 0.

    Attributes
    ----------
    weight : Parameter, (out_features, in_features)
    bias : Parameter, (out_features,), or None

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.linear

    Examples
    --------
    >>> layer = Linear(3, 2)
    >>> layer(np.ones((5, 3), np.float32)).shape
    (5, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
        rng: Seed | None = None,
        weight_init: init.Initializer = init.he_uniform,
    ) -> None:
        self.in_features = integer("Linear", "in_features", in_features, 1)
        self.out_features = integer("Linear", "out_features", out_features, 1)
        shape = (self.out_features, self.in_features)
        ConvProblem.conv("Linear", (0, self.in_features, 1), (*shape, 1))
        self._set_weights(shape, self.out_features, bias, dtype, rng, weight_init)

    def __call__(self, x: Array) -> Array:
        return F.linear(x, self.weight.value, self._bias)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        def gradients(grad_y: Array, needs: tuple[str, ...]) -> Grads:
            return F.linear_backward(grad_y, x, self.weight.value, needs)

        return self(x), WeightBackward(self, gradients)

    def _arguments(self) -> str:
        return ", ".join(
            [
                f"{self.in_features}, {self.out_features}",
                *([] if self.bias else ["bias=False"]),
                f"weight={self.weight.value.shape}",
            ]
        )
