# Lp pooling of strided and adaptive windows, and its gradient.
#
# What      y[o] = (sum of |x[i]|^p over i in window(o))^(1/p)
#           dx[i] = sign(x[i]) |x[i]|^(p-1) * sum of dy[o] y[o]^(1-p) over windows o that
#           hold i; nothing from windows of zeros, and nothing to zeros
# Layout    rows of a window first, into columns, then windows of columns. Powers are taken
#           as rows are added: by hand for 1, 2 and 3, by `pow` for others.
# Assumes   buffers of the sizes that the geometry tells; windows.pxd. p > 0 and finite.
# Parallel  over blocks of y, for the gradient over blocks of dx: each is written by one
#           task. The order of every sum depends on the shape of one plane alone.
# Scratch   on the stack, 16 bytes a column: 8 KB.
# Cost      memory for p of 1, 2 and 3, `pow` for others: some 10 ns an element and window row.
#           Sums are of doubles: for float32, a square never overflows.
# Source    Gulcehre, Cho, Pascanu and Bengio, Learned-norm pooling for deep feedforward
#           and recurrent neural networks, arXiv:1311.1780, section 2.

from cython.parallel cimport prange
from libc.math cimport cbrt, fabs, pow, sqrt
from libc.string cimport memcpy, memset

from convcore.kernels.blocks cimport (
    SPAN, Block, Blocks, Rounds, block_at, columns_for, element_blocks, first_piece, rounds,
    window_blocks,
)
from convcore.kernels.buffers cimport Buffers, call, integers, reals
from convcore.kernels.pool_spread cimport PHASES, spread_shares
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport real
from convcore.kernels.windows cimport (
    Pool, elements_of, first_of, is_whole, over_first, over_stop, pool_of, start_of, stop_of,
    windows_of,
)

cdef enum:
    LANES = 64  # partial sums of a window that is summed alone


cdef struct Norm:
    Pool p
    double power


cdef inline double raised(double v, double power) noexcept nogil:
    """Give |v| to a power."""
    if power == 1:
        return fabs(v)
    if power == 2:
        return v * v
    if power == 3:
        return fabs(v) * v * v
    return pow(fabs(v), power)


cdef inline double root(double v, double power) noexcept nogil:
    """Undo `raised`."""
    if power == 1:
        return v
    if power == 2:
        return sqrt(v)
    if power == 3:
        return cbrt(v)
    return pow(v, 1 / power)


cdef inline double share(double dy, double y, double power) noexcept nogil:
    """Give what a window gives to each of its elements, but for their powers."""
    if power == 1:
        return dy
    if y == 0:
        return 0
    if power == 2:
        return dy / y
    if power == 3:
        return dy / (y * y)
    return dy * pow(y, 1 - power)


cdef inline double slope(double v, double power) noexcept nogil:
    """Give sign(v) |v|^(power - 1); 0 for 0."""
    if v == 0:
        return 0
    if power == 2:
        return v
    if power == 1:
        return v if v != v else 1 if v > 0 else -1
    if power == 3:
        return fabs(v) * v
    return pow(v, power - 1) if v > 0 else -pow(-v, power - 1)


cdef inline void add_powers(
    double* sums, const real* v, Py_ssize_t n, double power
) noexcept nogil:
    """Add the powers of n neighbours."""
    cdef Py_ssize_t j
    if power == 1:
        for j in range(n):
            sums[j] += fabs(<double>v[j])
    elif power == 2:
        for j in range(n):
            sums[j] += <double>v[j] * v[j]
    elif power == 3:
        for j in range(n):
            sums[j] += fabs(<double>v[j]) * v[j] * v[j]
    else:
        for j in range(n):
            sums[j] += raised(v[j], power)


cdef inline void add_shares(
    double* sums, const real* dy, const real* y, Py_ssize_t n, double power
) noexcept nogil:
    """Add the shares of n neighbours."""
    cdef Py_ssize_t j
    if power == 1:
        for j in range(n):
            sums[j] += dy[j]
    elif power == 2:
        for j in range(n):
            sums[j] += <double>dy[j] / y[j] if y[j] != 0 else 0.0
    else:
        for j in range(n):
            sums[j] += share(dy[j], y[j], power)


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


cdef void norms_by_columns(const Norm* m, const real* x, real* y, const Block* o) noexcept nogil:
    """Write one block of y: sums of columns first, then of windows of columns."""
    cdef double[SPAN] column, sums
    cdef const Pool* p = &m.p
    cdef Py_ssize_t start = start_of(&p.x, o.x), j, iz, iy
    cdef Py_ssize_t span = (o.n - 1) * p.x.stride + p.x.kernel
    cdef Py_ssize_t lo = max(start, 0), hi = min(start + span, p.x.extent)
    memset(column, 0, span * sizeof(double))
    memset(sums, 0, o.n * sizeof(double))
    for iz in range(first_of(&p.z, o.z), stop_of(&p.z, o.z)):
        for iy in range(first_of(&p.y, o.y), stop_of(&p.y, o.y)):
            add_powers(
                column + lo - start, x + (iz * p.y.extent + iy) * p.x.extent + lo, hi - lo,
                m.power,
            )
    for j in range(p.x.kernel):
        add_columns(sums, <const double*>column + j, o.n, p.x.stride)
    if m.power == 2:
        for j in range(o.n):
            y[j] = <real>sqrt(sums[j])
    else:
        for j in range(o.n):
            y[j] = <real>root(sums[j], m.power)


cdef inline double sum_of(double* lane) noexcept nogil:
    """Add up the partial sums of a window, by halves."""
    cdef Py_ssize_t n = LANES // 2, k
    while n:
        for k in range(n):
            lane[k] += lane[n + k]
        n //= 2
    return lane[0]


cdef void norms_by_windows(const Norm* m, const real* x, real* y, const Block* o) noexcept nogil:
    """Write one block of y, window by window, LANES neighbours at a time."""
    cdef const Pool* p = &m.p
    cdef double[LANES] lane
    cdef Py_ssize_t j, iz, iy, ix, x0, x1
    cdef const real* row
    for j in range(o.n):
        memset(lane, 0, sizeof(lane))
        x0, x1 = first_of(&p.x, o.x + j), stop_of(&p.x, o.x + j)
        for iz in range(first_of(&p.z, o.z), stop_of(&p.z, o.z)):
            for iy in range(first_of(&p.y, o.y), stop_of(&p.y, o.y)):
                row = x + (iz * p.y.extent + iy) * p.x.extent
                ix = x0
                while ix + LANES <= x1:
                    add_powers(lane, row + ix, LANES, m.power)
                    ix += LANES
                if ix < x1:
                    add_powers(lane, row + ix, x1 - ix, m.power)
        y[j] = <real>root(sum_of(lane), m.power)


cdef void norms_task(
    const Norm* m, const Blocks* b, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write blocks begin .. end of y."""
    cdef Py_ssize_t i, plane = m.p.z.extent * m.p.y.extent * m.p.x.extent
    cdef bint columns = columns_for(&m.p.x) > 0
    cdef Block o
    for i in range(begin, end):
        o = block_at(b, i)
        if columns:
            norms_by_columns(m, x + o.plane * plane, y + o.offset, &o)
        else:
            norms_by_windows(m, x + o.plane * plane, y + o.offset, &o)


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


cdef void slopes_block(
    const Norm* m, const real* dy, const real* y, const real* x, real* dx, const Block* i
) noexcept nogil:
    """Write one block of dx: sum the windows over its rows, then spread along W."""
    cdef double[SPAN] shares
    cdef double[SPAN + PHASES] sums, cells
    cdef double* cell = cells
    cdef const Pool* p = &m.p
    cdef Py_ssize_t o0 = over_first(&p.x, i.x), o1 = over_stop(&p.x, i.x + i.n - 1)
    cdef Py_ssize_t j, n, at, oz, oy
    cdef bint whole = o1 - o0 <= SPAN
    memset(cell, 0, i.n * sizeof(double))
    while o0 < o1:
        n = min(o1 - o0, SPAN)
        memset(shares, 0, n * sizeof(double))
        for oz in range(over_first(&p.z, i.z), over_stop(&p.z, i.z)):
            for oy in range(over_first(&p.y, i.y), over_stop(&p.y, i.y)):
                at = (oz * p.y.out + oy) * p.x.out + o0
                add_shares(shares, dy + at, y + at, n, m.power)
        if whole and 0 < p.x.kernel < n and p.x.stride <= PHASES:
            cell = <double*>spread_shares(
                shares, n, start_of(&p.x, o0) - i.x, p.x.stride, p.x.kernel, NULL, sums,
                cells, i.n,
            )
            break
        spread(p, shares, o0, n, cell, i)
        o0 += n
    if m.power == 2:
        for j in range(i.n):
            dx[j] = <real>(cell[j] * x[j])
    else:
        for j in range(i.n):
            dx[j] = <real>(cell[j] * slope(x[j], m.power)) if x[j] != 0 else 0


cdef void slopes_task(
    const Norm* m, const Blocks* b, const real** given, real* dx, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write blocks begin .. end of dx; given are dy, y and x."""
    cdef Py_ssize_t j, at, plane = m.p.z.out * m.p.y.out * m.p.x.out
    cdef Block i
    for j in range(begin, end):
        i = block_at(b, j)
        at = i.plane * plane
        slopes_block(
            m, given[0] + at, given[1] + at, given[2] + i.offset, dx + i.offset, &i
        )


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
    if m.power != 1 and m.power != 2 and m.power != 3:
        b.work *= 16  # of `pow`
    r = rounds(b.count, b.work, threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            tasks(m, b, &r, given, to, begin, end, threads)
        look()
        begin = end
    return 0


cdef Norm norm_of(const Buffers* held) except *:
    """Read the geometry, and the power: the bits of the second array."""
    cdef Norm m
    m.p = pool_of(held)
    if m.p.planes and is_whole(&m.p.z) and is_whole(&m.p.y) and is_whole(&m.p.x):
        m.p.x.extent = elements_of(&m.p) // m.p.planes  # the plane is one row
        m.p.z.extent = m.p.y.extent = 1
        m.p.z.kernel = m.p.y.kernel = m.p.x.kernel = 0
    memcpy(&m.power, integers(held, 1, 1), sizeof(double))
    return m


cdef int norms(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x and y, and write y."""
    cdef Norm m = norm_of(held)
    cdef const real* given[3]
    cdef real* y = reals(held, 3, windows_of(&m.p), like)
    cdef Blocks b = window_blocks(&m.p)
    given[0], given[1] = reals(held, 2, elements_of(&m.p), like), NULL
    return write(&m, &b, given, y, threads)


cdef int slopes(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, y, x and dx, and write dx."""
    cdef Norm m = norm_of(held)
    cdef const real* given[3]
    cdef real* dx = reals(held, 5, elements_of(&m.p), like)
    cdef Blocks b = element_blocks(&m.p)
    given[0] = reals(held, 2, windows_of(&m.p), like)
    given[1] = reals(held, 3, windows_of(&m.p), like)
    given[2] = reals(held, 4, elements_of(&m.p), like)
    if b.count == 0:
        return 0
    return write(&m, &b, given, dx, threads)


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
