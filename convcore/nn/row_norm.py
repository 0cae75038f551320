"""Normalisations of each sample by itself: layer, RMS, group, instance, local response."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore import init
from convcore.arguments import boolean, integer, real
from convcore.functional._checks import share
from convcore.functional.group_norm import (
    group_gradients,
    group_normalised,
    instance_normalised,
)
from convcore.functional.layer_norm import (
    extents,
    layer_gradients,
    layer_normalised,
    rms_gradients,
    rms_normalised,
)
from convcore.nn.layer import Backward, Layer, changed, given
from convcore.nn.parameter import Parameter
from convcore.runtime.arrays import Array

__all__ = [
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "RMSNorm",
]


class _Affine(Layer):
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


class LayerNorm(_Affine):
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


class RMSNorm(_Affine):
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


class GroupNorm(_Affine):
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


class _InstanceNorm(_Affine):
    """Normalise channels: by each sample, or in inference by what was seen, if kept."""

    ndim: ClassVar[int]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        name = type(self).__name__
        self.num_features = integer(name, "num_features", num_features, 1)
        self.eps = real(name, "eps", eps, least=0)
        self.momentum = share(name, "momentum", momentum)
        self.affine = boolean(name, "affine", affine)
        track = boolean(name, "track_running_stats", track_running_stats)
        self.track_running_stats = track
        ones = self._set_affine((self.num_features,), affine, affine, dtype)
        self.running_mean = np.zeros_like(ones) if track else None
        self.running_var = ones if track else None
        if track:
            self.num_batches_tracked = np.array(0, np.int64)

    def __call__(self, x: Array) -> Array:
        whole = self._whole(x)
        y = F.instance_norm(
            whole,
            self.running_mean,
            self.running_var,
            *self._pair,
            use_input_stats=not self.track_running_stats,
            eps=self.eps,
        )
        return y.reshape(np.shape(x))

    def forward(self, x: Array) -> tuple[Array, Backward]:
        whole, shape = self._whole(x), np.shape(x)
        running = self.running_mean, self.running_var
        y, statistics = instance_normalised(
            "instance_norm", whole, running, self._pair, self.momentum, self.eps
        )

        def backward(grad_y: Array) -> Array:
            if np.shape(grad_y) == shape:
                grad_y = grad_y.reshape(whole.shape)
            name, arrays = "instance_norm_backward", (grad_y, whole)
            grad_x, *grads = group_gradients(
                name, arrays, None, self._weight, self.eps, self._needs, statistics
            )
            self._add_grads(*grads)
            return given(grad_x).reshape(shape)

        return y.reshape(shape), backward

    def _whole(self, x: Any) -> Array:
        """Give x with a batch axis, and the right number of channels."""
        shape = np.shape(x)
        whole: Array = x[None] if len(shape) == self.ndim + 1 else x
        if np.ndim(whole) != self.ndim + 2 or whole.shape[1] != self.num_features:
            raise ValueError(
                f"{type(self).__name__}: x must have {self.ndim + 2} axes, or "
                f"{self.ndim + 1} without a batch, and {self.num_features} channels, "
                f"got shape {shape}"
            )
        return whole

    def _reset(self, rng: np.random.Generator) -> None:
        super()._reset(rng)
        for statistics, start in ((self.running_mean, 0), (self.running_var, 1)):
            if statistics is not None:
                statistics.fill(start)

    def _arguments(self) -> str:
        options = changed(
            self, eps=1e-5, momentum=0.1, affine=False, track_running_stats=False
        )
        return ", ".join([str(self.num_features), *options])


class InstanceNorm1d(_InstanceNorm):
    """Normalise each channel of each (C, W), as `InstanceNorm2d` does."""

    ndim = 1


class InstanceNorm2d(_InstanceNorm):
    """Normalise each channel of each sample to mean 0 and variance 1.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance; at least 0.
    momentum : float
        Share of a new batch in the running statistics.
    affine : bool
        Whether to learn a scale and a shift of each channel.
    track_running_stats : bool
        Whether `forward` keeps running statistics, which `layer(x)` then uses; without,
        both use those of each sample.
    dtype : float32 or float64
        Of the parameters and statistics, and of what the layer takes.

    Attributes
    ----------
    weight, bias : Parameter, (num_features,), or None
    running_mean, running_var : (num_features,) ndarray, or None
    num_batches_tracked : () int64 ndarray
        Only with running statistics, and always 0, as in torch.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.instance_norm

    Examples
    --------
    >>> layer = InstanceNorm2d(3)
    >>> layer(np.ones((5, 3, 8, 8), np.float32)).shape
    (5, 3, 8, 8)
    """

    ndim = 2


class InstanceNorm3d(_InstanceNorm):
    """Normalise each channel of each (C, D, H, W), as `InstanceNorm2d` does."""

    ndim = 3


class LocalResponseNorm(Layer):
    """Divide each channel by a power of the sum of squares of its neighbours.

    Parameters
    ----------
    size : int
        Channels of a window.
    alpha, beta, k : float
        As in `convcore.functional.local_response_norm`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.local_response_norm

    Examples
    --------
    >>> layer = LocalResponseNorm(5, k=2.0)
    >>> layer(np.ones((5, 3, 8, 8), np.float32)).shape
    (5, 3, 8, 8)
    """

    def __init__(
        self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
    ) -> None:
        name = type(self).__name__
        self.size = integer(name, "size", size, 1)
        self.alpha = real(name, "alpha", alpha)
        self.beta = real(name, "beta", beta)
        self.k = real(name, "k", k)

    def __call__(self, x: Array) -> Array:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        how = self.size, self.alpha, self.beta, self.k

        def backward(grad_y: Array) -> Array:
            return F.local_response_norm_backward(grad_y, x, *how)

        return F.local_response_norm(x, *how), backward

    def _arguments(self) -> str:
        options = changed(self, alpha=1e-4, beta=0.75, k=1.0)
        return ", ".join([str(self.size), *options])
