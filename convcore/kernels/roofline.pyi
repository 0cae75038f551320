from typing import Any

import numpy as np

_Integers = np.ndarray[Any, np.dtype[np.int64]]
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]

def tile_bytes() -> int: ...
def fma(steps: _Integers, line: _Real, sums: _Real, threads: int, /) -> None: ...
def copy(source: _Real, to: _Real, threads: int, /) -> None: ...
