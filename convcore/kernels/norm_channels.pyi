from typing import Any

import numpy as np

_Sizes = (
    Any  # a buffer of int64: n, c, rest, training, and the bits of eps and momentum
)
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Wide = np.ndarray[Any, np.dtype[np.float64]]
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]

def scratch_size(n: int, c: int, rest: int, /) -> int: ...
def infer(
    sizes: _Sizes,
    x: _Real,
    weight: _Real | None,
    bias: _Real | None,
    running_mean: _Real,
    running_var: _Real,
    y: _Real,
    scratch: _Bytes,
    threads: int,
    /,
) -> None: ...
def forward(
    sizes: _Sizes,
    x: _Real,
    weight: _Real | None,
    bias: _Real | None,
    running_mean: _Real | None,
    running_var: _Real | None,
    y: _Real | None,
    statistics: _Wide,
    scratch: _Bytes,
    threads: int,
    /,
) -> None: ...
def backward(
    sizes: _Sizes,
    g: _Real,
    x: _Real,
    weight: _Real | None,
    mean: _Wide | _Real,
    deviation: _Wide | _Real,
    dx: _Real | None,
    grad_weight: _Real | None,
    grad_bias: _Real | None,
    scratch: _Bytes,
    threads: int,
    /,
) -> None: ...
