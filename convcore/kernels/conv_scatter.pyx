# The gradient of x where most windows of it would meet padding.
#
# What      dx[m, s*q + d*t - p] = bias[m] + sum over taps t of
#               sum over o of dy[o, q] * weight[o, m, t]
#           only with those q and t whose place lies in dx.
# Layout    dy (n, g*ocg, od, oh, ow), weight (g*ocg, icg, kd, kh, kw), dx like x, flat.
#           For each tap the register tile of conv_direct.pyx, over o alone:
#
#                   o ->                        m -> NR
#           q  [ dy, MR outputs ]    x    o  [ weight ]     added to sums [place of q, m]
#           v  [ a scalar o     ]         v  [        ]
#
# Assumes   buffers of the sizes that the geometry tells; extents >= 1; one axis z.
# Parallel  over tasks = (sample, group, band of rows of dx, panel of m): each writes its
#           own part of dx, and adds the taps in their order. A chain of o is no longer
#           than the terms of a sum allow: the bits are the same for any split.
# Scratch   all weights packed once; per thread the sums of a band, one tile, two lists.
# Cost      2 * oc * icg FLOPs for each pair (q, t) whose place is in dx, and no others; the
#           tile's sums are added to others once a tap.
# Why not   conv_direct.pyx: it multiplies the zeros around dy, 2.6 times the work for a
#           7 x 7 kernel on 16 x 16 without padding.
# Source    Dumoulin and Visin, arXiv:1603.07285, section 4; Chellapilla, Puri and Simard
#           (2006) for the sums over taps ("col2im").

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.buffers cimport (
    Buffers, call, geometry_of, reals, reals_or_nothing, room,
)
from convcore.kernels.geometry cimport CONV_FIELDS, Conv, conv_of, volume
from convcore.kernels.rounds cimport TASKS_PER_THREAD, aligned, ceil_div, round_of
from convcore.kernels.tile cimport chain, sum_scattered
from convcore.kernels.transpose cimport MOST_LANES, spread, turn_taps
from convcore.kernels.vector cimport MR, NR_BYTES, NV, copy, nr, real

cdef enum:
    SUM_BYTES = 131072  # of a band's sums, a fraction of L2
    NR_LIMIT = 32  # most scalars of one row of the tile

cdef struct Job:
    Conv p
    Py_ssize_t taps, terms, panels            # of a kernel; oc * taps; of NR channels m
    Py_ssize_t rows, bands                    # rows of dx in a band; bands of a plane
    Py_ssize_t outputs, block                 # most places of dy a band; o of a chain
    Py_ssize_t tasks, macs
    Py_ssize_t packed, shared, private        # scratch in scalars


cdef Job make_job(const Conv* p, Py_ssize_t item, int threads) noexcept nogil:
    """Split the work into enough tasks for `threads`."""
    cdef Job job
    cdef Py_ssize_t lanes = NR_BYTES // item, ih = p.in_extent[1], iw = p.in_extent[2]
    job.p = p[0]
    job.taps = volume(p.kernel)
    job.terms = p.ocg * job.taps
    job.panels = ceil_div(p.icg, lanes)
    job.rows = min(ih, max(1, SUM_BYTES // (iw * NR_BYTES)))
    while True:
        job.bands = ceil_div(ih, job.rows)
        job.rows = ceil_div(ih, job.bands)
        job.tasks = p.n * p.g * job.bands * job.panels
        if job.tasks >= TASKS_PER_THREAD * threads or job.rows <= 4:
            break
        job.rows = ceil_div(job.rows, 2)
    job.outputs = min(p.out_extent[1], job.rows) * p.out_extent[2]
    job.block = ceil_div(p.ocg, ceil_div(p.ocg, chain(job.terms)))
    job.macs = job.rows * iw * lanes * job.terms
    job.packed = aligned(p.g * job.panels * lanes * job.terms)
    job.shared = job.packed + aligned(p.g * job.panels * lanes)
    job.private = (
        aligned((job.rows * iw + MOST_LANES) * lanes) + (MR + 1) * lanes
        + aligned((2 * (job.outputs + MR) + p.ocg) * sizeof(Py_ssize_t) // item)
    )
    return job


cdef void pack_panel(
    const Job* job, Py_ssize_t index, const real* weight, const real* bias, real* scratch
) noexcept nogil:
    """Pack weights, a row for each (tap, o), and biases of one panel of a group."""
    cdef real block[MOST_LANES * NR_LIMIT]
    cdef Py_ssize_t lanes = nr(weight), group = index // job.panels, t = 0, o, i, here
    cdef Py_ssize_t first = index % job.panels * lanes, icg = job.p.icg, ocg = job.p.ocg
    cdef Py_ssize_t rows = min(lanes, icg - first)
    cdef real* to = scratch + index * lanes * job.terms
    cdef real* biases = scratch + job.packed + index * lanes
    weight += group * ocg * icg * job.taps
    memset(block, 0, sizeof(block))
    while t < job.taps:
        here = min(lanes // NV, job.taps - t)
        for o in range(ocg):
            turn_taps(
                weight + (o * icg + first) * job.taps + t, job.taps, rows, here,
                weight + ocg * icg * job.taps, block,
            )
            for i in range(here):
                copy(to + ((t + i) * ocg + o) * lanes, <const real*>block + i * lanes, lanes)
        t += here
    memset(biases, 0, lanes * sizeof(real))
    if bias:
        copy(biases, bias + group * icg + first, rows)


cdef inline Py_ssize_t lowest(Py_ssize_t from_, Py_ssize_t stride) noexcept nogil:
    """Give the least q >= 0 with stride * q >= from_."""
    return ceil_div(from_, stride) if from_ > 0 else 0


cdef inline Py_ssize_t beyond(
    Py_ssize_t limit, Py_ssize_t stride, Py_ssize_t extent
) noexcept nogil:
    """Give the least q that has stride * q >= limit, at most `extent`."""
    return min(extent, ceil_div(limit, stride)) if limit > 0 else 0


cdef Py_ssize_t list_places(
    const Job* job, Py_ssize_t first, Py_ssize_t last, Py_ssize_t ky, Py_ssize_t kx,
    Py_ssize_t* places, Py_ssize_t* targets,
) noexcept nogil:
    """List the outputs that one tap brings to rows first .. last of dx, and where to."""
    cdef const Conv* p = &job.p
    cdef Py_ssize_t oy = p.dilation[1] * ky - p.pad[1], ox = p.dilation[2] * kx - p.pad[2]
    cdef Py_ssize_t y0 = lowest(first - oy, p.stride[1])
    cdef Py_ssize_t y1 = beyond(last - oy, p.stride[1], p.out_extent[1])
    cdef Py_ssize_t x0 = lowest(-ox, p.stride[2])
    cdef Py_ssize_t x1 = beyond(p.in_extent[2] - ox, p.stride[2], p.out_extent[2])
    cdef Py_ssize_t number = 0, y, x, row
    for y in range(y0, y1):
        row = (p.stride[1] * y + oy - first) * p.in_extent[2] + ox
        for x in range(x0, x1):
            places[number] = y * p.out_extent[2] + x
            targets[number] = row + p.stride[2] * x
            number += 1
    return number


cdef inline void add_rows(
    const real* tile, Py_ssize_t rows, const Py_ssize_t* targets, real* sums
) noexcept nogil:
    """Add the rows of a tile to those they belong to."""
    cdef Py_ssize_t i, j
    for i in range(rows):
        for j in range(nr(tile)):
            sums[targets[i] * nr(tile) + j] += tile[i * nr(tile) + j]


cdef void add_tap(
    const Job* job, const real* dy, const Py_ssize_t* places, const Py_ssize_t* targets,
    Py_ssize_t number, const Py_ssize_t* distances, const real* weights, bint narrow,
    real* tile, const real* zeros, real* sums,
) noexcept nogil:
    """Add what one tap brings."""
    cdef Py_ssize_t q = 0, o, here, rows
    while q < number:
        rows = min(MR, number - q)
        o = 0
        while o < job.p.ocg:
            here = min(job.block, job.p.ocg - o)
            sum_scattered(
                dy, places + q, distances + o, weights + o * nr(dy), here, zeros, tile,
                rows, narrow,
            )
            add_rows(<const real*>tile, rows, targets + q, sums)
            o += here
        q += MR


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* dy, const real* packed, real* private,
    real* dx,
) noexcept nogil:
    """Compute some rows of some channels of one sample's dx."""
    cdef const Conv* p = &job.p
    cdef Py_ssize_t lanes = nr(dy), panel = task % job.panels, rest = task // job.panels
    cdef Py_ssize_t first = rest % job.bands * job.rows, plane = rest // job.bands
    cdef Py_ssize_t group = plane % p.g, last = min(first + job.rows, p.in_extent[1])
    cdef Py_ssize_t number, t, i, size = (last - first) * p.in_extent[2]
    cdef Py_ssize_t channels = min(lanes, p.icg - panel * lanes)
    cdef real* sums = private
    cdef real* tile = sums + aligned((job.rows * p.in_extent[2] + MOST_LANES) * lanes)
    cdef real* zeros = tile + MR * lanes
    cdef Py_ssize_t* places = <Py_ssize_t*>(zeros + lanes)
    cdef Py_ssize_t* targets = places + job.outputs + MR
    cdef Py_ssize_t* distances = targets + job.outputs + MR
    cdef const real* weights = packed + (group * job.panels + panel) * lanes * job.terms
    cdef const real* biases = packed + job.packed + (group * job.panels + panel) * lanes
    memset(zeros, 0, lanes * sizeof(real))
    memset(tile, 0, MR * lanes * sizeof(real))
    for i in range(size):
        copy(sums + i * lanes, biases, lanes)
    for i in range(p.ocg):
        distances[i] = i * p.out_extent[1] * p.out_extent[2]
    dy += plane * p.ocg * p.out_extent[1] * p.out_extent[2]
    for t in range(job.taps):
        number = list_places(
            job, first, last, t // p.kernel[2], t % p.kernel[2], places, targets
        )
        for i in range(MR if number else 0):
            places[number + i] = places[number - 1]
        add_tap(
            job, dy, places, targets, number, distances, weights + t * p.ocg * lanes,
            channels <= lanes // NV, tile, <const real*>zeros, sums,
        )
    spread(
        <const real*>sums, lanes, size, channels,
        dx + (plane * p.icg + panel * lanes) * p.in_extent[1] * p.in_extent[2]
        + first * p.in_extent[2],
        p.in_extent[1] * p.in_extent[2], 1,
    )


cdef void pack_panels(
    const Job* job, const real* weight, const real* bias, real* scratch, int threads
) noexcept nogil:
    """Pack all weights and biases."""
    cdef Py_ssize_t i, panels = job.p.g * job.panels
    if threads == 1:
        for i in range(panels):
            pack_panel(job, i, weight, bias, scratch)
        return
    for i in prange(panels, num_threads=threads, schedule="static"):
        pack_panel(job, i, weight, bias, scratch)


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* dy, real* scratch,
    real* dx, int threads,
) noexcept nogil:
    """Do one round of tasks."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, dy, <const real*>scratch, scratch + job.shared, dx)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, dy, <const real*>scratch,
            scratch + job.shared + threadid() * job.private, dx,
        )


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, weight, bias, dx and scratch, and compute dx round by round."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, sizeof(real), threads)
    cdef Py_ssize_t planes = p.n * p.g * p.ocg * volume(p.out_extent)
    cdef const real* dy = reals(held, 1, planes, like)
    cdef const real* weight = reals(held, 2, p.g * p.ocg * p.icg * job.taps, like)
    cdef const real* bias = reals_or_nothing(held, 3, p.g * p.icg, like)
    cdef real* dx = reals(held, 4, p.n * p.g * p.icg * volume(p.in_extent), like)
    cdef real* scratch = room(held, 5, job.shared + threads * job.private, like)
    cdef Py_ssize_t begin = 0, end
    cdef Py_ssize_t each = round_of(job.macs, TASKS_PER_THREAD, threads)
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            if begin == 0:
                pack_panels(&job, weight, bias, scratch, threads)
            run_tasks(&job, begin, end, dy, scratch, dx, threads)
        PyErr_CheckSignals()
        begin = end
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads):
    """Give the scalars of scratch that dgrad needs."""
    cdef Conv p = conv_of(geometry, threads)
    cdef Job job = make_job(&p, item, threads)
    return job.shared + threads * job.private


def dgrad(geometry, dy, weight, bias, dx, scratch, int threads):
    """Write the gradient of x, plus a bias (of a transposed convolution), to dx."""
    call(
        (geometry, dy, weight, bias), (dx, scratch), threads, gradient[float], gradient[double]
    )
