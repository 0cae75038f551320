from array import array

from convcore.runtime.arrays import Array

def scratch_size(
    geometry: array[int], direction: str, item: int, threads: int, /
) -> int: ...
def dgrad(
    geometry: array[int],
    dy: Array,
    weight: Array,
    bias: Array | None,
    dx: Array,
    scratch: Array,
    threads: int,
    /,
) -> None: ...
def wgrad(
    geometry: array[int],
    x: Array,
    dy: Array,
    dw: Array,
    scratch: Array,
    threads: int,
    /,
) -> None: ...
def bgrad(
    geometry: array[int], dy: Array, db: Array, scratch: None, threads: int, /
) -> None: ...
