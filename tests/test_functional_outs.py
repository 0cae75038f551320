"""Functions with several results, into memory that is given: a tuple in their order."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from tests import oracle
from tests.test_functional_promises import CHOSEN5, C, channels, features, weights

# Functions of (gradient, x) with several results, which `needs` may leave out.
SEVERAL: dict[str, Callable[..., Any]] = {
    "conv1d_backward": lambda g, x, **more: F.conv1d_backward(
        g, x, weights(x, (C, C, 1)), **more
    ),
    "conv1d_backward flip": lambda g, x, **more: F.conv1d_backward(
        g, x, weights(x, (C, C, 3)), 1, 1, flip=True, **more
    ),
    "conv1d_backward reflect": lambda g, x, **more: F.conv1d_backward(
        g, x, weights(x, (C, C, 3)), 1, 1, padding_mode="reflect", **more
    ),
    "conv1d_backward renormalise": lambda g, x, **more: F.conv1d_backward(
        g, x, weights(x, (C, C, 3)), 1, 1, border="renormalise", **more
    ),
    "conv_transpose1d_backward": lambda g, x, **more: F.conv_transpose1d_backward(
        g, x, weights(x, (C, C, 1)), **more
    ),
    "linear_backward": lambda g, x, **more: F.linear_backward(
        g, x, weights(x, (5, 5)), **more
    ),
    "sparse_linear_backward": lambda g, x, **more: F.sparse_linear_backward(
        g, x, weights(x, (5, 3)), CHOSEN5, **more
    ),
    "prelu_backward": lambda g, x, **more: F.prelu_backward(
        g, x, weights(x, (C,)), **more
    ),
    "batch_norm_backward": lambda g, x, **more: F.batch_norm_backward(
        g, x, *channels(x)[:3], **more
    ),
    "batch_norm_backward training": lambda g, x, **more: F.batch_norm_backward(
        g, x, None, None, channels(x)[2], True, **more
    ),
    "layer_norm_backward": lambda g, x, **more: F.layer_norm_backward(
        g, x, 5, features(x)[0], **more
    ),
    "rms_norm_backward": lambda g, x, **more: F.rms_norm_backward(
        g, x, 5, features(x)[0], **more
    ),
    "group_norm_backward": lambda g, x, **more: F.group_norm_backward(
        g, x, 3, channels(x)[2], **more
    ),
    "instance_norm_backward": lambda g, x, **more: F.instance_norm_backward(
        g, x, weight=channels(x)[2], **more
    ),
    "partial_conv1d_backward": lambda g, x, **more: F.partial_conv1d_backward(
        g, x, weights(x, (C, C, 3)), 1, 1, **more
    ),
    "partial_conv1d_backward mask": lambda g, x, **more: F.partial_conv1d_backward(
        g, x, weights(x, (C, C, 3)), 1, 1, mask=x[:, :1] > 0, flip=True, **more
    ),
    "locally_connected1d_backward": lambda g, x, **more: F.locally_connected1d_backward(
        g, x, weights(x, (C, C, 3, 5)), 1, 1, **more
    ),
    "locally_connected1d_backward reflect": lambda g, x, **more: (
        F.locally_connected1d_backward(
            g, x, weights(x, (C, C, 3, 5)), 1, 1, padding_mode="reflect", **more
        )
    ),
    "border_passthrough1d_backward": lambda g, x, **more: (
        F.border_passthrough1d_backward(g, (*g.shape[:2], 2), **more)
    ),
}


NUMBERS = {"dropout_key"}
VIEWS = {"flatten", "flatten_backward"}


def test_everything_writes_into_given_memory() -> None:
    """But what gives a number or a view; results that `needs` names are a tuple."""
    functions = {name: getattr(F, name) for name in F.__all__ if name.islower()}
    takes = {
        name: signature(function).parameters for name, function in functions.items()
    }
    assert {name for name in takes if "out" not in takes[name]} == NUMBERS | VIEWS
    several = {name.split()[0].replace("1d", "2d") for name in SEVERAL}
    needs = {name for name in takes if "needs" in takes[name]}
    assert {name.replace("1d", "2d").replace("3d", "2d") for name in needs} <= several


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("name", sorted(SEVERAL))
def test_several_results_into_given_memory(name: str, dtype: Any) -> None:
    """Into the arrays themselves, to the same bits, all of them or some."""
    operation = SEVERAL[name]
    g, x = (oracle.normal(np.random.default_rng(i), (7, C, 5), dtype) for i in (0, 1))
    right = operation(g, x)
    for mask in ((True,) * len(right), (False,) * len(right), (False, True, False)):
        out = tuple(
            np.full_like(result, np.nan) if given else None
            for result, given in zip(right, mask, strict=False)
        )
        results = operation(g, x, out=out)
        assert type(results) is tuple
        for result, given, expected in zip(results, out, right, strict=True):
            assert given is None or result is given
            oracle.assert_bits_equal(result, expected)


@pytest.mark.parametrize("name", sorted(SEVERAL))
def test_memory_for_several_results_is_checked(name: str) -> None:
    """Before anything is written."""
    operation = SEVERAL[name]
    g, x = (oracle.normal(np.random.default_rng(i), (7, C, 5)) for i in (0, 1))
    fits = tuple(np.zeros_like(result) for result in operation(g, x))
    rest = fits[1:]
    wrong: list[tuple[type[Exception], Any, str]] = [
        (TypeError, fits[0], "out must be a tuple of"),
        (TypeError, list(fits), "out must be a tuple of"),
        (ValueError, fits[:1], "out must have . elements"),
        (TypeError, (fits[0].astype(np.float16), *rest), r"out\[0\] must be native"),
        (ValueError, (fits[0][:1], *rest), r"out\[0\] must have shape"),
        (ValueError, (g, *rest), r"out\[0\] must not overlap an input"),
        (TypeError, (*fits[:-1], 1), r"out\[.\] must be a NumPy array"),
    ]
    memory = np.zeros(sum(result.size for result in fits), fits[0].dtype)
    ends = [fits[0].size - 1, *(result.size for result in rest)]
    pieces = np.split(memory, np.cumsum(ends)[:-1])
    first = memory[: fits[0].size].reshape(fits[0].shape)
    second = pieces[1][: rest[0].size].reshape(rest[0].shape)
    overlap = (first, second, *(None for _ in rest[1:]))
    wrong.append((ValueError, overlap, r"out\[1\] must not overlap another of out"))
    for error, out, message in wrong:
        with pytest.raises(error, match=f"^{name.split()[0]}: {message}"):
            operation(g, x, out=out)
    assert not any(result.any() for result in (*fits, memory))
    if "border" not in name:
        with pytest.raises(ValueError, match=r"out\[0\] must be None, as needs"):
            operation(g, x, needs=("weight",), out=fits)


# Results and what tells where they come from: `out` is for the first, or a tuple for both.


def around(mode: str) -> dict[str, Any]:
    return {"padding_mode": mode, "return_indices": True}


PAIRS: dict[str, Callable[..., Any]] = {
    "max_pool1d": lambda x, **more: F.max_pool1d(x, 2, return_indices=True, **more),
    "max_pool1d reflect": lambda x, **more: F.max_pool1d(
        x, 3, 2, 1, **around("reflect"), **more
    ),
    "adaptive_max_pool1d": lambda x, **more: F.adaptive_max_pool1d(
        x, 2, return_indices=True, **more
    ),
    "global_max_pool1d": lambda x, **more: F.global_max_pool1d(
        x, return_indices=True, **more
    ),
    "channel_max_pool": lambda x, **more: F.channel_max_pool(
        x, 2, return_indices=True, **more
    ),
    "fractional_max_pool1d": lambda x, **more: F.fractional_max_pool1d(
        x, 2, 3, return_indices=True, rng=1, **more
    ),
    "stochastic_pool1d": lambda x, **more: F.stochastic_pool1d(x, 2, rng=1, **more),
    "stochastic_pool1d reflect": lambda x, **more: F.stochastic_pool1d(
        x, 3, 2, 1, padding_mode="reflect", rng=1, **more
    ),
    "dropout": lambda x, **more: F.dropout(x, 0.5, rng=1, **more),
    "partial_conv1d": lambda x, **more: F.partial_conv1d(
        x, weights(x, (C, C, 3)), None, 1, 1, mask=x[:1] > 0, **more
    ),
    "partial_conv1d of floats": lambda x, **more: F.partial_conv1d(
        x, weights(x, (C, C, 3)), None, 1, 1, mask=x[:, :1], **more
    ),
}


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_both_results_into_given_memory(name: str, dtype: Any) -> None:
    operation = PAIRS[name]
    x = oracle.normal(np.random.default_rng(0), (7, C, 5), dtype)
    right = operation(x)
    y = np.full_like(right[0], np.nan)
    assert operation(x, out=y)[0] is y
    oracle.assert_bits_equal(y, right[0])
    for mask in ((True, True), (True, False), (False, True), (False, False)):
        out = tuple(
            np.empty_like(result) if given else None
            for result, given in zip(right, mask, strict=True)
        )
        results = operation(x, out=out)
        for result, given, expected in zip(results, out, right, strict=True):
            assert given is None or result is given
            assert result.dtype == expected.dtype
            oracle.assert_bits_equal(result, expected)


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_memory_for_both_results_is_checked(name: str) -> None:
    operation = PAIRS[name]
    x = oracle.normal(np.random.default_rng(0), (7, C, 5), np.float64)
    fits = tuple(np.zeros_like(result) for result in operation(x))
    second = fits[1]
    memory = np.zeros(fits[0].nbytes + second.nbytes, np.uint8)
    first = memory[: fits[0].nbytes].view(fits[0].dtype).reshape(fits[0].shape)
    same = memory[: second.nbytes].view(second.dtype).reshape(second.shape)
    own = x.reshape(-1).view(second.dtype)[: second.size].reshape(second.shape)
    wrong: list[tuple[type[Exception], Any, str]] = [
        (TypeError, list(fits), "out must be a NumPy array"),
        (ValueError, fits[:1], "out must have 2 elements"),
        (TypeError, (fits[0].astype(np.float16), second), r"out\[0\] must be native"),
        (TypeError, (fits[0], second.astype(np.int8)), r"out\[1\] must be native"),
        (ValueError, (fits[0], second[:1, :1]), r"out\[1\] must have shape"),
        (ValueError, (None, own), r"out\[1\] must not overlap an input"),
        (ValueError, (first, same), r"out\[1\] must not overlap another of out"),
        (TypeError, (1, second), r"out\[0\] must be a NumPy array"),
    ]
    for error, out, message in wrong:
        with pytest.raises(error, match=f"^{name.split()[0]}: {message}"):
            operation(x, out=out)
    assert not any(result.any() for result in (*fits, memory))


def test_one_result_has_no_place_for_two() -> None:
    x = np.zeros((2, 3, 6))
    y = F.max_pool1d(x, 2)
    for call in (F.max_pool1d, F.adaptive_max_pool1d, F.channel_max_pool):
        with pytest.raises(TypeError, match="out must be a NumPy array, got tuple"):
            call(x, 2, out=(y, None))  # type: ignore[operator]
    with pytest.raises(TypeError, match="out must be a NumPy array, got tuple"):
        F.fractional_max_pool1d(x, 2, 3, rng=1, out=(y, None))  # type: ignore[call-overload]


def test_losses_of_all_positions_into_given_memory() -> None:
    x = oracle.normal(np.random.default_rng(0), (4, 3, 5))
    classes = np.arange(20).reshape(4, 5) % 3
    right = F.cross_entropy(x, classes, reduction="none")
    losses = np.full_like(right, np.nan)
    assert F.cross_entropy(x, classes, reduction="none", out=losses) is losses
    oracle.assert_bits_equal(losses, right)
    right = F.mse_loss(x, -x, "none")
    own = x.copy()
    assert F.mse_loss(own, -x, "none", out=own) is own
    oracle.assert_bits_equal(own, right)
    with pytest.raises(ValueError, match=r"cross_entropy: out must not overlap an inp"):
        F.cross_entropy(
            x, classes, reduction="none", out=x.reshape(-1)[:20].reshape(4, 5)
        )
    with pytest.raises(ValueError, match=r"^mse_loss: out must have shape \(4, 3, 5\)"):
        F.mse_loss(x, x, "none", out=losses)
    for name, target in (("cross_entropy", classes), ("mse_loss", x)):
        for reduction in ("mean", "sum"):
            with pytest.raises(ValueError, match=f"^{name}: out must be None unless"):
                getattr(F, name)(x, target, reduction=reduction, out=losses)
