"""The elementwise suite in PyTorch.

Gradients are the operators of `torch.ops.aten` that autograd calls, with the results of
the forward pass that they read; where there is none, autograd itself, over a graph that
is kept.
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

from benchmarks.case import Data
from benchmarks.elementwise import ElementwiseCase

Call = Callable[[], Any]
Convert = Callable[[Any], Any]

_ALL = [True, True, True]  # gradients of x, weight and bias


def call(torch: Any, case: ElementwiseCase, arrays: Data, convert: Convert) -> Call:
    """Give the call of one function, or of its gradient.

    Parameters
    ----------
    torch : module
    case : ElementwiseCase
    arrays : Data
    convert : callable
        Makes a tensor of an array of the shape of x, in the layout.
    """
    forward = _forward(torch, case, arrays)
    x = convert(arrays.x)
    if not case.backward:
        return partial(forward, x)
    grad = convert(arrays.grad_y) if case.y_shape else torch.ones((), dtype=x.dtype)
    aten = torch.ops.aten
    name = case.operation.function
    if case.op == "dropout":
        scale = convert(case.mask()).to(x.dtype).div_(0.5)
        return partial(torch.mul, grad, scale)
    if name in _OF_X:
        operator, after = _OF_X[name]
        operands = (grad, *after, x) if name in _ELU else (grad, x, *after)
        options = case.operation.options
        return partial(getattr(aten, operator).default, *operands, **options)
    if name in _OF_Y:
        operator, after = _OF_Y[name]
        return partial(getattr(aten, operator).default, grad, forward(x), *after)
    if name.endswith("softmax"):
        operator = getattr(aten, f"_{name}_backward_data").default
        dim = case.operation.options["dim"]
        return partial(operator, grad, forward(x), dim, x.dtype)
    special = {
        "cross_entropy": _loss_backward,
        "batch_norm": _batch_norm_backward,
        "layer_norm": _layer_norm_backward,
        "group_norm": _group_norm_backward,
    }.get(name)
    if special is not None:
        return special(torch, case, arrays, grad, x)
    return differentiated(torch, forward, grad, x)


# The operator, and its arguments after grad_y and what it reads.
_OF_Y: dict[str, tuple[str, tuple[Any, ...]]] = {
    "relu": ("threshold_backward", (0,)),
    "sigmoid": ("sigmoid_backward", ()),
    "tanh": ("tanh_backward", ()),
}
_OF_X: dict[str, tuple[str, tuple[Any, ...]]] = {
    "leaky_relu": ("leaky_relu_backward", (0.01, False)),
    "relu6": ("hardtanh_backward", (0, 6)),
    "elu": ("elu_backward", (1, 1, 1, False)),
    "selu": ("elu_backward", (1.6732632423543772, 1.0507009873554805, 1, False)),
    "hardtanh": ("hardtanh_backward", (-1, 1)),
    "hardsigmoid": ("hardsigmoid_backward", ()),
    "gelu": ("gelu_backward", ()),
    "silu": ("silu_backward", ()),
    "softplus": ("softplus_backward", (1, 20)),
    "hardswish": ("hardswish_backward", ()),
}
_ELU = ("elu", "selu")


def _forward(torch: Any, case: ElementwiseCase, arrays: Data) -> "partial[Any]":
    """Give the function of x, with all that is beside it."""
    name = case.operation.function
    function = partial(getattr(torch.nn.functional, name), **case.operation.options)
    if name == "cross_entropy":
        return partial(function, target=torch.from_numpy(case.targets()))
    if not case.weight_shape:
        return function
    weight, bias = torch.from_numpy(arrays.weight)
    affine = {"weight": weight, "bias": bias}
    if name in ("layer_norm", "rms_norm"):
        affine["normalized_shape"] = case.weight_shape[1:]
    if name in ("rms_norm", "prelu"):
        del affine["bias"]
    if name == "group_norm":
        affine["num_groups"] = case.groups
    if name == "batch_norm":
        mean, var = torch.zeros_like(bias), torch.ones_like(bias)
        affine |= {"running_mean": mean, "running_var": var}
    return partial(function, **affine)


def _loss_backward(
    torch: Any, case: ElementwiseCase, arrays: Data, grad: Any, x: Any
) -> Call:
    aten = torch.ops.aten
    target = torch.from_numpy(case.targets())
    if case.ndim not in (0, 2):  # torch's own loss goes through 2-D, too
        x, target = x.flatten(2).unsqueeze(2), target.flatten(1).unsqueeze(1)
    logs = torch.log_softmax(x, 1)
    total = torch.tensor(float(target.numel()), dtype=x.dtype)
    nll = aten.nll_loss2d_backward if case.ndim else aten.nll_loss_backward

    def backward() -> Any:
        inner = nll.default(grad, logs, target, None, 1, -100, total)
        grad_x = aten._log_softmax_backward_data.default(inner, logs, 1, x.dtype)
        return grad_x.view(case.x_shape)

    return backward


def _batch_norm_backward(
    torch: Any, case: ElementwiseCase, arrays: Data, grad: Any, x: Any
) -> Call:
    aten = torch.ops.aten
    weight, bias = torch.from_numpy(arrays.weight)
    training = case.operation.options["training"]
    mean, var = torch.zeros_like(bias), torch.ones_like(bias)
    forward = aten.native_batch_norm.default
    kept = forward(x, weight, bias, mean, var, training, 0.1, 1e-5)[1:]
    how = (weight, mean, var, *kept, training, 1e-5, _ALL)
    backward = partial(aten.native_batch_norm_backward.default, grad, x, *how)
    return lambda: backward()[0]


def _layer_norm_backward(
    torch: Any, case: ElementwiseCase, arrays: Data, grad: Any, x: Any
) -> Call:
    aten, shape = torch.ops.aten, case.weight_shape[1:]
    weight, bias = torch.from_numpy(arrays.weight)
    kept = aten.native_layer_norm.default(x, shape, weight, bias, 1e-5)[1:]
    how = (shape, *kept, weight, bias, _ALL)
    backward = partial(aten.native_layer_norm_backward.default, grad, x, *how)
    return lambda: backward()[0]


def _group_norm_backward(
    torch: Any, case: ElementwiseCase, arrays: Data, grad: Any, x: Any
) -> Call:
    aten = torch.ops.aten
    weight, bias = torch.from_numpy(arrays.weight)
    sizes = (*case.x_shape[:2], prod(case.x_shape[2:]), case.groups)
    kept = aten.native_group_norm.default(x, weight, bias, *sizes, 1e-5)[1:]
    how = (*kept, weight, *sizes, _ALL)
    backward = partial(aten.native_group_norm_backward.default, grad, x, *how)
    return lambda: backward()[0]


def differentiated(torch: Any, forward: "partial[Any]", grad: Any, x: Any) -> Call:
    """Differentiate with respect to x and the weights, again and again."""
    with torch.inference_mode(False), torch.enable_grad():
        leaves = {
            name: forward.keywords[name].clone().requires_grad_()
            for name in ("weight", "bias")
            if name in forward.keywords
        }
        x = x.clone().requires_grad_()
        y = forward(x, **leaves)
        grad = grad.clone()

    def backward() -> Any:
        with torch.inference_mode(False):
            return torch.autograd.grad(
                y, (x, *leaves.values()), grad, retain_graph=True
            )[0]

    return backward
