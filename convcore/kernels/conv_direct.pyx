# Convolution and its gradient of x with the channels of the output in the lanes.
#
# What      out[m, q] = bias[m] + sum over k of weight[m, k] * source[place[q] + distance[k]]
#           with the windows of geometry.pxd: m a channel of the output's group, q an
#           output, k a (channel, tap). In a band (band.pxd) the scalar that output q meets
#           in term k lies at the sum of two numbers, so nothing is gathered or packed.
# Layout    x (n, g*icg, id, ih, iw), weight (g*ocg, icg, kd, kh, kw), y like x, flat.
#
#                 distance k ->                m -> NR
#         place   [ source      ]         k  [ weight ]       added to sums [q, m],
#           q     [ MR outputs  ]    x    |  [        ]       at last transposed into out
#           v     [ a scalar k  ]         v  [        ]
#
# Assumes   flat native buffers of the sizes that the geometry tells; extents >= 1.
# Parallel  over tasks = (group, box of outputs, block of m): each writes outputs, of all
#           phases, that no other task writes. A sum is formed in blocks of `channels` channels,
#           which depend on one sample's shape alone, so the bits are the same for any
#           split into tasks, any thread count and any batch.
# Scratch   all weights packed once; per thread a band, the sums of a box, and two lists.
# Cost      2 * outputs * depth FLOPs; each scalar of the source is copied once a task, if
#           there is padding, and the sums are transposed once.
# Why not   Pixels in the lanes (conv_gemm.pyx): every row of a patch that is broken at
#           the end of a row of x has to be assembled, for each tap again.
# Source    Georganas et al., Anatomy of High-Performance Deep Learning Convolutions on
#           SIMD Architectures, SC 2018, section II, for the lanes; Dukhan, The Indirect
#           Convolution Algorithm, arXiv:1907.02129, for the addresses.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.activation cimport rectify
from convcore.kernels.band cimport (
    BAND_BYTES, SLACK, Band, Box, Boxes, band_of, box_at, choose_boxes,
    fill, list_outputs, list_terms, outputs_of, padded, plane_size, reach,
)
from convcore.kernels.buffers cimport (
    Buffers, call, geometry_of, has_type, reals, reals_or_nothing, room,
)
from convcore.kernels.geometry cimport (
    CONV_FIELDS, Conv, Window, conv_of, forward_window, gradient_window, phases, volume,
)
from convcore.kernels.pack cimport class_of, Class
from convcore.kernels.rounds cimport (
    TASKS_PER_THREAD, aligned, ceil_div, round_of, spread_evenly,
)
from convcore.kernels.targets cimport list_targets, write_pair, write_panel
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport chain, partial_chain, sum_scattered
from convcore.kernels.transpose cimport MOST_LANES, collect, turn_taps
from convcore.kernels.vector cimport MR, NR_BYTES, NV, cc_fetch_far, copy, nr, real

cdef enum:
    OUTPUTS = 64  # most tiles of outputs in a box
    SUM_BYTES = 524288  # of the sums of a task, a fraction of L2
    PANELS = 8  # panels of m in a task
    FEW_TAPS = 128
    NR_LIMIT = 32  # most scalars of one row of the tile
    LINE_BYTES = 64  # of the cache

cdef struct Job:
    Conv p
    bint gradient
    Py_ssize_t phase_count, taps, terms            # taps of a kernel; c * taps
    Py_ssize_t panels, panel_block, panel_tasks    # of m: in a group, in a task
    Py_ssize_t channels                            # of one block of a sum
    Boxes boxes
    Py_ssize_t distances                           # most terms of a block
    Py_ssize_t paired                              # phases that are written together
    Py_ssize_t band, lists, room                   # scalars of a band, lists, sums of a panel
    Py_ssize_t tasks, macs                         # macs of one task
    Py_ssize_t biases, private, packed             # scalars of scratch: its parts
    Class[FEW_TAPS] classes                        # of the taps of a gradient, if they are few


cdef inline Window window_of(const Conv* p, bint gradient, Py_ssize_t phase) noexcept nogil:
    """Give the windows of a direction."""
    return gradient_window(p, phase) if gradient else forward_window(p)


cdef Py_ssize_t channels_of(const Window* w, Py_ssize_t item) noexcept nogil:
    """Choose how many channels are summed at a time: by one sample's shape alone."""
    cdef Band b
    cdef Box one
    cdef Py_ssize_t blocks
    one.sample, one.samples = 0, 1
    for i in range(3):
        one.first[i], one.count[i] = 0, 1
    b = band_of(w, &one, 1)
    blocks = ceil_div(w.c, max(1, min(
        chain(w.depth) // max(w.taps, 1), BAND_BYTES // item // plane_size(&b)
    )))
    return ceil_div(w.c, blocks)


cdef Job make_job(const Conv* p, bint gradient, Py_ssize_t item, int threads) noexcept nogil:
    """Split the work into enough tasks for `threads`, as large as the caches like."""
    cdef Job job
    cdef Window w
    cdef Py_ssize_t lanes = NR_BYTES // item, wanted, phase, most
    job.p = p[0]
    job.gradient = gradient
    job.phase_count = phases(p, 0) * phases(p, 1) * phases(p, 2) if gradient else 1
    job.taps = p.kernel[0] * p.kernel[1] * p.kernel[2]
    for i in range(min(job.taps, FEW_TAPS) if gradient else 0):
        job.classes[i] = class_of(p, True, i)
    job.channels = 0
    job.distances = 0
    for phase in range(job.phase_count):  # a phase has most taps, not always the first
        w = window_of(p, gradient, phase)
        if w.depth:
            most = channels_of(&w, item)
            job.channels = min(job.channels, most) if job.channels else most
            job.distances = max(job.distances, w.taps)
    job.channels = max(job.channels, 1)
    job.distances *= job.channels
    w = window_of(p, gradient, 0)
    job.terms = w.c * job.taps
    job.panels = ceil_div(w.m, lanes)
    job.panel_block = min(job.panels, PANELS)
    wanted = min(OUTPUTS * MR, SUM_BYTES // (job.panel_block * NR_BYTES))
    while True:
        job.panel_tasks = ceil_div(job.panels, job.panel_block)
        job.panel_block = ceil_div(job.panels, job.panel_tasks)
        job.boxes = choose_boxes(&w, job.channels, wanted, item)
        job.tasks = p.g * job.boxes.boxes * job.panel_tasks
        job.macs = (
            job.boxes.outputs * job.panel_block * lanes
            * job.distances * ceil_div(w.c, job.channels) * job.phase_count
        )
        if spread_evenly(job.tasks, job.macs, threads):
            break
        if wanted > 4 * MR:
            wanted = wanted // 2
        elif job.panel_block > 1:
            job.panel_block = job.panel_block // 2
        elif wanted > MR:
            wanted = wanted // 2
        else:
            break
    job.band = 0
    for phase in range(job.phase_count):
        w = window_of(p, gradient, phase)
        if padded(&w):
            job.band = max(job.band, reach(&w, &job.boxes, job.channels) + SLACK)
    job.packed = aligned(p.g * job.panels * lanes * job.terms)
    job.biases = aligned(p.g * job.panels * lanes)
    job.band = aligned(job.band)
    job.lists = aligned((2 * (job.boxes.outputs + MR) + job.distances) * sizeof(Py_ssize_t) // item)
    job.room = (job.boxes.outputs + MOST_LANES) * lanes
    job.paired = 2 if gradient and phases(p, 2) == 2 else 1
    job.private = job.band + job.lists + job.paired * job.room * job.panel_block
    return job


cdef inline Py_ssize_t rows_of_group(const Job* job) noexcept nogil:
    """Count the outputs m of a group."""
    return job.p.icg if job.gradient else job.p.ocg


cdef void pack_gradient(
    const Job* job, const real* weight, Py_ssize_t first, Py_ssize_t rows, real* to
) noexcept nogil:
    """Pack the weights of input channels first .. first + rows: a row for each (oc, tap).

    For one output channel this is the transpose of a (rows, taps) matrix, whose rows then
    go where the phase of their tap has them.
    """
    cdef real block[MOST_LANES * NR_LIMIT]
    cdef Class tap
    cdef Py_ssize_t lanes = nr(weight), half = lanes // NV, c, t, i
    cdef Py_ssize_t icg = job.p.icg, ocg = job.p.ocg, taps = job.taps
    memset(block, 0, sizeof(block))
    if taps == 1:
        for c in range(ocg):
            copy(to + c * lanes, weight + c * icg + first, rows)
        return
    for c in range(ocg):
        t = 0
        while t < taps:
            turn_taps(
                weight + (c * icg + first) * taps + t, taps, rows, min(half, taps - t),
                weight + ocg * icg * taps, block,
            )
            for i in range(min(half, taps - t)):
                tap = job.classes[t + i] if taps <= FEW_TAPS else class_of(&job.p, True, t + i)
                copy(
                    to + (tap.before * ocg + c * tap.taps + tap.index) * lanes,
                    <const real*>block + i * lanes, lanes,
                )
            t += half


cdef void pack_panel(
    const Job* job, Py_ssize_t index, const real* weight, real* packed
) noexcept nogil:
    """Pack the weights of panel `index`, counted through the groups."""
    cdef Py_ssize_t lanes = nr(weight), group = index // job.panels
    cdef Py_ssize_t first = index % job.panels * lanes
    cdef Py_ssize_t rows = min(lanes, rows_of_group(job) - first)
    cdef real* to = packed + index * lanes * job.terms
    weight += group * job.p.ocg * job.p.icg * job.taps
    if rows < lanes:
        memset(to, 0, lanes * job.terms * sizeof(real))
    if job.gradient:
        pack_gradient(job, weight, first, rows, to)
    else:
        collect(weight + first * job.terms, job.terms, rows, job.terms, to, lanes)


cdef void pack_panels(
    const Job* job, const real* weight, real* packed, int threads
) noexcept nogil:
    """Pack all weights."""
    cdef Py_ssize_t i, panels = job.p.g * job.panels
    if threads == 1:
        for i in range(panels):
            pack_panel(job, i, weight, packed)
        return
    for i in prange(panels, num_threads=threads, schedule="static"):
        pack_panel(job, i, weight, packed)


cdef void list_biases(const Job* job, const real* bias, real* to) noexcept nogil:
    """Write the biases panel by panel: zeros where there are none."""
    cdef Py_ssize_t lanes = nr(to), m = rows_of_group(job), group, panel, first
    for group in range(job.p.g):
        for panel in range(job.panels):
            first = panel * lanes
            memset(to, 0, lanes * sizeof(real))
            if bias:
                copy(to, bias + group * m + first, min(lanes, m - first))
            to += lanes


cdef inline void multiply_panel(
    const real* band, const Py_ssize_t* places, const Py_ssize_t* distances,
    Py_ssize_t depth, const real* weights, const real* start, Py_ssize_t outputs,
    bint narrow, real* sums, const Py_ssize_t* targets, const real* out,
    Py_ssize_t plane, Py_ssize_t rows,
) noexcept nogil:
    """Add one block of terms of one panel, for all outputs of a box.

    With the last block come `targets`: its outputs are fetched, for they are written next.
    """
    cdef Py_ssize_t q = 0, i, j, line = LINE_BYTES // sizeof(real)
    cdef Py_ssize_t step = MR if targets else outputs
    while q < outputs:
        for i in range(rows if targets else 0):
            for j in range(ceil_div(MR, line)):
                cc_fetch_far(out + i * plane + targets[q + MR - 1 - j * line])
        sum_scattered(
            band, places + q, distances, weights, depth, start, sums + q * nr(band),
            min(step, outputs - q), narrow,
        )
        q += step


cdef void sum_box(
    const Job* job, const Window* w, const Box* box, Py_ssize_t group, Py_ssize_t panel0,
    Py_ssize_t panel1, const real* source, const real* packed, const real* biases,
    real* private, real* sums, const real* out,
) noexcept nogil:
    """Compute the outputs of a box, [panel][output][lane]; `out` is only fetched."""
    cdef Py_ssize_t lanes = nr(source), outputs = outputs_of(box), most = chain(w.depth)
    cdef Py_ssize_t c = 0, channels, j, k, q, depth, here
    cdef Py_ssize_t* places = <Py_ssize_t*>(private + job.band)
    cdef Py_ssize_t* targets = places + job.boxes.outputs + MR
    cdef Py_ssize_t* distances = targets + job.boxes.outputs + MR
    cdef Band b = band_of(w, box, job.channels)
    cdef const real* band
    cdef const real* weights
    cdef bint last
    biases += group * job.panels * lanes
    if w.depth == 0:
        for j in range(panel0, panel1):
            for q in range(outputs):
                copy(sums + (j - panel0) * job.room + q * lanes, biases + j * lanes, lanes)
        return
    if w.taps > most:
        most = partial_chain(w.depth)
    list_outputs(w, &b, box, places)
    list_targets(w, box, targets)
    for q in range(MR):
        places[outputs + q] = places[outputs - 1]
        targets[outputs + q] = targets[outputs - 1]
    list_terms(w, &b, job.channels, distances)
    while c < w.c:
        channels = min(job.channels, w.c - c)
        depth = channels * w.taps
        band = fill(w, &b, box, source + group * w.c * w.source_plane, c, channels, private)
        for j in range(panel0, panel1):
            weights = packed + lanes * (
                (group * job.panels + j) * job.terms + w.tap_first * w.c + c * w.taps
            )
            k = 0
            while k < depth:
                here = min(most, depth - k)
                last = c + channels == w.c and k + here == depth
                multiply_panel(
                    band, places, distances + k, here, weights + k * lanes,
                    biases + j * lanes if c + k == 0 else NULL, outputs,
                    w.m - j * lanes <= lanes // 2, sums + (j - panel0) * job.room,
                    targets if last else NULL, out + (group * w.m + j * lanes) * w.plane,
                    w.plane, min(lanes, w.m - j * lanes),
                )
                k += here
        c += channels


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* source, const real* packed,
    const real* biases, real* private, real* out,
) noexcept nogil:
    """Compute the outputs of one task, phase after phase."""
    cdef Py_ssize_t lanes = nr(source), rest = task // job.panel_tasks
    cdef Py_ssize_t panel0 = task % job.panel_tasks * job.panel_block
    cdef Py_ssize_t panel1 = min(panel0 + job.panel_block, job.panels)
    cdef Py_ssize_t group = rest // job.boxes.boxes, phase, j, rows
    cdef real* even = private + job.band + job.lists
    cdef real* sums
    cdef const real* both
    cdef real* panel
    cdef Window w
    cdef Box box
    cdef Py_ssize_t count = 0  # outputs of an even phase along a row
    for phase in range(job.phase_count):
        w = window_of(&job.p, job.gradient, phase)
        box = box_at(&job.boxes, &w, rest % job.boxes.boxes)
        sums = even + phase % job.paired * job.room * job.panel_block
        if outputs_of(&box):
            sum_box(
                job, &w, &box, group, panel0, panel1, source, packed, biases, private, sums,
                out,
            )
        if phase % job.paired == 0:
            count = box.count[2]
        if job.p.relu:
            for j in range(panel1 - panel0):
                rectify(sums + j * job.room, outputs_of(&box) * lanes)
        for j in range(panel0, panel1):
            both = even + (j - panel0) * job.room
            panel = out + (group * w.m + j * lanes) * w.plane
            rows = min(lanes, w.m - j * lanes)
            if job.paired == 1:
                write_panel(&w, &box, both, rows, panel)
            elif phase % 2 == 1:
                w.x.start = 0  # where the even phase starts
                write_pair(
                    &w, &box, both, both + job.room * job.panel_block, count, rows, panel,
                )


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* source,
    const real* packed, const real* biases, real* scratch, real* out, int threads,
) noexcept nogil:
    """Do one round of tasks."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, source, packed, biases, scratch, out)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, source, packed, biases, scratch + threadid() * job.private, out
        )


cdef int run(
    const Job* job, const real* source, const real* weight, const real* packed,
    const real* bias, real* out, real* scratch, int threads,
) except -1:
    """Pack the weights, unless they are, then do the tasks round by round.

    The scratch has the biases, then each thread's part, then room for packed weights.
    """
    cdef Py_ssize_t begin = 0, end
    cdef Py_ssize_t each = round_of(job.macs, TASKS_PER_THREAD, threads)
    cdef real* here = scratch + job.biases + threads * job.private
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            if begin == 0:
                list_biases(job, bias, scratch)
                if weight:
                    pack_panels(job, weight, here, threads)
                    packed = here
            run_tasks(
                job, begin, end, source, packed, <const real*>scratch,
                scratch + job.biases, out, threads,
            )
        look()
        begin = end
    return 0


cdef int start(const Buffers* held, bint gradient, int threads, real* like) except -1:
    """Check geometry, source, weight, bias, out and scratch, and run the direction."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, gradient, sizeof(real), threads)
    cdef Py_ssize_t pixels = p.n * p.g * p.icg * volume(p.in_extent)
    cdef Py_ssize_t planes = p.n * p.g * p.ocg * volume(p.out_extent)
    cdef const real* source = reals(held, 1, planes if gradient else pixels, like)
    cdef const real* weight = NULL
    cdef const real* packed = NULL
    cdef const real* bias = reals_or_nothing(held, 3, p.g * rows_of_group(&job), like)
    cdef real* out = reals(held, 4, pixels if gradient else planes, like)
    cdef Py_ssize_t needed = job.biases + threads * job.private
    cdef real* scratch
    if has_type(held, 2, b"B"):  # bytes that `pack` wrote
        packed = room(held, 2, job.packed, like)
    else:
        needed += job.packed
        weight = reals(held, 2, p.g * p.ocg * p.icg * job.taps, like)
    scratch = room(held, 5, needed, like)
    return run(&job, source, weight, packed, bias, out, scratch, threads)


cdef int start_packing(const Buffers* held, bint gradient, int threads, real* like) except -1:
    """Check geometry, weight and packed, and pack."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, gradient, sizeof(real), threads)
    cdef const real* weight = reals(held, 1, p.g * p.ocg * p.icg * job.taps, like)
    cdef real* packed = room(held, 2, job.packed, like)
    with nogil:
        pack_panels(&job, weight, packed, threads)
    return 0


cdef int pack_forward(const Buffers* held, int threads, real* like) except -1:
    """Pack for fprop."""
    return start_packing(held, False, threads, like)


cdef int pack_gradient_of_x(const Buffers* held, int threads, real* like) except -1:
    """Pack for dgrad."""
    return start_packing(held, True, threads, like)


cdef int forward(const Buffers* held, int threads, real* like) except -1:
    """Run fprop."""
    return start(held, False, threads, like)


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Run dgrad."""
    return start(held, True, threads, like)


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that fprop or dgrad needs."""
    cdef Conv p = conv_of(geometry, threads)
    cdef Job job = make_job(&p, direction == "dgrad", item, threads)
    return job.biases + threads * job.private + job.packed


def packed_size(geometry, str direction, Py_ssize_t item, /):
    """Give the scalars of packed weights, for whatever extents and number of samples."""
    cdef Conv p = conv_of(geometry, 1)
    return make_job(&p, direction == "dgrad", item, 1).packed


def pack_fprop(geometry, weight, packed, int threads, /):
    """Write the weights to bytes, as fprop reads them; it takes those for the weights."""
    call((geometry, weight), (packed,), threads, pack_forward[float], pack_forward[double])


def pack_dgrad(geometry, weight, packed, int threads, /):
    """Do the same for dgrad."""
    call(
        (geometry, weight), (packed,), threads, pack_gradient_of_x[float],
        pack_gradient_of_x[double],
    )


def fprop(geometry, x, weight, bias, y, scratch, int threads, /):
    """Write the convolution of x to y; the bias may be None, the weights packed."""
    call((geometry, x, weight, bias), (y, scratch), threads, forward[float], forward[double])


def dgrad(geometry, dy, weight, bias, dx, scratch, int threads, /):
    """Write the gradient of x, plus a bias (of a transposed convolution), to dx."""
    call((geometry, dy, weight, bias), (dx, scratch), threads, gradient[float], gradient[double])
