# Means row by row, and their gradient, where the tables of pool_places.pxd tell the terms.
#
# What      A block of a row of the result takes its terms from some rows of the source:
#           forward, sums of columns, then along them (pool_sums.pxd); backward, shares,
#           then to the cells (pool_shares.pxd), for all rows under the same windows once.
# Assumes   `results_at_most` is not 0 for the axis.
# Parallel  the caller's, over blocks. Rows of one block are neighbours where tables have to
#           be built anew from block to block, else blocks of one row.
# Order     by the shape of one plane alone.
# Scratch   on the stack: 45 KB.

from libc.string cimport memset

from convcore.kernels.blocks cimport SPAN, Block, Blocks
from convcore.kernels.pool_long cimport count_in_row
from convcore.kernels.pool_places cimport (
    SLACK, Cells, Lanes, Places, are_inside, range_of, set_cells, set_lanes, set_places,
    set_stretch,
)
from convcore.kernels.pool_shares cimport (
    add_each_share, add_shares, fill_shares, move_shares, round_shares, share_row,
)
from convcore.kernels.pool_sums cimport NEAR, Rows, Way, fill_line, way_of, write_line
from convcore.kernels.vector cimport VEC_BYTES, cc_fetch_to_write, copy, f32v, f64v, real
from convcore.kernels.vector_wide cimport WIDE_LANES, Scale, scale_by
from convcore.kernels.windows cimport Axis, Pool

cdef enum:
    LINES = 2560  # scalars of a group of lines
    GROUP = 8  # lines of a group
    ROWS = 64  # of a table of rows

cdef struct Line:  # of one direction of a pooling
    bint back  # elements take from windows
    bint outer  # neighbouring blocks are of neighbouring rows
    Way way
    Axis x  # of the line: of windows with stride 1, backward, the transposed one
    Py_ssize_t depth, height, width, total  # of a plane of the source; scalars of all
    Py_ssize_t group, pitch  # lines of a group; from one to the next

cdef struct Run:  # blocks of one plane, and one z: neighbouring rows, or a part of one
    Py_ssize_t n, source  # rows of the result; the first scalar of the plane's first row
    Py_ssize_t z, nz  # slabs of the source
    Py_ssize_t begin  # the first of them in the table of rows


cdef inline Line line_of(const Pool* p, const Blocks* b, bint back, bint common) noexcept nogil:
    """Lay out the lines of a direction."""
    cdef Line f
    cdef Py_ssize_t length
    f.back, f.x = back, p.x
    if back:
        f.depth, f.height, f.width = p.z.out, p.y.out, p.x.out
        if common and p.x.kernel and p.x.stride == 1:
            f.back = False
            f.x.extent, f.x.out, f.x.lo = p.x.out, p.x.extent, p.x.kernel - 1 - p.x.lo
    else:
        f.depth, f.height, f.width = p.z.extent, p.y.extent, p.x.extent
    f.way = way_of(&f.x)
    f.total = p.planes * f.depth * f.height * f.width
    f.outer = b.per_row > 1 and (back or p.x.kernel == 0)
    if f.outer and are_inside(&p.x, 0, b.width, back):
        f.outer = False
    length = (b.block - 1) * f.x.stride + f.x.kernel if f.x.kernel else f.width
    f.pitch = (min(length, SPAN) + 2 * SLACK + 7) // 8 * 8
    f.group = 1 if b.per_row > 1 and not f.outer else max(1, min(GROUP, LINES // f.pitch))
    return f


cdef inline Block row_at(const Line* f, const Blocks* b, Py_ssize_t i) noexcept nogil:
    """Find the i-th block, in the order of the lines."""
    cdef Block at
    cdef Py_ssize_t rows = b.count // b.per_row, part, row
    if f.outer:
        part = i // rows
        row = i - part * rows
    else:
        row = i // b.per_row
        part = i - row * b.per_row
    at.x = part * b.block
    at.plane = row // (b.height * b.depth)
    at.z = row // b.height - at.plane * b.depth
    at.y = row % b.height
    at.n = min(b.block, b.width - at.x)
    at.offset = row * b.width + at.x
    return at


cdef inline void set_run(
    const Pool* p, const Line* f, const Blocks* b, bint back, const Block* o,
    Py_ssize_t left, Places* rows, Run* r,
) noexcept nogil:
    """Find a run of at most `left` blocks, whose rows are in the table."""
    r.n = min(left, b.height - o.y) if f.outer or b.per_row == 1 else 1
    r.begin = o.y - rows.begin
    if rows.n == 0 or r.begin < 0 or r.begin >= rows.n:
        rows.back = back
        set_places(&p.y, o.y, min(ROWS, b.height - o.y), rows)
        r.begin = 0
    r.n = min(r.n, rows.n - r.begin)
    range_of(&p.z, o.z, back, &r.z, &r.nz)
    r.source = ((o.plane * f.depth + r.z) * f.height + rows.origin) * f.width


cdef inline void use_places(
    const Line* f, const Axis* a, bint count_pad, const Block* o, Py_ssize_t lanes,
    Places* t, Lanes* l, Cells* c,
) noexcept nogil:
    """Have the tables of a block ready."""
    cdef bint moved = t.begin != o.x or t.n != o.n, anew
    if f.x.kernel and not t.back:
        if set_stretch(&f.x, o.x, o.n, t):
            t.known = t.n
            if c != NULL:
                set_cells(a, t, count_pad, c)
        return
    anew = set_places(&f.x, o.x, o.n, t)
    if anew:
        set_lanes(t, lanes, l)
    if c != NULL and (anew or (moved and t.back)):
        set_cells(a, t, count_pad, c)


cdef inline void row_scales(
    const Pool* p, double common, const Cells* c, Py_ssize_t z, Py_ssize_t y, Py_ssize_t n,
    Scale* by,
) noexcept nogil:
    """Prepare to divide the means of n rows."""
    cdef Py_ssize_t j
    cdef double divisor, before = common
    if common:
        return
    for j in range(n):
        divisor = count_in_row(p, z, y + j) * (c.count[0] if c.alike else 1)
        by[j] = by[j - 1] if j and divisor == before else scale_by(divisor)
        before = divisor


cdef inline void means_of_rows(
    const Pool* p, const Line* f, const Blocks* b, bint back, double common, const real* x,
    real* y, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Write blocks begin .. end of y, or of a dx that is as if it were one."""
    cdef double[LINES] lines
    cdef Places t, rows
    cdef Lanes l
    cdef Cells c
    cdef Scale[GROUP] by
    cdef Rows s
    cdef Run r
    cdef Block o = row_at(f, b, end - 1)
    cdef Py_ssize_t stop = o.offset + o.n, i, j, n, first, skip, length, to
    cdef const double* line
    memset(lines, 0, sizeof(lines))
    t.back, t.inside, t.begin, t.n, t.known = False, False, 0, 0, 0
    rows.inside, rows.begin, rows.n, c.alike = False, 0, 0, True
    for j in range(GROUP):
        by[j] = scale_by(common if common else 1)
    s.slab, s.row = f.height * f.width, f.width
    while begin < end:
        o = row_at(f, b, begin)
        use_places(f, &p.x, p.count_pad, &o, WIDE_LANES, &t, &l, NULL if common else &c)
        set_run(p, f, b, back, &o, end - begin, &rows, &r)
        begin += r.n
        s.slabs, skip, length = r.nz, 0, t.span
        if f.x.kernel:
            skip = t.origin - (o.x * f.x.stride - f.x.lo)
            length = (o.n - 1) * f.x.stride + f.x.kernel
        i = 0
        while i < r.n:
            n = min(f.group, r.n - i)
            for j in range(n):
                s.rows = rows.count[r.begin + i + j]
                first = r.source + rows.first[r.begin + i + j] * f.width + t.origin
                fill_line(
                    x + first, &s, skip, t.span, f.total - first, lines + j * f.pitch, length
                )
            row_scales(p, common, &c, o.z, o.y + i, n, by)
            for j in range(n):
                to = o.offset + (i + j) * b.width
                line = lines + j * f.pitch
                write_line(
                    f.way, line, &f.x, &t, &l, &by[j], NULL if c.alike else &c, y + to, o.n,
                    o.n if f.outer else stop - to,
                )
            i += n


cdef inline void copy_row(
    const real* row, Py_ssize_t n, Py_ssize_t room, real* to
) noexcept nogil:
    """Copy n scalars that were written before; `room` may be written."""
    cdef Py_ssize_t j = 0
    if n + SLACK // 4 > room:
        copy(to, row, n)
        return
    while j < n:
        cc_fetch_to_write(<const char*>(to + j) + NEAR)
        if real is float:
            (<f32v*>(to + j))[0] = (<const f32v*>(row + j))[0]
        else:
            (<f64v*>(to + j))[0] = (<const f64v*>(row + j))[0]
        j += VEC_BYTES // <Py_ssize_t>sizeof(real)


cdef inline void shares_of_rows(
    const Pool* p, const Line* f, const Blocks* b, double common, const real* dy, real* dx,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Write blocks begin .. end of dx."""
    cdef double[SPAN + 2 * SLACK] line
    cdef real[SPAN + 2 * SLACK] shares
    cdef Places t, rows
    cdef Lanes l
    cdef Cells c
    cdef Rows s
    cdef Run r
    cdef Block o = row_at(f, b, end - 1)
    cdef Py_ssize_t stop = o.offset + o.n, first, room, row, count, i, to
    cdef Py_ssize_t each = windows_over(&p.x)
    cdef Py_ssize_t lanes = WIDE_LANES * (8 // <Py_ssize_t>sizeof(real) if each == 1 else 1)
    cdef bint moved, gaps = 0 < p.x.kernel < p.x.stride
    cdef Scale by = scale_by(common if common else 1)
    memset(line, 0, sizeof(line))
    memset(shares, 0, sizeof(shares))
    t.back, t.inside, t.begin, t.n = True, False, 0, 0
    rows.inside, rows.begin, rows.n = False, 0, 0
    s.slab, s.row = f.height * f.width, f.width
    while begin < end:
        o = row_at(f, b, begin)
        use_places(f, &p.x, p.count_pad, &o, lanes, &t, &l, NULL if common else &c)
        set_run(p, f, b, True, &o, end - begin, &rows, &r)
        begin += r.n
        s.slabs, row, count = r.nz, -1, 0
        for i in range(r.n):
            s.rows = rows.count[r.begin + i]
            moved = rows.first[r.begin + i] != row or s.rows != count
            if moved:
                row, count = rows.first[r.begin + i], s.rows
                first = r.source + row * f.width + t.origin
                if each == 1 and common and r.nz == 1 and count == 1 and (
                    first + t.span + WIDE_LANES <= f.total
                ):
                    share_row(dy + first, t.span, &by, shares)
                elif r.nz > 0 and count > 0 and t.span > 0:
                    fill_shares(
                        p, dy + first, &s, r.z, rows.origin + row, t.span, f.total - first,
                        NULL if common else &c, line,
                    )
                    if each == 1:
                        round_shares(<const double*>line, t.span, &by, shares)
                else:
                    memset(line, 0, t.span * sizeof(double))
                    memset(shares, 0, t.span * sizeof(real))
                if t.least < 1:  # cells behind the last window take the next share
                    memset(shares + t.span, 0, SLACK * sizeof(real))
            to = o.offset + i * b.width
            room = o.n if f.outer else stop - to
            if each == 1:
                move_shares(<const real*>shares, &l, gaps, dx + to, o.n, room)
            elif not moved:
                copy_row(dx + to - b.width, o.n, room, dx + to)
            elif l.widest < WIDE_LANES:
                add_shares(<const double*>line, &t, &l, &by, dx + to, o.n, room)
            else:
                add_each_share(<const double*>line, &t, &by, dx + to, o.n)


cdef inline Py_ssize_t windows_over(const Axis* a) noexcept nogil:
    """Bound how many windows hold an element."""
    if a.kernel == 0:
        return 2 + (a.out - 1) // a.extent if a.extent % a.out else 1
    return (a.kernel - 1) // a.stride + 1
