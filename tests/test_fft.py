"""Fourier transforms of tiles against their definition, within their bound, on any data."""

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import algorithms, plan, reference
from convcore import functional as F
from convcore.functional.call import PackedWeight
from convcore.kernels import load
from convcore.problem import ConvProblem
from convcore.reference import fft
from convcore.runtime import cpu, threads
from tests import oracle
from tests.conv_helpers import arguments, compute

DIRECTIONS: tuple[oracle.Direction, ...] = ("fprop", "dgrad", "wgrad")
CASES = [
    "n1g1ic1ih1oc1kh3ph1",
    "n2g1ic5ih7iw9oc3kh2kw5pw2",
    "n2g1ic17ih14oc33kh7ph3",
    "n3g1ic16ih20oc16kh7ph3",
    "n2g3ic9ih12iw25oc6kh9ph4pw0",
    "n1g1ic40ih30iw45oc70kh5kw7ph2",
    "n2g1ic8iw333oc9kw33pw1",
    "n1g1ic3iw900oc18kw200pw7",
    "n2g1ic8ih20iw19oc9kh1kw12pw1",
    "n2g1ic8ih40iw9oc9kh21kw1ph1",
    "n2g1ic6id4ih9oc5kd1kh4kw4ph1",
    "n5g1ic130ih6oc70kh6ph2",
    "n1g2ic128ih9oc66kh3ph1_2",
    "n1g1ic2ih37iw80oc3kh31ph15",
    "n0g1ic4ih8oc4kh7ph3",
]


def lengths_of(
    problem: ConvProblem, direction: oracle.Direction, dtype: Any
) -> tuple[int, int]:
    """The lengths of tiles that the kernel chooses."""
    module = load("conv_fft_weight" if direction == "wgrad" else "conv_fft", cpu.isa())
    geometry = array("q", problem.folded.geometry)
    lengths: tuple[int, int] = module.tile_lengths(
        geometry, direction, np.dtype(dtype).itemsize
    )
    return lengths


def defined(
    problem: ConvProblem,
    direction: oracle.Direction,
    lengths: Sequence[int],
    *arrays: Any,
    magnitude: bool = False,
    least: float = 0.0,
) -> Any:
    """The definition, of what the kernels see."""
    folded = problem.folded
    shapes = {
        "fprop": (folded.x_shape, folded.weight_shape),
        "dgrad": (folded.y_shape, folded.weight_shape),
        "wgrad": (folded.x_shape, folded.y_shape),
    }[direction]
    one, two = (a.reshape(s) for a, s in zip(arrays, shapes, strict=True))
    return fft.convolve(
        folded, direction, one, two, lengths, magnitude=magnitude, least=least
    )


def tiles_of(
    problem: ConvProblem, direction: oracle.Direction, lengths: tuple[int, int]
) -> int:
    """How many tiles all images have."""
    folded = problem.folded
    extent = folded.in_extent if direction == "dgrad" else folded.out_extent
    count = problem.n * extent[0]
    for length, k, e in zip(lengths, folded.kernel[1:], extent[1:], strict=True):
        count *= -(-e // (length - k + 1))
    return count


def allowed(problem: ConvProblem, direction: oracle.Direction, *arrays: Any) -> Any:
    """The bound of the card, for each element of the result."""
    dtype = arrays[0].dtype
    lengths = lengths_of(problem, direction, dtype)
    terms = {
        "fprop": problem.ic // problem.g,
        "dgrad": problem.oc // problem.g,
        "wgrad": tiles_of(problem, direction, lengths),
    }[direction]
    least = float(np.finfo(dtype).tiny)
    total = defined(
        problem, direction, lengths, *arrays[:2], magnitude=True, least=least
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
    units = 4 * (2 * np.sqrt(terms) + 7 * np.log2(np.prod(lengths)))
    return units * np.finfo(dtype).eps / 2 * (total + least)


def check(problem: ConvProblem, direction: oracle.Direction, *arrays: Any) -> None:
    """Hold a result against the bound of the card."""
    dtype = arrays[0].dtype
    wide = [None if a is None else a.astype(oracle.wider(dtype)) for a in arrays]
    oracle.assert_within(
        compute(problem, "fft", direction, *arrays),
        oracle.run(problem, direction, *wide),
        allowed(problem, direction, *arrays),
        dtype,
        f"{direction} of {problem}",
    )


@pytest.mark.parametrize("taps", [1, 3, 8])
def test_a_tile_of_the_definition(taps: int) -> None:
    rng = np.random.default_rng(0)
    d, w = rng.standard_normal(8), rng.standard_normal(taps)
    expected = np.convolve(d, w[::-1], "valid")
    np.testing.assert_allclose(fft.correlate(d, w), expected, atol=1e-14)


@pytest.mark.parametrize("spelling", CASES)
@pytest.mark.parametrize("longer", [0, 1, 6])
def test_definition_agrees_with_the_reference(spelling: str, longer: int) -> None:
    problem = ConvProblem.parse(spelling)
    lengths = [k + longer for k in problem.folded.kernel[1:]]
    a = oracle.operands(problem, np.random.default_rng(0), np.float64, kind="normal")
    for direction in DIRECTIONS:
        arrays = arguments(direction, a, bias=False)[:2]
        right = oracle.run(problem, direction, *arrays)
        found = defined(problem, direction, lengths, *arrays)
        np.testing.assert_allclose(found.reshape(right.shape), right, atol=1e-10)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("spelling", CASES)
def test_kernels_are_within_their_bound(spelling: str, dtype: Any, isa: str) -> None:
    problem = ConvProblem.parse(spelling)
    a = oracle.operands(problem, np.random.default_rng(1), dtype, kind="normal")
    for direction in DIRECTIONS:
        for bias in (True, False):
            check(problem, direction, *arguments(direction, a, bias))


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_every_length_of_tile(dtype: Any, isa: str) -> None:
    """Which one is chosen depends on the extents."""
    found = set()
    for taps in (4, 9, 17, 25, 33, 48, 65, 97, 129, 256):
        for extent in (taps, taps + 3, 2 * taps):
            problem = ConvProblem.parse(f"n1g1ic2iw{extent}oc3kw{taps}")
            a = oracle.operands(problem, np.random.default_rng(1), dtype, kind="normal")
            for direction in DIRECTIONS:
                found.add(lengths_of(problem, direction, dtype)[1])
                check(problem, direction, *arguments(direction, a))
    assert {8, 16, 24, 32, 48, 64, 96, 128, 256} <= found


@st.composite
def problems(draw: st.DrawFn) -> ConvProblem:
    """Any problem that the card accepts, of moderate size."""
    most = draw(st.sampled_from([7, 20]))
    kernel = [draw(st.integers(1, most)) for _ in range(2)]
    kernel[draw(st.integers(0, 1))] += 1  # one axis has taps
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels = st.sampled_from([1, 2, 7, 8, 9, 15, 16, 17, 31, 33])
    shape = [draw(st.integers(1, 41)) for _ in range(2)]
    pads = [
        (draw(st.integers(0, k)), draw(st.integers(0, k))) if k > 1 else (0, 0)
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
    st.sampled_from(oracle.DTYPES),
    st.sampled_from(["normal", "positive", "scaled"]),
    st.sampled_from(cpu.available()),
)
def test_any_problem_is_within_the_bound(
    problem: ConvProblem, dtype: Any, data: str, isa: str
) -> None:
    """Also where a tile has data of very different sizes."""
    rng = np.random.default_rng(0)
    a = oracle.operands(problem, rng, dtype, kind="normal")
    for direction in DIRECTIONS:
        arrays = arguments(direction, a)
        if data == "positive":
            arrays = tuple(np.abs(array) for array in arrays)
        if data == "scaled":
            arrays = tuple(
                array * (10.0 ** rng.integers(-6, 7, array.shape)).astype(dtype)
                for array in arrays
            )
        with cpu.use(isa):
            check(problem, direction, *arrays)


@pytest.mark.parametrize(
    ("dtype", "large", "small"),
    [
        (np.float32, large, small)
        for large in (1.0, 1e20, 1e30, 3e37)
        for small in (1e-41, 1e-38, 1e-30)
    ]
    + [
        (np.float64, large, small)
        for large in (1.0, 1e200, 1e300, 1e305)
        for small in (1e-320, 1e-308, 1e-300)
    ],
)
def test_factors_at_the_ends_of_the_range(
    dtype: Any, large: float, small: float, isa: str
) -> None:
    """No digits of weights, or dy, get lost in a transform that a direct sum keeps."""
    for spelling in ("n2g1ic5ih17oc20kh7ph3", "n1g1ic8iw333oc9kw33pw1"):
        problem = ConvProblem.parse(spelling)
        a = oracle.operands(problem, np.random.default_rng(1), dtype, kind="normal")
        for direction in DIRECTIONS:
            one, two, *bias = arguments(direction, a, bias=False)
            arrays = one * dtype(large), two * dtype(small), *bias
            check(problem, direction, one * dtype(small), two * dtype(large), *bias)
            check(problem, direction, *arrays)
            exact = plan.select(problem, direction, dtype.__name__, "fft").exact()
            found = compute(problem, "fft", direction, *arrays)
            right = compute(problem, exact.algorithm, direction, *arrays)
            if large * small >= np.finfo(dtype).tiny:
                error = np.abs(found - right).max() / np.abs(right).max()
                assert error < 16 * np.finfo(dtype).eps, direction


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_values_stay_in_their_receptive_field(value: float, isa: str) -> None:
    """Wherever in a tile they are: what is not finite, and what transforms overflow."""
    problem = ConvProblem.parse("n2g1ic3ih11oc5kh7ph3")
    clean = oracle.operands(problem, np.random.default_rng(0), kind="normal")
    for y in range(0, 11, 2):
        for x in range(11):
            a = oracle.operands(problem, np.random.default_rng(0), kind="normal")
            a.x[1, 2, y, x] = a.grad_y[1, 4, y, x] = value
            for direction in DIRECTIONS:
                arrays = arguments(direction, a)
                with np.errstate(all="ignore"):
                    right = oracle.run(problem, direction, *arrays)
                found = compute(problem, "fft", direction, *arrays)
                what = f"{direction} at {y}, {x}"
                finite = np.isfinite(right)
                np.testing.assert_array_equal(np.isnan(found), np.isnan(right), what)
                np.testing.assert_array_equal(found[~finite], right[~finite], what)
                if direction != "wgrad":
                    whole = compute(
                        problem, "fft", direction, *arguments(direction, clean)
                    )
                    oracle.assert_bits_equal(found[0], whole[0], what)


def test_weights_that_are_not_finite(isa: str) -> None:
    """They are what they are without transforms."""
    problem = ConvProblem.parse("n2g1ic3ih8oc5kh5ph1")
    a = oracle.operands(problem, np.random.default_rng(0), kind="normal")
    for value in (np.nan, np.inf):
        a.w[4, 1, 0, 2] = value
        for direction in ("fprop", "dgrad"):
            arrays = arguments(direction, a)
            exact = plan.select(problem, direction, "float32", "fft").exact().algorithm
            oracle.assert_bits_equal(
                compute(problem, "fft", direction, *arrays),
                compute(problem, exact, direction, *arrays),
            )


def test_large_finite_data_do_not_overflow(isa: str) -> None:
    """Sums of a transform would be infinite where the result is not."""
    problem = ConvProblem.parse("n1g1ic2ih9oc2kh7ph3")
    x = np.full(problem.x_shape, 3e38, np.float32)
    x[:, 1] = -3e38
    w = np.ones(problem.weight_shape, np.float32)
    y = F.conv2d(x, w, padding=3, algorithm="fft")
    oracle.assert_bits_equal(y, F.conv2d(x, w, padding=3, algorithm="direct"))


def test_relu_comes_after_the_check(isa: str) -> None:
    problem = replace(ConvProblem.parse("n1g1ic3ih9oc4kh7ph3"), relu=True)
    a = oracle.operands(problem, np.random.default_rng(0), kind="normal")
    a.x[0, 0, 4, 4] = -np.inf
    y = compute(problem, "fft", "fprop", *arguments("fprop", a))
    right = reference.conv(problem, a.x, a.w, a.b)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(right))
    np.testing.assert_allclose(y, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_bits_do_not_depend_on_the_thread_count(
    direction: oracle.Direction, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spelling in (
        "n7g1ic40ih14oc96kh7ph3",
        "n3g1ic33ih56oc16kh7ph3",
        "n1g1ic16iw3000oc70kw64",
    ):
        problem = ConvProblem.parse(spelling)
        a = oracle.operands(problem, np.random.default_rng(2), kind="normal")
        arrays = arguments(direction, a)
        monkeypatch.setattr(threads, "team", lambda work: 1)
        alone = compute(problem, "fft", direction, *arrays)
        for count in (2, 3, 8):
            monkeypatch.setattr(threads, "team", lambda work, count=count: count)
            oracle.assert_bits_equal(compute(problem, "fft", direction, *arrays), alone)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_kept_spectra_follow_the_lengths_of_tiles(dtype: Any, isa: str) -> None:
    """They depend on the extents; the results do not depend on what is kept."""
    kept = PackedWeight()
    for extent in (9, 30, 60, 31, 10):
        problem = ConvProblem.parse(f"n2g1ic5ih{extent}oc20kh7ph3")
        a = oracle.operands(problem, np.random.default_rng(0), dtype, kind="normal")
        kept.renew(extent)
        for direction in ("fprop", "dgrad"):
            chosen = plan.select(problem, direction, np.dtype(dtype).name, "fft")
            assert chosen.packing is not None
            assert chosen.packing[-2:] == lengths_of(problem, direction, dtype)
            packed = kept.of(chosen, a.w)
            source = a.x if direction == "fprop" else a.grad_y
            shape = problem.y_shape if direction == "fprop" else problem.x_shape
            out = np.full(shape, np.nan, dtype)
            room = np.full(chosen.scratch_bytes(2, True) + 64, 255, np.uint8)
            chosen.kernel(chosen.geometry, source, packed, None, out, room, 2)
            right = compute(problem, "fft", direction, source, a.w, None)
            oracle.assert_bits_equal(out, right)


@given(
    st.sampled_from(
        [(1, 7), (3, 3), (7, 7), (15, 15), (31, 31), (48, 48), (1, 256), (100, 1)]
    ),
    st.sampled_from([1, 16, 60, 500, 2000]),
    st.sampled_from([1, 16, 40, 500]),
    st.sampled_from([4, 8]),
)
def test_scratch_is_bounded(kernel: tuple[int, int], c: int, m: int, item: int) -> None:
    """At most 8 MB for each further thread."""
    shape = [2 * k + 30 for k in kernel]
    problem = ConvProblem.conv("conv2d", (3, c, *shape), (m, c, *kernel))
    card = next(card for card in algorithms.CONV if card.name == "fft")
    for direction in DIRECTIONS:
        if not card.accepts(problem.folded, direction).yes:
            continue
        module = load(card.kernels[direction].module, cpu.isa())
        one, two = (
            module.scratch_size(array("q", problem.folded.geometry), direction, item, t)
            for t in (1, 2)
        )
        assert (two - one) * item <= 8 << 20


@pytest.mark.parametrize(
    "spelling",
    ["n2g1ic400ih8oc900kh3ph1", "n2g2ic800ih7oc1000kh3ph1", "n1g2ic800ih5oc1800kh3ph1"],
)
def test_spectra_of_many_weights_come_set_by_set(spelling: str, isa: str) -> None:
    """So scratch is bounded, nothing is kept, and bits are those of any thread count."""
    problem = ConvProblem.parse(spelling)
    a = oracle.operands(problem, np.random.default_rng(3), kind="normal")
    for direction in ("fprop", "dgrad"):
        chosen = plan.select(problem, direction, "float32", "fft", kept=True)
        assert chosen.packing is None
        assert chosen.scratch_bytes(1) < 142 << 20
        source, weight, bias = arguments(direction, a)
        check(problem, direction, source, weight, bias)
        found = []
        for team in (1, 2, 3):
            y = np.full_like(a.grad_y if direction == "fprop" else a.x, np.nan)
            room = np.full(chosen.scratch_bytes(team) + 64, 255, np.uint8)
            chosen.kernel(chosen.geometry, source, weight, bias, y, room, team)
            found.append(y)
            oracle.assert_bits_equal(y, found[0])
        packed = np.empty(8, np.uint8)
        pack = getattr(load("conv_fft", isa), f"pack_{direction}")
        with pytest.raises(ValueError, match="size of its problem"):
            pack(chosen.geometry, weight, packed, 1)


@given(
    st.sampled_from([(3, 3), (7, 7), (15, 15), (48, 48), (1, 100), (256, 1)]),
    st.sampled_from([16, 300, 1100, 4000, 8000]),
    st.sampled_from([1, 16, 300]),
    st.sampled_from([4, 8]),
    st.integers(1, 4),
)
def test_scratch_with_spectra_is_bounded(
    kernel: tuple[int, int], c: int, m: int, item: int, team: int
) -> None:
    """At most 128 MB, and 8 MB for each thread."""
    shape = [2 * k + 30 for k in kernel]
    problem = ConvProblem.conv("conv2d", (3, c, *shape), (m, c, *kernel))
    card = next(card for card in algorithms.CONV if card.name == "fft")
    if not card.accepts(problem.folded, "fprop").yes:
        return
    geometry = array("q", problem.folded.geometry)
    module = load("conv_fft", cpu.isa())
    for direction in ("fprop", "dgrad"):
        scalars = module.scratch_size(geometry, direction, item, team)
        assert scalars * item <= (128 + 8 * team) << 20


def test_weights_whose_spectra_are_too_many_are_not_kept(isa: str) -> None:
    for spelling, kept in (
        ("n1g1ic64ih56oc64kh7", True),
        ("n1g1ic512ih56oc512kh7", False),
    ):
        problem = ConvProblem.parse(spelling)
        for direction in ("fprop", "dgrad"):
            chosen = plan.select(problem, direction, "float32", "fft", kept=True)
            assert (chosen.packing is not None) == kept


def test_strict_precision_never_transforms() -> None:
    from convcore import precision

    problem = ConvProblem.parse("n16g1ic64ih56oc64kh9ph4")
    for direction in DIRECTIONS:
        assert plan.select(problem, direction, "float32").algorithm == "fft"
        assert plan.select(problem, direction, "float64").algorithm == "direct"
        assert plan.select(problem, direction, "float64", "fft").algorithm == "fft"
        with precision("strict"):
            assert plan.select(problem, direction, "float32").algorithm == "direct"
