from typing import Any

import numpy as np

_Sizes = Any  # a buffer of int64: rows, columns, samples, entries
_Integers = np.ndarray[Any, np.dtype[np.int64]]
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]

def run(
    sizes: _Sizes,
    start: _Integers,
    column: _Integers,
    place: _Integers | None,
    weight: _Real | None,
    source: _Real,
    other: _Real | None,
    to: _Real,
    threads: int,
    /,
) -> None: ...
