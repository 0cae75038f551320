"""What all activations do alike: check their arrays, and run a kernel over all elements."""

from array import array
from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Any

import numpy as np

from convcore.functional.call import single
from convcore.runtime import cpu
from convcore.runtime.arrays import Array, check_out, like, ready
from convcore.runtime.threads import SERIAL_MACS, team

# As in kernels/activations.pyx.
(
    RELU,
    CLAMP,
    LEAKY,
    ELU,
    GELU,
    GELU_TANH,
    SILU,
    SIGMOID,
    TANH,
    SOFTPLUS,
    HARDSIGMOID,
    HARDSWISH,
) = range(12)
_LIGHT = frozenset((RELU, CLAMP, LEAKY, HARDSIGMOID, HARDSWISH))  # bound by memory

Bits = tuple[int, int, int]
NO_NUMBERS: Bits = (0, 0, 0)

_DOUBLES, _INTEGERS = Struct("3d"), Struct("3q")


@lru_cache(maxsize=256, typed=True)
def bits(a: float, b: float = 0.0, c: float = 0.0) -> Bits:
    """Give numbers as the kernels read them: the bits of doubles.

    The cache takes 0.0 for -0.0, which makes no difference but in the sign of a zero.
    """
    one, two, three = _INTEGERS.unpack(_DOUBLES.pack(a, b, c))
    return one, two, three


@lru_cache(maxsize=1024)
def _job(
    direction: str, kind: int, size: int, numbers: Bits, isa: str
) -> "tuple[Callable[..., Any], array[int], int]":
    """Give what equal calls have in common: the kernel, its numbers, the work."""
    work = size // 4 if kind in _LIGHT else 4 * size
    sizes = array("q", (kind, size, *numbers))
    return single("activations", direction), sizes, work


def forward(
    function: str, kind: int, x: Any, out: Any, numbers: Bits = NO_NUMBERS
) -> Array:
    """Check x and `out`, and write an activation of each element."""
    source = ready(function, "x", x)
    if out is None:
        out = like(source)
    else:
        check_place(function, out, source.shape, source.dtype, (x,))
    # Not `apply`: of a call for 1,000 elements it would be a tenth.
    kernel, sizes, work = _job("forward", kind, source.size, numbers, cpu.isa())
    kernel(sizes, source, out, 1 if work < SERIAL_MACS else team(work))
    result: Array = out
    return result


def backward(
    function: str,
    kind: int,
    grad_output: Any,
    kept: tuple[str, Any],
    out: Any,
    numbers: Bits = NO_NUMBERS,
) -> Array:
    """Check gradient, what was kept and `out`, and write the gradient of x.

    `kept` has its name beside it.
    """
    name, model = kept
    source = ready(function, name, model)
    gradient = ready(function, "grad_output", grad_output, source.dtype)
    if gradient.shape != source.shape:
        check_like(function, gradient, name, source)
    if out is None:
        out = like(source)
    else:
        check_place(function, out, source.shape, source.dtype, (grad_output, model))
    kernel, sizes, work = _job("backward", kind, source.size, numbers, cpu.isa())
    kernel(sizes, gradient, source, out, 1 if work < SERIAL_MACS else team(work))
    result: Array = out
    return result


def check_like(function: str, grad_output: Array, name: str, model: Array) -> None:
    """Check that a gradient has the shape of another array."""
    if grad_output.shape != model.shape:
        raise ValueError(
            f"{function}: grad_output must have the shape of {name} {model.shape}, "
            f"got {grad_output.shape}"
        )


def check_place(
    function: str,
    out: Any,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    inputs: tuple[Array, ...],
) -> None:
    """Check an array to write to, which may be one of the inputs, but not overlap one."""
    check_out(function, out, shape, dtype, ())
    for given in inputs:
        meets = given is not out and np.may_share_memory(given, out)
        if meets and not _same(given, out):
            check_out(function, out, shape, dtype, (given,))


def _same(given: Array, out: Array) -> bool:
    """Tell whether two arrays are the same elements in the same order."""
    return (
        given.shape == out.shape
        and given.strides == out.strides
        and given.dtype == out.dtype
        and given.ctypes.data == out.ctypes.data
    )
