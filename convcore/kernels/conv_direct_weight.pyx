# The gradient of weight with the channels of the output in the lanes.
#
# What      dw[o, k] = sum over q of dy[o, q] * x[place[q] + distance[k]]
#           with the bands of band.pxd: k a (channel, tap), q an output in any sample.
# Layout    The same register tile as in conv_direct.pyx, terms and outputs exchanged:
#
#                  place q ->                   o -> NR
#         distance [ x          ]         q  [ dy turned ]       added to sums [k, o],
#             k    [ MR terms   ]    x    |  [           ]       at last transposed into dw
#             v    [ a scalar q ]         v  [           ]
#
#           dy is turned around a box at a time: one transposition for all the terms. In
#           a pointwise problem x may be turned as well, if it has fewer channels.
# Assumes   flat native buffers of the sizes that the geometry tells; extents >= 1.
# Parallel  over tasks = (group, block of channels, block of o, chunk of boxes). A task owns
#           its sums. Boxes and chunks depend on the problem alone; the sums of chunks are
#           added in a fixed tree. So the bits are the same for any thread count.
# Scratch   per thread a band, the turned dy of a box and the sums of one task; with
#           several chunks the sums of all tasks instead, of which there are < 2 * TASKS.
# Cost      2 * oc * icg * taps * pixels FLOPs. Each scalar of x is copied once for a block
#           of o, if there is padding, each of dy turned once for a block of channels.
# Why not   One private dw for each thread, added at the end: bits that depend on the
#           thread count. Packed patches (conv_gemm_weight.pyx): taps copies of x.
# Source    as conv_direct.pyx; Higham, Accuracy and Stability of Numerical Algorithms
#           (2002), section 4.2, for sums in blocks.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.band cimport (
    BAND_BYTES, Band, Box, Boxes, band_of, box_at, choose_boxes, fill, list_outputs,
    list_terms, outputs_of, plane_size,
)
from convcore.kernels.buffers cimport Buffers, call, geometry_of, reals, room
from convcore.kernels.geometry cimport (
    CONV_FIELDS, Conv, Window, conv_of, forward_window, volume,
)
from convcore.kernels.rounds cimport (
    TASKS_PER_THREAD, add_tree, aligned, ceil_div, round_of, slot_of, units_of,
)
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport chain, sum_scattered
from convcore.kernels.transpose cimport MOST_LANES, collect, spread
from convcore.kernels.vector cimport MR, NR_BYTES, copy, nr, real

cdef enum:
    OUTPUTS = 64  # most tiles of outputs in a box
    RUN = 448  # most outputs that are summed at a time: their turned dy fits into L2
    TERMS = 128  # of the channels of a band, or more: whole tiles
    SUM_BYTES = 8388608  # of the sums of all chunks
    TASK_BYTES = 4194304  # of the sums of one task
    PANELS = 8  # most panels of o in a task
    TASKS = 16  # tasks that a large problem is split into at least
    FEW = 128  # channels of x that are turned rather than more of dy

cdef struct Job:
    Conv p
    bint swapped                                     # x with dy, ic with oc
    Window w
    Boxes boxes
    Py_ssize_t taps, terms                           # of a kernel, of a group
    Py_ssize_t channels, channel_tasks               # of a task; tasks along c
    Py_ssize_t block                                 # channels of a band
    Py_ssize_t panels, panel_block, panel_tasks      # panels of NR channels o
    Py_ssize_t chunk, chunks                         # boxes of a chunk
    Py_ssize_t tasks, sums                           # scalars of one task's sums
    Py_ssize_t shared, private                       # scratch in scalars


cdef inline bint pointwise(const Conv* p, const Window* w) noexcept nogil:
    """Tell whether output q sees pixel q alone."""
    cdef int i
    for i in range(3):
        if p.pad[i] or p.stride[i] > 1 or p.in_extent[i] != p.out_extent[i]:
            return False
    return w.taps == 1


cdef Job make_job(const Conv* p, Py_ssize_t item) noexcept nogil:
    """Split the work: by the problem alone, never by the number of threads."""
    cdef Job job
    cdef Py_ssize_t lanes = NR_BYTES // item, parts, size, most
    cdef bint fits
    cdef Band b
    cdef Box one
    cdef int i
    job.p = p[0]
    job.w = forward_window(p)
    job.swapped = pointwise(p, &job.w) and p.icg < p.ocg and p.icg <= FEW
    if job.swapped:
        job.p.icg, job.p.ocg = p.ocg, p.icg
        job.w = forward_window(&job.p)
    job.taps = p.kernel[0] * p.kernel[1] * p.kernel[2]
    job.terms = job.p.icg * job.taps
    job.channels = min(job.p.icg, max(1, TASK_BYTES // (job.taps * NR_BYTES)))
    job.channel_tasks = ceil_div(job.p.icg, job.channels)
    job.channels = ceil_div(job.p.icg, job.channel_tasks)
    job.block = min(job.channels, max(1, TERMS // job.taps // MR) * MR)
    for i in range(3):
        one.first[i], one.count[i] = 0, 1
    one.sample, one.samples = 0, 1
    b = band_of(&job.w, &one, 1)  # of a single output
    job.block = max(1, min(job.block, BAND_BYTES // item // plane_size(&b)))
    job.boxes = choose_boxes(&job.w, job.block, OUTPUTS * MR, item)
    job.panels = ceil_div(job.p.ocg, lanes)
    job.panel_block = min(job.panels, PANELS)
    while True:
        size = lanes * (job.channels * job.taps + MOST_LANES)
        job.panel_tasks = ceil_div(job.panels, job.panel_block)
        job.panel_block = ceil_div(job.panels, job.panel_tasks)
        parts = p.g * job.channel_tasks * job.panel_tasks
        # Chunks first, they repeat no work; but their sums have to fit into caches.
        most = min(job.boxes.boxes, SUM_BYTES // item // (parts * job.panel_block * size))
        job.chunks = max(1, min(ceil_div(TASKS, parts), most))
        fits = job.panel_block * size * item <= TASK_BYTES
        if fits and parts * job.chunks >= TASKS:
            break
        if job.panel_block > 1:
            job.panel_block = job.panel_block // 2
        elif job.channels > job.block:
            job.channel_tasks = min(2 * job.channel_tasks, ceil_div(job.p.icg, job.block))
            job.channels = ceil_div(job.p.icg, job.channel_tasks)
        else:
            break
    job.chunk = max(1, ceil_div(job.boxes.boxes, job.chunks))
    job.chunks = max(1, ceil_div(job.boxes.boxes, job.chunk))
    job.tasks = parts * job.chunks
    job.sums = job.panel_block * size
    job.shared = job.tasks * job.sums if job.chunks > 1 else 0
    job.private = (
        aligned(job.boxes.scalars)
        + (job.boxes.outputs + MOST_LANES) * job.panel_block * lanes
        + aligned(
            (job.boxes.outputs + job.block * job.taps + MR) * sizeof(Py_ssize_t) // item
        )
    )
    if job.chunks == 1:
        job.private += job.sums
    job.private += lanes
    return job


cdef void turn_panel(
    const Job* job, const Box* box, const real* dy, Py_ssize_t group, Py_ssize_t panel,
    real* to,
) noexcept nogil:
    """Write the outputs of a box as rows of NR channels."""
    cdef const Window* w = &job.w
    cdef Py_ssize_t lanes = nr(dy), channels = min(lanes, job.p.ocg - panel * lanes)
    cdef Py_ssize_t run = box.count[2], lines = box.count[1], sheets = box.count[0], n, z, y
    cdef const real* source
    if run == w.x.extent:
        run, lines = run * lines, 1
        if box.count[1] == w.y.extent:
            run, sheets = run * sheets, 1
    for n in range(box.samples):
        for z in range(sheets):
            for y in range(lines):
                source = dy + (
                    ((box.sample + n) * job.p.g + group) * job.p.ocg + panel * lanes
                ) * w.plane + (
                    (box.first[0] + z) * w.y.extent + box.first[1] + y
                ) * w.x.extent + box.first[2]
                collect(source, w.plane, channels, run, to, lanes)
                to += run * lanes


cdef inline void place(
    const Job* job, Py_ssize_t part, Py_ssize_t* group, Py_ssize_t* channel, Py_ssize_t* panel
) noexcept nogil:
    """Find the part of dw that a task sums."""
    panel[0] = part % job.panel_tasks * job.panel_block
    channel[0] = part // job.panel_tasks % job.channel_tasks * job.channels
    group[0] = part // (job.panel_tasks * job.channel_tasks)


cdef void write_rows(
    const Job* job, Py_ssize_t group, Py_ssize_t first, Py_ssize_t terms, Py_ssize_t panel,
    const real* sums, real* dw,
) noexcept nogil:
    """Do `write_sums` where the lanes are those of dw."""
    cdef Py_ssize_t lanes = nr(sums), j, k
    dw += (group * job.p.icg + first) * job.p.ocg
    for j in range(panel, min(panel + job.panel_block, job.panels)):
        for k in range(terms):
            copy(
                dw + k * job.p.ocg + j * lanes, sums + k * lanes,
                min(lanes, job.p.ocg - j * lanes),
            )
        sums += (job.channels + MOST_LANES) * lanes


cdef void write_sums(
    const Job* job, Py_ssize_t part, const real* sums, real* dw
) noexcept nogil:
    """Put the sums of one part, [panel][term][lane], where dw has them."""
    cdef Py_ssize_t group, channel, panel, lanes = nr(sums), j, terms
    place(job, part, &group, &channel, &panel)
    terms = min(job.channels, job.p.icg - channel) * job.taps
    if job.swapped:
        write_rows(job, group, channel, terms, panel, sums, dw)
        return
    for j in range(panel, min(panel + job.panel_block, job.panels)):
        spread(
            sums, lanes, terms, min(lanes, job.p.ocg - j * lanes),
            dw + (group * job.p.ocg + j * lanes) * job.terms + channel * job.taps,
            job.terms, 1,
        )
        sums += (job.channels * job.taps + MOST_LANES) * lanes


cdef inline void multiply_panel(
    const real* band, const Py_ssize_t* places, Py_ssize_t outputs,
    const Py_ssize_t* distances, Py_ssize_t terms, const real* turned, const real* start,
    Py_ssize_t most, bint narrow, real* sums,
) noexcept nogil:
    """Add the outputs of one box to the sums of one panel, `most` at a time.

    With a start, a row of NR scalars, the sums begin with it.
    """
    cdef Py_ssize_t q = 0, here
    while q < outputs:
        here = min(most, outputs - q)
        sum_scattered(
            band, distances, places + q, turned + q * nr(band), here, start, sums, terms,
            narrow,
        )
        q += here
        start = NULL


cdef void run_task(
    const Job* job, Py_ssize_t task, Py_ssize_t done, Py_ssize_t until, const real* x,
    const real* dy, real* shared, real* private, real* dw,
) noexcept nogil:
    """Sum boxes done .. until of a chunk for one part of dw."""
    cdef const Window* w = &job.w
    cdef Py_ssize_t part = task // job.chunks, first = task % job.chunks * job.chunk
    cdef Py_ssize_t lanes = nr(x), group, channel, panel, panels, channels, terms, i, j, c
    cdef real* copied = private
    cdef real* turned = copied + aligned(job.boxes.scalars)
    cdef Py_ssize_t size = (job.boxes.outputs + MOST_LANES) * lanes
    cdef Py_ssize_t* places = <Py_ssize_t*>(turned + size * job.panel_block)
    cdef Py_ssize_t* distances = places + job.boxes.outputs
    cdef real* sums = shared + task * job.sums
    cdef real* zeros = private + job.private - lanes
    cdef Py_ssize_t most = min(RUN, chain(w.columns))
    cdef Box box
    cdef Band b
    cdef const real* band
    if job.chunks == 1:
        sums = zeros - job.sums
    place(job, part, &group, &channel, &panel)
    panels = min(job.panel_block, job.panels - panel)
    memset(zeros, 0, NR_BYTES)
    x += group * w.c * w.source_plane
    for i in range(first + done, min(first + until, job.boxes.boxes)):
        box = box_at(&job.boxes, w, i)
        b = band_of(w, &box, job.block)
        list_outputs(w, &b, &box, places)
        list_terms(w, &b, job.block, distances)
        for j in range(panels):
            turn_panel(
                job, &box, dy, group, panel + j, turned + j * size
            )
        c = 0
        while c < job.channels and channel + c < job.p.icg:
            channels = min(min(job.block, job.channels - c), job.p.icg - channel - c)
            terms = channels * job.taps
            for j in range(MR):
                distances[terms + j] = distances[terms - 1]
            band = fill(w, &b, &box, x, channel + c, channels, copied)
            for j in range(panels):
                multiply_panel(
                    band, <const Py_ssize_t*>places, outputs_of(&box),
                    <const Py_ssize_t*>distances, terms,
                    <const real*>turned + j * size,
                    <const real*>zeros if i == first else <const real*>NULL, most,
                    job.p.ocg - (panel + j) * lanes <= lanes // 2,
                    sums + (j * (job.channels * job.taps + MOST_LANES) + c * job.taps) * lanes,
                )
            c += channels
    if job.chunks == 1 and until == job.chunk:
        write_sums(job, part, <const real*>sums, dw)


cdef void add_chunks(
    const Job* job, Py_ssize_t part, real* shared, real* dw
) noexcept nogil:
    """Add the chunks of one part of dw in a tree."""
    cdef real* sums = shared + part * job.chunks * job.sums
    add_tree(sums, job.chunks, job.sums)
    write_sums(job, part, <const real*>sums, dw)


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t done, Py_ssize_t until,
    const real* x, const real* dy, real* dw, real* scratch, int threads,
) noexcept nogil:
    """Do one round of tasks, or a step of them."""
    cdef Py_ssize_t i
    cdef real* private = scratch + job.shared
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, done, until, x, dy, scratch, private, dw)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, done, until, x, dy, scratch,
            private + slot_of(i, begin, end, threads, threadid()) * job.private, dw,
        )


cdef void add_parts(const Job* job, real* scratch, real* dw, int threads) noexcept nogil:
    """Add the chunks of every part of dw."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(job.tasks // job.chunks):
            add_chunks(job, i, scratch, dw)
        return
    for i in prange(job.tasks // job.chunks, num_threads=threads, schedule="static"):
        add_chunks(job, i, scratch, dw)


cdef int run(
    const Job* job, const real* x, const real* dy, real* dw, real* scratch, int threads
) except -1:
    """Do the tasks round by round, then add their chunks."""
    cdef Py_ssize_t begin = 0, end, done, until, macs = job.sums * job.boxes.outputs
    cdef Py_ssize_t each = round_of(macs * job.chunk, TASKS_PER_THREAD, threads)
    cdef Py_ssize_t step = units_of(macs, job.chunk)
    if step < job.chunk:
        each = threads
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        done = 0
        while done < job.chunk:
            until = min(done + step, job.chunk)
            with nogil:
                run_tasks(job, begin, end, done, until, x, dy, dw, scratch, threads)
                if until == job.chunk and end == job.tasks and job.chunks > 1:
                    add_parts(job, scratch, dw, threads)
            look()
            done = until
        begin = end
    return 0


cdef int weight_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x, dy, dw and scratch, and sum the gradient of weight."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, sizeof(real))
    cdef const real* x = reals(held, 1, p.n * p.g * p.icg * volume(p.in_extent), like)
    cdef const real* dy = reals(held, 2, p.n * p.g * p.ocg * volume(p.out_extent), like)
    cdef real* dw = reals(held, 3, p.g * p.ocg * p.icg * job.taps, like)
    cdef real* scratch = room(held, 4, job.shared + threads * job.private, like)
    if p.n and job.swapped:
        return run(&job, dy, x, dw, scratch, threads)
    if p.n:
        return run(&job, x, dy, dw, scratch, threads)
    memset(dw, 0, p.g * p.ocg * p.icg * job.taps * sizeof(real))
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
