# Lp pooling, backward: the gradient of blocks of elements.
#
# What      dx[i] = sign(x[i]) |x[i]|^(p-1) * sum of dy[o] y[o]^(1-p) over windows o that
#           hold i; nothing from windows of zeros, and nothing to zeros
# Layout    shares of windows, summed over the rows that reach a row of x, then spread along
#           W phase by phase: the sums of norm_windows.pxd backwards.
# Scratch   on the stack: the rows that are kept, and 17 KB of shares and cells.

from libc.string cimport memset

from convcore.kernels.blocks cimport SPAN, Block, Blocks, windows_at_most
from convcore.kernels.norm_far cimport far_slopes
from convcore.kernels.norm_lanes cimport (
    READY, Norm, cc_any, cc_either, cc_far, shared, slope,
)
from convcore.kernels.norm_rows_kept cimport (
    PAD, PHASES, Kept, Line, can_keep, keep_rows, spreads, strip_block, sum_rows,
)
from convcore.kernels.vector cimport (
    cc_all_f64, cc_seldom, f64v, interleave_high, interleave_low, real, until,
)
from convcore.kernels.vector_math cimport magnitude
from convcore.kernels.vector_wide cimport WIDE_LANES, narrow_part, wide, wide_part
from convcore.kernels.windows cimport (
    Axis, Pool, first_of, over_first, over_stop, stop_of,
)


cdef inline Py_ssize_t windows_over(const Axis* a, Py_ssize_t cells) noexcept nogil:
    """Bound the windows over so many neighbours."""
    return min(cells // a.stride + windows_at_most(a) + 1, a.out)


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


cdef inline void spread_phases(
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


cdef inline bint take_slopes(
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


cdef inline bint rows_of_shares(
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


cdef inline bint row_by_row(
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


cdef inline void slopes_block(
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


cdef inline void slopes_task(
    const Norm* m, const Blocks* b, const real** given, real* dx, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write blocks begin .. end of dx; given are dy, y and x."""
    cdef Kept kept
    cdef Py_ssize_t j, at, plane = m.p.z.out * m.p.y.out * m.p.x.out
    cdef Py_ssize_t over = windows_over(&m.p.x, b.block)
    # Zeros lie on both sides of a line of shares: more than fit for windows of 256.
    cdef bint fits = over + 2 * ((m.p.x.kernel - 1) // m.p.x.stride) <= 2 * SPAN
    cdef bint keeps = fits and spreads(m) and can_keep(
        &kept, windows_at_most(&m.p.z), windows_at_most(&m.p.y), over
    )
    cdef Block i
    for j in range(begin, end):
        i = strip_block(b, j)
        at = i.plane * plane
        slopes_block(
            m, given[0] + at, given[1] + at, given[2] + i.offset, dx + i.offset, &i,
            &kept if keeps else NULL,
        )
