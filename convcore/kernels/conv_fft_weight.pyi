from array import array

from convcore.runtime.arrays import Array

def scratch_size(
    geometry: array[int], direction: str, item: int, threads: int, /
) -> int: ...
def tile_lengths(
    geometry: array[int], direction: str, item: int, /
) -> tuple[int, int]: ...
def wgrad(
    geometry: array[int],
    x: Array,
    dy: Array,
    dw: Array,
    scratch: Array,
    threads: int,
    /,
) -> bytearray | None: ...
