from typing import Any

import numpy as np

_Geometry = Any  # a buffer of int64: ConvProblem.geometry
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Bytes = Any  # a writeable buffer

def wgrad(
    geometry: _Geometry,
    x: _Real,
    dy: _Real,
    dw: _Real,
    scratch: _Bytes,
    threads: int,
    /,
) -> None: ...
