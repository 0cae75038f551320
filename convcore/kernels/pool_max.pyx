# Max pooling, and its gradient.
#
# What      y[o] = max x[i] over i in window(o); index[o] the first i that is NaN, or else
#           the first of equal maxima, in row-major order
#           dx[i] = sum of dy[o] over o with index[o] = i
# Layout    planes (n*c) of (id, ih, iw) and of (od, oh, ow), flat. One block of a row:
#
#           rows of x under the window   . . . . . . . . . .      column by column, lanes
#                                        . . . . . . . . . .      over W whatever the
#                                        | | | | | | | | | |      stride
#           columns, at most SPAN        . . . . . . . . . .      on the stack
#                                         \|/ \|/ \|/ \|/         then along W
#           outputs                        .   .   .   .
#
#           A column keeps the index of its winner; of equal columns the lower index wins.
#           Values alone keep none, so there 0 and -0 may change places.
# Assumes   buffers of the sizes that the geometry tells; windows.pxd.
# Parallel  over blocks of y, for the gradient over bands of dx: each is written by one
#           task, which looks at all windows that may lie over it, in row-major order.
# Scratch   on the stack, 16 bytes a column: 8 KB.
# Cost      memory: one read of x, one write of y; dy and twice the indices, dx.
# Why not   Scatter over windows: overlapping windows of two threads would share cells.
#           Gather cell by cell: kernel / stride looks at every index instead of one.
# Source    Gil and Kimmel, IEEE TPAMI 24 (2002): first along one axis, then along the other.

from cython.parallel cimport prange
from libc.math cimport INFINITY
from libc.string cimport memset

from convcore.kernels.blocks cimport (
    ROUND_WORK, SPAN, Block, Blocks, Rounds, block_at, columns_for, cut, first_piece, rounds,
    window_blocks,
)
from convcore.kernels.buffers cimport (
    Buffers, call, integers, integers_or_nothing, reals,
)
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport real
from convcore.kernels.windows cimport (
    Axis, Pool, elements_of, first_of, is_empty, is_tap, over_first, over_stop, pool_of,
    start_of, stop_of, windows_of,
)

cdef enum:
    BAND = 65536  # cells of dx that one task owns: a part of L2
    SLICES = 64  # parts of the indices that are checked in a round
    SLICE = 32768  # most indices of one part: some 0.1 ms
    LANES = 24  # windows of a row from which on comparing by rows is faster than dividing
    FEW_ROWS = 64  # rows of a window that are compared with each index
    NOWHERE = 0x7FFFFFFFFFFFFFFF  # index of padding: behind every element


cdef inline bint wins(real v, real best) noexcept nogil:
    """Whether v takes the place of an earlier `best`: greater, or the first NaN."""
    return (best == best) & (not v <= best)


cdef inline real better(real v, real best) noexcept nogil:
    """Give the winner of the two."""
    return v if wins(v, best) else best


cdef inline void max_rows(real* best, const real* v, Py_ssize_t n, Py_ssize_t step) noexcept nogil:
    """Let every step-th v compete with the bests so far."""
    cdef Py_ssize_t j
    if step == 1:
        for j in range(n):
            best[j] = better(v[j], best[j])
    elif step == 2:
        for j in range(n):
            best[j] = better(v[2 * j], best[j])
    else:
        for j in range(n):
            best[j] = better(v[step * j], best[j])


cdef inline void argmax_row(
    real* best, long long* where, const real* v, long long offset, Py_ssize_t n
) noexcept nogil:
    """The same for a later row, whose first element has index `offset`."""
    cdef Py_ssize_t j
    cdef long long old
    cdef bint taken
    for j in range(n):
        old = where[j]
        taken = wins(v[j], best[j])
        where[j] = offset + j if taken else old
        best[j] = better(v[j], best[j])


cdef inline void argmax_columns(
    real* best, long long* where, const real* v, const long long* at, Py_ssize_t n,
    Py_ssize_t step,
) noexcept nogil:
    """The same for later columns: of equals, the lower index is the first."""
    cdef Py_ssize_t j
    cdef long long old, new
    cdef bint equal, taken
    cdef real b, c
    for j in range(n):
        b = best[j]
        c = v[step * j]
        old = where[j]
        new = at[step * j]
        equal = (c == b) | ((c != c) & (b != b))
        taken = wins(c, b) | (equal & (new < old))
        best[j] = c if taken else b
        where[j] = new if taken else old


cdef void max_by_columns(
    const Pool* p, const real* x, real* y, long long* index, const Block* o
) noexcept nogil:
    """Write one block of y: maxima of columns first, then of windows of columns."""
    cdef real column[SPAN]
    cdef long long at[SPAN]
    cdef Py_ssize_t start = start_of(&p.x, o.x), j, k, iz, iy
    cdef Py_ssize_t span = (o.n - 1) * p.x.stride + (p.x.kernel - 1) * p.x.dilation + 1
    cdef Py_ssize_t lo = max(start, 0), hi = min(start + span, p.x.extent), offset
    cdef Py_ssize_t z1 = stop_of(&p.z, o.z), y0 = first_of(&p.y, o.y), y1 = stop_of(&p.y, o.y)
    cdef bint padded = lo > start or hi < start + span
    cdef bint fresh = True
    if padded or is_empty(&p.z, o.z) or is_empty(&p.y, o.y):
        for j in range(span):
            column[j] = -INFINITY
            at[j] = NOWHERE
    iz = first_of(&p.z, o.z)
    while iz < z1:
        iy = y0
        while iy < y1:
            offset = (iz * p.y.extent + iy) * p.x.extent + lo
            if fresh:
                for j in range(hi - lo):
                    column[lo - start + j] = x[offset + j]
                if index != NULL:
                    for j in range(hi - lo):
                        at[lo - start + j] = offset + j
            elif index == NULL:
                max_rows(column + lo - start, x + offset, hi - lo, 1)
            else:
                argmax_row(column + lo - start, at + lo - start, x + offset, offset, hi - lo)
            fresh = False
            iy += p.y.dilation
        iz += p.z.dilation
    for j in range(o.n):
        y[j] = column[j * p.x.stride]
    if index == NULL:
        for k in range(1, p.x.kernel):
            max_rows(y, <const real*>column + k * p.x.dilation, o.n, p.x.stride)
        return
    for j in range(o.n):
        index[j] = at[j * p.x.stride]
    for k in range(1, p.x.kernel):
        j = k * p.x.dilation
        argmax_columns(
            y, index, <const real*>column + j, <const long long*>at + j, o.n, p.x.stride
        )
    for j in range(o.n):  # a window of padding alone
        index[j] = 0 if index[j] == NOWHERE else index[j]


cdef void max_by_windows(
    const Pool* p, const real* x, real* y, long long* index, const Block* o
) noexcept nogil:
    """Write one block of y, window by window."""
    cdef Py_ssize_t j, iz, iy, ix, row, where
    cdef Py_ssize_t z1 = stop_of(&p.z, o.z), y0 = first_of(&p.y, o.y), y1 = stop_of(&p.y, o.y)
    cdef Py_ssize_t x0, x1
    cdef real best
    for j in range(o.n):
        best = -INFINITY
        where = -1
        x0 = first_of(&p.x, o.x + j)
        x1 = stop_of(&p.x, o.x + j)
        iz = first_of(&p.z, o.z)
        while iz < z1:
            iy = y0
            while iy < y1:
                row = (iz * p.y.extent + iy) * p.x.extent
                ix = x0
                while ix < x1:
                    if where < 0 or wins(x[row + ix], best):
                        best = x[row + ix]
                        where = row + ix
                    ix += p.x.dilation
                iy += p.y.dilation
            iz += p.z.dilation
        y[j] = best
        if index != NULL:
            index[j] = max(where, 0)


cdef void max_task(
    const Pool* p, const Blocks* b, const real* x, real* y, long long* index,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Write blocks begin .. end of y, and of the indices unless NULL."""
    cdef Py_ssize_t i, plane = p.z.extent * p.y.extent * p.x.extent
    cdef bint columns = columns_for(&p.x) > 0
    cdef long long* where
    cdef Block o
    for i in range(begin, end):
        o = block_at(b, i)
        where = NULL if index == NULL else index + o.offset
        if columns:
            max_by_columns(p, x + o.plane * plane, y + o.offset, where, &o)
        else:
            max_by_windows(p, x + o.plane * plane, y + o.offset, where, &o)


cdef void max_gradient_band(
    const Pool* p, const real* dy, const long long* index, real* dx, Py_ssize_t lo,
    Py_ssize_t hi,
) noexcept nogil:
    """Write cells lo .. hi of one plane of dx, from the windows that may lie over them."""
    cdef Py_ssize_t row0 = lo // p.x.extent, row1 = (hi - 1) // p.x.extent
    cdef Py_ssize_t z0 = row0 // p.y.extent, z1 = row1 // p.y.extent
    cdef Py_ssize_t y0 = 0, y1 = p.y.extent - 1, x0 = 0, x1 = p.x.extent - 1
    cdef Py_ssize_t oz, oy, ox, row, cell
    cdef bint dilated = p.x.dilation > 1
    if z0 == z1:
        y0 = row0 % p.y.extent
        y1 = row1 % p.y.extent
    if row0 == row1:
        x0 = lo % p.x.extent
        x1 = (hi - 1) % p.x.extent
    memset(dx + lo, 0, (hi - lo) * sizeof(real))
    for oz in range(over_first(&p.z, z0), over_stop(&p.z, z1)):
        if is_empty(&p.z, oz):
            continue
        for oy in range(over_first(&p.y, y0), over_stop(&p.y, y1)):
            if is_empty(&p.y, oy):
                continue
            row = (oz * p.y.out + oy) * p.x.out
            for ox in range(over_first(&p.x, x0), over_stop(&p.x, x1)):
                cell = index[row + ox]
                if cell < lo or cell >= hi or dilated and is_empty(&p.x, ox):
                    continue
                dx[cell] += dy[row + ox]


cdef void max_gradient_task(
    const Pool* p, Py_ssize_t bands, const real* dy, const long long* index, real* dx,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Write bands begin .. end of dx, counted through all planes."""
    cdef Py_ssize_t i, plane, lo, hi, size = p.z.extent * p.y.extent * p.x.extent
    cdef Py_ssize_t windows = p.z.out * p.y.out * p.x.out
    for i in range(begin, end):
        plane = i // bands
        lo = (i - plane * bands) * BAND
        hi = min(lo + BAND, size)
        max_gradient_band(
            p, dy + plane * windows, index + plane * windows, dx + plane * size, lo, hi
        )


cdef inline double windows_over(const Axis* a, Py_ssize_t cells) noexcept nogil:
    """Bound the windows that lie over some of `cells` neighbours."""
    cells = min(cells, a.extent)
    return min(a.out, ((a.kernel - 1) * a.dilation + cells - 1) // a.stride + 1)


cdef Py_ssize_t band_work(const Pool* p) noexcept nogil:
    """Bound the cells and windows that a band looks at."""
    cdef Py_ssize_t rows = BAND // p.x.extent + 2, slabs = rows // p.y.extent + 2
    cdef double windows = windows_over(&p.z, slabs) * windows_over(&p.x, BAND)
    windows *= windows_over(&p.y, rows)
    cdef double cells = <double>p.z.extent * p.y.extent * p.x.extent
    return <Py_ssize_t>min(min(cells, BAND) + windows, ROUND_WORK)


cdef inline void mark_row(
    const Pool* p, const long long* index, const Block* o, long long row, long long* found
) noexcept nogil:
    """Mark the indices of a block that lie in their windows, in one row of elements."""
    cdef long long j, ix, start, first, stop
    cdef long long s = p.x.stride, lo = p.x.lo - o.x * p.x.stride, k = p.x.kernel
    cdef long long extent = p.x.extent
    for j in range(o.n):
        ix = index[j] - row
        start = j * s - lo
        first = start if start > 0 else 0
        stop = start + k if start + k < extent else extent
        found[j] = found[j] | ((ix >= first) & (ix < stop))


cdef bint all_inside(const Pool* p, const long long* index, const Block* o) noexcept nogil:
    """Whether all indices of a block lie in their windows; False if that is hard to say."""
    cdef long long[SPAN] found
    cdef Py_ssize_t iz, iy, j, z1 = stop_of(&p.z, o.z), y1 = stop_of(&p.y, o.y)
    cdef Py_ssize_t y0 = first_of(&p.y, o.y)
    cdef long long fine = 1
    if o.n < LANES or p.x.dilation > 1 or p.z.kernel * p.y.kernel > FEW_ROWS:
        return False
    for j in range(o.n):
        found[j] = 0
    iz = first_of(&p.z, o.z)
    while iz < z1:
        iy = y0
        while iy < y1:
            mark_row(p, index, o, (iz * p.y.extent + iy) * p.x.extent, found)
            iy += p.y.dilation
        iz += p.z.dilation
    for j in range(o.n):
        fine = fine & found[j]
    return fine != 0


cdef Py_ssize_t first_outside(
    const Pool* p, const Blocks* b, const long long* index, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Find the first index, in blocks begin .. end, that is not in its own window."""
    cdef Py_ssize_t i, j, row, cell, size = p.z.extent * p.y.extent * p.x.extent
    cdef Py_ssize_t tap_x, tap_y, tap_z, start_x, start_y, start_z
    cdef Block o
    for i in range(begin, end):
        o = block_at(b, i)
        if all_inside(p, index + o.offset, &o):
            continue
        start_z, start_y = start_of(&p.z, o.z), start_of(&p.y, o.y)
        start_x = start_of(&p.x, o.x)
        for j in range(o.n):
            cell = index[o.offset + j]
            if cell < 0 or cell >= size:
                return o.offset + j
            row = cell // p.x.extent
            tap_x = cell - row * p.x.extent - start_x - j * p.x.stride
            tap_z = row // p.y.extent if p.z.extent > 1 else 0
            tap_y = row - tap_z * p.y.extent - start_y
            tap_z -= start_z
            if is_tap(&p.x, tap_x) and is_tap(&p.y, tap_y) and is_tap(&p.z, tap_z):
                continue
            if is_empty(&p.x, o.x + j) or is_empty(&p.y, o.y) or is_empty(&p.z, o.z):
                continue
            return o.offset + j
    return -1


cdef void max_tasks(
    const Pool* p, const Blocks* b, const Rounds* r, const real* x, real* y,
    long long* index, Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end of y; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        max_task(p, b, x, y, index, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        max_task(p, b, x, y, index, first_piece(r, i), first_piece(r, i + 1))


cdef int maxima(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x, y and index, and write y and index."""
    cdef Pool p = pool_of(held)
    cdef const real* x = reals(held, 1, elements_of(&p), like)
    cdef real* y = reals(held, 2, windows_of(&p), like)
    cdef long long* index = integers_or_nothing(held, 3, windows_of(&p))
    cdef Blocks b = window_blocks(&p)
    cdef Rounds r = rounds(b.count, b.work, threads)
    cdef Py_ssize_t begin = 0, end
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            max_tasks(&p, &b, &r, x, y, index, begin, end, threads)
        look()
        begin = end
    return 0


cdef void find_outside(
    const Pool* p, const Blocks* b, const long long* index, Py_ssize_t begin,
    Py_ssize_t step, Py_ssize_t* places, int threads,
) noexcept nogil:
    """Do `first_outside` for SLICES parts of `step` blocks each, from `begin` on."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(SLICES):
            places[i] = first_outside(
                p, b, index, min(begin + i * step, b.count),
                min(begin + (i + 1) * step, b.count),
            )
        return
    for i in prange(SLICES, num_threads=threads, schedule="static"):
        places[i] = first_outside(
            p, b, index, min(begin + i * step, b.count),
            min(begin + (i + 1) * step, b.count),
        )


cdef int check_indices(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, index and found, and write the latter."""
    cdef Pool p = pool_of(held)
    cdef const long long* index = integers(held, 1, windows_of(&p))
    cdef long long* found = integers(held, 2, 1)
    cdef Blocks b = cut(p.planes, p.z.out, p.y.out, p.x.out, SPAN)
    cdef Py_ssize_t i, begin = 0, step = min(
        max(1, SLICE // b.block), (b.count + SLICES - 1) // SLICES
    )
    cdef Py_ssize_t[SLICES] places
    found[0] = -1
    while begin < b.count:
        with nogil:
            find_outside(&p, &b, index, begin, step, places, threads)
        look()
        for i in range(SLICES):
            if places[i] >= 0:
                found[0] = places[i]
                return 0
        begin += SLICES * step
    return 0


cdef void max_gradient_tasks(
    const Pool* p, Py_ssize_t bands, const Rounds* r, const real* dy,
    const long long* index, real* dx, Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end of dx."""
    cdef Py_ssize_t i
    if threads == 1:
        max_gradient_task(p, bands, dy, index, dx, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        max_gradient_task(p, bands, dy, index, dx, first_piece(r, i), first_piece(r, i + 1))


cdef int max_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, index and dx, and write dx."""
    cdef Pool p = pool_of(held)
    cdef const real* dy = reals(held, 1, windows_of(&p), like)
    cdef const long long* index = integers(held, 2, windows_of(&p))
    cdef real* dx = reals(held, 3, elements_of(&p), like)
    cdef Py_ssize_t bands, begin = 0, end
    cdef Rounds r
    if p.planes == 0:
        return 0
    bands = (elements_of(&p) // p.planes - 1) // BAND + 1
    r = rounds(p.planes * bands, band_work(&p), threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            max_gradient_tasks(&p, bands, &r, dy, index, dx, begin, end, threads)
        look()
        begin = end
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that a direction needs: none."""
    return 0


def fprop(geometry, x, y, index, scratch, int threads, /):
    """Write the maxima of x to y, and where they were to `index` unless it is None."""
    call((geometry, x), (y, index, scratch), threads, maxima[float], maxima[double])


def check(geometry, index, found, scratch, int threads, /):
    """Write the place of the first index that is not in its own window, or -1.

    The index of a window of padding alone may be any cell.
    """
    call(
        (geometry, index), (found, scratch), threads, check_indices[float],
        check_indices[double],
    )


def dgrad(geometry, dy, index, dx, scratch, int threads, /):
    """Write the gradient of x; `check` has found every index in its own window."""
    call(
        (geometry, dy, index), (dx, scratch), threads, max_gradient[float],
        max_gradient[double],
    )


def checked_dgrad(geometry, dy, index, dx, found, scratch, int threads, /):
    """Do `check`, and `dgrad` if that has found nothing."""
    check(geometry, index, found, scratch, threads)
    if found[0] < 0:
        dgrad(geometry, dy, index, dx, scratch, threads)
