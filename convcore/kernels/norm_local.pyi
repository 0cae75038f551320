from typing import Any

import numpy as np

_Sizes = Any  # a buffer of int64: n, c, plane, size, and the bits of alpha, beta and k
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]

def scratch_size(n: int, c: int, plane: int, size: int, /) -> int: ...
def forward(sizes: _Sizes, x: _Real, y: _Real, threads: int, /) -> None: ...
def backward(
    sizes: _Sizes, g: _Real, x: _Real, dx: _Real, scratch: _Bytes, threads: int, /
) -> None: ...
