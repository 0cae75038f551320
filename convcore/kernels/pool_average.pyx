# Average pooling of strided, adaptive and global windows, and its gradient.
#
# What      y[o] = (sum of x[i] over i in window(o)) / divisor(o)
#           dx[i] = sum of dy[o] / divisor(o) over windows o that hold i
# Layout    by shape: a window of the whole plane is one sum; small windows with one divisor
#           go down strips of columns (pool_strips.pxd); others rows first, into lines, then
#           along them (pool_sums.pxd), by a table where windows are not evenly apart; what
#           is too long for a line, window by window.
# Assumes   buffers of the sizes that the geometry tells; windows.pxd.
# Parallel  over blocks of y, for the gradient over blocks of dx: each is written by one
#           task, which looks at all windows over its cells. Stores may spill into the next
#           block of a task before that is written. The order of every sum depends on the
#           shape of one plane alone.
# Scratch   on the stack: 30 KB.
# Cost      memory: one read of x (dy), one write of y (dx). Sums are of doubles, and are
#           rounded once.
# Why not   A running sum along W: its bits would depend on where a block starts, and an
#           Inf would turn the rest of its row into NaN.

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.string cimport memcpy, memset

from convcore.kernels.blocks cimport (
    SPAN, Block, Blocks, Rounds, block_at, cut, element_blocks, first_piece, rounds,
    taps_at_most, window_blocks, windows_at_most,
)
from convcore.kernels.buffers cimport Buffers, call, integers, reals
from convcore.kernels.pool_long cimport (
    average_by_windows, average_gradient_block, count_in_row,
)
from convcore.kernels.pool_sums cimport (
    GROUP, LINES, SLACK, Frame, Part, fill_line, frame_of, in_lines, line_of,
    neighbours_of_one, next_block, part_of, range_of, read_line, results_in_line,
)
from convcore.kernels.pool_strips cimport (
    Band, Strips, bands_of, fits, set_band, strips_of, write_band,
)
from convcore.kernels.vector cimport cc_sum_f64, f64v, real, zero_lanes
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, Scale, cc_keep_first, narrow, quotient, scale_by, wide, wide_part,
)
from convcore.kernels.windows cimport (
    Axis, Pool, cells, elements_of, first_of, pool_of, stop_of, windows_of,
)

cdef enum:
    FILL = 16384  # cells of a plane that get the same share in one go

cdef enum Mode:
    PLANE, IN_STRIPS, IN_LINES, BY_TABLE, BY_WINDOWS

cdef struct Means:  # one direction of one problem
    Pool p
    Blocks b
    Frame f
    Strips strips
    Mode mode
    double common  # divisor of all windows; 0: they differ

cdef struct Table:  # where the terms of each result of a block lie
    Py_ssize_t x, n
    int[SPAN] first, count


cdef double common_divisor(const Pool* p) noexcept nogil:
    """Give the divisor that all windows have; 0 if they differ."""
    cdef const Axis* axes[3]
    cdef Py_ssize_t first, i
    cdef double product = 1
    if p.divisor:
        return p.divisor
    axes[0] = &p.z
    axes[1] = &p.y
    axes[2] = &p.x
    for i in range(3):
        first = cells(axes[i], 0, p.count_pad)
        if axes[i].kernel == 0 and axes[i].extent % axes[i].out:
            return 0
        if axes[i].kernel and first != axes[i].kernel:
            return 0
        if first != cells(axes[i], axes[i].out - 1, p.count_pad):
            return 0
        product *= first
    return product


cdef inline f64v sum_of_plane(const real* x, Py_ssize_t n, Py_ssize_t left) noexcept nogil:
    """Sum n scalars into a vector; `left` may be read."""
    cdef f64v a, b, c, d
    cdef Py_ssize_t j = 0
    a = zero_lanes(&a)
    b, c, d = a, a, a
    while j + 4 * WIDE_LANES <= n:
        a = a + wide(x + j)
        b = b + wide(x + j + WIDE_LANES)
        c = c + wide(x + j + 2 * WIDE_LANES)
        d = d + wide(x + j + 3 * WIDE_LANES)
        j += 4 * WIDE_LANES
    while j + WIDE_LANES <= n:
        a = a + wide(x + j)
        j += WIDE_LANES
    if j + WIDE_LANES <= left:
        b = b + cc_keep_first(wide(x + j), n - j)
    elif j < n:
        b = b + wide_part(x + j, n - j)
    return (a + b) + (c + d)


cdef void means_of_planes(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write the means of planes begin .. end."""
    cdef Py_ssize_t i, n = m.p.x.extent, total = elements_of(&m.p)
    cdef Scale by = scale_by(m.common)
    for i in range(begin, end):
        y[i] = quotient(cc_sum_f64(sum_of_plane(x + i * n, n, total - i * n)), &by, y)


cdef void shares_of_planes(
    const Means* m, const real* dy, real* dx, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Fill blocks begin .. end of planes with the share of each cell."""
    cdef Block i = block_at(&m.b, begin), last = block_at(&m.b, end - 1)
    cdef Py_ssize_t stop = last.offset + last.n, k
    cdef Scale by = scale_by(m.common)
    cdef f64v v
    cdef real share
    for _ in range(begin, end):
        share = quotient(dy[i.plane], &by, dx)
        v = zero_lanes(&v) + <double>share
        k = i.offset
        while k < i.offset + i.n and k + WIDE_LANES <= stop:
            narrow(dx + k, v)
            k += WIDE_LANES
        while k < i.offset + i.n:
            dx[k] = share
            k += 1
        next_block(&m.b, &i)


cdef inline double rows_divisor(const Means* m, const Block* o) noexcept nogil:
    """Give the part of the divisor that a row of windows shares; 1 if it is common."""
    return 1 if m.common else count_in_row(&m.p, o.z, o.y)


cdef inline bint same_counts(const Pool* p, const Part* s) noexcept nogil:
    """Tell whether all windows over a row share that part of the divisor."""
    cdef Py_ssize_t i, z = cells(&p.z, s.z, p.count_pad), y = cells(&p.y, s.y, p.count_pad)
    for i in range(s.z + 1, s.z + s.nz):
        if cells(&p.z, i, p.count_pad) != z:
            return False
    for i in range(s.y + 1, s.y + s.ny):
        if cells(&p.y, i, p.count_pad) != y:
            return False
    return True


cdef void share_rows(
    const Means* m, const Part* s, const real* dy, double* line, Py_ssize_t length
) noexcept nogil:
    """Do `fill_line` where rows have divisors of their own."""
    cdef Py_ssize_t z, y, j, step = m.f.step
    cdef double count
    cdef const real* row
    memset(line, 0, length * sizeof(double))
    line += s.skip
    for z in range(s.nz):
        for y in range(s.ny):
            row = dy + (z * m.f.height + y) * m.f.width
            count = count_in_row(&m.p, s.z + z, s.y + y)
            for j in range(s.n):
                line[j * step] += row[j] / count


cdef double share_line(
    const Means* m, const Part* s, const real* dy, Py_ssize_t left, double* line,
    Py_ssize_t length,
) noexcept nogil:
    """Fill a line with what windows give to each cell; give what is left to divide by."""
    cdef Py_ssize_t j, last, count, kernel = m.p.x.kernel
    cdef double divisor = m.common
    if divisor == 0 and s.ny > 0 and s.nz > 0:
        if same_counts(&m.p, s):
            divisor = count_in_row(&m.p, s.z, s.y)
            fill_line(&m.f, s, dy, left, line, length)
        else:
            divisor = 1
            share_rows(m, s, dy, line, length)
        if m.mode == BY_TABLE:
            for j in range(s.n):
                line[s.skip + j] /= cells(&m.p.x, s.x + j, m.p.count_pad)
            return divisor
        line += s.skip
        j, last = 0, s.n
        while j < last:  # those at the ends may have fewer elements
            count = cells(&m.p.x, s.x + j, m.p.count_pad)
            if count == kernel:
                break
            line[j * m.f.step] *= <double>kernel / count
            j += 1
        while j < last:
            last -= 1
            count = cells(&m.p.x, s.x + last, m.p.count_pad)
            if count == kernel:
                break
            line[last * m.f.step] *= <double>kernel / count
        return divisor * kernel
    fill_line(&m.f, s, dy, left, line, length)
    return divisor if divisor else 1


cdef void smaller_windows(
    const Means* m, const double* line, real* y, const Block* o
) noexcept nogil:
    """Write once more the means at the ends of a row, of windows with fewer elements."""
    cdef Py_ssize_t j = 0, last = o.n, count, kernel = m.p.x.kernel, step = m.p.x.stride
    cdef double rows = count_in_row(&m.p, o.z, o.y)
    while j < last:
        count = cells(&m.p.x, o.x + j, m.p.count_pad)
        if count == kernel:
            break
        y[j] = <real>(neighbours_of_one(line + j * step, kernel) / (rows * count))
        j += 1
    while last > j:
        last -= 1
        count = cells(&m.p.x, o.x + last, m.p.count_pad)
        if count == kernel:
            break
        y[last] = <real>(neighbours_of_one(line + last * step, kernel) / (rows * count))


cdef void lines_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write blocks begin .. end of y, or of dx."""
    cdef double[LINES] lines
    cdef Block[GROUP] o
    cdef Part s
    cdef Scale[GROUP] by
    cdef Block at = block_at(&m.b, begin), last = block_at(&m.b, end - 1)
    cdef Py_ssize_t stop = last.offset + last.n, j, n, first
    cdef double divisor
    memset(lines, 0, sizeof(lines))
    while begin < end:
        n = min(m.f.group, end - begin)
        begin += n
        for j in range(n):
            o[j] = at
            s = part_of(&m.p, &m.f, &at)
            first = ((at.plane * m.f.depth + s.z) * m.f.height + s.y) * m.f.width + s.x
            if m.f.back:
                divisor = share_line(
                    m, &s, x + first, m.f.total - first, lines + j * m.f.pitch,
                    line_of(&m.p.x, at.n, True),
                )
            else:
                divisor = m.common
                if divisor == 0:
                    divisor = count_in_row(&m.p, at.z, at.y) * m.p.x.kernel
                fill_line(
                    &m.f, &s, x + first, m.f.total - first, lines + j * m.f.pitch,
                    line_of(&m.p.x, at.n, False),
                )
            by[j] = scale_by(divisor)
            next_block(&m.b, &at)
        for j in range(n):
            read_line(
                &m.p, m.f.back, <const double*>lines + j * m.f.pitch, &by[j],
                y + o[j].offset, o[j].n, stop - o[j].offset,
            )
            if m.common == 0 and not m.f.back:
                smaller_windows(
                    m, <const double*>lines + j * m.f.pitch, y + o[j].offset, &o[j]
                )


cdef void strips_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write bands begin .. end of y, or of dx."""
    cdef Scale by = scale_by(m.common)
    cdef Band b
    cdef Py_ssize_t i, stop
    set_band(&m.p, &m.strips, end - 1, &b)
    stop = b.result + b.planes * b.results * m.strips.wide
    for i in range(begin, end):
        set_band(&m.p, &m.strips, i, &b)
        write_band(&m.p, &m.strips, &b, &by, x, y, stop)


cdef void set_table(const Means* m, Table* t, const Block* o) noexcept nogil:
    """Note where the terms of each result lie, unless that is noted already."""
    cdef Py_ssize_t j, first, count, origin = 0
    if t.x == o.x and t.n == o.n:
        return
    for j in range(o.n):
        range_of(&m.p.x, o.x + j, m.f.back, &first, &count)
        if j == 0:
            origin = first
        t.first[j], t.count[j] = <int>(first - origin), <int>max(count, 0)
    t.x, t.n = o.x, o.n


cdef void table_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write blocks begin .. end of y, or of dx, whose windows are not evenly apart."""
    cdef double[SPAN + SLACK] line
    cdef Table t
    cdef Part s, before
    cdef Block o = block_at(&m.b, begin)
    cdef Py_ssize_t j, first, source = -1
    cdef double divisor, sum_, rows
    memset(line, 0, sizeof(line))
    t.x, t.n = 0, 0
    for _ in range(begin, end):
        s = part_of(&m.p, &m.f, &o)
        s.skip = 0
        set_table(m, &t, &o)
        first = ((o.plane * m.f.depth + s.z) * m.f.height + s.y) * m.f.width + s.x
        if first == source and s.nz == before.nz and s.ny == before.ny and m.f.back:
            memcpy(y + o.offset, y + o.offset - o.n, o.n * sizeof(real))
            next_block(&m.b, &o)  # of the same windows as the row before
            continue
        source, before = first if m.b.per_row == 1 else -1, s
        if m.f.back:
            divisor = share_line(m, &s, x + first, m.f.total - first, line, s.n)
        else:
            divisor = m.common
            fill_line(&m.f, &s, x + first, m.f.total - first, line, s.n)
        rows = rows_divisor(m, &o)
        for j in range(o.n):
            sum_ = 0
            if t.count[j]:
                sum_ = neighbours_of_one(<const double*>line + t.first[j], t.count[j])
            if m.common or m.f.back:
                y[o.offset + j] = <real>(sum_ / divisor)
            else:
                divisor = rows * cells(&m.p.x, o.x + j, m.p.count_pad)
                y[o.offset + j] = <real>(sum_ / divisor)
        next_block(&m.b, &o)


cdef void windows_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write blocks begin .. end of y, or of dx, with windows too long for a line."""
    cdef Py_ssize_t i, plane = m.f.depth * m.f.height * m.f.width
    cdef Block o
    for i in range(begin, end):
        o = block_at(&m.b, i)
        if m.f.back:
            average_gradient_block(&m.p, m.common, x + o.plane * plane, y + o.offset, &o)
        else:
            average_by_windows(&m.p, x + o.plane * plane, y + o.offset, &o)


cdef void average_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write blocks begin .. end of the result."""
    if m.mode == PLANE and m.f.back:
        shares_of_planes(m, x, y, begin, end)
    elif m.mode == PLANE:
        means_of_planes(m, x, y, begin, end)
    elif m.mode == IN_STRIPS:
        strips_task(m, x, y, begin, end)
    elif m.mode == IN_LINES:
        lines_task(m, x, y, begin, end)
    elif m.mode == BY_TABLE:
        table_task(m, x, y, begin, end)
    else:
        windows_task(m, x, y, begin, end)


cdef inline void space_evenly(Axis* a) noexcept nogil:
    """Describe adaptive windows that divide their axis as strided ones."""
    if a.kernel == 0 and a.extent % a.out == 0:
        a.kernel = a.stride = a.extent // a.out
        a.lo = a.hi = 0
        a.dilation = 1


cdef inline bint is_whole(const Axis* a) noexcept nogil:
    """Tell whether the only window of an axis holds all of it."""
    return a.out == 1 and first_of(a, 0) <= 0 and stop_of(a, 0) >= a.extent


cdef inline Py_ssize_t table_block(const Axis* a, bint back) noexcept nogil:
    """Give how many results share a line without even spacing; 0 if it is too short."""
    cdef double sources = a.out if back else a.extent, results = a.extent if back else a.out
    if (windows_at_most(a) if back else taps_at_most(a)) > SPAN // 2:
        return 0
    if a.kernel == 0:
        return max(1, <Py_ssize_t>min((SPAN - 2) * results / sources, <double>SPAN))
    return SPAN - min(a.kernel, SPAN // 2) if back else (SPAN - a.kernel) // a.stride + 1


cdef inline Py_ssize_t work_of(const Pool* p, Py_ssize_t block, bint back) noexcept nogil:
    """Estimate what a block costs, in elements that are read and written."""
    cdef double rows, along
    if back:
        rows = <double>windows_at_most(&p.z) * windows_at_most(&p.y)
        along = (<double>block + p.x.kernel) / p.x.stride
    else:
        rows = <double>taps_at_most(&p.z) * taps_at_most(&p.y)
        along = <double>block * p.x.stride + p.x.kernel
    return <Py_ssize_t>min(rows * along + block, 16777216)


cdef Means means_of(const Pool* given, bint back, Py_ssize_t item) noexcept nogil:
    """Choose the way of a direction, by the shape of a plane."""
    cdef Means m
    cdef Pool* p = &m.p
    cdef Py_ssize_t block
    m.p = given[0]
    space_evenly(&p.z)
    space_evenly(&p.y)
    space_evenly(&p.x)
    m.common = common_divisor(p)
    if is_whole(&p.z) and is_whole(&p.y) and is_whole(&p.x) and p.planes:
        m.mode = PLANE
        if m.common == 0:
            m.common = count_in_row(p, 0, 0) * cells(&p.x, 0, p.count_pad)
        p.x.extent = elements_of(p) // p.planes
        p.z.extent = p.y.extent = 1
        if back:
            m.b = cut(p.planes, 1, 1, p.x.extent, FILL)
            m.b.work = m.b.block
        else:
            m.b = cut(p.planes, 1, 1, 1, 1)
            m.b.work = p.x.extent
        m.f.back = back
        return m
    # From a stride of 3 on, picking results one by one takes longer than lines do:
    # 5 x 5 with stride 3 of (16, 128, 56, 56) took 3.0 ms for 2.4.
    if m.common and fits(p) and p.planes and (back or p.x.stride < 3):
        m.mode = IN_STRIPS
        m.strips = strips_of(p, back, item)
        m.b = cut(bands_of(&m.strips), 1, 1, 1, 1)
        m.b.work = m.strips.group * m.strips.held * m.strips.width
        m.b.work += m.strips.group * m.strips.band * m.strips.wide
        return m
    m.b = element_blocks(p) if back else window_blocks(p)
    if in_lines(&p.x):
        m.mode, block = IN_LINES, results_in_line(&p.x, back)
    else:
        m.mode, block = BY_TABLE, table_block(&p.x, back)
    if block == 0:
        m.mode = BY_WINDOWS
    else:
        m.b = cut(p.planes, m.b.depth, m.b.height, m.b.width, block)
        m.b.work = work_of(p, m.b.block, back)
    m.f = frame_of(p, &m.b, back)
    if m.mode != IN_LINES:
        m.f.step = 1
    return m


cdef void average_tasks(
    const Means* m, const Rounds* r, const real* x, real* y, Py_ssize_t begin,
    Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        average_task(m, x, y, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        average_task(m, x, y, first_piece(r, i), first_piece(r, i + 1))


cdef int average(const Means* m, const real* x, real* y, int threads) except -1:
    """Write all of y, or of dx, looking for Ctrl-C between rounds."""
    cdef Rounds r = rounds(m.b.count, m.b.work, threads)
    cdef Py_ssize_t begin = 0, end
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            average_tasks(m, &r, x, y, begin, end, threads)
        PyErr_CheckSignals()
        begin = end
    return 0


cdef int means(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, divisor, x and y, and write y."""
    cdef Pool p = divided_pool_of(held)
    cdef Means m = means_of(&p, False, sizeof(real))
    cdef const real* x = reals(held, 2, elements_of(&p), like)
    return average(&m, x, reals(held, 3, windows_of(&p), like), threads)


cdef int mean_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, divisor, dy and dx, and write dx."""
    cdef Pool p = divided_pool_of(held)
    cdef Means m = means_of(&p, True, sizeof(real))
    cdef const real* dy = reals(held, 2, windows_of(&p), like)
    return average(&m, dy, reals(held, 3, elements_of(&p), like), threads)


cdef Pool divided_pool_of(const Buffers* held) except *:
    """Read the geometry, and the divisor that is the second array."""
    cdef Pool p = pool_of(held)
    cdef const long long* divisor = integers(held, 1, 2)
    p.divisor, p.count_pad = divisor[0], divisor[1]
    return p


def scratch_size(geometry, str direction, Py_ssize_t item, int threads):
    """Give the scalars of scratch that a direction needs: none."""
    return 0


def fprop(geometry, divisor, x, y, scratch, int threads):
    """Write the means of x to y; `divisor` is that of `Pool`, and its `count_pad`."""
    call((geometry, divisor, x), (y, scratch), threads, means[float], means[double])


def dgrad(geometry, divisor, dy, dx, scratch, int threads):
    """Write the gradient of x to dx."""
    call(
        (geometry, divisor, dy), (dx, scratch), threads, mean_gradient[float],
        mean_gradient[double],
    )
