from typing import Any

import numpy as np

_Geometry = Any  # a buffer of int64: PoolProblem.geometry
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Index = np.ndarray[Any, np.dtype[np.int64]]
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]

def stochastic(
    geometry: _Geometry,
    x: _Real,
    draws: _Real,
    y: _Real,
    index: _Index,
    room: _Bytes,
    threads: int,
    /,
) -> None: ...
def mean(
    geometry: _Geometry, x: _Real, y: _Real, room: _Bytes, threads: int, /
) -> None: ...
