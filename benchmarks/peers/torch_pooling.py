"""Pooling in PyTorch; gradients are the operators that autograd calls."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.case import Data
from benchmarks.windows import WindowCase

Call = Callable[[], Any]
Convert = Callable[[Any], Any]


def call(torch: Any, case: WindowCase, arrays: Data, convert: Convert) -> Call:
    """Give the call of one function, or of its gradient.

    Parameters
    ----------
    torch : module
    case : WindowCase
    arrays : Data
    convert : callable
        Makes a tensor of an array, in the layout.
    """
    x, grad_y = convert(arrays.x), convert(arrays.grad_y)
    if case.direction == "fprop":
        return _forward(torch, case, x)
    if case.ndim > 1:
        return _backward(torch, case, x, grad_y)
    # torch's own backward goes through 2-D, too
    wide = _backward(torch, case, x.unsqueeze(2), grad_y.unsqueeze(2))
    return lambda: wide().squeeze(2)


def _forward(torch: Any, case: WindowCase, x: Any) -> Call:
    functional = torch.nn.functional
    padding = [lo for lo, _ in case.padding]
    if not any(case.kernel):
        mean = getattr(functional, f"adaptive_avg_pool{case.ndim}d")
        return partial(mean, x, case.y_shape[2:])
    if case.op == "avg_pool":
        mean = getattr(functional, f"avg_pool{case.ndim}d")
        return partial(mean, x, case.kernel, case.stride, padding, case.ceil_mode)
    largest = getattr(functional, f"max_pool{case.ndim}d")
    window = (case.kernel, case.stride, padding, case.dilation, case.ceil_mode)
    if case.op == "max_pool":
        return partial(largest, x, *window)
    return partial(largest, x, *window, return_indices=True)


def _backward(torch: Any, case: WindowCase, x: Any, grad_y: Any) -> Call:
    """Give the operator, in two axes or three."""
    aten, rank = torch.ops.aten, max(case.ndim, 2)

    def axes(sizes: Any, one: int) -> list[int]:
        return [one] * (rank - case.ndim) + list(sizes)

    if case.op == "global_avg_pool":  # a mean: autograd spreads its gradient
        extents = x.shape[2:]
        return lambda: grad_y.expand(x.shape) / extents.numel()
    if case.op == "adaptive_avg_pool":
        name = f"_adaptive_avg_pool{rank}d_backward"
        return partial(getattr(aten, name).default, grad_y, x)
    kernel, stride = axes(case.kernel, 1), axes(case.stride, 1)
    padding = axes((lo for lo, _ in case.padding), 0)
    if case.op == "avg_pool":
        run = getattr(aten, f"avg_pool{rank}d_backward").default
        how = (kernel, stride, padding, case.ceil_mode, True, None)
        return partial(run, grad_y, x, *how)
    window = (kernel, stride, padding, axes(case.dilation, 1), case.ceil_mode)
    forward = getattr(torch.nn.functional, f"max_pool{rank}d")
    _, indices = forward(x, *window, return_indices=True)
    run = getattr(aten, f"max_pool{rank}d_with_indices_backward").default
    return partial(run, grad_y, x, *window, indices)
