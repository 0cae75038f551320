from typing import Any

import numpy as np

_Sizes = Any  # a buffer of int64: samples, channels, pixels, groups, kernel, stride
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Index = np.ndarray[Any, np.dtype[np.int64]]
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]

def indices(sizes: _Sizes, tap: _Bytes, index: _Index, threads: int, /) -> None: ...
def check(sizes: _Sizes, index: _Index, bad: _Index, threads: int, /) -> None: ...
def dgrad(
    sizes: _Sizes,
    dy: _Real,
    label: _Index | _Bytes,
    dx: _Real,
    bad: _Index,
    threads: int,
    /,
) -> None: ...
