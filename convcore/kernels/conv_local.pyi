from typing import Any

import numpy as np

_Sizes = Any  # a buffer of int64: ConvProblem.geometry, and for `run` a direction
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Bytes = Any  # a writeable buffer

def scratch_scalars(geometry: _Sizes) -> int: ...
def run(
    geometry: _Sizes,
    first: _Real,
    second: _Real,
    bias: _Real | None,
    to: _Real,
    scratch: _Bytes,
    threads: int,
) -> None: ...
