"""Plans: which algorithm is chosen, and how that is explained."""

from array import array
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.problems import suite
from convcore import algorithms, plan, precision
from convcore import functional as F
from convcore.algorithms import costs
from convcore.plan import explanation
from convcore.problem import ConvProblem, PoolProblem
from convcore.runtime import cpu
from tests.cases import CASES

# A change of the planner's choices shows here, and so in review: of the four directions.
CHOICES = {
    "smallest": "dot dot dot dot",
    "empty batch": "planes planes planes gemm",
    "one output": "dot dot dot dot",
    "one output, grouped": "dot dot dot dot",
    "one output of many terms": "dot dot dot dot",
    "kernel wider than the input": "planes planes planes gemm",
    "padding beyond the kernel": "planes planes planes gemm",
    "padding on one side": "planes planes planes gemm",
    "stride beyond the kernel": "gemm phases direct gemm",
    "stride beyond the input": "dot dot dot dot",
    "strided, few channels": "direct taps direct gemm",
    "strided, few channels, dilated": "direct taps direct gemm",
    "strided beyond x, no tap": "gemm phases direct gemm",
    "rows that no window reaches": "gemm phases direct gemm",
    "stride and dilation with a common factor": "gemm phases direct gemm",
    "stride a multiple of the dilation": "gemm phases direct gemm",
    "dilation a multiple of the stride": "planes planes planes gemm",
    "dilation beyond the input": "planes planes planes gemm",
    "first layer": "direct taps direct gemm",
    "map of 7 pixels": "direct winograd winograd gemm",
    "map of 1 pixel, many samples": "dot dot dot dot",
    "pointwise": "direct gemm direct gemm",
    "pointwise volume": "gemm gemm direct gemm",
    "pointwise volume, few channels": "gemm gemm direct gemm",
    "volume, pointwise along planes": "direct direct direct gemm",
    "volume, pointwise along columns": "direct winograd direct gemm",
    "volume, pointwise along rows": "direct direct direct gemm",
    "pointwise, few channels of x": "gemm scatter direct gemm",
    "pointwise, strided": "direct direct direct gemm",
    "several blocks of terms": "planes direct direct gemm",
    "many terms, few outputs": "planes planes planes gemm",
    "grouped": "planes planes planes gemm",
    "depthwise": "planes planes planes gemm",
    "depthwise, multiplier 3": "planes planes direct gemm",
    "depthwise, rows beyond a tile": "planes planes planes gemm",
    "depthwise, rows left over": "planes planes planes gemm",
    "depthwise, no padding, multiplier 2": "planes planes planes gemm",
    "depthwise, 5x5, strided": "planes planes planes gemm",
    "depthwise, 7x7": "planes planes planes gemm",
    "depthwise, 7x7, strided": "planes planes planes gemm",
    "depthwise, 4x2": "planes planes planes gemm",
    "depthwise, 2x2, strided": "planes planes planes gemm",
    "depthwise, many taps": "planes planes planes gemm",
    "depthwise, strided along rows only": "planes planes planes gemm",
    "depthwise, strided along columns only": "planes planes planes gemm",
    "depthwise, stride 3 of rows": "planes planes planes gemm",
    "depthwise, dilated": "planes planes planes gemm",
    "depthwise, dilation beyond the plane": "planes planes planes gemm",
    "depthwise, dilation 3, stride 2": "planes planes planes gemm",
    "depthwise, dilation 2, stride 2": "planes planes planes gemm",
    "depthwise, odd width, strided": "planes planes planes gemm",
    "depthwise, padding on one side": "planes planes planes gemm",
    "depthwise, a block of channels": "depthwise depthwise depthwise gemm",
    "depthwise, blocks and a rest": "depthwise depthwise depthwise gemm",
    "depthwise, blocks, strided": "depthwise depthwise depthwise gemm",
    "depthwise, blocks, 5x5, strided": "depthwise depthwise depthwise gemm",
    "depthwise, blocks, several boxes": "depthwise depthwise depthwise gemm",
    "depthwise, blocks, dilated": "depthwise depthwise depthwise gemm",
    "depthwise, blocks, strided and dilated": "depthwise depthwise depthwise gemm",
    "depthwise, blocks of 1 pixel": "depthwise depthwise depthwise gemm",
    "depthwise, blocks, pointwise, strided": "depthwise depthwise depthwise gemm",
    "depthwise, blocks, stride beyond x": "depthwise depthwise depthwise gemm",
    "depthwise, blocks, padding on one side": "depthwise depthwise depthwise gemm",
    "depthwise, blocks, strided along rows only": "depthwise depthwise depthwise gemm",
    "depthwise, blocks, strided along columns only": "depthwise depthwise depthwise gemm",
    "depthwise, blocks, many taps": "depthwise depthwise depthwise gemm",
    "depthwise, blocks, a long row": "planes planes planes gemm",
    "depthwise, blocks, chunks": "depthwise depthwise depthwise gemm",
    "blocks of one row, strided, dilated by 13": "depthwise depthwise depthwise gemm",
    "blocks of one row, phases without taps": "planes planes planes gemm",
    "blocks of one row, even dilation": "planes planes planes gemm",
    "stride far beyond the kernel, one task": "direct taps direct gemm",
    "stride far beyond the kernel, volume": "direct taps direct gemm",
    "depthwise signal": "planes planes planes gemm",
    "depthwise signal, strided": "planes planes planes gemm",
    "depthwise signal, dilated": "planes planes planes gemm",
    "depthwise volume": "planes planes planes gemm",
    "depthwise volume, strided": "planes planes planes gemm",
    "separable rows": "planes planes planes gemm",
    "separable columns": "planes planes planes gemm",
    "groups of 3": "planes planes planes gemm",
    "groups of 4": "planes planes planes gemm",
    "groups of 4, strided": "planes planes planes gemm",
    "groups of 4, strided, dilation 2": "planes planes planes gemm",
    "groups of 4, strided, dilation 3": "planes planes planes gemm",
    "groups of 16, strided": "direct direct direct gemm",
    "many channels to 3": "planes direct planes gemm",
    "many channels to 3, strided": "planes direct direct gemm",
    "groups of 8 to 5": "planes planes planes gemm",
    "few groups, several chunks": "planes planes planes gemm",
    "long signal": "gemm gemm direct gemm",
    "strided signal": "gemm phases direct gemm",
    "volume": "planes planes planes gemm",
    "volume, strided and dilated": "gemm gemm direct gemm",
    "several chunks of pixels": "planes planes planes gemm",
    "gradient mostly of padding": "direct scatter direct gemm",
    "gradient mostly of padding, strided": "direct scatter direct gemm",
    "gradient mostly of padding, signal": "direct scatter direct gemm",
    "gradient mostly of padding, volume": "direct scatter direct gemm",
    "gradient mostly of padding, volume, strided": "direct scatter direct gemm",
    "gradient mostly of padding, half vectors": "direct scatter direct gemm",
    "gradient of one channel, kernel as wide as x": "direct taps direct gemm",
    "gradient of few channels": "direct planes direct gemm",
    "gradient of few channels, 8 of a group": "direct planes direct gemm",
    "gradient of few channels, two bands": "direct taps direct gemm",
    "gradient of few channels, stride 3": "direct taps direct gemm",
    "gradient of few channels, strided and dilated": "direct taps direct gemm",
    "gradient of few channels, several chains": "direct taps direct gemm",
    "gradient of few channels, signal": "direct taps direct gemm",
    "gradient of few channels, volume": "direct taps direct gemm",
    "columns of one element": "direct direct direct gemm",
    "rows of one element, between": "direct planes direct gemm",
    "half a panel of channels": "planes winograd direct gemm",
    "a panel and a half of channels": "winograd2 winograd2 winograd gemm",
    "a row longer than a box": "direct direct direct gemm",
    "padding wider than the rows": "winograd winograd winograd gemm",
    "several tasks": "winograd winograd winograd gemm",
}
# What the layers of the benchmarks are computed by: y, grad_x, grad_weight.
LAYERS = {
    "n13g1ic3ih224oc64kh7sh2ph3": "direct taps direct",
    "n29g1ic64ih56oc256kh1": "direct direct direct",
    "n50g1ic64ih56oc64kh1": "direct direct direct",
    "n13g1ic64ih56oc64kh3ph1": "winograd winograd winograd",
    "n15g1ic256ih56oc512kh1sh2": "direct scatter direct",
    "n13g1ic128ih28oc128kh3ph1": "winograd winograd winograd",
    "n13g1ic256ih14oc256kh3ph1": "winograd winograd winograd",
    "n29g1ic256ih14oc1024kh1": "direct direct direct",
    "n13g1ic512ih7oc512kh3ph1": "winograd winograd winograd",
    "n29g1ic2048ih7oc512kh1": "direct direct direct",
    "n2g1ic128ih56oc128kh3sh2ph1": "direct scatter direct",
    "n14g1ic3ih227oc96kh11sh4": "direct taps direct",
    "n7g2ic96ih27oc256kh5ph2": "fft fft fft",
    "n10g1ic256ih13oc384kh3ph1": "winograd winograd winograd",
    "n17g1ic3ih224oc64kh3ph1": "planes taps direct",
    "n1g1ic64ih224oc64kh3ph1": "winograd winograd winograd",
    "n1g1ic256ih56oc256kh3ph1": "winograd winograd winograd",
    "n3g1ic512ih14oc512kh3ph1": "winograd winograd winograd",
    "n96g1ic16ih28oc32kh5ph2": "fft fft fft",
    "n43g1ic96ih14oc208kh3ph1": "winograd winograd winograd",
    "n32g1ic32ih112oc64kh1": "direct direct direct",
    "n29g1ic512ih14oc512kh1": "direct direct direct",
    "n1g32ic32ih112oc32kh3ph1": "planes planes planes",
    "n1g64ic64ih112oc64kh3sh2ph1": "depthwise planes depthwise",
    "n1g256ic256ih28oc256kh3ph1": "planes planes planes",
    "n1g1024ic1024ih7oc1024kh3ph1": "depthwise depthwise depthwise",
    "n1g1ic160ih16oc12kh3ph1": "winograd winograd2 winograd",
    "n6g32ic512ih56oc512kh3ph1": "winograd winograd winograd",
    "n6g32ic2048ih14oc2048kh3ph1": "winograd winograd winograd",
    "n1g1ic512ih38iw57oc512kh3ph3dh3": "winograd winograd winograd",
    "n4g1ic1ih161iw700oc32kh5kw20sh2": "direct taps direct",
    "n4g1ic32ih79iw341oc32kh5kw10sh2": "direct direct direct",
    "n16g1ic1ih48iw480oc16kh3ph1": "planes planes planes",
    "n12g1ic192ih28oc32kh5ph2": "fft fft fft",
    "n1g1ic128ih40iw175oc128kh3ph1": "winograd winograd winograd",
    "n3g1ic3ih128oc96kh11": "fft taps fft",
    "n1g1ic64ih64oc128kh9": "fft fft fft",
    "n2g1ic128ih32oc128kh9": "fft fft fft",
    "n19g1ic128ih16oc128kh7": "fft fft fft",
    "n9g1ic384ih13oc384kh3": "winograd winograd winograd",
    "n2g1ic3ih227oc48kh5sh2ph1dh2": "direct taps direct",
    "n2g2ic96ih57oc96kh5sh2ph1dh2": "direct scatter direct",
    "n1g64ic64ih112oc64kh3sh2ph1_2pw1_4dh2dw3": "planes planes planes",
    "n2g64ic512ih240oc512kh3sh2ph1": "planes planes planes",
    "n2g1ic4ih84oc16kh8sh4": "direct phases direct",
    "n2g1ic47id13oc37kd3ph0_1": "direct scatter direct",
    "n1g1ic1ih98iw28oc96kh19kw28": "direct taps direct",
    "n1g1ic144ih80iw1oc150kh5kw1ph2pw0": "direct direct direct",
    "n7g1ic128ih102iw19oc256kh3kw19": "direct scatter direct",
    "n1g1ic512iw300oc512kw3": "winograd winograd winograd",
    "n1g1ic512iw121oc512kw6pw3": "direct direct direct",
    "n2g1ic512iw19oc1024kw3pw6dw6": "winograd2 winograd2 direct",
    "n1g1ic160id16ih14oc320kd3pd1": "direct scatter direct",
    "n2g1ic256id32ih28oc128kd1": "direct direct direct",
    "n4g16ic64id8ih56oc128kd3pd1": "planes planes planes",
    "n1g184ic184id8ih14oc184kd5kh3pd2ph1": "planes planes planes",
    "n256g2ic96iw27oc256kw5pw2": "direct scatter direct",
    "n15g1ic512ih56oc256kh1sh2": "direct scatter direct",
    "n1g1ic256id10ih11oc512kd3": "direct scatter direct",
}
DIRECTIONS = ("fprop", "dgrad", "wgrad", "bgrad")
GOLDEN = {
    (name, direction): algorithm
    for name, choices in CHOICES.items()
    for direction, algorithm in zip(DIRECTIONS, choices.split(), strict=True)
}


def test_every_case_is_listed() -> None:
    assert CHOICES.keys() == CASES.keys()


@pytest.mark.parametrize(("name", "direction"), GOLDEN)
def test_choice(name: str, direction: str) -> None:
    problem = ConvProblem.parse(CASES[name])
    chosen = plan.select(problem, direction, "float32")
    assert chosen.algorithm == GOLDEN[name, direction]


def test_the_last_algorithms_take_everything() -> None:
    """Then `select` always finds one."""
    pool = PoolProblem.pool("f", (1, 1, 4), 2)
    for text in CASES.values():
        last = algorithms.CONV[-1]
        for direction in last.kernels:
            assert last.accepts(ConvProblem.parse(text), direction).yes
            assert last.prefers(ConvProblem.parse(text), direction).yes
    assert all(
        algorithms.POOL[-1].accepts(pool, d).yes for d in algorithms.POOL[-1].kernels
    )


def test_names_are_unique() -> None:
    for cards in (algorithms.CONV, algorithms.POOL):
        names = [card.name for card in cards]
        assert len(set(names)) == len(names)


def test_a_plan_is_made_once(isa: str) -> None:
    problem = ConvProblem.parse("n1g1ic3ih8oc4kh3")
    chosen = plan.select(problem, "fprop", "float64")
    assert chosen is plan.select(problem, "fprop", "float64")
    assert chosen.isa == isa == cpu.isa()
    assert isinstance(chosen.geometry, array)
    assert tuple(chosen.geometry) == problem.geometry


@pytest.mark.parametrize(
    "spelling",
    [
        "n8g1ic64ih224oc64kh3ph1",
        "n2g1ic2048ih14oc2048kh3ph1",
        "n1g1ic25088ih1oc4096kh1",
        "n1g1ic4096ih8oc64kh7ph3",
        "n1g1ic64iw1000000oc64kw9pw4",
        "n4g1ic3ih600oc96kh11sh4",
        "n2g1ic32id64ih64oc32kd3pd1",
        "n64g256ic256ih56oc256kh3ph1",
        "n1g64ic512id600ih14iw56oc64kd5kh5kw1sd4pd90dd36",
        "n8g1ic64id4ih14iw56oc64kd7kh7kw1sd3pd42dd12",
        "n64g1ic3id1500ih7iw1oc1kd3kh1kw3sd4pd1dd1",
        "n8g1ic2048ih65oc256kh3ph36dh36",
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scratch_is_bounded_by_tiles(spelling: str, dtype: str) -> None:
    """Never the whole matrix of patches: at most packed weights, and 8 MB a thread."""
    problem = ConvProblem.parse(spelling)
    item = 4 if dtype == "float32" else 8
    row = 128 // item  # scalars of the longest row of a tile
    ic, oc = problem.ic // problem.g, problem.oc // problem.g
    packed = item * max(  # for each group whole rows of weights, and a row of biases
        problem.g * (m + row - 1) * (c * problem.taps + 1)
        for m, c in ((ic, oc), (oc, ic))
    )
    for card in algorithms.CONV:
        for direction in card.kernels:
            if card.accepts(problem.folded, direction).yes:
                chosen = plan.select(problem, direction, dtype, card.name)
                sizes = [chosen.scratch_bytes(threads) for threads in (1, 2, 3)]
                own = chosen.packed_bytes() if card.transforms and chosen.packing else 0
                for threads, size in enumerate(sizes, 1):
                    assert size <= max(packed, own) + threads * (8 << 20), card.name
                    if chosen.packing:
                        kept = chosen.scratch_bytes(threads, packed=True)
                        assert kept == size - chosen.packed_bytes()


# What is estimated ------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_estimates_are_times(name: str) -> None:
    problem = ConvProblem.parse(CASES[name]).folded
    for card in algorithms.CONV:
        for direction in card.kernels:
            if card.accepts(problem, direction).yes:
                for kept in (False, True):
                    time = costs.seconds(card, problem, direction, "float32", kept)
                    assert 1e-7 < time < 10, (card.name, direction)
                kept_time = time
                assert kept_time <= costs.seconds(card, problem, direction)


def test_every_algorithm_has_prices_that_are_amounts() -> None:
    names = {f"{card.name} {way}" for card in algorithms.CONV for way in card.kernels}
    assert costs.PRICES.keys() == names
    for prices in costs.PRICES.values():
        assert prices.keys() <= set(costs.AMOUNTS)
        assert all(0 < price < 1e-3 for price in prices.values())


def test_what_was_never_measured_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    prices = {k: v for k, v in costs.PRICES.items() if not k.startswith("winograd ")}
    monkeypatch.setattr(costs, "PRICES", prices)
    plan.forget()
    problem = ConvProblem.parse(DENSE)
    assert plan.select(problem, "fprop", "float32").algorithm == "winograd2"
    assert "there is no estimate" in plan.explain(problem)
    monkeypatch.setattr(costs, "PRICES", {})
    plan.forget()
    assert plan.select(problem, "fprop", "float32").algorithm == "direct"
    plan.explain(problem)
    plan.forget()


def test_an_activation_and_the_rank_make_no_difference() -> None:
    for text in ("n2g1ic64ih28oc64kh3ph1", "n2g1ic64iw2800oc64kw3pw1"):
        problem = ConvProblem.parse(text)
        other = replace(problem, relu=True)
        plans = [plan.select(p, "fprop", "float32").algorithm for p in (problem, other)]
        assert plans[0] == plans[1]


# Precision, and kept weights --------------------------------------------------------

DENSE = "n8g1ic64ih56oc64kh3ph1"


@pytest.mark.parametrize("direction", ["fprop", "dgrad", "wgrad"])
def test_strict_choices_never_look_at_the_batch(direction: str) -> None:
    rows = [r.problem for name in ("core", "extra", "small") for r in suite(name)]
    cases = [ConvProblem.parse(text) for text in CASES.values()]
    problems = [p for p in (*rows, *cases) if isinstance(p, ConvProblem)]
    with precision("strict"):
        for problem in problems:
            plans = [
                plan.select(replace(problem, n=n), direction, dtype, kept=kept)
                for dtype in ("float32", "float64")
                for n in (1, 64)
                for kept in (False, True)
            ]
            assert len({p.algorithm for p in plans}) == 1, str(problem)


@pytest.mark.parametrize("direction", ["fprop", "dgrad", "wgrad"])
def test_only_fast_float32_transforms(direction: str) -> None:
    problem = ConvProblem.parse(DENSE)
    assert plan.select(problem, direction, "float32").algorithm == "winograd"
    assert plan.select(problem, direction, "float64").algorithm == "direct"
    with precision("strict"):
        assert plan.select(problem, direction, "float32").algorithm == "direct"
        named = plan.select(problem, direction, "float32", "winograd")
        assert named.algorithm == "winograd"


def test_a_transform_of_weights_pays_where_enough_share_it() -> None:
    """For one sample it is much of the work, unless a layer keeps the weights."""
    one = ConvProblem.parse("n1g1ic128ih7oc128kh3ph1")
    many = replace(one, n=64)
    card = next(card for card in algorithms.CONV if card.name == "winograd")

    def ratio(problem: ConvProblem) -> float:
        times = [costs.seconds(card, problem, "fprop", kept=k) for k in (False, True)]
        return times[0] / times[1]

    assert ratio(one) > 1.3 > 1.1 > ratio(many) > 1
    for kept in (False, True):
        chosen = plan.select(many, "fprop", "float32", kept=kept)
        assert chosen.algorithm == "winograd"


def test_large_weights_are_transformed_in_any_case() -> None:
    """They are never kept: transformed, they would not fit into a cache."""
    large = ConvProblem.parse("n4g1ic512ih7oc512kh3ph1")
    card = next(card for card in algorithms.CONV if card.name == "winograd")
    free, paid = (costs.seconds(card, large, "fprop", kept=k) for k in (False, True))
    assert free == paid
    assert plan.select(large, "fprop", "float32", "winograd").packing is None


def test_small_problems_are_never_transformed() -> None:
    problem = ConvProblem.parse("n1g1ic16ih6oc16kh3ph1")
    assert problem.macs < costs.LEAST
    assert plan.select(problem, "fprop", "float32").algorithm == "direct"


@pytest.mark.parametrize("text", [*CASES.values(), DENSE])
def test_what_computes_again_never_transforms(text: str) -> None:
    problem = ConvProblem.parse(text)
    for direction in DIRECTIONS:
        exact = plan.select(problem, direction, "float32").exact()
        cards = {card.name: card for card in algorithms.CONV}
        assert not cards[exact.algorithm].transforms


# What is said -----------------------------------------------------------------------


@pytest.mark.parametrize("text", LAYERS)
def test_choice_for_layers_of_the_benchmarks(text: str) -> None:
    problem = ConvProblem.parse(text)
    chosen = [
        plan.select(problem, direction, "float32").algorithm
        for direction in ("fprop", "dgrad", "wgrad")
    ]
    assert " ".join(chosen) == LAYERS[text]


def test_explain_lists_every_algorithm() -> None:
    text = plan.explain(ConvProblem.parse("n1g1ic3ih8oc4kh3"), "dgrad")
    lines = text.splitlines()
    assert lines[0] == ("n1g1ic3ih8oc4kh3 dgrad, 3888 multiply-adds; times: estimated")
    assert len(lines) == 1 + sum("dgrad" in card.kernels for card in algorithms.CONV)
    assert sum(line.startswith("*") for line in lines) == 1


def test_explain_gives_estimated_and_measured_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {"direct": 1.5e-3, "winograd": 0.5}
    monkeypatch.setattr(explanation, "measured_seconds", lambda *_: found)
    problem = ConvProblem.parse(DENSE)
    rows = {
        line[2:].split()[0]: line.split("ms")
        for line in plan.explain(problem, measure=True).splitlines()[1:]
    }
    estimates = {
        name: 1e3 * costs.seconds(card, problem, "fprop")
        for name, card in ((card.name, card) for card in algorithms.CONV)
        if name in rows and card.accepts(problem, "fprop").yes
    }
    for name, times in rows.items():
        assert len(times) == 1 + (name in estimates) + (name in found)
        if name in estimates:
            assert float(times[0].split()[-1]) == pytest.approx(
                estimates[name], rel=0.01
            )
    assert rows["direct"][1].split() == ["1.5"]
    assert rows["winograd"][1].split() == ["500"]


def test_explain_says_what_is_chosen() -> None:
    for text in (DENSE, *CASES.values()):
        problem = ConvProblem.parse(text)
        for direction in DIRECTIONS:
            for kept in (False, True):
                chosen = plan.select(problem, direction, "float32", kept=kept)
                words = plan.explain(problem, direction, kept=kept)
                assert f"\n* {chosen.algorithm} " in words


def test_explain_says_why_nothing_transforms() -> None:
    problem = ConvProblem.parse(DENSE)
    with precision("strict"):
        text = plan.explain(problem)
        assert "\n* direct " in text
        assert "leaves it: the precision is strict" in text
    assert "leaves it: only for float32" in plan.explain(problem, "fprop", "float64")
    small = ConvProblem.parse("n1g1ic16ih6oc16kh3ph1")
    assert "leaves it: fewer than 100000 multiply-adds" in plan.explain(small)


def test_explain_of_a_pooling_has_no_times() -> None:
    text = plan.explain(
        PoolProblem.pool("f", (1, 1, 4), 2, 1), "max_values", measure=True
    )
    assert "\n* flat " in text
    assert " ms" not in text


def test_a_name_that_does_not_accept_is_refused_by_the_function() -> None:
    x, w = np.ones((1, 3, 9, 9), np.float32), np.ones((4, 3, 5, 5), np.float32)
    message = "algorithm 'winograd' does not accept n1g1ic3ih9oc4kh5: the kernel is not"
    with pytest.raises(ValueError, match=message):
        F.conv2d(x, w, algorithm="winograd")


@pytest.mark.parametrize(
    ("direction", "algorithm", "message"),
    [
        ("sideways", "auto", "no algorithm has the direction 'sideways'"),
        (
            "fprop",
            "magic",
            "algorithm must be \"auto\" or one of 'dot', 'depthwise'.*'magic'",
        ),
    ],
)
def test_errors(direction: str, algorithm: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan.select(
            ConvProblem.parse("n1g1ic1ih3oc1kh3"), direction, "float32", algorithm
        )
