# Lp pooling of strided windows and of whole planes, and its gradient.
#
# What      y[o] = (sum of |x[i]|^p over i in window(o))^(1/p)
#           dx[i] = sign(x[i]) |x[i]|^(p-1) * sum of dy[o] y[o]^(1-p) over windows o that
#           hold i; nothing from windows of zeros, and nothing to zeros
# Layout    rows of a window first, into columns, which are parted by the phases of the
#           stride: a tap of neighbouring windows is then one run of them.
#
#               columns  0 1 2 3 4 ...     phases  0 2 4 ... | 1 3 5 ...
#
#           The gradient sums shares over rows, then spreads them: the same backwards.
#           Powers that take long are kept for the rows that windows share.
# Assumes   buffers of the sizes that the geometry tells; windows.pxd. p > 0 and finite.
# Parallel  over blocks of y, for the gradient over blocks of dx: each is written by one
#           task. The order of every sum depends on the shape of one plane alone.
# Scratch   on the stack, at most 48 KB: kept rows 24, a block's columns.
# Cost      memory and 5 instructions an element and window row for whole p; others 45 an
#           element. Sums are of doubles; norm_lanes.pxd says what is done where those end.
# Source    Gulcehre, Cho, Pascanu and Bengio, Learned-norm pooling for deep feedforward
#           and recurrent neural networks, arXiv:1311.1780, section 2.

from cython.parallel cimport prange
from libc.string cimport memcpy, memmove, memset

from convcore.kernels.blocks cimport (
    SPAN, Block, Blocks, Rounds, columns_for, cut, element_blocks, first_piece, rounds,
    taps_at_most, window_blocks, windows_at_most,
)
from convcore.kernels.buffers cimport Buffers, call, geometry_of, integers, reals
from convcore.kernels.elements cimport lanes_of, load_some
from convcore.kernels.norm_far cimport far_norm, far_slopes
from convcore.kernels.norm_lanes cimport (
    ANY, FEW, MANY, READY, WHOLE, Norm, cc_any, cc_either, cc_far, raised, set_power, shared,
    slope, take_roots,
)
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    ahead, all_lanes, cc_all_f64, cc_seldom, evens, f32v, f64v, interleave_high,
    interleave_low, odds, pick, put_part, real, until, vec,
)
from convcore.kernels.vector_math cimport magnitude, signed_as
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, narrow_part, wide, wide_part, wide_sum,
)
from convcore.kernels.windows cimport (
    Axis, Pool, elements_of, first_of, is_whole, over_first, over_stop, pool_of, start_of, stop_of,
    windows_of,
)

cdef enum:
    KEPT = 3072  # powers that are kept
    KEPT_ROWS = 128
    PHASES = 8  # the largest stride that is parted
    PAD = 16  # scalars behind a line that vectors may touch


cdef struct Line:  # rows of one plane, as far as windows see them
    Py_ssize_t depth, rows, slab, row  # how many, and how far apart


cdef struct Kept:  # rows of powers or shares: `slabs` of `most` rows of `span`
    double[KEPT] room
    bint[KEPT_ROWS] far
    Py_ssize_t plane, z, x, first, stop, slabs, most, span


cdef inline Py_ssize_t keep_rows(
    Kept* k, Py_ssize_t plane, Py_ssize_t z, Py_ssize_t x, Py_ssize_t first, Py_ssize_t stop
) noexcept nogil:
    """Make room for rows first .. stop of a strip; give the first that is not there."""
    cdef Py_ssize_t s, n, lost
    if k.plane != plane or k.z != z or k.x != x or not k.first <= first <= k.stop:
        k.plane, k.z, k.x = plane, z, x
        k.first = k.stop = first
    elif stop - k.first > k.most:
        n, lost = k.stop - first, first - k.first
        for s in range(k.slabs):
            memmove(
                k.room + s * k.most * k.span, k.room + (s * k.most + lost) * k.span,
                n * k.span * sizeof(double),
            )
            memmove(
                k.far + s * k.most, k.far + s * k.most + lost, n * sizeof(bint)
            )
        k.first = first
    n = k.stop
    k.stop = max(stop, n)
    return n


cdef inline bint can_keep(
    Kept* k, Py_ssize_t slabs, Py_ssize_t rows, Py_ssize_t span
) noexcept nogil:
    """Prepare to keep so many rows at a time, and more for as long as there is room."""
    if slabs > KEPT_ROWS or rows > KEPT_ROWS or slabs * rows * span > KEPT:
        return False
    k.slabs, k.span = slabs, span
    k.most = min(KEPT // (slabs * span), KEPT_ROWS // slabs)
    k.plane = -1
    return k.most >= rows


cdef inline Block strip_block(const Blocks* b, Py_ssize_t i) noexcept nogil:
    """Find the i-th block, down strips of rows: neighbours share rows of windows."""
    cdef Block at
    cdef Py_ssize_t strip = i // b.height, slab = strip // b.per_row
    at.y = i - strip * b.height
    at.x = (strip - slab * b.per_row) * b.block
    at.plane = slab // b.depth
    at.z = slab - at.plane * b.depth
    at.n = min(b.block, b.width - at.x)
    at.offset = (slab * b.height + at.y) * b.width + at.x
    return at


cdef inline bint takes_long(const Norm* m) noexcept nogil:
    """Tell whether a power takes longer than to keep it."""
    return m.kind == ANY or m.kind == WHOLE


cdef inline bint spreads(const Norm* m) noexcept nogil:
    """Tell whether shares can be spread phase by phase."""
    return 0 < m.p.x.kernel <= SPAN // 2 and m.p.x.stride <= PHASES and m.p.x.dilation == 1


# Forward ----------------------------------------------------------------------------


cdef inline void power_row(
    const Norm* m, const real* x, double* to, Py_ssize_t n
) noexcept nogil:
    """Write n powers that take long."""
    cdef Py_ssize_t j = 0, some
    cdef f64v v
    while j < n:
        some = min(n - j, WIDE_LANES)
        v = wide(x + j) if some == WIDE_LANES else wide_part(x + j, some)
        v = raised(v, WHOLE, m) if m.kind == WHOLE else raised(v, ANY, m)
        narrow_part(to + j, v, some)
        j += WIDE_LANES


cdef inline void sum_rows(
    const Norm* m, int kind, const real* x, const Line* l, double* to, Py_ssize_t n
) noexcept nogil:
    """Write n sums of powers over rows."""
    cdef Py_ssize_t j = 0, iz, _iy
    cdef const real* at
    cdef f64v a, b
    while j + 2 * WIDE_LANES <= n:
        a = b = cc_all_f64(0)
        for iz in range(l.depth):
            at = x + j + iz * l.slab
            for _iy in range(l.rows):
                a = a + raised(wide(at), kind, m)
                b = b + raised(wide(at + WIDE_LANES), kind, m)
                at += l.row
        (<f64v*>(to + j))[0] = a
        (<f64v*>(to + j + WIDE_LANES))[0] = b
        j += 2 * WIDE_LANES
    while j < n:
        a = cc_all_f64(0)
        for iz in range(l.depth):
            at = x + j + iz * l.slab
            for _iy in range(l.rows):
                if j + WIDE_LANES <= n:
                    a = a + raised(wide(at), kind, m)
                else:
                    a = a + raised(wide_part(at, n - j), kind, m)
                at += l.row
        narrow_part(to + j, a, n - j)
        j += WIDE_LANES


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


cdef void norms_by_columns(
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


cdef void norms_by_windows(const Norm* m, const real* x, real* y, const Block* o) noexcept nogil:
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


cdef void norms_task(
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


# Backward ---------------------------------------------------------------------------


cdef inline bint share_row(
    const Norm* m, const real* dy, const real* y, double* to, Py_ssize_t n
) noexcept nogil:
    """Write n shares; tell whether some left float64."""
    cdef Py_ssize_t j = 0, some
    cdef f64v a, b, v, zero = cc_all_f64(0), far = zero
    while j < n:
        some = min(n - j, WIDE_LANES)
        if some == WIDE_LANES:
            a, b = wide(dy + j), wide(y + j)
        else:
            a, b = wide_part(dy + j, some), wide_part(y + j, some)
        v = shared(a, b, m)
        if m.guarded:
            far = cc_either(far, cc_far(magnitude(v), until(magnitude(b), zero, zero, a)))
        narrow_part(to + j, v, some)
        j += WIDE_LANES
    return m.guarded and cc_any(far)


cdef inline void spread(
    const Pool* p, const double* shares, Py_ssize_t o0, Py_ssize_t n, double* cell,
    const Block* i,
) noexcept nogil:
    """Add the shares of n windows from o0 on to the cells of a block that they hold."""
    cdef Py_ssize_t j, ix, first, stop
    for j in range(n):
        first = max(first_of(&p.x, o0 + j), i.x) - i.x
        stop = min(stop_of(&p.x, o0 + j), i.x + i.n) - i.x
        for ix in range(first, stop):
            cell[ix] += shares[j]


cdef inline f64v sum_shares(
    const double* share, Py_ssize_t phase, Py_ssize_t stride, Py_ssize_t kernel
) noexcept nogil:
    """Sum what windows give to a vector of cells of a phase, in their order."""
    cdef Py_ssize_t q
    cdef f64v s = cc_all_f64(0)
    for q in range((kernel - 1 - phase) // stride, -1, -1):
        s = s + (<const f64v*>(share - q))[0]
    return s


cdef void spread_phases(
    const double* share, Py_ssize_t stride, Py_ssize_t kernel, double* cell, Py_ssize_t n
) noexcept nogil:
    """Write n cells and more; `share` is that of the window that starts at the first."""
    cdef Py_ssize_t j = 0, phase, k, at
    cdef f64v a, b
    cdef double[8] room
    if stride == 1:
        j = 0
        while j < n:
            (<f64v*>(cell + j))[0] = sum_shares(share + j, 0, 1, kernel)
            j += WIDE_LANES
    elif stride == 2:
        j = 0
        while j < (n + 1) // 2:
            a = sum_shares(share + j, 0, 2, kernel)
            b = sum_shares(share + j, 1, 2, kernel) if kernel > 1 else cc_all_f64(0)
            (<f64v*>(cell + 2 * j))[0] = interleave_low(a, b)
            (<f64v*>(cell + 2 * j + WIDE_LANES))[0] = interleave_high(a, b)
            j += WIDE_LANES
    else:
        j = 0
        while j < (n - 1) // stride + 1:
            for phase in range(stride):
                a = cc_all_f64(0)
                if phase < kernel:
                    a = sum_shares(share + j, phase, stride, kernel)
                (<f64v*>room)[0] = a
                at = j * stride + phase
                for k in range(WIDE_LANES):
                    cell[at + k * stride] = room[k]
            j += WIDE_LANES


cdef bint take_slopes(
    const Norm* m, const double* cell, const real* x, real* dx, Py_ssize_t n
) noexcept nogil:
    """Write n cells times the slopes of their powers; tell whether some left float64."""
    cdef Py_ssize_t j = 0, some
    cdef f64v v, s, zero = cc_all_f64(0), far = zero
    while j < n:
        some = min(n - j, WIDE_LANES)
        v = wide(x + j) if some == WIDE_LANES else wide_part(x + j, some)
        s = slope(v, m)
        if m.guarded:
            far = cc_either(far, cc_far(magnitude(s), v))
        s = until(magnitude(v), zero, zero, (<const f64v*>(cell + j))[0] * s)
        narrow_part(dx + j, s, some)
        j += WIDE_LANES
    return m.guarded and cc_any(far)


cdef bint rows_of_shares(
    const Norm* m, const real* dy, const real* y, const Block* i, Py_ssize_t o0, Py_ssize_t n,
    Kept* kept, double* to,
) noexcept nogil:
    """Sum the shares of n windows over the rows of a block; tell whether some are far."""
    cdef const Pool* p = &m.p
    cdef Py_ssize_t oz = over_first(&p.z, i.z), oy = over_first(&p.y, i.y), j, k, at
    cdef Py_ssize_t stop = over_stop(&p.y, i.y)
    cdef bint far = False
    cdef Line l
    l.depth, l.rows = over_stop(&p.z, i.z) - oz, stop - oy
    if m.kind == 1:
        l.slab, l.row = p.y.out * p.x.out, p.x.out
        sum_rows(m, READY, dy + (oz * p.y.out + oy) * p.x.out + o0, &l, to, n)
        return False
    for j in range(keep_rows(kept, i.plane, i.z, i.x, oy, stop), stop):
        for k in range(l.depth):
            at = ((oz + k) * p.y.out + j) * p.x.out + o0
            kept.far[k * kept.most + j - kept.first] = share_row(
                m, dy + at, y + at,
                kept.room + (k * kept.most + j - kept.first) * kept.span, n,
            )
    l.slab, l.row = kept.most * kept.span, kept.span
    sum_rows(m, READY, <const double*>kept.room + (oy - kept.first) * kept.span, &l, to, n)
    if m.guarded:
        for k in range(l.depth):
            for j in range(oy - kept.first, stop - kept.first):
                far |= kept.far[k * kept.most + j]
    return far


cdef bint row_by_row(
    const Norm* m, const real* dy, const real* y, const Block* i, Py_ssize_t o0,
    Py_ssize_t n, double* shares,
) noexcept nogil:
    """Do so without keeping rows."""
    cdef double[SPAN] one
    cdef Py_ssize_t j, oz, oy, at
    cdef bint far = False
    memset(shares, 0, n * sizeof(double))
    for oz in range(over_first(&m.p.z, i.z), over_stop(&m.p.z, i.z)):
        for oy in range(over_first(&m.p.y, i.y), over_stop(&m.p.y, i.y)):
            at = (oz * m.p.y.out + oy) * m.p.x.out + o0
            far |= share_row(m, dy + at, y + at, one, n)
            for j in range(n):
                shares[j] += one[j]
    return far


cdef void slopes_block(
    const Norm* m, const real* dy, const real* y, const real* x, real* dx, const Block* i,
    Kept* kept,
) noexcept nogil:
    """Write one block of dx: sum the windows over its rows, then spread along W."""
    cdef double[2 * SPAN + 2 * PAD] line
    cdef double[SPAN + PHASES * PAD] cell
    cdef const Pool* p = &m.p
    cdef Py_ssize_t o0 = over_first(&p.x, i.x), o1 = over_stop(&p.x, i.x + i.n - 1)
    cdef Py_ssize_t n = o1 - o0, back, lead, first
    cdef bint far = False
    if kept != NULL:
        back = (p.x.kernel - 1) // p.x.stride  # windows before that reach a cell
        first = (i.x + p.x.lo) // p.x.stride - o0  # at the first cell
        memset(line, 0, back * sizeof(double))
        far = rows_of_shares(m, dy, y, i, o0, n, kept, line + back)
        memset(line + back + n, 0, (back + 2 * PAD) * sizeof(double))
        lead = (i.x + p.x.lo) % p.x.stride
        spread_phases(
            <const double*>line + back + first, p.x.stride, p.x.kernel, cell, lead + i.n
        )
        far |= take_slopes(m, <const double*>cell + lead, x, dx, i.n)
    else:
        memset(cell, 0, (i.n + PAD) * sizeof(double))
        while o0 < o1:
            n = min(o1 - o0, SPAN)
            far |= row_by_row(m, dy, y, i, o0, n, line)
            spread(p, line, o0, n, cell, i)
            o0 += n
        far |= take_slopes(m, <const double*>cell, x, dx, i.n)
    if cc_seldom(far):
        far_slopes(m, dy, y, x, dx, i)


cdef void slopes_task(
    const Norm* m, const Blocks* b, const real** given, real* dx, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write blocks begin .. end of dx; given are dy, y and x."""
    cdef Kept kept
    cdef Py_ssize_t j, at, plane = m.p.z.out * m.p.y.out * m.p.x.out
    cdef bint keeps = spreads(m) and can_keep(
        &kept, windows_at_most(&m.p.z), windows_at_most(&m.p.y),
        windows_over(&m.p.x, b.block),
    )
    cdef Block i
    for j in range(begin, end):
        i = strip_block(b, j)
        at = i.plane * plane
        slopes_block(
            m, given[0] + at, given[1] + at, given[2] + i.offset, dx + i.offset, &i,
            &kept if keeps else NULL,
        )


# Both -------------------------------------------------------------------------------


cdef void tasks(
    const Norm* m, const Blocks* b, const Rounds* r, const real** given, real* to,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end of y (given x alone), or of dx."""
    cdef Py_ssize_t i
    if threads == 1:
        if given[1] == NULL:
            norms_task(m, b, given[0], to, first_piece(r, begin), first_piece(r, end))
        else:
            slopes_task(m, b, given, to, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        if given[1] == NULL:
            norms_task(m, b, given[0], to, first_piece(r, i), first_piece(r, i + 1))
        else:
            slopes_task(m, b, given, to, first_piece(r, i), first_piece(r, i + 1))


cdef int write(
    const Norm* m, Blocks* b, const real** given, real* to, int threads
) except -1:
    """Write all of y, or of dx, looking for Ctrl-C between rounds."""
    cdef Rounds r
    cdef Py_ssize_t begin = 0, end
    if m.kind == ANY:
        b.work *= 4  # of powers
    r = rounds(b.count, b.work, threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            tasks(m, b, &r, given, to, begin, end, threads)
        look()
        begin = end
    return 0


cdef Norm norm_of(const Buffers* held, bint single) except *:
    """Read the geometry, and the power: the bits of the second array."""
    cdef Norm m
    cdef double power
    m.p = pool_of(held)
    if m.p.planes and is_whole(&m.p.z) and is_whole(&m.p.y) and is_whole(&m.p.x):
        m.p.x.extent = elements_of(&m.p) // m.p.planes  # the plane is one row
        m.p.z.extent = m.p.y.extent = 1
        m.p.z.kernel = m.p.y.kernel = m.p.x.kernel = 0
    memcpy(&power, integers(held, 1, 1), sizeof(double))
    set_power(&m, power, single)
    return m


cdef inline Blocks recut(const Norm* m, const Blocks* b, Py_ssize_t block) noexcept nogil:
    """Cut the same rows into blocks that are not larger."""
    cdef Blocks less
    if block >= b.block:
        return b[0]
    less = cut(m.p.planes, b.depth, b.height, b.width, block)
    less.work = max(1, b.work * less.block // b.block)
    return less


cdef inline Blocks norm_blocks(const Norm* m, const Blocks* b) noexcept nogil:
    """Cut rows of y so that the powers of a window's rows can be kept, where that pays."""
    cdef double rows = <double>taps_at_most(&m.p.z) * taps_at_most(&m.p.y)
    cdef Py_ssize_t span = <Py_ssize_t>(KEPT / rows)
    if columns_for(&m.p.x) == 0 or not takes_long(m) or span < 2 * m.p.x.kernel:
        return b[0]
    return recut(m, b, (span - m.p.x.kernel) // m.p.x.stride + 1)


cdef inline Py_ssize_t windows_over(const Axis* a, Py_ssize_t cells) noexcept nogil:
    """Bound the windows over so many neighbours."""
    return min(cells // a.stride + windows_at_most(a) + 1, a.out)


cdef inline Blocks slope_blocks(const Norm* m, const Blocks* b) noexcept nogil:
    """Cut rows of dx so that shares can be kept."""
    cdef double rows = <double>windows_at_most(&m.p.z) * windows_at_most(&m.p.y)
    cdef Py_ssize_t beside = windows_at_most(&m.p.x) + 1
    cdef Py_ssize_t span = <Py_ssize_t>min(<double>SPAN, KEPT / rows)
    if not spreads(m) or span < 2 * beside:
        return b[0]
    return recut(m, b, (span - beside) * m.p.x.stride)


cdef int norms(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x and y, and write y."""
    cdef Norm m = norm_of(held, real is float)
    cdef const real* given[3]
    cdef real* y = reals(held, 3, windows_of(&m.p), like)
    cdef Blocks b = window_blocks(&m.p)
    given[0], given[1] = reals(held, 2, elements_of(&m.p), like), NULL
    b = norm_blocks(&m, &b)
    return write(&m, &b, given, y, threads)


cdef int slopes(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, y, x and dx, and write dx."""
    cdef Norm m = norm_of(held, real is float)
    cdef const real* given[3]
    cdef real* dx = reals(held, 5, elements_of(&m.p), like)
    cdef Blocks b = element_blocks(&m.p)
    given[0] = reals(held, 2, windows_of(&m.p), like)
    given[1] = reals(held, 3, windows_of(&m.p), like)
    given[2] = reals(held, 4, elements_of(&m.p), like)
    if b.count == 0:
        return 0
    b = slope_blocks(&m, &b)
    return write(&m, &b, given, dx, threads)


# Infinite p -------------------------------------------------------------------------


cdef void signs_piece(
    const vec* share, const vec* x, vec* dx, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write shares with the signs of x; what got none of them has none, even NaN."""
    cdef Py_ssize_t j = begin, lanes = lanes_of(x)
    cdef vec u, v, s, zero = all_lanes(x, 0)
    while j < end:
        s, u = load_some(ahead(share, j), end - j), load_some(ahead(x, j), end - j)
        v = pick(zero, magnitude(u), s * signed_as(all_lanes(x, 1), u), u)
        put_part(<vec*>ahead(dx, j), until(magnitude(s), zero, zero, v), end - j)
        j += lanes


cdef void signs_task(
    const Rounds* r, Py_ssize_t i, const real* share, const real* x, real* dx, Py_ssize_t count
) noexcept nogil:
    """Do so for a task."""
    cdef Py_ssize_t begin = first_piece(r, i) * SPAN
    cdef Py_ssize_t end = min(first_piece(r, i + 1) * SPAN, count)
    if real is float:
        signs_piece(<const f32v*>share, <const f32v*>x, <f32v*>dx, begin, end)
    else:
        signs_piece(<const f64v*>share, <const f64v*>x, <f64v*>dx, begin, end)


cdef int signs_call(const Buffers* held, int threads, real* like) except -1:
    """Check all arrays, and write dx."""
    cdef Py_ssize_t count = geometry_of(held, 1)[0], i, begin = 0, end
    cdef const real* share = reals(held, 1, count, like)
    cdef const real* x = reals(held, 2, count, like)
    cdef real* dx = reals(held, 3, count, like)
    cdef Rounds r = rounds((count + SPAN - 1) // SPAN, SPAN, threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            for i in prange(begin, end, num_threads=threads):
                signs_task(&r, i, share, x, dx, count)
        look()
        begin = end
    return 0


def signs(geometry, share, x, dx, int threads, /):
    """Write the gradient of magnitudes x that got these shares of one."""
    call((geometry, share, x), (dx,), threads, signs_call[float], signs_call[double])


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that a direction needs: none."""
    return 0


def fprop(geometry, power, x, y, scratch, int threads, /):
    """Write the norms of x to y; `power` is a float64, as the int64 of its bits."""
    call((geometry, power, x), (y, scratch), threads, norms[float], norms[double])


def dgrad(geometry, power, dy, y, x, dx, scratch, int threads, /):
    """Write the gradient of x to dx."""
    call(
        (geometry, power, dy, y, x), (dx, scratch), threads, slopes[float], slopes[double]
    )
