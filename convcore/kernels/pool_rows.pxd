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
    SLACK, Cells, Lanes, Places, range_of, results_at_most, set_cells, set_lanes, set_places,
)
from convcore.kernels.pool_shares cimport (
    add_each_share, add_shares, fill_shares, move_shares, round_shares,
)
from convcore.kernels.pool_sums cimport Rows, Way, fill_line, way_of, write_line
from convcore.kernels.vector cimport real
from convcore.kernels.vector_wide cimport WIDE_LANES, Scale, scale_by
from convcore.kernels.windows cimport Axis, Pool

cdef enum:
    LINES = 2560  # scalars of a group of lines
    GROUP = 8  # lines of a group
    AHEAD = 64  # rows of a table of rows

cdef struct Line:  # of one direction of a pooling
    bint back  # elements take from windows
    bint outer  # neighbouring blocks are of neighbouring rows
    Way way
    Axis x  # of the line: of windows with stride 1, backward, the transposed one
    Py_ssize_t depth, height, width, total  # of a plane of the source; scalars of all
    Py_ssize_t group, pitch  # lines of a group; from one to the next

cdef struct Cursor:  # what a task knows of the row where it is
    Places y
    Py_ssize_t plane, z, nz, row, ny, of_z  # of_z: the z that nz belongs to


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
    length = (b.block - 1) * f.x.stride + f.x.kernel if f.x.kernel else f.width
    f.pitch = (min(length, SPAN) + 2 * SLACK + 7) // 8 * 8
    f.group = 1 if b.per_row > 1 else max(1, min(GROUP, LINES // f.pitch))
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


cdef inline void next_row(const Line* f, const Blocks* b, Block* o) noexcept nogil:
    """Go to the next block."""
    if f.outer:
        o.offset += b.width
    else:
        o.offset += o.n
        o.x += o.n
        if o.x < b.width:
            o.n = min(b.block, b.width - o.x)
            return
        o.x = 0
        o.n = min(b.block, b.width)
    o.y += 1
    if o.y < b.height:
        return
    o.y = 0
    o.z += 1
    if o.z < b.depth:
        return
    o.z = 0
    o.plane += 1
    if f.outer and o.offset >= b.count // b.per_row * b.width:
        o.offset -= b.count // b.per_row * b.width
        o.plane = 0
        o.offset += o.n
        o.x += o.n
        o.n = min(b.block, b.width - o.x)


cdef inline void start(Cursor* at) noexcept nogil:
    """Know nothing yet."""
    at.y.n, at.y.begin, at.y.inside, at.of_z, at.plane = 0, 0, False, -1, -1


cdef inline Py_ssize_t rows_of(
    const Pool* p, const Line* f, bint back, const Block* o, Cursor* at, Rows* s
) noexcept nogil:
    """Find the rows of the source for a block, and give the first scalar of the first."""
    cdef Py_ssize_t j = o.y - at.y.begin, z, first
    if o.z != at.of_z:
        range_of(&p.z, o.z, back, &at.z, &at.nz)
        at.of_z = o.z
    if j < 0 or j >= at.y.n:
        at.y.back = back
        set_places(&p.y, o.y, min(AHEAD, (p.y.extent if back else p.y.out) - o.y), &at.y)
        j = 0
    at.row, at.ny, at.plane = at.y.origin + at.y.first[j], at.y.count[j], o.plane
    s.slabs, s.rows = at.nz, at.ny
    s.slab, s.row = f.height * f.width, f.width
    return ((o.plane * f.depth + at.z) * f.height + at.row) * f.width


cdef inline void use_places(
    const Line* f, const Axis* a, bint count_pad, const Block* o, Py_ssize_t lanes,
    Places* t, Lanes* l, Cells* c, bint* moved,
) noexcept nogil:
    """Have the tables of a block ready."""
    moved[0] = t.begin != o.x or t.n != o.n
    if not moved[0]:
        return
    if set_places(&f.x, o.x, o.n, t):
        set_lanes(t, lanes, l)
        if c != NULL:
            set_cells(a, t, count_pad, c)
    elif c != NULL and f.x.kernel == 0:
        set_cells(a, t, count_pad, c)


cdef inline void means_of_rows(
    const Pool* p, const Line* f, const Blocks* b, bint back, double common, const real* x,
    real* y, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Write blocks begin .. end of y, or of a dx that is as if it were one."""
    cdef double[LINES] lines
    cdef Places t
    cdef Lanes l
    cdef Cells c
    cdef Block[GROUP] o
    cdef Scale[GROUP] by
    cdef Cursor at
    cdef Rows s
    cdef bint moved
    cdef Block block = row_at(f, b, begin), last = row_at(f, b, end - 1)
    cdef Py_ssize_t stop = last.offset + last.n, j, n, first, room
    cdef double divisor, before = 0
    cdef Scale scale = scale_by(common if common else 1)
    memset(lines, 0, sizeof(lines))
    start(&at)
    t.back, t.inside, t.begin, t.n = False, False, 0, 0
    c.alike = True
    while begin < end:
        n = min(f.group, end - begin)
        begin += n
        for j in range(n):
            o[j] = block
            use_places(
                f, &p.x, p.count_pad, &block, WIDE_LANES, &t, &l, NULL if common else &c, &moved
            )
            first = rows_of(p, f, back, &block, &at, &s) + t.origin
            fill_line(
                x + first, &s, t.origin - (block.x * f.x.stride - f.x.lo) if f.x.kernel else 0,
                t.span, f.total - first, lines + j * f.pitch,
                (block.n - 1) * f.x.stride + f.x.kernel if f.x.kernel else t.span,
            )
            if common == 0:
                divisor = count_in_row(p, block.z, block.y)
                if c.alike:
                    divisor *= c.count[0]
                if divisor != before:
                    scale = scale_by(divisor)
                    before = divisor
            by[j] = scale
            next_row(f, b, &block)
        for j in range(n):
            room = o[j].n if f.outer else stop - o[j].offset
            write_line(
                f.way, <const double*>lines + j * f.pitch, &f.x, &t, &l, &by[j],
                NULL if c.alike else &c, y + o[j].offset, o[j].n, room,
            )


cdef inline void shares_of_rows(
    const Pool* p, const Line* f, const Blocks* b, double common, const real* dy, real* dx,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Write blocks begin .. end of dx."""
    cdef double[SPAN + 2 * SLACK] line
    cdef real[SPAN + 2 * SLACK] shares
    cdef Places t
    cdef Lanes l
    cdef Cells c
    cdef Cursor at
    cdef Rows s
    cdef bint moved
    cdef Block o = row_at(f, b, begin), last = row_at(f, b, end - 1)
    cdef Py_ssize_t stop = last.offset + last.n, first, room, source = -1, nz = 0, ny = 0
    cdef Py_ssize_t each = windows_over(&p.x)
    cdef Py_ssize_t lanes = WIDE_LANES * (8 // <Py_ssize_t>sizeof(real) if each == 1 else 1)
    cdef Scale by = scale_by(common if common else 1)
    memset(line, 0, sizeof(line))
    memset(shares, 0, sizeof(shares))
    start(&at)
    t.back, t.inside, t.begin, t.n = True, False, 0, 0
    for _ in range(begin, end):
        use_places(f, &p.x, p.count_pad, &o, lanes, &t, &l, NULL if common else &c, &moved)
        first = rows_of(p, f, True, &o, &at, &s) + t.origin
        if moved or first != source or at.nz != nz or at.ny != ny:
            source, nz, ny = first, at.nz, at.ny
            if nz > 0 and ny > 0 and t.span > 0:
                fill_shares(
                    p, dy + first, &s, at.z, at.row, t.span, f.total - first,
                    NULL if common else &c, line,
                )
            else:
                memset(line, 0, t.span * sizeof(double))
            if each == 1:
                round_shares(<const double*>line, t.span, &by, shares)
                memset(shares + t.span, 0, 2 * WIDE_LANES * sizeof(real))
        room = o.n if b.per_row > 1 else stop - o.offset
        if each == 1:
            move_shares(
                <const real*>shares, &l, 0 < p.x.kernel < p.x.stride, dx + o.offset, o.n, room
            )
        elif l.widest < WIDE_LANES:
            add_shares(<const double*>line, &t, &l, &by, dx + o.offset, o.n, room)
        else:
            add_each_share(<const double*>line, &t, &by, dx + o.offset, o.n)
        next_row(f, b, &o)


cdef inline Py_ssize_t windows_over(const Axis* a) noexcept nogil:
    """Bound how many windows hold an element."""
    if a.kernel == 0:
        return 2 + (a.out - 1) // a.extent if a.extent % a.out else 1
    return (a.kernel - 1) // a.stride + 1
