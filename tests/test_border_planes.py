"""Borders that are no zeros, in the cards that read planes where they lie, or transposed.

Every mode against the reference, exactly on integers; padding wider than the array; rows
with ends that are patched (few results), copied (many) or split (stride 2); long lines.
"""

from dataclasses import replace

import numpy as np
import pytest

from convcore import algorithms, plan, reference
from convcore.problem import ConvProblem
from convcore.problem.border import BORDERS
from convcore.runtime import threads
from tests import oracle
from tests.conv_helpers import compute

MODES = BORDERS[1:]
PLANES = (
    "n2g3ic3ih9iw37oc3kh3ph1",
    "n1g1ic2ih5iw67oc3kh5kw3ph2_4pw1_3",
    "n1g2ic2ih3iw2oc4kh3kw5ph4_5pw6_7",
    "n1g1ic1ih8iw21oc1kh7kw3ph3pw2dw2",
    "n2g1ic2ih11iw20oc6kh3ph1",
    "n1g1ic1ih7iw18oc9kh3kw2ph2_0pw9_10",
    "n1g1ic3ih13iw41oc3kh3sh2ph1",
    "n1g1ic2ih6iw9oc3kh5kw7sh1sw2ph3pw4_5",
    "n2g1ic2ih9iw33oc1kh5kw3sh2sw1ph2pw1",
    "n1g1ic1id3ih4iw19oc2kd3kh2kw3pd1ph1_0pw1",
    "n2g1ic2iw400oc3kw3pw1",
    "n1g1ic1iw150oc1kw5sw2pw7_2",
)
DEPTHWISE = (
    "n2g19ic19ih7oc19kh3ph1",
    "n1g5ic5ih30iw41oc5kh3ph1",
    "n1g4ic4ih33iw38oc4kh5kw3sh2ph2_6pw1_9",
    "n2g17ic17ih3iw4oc17kh3ph7_8pw9_10dh2",
)

RINGED = (  # one channel a group: the kernels fold gradients of x themselves
    *DEPTHWISE,
    "n2g3ic3ih9iw37oc3kh3ph1",
    "n1g2ic2ih3iw2oc2kh3kw5ph4_5pw6_7",
    "n1g1ic1ih8iw21oc1kh7kw3ph3pw2dw2",
    "n1g2ic2ih13iw41oc2kh3kw4sh1sw2ph1pw3_4",
    "n2g1ic1iw50oc1kw3pw3_1",
    "n1g1ic1ih2iw90oc1kh1kw5ph1_0pw2",
    "n1g2ic2ih80iw90oc2kh7ph3",  # a plane is cut into parts
)
BESIDE = tuple(mode for mode in MODES if mode != "constant")


def bordered(spelling: str, mode: str) -> ConvProblem:
    return ConvProblem.parse(spelling + mode + ("1.5" if mode == "constant" else ""))


def check(name: str, problem: ConvProblem, seed: int, dtype: type) -> None:
    a = oracle.operands(problem, np.random.default_rng(seed), dtype)
    y = compute(problem, name, "fprop", a.x, a.w, a.b)
    np.testing.assert_array_equal(y, reference.conv(problem, a.x, a.w, a.b))
    dw = compute(problem, name, "wgrad", a.x, a.grad_y)
    right = reference.conv_grad_weight(problem, a.x, a.grad_y)
    np.testing.assert_array_equal(dw, right)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_exact(mode: str, isa: str) -> None:
    for seed, spelling in enumerate(PLANES):
        check("planes", bordered(spelling, mode), seed, oracle.DTYPES[seed % 2])
    for seed, spelling in enumerate(DEPTHWISE):
        check("depthwise", bordered(spelling, mode), seed, oracle.DTYPES[seed % 2])


@pytest.mark.parametrize("mode", BESIDE)
def test_gradients_of_x_are_folded_where_they_are_made(mode: str, isa: str) -> None:
    for seed, spelling in enumerate(RINGED):
        problem = bordered(spelling, mode)
        a = oracle.operands(
            problem, np.random.default_rng(seed), oracle.DTYPES[seed % 2]
        )
        right = reference.conv_grad_x(problem, a.grad_y, a.w)
        for name in ("planes", "depthwise"):
            assert plan.select(problem, "dgrad", a.x.dtype.name, name).folds
            dx = compute(problem, name, "dgrad", a.grad_y, a.w)
            np.testing.assert_array_equal(dx, right, f"{name} {problem}")


def test_far_paddings_and_groups_are_folded_by_others() -> None:
    for spelling in ("n1g2ic2ih5oc2kh3ph700", "n1g2ic4ih5oc4kh3ph1"):
        assert not plan.select(bordered(spelling, "reflect"), "dgrad", "float32").folds
    constant = bordered(DEPTHWISE[0], "constant")
    assert not plan.select(constant, "dgrad", "float32").folds


@pytest.mark.parametrize("mode", ["constant", "reflect", "circular"])
def test_bits_depend_on_neither_threads_nor_batch(
    mode: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, spelling in (
        *(("planes", PLANES[i]) for i in (0, 4, 6, 10)),
        ("depthwise", DEPTHWISE[0]),
        ("depthwise", DEPTHWISE[1]),
        ("planes", RINGED[-1]),
    ):
        problem = replace(bordered(spelling, mode), n=3)
        a = oracle.operands(problem, np.random.default_rng(1), kind="normal")
        alone = [
            compute(replace(problem, n=1), name, "fprop", x[None], a.w, None)
            for x in a.x
        ]
        dw = compute(problem, name, "wgrad", a.x, a.grad_y)
        dx = compute(problem, name, "dgrad", a.grad_y, a.w)
        first = replace(problem, n=1)
        alone_dx = compute(first, name, "dgrad", a.grad_y[:1], a.w)
        oracle.assert_bits_equal(dx[:1], alone_dx)
        for count in (1, 2, 5):
            monkeypatch.setattr(threads, "team", lambda work, count=count: count)
            whole = compute(problem, name, "fprop", a.x, a.w, None)
            oracle.assert_bits_equal(whole, np.concatenate(alone))
            again = compute(problem, name, "wgrad", a.x, a.grad_y)
            oracle.assert_bits_equal(again, dw)
            folded = compute(problem, name, "dgrad", a.grad_y, a.w)
            oracle.assert_bits_equal(folded, dx)
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["planes", "depthwise"])
def test_nan_stays_in_the_fields_that_see_it(name: str, isa: str) -> None:
    for mode in MODES:
        problem = bordered("n1g2ic2ih6iw21oc2kh3ph1", mode)
        a = oracle.operands(problem, np.random.default_rng(2))
        a.w[...] = 1
        a.x[0, 0, 1, 19] = np.nan
        y = compute(problem, name, "fprop", a.x, a.w, None)
        right = reference.conv(problem, a.x, a.w, None)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(right))


def test_cards_take_every_mode() -> None:
    cards = {card.name: card for card in algorithms.CONV}
    for mode in MODES:
        for name, spelling in (("planes", PLANES[0]), ("depthwise", DEPTHWISE[0])):
            problem = bordered(spelling, mode)
            for direction in ("fprop", "wgrad"):
                assert cards[name].accepts(problem.folded, direction).yes
