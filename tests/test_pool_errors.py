"""What pooling refuses, and with which words: before any kernel runs.

Many rows are bugs of other libraries: crashes, hangs, gradients that went nowhere.
"""

import re
from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import plan
from convcore.functional import _average_pooling, _max_pooling, call

X1, X2, X3 = (np.ones((1, 1, *(4,) * n), np.float32) for n in (1, 2, 3))
INDEX = np.array([[[[0, 2], [8, 10]]]])
GRAD = np.ones((1, 1, 2, 2), np.float32)
SHAPE = (1, 1, 4, 4)
ONE = {"kernel_size": 1, "stride": 1}

FORWARD: dict[
    str, tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]
] = {
    # The window
    "kernel 0 divides": (
        *("max_pool2d", (X2, 0), {}, ValueError),
        "max_pool2d: kernel_size must be >= 1, got 0",
    ),
    "kernel 0 along one axis": (
        *("max_pool3d", (X3, [2, 2, 0], 1), {}, ValueError),
        "max_pool3d: kernel_size must be >= 1, got [2, 2, 0]",
    ),
    "kernel below 0": (
        *("avg_pool2d", (X2, -2), {}, ValueError),
        "avg_pool2d: kernel_size must be >= 1, got -2",
    ),
    "no kernel at all": (
        *("max_pool2d", (X2, []), {}, ValueError),
        "max_pool2d: kernel_size must be one integer or 2, got []",
    ),
    "kernels for another rank": (
        *("avg_pool1d", (X1, (2, 2)), {}, ValueError),
        "avg_pool1d: kernel_size must be one integer or 1, got (2, 2)",
    ),
    "bool is no size": (
        *("max_pool2d", (X2, [False, True]), {}, TypeError),
        "max_pool2d: kernel_size must be an integer, got False",
    ),
    "float is no size": (
        *("avg_pool2d", (X2, 2.0), {}, TypeError),
        "avg_pool2d: kernel_size must be an integer, got 2.0",
    ),
    "stride 0 divides": (
        *("max_pool2d", (X2, 3), {"stride": 0}, ValueError),
        "max_pool2d: stride must be >= 1, got 0",
    ),
    "stride 0 of a mean": (
        *("avg_pool2d", (X2, 4, (1, 0)), {}, ValueError),
        "avg_pool2d: stride must be >= 1, got (1, 0)",
    ),
    "stride below 0": (
        *("max_pool1d", (X1, 2, -1), {}, ValueError),
        "max_pool1d: stride must be >= 1, got -1",
    ),
    "dilation 0": (
        *("max_pool2d", (X2, 2), {"dilation": 0}, ValueError),
        "max_pool2d: dilation must be >= 1, got 0",
    ),
    "dilation below 0": (
        *("max_pool3d", (X3, 1), {"dilation": [-3, 1, 1]}, ValueError),
        "max_pool3d: dilation must be >= 1, got [-3, 1, 1]",
    ),
    "padding below 0": (
        *("avg_pool2d", (X2, 2), {"padding": -1}, ValueError),
        "avg_pool2d: padding must be >= 0, got -1",
    ),
    "padding as wide as the window": (
        *("max_pool2d", (X2, 3, 1, 3), {}, ValueError),
        "max_pool2d: padding must be less than the window's reach (3, 3), as with "
        '"full", so that every window meets x, got ((3, 3), (3, 3))',
    ),
    "padding as wide as the mean": (
        *("avg_pool2d", (X2, 2, 1, ((0, 1), (0, 2))), {}, ValueError),
        "avg_pool2d: padding must be less than the window's reach (2, 2), as with "
        '"full", so that every window meets x, got ((0, 1), (0, 2))',
    ),
    "padding by name": (
        *("avg_pool2d", (X2, 2, 1, "middle"), {}, ValueError),
        'avg_pool2d: padding must be "valid", "same", "full" or integers, got ',
    ),
    "kernel beyond the input": (
        *("max_pool1d", (X1[..., :1], 2), {}, ValueError),
        "max_pool1d: the window must fit into the padded input, got kernel_size (2,) "
        "with dilation (1,) over x (1, 1, 1) with padding ((0, 0),)",
    ),
    "kernel of 63 bits": (
        *("avg_pool2d", (X2, 2**63 - 1, 1), {}, ValueError),
        "avg_pool2d: the window must fit into the padded input",
    ),
    "reach wraps in 64 bits": (
        *("max_pool1d", (X1, 1250999896764, 1, 0, 1250999896764), {}, ValueError),
        "max_pool1d: the window must fit into the padded input",
    ),
    "reach wraps to 0": (
        *("max_pool1d", (X1, 2**62 + 1, 1, 0, 4), {}, ValueError),
        "max_pool1d: the window must fit into the padded input",
    ),
    "negative stride and kernels of 63 bits": (
        "avg_pool2d",
        (X2[..., :1, :1], [2**63 - 1, 5868783964474102731], [-1, 3010182406857593769]),
        {"ceil_mode": True},
        ValueError,
        "avg_pool2d: stride must be >= 1, got [-1, 3010182406857593769]",
    ),
    # Flags and divisors
    "ceil_mode is a bool": (
        *("max_pool2d", (X2, 2), {"ceil_mode": 1}, TypeError),
        "max_pool2d: ceil_mode must be a bool, got 1",
    ),
    "return_indices is a bool": (
        *("max_pool2d", (X2, 2), {"return_indices": 1}, TypeError),
        "max_pool2d: return_indices must be a bool, got 1",
    ),
    "count_include_pad is a bool": (
        *("avg_pool3d", (X3, 2), {"count_include_pad": None}, TypeError),
        "avg_pool3d: count_include_pad must be a bool, got None",
    ),
    "divisor 0": (
        *("avg_pool2d", (X2, 2), {"divisor_override": 0}, ValueError),
        "avg_pool2d: divisor_override must be >= 1, got 0",
    ),
    "divisor below 0": (
        *("avg_pool2d", (X2, 2), {"divisor_override": -2}, ValueError),
        "avg_pool2d: divisor_override must be >= 1, got -2",
    ),
    "divisor beyond 63 bits": (
        *("avg_pool1d", (X1, 2), {"divisor_override": 2**63}, ValueError),
        "avg_pool1d: divisor_override must be < 2**63, got 9223372036854775808",
    ),
    "divisor is an integer": (
        *("avg_pool2d", (X2, 2), {"divisor_override": 2.5}, TypeError),
        "avg_pool2d: divisor_override must be an integer, got 2.5",
    ),
    # The input
    "axis without elements": (
        *("max_pool2d", (np.ones((2, 1, 10, 0), np.float32), 1), {}, ValueError),
        "max_pool2d: every extent of x but the batch must be >= 1, got shape "
        "(2, 1, 10, 0)",
    ),
    "no channels": (
        *("adaptive_avg_pool2d", (np.ones((1, 0, 4, 4)), 2), {}, ValueError),
        "adaptive_avg_pool2d: every extent of x but the batch must be >= 1, got shape "
        "(1, 0, 4, 4)",
    ),
    "too many axes": (
        *("max_pool2d", (np.ones((12, 2, 2, 2, 1, 3)), 2), {}, ValueError),
        "max_pool2d: x must have 4 axes (batch, channels, spatial) or 3 without a "
        "batch, got shape (12, 2, 2, 2, 1, 3)",
    ),
    "too few axes": (
        *("global_avg_pool3d", (X1,), {}, ValueError),
        "global_avg_pool3d: x must have 5 axes (batch, channels, spatial) or 4 without "
        "a batch, got shape (1, 1, 4)",
    ),
    "integers": (
        *("avg_pool2d", (X2.astype(np.uint8), 2), {}, TypeError),
        "avg_pool2d: x must be float32 or float64, got uint8; convert it with "
        ".astype(np.float32)",
    ),
    "half precision": (
        *("max_pool2d", (X2.astype(np.float16), 2), {}, TypeError),
        "max_pool2d: x must be float32 or float64, got float16",
    ),
    "objects": (
        *("global_avg_pool2d", (X2.astype(object),), {}, TypeError),
        "global_avg_pool2d: x must be float32 or float64, got object",
    ),
    "a mask would be dropped": (
        *("max_pool2d", (np.ma.masked_less(X2, 2), 2), {}, TypeError),
        "max_pool2d: x must be a NumPy array without a mask, got MaskedArray",
    ),
    "a list": (
        *("max_pool1d", ([[[1.0, 2.0]]], 2), {}, TypeError),
        "max_pool1d: x must be a NumPy array without a mask, got list",
    ),
    "None": (
        *("adaptive_avg_pool1d", (None, 2), {}, TypeError),
        "adaptive_avg_pool1d: x must be a NumPy array without a mask, got NoneType",
    ),
    # Adaptive sizes
    "output of 0": (
        *("adaptive_avg_pool1d", (X1, 0), {}, ValueError),
        "adaptive_avg_pool1d: output_size must be >= 1, got 0",
    ),
    "outputs for another rank": (
        *("adaptive_avg_pool2d", (X2, (2, 2, 2)), {}, ValueError),
        "adaptive_avg_pool2d: output_size must be one integer or 2, got (2, 2, 2)",
    ),
    "output beyond 63 bits": (
        *("adaptive_avg_pool1d", (X1, 2**62 - 1), {}, ValueError),
        "adaptive_avg_pool1d: output_size times the extent of x must be < 2**63",
    ),
    "output is an integer": (
        *("adaptive_avg_pool3d", (X3, (1, 2.0, 1)), {}, TypeError),
        "adaptive_avg_pool3d: output_size must be an integer, got 2.0",
    ),
}

BACKWARD: dict[
    str, tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]
] = {
    "gradient without elements": (
        "max_pool2d_backward",
        (np.ones((0, 0, 0, 0), np.float32), INDEX, SHAPE, 2),
        {},
        ValueError,
        "max_pool2d_backward: grad_output must have the result's shape (1, 1, 2, 2), "
        "got (0, 0, 0, 0)",
    ),
    "gradient larger than the result": (
        "max_pool2d_backward",
        (np.ones((1, 1, 3, 3)), np.zeros((1, 1, 3, 3), np.int64), SHAPE, 2),
        {},
        ValueError,
        "max_pool2d_backward: grad_output must have the result's shape (1, 1, 2, 2), "
        "got (1, 1, 3, 3)",
    ),
    "gradient larger than the input": (
        *(
            "avg_pool2d_backward",
            (np.ones((2, 2, 3, 3)), (2, 2, 2, 2)),
            ONE,
            ValueError,
        ),
        "avg_pool2d_backward: grad_output must have the result's shape (2, 2, 2, 2), "
        "got (2, 2, 3, 3)",
    ),
    "gradient of other channels": (
        "avg_pool3d_backward",
        (np.ones((1, 2, 1, 1, 1)), (1, 1, 2, 2, 2), 2),
        {},
        ValueError,
        "avg_pool3d_backward: grad_output must have the result's shape "
        "(1, 1, 1, 1, 1), got (1, 2, 1, 1, 1)",
    ),
    "gradient with a batch, shape without": (
        *("max_pool2d_backward", (GRAD, INDEX, (1, 4, 4), 2), {}, ValueError),
        "max_pool2d_backward: grad_output must have the result's shape (1, 2, 2), "
        "got (1, 1, 2, 2)",
    ),
    "adaptive gradient of other channels": (
        "adaptive_avg_pool2d_backward",
        (np.ones((1, 2, 2, 2)), SHAPE),
        {},
        ValueError,
        "adaptive_avg_pool2d_backward: grad_output must have the result's shape "
        "(1, 1, 2, 2), got (1, 2, 2, 2)",
    ),
    "adaptive gradient of another rank": (
        *("adaptive_avg_pool1d_backward", (GRAD, (1, 1, 4)), {}, ValueError),
        "adaptive_avg_pool1d_backward: ",
    ),
    "global gradient of more than one": (
        *("global_avg_pool2d_backward", (GRAD, SHAPE), {}, ValueError),
        "global_avg_pool2d_backward: grad_output must have the result's shape "
        "(1, 1, 1, 1), got (1, 1, 2, 2)",
    ),
    "gradient of integers": (
        "avg_pool2d_backward",
        (np.ones((1, 1, 2, 2), int), SHAPE, 2),
        {},
        TypeError,
        "avg_pool2d_backward: grad_output must be float32 or float64, got int64",
    ),
    "fewer indices": (
        *("max_pool2d_backward", (GRAD, np.array([[[[0]]]]), SHAPE, 2), {}, ValueError),
        "max_pool2d_backward: indices must have the shape of grad_output "
        "(1, 1, 2, 2), got (1, 1, 1, 1)",
    ),
    "indices of floats": (
        "max_pool2d_backward",
        (GRAD, INDEX.astype(np.float32), SHAPE, 2),
        {},
        TypeError,
        "max_pool2d_backward: indices must be int64, got float32",
    ),
    "indices that turn negative": (
        "max_pool2d_backward",
        (GRAD, np.full((1, 1, 2, 2), 2**64 - 1, np.uint64), SHAPE, 2),
        {},
        TypeError,
        "max_pool2d_backward: indices must be int64, got uint64",
    ),
    "indices of 32 bits": (
        "max_pool2d_backward",
        (GRAD, INDEX.astype(np.int32), SHAPE, 2),
        {},
        TypeError,
        "max_pool2d_backward: indices must be int64, got int32",
    ),
    "indices under a mask": (
        "max_pool2d_backward",
        (GRAD, np.ma.masked_less(INDEX, 2), SHAPE, 2),
        {},
        TypeError,
        "max_pool2d_backward: indices must be a NumPy array without a mask, "
        "got MaskedArray",
    ),
    "indices in a list": (
        "max_pool2d_backward",
        (GRAD, INDEX.tolist(), SHAPE, 2),
        {},
        TypeError,
        "max_pool2d_backward: indices must be a NumPy array without a mask, got list",
    ),
    "shape below 0": (
        *("max_pool2d_backward", (GRAD, INDEX, (1, 1, -4, 4), 2), {}, ValueError),
        "max_pool2d_backward: input_shape must be >= 0, got -4",
    ),
    "shape below 0 everywhere": (
        "avg_pool2d_backward",
        (np.ones((2, 2, 1, 5)), [-536870912] * 4),
        ONE,
        ValueError,
        "avg_pool2d_backward: input_shape must be >= 0, got -536870912",
    ),
    "shape without elements": (
        *("avg_pool2d_backward", (GRAD, (1, 1, 0, 4), 2), {}, ValueError),
        "avg_pool2d_backward: input_shape must have 4 extents (batch, channels, "
        "spatial) or 3 without a batch, all but the batch >= 1, got (1, 1, 0, 4)",
    ),
    "shape of another rank": (
        *("global_avg_pool1d_backward", (np.ones((1, 1, 1)), SHAPE), {}, ValueError),
        "global_avg_pool1d_backward: input_shape must have 3 extents (batch, "
        "channels, spatial) or 2 without a batch, all but the batch >= 1, "
        "got (1, 1, 4, 4)",
    ),
    "shape is one number": (
        "avg_pool3d_backward",
        (np.ones((1, 1, 1, 1, 1)), 1879048192),
        ONE,
        TypeError,
        "avg_pool3d_backward: input_shape must be a tuple, got 1879048192",
    ),
    "shape of floats": (
        *("avg_pool2d_backward", (GRAD, (1, 1, 4.0, 4), 2), {}, TypeError),
        "avg_pool2d_backward: input_shape must be an integer, got 4.0",
    ),
    "stride 0 of a gradient": (
        *("avg_pool2d_backward", (GRAD, SHAPE, 2, 0), {}, ValueError),
        "avg_pool2d_backward: stride must be >= 1, got 0",
    ),
    "divisor 0 of a gradient": (
        *("avg_pool1d_backward", (np.ones((1, 1, 2)), (1, 1, 4), 2), {}, ValueError),
        "avg_pool1d_backward: divisor_override must be >= 1, got 0",
    ),
}
BACKWARD["divisor 0 of a gradient"][2]["divisor_override"] = 0

CASES = FORWARD | BACKWARD


@pytest.mark.parametrize(
    ("function", "arguments", "keywords", "error", "message"), CASES.values(), ids=CASES
)
def test_refused_before_a_kernel_runs(
    function: str,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(*_: Any) -> None:
        pytest.fail("a kernel ran")

    for module in (_average_pooling, _max_pooling):
        monkeypatch.setattr(module, "run", run)
    with pytest.raises(error, match="^" + re.escape(message)):
        getattr(F, function)(*arguments, **keywords)


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_size": 2.0},
        {"kernel_size": (2, 2.0)},
        {"stride": True, "kernel_size": 1},
        {"padding": False},
        {"dilation": (1, True)},
        {"ceil_mode": 0},
    ],
    ids=str,
)
def test_no_cache_lets_an_argument_through(change: dict[str, Any]) -> None:
    """1, 1.0 and True have one hash: a legal call before must not make them legal."""
    legal = {"kernel_size": 2, "padding": 0, "dilation": 1, "ceil_mode": False}
    F.max_pool2d(X2, **legal)
    F.max_pool2d(X2, **{**legal, "kernel_size": (2, 2), "dilation": (1, 1)})
    F.max_pool2d(X2, kernel_size=1, stride=1)
    with pytest.raises(TypeError, match=f"max_pool2d: {next(iter(change))} must be"):
        F.max_pool2d(X2, **{**legal, **change})


INDICES = {
    "beyond the plane": (8, 99),
    "one beyond the plane": (8, 16),
    "below 0": (8, -1),
    "aliased in 32 bits": (8, 2**32 + 3),
    "smallest of 64 bits": (8, -(2**63)),
    "largest of 64 bits": (8, 2**63 - 1),
    "in the plane, left of its window": (8, 9),
    "in the plane, above its window": (8, 6),
}


@pytest.mark.parametrize(("third", "fourth"), INDICES.values(), ids=INDICES)
@pytest.mark.parametrize("channels", [1, 3])
def test_no_index_outside_its_window(
    third: int, fourth: int, channels: int, isa: str
) -> None:
    """It would be written elsewhere, or its gradient would be lost."""
    index = np.tile(INDEX, (1, channels, 1, 1))
    index[0, -1, 1] = third, fourth
    grad = np.ones(index.shape, np.float32)
    where = (0, channels - 1, 1, 1)
    with pytest.raises(ValueError, match="indices") as error:
        F.max_pool2d_backward(grad, index, (1, channels, 4, 4), 2)
    assert str(error.value) == (
        "max_pool2d_backward: indices must each lie in their own window of a channel "
        f"(4, 4), got {fourth} at {where}"
    )


def test_no_index_between_the_taps_of_a_dilated_window() -> None:
    arguments = ((1, 1, 5), 2, 1, 0, 2)
    grad = np.ones((1, 1, 3))
    good = F.max_pool1d_backward(grad, np.array([[[0, 1, 4]]]), *arguments)
    assert good.ravel().tolist() == [1, 1, 0, 0, 1]
    with pytest.raises(ValueError, match=r"got 1 at \(0, 0, 0\)$"):
        F.max_pool1d_backward(grad, np.array([[[1, 1, 4]]]), *arguments)


def test_nothing_is_written_before_all_indices_are_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directions = []

    def run(chosen: plan.Plan, *buffers: Any) -> None:
        directions.append(chosen.direction)
        call.run(chosen, *buffers)

    monkeypatch.setattr(_max_pooling, "run", run)
    out = np.full(SHAPE, 7.0)
    with pytest.raises(ValueError, match="indices"):
        F.max_pool2d_backward(GRAD, INDEX + 2, SHAPE, 2, out=out)
    assert set(directions) == {"max_check"}
    assert (out == 7).all()
