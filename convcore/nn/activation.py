"""Activations that learn nothing, and keep the input or the output for backward."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

from convcore import functional as F
from convcore.arguments import real
from convcore.nn.layer import Backward, Layer, changed
from convcore.runtime.arrays import Array

__all__ = [
    "ELU",
    "GELU",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
]


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


class ReLU6(Layer):
    """Cut off below 0 and above 6.

    See Also
    --------
    convcore.functional.relu6
    """

    def __call__(self, x: Array) -> Array:
        return F.relu6(x)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        y = self(x)
        return y, lambda grad_y: F.relu6_backward(grad_y, y)


class Hardtanh(Layer):
    """Cut off below `min_val` and above `max_val`.

    Parameters
    ----------
    min_val : float
        Least value; finite.
    max_val : float
        Largest value, above `min_val`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.hardtanh
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        self.min_val = real("Hardtanh", "min_val", min_val)
        self.max_val = real("Hardtanh", "max_val", max_val)
        if not self.min_val < self.max_val:
            raise ValueError(
                f"Hardtanh: max_val must be above min_val {min_val!r}, got {max_val!r}"
            )

    def __call__(self, x: Array) -> Array:
        return F.hardtanh(x, self.min_val, self.max_val)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        y = self(x)
        return y, lambda grad_y: F.hardtanh_backward(
            grad_y, y, self.min_val, self.max_val
        )

    def _arguments(self) -> str:
        return ", ".join(changed(self, min_val=-1.0, max_val=1.0))


class Hardsigmoid(Layer):
    """Climb from 0 to 1 between -3 and 3.

    See Also
    --------
    convcore.functional.hardsigmoid
    """

    def __call__(self, x: Array) -> Array:
        return F.hardsigmoid(x)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        return self(x), lambda grad_y: F.hardsigmoid_backward(grad_y, x)


class Hardswish(Layer):
    """Multiply the input by its `Hardsigmoid`.

    See Also
    --------
    convcore.functional.hardswish
    """

    def __call__(self, x: Array) -> Array:
        return F.hardswish(x)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        return self(x), lambda grad_y: F.hardswish_backward(grad_y, x)


class ELU(Layer):
    """Bend what is negative towards -alpha.

    Parameters
    ----------
    alpha : float
        Factor of the exponential; finite.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.elu
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = real("ELU", "alpha", alpha)

    def __call__(self, x: Array) -> Array:
        return F.elu(x, self.alpha)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        return self(x), lambda grad_y: F.elu_backward(grad_y, x, self.alpha)

    def _arguments(self) -> str:
        return ", ".join(changed(self, alpha=1.0))


class SELU(Layer):
    """Scale an `ELU` so that mean and variance go towards 0 and 1.

    See Also
    --------
    convcore.functional.selu
    """

    def __call__(self, x: Array) -> Array:
        return F.selu(x)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        return self(x), lambda grad_y: F.selu_backward(grad_y, x)


class GELU(Layer):
    """Multiply the input by the share of a normal distribution below it.

    Parameters
    ----------
    approximate : "none" or "tanh"
        How that share is computed: exactly, or by a tanh.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.gelu
    """

    def __init__(self, approximate: F.Approximate = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(
                f'GELU: approximate must be "none" or "tanh", got {approximate!r}'
            )
        self.approximate: F.Approximate = approximate

    def __call__(self, x: Array) -> Array:
        return F.gelu(x, self.approximate)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        return self(x), lambda grad_y: F.gelu_backward(grad_y, x, self.approximate)

    def _arguments(self) -> str:
        return ", ".join(changed(self, approximate="none"))


class SiLU(Layer):
    """Multiply the input by its `Sigmoid`.

    See Also
    --------
    convcore.functional.silu
    """

    def __call__(self, x: Array) -> Array:
        return F.silu(x)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        return self(x), lambda grad_y: F.silu_backward(grad_y, x)


class Softplus(Layer):
    """Smooth a `ReLU`: log(1 + exp(beta * x)) / beta.

    Parameters
    ----------
    beta : float
        Sharpness of the bend; finite, not 0.
    threshold : float
        Where beta * x is above it, the result is x.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.softplus
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = real("Softplus", "beta", beta)
        if self.beta == 0:
            raise ValueError(f"Softplus: beta must not be 0, got {beta!r}")
        self.threshold = real("Softplus", "threshold", threshold)

    def __call__(self, x: Array) -> Array:
        return F.softplus(x, self.beta, self.threshold)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        return self(x), lambda grad_y: F.softplus_backward(
            grad_y, x, self.beta, self.threshold
        )

    def _arguments(self) -> str:
        return ", ".join(changed(self, beta=1.0, threshold=20.0))
