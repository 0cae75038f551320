# The ring of a gradient of x, with pixels in the lanes: ring.pxd, plane by plane.
#
# What      dx[target, x] += weight[tap, kx] * dy[source, x'] for the rows of the list, and
#           for its columns likewise; where both leave x, one product for each pair.
# Assumes   the plane has the gradient of what lies in x, and is near.
# Cost      some 3 cycles for each row of the plane and column of the list; rows are vectors.
# Why not   More taps for the tiles at the ends of rows: their loops would need lists of taps,
#           which cost zeros some 20 %. Columns copied to vectors: no faster.

from convcore.kernels.geometry cimport Conv
from convcore.kernels.ring cimport Extra, Ring, window_from
from convcore.kernels.vector cimport real


cdef inline void add_taps(
    const Conv* p, int axis, const real* w, Py_ssize_t w_step, const real* v,
    Py_ssize_t v_step, real* to, Py_ssize_t to_step,
) noexcept nogil:
    """Add a line of dy to one of x, three taps at a time where all of them are in dy."""
    cdef Py_ssize_t k, i, _i, at, part, first, end, begin, dilation = p.dilation[axis]
    cdef Py_ssize_t extent = p.in_extent[axis], s = p.stride[axis], apart = dilation * v_step
    cdef const real* here
    cdef real* there
    cdef real w0, w1, w2
    first = end = extent
    for k in range(p.kernel[axis]):
        at = dilation * k - p.pad[axis]
        if k % 3 == 0:
            first = end = extent
        if k % 3 == 0 and k + 3 <= p.kernel[axis] and s == 1:
            w0, w1, w2 = w[0], w[w_step], w[2 * w_step]
            first = min(max(at + 2 * dilation, 0), extent)
            end = max(min(p.out_extent[axis] + at, extent), first)
            here = v + (first - at) * v_step
            there = to + first * to_step
            for i in range(end - first):
                there[i * to_step] += (
                    w0 * here[i * v_step] + w1 * here[i * v_step - apart]
                    + w2 * here[i * v_step - 2 * apart]
                )
        for part in range(2):  # before and behind those
            begin = window_from(p, axis, k, end if part else 0)
            here, there = v + begin * v_step, to + (s * begin + at) * to_step
            for _i in range(window_from(p, axis, k, extent if part else first) - begin):
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
