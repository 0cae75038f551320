from typing import Any

import numpy as np

_Sizes = Any  # a buffer of int64: n, groups, m, run, centred, and the bits of eps
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Wide = np.ndarray[Any, np.dtype[np.float64]]
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]

def scratch_size(n: int, groups: int, m: int, run: int, /) -> int: ...
def forward(
    sizes: _Sizes,
    x: _Real,
    weight: _Real | None,
    bias: _Real | None,
    y: _Real | None,
    statistics: _Wide | None,
    threads: int,
    /,
) -> None: ...
def backward(
    sizes: _Sizes,
    g: _Real,
    x: _Real,
    weight: _Real | None,
    mean: _Wide,
    rstd: _Wide,
    dx: _Real | None,
    grad_weight: _Real | None,
    grad_bias: _Real | None,
    scratch: _Bytes,
    threads: int,
    /,
) -> None: ...
