from typing import Any

import numpy as np

_Geometry = Any  # a buffer of int64: PoolProblem.geometry
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Index = np.ndarray[Any, np.dtype[np.int64]]

def fractional(
    geometry: _Geometry,
    x: _Real,
    starts: _Index,
    y: _Real,
    index: _Index,
    threads: int,
    /,
) -> None: ...
def stochastic(
    geometry: _Geometry,
    x: _Real,
    draws: _Real,
    y: _Real,
    index: _Index,
    threads: int,
    /,
) -> None: ...
