"""Errors stay within what is promised, on all kinds of data.

A part of what `python -m benchmarks.bench_accuracy` measures.
"""

import numpy as np
import pytest

from benchmarks import accuracy_operations, accuracy_range, errors
from benchmarks.case import DIRECTIONS, Data
from benchmarks.peer_results import asked
from convcore.problem import ConvProblem
from tests import transform_helpers as transforms
from tests.conv_helpers import compute

# Of the whole range, what takes a moment; in float64 the judge is slow.
FLOAT32 = (
    "1x1 strided",
    "3x3 dilated",
    "7x7",
    "first layer",
    "grouped",
    "depthwise 3x3",
    "signal",
    "100,000 terms, 1x1",
)
FLOAT64 = ("depthwise strided", "1x1 strided")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((n, "float32") for n in FLOAT32), *((n, "float64") for n in FLOAT64)],
)
def test_every_direct_sum_keeps_its_bound(libraries, name, dtype):
    found = list(accuracy_range.measure([name], [dtype], None))
    assert {(f.direction, f.data) for f in found} == {
        (direction, data) for direction in DIRECTIONS for data in accuracy_range.DATA
    }
    assert not accuracy_range.beyond(found)
    head, lines = accuracy_range.by_problem(found, dtype)
    assert len(lines) == len(DIRECTIONS)
    for line in lines:
        drawn, chosen, bound = (
            float(line[head.index(column)]) for column in ("drawn", "chosen", "bound")
        )
        assert 0 < drawn <= chosen < bound


@pytest.mark.parametrize("data", accuracy_range.DATA)
@pytest.mark.parametrize("algorithm", transforms.TRANSFORMS, ids=lambda a: a.name)
def test_transforms_keep_the_bound_of_their_card(libraries, algorithm, data):
    problem = ConvProblem.parse(algorithm.of_some_tiles)
    for direction in DIRECTIONS:
        given = errors.judge(problem, direction, "float32", data).arrays
        pair = {
            "fprop": (given.x, given.weight),
            "dgrad": (given.grad_y, given.weight),
            "wgrad": (given.x, given.grad_y),
        }[direction]
        found = compute(problem, algorithm.name, direction, *pair)
        transforms.hold(found, algorithm, problem, direction, *pair)


@pytest.mark.parametrize(("dtype", "every"), [("float32", 1), ("float64", 4)])
def test_operations_keep_their_bound(isa, libraries, dtype, every):
    cases = accuracy_operations.CASES[::every]
    found = [
        *accuracy_operations.measure(cases, [dtype], None),
        *accuracy_operations.measure_powers([dtype]),
    ]
    assert not accuracy_operations.beyond(found)


def test_an_error_beyond_the_bound_is_told():
    problem = ConvProblem.parse("n1g1ic4ih5oc3kh3ph1")
    judged = errors.judge(problem, "fprop", "float32", "uniform")
    wrong = judged.right.astype(np.float32)
    wrong[0, 1, 2, 3] *= np.float32(1 + 20 * 2.0**-23)
    error = judged.error_of(wrong)
    assert error.worst > 2 * 36**0.5 + 4
    assert error.of_bound > 1
    found = accuracy_range.Found("3x3", 36, "float32", "fprop", "", "gemm", error)
    assert accuracy_range.beyond([found])


def test_another_process_computes_the_same():
    """As torch is asked; convcore has the same operations."""
    problem = ConvProblem.parse("n2g1ic3ih7oc4kh3ph1")
    judged = errors.judge(problem, "wgrad", "float32", "normal")
    with asked("convcore", 1, "") as results:
        found = results.result(judged.case, judged.arrays)
        assert found is not None
        assert judged.error_of(found).of_bound < 1
        twice = Data(2 * judged.arrays.x, judged.arrays.weight, judged.arrays.grad_y)
        assert np.array_equal(results.result(judged.case, twice), 2 * found)
