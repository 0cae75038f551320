from typing import Any

import numpy as np

_Geometry = Any  # a buffer of int64: PoolProblem.geometry
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_Label = np.ndarray[Any, np.dtype[np.integer[Any]]]

def scratch_size(
    geometry: _Geometry, direction: str, item: int, threads: int, /
) -> int: ...
def fprop(
    geometry: _Geometry,
    x: _Real,
    y: _Real,
    label: _Label | None,
    scratch: _Bytes | None,
    threads: int,
    /,
) -> None: ...
