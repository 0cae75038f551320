from typing import Any

import numpy as np

_Sizes = Any  # a buffer of int64: planes, their elements, slopes, a slope each
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]

def pieces(n: int, /) -> int: ...
def forward(
    sizes: _Sizes, x: _Real, weight: _Real, y: _Real, threads: int, /
) -> None: ...
def backward(
    sizes: _Sizes,
    dy: _Real,
    x: _Real,
    weight: _Real,
    dx: _Real | None,
    sums: _Real | None,
    threads: int,
    /,
) -> None: ...
