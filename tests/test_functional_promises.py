"""What every operation in plain NumPy promises: bits, layouts, dtypes, errors.

One table, one test per promise.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from tests import oracle

C = 6  # classes, channels, features
CHOSEN = np.array([[0, 2, 4], [1, 1, 3], [4, 0, 1], [2, 2, 2]])
CHOSEN5 = np.array([[0, 2, 4], [1, 1, 3], [4, 0, 1], [2, 2, 2], [3, 1, 0]])

# Operation on (N, 6, 5) arrays, how many it takes, whether samples are independent.
TABLE: dict[str, tuple[Callable[..., Any], int, bool]] = {
    "relu": (F.relu, 1, True),
    "relu_backward": (F.relu_backward, 2, True),
    "leaky_relu": (F.leaky_relu, 1, True),
    "leaky_relu_backward": (F.leaky_relu_backward, 2, True),
    "sigmoid": (F.sigmoid, 1, True),
    "sigmoid_backward": (F.sigmoid_backward, 2, True),
    "tanh": (F.tanh, 1, True),
    "tanh_backward": (F.tanh_backward, 2, True),
    "relu6": (F.relu6, 1, True),
    "relu6_backward": (F.relu6_backward, 2, True),
    "hardtanh": (F.hardtanh, 1, True),
    "hardtanh_backward": (F.hardtanh_backward, 2, True),
    "hardsigmoid": (F.hardsigmoid, 1, True),
    "hardsigmoid_backward": (F.hardsigmoid_backward, 2, True),
    "hardswish": (F.hardswish, 1, True),
    "hardswish_backward": (F.hardswish_backward, 2, True),
    "elu": (F.elu, 1, True),
    "elu_backward": (F.elu_backward, 2, True),
    "selu": (F.selu, 1, True),
    "selu_backward": (F.selu_backward, 2, True),
    "gelu": (F.gelu, 1, True),
    "gelu_backward": (F.gelu_backward, 2, True),
    "silu": (F.silu, 1, True),
    "silu_backward": (F.silu_backward, 2, True),
    "softplus": (F.softplus, 1, True),
    "softplus_backward": (F.softplus_backward, 2, True),
    "gelu tanh": (lambda x: F.gelu(x, "tanh"), 1, True),
    "gelu_backward tanh": (lambda g, x: F.gelu_backward(g, x, "tanh"), 2, True),
    "prelu": (lambda x: F.prelu(x, weights(x, (C,))), 1, True),
    "prelu one": (lambda x: F.prelu(x, weights(x, (1,))), 1, True),
    "prelu_backward": (
        lambda g, x: F.prelu_backward(g, x, weights(x, (C,)))[0],
        2,
        True,
    ),
    "prelu_backward weight": (
        lambda g, x: F.prelu_backward(g, x, weights(x, (C,)))[1],
        2,
        False,
    ),
    "prelu_backward one": (
        lambda g, x: F.prelu_backward(g, x, weights(x, (1,)))[1],
        2,
        False,
    ),
    "keyed_dropout": (lambda x: F.keyed_dropout(x, 3), 1, False),
    "keyed_dropout_backward": (lambda g: F.keyed_dropout_backward(g, 3), 1, False),
    "softmax": (F.softmax, 1, True),
    "softmax_backward": (F.softmax_backward, 2, True),
    "log_softmax": (F.log_softmax, 1, True),
    "log_softmax_backward": (F.log_softmax_backward, 2, True),
    "softmax -1": (lambda x: F.softmax(x, -1), 1, True),
    "softmax_backward -1": (lambda g, y: F.softmax_backward(g, y, -1), 2, True),
    "flatten": (F.flatten, 1, True),
    "flatten_backward": (
        lambda g: F.flatten_backward(g, (np.shape(g)[:1] or (7,)) + (30,)),
        1,
        True,
    ),
    "dropout": (lambda x: F.dropout(x, rng=1)[0], 1, False),
    "dropout_backward": (
        lambda g: F.dropout_backward(g, np.ones(np.shape(g), bool)),
        1,
        True,
    ),
    "linear": (
        lambda x: F.linear(x, weights(x, (4, 5)), weights(x, (4,))),
        1,
        True,
    ),
    "linear_backward x": (
        lambda g, x: F.linear_backward(g, x, weights(x, (5, 5)))[0],
        2,
        True,
    ),
    "linear_backward weight": (
        lambda g, x: F.linear_backward(g, x, weights(x, (5, 5)))[1],
        2,
        False,
    ),
    "linear_backward bias": (
        lambda g, x: F.linear_backward(g, x, weights(x, (5, 5)))[2],
        2,
        False,
    ),
    "batch_norm": (lambda x: F.batch_norm(x, *channels(x)), 1, True),
    "batch_norm training": (
        lambda x: F.batch_norm(x, *channels(x), training=True),
        1,
        False,
    ),
    "batch_norm_backward": (
        lambda g, x: F.batch_norm_backward(g, x, *channels(x)[:3])[0],
        2,
        True,
    ),
    "batch_norm_backward training": (
        lambda g, x: F.batch_norm_backward(g, x, None, None, training=True)[0],
        2,
        False,
    ),
    "batch_norm_backward weight": (
        lambda g, x: F.batch_norm_backward(g, x, None, None, training=True)[1],
        2,
        False,
    ),
    "layer_norm": (lambda x: F.layer_norm(x, 5, *features(x)), 1, True),
    "layer_norm_backward": (
        lambda g, x: F.layer_norm_backward(g, x, (C, 5))[0],
        2,
        True,
    ),
    "layer_norm_backward weight": (
        lambda g, x: F.layer_norm_backward(g, x, 5)[1],
        2,
        False,
    ),
    "rms_norm": (lambda x: F.rms_norm(x, 5, features(x)[0]), 1, True),
    "rms_norm_backward": (lambda g, x: F.rms_norm_backward(g, x, 5)[0], 2, True),
    "rms_norm_backward weight": (
        lambda g, x: F.rms_norm_backward(g, x, 5)[1],
        2,
        False,
    ),
    "group_norm": (lambda x: F.group_norm(x, 2, *channels(x)[2:]), 1, True),
    "group_norm_backward": (
        lambda g, x: F.group_norm_backward(g, x, 3, channels(x)[2])[0],
        2,
        True,
    ),
    "group_norm_backward weight": (
        lambda g, x: F.group_norm_backward(g, x, 3)[1],
        2,
        False,
    ),
    "instance_norm": (F.instance_norm, 1, True),
    "instance_norm_backward": (
        lambda g, x: F.instance_norm_backward(g, x)[0],
        2,
        True,
    ),
    "local_response_norm": (lambda x: F.local_response_norm(x, 3), 1, True),
    "local_response_norm_backward": (
        lambda g, x: F.local_response_norm_backward(g, x, 3),
        2,
        True,
    ),
    "cross_entropy": (lambda x: F.cross_entropy(x, targets(x)), 1, False),
    "cross_entropy none": (
        lambda x: F.cross_entropy(
            x, targets(x), weights(x, (C,)), reduction="none", label_smoothing=0.1
        ),
        1,
        True,
    ),
    "cross_entropy_backward": (
        lambda x: F.cross_entropy_backward(x, targets(x), reduction="sum"),
        1,
        True,
    ),
    "cross_entropy probabilities": (
        lambda x: F.cross_entropy(
            x, probabilities(x), reduction="none", label_smoothing=0.1
        ),
        1,
        True,
    ),
    "cross_entropy_backward probabilities": (
        lambda x: F.cross_entropy_backward(x, probabilities(x), reduction="sum"),
        1,
        True,
    ),
    "sum_pool": (lambda x: F.sum_pool1d(x, 2), 1, True),
    "sum_pool_backward": (
        lambda g: F.sum_pool1d_backward(g, (*(np.shape(g)[:1] or (7,)), C, 10), 2),
        1,
        True,
    ),
    "channel_avg_pool": (lambda x: F.channel_avg_pool(x, 2), 1, True),
    "channel_avg_pool_backward": (
        lambda g: F.channel_avg_pool_backward(
            g, (*(np.shape(g)[:1] or (7,)), 12, 5), 2
        ),
        1,
        True,
    ),
    "lp_pool": (lambda x: F.lp_pool1d(x, 3.5, 2), 1, True),
    "lp_pool inf": (lambda x: F.lp_pool1d(x, np.inf, 2), 1, True),
    "lp_pool_backward": (
        lambda g, x: F.lp_pool1d_backward(g, x, F.lp_pool1d(x, 2, 1), 2, 1),
        2,
        True,
    ),
    "blur_pool": (F.blur_pool1d, 1, True),
    "blur_pool_backward": (
        lambda g: F.blur_pool1d_backward(g, (*(np.shape(g)[:1] or (7,)), C, 10)),
        1,
        True,
    ),
    "locally_connected1d": (
        lambda x: F.locally_connected1d(
            x, weights(x, (C, 4, 2, 4)), weights(x, (4, 4))
        ),
        1,
        True,
    ),
    "locally_connected1d_backward x": (
        lambda g, x: F.locally_connected1d_backward(g, x, weights(x, (C, C, 1, 5)))[0],
        2,
        True,
    ),
    "locally_connected1d_backward weight": (
        lambda g, x: F.locally_connected1d_backward(g, x, weights(x, (C, C, 1, 5)))[1],
        2,
        False,
    ),
    "locally_connected1d_backward bias": (
        lambda g, x: F.locally_connected1d_backward(g, x, weights(x, (C, C, 1, 5)))[2],
        2,
        False,
    ),
    "partial_conv1d": (
        lambda x: F.partial_conv1d(
            x, weights(x, (4, C, 3)), weights(x, (4,)), padding=1
        ),
        1,
        True,
    ),
    "partial_conv1d_backward x": (
        lambda g, x: F.partial_conv1d_backward(g, x, weights(x, (C, C, 3)), 1, 1)[0],
        2,
        True,
    ),
    "partial_conv1d_backward weight": (
        lambda g, x: F.partial_conv1d_backward(g, x, weights(x, (C, C, 3)), 1, 1)[1],
        2,
        False,
    ),
    "border_passthrough1d": (
        lambda x: F.border_passthrough1d(x, weights(x, (*np.shape(x)[:2], 2))),
        1,
        False,
    ),
    "border_passthrough1d_backward": (
        lambda g: F.border_passthrough1d_backward(g, (*np.shape(g)[:2], 2))[0],
        1,
        True,
    ),
    "sparse_linear": (
        lambda x: F.sparse_linear(x, weights(x, (4, 3)), CHOSEN, weights(x, (4,))),
        1,
        True,
    ),
    "sparse_linear_backward x": (
        lambda g, x: F.sparse_linear_backward(g, x, weights(x, (5, 3)), CHOSEN5)[0],
        2,
        True,
    ),
    "sparse_linear_backward weight": (
        lambda g, x: F.sparse_linear_backward(g, x, weights(x, (5, 3)), CHOSEN5)[1],
        2,
        False,
    ),
    "mse_loss": (F.mse_loss, 2, False),
    "mse_loss none": (lambda x, t: F.mse_loss(x, t, "none"), 2, True),
    "mse_loss_backward": (lambda x, t: F.mse_loss_backward(x, t, "sum"), 2, True),
}
NAMES = sorted(TABLE)
SINGLE = sorted(name for name, (_, _, single) in TABLE.items() if single)


def weights(x: Any, shape: tuple[int, ...]) -> Any:
    dtype = getattr(x, "dtype", np.dtype(np.float32)).newbyteorder("=")
    return oracle.normal(np.random.default_rng(1), shape, dtype)


def channels(x: Any) -> list[Any]:
    """Mean, variance, weight and bias."""
    mean, var, weight, bias = weights(x, (4, C))
    return [mean, var**2 + 0.5, weight, bias]


def features(x: Any) -> Any:
    """Weight and bias of the last axis."""
    return weights(x, (2, 5))


def targets(x: Any) -> Any:
    """Classes that depend on the sample alone."""
    if not isinstance(x, np.ndarray) or x.ndim < 2:
        return np.zeros((7, 5), np.int64)
    first = np.asarray(x)[:, 0].astype(np.complex128)
    return (np.abs(first) * 1000).astype(np.int64) % C


def probabilities(x: Any) -> Any:
    """What depends on the sample alone, in the usual layout."""
    if not isinstance(x, np.ndarray):
        return x
    return np.abs(np.array(x, x.dtype.newbyteorder("="), order="C"))


def arguments(name: str, dtype: Any, batch: int = 7) -> list[Any]:
    rng = np.random.default_rng(0)
    return [oracle.normal(rng, (batch, C, 5), dtype) for _ in range(TABLE[name][1])]


def layouts(x: Any) -> Iterator[tuple[str, Any]]:
    """The values of x in other layouts."""
    yield "Fortran", np.asfortranarray(x)
    yield "big-endian", x.astype(x.dtype.newbyteorder(">"))
    yield "negative strides", x[..., ::-1].copy()[..., ::-1]
    raw = np.empty(x.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(x.dtype).reshape(x.shape)
    misaligned[...] = x
    yield "misaligned", misaligned
    fixed = x.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_dtype_is_kept_and_nothing_left_unwritten(name: str, dtype: Any) -> None:
    """Fresh outputs are NaN in tests: a finite result has been written."""
    y = TABLE[name][0](*arguments(name, dtype))
    assert y.dtype == dtype
    assert np.isfinite(y).all()


@pytest.mark.parametrize("name", NAMES)
def test_any_layout_gives_the_same_bits(name: str) -> None:
    operation = TABLE[name][0]
    plain = arguments(name, np.float32)
    right = operation(*plain)
    for place, array in enumerate(plain):
        for layout, other in layouts(array):
            y = operation(*plain[:place], other, *plain[place + 1 :])
            oracle.assert_bits_equal(y, right, f"{name}, argument {place}, {layout}")


@pytest.mark.parametrize("name", NAMES)
def test_zero_strides(name: str) -> None:
    operation = TABLE[name][0]
    plain = arguments(name, np.float32)
    flat = np.broadcast_to(np.float32(0.7), plain[0].shape)
    right = operation(flat.copy(), *plain[1:])
    oracle.assert_bits_equal(operation(flat, *plain[1:]), right)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_never_written(name: str) -> None:
    plain = arguments(name, np.float64)
    before = [array.copy() for array in plain]
    TABLE[name][0](*plain)
    for array, right in zip(plain, before, strict=True):
        oracle.assert_bits_equal(array, right)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("name", SINGLE)
def test_bits_do_not_depend_on_the_batch(name: str, dtype: Any) -> None:
    operation = TABLE[name][0]
    plain = arguments(name, dtype, batch=40)
    y = operation(*plain)
    for lo, hi in ((0, 1), (17, 18), (3, 30), (39, 40)):
        part = operation(*(array[lo:hi] for array in plain))
        oracle.assert_bits_equal(part, y[lo:hi], f"{name} of samples {lo} to {hi}")


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("shape", [(1000,), (1000, 1), (1000, 2), (100, 3, 7), (9, 64)])
@pytest.mark.parametrize("operation", [F.softmax, F.log_softmax])
def test_long_sums_do_not_depend_on_the_batch(
    operation: Callable[..., Any], shape: tuple[int, ...], dtype: Any
) -> None:
    """NumPy adds in another order when it sees another number of axes."""
    x = oracle.normal(np.random.default_rng(0), (9, *shape), dtype)
    g = oracle.normal(np.random.default_rng(1), (9, *shape), dtype)
    y = operation(x)
    back = {F.softmax: F.softmax_backward, F.log_softmax: F.log_softmax_backward}
    grad = back[operation](g, y)
    for i in (0, 4, 8):
        alone = operation(x[i : i + 1])
        oracle.assert_bits_equal(alone, y[i : i + 1])
        oracle.assert_bits_equal(back[operation](g[i : i + 1], alone), grad[i : i + 1])


def test_a_large_batch_norm_does_not_depend_on_the_batch() -> None:
    """More than one block of samples, and samples larger than a block."""
    for shape in ((300, C, 100), (3, C, 20000)):
        x = oracle.normal(np.random.default_rng(0), shape)
        y = F.batch_norm(x, *channels(x))
        for i in (0, len(x) // 2, len(x) - 1):
            alone = F.batch_norm(x[i : i + 1], *channels(x))
            oracle.assert_bits_equal(alone, y[i : i + 1])


@pytest.mark.parametrize("name", NAMES)
def test_bits_do_not_depend_on_threads(name: str, team: Callable[[int], None]) -> None:
    plain = arguments(name, np.float32, batch=200)
    team(1)
    right = TABLE[name][0](*plain)
    for count in (2, 3, 8):
        team(count)
        oracle.assert_bits_equal(TABLE[name][0](*plain), right)


@pytest.mark.parametrize("name", SINGLE)
def test_an_empty_batch(name: str) -> None:
    operation, count, _ = TABLE[name]
    empty = [np.empty((0, C, 5), np.float32)] * count
    y = operation(*empty)
    assert y.dtype == np.float32
    assert y.shape == operation(*arguments(name, np.float32, batch=0)).shape
    assert len(y) == 0


WRONG = [
    np.ones((7, C, 5), np.int64),
    np.ones((7, C, 5), np.float16),
    np.ones((7, C, 5), np.complex64),
    np.ones((7, C, 5), object),
    np.ma.masked_less(np.ones((7, C, 5), np.float32), 2),
    None,
    [[1.0]],
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: str(getattr(w, "dtype", w)))
@pytest.mark.parametrize("name", NAMES)
def test_other_types_are_refused(name: str, wrong: Any) -> None:
    operation, count, _ = TABLE[name]
    plain = arguments(name, np.float32)
    for place in range(count):
        with pytest.raises(TypeError, match=r"must be"):
            operation(*plain[:place], wrong, *plain[place + 1 :])


@pytest.mark.parametrize("name", [n for n in NAMES if TABLE[n][1] == 2])
def test_dtypes_are_never_mixed(name: str) -> None:
    one, other = arguments(name, np.float32)
    with pytest.raises(TypeError, match=r"float64"):
        TABLE[name][0](one, other.astype(np.float64))
