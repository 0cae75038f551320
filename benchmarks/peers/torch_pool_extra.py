"""The suite `pool_extra` in PyTorch; gradients are autograd's, over a graph that is kept.

Lp pooling gets positive data: torch takes powers of x, not of its magnitude.
"""

from collections.abc import Callable
from functools import partial
from math import comb, inf
from typing import Any

import numpy as np

from benchmarks.case import Data
from benchmarks.peers import Unsupported
from benchmarks.peers.torch_elementwise import differentiated
from benchmarks.pool_extra import FRACTIONAL_KERNEL, PoolExtraCase

Call = Callable[[], Any]
Convert = Callable[[Any], Any]


def call(torch: Any, case: PoolExtraCase, arrays: Data, convert: Convert) -> Call:
    """Give the call of one function, or of its gradient.

    Parameters
    ----------
    torch : module
    case : PoolExtraCase
    arrays : Data
    convert : callable
        Makes a tensor of an array of the shape of x, in the layout.
    """
    forward = _forward(torch, case)
    positive = case.operation.function == "lp_pool2d"
    x = convert(np.abs(arrays.x) if positive else arrays.x)
    if not case.backward:
        return partial(forward, x)
    return differentiated(torch, partial(forward), convert(arrays.grad_y), x)


def _forward(torch: Any, case: PoolExtraCase) -> Callable[[Any], Any]:
    """Give the function of x, with all that is beside it."""
    functional = torch.nn.functional
    kernel, stride, out = case.kernel, case.stride, case.y_shape[2:]
    if case.operation.function == "lp_pool2d":
        p = case.operation.options["norm_type"]
        if p == inf:
            return lambda x: functional.max_pool2d(x.abs(), kernel, stride)
        return lambda x: functional.lp_pool2d(x, p, kernel, stride)
    if case.op == "sum_pool":
        return lambda x: functional.avg_pool2d(x, kernel, stride, divisor_override=1)
    if case.op == "blur_pool":
        return _blur(torch, case)
    if case.op == "max_unpool":
        indices = torch.from_numpy(case.indices())
        return lambda x: functional.max_unpool2d(x, indices, kernel, stride)
    if case.op == "adaptive_max_pool":
        return lambda x: functional.adaptive_max_pool2d(x, out)
    if case.op.startswith("channel"):
        reduced = "amax" if case.op == "channel_max_pool" else "mean"
        return lambda x: getattr(x.unflatten(1, (-1, *kernel)), reduced)(2)
    if case.op == "fractional_max_pool":
        samples = torch.from_numpy(case.samples()[..., ::-1].astype(case.dtype))
        return lambda x: functional.fractional_max_pool2d(
            x, FRACTIONAL_KERNEL, out, _random_samples=samples
        )
    raise Unsupported(f"no {case.op}")


def _blur(torch: Any, case: PoolExtraCase) -> Callable[[Any], Any]:
    """Pad, and convolve each channel with the binomial filter, as users of torch do."""
    functional = torch.nn.functional
    (kernel, _), channels = case.kernel, case.x_shape[1]
    taps = np.array([comb(kernel - 1, i) for i in range(kernel)], case.dtype)
    taps /= taps.sum()
    weight = torch.from_numpy(np.outer(taps, taps)).expand(channels, 1, -1, -1)
    weight = weight.contiguous()
    around = ((kernel - 1) // 2, kernel // 2) * 2

    def blur(x: Any) -> Any:
        wide = functional.pad(x, around, "reflect")
        return functional.conv2d(wide, weight, None, case.stride, groups=channels)

    return blur
