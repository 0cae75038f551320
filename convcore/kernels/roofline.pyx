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

from convcore.kernels.buffers cimport Buffers, call, geometry_of, reals
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


cdef int run_fma(const Buffers* held, int threads, real* like) except -1:
    cdef Py_ssize_t tile = MR * NR_BYTES // sizeof(real), steps = geometry_of(held, 1)[0]
    cdef const real* line = reals(held, 1, 2, like)
    cdef real* sums = reals(held, 2, threads * tile, like)
    cdef int t
    check(steps >= 0)
    with nogil:
        for t in prange(threads, num_threads=threads, schedule="static"):
            if real is float:
                chains(<f32v*>(sums + t * tile), <f32v*>line, <f32v*>(line + 1), steps)
            else:
                chains(<f64v*>(sums + t * tile), <f64v*>line, <f64v*>(line + 1), steps)
    return 0


cdef int run_copy(const Buffers* held, int threads, real* like) except -1:
    cdef Py_ssize_t size = held.views[0].len, first, last
    cdef char* to = <char*>held.views[1].buf
    cdef const char* source = <const char*>held.views[0].buf
    cdef int t
    check(size >= 1 and held.views[1].len == size)
    with nogil:
        for t in prange(threads, num_threads=threads, schedule="static"):
            first = size * t // threads
            last = size * (t + 1) // threads
            memcpy(to + first, source + first, last - first)
    return 0


def fma(steps, line, sums, int threads, /):
    """Run so many steps of the chains in every thread, with factor and term of `line`."""
    call((steps, line), (sums,), threads, run_fma[float], run_fma[double])


def copy(source, to, int threads, /):
    """Copy an array, a run of it in every thread."""
    call((source,), (to,), threads, run_copy[float], run_copy[double])
