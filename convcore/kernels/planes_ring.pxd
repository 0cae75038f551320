# The ring of a gradient of x, with pixels in the lanes: ring.pxd, plane by plane.
#
# What      dx[target, x] += weight[tap, kx] * dy[source, x'] for the rows of the list, and
#           for its columns likewise; where both leave x, one product for each pair.
# Assumes   the plane has the gradient of what lies in x, and is near.
# Cost      a few cycles for each row of the plane and column of the list; rows are vectors.
# Why not   More taps for the tiles at the ends of rows: their loops would need lists of taps,
#           which cost zeros some 20 %. Columns copied to vectors: no faster.

from convcore.kernels.geometry cimport Conv
from convcore.kernels.ring cimport Extra, Ring, window_from
from convcore.kernels.vector cimport real


cdef inline void add_taps(
    const Conv* p, int axis, const real* w, Py_ssize_t w_step, const real* v,
    Py_ssize_t v_step, real* to, Py_ssize_t to_step,
) noexcept nogil:
    """Add a line of dy to one of x, tap by tap."""
    cdef Py_ssize_t k, begin, _i, s = p.stride[axis]
    cdef const real* here
    cdef real* there
    for k in range(p.kernel[axis]):
        begin = window_from(p, axis, k, 0)
        here = v + begin * v_step
        there = to + (s * begin + p.dilation[axis] * k - p.pad[axis]) * to_step
        for _i in range(window_from(p, axis, k, p.in_extent[axis]) - begin):
            there[0] += w[0] * here[0]
            here, there = here + v_step, there + s * to_step
        w += w_step


cdef inline void add_ring(
    const Conv* p, const Ring* r, const real* weight, const real* dy, real* dx
) noexcept nogil:
    """Add to a plane what lies beyond its border."""
    cdef const Extra* e = r.extras
    cdef const Extra* column = e + r.rows
    cdef Py_ssize_t i, j, k = p.kernel[2], width = p.in_extent[2], source = p.out_extent[2]
    cdef Py_ssize_t apart, from_apart, to_apart
    cdef int axis
    for i in range(r.rows):
        for j in range(r.columns):
            dx[e[i].target * width + column[j].target] += (
                weight[e[i].tap * k + column[j].tap]
                * dy[e[i].source * source + column[j].source]
            )
    for i in range(r.rows + r.columns):
        axis, apart, from_apart, to_apart = 1, 1, 1, 1  # a column: scalars to the next one
        if i < r.rows:
            axis, apart, from_apart, to_apart = 2, k, source, width
        add_taps(
            p, axis, weight + e[i].tap * apart, k // apart, dy + e[i].source * from_apart,
            source // from_apart, dx + e[i].target * to_apart, width // to_apart,
        )
