"""Convolution layers that count only what is real: at borders, and around holes."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore import init
from convcore.arguments import Seed
from convcore.nn.conv import _Conv
from convcore.nn.layer import Backward
from convcore.nn.weights import Grads, WeightBackward
from convcore.problem import Padding, Size
from convcore.runtime.arrays import Array

__all__ = ["PartialConv1d", "PartialConv2d", "PartialConv3d"]


class _PartialConv(_Conv):
    """Convolve what is real; arguments as for the usual convolution, but no border."""

    _defaults: ClassVar = {
        name: value
        for name, value in _Conv._defaults.items()
        if name not in ("padding_mode", "padding_value", "border")
    }

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        flip: bool = False,
        dtype: npt.DTypeLike = np.float32,
        rng: Seed | None = None,
        weight_init: init.Initializer = init.he_uniform,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            flip=flip,
            dtype=dtype,
            rng=rng,
            weight_init=weight_init,
        )

    def __call__(self, x: Array, mask: Array | None = None) -> Any:
        """Compute y for inference, and with a mask (y, new mask)."""
        conv, _ = self._functions
        return conv(x, self.weight.value, self._bias, **self._geometry, mask=mask)

    def forward(self, x: Array, mask: Array | None = None) -> tuple[Any, Backward]:
        """Compute y, or (y, new mask), for training, and the function of y's gradient."""
        _, conv_backward = self._functions

        def gradients(grad_y: Array, needs: tuple[str, ...]) -> Grads:
            grads: Grads = conv_backward(
                grad_y, x, self.weight.value, **self._geometry, mask=mask, needs=needs
            )
            return grads

        return self(x, mask), WeightBackward(self, gradients)


class PartialConv1d(_PartialConv):
    """Convolve what is real along one axis: `PartialConv2d` for (N, C, W)."""

    ndim = 1
    _functions = F.partial_conv1d, F.partial_conv1d_backward


class PartialConv2d(_PartialConv):
    """Convolve what is real along two axes, and scale each sum up to all taps.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        As for `Conv2d`.
    flip, dtype, rng, weight_init
        As for `Conv2d`.

    Attributes
    ----------
    weight : Parameter, (out_channels, in_channels / groups, *kernel_size)
    bias : Parameter, (out_channels,), or None

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.partial_conv2d

    Notes
    -----
    `layer(x)` counts only padding as missing: an edge of an even picture is as bright as
    its middle. `layer(x, mask)` and `layer.forward(x, mask)` give y with a new mask in
    its place.

    Examples
    --------
    >>> layer = PartialConv2d(3, 8, 3, padding=1)
    >>> x = np.ones((5, 3, 32, 32), np.float32)
    >>> layer(x).shape
    (5, 8, 32, 32)
    >>> y, mask = layer(x, x[:, :1] > 0)
    >>> mask.shape, mask.all().item()
    ((5, 1, 32, 32), True)
    """

    ndim = 2
    _functions = F.partial_conv2d, F.partial_conv2d_backward


class PartialConv3d(_PartialConv):
    """Convolve what is real along three axes: `PartialConv2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.partial_conv3d, F.partial_conv3d_backward
