"""Convolution by Fourier transforms of tiles, against its definition."""

import itertools
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import algorithms, plan
from convcore.functional.call import PackedWeight
from convcore.kernels import load
from convcore.problem import ConvProblem
from convcore.reference import fft
from convcore.runtime import cpu
from tests import oracle
from tests.conv_helpers import arguments, compute
from tests.transform_helpers import DIRECTIONS, FFT, check, folded, hold, lengths_of


@pytest.mark.parametrize("taps", [1, 3, 8])
def test_a_tile_of_the_definition(taps: int) -> None:
    rng = np.random.default_rng(0)
    d, w = rng.standard_normal(8), rng.standard_normal(taps)
    expected = np.convolve(d, w[::-1], "valid")
    np.testing.assert_allclose(fft.correlate(d, w), expected, atol=1e-14)


@pytest.mark.parametrize("spelling", FFT.cases)
@pytest.mark.parametrize("longer", [0, 1, 6])
def test_definition_agrees_with_the_reference(spelling: str, longer: int) -> None:
    problem = ConvProblem.parse(spelling)
    lengths = [k + longer for k in problem.folded.kernel[1:]]
    a = oracle.operands(problem, np.random.default_rng(0), np.float64, kind="normal")
    for direction in DIRECTIONS:
        arrays = arguments(direction, a, bias=False)[:2]
        right = oracle.run(problem, direction, *arrays)
        pair = folded(problem, direction, *arrays)
        found = fft.convolve(problem.folded, direction, *pair, lengths)
        np.testing.assert_allclose(found.reshape(right.shape), right, atol=1e-10)


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
                check(FFT, problem, direction, *arguments(direction, a))
    assert {8, 16, 24, 32, 48, 64, 96, 128, 256} <= found


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


@pytest.mark.parametrize(
    "kernel", [(1, 7), (3, 3), (7, 7), (15, 15), (31, 31), (48, 48), (1, 256), (100, 1)]
)
def test_scratch_is_bounded(kernel: tuple[int, int], isa: str) -> None:
    """8 MB for each thread, and for all of them as much together, beside the spectra.

    How much one takes depends on how many there are: that decides about their tasks.
    """
    shape = [2 * k + 30 for k in kernel]
    card = next(card for card in algorithms.CONV if card.name == "fft")
    for c, m, item in itertools.product(
        (1, 16, 60, 500, 2000), (1, 16, 40, 500), (4, 8)
    ):
        problem = ConvProblem.conv("conv2d", (3, c, *shape), (m, c, *kernel))
        geometry = array("q", problem.folded.geometry)
        for direction in DIRECTIONS:
            if not card.accepts(problem.folded, direction).yes:
                continue
            module = load(card.kernels[direction].module, isa)
            spectra = 0 if direction == "wgrad" else 128 << 20
            if spectra and (kept := module.packed_size(geometry, direction, item)):
                spectra = kept * item
            for team in (1, 2, 3, 4, 8):
                size = module.scratch_size(geometry, direction, item, team) * item
                what = f"{direction} of {problem}, {item} bytes, {team} threads"
                assert size <= spectra + (8 << 20) * (team + 1), what


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
        found = []
        for team in (1, 2, 3):
            y = np.full_like(a.grad_y if direction == "fprop" else a.x, np.nan)
            room = np.full(chosen.scratch_bytes(team) + 64, 255, np.uint8)
            chosen.kernel(chosen.geometry, source, weight, bias, y, room, team)
            found.append(y)
            oracle.assert_bits_equal(y, found[0])
        hold(found[0], FFT, problem, direction, source, weight, bias)
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
