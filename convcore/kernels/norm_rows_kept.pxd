# Rows of powers, or of shares, for Lp pooling: summed, and kept for windows that share them.
#
# What      power_row: powers that take long.  sum_rows: sums over rows, of any kind of power.
#           keep_rows: which rows of a strip are still to be computed, and room for them.
# Layout    blocks are counted down strips of a plane, so that the next one shares rows:
#
#               strip 0 | strip 1      rows first .. stop of a strip, for each slab of a
#                0      |  3           window, lie in `room`; when it is full, those that
#                1      |  4           are still needed move to its front
#                2      |  5
# Scratch   a Kept, on the stack: 25 KB.

from libc.string cimport memmove

from convcore.kernels.blocks cimport SPAN, Block, Blocks
from convcore.kernels.norm_lanes cimport ANY, WHOLE, Norm, raised
from convcore.kernels.vector cimport cc_all_f64, f64v, real
from convcore.kernels.vector_wide cimport WIDE_LANES, narrow_part, wide, wide_part

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
