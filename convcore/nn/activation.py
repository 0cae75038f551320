"""Activations that learn nothing, and keep the input or the output for backward."""

from collections.abc import Callable
from typing import Any, ClassVar

from convcore import functional as F
from convcore.arguments import one_of, real, shown
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


class _Activation(Layer):
    """What all of them do: call a function, and keep what its gradient needs.

    Each names the function and its gradient, and its own numbers with their defaults, in
    the order in which both functions take them; its attributes have the same names.
    """

    _function: Callable[..., Array]
    _gradient: Callable[..., Array]
    _defaults: ClassVar[dict[str, Any]] = {}

    def __call__(self, x: Array) -> Array:
        return self._function(x, *self._numbers())

    def _numbers(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._defaults)

    def _backward(self, kept: Array) -> Backward:
        """Give the function that takes the gradient, for the numbers of now."""
        gradient, numbers = self._gradient, self._numbers()
        return lambda grad_y: gradient(grad_y, kept, *numbers)

    def _arguments(self) -> str:
        return ", ".join(changed(self, **self._defaults))


class _OfInput(_Activation):
    """The gradient needs x."""

    def forward(self, x: Array) -> tuple[Array, Backward]:
        return self(x), self._backward(x)


class _OfOutput(_Activation):
    """The gradient needs y, which the next layer keeps anyway."""

    def forward(self, x: Array) -> tuple[Array, Backward]:
        y = self(x)
        return y, self._backward(y)


class ReLU(_OfOutput):
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

    _function = staticmethod(F.relu)
    _gradient = staticmethod(F.relu_backward)


class LeakyReLU(_OfInput):
    """Multiply what is negative by a small slope.

    Parameters
    ----------
    negative_slope : float
        Factor below 0; finite.

    See Also
    --------
    convcore.functional.leaky_relu
    """

    _function = staticmethod(F.leaky_relu)
    _gradient = staticmethod(F.leaky_relu_backward)
    _defaults: ClassVar = {"negative_slope": 0.01}

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = real("LeakyReLU", "negative_slope", negative_slope)


class Sigmoid(_OfOutput):
    """Squeeze into 0..1.

    See Also
    --------
    convcore.functional.sigmoid
    """

    _function = staticmethod(F.sigmoid)
    _gradient = staticmethod(F.sigmoid_backward)


class Tanh(_OfOutput):
    """Squeeze into -1..1.

    See Also
    --------
    convcore.functional.tanh
    """

    _function = staticmethod(F.tanh)
    _gradient = staticmethod(F.tanh_backward)


class ReLU6(_OfOutput):
    """Cut off below 0 and above 6.

    See Also
    --------
    convcore.functional.relu6
    """

    _function = staticmethod(F.relu6)
    _gradient = staticmethod(F.relu6_backward)


class Hardtanh(_OfOutput):
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

    _function = staticmethod(F.hardtanh)
    _gradient = staticmethod(F.hardtanh_backward)
    _defaults: ClassVar = {"min_val": -1.0, "max_val": 1.0}

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        self.min_val = real("Hardtanh", "min_val", min_val)
        self.max_val = real("Hardtanh", "max_val", max_val)
        if not self.min_val < self.max_val:
            raise ValueError(
                f"Hardtanh: max_val must be above min_val {shown(min_val)}, got "
                f"{shown(max_val)}"
            )


class Hardsigmoid(_OfInput):
    """Climb from 0 to 1 between -3 and 3.

    See Also
    --------
    convcore.functional.hardsigmoid
    """

    _function = staticmethod(F.hardsigmoid)
    _gradient = staticmethod(F.hardsigmoid_backward)


class Hardswish(_OfInput):
    """Multiply the input by its `Hardsigmoid`.

    See Also
    --------
    convcore.functional.hardswish
    """

    _function = staticmethod(F.hardswish)
    _gradient = staticmethod(F.hardswish_backward)


class ELU(_OfInput):
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

    _function = staticmethod(F.elu)
    _gradient = staticmethod(F.elu_backward)
    _defaults: ClassVar = {"alpha": 1.0}

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = real("ELU", "alpha", alpha)


class SELU(_OfInput):
    """Scale an `ELU` so that mean and variance go towards 0 and 1.

    See Also
    --------
    convcore.functional.selu
    """

    _function = staticmethod(F.selu)
    _gradient = staticmethod(F.selu_backward)


class GELU(_OfInput):
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

    _function = staticmethod(F.gelu)
    _gradient = staticmethod(F.gelu_backward)
    _defaults: ClassVar = {"approximate": "none"}

    def __init__(self, approximate: F.Approximate = "none") -> None:
        one_of("GELU", "approximate", approximate, ("none", "tanh"))
        self.approximate: F.Approximate = approximate


class SiLU(_OfInput):
    """Multiply the input by its `Sigmoid`.

    See Also
    --------
    convcore.functional.silu
    """

    _function = staticmethod(F.silu)
    _gradient = staticmethod(F.silu_backward)


class Softplus(_OfInput):
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

    _function = staticmethod(F.softplus)
    _gradient = staticmethod(F.softplus_backward)
    _defaults: ClassVar = {"beta": 1.0, "threshold": 20.0}

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = real("Softplus", "beta", beta)
        if self.beta == 0:
            raise ValueError(f"Softplus: beta must not be 0, got {shown(beta)}")
        self.threshold = real("Softplus", "threshold", threshold)
