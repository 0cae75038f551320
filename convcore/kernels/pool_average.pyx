# Average pooling of strided, adaptive and global windows, and its gradient.
#
# What      y[o] = (sum of x[i] over i in window(o)) / divisor(o)
#           dx[i] = sum of dy[o] / divisor(o) over windows o that hold i
# Layout    as in pool_max.pyx: sums of columns first, then of windows of columns.
# Assumes   buffers of the sizes that the geometry tells; windows.pxd.
# Parallel  over blocks of y, for the gradient over blocks of dx: each is written by one
#           task, which looks at all windows over its cells. The order of every sum depends
#           on the shape of one plane alone.
# Scratch   on the stack, 16 bytes a column: 8 KB.
# Cost      memory: one read of x (dy), one write of y (dx). Sums are of doubles, and are
#           rounded once.
# Why not   A running sum along W: its bits would depend on where a block starts, and an
#           Inf would turn the rest of its row into NaN.

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.string cimport memset

from convcore.kernels.blocks cimport (
    SPAN, Block, Blocks, Rounds, block_at, columns_for, element_blocks, first_piece, rounds,
    window_blocks,
)
from convcore.kernels.buffers cimport Buffers, call, integers, reals
from convcore.kernels.vector cimport real
from convcore.kernels.windows cimport (
    Axis, Pool, cells, elements_of, first_of, over_first, over_stop, pool_of, start_of,
    stop_of, windows_of,
)

cdef enum:
    LANES = 8  # partial sums of a window that is summed alone


cdef inline void add_row(double* sums, const real* v, Py_ssize_t n) noexcept nogil:
    """Add n neighbours."""
    cdef Py_ssize_t j
    for j in range(n):
        sums[j] += v[j]


cdef inline void add_columns(
    double* sums, const double* v, Py_ssize_t n, Py_ssize_t step
) noexcept nogil:
    """Add every step-th v."""
    cdef Py_ssize_t j
    if step == 1:
        for j in range(n):
            sums[j] += v[j]
    elif step == 2:
        for j in range(n):
            sums[j] += v[2 * j]
    else:
        for j in range(n):
            sums[j] += v[step * j]


cdef inline double count_in_row(const Pool* p, Py_ssize_t z, Py_ssize_t y) noexcept nogil:
    """Give the part of the divisor that all windows of a row share."""
    return <double>cells(&p.z, z, p.count_pad) * cells(&p.y, y, p.count_pad)


cdef void divide(const Pool* p, const double* sums, real* y, const Block* o) noexcept nogil:
    """Turn the sums of one block into means; windows at the ends may be smaller."""
    cdef Py_ssize_t j = 0, last = o.n, count
    cdef double rows, divisor = p.divisor
    if p.divisor == 0:
        rows = count_in_row(p, o.z, o.y)
        divisor = rows * p.x.kernel
        while j < last:
            count = cells(&p.x, o.x + j, p.count_pad)
            if count == p.x.kernel:
                break
            y[j] = <real>(sums[j] / (rows * count))
            j += 1
        while last > j:
            count = cells(&p.x, o.x + last - 1, p.count_pad)
            if count == p.x.kernel:
                break
            y[last - 1] = <real>(sums[last - 1] / (rows * count))
            last -= 1
    for j in range(j, last):
        y[j] = <real>(sums[j] / divisor)


cdef void average_by_columns(const Pool* p, const real* x, real* y, const Block* o) noexcept nogil:
    """Write one block of y: sums of columns first, then of windows of columns."""
    cdef double column[SPAN]
    cdef double sums[SPAN]
    cdef Py_ssize_t start = start_of(&p.x, o.x), k, iz, iy
    cdef Py_ssize_t span = (o.n - 1) * p.x.stride + p.x.kernel
    cdef Py_ssize_t lo = max(start, 0), hi = min(start + span, p.x.extent)
    memset(column, 0, span * sizeof(double))
    memset(sums, 0, o.n * sizeof(double))
    for iz in range(first_of(&p.z, o.z), stop_of(&p.z, o.z)):
        for iy in range(first_of(&p.y, o.y), stop_of(&p.y, o.y)):
            add_row(
                column + lo - start, x + (iz * p.y.extent + iy) * p.x.extent + lo, hi - lo
            )
    for k in range(p.x.kernel):
        add_columns(sums, <const double*>column + k, o.n, p.x.stride)
    divide(p, sums, y, o)


cdef void average_by_windows(const Pool* p, const real* x, real* y, const Block* o) noexcept nogil:
    """Write one block of y, window by window, LANES neighbours at a time."""
    cdef double sums[SPAN]
    cdef double lane[LANES]
    cdef Py_ssize_t j, k, iz, iy, ix, x0, x1
    cdef const real* row
    for j in range(o.n):
        memset(lane, 0, sizeof(lane))
        x0 = first_of(&p.x, o.x + j)
        x1 = stop_of(&p.x, o.x + j)
        for iz in range(first_of(&p.z, o.z), stop_of(&p.z, o.z)):
            for iy in range(first_of(&p.y, o.y), stop_of(&p.y, o.y)):
                row = x + (iz * p.y.extent + iy) * p.x.extent
                ix = x0
                while ix + LANES <= x1:
                    for k in range(LANES):
                        lane[k] += row[ix + k]
                    ix += LANES
                for k in range(x1 - ix):
                    lane[k] += row[ix + k]
        sums[j] = (lane[0] + lane[4]) + (lane[1] + lane[5])
        sums[j] += (lane[2] + lane[6]) + (lane[3] + lane[7])
    divide(p, sums, y, o)


cdef void average_task(
    const Pool* p, const Blocks* b, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write blocks begin .. end of y."""
    cdef Py_ssize_t i, plane = p.z.extent * p.y.extent * p.x.extent
    cdef bint columns = columns_for(&p.x) > 0
    cdef Block o
    for i in range(begin, end):
        o = block_at(b, i)
        if columns:
            average_by_columns(p, x + o.plane * plane, y + o.offset, &o)
        else:
            average_by_windows(p, x + o.plane * plane, y + o.offset, &o)


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


cdef inline void spread(
    const Axis* a, const double* shares, Py_ssize_t o0, Py_ssize_t n, double* cell,
    Py_ssize_t x0, Py_ssize_t x1,
) noexcept nogil:
    """Add the shares of n windows from o0 on to the cells x0 .. x1 that they hold."""
    cdef Py_ssize_t j, k, ix, first, stop
    if 0 < a.kernel < n:  # tap by tap, the last first: windows in order for each cell
        for k in range(a.kernel - 1, -1, -1):
            first = max(0, (x0 + a.lo - k + a.stride - 1) // a.stride - o0)
            stop = min(n, (x1 - 1 + a.lo - k) // a.stride + 1 - o0) if x1 + a.lo > k else 0
            ix = start_of(a, o0) + k - x0
            if a.stride == 1:
                for j in range(first, stop):
                    cell[ix + j] += shares[j]
            else:
                for j in range(first, stop):
                    cell[ix + a.stride * j] += shares[j]
        return
    for j in range(n):
        first = max(first_of(a, o0 + j), x0) - x0
        stop = min(stop_of(a, o0 + j), x1) - x0
        for ix in range(first, stop):
            cell[ix] += shares[j]


cdef void average_gradient_block(
    const Pool* p, double common, const real* dy, real* dx, const Block* i
) noexcept nogil:
    """Write one block of dx: sum the windows over its rows, then spread along W."""
    cdef double shares[SPAN]
    cdef double cell[SPAN]
    cdef Py_ssize_t o0 = over_first(&p.x, i.x), o1 = over_stop(&p.x, i.x + i.n - 1)
    cdef Py_ssize_t j, n, oz, oy
    cdef const real* row
    cdef double count
    memset(cell, 0, i.n * sizeof(double))
    while o0 < o1:
        n = min(o1 - o0, SPAN)
        memset(shares, 0, n * sizeof(double))
        for oz in range(over_first(&p.z, i.z), over_stop(&p.z, i.z)):
            for oy in range(over_first(&p.y, i.y), over_stop(&p.y, i.y)):
                row = dy + (oz * p.y.out + oy) * p.x.out + o0
                if common:
                    add_row(shares, row, n)
                else:
                    count = count_in_row(p, oz, oy)
                    for j in range(n):
                        shares[j] += row[j] / count
        if common == 0:
            for j in range(n):
                shares[j] /= cells(&p.x, o0 + j, p.count_pad)
        spread(&p.x, shares, o0, n, cell, i.x, i.x + i.n)
        o0 += n
    if common == 0:
        common = 1
    for j in range(i.n):
        dx[j] = <real>(cell[j] / common)


cdef void average_gradient_task(
    const Pool* p, const Blocks* b, double common, const real* dy, real* dx,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Write blocks begin .. end of dx."""
    cdef Py_ssize_t j, plane = p.z.out * p.y.out * p.x.out
    cdef Block i
    for j in range(begin, end):
        i = block_at(b, j)
        average_gradient_block(p, common, dy + i.plane * plane, dx + i.offset, &i)


cdef void average_tasks(
    const Pool* p, const Blocks* b, const Rounds* r, const real* x, real* y,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end of y; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        average_task(p, b, x, y, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        average_task(p, b, x, y, first_piece(r, i), first_piece(r, i + 1))


cdef int means(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, divisor, x and y, and write y."""
    cdef Pool p = divided_pool_of(held)
    cdef const real* x = reals(held, 2, elements_of(&p), like)
    cdef real* y = reals(held, 3, windows_of(&p), like)
    cdef Blocks b = window_blocks(&p)
    cdef Rounds r = rounds(b.count, b.work, threads)
    cdef Py_ssize_t begin = 0, end
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            average_tasks(&p, &b, &r, x, y, begin, end, threads)
        PyErr_CheckSignals()
        begin = end
    return 0


cdef void average_gradient_tasks(
    const Pool* p, const Blocks* b, const Rounds* r, const real* dy, real* dx,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end of dx."""
    cdef Py_ssize_t i
    cdef double common = common_divisor(p)
    if threads == 1:
        average_gradient_task(p, b, common, dy, dx, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        average_gradient_task(p, b, common, dy, dx, first_piece(r, i), first_piece(r, i + 1))


cdef int mean_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, divisor, dy and dx, and write dx."""
    cdef Pool p = divided_pool_of(held)
    cdef const real* dy = reals(held, 2, windows_of(&p), like)
    cdef real* dx = reals(held, 3, elements_of(&p), like)
    cdef Blocks b = element_blocks(&p)
    cdef Rounds r = rounds(b.count, b.work, threads)
    cdef Py_ssize_t begin = 0, end
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            average_gradient_tasks(&p, &b, &r, dy, dx, begin, end, threads)
        PyErr_CheckSignals()
        begin = end
    return 0


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
