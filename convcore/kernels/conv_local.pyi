from typing import Any

import numpy as np

_Geometry = Any  # a buffer of int64: ConvProblem.geometry
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Bytes = Any  # a writeable buffer

def scratch_scalars(geometry: _Geometry, /) -> int: ...
def fprop(
    geometry: _Geometry,
    x: _Real,
    weight: _Real,
    bias: _Real | None,
    y: _Real,
    scratch: _Bytes,
    threads: int,
    /,
) -> None: ...
def dgrad(
    geometry: _Geometry,
    dy: _Real,
    weight: _Real,
    dx: _Real,
    scratch: _Bytes,
    threads: int,
    /,
) -> None: ...
