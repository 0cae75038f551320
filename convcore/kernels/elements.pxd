# Going through arrays element by element, in vectors.
#
# What      lanes_of, first_lanes: how many scalars a vector has, which are left over.
#           past_caches: whether results are stored without a place in the caches.
#           keep: one vector of results, in either way.  load_some, keep_some: whole vectors
#           as such, which is quicker than by a mask, and what is left of one.
# Cost      A store into the caches reads the line before: a third of the traffic of an
#           operation that reads one array and writes one. Past the caches it does not, but
#           whoever comes next finds nothing there: so only where nothing would be left.

from libc.stdint cimport uintptr_t

from convcore.kernels.vector cimport VEC_BYTES, ahead, f32v, part, put_part, stream, vec

cdef enum:
    PIECE = 8192  # elements; a whole number of lines, so pieces stay aligned
    PAST_BYTES = 33554432  # results from here on leave the caches anyway (L3: 32 MB)


cdef inline Py_ssize_t lanes_of(const vec* like) noexcept nogil:
    """Count the scalars of a vector."""
    return VEC_BYTES // (4 if vec is f32v else 8)


cdef inline unsigned long long first_lanes(Py_ssize_t n) noexcept nogil:
    """Give a bit for each of the first n lanes; n < 64."""
    return (1ULL << n) - 1


cdef inline bint past_caches(const vec* to, Py_ssize_t count) noexcept nogil:
    """Tell whether `count` results from `to` on are better stored past the caches."""
    cdef Py_ssize_t item = 4 if vec is f32v else 8
    return count * item >= PAST_BYTES and <uintptr_t>to % VEC_BYTES == 0


cdef inline void keep(vec* to, Py_ssize_t i, vec v, bint past) noexcept nogil:
    """Store a vector at the i-th scalar."""
    if past:
        stream(<vec*>ahead(to, i), v)
    else:
        (<vec*>ahead(to, i))[0] = v


cdef inline Py_ssize_t lead_of(const vec* to) noexcept nogil:
    """Count the scalars up to the next aligned address."""
    return <Py_ssize_t>(-<uintptr_t>to % VEC_BYTES) // (4 if vec is f32v else 8)


cdef inline vec load_some(const vec* p, Py_ssize_t n) noexcept nogil:
    """Load the first n lanes, the others zero, or all."""
    if n >= lanes_of(p):
        return p[0]
    return part(p, first_lanes(n))


cdef inline void keep_some(
    vec* to, Py_ssize_t i, vec v, Py_ssize_t n, bint past
) noexcept nogil:
    """Store the first n lanes, or all, at the i-th scalar."""
    if n >= lanes_of(to):
        keep(to, i, v, past)
    else:
        put_part(<vec*>ahead(to, i), v, n)
