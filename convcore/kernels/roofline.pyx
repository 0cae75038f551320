# The two ceilings of this machine: multiply-adds, and bytes copied.
#
# What      fma:  acc = acc * factor + term, in a register tile of independent chains,
#           `steps` times in every thread.    copy: to = source, a share for each thread.
# Layout    flat buffers; thread t of fma begins and ends with sums[t * tile :].
# Assumes   |factor| < 1, so that the chains stay finite.
# Parallel  over threads; each writes its own part.
# Cost      fma: 2 * TILE * lanes * steps * threads FLOPs, and no memory at all.
#           copy: every byte is read once and written once.
# Why not   acc + factor * term: that product never changes, and leaves the loop.
#           One loop over TILE: more rounds than GCC unrolls, and the tile goes to memory.
# Source    Williams, Waterman and Patterson, Roofline, CACM 52 (2009).

from cython.parallel cimport prange
from libc.string cimport memcpy

from convcore.kernels.vector cimport (
    MR, NR_BYTES, NV, TILE, f32v, f64v, lanes_from, real, vec,
)


cdef inline void chains(
    vec* sums, const vec* factor, const vec* term, Py_ssize_t steps
) noexcept nogil:
    """Run the chains of one thread; of `factor` and `term` only a scalar is read."""
    cdef vec acc[TILE]
    cdef vec a = lanes_from(factor, 0), b = lanes_from(term, 0)
    cdef Py_ssize_t _step
    cdef int i
    for i in range(MR):
        acc[NV * i] = sums[NV * i]
        acc[NV * i + 1] = sums[NV * i + 1]
    for _step in range(steps):
        for i in range(MR):
            acc[NV * i] = acc[NV * i] * a + b
            acc[NV * i + 1] = acc[NV * i + 1] * a + b
    for i in range(MR):
        sums[NV * i] = acc[NV * i]
        sums[NV * i + 1] = acc[NV * i + 1]


cdef int check(bint right) except -1:
    """Refuse buffers that do not fit the work: a bug in the caller."""
    if not right:
        raise ValueError("roofline: a buffer does not have the size of its work")
    return 0


def tile_bytes():
    """Give the bytes of one thread's part of `sums`."""
    return MR * NR_BYTES


def fma(real[::1] sums, real factor, real term, Py_ssize_t steps, int threads):
    """Run the chains in every thread; return the floating-point operations."""
    cdef Py_ssize_t tile = MR * NR_BYTES // sizeof(real)
    cdef int t
    check(threads >= 1 and steps >= 0 and sums.shape[0] == threads * tile)
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        if real is float:
            chains(<f32v*>&sums[t * tile], <f32v*>&factor, <f32v*>&term, steps)
        else:
            chains(<f64v*>&sums[t * tile], <f64v*>&factor, <f64v*>&term, steps)
    return 2 * tile * steps * threads


def copy(const real[::1] source, real[::1] to, int threads):
    """Copy the buffer, a run of it in every thread."""
    cdef Py_ssize_t size = source.shape[0], first, last
    cdef int t
    check(threads >= 1 and size >= 1 and to.shape[0] == size)
    for t in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        first = size * t // threads
        last = size * (t + 1) // threads
        memcpy(&to[0] + first, &source[0] + first, (last - first) * sizeof(real))
