"""Lp pooling, sum pooling, blur pooling, and pooling over feature maps."""

from typing import Any, ClassVar

import numpy as np

from convcore import functional as F
from convcore.functional._lp_pooling import check_power
from convcore.nn._pooling import Pool, WindowPool
from convcore.nn.layer import Backward, Layer, changed, frozen
from convcore.problem import Padding, Size
from convcore.problem.rules import ANY_EXTENT
from convcore.runtime.arrays import Array

__all__ = [
    "BlurPool1d",
    "BlurPool2d",
    "BlurPool3d",
    "ChannelAvgPool",
    "GlobalLPPool1d",
    "GlobalLPPool2d",
    "GlobalLPPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "SumPool1d",
    "SumPool2d",
    "SumPool3d",
]


class _SumPool(WindowPool):
    _defaults: ClassVar[dict[str, Any]] = {
        "stride": None,
        "padding": 0,
        "ceil_mode": False,
    }

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        *,
        padding_mode: str = "zeros",
        padding_value: float = 0,
    ) -> None:
        window = (kernel_size, stride, padding, 1, ceil_mode)
        self._set_window(padding_mode, padding_value, *window)


class SumPool1d(_SumPool):
    """Take the sum of each window: `SumPool2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.sum_pool1d, F.sum_pool1d_backward


class SumPool2d(_SumPool):
    """Take the sum of each window.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode, padding_mode, padding_value
        As for `AvgPool2d`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.sum_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> SumPool2d(2)(np.ones((5, 3, 32, 32))).max().item()
    4.0
    """

    ndim = 2
    _functions = F.sum_pool2d, F.sum_pool2d_backward


class SumPool3d(_SumPool):
    """Take the sum of each window: `SumPool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.sum_pool3d, F.sum_pool3d_backward


class _LPPool(WindowPool):
    _defaults: ClassVar[dict[str, Any]] = {
        "stride": None,
        "ceil_mode": False,
        "padding": 0,
    }

    def __init__(
        self,
        norm_type: float,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
        *,
        padding: Padding = 0,
        padding_mode: str = "zeros",
        padding_value: float = 0,
    ) -> None:
        check_power(type(self).__name__, norm_type)
        self.norm_type = norm_type
        window = (kernel_size, stride, padding, 1, ceil_mode)
        self._set_window(padding_mode, padding_value, *window)

    @property
    def _window(self) -> tuple[Any, ...]:
        return (self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def __call__(self, x: Array) -> Array:
        pool, _ = self._functions
        y: Array = pool(x, *self._window, padding=self.padding, **self._around)
        return y

    def forward(self, x: Array) -> tuple[Array, Backward]:
        _, pool_backward = self._functions
        y = self(x)
        return y, lambda grad_y: pool_backward(
            grad_y, x, y, *self._window, padding=self.padding, **self._around
        )

    def _arguments(self) -> str:
        return f"norm_type={self.norm_type}, {super()._arguments()}"


class LPPool1d(_LPPool):
    """Take the p-norm of each window: `LPPool2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.lp_pool1d, F.lp_pool1d_backward


class LPPool2d(_LPPool):
    """Take the p-norm of each window.

    Parameters
    ----------
    norm_type : float, > 0
        p, which may be infinite.
    kernel_size, stride, ceil_mode, padding
        As for `MaxPool2d`.
    padding_mode, padding_value : str, float
        What lies around x, as for `Conv2d`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.lp_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> LPPool2d(2, 2)(np.ones((5, 3, 32, 32))).max().item()
    2.0
    """

    ndim = 2
    _functions = F.lp_pool2d, F.lp_pool2d_backward


class LPPool3d(_LPPool):
    """Take the p-norm of each window: `LPPool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.lp_pool3d, F.lp_pool3d_backward


class _GlobalLPPool(Pool):
    def __init__(self, norm_type: float) -> None:
        check_power(type(self).__name__, norm_type)
        self.norm_type = norm_type

    @property
    def _window(self) -> tuple[Any, ...]:
        return (self.norm_type,)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        _, pool_backward = self._functions
        y = self(x)
        return y, lambda grad_y: pool_backward(grad_y, x, y, self.norm_type)

    def _arguments(self) -> str:
        return f"norm_type={self.norm_type}"


class GlobalLPPool1d(_GlobalLPPool):
    """Take the p-norm of each channel: `GlobalLPPool2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.global_lp_pool1d, F.global_lp_pool1d_backward


class GlobalLPPool2d(_GlobalLPPool):
    """Take the p-norm of each channel; the axes stay, with extent 1.

    Parameters
    ----------
    norm_type : float, > 0
        p, which may be infinite.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.global_lp_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> GlobalLPPool2d(2)(np.ones((5, 3, 3, 3))).max().item()
    3.0
    """

    ndim = 2
    _functions = F.global_lp_pool2d, F.global_lp_pool2d_backward


class GlobalLPPool3d(_GlobalLPPool):
    """Take the p-norm of each channel: `GlobalLPPool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.global_lp_pool3d, F.global_lp_pool3d_backward


class _BlurPool(Pool):
    def __init__(
        self, kernel_size: Size = 3, stride: Size = 2, *, padding_mode: str = "reflect"
    ) -> None:
        pool, _ = self._functions
        empty = np.empty((0, 1, *(16,) * self.ndim), np.float32)  # checks the arguments
        pool(empty, kernel_size, stride, padding_mode=padding_mode)
        self.kernel_size, self.stride = frozen(kernel_size), frozen(stride)
        self.padding_mode = padding_mode

    def __call__(self, x: Array) -> Array:
        pool, _ = self._functions
        y: Array = pool(
            x, self.kernel_size, self.stride, padding_mode=self.padding_mode
        )
        return y

    def forward(self, x: Array) -> tuple[Array, Backward]:
        _, pool_backward = self._functions
        y, input_shape = self(x), x.shape
        return y, lambda grad_y: pool_backward(
            grad_y,
            input_shape,
            self.kernel_size,
            self.stride,
            padding_mode=self.padding_mode,
        )

    def _arguments(self) -> str:
        options = changed(self, stride=2, padding_mode="reflect")
        return ", ".join([f"kernel_size={self.kernel_size}", *options])


class BlurPool1d(_BlurPool):
    """Blur, then take every stride-th element: `BlurPool2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.blur_pool1d, F.blur_pool1d_backward


class BlurPool2d(_BlurPool):
    """Blur with a binomial filter, then take every stride-th element.

    Parameters
    ----------
    kernel_size, stride, padding_mode
        As for `convcore.functional.blur_pool2d`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.blur_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> BlurPool2d()(np.ones((5, 3, 32, 31))).shape
    (5, 3, 16, 16)
    """

    ndim = 2
    _functions = F.blur_pool2d, F.blur_pool2d_backward


class BlurPool3d(_BlurPool):
    """Blur, then take every stride-th element: `BlurPool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.blur_pool3d, F.blur_pool3d_backward


class ChannelAvgPool(Layer):
    """Take the mean of each window of neighbouring channels, at every place.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As for `convcore.functional.channel_avg_pool`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.channel_avg_pool

    Examples
    --------
    >>> import numpy as np
    >>> ChannelAvgPool(2)(np.ones((5, 4, 7, 7))).shape
    (5, 2, 7, 7)
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.ceil_mode = frozen(padding), ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override
        empty = np.empty((0, ANY_EXTENT), np.float32)  # checks the arguments
        F.channel_avg_pool(empty, *self._window)

    @property
    def _window(self) -> tuple[Any, ...]:
        return (
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def __call__(self, x: Array) -> Array:
        """Pool without keeping anything for a backward pass."""
        return F.channel_avg_pool(x, *self._window)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """Pool, and give the function that turns its gradient into that of x."""
        y, input_shape = self(x), x.shape
        return y, lambda grad_y: F.channel_avg_pool_backward(
            grad_y, input_shape, *self._window
        )

    def _arguments(self) -> str:
        options = changed(
            self,
            stride=None,
            padding=0,
            ceil_mode=False,
            count_include_pad=True,
            divisor_override=None,
        )
        return ", ".join([f"kernel_size={self.kernel_size}", *options])
