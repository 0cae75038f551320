from typing import Any

import numpy as np

_Sizes = Any  # a buffer of int64: the elements
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]

def sgd(
    sizes: _Sizes,
    settings: _Real,
    gradient: _Real,
    value: _Real,
    velocity: _Real | None,
    threads: int,
    /,
) -> None: ...
def adam(
    sizes: _Sizes,
    settings: _Real,
    gradient: _Real,
    value: _Real,
    mean: _Real,
    square: _Real,
    threads: int,
    /,
) -> None: ...
