"""What layers with a weight and a bias share: their first values."""

import numpy as np
import numpy.typing as npt

from convcore import init
from convcore.arguments import Seed, boolean, generator
from convcore.functional.call import PackedWeight
from convcore.nn.layer import Layer
from convcore.nn.parameter import Parameter
from convcore.runtime.arrays import Array

__all__ = ["WeightLayer", "default_generator"]


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
        self._draw = weight_init, groups, transposed
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

    @property
    def _needs(self) -> tuple[str, ...]:
        """Gradients that a backward pass takes."""
        return ("x", "weight") if self.bias is None else ("x", "weight", "bias")

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
