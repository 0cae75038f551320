"""Pooling that draws while training: fractional windows, stochastic winners."""

from typing import Any, ClassVar

import numpy as np

from convcore import functional as F
from convcore.arguments import Seed, generator
from convcore.functional.fractional_max_pool import output_extents
from convcore.nn._pooling import Pool, WindowPool
from convcore.nn.layer import Backward, changed, frozen
from convcore.problem import Padding, Size
from convcore.problem.rules import ANY_EXTENT
from convcore.runtime.arrays import Array

__all__ = [
    "FractionalMaxPool1d",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "StochasticPool1d",
    "StochasticPool2d",
    "StochasticPool3d",
]

_STILL = 0  # seed of the places in inference


class _FractionalMaxPool(Pool):
    def __init__(
        self,
        kernel_size: Size,
        output_size: Size | None = None,
        output_ratio: float | tuple[float, ...] | None = None,
        *,
        rng: Seed,
    ) -> None:
        name = type(self).__name__
        sizes = (kernel_size, output_size, output_ratio)
        output_extents(name, (ANY_EXTENT,) * self.ndim, sizes)
        self.kernel_size, self.output_size = frozen(kernel_size), frozen(output_size)
        self.output_ratio = output_ratio
        self.rng = generator(name, rng)

    @property
    def _window(self) -> tuple[Any, ...]:
        return self.kernel_size, self.output_size, self.output_ratio

    def __call__(self, x: Array) -> Array:
        pool, _ = self._functions
        y: Array = pool(x, *self._window, rng=_STILL)
        return y

    def forward(self, x: Array) -> tuple[Array, Backward]:
        pool, pool_backward = self._functions
        y, indices = pool(x, *self._window, return_indices=True, rng=self.rng)
        shape = x.shape
        return y, lambda grad_y: pool_backward(grad_y, indices, shape)

    def _reset(self, rng: np.random.Generator) -> None:
        self.rng = np.random.default_rng(rng.integers(2**63, size=2).tolist())

    def _arguments(self) -> str:
        options = changed(self, output_size=None, output_ratio=None)
        return ", ".join([f"kernel_size={self.kernel_size}", *options])


class _StochasticPool(WindowPool):
    _plain = "ignore"
    _defaults: ClassVar[dict[str, Any]] = {
        "stride": None,
        "padding": 0,
        "ceil_mode": False,
    }
    _draw: ClassVar[Any]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        *,
        padding_mode: str = "ignore",
        padding_value: float = 0,
        rng: Seed,
    ) -> None:
        window = (kernel_size, stride, padding, 1, ceil_mode)
        self._set_window(padding_mode, padding_value, *window)
        self.rng = generator(type(self).__name__, rng)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        _, pool_backward = self._functions
        y, indices = type(self)._draw(x, *self._window, rng=self.rng, **self._around)
        shape, mode = x.shape, self.padding_mode
        return y, lambda grad_y: pool_backward(
            grad_y, indices, shape, padding_mode=mode
        )

    def _reset(self, rng: np.random.Generator) -> None:
        self.rng = np.random.default_rng(rng.integers(2**63, size=2).tolist())


class FractionalMaxPool1d(_FractionalMaxPool):
    """Keep maxima of windows that are drawn: `FractionalMaxPool2d` for (N, C, W)."""

    ndim = 1
    _functions = F.fractional_max_pool1d, F.fractional_max_pool1d_backward


class FractionalMaxPool2d(_FractionalMaxPool):
    """Keep maxima of windows whose places are drawn in `forward`.

    Parameters
    ----------
    kernel_size : int or one int per axis
        Extents of a window.
    output_size : int or one int per axis, optional
        Windows along each axis.
    output_ratio : float or one float per axis, optional
        Windows for each element of an axis; in place of `output_size`.
    rng : numpy.random.Generator or int
        Source of the places in `forward`. Those of `layer(x)` are always the same.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.fractional_max_pool2d

    Examples
    --------
    >>> layer = FractionalMaxPool2d(2, output_ratio=0.7, rng=0)
    >>> layer(np.ones((5, 3, 32, 30), np.float32)).shape
    (5, 3, 22, 21)
    """

    ndim = 2
    _functions = F.fractional_max_pool2d, F.fractional_max_pool2d_backward


class FractionalMaxPool3d(_FractionalMaxPool):
    """Keep maxima of windows that are drawn: `FractionalMaxPool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.fractional_max_pool3d, F.fractional_max_pool3d_backward


class StochasticPool1d(_StochasticPool):
    """Draw an element of each window: `StochasticPool2d` for (N, C, W)."""

    ndim = 1
    _functions = F.stochastic_pool1d_mean, F.stochastic_pool1d_backward
    _draw = F.stochastic_pool1d


class StochasticPool2d(_StochasticPool):
    """Draw an element of each window in `forward`; take their mean in `layer(x)`.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode, padding_mode, padding_value
        As in `MaxPool2d`.
    rng : numpy.random.Generator or int
        Source of the draws.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.stochastic_pool2d, convcore.functional.stochastic_pool2d_mean

    Examples
    --------
    >>> StochasticPool2d(2, rng=0)(np.array([[[[1.0, 3.0], [0.0, -9.0]]]]))
    array([[[[2.5]]]])
    """

    ndim = 2
    _functions = F.stochastic_pool2d_mean, F.stochastic_pool2d_backward
    _draw = F.stochastic_pool2d


class StochasticPool3d(_StochasticPool):
    """Draw an element of each window: `StochasticPool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.stochastic_pool3d_mean, F.stochastic_pool3d_backward
    _draw = F.stochastic_pool3d
