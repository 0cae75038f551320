"""Steps that come again and again: what they need the second time is there already."""

import gc
import platform
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import convcore
from convcore import functional as F
from convcore import nn, train
from convcore.runtime import arrays, buffers
from convcore.train.samples import chosen_samples
from tests import steady
from tests.fresh import answer
from tests.nn.test_every_layer import NAMES, make

NUMPY_BYTES = 256 << 10  # what NumPy converts with is 3 * 64 KiB
X_BYTES = 8 * NUMPY_BYTES
SMALL = 1 << 12


@pytest.fixture
def all_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what waits, small results too: what NumPy allocates then is no result."""
    for module, name in ((buffers, "LEAST"), (arrays, "_LEAST")):
        monkeypatch.setattr(module, name, SMALL)
    with convcore.keep_memory():
        yield
    convcore.release_memory()


def allocated(call: Callable[[], Any]) -> int:
    """Count the bytes that Python and NumPy hold at most during a call in steady state.

    Results of the library are not among them: they lie in memory of its own.
    """
    for _ in range(3):
        call()
    gc.collect()
    tracemalloc.start()
    try:
        call()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def large(x: Any) -> Any:
    """Repeat samples until they are so many bytes."""
    batch = X_BYTES * len(x) // x.nbytes
    return np.resize(x, (batch, *x.shape[1:]))


@pytest.mark.usefixtures("all_kept")
@pytest.mark.parametrize("name", NAMES)
def test_layers_allocate_nothing_of_the_size_of_their_input(name: str) -> None:
    """Indices, statistics, masks, copies: each came from NumPy in some layer."""
    layer, x = make(name)
    x = large(x)

    def step() -> None:
        layer.zero_grad()
        y, backward = layer.forward(x)
        backward(y)

    assert allocated(step) < NUMPY_BYTES
    assert allocated(lambda: layer(x)) < NUMPY_BYTES


IMAGES = (8, 8, 64, 64)  # 1 MiB of float32
BORDERED = ("Conv2d", "MaxPool2d", "AvgPool2d", "LPPool2d", "StochasticPool2d")


def bordered(name: str, mode: str) -> nn.Layer:
    """A layer with something else than zeros around x."""
    if name == "Conv2d":
        return nn.Conv2d(8, 8, 3, padding=1, padding_mode=mode)
    window: dict[str, Any] = {"kernel_size": 3, "stride": 2, "padding": 1}
    if name == "LPPool2d":
        window["norm_type"] = np.inf
    if name == "StochasticPool2d":
        window["rng"] = 1
    layer: nn.Layer = getattr(nn, name)(**window, padding_mode=mode)
    return layer


@pytest.mark.usefixtures("all_kept")
@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate", "constant"])
@pytest.mark.parametrize("name", BORDERED)
def test_borders_allocate_nothing_either(name: str, mode: str) -> None:
    layer = bordered(name, mode)
    x = np.random.default_rng(0).standard_normal(IMAGES, np.float32)

    def step() -> None:
        layer.zero_grad()
        y, backward = layer.forward(x)
        backward(y)

    assert allocated(step) < NUMPY_BYTES
    assert allocated(lambda: layer(x)) < NUMPY_BYTES


def unpooled(x: Any) -> Any:
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    F.max_unpool2d_backward(F.max_unpool2d(y, indices, 2), indices)


def hidden(x: Any) -> Any:
    weight = np.ones((8, 8, 3, 3), np.float32)
    seen = np.broadcast_to(np.arange(64) % 3 > 0, x.shape)
    y, _ = F.partial_conv2d(x, weight, padding=1, mask=seen)
    F.partial_conv2d_backward(y, x, weight, padding=1, mask=seen)


HOW: dict[str, Callable[[Any], Any]] = {
    "plain": lambda x: x,
    "turned": lambda x: x.transpose(0, 1, 3, 2),
    "big-endian": lambda x: x.astype(">f4"),
}
CLASSES = np.arange(8 * 64 * 64).reshape(8, 64, 64) % 8
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "max_unpool": unpooled,
    "partial_conv mask": hidden,
    "dropout": lambda x: F.dropout_backward(*F.dropout(x, 0.5, rng=1), 0.5),
    "cross_entropy": lambda x: F.cross_entropy_backward(
        x,
        CLASSES,
        reduction="none",
        grad_output=F.cross_entropy(x, CLASSES, reduction="none"),
    ),
    "cross_entropy int32": lambda x: F.cross_entropy(x, CLASSES.view("i4")[..., ::2]),
    "mse_loss": lambda x: F.mse_loss_backward(x, x, "mean", F.mse_loss(x, x)),
    "mse_loss none": lambda x: F.mse_loss_backward(
        x, x, "none", F.mse_loss(x, x, "none")
    ),
    "channel_max_pool": lambda x: F.channel_max_pool_backward(
        *F.channel_max_pool(x, 2, return_indices=True), x.shape, 2
    ),
}


@pytest.mark.usefixtures("all_kept")
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_allocate_nothing_of_the_size_of_their_input(
    name: str, how: str
) -> None:
    """What is not as kernels read it is copied: to memory that is there, too."""
    x = HOW[how](np.random.default_rng(0).standard_normal(IMAGES, np.float32))
    assert allocated(lambda: FUNCTIONS[name](x)) < NUMPY_BYTES


@pytest.mark.usefixtures("all_kept")
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("optimizer", steady.OPTIMIZERS)
def test_training_allocates_nothing_of_the_size_of_a_batch(
    optimizer: str, how: str
) -> None:
    """Batches came from NumPy, from memory that the system cleared for each of them."""
    x = HOW[how](np.random.default_rng(0).standard_normal(IMAGES, np.float32))
    model = nn.Sequential(nn.Conv2d(8, 64, 3), nn.ReLU(), nn.GlobalMaxPool2d())
    y = model(x)
    made = steady.OPTIMIZERS[optimizer](model.parameters())

    def epochs() -> None:
        train.fit(
            model,
            x,
            y,
            loss=nn.MSELoss(),
            optimizer=made,
            batch_size=4,
            epochs=2,
            validation=(x, y),
            progress=False,
        )

    assert allocated(epochs) < NUMPY_BYTES
    assert allocated(lambda: train.predict(model, x, 4)) < NUMPY_BYTES


@pytest.mark.parametrize("how", [*HOW, "subclass", "short"])
@pytest.mark.parametrize("dtype", ["f4", ">f8", "i8", "u1", "?", "c8", "O"])
def test_batches_are_samples_in_their_order(
    dtype: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers, "LEAST", SMALL)
    x = (np.random.default_rng(0).integers(0, 99, (40, 30, 30))).astype(dtype)
    if how == "subclass":
        x = np.ma.masked_equal(x, x[3, 3, 3]) if dtype != "O" else x
    elif how == "short":
        x = x[..., 0].T.reshape(-1)[::2]
    elif how == "turned":
        x = x.transpose(0, 2, 1)
    for order in (np.arange(len(x))[::-1], np.array([7]), np.array([], np.int64)):
        batch = chosen_samples(x, order)
        assert (type(batch), batch.dtype) == (type(x), x.dtype)
        assert not np.shares_memory(batch, x)
        np.testing.assert_array_equal(batch, x[order])


# Whole networks, as the system sees them -----------------------------------------------

needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="as with glibc on Linux"
)
# An array that could be kept, and is not, is a mapping of its own where no hole is left.
APART = {
    "MALLOC_MMAP_THRESHOLD_": str(buffers.LEAST),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
# One array a step that is not kept would have four times as many faults, or bytes.
MOST_FAULTS = steady.STEPS * steady.PAGES // 4
MOST_BYTES = steady.STEPS * buffers.LEAST // 4


def measured(kind: str, more: str = "", **environment: str) -> list[int]:
    """Page faults, growth of memory and of its peak over all steps of a process."""
    code = f"from tests import steady; steady.run({kind!r}{more})"
    return [int(word) for word in answer(code, **environment).split()]


@needs_glibc
@pytest.mark.parametrize("environment", [{}, APART], ids=["as it comes", "apart"])
@pytest.mark.parametrize("kind", steady.KINDS)
def test_steps_have_no_page_faults(kind: str, environment: dict[str, str]) -> None:
    faults, resident, peak = measured(kind, **environment)
    assert faults < MOST_FAULTS
    assert resident < MOST_BYTES
    assert peak < MOST_BYTES


@needs_glibc
@pytest.mark.parametrize("kind", steady.KINDS)
def test_new_memory_in_a_step_would_show(kind: str) -> None:
    faults, _, _ = measured(kind, ", steady.Fresh()")
    assert faults >= 4 * MOST_FAULTS
