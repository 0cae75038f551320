# Max pooling of small dense windows, row by row, where the rows lie.
#
# What      y[o] = max x[i] over i in window(o); label[o] tells which tap it is: the first
#           NaN, or else the first of equal maxima, in row-major order
# Layout    A block is as many neighbouring windows of a row as lie over two vectors of
#           columns. What is padding is masked out as it is loaded; the taps of the windows
#           are picked out of the two vectors:
#
#               columns      . . a b c d e f | g h i j k l m n     kernel 3, stride 2
#               tap 0        . a c e g i k
#               tap 1        . b d f h j l
#               tap 2        a c e g i k m
#
#           Values alone: rows first, then columns. With labels along each row first, then
#           over rows, which keeps the order of ties; the last row is kept for the windows
#           below if they begin with it. That leaves NaN out: a block that holds one is
#           done again, tap by tap.
# Assumes   buffers of the sizes that the geometry tells; windows that a block fits. It is
#           compiled for AVX-512 alone, which has masked loads and picks from two vectors.
# Parallel  over rows of y.
# Scratch   none.
# Cost      memory: one read of x, one write of y, one byte a label (8 for indices).
# Why not   pool_max_flat.pyx: it copies rows first, which takes longer than to pool them.
# Source    Gil and Kimmel, IEEE TPAMI 24 (2002): first along one axis, then along the other.

from cython.parallel cimport prange
from libc.math cimport INFINITY

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport Buffers, call, reals, refuse
from convcore.kernels.pool_flat cimport AHEAD, first_bits, lanes_of, put_label
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, all_lanes, cc_fetch, cc_fetch_to_write, f32v, f64v, lanes_at, merge,
    put_part, real, vec, zero_lanes, zip_part,
)
from convcore.kernels.vector_compare cimport (
    all_labels, compare, contest, has_nan, later, plus_labels, put_bytes,
)
from convcore.kernels.windows cimport (
    Labels, Pool, elements_of, labels_of, pool_of, start_of, windows_of,
)

cdef enum:
    COLUMNS = 16  # most columns of a window
    LANES = 16  # of a vector, at most
    MOST_BYTES = 16  # that labels of a vector are stored in
    TAPS = 256
    BLOCKS = 32  # of a row, whose last rows are kept

cdef struct Tables:  # integers as wide as the scalars
    double[COLUMNS * LANES] at  # the lanes of each tap along W
    double[LANES] lead  # the label that the windows at the start of a row begin with
    double[LANES] place  # the distance of each window from the first one

cdef struct Job:
    Pool p
    Tables t
    Py_ssize_t outs  # windows of a block, at most
    Py_ssize_t fresh_rows  # that no window before holds
    long long row, slab  # labels from a row of taps to the next one, from a slab
    bint two  # whether a block lies over two vectors
    bint labelled, flat

cdef struct Row:  # of windows
    Py_ssize_t z, y, plane  # the first element of its plane
    Py_ssize_t slabs, rows, first  # of elements under it; the first one
    long long label, base  # of the first tap that exists; the first tap of all
    Py_ssize_t later  # the last row of elements under a later one
    bint shares  # whether the last row under the row before is the first of this one

cdef struct Last:  # row of elements under a block
    double[LANES] best  # its maxima, and their columns
    double[LANES] label
    bint odd  # whether there is a NaN in it

cdef struct Block:
    Py_ssize_t start, n, to  # its first column; windows; the first of all
    unsigned long long bits  # columns that exist


cdef inline vec columns_at(
    const vec* row, unsigned long long bits, bint second
) noexcept nogil:
    """Load the first or the second vector of columns of a row; padding is -inf."""
    cdef Py_ssize_t lanes = lanes_of(row) if second else 0
    return merge(all_lanes(row, -INFINITY), ahead(row, lanes), bits >> lanes)


cdef inline vec picked(const vec* at, Py_ssize_t k, vec a, vec b, bint two) noexcept nogil:
    """Give tap k of all windows from their columns."""
    return lanes_at(a, b if two else a, ahead(at, k * lanes_of(at))[0])


cdef inline void values_of_block(
    const Job* job, const Row* r, const Block* b, const vec* x, vec* y, bint two,
    Py_ssize_t taps, Py_ssize_t slabs, Py_ssize_t rows,
) noexcept nogil:
    """Write the maxima of a block."""
    cdef Py_ssize_t z, k, width = job.p.x.extent
    cdef Py_ssize_t slab = job.p.y.extent * width
    cdef unsigned long long bits = b.bits
    cdef vec a = all_lanes(x, -INFINITY), c = a, best
    cdef const vec* at = <const vec*>job.t.at
    cdef const vec* first = ahead(x, r.first + b.start)
    cdef const vec* row
    for z in range(slabs):
        row = ahead(first, z * slab)
        for _ in range(rows):
            a = later(columns_at(row, bits, False), a)
            if two:
                c = later(columns_at(row, bits, True), c)
            row = ahead(row, width)
    best = picked(at, 0, a, c, two)
    for k in range(1, taps):
        best = later(picked(at, k, a, c, two), best)
    put_part(y, best, b.n)


cdef inline vec labels_of_block(
    const Job* job, const Row* r, const Block* b, const vec* x, vec* y, bint two
) noexcept nogil:
    """Write the maxima of a block, and give their labels."""
    cdef Py_ssize_t z, k, width = job.p.x.extent, taps = job.p.x.kernel
    cdef Py_ssize_t slab = job.p.y.extent * width, rows = r.rows
    cdef unsigned long long bits = b.bits
    cdef vec a, c, best = all_lanes(x, -INFINITY), label = all_labels(x, r.label)
    cdef const vec* at = <const vec*>job.t.at
    cdef const vec* first = ahead(x, r.first + b.start)
    cdef const vec* row
    cdef long long n, below = job.row
    if b.start < 0:
        label = plus_labels(label, (<const vec*>job.t.lead)[0])
    for z in range(r.slabs):
        row = ahead(first, z * slab)
        n = r.label + z * job.slab
        for _ in range(rows):
            a = c = columns_at(row, bits, False)
            if two:
                c = columns_at(row, bits, True)
            for k in range(taps):
                contest(picked(at, k, a, c, two), all_labels(x, n + k), &best, &label)
            n += below
            row = ahead(row, width)
    put_part(y, best, b.n)
    return label


cdef inline bint argmax_along(
    const Job* job, const Block* b, const vec* row, vec* best, vec* label, bint two,
    Py_ssize_t taps,
) noexcept nogil:
    """Give the maxima along one row and their columns, unless something is NaN."""
    cdef vec a = columns_at(row, b.bits, False), c = a
    cdef const vec* at = <const vec*>job.t.at
    cdef Py_ssize_t k
    if two:
        c = columns_at(row, b.bits, True)
    best[0] = picked(at, 0, a, c, two)
    label[0] = (<const vec*>job.t.lead)[0] if b.start < 0 else all_labels(row, 0)
    for k in range(1, taps):
        compare(picked(at, k, a, c, two), all_labels(row, k), best, label)
    return has_nan(a, c)


cdef inline vec labels_by_rows(
    const Job* job, const Row* r, const Block* b, const vec* x, vec* y, bint two,
    Py_ssize_t taps, Py_ssize_t slabs, Last* last,
) noexcept nogil:
    """Do `labels_of_block`: rows first, the last of which the next windows may begin with."""
    cdef Py_ssize_t z, i, width = job.p.x.extent
    cdef vec best, label, v, k, u, l
    cdef const vec* first = ahead(x, r.first + b.start)
    cdef const vec* row = first
    cdef bint odd
    if r.shares:
        best = (<const vec*>last.best)[0]
        label = (<const vec*>last.label)[0]
        odd = last.odd
    else:
        odd = argmax_along(job, b, row, &best, &label, two, taps)
    v, k = best, label
    label = plus_labels(label, all_labels(x, r.label))
    last.odd = odd
    for z in range(slabs):
        row = ahead(first, z * job.p.y.extent * width)
        for i in range(z == 0, r.rows):
            u = v
            last.odd = argmax_along(job, b, ahead(row, i * width), &u, &l, two, taps)
            odd = odd or last.odd
            v = u
            k = plus_labels(l, all_labels(x, r.label + z * job.slab + i * job.row))
            compare(v, k, &best, &label)
            k = l
    (<vec*>last.best)[0] = v
    (<vec*>last.label)[0] = k
    if odd:
        return labels_of_block(job, r, b, x, y, two)
    put_part(y, best, b.n)
    return label


cdef inline void put_indices(
    const Job* job, const Row* r, const Block* b, vec label, long long* index
) noexcept nogil:
    """Store labels as indices."""
    label = plus_labels(label, (<const vec*>job.t.place)[0])
    label = plus_labels(label, all_labels(&label, r.base + b.start))
    if vec is f32v:  # zeros are the high halves
        zip_part(<vec*>(index + b.to), label, zero_lanes(&label), 2 * b.n)
    else:
        put_part(<vec*>(index + b.to), label, b.n)


cdef inline void put_taps(
    const Block* b, vec label, unsigned char* tap, Py_ssize_t end
) noexcept nogil:
    """Store labels as bytes; those behind them, up to `end`, are written later."""
    cdef unsigned char[MOST_BYTES] held
    cdef Py_ssize_t j
    if b.to + lanes_of(&label) <= end:
        put_bytes(tap + b.to, label)
        return
    put_bytes(held, label)
    for j in range(b.n):
        tap[b.to + j] = held[j]


cdef inline void do_block(
    const Job* job, const Row* row, const Block* b, const vec* x, vec* y, const Labels* r,
    Py_ssize_t end, Last* last,
) noexcept nogil:
    """Write one block, and ask for what a later one reads for the first time and writes.

    Here, since a function of such questions alone does nothing, to the compiler.
    """
    cdef const Pool* p = &job.p
    cdef vec label
    cdef Py_ssize_t taps = p.x.kernel
    cdef const vec* at = ahead(x, b.start + row.later)
    for _ in range(job.fresh_rows):
        cc_fetch(at)
        if job.two:
            cc_fetch(<const char*>at + VEC_BYTES)
        at = ahead(at, -p.x.extent)
    y = <vec*>ahead(y, b.to)
    cc_fetch_to_write(<const char*>y + AHEAD)
    if job.flat:
        cc_fetch_to_write(<const char*>(r.index + b.to) + AHEAD)
        cc_fetch_to_write(<const char*>(r.index + b.to) + AHEAD + VEC_BYTES)
    if not job.labelled:
        if job.two and taps == 3 and row.slabs == 1 and row.rows == 3:
            values_of_block(job, row, b, x, y, True, 3, 1, 3)
        elif job.two:
            values_of_block(job, row, b, x, y, True, taps, row.slabs, row.rows)
        else:
            values_of_block(job, row, b, x, y, False, taps, row.slabs, row.rows)
        return
    if job.two:
        if taps == 3 and row.slabs == 1:
            label = labels_by_rows(job, row, b, x, y, True, 3, 1, last)
        else:
            label = labels_by_rows(job, row, b, x, y, True, taps, row.slabs, last)
    else:
        label = labels_by_rows(job, row, b, x, y, False, taps, row.slabs, last)
    if job.flat:
        put_indices(job, row, b, label, r.index)
    else:
        put_taps(b, label, r.tap, end)


cdef inline void lay(const Job* job, Row* r) noexcept nogil:
    """Find the rows of elements under a row of windows."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t z = start_of(&p.z, r.z), y = start_of(&p.y, r.y)
    cdef Py_ssize_t first_z = max(z, 0), first_y = max(y, 0)
    r.slabs = min(z + p.z.kernel, p.z.extent) - first_z
    r.rows = min(y + p.y.kernel, p.y.extent) - first_y
    r.first = r.plane + (first_z * p.y.extent + first_y) * p.x.extent
    r.label = (first_z - z) * job.slab + (first_y - y) * job.row
    r.base = (z * p.y.extent + y) * p.x.extent


cdef inline Py_ssize_t last_row(const Pool* p, const Row* r) noexcept nogil:
    """Give the first element of the last row under a row of windows."""
    return r.first + ((r.slabs - 1) * p.y.extent + r.rows - 1) * p.x.extent


cdef inline Row row_at(const Pool* p, Py_ssize_t i) noexcept nogil:
    """Find the i-th row, counted through all planes."""
    cdef Row r
    r.y, i = i % p.y.out, i // p.y.out
    r.z, i = i % p.z.out, i // p.z.out
    r.plane = i * p.z.extent * p.y.extent * p.x.extent
    return r


cdef inline void next_row(const Pool* p, Row* r) noexcept nogil:
    """Go to the next row."""
    r.y += 1
    if r.y == p.y.out:
        r.y = 0
        r.z += 1
        if r.z == p.z.out:
            r.z = 0
            r.plane += p.z.extent * p.y.extent * p.x.extent


cdef inline Block block_at(const Job* job, Py_ssize_t x) noexcept nogil:
    """Give the block that begins at window x of a row."""
    cdef const Pool* p = &job.p
    cdef Block b
    cdef Py_ssize_t span, left
    b.n = min(job.outs, p.x.out - x)
    b.start, b.to = start_of(&p.x, x), x
    span = (b.n - 1) * p.x.stride + p.x.kernel
    left = max(-b.start, 0)
    b.bits = first_bits(min(span, p.x.extent - b.start)) >> left << left
    return b


cdef void do_rows(
    const Job* job, const real* x, real* y, const Labels* r, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write rows begin .. end."""
    cdef const Pool* p = &job.p
    cdef Last[BLOCKS] lasts
    cdef Last* kept
    cdef Block[BLOCKS] blocks  # the same in every row
    cdef Py_ssize_t i, last = end * p.x.out, block, per_row = (p.x.out - 1) // job.outs + 1
    cdef bint shared = p.y.kernel == p.y.stride + 1 and p.z.kernel == 1
    cdef Py_ssize_t z, j, first, lanes = VEC_BYTES // <Py_ssize_t>sizeof(real)
    cdef Row row = row_at(p, begin), far
    cdef Block b
    far = row_at(p, begin + AHEAD // (p.z.stride * p.y.stride * p.x.extent * sizeof(real)) + 1)
    shared = shared and per_row <= BLOCKS
    for i in range(min(per_row, BLOCKS)):
        blocks[i] = block_at(job, i * job.outs)
    for i in range(begin, end):
        lay(job, &row)
        if p.z.kernel == 1:
            row.later = last_row(p, &row) + AHEAD // <Py_ssize_t>sizeof(real)
        else:  # what follows a slab is left out, or near already
            lay(job, &far)
            row.later = last_row(p, &far)
            for z in range(1, min(p.z.kernel, p.z.stride)):
                first = row.later - (z * p.y.extent + job.fresh_rows - 1) * p.x.extent
                for j in range(job.fresh_rows * p.x.extent // lanes + 1):
                    cc_fetch(x + first + j * lanes)
            next_row(p, &far)
        row.shares = shared and i > begin and row.y > 0
        for block in range(per_row):
            b = blocks[block] if block < BLOCKS else block_at(job, block * job.outs)
            b.to += i * p.x.out
            kept = &lasts[min(block, BLOCKS - 1)]
            if real is float:
                do_block(job, &row, &b, <const f32v*>x, <f32v*>y, r, last, kept)
            else:
                do_block(job, &row, &b, <const f64v*>x, <f64v*>y, r, last, kept)
        next_row(p, &row)


cdef void do_tasks(
    const Job* job, const Rounds* rs, const real* x, real* y, const Labels* r,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        do_rows(job, x, y, r, first_piece(rs, begin), first_piece(rs, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        do_rows(job, x, y, r, first_piece(rs, i), first_piece(rs, i + 1))


cdef int prepare(Job* job, Py_ssize_t lanes, real* like) except -1:
    """Write the tables; refuse windows that no block fits."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t j, k, most = 2 * lanes, start
    cdef bint dense = p.z.dilation == 1 and p.y.dilation == 1 and p.x.dilation == 1
    cdef real* at = <real*>job.t.at
    if not dense or min(p.z.kernel, min(p.y.kernel, p.x.kernel)) < 1:
        refuse()
    if p.x.kernel > min(most, COLUMNS) or p.z.kernel * p.y.kernel * p.x.kernel > TAPS:
        refuse()
    job.outs = min(lanes, (most - p.x.kernel) // p.x.stride + 1)
    if start_of(&p.x, job.outs) < 0:
        refuse()
    job.two = (min(job.outs, p.x.out) - 1) * p.x.stride + p.x.kernel > lanes
    job.fresh_rows = min(p.y.kernel, p.y.stride)
    job.row, job.slab = p.x.kernel, p.y.kernel * p.x.kernel
    if job.flat:
        job.row, job.slab = p.x.extent, p.y.extent * p.x.extent
    for j in range(lanes):
        for k in range(p.x.kernel):
            put_label(at, k * lanes + j, (j * p.x.stride + k) % most)
        start = start_of(&p.x, j)
        put_label(<real*>job.t.lead, j, max(-start, 0))
        put_label(<real*>job.t.place, j, j * p.x.stride)
    return 0


cdef int maxima(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x, y and the labels, and write y and the labels."""
    cdef Job job
    cdef Py_ssize_t begin = 0, end
    cdef Rounds rs
    job.p = pool_of(held)
    cdef const real* x = reals(held, 1, elements_of(&job.p), like)
    cdef real* y = reals(held, 2, windows_of(&job.p), like)
    cdef Labels r = labels_of(held, 3, &job.p)
    job.flat = r.index != NULL
    job.labelled = job.flat or r.tap != NULL
    if job.p.planes == 0:
        return 0
    prepare(&job, VEC_BYTES // <Py_ssize_t>sizeof(real), like)
    rs = rounds(
        windows_of(&job.p) // job.p.x.out,
        job.p.x.out * (job.p.z.kernel * job.p.y.kernel + job.p.x.kernel), threads,
    )
    while begin < rs.tasks:
        end = min(begin + rs.step, rs.tasks)
        with nogil:
            do_tasks(&job, &rs, x, y, &r, begin, end, threads)
        look()
        begin = end
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that a direction needs: none."""
    return 0


def fprop(geometry, x, y, label, scratch, int threads, /):
    """Write the maxima of x to y, and labels, as `pool_max_flat.fprop`."""
    call((geometry, x), (y, label, scratch), threads, maxima[float], maxima[double])
