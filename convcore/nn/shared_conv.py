"""Convolution layers over several maps that have fewer weights than the usual one.

What a layer of k2 filters does with k1 maps of its input has four answers:

    type 1      every filter goes over every map by itself     SharedDepthwiseConv2d
    type 2.1    every filter goes over the sum of all maps     SharedKernelConv2d
    type 2.2    every filter has a kernel for each map         Conv2d
    separable   a kernel for each map, then sums of maps       SeparableConv2d

                 maps of y    weights, of k x k kernels, without biases
    type 1       k1 * k2      k k k2
    type 2.1     k2           k k k2
    type 2.2     k2           k k k1 k2
    separable    k2           k k k1 + k1 k2

After a first layer of 20 filters of 3 x 3 over one map, 50 filters of 5 x 5 have 25 * 50
weights with types 1 and 2.1, together 9 * 20 + 25 * 50 = 1,430; and 25 * 20 * 50 with
type 2.2, together 9 * 20 + 25 * 20 * 50 = 25,180.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore import init
from convcore.arguments import Seed, generator, integer
from convcore.functional.partial_conv import check_border
from convcore.nn.conv import Conv1d, Conv2d, Conv3d, _Conv
from convcore.nn.layer import (
    Backward,
    Layer,
    accumulate,
    changed,
    check_gradient,
    frozen,
)
from convcore.nn.weights import Grads, WeightBackward, WeightLayer, default_generator
from convcore.problem import ConvProblem, Padding, Size
from convcore.problem.rules import ANY_EXTENT, sizes
from convcore.runtime.arrays import Array, batched_shape, checked

__all__ = [
    "SeparableConv1d",
    "SeparableConv2d",
    "SeparableConv3d",
    "SharedDepthwiseConv1d",
    "SharedDepthwiseConv2d",
    "SharedDepthwiseConv3d",
    "SharedKernelConv1d",
    "SharedKernelConv2d",
    "SharedKernelConv3d",
]


_DEFAULTS: dict[str, Any] = {
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "padding_mode": "zeros",
    "padding_value": 0,
    "border": None,
}


class _Shared(WeightLayer):
    """Convolve planes with one bank of filters; what the planes are, the classes say."""

    ndim: ClassVar[int]
    _functions: ClassVar[tuple[Callable[..., Array], Callable[..., Any]]]

    def __init__(
        self,
        in_channels: int,
        filters: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        bias: bool = True,
        *,
        padding_mode: str = "zeros",
        padding_value: float = 0,
        border: str | None = None,
        dtype: npt.DTypeLike = np.float32,
        rng: Seed | None = None,
        weight_init: init.Initializer = init.he_uniform,
    ) -> None:
        name = type(self).__name__
        self.in_channels = integer(name, "in_channels", in_channels, 1)
        self.filters = integer(name, "filters", filters, 1)
        self.kernel_size = sizes(name, "kernel_size", kernel_size, self.ndim)
        self.stride, self.padding = frozen(stride), frozen(padding)
        self.dilation = frozen(dilation)
        self.padding_mode, self.padding_value = padding_mode, padding_value
        self.border = border
        shape = (self.filters, 1, *self.kernel_size)
        any_input = (0, 1, *(ANY_EXTENT,) * self.ndim)
        how = (stride, padding, dilation, 1, padding_mode, padding_value)
        ConvProblem.conv(name, any_input, shape, *how)
        if border is not None:
            check_border(name, border, padding_mode)
        self._set_weights(shape, self.filters, bias, dtype, rng, weight_init)

    def _planes(self, x: Array) -> Array:
        """Turn x into planes of one channel."""
        raise NotImplementedError

    def _maps(self, y: Array, x: Array) -> Array:
        """Turn the filtered planes into y."""
        raise NotImplementedError

    def _planes_backward(self, grad: Array, x: Array) -> Array:
        """Give the gradient of x from that of its planes."""
        raise NotImplementedError

    def _checked(self, x: Array) -> tuple[int, ...]:
        """Check the channels of x; give its shape with a batch."""
        name = type(self).__name__
        checked(name, "x", x)
        shape, _ = batched_shape(name, "x", x.shape, self.ndim)
        if shape[1] != self.in_channels:
            raise ValueError(
                f"{name}: x must have {self.in_channels} channels, got shape {np.shape(x)}"
            )
        return shape

    @property
    def _summed(self) -> int:
        """Channels of x in a plane, and values of a constant border."""
        return 1

    @property
    def _geometry(self) -> dict[str, Any]:
        geometry = {name: getattr(self, name) for name in _DEFAULTS}
        geometry["padding_value"] *= self._summed
        return geometry

    def __call__(self, x: Array) -> Array:
        """Compute y for inference."""
        conv, _ = self._functions
        planes = self._planes(x)
        return self._maps(
            conv(planes, self.weight.value, self._bias, **self._geometry), x
        )

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """Compute y for training, and the function that takes its gradient."""
        conv, conv_backward = self._functions
        planes = self._planes(x)
        y = conv(planes, self.weight.value, self._bias, **self._geometry)
        maps, shape = self._maps(y, x), y.shape
        right = maps.shape

        def gradients(grad_y: Array, needs: tuple[str, ...]) -> Grads:
            check_gradient(type(self).__name__, grad_y, right)
            weight = self.weight.value
            grads = conv_backward(
                grad_y.reshape(shape), planes, weight, **self._geometry, needs=needs
            )
            grad_x = None if grads[0] is None else self._planes_backward(grads[0], x)
            return grad_x, grads[1], grads[2]

        return maps, WeightBackward(self, gradients)

    def _arguments(self) -> str:
        return ", ".join(
            [
                f"{self.in_channels}, filters={self.filters}",
                f"kernel_size={self.kernel_size}",
                *changed(self, **_DEFAULTS),
                *([] if self.bias else ["bias=False"]),
                f"weight={self.weight.value.shape}",
            ]
        )


class _SharedDepthwise(_Shared):
    def _planes(self, x: Array) -> Array:
        """Take channels as samples of their own."""
        n, channels, *space = self._checked(x)
        return x.reshape(n * channels, 1, *space)

    def _maps(self, y: Array, x: Array) -> Array:
        channels = self.in_channels * self.filters
        return y.reshape(*x.shape[: x.ndim - self.ndim - 1], channels, *y.shape[2:])

    def _planes_backward(self, grad: Array, x: Array) -> Array:
        return grad.reshape(x.shape)


class SharedDepthwiseConv1d(_SharedDepthwise):
    """Filter every channel alike: `SharedDepthwiseConv2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.conv1d, F.conv1d_backward


class SharedDepthwiseConv2d(_SharedDepthwise):
    """Apply one bank of filters to every channel by itself ("type 1").

    A depthwise convolution whose kernels are the same for all channels: k1 channels and
    k2 filters give k1 * k2 channels, those of the first channel first.

    Parameters
    ----------
    in_channels : int
        Channels of x, k1.
    filters : int
        k2: how many channels of y are made of each.
    kernel_size, stride, padding, dilation, bias, padding_mode, padding_value, border,
    dtype, rng, weight_init
        As for `Conv2d`.

    Attributes
    ----------
    weight : Parameter, (filters, 1, *kernel_size)
    bias : Parameter, (filters,), or None

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Notes
    -----
    Channels are folded into the batch, which moves nothing: a convolution of one channel.

    Examples
    --------
    >>> layer = SharedDepthwiseConv2d(20, 50, 5, bias=False)
    >>> layer(np.ones((1, 20, 9, 9), np.float32)).shape, layer.parameter_count()
    ((1, 1000, 5, 5), 1250)
    """

    ndim = 2
    _functions = F.conv2d, F.conv2d_backward


class SharedDepthwiseConv3d(_SharedDepthwise):
    """Filter every channel alike: `SharedDepthwiseConv2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.conv3d, F.conv3d_backward


class _SharedKernel(_Shared):
    @property
    def _summed(self) -> int:
        return self.in_channels

    def _planes(self, x: Array) -> Array:
        """Add up the channels: convolution is linear."""
        shape = self._checked(x)
        summed: Array = F.channel_avg_pool(
            x.reshape(shape), self.in_channels, divisor_override=1
        )
        return summed

    def _maps(self, y: Array, x: Array) -> Array:
        return y.reshape(*x.shape[: x.ndim - self.ndim - 1], *y.shape[1:])

    def _planes_backward(self, grad: Array, x: Array) -> Array:
        shape = self._checked(x)
        spread: Array = F.channel_avg_pool_backward(
            grad, shape, self.in_channels, divisor_override=1
        )
        return spread.reshape(x.shape)


class SharedKernelConv1d(_SharedKernel):
    """Filter the sum of the channels: `SharedKernelConv2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.conv1d, F.conv1d_backward


class SharedKernelConv2d(_SharedKernel):
    """Convolve with kernels that all input channels share ("type 2.1").

    Each filter has one plane of weights, which goes over every channel; the results are
    summed. So it is a convolution of the sum of the channels.

    Parameters
    ----------
    in_channels, filters : int
        Channels of x and of y.
    kernel_size, stride, padding, dilation, bias, padding_mode, padding_value, border,
    dtype, rng, weight_init
        As for `Conv2d`; a constant border is one of each channel. Weights are drawn with
        the fan of one channel.

    Attributes
    ----------
    weight : Parameter, (filters, 1, *kernel_size)
    bias : Parameter, (filters,), or None

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Notes
    -----
    The channels are summed first, by which all work but that sum is `in_channels` times
    less than that of `Conv2d`.

    Examples
    --------
    >>> layer = SharedKernelConv2d(20, 50, 5, bias=False)
    >>> layer(np.ones((1, 20, 9, 9), np.float32)).shape, layer.parameter_count()
    ((1, 50, 5, 5), 1250)
    """

    ndim = 2
    _functions = F.conv2d, F.conv2d_backward


class SharedKernelConv3d(_SharedKernel):
    """Filter the sum of the channels: `SharedKernelConv2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.conv3d, F.conv3d_backward


class SeparableBackward:
    """The backward pass of two layers in a row; the gradient of x is left out at will."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: Backward, second: Backward) -> None:
        self._first, self._second = first, second

    def __call__(self, grad_y: Array) -> Array:
        """Give the gradient of x, and add to those of the parameters."""
        return self._first(self._second(grad_y))

    def accumulate(self, grad_y: Array) -> None:
        """Add to the gradients of the parameters alone."""
        accumulate(self._first, self._second(grad_y))


class _Separable(Layer):
    ndim: ClassVar[int]
    _conv: ClassVar[type[_Conv]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        bias: bool = True,
        *,
        padding_mode: str = "zeros",
        padding_value: float = 0,
        border: str | None = None,
        depth_multiplier: int = 1,
        dtype: npt.DTypeLike = np.float32,
        rng: Seed | None = None,
        weight_init: init.Initializer = init.he_uniform,
    ) -> None:
        name = type(self).__name__
        integer(name, "in_channels", in_channels, 1)
        integer(name, "out_channels", out_channels, 1)
        self.depth_multiplier = integer(name, "depth_multiplier", depth_multiplier, 1)
        between = in_channels * depth_multiplier
        kernel = sizes(name, "kernel_size", kernel_size, self.ndim)
        if rng is None:
            draw = default_generator(self, (out_channels, in_channels, *kernel))
        else:
            draw = generator(name, rng)
        how: dict[str, Any] = {"dtype": dtype, "rng": draw, "weight_init": weight_init}
        self.depthwise = self._conv(
            in_channels,
            between,
            kernel,
            stride,
            padding,
            dilation,
            in_channels,
            False,
            padding_mode=padding_mode,
            padding_value=padding_value,
            border=border,
            **how,
        )
        self.pointwise = self._conv(between, out_channels, 1, bias=bias, **how)

    def __call__(self, x: Array) -> Array:
        """Compute y for inference."""
        return self.pointwise(self.depthwise(x))

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """Compute y for training, and the function that takes its gradient."""
        between, first = self.depthwise.forward(x)
        y, second = self.pointwise.forward(between)
        return y, SeparableBackward(first, second)

    def _arguments(self) -> str:
        return f"\n  (depthwise): {self.depthwise}\n  (pointwise): {self.pointwise}\n"


class SeparableConv1d(_Separable):
    """Filter channels, then mix them: `SeparableConv2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _conv = Conv1d


class SeparableConv2d(_Separable):
    """Filter each channel by itself, then mix the channels at every place.

    A depthwise convolution and a pointwise one, of 1 x 1, with nothing in between.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of x and of y.
    kernel_size, stride, padding, dilation, padding_mode, padding_value, border
        As for `Conv2d`, of the depthwise part.
    bias : bool
        Whether the pointwise part adds one; the depthwise part has none, as it would
        only add to that.
    depth_multiplier : int
        Channels that the depthwise part makes of each.
    dtype, rng, weight_init
        As for `Conv2d`.

    Attributes
    ----------
    depthwise : Conv2d, weight (in_channels * depth_multiplier, 1, *kernel_size)
    pointwise : Conv2d, weight (out_channels, in_channels * depth_multiplier, 1, 1)

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    References
    ----------
    Chollet: Xception, CVPR 2017, section 1.2; Howard et al.: MobileNets, 2017, section 3.1.

    Examples
    --------
    >>> layer = SeparableConv2d(20, 50, 5, bias=False)
    >>> layer(np.ones((1, 20, 9, 9), np.float32)).shape, layer.parameter_count()
    ((1, 50, 5, 5), 1500)
    """

    ndim = 2
    _conv = Conv2d


class SeparableConv3d(_Separable):
    """Filter channels, then mix them: `SeparableConv2d` for (N, C, D, H, W)."""

    ndim = 3
    _conv = Conv3d
