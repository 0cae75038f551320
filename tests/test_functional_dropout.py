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


KEYS = [0, 3, 2**32, 0x0123456789ABCDEF, 2**64 - 1]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_which_elements_a_key_drops(dtype: Any, key: int, isa: str) -> None:
    """As the definition says, for every instruction set, place and length."""
    right = reference.dropout_mask((1000,), key, 0.3)
    x = np.full(1000, 7.0, dtype)
    for size in (0, 1, 5, 63, 64, 65, 200, 1000):
        mask = F.dropout_mask((size,), key, 0.3)
        np.testing.assert_array_equal(mask, right[:size])
        y = F.keyed_dropout(x[:size], key, 0.3)
        np.testing.assert_array_equal(y != 0, right[:size])
        oracle.assert_bits_equal(F.keyed_dropout_backward(x[:size], key, 0.3), y)
        oracle.assert_bits_equal(F.dropout_backward(x[:size], mask, 0.3), y)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_numbers(counter: Any, key: Any, words: Any) -> None:
    """Known answers of the authors' library, Random123."""
    assert reference.philox(counter, key) == words


def test_threads_draw_the_same(team: Any) -> None:
    x = np.ones(200_003, np.float32)
    team(1)
    y = F.keyed_dropout(x, 12)
    for count in (2, 5):
        team(count)
        oracle.assert_bits_equal(F.keyed_dropout(x, 12), y)
        np.testing.assert_array_equal(F.dropout_mask(x.shape, 12), y != 0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_words_are_independent_of_place_and_neighbours(p: float) -> None:
    """Chi-square of the zeros in each lane, word and residue, and of neighbours."""
    count = 1 << 20
    dropped = ~F.dropout_mask((count,), 99, p)
    for width in (2, 4, 16, 64, 128, 1000):
        rows = count // width
        zeros = dropped[: rows * width].reshape(rows, width).sum(axis=0)
        deviation = (zeros - rows * p) ** 2 / (rows * p * (1 - p))
        # The sum of `width` squares: its deviation is sqrt(2 width).
        assert abs(deviation.sum() - width) <= 5 * np.sqrt(2 * width)
    for step in (1, 2, 4, 16, 32, 64, 8192):
        both = int((dropped[step:] & dropped[:-step]).sum())
        pairs = count - step
        expected, share = pairs * p * p, p * p
        # Overlapping pairs: at most three times the deviation of independent ones.
        assert abs(both - expected) <= 15 * np.sqrt(pairs * share * (1 - share))
    other = ~F.dropout_mask((count,), 100, p)
    both = int((dropped & other).sum())
    assert abs(both - count * p * p) <= 5 * np.sqrt(count * p * p * (1 - p * p))


def test_results_that_leave_the_caches() -> None:
    size = (33 << 20) // 4 + 5
    x = np.full(size, 1.0, np.float32)
    y = F.keyed_dropout(x, 5)
    assert F.keyed_dropout(x, 5, out=x) is x
    oracle.assert_bits_equal(x, y)
    mask = np.zeros(size, bool)
    assert F.dropout_mask((size,), 5, out=mask) is mask
    np.testing.assert_array_equal(y, np.where(mask, np.float32(2), np.float32(0)))


def test_a_key_is_drawn_from_the_generator() -> None:
    one, two = np.random.default_rng(5), np.random.default_rng(5)
    _, mask = F.dropout(np.ones(100), rng=one)
    key = F.dropout_key(two)
    assert 0 <= key < 2**64
    np.testing.assert_array_equal(mask, F.dropout_mask((100,), key))
    assert F.dropout_key(one) == F.dropout_key(two) != key


X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.dropout(X, 1.1, rng=0), ValueError, "dropout: p must be <= 1"),
        (lambda: F.dropout(X, -0.1, rng=0), ValueError, "dropout: p must be >= 0"),
        (lambda: F.dropout(X, np.nan, rng=0), ValueError, "dropout: p must be finite"),
        (lambda: F.dropout(X, rng=None), TypeError, "dropout: rng must be"),  # type: ignore[arg-type]
        (lambda: F.dropout(X, rng=-1), ValueError, "dropout: rng must be >= 0"),
        (lambda: F.keyed_dropout(X, -1), ValueError, "keyed_dropout: key must be >= 0"),
        (
            lambda: F.keyed_dropout(X, 2**64),
            ValueError,
            r"keyed_dropout: key must be < 2\*\*64",
        ),
        (
            lambda: F.keyed_dropout(X, 1.0),  # type: ignore[arg-type]
            TypeError,
            "keyed_dropout: key must be an integer",
        ),
        (
            lambda: F.dropout_mask([2], 1),  # type: ignore[arg-type]
            TypeError,
            "dropout_mask: shape must be a tuple",
        ),
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
