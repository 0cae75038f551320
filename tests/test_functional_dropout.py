"""Dropout: masks, scale, seeds, gradients, errors."""

from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import reference
from tests import oracle


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_as_the_reference(p: float, dtype: Any) -> None:
    x = oracle.normal(np.random.default_rng(0), (50, 40), dtype)
    y, mask = F.dropout(x, p, rng=3)
    wide = oracle.wider(dtype)
    right = np.zeros_like(x) if p == 1 else reference.dropout(x.astype(wide), mask, p)
    u = 4 * float(np.finfo(dtype).eps)
    oracle.assert_within(y, right.astype(wide), u * np.abs(right), dtype)
    oracle.assert_bits_equal(F.dropout_backward(x, mask, p), y)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_share_of_zeros(p: float) -> None:
    _, mask = F.dropout(np.ones(20000, np.float32), p, rng=0)
    deviation = np.sqrt(p * (1 - p) / 20000)
    assert abs((1 - mask.mean()) - p) <= 5 * deviation


def test_the_mask_depends_on_the_seed_alone() -> None:
    x = np.ones((3, 50))
    _, mask = F.dropout(x, rng=7)
    for other in (x.astype(np.float32), np.asfortranarray(x)):
        np.testing.assert_array_equal(F.dropout(other, rng=7)[1], mask)
    assert (F.dropout(x, rng=8)[1] != mask).any()
    source = np.random.default_rng(7)
    np.testing.assert_array_equal(F.dropout(x, rng=source)[1], mask)
    assert (F.dropout(x, rng=source)[1] != mask).any()


def test_without_dropping_even_a_draw_of_0_stays() -> None:
    class Zeros(np.random.Generator):
        def random(self, size: Any = None, *args: Any, **options: Any) -> Any:
            return np.zeros(size, np.float32)

    _, mask = F.dropout(np.ones(5), 0.0, rng=Zeros(np.random.PCG64(0)))
    assert mask.all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_dropped_is_exactly_0(value: float) -> None:
    y, mask = F.dropout(np.full(100, value), 0.5, rng=0)
    np.testing.assert_array_equal(y[~mask], 0)
    np.testing.assert_array_equal(y[mask], value)


def test_gradient_is_the_slope() -> None:
    rng = np.random.default_rng(0)
    x, g = (oracle.normal(rng, (6, 5), np.float64) for _ in range(2))
    _, mask = F.dropout(x, 0.3, rng=4)
    oracle.gradients_check(
        lambda x: F.dropout(x, 0.3, rng=4)[0],
        [x],
        [F.dropout_backward(g, mask, 0.3)],
        g,
        rng,
    )


X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.dropout(X, 1.1, rng=0), ValueError, "dropout: p must be <= 1"),
        (lambda: F.dropout(X, -0.1, rng=0), ValueError, "dropout: p must be >= 0"),
        (lambda: F.dropout(X, np.nan, rng=0), ValueError, "dropout: p must be finite"),
        (lambda: F.dropout(X, rng=None), TypeError, "dropout: rng must be"),  # type: ignore[arg-type]
        (lambda: F.dropout(X, rng=-1), ValueError, "dropout: rng must be >= 0"),
        (
            lambda: F.dropout_backward(X, np.ones((2, 3))),  # type: ignore[arg-type]
            TypeError,
            "dropout_backward: mask must be an array of bool, got float64",
        ),
        (
            lambda: F.dropout_backward(X, np.ones(3, bool)),
            ValueError,
            r"grad_output must have the shape of mask \(3,\), got \(2, 3\)",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
