"""convcore through its public functions, as a user calls them."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import convcore
from benchmarks.case import Array, Case, Data
from benchmarks.elementwise import ElementwiseCase
from benchmarks.peers import Unsupported, convcore_elementwise, convcore_pool_extra
from benchmarks.pool_extra import PoolExtraCase
from benchmarks.windows import WindowCase
from convcore import functional
from convcore.runtime.config import config


class Convcore:
    """The library itself.

    Parameters
    ----------
    algorithm : str
        Of convolutions, as their functions take it.
    """

    def __init__(self, algorithm: str = "auto") -> None:
        self._algorithm = algorithm

    def start(self, threads: int) -> dict[str, str]:
        """Set the threads and name the build."""
        os.environ.setdefault("CONVCORE_AUTOTUNE", "0")  # the same on every machine
        convcore.set_num_threads(threads)
        named = ("convcore", "instruction set", "OpenMP", "compiler", "NumPy")
        return {name: config()[name] for name in named}

    def prepare(self, case: Case, arrays: Data) -> Callable[[], Any]:
        """Give the call of one function."""
        if isinstance(case, ElementwiseCase):
            return convcore_elementwise.call(case, arrays)
        if isinstance(case, PoolExtraCase):
            return convcore_pool_extra.call(case, arrays)
        assert isinstance(case, WindowCase)
        name = f"{case.op.removesuffix('_indices')}{case.ndim}d"
        if not hasattr(functional, name):
            raise Unsupported(f"no {name}")
        geometry = _geometry(case)
        if case.weight_shape and self._algorithm != "auto":
            geometry["algorithm"] = self._algorithm
        forward = partial(getattr(functional, name), **geometry)
        backward = partial(getattr(functional, f"{name}_backward"), **geometry)
        if case.direction == "fprop":
            if case.weight_shape:
                return partial(forward, arrays.x, arrays.weight)
            if case.op == "max_pool_indices":
                return partial(forward, arrays.x, return_indices=True)
            return partial(forward, arrays.x)
        if case.op.endswith("avg_pool"):
            return partial(backward, arrays.grad_y, case.x_shape)
        if case.op == "max_pool":
            _, indices = forward(arrays.x, return_indices=True)
            return partial(backward, arrays.grad_y, indices, case.x_shape)
        x = _or_zeros(arrays.x, case.x_shape)
        weight = _or_zeros(arrays.weight, case.weight_shape)
        role = {"dgrad": "x", "wgrad": "weight"}[case.direction]
        which = ("x", "weight").index(role)
        call = partial(backward, arrays.grad_y, x, weight, needs=(role,))
        return lambda: call()[which]

    def output(self, result: Any) -> Array:
        """Stack values and indices; anything else is an array, or a number."""
        if isinstance(result, tuple):
            values, indices = result
            return np.stack([values, indices.astype(values.dtype)])
        return np.ascontiguousarray(result)


def _geometry(case: WindowCase) -> dict[str, Any]:
    """Keyword arguments of a function; a symmetric padding as plain integers."""
    if not any(case.kernel):
        sized = case.op.startswith("adaptive") and case.direction == "fprop"
        return {"output_size": case.y_shape[2:]} if sized else {}
    padding: tuple[Any, ...] = case.padding
    if case.symmetric:
        padding = tuple(lo for lo, _ in case.padding)
    geometry: dict[str, Any] = {"stride": case.stride, "padding": padding}
    if case.op != "avg_pool":
        geometry["dilation"] = case.dilation
    if case.op == "conv_transpose":
        geometry["output_padding"] = case.output_padding
    if case.weight_shape:
        return geometry | {"groups": case.groups}
    return geometry | {"kernel_size": case.kernel, "ceil_mode": case.ceil_mode}


def _or_zeros(array: Array, shape: tuple[int, ...]) -> Array:
    """Stand in for what a gradient does not read but for its shape."""
    return array if array.size else np.zeros(shape, array.dtype)
