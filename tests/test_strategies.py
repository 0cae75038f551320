"""Strategies draw what they promise: legal problems, and every kind of them."""

import math
import random
from collections.abc import Callable
from operator import sub

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis.strategies import SearchStrategy

from convcore.problem import ConvProblem, PoolProblem
from tests.strategies import (
    Call,
    conv_calls,
    conv_transpose_calls,
    pool_calls,
    pool_problems,
)


def example(calls: SearchStrategy[Call], wanted: Callable[[Call], bool]) -> Call:
    """Draw calls until one is wanted, always the same ones."""
    limits = settings(max_examples=5000, phases=[Phase.generate], database=None)
    return find(calls, wanted, settings=limits, random=random.Random(0))


def reach(problem: ConvProblem | PoolProblem) -> list[int]:
    sizes = zip(problem.kernel, problem.dilation, strict=True)
    return [(k - 1) * d + 1 for k, d in sizes]


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(
    "wanted",
    [
        lambda c: c.problem.n == 0,
        lambda c: c.problem.g > 1 and c.problem.ic == c.problem.g == c.problem.oc,
        lambda c: c.problem.ic == c.problem.g > 1 and c.problem.oc == 2 * c.problem.g,
        lambda c: c.problem.g == 2 and c.problem.ic == 6,
        lambda c: c.keywords["padding"] == "valid" and max(c.problem.kernel) > 1,
        lambda c: c.keywords["padding"] == "same" and max(c.problem.stride) > 1,
        lambda c: c.keywords["padding"] == "full" and max(c.problem.dilation) > 1,
        lambda c: any(lo != hi for lo, hi in c.problem.padding),
        lambda c: any(
            lo >= r
            for (lo, _), r in zip(c.problem.padding, reach(c.problem), strict=True)
        ),
        lambda c: any(
            s > k for s, k in zip(c.problem.stride, c.problem.kernel, strict=True)
        ),
        lambda c: math.prod(c.problem.out_extent) == 1 and c.problem.taps > 2,
    ],
    ids=[
        "empty",
        "depthwise",
        "multiplier",
        "grouped",
        "valid",
        "same",
        "full",
        "lopsided",
        "outside",
        "gaps",
        "single",
    ],
)
def test_conv_calls_reach(ndim: int, wanted: Callable[[Call], bool]) -> None:
    call = example(conv_calls((ndim,)), wanted)
    assert call.ndim == call.problem.ndim == ndim
    again = ConvProblem.conv("f", call.x_shape, call.weight_shape, **call.keywords)
    assert again == call.problem


def test_conv_calls_take_the_channels_of_a_tile() -> None:
    calls = conv_calls((2,), channels=(13, 33), groups=(1,))
    assert example(calls, lambda c: c.problem.ic == 13).problem.g == 1
    assert example(calls, lambda c: c.problem.ic == 33).problem.g == 1


@given(conv_transpose_calls())
def test_transposed_calls_make_their_problem(call: Call) -> None:
    assert call.problem.y_shape == call.x_shape
    assert min(call.problem.in_extent) >= 1


@pytest.mark.parametrize(
    "wanted",
    [
        lambda c: max(c.keywords["output_padding"]) > 0,
        lambda c: (
            max(map(sub, c.keywords["output_padding"], c.keywords["stride"])) >= 0
        ),
        lambda c: math.prod(c.problem.in_extent) == 1,
    ],
    ids=["longer", "longer-than-stride", "single"],
)
def test_transposed_calls_reach(wanted: Callable[[Call], bool]) -> None:
    assert wanted(example(conv_transpose_calls(), wanted))


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(
    "wanted",
    [
        lambda c: c.problem.n == 0,
        lambda c: c.keywords["ceil_mode"] and max(c.problem.stride) > 1,
        lambda c: c.keywords["stride"] is None and max(c.problem.kernel) > 1,
        lambda c: any(lo != hi for lo, hi in c.problem.padding),
        lambda c: max(c.problem.dilation) > 1 and max(c.problem.kernel) > 1,
    ],
    ids=["empty", "ceil", "default-stride", "lopsided", "dilated"],
)
def test_pool_calls_reach(ndim: int, wanted: Callable[[Call], bool]) -> None:
    call = example(pool_calls((ndim,)), wanted)
    assert call.problem.ndim == ndim
    assert PoolProblem.pool("f", call.x_shape, **call.keywords) == call.problem


@given(pool_calls(max_dilation=1))
def test_pool_calls_without_dilation_suit_average_pooling(call: Call) -> None:
    assert call.problem.dilation == (1, 1, 1)
    assert "dilation" not in call.keywords


@given(pool_problems((1, 2), max_channels=2))
def test_pool_problems_are_pool_problems(problem: PoolProblem) -> None:
    assert isinstance(problem, PoolProblem)
    assert problem.c <= 2
