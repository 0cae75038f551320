"""What convolution refuses, and how it says so."""

import sys
from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import plan
from convcore.functional.call import run
from convcore.problem import ConvProblem
from tests import oracle

X, W = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"stride": (0, 1)}, ValueError, r"conv2d: stride must be >= 1, got \(0, 1\)"),
    ({"stride": 1.5}, TypeError, "conv2d: stride must be an integer, got 1.5"),
    ({"stride": True}, TypeError, "conv2d: stride must be an integer, got True"),
    ({"stride": (1, 1, 1)}, ValueError, "conv2d: stride must be one integer or 2"),
    ({"padding": -1}, ValueError, "conv2d: padding must be >= 0, got -1"),
    ({"padding": "foo"}, ValueError, "conv2d: padding must be .*'foo'"),
    ({"padding": 2**31}, ValueError, "conv2d: the output must be addressable"),
    ({"padding": 2**62}, ValueError, "conv2d: the padded extent of x must be"),
    ({"padding": ((1, 2, 3), 0)}, ValueError, "conv2d: padding pairs must be"),
    ({"dilation": 0}, ValueError, "conv2d: dilation must be >= 1, got 0"),
    ({"dilation": 2**62}, ValueError, "conv2d: the kernel must fit"),
    ({"groups": 0}, ValueError, "conv2d: groups must be >= 1, got 0"),
    ({"groups": 1.0}, TypeError, "conv2d: groups must be an integer, got 1.0"),
    ({"groups": 2}, ValueError, "conv2d: weight expects 1 x groups"),
    ({"x": None}, TypeError, "conv2d: x must be a NumPy array.*NoneType"),
    ({"x": [[1.0]]}, TypeError, "conv2d: x must be a NumPy array.*list"),
    ({"x": X.astype(int)}, TypeError, r"conv2d: x must be float32.*astype\(np.float"),
    ({"x": X.astype(object)}, TypeError, "conv2d: x must be float32 or float64"),
    ({"x": np.ma.masked_less(X, 2)}, TypeError, "conv2d: x must be .* without a mask"),
    ({"x": X.astype(float)}, TypeError, "conv2d: weight must have the same dtype"),
    ({"x": X[0, 0]}, ValueError, r"conv2d: x must have 4 axes"),
    ({"x": X[:, :, :0]}, ValueError, "conv2d: every extent of x but the batch"),
    ({"x": X[:, :0]}, ValueError, "conv2d: every extent of x but the batch"),
    ({"weight": None}, TypeError, "conv2d: weight must be a NumPy array"),
    ({"weight": W[0]}, ValueError, "conv2d: weight must have 4 axes"),
    ({"weight": W[:, :, :0]}, ValueError, "conv2d: every extent of weight"),
    ({"weight": np.ones((1, 1, 5, 5), "f4")}, ValueError, "conv2d: the kernel must"),
    ({"weight": np.ones((1, 2, 3, 3), "f4")}, ValueError, "conv2d: weight expects 2"),
    ({"bias": np.ones(2, "f4")}, ValueError, r"conv2d: bias must have shape \(1,\)"),
    ({"bias": np.ones(1)}, TypeError, "conv2d: bias must have the same dtype"),
    ({"flip": 1}, TypeError, "conv2d: flip must be a bool, got 1"),
    ({"algorithm": "magic"}, ValueError, "conv2d: algorithm must be .*'magic'"),
    ({"algorithm": []}, ValueError, r"conv2d: algorithm must be .*\[\]"),
]


@pytest.mark.parametrize(("change", "error", "message"), ERRORS)
def test_errors(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        F.conv2d(**{"x": X, "weight": W, **change})


TRANSPOSE_ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"output_padding": 2, "stride": 2}, ValueError, "output_padding must be below"),
    ({"output_padding": -1}, ValueError, "output_padding must be >= 0, got -1"),
    ({"padding": 3}, ValueError, "the output must not be empty"),
    ({"stride": 0}, ValueError, "stride must be >= 1, got 0"),
    ({"stride": 2**62}, ValueError, "the output must be addressable"),
    ({"weight": np.ones((2, 1, 3, 3), "f4")}, ValueError, "weight expects 2 input"),
    ({"groups": 2}, ValueError, "groups must divide the input channels"),
    ({"bias": np.ones(2, "f4")}, ValueError, r"bias must have shape \(1,\)"),
]


@pytest.mark.parametrize(("change", "error", "message"), TRANSPOSE_ERRORS)
def test_transpose_errors(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"conv_transpose2d: {message}"):
        F.conv_transpose2d(**{"x": X, "weight": W, **change})


@pytest.mark.parametrize(
    ("grad", "error", "message"),
    [
        (np.ones((1, 1, 9, 9), "f4"), ValueError, "have the result's shape"),
        (np.ones((2, 1, 2, 2), "f4"), ValueError, "have the result's shape"),
        (np.ones((1, 2, 2), "f4"), ValueError, "as many axes as x"),
        (np.ones((1, 1, 2, 2)), TypeError, "the same dtype"),
        (None, TypeError, "NumPy array"),
    ],
)
def test_backward_errors(grad: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"conv2d_backward: grad_output must .*{message}"):
        F.conv2d_backward(grad, X, W)


SAME_KEY: list[dict[str, Any]] = [  # for a dictionary, what a legal call has
    {"stride": True},
    {"stride": 1.0},
    {"stride": (1, True)},
    {"stride": (1.0, 1)},
    {"padding": False},
    {"padding": 0.0},
    {"padding": (0, False)},
    {"padding": ((0, 0), (0, 0.0))},
    {"dilation": np.True_},
    {"dilation": (1, np.float64(1))},
    {"groups": True},
    {"groups": 1.0},
    {"flip": 0},
]
LEGAL: list[dict[str, Any]] = [
    {},
    {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)},
    {"padding": ((0, 0), (0, 0))},
    {"stride": [1, 1], "padding": [[0, 0], (0, 0)], "dilation": [1, np.int8(1)]},
    {"stride": np.int64(1), "padding": np.uint8(0), "groups": np.int32(1)},
    {"padding": "valid"},
]


@pytest.mark.parametrize("change", SAME_KEY, ids=str)
def test_no_cache_lets_an_argument_through(change: dict[str, Any]) -> None:
    """1, 1.0 and True have one hash: a legal call before must not make them legal."""
    y = F.conv2d(X, W)
    for legal in LEGAL:
        oracle.assert_bits_equal(F.conv2d(X, W, **legal), y)
    name = next(iter(change))
    for _ in range(2):
        with pytest.raises(TypeError, match=f"conv2d: {name} must be"):
            F.conv2d(X, W, **change)
        with pytest.raises(TypeError, match=f"conv2d_backward: {name} must be"):
            F.conv2d_backward(y, X, W, **change)


def buffers(**change: Any) -> list[Any]:
    """The arrays of one call of a kernel, some of them changed."""
    arrays: dict[str, Any] = {
        "x": np.ones((1, 1, 4, 4), np.float32),
        "weight": np.ones((1, 1, 3, 3), np.float32),
        "bias": None,
        "y": np.ones((1, 1, 2, 2), np.float32),
        "scratch": np.empty(1 << 16, np.uint8),
    }
    return list((arrays | change).values())


@pytest.mark.parametrize(
    "change",
    [
        {"x": np.ones((1, 1, 4, 8), np.float32)[..., ::2]},
        {"x": np.ones((1, 1, 4, 4), np.int32)},
        {"x": np.ones((1, 1, 4, 4), np.float32).astype(">f4")},
        {"x": np.ones((1, 1, 4, 2), np.float64)},
        {"x": np.frombuffer(b"1" * 65, np.float32, 16, 1)},
        {"x": None},
        {"y": np.frombuffer(b"1" * 16, np.float32)},  # read-only
        {"y": np.ones((1, 1, 2, 2))},
        {"scratch": np.zeros(100, np.uint8)},
        {"scratch": None},
        {"bias": np.ones(2, np.float32)},
        {"weight": "1" * 36},
    ],
    ids=str,
)
def test_kernels_refuse_what_is_no_plain_buffer(change: Any, isa: str) -> None:
    chosen = plan.select(ConvProblem.parse("n1g1ic1ih4oc1kh3"), "fprop", "float32")
    chosen.kernel(chosen.geometry, *buffers(), 1)
    arrays = buffers(**change)
    held = [array for array in arrays if array is not None]  # that has others
    counts = [sys.getrefcount(array) for array in held]
    with pytest.raises((ValueError, BufferError, TypeError)):
        chosen.kernel(chosen.geometry, *arrays, 1)
    assert [sys.getrefcount(array) for array in held] == counts  # all let go
    with pytest.raises(ValueError, match="threads"):
        chosen.kernel(chosen.geometry, *buffers(), 0)


def test_kernels_refuse_buffers_of_another_size() -> None:
    """Behind the door nothing is checked but this."""
    problem = ConvProblem.parse("n1g1ic1ih4oc1kh3")
    for direction, buffers in (
        ("fprop", (15, 9, 0, 4)),
        ("fprop", (16, 9, 2, 4)),
        ("dgrad", (4, 8, 0, 16)),
        ("wgrad", (16, 5, 9)),
        ("bgrad", (4, 2)),
    ):
        chosen = plan.select(problem, direction, "float32")
        arrays = [np.ones(size, np.float32) for size in buffers]
        with pytest.raises(ValueError, match="buffer does not have"):
            run(chosen, *arrays)
