"""How far normalised values may be off: rounding, followed through the formulas."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests import oracle

Array = oracle.Array

_U64 = 2.0**-53


def along_channels(values: Array, ndim: int) -> Array:
    """Shape one value for each channel for broadcasting over (N, C, ...)."""
    return values.reshape(-1, *(1,) * (ndim - 2))


@dataclass(frozen=True)
class Rows:
    """Values with the statistics that normalise them, on wider numbers.

    Attributes
    ----------
    h, rstd, mean : ndarray
        Normalised values; 1 / deviation and mean, to go with them.
    far : ndarray
        (largest distance between two values) / deviation: sums of values around one of
        them may be off by that many units.
    count, axes : int, tuple
        Values that share statistics; the axes of those.
    u : float
        Unit of rounding of the results.
    """

    h: Array
    rstd: Array
    mean: Array
    far: Array
    count: int
    axes: tuple[int, ...]
    u: float

    @staticmethod
    def of(
        x: Array, axes: tuple[int, ...], eps: float, *, centred: bool = True
    ) -> "Rows":
        """Take the statistics from x, over some axes."""
        wide = x.astype(oracle.wider(x.dtype))
        mean = wide.mean(axis=axes, keepdims=True)
        if not centred:
            mean = np.zeros_like(mean)
        rstd = 1 / np.sqrt(((wide - mean) ** 2).mean(axis=axes, keepdims=True) + eps)
        far = 2 * np.abs(wide - mean).max(axis=axes, keepdims=True) * rstd
        return Rows._of(x, axes, mean, rstd, far)

    @staticmethod
    def known(
        x: Array, axes: tuple[int, ...], mean: Array, var: Array, eps: float
    ) -> "Rows":
        """Use running statistics of the channels."""
        mean, var = (along_channels(v, x.ndim) for v in (mean, var))
        return Rows._of(x, axes, mean, 1 / np.sqrt(var + eps), np.zeros(1))

    @staticmethod
    def _of(
        x: Array, axes: tuple[int, ...], mean: Array, rstd: Array, far: Array
    ) -> "Rows":
        h = (x.astype(oracle.wider(x.dtype)) - mean) * rstd
        count = int(np.prod([x.shape[axis] for axis in axes]))
        return Rows(h, rstd, mean, far, count, axes, float(np.finfo(x.dtype).eps) / 2)

    @property
    def _statistics(self) -> Array:
        """Units by which float64 sums of all values may be off, for one deviation."""
        wrong: Array = _U64 * (self.count / 8 + 16) * (1 + self.far) ** 2
        return wrong

    def allowed(self, y: Array, weight: Any, bias: Any) -> Array:
        """Bound the error of y = h * weight + bias.

        The mean in the type of x, and what it lost by rounding, which is added to the
        bias; five roundings on the way of x - mean, three of the bias, one of y.
        """
        size = np.abs(self.h * weight)
        lost = self.u * np.abs(self.mean * self.rstd * weight)
        off = self._statistics * (size + np.abs(weight))
        bound: Array = self.u * (5 * size + 3 * (np.abs(bias) + lost) + np.abs(y)) + off
        return 1.01 * bound

    def gradients_allowed(
        self, g: Array, weight: Any, training: bool = True
    ) -> tuple[Array, Array, Array]:
        """Bound the errors of the gradients of x, weight and bias.

        Each of the three terms of grad_x is rounded up to five times; they may cancel.
        The weight's are for statistics and weights over the same axes.
        """
        g = np.abs(g.astype(self.h.dtype))
        size, h = g * np.abs(weight), np.abs(self.h)
        terms = size * np.ones_like(h)
        if training:
            terms = size + size.mean(axis=self.axes, keepdims=True)
            terms = terms + h * (size * h).mean(axis=self.axes, keepdims=True)
            terms = terms + h * (size * self.far).mean(axis=self.axes, keepdims=True)
        off = 8 * self.u + 4 * self._statistics
        sums = _U64 * (self.count + 16) + self.u
        grad_x = off * terms * self.rstd
        lost = self._statistics * (1 + h)
        grad_weight = (g * (h * sums + lost)).sum(axis=self.axes) * 4
        grad_bias = (g * sums).sum(axis=self.axes)
        return grad_x, grad_weight, grad_bias
