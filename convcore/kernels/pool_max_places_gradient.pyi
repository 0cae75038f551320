from typing import Any

import numpy as np

_Geometry = Any  # a buffer of int64: PoolProblem.geometry
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]

def scratch_size(
    geometry: _Geometry, direction: str, item: int, threads: int, /
) -> int: ...
def dgrad(
    geometry: _Geometry,
    dy: _Real,
    tap: _Bytes,
    dx: _Real,
    scratch: None,
    threads: int,
    /,
) -> None: ...
