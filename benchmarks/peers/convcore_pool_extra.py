"""The suite `pool_extra` in convcore: its functions, called by the names of arguments."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import numpy as np

from benchmarks.case import Data
from benchmarks.pool_extra import FRACTIONAL_KERNEL, PoolExtraCase
from convcore import functional


def call(case: PoolExtraCase, arrays: Data) -> Callable[[], Any]:
    """Give the call of one function, or of its gradient."""
    name = case.operation.function
    x = np.abs(arrays.x) if name == "lp_pool2d" else arrays.x
    known: dict[str, Any] = {
        "x": x,
        "input_shape": case.x_shape,
        "grad_output": arrays.grad_y,
        "rng": np.random.default_rng(0),
        **_windows(case),
        **case.operation.options,
    }
    if case.op == "max_unpool":
        known["indices"] = case.indices()
    forward = getattr(functional, name)
    if not case.backward:
        return _bound(forward, known)
    if "indices" not in known:
        found = _bound(forward, {**known, "return_indices": True})()
        known["y"] = known["indices"] = found
        if isinstance(found, tuple):
            known["y"], known["indices"] = found
    return _bound(getattr(functional, f"{name}_backward"), known)


def _windows(case: PoolExtraCase) -> dict[str, Any]:
    """Name what tells the windows."""
    if case.op == "fractional_max_pool":
        return {"kernel_size": FRACTIONAL_KERNEL, "output_size": case.y_shape[2:]}
    if not any(case.kernel):
        return {"output_size": case.y_shape[2:]}
    one = len(case.kernel) == 1
    return {
        "kernel_size": case.kernel[0] if one else case.kernel,
        "stride": case.stride[0] if one else case.stride,
    }


def _bound(function: Callable[..., Any], known: dict[str, Any]) -> Callable[[], Any]:
    """Bind those arguments that the function has."""
    parameters = signature(function).parameters
    return partial(
        function, **{name: known[name] for name in known if name in parameters}
    )
