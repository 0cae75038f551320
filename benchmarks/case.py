"""A case: one operation on one shape, as the plain integers that a worker needs.

A worker runs in any interpreter, also where convcore is not installed, so a case
knows nothing of convcore: it is what travels as JSON.
"""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ints = tuple[int, ...]

DIRECTIONS = ("fprop", "dgrad", "wgrad")
DTYPES = ("float32", "float64")
_AGREEMENT = {"float32": 1e-4, "float64": 1e-9}


@dataclass(frozen=True)
class Case:
    """One operation, direction and dtype.

    Parameters
    ----------
    op : str
        What is computed; in `roofline` "fma" and "copy".
    direction : str
        "fprop", "dgrad" or "wgrad", of the operation as its caller sees it.
    dtype : str
        "float32" or "float64".
    x_shape : tuple of int
        Of the operation's input.
    """

    op: str
    direction: str
    dtype: str
    x_shape: Ints = ()

    @property
    def ndim(self) -> int:
        """Spatial axes."""
        return len(self.x_shape) - 2

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return np.dtype(self.dtype).itemsize

    @property
    def flop(self) -> int:
        """Multiplications and additions; 0 for what is bound by memory."""
        return 0

    @property
    def bytes(self) -> int:
        """Bytes that are read and written, at least."""
        return 2 * self.itemsize * prod(self.x_shape)

    @property
    def shapes(self) -> dict[str, Ints]:
        """Shapes of the arrays that the call reads, among x, weight and grad_y."""
        return {"x": self.x_shape}

    @property
    def spread(self) -> float:
        """The data is uniform in an interval of this length, 0 in its middle."""
        return 1.0

    @property
    def tolerance(self) -> float:
        """What the results of two libraries may differ by, relative to their norm."""
        return _AGREEMENT[self.dtype]

    @property
    def repeatable(self) -> bool:
        """Whether every library gives the same result: not where it draws numbers."""
        return True

    def as_json(self) -> dict[str, Any]:
        """Give the class and the fields, for `worker.case_from_json`."""
        return {"class": type(self).__name__, **asdict(self)}


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
        Uniform in [-0.5, 0.5) times `case.spread`, so that nothing is subnormal; what
        the call does not read is empty.
    """
    arrays: dict[str, Array] = {}
    dtype: Any = case.dtype
    for stream, role in enumerate(("x", "weight", "grad_y")):
        rng = np.random.default_rng([seed, stream])
        drawn = rng.random(case.shapes.get(role, (0,)), dtype)
        drawn -= drawn.dtype.type(0.5)
        drawn *= drawn.dtype.type(case.spread)
        arrays[role] = drawn
    return Data(**arrays)
