"""A case: one operation on one shape, as the plain integers that a worker needs.

A worker runs in any interpreter, also where convcore is not installed, so a case
knows nothing of convcore: it is what travels as JSON.
"""

from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ints = tuple[int, ...]

DIRECTIONS = ("fprop", "dgrad", "wgrad")
DTYPES = ("float32", "float64")
INDEX_BYTES = 8  # max pooling keeps int64 indices


@dataclass(frozen=True)
class Case:
    """One operation, direction and dtype, in the caller's rank.

    Parameters
    ----------
    op : str
        "conv", "conv_transpose", "max_pool" (values alone), "max_pool_indices" or
        "avg_pool"; in `roofline` also "fma" and "copy".
    direction : str
        "fprop", "dgrad" or "wgrad", of the operation as its caller sees it.
    dtype : str
        "float32" or "float64".
    x_shape, weight_shape, y_shape : tuple of int
        Of the operation; a pooling has no weight, ().
    stride, dilation, kernel : tuple of int
        One entry per spatial axis.
    padding : tuple of (int, int)
        One (lo, hi) pair per spatial axis.
    groups : int
    output_padding : tuple of int
        Of a transposed convolution, one entry per spatial axis.
    ceil_mode : bool
        Of a pooling.
    """

    op: str
    direction: str
    dtype: str
    x_shape: Ints = ()
    weight_shape: Ints = ()
    y_shape: Ints = ()
    kernel: Ints = ()
    stride: Ints = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: Ints = ()
    groups: int = 1
    output_padding: Ints = ()
    ceil_mode: bool = False

    @property
    def ndim(self) -> int:
        """Spatial axes."""
        return len(self.kernel)

    @property
    def symmetric(self) -> bool:
        """Whether every axis has the same padding at both ends."""
        return all(lo == hi for lo, hi in self.padding)

    @property
    def flop(self) -> int:
        """Multiplications and additions, those with padding included; 0 for pools."""
        if not self.weight_shape:
            return 0
        windows = self.x_shape if self.op == "conv_transpose" else self.y_shape
        return 2 * windows[0] * prod(windows[2:]) * prod(self.weight_shape)

    @property
    def bytes(self) -> int:
        """Bytes of every input and output, each touched once."""
        item = np.dtype(self.dtype).itemsize
        sizes = [prod(s) for s in (self.x_shape, self.weight_shape, self.y_shape) if s]
        indices = self.op == "max_pool_indices" or (
            self.op == "max_pool" and self.direction == "dgrad"
        )
        return item * sum(sizes) + indices * INDEX_BYTES * prod(self.y_shape)

    def as_json(self) -> dict[str, Any]:
        """Give the fields; tuples will arrive as lists."""
        return asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> "Case":
        """Build the case from what `as_json` gave, lists back to tuples."""
        return Case(**{name: _tuples(value) for name, value in fields.items()})


@dataclass(frozen=True)
class Data:
    """The arrays of a case; `grad_y` has the shape of the operation's result."""

    x: Array
    weight: Array
    grad_y: Array


def data(case: Case, seed: int = 0) -> Data:
    """Draw the arrays of a case, the same in every process.

    Parameters
    ----------
    case : Case
    seed : int

    Returns
    -------
    Data
        Uniform in [-0.5, 0.5), so that nothing is subnormal; what the direction does
        not read is empty.
    """
    unread = {"fprop": "grad_y", "dgrad": "x", "wgrad": "weight"}[case.direction]
    if case.op.endswith("_pool") and case.direction == "dgrad":
        unread = ""  # the winners come from a forward pass
    shapes = {"x": case.x_shape, "weight": case.weight_shape, "grad_y": case.y_shape}
    arrays: dict[str, Array] = {}
    dtype: Any = case.dtype
    for stream, (role, shape) in enumerate(shapes.items()):
        rng = np.random.default_rng([seed, stream])
        drawn = rng.random(shape if shape and role != unread else 0, dtype)
        arrays[role] = drawn - drawn.dtype.type(0.5)
    return Data(**arrays)


def as_convolution(case: Case, arrays: Data) -> tuple[Case, Data]:
    """Turn a transposed convolution into the convolution that it transposes.

    For libraries without transposed convolution: its forward pass is the gradient of
    x there, its gradient of x the forward pass, with x and grad_y in each other's
    place. A plain convolution comes back as it is.
    """
    if case.op != "conv_transpose":
        return case, arrays
    turned = {"fprop": "dgrad", "dgrad": "fprop", "wgrad": "wgrad"}[case.direction]
    convolution = replace(
        case,
        op="conv",
        direction=turned,
        x_shape=case.y_shape,
        y_shape=case.x_shape,
        output_padding=(),
    )
    return convolution, Data(x=arrays.grad_y, weight=arrays.weight, grad_y=arrays.x)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
