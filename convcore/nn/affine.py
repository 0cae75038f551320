"""The scale and the shift of a normalisation."""

import numpy as np
import numpy.typing as npt

from convcore import init
from convcore.nn.layer import Layer, given
from convcore.nn.parameter import Parameter
from convcore.runtime.arrays import Array

__all__ = ["Affine"]


class Affine(Layer):
    """Hold a scale and a shift, either of which may be missing."""

    weight: Parameter | None
    bias: Parameter | None

    def _set_affine(
        self, shape: tuple[int, ...], weight: bool, bias: bool, dtype: npt.DTypeLike
    ) -> Array:
        """Make the parameters; give the ones that the weight starts from."""
        ones = init.constant(shape, 1.0, dtype=dtype)
        self.weight = Parameter(ones, "weight") if weight else None
        self.bias = Parameter(np.zeros_like(ones), "bias") if bias else None
        return ones

    @property
    def _weight(self) -> Array | None:
        return None if self.weight is None else self.weight.value

    @property
    def _pair(self) -> tuple[Array | None, Array | None]:
        return self._weight, None if self.bias is None else self.bias.value

    @property
    def _needs(self) -> tuple[str, ...]:
        names = ("weight", self.weight), ("bias", self.bias)
        return ("x", *(name for name, found in names if found is not None))

    def _add_grads(self, *grads: Array | None) -> None:
        for parameter, grad in zip((self.weight, self.bias), grads, strict=False):
            if parameter is not None:
                parameter.add_grad(given(grad))

    def _reset(self, rng: np.random.Generator) -> None:
        for parameter, start in ((self.weight, 1), (self.bias, 0)):
            if parameter is not None:
                parameter.value = np.full_like(parameter.value, start)
