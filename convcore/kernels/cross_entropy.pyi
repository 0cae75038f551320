from typing import Any

import numpy as np

_Sizes = (
    Any  # a buffer of int64: outer, count, inner, ignored, smoothing, soft, reduction
)
_Real = np.ndarray[Any, np.dtype[np.floating[Any]]]
_Classes = np.ndarray[Any, np.dtype[np.int64]]

def forward(
    sizes: _Sizes,
    x: _Real,
    classes: _Classes | None,
    probabilities: _Real | None,
    weight: _Real | None,
    losses: _Real,
    loss: _Real | None,
    threads: int,
    /,
) -> None: ...
def backward(
    sizes: _Sizes,
    x: _Real,
    classes: _Classes | None,
    probabilities: _Real | None,
    weight: _Real | None,
    gradients: _Real,
    dx: _Real,
    threads: int,
    /,
) -> None: ...
