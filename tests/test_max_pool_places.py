"""Maxima over windows at places that a table tells: adaptive and fractional pooling."""

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import kernels, nn, plan, reference
from convcore.functional.call import run
from convcore.functional.fractional_max_pool import starts_of
from convcore.problem import PoolProblem
from convcore.runtime import cpu
from tests.oracle import Array, assert_bits_equal, assert_exact
from tests.pool_helpers import NAN, dtypes, f, isas, special, team_of, teams
from tests.strategies import generators

# A group is the windows over two vectors of columns, at most as many as a vector has
# lanes; a table has 16 of them, and windows of up to 8 columns may be narrow.
SHAPES: dict[str, tuple[Any, ...]] = {
    "narrow windows": ((2, 9, 31, 33), (13, 14)),
    "narrow windows, few planes": ((1, 1, 50, 61), (17, 40)),
    "more windows than elements": ((1, 3, 9, 10), (20, 47)),
    "several tables": ((1, 3, 3, 900), (2, 400)),
    "several tables of a row": ((1, 9, 2000), (700,)),
    "wide windows": ((1, 5, 70, 65), (3, 4)),
    "wide windows, several groups": ((1, 2, 4, 900), (2, 40)),
    "windows of several vectors": ((1, 2, 20, 300), (3, 2)),
    "three axes": ((1, 3, 9, 8, 30), (4, 3, 11)),
    "three axes, wide": ((1, 3, 9, 8, 60), (2, 3, 3)),
    "256 taps": ((1, 2, 30, 30), (2, 2)),
    "one element": ((1, 1, 1, 1), (1, 1)),
    "one column": ((3, 3, 40, 1), (7, 1)),
    "last rows of x": ((1, 1, 2, 5), (2, 3)),
}
rows = pytest.mark.parametrize("row", SHAPES.values(), ids=list(SHAPES))


def check(shape: Any, out: Any, x: Array, team: int) -> None:
    """Compare what every card gives that takes an adaptive pooling."""
    problem = PoolProblem.adaptive("f", shape, out)
    y, index = reference.adaptive_max_pool(x, out)
    y, index = y.reshape(problem.y_shape), index.reshape(problem.y_shape)
    grad_y = np.arange(1, y.size + 1).reshape(y.shape).astype(x.dtype) % 64
    grad_x = reference.choice_backward(grad_y, index, shape)
    for direction in ("max_values", "max_fprop", "max_labels"):
        for card in plan.choice.cards_of(problem, direction):
            if not card.accepts(problem, direction).yes:
                continue
            chosen = plan.select(problem, direction, str(x.dtype), card.name)
            values, back = np.full_like(y, 7), np.full(shape, 7, x.dtype)
            label = None
            if direction == "max_fprop":
                label = np.full(y.shape, -7)
            elif direction == "max_labels":
                label = np.full(y.shape, 77, np.uint8)
            with team_of(team):
                run(chosen, x, values, label)
            assert_exact(values, y)
            if label is None:
                continue
            flat = x.reshape(*shape[:2], -1)
            right = np.take_along_axis(flat, index.reshape(*shape[:2], -1), 2)
            assert_bits_equal(values.reshape(right.shape), right)  # of zeros, the first
            if direction == "max_fprop":
                assert_exact(label, index)
                continue
            backward = plan.select(problem, "max_labels_dgrad", str(x.dtype))
            with team_of(team):
                run(backward, grad_y, label, back)
            assert_exact(back, grad_x)


@dtypes
@rows
def test_shapes_around_groups_and_tables(row: Any, dtype: Any, isa: str) -> None:
    shape, out = row
    x = special(np.random.default_rng(0), shape, dtype)
    x[x == 1] = -0.0
    for team in (1, 3):
        check(shape, out, x, team)


@dtypes
@given(ndim=st.integers(1, 3), rng=generators(), isa=isas, team=teams)
def test_any_adaptive_maxima(
    dtype: Any, ndim: int, rng: np.random.Generator, isa: str, team: int
) -> None:
    most = (200, 30, 9)[ndim - 1]
    shape = (1, int(rng.integers(1, 12)), *rng.integers(1, most, ndim).tolist())
    out = tuple(rng.integers(1, most, ndim).tolist())
    with cpu.use(isa):
        check(shape, out, special(rng, shape, dtype), team)


@dtypes
@rows
def test_a_sample_alone_has_the_bits_of_its_batch(
    row: Any, dtype: Any, isa: str
) -> None:
    """Where the batch chooses the algorithm, zeros have the same sign all the same."""
    (_, c, *extents), out = row
    rng = np.random.default_rng(0)
    x = rng.choice(np.array([-1, -0.0, 0], dtype), (9, c, *extents))
    pool = f("adaptive_max_pool", len(extents))
    y, index = pool(x, out, True)
    values = pool(x, out)
    for i in (0, 8):
        one, where = pool(x[i : i + 1].copy(), out, True)
        assert_bits_equal(one, y[i : i + 1])
        assert_exact(where, index[i : i + 1])
        assert_bits_equal(pool(x[i : i + 1].copy(), out), values[i : i + 1])


@dtypes
@pytest.mark.parametrize("direction", ["max_fprop", "max_labels"])
def test_the_first_nan_wins_in_wide_windows(
    dtype: Any, direction: str, isa: str
) -> None:
    x = np.zeros((1, 1, 4, 60), dtype)
    x[0, 0, 1, 37] = x[0, 0, 2, 3] = NAN
    problem = PoolProblem.adaptive("f", x.shape, 1)
    y, label = np.empty((1, 1, 1, 1), dtype), np.zeros((1, 1, 1, 1), np.int64)
    if direction == "max_labels":
        label = label.astype(np.uint8)
    kernels.load("pool_max_places", isa).fprop(
        np.array(problem.geometry), x, y, label, None, 1
    )
    assert np.isnan(y).all()
    assert label.item() == 60 + 37


FRACTIONAL: dict[str, tuple[Any, ...]] = {  # shape, kernel, windows
    "narrow": ((2, 3, 40, 41), 2, (28, 29)),
    "several tables": ((1, 3, 900), 3, (600,)),
    "windows of nine columns": ((1, 2, 30, 90), 9, (6, 50)),
    "wide": ((1, 2, 40, 70), 30, (3, 30)),
    "windows of several vectors": ((1, 2, 300), 100, (20,)),
    "one window": ((1, 2, 9, 10), 4, (1, 1)),
    "three axes": ((1, 3, 9, 8, 30), (2, 3, 2), (4, 3, 18)),
}


@dtypes
@pytest.mark.parametrize("row", FRACTIONAL.values(), ids=list(FRACTIONAL))
def test_fractional_windows(row: Any, dtype: Any, isa: str) -> None:
    shape, kernel, outputs = row
    ndim, planes = len(shape) - 2, shape[0] * shape[1]
    x = special(np.random.default_rng(0), shape, dtype)
    each = (kernel,) * ndim if isinstance(kernel, int) else kernel
    samples = np.random.default_rng(5).random((planes, ndim))
    starts = starts_of(shape[2:], each, outputs, samples)
    parts = np.split(starts[:, 3 - ndim :], np.cumsum(outputs)[:-1], axis=1)
    along = tuple(p.reshape(*shape[:2], n) for p, n in zip(parts, outputs, strict=True))
    expected = reference.fractional_max_pool(x, each, along)
    pool = f("fractional_max_pool", ndim)
    for n in (1, 3):
        with team_of(n):
            y, index = pool(x, kernel, outputs, None, True, rng=5)
            alone = pool(x, kernel, outputs, rng=5)
        assert_exact(y, expected[0])
        assert_exact(index, expected[1])
        assert_exact(alone, expected[0])


# Layers ----------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize(
    ("shape", "out", "kept"),
    [
        ((2, 9, 30, 31), (7, 9), np.uint8),
        ((1, 2, 50, 60), (3, 2), np.uint16),
        ((1, 2, 300, 300), (2, 3), np.uint32),
        ((2, 3, 16, 16), 1, np.uint8),
    ],
)
def test_layers_keep_few_bytes(
    shape: Any, out: Any, kept: Any, dtype: Any, isa: str
) -> None:
    x = special(np.random.default_rng(0), shape, dtype)
    layer: Any = nn.AdaptiveMaxPool2d(out) if out != 1 else nn.GlobalMaxPool2d()
    y, backward = layer.forward(x)
    size = (out, out) if isinstance(out, int) else out
    expected, index = reference.adaptive_max_pool(x, size)
    assert_exact(y, expected)
    grad_y = np.arange(1.0, y.size + 1).reshape(y.shape).astype(dtype)
    for _ in range(2):
        grad_x = backward(grad_y)
        assert_exact(grad_x, reference.choice_backward(grad_y, index, shape))
    cells = (cell.cell_contents for cell in backward.__closure__)
    arrays = [a for a in cells if isinstance(a, np.ndarray)]
    assert [a.dtype for a in arrays] == [kept]
    with pytest.raises(ValueError, match="grad_output must have"):
        backward(grad_y[:, :1])
    assert_exact(layer.forward(x[0])[1](grad_y[0]), grad_x[0])


def test_labels_that_change_lead_nowhere(isa: str) -> None:
    """A label that is no tap of its window writes outside of no plane."""
    module = kernels.load("pool_max_places_gradient", isa)
    problem = PoolProblem.adaptive("f", (1, 1, 1, 5), (1, 2))
    geometry, tap = np.array(problem.geometry), np.array([200, 2], np.uint8)
    grad_x = np.full(5, 7, np.float32)
    module.dgrad(geometry, np.ones(2, np.float32), tap, grad_x, None, 1)
    assert grad_x.tolist() == [0, 0, 0, 0, 1]
    tap[1] = 3
    module.dgrad(geometry, np.ones(2, np.float32), tap, grad_x, None, 1)
    assert prod(grad_x.shape) == 5
    assert not grad_x.any()


def test_no_planes() -> None:
    x = np.empty((0, 3, 9, 10), np.float32)
    assert F.adaptive_max_pool2d(x, (3, 4), True)[1].shape == (0, 3, 3, 4)
    assert F.fractional_max_pool2d(x, 2, (3, 4), rng=0).shape == (0, 3, 3, 4)
    y, backward = nn.AdaptiveMaxPool2d(4).forward(x)
    assert backward(y).shape == x.shape


def test_global_indices_still_lead_back() -> None:
    x = np.random.default_rng(0).random((2, 3, 9), np.float32)
    _, index = F.global_max_pool1d(x, True)
    grad = np.ones((2, 3, 1), np.float32)
    expected = F.global_max_pool1d_backward(grad, index, x.shape)
    assert_bits_equal(nn.GlobalMaxPool1d().forward(x)[1](grad), expected)
