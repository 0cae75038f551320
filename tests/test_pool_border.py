"""Poolings that see elements beyond the border."""

import re
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convcore
from convcore import functional as F
from convcore import nn
from convcore.functional import _framed
from convcore.problem import PoolProblem
from convcore.problem.border import BORDERS, source_index
from convcore.reference import choices
from convcore.reference import pool as reference
from convcore.reference.pad import pad, pad_grad
from tests import oracle

ELEMENTS = ("reflect", "symmetric", "replicate", "circular")  # of x, all around
WINDOWS = (
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (2, 3), "stride": (1, 2), "padding": ((0, 3), (5, 2))},
    {"kernel_size": 3, "stride": 2, "padding": "same"},
    {"kernel_size": 2, "stride": 3, "padding": "full", "ceil_mode": True},
    {"kernel_size": (4, 1), "padding": (9, 0)},  # wider than x
    {"kernel_size": (2, 3), "stride": (60, 1), "padding": ((90, 130), 2)},  # far apart
    {"kernel_size": 2, "stride": (70, 50), "padding": (80, 120), "ceil_mode": True},
)


def whole(
    window: dict[str, Any], mode: str, value: float, x: Any
) -> tuple[Any, Any, Any]:
    """Give x with all that windows see, its pads, and the problem over it."""
    shape = x.shape
    problem = PoolProblem.framed(
        "pool",
        shape,
        window["kernel_size"],
        window.get("stride"),
        window["padding"],
        1,
        window.get("ceil_mode", False),
    )
    pads, none = problem.padding[1:], ((0, 0),) * 3
    box = pad(x, pads, mode, value)
    inner = replace(problem, in_extent=(1, *box.shape[2:]), padding=none)
    return box, pads, inner


def around(mode: str) -> dict[str, Any]:
    return {"padding_mode": mode, "padding_value": 2.0 if mode == "constant" else 0}


@pytest.mark.parametrize("mode", BORDERS[1:])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_averages_and_sums(window: dict[str, Any], mode: str, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = oracle.integers(rng, (2, 3, 6, 7), dtype, terms=200)
    how = around(mode)
    box, pads, problem = whole(window, mode, how["padding_value"], x)
    y = F.sum_pool2d(x, **window, **how)
    oracle.assert_exact(y, reference.avg_pool(problem, box, True, 1))
    mean = F.avg_pool2d(x, **window, **how)
    np.testing.assert_allclose(mean, reference.avg_pool(problem, box), rtol=1e-6)
    grad = oracle.integers(rng, y.shape, dtype, terms=200)
    expected = pad_grad(
        reference.avg_pool_backward(problem, grad, True, 1), x.shape[2:], pads, mode
    )
    oracle.assert_exact(F.sum_pool2d_backward(grad, x.shape, **window, **how), expected)


@pytest.mark.parametrize("mode", BORDERS)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_maxima(window: dict[str, Any], mode: str) -> None:
    rng = np.random.default_rng(1)
    x = oracle.distinct(rng, (2, 3, 6, 7))
    how = around(mode)
    box, pads, problem = whole(window, mode, how["padding_value"], x)
    y, found = reference.max_pool(problem, box)
    oracle.assert_bits_equal(F.max_pool2d(x, **window, **how), y)
    grad = oracle.integers(rng, y.shape, terms=200)
    expected = pad_grad(
        reference.max_pool_backward(problem, grad, found), x.shape[2:], pads, mode
    )
    layer = nn.MaxPool2d(**window, **how)
    again, backward = layer.forward(x)
    oracle.assert_bits_equal(again, y)
    oracle.assert_exact(backward(grad), expected)
    values, indices = F.max_pool2d(x, **window, **how, return_indices=True)
    flat = indices.reshape(2, 3, -1)
    picked = np.take_along_axis(x.reshape(2, 3, -1), np.maximum(flat, 0), -1)
    picked[flat == -1] = how["padding_value"]  # what is no element of x
    oracle.assert_bits_equal(picked.reshape(y.shape), values)
    assert mode not in ELEMENTS or (flat >= 0).all()
    back = F.max_pool2d_backward(grad, indices, x.shape, **window, **how)
    oracle.assert_exact(back, expected)


@pytest.mark.parametrize("mode", BORDERS)
def test_what_lies_far_beyond_x_takes_no_memory(mode: str) -> None:
    """Only what windows see is copied, however far it is."""
    x = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    how = {"stride": 2**38, "padding": [(2**40 - 1, 2**40)], **around(mode)}
    y, indices = F.max_pool1d(x, 3, return_indices=True, **how)
    if mode == "zeros":  # which a sum knows by itself: up to a window of them
        sums = F.sum_pool1d(x, 3, **{**how, **around("constant"), "padding_value": 0.0})
    else:
        sums = F.sum_pool1d(x, 3, **how)
    assert y.size == 9
    grad = np.arange(1.0, 10)[None, None]
    given = np.zeros(4)
    for o in range(9):
        at = [source_index(2**38 * o - 2**40 + 1 + k, 4, mode) for k in range(3)]
        seen = [how["padding_value"] if i is None else x[0, 0, i] for i in at]
        assert (y[0, 0, o], sums[0, 0, o]) == (max(seen), sum(seen))
        won = at[int(np.argmax(seen))]
        assert indices[0, 0, o] == (-1 if won is None else won)
        if won is not None:
            given[won] += grad[0, 0, o]
    back = F.max_pool1d_backward(grad, indices, x.shape, 3, **how)
    assert back.ravel().tolist() == given.tolist()


@pytest.mark.parametrize("power", [1, 2, 3.5, np.inf])
@pytest.mark.parametrize("mode", BORDERS[1:])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_norms(window: dict[str, Any], mode: str, power: float) -> None:
    rng = np.random.default_rng(2)
    x = oracle.distinct(rng, (2, 3, 6, 7), np.float64)
    how = around(mode)
    if mode == "constant":
        how["padding_value"] = -0.7
    box, pads, problem = whole(window, mode, how["padding_value"], x)
    y = F.lp_pool2d(x, power, **window, **how)
    right = reference.lp_pool(problem, box, power)
    np.testing.assert_allclose(y, right, rtol=1e-12)
    grad = oracle.normal(rng, y.shape, np.float64)
    expected = reference.lp_pool_backward(problem, grad, box, right, power)
    expected = pad_grad(expected, x.shape[2:], pads, mode)
    given = F.lp_pool2d_backward(grad, x, y, power, **window, **how)
    np.testing.assert_allclose(given, expected, rtol=1e-9, atol=1e-9)
    layer = nn.LPPool2d(power, **window, **how)
    again, backward = layer.forward(x)
    oracle.assert_bits_equal(again, y)
    oracle.assert_bits_equal(backward(grad), given)


@pytest.mark.parametrize("mode", BORDERS)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_draws(window: dict[str, Any], mode: str) -> None:
    rng = np.random.default_rng(3)
    x = oracle.distinct(rng, (2, 3, 6, 7), np.float64)
    how = around(mode)
    value = how["padding_value"]
    box, pads, problem = whole(window, mode, value, x)
    y, indices = F.stochastic_pool2d(x, **window, **how, rng=5)
    draws = np.random.default_rng(5).random(y.shape)
    right, found = choices.stochastic_pool(problem, box, draws)
    oracle.assert_bits_equal(y, right)
    flat = indices.reshape(2, 3, -1)
    picked = np.take_along_axis(x.reshape(2, 3, -1), np.maximum(flat, 0), -1)
    picked[flat == -1] = value
    oracle.assert_bits_equal(picked.reshape(y.shape), y)
    grad = oracle.integers(rng, y.shape, np.float64, terms=200)
    expected = choices.choice_backward(grad, found, box.shape)
    expected = pad_grad(expected, x.shape[2:], pads, mode)
    layer = nn.StochasticPool2d(**window, **how, rng=5)
    drawn, backward = layer.forward(x)
    oracle.assert_bits_equal(drawn, y)
    oracle.assert_exact(backward(grad), expected)
    sums = [
        reference.avg_pool(problem, np.maximum(box, 0) ** k, True, 1) for k in (1, 2)
    ]
    mean = np.divide(sums[1], sums[0], out=sums[1], where=sums[0] != 0)
    np.testing.assert_allclose(layer(x), mean, rtol=1e-12)


def test_one_and_three_axes() -> None:
    x = np.arange(24.0).reshape(1, 1, 2, 3, 4)
    y = F.avg_pool3d(x, 3, 1, 1, padding_mode="circular")
    assert np.allclose(y.sum(), x.sum())
    line = F.max_pool1d(
        np.array([[5.0, 1.0, 2.0]]), 2, 1, ((1, 0),), padding_mode="zeros"
    )
    assert line.tolist() == [[5.0, 5.0, 2.0]]
    with pytest.raises(TypeError, match="padding must be an integer"):
        F.max_pool1d(np.ones((1, 1, 3)), 2, 1, ((1.5, 0),), padding_mode="zeros")


@given(
    st.integers(1, 5),
    st.tuples(st.integers(2, 9), st.integers(2, 9)),
    st.integers(1, 4),
    st.integers(1, 3),
    st.tuples(st.integers(0, 6), st.integers(0, 6)),
    st.booleans(),
    st.sampled_from(ELEMENTS),
)
def test_a_sum_is_the_sum_of_what_each_window_sees(
    planes: int,
    extent: tuple[int, int],
    size: int,
    step: int,
    pads: tuple[int, int],
    ceil: bool,
    mode: str,
) -> None:
    x = np.arange(planes * extent[0] * extent[1], dtype=float).reshape(
        1, planes, *extent
    )
    if min(extent) + sum(pads) < size:
        return
    y = F.sum_pool2d(x, size, step, (pads, pads), ceil, padding_mode=mode)
    for oy, ox in product(range(y.shape[2]), range(y.shape[3])):
        rows, columns = (
            [source_index(o * step + k - pads[0], n, mode) for k in range(size)]
            for o, n in ((oy, extent[0]), (ox, extent[1]))
        )
        assert (y[0, :, oy, ox] == x[0][:, rows][:, :, columns].sum((1, 2))).all()


@pytest.mark.parametrize("layer", [nn.AvgPool2d, nn.SumPool2d])
def test_layers(layer: Any) -> None:
    x = oracle.integers(np.random.default_rng(2), (2, 3, 6, 7), terms=200)
    made = layer(4, 1, 3, padding_mode="symmetric")
    assert repr(made).endswith("padding=3, padding_mode='symmetric')")
    y, backward = made.forward(x)
    oracle.assert_bits_equal(y, made(x))
    grad = oracle.integers(np.random.default_rng(3), y.shape, terms=200)
    oracle.exactly_equal(16 * y * grad, 16 * x * backward(grad))


def test_parts_and_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    x = oracle.normal(rng, (3, 5, 9, 8))
    grad = oracle.normal(rng, (3, 5, 9, 8))
    before = convcore.get_num_threads()
    results = []
    for size, threads in ((1 << 20, 1), (1 << 20, 3), (1, 2), (2000, 1)):
        monkeypatch.setattr(_framed, "PART_BYTES", size)
        convcore.set_num_threads(threads)
        how = {"padding_mode": "reflect"}
        y, indices = F.max_pool2d(x, 3, 1, 1, return_indices=True, **how)
        results.append(
            [
                y,
                indices,
                F.avg_pool2d(x, 3, 1, 1, **how),
                F.avg_pool2d_backward(grad, x.shape, 3, 1, 1, **how),
            ]
        )
    convcore.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert (a == b).all()


def test_an_empty_batch() -> None:
    x = np.empty((0, 3, 4, 5), np.float32)
    assert F.avg_pool2d(x, 3, 1, 1, padding_mode="reflect").shape == (0, 3, 4, 5)
    y, indices = F.max_pool2d(x, 3, 1, 1, return_indices=True, padding_mode="reflect")
    assert y.shape == indices.shape == (0, 3, 4, 5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda x: F.max_pool2d(x, 2**33, padding=2**33, padding_mode="reflect"),
            "max_pool2d: padding with elements must not be larger than memory",
        ),
        (
            lambda x: F.max_pool2d_backward(
                x, np.full(x.shape, -1), x.shape, 1, padding_mode="circular"
            ),
            "max_pool2d_backward: indices must lie in 0 .. 15",
        ),
        (
            lambda x: F.max_pool2d_backward(
                x, np.full(x.shape, -2), x.shape, 1, padding_mode="zeros"
            ),
            "max_pool2d_backward: indices must lie in 0 .. 15",
        ),
        (
            lambda x: F.avg_pool2d(x, 2, 2, 1, False, False, padding_mode="circular"),
            'avg_pool2d: count_include_pad=False needs padding_mode "zeros"',
        ),
        (
            lambda x: F.sum_pool2d(x, 2, padding_mode="edge"),
            'sum_pool2d: padding_mode must be one of "zeros"',
        ),
        (
            lambda x: F.max_pool2d(x, 2, padding_mode="ignore", padding_value=1.0),
            "max_pool2d: padding_value needs padding_mode",
        ),
        (
            lambda x: F.max_pool2d(x[..., :1], (2, 1), 1, 1, padding_mode="reflect"),
            'max_pool2d: "reflect" needs at least 2 elements',
        ),
        (
            lambda x: F.max_pool2d_backward(
                x, np.zeros(x.shape, np.int64), (1, 1, 3, 3), 2, padding_mode="circular"
            ),
            "max_pool2d_backward: grad_output must have the result's shape (1, 1, 1, 1)",
        ),
        (
            lambda x: F.max_pool2d_backward(
                x, np.full(x.shape, 16), x.shape, 1, padding_mode="circular"
            ),
            "max_pool2d_backward: indices must lie in 0 .. 15",
        ),
        (
            lambda x: F.lp_pool2d(x, 2, 2, padding_mode="mirror"),
            'lp_pool2d: padding_mode must be one of "zeros"',
        ),
        (
            lambda x: F.lp_pool2d_backward(x, x, x, 2, 2, padding_mode="circular"),
            "lp_pool2d_backward: grad_output must have the result's shape",
        ),
        (
            lambda x: F.stochastic_pool2d(x, 2, padding_value=1.0, rng=0),
            'stochastic_pool2d: padding_value needs padding_mode "constant"',
        ),
        (
            lambda x: F.stochastic_pool2d_mean(x, 2, padding_mode="mirror"),
            'stochastic_pool2d_mean: padding_mode must be one of "ignore"',
        ),
        (
            lambda x: F.stochastic_pool2d_backward(x, -np.ones(x.shape, int), x.shape),
            "stochastic_pool2d_backward: indices must lie in 0 .. 15",
        ),
        (
            lambda x: nn.AvgPool2d(3, padding="causal", padding_mode="circular"),
            'AvgPool2d: padding must be "valid", "same", "full" or integers',
        ),
        (
            lambda x: nn.AvgPool2d(3, 1, 1, False, False, padding_mode="reflect"),
            "AvgPool2d: count_include_pad=False needs padding_mode",
        ),
        (
            lambda x: nn.MaxPool2d(3, padding_mode="mirror"),
            "MaxPool2d: padding_mode must be one of",
        ),
    ],
)
def test_errors(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(text)):
        call(np.ones((1, 1, 4, 4)))
