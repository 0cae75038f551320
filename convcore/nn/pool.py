"""Pooling over one, two or three axes."""

from collections.abc import Callable
from typing import Any, ClassVar

from convcore import functional as F
from convcore.arguments import integer
from convcore.nn.layer import Backward, Layer, changed, frozen
from convcore.problem import Padding, PoolProblem, Size
from convcore.runtime.arrays import Array

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "GlobalAvgPool1d",
    "GlobalAvgPool2d",
    "GlobalAvgPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]

# No window is too large for it: see `convcore.nn.conv`.
_ANY_EXTENT = 2**40


class _Pool(Layer):
    """Pool over `ndim` axes."""

    ndim: ClassVar[int]
    _functions: ClassVar[tuple[Callable[..., Any], Callable[..., Array]]]

    @property
    def _window(self) -> tuple[Any, ...]:
        """Arguments of the functional form, behind x."""
        return ()

    @property
    def _again(self) -> tuple[Any, ...]:
        """Arguments of its gradient, behind the shape of x."""
        return ()

    def __call__(self, x: Array) -> Array:
        pool, _ = self._functions
        y: Array = pool(x, *self._window)
        return y

    def forward(self, x: Array) -> tuple[Array, Backward]:
        _, pool_backward = self._functions
        input_shape = x.shape
        return self(x), lambda grad_y: pool_backward(grad_y, input_shape, *self._again)


class _WindowPool(_Pool):
    """Slide a window; `_defaults` are its arguments behind `kernel_size`, in order."""

    _defaults: ClassVar[dict[str, Any]]

    def _set_window(
        self,
        kernel_size: Size,
        stride: Size | None,
        padding: Padding,
        dilation: Size,
        ceil_mode: bool,
    ) -> None:
        """Keep the arguments once they are found to fit some input."""
        PoolProblem.pool(
            type(self).__name__,
            (0, 1, *(_ANY_EXTENT,) * self.ndim),
            kernel_size,
            stride,
            padding,
            dilation,
            ceil_mode,
        )
        self.kernel_size, self.stride = frozen(kernel_size), frozen(stride)
        self.padding, self.dilation = frozen(padding), frozen(dilation)
        self.ceil_mode = ceil_mode

    @property
    def _window(self) -> tuple[Any, ...]:
        return (self.kernel_size, *(getattr(self, name) for name in self._defaults))

    @property
    def _again(self) -> tuple[Any, ...]:
        return self._window

    def _arguments(self) -> str:
        options = changed(self, **self._defaults)
        return ", ".join([f"kernel_size={self.kernel_size}", *options])


class _MaxPool(_WindowPool):
    _defaults: ClassVar[dict[str, Any]] = {
        "stride": None,
        "padding": 0,
        "dilation": 1,
        "ceil_mode": False,
    }

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        self._set_window(kernel_size, stride, padding, dilation, ceil_mode)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        pool, pool_backward = self._functions
        y, indices = pool(x, *self._window, return_indices=True)
        input_shape = x.shape

        def backward(grad_y: Array) -> Array:
            return pool_backward(grad_y, indices, input_shape, *self._window)

        return y, backward


class MaxPool1d(_MaxPool):
    """Keep the maximum of each window: `MaxPool2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.max_pool1d, F.max_pool1d_backward


class MaxPool2d(_MaxPool):
    """Keep the maximum of each window.

    Parameters
    ----------
    kernel_size, dilation : int or one int per axis
        Extents of the window; steps between its elements.
    stride : int or one int per axis, optional
        Steps between windows; by default `kernel_size`.
    padding : int, one int or (lo, hi) pair per axis
        Elements around x that never win; at most half of the window.
    ceil_mode : bool
        Whether a last window that hangs over the end counts, too.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.max_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> MaxPool2d(2)(np.ones((5, 3, 32, 32), np.float32)).shape
    (5, 3, 16, 16)
    """

    ndim = 2
    _functions = F.max_pool2d, F.max_pool2d_backward


class MaxPool3d(_MaxPool):
    """Keep the maximum of each window: `MaxPool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.max_pool3d, F.max_pool3d_backward


class _AvgPool(_WindowPool):
    _defaults: ClassVar[dict[str, Any]] = {
        "stride": None,
        "padding": 0,
        "ceil_mode": False,
        "count_include_pad": True,
        "divisor_override": None,
    }

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self._set_window(kernel_size, stride, padding, 1, ceil_mode)
        self.count_include_pad = count_include_pad
        if divisor_override is not None:
            integer(type(self).__name__, "divisor_override", divisor_override, 1)
        self.divisor_override = divisor_override


class AvgPool1d(_AvgPool):
    """Take the mean of each window: `AvgPool2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.avg_pool1d, F.avg_pool1d_backward


class AvgPool2d(_AvgPool):
    """Take the mean of each window.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode
        As for `MaxPool2d`; the padding holds zeros.
    count_include_pad : bool
        Whether the mean divides by the elements of padding, too.
    divisor_override : int, optional
        Divide by that instead; at least 1.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.avg_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> AvgPool2d(2)(np.ones((5, 3, 32, 32), np.float32)).shape
    (5, 3, 16, 16)
    """

    ndim = 2
    _functions = F.avg_pool2d, F.avg_pool2d_backward


class AvgPool3d(_AvgPool):
    """Take the mean of each window: `AvgPool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.avg_pool3d, F.avg_pool3d_backward


class _AdaptiveAvgPool(_Pool):
    def __init__(self, output_size: Size) -> None:
        x_shape = (0, 1, *(_ANY_EXTENT,) * self.ndim)
        PoolProblem.adaptive(type(self).__name__, x_shape, output_size)
        self.output_size = frozen(output_size)

    @property
    def _window(self) -> tuple[Any, ...]:
        return (self.output_size,)

    def _arguments(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Take means over as many windows as wanted: `AdaptiveAvgPool2d` for (N, C, W)."""

    ndim = 1
    _functions = F.adaptive_avg_pool1d, F.adaptive_avg_pool1d_backward


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Take means over as many windows as wanted, whatever the extent of the input.

    Parameters
    ----------
    output_size : int or one int per axis
        Extents of the output; at least 1.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.adaptive_avg_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> AdaptiveAvgPool2d((1, 2))(np.ones((5, 3, 32, 31), np.float32)).shape
    (5, 3, 1, 2)
    """

    ndim = 2
    _functions = F.adaptive_avg_pool2d, F.adaptive_avg_pool2d_backward


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Take means over as many windows as wanted: `AdaptiveAvgPool2d` for 3 axes."""

    ndim = 3
    _functions = F.adaptive_avg_pool3d, F.adaptive_avg_pool3d_backward


class GlobalAvgPool1d(_Pool):
    """Take the mean of each channel: `GlobalAvgPool2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.global_avg_pool1d, F.global_avg_pool1d_backward


class GlobalAvgPool2d(_Pool):
    """Take the mean of each channel; the axes stay, with extent 1.

    See Also
    --------
    convcore.functional.global_avg_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> GlobalAvgPool2d()(np.ones((5, 3, 32, 32), np.float32)).shape
    (5, 3, 1, 1)
    """

    ndim = 2
    _functions = F.global_avg_pool2d, F.global_avg_pool2d_backward


class GlobalAvgPool3d(_Pool):
    """Take the mean of each channel: `GlobalAvgPool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.global_avg_pool3d, F.global_avg_pool3d_backward
