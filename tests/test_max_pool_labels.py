"""Labels that layers keep of max pooling, and `out=`."""

from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import nn, plan, reference
from convcore.functional import _max_pooling
from convcore.functional.call import run
from convcore.problem import PoolProblem
from convcore.runtime import cpu
from tests.oracle import Array, assert_exact
from tests.pool_helpers import any_call, dtypes, f, ranks, room, special, team_of
from tests.strategies import Call


@any_call()
def test_labels_lead_to_the_gradient_of_indices(
    dtype: Any, call: Call, rng: np.random.Generator, isa: str, team: int
) -> None:
    x = special(rng, call.x_shape, dtype)
    y, index = reference.max_pool(call.problem, x)
    grad_y = rng.integers(-9, 10, y.shape).astype(dtype)
    window = (
        call.keywords["kernel_size"],
        call.keywords["stride"],
        call.keywords["padding"],
        call.keywords["dilation"],
        call.keywords["ceil_mode"],
    )
    with cpu.use(isa), team_of(team):
        kind = _max_pooling.label_type("pool", call.ndim, x, window)
        values, labels = _max_pooling.max_pool("pool", call.ndim, x, window, kind)
        assert labels is not None
        grad_x = _max_pooling.gradient_of_labels(
            "pool", call.ndim, (grad_y, labels, call.x_shape), window
        )
    assert_exact(values, y)
    assert_exact(grad_x, reference.max_pool_backward(call.problem, grad_y, index))


# Pieces of 3072 cells (2048 of dy), images of up to 8 phases along an axis, 256 taps.
SHAPES = {
    "same, several pieces": ((2, 64, 9, 9), 3, 1, 1, 1),
    "same, less than a vector": ((8, 9, 1, 3), 3, 1, 1, 1),
    "same, planes below a vector": ((1, 64, 2, 3), 3, 1, 1, 1),
    "same, one row": ((2, 33, 21), 5, 1, 2, 1),
    "same, three axes": ((2, 32, 4, 3, 5), 3, 1, 1, 1),
    "same, even window": ((2, 40, 12, 10), 2, 1, ((1, 0), (0, 1)), 1),
    "same, windows of one element": ((1, 70, 30, 30), 1, 1, 0, 1),
    "many planes in a piece": ((3, 67, 7, 7), 3, 1, 1, 1),
    "planes of one element": ((2, 70, 1, 1), 1, 1, 0, 1),
    "many slabs in a piece": ((2, 9, 6, 6, 6), 2, 2, 0, 1),
    "several rows": ((1, 2, 150, 130), 3, 2, 1, 1),
    "several columns": ((1, 1, 9, 2500), 3, 2, 1, 1),
    "columns of a row, stride 1": ((1, 2, 7000), 3, 1, 1, 1),
    "eight phases": ((2, 3, 61, 1000), (3, 9), (2, 8), (1, 4), 1),
    "stride above the kernel": ((2, 3, 50, 50), 2, 3, 1, 1),
    "256 taps": ((1, 2, 40, 40), 16, 2, 8, 1),
    "257 taps": ((1, 2, 600), 257, 2, 128, 1),
    "dilated": ((2, 2, 33, 47), 3, 2, 2, 2),
    "odd padding": ((2, 3, 17, 18), 4, 2, ((2, 1), (1, 0)), 1),
}
shapes = pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "dilation"), SHAPES.values(), ids=SHAPES
)


@shapes
@dtypes
def test_labels_on_shapes_around_the_pieces(
    shape: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: int,
    dtype: Any,
    isa: str,
) -> None:
    ndim, rng = len(shape) - 2, np.random.default_rng(1)
    window = (kernel, stride, padding, dilation)
    problem = PoolProblem.pool("pool", shape, *window)
    x = special(rng, shape, dtype)
    y, index = reference.max_pool(problem, x)
    grad_y = rng.integers(-9, 10, y.shape).astype(dtype)
    grad_x = reference.max_pool_backward(problem, grad_y, index)
    for n in (1, 3):
        with team_of(n):
            actual, backward = getattr(nn, f"MaxPool{ndim}d")(*window).forward(x)
            assert_exact(actual, y)
            assert_exact(backward(grad_y), grad_x)
            values, indices = f("max_pool", ndim)(x, *window, return_indices=True)
            assert_exact(values, y)
            assert_exact(indices, index)
            assert_exact(f("max_pool", ndim)(x, *window), y)
            assert_exact(
                f("max_pool_backward", ndim)(grad_y, index, shape, *window), grad_x
            )


def test_layers_keep_bytes_where_they_fit() -> None:
    for ndim, kernel, kind in ((2, 3, np.uint8), (2, 16, np.uint8), (2, 17, np.int64)):
        x = np.zeros((1, 1, *(32,) * ndim), np.float32)
        window = (kernel, 1, 0, 1, False)
        assert _max_pooling.label_type("pool", ndim, x, window) == kind


def test_what_flat_leaves_to_windows() -> None:
    for window in ((17, 1), (9, 9), (3, 1, 0, 200)):
        problem = PoolProblem.pool("pool", (1, 1, 600, 600), *window)
        for direction in ("max_values", "max_fprop"):
            assert plan.select(problem, direction, "float32").algorithm == "window"


@ranks
def test_out(ndim: int) -> None:
    x = np.arange(2.0 * 4**ndim).reshape(1, 2, *(4,) * ndim)
    y, index = f("max_pool", ndim)(x, 2, return_indices=True)
    out = np.empty_like(y)
    assert f("max_pool", ndim)(x, 2, out=out) is out
    assert_exact(out, y)
    values, again = f("max_pool", ndim)(x, 2, return_indices=True, out=out)
    assert values is out
    assert_exact(again, index)
    grad: Array = np.empty_like(x)
    backward = f("max_pool_backward", ndim)
    assert backward(y, index, x.shape, 2, out=grad) is grad
    assert_exact(grad, backward(y, index, x.shape, 2))
    with pytest.raises(ValueError, match="out must have shape"):
        f("max_pool", ndim)(x, 2, out=grad)
    with pytest.raises(ValueError, match="out must not overlap"):
        f("max_pool", ndim)(x, 1, out=x)


def test_nothing_is_written_behind_the_arrays() -> None:
    # Rows, bytes and indices are written by whole vectors inside of a piece.
    for shape, stride in (
        ((1, 1, 7, 7), 2),
        ((1, 3, 13, 13), 2),
        ((2, 2, 5, 19), 2),
        ((2, 40, 7, 7), 1),
    ):
        window = (3, stride, 1, 1, True)
        problem = PoolProblem.pool("pool", shape, *window)
        size = int(np.prod(problem.y_shape))
        rng = np.random.default_rng(0)
        x = rng.standard_normal(shape).astype(np.float32)
        for kind in (np.uint8, np.int64):
            held, labels = np.full(size + 64, 77.0, np.float32), np.full(size + 64, 99)
            labels = labels.astype(kind)
            forward, back = {
                np.uint8: ("max_labels", "max_labels_dgrad"),
                np.int64: ("max_fprop", "max_dgrad"),
            }[kind]
            chosen = plan.select(problem, forward, "float32")
            chosen.kernel(
                chosen.geometry, x, held[:size], labels[:size], room(chosen), 1
            )
            assert (held[size:] == 77).all()
            assert (labels[size:] == 99).all()
            chosen = plan.select(problem, back, "float32")
            grad = np.full(x.size + 64, 55.0, np.float32)
            chosen.kernel(
                chosen.geometry,
                held[:size],
                labels[:size],
                grad[: x.size],
                room(chosen),
                1,
            )
            assert (grad[x.size :] == 55).all()


def test_out_of_the_functions_that_share_it() -> None:
    x = np.ones((1, 1, 4), np.float32)
    with pytest.raises(TypeError, match="max_pool1d: out must be a NumPy array"):
        F.max_pool1d(x, 2, out=[0.0])


ROWS = {
    "blocks that keep a row, and more": ((2, 2, 9, 1100), 3, 2, 1),
    "rows that are kept": ((3, 5, 31, 57), 3, 2, 1),
    "slabs side by side": ((2, 3, 6, 12, 40), 2, 2, 0),
    "slabs that share": ((1, 3, 7, 9, 40), 3, 2, 1),
    "one block of a row": ((2, 3, 13, 13), 3, 2, 0),
    "one column": ((2, 3, 9, 1), 3, 2, 1),
    "two blocks, the second short": ((2, 3, 5, 35), 3, 2, 1),
    "stride 1": ((2, 3, 9, 28), 3, 1, 1),
    "three axes": ((2, 2, 5, 6, 20), (2, 3, 4), (2, 1, 3), (1, 1, 2)),
    "a long row": ((2, 3, 3000), 3, 2, 1),
    "stride above the kernel": ((2, 3, 40, 70), 2, 8, 1),
    "the widest window": ((2, 3, 40, 70), 8, 1, 4),
    "256 taps": ((1, 1, 40, 40, 40), (8, 4, 8), 3, (4, 2, 4)),
    "uneven padding": ((2, 3, 17, 18), 4, 2, ((2, 1), (1, 0))),
}


def test_rows_wants_registers_that_take_a_row() -> None:
    problem = PoolProblem.pool("pool", (1, 1, 13, 13), 3, 2)
    for isa in cpu.available():
        with cpu.use(isa):
            chosen = plan.select(problem, "max_fprop", "float32").algorithm
        assert chosen == ("rows" if isa == "x86_64_v4" else "flat")


@pytest.mark.skipif("x86_64_v4" not in cpu.available(), reason="no AVX-512 here")
@dtypes
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"), ROWS.values(), ids=ROWS
)
def test_rows_have_the_bits_of_flat(
    shape: Any, kernel: Any, stride: Any, padding: Any, dtype: Any
) -> None:
    problem = PoolProblem.pool("pool", shape, kernel, stride, padding, 1, True)
    rng, size = np.random.default_rng(3), int(np.prod(problem.y_shape))
    signs = rng.choice(np.array([-1, -0.0, 0.0, 1, -np.inf, np.nan], dtype), shape)
    finite = rng.choice(np.array([-1, -0.0, 0.0, 1, -np.inf], dtype), shape)
    lone = np.where(rng.random(shape) < 0.004, dtype(np.nan), finite)
    with cpu.use("x86_64_v4"):
        for x in (signs, finite, lone, special(rng, shape, dtype)):
            for direction, kind in (
                ("max_values", None),
                ("max_labels", np.uint8),
                ("max_fprop", np.int64),
            ):
                results = []
                for name, team in (("flat", 1), ("rows", 1), ("rows", 2)):
                    chosen = plan.select(problem, direction, x.dtype.name, name)
                    y = np.full(size + 64, 77.0, dtype)
                    found = None if kind is None else np.full(size + 64, 99, kind)
                    labels = None if found is None else found[:size]
                    chosen.kernel(
                        chosen.geometry, x, y[:size], labels, room(chosen, team), team
                    )
                    assert (y[size:] == 77).all()
                    assert found is None or (found[size:] == 99).all()
                    results.append((y, found))
                for y, found in results[1:]:
                    assert y.tobytes() == results[0][0].tobytes()
                    assert np.array_equal(found, results[0][1])


@any_call(max_dilation=1)
def test_same_has_the_bits_of_flat(
    dtype: Any, call: Call, rng: np.random.Generator, isa: str, team: int
) -> None:
    """The choice looks at the batch: so nobody can tell, signs of zeros included."""
    kernel = rng.integers(1, 5, call.ndim).tolist()
    padding = [((k - 1) // 2, k // 2) for k in kernel]
    problem = PoolProblem.pool("pool", call.x_shape, kernel, 1, padding)
    x = rng.choice(np.array([-1, -0.0, 0.0, 1, -np.inf, np.nan], dtype), call.x_shape)
    grad_y = rng.standard_normal(call.x_shape).astype(dtype)
    results, labels = [], np.empty(x.shape, np.uint8)
    with cpu.use(isa):
        for name in ("flat", "same"):
            y, grad_x = np.empty_like(x), np.empty_like(x)
            if name == "flat":
                chosen = plan.select(problem, "max_labels", y.dtype.name, name)
                chosen.kernel(chosen.geometry, x, y, labels, room(chosen, team), team)
            for direction, buffers in (
                ("max_values", (x, y, None)),
                ("max_labels_dgrad", (grad_y, labels, grad_x)),
            ):
                chosen = plan.select(problem, direction, np.dtype(dtype).name, name)
                chosen.kernel(chosen.geometry, *buffers, room(chosen, team), team)
            results.append([y, grad_x])
    for one, other in zip(*results, strict=True):
        assert one.tobytes() == other.tobytes()


@dtypes
@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((2, 3, 19, 32), ((2, 2), (1, 3), ((1, 0), (1, 0)))),
        ((2, 3, 7, 64), (2, (1, 2), 1)),
        ((2, 2, 1, 645), ((2, 2), (1, 4), ((1, 1), (0, 0)))),
        ((2, 1, 7, 22), ((2, 1), (1, 3), ((1, 0), (0, 0)))),
    ],
    ids=str,
)
def test_a_first_window_of_one_row(
    isa: str, shape: Any, window: Any, dtype: Any
) -> None:
    """Its label was added twice to those of the windows below, which share that row."""
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    y, index = reference.max_pool(PoolProblem.pool("pool", shape, *window), x)
    values, found = F.max_pool2d(x, *window, return_indices=True)
    assert_exact(values, y)
    assert_exact(found, index)
    grad_x = nn.MaxPool2d(*window).forward(x)[1](np.ones_like(y))
    assert_exact(grad_x, F.max_pool2d_backward(np.ones_like(y), index, shape, *window))


def test_zeros_keep_the_sign_of_the_first(isa: str) -> None:
    """AVX-512's maximum takes the later one of 0 and -0."""
    rng = np.random.default_rng(0)
    for shape, window in (
        ((3, 20, 9, 9), (3, 2, 1)),
        ((1, 2, 5, 40), (2, 2, 0)),
        ((2, 3, 6, 6), (3, 1, 1)),
        ((1, 40, 8, 8), (8, 8, 0)),
        ((1, 1, 3, 1), ((3, 4), 1, ((0, 0), (0, 3)))),
    ):
        problem = PoolProblem.pool("pool", shape, *window)
        x = rng.choice(np.array([-0.0, 0.0], np.float32), size=shape)
        index = reference.max_pool(problem, x)[1]
        flat = x.reshape(*shape[:2], -1)
        first = np.take_along_axis(flat, index.reshape(*shape[:2], -1), 2)
        for card in plan.direct_cards(problem, "max_values"):
            y = np.empty(problem.y_shape, np.float32)
            run(plan.select(problem, "max_values", "float32", card.name), x, y, None)
            assert y.tobytes() == first.tobytes(), (card.name, problem)


@pytest.mark.parametrize(
    ("window", "ceil_mode", "shape"),
    [((3, 3, ((0, 2),)), False, (2, 3, 3)), ((5, 4, ((1, 4),)), True, (3, 2, 2))],
)
def test_layers_pool_where_no_byte_is_kept(
    isa: str, window: Any, ceil_mode: bool, shape: Any
) -> None:
    """With padding of more than half a window, indices are all there is."""
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    y, backward = nn.MaxPool1d(*window, ceil_mode=ceil_mode).forward(x)
    assert backward(np.ones_like(y)).sum() == y.size
