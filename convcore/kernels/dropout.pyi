from typing import Any

import numpy as np

_Sizes = Any  # a buffer of int64: count, key, threshold, and the bits of the scale
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Flags = np.ndarray[Any, np.dtype[np.bool_]]

def masked(
    sizes: _Sizes, x: _Real, mask: _Flags, y: _Real, threads: int, /
) -> None: ...
def forward(
    sizes: _Sizes,
    x: _Real | None,
    y: _Real | None,
    mask: _Flags | None,
    threads: int,
    /,
) -> None: ...
