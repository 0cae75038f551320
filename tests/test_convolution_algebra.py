"""Why convolution turns the kernel around: what it has, and correlation lacks.

With `flip=True` and padding="full", convolution is the product of polynomials: it
commutes, is associative, and becomes a plain product under the Fourier transform.
Correlation, without the flip, commutes up to a turn and is not associative. All on small
integers, where every sum is exact, so `==` means equal.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import precision
from tests import oracle, strategies

CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
LIMIT = 5  # of the integers: products of three, summed, stay far below 2**24


def convolve(x: Any, w: Any) -> Any:
    """The convolution of mathematics, complete: (n, c, ...) with (m, c, ...)."""
    return _full(x, w, flip=True)


def correlate(x: Any, w: Any) -> Any:
    """What layers compute, with an output wherever kernel and input meet."""
    return _full(x, w, flip=False)


def _full(x: Any, w: Any, *, flip: bool) -> Any:
    with precision("strict"):  # a transform would round
        return CONV[x.ndim - 2](x, w, padding="full", flip=flip)


def turned(a: Any) -> Any:
    return np.flip(a, tuple(range(2, a.ndim)))


def whole(rng: np.random.Generator, *shape: int, dtype: Any = np.float64) -> Any:
    return rng.integers(-LIMIT, LIMIT + 1, shape).astype(dtype)


def delta(ndim: int) -> Any:
    """One at the origin: the 1 of convolution."""
    return np.ones((1, 1, *(1,) * ndim))


def shapes(count: int) -> st.SearchStrategy[list[tuple[int, ...]]]:
    """Extents of so many planes of the same rank."""
    return st.sampled_from([1, 2, 3]).flatmap(
        lambda ndim: st.lists(
            st.tuples(*[st.integers(1, 9 if ndim < 3 else 4)] * ndim),
            min_size=count,
            max_size=count,
        )
    )


@given(shapes(2), strategies.generators(), st.sampled_from(oracle.DTYPES))
def test_convolution_commutes(
    extents: list[tuple[int, ...]], rng: np.random.Generator, dtype: Any
) -> None:
    x, w = (whole(rng, 1, 1, *e, dtype=dtype) for e in extents)
    oracle.assert_exact(convolve(x, w), convolve(w, x))


@given(shapes(3), strategies.generators(), st.sampled_from(oracle.DTYPES))
def test_convolution_is_associative(
    extents: list[tuple[int, ...]], rng: np.random.Generator, dtype: Any
) -> None:
    x, v, w = (whole(rng, 1, 1, *e, dtype=dtype) for e in extents)
    oracle.assert_exact(convolve(convolve(x, v), w), convolve(x, convolve(v, w)))


@given(
    shapes(3),
    st.tuples(*[st.integers(1, 4)] * 4),
    strategies.generators(),
    st.sampled_from(oracle.DTYPES),
)
def test_two_layers_without_an_activation_are_one(
    extents: list[tuple[int, ...]],
    sizes: tuple[int, ...],
    rng: np.random.Generator,
    dtype: Any,
) -> None:
    """Associative with channels, too: their kernels convolve, their channels multiply."""
    n, c, m, p = sizes
    x = whole(rng, n, c, *extents[0], dtype=dtype)
    v = whole(rng, m, c, *extents[1], dtype=dtype)
    w = whole(rng, p, m, *extents[2], dtype=dtype)
    one = convolve(v.swapaxes(0, 1), w).swapaxes(0, 1)  # (p, c, ...)
    oracle.assert_exact(convolve(convolve(x, v), w), convolve(x, one))


@given(shapes(2), strategies.generators())
def test_convolution_is_linear(
    extents: list[tuple[int, ...]], rng: np.random.Generator
) -> None:
    x, y = whole(rng, 1, 1, *extents[0]), whole(rng, 1, 1, *extents[0])
    w = whole(rng, 1, 1, *extents[1])
    oracle.assert_exact(convolve(x + 3 * y, w), convolve(x, w) + 3 * convolve(y, w))
    oracle.assert_exact(convolve(w, x + 3 * y), convolve(w, x) + 3 * convolve(w, y))


@given(shapes(1), strategies.generators())
def test_a_single_one_is_neutral(
    extents: list[tuple[int, ...]], rng: np.random.Generator
) -> None:
    x = whole(rng, 1, 1, *extents[0])
    oracle.assert_exact(convolve(x, delta(x.ndim - 2)), x)
    oracle.assert_exact(convolve(delta(x.ndim - 2), x), x)


@given(shapes(2), strategies.generators())
def test_the_fourier_transform_of_a_convolution_is_a_product(
    extents: list[tuple[int, ...]], rng: np.random.Generator
) -> None:
    """The integers are small enough for the transforms' errors to round away."""
    x, w = (whole(rng, 1, 1, *e) for e in extents)
    y = convolve(x, w)
    axes = tuple(range(2, y.ndim))
    size = y.shape[2:]
    product = np.fft.fftn(x, size, axes) * np.fft.fftn(w, size, axes)
    found = np.fft.ifftn(product, size, axes)
    np.testing.assert_allclose(found.imag, 0, atol=1e-6)
    oracle.assert_exact(np.rint(found.real), y)


@given(shapes(2), strategies.generators())
def test_correlation_is_convolution_with_the_turned_kernel(
    extents: list[tuple[int, ...]], rng: np.random.Generator
) -> None:
    x, w = (whole(rng, 1, 1, *e) for e in extents)
    oracle.assert_exact(correlate(x, w), convolve(x, turned(w)))
    symmetric = w + turned(w)
    oracle.assert_exact(correlate(x, symmetric), convolve(x, symmetric))


@given(shapes(2), strategies.generators())
def test_correlation_commutes_up_to_a_turn(
    extents: list[tuple[int, ...]], rng: np.random.Generator
) -> None:
    x, w = (whole(rng, 1, 1, *e) for e in extents)
    oracle.assert_exact(correlate(x, w), turned(correlate(w, x)))


@given(shapes(3), strategies.generators())
def test_correlations_in_a_row_need_a_convolution_of_their_kernels(
    extents: list[tuple[int, ...]], rng: np.random.Generator
) -> None:
    """(x * v) * w is not x * (v * w), but x * (v convolved with w)."""
    x, v, w = (whole(rng, 1, 1, *e) for e in extents)
    oracle.assert_exact(correlate(correlate(x, v), w), correlate(x, convolve(v, w)))


def test_correlation_does_not_commute() -> None:
    x, w = np.array([[[1.0, 0.0]]]), np.array([[[1.0, 2.0]]])
    assert correlate(x, w).tolist() == [[[2, 1, 0]]]
    assert correlate(w, x).tolist() == [[[0, 1, 2]]]


def test_correlation_is_not_associative() -> None:
    """The smallest example: a single one, and a kernel of two taps, twice."""
    x, v = np.array([[[1.0]]]), np.array([[[1.0, 2.0]]])
    assert correlate(correlate(x, v), v).tolist() == [[[4, 4, 1]]]
    assert correlate(x, correlate(v, v)).tolist() == [[[2, 5, 2]]]
    assert convolve(convolve(x, v), v).tolist() == [[[1, 4, 4]]]
    assert convolve(x, convolve(v, v)).tolist() == [[[1, 4, 4]]]


@pytest.mark.parametrize("flip", [True, False])
def test_both_commute_with_shifts(flip: bool) -> None:
    """What a network needs of either: a shifted input gives a shifted output."""
    rng = np.random.default_rng(0)
    x, w = whole(rng, 2, 3, 7, 9), whole(rng, 4, 3, 3, 2)
    framed = np.pad(x, ((0, 0), (0, 0), (2, 0), (1, 0)))
    y = _full(framed, w, flip=flip)
    oracle.assert_exact(y[:, :, 2:, 1:], _full(x, w, flip=flip))
    assert not y[:, :, :2].any()
    assert not y[..., :1].any()
