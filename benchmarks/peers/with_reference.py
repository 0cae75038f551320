"""The library's own reference: the definitions in plain NumPy."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.case import Array, Case, Data
from benchmarks.peers import Unsupported
from benchmarks.windows import WindowCase, as_convolution
from convcore import reference
from convcore.problem import ConvProblem, PoolProblem


class Reference:
    """convcore.reference: what the kernels are judged by, single-threaded."""

    def start(self, threads: int) -> dict[str, str]:
        """Name NumPy."""
        return {"NumPy": np.__version__}

    def prepare(self, case: Case, arrays: Data) -> Callable[[], Any]:
        """Give the call of one function."""
        if not isinstance(case, WindowCase):
            raise Unsupported(f"no {case.op}")
        case, arrays = as_convolution(case, arrays)
        if case.op == "conv":
            x, weight, grad_y = arrays.x, arrays.weight, arrays.grad_y
            conv = convolution(case)
            if case.direction == "fprop":
                return partial(reference.conv, conv, x, weight)
            if case.direction == "dgrad":
                return partial(reference.conv_grad_x, conv, grad_y, weight)
            return partial(reference.conv_grad_weight, conv, x, grad_y)
        if not any(case.kernel):
            if case.direction == "fprop":
                output_size = case.y_shape[2:]
                return partial(reference.adaptive_avg_pool, arrays.x, output_size)
            return partial(
                reference.adaptive_avg_pool_backward, arrays.grad_y, case.x_shape
            )
        pool = PoolProblem.pool(
            "reference",
            case.x_shape,
            case.kernel,
            case.stride,
            case.padding,
            case.dilation,
            case.ceil_mode,
        )
        if case.op == "avg_pool":
            if case.direction == "fprop":
                return partial(reference.avg_pool, pool, arrays.x)
            return partial(reference.avg_pool_backward, pool, arrays.grad_y)
        if case.op == "max_pool_indices":
            return partial(reference.max_pool, pool, arrays.x)
        if case.direction == "fprop":
            return lambda: reference.max_pool(pool, arrays.x)[0]
        _, indices = reference.max_pool(pool, arrays.x)
        return partial(reference.max_pool_backward, pool, arrays.grad_y, indices)

    def output(self, result: Any) -> Array:
        """Stack values and indices; anything else is an array already."""
        if isinstance(result, tuple):
            values, indices = result
            return np.stack([values, indices.astype(values.dtype)])
        array: Array = result
        return array


def convolution(case: WindowCase) -> ConvProblem:
    """Give the problem of a convolution's case."""
    return ConvProblem.conv(
        "reference",
        case.x_shape,
        case.weight_shape,
        case.stride,
        case.padding,
        case.dilation,
        case.groups,
    )
