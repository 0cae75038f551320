# Means of windows that are too long for a line, and their gradient.
#
# What      average_by_windows sums window by window; average_gradient_block, the windows
#           over a block of cells, then spreads them along W. Both take any window.
# Order     of each sum by the shape of one plane: LANES partial sums of a window, by the
#           place in it; windows over a cell as they lie.
# Scratch   on the stack: 8 KB.

from libc.string cimport memset

from convcore.kernels.blocks cimport SPAN, Block
from convcore.kernels.vector cimport real
from convcore.kernels.windows cimport (
    Axis, Pool, cells, first_of, over_first, over_stop, start_of, stop_of,
)

cdef enum:
    LANES = 8  # partial sums of a window that is summed alone


cdef inline void add_row(double* sums, const real* v, Py_ssize_t n) noexcept nogil:
    """Add n neighbours."""
    cdef Py_ssize_t j
    for j in range(n):
        sums[j] += v[j]


cdef inline double count_in_row(const Pool* p, Py_ssize_t z, Py_ssize_t y) noexcept nogil:
    """Give the part of the divisor that all windows of a row share."""
    return <double>cells(&p.z, z, p.count_pad) * cells(&p.y, y, p.count_pad)


cdef inline void divide(const Pool* p, const double* sums, real* y, const Block* o) noexcept nogil:
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


cdef inline void average_by_windows(
    const Pool* p, const real* x, real* y, const Block* o
) noexcept nogil:
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


cdef inline void average_gradient_block(
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
