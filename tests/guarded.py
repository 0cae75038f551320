"""Every operation, forward and backward, with tails of every length, between closed pages.

`python -m tests.guarded ISA` runs all calls, and says before each what it is: the last
line names the call that a signal ended.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from convcore import functional as F
from convcore import nn, optim
from convcore.problem import ConvProblem
from convcore.problem.border import BORDERS
from convcore.runtime import arrays, cpu, threads
from tests import fence, mutations, oracle
from tests.conv_helpers import accepting, arguments, compute

RNG = np.random.default_rng(0)
VECTORS = {"x86_64_v4": 64, "x86_64_v3": 32}  # bytes; 16 elsewhere

# Layers of some extent n, and x. What they learn is asked for too.
Layers = dict[
    str, tuple[Callable[[int, Any], nn.Layer], Callable[[int], tuple[int, ...]]]
]


def row(n: int) -> tuple[int, ...]:
    return (2, 3, n)


def columns(n: int) -> tuple[int, ...]:
    return (2, n, 3)


def plane(n: int) -> tuple[int, ...]:
    return (2, 3, 4, n)


def planes(n: int) -> tuple[int, ...]:
    return (1, n, 5, 4)


def plain(name: str, *args: Any, **options: Any) -> Callable[[int, Any], nn.Layer]:
    return lambda n, dtype: getattr(nn, name)(*args, **options)


def typed(name: str, *args: Any, **options: Any) -> Callable[[int, Any], nn.Layer]:
    return lambda n, dtype: getattr(nn, name)(*args, dtype=dtype, **options)


ELEMENTWISE = (
    *("ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "GELU", "SiLU", "Sigmoid", "Tanh"),
    *("Softplus", "Hardtanh", "Hardsigmoid", "Hardswish"),
)
LAYERS: Layers = {
    **{name: (plain(name), row) for name in ELEMENTWISE},
    "GELU tanh": (plain("GELU", "tanh"), row),
    "PReLU": (typed("PReLU", 3), row),
    "PReLU one": (typed("PReLU"), row),
    "PReLU of channels": (lambda n, d: nn.PReLU(n, dtype=d), columns),
    "Dropout": (plain("Dropout", rng=0), row),
    "Softmax -1": (plain("Softmax", -1), row),
    "Softmax": (plain("Softmax"), columns),
    "Softmax of rows": (plain("Softmax"), row),
    "LogSoftmax -1": (plain("LogSoftmax", -1), row),
    "LogSoftmax": (plain("LogSoftmax"), columns),
    "LogSoftmax of rows": (plain("LogSoftmax"), row),
    "BatchNorm": (typed("BatchNorm1d", 3), row),
    "BatchNorm of channels": (lambda n, d: nn.BatchNorm1d(n, dtype=d), columns),
    "InstanceNorm": (typed("InstanceNorm1d", 3, affine=True), lambda n: (2, 3, n + 1)),
    "GroupNorm": (typed("GroupNorm", 1, 3), row),
    "GroupNorm of channels": (lambda n, d: nn.GroupNorm(n, n, dtype=d), columns),
    "LayerNorm": (lambda n, d: nn.LayerNorm(n, dtype=d), row),
    "RMSNorm": (lambda n, d: nn.RMSNorm(n, dtype=d), row),
    "LocalResponseNorm": (plain("LocalResponseNorm", 3), row),
    "LocalResponseNorm of channels": (plain("LocalResponseNorm", 5), columns),
    "MaxPool2": (plain("MaxPool2d", 2, ceil_mode=True), plane),
    "MaxPool3 same": (plain("MaxPool2d", 3, 1, 1), plane),
    "MaxPool3": (plain("MaxPool2d", 3, 2, 1), plane),
    "MaxPool dilated": (plain("MaxPool2d", 2, 1, 1, 2), plane),
    "MaxPool of channels": (plain("MaxPool2d", 3, 2, 1), planes),
    "MaxPool signal": (plain("MaxPool1d", 3, 2, 1), row),
    "MaxPool volume": (plain("MaxPool3d", 3, 2, 1), lambda n: (1, 2, 3, 3, n)),
    "MaxPool long": (plain("MaxPool1d", 9, 4, 4), row),
    "AdaptiveMaxPool": (plain("AdaptiveMaxPool2d", 3), plane),
    "GlobalMaxPool": (plain("GlobalMaxPool2d"), plane),
    "FractionalMaxPool": (
        plain("FractionalMaxPool2d", 2, 3, rng=1),
        lambda n: (2, 3, 4, n + 3),
    ),
    "StochasticPool": (plain("StochasticPool2d", 2, 1, 1, rng=1), plane),
    "AvgPool2": (plain("AvgPool2d", 2, ceil_mode=True), plane),
    "AvgPool3 same": (plain("AvgPool2d", 3, 1, 1), plane),
    "AvgPool3": (plain("AvgPool2d", 3, 2, 1, count_include_pad=False), plane),
    "AvgPool of channels": (plain("AvgPool2d", 3, 2, 1), planes),
    "AvgPool signal": (plain("AvgPool1d", 5, 3, 2), row),
    "AvgPool volume": (plain("AvgPool3d", 3, 1, 1), lambda n: (1, 2, 3, 3, n)),
    "AvgPool large": (plain("AvgPool1d", 40, 1, 20), row),
    "AvgPool blocks": (plain("AvgPool2d", 3, 3, 1, True), planes),
    "AvgPool volume, cut off": (
        plain("AvgPool3d", 3, 2, 1, True, False),
        lambda n: (1, 2, 3, 3, n),
    ),
    "SumPool": (plain("SumPool2d", 2, 1), lambda n: (2, 3, 4, n + 1)),
    "AdaptiveAvgPool": (plain("AdaptiveAvgPool2d", 3), plane),
    "AdaptiveAvgPool, more": (plain("AdaptiveAvgPool1d", 7), row),
    "GlobalAvgPool": (plain("GlobalAvgPool2d"), plane),
    "GlobalLPPool": (plain("GlobalLPPool2d", 3.0), plane),
    "LPPool": (plain("LPPool2d", 2, 2, 1), lambda n: (2, 3, 4, n + 1)),
    "LPPool inf": (plain("LPPool1d", np.inf, 3, 2, True, padding=1), row),
    "ChannelAvgPool": (plain("ChannelAvgPool", 2, 1), lambda n: (2, n + 1, 3)),
    "ChannelMaxPool": (plain("ChannelMaxPool", 2), lambda n: (2, n + 1, 3)),
    "BlurPool": (plain("BlurPool2d", 3), lambda n: (2, 3, 4, n + 1)),
    "BlurPool of channels": (plain("BlurPool2d", 5), planes),
    **{
        f"{name} {mode}": (
            plain(name, 3, 2, 1, padding_mode=mode),
            lambda n: (2, 3, 4, n + 1),
        )
        for name in ("MaxPool2d", "AvgPool2d", "SumPool2d")
        for mode in BORDERS[1:]
    },
    **{
        f"Conv2d {mode}": (
            lambda n, d, mode=mode: nn.Conv2d(
                3, n, 3, 1, 1, padding_mode=mode, dtype=d, rng=0
            ),
            lambda n: (1, 3, 4, n + 1),
        )
        for mode in BORDERS
    },
    "ConvTranspose": (
        typed("ConvTranspose2d", 3, 4, 3, 2, 1, 1, rng=0),
        plane,
    ),
    "ConvTranspose of channels": (
        lambda n, d: nn.ConvTranspose2d(n, 5, 3, 2, 1, dtype=d, rng=0),
        planes,
    ),
    "PartialConv": (typed("PartialConv2d", 3, 4, 3, 2, 1, rng=0), plane),
    "SeparableConv": (typed("SeparableConv2d", 3, 5, 3, 1, 1, rng=0), plane),
    "SharedDepthwiseConv": (
        typed("SharedDepthwiseConv2d", 3, 2, 3, 1, 1, rng=0),
        plane,
    ),
    "SharedKernelConv": (typed("SharedKernelConv2d", 3, 2, 3, 1, 1, rng=0), plane),
    "LocallyConnected": (
        lambda n, d: nn.LocallyConnected2d(3, 2, (4, n), 3, 1, 1, dtype=d, rng=0),
        plane,
    ),
    "LocallyConnected of channels": (
        lambda n, d: nn.LocallyConnected2d(n, n, (5, 4), 2, 2, dtype=d, rng=0),
        planes,
    ),
    "GloballyConnected": (
        lambda n, d: nn.GloballyConnected2d(
            2, 2, np.minimum(n, 3), (4, n), (2, n), dtype=d, rng=0
        ),
        lambda n: (2, 2, 4, n),
    ),
    "Linear from": (lambda n, d: nn.Linear(n, 5, dtype=d, rng=0), lambda n: (3, n)),
    "Linear to": (lambda n, d: nn.Linear(5, n, dtype=d, rng=0), lambda n: (3, 5)),
    "Linear of": (lambda n, d: nn.Linear(5, 7, dtype=d, rng=0), lambda n: (n, 5)),
    "BorderPassthrough": (
        lambda n, d: nn.BorderPassthrough2d(nn.Conv2d(3, 3, 2, dtype=d, rng=0)),
        lambda n: (2, 3, 4, n + 1),
    ),
}


def normal(shape: tuple[int, ...], dtype: Any) -> Any:
    return oracle.normal(RNG, shape, dtype)


def through_layer(name: str, n: int, dtype: Any) -> None:
    """Run a layer both ways."""
    make, shape = LAYERS[name]
    layer = make(n, dtype)
    for parameter in layer.parameters():
        parameter.value[...] = normal(parameter.value.shape, dtype)
    y, back = layer.forward(normal(shape(n), dtype))
    back(normal(y.shape, dtype))


def losses(n: int, dtype: Any) -> None:
    """Run the losses, of classes and of probabilities."""
    for shape in ((3, n), (2, n, 3), (2, 3, n)):
        x, p = normal(shape, dtype), np.abs(normal(shape, dtype))
        classes = RNG.integers(shape[1], size=(shape[0], *shape[2:]))
        weight = np.abs(normal(shape[1:2], dtype))
        for target in (classes, p):
            for reduction in ("mean", "none"):
                y = F.cross_entropy(x, target, weight, reduction=reduction)
                F.cross_entropy_backward(
                    x, target, weight, reduction=reduction, grad_output=y
                )
        F.mse_loss_backward(x, p, "mean", F.mse_loss(x, p))


def pads(n: int, dtype: Any) -> None:
    """Pad, in every mode, and fold back."""
    for mode in ("constant", *BORDERS[2:]):
        y = F.pad(normal((2, 3, n + 1), dtype), (1, min(n, 3)), mode)
        F.pad_backward(y, (1, min(n, 3)), mode)


def indices(n: int, dtype: Any) -> None:
    """Pool and unpool by indices."""
    x = normal((2, 3, 4, n + 1), dtype)
    for how in ((2, 2, 0), (3, 1, 1), (3, 2, 1)):
        y, index = F.max_pool2d(x, *how, return_indices=True)
        F.max_pool2d_backward(y, index, x.shape, *how)
        if how[0] == how[1]:
            up = F.max_unpool2d(y, index, how[0], output_size=x.shape[2:])
            F.max_unpool2d_backward(up, index)


def choices(n: int, dtype: Any) -> None:
    """Pool where windows differ, are drawn, or are channels."""
    for shape in ((2, 3, 4, n + 1), (1, 9, n + 1, 5)):
        x = normal(shape, dtype)
        for out in ((3, 2), (1, n // 3 + 1), (2, n + 5)):
            F.adaptive_max_pool2d(x, out)
            y, index = F.adaptive_max_pool2d(x, out, return_indices=True)
            F.adaptive_max_pool2d_backward(y, index, shape)
            y, backward = nn.AdaptiveMaxPool2d(out).forward(x)
            backward(y)
        F.fractional_max_pool2d(x, (2, 1), (1, shape[3] // 2 + 1), None, True, rng=0)
        for how in ((2, 2, 0), (3, 1, 1)):
            y, index = F.stochastic_pool2d(x, *how, rng=0)
            F.stochastic_pool2d_backward(y, index, shape)
            F.stochastic_pool2d_mean(x, *how)
        y, index = F.channel_max_pool(x, 2, 1, return_indices=True)
        F.channel_max_pool_backward(y, index, shape, 2, 1)
        y, backward = nn.ChannelMaxPool(3).forward(x)
        backward(y)


def steps(n: int, dtype: Any) -> None:
    """Step with every optimiser."""
    for make in (
        partial(optim.SGD, lr=0.1),
        partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        partial(optim.Adam, weight_decay=0.1),
    ):
        parameter = nn.Parameter(normal((n,), dtype), "p")
        optimizer = make([parameter])
        for _ in range(2):
            parameter.grad = normal((n,), dtype)
            optimizer.step()


OPERATIONS = {
    "losses": losses,
    "pad": pads,
    "indices": indices,
    "choices": choices,
    "optimisers": steps,
}

# Convolutions with an extent n, in every algorithm that takes them, each direction.
CONVOLUTIONS = (
    "n1g1ic3ih4iw{n}oc5kh3ph1",
    "n2g1ic2ih5iw{n}oc3kh3sh2ph1",
    "n1g1ic{n}ih3iw4oc3kh3ph1",
    "n1g1ic2ih3iw5oc{n}kh3ph1",
    "n{n}g1ic9iw2oc7kw2",
    "n2g{n}ic{n}ih4iw5oc{n}kh3ph1",
    "n1g2ic2ih5iw{n}oc4kh3sh2ph2dh2",
    "n1g1ic17ih3iw{n}oc18kh1",
    "n1g1ic9iw{n}oc17kw5pw2",
    "n1g1ic2id2ih3iw{n}oc9kd2kh2kw3pd1ph1pw1",
)


def convolve(spelling: str, n: int, dtype: Any) -> None:
    """Run all algorithms and directions of a problem."""
    problem = ConvProblem.parse(spelling.format(n=n))
    a = oracle.operands(problem, RNG, dtype)
    for algorithm, direction in accepting(problem, transforms=dtype == np.float32):
        compute(problem, algorithm, direction, *arguments(direction, a))


def examples() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Give the examples of all docstrings: every public function and layer."""
    targets = mutations.public()
    for call in mutations.completed(mutations.recorded(targets), targets):
        yield call.name, partial(legal, call)


def legal(call: mutations.Call) -> None:
    """Run a call, unless what stands for an example does not fit."""
    with suppress(ValueError, TypeError):
        call.target(*call.args, **call.kwargs)


def of_length(n: int, dtype: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Give every call with one length."""
    for name in LAYERS:
        yield f"{name} {n}", partial(through_layer, name, n, dtype)
    for name, operation in OPERATIONS.items():
        yield f"{name} {n}", partial(operation, n, dtype)
    for spelling in CONVOLUTIONS:
        yield f"{spelling} {n}", partial(convolve, spelling, n, dtype)


def calls(isa: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Give calls of all lengths up to two vectors and a scalar, and all examples.

    First with closed pages behind the arrays, then, of every third length, before them.
    """
    for side, step in (("end", 1), ("begin", 3)):
        with fence.side(side):
            for dtype in oracle.DTYPES:
                lanes = VECTORS.get(isa, 16) // np.dtype(dtype).itemsize
                for n in range(1, 2 * lanes + 2, step):
                    for name, call in of_length(n, dtype):
                        yield f"{side} {np.dtype(dtype)} {name}", call
            for name, call in examples():
                yield f"{side} {name}", call


def main(isa: str) -> None:
    """Run everything on an instruction set."""
    fence.install()
    arrays.POISON = True
    threads.team = lambda work: 1
    count = 0
    with cpu.use(isa):
        for name, call in calls(isa):
            print(name, flush=True)
            call()
            count += 1
    print(count)


if __name__ == "__main__":
    main(sys.argv[1])
