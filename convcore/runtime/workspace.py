"""Scratch memory for kernels: the only allocator of it.

Buffers are kept for the next call, because a fresh one of megabytes costs more in page
faults than a small convolution. One that is lent is in nobody else's reach: calls of
other threads, and a call made from a signal handler in the middle of another one, get
their own. So there are as many as there ever were calls at once, up to `_MOST`.
"""

from collections import deque

import numpy as np

from convcore.runtime import arrays, buffers
from convcore.runtime.arrays import Array

# The largest buffer that is kept; above, results share the memory.
KEPT_BYTES = 64 << 20
_MOST = 16  # buffers that are kept
ALIGNMENT = 64  # bytes: a cache line, and the widest vector

_BYTE = np.dtype(np.uint8)
_NONE = np.empty(0, _BYTE)

_kept: deque[Array] = deque(maxlen=_MOST)  # its pop and append are atomic


def lend(size: int) -> Array:
    """Lend so many bytes of uninitialised memory, and room to align them.

    Raises
    ------
    MemoryError
        When there is not enough memory.
    """
    try:
        buffer = _kept.pop()
    except IndexError:
        buffer = _NONE
    if buffer.nbytes < size + ALIGNMENT:
        make = np.empty if size + ALIGNMENT <= KEPT_BYTES else buffers.empty
        try:
            buffer = make((size + ALIGNMENT,), _BYTE)
        except MemoryError:  # what waits may be what is missing
            release_memory()
            buffer = make((size + ALIGNMENT,), _BYTE)
    if arrays.POISON:
        buffer[: size + ALIGNMENT].fill(0xFF)  # NaN, in every float type
    return buffer


def release_memory() -> None:
    """Give back to the system what is kept for later calls: memory of results, scratch.

    Arrays that are held anywhere stay as they are.

    Examples
    --------
    >>> import convcore
    >>> convcore.release_memory()
    """
    _kept.clear()
    buffers.release()


def take_back(buffer: Array) -> None:
    """Keep what was lent for the next call."""
    if buffer.nbytes <= KEPT_BYTES:
        _kept.append(buffer)
