"""Average pooling over one, two or three axes."""

from typing import Any, ClassVar

from convcore import functional as F
from convcore.arguments import integer, shown
from convcore.nn._pooling import WindowPool
from convcore.problem import Padding, Size

__all__ = ["AvgPool1d", "AvgPool2d", "AvgPool3d"]


class _AvgPool(WindowPool):
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
        *,
        padding_mode: str = "zeros",
        padding_value: float = 0,
    ) -> None:
        window = (kernel_size, stride, padding, 1, ceil_mode)
        self._set_window(padding_mode, padding_value, *window)
        if count_include_pad is False and padding_mode != self._plain:
            raise ValueError(
                f"{type(self).__name__}: count_include_pad=False needs padding_mode "
                f'"zeros", in others padding is data, got {shown(padding_mode)}'
            )
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
        As for `MaxPool2d`; the padding holds zeros, unless:
    padding_mode, padding_value : str, float
        What lies around x, as for `Conv2d`.
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
