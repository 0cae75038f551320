from typing import Any

import numpy as np

_Sizes = Any  # a buffer of int64: planes, (extent, out, kernel, stride) thrice, mode
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]

def forward(sizes: _Sizes, x: _Real, y: _Real, threads: int, /) -> None: ...
def backward(sizes: _Sizes, dy: _Real, dx: _Real, threads: int, /) -> None: ...
