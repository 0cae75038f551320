# How conv_winograd.pyx divides its work: boxes of tiles, panels of outputs, blocks of channels.
#
# What      A task is a box of tiles and a block of panels, which share the matrices v of
#           the box. Larger boxes repeat the weights less often, smaller ones stay in L2
#           and keep all threads busy: `split` takes what `time_of` finds fastest.
# Layout    A thread's scratch: v, sums, patch, lines, outputs, lists, and, where weights are
#           transformed in each task, those of one panel and one block of channels.
#           The number of threads decides about tasks, never about the order of a sum:
#           blocks of channels depend on their number alone.
# Source    as winograd.pxd; Gelashvili, Shavit and Zlateski, L3 Fusion, arXiv:1912.02165,
#           for boxes of tiles that stay in the cache.

from convcore.kernels.geometry cimport Conv, Window, forward_window, gradient_window
from convcore.kernels.patch cimport bytes_of_lists
from convcore.kernels.rounds cimport ROUND_MACS, aligned, ceil_div, odd_lines
from convcore.kernels.transpose cimport MOST_LANES
from convcore.kernels.vector cimport (
    MR, MR_HALF, MR_QUARTER, NR_BYTES, NV, VEC_BYTES,
)
from convcore.kernels.winograd_tiles cimport Tiles, cut_boxes, tiles_of

cdef enum:
    MOST_ROUNDS = 8           # a task may be as long, times ROUND_MACS: some 25 ms
    PRIVATE_BYTES = 7340032   # of a thread's scratch, at most
    CACHE_BYTES = 4194304     # of transformed weights: more are made where they are used
    PACK = 16                 # channels whose weights are transformed at a time
    MOST_CHANNELS = 512       # of a block: 1024 on 14x14 maps 439 GFLOP/s, 344 in one block

cdef struct Job:
    Conv p
    bint gradient
    Window w
    Tiles t
    Py_ssize_t taps
    Py_ssize_t panels, panel_block, panel_tasks    # of m: in a group, in a task
    bint fresh                                     # weights are transformed panel by panel
    Py_ssize_t together, held                      # panels: multiplied at a time, with sums
    Py_ssize_t channels                            # of a block
    Py_ssize_t row, matrix                         # scalars: of v, see winograd_tiles.pxd
    Py_ssize_t panel, sums                         # of the sums: a panel, all of a point
    Py_ssize_t point                               # of the weights of one point
    Py_ssize_t patch, lines, outputs, lists        # of a thread's buffers
    Py_ssize_t tasks, macs                         # macs of one task
    Py_ssize_t packed, shared, private             # scalars of scratch


cdef inline void lay_out(Job* job, Py_ssize_t item) noexcept nogil:
    """Say how large everything is, for boxes of so many tiles and tasks of so many panels."""
    cdef Py_ssize_t lanes = NR_BYTES // item, most = job.t.most
    cdef Py_ssize_t rows = (job.t.count_y - 1) * job.t.out_y + job.t.points_y
    cdef Py_ssize_t pitch = (job.t.count_x - 1) * job.t.out_x + job.t.points_x
    job.row = odd_lines(job.channels)
    job.matrix = odd_lines(most * job.row)
    job.panel = (most + MR) * lanes
    job.together = 1 if job.fresh else job.panel_block
    job.held = job.panel_block if job.channels < job.w.c else job.together
    job.sums = odd_lines(job.held * job.panel)
    job.patch = aligned(job.t.phases * rows * pitch * (lanes // NV))
    job.lines = aligned(job.t.points_y * pitch * (lanes // NV))
    job.outputs = aligned(
        (most // job.t.count_images * job.t.out_y * job.t.out_x + MOST_LANES) * lanes
    )
    job.lists = aligned(
        max(
            (most + MR + job.channels) * sizeof(Py_ssize_t),
            bytes_of_lists(&job.w, job.t.phases * rows * pitch),
        ) // item + 1
    )
    job.private = (
        job.t.points * (job.matrix + job.sums + (job.point if job.fresh else 0))
        + job.patch + job.lines + job.outputs + job.lists
    )


cdef inline Py_ssize_t rows_that_cost(Py_ssize_t rows) noexcept nogil:
    """Count rows of the register tile by its time: small ones wait for their loads."""
    cdef Py_ssize_t rest = rows % MR
    rows -= rest
    if rest > MR_HALF:
        return rows + MR
    if rest > MR_QUARTER:
        return rows + MR_HALF + MR_HALF // 8
    return rows + MR_QUARTER + MR_QUARTER // 2 if rest else rows


cdef inline double time_of(const Job* job, Py_ssize_t item, int threads) noexcept nogil:
    """Estimate the cycles of all tasks: products, their weights, transforms, caches.

    The numbers are from 64 to 512 channels on one core with AVX-512, 2026-11.
    """
    cdef double lanes = VEC_BYTES // item, tiles = rows_that_cost(job.t.most)
    cdef double columns = job.panel_block * NV
    cdef double far = 3 if job.fresh else 0.5  # cycles for a vector of weights
    cdef double work = job.t.points * (
        job.w.c * columns * (tiles / 2 + far) + 5 * tiles * (job.w.c / lanes + columns)
    )
    work *= 1 + 0.04 * job.private * item / 1e6
    return work * ceil_div(job.tasks, threads)


cdef inline void split(Job* job, Py_ssize_t item, int threads) noexcept nogil:
    """Choose tiles of a box and panels of a task, by the estimated time."""
    cdef Py_ssize_t wanted = 1, tasks
    cdef Py_ssize_t macs = job.t.points * job.w.c * (NR_BYTES // item), round = ROUND_MACS
    cdef double best = -1, now
    cdef bint fits
    cdef Job other = job[0]
    for tasks in range(1, job.panels + 1):
        if tasks > 2 * threads and best >= 0:
            break
        other.panel_block = ceil_div(job.panels, tasks)
        other.panel_tasks = ceil_div(job.panels, other.panel_block)
        wanted = 1
        while wanted <= 32 * MR:
            cut_boxes(&other.t, wanted)
            lay_out(&other, item)
            other.tasks = job.p.g * other.t.boxes * other.panel_tasks
            other.macs = macs * other.t.most * other.panel_block
            now = time_of(&other, item, threads)
            fits = other.private * item <= PRIVATE_BYTES and other.macs <= MOST_ROUNDS * round
            if fits and (best < 0 or now < best):
                best = now
                job[0] = other
            elif best < 0 and wanted == 1:
                job[0] = other
            wanted = max(wanted + 1, wanted * 5 // 4)


cdef inline Job make_job(
    const Conv* p, Py_ssize_t size, bint gradient, Py_ssize_t item, int threads
) noexcept nogil:
    """Split the work into boxes of tiles and blocks of panels."""
    cdef Job job
    cdef Py_ssize_t lanes = NR_BYTES // item, blocks
    job.p = p[0]
    job.gradient = gradient
    job.w = gradient_window(p, 0) if gradient else forward_window(p)
    job.t = tiles_of(&job.w, size)
    job.taps = p.kernel[1] * p.kernel[2]
    job.panels = ceil_div(job.w.m, lanes)
    job.point = odd_lines(job.panels * job.w.c * lanes)
    job.packed = p.g * job.t.points * job.point
    job.fresh = job.packed * item > CACHE_BYTES
    blocks = ceil_div(job.w.c, MOST_CHANNELS)
    job.channels = min(ceil_div(ceil_div(job.w.c, blocks), PACK) * PACK, job.w.c)
    if job.fresh:
        job.point = odd_lines(job.channels * lanes)
        job.packed = 0
    split(&job, item, threads)
    job.shared = (
        aligned(p.g * job.panels * lanes) + aligned(job.tasks * job.t.count_images)
        + aligned(lanes)
    )
    return job
