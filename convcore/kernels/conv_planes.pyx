# Convolution and its gradient of x for few channels a group, pixels in the lanes.
#
# What      out[m, z, y, x] = bias[m] + sum over (c, kz, ky, kx) of
#               weight[m, c, kz, ky, kx] * source[c, z', y', x']
#           with the windows of geometry.pxd. A gradient whose stride along x is two has two
#           phases there; both are computed and stored in turns, so dx is written once.
# Layout    everything stays where it is; see planes.pxd for the tile.
#
#              x ->   one vector                    one vector
#           y  [ row 0 of the source ]  kx, 3 ky    [ row 0, channel m     ]  R rows,
#           |  [ row 1               ]  -------->   [ row 1                ]  1 or 2
#           v  [ ...                 ]              [ ...                  ]  channels
#
# Assumes   flat native buffers of the sizes that the geometry tells; what
#           algorithms/conv_planes.py accepts: strides 1 and 2 along x, few phases.
# Parallel  over tasks = neighbouring tiles of rows, counted through samples, groups and
#           phases: each writes rows that no other task writes. Every output is one sum in
#           the order (c, kz, block of ky, kx, ky), so its bits depend on nothing else.
# Scratch   one row of zeros; per thread the table of rows of one tile.
# Cost      2 * outputs * terms FLOPs; for K taps a column, N loads for R * K multiply-adds
#           of each channel. x and y pass once through the caches.
# Why not   A padded copy of the rows: a load and a store for each, where masked loads in
#           place cost nothing on AVX-512. Packed patches (conv_gemm.pyx): finding them
#           takes ten times as long as a depthwise sum.
# Source    Zhang, Franchetti and Low, High Performance Zero-Memory Overhead Direct
#           Convolutions, ICML 2018; Georganas et al., SC 2018, for loads that several
#           taps share.

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.geometry cimport (
    CONV_FIELDS, Axis, Conv, Window, forward_axis, forward_window, gradient_axis,
    gradient_window, phases,
)
from convcore.kernels.planes cimport (
    FIVE, FIVE_APART, MOST_LOADS, ONE, SEVEN, THREE, THREE_APART, TWO, Rows, apart_of,
    ascending, cut_rows, fill_table, first_row, five, five_apart, load, one, rows_in,
    seven, span, taps, taps_of, three, three_apart, two,
)
from convcore.kernels.vector cimport (
    ROWS, ROWS_HALF, VEC_BYTES, f32v, f64v, real, vec, ahead, lanes_from, put_part,
    zero_lanes, zip_part,
)

cdef enum:
    SWEEPS = 16  # most phases along z and y together
    ALIGNED = 16  # scalars to which parts of scratch are rounded up
    ADDRESS = 8  # bytes of an address, at most
    TASKS_PER_THREAD = 8  # so that no thread waits long for the last task
    TASK_MACS = 200000  # fewest of a task: some 5 us
    ROUND_MACS = 300000000  # work between two looks for Ctrl-C: a few ms a thread

cdef struct tall:
    char _

cdef struct low:
    char _

cdef struct tall_pair:
    char _

cdef struct low_pair:
    char _

ctypedef fused shape:  # of a tile, as a type: its rows and channels are constants
    tall
    low
    tall_pair
    low_pair

cdef struct Sweep:  # one phase along z and y
    Axis z, y
    Rows rows
    Py_ssize_t first, blocks  # tiles of earlier phases; blocks of taps of a channel

cdef struct Job:
    Conv p
    Window w                       # channels and planes
    Py_ssize_t sweep_count, tiles  # phases along z, y; tiles of a channel in all of them
    Sweep[SWEEPS] sweeps
    Axis[2] x                      # phases along x
    Py_ssize_t x_count, line       # of them; outputs of a tile if rows are one long line
    Py_ssize_t weight_m, weight_c  # weights from one output, input to the next
    Py_ssize_t items, each, tasks, macs
    Py_ssize_t zeros, private      # scratch in scalars: the row of zeros, of each thread


cdef inline int rows_of(shape* tile) noexcept nogil:
    """Count the rows of a tile."""
    return ROWS if shape is tall or shape is tall_pair else ROWS_HALF


cdef inline int channels_of(shape* tile) noexcept nogil:
    """Count the channels of a tile."""
    return 1 if shape is tall or shape is low else 2


cdef inline void cut_line(Job* job, Py_ssize_t lanes) noexcept nogil:
    """Take pieces of a single row for the rows of a tile."""
    cdef Sweep* s = &job.sweeps[0]
    s.rows.rows = s.rows.loads = ROWS
    s.rows.tiles = (job.x[0].extent - 1) // (ROWS * lanes) + 1
    job.line = ROWS * lanes


cdef Job make_job(const Conv* p, bint gradient, Py_ssize_t item, int threads) noexcept nogil:
    """Cut the planes into tiles, and the tiles into tasks."""
    cdef Job job
    cdef Sweep* s
    cdef Py_ssize_t i, ny = phases(p, 1) if gradient else 1, table = 0, kernel
    job.p = p[0]
    job.w = gradient_window(p, 0) if gradient else forward_window(p)
    kernel = p.kernel[0] * p.kernel[1] * p.kernel[2]
    job.weight_m, job.weight_c = p.icg * kernel, kernel
    job.x_count = 1
    job.x[0] = forward_axis(p, 2)
    job.sweep_count = 1
    if gradient:
        job.weight_m, job.weight_c = job.weight_c, job.weight_m
        job.x_count = phases(p, 2)
        for i in range(job.x_count):
            job.x[i] = ascending(gradient_axis(p, 2, i))
        job.sweep_count = phases(p, 0) * ny
    job.tiles = job.line = 0
    for i in range(job.sweep_count):
        s = &job.sweeps[i]
        s.z = ascending(gradient_axis(p, 0, i // ny)) if gradient else forward_axis(p, 0)
        s.y = ascending(gradient_axis(p, 1, i % ny)) if gradient else forward_axis(p, 1)
        s.rows = cut_rows(&s.y)
        if job.sweep_count == 1 and s.y.extent == 1 and s.rows.taps == 1 and s.y.taps == 1:
            cut_line(&job, VEC_BYTES // item)
        s.blocks = s.z.taps * (s.y.taps // s.rows.taps)
        s.first = job.tiles
        job.tiles += s.z.extent * s.rows.tiles
        table = max(table, s.blocks * s.rows.loads)
    job.items = p.n * p.g * job.tiles
    job.macs = job.w.m * job.w.c * kernel * max(job.w.plane // job.tiles, 1)
    job.each = max(job.items // (TASKS_PER_THREAD * threads), TASK_MACS // job.macs)
    job.each = max(min(job.each, ROUND_MACS // job.macs), 1)
    job.tasks = (job.items - 1) // job.each + 1 if job.items else 0
    job.zeros = (p.out_extent[2] if gradient else p.in_extent[2]) + ALIGNED
    job.zeros = job.zeros // ALIGNED * ALIGNED
    job.private = ((table * job.w.c * ADDRESS // item - 1) // ALIGNED + 1) * ALIGNED
    return job


cdef inline void feed(
    const vec* weight, Py_ssize_t m_step, const vec* v, vec* acc, shape* tile, taps* column
) noexcept nogil:
    """Add one tap's products to every row and channel."""
    cdef int m, i, rows = rows_of(tile)
    cdef vec s
    for m in range(channels_of(tile)):
        s = lanes_from(weight, m * m_step)
        for i in range(rows):
            acc[m * rows + i] = acc[m * rows + i] + s * v[i * apart_of(column)]


cdef inline void sum_columns(
    const Job* job, const Axis* a, const vec* const* table, const vec* weight,
    Py_ssize_t y_step, Py_ssize_t x, vec* acc, shape* tile, taps* column,
) noexcept nogil:
    """Add the taps of one block: all kx, K ky."""
    cdef vec v[MOST_LOADS]
    cdef Py_ssize_t kx, at = a.advance * x + a.off0
    cdef int count = taps_of(column), loads = (rows_of(tile) - 1) * apart_of(column) + count
    for kx in range(a.taps):
        load(table, at, a.advance, span(-at, a.source - at), loads, v)
        feed(weight, job.weight_m, v, acc, tile, column)
        if count > 1:
            feed(ahead(weight, y_step), job.weight_m, v + 1, acc, tile, column)
        if count > 2:
            feed(ahead(weight, 2 * y_step), job.weight_m, v + 2, acc, tile, column)
        if count > 3:
            feed(ahead(weight, 3 * y_step), job.weight_m, v + 3, acc, tile, column)
            feed(ahead(weight, 4 * y_step), job.weight_m, v + 4, acc, tile, column)
        if count > 5:
            feed(ahead(weight, 5 * y_step), job.weight_m, v + 5, acc, tile, column)
            feed(ahead(weight, 6 * y_step), job.weight_m, v + 6, acc, tile, column)
        at += a.off_step
        weight = ahead(weight, a.tap_step)


cdef inline void sum_tile(
    const Job* job, const Sweep* s, const Axis* a, const vec* const* table,
    const vec* weight, const vec* bias, Py_ssize_t x, vec* acc, shape* tile, taps* column,
) noexcept nogil:
    """Sum all terms of one vector of columns."""
    cdef Py_ssize_t c, kz, ky, y_step = s.y.tap_step * job.p.kernel[2], place
    cdef Py_ssize_t z_step = s.z.tap_step * job.p.kernel[1] * job.p.kernel[2]
    cdef int m, i, rows = rows_of(tile)
    cdef vec b
    for m in range(channels_of(tile)):
        b = lanes_from(bias, m) if bias else zero_lanes(weight)
        for i in range(rows):
            acc[m * rows + i] = b
    place = (s.z.tap0 * job.p.kernel[1] + s.y.tap0) * job.p.kernel[2] + a.tap0
    for c in range(job.w.c):
        for kz in range(s.z.taps):
            ky = 0
            while ky < s.y.taps:
                sum_columns(
                    job, a, table,
                    ahead(weight, place + c * job.weight_c + kz * z_step + ky * y_step),
                    y_step, x, acc, tile, column,
                )
                table += s.rows.loads
                ky += taps_of(column)


cdef void run_rows(
    const Job* job, const Sweep* s, const vec* const* table, const vec* weight,
    const vec* bias, Py_ssize_t x, Py_ssize_t x_end, vec* to, Py_ssize_t to_row,
    Py_ssize_t count, shape* tile, taps* column,
) noexcept nogil:
    """Compute columns x .. x_end of `count` rows, `to_row` apart."""
    cdef vec acc[4 * ROWS]
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef int m, i, rows = rows_of(tile), channels = channels_of(tile)
    while x < x_end:
        sum_tile(job, s, &job.x[0], table, weight, bias, x, acc, tile, column)
        if job.x_count == 2:
            sum_tile(
                job, s, &job.x[1], table, weight, bias, x, acc + rows * channels, tile,
                column,
            )
            for m in range(channels):
                for i in range(rows):
                    if i < count:
                        zip_part(
                            <vec*>ahead(<const vec*>to, m * job.w.plane + i * to_row + 2 * x),
                            acc[m * rows + i], acc[(channels + m) * rows + i],
                            job.p.in_extent[2] - 2 * x,
                        )
        else:
            for m in range(channels):
                for i in range(rows):
                    if i < count:
                        put_part(
                            <vec*>ahead(<const vec*>to, m * job.w.plane + i * to_row + x),
                            acc[m * rows + i], x_end - x,
                        )
        x += lanes


cdef inline void run_shape(
    const Job* job, const Sweep* s, const vec* const* table, const vec* weight,
    const vec* bias, Py_ssize_t x, Py_ssize_t x_end, vec* to, Py_ssize_t to_row,
    Py_ssize_t count, shape* tile,
) noexcept nogil:
    """Choose the column of the kernel."""
    if s.rows.column == ONE:
        run_rows(job, s, table, weight, bias, x, x_end, to, to_row, count, tile, <one*>NULL)
    elif s.rows.column == TWO:
        run_rows(job, s, table, weight, bias, x, x_end, to, to_row, count, tile, <two*>NULL)
    elif s.rows.column == THREE:
        run_rows(job, s, table, weight, bias, x, x_end, to, to_row, count, tile, <three*>NULL)
    elif s.rows.column == FIVE:
        run_rows(job, s, table, weight, bias, x, x_end, to, to_row, count, tile, <five*>NULL)
    elif s.rows.column == SEVEN:
        run_rows(job, s, table, weight, bias, x, x_end, to, to_row, count, tile, <seven*>NULL)
    elif shape is low or shape is low_pair:  # `cut_rows` gives them no other
        if s.rows.column == THREE_APART:
            run_rows(
                job, s, table, weight, bias, x, x_end, to, to_row, count, tile,
                <three_apart*>NULL,
            )
        else:
            run_rows(
                job, s, table, weight, bias, x, x_end, to, to_row, count, tile,
                <five_apart*>NULL,
            )


cdef inline void run_vectors(
    const Job* job, const Sweep* s, const vec* const* table, const vec* weight,
    const vec* bias, Py_ssize_t x, Py_ssize_t x_end, vec* to, Py_ssize_t to_row,
    Py_ssize_t count,
) noexcept nogil:
    """Compute all channels of a tile, in pairs."""
    cdef Py_ssize_t m = 0
    cdef const vec* b = bias
    cdef const vec* w
    cdef vec* here
    while m < job.w.m:
        w = ahead(weight, m * job.weight_m)
        here = <vec*>ahead(<const vec*>to, m * job.w.plane)
        b = ahead(bias, m) if bias else NULL
        if m + 1 < job.w.m:
            if s.rows.rows == ROWS:
                run_shape(job, s, table, w, b, x, x_end, here, to_row, count, <tall_pair*>NULL)
            else:
                run_shape(job, s, table, w, b, x, x_end, here, to_row, count, <low_pair*>NULL)
        elif s.rows.rows == ROWS:
            run_shape(job, s, table, w, b, x, x_end, here, to_row, count, <tall*>NULL)
        else:
            run_shape(job, s, table, w, b, x, x_end, here, to_row, count, <low*>NULL)
        m += 2


cdef inline void run_part(
    const Job* job, const Sweep* s, const real* const* table, const real* weight,
    const real* bias, Py_ssize_t x, Py_ssize_t x_end, real* to, Py_ssize_t to_row,
    Py_ssize_t count,
) noexcept nogil:
    """Compute a tile on vectors of its type."""
    if real is float:
        run_vectors(
            job, s, <const f32v* const*>table, <const f32v*>weight, <const f32v*>bias, x,
            x_end, <f32v*>to, to_row, count,
        )
    else:
        run_vectors(
            job, s, <const f64v* const*>table, <const f64v*>weight, <const f64v*>bias, x,
            x_end, <f64v*>to, to_row, count,
        )


cdef inline bint inside(const Job* job, Py_ssize_t x) noexcept nogil:
    """Tell whether a piece of a line reads and writes nothing outside of it."""
    cdef Py_ssize_t i, first, last
    for i in range(job.x_count):
        first = job.x[i].advance * x + job.x[i].off0
        last = first + job.x[i].advance * job.line + job.x[i].off_step * (job.x[i].taps - 1)
        if first < 0 or last > job.x[i].source or x + job.line > job.x[i].extent:
            return False
    return True


cdef void run_line(
    const Job* job, const Sweep* s, Py_ssize_t piece, const real** table,
    const real* weight, const real* bias, const real* zeros, real* to,
) noexcept nogil:
    """Compute a piece of a single row: its vectors are the rows of the tile."""
    cdef Py_ssize_t x = piece * job.line, lanes = VEC_BYTES // sizeof(real), i, j, step
    cdef Py_ssize_t x_end = min(x + job.line, job.x[0].extent)
    if not inside(job, x):
        while x < x_end:  # a vector at a time: each has borders of its own
            run_part(
                job, s, <const real* const*>table, weight, bias, x, min(x + lanes, x_end),
                to, 0, 1,
            )
            x += lanes
        return
    for i in range(job.w.c * s.blocks):
        step = lanes * job.x[0].advance if table[i * ROWS] != zeros else 0
        for j in range(1, ROWS):
            table[i * ROWS + j] = table[i * ROWS] + j * step
    run_part(
        job, s, <const real* const*>table, weight, bias, x, x + lanes, to,
        lanes * job.x_count, ROWS,
    )


cdef void run_item(
    const Job* job, Py_ssize_t item, const real* source, const real* weight,
    const real* bias, const real* zeros, const real** table, real* out,
) noexcept nogil:
    """Compute one tile of rows: all columns, all channels of its group."""
    cdef Py_ssize_t index = item // job.tiles, tile = item % job.tiles
    cdef Py_ssize_t group = index % job.p.g, i = 0, c, first, z, row
    cdef const Sweep* s
    while i + 1 < job.sweep_count and tile >= job.sweeps[i + 1].first:
        i += 1
    s = &job.sweeps[i]
    tile -= s.first
    z = tile // s.rows.tiles
    tile = tile % s.rows.tiles
    first = 0 if job.line else first_row(&s.rows, tile)
    source += index * job.w.c * job.w.source_plane
    for c in range(job.w.c):
        fill_table(
            &s.rows, &s.z, &s.y, job.x[0].source, z, first,
            source + c * job.w.source_plane, zeros, table + c * s.blocks * s.rows.loads,
        )
    row = (s.z.start + s.z.step * z) * job.w.height + s.y.start + s.y.step * first
    out += index * job.w.m * job.w.plane + row * job.w.width
    weight += group * job.w.m * job.w.c * job.p.kernel[0] * job.p.kernel[1] * job.p.kernel[2]
    if bias:
        bias += group * job.w.m
    if job.line:
        run_line(job, s, tile, table, weight, bias, zeros, out)
    else:
        run_part(
            job, s, <const real* const*>table, weight, bias, 0, job.x[0].extent, out,
            s.y.step * s.rows.unit * job.w.width, rows_in(&s.rows, &s.y, first),
        )


cdef int run(
    const Job* job, const real* source, const real* weight, const real* bias, real* out,
    real* scratch, int threads,
) except -1:
    """Do the tasks round by round."""
    cdef Py_ssize_t i, j, begin = 0, end, last
    cdef Py_ssize_t step = max(ROUND_MACS // (job.macs * job.each), 1) * threads
    memset(scratch, 0, job.zeros * sizeof(scratch[0]))
    while begin < job.tasks:
        end = min(begin + step, job.tasks)
        with nogil:
            for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
                last = min((i + 1) * job.each, job.items)
                for j in range(i * job.each, last):
                    run_item(
                        job, j, source, weight, bias, <const real*>scratch,
                        <const real**>(scratch + job.zeros + threadid() * job.private),
                        out,
                    )
        PyErr_CheckSignals()
        begin = end
    return 0


cdef int check(bint right) except -1:
    """Refuse buffers that the geometry does not describe: a bug in the caller."""
    if not right:
        raise ValueError("conv_planes: a buffer does not have the size of its problem")
    return 0


cdef int start(
    const long long[::1] geometry, bint gradient, const real[::1] source,
    const real[::1] weight, const real[::1] bias, real[::1] out, real[::1] scratch,
    int threads,
) except -1:
    """Check the sizes and run the direction."""
    cdef const Conv* p
    cdef Job job
    check(geometry.shape[0] == CONV_FIELDS and threads >= 1)
    p = <const Conv*>&geometry[0]
    job = make_job(p, gradient, sizeof(real), threads)
    check(source.shape[0] == p.n * p.g * job.w.c * job.w.source_plane)
    check(out.shape[0] == p.n * p.g * job.w.m * job.w.plane)
    check(weight.shape[0] == p.g * p.ocg * p.icg * p.kernel[0] * p.kernel[1] * p.kernel[2])
    check(bias.shape[0] == 0 or bias.shape[0] == p.g * job.w.m)
    check(scratch.shape[0] >= job.zeros + threads * job.private)
    if job.tasks == 0:
        return 0
    return run(
        &job, &source[0], &weight[0], &bias[0] if bias.shape[0] else NULL, &out[0],
        &scratch[0], threads,
    )


def scratch_size(const long long[::1] geometry, str direction, Py_ssize_t item, int threads):
    """Give the scalars of scratch that fprop or dgrad needs."""
    cdef Job job
    check(geometry.shape[0] == CONV_FIELDS and threads >= 1)
    job = make_job(<const Conv*>&geometry[0], direction == "dgrad", item, threads)
    return job.zeros + threads * job.private


def fprop(
    const long long[::1] geometry, const real[::1] x, const real[::1] weight,
    const real[::1] bias, real[::1] y, real[::1] scratch, int threads,
):
    """Write the convolution of x to y; an empty bias is none."""
    start(geometry, False, x, weight, bias, y, scratch, threads)


def dgrad(
    const long long[::1] geometry, const real[::1] dy, const real[::1] weight,
    const real[::1] bias, real[::1] dx, real[::1] scratch, int threads,
):
    """Write the gradient of x, plus a bias (of a transposed convolution), to dx."""
    start(geometry, True, dy, weight, bias, dx, scratch, threads)
