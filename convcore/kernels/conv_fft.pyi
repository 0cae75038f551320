from array import array

from convcore.runtime.arrays import Array

def scratch_size(
    geometry: array[int], direction: str, item: int, threads: int, /
) -> int: ...
def packed_size(geometry: array[int], direction: str, item: int, /) -> int: ...
def tile_lengths(
    geometry: array[int], direction: str, item: int, /
) -> tuple[int, int]: ...
def pack_fprop(
    geometry: array[int], weight: Array, packed: Array, threads: int, /
) -> None: ...
def pack_dgrad(
    geometry: array[int], weight: Array, packed: Array, threads: int, /
) -> None: ...
def fprop(
    geometry: array[int],
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    scratch: Array,
    threads: int,
    /,
) -> bytearray | None: ...
def dgrad(
    geometry: array[int],
    dy: Array,
    weight: Array,
    bias: Array | None,
    dx: Array,
    scratch: Array,
    threads: int,
    /,
) -> bytearray | None: ...
