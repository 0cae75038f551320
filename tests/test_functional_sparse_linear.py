"""Sums over chosen inputs: values, gradients, connections, errors."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convcore import functional as F
from convcore import nn, reference
from convcore.runtime import cpu
from tests import oracle, strategies


@pytest.mark.parametrize("isa", cpu.available())
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@given(
    n=st.sampled_from([0, 1, 2, 7, 16, 17, 40]),
    extents=st.tuples(*(st.integers(1, 20),) * 3),
    biased=st.booleans(),
    rng=strategies.generators(),
)
@settings(max_examples=20)
def test_exact_on_integers(
    dtype: Any, isa: str, n: int, extents: Any, biased: bool, rng: Any
) -> None:
    inputs, outputs, count = extents
    index = rng.integers(inputs, size=(outputs, count))
    most = max(outputs * count, n)
    shapes = ((n, inputs), (outputs, count), (outputs,), (n, outputs))
    x, weight, bias, g = (
        oracle.integers(rng, shape, dtype, terms=most) for shape in shapes
    )
    added = bias if biased else None
    with cpu.use(isa):
        y = F.sparse_linear(x, weight, index, added)
        table = F.Connections(index, inputs)
        grads = F.sparse_linear_backward(g, x, weight, table)
    oracle.assert_exact(y, reference.sparse_linear(x, weight, index, added))
    right = reference.sparse_linear_backward(g, x, weight, index)
    for grad, expected in zip(grads, right, strict=True):
        oracle.assert_exact(grad, expected)
    oracle.exactly_equal(
        F.sparse_linear(x, weight, table) * g, grads[0] * x, grads[1] * weight
    )


def test_all_connections_are_a_linear_layer() -> None:
    rng = np.random.default_rng(0)
    x, weight = (oracle.integers(rng, s, terms=9) for s in ((2, 3, 9), (4, 9)))
    index = np.tile(np.arange(9), (4, 1))
    oracle.assert_exact(F.sparse_linear(x, weight, index), F.linear(x, weight))


def test_error_is_within_the_promise() -> None:
    rng = np.random.default_rng(0)
    x, weight, index = (
        oracle.normal(rng, (3, 2000)),
        oracle.normal(rng, (50, 900)),
        rng.integers(2000, size=(50, 900)),
    )
    wide = [a.astype(np.float64) for a in (x, weight)]
    scale = reference.sparse_linear(*map(np.abs, wide), index)
    allowed = (2 * np.sqrt(900) + 4) * 2.0**-24 * scale
    right = reference.sparse_linear(*wide, index)
    oracle.assert_within(F.sparse_linear(x, weight, index), right, allowed, np.float32)


def test_infinities_stay_with_who_sees_them() -> None:
    x = np.array([[np.nan, 1.0, 2.0], [3.0, 4.0, 5.0]])
    y = F.sparse_linear(x, np.ones((2, 2)), np.array([[1, 2], [0, 2]]))
    np.testing.assert_array_equal(np.isnan(y), [[False, True], [False, False]])


def layer(**options: Any) -> nn.GloballyConnected2d:
    return nn.GloballyConnected2d(3, 4, 6, (5, 7), (4, 3), rng=1, **options)


def test_connections_are_different_and_from_everywhere() -> None:
    for count, size in ((6, 5), (40, 5), (75, 5), (3, 60)):
        table = nn.GloballyConnected2d(3, 4, count, size, 4, rng=1).connections
        assert table.shape == (64, count)
        assert (np.diff(table, axis=1) > 0).all()
        assert table.min() >= 0
        assert table.max() < 3 * size * size
    assert np.unique(nn.GloballyConnected2d(3, 4, 6, 5, 4, rng=1).connections).size > 60
    other = nn.GloballyConnected2d(3, 4, 6, (5, 7), (4, 3), rng=2)
    assert (other.connections != layer().connections).any()
    np.testing.assert_array_equal(layer().connections, layer().connections)


def test_connections_travel_with_the_state(tmp_path: Path) -> None:
    one, two = layer(), nn.GloballyConnected2d(3, 4, 6, (5, 7), (4, 3), rng=2)
    x = oracle.normal(np.random.default_rng(0), (2, 3, 5, 7))
    two(x)
    assert list(one.state_dict()) == ["weight", "bias", "connections"]
    one.save(tmp_path / "layer.npz")
    two.load(tmp_path / "layer.npz")
    oracle.assert_bits_equal(one(x), two(x))
    state = copy.deepcopy(one.state_dict())
    state["connections"][3, 2] = 3 * 5 * 7
    two.load_state_dict(state)
    with pytest.raises(ValueError, match="index must be from 0 to 104"):
        two(x)


def test_beside_a_convolution() -> None:
    far = layer(bias=False)
    block = nn.Residual(nn.Conv2d(3, 4, (2, 5)), far)
    x = oracle.normal(np.random.default_rng(0), (3, 3, 5, 7))
    y, backward = block.forward(x)
    assert y.shape == (3, 4, 4, 3)
    assert backward(np.ones_like(y)).shape == x.shape
    one, _ = far.forward(x[0])
    oracle.assert_bits_equal(one, far(x)[0])


X, W, INDEX = np.ones((2, 5)), np.ones((3, 2)), np.array([[0, 1], [4, 4], [2, 3]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.sparse_linear(X, W, INDEX + 1),
            ValueError,
            "from 0 to 4, got 1 to 5",
        ),
        (
            lambda: F.sparse_linear(X, W, INDEX - 1),
            ValueError,
            "from 0 to 4, got -1 to 3",
        ),
        (
            lambda: F.sparse_linear(X, W, INDEX.astype("i4")),
            TypeError,
            "array of int64, got",
        ),
        (
            lambda: F.sparse_linear(X, W, INDEX[0]),
            ValueError,
            "connections must have shape",
        ),
        (
            lambda: F.sparse_linear(X, W[:2], INDEX),
            ValueError,
            "weight must have the shape",
        ),
        (
            lambda: F.sparse_linear(X, W, INDEX, W[0]),
            ValueError,
            r"bias must have shape \(3,\)",
        ),
        (
            lambda: F.sparse_linear(X, W, INDEX, out=X),
            ValueError,
            "out must have shape",
        ),
        (
            lambda: F.sparse_linear(X, W, F.Connections(INDEX, 6)),
            ValueError,
            "connections expect rows of 6, got x",
        ),
        (
            lambda: F.sparse_linear_backward(X, X, W, INDEX),
            ValueError,
            r"grad_output must have shape \(2, 3\)",
        ),
        (lambda: F.Connections(INDEX, 0), ValueError, "inputs must be >= 1"),
        (lambda: nn.GloballyConnected2d(1, 1, 5, 2, rng=0), ValueError, "at most 4"),
        (lambda: layer()(np.ones((1, 3, 7, 5), "f4")), ValueError, "x must have shape"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_connections_never_change() -> None:
    """The kernels trust them."""
    connections = F.Connections(np.array([[0, 2], [1, 2]]), 3)
    arrays = connections.index, connections.start, *connections.transposed
    for array in arrays:
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    with pytest.raises(AttributeError):
        connections.index = np.array([[2**40, 1], [1, 2]])  # type: ignore[misc]
