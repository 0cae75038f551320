# Weights of Winograd's filtering: from memory to rows of NR at every point.
#
# What      u = G w G^T for NR outputs at a time, PACK channels after each other.
# Layout    weight (m, c, taps), or (c, m, taps) for the gradient of x, whose taps are read
#           the other way round  ->  u [point][c][NR of m], points `job.point` apart
# Source    as winograd.pxd.

from libc.string cimport memset

from convcore.kernels.transpose cimport MOST_LANES, collect, turn_taps
from convcore.kernels.vector cimport NV, f32v, f64v, nr, real
from convcore.kernels.winograd_job cimport PACK, Job
from convcore.kernels.winograd_transforms cimport MOST_TAPS, weights_of_tile

cdef enum:
    NR_LIMIT = 32  # most scalars of one row of the tile


cdef inline void pack_channels(
    const Job* job, const real* weights, Py_ssize_t channels, Py_ssize_t step, real* to
) noexcept nogil:
    """Transform weights [channel][tap][lane] of one panel to rows of NR at every point.

    `step` is 1, or -1 to take the taps the other way round.
    """
    cdef Py_ssize_t _c, lanes = nr(weights)
    if step < 0:
        weights += (job.taps - 1) * lanes
    for _c in range(channels):
        if real is float:
            weights_of_tile(
                &job.t, <const f32v*>weights, step * lanes, <f32v*>to, job.point
            )
        else:
            weights_of_tile(
                &job.t, <const f64v*>weights, step * lanes, <f64v*>to, job.point
            )
        weights += job.taps * lanes
        to += lanes


cdef inline void pack_panel(
    const Job* job, Py_ssize_t group, Py_ssize_t panel, Py_ssize_t c, Py_ssize_t end_c,
    const real* weight, real* to,
) noexcept nogil:
    """Transform the weights of a panel of a group, for channels c .. end_c."""
    # `turn_taps` writes whole blocks.
    cdef real block[(PACK * MOST_TAPS + MOST_LANES) * NR_LIMIT]
    cdef Py_ssize_t lanes = nr(weight), first = panel * lanes
    cdef Py_ssize_t rows = min(lanes, job.w.m - first), k, channels, t, here
    cdef const real* end = weight + job.p.g * job.p.ocg * job.p.icg * job.taps
    weight += group * job.p.ocg * job.p.icg * job.taps
    memset(block, 0, sizeof(block))
    while c < end_c:
        channels = min(PACK, end_c - c)
        if not job.gradient:
            collect(
                weight + (first * job.w.c + c) * job.taps, job.w.c * job.taps, rows,
                channels * job.taps, block, lanes,
            )
        for k in range(channels if job.gradient else 0):
            t = 0
            while t < job.taps:
                here = min(lanes // NV, job.taps - t)
                turn_taps(
                    weight + ((c + k) * job.w.m + first) * job.taps + t, job.taps, rows,
                    here, end, block + (k * job.taps + t) * lanes,
                )
                t += here
        pack_channels(job, block, channels, -1 if job.gradient else 1, to)
        to += channels * lanes
        c += channels
