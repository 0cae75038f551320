# Sums over rectangular windows, and over the windows that hold an element.
#
# What      Both are the same two passes. A line gets the sums of the rows of the source
#           that belong to a row of the result, column by column; then each result is the
#           sum of `kernel` neighbours of the line:
#
#               forward     line: columns of x, zeros where there is padding
#               backward    line: windows over the row, `stride` apart, zeros between
#
#           line      0 0 | c0 c1 c2 ... | 0 0          (lo zeros, columns, zeros)
#           result    [_______] [_______]               every stride-th, forward
#
# Assumes   a kernel of at most SPAN / 2, a stride of at most MOST_STRIDE (`in_lines`).
# Parallel  the caller's. Bits depend on the shape of a plane alone: each sum goes
#           through its rows, then through its columns, in order, alone in its lane.
# Scratch   lines of a group of rows on the stack: 20 KB. The first pass of all of them
#           comes before the second, so that no load waits for a store just done.
# Cost      20 ns a row beside its vectors: wide rows are bound by memory, narrow ones not.
# Why not   Sums in float32: a mean of large numbers would overflow.

from libc.string cimport memset

from convcore.kernels.blocks cimport SPAN, Block, Blocks
from convcore.kernels.vector cimport (
    all_lanes, f64v, interleave_high, interleave_low, pair, real, zero_lanes,
)
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, Scale, divided, narrow, narrow_part, quotient, wide, wide_part,
)
from convcore.kernels.windows cimport Axis, Pool

cdef enum:
    MOST_STRIDE = 8  # above it few columns belong to two windows
    SLACK = 32  # scalars behind a line that may be written: four vectors of 64 bytes
    LINES = 2048  # scalars of a group of lines
    GROUP = 8  # rows of a group

cdef struct Part:  # what one block of results needs
    Py_ssize_t z, nz, y, ny  # rows of the source
    Py_ssize_t x, n  # its columns
    Py_ssize_t skip  # zeros before them in the line

cdef struct Frame:  # of one direction of a pooling
    Py_ssize_t depth, height, width  # of a plane of the source
    Py_ssize_t total  # scalars of the source
    Py_ssize_t step  # from one column of the source to the next in the line
    Py_ssize_t pitch, group  # from line to line; lines of a group
    bint back


cdef inline bint in_lines(const Axis* a) noexcept nogil:
    """Tell whether sums along an axis are taken in lines."""
    return 0 < a.kernel <= SPAN // 2 and a.stride <= MOST_STRIDE


cdef inline Py_ssize_t steps(Py_ssize_t n, Py_ssize_t step) noexcept nogil:
    """Give n // step for n >= 0, without a division where that is easy."""
    return n if step == 1 else n >> 1 if step == 2 else n // step


cdef inline Py_ssize_t line_of(const Axis* a, Py_ssize_t n, bint back) noexcept nogil:
    """Give the length of the line for n results."""
    return (n - 1) * (1 if back else a.stride) + a.kernel


cdef inline Py_ssize_t results_in_line(const Axis* a, bint back) noexcept nogil:
    """Give how many results a line of SPAN allows for."""
    return (SPAN - a.kernel) // (1 if back else a.stride) + 1


cdef inline Frame frame_of(const Pool* p, const Blocks* b, bint back) noexcept nogil:
    """Lay out the lines of a direction."""
    cdef Frame f
    f.back = back
    if back:
        f.depth, f.height, f.width = p.z.out, p.y.out, p.x.out
    else:
        f.depth, f.height, f.width = p.z.extent, p.y.extent, p.x.extent
    f.total = p.planes * f.depth * f.height * f.width
    f.step = p.x.stride if back else 1
    f.pitch = (line_of(&p.x, b.block, back) + SLACK + 7) // 8 * 8
    f.group = min(GROUP, LINES // f.pitch)
    return f


cdef inline void range_of(
    const Axis* a, Py_ssize_t i, bint back, Py_ssize_t* first, Py_ssize_t* count
) noexcept nogil:
    """Give the elements of window i, backward the windows over element i."""
    cdef Py_ssize_t start, stop
    if a.kernel == 0:
        if back:
            start, stop = i * a.out // a.extent, ((i + 1) * a.out - 1) // a.extent + 1
        else:
            start, stop = i * a.extent // a.out, ((i + 1) * a.extent - 1) // a.out + 1
    elif back:
        start = i + a.lo - a.kernel
        start = 0 if start < 0 else steps(start, a.stride) + 1
        stop = min(steps(i + a.lo, a.stride) + 1, a.out)
    else:
        start = i * a.stride - a.lo
        stop = min(start + a.kernel, a.extent)
        start = max(start, 0)
    first[0], count[0] = start, stop - start


cdef inline Part part_of(const Pool* p, const Frame* f, const Block* o) noexcept nogil:
    """Find the rows and columns that a block of results needs."""
    cdef Part s
    cdef Py_ssize_t stop, last
    range_of(&p.z, o.z, f.back, &s.z, &s.nz)
    range_of(&p.y, o.y, f.back, &s.y, &s.ny)
    range_of(&p.x, o.x, f.back, &s.x, &s.n)
    if o.n > 1:
        range_of(&p.x, o.x + o.n - 1, f.back, &last, &stop)
        s.n = last + stop - s.x
    s.n = max(s.n, 0)
    if f.back:
        s.skip = s.x * p.x.stride - (o.x + p.x.lo - p.x.kernel + 1)
    else:
        s.skip = s.x - (o.x * p.x.stride - p.x.lo)
    return s


cdef inline void next_block(const Blocks* b, Block* o) noexcept nogil:
    """Go to the next block."""
    o.offset += o.n
    o.x += o.n
    if o.x == b.width:
        o.x = 0
        o.y += 1
        if o.y == b.height:
            o.y = 0
            o.z += 1
            if o.z == b.depth:
                o.z = 0
                o.plane += 1
    o.n = min(b.block, b.width - o.x)


cdef inline f64v rows_at(
    const real* x, Py_ssize_t nz, Py_ssize_t slab, Py_ssize_t ny, Py_ssize_t row
) noexcept nogil:
    """Sum a vector of columns over the rows."""
    cdef f64v v
    cdef Py_ssize_t z, y
    v = zero_lanes(&v)
    for z in range(nz):
        for y in range(ny):
            v = v + wide(x + z * slab + y * row)
    return v


cdef inline f64v rows_at_end(
    const real* x, Py_ssize_t nz, Py_ssize_t slab, Py_ssize_t ny, Py_ssize_t row,
    Py_ssize_t n,
) noexcept nogil:
    """Do the same with n columns, and read no others."""
    cdef f64v v
    cdef Py_ssize_t z, y
    v = zero_lanes(&v)
    for z in range(nz):
        for y in range(ny):
            v = v + wide_part(x + z * slab + y * row, n)
    return v


cdef inline void put_line(
    double* line, Py_ssize_t j, Py_ssize_t step, f64v v, Py_ssize_t n
) noexcept nogil:
    """Put the columns from j on into a line: whole vectors, or n scalars far apart."""
    cdef f64v zeros = zero_lanes(&v)
    cdef double[8] lane  # WIDE_LANES at most
    cdef Py_ssize_t i
    if step == 1:
        (<f64v*>(line + j))[0] = v
    elif step == 2:
        (<f64v*>(line + 2 * j))[0] = interleave_low(v, zeros)
        (<f64v*>(line + 2 * j + WIDE_LANES))[0] = interleave_high(v, zeros)
    else:
        (<f64v*>lane)[0] = v
        for i in range(min(n, WIDE_LANES)):
            line[(j + i) * step] = lane[i]


cdef inline void sum_rows(
    const Frame* f, const Part* s, const real* x, Py_ssize_t left, double* line,
    Py_ssize_t ny, Py_ssize_t step,
) noexcept nogil:
    """Put the sums of n columns over the rows into a line; `left` scalars may be read."""
    cdef Py_ssize_t j = 0, row = f.width, slab = f.height * f.width
    cdef Py_ssize_t whole = left - ((s.nz - 1) * slab + (ny - 1) * row)
    cdef f64v a, b
    while j + WIDE_LANES < s.n and j + 2 * WIDE_LANES <= whole:
        a = rows_at(x + j, s.nz, slab, ny, row)
        b = rows_at(x + j + WIDE_LANES, s.nz, slab, ny, row)
        put_line(line, j, step, a, s.n - j)
        put_line(line, j + WIDE_LANES, step, b, s.n - j - WIDE_LANES)
        j += 2 * WIDE_LANES
    while j < s.n:
        if j + WIDE_LANES <= whole:
            a = rows_at(x + j, s.nz, slab, ny, row)
        else:
            a = rows_at_end(x + j, s.nz, slab, ny, row, min(s.n - j, WIDE_LANES))
        put_line(line, j, step, a, s.n - j)
        j += WIDE_LANES


cdef inline void sum_few_rows(
    const Frame* f, const Part* s, const real* x, Py_ssize_t left, double* line,
    Py_ssize_t step,
) noexcept nogil:
    """Do `sum_rows`, with the usual numbers of rows as constants."""
    if s.nz == 1 and s.ny == 1:
        sum_rows(f, s, x, left, line, 1, step)
    elif s.nz == 1 and s.ny == 2:
        sum_rows(f, s, x, left, line, 2, step)
    elif s.nz == 1 and s.ny == 3:
        sum_rows(f, s, x, left, line, 3, step)
    else:
        sum_rows(f, s, x, left, line, s.ny, step)


cdef inline void fill_line(
    const Frame* f, const Part* s, const real* x, Py_ssize_t left, double* line,
    Py_ssize_t length,
) noexcept nogil:
    """Write a line: zeros, the sums of columns over the rows, zeros."""
    cdef Py_ssize_t j, end = s.skip + s.n * f.step
    cdef f64v zeros = zero_lanes(&zeros)
    if f.step > 2:
        memset(line, 0, (length + SLACK) * sizeof(double))
    for j in range(min(s.skip, length)):
        line[j] = 0
    if s.n:
        if f.step == 1:
            sum_few_rows(f, s, x, left, line + s.skip, 1)
        elif f.step == 2:
            sum_few_rows(f, s, x, left, line + s.skip, 2)
        else:
            sum_rows(f, s, x, left, line + s.skip, s.ny, f.step)
    while end < length:
        (<f64v*>(line + end))[0] = zeros
        end += WIDE_LANES


cdef inline f64v neighbours(const double* line, Py_ssize_t k) noexcept nogil:
    """Sum k neighbours, from each lane on."""
    cdef f64v v = (<const f64v*>line)[0]
    cdef Py_ssize_t i
    for i in range(1, k):
        v = v + (<const f64v*>(line + i))[0]
    return v


cdef inline f64v neighbours_by_two(const double* line, Py_ssize_t k) noexcept nogil:
    """Sum k neighbours, from each second scalar on."""
    cdef f64v v, even, odd
    cdef unsigned long long all_bits = (1 << (2 * WIDE_LANES)) - 1
    cdef Py_ssize_t i
    if k == 1:
        pair(<const f64v*>line, all_bits, &even, &odd)
        return even
    pair(<const f64v*>line, all_bits, &even, &odd)
    v = even + odd
    for i in range(2, k - 1, 2):
        pair(<const f64v*>(line + i), all_bits, &even, &odd)
        v = v + even
        v = v + odd
    if k & 1:
        pair(<const f64v*>(line + k - 1), all_bits, &even, &odd)
        v = v + even
    return v


cdef inline void sum_line(
    const double* line, Py_ssize_t k, Py_ssize_t step, const Scale* by, real* y,
    Py_ssize_t n, Py_ssize_t room,
) noexcept nogil:
    """Write n sums of k neighbours, divided; `room` scalars may be written."""
    cdef Py_ssize_t j = 0
    cdef f64v v
    while j < n:
        v = neighbours_by_two(line + 2 * j, k) if step == 2 else neighbours(line + j, k)
        v = divided(v, by, y)
        if j + WIDE_LANES <= room:
            narrow(y + j, v)
        else:
            narrow_part(y + j, v, n - j)
        j += WIDE_LANES


cdef inline void sum_few(
    const double* line, Py_ssize_t k, Py_ssize_t step, const Scale* by, real* y,
    Py_ssize_t n, Py_ssize_t room,
) noexcept nogil:
    """Do `sum_line`, with the usual kernels as constants."""
    if k == 3:
        sum_line(line, 3, step, by, y, n, room)
    elif k == 2:
        sum_line(line, 2, step, by, y, n, room)
    else:
        sum_line(line, k, step, by, y, n, room)


cdef inline void read_line(
    const Pool* p, bint back, const double* line, const Scale* by, real* y, Py_ssize_t n,
    Py_ssize_t room,
) noexcept nogil:
    """Write n results of a line; up to `room` scalars, those behind n with anything."""
    cdef real[SPAN + SLACK] every
    cdef Py_ssize_t j, step = 1 if back else p.x.stride
    if step == 1:
        sum_few(line, p.x.kernel, 1, by, y, n, room)
    elif step == 2:
        sum_few(line, p.x.kernel, 2, by, y, n, room)
    else:
        sum_line(line, p.x.kernel, 1, by, <real*>every, (n - 1) * step + 1, SPAN + SLACK)
        for j in range(n):
            y[j] = every[j * step]


cdef inline double neighbours_of_one(const double* line, Py_ssize_t k) noexcept nogil:
    """Do `neighbours` with one scalar, in the same order."""
    cdef double v = line[0]
    cdef Py_ssize_t i
    for i in range(1, k):
        v += line[i]
    return v
