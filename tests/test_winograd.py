"""Winograd's filtering against its definition, within its bound, on any data."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import plan, precision, reference
from convcore.problem import ConvProblem
from convcore.reference import winograd
from convcore.runtime import cpu, threads, workspace
from tests import oracle
from tests.conv_helpers import arguments, compute

SIZES = {"winograd": 4, "winograd2": 2}
KERNELS = ("kh3", "kh3kw1", "kh1kw3")
CASES = [
    "n1g1ic1ih1oc1kh3ph1",
    "n2g1ic5ih7iw9oc3kh3",
    "n1g1ic17ih14oc33kh3ph1",
    "n3g1ic16ih7oc32kh3ph1",
    "n2g3ic9ih12iw5oc6kh3ph1pw0",
    "n1g1ic40ih30iw45oc70kh3ph2",
    "n2g1ic8iw133oc9kw3pw1",
    "n2g1ic8ih20iw19oc9kh1kw3pw1",
    "n2g1ic8ih20iw19oc9kh3kw1ph1",
    "n2g1ic6id4ih9oc5kd1kh3kw3ph1",
    "n5g1ic130ih6oc70kh3ph1",
    "n1g2ic128ih9oc66kh3ph1_2",
    "n0g1ic4ih8oc4kh3ph1",
]


def scale(
    problem: ConvProblem, direction: oracle.Direction, size: int, *arrays: Any
) -> Any:
    """What the errors are measured in: all magnitudes that the transforms add up."""
    total = winograd.convolve(
        problem.folded, direction, arrays[0], arrays[1], size, magnitude=True
    )
    shapes = {
        "fprop": problem.y_shape,
        "dgrad": problem.x_shape,
        "wgrad": problem.weight_shape,
    }
    total = total.reshape(shapes[direction])
    if len(arrays) == 3 and arrays[2] is not None:
        bias: Any = np.abs(arrays[2]).reshape(-1, *(1,) * (total.ndim - 2))
        total = total + bias
    return total


def terms(problem: ConvProblem, direction: oracle.Direction, size: int) -> int:
    """How many products are summed at each point."""
    if direction == "fprop":
        return problem.ic // problem.g
    if direction == "dgrad":
        return problem.oc // problem.g
    folded = problem.folded
    tiles = [
        -(-o // (size if k > 1 else 1))
        for o, k in zip(folded.out_extent, folded.kernel, strict=True)
    ]
    return problem.n * int(np.prod(tiles))


def check(
    problem: ConvProblem, direction: oracle.Direction, algorithm: str, *arrays: Any
) -> None:
    """Hold a result against the bound of the card."""
    size = SIZES[algorithm]
    dtype = arrays[0].dtype
    wide = [None if a is None else a.astype(oracle.wider(dtype)) for a in arrays]
    factor = 2 * np.sqrt(terms(problem, direction, size)) + 22
    u = np.finfo(dtype).eps / 2
    oracle.assert_within(
        compute(problem, algorithm, direction, *arrays),
        oracle.run(problem, direction, *wide),
        factor * u * scale(problem, direction, size, *arrays),
        dtype,
        f"{algorithm} {direction} of {problem}",
    )


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


@pytest.mark.parametrize("spelling", CASES)
@pytest.mark.parametrize("size", [2, 4])
def test_definition_agrees_with_the_reference(spelling: str, size: int) -> None:
    problem = ConvProblem.parse(spelling)
    a = oracle.operands(problem, np.random.default_rng(0), np.float64, kind="normal")
    for direction in ("fprop", "dgrad", "wgrad"):
        arrays = arguments(direction, a, bias=False)[:2]
        right = oracle.run(problem, direction, *arrays)
        found = winograd.convolve(problem.folded, direction, *arrays, size)
        np.testing.assert_allclose(found.reshape(right.shape), right, atol=1e-10)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("spelling", CASES)
def test_kernels_are_within_their_bound(spelling: str, dtype: Any, isa: str) -> None:
    problem = ConvProblem.parse(spelling)
    a = oracle.operands(problem, np.random.default_rng(1), dtype, kind="normal")
    for algorithm in SIZES:
        for direction in ("fprop", "dgrad", "wgrad"):
            for bias in (True, False):
                check(problem, direction, algorithm, *arguments(direction, a, bias))


@st.composite
def problems(draw: st.DrawFn) -> ConvProblem:
    """Any problem that the cards accept, of moderate size."""
    kernel = draw(st.sampled_from([(3, 3), (1, 3), (3, 1)]))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels = st.sampled_from([1, 2, 7, 8, 9, 15, 16, 17, 31, 33])
    shape = [draw(st.integers(1, 21)) for _ in range(2)]
    pads = [
        (draw(st.integers(0, 4)), draw(st.integers(0, 4))) if k > 1 else (0, 0)
        for k in kernel
    ]
    shape = [max(e, k - sum(p)) for e, k, p in zip(shape, kernel, pads, strict=True)]
    c, m = draw(channels), draw(channels)
    return ConvProblem.conv(
        "conv2d",
        (draw(st.integers(0, 4)), groups * c, *shape),
        (groups * m, c, *kernel),
        padding=tuple(pads),
        groups=groups,
    )


@given(
    problems(),
    st.sampled_from(sorted(SIZES)),
    st.sampled_from(oracle.DTYPES),
    st.sampled_from(["normal", "positive", "scaled"]),
    st.sampled_from(cpu.available()),
)
def test_any_problem_is_within_the_bound(
    problem: ConvProblem, algorithm: str, dtype: Any, data: str, isa: str
) -> None:
    """Also where a tile has data of very different sizes."""
    rng = np.random.default_rng(0)
    a = oracle.operands(problem, rng, dtype, kind="normal")
    for direction in ("fprop", "dgrad", "wgrad"):
        arrays = arguments(direction, a)
        if data == "positive":
            arrays = tuple(np.abs(array) for array in arrays)
        if data == "scaled":
            arrays = tuple(
                array * (10.0 ** rng.integers(-6, 7, array.shape)).astype(dtype)
                for array in arrays
            )
        with cpu.use(isa):
            check(problem, direction, algorithm, *arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("algorithm", sorted(SIZES))
def test_values_stay_in_their_receptive_field(
    algorithm: str, value: float, isa: str
) -> None:
    """Wherever in a tile they are: what is not finite, and what transforms overflow."""
    problem = ConvProblem.parse("n2g1ic3ih8oc5kh3ph1")
    rng = np.random.default_rng(0)
    clean = oracle.operands(problem, rng, kind="normal")
    for y in range(6):
        for x in range(6):
            a = oracle.operands(problem, np.random.default_rng(0), kind="normal")
            a.x[1, 2, y, x] = a.grad_y[1, 4, y, x] = value
            for direction in ("fprop", "dgrad", "wgrad"):
                arrays = arguments(direction, a)
                with np.errstate(all="ignore"):
                    right = oracle.run(problem, direction, *arrays)
                found = compute(problem, algorithm, direction, *arrays)
                what = f"{direction} at {y}, {x}"
                finite = np.isfinite(right)
                np.testing.assert_array_equal(np.isnan(found), np.isnan(right), what)
                np.testing.assert_array_equal(found[~finite], right[~finite], what)
                if direction != "wgrad":
                    whole = compute(
                        problem, algorithm, direction, *arguments(direction, clean)
                    )
                    oracle.assert_bits_equal(found[0], whole[0], what)


def test_weights_that_are_not_finite(isa: str) -> None:
    problem = ConvProblem.parse("n2g1ic3ih8oc5kh3ph1")
    a = oracle.operands(problem, np.random.default_rng(0), kind="normal")
    for value in (np.nan, np.inf):
        a.w[4, 1, 0, 2] = value
        for direction in ("fprop", "dgrad"):
            arrays = arguments(direction, a)
            with precision("strict"):
                right = compute(problem, "auto", direction, *arrays)
            oracle.assert_bits_equal(
                compute(problem, "winograd", direction, *arrays), right
            )


def test_large_finite_data_do_not_overflow(isa: str) -> None:
    """Sums of a transform would be infinite where the result is not."""
    problem = ConvProblem.parse("n1g1ic2ih6oc2kh3ph1")
    x = np.full(problem.x_shape, 3e38, np.float32)
    x[:, 1] = -3e38
    w = np.ones(problem.weight_shape, np.float32)
    y = F.conv2d(x, w, padding=1, algorithm="winograd")
    oracle.assert_bits_equal(y, F.conv2d(x, w, padding=1, algorithm="direct"))


def test_relu_comes_after_the_check(isa: str) -> None:
    problem = replace(ConvProblem.parse("n1g1ic3ih9oc4kh3ph1"), relu=True)
    a = oracle.operands(problem, np.random.default_rng(0), kind="normal")
    a.x[0, 0, 4, 4] = -np.inf
    y = compute(problem, "winograd", "fprop", *arguments("fprop", a))
    right = reference.conv(problem, a.x, a.w, a.b)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(right))
    np.testing.assert_allclose(y, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("direction", ["fprop", "dgrad", "wgrad"])
def test_bits_do_not_depend_on_the_thread_count(
    direction: oracle.Direction, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spelling in (
        "n7g1ic64ih14oc96kh3ph1",
        "n2g1ic33ih56oc64kh3ph1",
        "n1g1ic300ih7oc130kh3ph1",
    ):
        problem = ConvProblem.parse(spelling)
        a = oracle.operands(problem, np.random.default_rng(2), kind="normal")
        arrays = arguments(direction, a)
        for algorithm in SIZES:
            monkeypatch.setattr(threads, "team", lambda work: 1)
            alone = compute(problem, algorithm, direction, *arrays)
            for count in (2, 3, 8):
                monkeypatch.setattr(threads, "team", lambda work, count=count: count)
                oracle.assert_bits_equal(
                    compute(problem, algorithm, direction, *arrays), alone
                )


@pytest.mark.parametrize("channels", [1, 16, 17, 40, 48])
def test_results_come_from_the_kernel_itself(
    channels: int, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes without a channel were taken for results that are not finite."""
    problem = ConvProblem.parse(f"n2g1ic{channels}ih9oc{channels}kh3ph1")
    a = oracle.operands(problem, np.random.default_rng(0), kind="normal")

    def never(self: plan.Plan) -> plan.Plan:
        raise AssertionError(f"{self.direction} of {self.problem} is computed again")

    monkeypatch.setattr(plan.Plan, "exact", never)
    monkeypatch.setattr(
        workspace, "lend", lambda size: np.full(size + 64, 0xFF, np.uint8)
    )
    monkeypatch.setattr(workspace, "take_back", lambda scratch: None)
    for algorithm in SIZES:
        for direction in ("fprop", "dgrad", "wgrad"):
            check(problem, direction, algorithm, *arguments(direction, a))


def test_strict_precision_never_transforms() -> None:
    problem = ConvProblem.parse("n16g1ic128ih28oc128kh3ph1")
    for direction in ("fprop", "dgrad", "wgrad"):
        assert plan.select(problem, direction, "float32").algorithm == "winograd"
        assert plan.select(problem, direction, "float64").algorithm == "direct"
        named = plan.select(problem, direction, "float64", "winograd")
        assert named.algorithm == "winograd"
        with precision("strict"):
            assert plan.select(problem, direction, "float32").algorithm == "direct"


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
    for algorithm in SIZES:
        for direction in ("fprop", "dgrad", "wgrad"):
            check(problem, direction, algorithm, *arguments(direction, a))
    for array in (a.x, a.w, a.grad_y):
        array[...] = 1.1
    for direction in ("fprop", "dgrad"):
        check(problem, direction, "winograd", *arguments(direction, a, bias=False))


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
        for direction in ("fprop", "dgrad", "wgrad"):
            for algorithm in SIZES:
                chosen = plan.select(problem, direction, "float32", algorithm)
                size = chosen.scratch_bytes(8, direction != "wgrad")
                assert size <= 9 * (8 << 20), f"{algorithm} {direction} of {spelling}"


def smallest(
    problem: ConvProblem, direction: oracle.Direction, size: int, *arrays: Any
) -> Any:
    """What subnormal numbers add to the bound: see the card."""
    one, two = np.ones_like(arrays[0]), np.ones_like(arrays[1])
    dtype = arrays[0].dtype
    unit = float(np.finfo(dtype).smallest_subnormal)  # twice what a rounding loses
    total = scale(problem, direction, size, one, arrays[1])
    if direction == "wgrad":
        total = total + scale(problem, direction, size, arrays[0], two)
        total = total + scale(problem, direction, size, one, two)
    return 4 * unit * (total + 1)


EXTREMES = {  # the exponents of the two operands
    np.float32: [
        (30, -41), (30, -38), (30, -30), (37, -41), (37, -38), (0, -41), (0, -38),
        (-41, 30), (-38, 37), (-38, 0), (-20, -20), (-10, -30), (20, 12), (10, 26),
    ],
    np.float64: [
        (300, -321), (300, -308), (0, -321), (-321, 300), (-160, -160), (160, 145),
    ],
}  # fmt: skip


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("algorithm", sorted(SIZES))
def test_extreme_data_are_within_their_bound(
    algorithm: str, dtype: Any, isa: str
) -> None:
    """Weights near the smallest number lost digits beside large inputs."""
    size, u = SIZES[algorithm], np.finfo(dtype).eps / 2
    for kernel in KERNELS:
        padding = {"kh3": "ph1", "kh3kw1": "ph1", "kh1kw3": "pw1"}[kernel]
        problem = ConvProblem.parse(f"n1g1ic5ih9oc6{kernel}{padding}")
        a = oracle.operands(problem, np.random.default_rng(3), dtype, kind="normal")
        for direction in ("fprop", "dgrad", "wgrad"):
            for exponents in EXTREMES[dtype]:
                first, second = (
                    (array * oracle.wider(dtype)(10) ** exponent).astype(dtype)
                    for array, exponent in zip(
                        arguments(direction, a)[:2], exponents, strict=True
                    )
                )
                wide = [b.astype(oracle.wider(dtype)) for b in (first, second)]
                factor = 2 * np.sqrt(terms(problem, direction, size)) + 22
                oracle.assert_within(
                    compute(problem, algorithm, direction, first, second),
                    oracle.run(problem, direction, *wide),
                    factor * u * scale(problem, direction, size, first, second)
                    + smallest(problem, direction, size, first, second),
                    dtype,
                    f"{algorithm} {direction} of {problem}, {exponents}",
                )


DILATED = [
    "n2g1ic5ih11iw14oc6kh3ph2dh2",
    "n1g2ic34ih19iw8oc20kh3ph3pw0dh3dw2",
    "n1g1ic3ih13oc4kh3ph6dh4",
    "n2g1ic4ih5oc3kh3ph5dh4",
    "n2g1ic9ih2iw40oc17kh1kw3pw7dw9",
    "n1g1ic5ih33iw3oc4kh3kw1ph16dh16",
    "n1g1ic600ih9oc8kh3ph2dh2",
    "n2g1ic3id3ih9iw11oc5kd1kh3kw3ph2pw2dh2dw2",
]


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("spelling", DILATED)
def test_dilations_are_within_their_bound(spelling: str, dtype: Any, isa: str) -> None:
    """Also phases of different extents, and phases without a pixel."""
    problem = ConvProblem.parse(spelling)
    a = oracle.operands(problem, np.random.default_rng(1), dtype, kind="normal")
    for algorithm in SIZES:
        for direction in ("fprop", "dgrad", "wgrad"):
            arrays = arguments(direction, a)
            right = oracle.run(problem, direction, *arrays[:2])
            found = winograd.convolve(
                problem.folded, direction, *arrays[:2], SIZES[algorithm]
            )
            np.testing.assert_allclose(
                found.reshape(right.shape), right, rtol=0.01, atol=1e-3
            )
            check(problem, direction, algorithm, *arrays)


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


def test_dilated_values_stay_in_their_receptive_field(isa: str) -> None:
    problem = ConvProblem.parse("n2g1ic3ih11oc5kh3ph2dh2")
    a = oracle.operands(problem, np.random.default_rng(0), kind="normal")
    a.x[1, 2, 4, 7] = a.grad_y[1, 4, 7, 2] = np.inf
    for direction in ("fprop", "dgrad", "wgrad"):
        arrays = arguments(direction, a)
        with np.errstate(all="ignore"):
            right = oracle.run(problem, direction, *arrays)
        found = compute(problem, "winograd", direction, *arrays)
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(right))
        finite = np.isfinite(right)
        np.testing.assert_array_equal(found[~finite], right[~finite])
