"""What activations promise beside right results: places, threads, memory, arguments."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import nn, reference
from tests import oracle
from tests.oracle import Array

RNG = np.random.default_rng(0)
NAMES = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "tanh"),
    *("softplus", "hardtanh", "hardsigmoid", "hardswish", "softmax", "log_softmax"),
)


def forward(name: str, x: Array, **options: Any) -> Any:
    return getattr(F, name)(x, **options)


def backward(name: str, g: Array, x: Array, **options: Any) -> Any:
    return getattr(F, f"{name}_backward")(g, x, **options)


def guarded(values: Array) -> tuple[Array, Array]:
    """Give a copy that lies between two rows of a number that never occurs."""
    room = np.full(values.size + 64, -77.25, values.dtype)
    middle = room[32:-32].reshape(values.shape)
    middle[...] = values
    return room, middle


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_in_place_and_elsewhere(name: str, dtype: Any, isa: str) -> None:
    """Every length of what is left over; nothing is written around `out`."""
    for size in (1, 2, 3, 7, 15, 16, 17, 33, 64, 100):
        x = oracle.normal(RNG, (2, size), dtype)
        g = oracle.normal(RNG, (2, size), dtype)
        y, grad = forward(name, x), backward(name, g, x)
        for arrays, make, right in (((x,), forward, y), ((g, x), backward, grad)):
            room, out = guarded(np.full_like(x, np.nan))
            assert make(name, *arrays, out=out) is out
            oracle.assert_bits_equal(out, right)
            assert (room[:32] == -77.25).all()
            assert (room[-32:] == -77.25).all()
        own = x.copy()
        assert forward(name, own, out=own) is own
        oracle.assert_bits_equal(own, y)
        for place in (0, 1):
            both = [g.copy(), x.copy()]
            backward(name, *both, out=both[place])
            oracle.assert_bits_equal(both[place], grad)


@pytest.mark.parametrize("name", NAMES)
def test_out_is_refused_where_it_does_not_fit(name: str) -> None:
    x = oracle.normal(RNG, (4, 6))
    room = np.zeros(30, np.float32)
    x_there = room[:24].reshape(4, 6)
    for call in (forward, lambda n, x, **o: backward(n, x, x, **o)):
        with pytest.raises(ValueError, match="out must have shape"):
            call(name, x, out=np.zeros((4, 5), np.float32))
        with pytest.raises(TypeError, match="out must be native float32"):
            call(name, x, out=np.zeros((4, 6)))
        with pytest.raises(TypeError, match="out must be a NumPy array"):
            call(name, x, out=[0.0])
        with pytest.raises(ValueError, match="out must not overlap an input"):
            call(name, x_there, out=room[6:].reshape(4, 6))
        with pytest.raises(ValueError, match="out must be C-contiguous"):
            call(name, x, out=np.zeros((6, 4), np.float32).T)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_bits_of_large_arrays_do_not_depend_on_threads(
    name: str, dtype: Any, team: Callable[[int], None], isa: str
) -> None:
    """Several pieces, with something left over at the end of each kind of loop."""
    x = oracle.normal(RNG, (3, 7, 4111), dtype)
    g = oracle.normal(RNG, x.shape, dtype)
    results = []
    for count in (1, 2, 5):
        team(count)
        results.append((forward(name, x), backward(name, g, x)))
    for y, grad in results[1:]:
        oracle.assert_bits_equal(y, results[0][0])
        oracle.assert_bits_equal(grad, results[0][1])
    oracle.assert_bits_equal(forward(name, x[1:2]), results[0][0][1:2])


def test_results_that_leave_the_caches(team: Callable[[int], None], isa: str) -> None:
    """From 32 MB on they are stored in another way: the same bits, whatever the place."""
    size = (33 << 20) // 4 + 5
    room = np.zeros(size + 64, np.float32)
    x = np.resize(oracle.normal(RNG, (100_003,)), size)
    start = -room.ctypes.data // 4 % 16
    team(2)
    for shift in (0, 3):  # aligned, and not
        out = room[start + shift : start + shift + size]
        room[...] = -7
        F.elu(x, out=out)
        oracle.assert_bits_equal(out[:100_003], F.elu(x[:100_003]))
        oracle.assert_bits_equal(out[-1000:], F.elu(x[-1000:]))
        assert (room[: start + shift] == -7).all()
        assert (room[start + shift + size :] == -7).all()


@pytest.mark.parametrize("shape", [(8301, 1001), (33, 1001, 256), (2, 16, 263_000)])
def test_softmax_that_leaves_the_caches(shape: tuple[int, ...], isa: str) -> None:
    x = np.resize(oracle.normal(RNG, (100_003,)), shape)
    for operation, back in (
        (F.softmax, F.softmax_backward),
        (F.log_softmax, F.log_softmax_backward),
    ):
        y = operation(x)
        grad = back(x, y)
        for i in (0, len(x) // 2, len(x) - 1):
            oracle.assert_bits_equal(operation(x[i : i + 1]), y[i : i + 1])
            alone = back(x[i : i + 1], y[i : i + 1])
            oracle.assert_bits_equal(alone, grad[i : i + 1])


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize(
    "shape", [(3, 1, 5), (2, 5, 1), (2, 300, 3), (2, 600, 40), (1, 9000, 2), (2, 20000)]
)
def test_long_and_short_axes(shape: tuple[int, ...], dtype: Any, isa: str) -> None:
    x = 4 * oracle.normal(RNG, shape, dtype)
    g = oracle.normal(RNG, shape, dtype)
    wide = oracle.wider(dtype)
    u = float(np.finfo(dtype).eps)
    y, log_y = F.softmax(x), F.log_softmax(x)
    # Sums of CHAIN terms, then of chains: of positive terms, each is off by u a step.
    steps = 16 + shape[1] / 16
    right = reference.softmax(x.astype(wide), 1)
    oracle.assert_within(y, right, (32 + steps) * u * right, dtype)
    right = reference.log_softmax(x.astype(wide), 1)
    oracle.assert_within(log_y, right, (32 + steps) * u * (1 + abs(right)), dtype)
    for back, kept in (("softmax_backward", y), ("log_softmax_backward", log_y)):
        grad = getattr(F, back)(g, kept)
        arrays = g.astype(wide), kept.astype(wide)
        right = getattr(reference, back)(*arrays, 1)
        total = np.abs(g).sum(axis=1, keepdims=True, dtype=wide)
        share = y if back == "softmax_backward" else np.exp(kept.astype(wide))
        allowed = (8 + steps) * u * (np.abs(right) + share * total)
        oracle.assert_within(grad, right, allowed, dtype)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize(
    "shape", [(3, 5, 70), (3, 5, 7), (4, 6), (2, 3, 8200), (9,), ()]
)
@pytest.mark.parametrize("single", [False, True])
def test_prelu_as_the_reference(
    single: bool, shape: tuple[int, ...], dtype: Any, isa: str
) -> None:
    x, g = (oracle.normal(RNG, shape, dtype) for _ in range(2))
    channels = 1 if single or len(shape) < 2 else shape[1]
    weight = oracle.normal(RNG, (channels,), dtype)
    oracle.assert_bits_equal(F.prelu(x, weight), np.array(reference.prelu(x, weight)))
    grad_x, grad_weight = F.prelu_backward(g, x, weight)
    right, _ = reference.prelu_backward(g, x, weight)
    oracle.assert_bits_equal(grad_x, np.array(right))
    wide = oracle.wider(dtype)
    _, right = reference.prelu_backward(*(a.astype(wide) for a in (g, x, weight)))
    terms = x.size // channels
    allowed = (2 * terms**0.5 + 4) * np.finfo(dtype).eps * np.abs(g * x).sum()
    oracle.assert_within(grad_weight, right, float(allowed), dtype)
    assert F.prelu_backward(g, x, weight, needs=("x",))[1] is None
    assert F.prelu_backward(g, x, weight, needs=("weight",))[0] is None


def test_prelu_learns_from_nothing_that_is_positive() -> None:
    """Not even where the gradient there is not finite."""
    x, g = np.array([[1.0, -2.0]]), np.array([[np.inf, 3.0]])
    for weight in (np.array([0.5]), np.array([0.5, 0.25])):
        total = F.prelu_backward(g, x, weight)[1]
        assert total is not None
        assert total.sum() == -6


@pytest.mark.parametrize("name", ["ReLU", "ReLU6", "Hardtanh", "Sigmoid", "Tanh"])
def test_backward_from_the_output_alone(name: str) -> None:
    """The next layer has that anyway; the input may go."""
    x = np.ones(100, np.float32)
    y, back = getattr(nn, name)().forward(x)
    gone = weakref.ref(x)
    del x
    assert gone() is None
    assert back(y).shape == y.shape


def test_dropout_keeps_nothing() -> None:
    x = np.ones(100, np.float32)
    y, back = nn.Dropout(0.5, rng=0).forward(x)
    gone = weakref.ref(x), weakref.ref(y)
    right = y.copy()
    del x, y
    assert [array() for array in gone] == [None, None]
    oracle.assert_bits_equal(back(np.ones(100, np.float32)), right)


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: F.gelu(np.zeros(3), "erf"),  # type: ignore[arg-type]
        ValueError,
        'gelu: approximate must be "none" or "tanh", got \'erf\'',
    ),
    (lambda: F.softplus(np.zeros(3), 0.0), ValueError, "softplus: beta must not be 0"),
    (
        lambda: F.hardtanh(np.zeros(3), 1.0, -1.0),
        ValueError,
        "hardtanh: max_val must be above min_val 1.0, got -1.0",
    ),
    (lambda: F.elu(np.zeros(3), np.inf), ValueError, "elu: alpha must be finite"),
    (
        lambda: F.prelu(np.zeros((2, 3)), np.zeros(2)),
        ValueError,
        r"prelu: weight must have shape \(1,\) or \(3,\).*got \(2,\)",
    ),
    (
        lambda: F.prelu(np.zeros((2, 3)), np.zeros(3, np.float32)),
        TypeError,
        "prelu: weight must have the same dtype",
    ),
    (
        lambda: F.prelu_backward(
            np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(3), needs=("bias",)
        ),
        ValueError,
        "prelu_backward: needs must be names from",
    ),
    (lambda: nn.GELU("erf"), ValueError, "GELU: approximate"),  # type: ignore[arg-type]
    (lambda: nn.Softplus(0.0), ValueError, "Softplus: beta must not be 0"),
    (lambda: nn.Hardtanh(1.0, 1.0), ValueError, "Hardtanh: max_val must be above"),
    (lambda: nn.PReLU(0), ValueError, "PReLU: num_parameters must be >= 1"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
