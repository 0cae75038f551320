# What windows give to the elements of a row that they hold.
#
# What      share[o] = sum of dy[row][o] over the windows above and below, divided
#           dx[i]    = sum of share[o] over the windows o that hold i
#
#           share     s0    s1    s2
#           dx        s0 s0 s0+s1 s1 s1+s2 s2 s2        every lane takes its windows by
#                                                       their places (pool_places.pxd)
# Layout    shares are a line; the rows of dx under the same windows are written from one.
#           Where no two windows overlap, shares are rounded first, and only moved then.
# Order     of each sum by rows, then along the row.
# Why not   Windows that are spread out over zeros, `stride` apart, and neighbours added
#           then: kernel additions for kernel / stride terms.

from convcore.kernels.pool_long cimport count_in_row
from convcore.kernels.pool_places cimport Cells, Lanes, Places
from convcore.kernels.pool_sums cimport NEAR, Rows, some, sum_few_columns
from convcore.kernels.vector cimport (
    cc_fetch_to_write, cc_take_f32, cc_take_f64, f32v, f64v, put_part, real, zero_lanes,
)
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, Scale, cc_masked, cc_more, divided, narrow, narrow_part, quotient, wide,
)
from convcore.kernels.windows cimport Pool, cells


cdef inline bint same_counts(
    const Pool* p, Py_ssize_t z, Py_ssize_t nz, Py_ssize_t y, Py_ssize_t ny
) noexcept nogil:
    """Tell whether some rows of windows divide by the same, but for their columns."""
    cdef Py_ssize_t i, deep = cells(&p.z, z, p.count_pad), high = cells(&p.y, y, p.count_pad)
    for i in range(z + 1, z + nz):
        if cells(&p.z, i, p.count_pad) != deep:
            return False
    for i in range(y + 1, y + ny):
        if cells(&p.y, i, p.count_pad) != high:
            return False
    return True


cdef inline void add_uneven(
    const Pool* p, const real* dy, const Rows* s, Py_ssize_t z, Py_ssize_t y, Py_ssize_t n,
    double* line,
) noexcept nogil:
    """Add rows, each divided by what its windows divide by."""
    cdef Py_ssize_t i, k, j
    cdef double count
    cdef const real* row
    for j in range(n):
        line[j] = 0
    for i in range(s.slabs):
        for k in range(s.rows):
            row = dy + i * s.slab + k * s.row
            count = count_in_row(p, z + i, y + k)
            for j in range(n):
                line[j] += row[j] / count


cdef inline void fill_shares(
    const Pool* p, const real* dy, const Rows* s, Py_ssize_t z, Py_ssize_t y, Py_ssize_t n,
    Py_ssize_t left, const Cells* c, double* line,
) noexcept nogil:
    """Write n shares to a line, divided where there are cells; some rows at least."""
    cdef Py_ssize_t j = 0
    cdef double rows = 1
    if c == NULL:
        sum_few_columns(dy, s, n, left, line)
        return
    if s.slabs * s.rows == 1 or same_counts(p, z, s.slabs, y, s.rows):
        sum_few_columns(dy, s, n, left, line)
        rows = count_in_row(p, z, y)
    else:
        add_uneven(p, dy, s, z, y, n, line)
    if real is float:
        rows = 1 / rows
    while j < n:
        if real is float:
            (<f64v*>(line + j))[0] = (<f64v*>(line + j))[0] * (
                (<const f64v*>&c.inverse[j])[0] * rows
            )
        else:
            (<f64v*>(line + j))[0] = (<f64v*>(line + j))[0] / (
                (<const f64v*>&c.count[j])[0] * rows
            )
        j += WIDE_LANES


cdef inline void round_shares(
    const double* line, Py_ssize_t n, const Scale* by, real* shares
) noexcept nogil:
    """Divide shares, and round them."""
    cdef Py_ssize_t j = 0
    while j < n:
        narrow(shares + j, divided((<const f64v*>(line + j))[0], by, shares))
        j += WIDE_LANES


cdef inline void share_row(
    const real* dy, Py_ssize_t n, const Scale* by, real* shares
) noexcept nogil:
    """Do both for one row, of which a vector more may be read."""
    cdef Py_ssize_t j = 0
    cdef f64v zeros = zero_lanes(&zeros)
    while j < n:  # a sum is never -0
        narrow(shares + j, divided(zeros + wide(dy + j), by, shares))
        j += WIDE_LANES


cdef inline void move_shares(
    const real* shares, const Lanes* l, bint gaps, real* dx, Py_ssize_t n, Py_ssize_t room
) noexcept nogil:
    """Write n elements that one window holds, or with gaps none."""
    cdef Py_ssize_t j = 0
    cdef f32v v
    cdef f64v w
    if gaps:
        for j in range(n):
            dx[j] = shares[l.base[j // l.lanes] + l.near[j]] if l.counts[j] > 0 else 0
        return
    while j < n:
        if real is float:
            cc_fetch_to_write(<const char*>(dx + j) + NEAR)
            v = cc_take_f32(shares + l.base[j // (2 * WIDE_LANES)], &l.near[j])
            if j + 2 * WIDE_LANES <= room:
                (<f32v*>(dx + j))[0] = v
            else:
                put_part(<f32v*>(dx + j), v, n - j)
            j += 2 * WIDE_LANES
        else:
            cc_fetch_to_write(<const char*>(dx + j) + NEAR)
            w = cc_take_f64(shares + l.base[j // WIDE_LANES], &l.near[j])
            if j + WIDE_LANES <= room:
                (<f64v*>(dx + j))[0] = w
            else:
                put_part(<f64v*>(dx + j), w, n - j)
            j += WIDE_LANES


cdef inline void add_shares(
    const double* line, const Places* t, const Lanes* l, const Scale* by, real* dx,
    Py_ssize_t n, Py_ssize_t room,
) noexcept nogil:
    """Write n elements that some windows hold."""
    cdef Py_ssize_t j = 0, k
    cdef f64v v, term
    cdef const double* at
    while j < n:
        cc_fetch_to_write(<const char*>(dx + j) + NEAR)
        at = line + l.base[j // WIDE_LANES]
        v = cc_take_f64(at, &l.near[j])
        if t.least < 1:
            v = cc_masked(v, cc_more(<const double*>&l.counts[j], 0))
        for k in range(1, t.most):
            term = cc_take_f64(at + k, &l.near[j])
            if k >= t.least:
                term = cc_masked(term, cc_more(<const double*>&l.counts[j], k))
            v = v + term
        v = divided(v, by, dx)
        if j + WIDE_LANES <= room:
            narrow(dx + j, v)
        else:
            narrow_part(dx + j, v, n - j)
        j += WIDE_LANES


cdef inline void add_each_share(
    const double* line, const Places* t, const Scale* by, real* dx, Py_ssize_t n
) noexcept nogil:
    """Do the same one by one."""
    cdef Py_ssize_t j
    for j in range(n):
        dx[j] = quotient(some(line + t.first[j], t.count[j]), by, dx)
