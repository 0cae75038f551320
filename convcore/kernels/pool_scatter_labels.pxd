# The gradient of max pooling from byte labels, window by window.
#
# What      dx[i] = sum of dy[o] over windows o whose label tells that i won
# How       A label is the number of a tap, and a table tells how far each tap is from the
#           start of its window: dx[start + away[label]] += dy. Zeros are written just
#           before the windows that add to them.
# Assumes   dense windows: each holds an element, and its label is one of its own.
# Cost      3 cycles a window, whatever the width of a plane.

from convcore.kernels.pool_flat cimport TAPS, lanes_of
from convcore.kernels.vector cimport (
    ahead, cc_fetch_to_write, f32v, f64v, put_part, real, vec, zero_lanes,
)
from convcore.kernels.windows cimport Pool, start_of, stop_of

cdef enum:
    AHEAD = 4096  # bytes from what is read or written to what is asked for
    SMALL = 512  # elements of a plane whose zeros are written at once

cdef struct Away:
    unsigned long long[TAPS] tap  # from the start of the window
    Py_ssize_t cells  # of a plane


cdef inline void clear_lanes(vec* to, Py_ssize_t n) noexcept nogil:
    """Write n zeros, if any, by vectors: a long memset goes past L1."""
    cdef Py_ssize_t j = 0, lanes = lanes_of(to)
    cdef vec zero = zero_lanes(<const vec*>to)
    while j + lanes <= n:
        cc_fetch_to_write(<const char*>ahead(to, j) + AHEAD)
        (<vec*>ahead(to, j))[0] = zero
        j += lanes
    if j < n:
        put_part(<vec*>ahead(to, j), zero, n - j)


cdef inline void clear(real* to, Py_ssize_t n) noexcept nogil:
    """Do the same with scalars."""
    if real is float:
        clear_lanes(<f32v*>to, n)
    else:
        clear_lanes(<f64v*>to, n)


cdef inline Py_ssize_t end_of(
    const Pool* p, Py_ssize_t z, Py_ssize_t y, Py_ssize_t x
) noexcept nogil:
    """Give what is one behind the last element of a window."""
    cdef Py_ssize_t row = (stop_of(&p.z, z) - 1) * p.y.extent + stop_of(&p.y, y) - 1
    return row * p.x.extent + stop_of(&p.x, x)


cdef inline void measure_taps(const Pool* p, Away* away) noexcept nogil:
    """Write the table; what is no tap leads out of every plane."""
    cdef Py_ssize_t k, z, y, x, taps = p.z.kernel * p.y.kernel * p.x.kernel
    away.cells = p.z.extent * p.y.extent * p.x.extent
    for k in range(TAPS):
        away.tap[k] = 1ULL << 62
        if k < taps:
            x, y = k % p.x.kernel, k // p.x.kernel % p.y.kernel
            z = k // (p.x.kernel * p.y.kernel)
            away.tap[k] = (z * p.y.extent + y) * p.x.extent + x


cdef inline void add_row(
    const Away* away, unsigned long long start, Py_ssize_t stride,
    const unsigned char* tap, const real* dy, Py_ssize_t n, real* dx,
) noexcept nogil:
    """Add the values of a row of windows, in order; the first begins at `start`."""
    cdef Py_ssize_t o
    cdef unsigned long long cell
    for o in range(n):
        cell = start + away.tap[tap[o]]
        if cell < <unsigned long long>away.cells:
            dx[cell] += dy[o]
        start += stride


cdef inline void plane_by_labels(
    const Pool* p, const Away* away, const real* dy, const unsigned char* tap, real* dx
) noexcept nogil:
    """Do one plane."""
    cdef Py_ssize_t z, y, zeros = 0, end, start, n = p.x.out
    if away.cells <= SMALL:
        clear(dx, away.cells)
        zeros = away.cells
    for z in range(p.z.out):
        for y in range(p.y.out):
            end = end_of(p, z, y, n - 1)
            if end > zeros:
                clear(dx + zeros, end - zeros)
                zeros = end
            start = start_of(&p.z, z) * p.y.extent + start_of(&p.y, y)
            start = start * p.x.extent + start_of(&p.x, 0)
            add_row(away, start, p.x.stride, tap, dy, n, dx)
            tap += n
            dy += n
    clear(dx + zeros, away.cells - zeros)
