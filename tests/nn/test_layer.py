"""States: torch's names, loading all or nothing, shared layers, own layers."""

from typing import Any

import numpy as np
import pytest

from convcore import nn
from tests import oracle
from tests.interrupts import interrupt_everywhere


def lenet() -> nn.Sequential:
    """With the names of the usual class in torch."""
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(1, 6, 5, padding=2),
            "relu1": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),
            "conv2": nn.Conv2d(6, 16, 5),
            "relu2": nn.ReLU(),
            "pool2": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(400, 120),
            "relu3": nn.ReLU(),
            "fc2": nn.Linear(120, 84),
            "relu4": nn.ReLU(),
            "fc3": nn.Linear(84, 10),
        },
        rng=0,
    )


def basic_block(channels: int, stride: int = 1) -> nn.Sequential:
    """torchvision's BasicBlock, whose last ReLU comes after the sum."""
    outputs = channels * stride
    body = nn.Sequential(
        {
            "conv1": nn.Conv2d(channels, outputs, 3, stride, 1, bias=False),
            "bn1": nn.BatchNorm2d(outputs),
            "relu": nn.ReLU(),
            "conv2": nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            "bn2": nn.BatchNorm2d(outputs),
        }
    )
    shortcut = None
    if stride > 1:
        shortcut = nn.Sequential(
            nn.Conv2d(channels, outputs, 1, stride, bias=False),
            nn.BatchNorm2d(outputs),
        )
    return nn.Sequential({"": nn.Residual(body, shortcut), "relu": nn.ReLU()})


BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
TORCH_LENET = {
    "conv1.weight": (6, 1, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "fc1.weight": (120, 400),
    "fc1.bias": (120,),
    "fc2.weight": (84, 120),
    "fc2.bias": (84,),
    "fc3.weight": (10, 84),
    "fc3.bias": (10,),
}
# list(torchvision.models.resnet.BasicBlock(4, 8, 2, downsample).state_dict())
TORCH_BLOCK = [
    "conv1.weight",
    *(f"bn1.{name}" for name in BN),
    "conv2.weight",
    *(f"bn2.{name}" for name in BN),
    "downsample.0.weight",
    *(f"downsample.1.{name}" for name in BN),
]


def test_names_and_shapes_of_a_lenet_are_torchs() -> None:
    state = lenet().state_dict()
    assert {name: array.shape for name, array in state.items()} == TORCH_LENET
    assert list(state) == list(TORCH_LENET)


def test_names_of_a_resnet_block_are_torchs() -> None:
    state = basic_block(4, 2).state_dict()
    assert list(state) == TORCH_BLOCK
    count = state["bn1.num_batches_tracked"]
    assert count.dtype == np.int64
    assert count.shape == ()


def test_a_block_in_a_network_has_prefixes() -> None:
    model = nn.Sequential({"layer1": nn.Sequential(basic_block(4), basic_block(4, 2))})
    names = [f"layer1.1.{name}" for name in TORCH_BLOCK]
    assert list(model.state_dict())[-len(names) :] == names


def test_parameters_and_gradients() -> None:
    model = lenet()
    assert [name for name, _ in model.named_parameters()] == list(TORCH_LENET)
    x = oracle.normal(np.random.default_rng(0), (2, 1, 28, 28))
    y, backward = model.forward(x)
    backward(np.ones_like(y))
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.shape == parameter.value.shape
    model.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_state_dict_is_a_copy() -> None:
    model = basic_block(4)
    before = model.state_dict()
    for array in model.state_dict().values():
        array[...] = 9
    for name, array in model.state_dict().items():
        oracle.assert_bits_equal(array, before[name])


def test_layers_come_depth_first_and_once() -> None:
    shared = nn.ReLU()
    inner = nn.Sequential(shared, nn.Tanh())
    model = nn.Sequential(inner, shared, nn.Flatten())
    assert model.layers() == [model, inner, shared, inner[1], model[2]]
    assert model.children() == [inner, shared, model[2]]


# Loading ---------------------------------------------------------------------------


def other_state(model: nn.Layer) -> dict[str, Any]:
    """Another state for the same layer."""
    return {
        name: (array + 1).astype(array.dtype)
        for name, array in model.state_dict().items()
    }


def test_loading_keeps_arrays_and_counts_updates() -> None:
    model = basic_block(4, 2)
    state = other_state(model)
    arrays = {name: parameter.value for name, parameter in model.named_parameters()}
    versions = [parameter.version for parameter in model.parameters()]
    assert model.load_state_dict(state) == ([], [])
    for name, array in model.state_dict().items():
        oracle.assert_bits_equal(array, state[name])
    for name, parameter in model.named_parameters():
        assert parameter.value is arrays[name]
    assert all(
        parameter.version > version
        for parameter, version in zip(model.parameters(), versions, strict=True)
    )


def test_loading_takes_any_layout_and_byte_order() -> None:
    layer = nn.Conv2d(2, 3, 3)
    weight = oracle.normal(np.random.default_rng(0), (3, 2, 3, 3))
    for array in (np.asfortranarray(weight), weight.astype(">f4")):
        layer.load_state_dict({"weight": array, "bias": np.zeros(3, "<f4")})
        oracle.assert_bits_equal(layer.weight.value, weight)


W, B = np.ones((4, 1, 3, 3), np.float32), np.ones(4, np.float32)
ERRORS: list[tuple[Any, type[Exception], str]] = [
    ({"weight": W}, ValueError, "missing bias; unexpected none"),
    ({}, ValueError, "missing weight, bias; unexpected none"),
    (
        {"weight": W, "bias": B, "0.bias": B, "x": B},
        ValueError,
        "missing none; unexpected 0.bias, x",
    ),
    (
        {"weight": W[:, :, :2], "bias": B},
        ValueError,
        r"weight must have shape \(4, 1, 3, 3\), got \(4, 1, 2, 3\)",
    ),
    ({"weight": W, "bias": B[:, None]}, ValueError, r"bias must have shape \(4,\)"),
    (
        {"weight": W.astype(np.int64), "bias": B},
        TypeError,
        r"weight must be float32, got int64; .*\.astype\(np.float32\)",
    ),
    ({"weight": W.astype(float), "bias": B}, TypeError, "weight must be float32"),
    ({"weight": W, "bias": np.ma.ones(4, "f4")}, TypeError, "bias must not be a mask"),
    ({"weight": W, "bias": [object()] * 4}, TypeError, "bias must be float32"),
    ([("weight", W)], TypeError, "state must be a mapping, got list"),
    ({1: W}, TypeError, "state must have str as names, got 1, int"),
]


@pytest.mark.parametrize(("state", "error", "message"), ERRORS)
def test_a_wrong_state_changes_nothing(
    state: Any, error: type[Exception], message: str
) -> None:
    layer = nn.Conv2d(1, 4, 3)
    before = layer.state_dict()
    with pytest.raises(error, match=f"Conv2d.load_state_dict: .*{message}"):
        layer.load_state_dict(state)
    for name, array in layer.state_dict().items():
        oracle.assert_bits_equal(array, before[name])
    assert layer.weight.version == 0


def test_a_read_only_value_is_found_before_anything_changes() -> None:
    layer = nn.Linear(3, 2)
    state = other_state(layer)
    before = layer.weight.value.copy()
    layer.bias.value.flags.writeable = False  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="bias of the layer is read-only"):
        layer.load_state_dict(state)
    oracle.assert_bits_equal(layer.weight.value, before)


def test_a_state_may_hold_the_layers_own_values() -> None:
    layer = nn.Sequential(nn.Linear(3, 3, rng=0), nn.Linear(3, 3, rng=1))
    one, two = (part.weight.value for part in layer)  # type: ignore[attr-defined]
    before = one.copy(), two.copy()
    state = {**layer.state_dict(), "0.weight": two, "1.weight": one}
    layer.load_state_dict(state)
    oracle.assert_bits_equal(one, before[1])
    oracle.assert_bits_equal(two, before[0])


def test_without_strict_what_fits_is_taken() -> None:
    layer = nn.Conv2d(1, 4, 3)
    bias = np.full(4, 5, np.float32)
    found = layer.load_state_dict({"bias": bias, "fc.weight": W}, strict=False)
    assert found == (["weight"], ["fc.weight"])
    assert layer.bias is not None
    oracle.assert_bits_equal(layer.bias.value, bias)
    with pytest.raises(ValueError, match="bias must have shape"):
        layer.load_state_dict({"bias": W}, strict=False)


def test_interrupted_loading_changes_all_or_nothing() -> None:
    layers: list[nn.Layer] = []
    state = other_state(nn.BatchNorm1d(2))

    def prepare() -> Any:
        layers[:] = [nn.BatchNorm1d(2)]
        return lambda: layers[0].load_state_dict(state)

    def check() -> None:
        now = layers[0].state_dict()
        assert len({bool((now[name] == state[name]).all()) for name in now}) == 1

    interrupt_everywhere(prepare, check, ("nn/layer.py", "nn/parameter.py"), 3)


def test_a_shared_layer_has_two_names_and_one_value() -> None:
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    state = other_state(model)
    model.load_state_dict(state)
    state["2.bias"] = state["2.bias"] + 1
    before = model.state_dict()
    message = "0.bias and 2.bias are one tensor in this layer, but have different"
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(state)
    oracle.assert_bits_equal(model.state_dict()["0.weight"], before["0.weight"])


# Own layers ------------------------------------------------------------------------


class Scale(nn.Layer):
    """A user's layer: a parameter, a buffer, a child."""

    def __init__(self) -> None:
        self.seen = np.zeros(1)
        self.factor = nn.Parameter(np.full(1, 2.0), "factor")
        self.after = nn.Linear(3, 2, dtype=np.float64)

    def __call__(self, x: Any) -> Any:
        return self.after(x * self.factor.value)

    def forward(self, x: Any) -> Any:
        y, after = self.after.forward(x * self.factor.value)
        self.seen += len(x)

        def backward(grad: Any) -> Any:
            grad = after(grad)
            self.factor.add_grad((grad * x).sum().reshape(1))
            return grad * self.factor.value

        return y, backward


def test_own_layers_are_layers_like_any_other() -> None:
    model = nn.Sequential(Scale(), rng=3)
    names = ["0.factor", "0.seen", "0.after.weight", "0.after.bias"]
    assert list(model.state_dict()) == names
    assert len(model.parameters()) == 3
    rng = np.random.default_rng(0)
    x, g = (oracle.normal(rng, s, np.float64) for s in ((4, 3), (4, 2)))
    _, backward = model.forward(x)
    oracle.gradients_check(model, [x], [backward(g)], g, rng)
    assert model.state_dict()["0.seen"] == 4
    assert repr(model[0]) == "Scale()"
