from typing import Any

import numpy as np

_Geometry = Any  # a buffer of int64: PoolProblem.geometry
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Index = np.ndarray[Any, np.dtype[np.int64]]
_Label = np.ndarray[Any, np.dtype[np.uint8]]

def scratch_size(
    geometry: _Geometry, direction: str, item: int, threads: int, /
) -> int: ...
def dgrad(
    geometry: _Geometry,
    dy: _Real,
    index: _Index | _Label,
    dx: _Real,
    scratch: None,
    threads: int,
    /,
) -> None: ...
def checked_dgrad(
    geometry: _Geometry,
    dy: _Real,
    index: _Index,
    dx: _Real,
    found: _Index | None,
    scratch: None,
    threads: int,
    /,
) -> None: ...
def check(
    geometry: _Geometry, index: _Index, found: _Index, scratch: None, threads: int, /
) -> None: ...
