"""Equal small calls keep what they share: only for arguments that are all the same."""

from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import nn

X2 = np.ones((1, 1, 4, 4), np.float32)


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_size": 2.0},
        {"kernel_size": (2, 2.0)},
        {"kernel_size": 1, "stride": True},
        {"padding": False},
        {"padding": ((0, 0), (0, False))},
        {"dilation": 1.0},
        {"ceil_mode": 0},
    ],
    ids=str,
)
def test_no_kept_maximum_lets_an_argument_through(change: dict[str, Any]) -> None:
    """What small calls have in common is found by arguments that 1, 1.0 and True share."""
    legal = {"kernel_size": 2, "padding": 0, "ceil_mode": False, "dilation": 1}
    for again in (
        {},
        {"kernel_size": (2, 2)},
        {"kernel_size": 2, "padding": ((0, 0), (0, 0))},
        {"kernel_size": 1, "stride": 1},
    ):
        forward = {**legal, **again}
        for _ in range(2):
            F.max_pool2d(X2, **forward)
            y, index = F.max_pool2d(X2, **forward, return_indices=True)
            F.max_pool2d_backward(y, index, X2.shape, **forward)
    y, index = F.max_pool2d(X2, 2, return_indices=True)
    message = f": {list(change)[-1]} must be"
    with pytest.raises(TypeError, match=f"max_pool2d{message}"):
        F.max_pool2d(X2, **{**legal, **change})
    with pytest.raises(TypeError, match=f"max_pool2d_backward{message}"):
        F.max_pool2d_backward(y, index, X2.shape, **{**legal, **change})


def test_no_kept_gradient_of_maxima_lets_arrays_through() -> None:
    """Nor another shape of x or of indices, nor indices of another type or outside."""
    y, index = F.max_pool2d(X2, 2, return_indices=True)
    for _ in range(2):
        F.max_pool2d_backward(y, index, (1, 1, 4, 4), 2)
    back = F.max_pool2d_backward
    for shape in ((True, 1, 4, 4), (1, 1, 4, 4.0)):
        with pytest.raises(TypeError, match="max_pool2d_backward: input_shape must be"):
            back(y, index, shape, 2)
    with pytest.raises(TypeError, match="indices must be int64"):
        back(y, index.astype(np.int32), X2.shape, 2)
    with pytest.raises(ValueError, match="indices must have the shape"):
        back(y, index[..., :1], X2.shape, 2)
    with pytest.raises(
        ValueError, match=r"indices must each lie .* got 2 at \(0, 0, 0, 0"
    ):
        back(y, index + 2, X2.shape, 2)
    other = index.swapaxes(2, 3).copy().swapaxes(2, 3)
    np.testing.assert_array_equal(
        back(y, other, X2.shape, 2), back(y, index, X2.shape, 2)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_size": 2.0},
        {"kernel_size": (2, 2.0)},
        {"stride": True, "kernel_size": 1},
        {"padding": False},
        {"padding": ((0, 0), (0, False))},
        {"ceil_mode": 0},
        {"count_include_pad": 1},
        {"divisor_override": True},
        {"divisor_override": 1.0},
    ],
    ids=str,
)
def test_no_kept_mean_lets_an_argument_through(change: dict[str, Any]) -> None:
    """What small calls have in common is found by arguments that 1, 1.0 and True share."""
    legal = {"kernel_size": 2, "padding": 0, "ceil_mode": False}
    gradient = np.ones((1, 2, 3, 3))
    for again in (
        {},
        {"kernel_size": (2, 2)},
        {"kernel_size": (2, 2), "padding": ((0, 0), (0, 0))},
        {"divisor_override": 1, "count_include_pad": True},
        {"kernel_size": 1, "stride": 1},
    ):
        forward = {**legal, **again}
        for _ in range(2):
            y = F.avg_pool2d(X2, **forward)
            F.avg_pool2d_backward(y, X2.shape, **forward)
    message = f": {next(iter(change))} must be"
    with pytest.raises(TypeError, match=f"avg_pool2d{message}"):
        F.avg_pool2d(X2, **{**legal, **change})
    with pytest.raises(TypeError, match=f"avg_pool2d_backward{message}"):
        F.avg_pool2d_backward(gradient, X2.shape, **{**legal, **change})


def test_no_kept_gradient_lets_a_shape_through() -> None:
    """Nor a list or a float in the shape of x, after the same in integers."""
    for _ in range(2):
        F.avg_pool2d_backward(np.ones((1, 1, 1, 1)), (1, 1, 2, 2), 2)
    for shape in ((True, 1, 2, 2), (1, 1, 2, 2.0)):
        with pytest.raises(TypeError, match="avg_pool2d_backward: input_shape must be"):
            F.avg_pool2d_backward(np.ones((1, 1, 1, 1)), shape, 2)


def test_kept_means_are_new_each_time() -> None:
    """And other strides, byte orders and dtypes give what they give alone."""
    x = np.arange(72.0).reshape(2, 1, 6, 6)
    first, second = F.avg_pool2d(x, 3), F.avg_pool2d(x, 3)
    assert not np.may_share_memory(first, second)
    for other in (x.swapaxes(2, 3), x.astype(">f8"), x.astype(np.float32)):
        y = F.avg_pool2d(other, 3)
        np.testing.assert_array_equal(y, F.avg_pool2d(other.astype(np.float64), 3))
        assert y.dtype == other.dtype.newbyteorder("=")
    with pytest.raises(TypeError, match="avg_pool2d: x must be"):
        F.avg_pool2d(np.ma.masked_array(x), 3)
    with pytest.raises(TypeError, match="avg_pool2d: kernel_size"):
        F.avg_pool2d(x, [[3]])


@pytest.mark.parametrize("family", ["MaxPool", "AvgPool", "AdaptiveMaxPool"])
def test_classes_of_one_name_do_not_share_calls(family: str) -> None:
    """(4, 6, 8) is a batch along one axis, and one sample along two."""
    x = np.arange(192.0).reshape(4, 6, 8)
    for ndim in (1, 2):
        plain = getattr(nn, f"{family}{ndim}d")
        layer = type("Pool", (plain,), {})(2)
        for _ in range(2):
            np.testing.assert_array_equal(layer.forward(x)[0], plain(2)(x))
