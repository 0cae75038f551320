# Means over windows of two columns side by side, and their gradient, where they fill planes.
#
# What      The rows of x under a row of windows are neighbours in memory, and so are those
#           of the next row, whatever the width of a plane:
#
#               x     a b c d e f        columns are summed, then taken apart:
#                     g h i j k l        a+g c+i e+k  +  b+h d+j f+l
#               dx    s s t t u u        each share twice, in as many rows
#
# Assumes   `are_pairs`.
# Parallel  the caller's, over rows of windows. What a vector holds beyond its row is written
#           before the next row is; nothing beyond those of a task.
# Order     of a sum: its rows, slab by slab; then both columns.
# Scratch   shares of some rows, on the stack: 4 KB.
# Why not   Turned planes: three shuffles a vector for one. (32, 512, 14, 14), 2 x 2, takes
#           0.67 ms so, and 0.45 ms here.

from convcore.kernels.blocks cimport SPAN
from convcore.kernels.pool_shares cimport share_row
from convcore.kernels.pool_sums cimport LINE, NEAR
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, cc_fetch, cc_fetch_to_write, cc_fold_f64, f32v, f64v, interleave_high,
    interleave_low, put_part, real, vec,
)
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, Scale, divided, narrow, narrow_part, quotient, scale_by, wide, wide_part,
)
from convcore.kernels.windows cimport Axis, Pool, elements_of, windows_of

cdef enum:
    FAR = 8192  # bytes from what is read to what is asked for
    FEW = 20  # bytes of a row of results, at least

cdef struct Place:  # of a row of windows
    Py_ssize_t y  # in its slab
    Py_ssize_t first  # the first element under it


cdef inline bint fills(const Axis* a) noexcept nogil:
    """Tell whether windows lie side by side, from the first element to the last."""
    return a.kernel == a.stride and a.lo == 0 and a.extent == a.kernel * a.out


cdef inline bint are_pairs(const Pool* p, Py_ssize_t item) noexcept nogil:
    """Tell whether windows of two columns fill a plane."""
    return (
        p.x.kernel == 2 and FEW <= p.x.out * item and p.x.out <= SPAN
        and fills(&p.z) and fills(&p.y) and fills(&p.x)
    )


cdef inline Place row_at(const Pool* p, Py_ssize_t row) noexcept nogil:
    """Find a row of windows."""
    cdef Place at
    cdef Py_ssize_t slab = row // p.y.out
    at.y = row - slab * p.y.out
    at.first = (slab * p.z.kernel * p.y.extent + at.y * p.y.kernel) * p.x.extent
    return at


cdef inline Py_ssize_t rows_ahead(const Pool* p, const real* like) noexcept nogil:
    """Give how many rows lie between what is worked on and what is asked for."""
    cdef Py_ssize_t under = p.z.kernel * p.y.kernel * p.x.extent * <Py_ssize_t>sizeof(real)
    return FAR // under + 1


cdef inline void next_row(const Pool* p, Place* at) noexcept nogil:
    """Go to the next one."""
    at.y += 1
    at.first += p.y.kernel * p.x.extent
    if at.y == p.y.out:
        at.y = 0
        at.first += (p.z.kernel - 1) * p.y.extent * p.x.extent


cdef inline void fetch(const real* x) noexcept nogil:
    """Ask for two vectors of doubles."""
    cdef Py_ssize_t i
    for i in range(2 * WIDE_LANES * <Py_ssize_t>sizeof(real) // LINE):
        cc_fetch(<const char*>x + i * LINE)


cdef inline f64v some_of(const real* x, Py_ssize_t n, bint whole) noexcept nogil:
    """Load a vector of doubles, or n scalars."""
    return wide(x) if whole or n >= WIDE_LANES else wide_part(x, n)


cdef inline f64v add_rows(
    const Pool* p, const real* x, Py_ssize_t slabs, Py_ssize_t rows, Py_ssize_t n,
    bint whole,
) noexcept nogil:
    """Sum n columns, at most a vector."""
    cdef Py_ssize_t z, y, row = p.x.extent, slab = p.y.extent * row
    cdef f64v a = some_of(x, n, whole)
    for y in range(1, rows):
        a = a + some_of(x + y * row, n, whole)
    for z in range(1, slabs):
        for y in range(rows):
            a = a + some_of(x + z * slab + y * row, n, whole)
    return a


cdef inline void means_of_row(
    const Pool* p, const Scale* by, const real* x, const real* later, real* y,
    Py_ssize_t slabs, Py_ssize_t rows, bint whole,
) noexcept nogil:
    """Write a row, and ask for a later one; `whole`: in vectors that may end behind it."""
    cdef Py_ssize_t j = 0, k, n, z
    cdef f64v a, b
    while j < p.x.out:
        n = 2 * (p.x.out - j)
        for z in range(slabs):
            for k in range(rows):
                fetch(later + (z * p.y.extent + k) * p.x.extent)
        cc_fetch_to_write(<const char*>(y + j) + NEAR)
        a = add_rows(p, x, slabs, rows, n, whole)
        b = a
        if whole or n > WIDE_LANES:
            b = add_rows(p, x + WIDE_LANES, slabs, rows, n - WIDE_LANES, whole)
        a = divided(cc_fold_f64(a, b), by, y)
        if whole:
            narrow(y + j, a)
        else:
            narrow_part(y + j, a, p.x.out - j)
        x += 2 * WIDE_LANES
        later += 2 * WIDE_LANES
        j += WIDE_LANES


cdef inline void means_of_some_rows(
    const Pool* p, double common, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t slabs, Py_ssize_t rows,
) noexcept nogil:
    """Write rows begin .. end of y."""
    cdef Scale by = scale_by(common)
    cdef Place at = row_at(p, begin), far = row_at(p, begin + rows_ahead(p, x))
    cdef const real* later
    cdef Py_ssize_t i, span = (p.x.out - 1) // WIDE_LANES * WIDE_LANES + WIDE_LANES
    cdef Py_ssize_t last = ((slabs - 1) * p.y.extent + rows - 1) * p.x.extent
    last = elements_of(p) - last - 2 * span
    for i in range(begin, end):
        later = x + far.first
        if at.first <= last and span <= (end - i) * p.x.out:
            means_of_row(p, &by, x + at.first, later, y + i * p.x.out, slabs, rows, True)
        else:
            means_of_row(p, &by, x + at.first, later, y + i * p.x.out, slabs, rows, False)
        next_row(p, &at)
        next_row(p, &far)


cdef inline void means_of_pairs(
    const Pool* p, double common, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Do `means_of_some_rows`, the usual numbers as constants."""
    if p.z.kernel == 1 and p.y.kernel == 2:
        means_of_some_rows(p, common, x, y, begin, end, 1, 2)
    else:
        means_of_some_rows(p, common, x, y, begin, end, p.z.kernel, p.y.kernel)


cdef inline void put(
    vec* to, vec v, Py_ssize_t n, bint whole, Py_ssize_t later
) noexcept nogil:
    """Store a vector, or n lanes at most; ask for what is written later."""
    cc_fetch_to_write(ahead(to, later))
    if whole:
        to[0] = v
    else:
        put_part(to, v, n)


cdef inline void put_twice(
    const vec* shares, Py_ssize_t n, vec* to, bint whole, Py_ssize_t later
) noexcept nogil:
    """Write n scalars, each share twice; `whole`: in vectors that may end behind them."""
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8), j = 0
    cdef vec v
    while j < n:
        v = ahead(shares, j // 2)[0]
        put(<vec*>ahead(to, j), interleave_low(v, v), n - j, whole, later)
        j += lanes
        if j < n:
            put(<vec*>ahead(to, j), interleave_high(v, v), n - j, whole, later)
            j += lanes


cdef inline void put_rows(
    const Pool* p, const vec* shares, vec* dx, Py_ssize_t room, Py_ssize_t slabs,
    Py_ssize_t rows, Py_ssize_t later,
) noexcept nogil:
    """Write a row of shares to all under it; `room` of each slab may be written."""
    cdef Py_ssize_t z, y, width = p.x.extent, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef Py_ssize_t span = (width - 1) // lanes * lanes + lanes
    cdef vec* to
    for z in range(slabs):
        to = <vec*>ahead(dx, z * p.y.extent * width)
        for y in range(rows):
            if y * width + span <= room:
                put_twice(shares, width, to, True, later)
            else:
                put_twice(shares, width, to, False, later)
            to = <vec*>ahead(to, width)


cdef inline void put_some_rows(
    const Pool* p, const vec* shares, vec* dx, Py_ssize_t room, Py_ssize_t later
) noexcept nogil:
    """Do the same, the usual numbers as constants."""
    if p.z.kernel == 1 and p.y.kernel == 2:
        put_rows(p, shares, dx, room, 1, 2, later)
    else:
        put_rows(p, shares, dx, room, p.z.kernel, p.y.kernel, later)


cdef inline void shares_of_pairs(
    const Pool* p, double common, const real* dy, real* dx, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write what rows begin .. end of dy give."""
    cdef real[SPAN + 32] shares
    cdef Scale by = scale_by(common)
    cdef Place at = row_at(p, begin), far = row_at(p, begin + rows_ahead(p, dx))
    cdef Py_ssize_t i = begin, k, n, out = p.x.out, total = windows_of(p), room, later
    cdef const real* from_
    cdef real* to
    while i < end:
        n = min(SPAN // out, end - i) * out
        if i * out + n + WIDE_LANES <= total:
            share_row(dy + i * out, n, &by, shares)
        else:
            for k in range(n):
                shares[k] = quotient(0.0 + dy[i * out + k], &by, dx)  # no -0, as there
        k = 0
        while k < n:
            room = min(end - i, p.y.out - at.y) * p.y.kernel * p.x.extent
            later = far.first - at.first
            from_, to = shares + k, dx + at.first
            if real is float:
                put_some_rows(p, <const f32v*>from_, <f32v*>to, room, later)
            else:
                put_some_rows(p, <const f64v*>from_, <f64v*>to, room, later)
            next_row(p, &at)
            next_row(p, &far)
            i += 1
            k += out
