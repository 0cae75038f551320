"""Instance normalisation: each channel of each sample by itself."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore.arguments import boolean, integer, real
from convcore.functional._checks import share
from convcore.functional.group_norm import (
    group_gradients,
    instance_normalised,
)
from convcore.nn.affine import Affine
from convcore.nn.layer import Backward, changed, given
from convcore.runtime.arrays import Array, checked

__all__ = ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"]


class _InstanceNorm(Affine):
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
            checked(type(self).__name__, "grad_y", grad_y)
            if grad_y.shape == shape:
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
        checked(type(self).__name__, "x", x)
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
