"""Pooling into as many windows as wanted, or into one."""

from convcore import functional as F
from convcore.nn._pooling import AdaptivePool, Pool

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "GlobalAvgPool1d",
    "GlobalAvgPool2d",
    "GlobalAvgPool3d",
]


class AdaptiveAvgPool1d(AdaptivePool):
    """Take means over as many windows as wanted: `AdaptiveAvgPool2d` for (N, C, W)."""

    ndim = 1
    _functions = F.adaptive_avg_pool1d, F.adaptive_avg_pool1d_backward


class AdaptiveAvgPool2d(AdaptivePool):
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


class AdaptiveAvgPool3d(AdaptivePool):
    """Take means over as many windows as wanted: `AdaptiveAvgPool2d` for 3 axes."""

    ndim = 3
    _functions = F.adaptive_avg_pool3d, F.adaptive_avg_pool3d_backward


class GlobalAvgPool1d(Pool):
    """Take the mean of each channel: `GlobalAvgPool2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.global_avg_pool1d, F.global_avg_pool1d_backward


class GlobalAvgPool2d(Pool):
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


class GlobalAvgPool3d(Pool):
    """Take the mean of each channel: `GlobalAvgPool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.global_avg_pool3d, F.global_avg_pool3d_backward
