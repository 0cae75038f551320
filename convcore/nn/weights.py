"""What layers with a weight and a bias share: first values, the backward pass."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from convcore import init
from convcore.arguments import Seed, boolean, generator, shown
from convcore.functional.call import PackedWeight
from convcore.nn.layer import Layer, given
from convcore.nn.parameter import Parameter
from convcore.runtime.arrays import Array

__all__ = ["WeightBackward", "WeightLayer", "default_generator", "initializer"]


Grads = tuple[Array | None, Array | None, Array | None]


def initializer(layer: str, weight_init: init.Initializer) -> init.Initializer:
    """Give what draws weights, if it can be called."""
    if not callable(weight_init):
        raise TypeError(
            f"{layer}: weight_init must be a function like those of convcore.init, got "
            f"{shown(weight_init)}"
        )
    return weight_init


class WeightLayer(Layer):
    """Hold a weight that is drawn at random, and a bias that starts at 0.

    Attributes
    ----------
    weight : Parameter
    bias : Parameter or None
    """

    weight: Parameter
    bias: Parameter | None

    def _set_weights(
        self,
        shape: tuple[int, ...],
        outputs: int,
        bias: bool,
        dtype: npt.DTypeLike,
        rng: Seed | None,
        weight_init: init.Initializer,
        *,
        groups: int = 1,
        transposed: bool = False,
    ) -> None:
        """Make the parameters; what `_reset` needs to draw them again is kept."""
        boolean(type(self).__name__, "bias", bias)
        draws = initializer(type(self).__name__, weight_init)
        self._draw = draws, groups, transposed
        draw = default_generator(self, shape) if rng is None else rng
        weight = self._drawn(shape, generator(type(self).__name__, draw), dtype)
        self.weight = Parameter(weight, "weight")
        zeros = init.constant((outputs,), 0.0, dtype=weight.dtype)
        self.bias = Parameter(zeros, "bias") if bias else None
        self._packed = PackedWeight()

    def _reset(self, rng: np.random.Generator) -> None:
        self.weight.value = self._drawn(
            self.weight.value.shape, rng, self.weight.value.dtype
        )
        if self.bias is not None:
            self.bias.value = np.zeros_like(self.bias.value)

    def _drawn(
        self, shape: tuple[int, ...], rng: np.random.Generator, dtype: npt.DTypeLike
    ) -> Array:
        weight_init, groups, transposed = self._draw
        return weight_init(
            shape, rng, groups=groups, transposed=transposed, dtype=dtype
        )

    @property
    def _bias(self) -> Array | None:
        return None if self.bias is None else self.bias.value

    def _kept(self) -> PackedWeight | None:
        """Give room for the packed weight; None if nobody can tell when it changes."""
        state = self.weight.state()
        if state is None:
            return None
        self._packed.renew(state)
        return self._packed

    def _learned(self) -> tuple[str, ...]:
        """Name the gradients of the parameters."""
        return ("weight",) if self.bias is None else ("weight", "bias")

    def _add_grads(self, grad_weight: Array | None, grad_bias: Array | None) -> None:
        """Add what a backward pass gave to the parameters."""
        if grad_weight is not None:
            self.weight.add_grad(grad_weight)
        if self.bias is not None and grad_bias is not None:
            self.bias.add_grad(grad_bias)


def default_generator(layer: Layer, shape: tuple[int, ...] = ()) -> np.random.Generator:
    """Give a generator seeded by the class and the shape: no state is shared.

    The text itself is the seed, as bytes, so that every process and version draws the
    same values.
    """
    return np.random.default_rng(list(f"{type(layer).__name__}{shape}".encode()))


class WeightBackward:
    """The backward pass of a layer with a weight; the gradient of x is left out at will.

    Parameters
    ----------
    layer : WeightLayer
        Whose parameters learn.
    gradients : callable
        Gives the gradients of x, weight and bias from that of y and the names of those
        that are needed.
    """

    __slots__ = ("_gradients", "_layer")

    def __init__(
        self,
        layer: WeightLayer,
        gradients: Callable[[Array, tuple[str, ...]], Grads],
    ) -> None:
        self._layer, self._gradients = layer, gradients

    def __call__(self, grad_y: Array) -> Array:
        """Give the gradient of x, and add to those of the parameters."""
        grad_x, *learned = self._gradients(grad_y, ("x", *self._layer._learned()))
        self._layer._add_grads(*learned)
        return given(grad_x)

    def accumulate(self, grad_y: Array) -> None:
        """Add to the gradients of the parameters alone."""
        _, *learned = self._gradients(grad_y, self._layer._learned())
        self._layer._add_grads(*learned)
