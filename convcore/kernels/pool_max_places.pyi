from typing import Any

import numpy as np

_Geometry = Any  # a buffer of int64: PoolProblem.geometry
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Index = np.ndarray[Any, np.dtype[np.int64]]
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]

def scratch_size(
    geometry: _Geometry, direction: str, item: int, threads: int, /
) -> int: ...
def fprop(
    geometry: _Geometry,
    x: _Real,
    y: _Real,
    label: _Index | _Bytes | None,
    scratch: None,
    threads: int,
    /,
) -> None: ...
def fractional(
    geometry: _Geometry,
    x: _Real,
    starts: _Index,
    y: _Real,
    index: _Index | None,
    threads: int,
    /,
) -> None: ...
