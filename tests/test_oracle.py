"""The judges are judged: every comparison has to fail where it should."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given

from convcore.problem import ConvProblem
from tests.oracle import (
    DTYPES,
    Array,
    Direction,
    assert_bits_equal,
    assert_close_to_reference,
    assert_exact,
    assert_within,
    bound,
    distinct,
    finite_difference_check,
    gradients_check,
    integers,
    normal,
    operands,
    run,
    terms,
    wider,
)
from tests.strategies import (
    conv_problems,
)

PROBLEM = ConvProblem.parse("n2g2ic4ih5iw6oc6kh3kw2sh2ph1")
DIRECTIONS: tuple[Direction, ...] = ("fprop", "dgrad", "wgrad", "bgrad")


def fails(check: Callable[..., None], *args: object, match: str) -> None:
    """Demand that a check raises AssertionError with a message that says why."""
    with pytest.raises(AssertionError, match=match):
        check(*args)


def arrays_of(direction: Direction, dtype: type, kind: str = "normal") -> list[Array]:
    """Draw what `direction` of PROBLEM takes, bias included."""
    drawn = operands(
        PROBLEM,
        np.random.default_rng(5),
        dtype,
        "normal" if kind == "normal" else "integers",
    )
    return {
        "fprop": [drawn.x, drawn.w, drawn.b],
        "dgrad": [drawn.grad_y, drawn.w, drawn.transposed_b],
        "wgrad": [drawn.x, drawn.grad_y],
        "bgrad": [drawn.grad_y],
    }[direction]


# Data ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 27, 4608, 16383, 200_000, 2**23])
def test_integers_sum_exactly_in_the_worst_case(dtype: type, count: int) -> None:
    values = integers(np.random.default_rng(1), (400,), dtype, terms=count)
    limit = int(np.abs(values).max())
    assert values.dtype == dtype
    assert np.array_equal(values, np.rint(values))
    assert np.abs(values).min() >= 1
    assert 1 <= limit <= 32
    # All terms of one sign and as large as can be, and a bias: still exact.
    assert count * limit**2 + limit <= 2 ** (np.finfo(dtype).nmant + 1)


def test_integers_use_the_whole_range_and_both_signs() -> None:
    values = integers(np.random.default_rng(2), (4000,), np.float32, terms=9)
    assert set(np.unique(values)) == set(range(-32, 33)) - {0}


def test_integers_refuse_sums_that_cannot_be_exact() -> None:
    with pytest.raises(ValueError, match="too many"):
        integers(np.random.default_rng(0), (2,), np.float32, terms=2**24)


def test_distinct_has_no_ties_in_any_shape() -> None:
    values = distinct(np.random.default_rng(3), (2, 3, 4, 5), np.float64)
    assert values.shape == (2, 3, 4, 5)
    assert np.unique(values).size == values.size


def test_data_repeats_from_its_seed() -> None:
    for draw in (normal, distinct):
        one, two = (draw(np.random.default_rng(7), (3, 4), np.float32) for _ in "ab")
        assert_bits_equal(one, two)


# The promise -----------------------------------------------------------------------


def test_terms_count_what_is_there_and_not_the_padding() -> None:
    problem = ConvProblem.conv("conv1d", (2, 6, 4), (4, 3, 3), padding=1, groups=2)
    assert terms(problem, "fprop").tolist() == [[[6, 9, 9, 6]]]  # 3 channels, 2-3 taps
    assert terms(problem, "dgrad").tolist() == [[[4, 6, 6, 4]]]  # 2 filters, 2-3 taps
    assert terms(problem, "wgrad").tolist() == [[[6, 8, 6]]]  # 2 samples, 3-4 windows
    assert terms(problem, "bgrad").tolist() == [8, 8, 8, 8]


@given(conv_problems())
def test_terms_never_exceed_those_of_the_problem(problem: ConvProblem) -> None:
    for direction in ("fprop", "dgrad", "wgrad"):
        assert terms(problem, direction).max() <= problem.terms(direction)
    assert terms(problem, "fprop").sum() * problem.n * problem.oc == (
        terms(problem, "dgrad").sum() * problem.n * problem.ic
    )


def test_bound_is_the_formula_on_a_case_worked_by_hand() -> None:
    x, w, b = np.array([[[1, -2, 3]]]), np.array([[[-4, 5]]]), np.array([-6])
    problem = ConvProblem.conv("conv1d", x.shape, w.shape)
    for dtype, u in ((np.float32, 2.0**-24), (np.float64, 2.0**-53)):
        allowed = bound(
            problem, "fprop", *(a.astype(dtype) for a in (x, w, b)), dtype=dtype
        )
        # 1*4 + 2*5 + 6 and 2*4 + 3*5 + 6
        expected = (2 * math.sqrt(2) + 4) * u * np.array([[[20, 29]]])
        np.testing.assert_allclose(allowed.astype(float), expected, rtol=1e-15)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_bound_sums_magnitudes(direction: Direction) -> None:
    arrays = arrays_of(direction, np.float32)
    allowed = bound(PROBLEM, direction, *arrays, dtype=np.float32)
    flipped = [-a for a in arrays]
    assert (allowed > 0).all()
    assert_exact(bound(PROBLEM, direction, *flipped, dtype=np.float32), allowed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_close_accepts_the_reference_in_the_dtype_itself(
    direction: Direction, dtype: type
) -> None:
    arrays = arrays_of(direction, dtype)
    actual = run(PROBLEM, direction, *arrays)
    assert_close_to_reference(actual, PROBLEM, direction, *arrays)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_close_refuses_one_element_beyond_its_bound(
    direction: Direction, dtype: type
) -> None:
    arrays = arrays_of(direction, dtype)
    allowed = bound(PROBLEM, direction, *arrays, dtype=dtype)
    exact = run(PROBLEM, direction, *(a.astype(wider(dtype)) for a in arrays))
    actual: Array = exact.astype(dtype)
    where = np.unravel_index(np.argmin(np.abs(exact)), exact.shape)
    actual[where] = exact[where] + 3 * allowed[where]
    fails(
        assert_close_to_reference,
        actual,
        PROBLEM,
        direction,
        *arrays,
        match=f"{direction} of {PROBLEM}: 1 of .* worst error is 3",
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_close_refuses_wrong_forms_and_lost_elements(direction: Direction) -> None:
    arrays = arrays_of(direction, np.float32)
    right = run(PROBLEM, direction, *arrays)

    def refused(actual: object, match: str) -> None:
        fails(
            assert_close_to_reference, actual, PROBLEM, direction, *arrays, match=match
        )

    refused(right.astype(np.float64), "dtype")
    refused(right[None], "shape")
    refused(right.tolist(), "list")
    refused(np.full_like(right, np.nan), "worst error is inf")
    refused(np.zeros_like(right), "differ")
    refused(np.where(right == right.max(), np.inf, right), "differ")


def test_close_sees_one_tap_left_out_of_one_small_output() -> None:
    x, w, b = arrays_of("fprop", np.float32)
    w[:, :, 1, 1] *= 1e-4
    broken = w.copy()
    broken[3, 1, 1, 1] = 0
    actual = run(PROBLEM, "fprop", x, broken, b)
    fails(assert_close_to_reference, actual, PROBLEM, "fprop", x, w, b, match="differ")


def test_close_wants_inf_and_nan_where_they_belong() -> None:
    x = np.ones((1, 1, 5), np.float32)
    w = np.ones((1, 1, 2), np.float32)
    x[0, 0, 1], x[0, 0, 4] = np.inf, np.nan
    problem = ConvProblem.conv("conv1d", x.shape, w.shape)
    right = np.array([[[np.inf, np.inf, 2, np.nan]]], np.float32)
    assert_close_to_reference(right, problem, "fprop", x, w)
    for wrong in (
        [np.inf, 2, 2, np.nan],
        [np.inf, -np.inf, 2, np.nan],
        [np.inf, np.inf, 2, 2],
        [np.inf, np.inf, np.nan, np.nan],
        [np.inf, np.inf, np.inf, np.nan],
        [np.nan, np.inf, 2, np.nan],
    ):
        actual = np.array([[wrong]], np.float32)
        fails(assert_close_to_reference, actual, problem, "fprop", x, w, match="differ")


def test_within_takes_scalars_and_one_allowance_for_all() -> None:
    assert_within(np.float32(1.5), np.asarray(1.0), 0.5, np.float32)
    fails(
        assert_within,
        np.float32(1.5),
        np.asarray(1.0),
        0.25,
        np.float32,
        match="2 times",
    )


# Exact comparisons -----------------------------------------------------------------

NAN, OTHER_NAN = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)


def row(*values: float) -> Array:
    """Give a float32 array; a NaN keeps its payload."""
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("one", "two", "match"),
    [
        (row(1, 2), row(1, np.nextafter(np.float32(2), np.float32(3))), "1 of 2 .*1,"),
        (row(1, 2), np.array([1.0, 2.0]), "dtype"),
        (row(1, 2), np.array([1, 2], ">f4"), "dtype"),
        (row(1, 2), row(1, 2)[None], "shape"),
        (row(1), np.array(1, np.float32), "shape"),
        (row(1, np.nan), row(1, 2), "nan"),
        (row(1, 2), row(1, np.nan), "expected .*nan"),
        (np.float32(1), np.float32(2), "1 of 1"),
        (1.0, np.float64(1), "float, not an array"),
    ],
)
def test_exact_and_bits_refuse(one: Array, two: Array, match: str) -> None:
    fails(assert_exact, one, two, match=match)
    fails(assert_bits_equal, one, two, match=match)


def test_bits_tell_zeros_and_nans_apart_and_values_do_not() -> None:
    pairs = [(row(0, 1), row(-0.0, 1))]
    nans = np.array([NAN, 1], np.float32), np.array([OTHER_NAN, 1], np.float32)
    for one, two in [*pairs, nans]:
        assert_exact(one, two)
        fails(assert_bits_equal, one, two, match=r"1 of 2 .* at \(0,\)")


@pytest.mark.parametrize(
    "array",
    [
        row(1, np.nan, -0.0, np.inf),
        np.arange(24.0).reshape(2, 3, 4)[:, ::-1, ::2],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 3), np.float32),
        np.array(np.nan),
        np.float32(3),
        np.arange(4),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_exact_and_bits_accept_an_equal_array(array: Array) -> None:
    assert_exact(array, array.copy())
    assert_bits_equal(array, array.copy())


# Gradients -------------------------------------------------------------------------


def cube(x: Array) -> float:
    return float((x**3).sum())


def test_finite_differences_accept_the_gradient() -> None:
    rng = np.random.default_rng(11)
    x = normal(rng, (3, 4), np.float64)
    finite_difference_check(cube, 3 * x**2, x, rng)


@pytest.mark.parametrize("wrong", [1.001, 0.0, -1.0, np.nan])
def test_finite_differences_refuse_one_wrong_element(wrong: float) -> None:
    rng = np.random.default_rng(12)
    x = normal(rng, (3, 4), np.float64)
    gradient = 3 * x**2
    where = np.unravel_index(np.argmax(gradient), x.shape)
    gradient[where] *= wrong
    fails(finite_difference_check, cube, gradient, x, rng, match="slope")


def test_finite_differences_refuse_float32_and_another_shape() -> None:
    rng = np.random.default_rng(13)
    x = normal(rng, (3, 4), np.float64)
    single = x.astype(np.float32)
    fails(finite_difference_check, cube, 3 * single**2, x, rng, match="dtype")
    fails(finite_difference_check, cube, 3 * x**2, single, rng, match="dtype")
    fails(finite_difference_check, cube, 3 * x[0] ** 2, x, rng, match="shape")


def test_gradients_are_checked_for_each_argument() -> None:
    rng = np.random.default_rng(14)
    a, b, grad = (normal(rng, (5,), np.float64) for _ in "abg")
    right = [grad * b, grad * a]
    gradients_check(np.multiply, [a, b], right, grad, rng)
    for place in (0, 1):
        wrong = list(right)
        wrong[place] = 1.01 * right[place]
        fails(gradients_check, np.multiply, [a, b], wrong, grad, rng, match="slope")
