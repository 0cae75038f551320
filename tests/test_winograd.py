"""Winograd's filtering against its definition."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from convcore import plan
from convcore.kernels import load
from convcore.problem import ConvProblem
from convcore.reference import winograd
from convcore.runtime import threads
from tests import oracle
from tests.conv_helpers import arguments, compute
from tests.transform_helpers import DIRECTIONS, WINOGRAD, WINOGRAD2, check, folded


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


WIDE = [  # more channels than a block has: of x, of y, of both, of a group
    "n2g1ic1030ih5iw7oc33kh3ph1",
    "n1g1ic3ih6oc1536kh3ph1",
    "n1g1ic1100ih4oc40kh3",
    "n1g1ic1280iw9oc530kw3pw1",
    "n1g2ic2100ih5oc66kh3kw1",
]


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("spelling", WIDE)
def test_many_channels_are_within_their_bound(
    spelling: str, dtype: Any, isa: str
) -> None:
    """Also the equal terms that one long chain would sum wrongly."""
    problem = ConvProblem.parse(spelling)
    a = oracle.operands(problem, np.random.default_rng(1), dtype, kind="normal")
    for algorithm in WINOGRAD, WINOGRAD2:
        for direction in DIRECTIONS:
            check(algorithm, problem, direction, *arguments(direction, a))
    for array in (a.x, a.w, a.grad_y):
        array[...] = 1.1
    for direction in ("fprop", "dgrad"):
        check(WINOGRAD, problem, direction, *arguments(direction, a, bias=False))


@pytest.mark.parametrize("direction", ["fprop", "dgrad"])
def test_bits_of_many_channels_depend_on_the_sample_alone(
    direction: oracle.Direction, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on threads, not on the batch, not on weights that are packed before."""
    for spelling in ("n5g1ic1030ih5iw7oc33kh3ph1", "n5g1ic40ih9oc1300kh3kw1ph1"):
        problem = ConvProblem.parse(spelling)
        a = oracle.operands(problem, np.random.default_rng(2), kind="normal")
        source, weight, _ = arguments(direction, a)
        alone = [
            compute(replace(problem, n=1), "winograd", direction, sample[None], weight)
            for sample in source
        ]
        for count in (1, 2, 3, 8):
            monkeypatch.setattr(threads, "team", lambda work, count=count: count)
            whole = compute(problem, "winograd", direction, source, weight)
            oracle.assert_bits_equal(whole, np.concatenate(alone))


def test_a_thread_has_bounded_scratch() -> None:
    """8 MB, whatever the number of channels is, and all of them as much together."""
    for spelling in (
        "n1g1ic2048ih14oc2048kh3ph1",
        "n1g1ic1025ih7oc30000kh3ph1",
        "n1g1ic30000ih7oc1025kh3ph1",
        "n1g1ic1ih7oc30000kh3ph1",
        "n1g1ic2ih7oc50000kh3kw1ph1",
    ):
        problem = ConvProblem.parse(spelling)
        for direction in DIRECTIONS:
            for algorithm in WINOGRAD, WINOGRAD2:
                chosen = plan.select(problem, direction, "float32", algorithm.name)
                size = chosen.scratch_bytes(8, direction != "wgrad")
                assert size <= 9 * (8 << 20), (
                    f"{algorithm.name} {direction} of {spelling}"
                )


def test_dilated_bits_depend_on_the_sample_alone(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = ConvProblem.parse("n5g1ic40ih19iw23oc70kh3ph2dh2")
    a = oracle.operands(problem, np.random.default_rng(2), kind="normal")
    for direction in ("fprop", "dgrad"):
        source, weight, _ = arguments(direction, a)
        alone = [
            compute(replace(problem, n=1), "winograd", direction, sample[None], weight)
            for sample in source
        ]
        for count in (1, 2, 3, 8):
            monkeypatch.setattr(threads, "team", lambda work, count=count: count)
            whole = compute(problem, "winograd", direction, source, weight)
            oracle.assert_bits_equal(whole, np.concatenate(alone))


@pytest.mark.parametrize("direction", ["fprop", "dgrad"])
def test_weights_that_are_not_kept_are_not_packed(direction: str, isa: str) -> None:
    problem = ConvProblem.parse("n1g1ic512ih7oc512kh3ph1")
    chosen = plan.select(problem, direction, "float32", "winograd")
    assert chosen.packing is None
    weight = np.ones(problem.weight_shape, np.float32)
    pack = getattr(load("conv_winograd", isa), f"pack_{direction}")
    with pytest.raises(ValueError, match="size of its problem"):
        pack(chosen.geometry, weight, np.empty(8, np.uint8), 1)
