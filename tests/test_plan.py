"""Plans: which algorithm is chosen, and how that is explained."""

from array import array

import pytest

from convcore import algorithms, plan
from convcore.problem import ConvProblem, PoolProblem
from convcore.runtime import cpu
from tests.cases import CASES

# A change of the planner's choices shows here, and so in review.
# Many channels a group, or a stride that planes do not take; all others go to planes.
GEMM = {
    "first layer",
    "long signal",
    "map of 1 pixel, many samples",
    "map of 7 pixels",
    "pointwise",
    "pointwise, strided",
    "rows that no window reaches",
    "several blocks of terms",
    "several tasks",
    "stride a multiple of the dilation",
    "stride and dilation with a common factor",
    "stride beyond the input",
    "stride beyond the kernel",
    "strided beyond x, no tap",
    "strided signal",
    "strided, few channels",
    "strided, few channels, dilated",
    "volume, strided and dilated",
}
PHASES = {  # of those, the strided gradients of x with few channels
    "first layer",
    "rows that no window reaches",
    "stride a multiple of the dilation",
    "stride and dilation with a common factor",
    "stride beyond the input",
    "stride beyond the kernel",
    "strided beyond x, no tap",
    "strided signal",
    "strided, few channels",
    "strided, few channels, dilated",
}


def golden(name: str, direction: str) -> str:
    """The algorithm that is expected."""
    if direction == "dgrad" and name in PHASES:
        return "phases"
    return "gemm" if direction == "bgrad" or name in GEMM else "planes"


GOLDEN = {
    (name, direction): golden(name, direction)
    for name in CASES
    for direction in ("fprop", "dgrad", "wgrad", "bgrad")
}


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


def test_scratch_is_bounded_by_tiles() -> None:
    """Never the whole matrix of patches: at most packed weights and 8 MB a thread."""
    problem = ConvProblem.parse("n8g1ic64ih224oc64kh3ph1")
    weights = 64 * (64 * 9 + 1)
    for direction in ("fprop", "dgrad", "wgrad"):
        chosen = plan.select(problem, direction, "float32")
        two, three = chosen.scratch_size(2), chosen.scratch_size(3)
        assert (three - two) * 4 <= 8 << 20
        assert two * 4 <= 2 * weights * 4 + 2 * (8 << 20)


def test_explain_lists_every_algorithm() -> None:
    text = plan.explain(ConvProblem.parse("n1g1ic3ih8oc4kh3"), "dgrad")
    lines = text.splitlines()
    assert lines[0] == "n1g1ic3ih8oc4kh3 dgrad, 3888 multiply-adds"
    assert len(lines) == 1 + len(algorithms.CONV)
    assert sum(line.startswith("*") for line in lines) == 1


@pytest.mark.parametrize(
    ("direction", "algorithm", "message"),
    [
        ("sideways", "auto", "no algorithm has the direction 'sideways'"),
        ("fprop", "magic", "algorithm must be \"auto\" or one of 'planes'.*'magic'"),
    ],
)
def test_errors(direction: str, algorithm: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan.select(
            ConvProblem.parse("n1g1ic1ih3oc1kh3"), direction, "float32", algorithm
        )
