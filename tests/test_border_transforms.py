"""Algorithms that transform their operands, where x goes on beyond its border."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from convcore.problem import ConvProblem
from convcore.problem.border import BORDERS, Border
from convcore.reference.pad import pad
from convcore.runtime import threads
from tests import oracle
from tests.conv_helpers import arguments, compute
from tests.transform_helpers import FFT, WINOGRAD, WINOGRAD2, Transform, allowed

MODES = [mode for mode in BORDERS if mode != "zeros"]
DIRECTIONS: tuple[oracle.Direction, ...] = ("fprop", "wgrad")
# One tile; borders wider than x; several boxes along y and along x; phases; lines.
OF_THREE_TAPS = (
    "n2g1ic3ih7iw9oc2kh3ph1",
    "n1g1ic2ih3iw4oc3kh3ph9_6pw2_11",
    "n1g1ic17ih37iw30oc3kh3ph2",
    "n1g1ic1iw700oc2kw3pw2_9",
    "n2g2ic4ih11iw14oc4kh3ph3_2pw5dh2dw3",
    "n2g1ic3ih12iw7oc2kh3kw1ph1pw2_0",
)
OF_MANY_TAPS = (
    "n2g1ic3ih7iw9oc2kh5ph2",
    "n1g1ic2ih3iw4oc3kh3kw4ph9_6pw2_11",
    "n1g1ic17ih41iw30oc3kh5ph4_3",
    "n1g1ic1iw700oc2kw33pw40_9",
    "n2g1ic3ih40iw7oc2kh21kw1ph11pw2_0",
)
CASES = {"winograd": OF_THREE_TAPS, "winograd2": OF_THREE_TAPS, "fft": OF_MANY_TAPS}

every_transform = pytest.mark.parametrize(
    "algorithm", [WINOGRAD, WINOGRAD2, FFT], ids=lambda a: a.name
)
every_mode = pytest.mark.parametrize("mode", MODES)


def bordered(case: str, mode: Border) -> ConvProblem:
    """A problem with something else than zeros around x."""
    value = -1.5 if mode == "constant" else 0.0
    return replace(ConvProblem.parse(case), border=mode, value=value)


def enlarged(problem: ConvProblem, x: Any) -> tuple[ConvProblem, Any]:
    """The same windows of x with its padding, which has none any more."""
    spatial = problem.padding[-problem.ndim :]
    padded = pad(x, spatial, problem.border, problem.value)
    d, h, w = (
        e + sum(p) for e, p in zip(problem.in_extent, problem.padding, strict=True)
    )
    none = ((0, 0), (0, 0), (0, 0))
    whole = replace(problem.core, in_extent=(d, h, w), padding=none)
    return whole, np.ascontiguousarray(padded)


@every_transform
@every_mode
def test_bits_are_those_of_x_with_its_padding(
    algorithm: Transform, mode: Border, isa: str
) -> None:
    """Of which the tiles are the same; test_transforms.py holds them to their bound."""
    for number, case in enumerate(CASES[algorithm.name]):
        problem, dtype = bordered(case, mode), oracle.DTYPES[number % 2]
        a = oracle.operands(problem, np.random.default_rng(1), dtype, kind="normal")
        whole, padded = enlarged(problem, a.x)
        for direction in DIRECTIONS:
            arrays = arguments(direction, a)
            oracle.assert_bits_equal(
                compute(problem, algorithm.name, direction, *arrays),
                compute(whole, algorithm.name, direction, padded, *arrays[1:]),
                f"{algorithm.name} {direction} of {problem}",
            )


@every_transform
@every_mode
def test_every_mode_is_within_the_bound(
    algorithm: Transform, mode: Border, isa: str
) -> None:
    problem = bordered("n2g1ic3ih7iw9oc2kh3ph2_1", mode)
    a = oracle.operands(problem, np.random.default_rng(1), kind="normal")
    whole, padded = enlarged(problem, a.x)
    for direction in DIRECTIONS:
        arrays = arguments(direction, a, bias=False)
        wide = [None if b is None else b.astype(np.float64) for b in arrays]
        oracle.assert_within(
            compute(problem, algorithm.name, direction, *arrays),
            oracle.run(problem, direction, *wide),
            allowed(algorithm, whole, direction, padded, *arrays[1:]),
            np.float32,
            f"{algorithm.name} {direction} of {problem}",
        )


@every_transform
@every_mode
def test_bits_do_not_depend_on_threads_and_batch(
    algorithm: Transform, mode: Border, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = bordered("n3g1ic17ih34iw30oc19kh3ph2", mode)
    a = oracle.operands(problem, np.random.default_rng(2), kind="normal")
    for direction in DIRECTIONS:
        arrays = arguments(direction, a)
        monkeypatch.setattr(threads, "team", lambda work: 1)
        alone = compute(problem, algorithm.name, direction, *arrays)
        monkeypatch.setattr(threads, "team", lambda work: 3)
        found = compute(problem, algorithm.name, direction, *arrays)
        oracle.assert_bits_equal(found, alone)
        if direction == "fprop":
            one = replace(problem, n=1)
            last = compute(one, algorithm.name, "fprop", a.x[2:], a.w, a.b)
            oracle.assert_bits_equal(last[0], alone[2])


@every_transform
@every_mode
def test_what_is_not_finite_is_seen_from_beyond_the_border(
    algorithm: Transform, mode: Border, isa: str
) -> None:
    """And from nowhere else."""
    problem = bordered("n2g1ic2ih11iw9oc3kh3ph3_1", mode)
    a = oracle.operands(problem, np.random.default_rng(3), kind="normal")
    a.x[1, 1, 1, 0] = np.nan
    arrays = arguments("fprop", a)
    right = oracle.run(problem, "fprop", *arrays)
    found = compute(problem, algorithm.name, "fprop", *arrays)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(right))
