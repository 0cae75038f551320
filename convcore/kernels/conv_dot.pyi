from array import array

from convcore.runtime.arrays import Array

def scratch_size(
    geometry: array[int], direction: str, item: int, threads: int, /
) -> int: ...
def fprop(
    geometry: array[int],
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    scratch: Array | None,
    threads: int,
    /,
) -> None: ...
