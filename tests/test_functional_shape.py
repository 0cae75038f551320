"""Flatten: shapes, the way back, errors."""

from typing import Any

import numpy as np
import pytest

from convcore import functional as F


@pytest.mark.parametrize(
    ("shape", "dims", "right"),
    [
        ((2, 3, 4, 5), (), (2, 60)),
        ((2, 3, 4, 5), (0,), (120,)),
        ((2, 3, 4, 5), (1, 2), (2, 12, 5)),
        ((2, 3, 4, 5), (-2, -1), (2, 3, 20)),
        ((2, 3, 4, 5), (2, 2), (2, 3, 4, 5)),
        ((2, 3), (), (2, 3)),
        ((4,), (0,), (4,)),
        ((0, 3, 4), (), (0, 12)),
    ],
)
def test_shapes_and_the_way_back(
    shape: tuple[int, ...], dims: tuple[int, ...], right: tuple[int, ...]
) -> None:
    x = np.arange(float(np.prod(shape))).reshape(shape)
    y = F.flatten(x, *dims)
    assert y.shape == right
    np.testing.assert_array_equal(y.ravel(), x.ravel())
    np.testing.assert_array_equal(F.flatten_backward(y, shape), x)


X = np.ones((2, 3, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.flatten(X, 3), ValueError, "start_dim must name one of 3 axes"),
        (lambda: F.flatten(X, 0, -4), ValueError, "end_dim must name one of 3 axes"),
        (
            lambda: F.flatten(X, 2, 1),
            ValueError,
            "flatten: start_dim must not come after end_dim, got 2 and 1",
        ),
        (lambda: F.flatten(np.ones(())), ValueError, "start_dim must name one of 0"),
        (lambda: F.flatten(X, 1.0), TypeError, "start_dim must be an integer"),  # type: ignore[arg-type]
        (
            lambda: F.flatten_backward(X, (2, 11)),
            ValueError,
            "flatten_backward: input_shape must have 24 elements",
        ),
        (lambda: F.flatten_backward(X, (-2, -12)), ValueError, "must be >= 0"),
        (lambda: F.flatten_backward(X, 24), TypeError, "must be a sequence"),  # type: ignore[arg-type]
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
