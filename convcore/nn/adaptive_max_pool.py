"""Max pooling into as many windows as wanted, into one, and over channels."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

from math import prod

import numpy as np

from convcore import functional as F
from convcore.arguments import integer
from convcore.functional._max_pooling import (
    gradient_of_labels,
    label_type,
    max_pool,
)
from convcore.functional._pooling import image_of
from convcore.functional.channel_max_pool import gradient_of_taps, window_of
from convcore.nn._pooling import AdaptivePool, Pool
from convcore.nn.layer import Backward, Layer, check_gradient
from convcore.runtime.arrays import Array, checked, contiguous, empty

__all__ = [
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "ChannelMaxPool",
    "GlobalMaxPool1d",
    "GlobalMaxPool2d",
    "GlobalMaxPool3d",
]


_INT64 = np.dtype(np.int64)


class _Chooses(Pool):
    """Keep indices of as few bytes as a plane has need of: 1 for 256 elements, or 2, or 4.

    A byte inside of each window would save 1 % of x at most where a window has more
    elements than that.
    """

    def forward(self, x: Array) -> tuple[Array, Backward]:
        pool, pool_backward = self._functions
        y, indices = pool(x, *self._window, return_indices=True)
        shape = x.shape
        small = np.min_scalar_type(prod(shape[-self.ndim :]) - 1)
        kept = empty(indices.shape, small)
        np.copyto(kept, indices, casting="unsafe")

        def backward(grad_y: Array) -> Array:
            return pool_backward(grad_y, contiguous(kept, _INT64), shape)

        return y, backward


class _AdaptiveMaxPool(AdaptivePool, _Chooses):
    """Keep bytes, the places of the maxima in their windows, where these are so small."""

    def forward(self, x: Array) -> tuple[Array, Backward]:
        name, window = type(self).__name__, self._window
        labels = label_type(name, self.ndim, x, window, adaptive=True)
        if labels != np.uint8:
            return super().forward(x)
        y, kept = max_pool(name, self.ndim, x, window, labels, adaptive=True)
        assert kept is not None
        shape = x.shape

        def backward(grad_y: Array) -> Array:
            gradient = (grad_y, kept, shape)
            return gradient_of_labels(name, self.ndim, gradient, window, adaptive=True)

        return y, backward


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Take maxima over many windows: `AdaptiveMaxPool2d` for (N, C, W)."""

    ndim = 1
    _functions = F.adaptive_max_pool1d, F.adaptive_max_pool1d_backward


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Take maxima over as many windows as wanted, whatever the extent of the input.

    Parameters
    ----------
    output_size : int or one int per axis
        Extents of the output; at least 1.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Notes
    -----
    `forward` keeps where the maxima were as one byte each, the element's place in its
    window; for windows of more than 256 elements as an index of 2 or 4 bytes.

    See Also
    --------
    convcore.functional.adaptive_max_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> AdaptiveMaxPool2d((1, 2))(np.ones((5, 3, 32, 31), np.float32)).shape
    (5, 3, 1, 2)
    """

    ndim = 2
    _functions = F.adaptive_max_pool2d, F.adaptive_max_pool2d_backward


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Take maxima over many windows: `AdaptiveMaxPool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.adaptive_max_pool3d, F.adaptive_max_pool3d_backward


class GlobalMaxPool1d(_Chooses):
    """Take the maximum of each channel: `GlobalMaxPool2d` for (N, C, W)."""

    ndim = 1
    _functions = F.global_max_pool1d, F.global_max_pool1d_backward


class GlobalMaxPool2d(_Chooses):
    """Take the maximum of each channel; the axes stay, with extent 1.

    Notes
    -----
    `forward` keeps an index for each channel: a byte for up to 256 elements, else 2 or 4.

    See Also
    --------
    convcore.functional.global_max_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> GlobalMaxPool2d()(np.ones((5, 3, 32, 32), np.float32)).shape
    (5, 3, 1, 1)
    """

    ndim = 2
    _functions = F.global_max_pool2d, F.global_max_pool2d_backward


class GlobalMaxPool3d(_Chooses):
    """Take the maximum of each channel: `GlobalMaxPool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.global_max_pool3d, F.global_max_pool3d_backward


class ChannelMaxPool(Layer):
    """Keep the maximum of each group of neighbouring channels: maxout.

    Parameters
    ----------
    kernel_size : int
        Channels that compete.
    stride : int, optional
        Channels between neighbouring groups; by default `kernel_size`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.channel_max_pool

    Examples
    --------
    >>> import numpy as np
    >>> ChannelMaxPool(4)(np.ones((5, 32, 7, 7), np.float32)).shape
    (5, 8, 7, 7)
    """

    def __init__(self, kernel_size: int, stride: int | None = None) -> None:
        self.kernel_size = integer("ChannelMaxPool", "kernel_size", kernel_size, 1)
        window_of("ChannelMaxPool", kernel_size, stride)
        self.stride = self.kernel_size if stride is None else int(stride)

    def __call__(self, x: Array) -> Array:
        y: Array = F.channel_max_pool(x, self.kernel_size, self.stride)
        return y

    def forward(self, x: Array) -> tuple[Array, Backward]:
        name, shape = "ChannelMaxPool", np.shape(x)
        checked(name, "x", x)
        image = image_of(name, shape)
        window = window_of(name, self.kernel_size, self.stride)
        rows = x.reshape(image)
        labels = label_type(name, 2, rows, window)
        y, kept = max_pool(name, 2, rows, window, labels)
        assert kept is not None
        pooled = (shape[0], y.shape[2], *shape[2:])

        def backward(grad_y: Array) -> Array:
            check_gradient(name, grad_y, pooled)
            grad = grad_y.reshape(kept.shape)
            if labels == np.uint8:
                grad_x = gradient_of_taps(name, grad, kept, image, window)
                return grad_x.reshape(shape)
            gradient = (grad, kept, image)
            return gradient_of_labels(name, 2, gradient, window).reshape(shape)

        return y.reshape(pooled), backward

    def _arguments(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}"
