"""Winograd's filtering against its definition."""

from fractions import Fraction

import numpy as np
import pytest

from convcore.problem import ConvProblem
from convcore.reference import winograd
from tests import oracle
from tests.conv_helpers import arguments
from tests.transform_helpers import DIRECTIONS, WINOGRAD, folded


@pytest.mark.parametrize("size", [2, 4])
def test_transforms_compute_a_convolution(size: int) -> None:
    """The matrices are exact in binary, but for G; the identity holds for each tap."""
    m = winograd.transforms(winograd.POINTS[size], 3)
    for tap in range(3):
        for place in range(size + 2):
            d, w = np.eye(size + 2)[place], np.eye(3)[tap]
            y = m.a.T @ ((m.g @ w) * (m.b.T @ d))
            expected = np.convolve(d, w[::-1], "valid")
            np.testing.assert_allclose(y, expected, atol=1e-15)


def test_transforms_of_other_points_and_taps() -> None:
    points = [Fraction(p) for p in (0, 1, -1, 2, -2, Fraction(1, 2))]
    m = winograd.transforms(points, 5)
    rng = np.random.default_rng(0)
    d, w = rng.standard_normal(7), rng.standard_normal(5)
    expected = np.convolve(d, w[::-1], "valid")
    np.testing.assert_allclose(m.a.T @ ((m.g @ w) * (m.b.T @ d)), expected, atol=1e-12)


@pytest.mark.parametrize("spelling", WINOGRAD.cases)
@pytest.mark.parametrize("size", [2, 4])
def test_definition_agrees_with_the_reference(spelling: str, size: int) -> None:
    problem = ConvProblem.parse(spelling)
    a = oracle.operands(problem, np.random.default_rng(0), np.float64, kind="normal")
    for direction in DIRECTIONS:
        arrays = arguments(direction, a, bias=False)[:2]
        right = oracle.run(problem, direction, *arrays)
        pair = folded(problem, direction, *arrays)
        found = winograd.convolve(problem.folded, direction, *pair, size)
        np.testing.assert_allclose(found.reshape(right.shape), right, atol=1e-10)
