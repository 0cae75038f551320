from typing import Any

import numpy as np

_Sizes = Any  # a buffer of int64: ConvProblem.geometry
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Bytes = Any  # a writeable buffer

def scratch_scalars(geometry: _Sizes) -> int: ...
def fprop(
    geometry: _Sizes,
    x: _Real,
    weight: _Real,
    bias: _Real | None,
    y: _Real,
    scratch: _Bytes,
    threads: int,
) -> None: ...
def wgrad(
    geometry: _Sizes, x: _Real, dy: _Real, dw: _Real, scratch: _Bytes, threads: int
) -> None: ...
def dgrad(
    geometry: _Sizes,
    dy: _Real,
    weight: _Real,
    dx: _Real,
    scratch: _Bytes,
    threads: int,
) -> None: ...
