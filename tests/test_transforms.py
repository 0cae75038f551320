"""Algorithms that transform their operands: within their bounds, on any data."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import algorithms, plan, precision, reference
from convcore import functional as F
from convcore.problem import ConvProblem
from convcore.runtime import cpu, threads, workspace
from tests import oracle
from tests.conv_helpers import arguments, compute, takes_bias
from tests.transform_helpers import DIRECTIONS, TRANSFORMS, Transform, check, problems

every_transform = pytest.mark.parametrize("algorithm", TRANSFORMS, ids=lambda a: a.name)
EVERY_CASE = [
    pytest.param(algorithm, case, id=f"{algorithm.name}-{case}")
    for algorithm in TRANSFORMS
    for case in algorithm.cases
]


def test_every_transform_is_tested() -> None:
    names = {card.name for card in algorithms.CONV if card.transforms}
    assert names == {algorithm.name for algorithm in TRANSFORMS}


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize(("algorithm", "case"), EVERY_CASE)
def test_kernels_are_within_their_bound(
    algorithm: Transform, case: str, dtype: Any, isa: str
) -> None:
    problem = ConvProblem.parse(case)
    a = oracle.operands(problem, np.random.default_rng(1), dtype, kind="normal")
    for direction in DIRECTIONS:
        for bias in (True, False) if takes_bias(direction) else (False,):
            check(algorithm, problem, direction, *arguments(direction, a, bias))


@every_transform
@given(data=st.data())
def test_any_problem_is_within_the_bound(
    algorithm: Transform, data: st.DataObject
) -> None:
    """Also where a tile has data of very different sizes."""
    problem = data.draw(problems(algorithm))
    dtype = data.draw(st.sampled_from(oracle.DTYPES))
    kind = data.draw(st.sampled_from(["normal", "positive", "scaled"]))
    rng = np.random.default_rng(0)
    a = oracle.operands(problem, rng, dtype, kind="normal")
    with cpu.use(data.draw(st.sampled_from(cpu.available()))):
        for direction in DIRECTIONS:
            arrays = arguments(direction, a)
            if kind == "positive":
                arrays = tuple(np.abs(array) for array in arrays)
            if kind == "scaled":
                arrays = tuple(
                    array * (10.0 ** rng.integers(-6, 7, array.shape)).astype(dtype)
                    for array in arrays
                )
            check(algorithm, problem, direction, *arrays)


EXTREMES = {  # the exponents of the two operands
    np.float32: [
        (30, -41), (30, -38), (30, -30), (37, -41), (37, -38), (0, -41), (0, -38),
        (-41, 30), (-38, 37), (-38, 0), (-20, -20), (-10, -30), (20, 12), (10, 26),
    ],
    np.float64: [
        (300, -321), (300, -308), (0, -321), (-321, 300), (-160, -160), (160, 145),
    ],
}  # fmt: skip


@every_transform
@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_extreme_data_are_within_their_bound(
    algorithm: Transform, dtype: Any, isa: str
) -> None:
    """Weights near the smallest number lost digits beside large inputs."""
    tiny, eps = np.finfo(dtype).tiny, np.finfo(dtype).eps
    for case in (algorithm.of_some_tiles, *algorithm.of_lines):
        problem = ConvProblem.parse(case)
        a = oracle.operands(problem, np.random.default_rng(3), dtype, kind="normal")
        for direction, powers in itertools.product(DIRECTIONS, EXTREMES[dtype]):
            one, two = (
                (array * oracle.wider(dtype)(10) ** power).astype(dtype)
                for array, power in zip(
                    arguments(direction, a)[:2], powers, strict=True
                )
            )
            check(algorithm, problem, direction, one, two)
            if direction != "wgrad" and powers[0] >= 0 and 10.0 ** sum(powers) >= tiny:
                right = compute(problem, "gemm", direction, one, two)
                found = compute(problem, algorithm.name, direction, one, two)
                error = np.abs(found - right).max() / np.abs(right).max()
                assert error < 32 * eps, f"{direction} of {problem}, {powers}"


@every_transform
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_values_stay_in_their_receptive_field(
    algorithm: Transform, value: float, isa: str
) -> None:
    """Wherever in a tile they are: what is not finite, and what transforms overflow."""
    problem = ConvProblem.parse(algorithm.of_some_tiles)
    clean = oracle.operands(problem, np.random.default_rng(0), kind="normal")
    for direction in DIRECTIONS:
        arrays = arguments(direction, clean)
        whole = compute(problem, algorithm.name, direction, *arrays)
        for y, x in itertools.product(*algorithm.places):
            a = oracle.operands(problem, np.random.default_rng(0), kind="normal")
            source = a.grad_y if direction == "dgrad" else a.x
            source[1, 2, y, x] = value
            if direction == "wgrad":
                a.grad_y[1, 4, y, x] = value
            arrays = arguments(direction, a)
            with np.errstate(all="ignore"):
                right = oracle.run(problem, direction, *arrays)
            found = compute(problem, algorithm.name, direction, *arrays)
            what = f"{direction} at {y}, {x}"
            finite = np.isfinite(right)
            np.testing.assert_array_equal(np.isnan(found), np.isnan(right), what)
            np.testing.assert_array_equal(found[~finite], right[~finite], what)
            if direction != "wgrad":
                oracle.assert_bits_equal(found[0], whole[0], what)


@every_transform
def test_weights_that_are_not_finite(algorithm: Transform, isa: str) -> None:
    """Results are what they are without transforms."""
    problem = ConvProblem.parse(algorithm.of_some_tiles)
    a = oracle.operands(problem, np.random.default_rng(0), kind="normal")
    for value in (np.nan, np.inf):
        a.w[4, 1, 0, 2] = value
        for direction in ("fprop", "dgrad"):
            arrays = arguments(direction, a)
            with precision("strict"):
                right = compute(problem, "auto", direction, *arrays)
            found = compute(problem, algorithm.name, direction, *arrays)
            oracle.assert_bits_equal(found, right)


@every_transform
def test_large_finite_data_do_not_overflow(algorithm: Transform, isa: str) -> None:
    """Sums of a transform would be infinite where the result is not."""
    problem = ConvProblem.parse(algorithm.of_some_tiles)
    problem = replace(problem, ic=2)
    x = np.full(problem.x_shape, 3e38, np.float32)
    x[:, 1] = -3e38
    w = np.ones(problem.weight_shape, np.float32)
    padding = problem.padding[-1][0]
    y = F.conv2d(x, w, padding=padding, algorithm=algorithm.name)
    with precision("strict"):
        oracle.assert_bits_equal(y, F.conv2d(x, w, padding=padding))


@every_transform
def test_relu_comes_after_the_check(algorithm: Transform, isa: str) -> None:
    problem = replace(ConvProblem.parse(algorithm.of_some_tiles), relu=True)
    a = oracle.operands(problem, np.random.default_rng(0), kind="normal")
    a.x[0, 0, 4, 4] = -np.inf
    y = compute(problem, algorithm.name, "fprop", *arguments("fprop", a))
    right = reference.conv(problem, a.x, a.w, a.b)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(right))
    np.testing.assert_allclose(y, right, rtol=1e-4, atol=1e-4)


@every_transform
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_bits_do_not_depend_on_the_thread_count(
    algorithm: Transform,
    direction: oracle.Direction,
    isa: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for spelling in algorithm.of_many_tasks:
        problem = ConvProblem.parse(spelling)
        a = oracle.operands(problem, np.random.default_rng(2), kind="normal")
        arrays = arguments(direction, a)
        monkeypatch.setattr(threads, "team", lambda work: 1)
        alone = compute(problem, algorithm.name, direction, *arrays)
        for count in (2, 3, 8):
            monkeypatch.setattr(threads, "team", lambda work, count=count: count)
            found = compute(problem, algorithm.name, direction, *arrays)
            oracle.assert_bits_equal(found, alone)


@every_transform
@pytest.mark.parametrize("channels", [1, 16, 17, 40, 48])
def test_results_come_from_the_kernel_itself(
    algorithm: Transform, channels: int, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes without a channel were taken for results that are not finite."""
    shape = replace(
        ConvProblem.parse(algorithm.of_some_tiles), ic=channels, oc=channels
    )
    a = oracle.operands(shape, np.random.default_rng(0), kind="normal")

    def never(self: plan.Plan) -> plan.Plan:
        raise AssertionError(f"{self.direction} of {self.problem} is computed again")

    monkeypatch.setattr(plan.Plan, "exact", never)
    monkeypatch.setattr(
        workspace, "lend", lambda size: np.full(size + 64, 0xFF, np.uint8)
    )
    monkeypatch.setattr(workspace, "take_back", lambda scratch: None)
    for direction in DIRECTIONS:
        check(algorithm, shape, direction, *arguments(direction, a))


@pytest.mark.parametrize(
    ("spelling", "chosen"),
    [("n16g1ic128ih28oc128kh3ph1", "winograd"), ("n16g1ic64ih56oc64kh9ph4", "fft")],
)
def test_strict_precision_never_transforms(spelling: str, chosen: str) -> None:
    problem = ConvProblem.parse(spelling)
    for direction in DIRECTIONS:
        assert plan.select(problem, direction, "float32").algorithm == chosen
        assert plan.select(problem, direction, "float64").algorithm == "direct"
        named = plan.select(problem, direction, "float64", chosen)
        assert named.algorithm == chosen
        with precision("strict"):
            assert plan.select(problem, direction, "float32").algorithm == "direct"


def test_a_call_asks_for_the_precision_each_time() -> None:
    """An equal call before, in the other precision, decides nothing."""
    rng = np.random.default_rng(0)
    x, w = (
        oracle.normal(rng, s, np.float32) for s in ((4, 64, 28, 28), (64, 64, 3, 3))
    )
    fast = F.conv2d(x, w, padding=1)
    with precision("strict"):
        strict = F.conv2d(x, w, padding=1)
    oracle.assert_bits_equal(strict, F.conv2d(x, w, padding=1, algorithm="direct"))
    assert (fast != strict).any()
    oracle.assert_bits_equal(fast, F.conv2d(x, w, padding=1))
