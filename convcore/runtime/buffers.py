"""Memory of large results, used again once nobody holds them.

The system gives fresh memory page by page, at the first write, and clears it: for results
of megabytes that takes longer than a layer that is bound by memory. So results of LEAST
bytes and more lie in blocks that come back when their array and all views of it are gone,
and go to a later result of about the same size. The array's base holds the block, and so
does whoever holds the base: what is held is never used again.

Blocks that wait for that have at most `LIMIT` bytes, the oldest leave first; half of the
machine's memory inside of `keep_memory`, where the same sizes are needed again and again.

======================  ==============================================================
CONVCORE_KEEP_BYTES     that limit, 0 for none; by default 1/16 of the memory of the
                        machine or container, and at most 256 MiB
======================  ==============================================================
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from convcore.kernels import memory
from convcore.runtime import cgroup

# Bytes; below, NumPy's own memory is faster, by 0.5 us. Above, the system may get it back
# at each end, when it lies at the end of the heap, and must clear it again: steps of LeNet,
# with results of 300 and 400 KB, had 0 or 680 page faults, and took a quarter more then.
LEAST = 1 << 18
ALIGNMENT = 64  # bytes: a cache line, and the widest vector
_STEPS = 4  # sizes of blocks between powers of two: at most a fifth is not used
_MOST = 256 << 20


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Give an array that is not initialised; aligned to ALIGNMENT if it is large.

    Raises
    ------
    MemoryError
        When there is not enough memory.
    """
    size = prod(shape) * dtype.itemsize
    if size < LEAST:
        return np.empty(shape, dtype)
    block: Any = memory.Block(_size_of_block(size))
    return np.ndarray(shape, dtype, block)


@contextmanager
def keep_memory() -> Iterator[None]:
    """Keep more memory of results that end, for those that come: half of the machine's.

    For a loop of one's own whose steps need the same sizes again and again; `train.fit`
    and `train.predict` do it themselves. Afterwards, what is above the limit goes back
    to the system. It holds for all threads.

    Notes
    -----
    Each size waits for itself: a loop whose sizes change all the time keeps memory that
    it does not need, and is better off without.

    Examples
    --------
    >>> import convcore
    >>> with convcore.keep_memory():
    ...     pass  # the steps
    """
    token = object()
    _keepers[token] = None
    _set_limit()
    try:
        yield
    finally:
        _keepers.pop(token, None)
        _set_limit()


def release() -> None:
    """Give the blocks that wait back to the system."""
    memory.release()


def waiting() -> int:
    """Count the bytes of the blocks that wait."""
    return memory.waiting()


def _set_limit() -> None:
    memory.keep_at_most(max(LIMIT, _memory_of_machine() // 2) if _keepers else LIMIT)


def _size_of_block(size: int) -> int:
    """Round up to one of the sizes of blocks."""
    step = max(1, (1 << (size - 1).bit_length() - 1) // _STEPS)
    return -(-size // step) * step


def _memory_of_machine() -> int:
    """Give the bytes that this process may use: the machine's, or the container's."""
    granted = cgroup.memory()
    sizes = [] if granted is None else [granted]
    with suppress(OSError, ValueError, AttributeError):  # other systems
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((size for size in sizes if size > 0), default=_MOST)


def _checked_limit(given: str | None) -> int:
    """Read the environment variable."""
    if given is None:
        return min(_MOST, _memory_of_machine() // 16)
    if not (given.isascii() and given.isdigit() and int(given) < 2**63):
        raise ValueError(
            f"CONVCORE_KEEP_BYTES: must be a whole number of bytes, got {given!r}"
        )
    return int(given)


def _after_fork() -> None:
    """Forget, in a child, the threads of the parent."""
    memory.begin_anew()
    _keepers.clear()
    _set_limit()


LIMIT = _checked_limit(os.environ.get("CONVCORE_KEEP_BYTES"))
_keepers: dict[object, None] = {}
_set_limit()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
