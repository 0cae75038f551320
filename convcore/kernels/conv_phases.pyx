# The gradient of x of a strided convolution with few channels, all phases at once.
#
# What      dx[m, f + s*t] = bias[m] + sum over k of weight[m, k] * patch[k, t]
#           for every phase f of the stride: the sums of conv_gemm.pyx in another order of
#           work. The phases look at the same places of dy, so each row of patches is found
#           once and serves them all; a phase takes the rows of its own taps.
# Layout    taps of one axis, stride 2, kernel 5, padding 2: dy[t + 1 - u], u the row
#
#                       u = 0  1  2
#             phase 0   [   x  x  x  ]   taps 0 2 4
#             phase 1   [   x  x     ]   taps 1 3
#
# Assumes   strides that the dilations divide: then the taps of a phase are neighbours.
# Parallel  over tasks = (group, block of t, tile of m): each writes outputs that no other
#           task writes. A sum runs through blocks of CHANNELS channels, in a block in the
#           order of k, in chains; that does not depend on threads or the batch.
# Scratch   all weights packed once; per thread the rows of CHANNELS channels for `panels`
#           panels with their addresses, and one tile for each (phase, panel).
# Cost      as conv_gemm.pyx, with patches found once instead of once a phase.
# Why not   One product with m * phases outputs and zeros for missing taps: 0 * inf would
#           reach outputs that no window connects.
# Source    Shi et al., Real-Time Single Image and Video Super-Resolution, CVPR 2016,
#           section 2, for a strided transposed convolution as phases of a dense one.

from cython.parallel cimport prange, threadid
from libc.string cimport memcpy

from convcore.kernels.buffers cimport (
    Buffers, call, geometry_of, reals, reals_or_nothing, room,
)
from convcore.kernels.geometry cimport (
    CONV_FIELDS, Axis, Conv, Window, conv_of, finished, gradient_axis, gradient_window, phases,
)
from convcore.kernels.pack cimport CHANNELS, Run, list_runs, pack_tiles, rows_of_panel
from convcore.kernels.rounds cimport ALIGNED, TASKS_PER_THREAD, aligned, round_of
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport partial_chain, put_rows
from convcore.kernels.vector cimport MR, NR_BYTES, nr, real

cdef enum:
    PANELS = 4  # most panels of a task
    NR_LIMIT = 32  # most scalars of one row of the tile
    ADDRESS = 8  # bytes of an address, at most

cdef struct Job:
    Conv p
    Window all                              # what all phases look at
    Py_ssize_t phase_count, tiles           # tiles of m in a group
    Py_ssize_t taps, terms                  # of the kernel; taps * channels
    Py_ssize_t rows                         # of a block of channels, in `all`
    Py_ssize_t panels, pixel_tasks, tasks, macs
    Py_ssize_t shared, private              # scratch in scalars: of all, of each thread


cdef inline Axis common_axis(const Conv* p, int axis) noexcept nogil:
    """Give the windows that hold those of every phase along an axis."""
    cdef Axis a = gradient_axis(p, axis, 0), b
    cdef Py_ssize_t phase, low = 0, high = -1
    for phase in range(phases(p, axis)):
        b = gradient_axis(p, axis, phase)
        if b.taps:
            if high < low:
                low, high = b.off0 - b.taps + 1, b.off0
            low = min(low, b.off0 - b.taps + 1)
            high = max(high, b.off0)
    a.taps = high - low + 1
    a.tap_total = a.taps
    a.off0 = high
    a.off_step = -1
    return a


cdef Job make_job(const Conv* p, Py_ssize_t item, int threads) noexcept nogil:
    """Split the work into enough tasks for `threads`."""
    cdef Job job
    cdef Py_ssize_t lanes = NR_BYTES // item, panel_count
    job.p = p[0]
    job.phase_count = phases(p, 0) * phases(p, 1) * phases(p, 2)
    job.all = gradient_window(p, 0)
    job.all.z = common_axis(p, 0)
    job.all.y = common_axis(p, 1)
    job.all.x = common_axis(p, 2)
    job.all = finished(job.all)
    job.tiles = (p.icg - 1) // MR + 1
    job.taps = p.kernel[0] * p.kernel[1] * p.kernel[2]
    job.terms = p.ocg * job.taps
    job.rows = min(p.ocg, CHANNELS) * job.all.taps
    panel_count = (job.all.columns - 1) // lanes + 1 if job.all.columns else 0
    job.panels = 2 * PANELS
    while True:
        job.panels = job.panels // 2
        job.pixel_tasks = (panel_count - 1) // job.panels + 1 if panel_count else 0
        job.tasks = p.g * job.pixel_tasks * job.tiles
        if job.panels == 1 or job.tasks >= TASKS_PER_THREAD * threads:
            break
    job.macs = job.panels * lanes * MR * job.terms
    job.shared = p.g * job.tiles * MR * (job.terms + 1)
    job.shared = aligned(job.shared)
    job.private = job.panels * (
        job.rows * (lanes + 2 * ADDRESS // item) + job.phase_count * MR * lanes
    ) + ALIGNED
    job.private = aligned(job.private)
    return job


cdef inline void rows_of_phase(
    const Window* common, const Window* w, Py_ssize_t channels, const real* const* rows,
    const real** to,
) noexcept nogil:
    """Choose the rows of one phase, in the order of its packed weights."""
    cdef Py_ssize_t z, y, place, run = w.x.taps * channels
    for z in range(w.z.taps):
        for y in range(w.y.taps):
            place = (common.z.off0 - w.z.off0 + z) * common.y.taps
            place = (place + common.y.off0 - w.y.off0 + y) * common.x.taps
            place = (place + common.x.off0 - w.x.off0) * channels
            memcpy(to, rows + place, run * sizeof(to[0]))
            to += run


cdef void write_phase(
    const Window* common, const Window* w, const real* tile, Py_ssize_t m,
    Py_ssize_t first, Py_ssize_t count, Py_ssize_t channel, real* out,
) noexcept nogil:
    """Put `m` channels of one phase into dx; a phase may lack the last row or column."""
    cdef Run runs[NR_LIMIT]
    cdef Py_ssize_t number = list_runs(common, first, count, runs), r, i, j
    cdef real* to
    for r in range(number):
        if runs[r].z >= w.z.extent or runs[r].y >= w.y.extent:
            continue
        to = out + (runs[r].sample * w.groups * w.m + channel) * w.plane + (
            (w.z.start + w.z.step * runs[r].z) * w.height
            + w.y.start + w.y.step * runs[r].y
        ) * w.width + w.x.start + w.x.step * runs[r].x
        for i in range(m):
            for j in range(min(runs[r].count, w.x.extent - runs[r].x)):
                to[i * w.plane + j * w.x.step] = tile[i * nr(tile) + runs[r].column + j]


cdef inline void put_chains(
    const real* a, const real* const* b, Py_ssize_t depth, Py_ssize_t most, real* to,
    Py_ssize_t lanes, Py_ssize_t m,
) noexcept nogil:
    """Add a tile's sums of at most so many terms to it, one after the other."""
    cdef Py_ssize_t begin = 0
    while begin < depth:
        put_rows(
            a + begin * MR, 1, MR, b + begin, min(most, depth - begin), <const real*>NULL, to,
            lanes, m,
        )
        begin += most


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* source, const real* shared,
    real* private, real* out,
) noexcept nogil:
    """Compute all phases of one task."""
    cdef Py_ssize_t tile = task % job.tiles, rest = task // job.tiles
    cdef Py_ssize_t group = rest // job.pixel_tasks, index = group * job.tiles + tile
    cdef Py_ssize_t lanes = nr(source), m = min(MR, job.p.icg - tile * MR)
    cdef Py_ssize_t first = rest % job.pixel_tasks * job.panels * lanes
    cdef Py_ssize_t count = min(job.panels * lanes, job.all.columns - first)
    cdef Py_ssize_t panels = (count - 1) // lanes + 1, begin = 0, channels
    cdef Py_ssize_t phase, number, here, j, i
    cdef const real** rows = <const real**>private
    cdef const real** chosen = rows + job.panels * job.rows
    cdef real* patches = private + 2 * job.panels * job.rows * ADDRESS // sizeof(real)
    cdef real* sums = patches + job.panels * job.rows * lanes
    cdef const real* weights = shared + index * MR * job.terms
    cdef const real* bias = shared + (job.p.g * job.tiles * job.terms + index) * MR
    cdef Run runs[NR_LIMIT]
    cdef Window w
    source += group * job.all.c * job.all.source_plane
    for i in range(job.phase_count * job.panels * MR):
        for j in range(lanes):
            sums[i * lanes + j] = bias[i % MR]
    while begin < job.all.c and job.all.taps:  # no taps: a stride beyond x
        channels = min(CHANNELS, job.all.c - begin)
        for j in range(panels):
            here = min(lanes, count - j * lanes)
            number = list_runs(&job.all, first + j * lanes, here, runs)
            rows_of_panel(
                &job.all, source, runs, number, begin * job.all.taps,
                (begin + channels) * job.all.taps, patches + j * job.rows * lanes,
                rows + j * job.rows,
            )
        for phase in range(job.phase_count):
            w = gradient_window(&job.p, phase)
            for j in range(panels):
                rows_of_phase(
                    &job.all, &w, channels, <const real* const*>rows + j * job.rows, chosen
                )
                put_chains(
                    weights + (w.tap_first * w.c + begin * w.taps) * MR,
                    <const real* const*>chosen, w.taps * channels,
                    partial_chain(w.taps * w.c),
                    sums + (phase * job.panels + j) * MR * lanes, lanes, m,
                )
        begin += channels
    for phase in range(job.phase_count):
        w = gradient_window(&job.p, phase)
        for j in range(panels):
            write_phase(
                &job.all, &w, <const real*>sums + (phase * job.panels + j) * MR * lanes, m,
                first + j * lanes, min(lanes, count - j * lanes), group * w.m + tile * MR,
                out,
            )


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* source, real* scratch,
    real* out, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    cdef real* private = scratch + job.shared
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, source, <const real*>scratch, private, out)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, source, <const real*>scratch, private + threadid() * job.private, out
        )


cdef int run(
    const Job* job, const real* source, const real* weight, const real* bias, real* out,
    real* scratch, int threads,
) except -1:
    """Pack the weights, then do the tasks round by round."""
    cdef Py_ssize_t begin = 0, end
    cdef Py_ssize_t each = round_of(job.macs, TASKS_PER_THREAD, threads)
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            if begin == 0:
                pack_tiles(&job.p, True, job.tiles, weight, bias, scratch, threads)
            run_tasks(job, begin, end, source, scratch, out, threads)
        look()
        begin = end
    return 0


cdef int backward(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, weight, bias, dx and scratch, and compute dx."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, sizeof(real), threads)
    cdef const real* dy = reals(held, 1, p.n * p.g * p.ocg * job.all.source_plane, like)
    cdef const real* weight = reals(held, 2, p.g * p.icg * job.terms, like)
    cdef const real* bias = reals_or_nothing(held, 3, p.g * p.icg, like)
    cdef real* dx = reals(held, 4, p.n * p.g * p.icg * job.all.plane, like)
    cdef real* scratch = room(held, 5, job.shared + threads * job.private, like)
    return run(&job, dy, weight, bias, dx, scratch, threads) if job.tasks else 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that dgrad needs."""
    cdef Conv p = conv_of(geometry, threads)
    cdef Job job = make_job(&p, item, threads)
    return job.shared + threads * job.private


def dgrad(geometry, dy, weight, bias, dx, scratch, int threads, /):
    """Write the gradient of x, plus a bias (of a transposed convolution), to dx."""
    call(
        (geometry, dy, weight, bias), (dx, scratch), threads, backward[float], backward[double]
    )
