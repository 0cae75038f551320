"""Cases of the poolings beside maxima and means of windows, and their suite `pool_extra`.

What they have to move at least is said in one table, OPERATIONS. Windows do not overlap
the border: no padding but that of blur pooling, which reflects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from benchmarks.case import Array, Case, Ints

INDEX_BYTES = 8  # int64


@dataclass(frozen=True)
class Pooling:
    """One function for two axes, and what it moves.

    Parameters
    ----------
    function : str
    forward, backward : str
        Arrays that are read or written: "x" and "y" of the size of input and result, "i"
        for an index of each window.
    options : mapping
        Arguments beside arrays and windows, by name.
    drawn : bool
        Whether places are drawn, so that libraries have other results.
    """

    function: str
    forward: str = "xy"
    backward: str = "xy"
    options: Mapping[str, Any] = field(default_factory=dict)
    drawn: bool = False


# A gradient reads that of y and writes that of x; that of a norm reads x and y as well,
# and that of a maximum the index. Stochastic pooling always gives its indices.
OPERATIONS: Mapping[str, Pooling] = {
    **{
        f"lp_pool_{p:g}": Pooling("lp_pool2d", "xy", "xxyy", {"norm_type": p})
        for p in (1.0, 1.5, 2.0, 3.0, float("inf"))
    },
    "sum_pool": Pooling("sum_pool2d"),
    "blur_pool": Pooling("blur_pool2d"),
    "max_unpool": Pooling("max_unpool2d", "xyi", "xyi"),
    "adaptive_max_pool": Pooling("adaptive_max_pool2d", "xy", "xyi"),
    "channel_max_pool": Pooling("channel_max_pool", "xy", "xyi"),
    "channel_avg_pool": Pooling("channel_avg_pool"),
    "fractional_max_pool": Pooling("fractional_max_pool2d", "xy", "xyi", drawn=True),
    "stochastic_pool": Pooling("stochastic_pool2d", "xyi", "xyi", drawn=True),
}
FRACTIONAL_KERNEL = 2

_LP = tuple(name for name in OPERATIONS if name.startswith("lp_pool"))
_SHAPES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    ((*_LP, "sum_pool", "blur_pool"), "resnet_50/pool1", "n8c64ih112kh3sh2"),
    ((*_LP, "sum_pool", "max_unpool", "stochastic_pool"), "half", "n32c64ih56kh2sh2"),
    (("blur_pool",), "vgg_16/blur5", "n32c64ih56kh5sh2"),
    (("adaptive_max_pool",), "vgg_16/pool", "n64c512ih14oh7"),
    (("adaptive_max_pool",), "pspnet/pool7", "n8c512ih60oh7"),
    (("fractional_max_pool",), "half/fractional", "n32c64ih56oh39"),
    (("channel_max_pool", "channel_avg_pool"), "maxout/2", "n32c64ih56g2"),
    ((*_LP, "sum_pool", "blur_pool"), "small/map", "n1c16ih28kh3sh2"),
    (("max_unpool", "stochastic_pool"), "small/map", "n1c16ih28kh2sh2"),
    (("adaptive_max_pool", "fractional_max_pool"), "small/map", "n1c16ih28oh9"),
    (("channel_max_pool", "channel_avg_pool"), "small/map", "n1c16ih28g2"),
)
_TINY: tuple[tuple[tuple[str, ...], str, str], ...] = (
    ((*_LP, "sum_pool", "blur_pool"), "tiny/map", "n2c3ih7iw9kh3sh2"),
    (("max_unpool", "stochastic_pool"), "tiny/map", "n2c3ih6iw8kh2sh2"),
    (("adaptive_max_pool", "fractional_max_pool"), "tiny/map", "n2c3ih7iw9oh4ow5"),
    (("channel_max_pool", "channel_avg_pool"), "tiny/map", "n2c6ih4iw3g3"),
)
POOL_EXTRA, TINY_POOL_EXTRA = (
    tuple((name, op, spelling) for ops, name, spelling in shapes for op in ops)
    for shapes in (_SHAPES, _TINY)
)


@dataclass(frozen=True)
class PoolExtraCase(Case):
    """One operation of the table.

    Parameters
    ----------
    op : str
        A name in OPERATIONS.
    y_shape : tuple of int
        Of the result.
    kernel, stride : tuple of int
        One entry per spatial axis, or one for windows over channels; the kernel is 0
        where the windows follow from the shapes.
    """

    y_shape: Ints = ()
    kernel: Ints = ()
    stride: Ints = ()

    @property
    def operation(self) -> Pooling:
        """What the table says."""
        return OPERATIONS[self.op]

    @property
    def backward(self) -> bool:
        """Whether it is the gradient of x."""
        return self.direction == "dgrad"

    @property
    def bytes(self) -> int:
        """Bytes by the table."""
        x, y = prod(self.x_shape), prod(self.y_shape)
        sizes = {"x": x * self.itemsize, "y": y * self.itemsize}
        sizes["i"] = min(x, y) * INDEX_BYTES
        arrays = self.operation.backward if self.backward else self.operation.forward
        return sum(sizes[array] for array in arrays)

    @property
    def shapes(self) -> dict[str, Ints]:
        """Shapes of x, and of grad_y for the gradient."""
        return {
            "x": self.x_shape,
            **({"grad_y": self.y_shape} if self.backward else {}),
        }

    @property
    def repeatable(self) -> bool:
        """All but what is drawn."""
        return not self.operation.drawn

    def indices(self) -> Array:
        """Give the places that unpooling writes to: one of each window."""
        (kh, kw), (height, width) = self.kernel, self.x_shape[2:]
        drawn = np.random.default_rng(0).integers(kh * kw, size=self.x_shape)
        row, column = np.divmod(drawn, kw)
        row += kh * np.arange(height)[:, None]
        column += kw * np.arange(width)
        return row * self.y_shape[3] + column

    def samples(self) -> Array:
        """Give the numbers that convcore draws for fractional windows: (N, C, 2)."""
        return np.random.default_rng(0).random((*self.x_shape[:2], 2))
