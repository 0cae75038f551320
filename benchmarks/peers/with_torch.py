"""PyTorch on the CPU, in its two memory layouts.

Gradients are calls of `aten::convolution_backward` with an output mask, what autograd
itself would call, so that nothing is computed that is not asked for. Layouts are
converted before the clock starts: tensors of a network are in the layout already.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.case import Array, Case, Data
from benchmarks.elementwise import ElementwiseCase
from benchmarks.peers import (
    Unsupported,
    torch_elementwise,
    torch_pool_extra,
    torch_pooling,
)
from benchmarks.pool_extra import PoolExtraCase
from benchmarks.windows import WindowCase

_CHANNELS_LAST = {2: "channels_last", 3: "channels_last_3d"}  # by spatial axes


class Torch:
    """The default layout, NCHW."""

    channels_last = False

    def start(self, threads: int) -> dict[str, str]:
        """Import torch, set its threads, and leave autograd behind for good."""
        self._torch = torch = import_module("torch")
        torch.set_num_threads(threads)
        torch.inference_mode().__enter__()
        capability = torch.backends.cpu.get_cpu_capability()
        return {"PyTorch": f"{torch.__version__} ({capability})"}

    def prepare(self, case: Case, arrays: Data) -> Callable[[], Any]:
        """Give the call of one operator."""
        if self.channels_last and case.ndim not in _CHANNELS_LAST:
            raise Unsupported(f"no such layout with {case.ndim} spatial axes")
        if isinstance(case, ElementwiseCase):
            if self.channels_last and case.operation.last_axis:
                raise Unsupported("no such layout where the last axis counts")
            return torch_elementwise.call(self._torch, case, arrays, self._tensor)
        if isinstance(case, PoolExtraCase):
            return torch_pool_extra.call(self._torch, case, arrays, self._tensor)
        assert isinstance(case, WindowCase)
        if case.op == "conv" or (case.op == "conv_transpose" and case.symmetric):
            forward = case.direction == "fprop"
            return (self._forward if forward else self._backward)(case, arrays)
        if not case.symmetric:
            raise Unsupported(f"no lopsided padding in {case.op}")
        return torch_pooling.call(self._torch, case, arrays, self._tensor)

    def output(self, result: Any) -> Array:
        """Copy a tensor out, to the layout of NumPy."""
        if isinstance(result, tuple):
            values, indices = result
            return np.stack(
                [self.output(values), self.output(indices.to(values.dtype))]
            )
        array: Array = result.contiguous().numpy()
        return array

    def _tensor(self, array: Array) -> Any:
        tensor = self._torch.from_numpy(array)
        if not self.channels_last or not array.size:
            return tensor
        layout = getattr(self._torch, _CHANNELS_LAST[array.ndim - 2])
        return tensor.contiguous(memory_format=layout)

    def _forward(self, case: WindowCase, arrays: Data) -> Callable[[], Any]:
        """Convolve; lopsided padding is a call of its own, which the user pays."""
        functional = self._torch.nn.functional
        run = getattr(functional, f"{case.op}{case.ndim}d")
        x, weight = self._tensor(arrays.x), self._tensor(arrays.weight)
        padding = [lo for lo, _ in case.padding]
        stride, dilation, groups = case.stride, case.dilation, case.groups
        if case.op == "conv_transpose":
            rest = case.output_padding
            return partial(
                run, x, weight, None, stride, padding, rest, groups, dilation
            )
        if case.symmetric:
            return partial(run, x, weight, None, stride, padding, dilation, groups)
        around = _around(case)
        return lambda: run(
            functional.pad(x, around), weight, None, stride, 0, dilation, groups
        )

    def _backward(self, case: WindowCase, arrays: Data) -> Callable[[], Any]:
        """Compute one gradient; of what is not read only the shape matters."""
        pad = self._torch.nn.functional.pad
        backward = self._torch.ops.aten.convolution_backward.default
        x, weight, grad_y = (
            self._tensor(array if array.size else np.zeros(shape, case.dtype))
            for array, shape in (
                (arrays.x, case.x_shape),
                (arrays.weight, case.weight_shape),
                (arrays.grad_y, case.y_shape),
            )
        )
        mask = [case.direction == "dgrad", case.direction == "wgrad", False]
        geometry = (
            None,  # no bias
            case.stride,
            [lo if case.symmetric else 0 for lo, _ in case.padding],
            case.dilation,
            case.op == "conv_transpose",
            case.output_padding or [0] * case.ndim,
            case.groups,
            mask,
        )
        wanted = mask.index(True)
        if case.symmetric:
            return lambda: backward(grad_y, x, weight, *geometry)[wanted]
        around = _around(case)
        if case.direction == "wgrad":
            return lambda: backward(grad_y, pad(x, around), weight, *geometry)[wanted]
        wide = pad(x, around)
        inner = tuple(
            slice(lo, lo + i)
            for (lo, _), i in zip(case.padding, case.x_shape[2:], strict=True)
        )
        return lambda: backward(grad_y, wide, weight, *geometry)[wanted][(..., *inner)]


class TorchChannelsLast(Torch):
    """The layout that oneDNN likes best, NHWC under NCHW shapes."""

    channels_last = True


def _around(case: WindowCase) -> list[int]:
    """Give the padding as `torch.nn.functional.pad` wants it, the last axis first."""
    return [p for pair in reversed(case.padding) for p in pair]
