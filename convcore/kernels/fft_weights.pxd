# The spectra of weights: what a convolution by transforms multiplies with.
#
# What      The taps of one vector of kernels, lifted (fft.pxd), lie in a corner of a tile of
#           zeros, which is transformed. For the gradient of x they lie the other way round.
# Layout    A panel has NR channels m: for each of three vectors of each point a matrix.
#
#                                           NR ->
#           panel  [ point 0: re ]       c [      ]
#                  [ im - re     ]       | [      ]
#                  [ im + re     ]       v [      ]
#                  [ point 1 ... ]
#
# Cost      A transform for each vector of kernels: that of one tile takes as many.

from libc.string cimport memset

from convcore.kernels.fft cimport lift_of, to_points
from convcore.kernels.fft_tasks cimport Job
from convcore.kernels.transpose cimport collect, turn_taps
from convcore.kernels.vector cimport NV, VEC_BYTES, all_lanes, f32v, f64v, nr, real, vec


cdef inline Py_ssize_t packing_room(const Job* job) noexcept nogil:
    """Give the scalars that a thread needs."""
    return job.tile + job.room + job.outputs


cdef inline void fill_tile(
    const Job* job, const vec* block, bint backwards, vec* tile
) noexcept nogil:
    """Put the taps of one vector of kernels, lifted, into a tile of zeros, a row of NR apart."""
    cdef Py_ssize_t y, x, height = job.p.kernel[1], width = job.p.kernel[2], t
    for y in range(height):
        for x in range(width):
            t = y * width + x
            if backwards:
                t = job.taps - 1 - t
            tile[y * job.m.length_x + x] = block[NV * t] * all_lanes(tile, lift_of(tile))


cdef inline void pack_kernels(
    const Job* job, const vec* block, const vec* turns, vec* tile, vec* space, vec* to
) noexcept nogil:
    """Transform the taps of one row of NR kernels."""
    cdef Py_ssize_t half, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef Py_ssize_t rows = job.p.kernel[1] if job.m.s.y > 1 else 1
    for half in range(1 if job.narrow else NV):
        fill_tile(job, block + half, job.gradient, tile)
        to_points(
            &job.m.s, <const vec*>tile, rows, turns, space, to + half, job.matrix // lanes, True
        )


cdef inline void pack_panel(
    const Job* job, Py_ssize_t index, const real* weight, const real* turns, real* private,
    real* to,
) noexcept nogil:
    """Transform the weights of panel `index`, counted through the groups."""
    cdef Py_ssize_t lanes = nr(weight), group = index // job.panels
    cdef Py_ssize_t panel = index % job.panels, first = panel * lanes
    cdef Py_ssize_t rows = min(lanes, job.w.m - first), c, t, here
    cdef real* tile = private
    cdef real* space = tile + job.tile
    cdef real* block = space + job.room
    cdef const real* end = weight + job.p.g * job.p.ocg * job.p.icg * job.taps
    weight += group * job.p.ocg * job.p.icg * job.taps
    memset(tile, 0, job.tile * sizeof(real))
    memset(block, 0, job.outputs * sizeof(real))
    for c in range(job.w.c):
        if not job.gradient:
            collect(
                weight + (first * job.w.c + c) * job.taps, job.w.c * job.taps, rows, job.taps,
                block, lanes,
            )
        t = 0
        while t < job.taps and job.gradient:
            here = min(lanes // NV, job.taps - t)
            turn_taps(
                weight + (c * job.w.m + first) * job.taps + t, job.taps, rows, here, end,
                block + t * lanes,
            )
            t += here
        if real is float:
            pack_kernels(
                job, <const f32v*>block, <const f32v*>turns, <f32v*>tile, <f32v*>space,
                <f32v*>(to + c * lanes),
            )
        else:
            pack_kernels(
                job, <const f64v*>block, <const f64v*>turns, <f64v*>tile, <f64v*>space,
                <f64v*>(to + c * lanes),
            )
