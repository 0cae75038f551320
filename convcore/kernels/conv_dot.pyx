# Convolution with a kernel that covers its whole input: the fully connected layer.
#
# What      y[n, o] = bias[o] + sum over k of weight[o, k] * x[n, k]
#           k an element of a sample, in the order in which both arrays have it.
# Layout    x (n, g*terms), weight (g*ocg, terms), y (n, g*ocg), flat. A tile of DOT_X
#           samples and DOT_W rows of weight, one vector of sums for each pair:
#
#                  k -> lanes                 k -> lanes
#           n  [ xxxx xxxx ... ]       o  [ wwww wwww ... ]      sums [n, o] of lanes,
#           |  [ xxxx xxxx ... ]       |  [ wwww wwww ... ]      added up at the end of
#           v                          v  [ wwww wwww ... ]      a block of terms
#
# Assumes   buffers of the sizes that the geometry tells; extents >= 1.
# Parallel  over tasks = (group, block of o, block of n): each writes its own outputs.
# Order     BLOCK_BYTES of terms are summed lane by lane in ascending k, what is behind the
#           last one is zero; the lanes are added in a tree, the blocks in order. That is
#           the same in a tile of any shape, so a sample's bits depend on its own values
#           and the terms alone: not on the batch, the tasks or the threads.
# Scratch   none: both operands are read where they are, the weights once for N_BLOCK rows.
# Cost      2 * n * oc * terms FLOPs; DOT_X + DOT_W loads for DOT_X * DOT_W multiply-adds.
# Why not   conv_gemm: it packs all weights, which pays from some hundred rows on; for one
#           row of 9216 -> 4096 that took ten times as long as reading them.
# Source    Goto and van de Geijn, ACM TOMS 35 (2008), High-performance implementation of
#           the level-3 BLAS, for the product with a transposed operand.

from cython.parallel cimport prange
from libc.string cimport memcpy

from convcore.kernels.activation cimport rectify
from convcore.kernels.buffers cimport (
    Buffers, call, geometry_of, reals, reals_or_nothing,
)
from convcore.kernels.geometry cimport CONV_FIELDS, Conv, volume
from convcore.kernels.rounds cimport round_of
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    DOT_TILE, DOT_W, DOT_X, VEC_BYTES, f32v, f64v, real, vec, ahead, fold, merge, zero_lanes,
)

cdef enum:
    BLOCK_BYTES = 8192  # of terms: the rows of x in a tile stay in L1
    N_BLOCK = 64  # rows of x in a task: their blocks of terms stay in L2
    O_TILES = 16  # tiles of o in a task, which share those
    ROOM = 32  # vectors of a tile, rounded up to its lanes; at most

cdef struct Job:
    Py_ssize_t n, g, ocg, terms
    bint relu
    Py_ssize_t o_block, o_tasks, n_block, n_tasks, tasks, macs

cdef struct full:
    char _

cdef struct single:
    char _

ctypedef fused x_shape:  # of a tile, as types: its rows are constants of each function
    full
    single

ctypedef fused w_shape:
    full
    single


cdef Job make_job(const Conv* p) noexcept nogil:
    """Split the work."""
    cdef Job job
    job.n, job.g, job.ocg = p.n, p.g, p.ocg
    job.terms = p.icg * volume(p.kernel)
    job.relu = p.relu
    # Few rows of x stay in L1 whole: then each row of weight is read from end to end.
    job.o_block = DOT_W * (O_TILES if p.n > DOT_X else 1)
    job.o_tasks = (job.ocg - 1) // job.o_block + 1
    job.n_block = N_BLOCK
    job.n_tasks = (job.n - 1) // job.n_block + 1 if job.n else 0
    job.tasks = job.g * job.o_tasks * job.n_tasks
    job.macs = min(job.n_block, job.n) * job.o_block * job.terms
    return job


cdef inline void multiply(
    const vec* x, Py_ssize_t x_row, const vec* w, Py_ssize_t w_row, Py_ssize_t count,
    vec* sums, x_shape* x_rows, w_shape* w_rows,
) noexcept nogil:
    """Sum `count` terms of all pairs of a tile, lane by lane."""
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8), _step, steps = count // lanes
    cdef int i, j
    cdef int rows = DOT_X if x_shape is full else 1, columns = DOT_W if w_shape is full else 1
    cdef vec[DOT_X] a
    cdef vec[DOT_TILE] acc
    cdef vec b
    cdef unsigned long long rest = (<unsigned long long>1 << (count - steps * lanes)) - 1
    for i in range(rows):
        for j in range(columns):
            acc[i * columns + j] = zero_lanes(x)
    for _step in range(steps):
        for i in range(rows):
            a[i] = ahead(x, i * x_row)[0]
        for j in range(columns):
            b = ahead(w, j * w_row)[0]
            for i in range(rows):
                acc[i * columns + j] = acc[i * columns + j] + a[i] * b
        x = ahead(x, lanes)
        w = ahead(w, lanes)
    if rest:
        for i in range(rows):
            a[i] = merge(zero_lanes(x), ahead(x, i * x_row), rest)
        for j in range(columns):
            b = merge(zero_lanes(w), ahead(w, j * w_row), rest)
            for i in range(rows):
                acc[i * columns + j] = acc[i * columns + j] + a[i] * b
    for i in range(rows):
        for j in range(columns):
            sums[i * columns + j] = acc[i * columns + j]


cdef inline void add_lanes(vec* sums, int number) noexcept nogil:
    """Put the totals of `number` vectors side by side: each the same tree of its lanes."""
    cdef int lanes = VEC_BYTES // (4 if vec is f32v else 8), group, left, i
    cdef vec* these = sums
    for group in range((number - 1) // lanes + 1):
        for i in range(number - group * lanes, lanes):
            these[i] = zero_lanes(<const vec*>sums)
        left = lanes
        while left > 1:
            left = left // 2
            for i in range(left):
                these[i] = fold(these[2 * i], these[2 * i + 1])
        sums[group] = these[0]
        these += lanes


cdef inline void tile_sums(
    const vec* x, Py_ssize_t x_row, const vec* w, Py_ssize_t w_row, Py_ssize_t count,
    real* totals, x_shape* x_rows, w_shape* w_rows,
) noexcept nogil:
    """Sum `count` terms of all pairs of a tile."""
    cdef vec[ROOM] sums
    multiply(x, x_row, w, w_row, count, sums, x_rows, w_rows)
    add_lanes(
        sums, (DOT_X if x_shape is full else 1) * (DOT_W if w_shape is full else 1)
    )
    memcpy(totals, sums, DOT_TILE * sizeof(real))


cdef void dot_tile(
    const real* x, Py_ssize_t x_row, const real* w, Py_ssize_t w_row, Py_ssize_t count,
    const real* bias, bint first, bint rectified, real* y, Py_ssize_t y_row,
    x_shape* x_rows, w_shape* w_rows,
) noexcept nogil:
    """Add `count` terms to the outputs of one tile; the first ones, and a bias, begin it."""
    cdef real[ROOM] sums
    cdef int rows = DOT_X if x_shape is full else 1, columns = DOT_W if w_shape is full else 1
    cdef int i, j
    cdef real sum
    if real is float:
        tile_sums(
            <const f32v*>x, x_row, <const f32v*>w, w_row, count, sums, x_rows, w_rows
        )
    else:
        tile_sums(
            <const f64v*>x, x_row, <const f64v*>w, w_row, count, sums, x_rows, w_rows
        )
    for i in range(rows):
        for j in range(columns):
            sum = sums[i * columns + j]
            if not first:
                sum = y[i * y_row + j] + sum
            elif bias:
                sum = sum + bias[j]
            y[i * y_row + j] = sum
        if rectified:
            rectify(y + i * y_row, columns)


cdef void dot_rows(
    const Job* job, const real* x, Py_ssize_t rows, const real* w, Py_ssize_t count,
    const real* bias, bint first, bint rectified, real* y, w_shape* w_rows,
) noexcept nogil:
    """Do tiles of all rows of x; `w_rows` tells how many rows of weight they have."""
    cdef Py_ssize_t x_row = job.g * job.terms, y_row = job.g * job.ocg
    while rows >= DOT_X:
        dot_tile(
            x, x_row, w, job.terms, count, bias, first, rectified, y, y_row, <full*>NULL,
            w_rows,
        )
        x += DOT_X * x_row
        y += DOT_X * y_row
        rows -= DOT_X
    while rows:
        dot_tile(
            x, x_row, w, job.terms, count, bias, first, rectified, y, y_row, <single*>NULL,
            w_rows,
        )
        x += x_row
        y += y_row
        rows -= 1


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* x, const real* weight, const real* bias,
    real* y,
) noexcept nogil:
    """Compute the outputs of one task, block of terms by block."""
    cdef Py_ssize_t n0 = task % job.n_tasks * job.n_block
    cdef Py_ssize_t rest = task // job.n_tasks, group = rest // job.o_tasks
    cdef Py_ssize_t o0 = rest % job.o_tasks * job.o_block
    cdef Py_ssize_t rows = min(job.n_block, job.n - n0)
    cdef Py_ssize_t last = min(job.o_block, job.ocg - o0), k = 0, o, count, channel
    cdef bint rectified  # after the last terms
    cdef const real* at_x
    cdef const real* at_w
    cdef const real* at_bias
    cdef real* at_y
    while k < job.terms:
        count = min(BLOCK_BYTES // <Py_ssize_t>sizeof(real), job.terms - k)
        rectified = job.relu and k + count == job.terms
        at_x = x + (n0 * job.g + group) * job.terms + k
        o = 0
        while o < last:
            channel = group * job.ocg + o0 + o
            at_w = weight + channel * job.terms + k
            at_bias = bias + channel if bias else NULL
            at_y = y + n0 * job.g * job.ocg + channel
            if o + DOT_W <= last:
                dot_rows(
                    job, at_x, rows, at_w, count, at_bias, k == 0, rectified, at_y,
                    <full*>NULL,
                )
                o += DOT_W
            else:
                dot_rows(
                    job, at_x, rows, at_w, count, at_bias, k == 0, rectified, at_y,
                    <single*>NULL,
                )
                o += 1
        k += count


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* x, const real* weight,
    const real* bias, real* y, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, x, weight, bias, y)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(job, i, x, weight, bias, y)


cdef int forward(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x, weight, bias and y, and compute y round by round."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p)
    cdef const real* x = reals(held, 1, p.n * p.g * job.terms, like)
    cdef const real* weight = reals(held, 2, p.g * p.ocg * job.terms, like)
    cdef const real* bias = reals_or_nothing(held, 3, p.g * p.ocg, like)
    cdef real* y = reals(held, 4, p.n * p.g * p.ocg, like)
    cdef Py_ssize_t begin = 0, end, each = round_of(job.macs, 1, threads)
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            run_tasks(&job, begin, end, x, weight, bias, y, threads)
        look()
        begin = end
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that fprop needs: none."""
    return 0


def fprop(geometry, x, weight, bias, y, scratch, int threads, /):
    """Write the products of x and weight to y; a bias of None is none."""
    call((geometry, x, weight, bias), (y, scratch), threads, forward[float], forward[double])
