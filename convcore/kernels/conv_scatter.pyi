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
