"""Exponentials and their relatives: units in the last place, over all exponents.

The functions of `vector_math.pxd` are seen through the activations that are nothing else:
exp is the slope of `elu` below 0, expm1 is `elu`, the tail of the normal distribution is
`gelu` divided by x, log1p is `softplus` below 0, log the `log_softmax` of equal scores.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from benchmarks import fit_polynomials
from convcore import functional as F
from tests import oracle
from tests.oracle import Array

POINTS = 20_000
LOWEST = {np.float32: -120.0, np.float64: -760.0}  # where all exponentials are 0


def everywhere(dtype: Any) -> Array:
    """Numbers of all exponents and signs, and many where the functions bend."""
    rng = np.random.default_rng(0)
    word = np.uint32 if dtype == np.float32 else np.uint64
    bits = rng.integers(0, np.iinfo(word).max, POINTS, dtype=word, endpoint=True)
    any_number = bits.view(dtype)
    line = rng.uniform(LOWEST[dtype], 45, POINTS).astype(dtype)
    near = (4 * rng.standard_normal(POINTS)).astype(dtype)
    edges = np.finfo(dtype)
    special = [0.0, edges.smallest_subnormal, edges.tiny, edges.max, 1.0, 2.0, 20.0]
    ends = np.array([*special, *(-value for value in special)], dtype)
    return np.concatenate([any_number[np.isfinite(any_number)], line, near, ends])


def units(result: Array, right: Array, dtype: Any) -> Array:
    """Count the units in the last place that a result is off."""
    form = np.finfo(dtype)
    _, exponent = np.frexp(np.abs(right))
    least = form.minexp - form.nmant
    unit = np.ldexp(np.ones_like(right), np.maximum(exponent - form.nmant - 1, least))
    error: Array = np.abs(result.astype(right.dtype) - right) / unit
    return error


def sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    share: Array = np.where(x >= 0, 1, small) / (1 + small)
    return share


# Name: what the library gives, what is right, whether x is taken below 0, units.
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], bool, float]] = {
    "exp": (lambda x: F.elu_backward(np.ones_like(x), x), np.exp, True, 1.0),
    "expm1": (F.elu, np.expm1, True, 1.3),
    "tanh": (F.tanh, np.tanh, False, 2.5),
    "log1p(exp)": (
        lambda x: F.softplus(x, threshold=1e30),
        lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
        False,
        3.0,
    ),
    "sigmoid": (F.sigmoid, sigmoid, False, 2.5),
    "silu": (F.silu, lambda x: x * sigmoid(x), False, 3.5),
}


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("name", sorted(CASES))
def test_units_in_the_last_place(name: str, dtype: Any, isa: str) -> None:
    ours, right, below, most = CASES[name]
    x = everywhere(dtype)
    x = -np.abs(x) if below else x
    with np.errstate(all="ignore"):
        wide = right(x.astype(oracle.wider(dtype)))
    found = units(ours(x), wide, dtype)
    worst = int(found.argmax())
    assert found[worst] <= most, f"{name}({x[worst]!r}): {found[worst]} units"


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_units_of_the_normal_distribution(dtype: Any, isa: str) -> None:
    """Down to the smallest subnormal results, where 1 + erf has no digits left."""
    rng = np.random.default_rng(1)
    low = -15 if dtype == np.float32 else -39
    x = np.concatenate([rng.uniform(low, 12, 150), rng.standard_normal(150)])
    x = x.astype(dtype)
    right = np.array([_wide(gelu(value)) for value in x])
    found = units(F.gelu(x), right.astype(oracle.wider(dtype)), dtype)
    worst = int(found.argmax())
    assert found[worst] <= 4.5, f"gelu({x[worst]!r}): {found[worst]} units"


def gelu(value: Any) -> Decimal:
    """Compute x Phi(x) with a hundred digits."""
    x = Decimal(float(value))
    tail = fit_polynomials.tail(abs(x)) / (x * x / 2).exp()
    return x * (tail if x < 0 else 1 - tail)


def _wide(value: Decimal) -> np.longdouble:
    """Round to the widest type, in two parts."""
    first = float(value)
    return np.longdouble(first) + np.longdouble(float(value - Decimal(first)))


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("inner", [1, 3])
def test_units_of_the_logarithm(inner: int, dtype: Any, isa: str) -> None:
    """Sums of ones are exact: the result is the logarithm of a whole number."""
    for count in (*range(1, 70), 1000, 4097):
        y = F.log_softmax(np.zeros((1, count, inner), dtype))
        right = -np.log(np.full(y.shape, count, oracle.wider(dtype)))
        assert units(y, right, dtype).max() <= 1.5


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_bits_do_not_depend_on_the_place(dtype: Any, isa: str) -> None:
    """An element alone, in whole vectors and in what is left over: the same bits."""
    x = everywhere(dtype)[:: POINTS // 300]
    for name in ("gelu", "silu", "sigmoid", "tanh", "softplus", "elu", "selu"):
        forward, backward = getattr(F, name), getattr(F, f"{name}_backward")
        right, slope = forward(x), backward(x, x)
        for start in range(0, 40, 3):
            oracle.assert_bits_equal(forward(x[start:]), right[start:])
            oracle.assert_bits_equal(forward(x[: start + 1]), right[: start + 1])
            part = backward(x[start:], x[start:])
            oracle.assert_bits_equal(part, slope[start:])


def test_the_polynomials_are_those_of_the_program() -> None:
    """`python -m benchmarks.fit_polynomials` prints what the kernels use."""
    from pathlib import Path

    source = Path(__file__).parent.parent / "convcore/kernels/vector_math.pxd"
    text = source.read_text("utf-8")
    end = fit_polynomials.LN2 / 2 * Decimal("1.0001")
    found = fit_polynomials.interpolate(fit_polynomials.exp_rest, -end, end, 10)
    for polynomial in (found, *fit_polynomials.quotient(Decimal(40), 10)):
        for coefficient in polynomial:
            assert coefficient == 1 or repr(float(coefficient)) in text
    points = fit_polynomials.atanh_points()
    for coefficient in fit_polynomials.through(fit_polynomials.atanh_rest, points):
        assert f"{float(coefficient):.9g}" in text
