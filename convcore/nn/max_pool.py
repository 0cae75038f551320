"""Max pooling over one, two or three axes."""

from typing import Any, ClassVar

import numpy as np

from convcore import functional as F
from convcore.functional import _framed
from convcore.functional._max_pooling import (
    gradient_of_labels,
    label_type,
    max_pool,
)
from convcore.nn._pooling import WindowPool
from convcore.nn.layer import Backward
from convcore.problem import Padding, Size
from convcore.runtime.arrays import Array

__all__ = ["MaxPool1d", "MaxPool2d", "MaxPool3d"]


class _MaxPool(WindowPool):
    _plain = _framed.IGNORED
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
        padding_mode: str = _framed.IGNORED,
        padding_value: float = 0,
    ) -> None:
        window = (kernel_size, stride, padding, dilation, ceil_mode)
        self._set_window(padding_mode, padding_value, *window)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        name, shape = type(self).__name__, np.shape(x)
        window = self._window
        if self.padding_mode != self._plain:
            return self._forward_framed(name, x, window)
        labels = label_type(name, self.ndim, x, window)
        y, kept = max_pool(name, self.ndim, x, window, labels)
        assert kept is not None

        def backward(grad_y: Array) -> Array:
            return gradient_of_labels(name, self.ndim, (grad_y, kept, shape), window)

        return y, backward

    def _forward_framed(
        self, name: str, x: Array, window: tuple[Any, ...]
    ) -> tuple[Array, Backward]:
        """Do `forward` with a border, in which maxima may lie, too."""
        around = (self.padding_mode, self.padding_value)
        shape = np.shape(x)
        y, found = _framed.maximum(name, self.ndim, x, window, around, labelled=True)
        assert found is not None

        def backward(grad_y: Array) -> Array:
            return _framed.maximum_backward(
                name, self.ndim, (grad_y, found, shape), window, around
            )

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
        Elements around x that never win; less than the window.
    ceil_mode : bool
        Whether a last window that hangs over the end counts, too.
    padding_mode, padding_value : str, float
        What lies around x, if that may win: as for `Conv2d`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Notes
    -----
    `forward` keeps where the maxima were as one byte each, the element's place in its
    window; for windows of more than 256 elements as an int64 index.

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
