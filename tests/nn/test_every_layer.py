"""What every layer has to do: one table, one test per duty."""

import copy
import pickle
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import nn
from tests import oracle

F64: dict[str, Any] = {"dtype": np.float64}

# Name: how to make the layer, shape of x, and the functional form of `layer(x)`.
Row = tuple[Callable[[], nn.Layer], tuple[int, ...], Callable[[Any, Any], Any]]


def conv(function: Callable[..., Any], **options: Any) -> Callable[[Any, Any], Any]:
    return lambda layer, x: function(
        x, layer.weight.value, layer.bias and layer.bias.value, **options
    )


def plain(function: Callable[..., Any], *args: Any) -> Callable[[Any, Any], Any]:
    return lambda layer, x: function(x, *args)


def batch_norm(layer: Any, x: Any) -> Any:
    return F.batch_norm(
        x,
        layer.running_mean,
        layer.running_var,
        layer.weight.value,
        layer.bias.value,
        eps=layer.eps,
    )


def layer_norm(layer: Any, x: Any) -> Any:
    return F.layer_norm(x, 5, layer.weight.value, layer.bias.value)


CONNECTIONS = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [0, 1], [0, 0]], bool)
SPACE = {1: (9,), 2: (9, 6), 3: (5, 4, 6)}


def ranked(n: int) -> dict[str, Row]:
    """The layers that exist for n axes."""
    x = (2, 4, *SPACE[n])
    strided = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
    spread = {**strided, "output_padding": 1}
    window, few = (3, 2, 1), (2, 1, 2)
    passing = getattr(nn, f"BorderPassthrough{n}d")

    def layer(name: str, *args: Any, **options: Any) -> Callable[[], nn.Layer]:
        return partial(getattr(nn, f"{name}{n}d"), *args, **options)

    def function(name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(F, f"{name}{n}d")
        return found

    table: dict[str, Row] = {
        "Conv": (
            layer("Conv", 4, 6, (2,) * n, **strided, flip=True, **F64),
            x,
            conv(function("conv"), **strided, flip=True),
        ),
        "ConvTranspose": (
            layer("ConvTranspose", 4, 6, 3, **spread, bias=False, **F64),
            x,
            conv(function("conv_transpose"), **spread),
        ),
        "PartialConv": (
            layer("PartialConv", 4, 6, 2, **strided, **F64),
            x,
            conv(function("partial_conv"), **strided),
        ),
        "MaskedConv": (
            layer("MaskedConv", 4, 6, 2, **strided, connections=CONNECTIONS, **F64),
            x,
            lambda layer, x: function("conv")(
                x, layer._masked(layer.weight.value), layer.bias.value, **strided
            ),
        ),
        "BorderPassthrough": (
            lambda: passing(layer("Conv", 4, 6, 2, 1, 0, 2, groups=2, **F64)()),
            x,
            lambda layer, x: function("border_passthrough")(
                layer.projection(x), layer.layer(x)
            ),
        ),
        "SharedDepthwiseConv": (
            layer("SharedDepthwiseConv", 4, 3, 2, *few, **F64),
            x,
            lambda layer, x: function("conv")(
                x,
                np.tile(layer.weight.value, (4, *(1,) * (n + 1))),
                np.tile(layer.bias.value, 4),
                *few,
                groups=4,
            ),
        ),
        "SharedKernelConv": (
            layer("SharedKernelConv", 4, 3, 2, *few, **F64),
            x,
            lambda layer, x: function("conv")(
                x.sum(axis=1, keepdims=True), layer.weight.value, layer.bias.value, *few
            ),
        ),
        "SeparableConv": (
            layer("SeparableConv", 4, 3, 2, *few, depth_multiplier=2, **F64),
            x,
            lambda layer, x: function("conv")(
                function("conv")(x, layer.depthwise.weight.value, None, *few, groups=4),
                layer.pointwise.weight.value,
                layer.pointwise.bias.value,
            ),
        ),
        "MaxPool": (
            layer("MaxPool", *window, ceil_mode=True),
            x,
            plain(function("max_pool"), *window, 1, True),
        ),
        "AdaptiveMaxPool": (
            layer("AdaptiveMaxPool", 3),
            x,
            plain(function("adaptive_max_pool"), 3),
        ),
        "GlobalMaxPool": (
            layer("GlobalMaxPool"),
            x,
            plain(function("global_max_pool")),
        ),
        "FractionalMaxPool": (
            layer("FractionalMaxPool", 2, 3, rng=1),
            x,
            lambda layer, x: function("fractional_max_pool")(x, 2, 3, rng=0),
        ),
        "StochasticPool": (
            layer("StochasticPool", 2, 1, 1, rng=1),
            x,
            lambda layer, x: getattr(F, f"stochastic_pool{n}d_mean")(x, 2, 1, 1),
        ),
        "AvgPool": (
            layer("AvgPool", *window, True, False),
            x,
            plain(function("avg_pool"), *window, True, False),
        ),
        "AdaptiveAvgPool": (
            layer("AdaptiveAvgPool", 3),
            x,
            plain(function("adaptive_avg_pool"), 3),
        ),
        "GlobalAvgPool": (
            layer("GlobalAvgPool"),
            x,
            plain(function("global_avg_pool")),
        ),
        "BatchNorm": (layer("BatchNorm", 4, **F64), x, batch_norm),
        "InstanceNorm": (
            layer("InstanceNorm", 4, affine=True, **F64),
            x,
            lambda layer, x: F.instance_norm(
                x, None, None, layer.weight.value, layer.bias.value
            ),
        ),
        "SumPool": (
            layer("SumPool", *window, True),
            x,
            plain(function("sum_pool"), *window, True),
        ),
        "LPPool": (
            layer("LPPool", 3.0, 3, 2, True),
            x,
            plain(function("lp_pool"), 3.0, 3, 2, True),
        ),
        "GlobalLPPool": (
            layer("GlobalLPPool", 2),
            x,
            plain(function("global_lp_pool"), 2),
        ),
        "BlurPool": (layer("BlurPool", 4), x, plain(function("blur_pool"), 4)),
    }
    return {f"{name}{n}d": row for name, row in table.items()}


def local(n: int) -> Row:
    """A locally connected layer with n axes."""
    how = (2, 1, 2)
    make = partial(getattr(nn, f"LocallyConnected{n}d"), 4, 3, SPACE[n], 2, *how, **F64)
    function = getattr(F, f"locally_connected{n}d")
    return (
        make,
        (2, 4, *SPACE[n]),
        lambda layer, x: function(x, layer.weight.value, layer.bias.value, *how),
    )


X = (3, 5)
TABLE: dict[str, Row] = {
    **ranked(1),
    **ranked(2),
    **ranked(3),
    "GloballyConnected2d": (
        lambda: nn.GloballyConnected2d(2, 3, 4, (4, 3), (3, 5), rng=0, **F64),
        (2, 2, 4, 3),
        lambda layer, x: F.sparse_linear(
            x.reshape(2, -1), layer.weight.value, layer.connections, layer.bias.value
        ).reshape(2, 3, 3, 5),
    ),
    "LocallyConnected1d": local(1),
    "LocallyConnected2d": local(2),
    "Linear": (lambda: nn.Linear(5, 4, **F64), X, conv(F.linear)),
    "LayerNorm": (lambda: nn.LayerNorm(5, **F64), (2, 3, 5), layer_norm),
    "RMSNorm": (
        lambda: nn.RMSNorm(5, **F64),
        X,
        lambda layer, x: F.rms_norm(x, 5, layer.weight.value),
    ),
    "GroupNorm": (
        lambda: nn.GroupNorm(2, 6, **F64),
        (3, 6, 5),
        lambda layer, x: F.group_norm(x, 2, layer.weight.value, layer.bias.value),
    ),
    "LocalResponseNorm": (
        lambda: nn.LocalResponseNorm(4, 0.5, 0.6, 2.0),
        (2, 6, 5),
        plain(F.local_response_norm, 4, 0.5, 0.6, 2.0),
    ),
    "ReLU": (nn.ReLU, X, plain(F.relu)),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.2), X, plain(F.leaky_relu, 0.2)),
    "Sigmoid": (nn.Sigmoid, X, plain(F.sigmoid)),
    "Tanh": (nn.Tanh, X, plain(F.tanh)),
    "ReLU6": (nn.ReLU6, X, plain(F.relu6)),
    "Hardtanh": (lambda: nn.Hardtanh(-2.0, 1.3), X, plain(F.hardtanh, -2.0, 1.3)),
    "Hardsigmoid": (nn.Hardsigmoid, X, plain(F.hardsigmoid)),
    "Hardswish": (nn.Hardswish, X, plain(F.hardswish)),
    "PReLU": (
        lambda: nn.PReLU(5, **F64),
        X,
        lambda layer, x: F.prelu(x, layer.weight.value),
    ),
    "ELU": (lambda: nn.ELU(0.7), X, plain(F.elu, 0.7)),
    "SELU": (nn.SELU, X, plain(F.selu)),
    "GELU": (lambda: nn.GELU("tanh"), X, plain(F.gelu, "tanh")),
    "SiLU": (nn.SiLU, X, plain(F.silu)),
    "Softplus": (lambda: nn.Softplus(2.0, 10.0), X, plain(F.softplus, 2.0, 10.0)),
    "Softmax": (lambda: nn.Softmax(0), X, plain(F.softmax, 0)),
    "LogSoftmax": (nn.LogSoftmax, X, plain(F.log_softmax, 1)),
    "Dropout": (lambda: nn.Dropout(0.4, rng=1), X, lambda layer, x: x),
    "ChannelMaxPool": (
        lambda: nn.ChannelMaxPool(3, 2),
        (2, 7, 4),
        plain(F.channel_max_pool, 3, 2),
    ),
    "ChannelAvgPool": (
        lambda: nn.ChannelAvgPool(2, 1, 1),
        (2, 3, 4),
        plain(F.channel_avg_pool, 2, 1, 1),
    ),
    "Flatten": (lambda: nn.Flatten(2), (2, 3, 4, 5), plain(F.flatten, 2)),
    "Sequential": (
        lambda: nn.Sequential(nn.Linear(5, 4, **F64), nn.Tanh()),
        X,
        lambda layer, x: F.tanh(layer[0](x)),
    ),
    "Residual": (
        lambda: nn.Residual(nn.Linear(5, 5, **F64), nn.Tanh()),
        X,
        lambda layer, x: layer.body(x) + F.tanh(x),
    ),
    "Concat": (
        lambda: nn.Concat(nn.Linear(5, 4, **F64), nn.Tanh(), nn.Sequential()),
        X,
        lambda layer, x: np.concatenate([layer.branches[0](x), F.tanh(x), x], axis=1),
    ),
}
NAMES = sorted(TABLE)
DRAWS = ("Dropout", "Fractional", "Stochastic")  # in `forward`, from one source in turn


def draws(name: str) -> bool:
    return name.startswith(DRAWS)


def make(name: str) -> tuple[Any, Any]:
    """A layer with parameters that are all random, and an input without ties."""
    factory, shape, _ = TABLE[name]
    layer, rng = factory(), np.random.default_rng(0)
    for parameter in layer.parameters():
        parameter.value = parameter.value + 0.1 * oracle.normal(
            rng, parameter.value.shape, np.float64
        )
    x = oracle.distinct(rng, shape, np.float64) / 16 + 0.01
    return layer, x


def test_the_table_has_every_layer() -> None:
    layers = {
        name
        for name in nn.__all__
        if isinstance(getattr(nn, name), type)
        and issubclass(getattr(nn, name), nn.Layer)
        and name != "Layer"
    }
    assert set(TABLE) == layers


@pytest.mark.parametrize("name", NAMES)
def test_inference_is_the_functional_form(name: str) -> None:
    layer, x = make(name)
    oracle.assert_bits_equal(layer(x), TABLE[name][2](layer, x))


@pytest.mark.parametrize("name", NAMES)
def test_inference_keeps_nothing(name: str) -> None:
    layer, x = make(name)
    before = pickle.dumps(layer)
    layer(x)
    assert pickle.dumps(layer) == before


@pytest.mark.parametrize(
    "name", [n for n in NAMES if not draws(n) and "BatchNorm" not in n]
)
def test_training_gives_the_output_of_inference(name: str) -> None:
    layer, x = make(name)
    y, _ = layer.forward(x)
    oracle.assert_bits_equal(y, layer(x))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_slopes(name: str) -> None:
    """With respect to x and to every parameter, through the layer."""
    layer, x = make(name)
    rng = np.random.default_rng(1)
    start = copy.deepcopy(layer)
    y, backward = layer.forward(x)
    g = oracle.normal(rng, y.shape, np.float64)
    grad_x = backward(g)
    values = [parameter.value for parameter in start.parameters()]

    def forward(x: Any, *new: Any) -> Any:
        fresh = copy.deepcopy(start)
        for parameter, value in zip(fresh.parameters(), new, strict=True):
            parameter.value = value
        return fresh.forward(x)[0]

    grads = [parameter.grad for parameter in layer.parameters()]
    assert all(grad is not None for grad in grads)
    oracle.gradients_check(forward, [x, *values], [grad_x, *grads], g, rng)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_add_up(name: str) -> None:
    """A layer that stands twice in a network: two closures, one sum."""
    layer, x = make(name)
    other = x[::-1].copy()
    twin = copy.deepcopy(layer)
    passes = [layer.forward(x), layer.forward(other)]
    grads = [backward(np.ones_like(y)) for y, backward in reversed(passes)]
    singles = []
    for part in (x, other):
        twin.zero_grad()
        y, backward = twin.forward(part)
        oracle.assert_bits_equal(backward(np.ones_like(y)), grads.pop())
        singles.append([parameter.grad for parameter in twin.parameters()])
    for parameter, one, two in zip(layer.parameters(), *singles, strict=True):
        assert parameter.grad is not None
        oracle.assert_bits_equal(parameter.grad, two + one)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_learn_the_same_without_a_gradient_of_x(name: str) -> None:
    layer, x = make(name)
    twin = copy.deepcopy(layer)
    y, backward = layer.forward(x)
    twin_y, twin_backward = twin.forward(x)
    backward(np.ones_like(y))
    assert nn.accumulate(twin_backward, np.ones_like(twin_y)) is None
    for one, other in zip(layer.parameters(), twin.parameters(), strict=True):
        oracle.assert_bits_equal(one.grad, other.grad)


@pytest.mark.parametrize("name", NAMES)
def test_a_closure_may_be_called_again(name: str) -> None:
    layer, x = make(name)
    y, backward = layer.forward(x)
    oracle.assert_bits_equal(backward(np.ones_like(y)), backward(np.ones_like(y)))


@pytest.mark.parametrize("name", NAMES)
def test_two_threads_do_not_meet(name: str) -> None:
    """Each pass has its own closure; the layers take turns only in `add_grad`."""
    layer, x = make(name)
    inputs = [x, x[::-1].copy(), -x, x * 0.5]
    results: list[Any] = [None] * len(inputs)
    gate = threading.Barrier(len(inputs))

    def work(index: int) -> None:
        gate.wait()
        for _ in range(5):
            y, backward = layer.forward(inputs[index])
            results[index] = y, backward(np.ones_like(y))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for part, (y, grad) in zip(inputs, results, strict=True):
        assert y.shape == layer(part).shape
        if not draws(name):
            right, backward = layer.forward(part)
            oracle.assert_bits_equal(y, right)
            oracle.assert_bits_equal(grad, backward(np.ones_like(right)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_copies_are_equal_and_apart(name: str, way: str) -> None:
    layer, x = make(name)
    twin = (
        pickle.loads(pickle.dumps(layer)) if way == "pickle" else copy.deepcopy(layer)
    )
    assert repr(twin) == repr(layer)
    y, backward = layer.forward(x)
    twin_y, twin_backward = twin.forward(x)
    oracle.assert_bits_equal(twin_y, y)
    oracle.assert_bits_equal(twin_backward(np.ones_like(y)), backward(np.ones_like(y)))
    for parameter in twin.parameters():
        parameter.value[...] = 7
    for parameter in layer.parameters():
        assert (parameter.value != 7).any()


@pytest.mark.parametrize("name", NAMES)
def test_state_makes_an_equal_layer(name: str) -> None:
    layer, x = make(name)
    layer.forward(x)
    twin = TABLE[name][0]()
    twin.load_state_dict(layer.state_dict())
    oracle.assert_bits_equal(twin(x), layer(x))


@pytest.mark.parametrize("name", NAMES)
def test_reset_depends_on_the_seed_alone(name: str) -> None:
    one, _ = make(name)
    two = TABLE[name][0]()
    one.reset_parameters(5)
    two.reset_parameters(np.random.default_rng(5))
    for key, value in one.state_dict().items():
        oracle.assert_bits_equal(value, two.state_dict()[key])
    two.reset_parameters(6)
    for (key, drawn), start in zip(
        two.named_parameters(), one.parameters(), strict=True
    ):
        if key.endswith("weight") and drawn.value.ndim > 1:
            assert (drawn.value != start.value)[drawn.value != 0].all()
    for parameter in one.parameters():
        assert parameter.version > 0


REPR = {
    "Conv1d": "Conv1d(4, 6, kernel_size=(2,), stride=2, padding=1, dilation=2, "
    "groups=2, flip=True, weight=(6, 2, 2))",
    "ConvTranspose2d": "ConvTranspose2d(4, 6, kernel_size=(3, 3), stride=2, padding=1, "
    "dilation=2, groups=2, output_padding=1, bias=False, weight=(4, 3, 3, 3))",
    "MaxPool2d": "MaxPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=True)",
    "AvgPool3d": "AvgPool3d(kernel_size=3, stride=2, padding=1, ceil_mode=True, "
    "count_include_pad=False)",
    "AdaptiveAvgPool1d": "AdaptiveAvgPool1d(output_size=3)",
    "GlobalAvgPool1d": "GlobalAvgPool1d()",
    "BatchNorm2d": "BatchNorm2d(4)",
    "InstanceNorm2d": "InstanceNorm2d(4, affine=True)",
    "LayerNorm": "LayerNorm((5,))",
    "RMSNorm": "RMSNorm((5,))",
    "GroupNorm": "GroupNorm(2, 6)",
    "LocalResponseNorm": "LocalResponseNorm(4, alpha=0.5, beta=0.6, k=2.0)",
    "Linear": "Linear(5, 4, weight=(4, 5))",
    "ReLU": "ReLU()",
    "LeakyReLU": "LeakyReLU(negative_slope=0.2)",
    "Hardtanh": "Hardtanh(min_val=-2.0, max_val=1.3)",
    "PReLU": "PReLU(5)",
    "ELU": "ELU(alpha=0.7)",
    "GELU": "GELU(approximate='tanh')",
    "Softplus": "Softplus(beta=2.0, threshold=10.0)",
    "Softmax": "Softmax(dim=0)",
    "LogSoftmax": "LogSoftmax(dim=1)",
    "Dropout": "Dropout(p=0.4)",
    "Flatten": "Flatten(start_dim=2)",
    "Residual": """Residual(
  (): Linear(5, 5, weight=(5, 5))
  (downsample): Tanh()
)""",
}


@pytest.mark.parametrize("name", sorted(REPR))
def test_repr_shows_arguments_and_weights(name: str) -> None:
    assert repr(make(name)[0]) == REPR[name]
