"""The elementwise suite in convcore: its functions, called by the names of arguments.

The arguments are torch's, and so each function gets those that it has: the gradients
differ in what they read, x or y.
"""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import numpy as np

from benchmarks.case import Array, Data
from benchmarks.elementwise import ElementwiseCase
from benchmarks.peers import Unsupported
from convcore import functional

_EPS = 1e-5  # of all normalisations but RMS normalisation


def call(case: ElementwiseCase, arrays: Data) -> Callable[[], Any]:
    """Give the call of one function, or of its gradient."""
    name = case.operation.function
    if not hasattr(functional, name):
        raise Unsupported(f"no {name}")
    known = _arguments(case, arrays)
    forward = _bound(getattr(functional, name), known)
    if not case.backward:
        return _first(forward) if case.op == "dropout" else forward
    gradient = getattr(functional, f"{name}_backward")
    if "y" in signature(gradient).parameters:
        known["y"] = forward()
    return _first(_bound(gradient, known))


def _arguments(case: ElementwiseCase, arrays: Data) -> dict[str, Any]:
    """Name all that functions may ask for."""
    known: dict[str, Any] = {
        "x": arrays.x,
        "num_groups": case.groups,
        "target": case.targets(),
        "rng": np.random.default_rng(0),
        **case.operation.options,
    }
    if case.weight_shape:
        channels = case.weight_shape[1:]
        known |= {"weight": arrays.weight[0], "bias": arrays.weight[1]}
        known |= {"normalized_shape": channels}
    if case.operation.function == "batch_norm":
        known["running_mean"] = np.zeros(channels, case.dtype)
        known["running_var"] = np.ones(channels, case.dtype)
    if case.backward:
        known["grad_output"] = arrays.grad_y if case.y_shape else 1.0
        known |= _kept(case, arrays.x)
        if case.op == "dropout":
            known["mask"] = case.mask()
    return known


def _kept(case: ElementwiseCase, x: Array) -> dict[str, Array]:
    """Give what a normalisation's forward pass leaves to the gradient, as in a layer."""
    name = case.operation.function
    if name == "batch_norm" and case.operation.options["training"]:
        rows, axes = x, (0, *range(2, x.ndim))
    elif name in ("group_norm", "instance_norm"):
        groups = case.groups if name == "group_norm" else x.shape[1]
        rows, axes = x.reshape(len(x), groups, -1), (2,)
    elif name in ("layer_norm", "rms_norm"):
        rows, axes = x, (-1,)
    else:
        return {}
    mean = rows.mean(axes, np.float64, keepdims=True)
    eps = _EPS
    if name == "rms_norm":
        mean, eps = np.zeros_like(mean), float(np.finfo(x.dtype).eps)
    variance = np.square(rows - mean).mean(axes)
    return {"mean": mean.squeeze(axes), "rstd": 1 / np.sqrt(variance + eps)}


def _bound(function: Callable[..., Any], known: dict[str, Any]) -> Callable[[], Any]:
    """Bind those arguments that the function has, in its order where it can be."""
    parameters = signature(function).parameters.values()
    return partial(
        function, **{p.name: known[p.name] for p in parameters if p.name in known}
    )


def _first(function: Callable[[], Any]) -> Callable[[], Any]:
    """Give the first result alone: the gradient of x, or the values."""

    def first() -> Any:
        found = function()
        return found[0] if isinstance(found, tuple) else found

    return first
