# The gradients of a convolution with a kernel that covers its whole input.
#
# What      dx[n, k] = bias[k // taps] + sum over o of dy[n, o] * weight[o, k]
#           dw[o, k] = sum over n of dy[n, o] * x[n, k]        db[o] = sum over n of dy[n, o]
#           The first two are to[m, k] = start + sum over r of factor[m, r] * row[r, k].
# Layout    Factors are few and packed; rows lie in memory as the tile reads them.
#
#                     r ->                       k ->  NR     NR
#              m  [ factors, MR ]   x     r  [ rows | rows | ... ]    added to to [m, k]
#              |  [             ]         |  [      |      |     ]
#
# Assumes   buffers of the sizes that the geometry tells; extents >= 1.
# Parallel  over tasks = (group, block of m, block of k): each writes its own elements.
# Order     Up to KC rows are summed in ascending order from zero, and added to what was there:
#           the same for every element, wherever its tile begins.
# Scratch   per thread the factors of a tile, addresses of rows, one panel and one tile for
#           the last columns.
# Cost      2 * n * oc * terms FLOPs; rows are read in place, once for M_BLOCK elements m.
# Why not   conv_gemm: it packs all weights for dx, and turns dy and patches around for dw;
#           for one row of 9216 -> 4096 that took 68 and 256 ms, and NumPy takes 5 and 48.
# Source    as conv_gemm.pyx.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.buffers cimport (
    Buffers, call, geometry_of, reals, reals_or_nothing, room,
)
from convcore.kernels.geometry cimport CONV_FIELDS, Conv, conv_of, volume
from convcore.kernels.rounds cimport round_of
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport chain, put_rows, put_wide
from convcore.kernels.vector cimport MR, MR_HALF, MR_QUARTER, NR_BYTES, WIDE, copy, nr, real

cdef enum:
    KC = 256  # rows that are summed before they are added
    PANELS = 16  # panels of a task: their KC rows are half of L2
    M_BLOCK = 64  # elements m of a task
    ADDRESS = 8  # bytes of an address, at most
    CHANNELS = 512  # of a task that sums samples

cdef struct Job:
    Py_ssize_t g, m, r, k                    # of a group: elements m, rows r, columns k
    Py_ssize_t factor_m, factor_r            # scalars from factor to factor
    Py_ssize_t row_step, to_step             # from row to row
    Py_ssize_t factor_g, row_g, to_g         # from group to group
    Py_ssize_t taps                          # columns that share a bias
    Py_ssize_t m_tasks, k_tasks, tasks, private


cdef Job make_job(const Conv* p, bint weights, Py_ssize_t item) noexcept nogil:
    """Say what is multiplied, and split the work."""
    cdef Job job
    cdef Py_ssize_t terms = p.icg * volume(p.kernel), lanes = NR_BYTES // item
    job.g, job.k, job.taps = p.g, terms, volume(p.kernel)
    job.factor_g = p.ocg
    if weights:
        job.m, job.r, job.factor_m, job.factor_r = p.ocg, p.n, 1, p.g * p.ocg
        job.row_step, job.row_g = p.g * terms, terms
        job.to_step, job.to_g = terms, p.ocg * terms
    else:
        job.m, job.r, job.factor_m, job.factor_r = p.n, p.ocg, p.g * p.ocg, 1
        job.row_step, job.row_g = terms, p.ocg * terms
        job.to_step, job.to_g = p.g * terms, terms
    job.m_tasks = (job.m - 1) // M_BLOCK + 1 if job.m else 0
    job.k_tasks = (job.k - 1) // (PANELS * lanes) + 1
    job.tasks = p.g * job.m_tasks * job.k_tasks
    job.private = KC * (MR + lanes + PANELS * ADDRESS // item) + MR * lanes
    return job


cdef inline Py_ssize_t tile_of(Py_ssize_t left) noexcept nogil:
    """Give the rows of the largest tile that `left` elements m fill."""
    if left >= MR:
        return MR
    if left >= MR_HALF:
        return MR_HALF
    return MR_QUARTER if left >= MR_QUARTER else 1


cdef void multiply_tile(
    const Job* job, const real* factors, const real* const* rows, Py_ssize_t depth,
    Py_ssize_t count, Py_ssize_t m, real* tile, real* to,
) noexcept nogil:
    """Add `depth` products to m rows of `count` columns; `tile` is for those at the end."""
    cdef Py_ssize_t lanes = nr(factors), i, j
    while count > 0:
        if m == 1 and count >= WIDE * lanes:
            put_wide(factors, 1, rows, KC, depth, <const real*>NULL, to, lanes)
            rows += WIDE * KC
            to += WIDE * lanes
            count -= WIDE * lanes
            continue
        if count >= lanes:
            put_rows(factors, 1, m, rows, depth, <const real*>NULL, to, job.to_step, m)
        else:
            memset(tile, 0, m * lanes * sizeof(real))
            put_rows(factors, 1, m, rows, depth, <const real*>NULL, tile, lanes, m)
            for i in range(m):
                for j in range(count):
                    to[i * job.to_step + j] += tile[i * lanes + j]
        rows += KC
        to += lanes
        count -= lanes


cdef void find_rows(
    const Job* job, const real* source, Py_ssize_t depth, Py_ssize_t count, real* last,
    const real** rows,
) noexcept nogil:
    """List the addresses of `depth` rows, panel by panel; the last panel may be a copy."""
    cdef Py_ssize_t lanes = nr(source), r
    while count > 0:
        for r in range(depth):
            rows[r] = source + r * job.row_step
            if count < lanes:
                memset(last + r * lanes, 0, NR_BYTES)
                copy(last + r * lanes, rows[r], count)
                rows[r] = last + r * lanes
        rows += KC
        source += lanes
        count -= lanes


cdef void begin_rows(
    const Job* job, const real* bias, Py_ssize_t first, Py_ssize_t count, Py_ssize_t m,
    real* to,
) noexcept nogil:
    """Write what the sums are added to: a bias, or zeros."""
    cdef Py_ssize_t i, j
    for i in range(m):
        if bias:
            for j in range(count):
                to[i * job.to_step + j] = bias[(first + j) // job.taps]
        else:
            memset(to + i * job.to_step, 0, count * sizeof(real))


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* factor, const real* source,
    const real* bias, real* private, real* to,
) noexcept nogil:
    """Compute the elements of one task."""
    cdef Py_ssize_t lanes = nr(source), first = task % job.k_tasks * PANELS * lanes
    cdef Py_ssize_t rest = task // job.k_tasks, m0 = rest % job.m_tasks * M_BLOCK
    cdef Py_ssize_t group = rest // job.m_tasks, m1 = min(m0 + M_BLOCK, job.m)
    cdef Py_ssize_t count = min(PANELS * lanes, job.k - first), r = 0, depth, m, here, i, j
    cdef const real** rows = <const real**>private
    cdef real* last = private + KC * PANELS * ADDRESS // sizeof(real)
    cdef real* tile = last + KC * lanes
    cdef real* factors = tile + MR * lanes
    factor += group * job.factor_g
    source += group * job.row_g + first
    to += group * job.to_g + first
    if bias:
        bias += group * (job.k // job.taps)
    begin_rows(job, bias, first, count, m1 - m0, to + m0 * job.to_step)
    while r < job.r:
        depth = min(min(KC, chain(job.r)), job.r - r)
        find_rows(job, source + r * job.row_step, depth, count, last, rows)
        m = m0
        while m < m1:
            here = tile_of(m1 - m)
            for i in range(depth):
                for j in range(here):
                    factors[i * here + j] = factor[
                        (m + j) * job.factor_m + (r + i) * job.factor_r
                    ]
            multiply_tile(
                job, <const real*>factors, <const real* const*>rows, depth, count, here,
                tile, to + m * job.to_step,
            )
            m += here
        r += depth


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* factor,
    const real* source, const real* bias, real* scratch, real* to, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, factor, source, bias, scratch, to)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(job, i, factor, source, bias, scratch + threadid() * job.private, to)


cdef int run(
    const Job* job, const real* factor, const real* source, const real* bias,
    real* scratch, real* to, int threads,
) except -1:
    """Do the tasks round by round."""
    cdef Py_ssize_t begin = 0, end, each, macs
    macs = min(M_BLOCK, job.m) * min(PANELS * nr(source), job.k) * job.r
    each = round_of(macs, 1, threads)
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            run_tasks(job, begin, end, factor, source, bias, scratch, to, threads)
        look()
        begin = end
    return 0


cdef void add_samples(
    Py_ssize_t n, Py_ssize_t channels, Py_ssize_t first, const real* dy, real* db
) noexcept nogil:
    """Sum some channels over all samples, from channel `first` on, block by block."""
    cdef Py_ssize_t i, j, k, count = min(CHANNELS, channels - first), most = chain(n)
    cdef real[CHANNELS] sums
    memset(db + first, 0, count * sizeof(real))
    i = 0
    while i < n:
        memset(sums, 0, count * sizeof(real))
        for k in range(i, min(i + most, n)):
            for j in range(count):
                sums[j] += dy[k * channels + first + j]
        for j in range(count):
            db[first + j] += sums[j]
        i += most


cdef void add_all_samples(
    Py_ssize_t n, Py_ssize_t channels, const real* dy, real* db, int threads
) noexcept nogil:
    """Sum all channels."""
    cdef Py_ssize_t i, tasks = (channels - 1) // CHANNELS + 1
    if threads == 1:
        for i in range(tasks):
            add_samples(n, channels, i * CHANNELS, dy, db)
        return
    for i in prange(tasks, num_threads=threads, schedule="static"):
        add_samples(n, channels, i * CHANNELS, dy, db)


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, weight, bias, dx and scratch, and compute dx."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, False, sizeof(real))
    cdef const real* dy = reals(held, 1, p.n * p.g * p.ocg, like)
    cdef const real* weight = reals(held, 2, p.g * p.ocg * job.k, like)
    cdef const real* bias = reals_or_nothing(held, 3, p.g * p.icg, like)
    cdef real* dx = reals(held, 4, p.n * p.g * job.k, like)
    cdef real* scratch = room(held, 5, threads * job.private, like)
    return run(&job, dy, weight, bias, scratch, dx, threads)


cdef int weight_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x, dy, dw and scratch, and compute dw."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, True, sizeof(real))
    cdef const real* x = reals(held, 1, p.n * p.g * job.k, like)
    cdef const real* dy = reals(held, 2, p.n * p.g * p.ocg, like)
    cdef real* dw = reals(held, 3, p.g * p.ocg * job.k, like)
    cdef real* scratch = room(held, 4, threads * job.private, like)
    return run(&job, dy, x, <const real*>NULL, scratch, dw, threads)


cdef int bias_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy and db, and compute db."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef const real* dy = reals(held, 1, p.n * p.g * p.ocg, like)
    cdef real* db = reals(held, 2, p.g * p.ocg, like)
    with nogil:
        add_all_samples(p.n, p.g * p.ocg, dy, db, threads)
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that a direction needs."""
    cdef Conv p = conv_of(geometry, threads)
    cdef Job job = make_job(&p, direction == "wgrad", item)
    return 0 if direction == "bgrad" else threads * job.private


def dgrad(geometry, dy, weight, bias, dx, scratch, int threads, /):
    """Write the gradient of x, plus a bias (of a transposed convolution), to dx."""
    call(
        (geometry, dy, weight, bias), (dx, scratch), threads, gradient[float], gradient[double]
    )


def wgrad(geometry, x, dy, dw, scratch, int threads, /):
    """Write the gradient of weight to dw."""
    call(
        (geometry, x, dy), (dw, scratch), threads, weight_gradient[float],
        weight_gradient[double],
    )


def bgrad(geometry, dy, db, scratch, int threads, /):
    """Write the gradient of bias, one sum for each channel of dy, to db."""
    call((geometry, dy), (db, scratch), threads, bias_gradient[float], bias_gradient[double])
