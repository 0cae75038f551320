# The gradient of weight of depthwise convolution, channels in the lanes.
#
# What      dw[g, ky, kx] = sum over (n, y, x) of dy[n, g, y, x] * x[n, g, y', x']
#           with the windows of the forward pass (geometry.pxd).
# Layout    as conv_depthwise.pyx: a band of x (depthwise.pxd), and dy transposed alike,
#           one vector for each pixel; TAPS sums are kept in registers:
#
#               dy    [* * * *]       band  [* * * * * *]       sum of tap 0  [*]
#                     [* * * *]   x         [* * * * * *]  -->          1  [*] ...
#
# Assumes   flat native buffers of the sizes that the geometry tells; what
#           algorithms/conv_depthwise.py accepts.
# Parallel  over tasks = (block of channels, chunk of boxes). How many chunks there are
#           depends on the problem alone; they are added in a fixed tree. So the bits are
#           the same for any thread count.
# Scratch   shared: where pixels go, the sums of all chunks; per thread a band, dy, addresses.
# Cost      as conv_depthwise.pyx; a load for each multiply-add, one more for TAPS of them.
# Why not   Pixels in the lanes (conv_planes_weight.pyx): see conv_depthwise.pyx; and there
#           the lanes of every sum have to be added.
# Source    as conv_depthwise.pyx; Higham, Accuracy and Stability of Numerical Algorithms
#           (2002), section 4.2, for sums in blocks.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.buffers cimport Buffers, call, geometry_of, reals, room
from convcore.kernels.depthwise cimport (
    SLACK, Frame, Slice, fill_band, frame_of, list_places, slice_after, slice_of,
)
from convcore.kernels.geometry cimport CONV_FIELDS, Conv, conv_of
from convcore.kernels.rounds cimport ROUND_MACS, add_tree, aligned, ceil_div, round_of
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport chain
from convcore.kernels.transpose cimport collect, spread
from convcore.kernels.vector cimport VEC_BYTES, f32v, f64v, real, vec, zero_lanes

cdef enum:
    TAPS = 9  # sums in registers
    TASKS = 16  # tasks that a problem is split into at least, if it is large enough
    MOST_CHUNKS = 64  # of a block of channels, so that their sums need little room
    TASK_MACS = 200000  # fewest of a task: some 5 us

cdef struct Job:
    Conv p
    Frame f
    Py_ssize_t lanes, blocks            # of channels
    Py_ssize_t taps, sums               # of a channel; with those that fill the last TAPS
    Py_ssize_t longest                  # pixels that are summed one after the other
    Py_ssize_t units, chunk, chunks     # (sample, box); of a chunk; of a block of channels
    Py_ssize_t run                      # units that are summed one after the other
    Py_ssize_t tasks, macs              # macs of one
    Py_ssize_t partial, shared          # scratch in scalars: where the chunks begin; all
    Py_ssize_t band, turned, private    # of a thread, parts and all


cdef Job make_job(const Conv* p, Py_ssize_t item) noexcept nogil:
    """Split the work: by the problem alone, never by the number of threads."""
    cdef Job job
    cdef Py_ssize_t macs, possible
    job.p = p[0]
    job.f = frame_of(p, False)
    job.lanes = VEC_BYTES // item
    job.blocks = ceil_div(p.g, job.lanes)
    job.taps = p.kernel[1] * p.kernel[2]
    job.sums = ceil_div(job.taps, TAPS) * TAPS
    job.longest = chain(p.n * job.f.height * job.f.width)
    job.units = p.n * job.f.boxes
    macs = p.n * job.f.height * job.f.width * job.lanes * job.taps
    possible = max(min(macs // TASK_MACS, job.units), 1)
    job.chunks = min(ceil_div(TASKS, job.blocks), possible)
    job.chunks = max(job.chunks, min(min(macs // ROUND_MACS, possible), MOST_CHUNKS))
    job.chunk = max(ceil_div(job.units, job.chunks), 1)
    job.chunks = max(ceil_div(job.units, job.chunk), 1)
    job.tasks = job.blocks * job.chunks
    job.macs = macs // job.chunks + 1
    job.partial = aligned(
        ceil_div(job.f.band_rows * job.f.source_width * sizeof(int), item)
    )
    job.shared = job.partial + (job.tasks * job.sums + SLACK) * job.lanes
    job.band = (job.f.band_rows * job.f.pitch + SLACK) * job.lanes
    job.run = max(job.longest // (job.f.rows * job.f.width), 1)
    job.turned = (job.f.rows * job.f.width + SLACK) * job.lanes
    job.private = job.band + job.turned + (job.sums + SLACK) * job.lanes
    return job


cdef inline void add_pixels(
    const vec* dy, const vec* const* tap, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t row, Py_ssize_t step, vec* sums,
) noexcept nogil:
    """Add some pixels to the sums of TAPS taps.

    In the band they are `step` vectors apart, their rows `row`.
    """
    cdef vec acc[TAPS]
    cdef vec d
    cdef Py_ssize_t y, _x, at
    cdef int k
    for k in range(TAPS):
        acc[k] = zero_lanes(dy)
    for y in range(rows):
        at = y * row
        for _x in range(columns):
            d = dy[0]
            for k in range(TAPS):
                acc[k] = acc[k] + d * tap[k][at]
            at += step
            dy += 1
    for k in range(TAPS):
        sums[k] = sums[k] + acc[k]


cdef inline Py_ssize_t distance_of(const Job* job, Py_ssize_t tap) noexcept nogil:
    """Count the vectors from an output to a tap; to the last one, if there are no more."""
    cdef Py_ssize_t ky = min(tap, job.taps - 1) // job.p.kernel[2]
    cdef Py_ssize_t kx = min(tap, job.taps - 1) % job.p.kernel[2]
    return (
        (job.f.y[0].off0 + ky * job.f.y[0].off_step) * job.f.pitch
        + job.f.x[0].off0 + kx * job.f.x[0].off_step - job.f.left
    )


cdef void add_box(
    const Job* job, const vec* band, const vec* dy, Py_ssize_t height, vec* sums
) noexcept nogil:
    """Add a box to the sums of all taps; `band` is where its first output is."""
    cdef const vec* tap[TAPS]
    cdef const Frame* f = &job.f
    cdef Py_ssize_t k = 0, j, y, x, rows, columns = min(f.width, job.longest)
    cdef Py_ssize_t row = f.y[0].advance * f.pitch, step = f.x[0].advance, here
    while k < job.taps:
        y = 0
        while y < height:
            rows = min(max(job.longest // f.width, 1), height - y)
            x = 0
            while x < f.width:  # in one go, unless a row is very long
                here = min(columns, f.width - x)
                for j in range(TAPS):
                    tap[j] = band + distance_of(job, k + j) + y * row + x * step
                add_pixels(
                    dy + y * f.width + x, <const vec* const*>tap, rows, here, row, step,
                    sums + k,
                )
                x += here
            y += rows
        k += TAPS


cdef inline void run_unit(
    const Job* job, const Slice* s, Py_ssize_t y0, Py_ssize_t y1, Py_ssize_t rows,
    const vec* x, const int* places, vec* band, const vec* dy, vec* sums,
) noexcept nogil:
    """Add a box of some planes; dy is transposed."""
    fill_band(&job.f, s, x, rows, places, band)
    add_box(
        job, band + (job.f.y[0].advance * y0 - s.first) * job.f.pitch, dy, y1 - y0, sums
    )


cdef inline void put_block(
    const Job* job, Py_ssize_t block, const real* sums, real* dw
) noexcept nogil:
    """Write the gradients of a block of channels."""
    cdef Py_ssize_t first = block * job.lanes
    spread(
        sums, job.lanes, job.taps, min(job.lanes, job.p.g - first), dw + first * job.taps,
        job.taps, 1,
    )


cdef inline void move_sums(real* sums, Py_ssize_t count, real* to) noexcept nogil:
    """Add some sums to others, and begin them anew."""
    cdef Py_ssize_t i
    for i in range(count):
        to[i] += sums[i]
        sums[i] = 0


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* x, const real* dy, real* shared,
    real* band, real* dw,
) noexcept nogil:
    """Sum one chunk of boxes for a block of channels."""
    cdef const Frame* f = &job.f
    cdef Py_ssize_t block = task // job.chunks, first = task % job.chunks * job.chunk
    cdef Py_ssize_t rows = min(job.lanes, job.p.g - block * job.lanes)
    cdef Py_ssize_t unit, y0, y1, plane, plane_size = f.height * f.width
    cdef Py_ssize_t source_plane = f.source_height * f.source_width
    cdef real* turned = band + job.band
    cdef Slice s
    cdef real* all_sums = shared + job.partial + task * job.sums * job.lanes
    cdef real* sums = turned + job.turned
    memset(all_sums, 0, job.sums * job.lanes * sizeof(real))
    memset(sums, 0, job.sums * job.lanes * sizeof(real))
    memset(band, 0, job.band * sizeof(real))
    for unit in range(first, min(first + job.chunk, job.units)):
        y0 = unit % f.boxes * f.rows
        y1 = min(y0 + f.rows, f.height)
        if unit == first or (f.boxes > 1 and y0 == 0):
            s = slice_of(f, y0, y1)
        elif f.boxes > 1:
            s = slice_after(f, &s, y0, y1)
        plane = unit // f.boxes * job.p.g + block * job.lanes
        collect(
            dy + plane * plane_size + y0 * f.width, plane_size, rows, (y1 - y0) * f.width,
            turned, job.lanes,
        )
        if real is float:
            run_unit(
                job, &s, y0, y1, rows, <const f32v*>(x + plane * source_plane),
                <const int*>shared, <f32v*>band, <const f32v*>turned, <f32v*>sums,
            )
        else:
            run_unit(
                job, &s, y0, y1, rows, <const f64v*>(x + plane * source_plane),
                <const int*>shared, <f64v*>band, <const f64v*>turned, <f64v*>sums,
            )
        if (unit + 1 - first) % job.run == 0:
            move_sums(sums, job.sums * job.lanes, all_sums)
    move_sums(sums, job.sums * job.lanes, all_sums)
    if job.chunks == 1:
        put_block(job, block, <const real*>all_sums, dw)


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* x, const real* dy,
    real* dw, real* scratch, int threads,
) noexcept nogil:
    """Do one round of tasks."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, x, dy, scratch, scratch + job.shared, dw)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, x, dy, scratch, scratch + job.shared + threadid() * job.private, dw
        )


cdef int run(
    const Job* job, const real* x, const real* dy, real* dw, real* scratch, int threads
) except -1:
    """Do the tasks round by round, then add their chunks."""
    cdef Py_ssize_t i, begin = 0, end, each = round_of(job.macs, 1, threads)
    cdef real* sums
    list_places(&job.f, <int*>scratch)
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            run_tasks(job, begin, end, x, dy, dw, scratch, threads)
        look()
        begin = end
    if job.chunks > 1:
        for i in range(job.blocks):
            sums = scratch + job.partial + i * job.chunks * job.sums * job.lanes
            add_tree(sums, job.chunks, job.sums * job.lanes)
            put_block(job, i, <const real*>sums, dw)
    return 0


cdef int weight_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x, dy, dw and scratch, and sum the gradient of weight."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, sizeof(real))
    cdef Py_ssize_t planes = p.n * p.g
    cdef const real* x = reals(
        held, 1, planes * job.f.source_height * job.f.source_width, like
    )
    cdef const real* dy = reals(held, 2, planes * job.f.height * job.f.width, like)
    cdef real* dw = reals(held, 3, p.g * job.taps, like)
    cdef real* scratch = room(held, 4, job.shared + threads * job.private, like)
    if p.n:
        return run(&job, x, dy, dw, scratch, threads)
    memset(dw, 0, p.g * job.taps * sizeof(real))
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that wgrad needs."""
    cdef Conv p = conv_of(geometry, threads)
    cdef Job job = make_job(&p, item)
    return job.shared + threads * job.private


def wgrad(geometry, x, dy, dw, scratch, int threads, /):
    """Write the gradient of weight to dw."""
    call(
        (geometry, x, dy), (dw, scratch), threads, weight_gradient[float],
        weight_gradient[double],
    )
