"""Convolution and transposed convolution over one, two or three axes."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore import init
from convcore.arguments import Seed, integer
from convcore.functional._convolution import LAYER, forward
from convcore.functional.call import PackedWeight
from convcore.functional.partial_conv import check_border
from convcore.nn.layer import Backward, Layer, changed, frozen
from convcore.nn.weights import Grads, WeightBackward, WeightLayer
from convcore.problem import ConvProblem, Padding, Size
from convcore.problem.rules import ANY_EXTENT, sizes
from convcore.runtime.arrays import Array

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
]


class _Conv(WeightLayer):
    """Slide a kernel over `ndim` axes; arguments as in the functional form."""

    ndim: ClassVar[int]
    _functions: ClassVar[tuple[Callable[..., Array], Callable[..., Any]]]
    _how: ClassVar[tuple[str, ...]] = (
        *("stride", "padding", "dilation", "groups"),
        *("padding_mode", "padding_value"),
    )
    _transposed: ClassVar[bool] = False
    _defaults: ClassVar = {
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
        "padding_mode": "zeros",
        "padding_value": 0,
        "border": None,
        "flip": False,
    }
    border: str | None = None

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
        padding_mode: str = "zeros",
        padding_value: float = 0,
        border: str | None = None,
        flip: bool = False,
        dtype: npt.DTypeLike = np.float32,
        rng: Seed | None = None,
        weight_init: init.Initializer = init.he_uniform,
    ) -> None:
        self._set_channels(in_channels, out_channels, kernel_size, groups)
        self.stride, self.padding = frozen(stride), frozen(padding)
        self.dilation, self.flip = frozen(dilation), flip
        self.padding_mode, self.padding_value = padding_mode, padding_value
        if border is not None:
            check_border(type(self).__name__, border, padding_mode)
            self.border = border
        in_channels, out_channels = self.in_channels, self.out_channels
        groups = self.groups
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        ConvProblem.conv(
            type(self).__name__,
            (0, in_channels, *(ANY_EXTENT,) * self.ndim),
            shape,
            stride,
            padding,
            dilation,
            groups,
            padding_mode,
            padding_value,
        )
        self._set_weights(
            shape, out_channels, bias, dtype, rng, weight_init, groups=groups
        )

    def _set_channels(
        self, in_channels: int, out_channels: int, kernel_size: Size, groups: int
    ) -> None:
        """Check what makes the shape of the weight."""
        name = type(self).__name__
        self.in_channels = integer(name, "in_channels", in_channels, 1)
        self.out_channels = integer(name, "out_channels", out_channels, 1)
        self.groups = integer(name, "groups", groups, 1)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"{name}: groups must divide in_channels and out_channels, got groups "
                f"{groups}, channels {in_channels} and {out_channels}"
            )
        self.kernel_size = sizes(name, "kernel_size", kernel_size, self.ndim)

    @property
    def _geometry(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._defaults}

    def __call__(self, x: Array) -> Array:
        return self._infer(x, None)

    def _infer(self, x: Array, activation: str | None) -> Array:
        """Compute the output for inference, with an activation or without."""
        kept = self._kept()
        bias = None if self.bias is None else self.bias.read()
        if self.border is not None:
            return self._functions[0](x, self._seen(kept), bias, **self._geometry)
        how = (*(getattr(self, name) for name in self._how), activation, LAYER)
        return forward(
            self._functions[0].__name__,
            self.ndim,
            (x, self._seen(kept), bias, None),
            how,
            self.flip,
            self._transposed,
            kept,
        )

    def _seen(self, kept: PackedWeight | None) -> Array:
        """Give the weights that inference sees."""
        return self.weight.read()

    def forward(self, x: Array) -> tuple[Array, Backward]:
        conv, conv_backward = self._functions

        def gradients(grad_y: Array, needs: tuple[str, ...]) -> Grads:
            grads: Grads = conv_backward(
                grad_y, x, self.weight.value, **self._geometry, needs=needs
            )
            return grads

        y = conv(x, self.weight.value, self._bias, **self._geometry)
        return y, WeightBackward(self, gradients)

    def _arguments(self) -> str:
        return ", ".join(
            [
                f"{self.in_channels}, {self.out_channels}",
                f"kernel_size={self.kernel_size}",
                *changed(self, **self._defaults),
                *([] if self.bias else ["bias=False"]),
                f"weight={self.weight.value.shape}",
            ]
        )


def rectified(layer: Layer) -> Callable[[Array], Array] | None:
    """Give what computes relu(layer(x)) in one pass, if the layer can do that."""
    if not isinstance(layer, _Conv) or type(layer).__call__ is not _Conv.__call__:
        return None
    if layer._transposed or layer.border is not None:
        return None
    return partial(layer._infer, activation="relu")


class Conv1d(_Conv):
    """Slide a kernel over one axis: `Conv2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.conv1d, F.conv1d_backward


class Conv2d(_Conv):
    """Slide a kernel over two axes.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of x and of y; `groups` divides both.
    kernel_size, stride, dilation : int or one int per axis
        Extents of the kernel; steps between outputs; steps between taps.
    padding : int, one int or (lo, hi) pair per axis, "valid", "same" or "full"
        Elements around x; `Conv1d` also takes "causal".
    padding_mode, padding_value : str, float
        What lies there: "zeros", "constant", "reflect", "symmetric", "replicate" or
        "circular"; as in the functional form.
    border : "renormalise", optional
        Scale what windows at the border sum by all taps over those on x: as
        `PartialConv2d`, with an argument.
    groups : int
        Channels are cut into so many groups, each convolved by itself.
    bias : bool
        Whether to add a bias.
    flip : bool
        Whether to turn the kernel around, as convolution in mathematics does.
    dtype : float32 or float64
        Of the parameters, and of what the layer takes.
    rng : numpy.random.Generator or int, optional
        Source of the first weights; see `convcore.nn` for the default.
    weight_init : init.Initializer
        Draws the weights; biases start at 0.

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
    convcore.functional.conv2d

    Notes
    -----
    In inference the layer keeps its weights packed, a second copy of them, until they may
    have changed: after `weight.value` was set or looked at, and while anybody holds that
    array. `forward`, for training, keeps nothing.

    Examples
    --------
    >>> layer = Conv2d(3, 8, 3, padding=1)
    >>> layer
    Conv2d(3, 8, kernel_size=(3, 3), padding=1, weight=(8, 3, 3, 3))
    >>> layer(np.ones((5, 3, 32, 32), np.float32)).shape
    (5, 8, 32, 32)
    """

    ndim = 2
    _functions = F.conv2d, F.conv2d_backward


class Conv3d(_Conv):
    """Slide a kernel over three axes: `Conv2d` for (N, C, D, H, W) and (C, D, H, W)."""

    ndim = 3
    _functions = F.conv3d, F.conv3d_backward


class _ConvTranspose(_Conv):
    """Spread a kernel over `ndim` axes; arguments as in the functional form."""

    _defaults: ClassVar = {
        **{
            name: value
            for name, value in _Conv._defaults.items()
            if name not in ("padding_value", "border")
        },
        "output_padding": 0,
    }
    _how = (
        *("stride", "padding", "output_padding", "groups", "dilation"),
        "padding_mode",
    )
    _transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        *,
        padding_mode: str = "zeros",
        flip: bool = False,
        dtype: npt.DTypeLike = np.float32,
        rng: Seed | None = None,
        weight_init: init.Initializer = init.he_uniform,
    ) -> None:
        self._set_channels(in_channels, out_channels, kernel_size, groups)
        self.stride, self.padding = frozen(stride), frozen(padding)
        self.output_padding = frozen(output_padding)
        self.dilation, self.flip = frozen(dilation), flip
        self.padding_mode = padding_mode
        in_channels, out_channels = self.in_channels, self.out_channels
        groups = self.groups
        shape = (in_channels, out_channels // groups, *self.kernel_size)
        ConvProblem.transposed(
            type(self).__name__,
            (0, in_channels, *(ANY_EXTENT,) * self.ndim),
            shape,
            stride,
            padding,
            output_padding,
            groups,
            dilation,
            padding_mode,
        )
        self._set_weights(
            shape,
            out_channels,
            bias,
            dtype,
            rng,
            weight_init,
            groups=groups,
            transposed=True,
        )


class ConvTranspose1d(_ConvTranspose):
    """Spread a kernel over one axis: `ConvTranspose2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.conv_transpose1d, F.conv_transpose1d_backward


class ConvTranspose2d(_ConvTranspose):
    """Spread a kernel over two axes: the adjoint of `Conv2d`, which enlarges.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, groups, bias, dilation
        As for `Conv2d`; the padding is that of the convolution, and cuts the output.
    output_padding : int or one int per axis
        Elements that no window reaches, added at the end of each axis; below the stride
        or the dilation.
    padding_mode, flip, dtype, rng, weight_init
        As for `Conv2d`; a border that is constant has no transpose.

    Attributes
    ----------
    weight : Parameter, (in_channels, out_channels / groups, *kernel_size)
    bias : Parameter, (out_channels,), or None

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.conv_transpose2d

    Examples
    --------
    >>> layer = ConvTranspose2d(8, 3, 2, stride=2)
    >>> layer(np.ones((5, 8, 16, 16), np.float32)).shape
    (5, 3, 32, 32)
    """

    ndim = 2
    _functions = F.conv_transpose2d, F.conv_transpose2d_backward


class ConvTranspose3d(_ConvTranspose):
    """Spread a kernel over three axes: `ConvTranspose2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.conv_transpose3d, F.conv_transpose3d_backward
