"""Scratch memory for kernels: the only allocator of it.

Each Python thread keeps its last buffer, because a fresh one of megabytes costs more in
page faults than a small convolution. A buffer is taken away from its place while it is
in use, so a call made from a signal handler in the middle of another one gets its own.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from convcore.runtime import arrays

KEPT_BYTES = 64 << 20  # the largest buffer that a thread keeps
_ALIGNMENT = 64  # bytes: a cache line, and the widest vector

_kept = threading.local()


@contextmanager
def scratch(count: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Lend `count` scalars of uninitialised memory, aligned to a cache line.

    Raises
    ------
    MemoryError
        When there is not enough memory; nothing has been changed then.
    """
    wanted = count * dtype.itemsize
    buffer = getattr(_kept, "buffer", None)
    _kept.buffer = None
    if buffer is None or buffer.nbytes < wanted + _ALIGNMENT:
        buffer = np.empty(wanted + _ALIGNMENT, np.uint8)
    offset = -buffer.ctypes.data % _ALIGNMENT
    lent = buffer[offset : offset + wanted].view(dtype)
    if arrays.POISON:
        lent.fill(np.nan)
    try:
        yield lent
    finally:
        if buffer.nbytes <= KEPT_BYTES:
            _kept.buffer = buffer
