"""Locally connected layers: convolutions with weights of their own at every place."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore import init
from convcore.arguments import Seed, boolean, generator, integer
from convcore.nn.layer import Backward, changed, frozen
from convcore.nn.parameter import Parameter
from convcore.nn.weights import (
    Grads,
    WeightBackward,
    WeightLayer,
    default_generator,
    initializer,
)
from convcore.problem import ConvProblem, Padding, Size
from convcore.problem.rules import sizes
from convcore.runtime.arrays import Array

__all__ = ["LocallyConnected1d", "LocallyConnected2d"]


_DEFAULTS: dict[str, Any] = {
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "padding_mode": "zeros",
    "padding_value": 0,
}


class _LocallyConnected(WeightLayer):
    ndim: ClassVar[int]
    _functions: ClassVar[tuple[Callable[..., Array], Callable[..., Any]]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_size: Size,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        bias: bool = True,
        *,
        padding_mode: str = "zeros",
        padding_value: float = 0,
        dtype: npt.DTypeLike = np.float32,
        rng: Seed | None = None,
        weight_init: init.Initializer = init.he_uniform,
    ) -> None:
        name = type(self).__name__
        self.in_channels = integer(name, "in_channels", in_channels, 1)
        self.out_channels = integer(name, "out_channels", out_channels, 1)
        self.input_size = sizes(name, "input_size", input_size, self.ndim)
        self.kernel_size = sizes(name, "kernel_size", kernel_size, self.ndim)
        self.stride, self.padding = frozen(stride), frozen(padding)
        self.dilation = frozen(dilation)
        self.padding_mode, self.padding_value = padding_mode, padding_value
        problem = ConvProblem.conv(
            name,
            (0, self.in_channels, *self.input_size),
            (self.out_channels, self.in_channels, *self.kernel_size),
            stride,
            padding,
            dilation,
            1,
            padding_mode,
            padding_value,
        )
        boolean(name, "bias", bias)
        self.output_size = problem.y_shape[2:]
        shape = self._weight_shape
        self._draw = initializer(name, weight_init), 1, False
        draw = default_generator(self, shape) if rng is None else rng
        weight = self._drawn(shape, generator(name, draw), dtype)
        self.weight = Parameter(weight, "weight")
        zeros = init.constant(
            (self.out_channels, *self.output_size), 0.0, dtype=weight.dtype
        )
        self.bias = Parameter(zeros, "bias") if bias else None

    @property
    def _weight_shape(self) -> tuple[int, ...]:
        *rows, columns = self.output_size
        *taps, width = self.kernel_size
        return (*rows, *taps, self.in_channels, self.out_channels, width, columns)

    def _drawn(
        self, shape: tuple[int, ...], rng: np.random.Generator, dtype: npt.DTypeLike
    ) -> Array:
        """Draw each unit's kernel as a convolution's: with the fans of its own."""
        places = (*self.output_size, self.out_channels)
        shared = (int(np.prod(places)), self.in_channels, *self.kernel_size)
        drawn = super()._drawn(shared, rng, dtype)
        drawn = drawn.reshape(*places, self.in_channels, *self.kernel_size)
        order = (0, 4, 3, 2, 5, 1) if self.ndim == 2 else (2, 1, 3, 0)
        return np.ascontiguousarray(drawn.transpose(order))

    @property
    def _geometry(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _DEFAULTS}

    def __call__(self, x: Array) -> Array:
        local, _ = self._functions
        return local(x, self.weight.value, self._bias, **self._geometry)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        _, local_backward = self._functions

        def gradients(grad_y: Array, needs: tuple[str, ...]) -> Grads:
            grads: Grads = local_backward(
                grad_y, x, self.weight.value, **self._geometry, needs=needs
            )
            return grads

        return self(x), WeightBackward(self, gradients)

    def _arguments(self) -> str:
        return ", ".join(
            [
                f"{self.in_channels}, {self.out_channels}",
                f"input_size={self.input_size}",
                f"kernel_size={self.kernel_size}",
                *changed(self, **_DEFAULTS),
                *([] if self.bias else ["bias=False"]),
                f"weight={self.weight.value.shape}",
            ]
        )


class LocallyConnected1d(_LocallyConnected):
    """Apply a kernel of its own to every window: `LocallyConnected2d` for (N, C, W)."""

    ndim = 1
    _functions = F.locally_connected1d, F.locally_connected1d_backward


class LocallyConnected2d(_LocallyConnected):
    """Apply a kernel of its own to every window along two axes.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of x and of y.
    input_size : int or one int per axis
        Extents of x: weights are not shared, so the layer has them for one size.
    kernel_size, stride, padding, dilation, padding_mode, padding_value
        As for `Conv2d`.
    bias : bool
        Whether to add a bias, one for each output.
    dtype, rng, weight_init
        As for `Conv2d`; each kernel is drawn with the fans of its own.

    Attributes
    ----------
    weight : Parameter, (OH, KH, in_channels, out_channels, KW, OW)
        Axes in the order in which they are read; in one dimension (in, out, KW, OW).
    bias : Parameter, (out_channels, OH, OW), or None
    output_size : (OH, OW)

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.locally_connected2d

    Examples
    --------
    >>> layer = LocallyConnected2d(3, 8, 12, 3)
    >>> layer(np.ones((5, 3, 12, 12), np.float32)).shape
    (5, 8, 10, 10)
    >>> layer.parameter_count() == 10 * 10 * 8 * (3 * 3 * 3 + 1)
    True
    """

    ndim = 2
    _functions = F.locally_connected2d, F.locally_connected2d_backward
