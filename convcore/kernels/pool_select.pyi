from typing import Any

import numpy as np

_Sizes = Any  # a buffer of int64: planes, cells, windows
_Geometry = Any  # a buffer of int64: PoolProblem.geometry
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Index = np.ndarray[Any, np.dtype[np.int64]]
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]

def scatter_add(
    sizes: _Sizes, dy: _Real, index: _Index, dx: _Real, bad: _Index, threads: int, /
) -> None: ...
def put(
    sizes: _Sizes, x: _Real, index: _Index, y: _Real, bad: _Index, threads: int, /
) -> None: ...
def put_gradient(
    sizes: _Sizes,
    dy: _Real,
    index: _Index,
    dx: _Real,
    bad: _Index,
    seen: _Bytes,
    threads: int,
    /,
) -> None: ...
def maxima(
    sizes: _Sizes, x: _Real, y: _Real, index: _Index | None, threads: int, /
) -> None: ...
def scratch_size(
    geometry: _Geometry, direction: str, item: int, threads: int, /
) -> int: ...
def fprop(
    geometry: _Geometry,
    x: _Real,
    y: _Real,
    index: _Index | None,
    scratch: None,
    threads: int,
    /,
) -> None: ...
def check(sizes: _Sizes, index: _Index, found: _Index, threads: int, /) -> None: ...
