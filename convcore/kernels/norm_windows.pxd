# Lp pooling, forward: norms of blocks of windows.
#
# What      y[o] = (sum of |x[i]|^p over i in window(o))^(1/p)
# Layout    rows of a window first, into columns, which are parted by the phases of the
#           stride: a tap of neighbouring windows is then one run of them.
#
#               columns  0 1 2 3 4 ...     phases  0 2 4 ... | 1 3 5 ...
#
#           Long windows are summed one by one, four vectors at a time.
# Scratch   on the stack: the rows that are kept, and 18 KB of columns.

from libc.string cimport memset

from convcore.kernels.blocks cimport SPAN, Block, Blocks, columns_for, taps_at_most
from convcore.kernels.norm_far cimport far_norm
from convcore.kernels.norm_lanes cimport FEW, MANY, READY, Norm, raised, take_roots
from convcore.kernels.norm_rows_kept cimport (
    PAD, PHASES, Kept, Line, can_keep, keep_rows, power_row, strip_block, sum_rows, takes_long,
)
from convcore.kernels.vector cimport cc_all_f64, cc_seldom, evens, f64v, odds, real
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, narrow_part, wide, wide_part, wide_sum,
)
from convcore.kernels.windows cimport Pool, first_of, start_of, stop_of


cdef inline void sum_powers(
    const Norm* m, const real* x, const Line* l, double* to, Py_ssize_t n
) noexcept nogil:
    """Do `sum_rows`, with a loop of its own for each kind of p."""
    cdef double[SPAN + PAD] one
    cdef Py_ssize_t iz, iy, j
    if m.kind == 2:
        sum_rows(m, 2, x, l, to, n)
    elif m.kind == 1:
        sum_rows(m, 1, x, l, to, n)
    elif m.kind == 3:
        sum_rows(m, 3, x, l, to, n)
    else:  # rows that are too many to be kept
        memset(to, 0, n * sizeof(double))
        for iz in range(l.depth):
            for iy in range(l.rows):
                power_row(m, x + iz * l.slab + iy * l.row, one, n)
                for j in range(n):
                    to[j] += one[j]


cdef inline Py_ssize_t part_columns(
    const double* column, double* to, Py_ssize_t span, Py_ssize_t stride
) noexcept nogil:
    """Sort columns by phases, with zeros behind each; give how far those are apart."""
    cdef Py_ssize_t each = (span - 1) // stride + 1, apart = each + PAD, j = 0, phase
    if stride == 2:
        while j + 2 * WIDE_LANES <= span:
            (<f64v*>(to + j // 2))[0] = evens(
                (<const f64v*>(column + j))[0], (<const f64v*>(column + j + WIDE_LANES))[0]
            )
            (<f64v*>(to + apart + j // 2))[0] = odds(
                (<const f64v*>(column + j))[0], (<const f64v*>(column + j + WIDE_LANES))[0]
            )
            j += 2 * WIDE_LANES
        for j in range(j, span):
            to[j % 2 * apart + j // 2] = column[j]
        if span % 2:
            to[apart + each - 1] = 0
    else:
        for phase in range(stride):
            for j in range(each):
                to[phase * apart + j] = column[stride * j + phase]
    for phase in range(stride):
        memset(to + phase * apart + each, 0, PAD * sizeof(double))
    return apart


cdef inline void sum_taps(
    const double* parted, Py_ssize_t apart, Py_ssize_t stride, Py_ssize_t kernel, double* to,
    Py_ssize_t n,
) noexcept nogil:
    """Write the sums of n windows of columns, and more up to a vector."""
    cdef Py_ssize_t j, _k, phase
    cdef const double* at
    cdef f64v s
    j = 0
    while j < n:
        at = parted + j
        s = (<const f64v*>at)[0]
        phase = 0
        for _k in range(1, kernel):
            phase += 1
            at += apart
            if phase == stride:
                phase = 0
                at += 1 - stride * apart
            s = s + (<const f64v*>at)[0]
        (<f64v*>(to + j))[0] = s
        j += WIDE_LANES


cdef inline void finish_norms(
    const Norm* m, const real* x, real* y, const Block* o, double* sums
) noexcept nogil:
    """Write the roots of the sums, and norms of windows whose sums say nothing."""
    cdef bint[SPAN] apart
    cdef Py_ssize_t j
    cdef int far = 0
    if m.guarded and m.power > 1:
        for j in range(o.n):
            apart[j] = (sums[j] < FEW) | (sums[j] > MANY)
            far |= apart[j]
    take_roots(sums, o.n, m)
    j = 0
    while j < o.n:
        narrow_part(y + j, (<const f64v*>(sums + j))[0], o.n - j)
        j += WIDE_LANES
    if cc_seldom(far):
        for j in range(o.n):
            if apart[j]:
                y[j] = <real>far_norm(m, x, o.z, o.y, o.x + j)


cdef inline void norms_by_columns(
    const Norm* m, const real* x, real* y, const Block* o, Kept* kept
) noexcept nogil:
    """Write one block of y: sums of columns first, then of windows of columns."""
    cdef double[SPAN + 2 * PAD] column
    cdef double[SPAN + PHASES * (PAD + 2)] parted
    cdef double[SPAN + PAD] sums
    cdef double* at = column
    cdef const Pool* p = &m.p
    cdef Py_ssize_t start = start_of(&p.x, o.x), j, k, row = p.x.extent, apart
    cdef Py_ssize_t span = (o.n - 1) * p.x.stride + p.x.kernel
    cdef Py_ssize_t lo = max(start, 0), n = min(start + span, row) - lo
    cdef Py_ssize_t iz = first_of(&p.z, o.z), iy = first_of(&p.y, o.y)
    cdef Py_ssize_t stop = stop_of(&p.y, o.y)
    cdef Line l
    l.depth, l.rows = stop_of(&p.z, o.z) - iz, stop - iy
    memset(at, 0, (lo - start) * sizeof(double))
    at += lo - start
    if kept == NULL:
        l.slab, l.row = p.y.extent * row, row
        sum_powers(m, x + (iz * p.y.extent + iy) * row + lo, &l, at, n)
    else:
        for j in range(keep_rows(kept, o.plane, o.z, o.x, iy, stop), stop):
            for k in range(l.depth):
                power_row(
                    m, x + ((iz + k) * p.y.extent + j) * row + lo,
                    kept.room + (k * kept.most + j - kept.first) * kept.span, n,
                )
        l.slab, l.row = kept.most * kept.span, kept.span
        sum_rows(
            m, READY, <const double*>kept.room + (iy - kept.first) * kept.span, &l, at, n
        )
    memset(at + n, 0, (span - n - (lo - start) + PAD) * sizeof(double))
    if p.x.stride == 1:
        sum_taps(column, 0, 1, p.x.kernel, sums, o.n)
    elif p.x.stride <= PHASES:
        apart = part_columns(column, parted, span, p.x.stride)
        sum_taps(parted, apart, p.x.stride, p.x.kernel, sums, o.n)
    else:
        for j in range(o.n):
            sums[j] = 0
            for k in range(p.x.kernel):
                sums[j] += column[j * p.x.stride + k]
    finish_norms(m, x, y, o, sums)


cdef inline void sum_run(
    const Norm* m, int kind, const real* x, Py_ssize_t n, f64v* acc
) noexcept nogil:
    """Add the powers of n neighbours to four vectors of sums."""
    cdef Py_ssize_t j = 0
    cdef int k
    while j + 4 * WIDE_LANES <= n:
        for k in range(4):
            acc[k] = acc[k] + raised(wide(x + j + k * WIDE_LANES), kind, m)
        j += 4 * WIDE_LANES
    for k in range(4):
        if j + WIDE_LANES <= n:
            acc[k] = acc[k] + raised(wide(x + j), kind, m)
        elif j < n:
            acc[k] = acc[k] + raised(wide_part(x + j, n - j), kind, m)
        j += WIDE_LANES


cdef inline void add_run(
    const Norm* m, const real* x, Py_ssize_t n, f64v* acc
) noexcept nogil:
    """Do `sum_run`, with a loop of its own for each kind of p."""
    cdef double[SPAN] one
    cdef Py_ssize_t j, some
    if m.kind == 2:
        sum_run(m, 2, x, n, acc)
    elif m.kind == 1:
        sum_run(m, 1, x, n, acc)
    elif m.kind == 3:
        sum_run(m, 3, x, n, acc)
    else:
        j = 0
        while j < n:
            some = min(n - j, SPAN)
            power_row(m, x + j, one, some)
            sum_run(m, READY, <const double*>one, some, acc)
            j += SPAN


cdef inline void norms_by_windows(
    const Norm* m, const real* x, real* y, const Block* o
) noexcept nogil:
    """Write one block of y, window by window, a vector of neighbours at a time."""
    cdef double[SPAN + PAD] sums
    cdef const Pool* p = &m.p
    cdef f64v[4] acc
    cdef int k
    cdef Py_ssize_t j, iz, iy, x0, n
    for j in range(o.n):
        for k in range(4):
            acc[k] = cc_all_f64(0)
        x0 = first_of(&p.x, o.x + j)
        n = stop_of(&p.x, o.x + j) - x0
        for iz in range(first_of(&p.z, o.z), stop_of(&p.z, o.z)):
            for iy in range(first_of(&p.y, o.y), stop_of(&p.y, o.y)):
                add_run(m, x + (iz * p.y.extent + iy) * p.x.extent + x0, n, acc)
        sums[j] = wide_sum(acc)
    memset(sums + o.n, 0, PAD * sizeof(double))
    finish_norms(m, x, y, o, sums)


cdef inline void norms_task(
    const Norm* m, const Blocks* b, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write blocks begin .. end of y."""
    cdef Kept kept
    cdef Py_ssize_t i, plane = m.p.z.extent * m.p.y.extent * m.p.x.extent
    cdef bint columns = columns_for(&m.p.x) > 0, keeps = False
    cdef Block o
    if columns and takes_long(m):
        keeps = can_keep(
            &kept, taps_at_most(&m.p.z), taps_at_most(&m.p.y),
            (b.block - 1) * m.p.x.stride + m.p.x.kernel,
        )
    for i in range(begin, end):
        o = strip_block(b, i)
        if columns:
            norms_by_columns(m, x + o.plane * plane, y + o.offset, &o, &kept if keeps else NULL)
        else:
            norms_by_windows(m, x + o.plane * plane, y + o.offset, &o)
