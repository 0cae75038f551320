"""Padding by itself, in every mode, and its gradient."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore.problem.border import BORDERS
from convcore.reference.pad import pad, pad_grad
from tests import oracle

MODES = BORDERS[1:]
NUMPY = {
    "constant": "constant",
    "reflect": "reflect",
    "symmetric": "symmetric",
    "replicate": "edge",
    "circular": "wrap",
}


@pytest.mark.parametrize("mode", MODES)
def test_reference_pads_as_numpy_does(mode: str) -> None:
    x = np.arange(1.0, 7.0).reshape(2, 3)
    value = {"constant_values": 7} if mode == "constant" else {}
    for pads in product((0, 1, 4, 11), repeat=2):
        want = np.pad(x, ((0, 0), pads), NUMPY[mode], **value)  # type: ignore[call-overload]
        np.testing.assert_array_equal(pad(x, [pads], mode, 7), want)
        grad = np.arange(want.size, dtype=float).reshape(want.shape)
        padded = want - pad(0 * x, [pads], mode, 7)
        assert (padded * grad).sum() == (x * pad_grad(grad, [3], [pads], mode)).sum()


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(1, 3),
    st.lists(st.integers(0, 9), min_size=6, max_size=6),
    st.sampled_from(MODES),
    st.sampled_from(oracle.DTYPES),
)
def test_pad_is_the_reference(
    shape: list[int], axes: int, pads: list[int], mode: str, dtype: Any
) -> None:
    axes = min(axes, len(shape))
    pairs = [(pads[2 * i], pads[2 * i + 1]) for i in range(axes)]
    mode = "symmetric" if mode == "reflect" and 1 in shape[-axes:] else mode
    value = 2.5 if mode == "constant" else 0.0
    flat = tuple(n for pair in reversed(pairs) for n in pair)
    rng = np.random.default_rng(len(shape))
    x = oracle.integers(rng, tuple(shape), dtype, terms=9)
    y = F.pad(x, flat, mode, value)
    oracle.assert_bits_equal(y, pad(x, pairs, mode, value))
    grad = oracle.integers(rng, y.shape, dtype, terms=9000)
    grad_x = F.pad_backward(grad, flat, mode)
    oracle.assert_exact(grad_x, pad_grad(grad, shape[-axes:], pairs, mode))


def test_pad_writes_where_it_is_told() -> None:
    x, out = np.ones((2, 3), np.float32), np.empty((2, 5), np.float32)
    assert F.pad(x, (1, 1), out=out) is out
    assert out.tolist() == [[0, 1, 1, 1, 0]] * 2
    grad_x = np.empty((2, 3), np.float32)
    assert F.pad_backward(out, (1, 1), out=grad_x) is grad_x
    assert (grad_x == 1).all()


@pytest.mark.parametrize(
    ("pads", "mode", "error", "text"),
    [
        ((1, -1), "zeros", ValueError, "pad must be >= 0, got (1, -1)"),
        ((1, 1, 1), "zeros", ValueError, "pad must have 2, 4 or 6 entries"),
        ((1,) * 6, "zeros", ValueError, "more pairs than the array has axes, 2"),
        (3, "zeros", TypeError, "pad must be a tuple of integers, got 3"),
        ((1.0, 1), "zeros", TypeError, "pad must be an integer, got 1.0"),
        ((1, 1), "edge", ValueError, 'mode must be one of "zeros"'),
        ((0, 0, 0, 1), "reflect", ValueError, '"reflect" needs at least 2'),
        ((2**62, 1), "zeros", ValueError, "must be addressable with 63 bits"),
    ],
)
def test_errors_of_pad(pads: Any, mode: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        F.pad(np.zeros((1, 3)), pads, mode)
    assert text in str(caught.value)
    assert str(caught.value).startswith("pad: ")
