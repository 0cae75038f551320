# Depthwise convolution and its gradient of x, channels in the lanes.
#
# What      out[g, y, x] = bias[g] + sum over (ky, kx) of
#               weight[g, ky, kx] * source[g, y', x']
#           with the windows of geometry.pxd; the phases of a strided gradient one after
#           the other in each row.
# Layout    x, y (n, g, h, w), weight (g, 1, kh, kw), flat. A box of a result is computed
#           from a band (depthwise.pxd), one vector for each pixel:
#
#               band  [* * * * * *]   taps    [* * * *] sums    transposed    plane 0
#                     [* * * * * *]  ----->   [* * * *]        ----------->   plane 1 ...
#
# Assumes   flat native buffers of the sizes that the geometry tells; what
#           algorithms/conv_depthwise.py accepts: two axes, strides 1 and 2.
# Parallel  over tasks = runs of (sample, block of channels, box): each writes rows that no
#           other task writes. Every sum is one chain tap by tap, and the bias, so its
#           bits depend on nothing else.
#           A border of x adds to its gradient what ring.pxd lists, while it is in `sums`.
# Scratch   shared: weights, biases, where pixels and taps are, the ring's lists; per thread
#           a band, sums and a row of dy that is far from its box.
# Cost      a load, log2(L) shuffles and a store for each vector read and written; a load
#           for each multiply-add.
# Why not   Pixels in the lanes (conv_planes.pyx): a row of 7 leaves half of the lanes
#           empty, a stride of 2 takes two loads and a shuffle for each vector and tap. It
#           is faster where rows are long and dense: nothing is transposed there.
# Source    Zhang, Lo and Lu, High Performance Depthwise and Pointwise Convolutions on
#           Mobile Devices, AAAI 2020, for the bounds; transpose.pxd.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.activation cimport rectify
from convcore.kernels.buffers cimport (
    Buffers, call, geometry_of, reals, reals_or_nothing, room,
)
from convcore.kernels.depthwise cimport (
    COLUMNS, SLACK, Frame, Slice, fill_band, frame_of, list_places, put_pixels, slice_after,
    slice_of,
)
from convcore.kernels.geometry cimport CONV_FIELDS, Axis, Conv, conv_of
from convcore.kernels.ring cimport Extra, Ring, list_ring, ring_of
from convcore.kernels.rounds cimport ROUND_MACS, aligned, ceil_div, round_of
from convcore.kernels.teams cimport look
from convcore.kernels.transpose cimport spread
from convcore.kernels.vector cimport VEC_BYTES, f32v, f64v, real, vec, ahead, part, zero_lanes

cdef enum:
    MOST_TAPS = 96  # one chain
    TASKS_PER_THREAD = 8  # so that no thread waits long for the last task
    TASK_MACS = 100000  # fewest of a task: some 5 us

cdef struct one:
    char _

cdef struct two:
    char _

ctypedef fused stride:  # columns of the source from output to output, as a type
    one
    two

cdef struct Job:
    Conv p
    Frame f
    Py_ssize_t lanes, blocks            # of channels
    Py_ssize_t taps
    int[5] phase                        # where the taps of each phase begin
    int[MOST_TAPS] slots                # where the weights of a tap are
    Py_ssize_t[MOST_TAPS] distances     # from an output to its taps, phase after phase
    Py_ssize_t units, each, tasks, macs  # (sample, block, box); of a task; of one
    Ring ring                           # what the border adds to a gradient
    Py_ssize_t weights, biases, places  # scratch in scalars: the ends of its parts
    Py_ssize_t shared, band, spare, private


cdef inline int column_step(stride* step) noexcept nogil:
    """Count the columns of the source from one output to the next."""
    return 1 if stride is one else 2


cdef void list_taps(Job* job) noexcept nogil:
    """List the taps, phase after phase: their weights, their distances from an output."""
    cdef Frame* f = &job.f
    cdef const Axis* y
    cdef const Axis* x
    cdef int i, j, ky, kx, count = 0
    for i in range(min(f.y[0].step, f.height)):
        for j in range(f.x_phases):
            y, x = &f.y[i], &f.x[j]
            job.phase[i * f.x_phases + j] = count
            for ky in range(y.taps):
                for kx in range(x.taps):
                    job.slots[
                        (y.tap0 + ky * y.tap_step) * job.p.kernel[2] + x.tap0 + kx * x.tap_step
                    ] = count
                    job.distances[count] = (
                        (y.off0 + ky * y.off_step) * f.pitch
                        + x.off0 + kx * x.off_step - f.left
                    )
                    count += 1
            job.phase[i * f.x_phases + j + 1] = count
    for i in range(job.taps):
        if job.slots[i] == job.taps:  # not used by any output: of the ring, if any
            job.slots[i] = count
            count += 1


cdef Job make_job(const Conv* p, bint gradient, Py_ssize_t item, int threads) noexcept nogil:
    """Cut planes into boxes and the work into tasks."""
    cdef Job job
    cdef Py_ssize_t i, macs
    job.p = p[0]
    job.f = frame_of(p, gradient)
    job.lanes = VEC_BYTES // item
    job.blocks = ceil_div(p.g, job.lanes)
    job.taps = p.kernel[1] * p.kernel[2]
    for i in range(job.taps):
        job.slots[i] = <int>job.taps
    list_taps(&job)
    job.units = p.n * job.blocks * job.f.boxes
    macs = job.f.rows * job.f.width * job.lanes * job.taps
    job.each = job.units // (TASKS_PER_THREAD * threads)
    job.each = max(min(max(job.each, TASK_MACS // macs), ROUND_MACS // macs), 1)
    job.tasks = ceil_div(job.units, job.each)
    job.macs = macs * job.each
    job.weights = job.blocks * (job.taps + 1) * job.lanes
    job.biases = job.weights + job.blocks * job.lanes
    job.places = job.biases + aligned(
        ceil_div(job.f.band_rows * job.f.source_width * sizeof(int), item)
    )
    job.ring = ring_of(p, gradient)
    job.shared = job.places + aligned(
        (job.ring.rows + job.ring.columns) * sizeof(Extra) // item
    )
    job.band = (job.f.band_rows * job.f.pitch + SLACK) * job.lanes
    job.spare = job.band + (job.f.rows * job.f.width + SLACK) * job.lanes
    job.private = job.spare + ((job.f.pitch + SLACK) * job.lanes if job.ring.rows else 0)
    return job


cdef void list_all(Job* job, int* places, Extra* extras) noexcept nogil:
    """List where pixels go, and what the border adds."""
    list_places(&job.f, places)
    if job.ring.rows + job.ring.columns:
        list_ring(&job.ring, &job.p, extras)


cdef inline void pack(
    const Job* job, const vec* weight, const vec* bias, vec* shared, const vec* like
) noexcept nogil:
    """Write weights and biases, a vector for each tap of each block of channels."""
    cdef Py_ssize_t block, rows, lanes = job.lanes, first
    cdef vec* biases = shared + job.blocks * (job.taps + 1)
    for block in range(job.blocks):
        first = block * lanes
        rows = min(lanes, job.p.g - first)
        put_pixels(
            ahead(weight, first * job.taps), job.taps, rows, job.taps, job.slots,
            shared + block * (job.taps + 1),
        )
        biases[block] = zero_lanes(like)
        if bias:
            biases[block] = part(ahead(bias, first), (<unsigned long long>1 << rows) - 1)


cdef inline void sum_row(
    const vec* band, const Py_ssize_t* distances, const vec* weights, Py_ssize_t taps,
    vec bias, Py_ssize_t outputs, vec* to, Py_ssize_t to_step, stride* step,
) noexcept nogil:
    """Sum the outputs of one phase of a row; up to COLUMNS - 1 more are written."""
    cdef vec acc[COLUMNS]
    cdef vec w
    cdef const vec* v
    cdef Py_ssize_t x = 0, k
    cdef int i
    while x < outputs:
        for i in range(COLUMNS):
            acc[i] = zero_lanes(weights)
        for k in range(taps):
            w = weights[k]
            v = band + distances[k]
            for i in range(COLUMNS):
                acc[i] = acc[i] + w * v[i * column_step(step)]
        for i in range(COLUMNS):
            to[i * to_step] = acc[i] + bias
        x += COLUMNS
        band += COLUMNS * column_step(step)
        to += COLUMNS * to_step


cdef void sum_box(
    const Job* job, const Slice* s, Py_ssize_t y0, Py_ssize_t y1, const vec* band,
    const vec* weights, const vec* bias, vec* sums,
) noexcept nogil:
    """Compute rows y0 .. y1 of the result, one vector for each pixel.

    In ascending order: what a tile writes beyond its row, a later one puts right.
    """
    cdef const Frame* f = &job.f
    cdef const Axis* x
    cdef const vec* row
    cdef vec* to
    cdef Py_ssize_t y, i = y0 % f.y[0].step, j, first, taps
    row = band + (f.y[0].advance * (y0 // f.y[0].step) - s.first) * f.pitch
    for y in range(y0, y1):
        for j in range(f.x_phases):
            x = &f.x[j]
            first = job.phase[i * f.x_phases + j]
            taps = job.phase[i * f.x_phases + j + 1] - first
            to = sums + (y - y0) * f.width + x.start
            if x.advance == 1:
                sum_row(
                    row, job.distances + first, weights + first, taps, bias[0], x.extent,
                    to, x.step, <one*>NULL,
                )
            else:
                sum_row(
                    row, job.distances + first, weights + first, taps, bias[0], x.extent,
                    to, x.step, <two*>NULL,
                )
        i += 1
        if i == f.y[0].step:
            i = 0
            row += f.y[0].advance * f.pitch


cdef void add_line(
    const Axis* a, Py_ssize_t t, Py_ssize_t outputs, const vec* source, Py_ssize_t apart,
    const vec* weights, const int* slots, Py_ssize_t slots_apart, vec* to,
    Py_ssize_t to_apart,
) noexcept nogil:
    """Add to outputs t .. of a phase of an axis, by its taps, what one line of dy gives."""
    cdef vec acc[COLUMNS]
    cdef vec w
    cdef const vec* v
    cdef Py_ssize_t k, x = 0, _x
    cdef int i
    source += (t + a.off0) * apart
    while x + COLUMNS <= outputs:
        for i in range(COLUMNS):
            acc[i] = to[i * to_apart]
        for k in range(a.taps):
            w = weights[slots[(a.tap0 + k * a.tap_step) * slots_apart]]
            v = source + k * a.off_step * apart
            for i in range(COLUMNS):
                acc[i] = acc[i] + w * v[i * apart]
        for i in range(COLUMNS):
            to[i * to_apart] = acc[i]
        x += COLUMNS
        source, to = source + COLUMNS * apart, to + COLUMNS * to_apart
    for _x in range(x, outputs):
        for k in range(a.taps):
            w = weights[slots[(a.tap0 + k * a.tap_step) * slots_apart]]
            to[0] = to[0] + w * source[k * a.off_step * apart]
        source, to = source + apart, to + to_apart


cdef inline void add_extra_row(
    const Job* job, const Extra* e, const vec* weights, const vec* row, vec* to
) noexcept nogil:
    """Add what a row of dy gives to a row of x by a tap that falls beside x."""
    cdef const int* slots = job.slots + e.tap * job.p.kernel[2]
    cdef const Extra* column = job.ring.extras + job.ring.rows
    cdef const Axis* x
    cdef Py_ssize_t i, _j
    for i in range(job.f.x_phases):
        x = &job.f.x[i]
        add_line(x, 0, x.extent, row, 1, weights, slots, 1, to + x.start, x.step)
    for _j in range(job.ring.columns):
        to[column.target] = to[column.target] + weights[slots[column.tap]] * row[column.source]
        column += 1


cdef inline void add_extra_column(
    const Job* job, const Slice* s, const Extra* e, Py_ssize_t y0, Py_ssize_t y1,
    const vec* weights, const vec* band, vec* sums,
) noexcept nogil:
    """Add what a column of dy gives to one of x, to its rows y0 .. y1."""
    cdef const Frame* f = &job.f
    cdef const Axis* y
    cdef Py_ssize_t i, first, last
    for i in range(min(f.y[0].step, f.height)):
        y = &f.y[i]
        first, last = (y0 - i + y.step - 1) // y.step, (y1 - i + y.step - 1) // y.step
        add_line(
            y, first, last - first, band - s.first * f.pitch + e.source - f.left, f.pitch,
            weights, job.slots + e.tap, job.p.kernel[2],
            sums + (i + y.step * first - y0) * f.width + e.target, y.step * f.width,
        )


cdef inline void gather_row(
    const Frame* f, const vec* source, Py_ssize_t y, Py_ssize_t rows, vec* to
) noexcept nogil:
    """Write a row of some planes as a row of a band, scalar by scalar: it is seldom."""
    cdef Py_ssize_t i, x, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef const vec* row
    for i in range(rows):
        row = ahead(source, (i * f.source_height + y) * f.source_width)
        for x in range(f.source_width):
            if vec is f32v:
                (<float*>to)[x * lanes + i] = (<const float*>row)[x]
            else:
                (<double*>to)[x * lanes + i] = (<const double*>row)[x]


cdef void add_ring(
    const Job* job, const Slice* s, Py_ssize_t y0, Py_ssize_t y1, Py_ssize_t rows,
    const vec* source, const vec* weights, const vec* band, vec* spare, vec* sums,
) noexcept nogil:
    """Add what lies beyond the border to rows y0 .. y1: a row of dy may be far from them."""
    cdef const Frame* f = &job.f
    cdef const Extra* e = job.ring.extras
    cdef const vec* row
    cdef Py_ssize_t _i
    for _i in range(job.ring.rows):
        if y0 <= e.target < y1:
            row = band + (e.source - s.first) * f.pitch
            if not s.first <= e.source < s.first + s.count:
                gather_row(f, source, e.source, rows, spare - f.left)
                row = spare
            add_extra_row(job, e, weights, row - f.left, sums + (e.target - y0) * f.width)
        e += 1
    for _i in range(job.ring.columns):
        add_extra_column(job, s, e, y0, y1, weights, band, sums)
        e += 1


cdef inline void run_unit(
    const Job* job, const Slice* s, Py_ssize_t block, Py_ssize_t y0, Py_ssize_t y1,
    Py_ssize_t rows, const vec* source, const vec* shared, vec* band, vec* spare, vec* sums,
) noexcept nogil:
    """Compute a box of some planes."""
    cdef const vec* weights = shared + block * (job.taps + 1)
    cdef const vec* biases = shared + job.blocks * (job.taps + 1)
    cdef const int* places = <const int*>(biases + job.blocks)
    fill_band(&job.f, s, source, rows, places, band)
    sum_box(job, s, y0, y1, band, weights, biases + block, sums)
    if job.ring.extras:
        add_ring(job, s, y0, y1, rows, source, weights, band, spare, sums)


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* source, const real* shared, real* band,
    real* out,
) noexcept nogil:
    """Compute some boxes."""
    cdef const Frame* f = &job.f
    cdef Py_ssize_t first = task * job.each, unit, y0, y1, block, plane, rows
    cdef Py_ssize_t plane_size = f.height * f.width
    cdef Py_ssize_t source_plane = f.source_height * f.source_width
    cdef real* sums = band + job.band
    cdef Slice s
    memset(band, 0, job.band * sizeof(real))
    memset(band + job.spare, 0, (job.private - job.spare) * sizeof(real))
    for unit in range(first, min(first + job.each, job.units)):
        y0 = unit % f.boxes * f.rows
        y1 = min(y0 + f.rows, f.height)
        block = unit // f.boxes % job.blocks
        plane = unit // (f.boxes * job.blocks) * job.p.g + block * job.lanes
        rows = min(job.lanes, job.p.g - block * job.lanes)
        if unit == first or (f.boxes > 1 and y0 == 0):
            s = slice_of(f, y0, y1)
        elif f.boxes > 1:
            s = slice_after(f, &s, y0, y1)
        if real is float:
            run_unit(
                job, &s, block, y0, y1, rows, <const f32v*>(source + plane * source_plane),
                <const f32v*>shared, <f32v*>band, <f32v*>(band + job.spare), <f32v*>sums,
            )
        else:
            run_unit(
                job, &s, block, y0, y1, rows, <const f64v*>(source + plane * source_plane),
                <const f64v*>shared, <f64v*>band, <f64v*>(band + job.spare), <f64v*>sums,
            )
        if job.p.relu:
            rectify(sums, (y1 - y0) * f.width * job.lanes)
        spread(
            <const real*>sums, job.lanes, (y1 - y0) * f.width, rows,
            out + plane * plane_size + y0 * f.width, plane_size, 1,
        )


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* source, real* scratch,
    real* out, int threads,
) noexcept nogil:
    """Do one round of tasks."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, source, <const real*>scratch, scratch + job.shared, out)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, source, <const real*>scratch,
            scratch + job.shared + threadid() * job.private, out,
        )


cdef int run(
    Job* job, const real* source, const real* weight, const real* bias, real* out,
    real* scratch, int threads,
) except -1:
    """Pack the weights, then do the tasks round by round."""
    cdef Py_ssize_t begin = 0, end, each = round_of(job.macs, 1, threads)
    if real is float:
        pack(job, <const f32v*>weight, <const f32v*>bias, <f32v*>scratch, <f32v*>scratch)
    else:
        pack(job, <const f64v*>weight, <const f64v*>bias, <f64v*>scratch, <f64v*>scratch)
    list_all(job, <int*>(scratch + job.biases), <Extra*>(scratch + job.places))
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            run_tasks(job, begin, end, source, scratch, out, threads)
        look()
        begin = end
    return 0


cdef int start(const Buffers* held, bint gradient, int threads, real* like) except -1:
    """Check geometry, source, weight, bias, out and scratch, and run the direction."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, gradient, sizeof(real), threads)
    cdef Py_ssize_t planes = p.n * p.g
    cdef const real* source = reals(
        held, 1, planes * job.f.source_height * job.f.source_width, like
    )
    cdef const real* weight = reals(held, 2, p.g * job.taps, like)
    cdef const real* bias = reals_or_nothing(held, 3, p.g, like)
    cdef real* out = reals(held, 4, planes * job.f.height * job.f.width, like)
    cdef real* scratch = room(held, 5, job.shared + threads * job.private, like)
    return run(&job, source, weight, bias, out, scratch, threads) if planes else 0


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
    return job.shared + threads * job.private


def fprop(geometry, x, weight, bias, y, scratch, int threads, /):
    """Write the convolution of x to y; the bias may be None."""
    call((geometry, x, weight, bias), (y, scratch), threads, forward[float], forward[double])


def dgrad(geometry, dy, weight, bias, dx, scratch, int threads, /):
    """Write the gradient of x, plus a bias (of a transposed convolution), to dx."""
    call((geometry, dy, weight, bias), (dx, scratch), threads, gradient[float], gradient[double])
