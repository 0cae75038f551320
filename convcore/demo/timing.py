"""The kernels against plain NumPy, on the network's own layers."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from convcore import functional as F
from convcore import nn, reference
from convcore.demo.model import trace
from convcore.problem import ConvProblem
from convcore.runtime.arrays import Array

LEAST_ROUNDS = 3
KERNEL_CALLS = 5  # in a round: one alone lasts less than the clock's disturbances
TOLERANCE = 1e-4  # float32, thousands of terms; a wrong tap or channel gives far more


@dataclass(frozen=True)
class Timing:
    """Seconds for the output and all gradients of one layer.

    `difference` is that of the two results, relative to the largest magnitude.
    """

    layer: str
    problem: ConvProblem
    kernels: float
    numpy: float
    difference: float


def compare(model: nn.Sequential, x: Array, seconds: float) -> list[Timing]:
    """Time every convolution of the network on one batch.

    Parameters
    ----------
    model : nn.Sequential
    x : (N, C, H, W) ndarray
        The batch; each layer gets what the layers before it make of it.
    seconds : float
        Time to spend on each layer, roughly.

    Returns
    -------
    list of Timing

    Raises
    ------
    ArithmeticError
        When kernels and NumPy do not give the same results up to rounding.

    Notes
    -----
    One warm-up each; then rounds in which both take turns, so that whatever else the
    machine does meets both; of all rounds the median. NumPy runs `convcore.reference`,
    which loops over the taps of the kernel and multiplies with `numpy.einsum`.
    """
    return [
        _compare(layer, inputs, seconds)
        for layer, inputs, _ in trace(model, x)
        if isinstance(layer, nn.Conv2d)
    ]


def _compare(layer: nn.Conv2d, x: Array, seconds: float) -> Timing:
    """Time one layer; the gradient of its output is the output itself."""
    weight, bias = layer.weight.value, layer.bias.value if layer.bias else None
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
    problem = ConvProblem.conv("conv2d", x.shape, weight.shape, *geometry)

    def kernels() -> list[Any]:
        y = F.conv2d(x, weight, bias, *geometry)
        return [y, *F.conv2d_backward(y, x, weight, *geometry)]

    def numpy() -> list[Any]:
        y = reference.conv(problem, x, weight, bias)
        return [
            y,
            reference.conv_grad_x(problem, y, weight),
            reference.conv_grad_weight(problem, x, y),
            reference.conv_grad_bias(problem, y),
        ]

    difference = max(
        float(np.abs(a - b).max() / np.abs(b).max())
        for a, b in zip(kernels(), numpy(), strict=True)
    )
    if not difference < TOLERANCE:
        raise ArithmeticError(f"results of {problem} differ by {difference}")
    kernel_times: list[float] = []
    numpy_times: list[float] = []
    end = perf_counter() + seconds
    while len(numpy_times) < LEAST_ROUNDS or perf_counter() < end:
        kernel_times.append(_seconds(kernels, KERNEL_CALLS))
        numpy_times.append(_seconds(numpy, 1))
    channels = f"{layer.in_channels} to {layer.out_channels} channels"
    return Timing(
        f"{channels}, {x.shape[2]} x {x.shape[3]}",
        problem,
        median(kernel_times),
        median(numpy_times),
        difference,
    )


def _seconds(work: Callable[[], Any], calls: int) -> float:
    """Time one call, as the mean of several."""
    start = perf_counter()
    for _ in range(calls):
        work()
    return (perf_counter() - start) / calls
