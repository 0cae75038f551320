from typing import Any

import numpy as np

_Sizes = Any  # a buffer of int64: `Frame` of pad.pyx
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]

def pad(sizes: _Sizes, x: _Real, y: _Real, threads: int, /) -> None: ...
def fold(sizes: _Sizes, grad_y: _Real, grad_x: _Real, threads: int, /) -> None: ...
