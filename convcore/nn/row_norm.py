"""Normalisations of each sample by itself: layer, RMS and group norm."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore.arguments import boolean, integer, real
from convcore.functional.group_norm import (
    group_gradients,
    group_normalised,
)
from convcore.functional.layer_norm import (
    extents,
    layer_gradients,
    layer_normalised,
    rms_gradients,
    rms_normalised,
)
from convcore.nn.affine import Affine
from convcore.nn.layer import Backward, changed, given
from convcore.runtime.arrays import Array

__all__ = ["GroupNorm", "LayerNorm", "RMSNorm"]


class LayerNorm(Affine):
    """Normalise each sample over its last axes, then scale and shift each element.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Extents of the last axes.
    eps : float
        Added to the variance; at least 0.
    elementwise_affine : bool
        Whether to learn a scale and a shift.
    bias : bool
        Whether to learn a shift, if there is a scale.
    dtype : float32 or float64
        Of the parameters, and of what the layer takes.

    Attributes
    ----------
    weight, bias : Parameter, normalized_shape, or None

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.layer_norm

    Examples
    --------
    >>> layer = LayerNorm(8)
    >>> layer(np.ones((5, 8), np.float32)).shape
    (5, 8)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        name = type(self).__name__
        self.normalized_shape = extents(name, normalized_shape)
        self.eps = real(name, "eps", eps, least=0)
        affine = boolean(name, "elementwise_affine", elementwise_affine)
        self.elementwise_affine = affine
        boolean(name, "bias", bias)
        self._set_affine(self.normalized_shape, affine, affine and bias, dtype)

    def __call__(self, x: Array) -> Array:
        return F.layer_norm(x, self.normalized_shape, *self._pair, eps=self.eps)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        shape, eps = self.normalized_shape, self.eps
        y, statistics = layer_normalised(
            "layer_norm", x, shape, self._pair, eps, None, True
        )

        def backward(grad_y: Array) -> Array:
            name, arrays = "layer_norm_backward", (grad_y, x)
            grad_x, *grads = layer_gradients(
                name, arrays, shape, self._weight, eps, self._needs, statistics
            )
            self._add_grads(*grads)
            return given(grad_x)

        return y, backward

    def _arguments(self) -> str:
        options = changed(self, eps=1e-5, elementwise_affine=True)
        if self.elementwise_affine and self.bias is None:
            options.append("bias=False")
        return ", ".join([str(self.normalized_shape), *options])


class RMSNorm(Affine):
    """Divide each sample by its root mean square over the last axes, then scale it.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Extents of the last axes.
    eps : float, optional
        Added to the mean square; by default the machine epsilon of the dtype.
    elementwise_affine : bool
        Whether to learn a scale.
    dtype : float32 or float64
        Of the parameter, and of what the layer takes.

    Attributes
    ----------
    weight : Parameter, normalized_shape, or None

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.rms_norm

    Examples
    --------
    >>> layer = RMSNorm(2, eps=0.0)
    >>> layer(np.array([[3.0, 3.0]], np.float32))
    array([[1., 1.]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        name = type(self).__name__
        self.normalized_shape = extents(name, normalized_shape)
        self.eps = None if eps is None else real(name, "eps", eps, least=0)
        affine = boolean(name, "elementwise_affine", elementwise_affine)
        self.elementwise_affine = affine
        self._set_affine(self.normalized_shape, affine, False, dtype)

    def __call__(self, x: Array) -> Array:
        return F.rms_norm(x, self.normalized_shape, self._weight, self.eps)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        shape, eps = self.normalized_shape, self.eps
        y, statistics = rms_normalised(
            "rms_norm", x, shape, self._weight, eps, None, True
        )

        def backward(grad_y: Array) -> Array:
            name, arrays = "rms_norm_backward", (grad_y, x)
            grad_x, grad_weight = rms_gradients(
                name, arrays, shape, self._weight, eps, self._needs, statistics
            )
            self._add_grads(grad_weight)
            return given(grad_x)

        return y, backward

    def _arguments(self) -> str:
        options = changed(self, eps=None, elementwise_affine=True)
        return ", ".join([str(self.normalized_shape), *options])


class GroupNorm(Affine):
    """Normalise groups of channels of each sample, then scale and shift each channel.

    Parameters
    ----------
    num_groups, num_channels : int
        Groups into which the channels are cut; divides them.
    eps : float
        Added to the variance; at least 0.
    affine : bool
        Whether to learn a scale and a shift.
    dtype : float32 or float64
        Of the parameters, and of what the layer takes.

    Attributes
    ----------
    weight, bias : Parameter, (num_channels,), or None

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.group_norm

    Examples
    --------
    >>> layer = GroupNorm(2, 8)
    >>> layer(np.ones((5, 8, 4, 4), np.float32)).shape
    (5, 8, 4, 4)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        name = type(self).__name__
        self.num_groups = integer(name, "num_groups", num_groups, 1)
        self.num_channels = integer(name, "num_channels", num_channels, 1)
        if self.num_channels % self.num_groups:
            raise ValueError(
                f"{name}: num_groups must divide num_channels, got {num_groups} and "
                f"{num_channels}"
            )
        self.eps = real(name, "eps", eps, least=0)
        self.affine = boolean(name, "affine", affine)
        self._set_affine((self.num_channels,), affine, affine, dtype)

    def __call__(self, x: Array) -> Array:
        self._check(x)
        return F.group_norm(x, self.num_groups, *self._pair, eps=self.eps)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        self._check(x)
        groups, eps = self.num_groups, self.eps
        y, statistics = group_normalised(
            "group_norm", x, groups, self._pair, eps, None, True
        )

        def backward(grad_y: Array) -> Array:
            name, arrays = "group_norm_backward", (grad_y, x)
            grad_x, *grads = group_gradients(
                name, arrays, groups, self._weight, eps, self._needs, statistics
            )
            self._add_grads(*grads)
            return given(grad_x)

        return y, backward

    def _check(self, x: Array) -> None:
        shape = np.shape(x)
        if len(shape) < 2 or shape[1] != self.num_channels:
            raise ValueError(
                f"GroupNorm: x must have {self.num_channels} channels on its second "
                f"axis, got shape {shape}"
            )

    def _arguments(self) -> str:
        options = changed(self, eps=1e-5, affine=True)
        return ", ".join([f"{self.num_groups}, {self.num_channels}", *options])
