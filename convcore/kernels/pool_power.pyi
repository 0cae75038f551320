from typing import Any

import numpy as np

_Geometry = Any  # a buffer of int64: PoolProblem.geometry
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Power = np.ndarray[Any, np.dtype[np.int64]]

def scratch_size(
    geometry: _Geometry, direction: str, item: int, threads: int, /
) -> int: ...
def fprop(
    geometry: _Geometry,
    power: _Power,
    x: _Real,
    y: _Real,
    scratch: None,
    threads: int,
    /,
) -> None: ...
def dgrad(
    geometry: _Geometry,
    power: _Power,
    dy: _Real,
    y: _Real,
    x: _Real,
    dx: _Real,
    scratch: None,
    threads: int,
    /,
) -> None: ...
def signs(
    geometry: _Geometry, share: _Real, x: _Real, dx: _Real, threads: int, /
) -> None: ...
