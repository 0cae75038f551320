"""What all activations do alike: check their arrays, and run a kernel over all elements."""

from struct import Struct
from typing import Any

import numpy as np

from convcore.functional.call import apply
from convcore.runtime.arrays import Array, check_out, checked, empty, flat

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


def bits(a: float, b: float = 0.0, c: float = 0.0) -> Bits:
    """Give numbers as the kernels read them: the bits of doubles."""
    one, two, three = _INTEGERS.unpack(_DOUBLES.pack(a, b, c))
    return one, two, three


def forward(
    function: str, kind: int, x: Any, out: Any, numbers: Bits = NO_NUMBERS
) -> Array:
    """Check x and `out`, and write an activation of each element."""
    dtype = checked(function, "x", x)
    source = flat(x, dtype)
    if out is None:
        out = empty(x.shape, dtype)
    else:
        check_place(function, out, x.shape, dtype, (x,))
    size = source.size
    work = size // 4 if kind in _LIGHT else 4 * size
    apply("activations", "forward", (kind, size, *numbers), source, out, work=work)
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
    dtype = checked(function, name, model)
    checked(function, "grad_output", grad_output, dtype)
    check_like(function, grad_output, name, model)
    if out is None:
        out = empty(model.shape, dtype)
    else:
        check_place(function, out, model.shape, dtype, (grad_output, model))
    gradient, source = flat(grad_output, dtype), flat(model, dtype)
    size = source.size
    work = size // 4 if kind in _LIGHT else 4 * size
    sizes = (kind, size, *numbers)
    apply("activations", "backward", sizes, gradient, source, out, work=work)
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
    others = [array for array in inputs if not _same(array, out)]
    check_out(function, out, shape, dtype, others)


def _same(array: Array, out: Any) -> bool:
    """Tell whether two arrays are the same elements in the same order."""
    if array is out:
        return True
    return (
        isinstance(out, np.ndarray)
        and array.shape == out.shape
        and array.strides == out.strides
        and array.dtype == out.dtype
        and array.ctypes.data == out.ctypes.data
    )
