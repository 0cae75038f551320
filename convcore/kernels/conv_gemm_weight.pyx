# The gradients of weight and bias as blocked sums over pixels.
#
# What      dw[o, k] = sum over q of dy[o, q] * patch[k, q]      k = (tap, channel)
#           db[o]    = sum over q of dy[o, q]
#           with the patches of the forward pass; q counts outputs through all samples.
# Layout    The lanes are channels o: dy is turned around, a few hundred pixels at a time,
#           which costs one move for each of its elements; the patches, taps times more,
#           are read as the forward pass packs them, a scalar at a time.
#
#                     q ->                          o ->  NR
#             k  [ patch, RUNS pixels ]   x    q  [ dy transposed ]   added to
#             |  [ MR rows            ]        |  [               ]   sums [k, o]
#
# Assumes   buffers of the sizes that the geometry tells; extents >= 1.
# Parallel  over tasks = (group, block of k, block of o, chunk of q). A task owns its sums.
#           How many chunks there are depends on the problem alone; their sums are added
#           in a fixed tree. So the bits are the same for any thread count.
# Scratch   per thread the patches and dy of RUNS pixels and the sums of one task; with
#           several chunks the sums of all tasks instead, of which there are < 2 * TASKS.
# Cost      2 * oc * icg * taps * pixels FLOPs; RB rows share each turned dy, all lanes
#           of a task each patch.
# Why not   One private dw for each thread, added at the end: bits that depend on the
#           thread count, and dw times threads of memory.
# Source    as conv_gemm.pyx; Higham, Accuracy and Stability of Numerical Algorithms (2002),
#           section 4.2, for sums in blocks.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.buffers cimport Buffers, call, geometry_of, reals, room
from convcore.kernels.geometry cimport (
    CONV_FIELDS, Conv, Window, conv_of, forward_window, volume,
)
from convcore.kernels.pack cimport RUNS, Run, Term, columns, list_runs, term_at
from convcore.kernels.rounds cimport add_tree, round_of
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport chain, put_rows
from convcore.kernels.vector cimport (
    MR, NR_BYTES, NV, f32v, f64v, nr, real, vec,
)

cdef enum:
    RB = 512  # most rows k of one task
    SUM_BYTES = 393216  # of the sums of one task: with its patches they stay in L2
    ALL_BYTES = 6291456  # of the sums of all chunks
    FEWEST = 4  # panels of a task: fewer would pack the same patches too often
    TASKS = 16  # tasks that a large problem is split into at least
    CHUNK = 2048  # fewest pixels of a chunk
    TURN = 16  # pixels that are turned around together
    ADDRESS = 8  # bytes of an address, at most

cdef struct Job:
    Conv p
    Window w
    Py_ssize_t taps, rows, row_block, row_tasks     # rows k of a group, of a task
    Py_ssize_t panels, panel_block, panel_tasks     # panels of NR channels o
    Py_ssize_t chunk, chunks                        # pixels of a chunk
    Py_ssize_t tasks, sums                          # scalars of one task's sums
    Py_ssize_t shared, private                      # scratch in scalars


cdef Job make_job(const Conv* p, Py_ssize_t item) noexcept nogil:
    """Split the work: by the problem alone, never by the number of threads."""
    cdef Job job
    cdef Py_ssize_t lanes = NR_BYTES // item, places, possible, row_blocks, most
    job.p = p[0]
    job.w = forward_window(p)
    job.taps = p.kernel[0] * p.kernel[1] * p.kernel[2]
    job.rows = p.icg * job.taps
    row_blocks = (job.rows - 1) // RB + 1
    job.row_block = ((job.rows - 1) // row_blocks // MR + 1) * MR
    job.row_tasks = (job.rows - 1) // job.row_block + 1
    job.panels = (p.ocg - 1) // lanes + 1
    possible = job.w.columns // CHUNK + 1
    job.panel_block = max(SUM_BYTES // (job.row_block * NR_BYTES), 1)
    while True:
        job.panel_tasks = (job.panels - 1) // job.panel_block + 1
        places = p.g * job.row_tasks * job.panel_tasks
        if places * possible >= TASKS or job.panel_block <= FEWEST:
            break
        job.panel_block = max(job.panel_block // 2, FEWEST)
    job.panel_block = (job.panels - 1) // job.panel_tasks + 1
    job.panel_tasks = (job.panels - 1) // job.panel_block + 1
    places = p.g * job.row_tasks * job.panel_tasks
    job.sums = job.panel_block * lanes * job.row_block
    most = max(ALL_BYTES // (places * job.sums * item), 1)
    job.chunks = min(min((TASKS - 1) // places + 1, possible), most)
    job.chunk = max((job.w.columns - 1) // job.chunks + 1, 1)
    job.chunks = max((job.w.columns - 1) // job.chunk + 1, 1)
    job.tasks = places * job.chunks
    job.shared = job.tasks * job.sums if job.chunks > 1 else 0
    job.private = RUNS * (job.row_block + job.panel_block * (lanes + ADDRESS // item))
    if job.chunks == 1:
        job.private += job.sums
    return job


cdef void turn(
    const Job* job, const real* dy, Py_ssize_t group, Py_ssize_t first, Py_ssize_t count,
    Py_ssize_t channel, Py_ssize_t channels, real* to,
) noexcept nogil:
    """Write pixels first .. first + count as rows of NR channels; missing ones are zero."""
    cdef Py_ssize_t lanes = nr(dy), plane = job.w.plane, column = 0
    cdef Py_ssize_t sample, pixel, length, i, j
    cdef const real* source
    if channels < lanes:
        memset(to, 0, count * lanes * sizeof(real))
    while column < count:
        sample = (first + column) // plane
        pixel = (first + column) % plane
        length = min(min(count - column, plane - pixel), TURN)
        source = dy + ((sample * job.p.g + group) * job.p.ocg + channel) * plane + pixel
        for j in range(channels):
            for i in range(length):
                to[(column + i) * lanes + j] = source[j * plane + i]
        column += length


cdef inline void place(
    const Job* job, Py_ssize_t index, Py_ssize_t* group, Py_ssize_t* row, Py_ssize_t* panel
) noexcept nogil:
    """Find the part of dw that a task sums."""
    panel[0] = index % job.panel_tasks * job.panel_block
    row[0] = index // job.panel_tasks % job.row_tasks * job.row_block
    group[0] = index // (job.panel_tasks * job.row_tasks)


cdef void write_sums(
    const Job* job, Py_ssize_t index, const real* sums, real* dw
) noexcept nogil:
    """Put the sums of one part, [panel][row][lane], where dw has them."""
    cdef Py_ssize_t group, row0, panel0, lanes = nr(sums), j, k, o, channels, rows
    cdef Py_ssize_t tap, place_in_dw
    cdef Term term
    cdef real* to
    place(job, index, &group, &row0, &panel0)
    rows = min(job.row_block, job.rows - row0)
    for j in range(min(job.panel_block, job.panels - panel0)):
        channels = min(lanes, job.p.ocg - (panel0 + j) * lanes)
        to = dw + (group * job.p.ocg + (panel0 + j) * lanes) * job.rows
        for k in range(row0, row0 + rows):
            term = term_at(&job.w, k)
            tap = (term.z * job.w.y.taps + term.y) * job.w.x.taps + term.x
            place_in_dw = term.c * job.taps + tap
            for o in range(channels):
                to[o * job.rows + place_in_dw] = sums[
                    (j * job.row_block + k - row0) * lanes + o
                ]


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* x, const real* dy, real* shared,
    real* private, real* dw,
) noexcept nogil:
    """Sum one chunk of pixels for one part of dw."""
    cdef Py_ssize_t index = task // job.chunks, chunk = task % job.chunks
    cdef Py_ssize_t lanes = nr(x), group, row0, panel0, rows, panels, count, number, i, j
    cdef Py_ssize_t pixel = chunk * job.chunk
    cdef Py_ssize_t last = min(pixel + job.chunk, job.w.columns)
    cdef const real** addresses = <const real**>private
    cdef real* patches = private + job.panel_block * RUNS * ADDRESS // sizeof(real)
    cdef real* turned = patches + RUNS * job.row_block
    cdef real* sums = turned + RUNS * job.panel_block * lanes
    cdef const real* source
    cdef Run runs[RUNS]
    place(job, index, &group, &row0, &panel0)
    rows = min(job.row_block, job.rows - row0)
    panels = min(job.panel_block, job.panels - panel0)
    source = x + group * job.p.icg * job.w.source_plane
    if job.chunks > 1:
        sums = shared + task * job.sums
    memset(sums, 0, job.sums * sizeof(real))
    for i in range(panels * RUNS):
        addresses[i] = turned + i * lanes
    while pixel < last:
        count = min(min(RUNS, chain(job.w.columns)), last - pixel)
        number = list_runs(&job.w, pixel, count, runs)
        columns(&job.w, source, runs, number, row0, row0 + rows, patches, RUNS)
        for j in range(panels):
            turn(
                job, dy, group, pixel, count, (panel0 + j) * lanes,
                min(lanes, job.p.ocg - (panel0 + j) * lanes), turned + j * RUNS * lanes,
            )
        for j in range(panels):
            put_rows(
                <const real*>patches, RUNS, 1, <const real* const*>addresses + j * RUNS,
                count, <const real*>NULL, sums + j * job.row_block * lanes, lanes, rows,
            )
        pixel += count
    if job.chunks == 1:
        write_sums(job, index, <const real*>sums, dw)


cdef void add_chunks(const Job* job, Py_ssize_t index, real* shared, real* dw) noexcept nogil:
    """Add the chunks of one part of dw in a tree."""
    cdef real* sums = shared + index * job.chunks * job.sums
    add_tree(sums, job.chunks, job.sums)
    write_sums(job, index, <const real*>sums, dw)


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* x, const real* dy,
    real* scratch, real* dw, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    cdef real* private = scratch + job.shared
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, x, dy, scratch, private, dw)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(job, i, x, dy, scratch, private + threadid() * job.private, dw)


cdef int run(
    const Job* job, const real* x, const real* dy, real* dw, real* scratch, int threads
) except -1:
    """Do the tasks round by round, then add their chunks."""
    cdef Py_ssize_t i, begin = 0, end, each
    each = round_of(job.sums * job.chunk, 1, threads)
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            run_tasks(job, begin, end, x, dy, scratch, dw, threads)
        look()
        begin = end
    if job.chunks > 1:
        with nogil:
            for i in prange(job.tasks // job.chunks, num_threads=threads, schedule="static"):
                add_chunks(job, i, scratch, dw)
    return 0


cdef inline void sum_vectors(const vec* source, Py_ssize_t steps, vec* sums) noexcept nogil:
    """Add `steps` rows of the tile to NV vectors."""
    cdef Py_ssize_t i
    for i in range(steps):
        sums[0] = sums[0] + source[NV * i]
        sums[1] = sums[1] + source[NV * i + 1]


cdef inline void sum_rows(const real* source, Py_ssize_t steps, real* sums) noexcept nogil:
    """Add `steps` rows of NR scalars."""
    if real is float:
        sum_vectors(<const f32v*>source, steps, <f32v*>sums)
    else:
        sum_vectors(<const f64v*>source, steps, <f64v*>sums)


cdef inline void flush(real* sums, real* totals) noexcept nogil:
    """Add NR sums to their totals, and begin them again."""
    sum_rows(<const real*>sums, 1, totals)
    memset(sums, 0, NR_BYTES)


cdef void sum_channel(
    const Conv* p, Py_ssize_t channel, Py_ssize_t plane, const real* dy, real* sums, real* db
) noexcept nogil:
    """Sum one channel of dy over all samples and pixels.

    `sums` is room for 2 * NR scalars: sums of at most `most` terms each, and totals.
    """
    cdef Py_ssize_t lanes = nr(dy), steps = plane // lanes, apart = lanes // 2, n, i
    cdef Py_ssize_t most = chain(p.n * plane), taken = 0, here, left
    cdef real* totals = sums + lanes
    cdef const real* source
    memset(sums, 0, 2 * NR_BYTES)
    for n in range(p.n):
        source = dy + (n * p.g * p.ocg + channel) * plane
        left = steps
        while left:
            here = min(left, most - taken)
            sum_rows(source, here, sums)
            source += here * lanes
            left -= here
            taken += here
            if taken == most:
                flush(sums, totals)
                taken = 0
        for i in range(plane - steps * lanes):
            sums[i] += source[i]
        taken += 1
        if taken == most:
            flush(sums, totals)
            taken = 0
    flush(sums, totals)
    while apart:
        for i in range(apart):
            totals[i] += totals[i + apart]
        apart = apart // 2
    db[channel] = totals[0]


cdef void sum_channels(
    const Conv* p, const real* dy, real* sums, real* db, int threads
) noexcept nogil:
    """Sum all channels; `sums` is room for 2 * NR scalars for each thread."""
    cdef Py_ssize_t plane = volume(p.out_extent), lanes = nr(dy), channel
    if threads == 1:
        for channel in range(p.g * p.ocg):
            sum_channel(p, channel, plane, dy, sums, db)
        return
    for channel in prange(p.g * p.ocg, num_threads=threads, schedule="static"):
        sum_channel(p, channel, plane, dy, sums + 2 * threadid() * lanes, db)


cdef int weight_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x, dy, dw and scratch, and sum the gradient of weight."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, sizeof(real))
    cdef const real* x = reals(held, 1, p.n * p.g * p.icg * job.w.source_plane, like)
    cdef const real* dy = reals(held, 2, p.n * p.g * p.ocg * job.w.plane, like)
    cdef real* dw = reals(held, 3, p.g * p.ocg * job.rows, like)
    cdef real* scratch = room(held, 4, job.shared + threads * job.private, like)
    if p.n:
        return run(&job, x, dy, dw, scratch, threads)
    memset(dw, 0, p.g * p.ocg * job.rows * sizeof(real))
    return 0


cdef int bias_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, db and scratch, and sum the gradient of bias."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Py_ssize_t plane = volume(p.out_extent)
    cdef const real* dy = reals(held, 1, p.n * p.g * p.ocg * plane, like)
    cdef real* db = reals(held, 2, p.g * p.ocg, like)
    cdef real* sums = room(held, 3, 2 * threads * nr(dy), like)
    with nogil:
        sum_channels(p, dy, sums, db, threads)
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that wgrad or bgrad needs."""
    cdef Conv p = conv_of(geometry, threads)
    cdef Job job = make_job(&p, item)
    if direction == "bgrad":
        return 2 * threads * NR_BYTES // item
    return job.shared + threads * job.private


def wgrad(geometry, x, dy, dw, scratch, int threads, /):
    """Write the gradient of weight to dw."""
    call(
        (geometry, x, dy), (dw, scratch), threads, weight_gradient[float],
        weight_gradient[double],
    )


def bgrad(geometry, dy, db, scratch, int threads, /):
    """Write the gradient of bias, one sum for each channel of dy, to db."""
    call((geometry, dy), (db, scratch), threads, bias_gradient[float], bias_gradient[double])
