"""Batch normalisation of (N, C, ...), for one, two or three axes."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore import init
from convcore.arguments import boolean, integer, real
from convcore.functional._checks import share
from convcore.functional.norm import trained
from convcore.nn.layer import Backward, Layer, changed, given
from convcore.nn.parameter import Parameter
from convcore.runtime.arrays import Array

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]


class _BatchNorm(Layer):
    """Normalise channels: `forward` by the batch, `layer(x)` by what it has seen."""

    _ranks: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        name = type(self).__name__
        self.num_features = integer(name, "num_features", num_features, 1)
        self.eps = real(name, "eps", eps, least=0)
        self.momentum = momentum
        if momentum is not None:
            share(name, "momentum", momentum)
        self.affine = boolean(name, "affine", affine)
        track_running_stats = boolean(name, "track_running_stats", track_running_stats)
        self.track_running_stats = track_running_stats
        ones = init.constant((self.num_features,), 1.0, dtype=dtype)
        self.weight = Parameter(ones, "weight") if affine else None
        self.bias = Parameter(np.zeros_like(ones), "bias") if affine else None
        self.running_mean: Array | None = None
        self.running_var: Array | None = None
        if track_running_stats:
            self.running_mean = np.zeros_like(ones)
            self.running_var = ones
            self.num_batches_tracked = np.array(0, np.int64)

    def __call__(self, x: Array) -> Array:
        self._check(x)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            *self._affine,
            training=not self.track_running_stats,
            eps=self.eps,
        )

    def forward(self, x: Array) -> tuple[Array, Backward]:
        self._check(x)
        y, (mean, rstd) = trained(
            "batch_norm",
            x,
            (self.running_mean, self.running_var),
            self._affine,
            self._share(),
            self.eps,
        )
        if self.track_running_stats:
            self.num_batches_tracked += 1

        def backward(grad_y: Array) -> Array:
            grad_x, grad_weight, grad_bias = F.batch_norm_backward(
                grad_y,
                x,
                None,
                None,
                self._affine[0],
                training=True,
                eps=self.eps,
                needs=("x", "weight", "bias") if self.affine else ("x",),
                mean=mean,
                rstd=rstd,
            )
            if self.weight is not None:
                self.weight.add_grad(given(grad_weight))
            if self.bias is not None:
                self.bias.add_grad(given(grad_bias))
            return given(grad_x)

        return y, backward

    def _check(self, x: Array) -> None:
        if np.ndim(x) not in self._ranks:
            ranks = " or ".join(str(rank) for rank in self._ranks)
            raise ValueError(
                f"{type(self).__name__}: x must have {ranks} axes, the batch first, "
                f"got shape {np.shape(x)}"
            )

    @property
    def _affine(self) -> tuple[Array | None, Array | None]:
        if self.weight is None or self.bias is None:
            return None, None
        return self.weight.value, self.bias.value

    def _share(self) -> float:
        """Give the momentum; with None, running statistics are plain averages."""
        if self.momentum is not None or not self.track_running_stats:
            return self.momentum or 0.0
        return 1 / (int(self.num_batches_tracked) + 1)

    def _reset(self, rng: np.random.Generator) -> None:
        for parameter, start in ((self.weight, 1), (self.bias, 0)):
            if parameter is not None:
                parameter.value = np.full_like(parameter.value, start)
        for statistics, start in ((self.running_mean, 0), (self.running_var, 1)):
            if statistics is not None:
                statistics.fill(start)
        if self.track_running_stats:
            self.num_batches_tracked.fill(0)

    def _arguments(self) -> str:
        options = changed(
            self, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True
        )
        return ", ".join([str(self.num_features), *options])


class BatchNorm1d(_BatchNorm):
    """Normalise each channel of (N, C) or (N, C, W), as `BatchNorm2d` does."""

    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Normalise each channel to mean 0 and variance 1, then scale and shift it.

    `forward` uses the statistics of the batch, and mixes them into the running ones;
    `layer(x)` uses the running ones. There is no mode to set.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance; at least 0.
    momentum : float or None
        Share of a new batch in the running statistics; with None they are the averages
        over all batches so far.
    affine : bool
        Whether to learn a scale and a shift.
    track_running_stats : bool
        Whether to keep running statistics. Without them `layer(x)`, too, uses those of
        its batch.
    dtype : float32 or float64
        Of the parameters and statistics, and of what the layer takes.

    Attributes
    ----------
    weight, bias : Parameter, (num_features,), or None
    running_mean, running_var : (num_features,) ndarray, or None
        At first 0 and 1.
    num_batches_tracked : () int64 ndarray
        Calls of `forward`; missing without running statistics.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.batch_norm

    Notes
    -----
    Threads that train one layer at once must take turns in `forward`, which updates the
    running statistics.

    Examples
    --------
    >>> layer = BatchNorm2d(3)
    >>> y, backward = layer.forward(np.ones((5, 3, 8, 8), np.float32))
    >>> layer.running_mean
    array([0.1, 0.1, 0.1], dtype=float32)
    """

    _ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Normalise each channel of (N, C, D, H, W), as `BatchNorm2d` does."""

    _ranks = (5,)
