"""Packed weights that a convolution keeps: never stale, and the same bits."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import nn, optim, precision
from convcore.plan import Plan
from tests import oracle

LAYERS: dict[str, Any] = {
    "Conv1d": lambda: nn.Conv1d(12, 40, 3, padding=1, dilation=2),
    "Conv2d": lambda: nn.Conv2d(10, 33, 3, padding=1),
    "Conv2d grouped, flipped": lambda: nn.Conv2d(24, 40, 3, groups=2, flip=True),
    "Conv2d double": lambda: nn.Conv2d(10, 33, (3, 2), stride=2, dtype=np.float64),
    "Conv3d": lambda: nn.Conv3d(3, 20, 2, bias=False),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(12, 34, 4, stride=2, padding=1),
    "ConvTranspose1d": lambda: nn.ConvTranspose1d(12, 34, 3, stride=3, dilation=2),
}

FUNCTIONS: dict[str, Any] = {
    "Conv1d": F.conv1d,
    "Conv2d": F.conv2d,
    "Conv3d": F.conv3d,
    "ConvTranspose1d": F.conv_transpose1d,
    "ConvTranspose2d": F.conv_transpose2d,
}


def images(layer: Any, extent: int = 9, samples: int = 2) -> Any:
    shape = (samples, layer.in_channels, *(extent,) * layer.ndim)
    rng = np.random.default_rng(extent)
    return rng.standard_normal(shape).astype(layer.weight.value.dtype)


def expected(layer: Any, x: Any) -> Any:
    function = FUNCTIONS[type(layer).__name__]
    bias = None if layer.bias is None else layer.bias.value
    return function(x, layer.weight.value.copy(), bias, **layer._geometry)


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that packed weights apart from a call, in order."""
    seen: list[Plan] = []
    pack = Plan.pack

    def counting(plan: Plan, *arguments: Any) -> None:
        seen.append(plan)
        pack(plan, *arguments)

    monkeypatch.setattr(Plan, "pack", counting)
    return seen


@pytest.fixture
def strict() -> Iterator[None]:
    """Choose by one sample's shape alone, for a layer what functions choose."""
    with precision("strict"):
        yield


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("name", LAYERS)
def test_packed_once_for_any_input(name: str, packed: list[Plan], isa: str) -> None:
    layer = LAYERS[name]()
    inputs = [images(layer, e, n) for e, n in ((9, 2), (13, 1), (8, 5), (9, 0))]
    results = [layer(x) for x in inputs]
    assert len(packed) == 1
    for x, y in zip(inputs, results, strict=True):
        oracle.assert_bits_equal(y, expected(layer, x))


def test_packed_once_for_each_algorithm(packed: list[Plan]) -> None:
    layer = nn.Conv2d(64, 64, 3, padding=1)
    inputs = [images(layer, *shape) for shape in ((2, 1), (14, 1), (14, 8), (56, 1))]
    for x in inputs * 3:
        layer(x)
    assert len(packed) == len({plan.algorithm for plan in packed}) > 1


def by_setting(layer: Any) -> None:
    layer.weight.value = layer.weight.value * 2


def in_place(layer: Any) -> None:
    layer.weight.value[...] += 1  # without `touch`


def by_a_step(layer: Any) -> None:
    _, backward = layer.forward(images(layer))
    y = layer(images(layer))
    backward(np.ones_like(y))
    optim.SGD(layer.parameters(), lr=0.1).step()


def by_loading(layer: Any) -> None:
    layer.load_state_dict({k: v + 1 for k, v in layer.state_dict().items()})


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("change", [by_setting, in_place, by_a_step, by_loading])
@pytest.mark.parametrize("name", LAYERS)
def test_every_change_is_seen(name: str, change: Any) -> None:
    layer = LAYERS[name]()
    x = images(layer)
    for _ in range(2):
        before = layer(x)
        change(layer)
        after = layer(x)
        assert not np.array_equal(before, after)
        oracle.assert_bits_equal(after, expected(layer, x))


def test_a_held_array_may_change_at_any_time(packed: list[Plan]) -> None:
    """Neither the array nor a view of it tells when it is written to."""
    layer = LAYERS["Conv2d"]()
    x = images(layer)
    held = layer.weight.value[0]
    layer(x)
    held[...] = 3
    oracle.assert_bits_equal(layer(x), expected(layer, x))
    assert not packed
    held[...] = 5
    del held
    oracle.assert_bits_equal(layer(x), expected(layer, x))


def test_threads_share_a_layer() -> None:
    layer = LAYERS["Conv2d"]()
    x = images(layer)
    right = expected(layer, x)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(50):
            if not np.array_equal(layer(x), right):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
