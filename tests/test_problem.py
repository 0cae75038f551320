"""Problems: shape rules, shape errors, folding, spelling."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from convcore.problem import ConvProblem, PoolProblem
from tests import oracle, strategies
from tests.cases import CASES


@given(strategies.conv_calls())
def test_shapes_follow_the_formula(call: strategies.Call) -> None:
    p = call.problem
    assert p.x_shape == call.x_shape
    assert p.weight_shape == call.weight_shape
    for axis in range(3):
        reach = (p.kernel[axis] - 1) * p.dilation[axis] + 1
        lo, hi = p.padding[axis]
        starts = range(-lo, p.in_extent[axis] + hi - reach + 1, p.stride[axis])
        assert p.out_extent[axis] == len(starts)


@given(strategies.conv_calls())
def test_lower_ranks_are_folded_with_ones_in_front(call: strategies.Call) -> None:
    p = call.problem
    for triple in (p.in_extent, p.kernel, p.stride, p.dilation, p.out_extent):
        assert len(triple) == 3
        assert triple[: 3 - call.ndim] == (1,) * (3 - call.ndim)
    assert p.padding[: 3 - call.ndim] == ((0, 0),) * (3 - call.ndim)


@given(strategies.conv_problems())
def test_spelling_round_trip(problem: ConvProblem) -> None:
    assert ConvProblem.parse(str(problem)) == problem


@pytest.mark.parametrize("text", CASES.values())
def test_named_cases_are_spelt_as_str_spells_them(text: str) -> None:
    problem = ConvProblem.parse(text)
    assert ConvProblem.parse(str(problem)) == problem


@pytest.mark.parametrize(
    "text", ["", "n1", "n1ic1oc1", "n1n2ic1ih3oc1kh1", "n1ic1ih3oc1", "n1ic1ih3oc1kh3x"]
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"ConvProblem.parse: "):
        ConvProblem.parse(text)


def test_spelling_of_a_known_layer() -> None:
    layer = ConvProblem.conv("conv2d", (1, 3, 224, 224), (64, 3, 7, 7), 2, 3)
    assert str(layer) == "n1g1ic3ih224oc64kh7sh2ph3"


@pytest.mark.parametrize(
    ("extent", "kernel", "stride", "dilation", "pair"),
    [
        (5, 3, 1, 1, (1, 1)),
        (5, 2, 1, 1, (0, 1)),  # the odd zero at the end
        (5, 3, 2, 1, (1, 1)),
        (6, 3, 2, 1, (0, 1)),
        (5, 1, 3, 1, (0, 0)),
        (9, 9, 1, 2**31, (2**33, 2**33)),
    ],
)
def test_same_gives_extent_over_stride_outputs(
    extent: int, kernel: int, stride: int, dilation: int, pair: tuple[int, int]
) -> None:
    p = ConvProblem.conv(
        "conv1d", (1, 1, extent), (1, 1, kernel), stride, "same", dilation
    )
    assert p.padding[2] == pair
    assert p.out_extent[2] == -(-extent // stride)


def test_full_gives_every_window_that_meets_x() -> None:
    p = ConvProblem.conv("conv1d", (1, 1, 5), (1, 1, 3), 1, "full", 2)
    assert p.padding[2] == (4, 4)
    assert p.out_extent[2] == 9


@given(strategies.conv_transpose_calls())
def test_transposed_exchanges_x_and_y(call: strategies.Call) -> None:
    p = call.problem
    assert p.y_shape == call.x_shape
    k = call.keywords
    for axis, (lo, hi) in enumerate(k["padding"]):
        reach = (call.weight_shape[2 + axis] - 1) * k["dilation"][axis] + 1
        spread = (call.x_shape[2 + axis] - 1) * k["stride"][axis] + reach
        assert p.x_shape[2 + axis] == spread - lo - hi + k["output_padding"][axis]


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 4), (3, 2)])
def test_transposed_same_gives_extent_times_stride(stride: int, kernel: int) -> None:
    p = ConvProblem.transposed(
        "conv_transpose1d",
        (1, 1, 7),
        (1, 1, kernel),
        stride,
        "same",
        output_padding=max(stride - kernel, 0),
    )
    assert p.x_shape[2] == 7 * stride


@given(strategies.conv_problems())
def test_terms_are_at_least_those_that_meet_data(problem: ConvProblem) -> None:
    for direction in ("fprop", "dgrad", "wgrad", "bgrad"):
        counted = oracle.terms(problem, direction)
        assert counted.max(initial=0) <= problem.terms(direction)


@given(strategies.pool_calls())
def test_pool_windows_start_inside(call: strategies.Call) -> None:
    p = call.problem
    for axis in range(3):
        lo, hi = p.padding[axis]
        reach = (p.kernel[axis] - 1) * p.dilation[axis] + 1
        last = (p.out_extent[axis] - 1) * p.stride[axis] - lo
        end = p.in_extent[axis] + hi
        assert last < p.in_extent[axis]
        if not p.ceil_mode:
            assert last + reach <= end < last + reach + p.stride[axis]
        else:
            another = last + p.stride[axis]
            assert last + reach >= end or another >= p.in_extent[axis]


POOL_ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"kernel_size": 0}, ValueError, r"f: kernel_size must be >= 1, got 0"),
    ({"kernel_size": []}, ValueError, r"f: kernel_size must be one integer or 2"),
    ({"kernel_size": [False, True]}, TypeError, "f: kernel_size must be an integer"),
    ({"kernel_size": 9}, ValueError, "f: the window must fit"),
    ({"kernel_size": 2**62 + 1, "dilation": 4}, ValueError, "f: the window must fit"),
    ({"stride": 0}, ValueError, "f: stride must be >= 1, got 0"),
    ({"padding": 3}, ValueError, "f: padding must be less than the window's reach"),
    (
        {"padding": "middle"},
        ValueError,
        'f: padding must be "valid", "same", "full" or',
    ),
    ({"dilation": -3}, ValueError, "f: dilation must be >= 1, got -3"),
    ({"ceil_mode": 1}, TypeError, "f: ceil_mode must be a bool, got 1"),
    ({"x_shape": (1, 1, 4, 0)}, ValueError, "f: every extent of x but the batch"),
    ({"x_shape": (4, 4)}, ValueError, "f: x must have 1 to 3 spatial axes"),
]


@pytest.mark.parametrize(("change", "error", "message"), POOL_ERRORS)
def test_pool_errors(change: Any, error: type[Exception], message: str) -> None:
    arguments = {"x_shape": (1, 1, 4, 4), "kernel_size": 3, **change}
    with pytest.raises(error, match=message):
        PoolProblem.pool("f", **arguments)


def test_numpy_integers_are_integers() -> None:
    a = ConvProblem.conv("f", (1, 1, 9), (1, 1, 3), np.int64(2), np.int32(1))
    assert a == ConvProblem.conv("f", (1, 1, 9), (1, 1, 3), 2, 1)
    with pytest.raises(TypeError, match="f: stride must be an integer"):
        ConvProblem.conv("f", (1, 1, 9), (1, 1, 3), np.True_)
    with pytest.raises(TypeError, match="f: stride must be an integer"):
        ConvProblem.conv("f", (1, 1, 9), (1, 1, 3), np.float64(2.0))


def test_a_bool_is_not_taken_from_the_cache_for_1() -> None:
    ConvProblem.conv("f", (1, 1, 9), (1, 1, 3), (1,))
    with pytest.raises(TypeError, match="f: stride must be an integer, got True"):
        ConvProblem.conv("f", (1, 1, 9), (1, 1, 3), (True,))
