from typing import Any

import numpy as np

_Geometry = Any  # a buffer of int64: PoolProblem.geometry
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Divisor = np.ndarray[Any, np.dtype[np.int64]]

def scratch_size(
    geometry: _Geometry, direction: str, item: int, threads: int, /
) -> int: ...
def fprop(
    geometry: _Geometry,
    divisor: _Divisor,
    x: _Real,
    y: _Real,
    scratch: None,
    threads: int,
    /,
) -> None: ...
def dgrad(
    geometry: _Geometry,
    divisor: _Divisor,
    dy: _Real,
    dx: _Real,
    scratch: None,
    threads: int,
    /,
) -> None: ...
