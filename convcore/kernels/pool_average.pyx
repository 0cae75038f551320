# Average pooling of strided, adaptive and global windows, and its gradient.
#
# What      y[o] = (sum of x[i] over i in window(o)) / divisor(o)
#           dx[i] = sum of dy[o] / divisor(o) over windows o that hold i
# Layout    by shape: windows of the whole plane are one sum (pool_planes.pxd); pairs of
#           columns that fill planes know no width (pool_pairs.pxd). Else what is estimated to
#           be the fastest for a plane: strips of columns (pool_strips.pxd), blocks of rows in
#           registers (pool_blocks.pxd), a plane in each lane (pool_turned.pxd), or row by row
#           (pool_rows.pxd); what is too long for a line, window by window (pool_long.pxd).
# Assumes   buffers of the sizes that the geometry tells; windows.pxd.
# Parallel  over blocks of y, for the gradient over blocks of dx: each is written by one
#           task, which looks at all windows over its cells. Stores may spill into the next
#           block of a task before that is written. The order of every sum depends on the
#           shape of one plane alone.
# Scratch   a `Room` for each thread, where planes may be turned; else on the stack.
# Cost      memory: one read of x (dy), one write of y (dx). Sums are of doubles, and are
#           rounded once.
# Why not   A running sum along W: its bits would depend on where a block starts, and an
#           Inf would turn the rest of its row into NaN.

from cython.parallel cimport prange, threadid

from convcore.kernels.blocks cimport (
    Block, Blocks, Rounds, block_at, cut, element_blocks, first_piece, rounds, taps_at_most,
    window_blocks, windows_at_most,
)
from convcore.kernels.buffers cimport Buffers, call, integers, read_geometry, reals, room
from convcore.kernels.pool_blocks cimport (
    blocks_task, fits_blocks, terms_of, time_of_blocks,
)
from convcore.kernels.pool_long cimport (
    average_by_windows, average_gradient_block, count_in_row,
)
from convcore.kernels.pool_pairs cimport are_pairs, means_of_pairs, shares_of_pairs
from convcore.kernels.pool_places cimport results_at_most
from convcore.kernels.pool_planes cimport FILL, divide_each, means_of_planes, shares_of_planes
from convcore.kernels.pool_rows cimport Line, line_of, means_of_rows, shares_of_rows
from convcore.kernels.pool_strips cimport (
    Band, Strips, bands_of, fits, held_for, set_band, strips_of, write_band,
)
from convcore.kernels.pool_turned cimport Room, is_small, turned_task
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport real
from convcore.kernels.vector_wide cimport WIDE_LANES, Scale, scale_by
from convcore.kernels.windows cimport (
    POOL_FIELDS, Axis, Pool, cells, elements_of, is_whole, pool_of, windows_of,
)

cdef enum:
    DIVISION = 4  # ns of a vector of doubles, where no factor does it

cdef enum Mode:
    SAME, PLANE, PAIRS, IN_BLOCKS, TURNED, IN_STRIPS, IN_ROWS, BY_WINDOWS

cdef struct Means:  # one direction of one problem
    Pool p
    Blocks b
    Line f
    Strips strips
    Mode mode
    bint back
    double common  # divisor of all windows; 0: they differ
    double whole  # divisor of those that no end cuts off; 0: there are none


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


cdef inline void bands_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end, bint common
) noexcept nogil:
    """Write bands begin .. end of y, or of dx."""
    cdef Scale by = scale_by(m.whole)
    cdef Band b
    cdef Py_ssize_t i, stop
    set_band(&m.p, &m.strips, end - 1, &b)
    stop = b.result + b.planes * b.results * m.strips.wide
    for i in range(begin, end):
        set_band(&m.p, &m.strips, i, &b)
        write_band(&m.p, &m.strips, &b, &by, x, y, stop, common)


cdef void strips_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end, Room* room_
) noexcept nogil:
    """Write bands whose windows all divide by the same."""
    bands_task(m, x, y, begin, end, True)


cdef void uneven_strips_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end, Room* room_
) noexcept nogil:
    """Write bands with windows that are cut off."""
    bands_task(m, x, y, begin, end, False)


cdef void rows_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end, Room* room_
) noexcept nogil:
    """Write blocks of rows."""
    if m.f.back:
        shares_of_rows(&m.p, &m.f, &m.b, m.common, x, y, begin, end)
    else:
        means_of_rows(&m.p, &m.f, &m.b, m.back, m.common, x, y, begin, end)


cdef void small_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end, Room* room_
) noexcept nogil:
    """Write planes, one block after another or one for each lane."""
    if WIDE_LANES == 8 and m.mode == IN_BLOCKS:  # nowhere else: no code for it
        blocks_task(&m.p, m.back, m.common, x, y, begin, end)
    else:
        turned_task(&m.p, m.back, m.common, x, y, begin, end, room_)


cdef void windows_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end, Room* room_
) noexcept nogil:
    """Write blocks begin .. end of y, or of dx, with windows too long for a line."""
    cdef Py_ssize_t i, plane = m.p.z.extent * m.p.y.extent * m.p.x.extent
    cdef Block o
    if m.back:
        plane = m.p.z.out * m.p.y.out * m.p.x.out
    for i in range(begin, end):
        o = block_at(&m.b, i)
        if m.back:
            average_gradient_block(&m.p, m.common, x + o.plane * plane, y + o.offset, &o)
        else:
            average_by_windows(&m.p, x + o.plane * plane, y + o.offset, &o)


cdef void plain_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end, Room* room_
) noexcept nogil:
    """Write what goes on from plane to plane."""
    if m.mode == SAME:
        divide_each(m.common, x, y, begin * FILL, min(end * FILL, elements_of(&m.p)))
    elif m.mode == PLANE and m.back:
        shares_of_planes(&m.b, m.common, x, y, begin, end)
    elif m.mode == PLANE:
        means_of_planes(&m.p, m.common, x, y, begin, end)
    elif m.back:
        shares_of_pairs(&m.p, m.common, x, y, begin, end)
    else:
        means_of_pairs(&m.p, m.common, x, y, begin, end)


cdef void average_task(
    const Means* m, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end, Room* room_
) noexcept nogil:
    """Write blocks begin .. end of the result."""
    # Each way is a function of its own: their tables do not add up to one large frame.
    cdef void (*way)(
        const Means*, const real*, real*, Py_ssize_t, Py_ssize_t, Room*
    ) noexcept nogil
    if m.mode == IN_STRIPS and m.strips.common:
        way = strips_task[real]
    elif m.mode == IN_STRIPS:
        way = uneven_strips_task[real]
    elif m.mode == IN_ROWS:
        way = rows_task[real]
    elif m.mode == IN_BLOCKS or m.mode == TURNED:
        way = small_task[real]
    elif m.mode == BY_WINDOWS:
        way = windows_task[real]
    else:
        way = plain_task[real]
    way(m, x, y, begin, end, room_)


cdef inline void space_evenly(Axis* a) noexcept nogil:
    """Describe adaptive windows that divide their axis as strided ones."""
    if a.kernel == 0 and a.extent % a.out == 0:
        a.kernel = a.stride = a.extent // a.out
        a.lo = a.hi = 0
        a.dilation = 1


cdef inline bint is_single(const Axis* a) noexcept nogil:
    """Tell whether each window is one element, and each element a window."""
    return a.kernel == 1 and a.stride == 1 and a.out == a.extent


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


cdef inline void use_elements(Means* m) noexcept nogil:
    """Divide element by element: each is a window."""
    m.mode = SAME
    m.b = cut((elements_of(&m.p) - 1) // FILL + 1, 1, 1, 1, 1)
    m.b.work = FILL


cdef inline void use_planes(Means* m) noexcept nogil:
    """Take each plane as one row: it is a window."""
    cdef Pool* p = &m.p
    m.mode = PLANE
    if m.common == 0:
        m.common = count_in_row(p, 0, 0) * cells(&p.x, 0, p.count_pad)
    p.x.extent = elements_of(p) // p.planes
    p.z.extent = p.y.extent = 1
    m.b = cut(p.planes, 1, 1, p.x.extent if m.back else 1, FILL)
    m.b.work = m.b.block if m.back else p.x.extent


cdef inline void use_pairs(Means* m) noexcept nogil:
    """Take rows of windows of two columns."""
    cdef Pool* p = &m.p
    m.mode = PAIRS
    m.b = cut(p.planes, p.z.out, p.y.out, 1, 1)
    m.b.work = (p.z.kernel * p.y.kernel * 2 + 1) * p.x.out


cdef inline void use_blocks(Means* m) noexcept nogil:
    """Take blocks of rows, the same in all planes of a task."""
    m.mode = IN_BLOCKS
    m.b = cut(m.p.planes, 1, 1, 1, 1)
    m.b.work = (elements_of(&m.p) + windows_of(&m.p)) // m.p.planes


cdef inline void use_lanes(Means* m) noexcept nogil:
    """Give each lane a plane."""
    cdef Py_ssize_t n = (elements_of(&m.p) + windows_of(&m.p)) // m.p.planes
    m.mode = TURNED
    m.b = cut((m.p.planes - 1) // WIDE_LANES + 1, 1, 1, 1, 1)
    m.b.work = WIDE_LANES * n


cdef inline void use_strips(Means* m, Py_ssize_t item) noexcept nogil:
    """Go down strips of columns."""
    m.mode = IN_STRIPS
    m.strips = strips_of(&m.p, m.back, m.common != 0, item)
    m.b = cut(bands_of(&m.strips), 1, 1, 1, 1)
    m.b.work = m.strips.group * m.strips.held * m.strips.width
    m.b.work += m.strips.group * m.strips.band * m.strips.wide


cdef inline void use_rows(Means* m) noexcept nogil:
    """Go row by row, or where windows are too long for a line, window by window."""
    cdef Pool* p = &m.p
    cdef Py_ssize_t block = results_at_most(&p.x, m.back)
    if is_single(&p.z) and is_single(&p.y):  # all rows are alike: those of one plane
        p.y.extent = p.y.out = p.planes * p.z.out * p.y.out
        p.z.extent = p.z.out = p.planes = 1
    m.b = element_blocks(p) if m.back else window_blocks(p)
    m.mode = IN_ROWS if block else BY_WINDOWS
    if m.back and block > 16 * p.x.stride:  # each block begins with the same phase
        block -= block % (16 * p.x.stride)
    if block:
        m.b = cut(p.planes, m.b.depth, m.b.height, m.b.width, block)
        m.b.work = work_of(p, m.b.block, m.back)
        m.f = line_of(p, &m.b, m.back, m.common != 0)


cdef inline double time_of_lanes(const Pool* p, bint back, double division) noexcept nogil:
    """Estimate the ns that a turned plane takes."""
    cdef double rows = <double>terms_of(&p.z, back) * terms_of(&p.y, back)
    cdef double n = <double>p.z.extent * p.y.extent * p.x.extent
    cdef double m = <double>p.z.out * p.y.out * p.x.out, high = p.z.out * p.y.out
    if back:
        high = p.z.extent * p.y.extent
    rows = rows * high * (p.x.out if back else p.x.extent)
    high = (0.03 * terms_of(&p.x, back) + division / 8) * (n if back else m)
    return (0.13 * (n + m) + 0.03 * rows + high) * 8 / WIDE_LANES  # as many planes at once


cdef inline double time_of_strips(const Pool* p, bint back, double division) noexcept nogil:
    """Estimate the ns that a plane takes in strips."""
    cdef double deep = p.z.extent if back else p.z.out, high = p.y.extent if back else p.y.out
    cdef Py_ssize_t wide = p.x.extent if back else p.x.out
    cdef double held = held_for(&p.y, <Py_ssize_t>high, back), phases = p.x.stride
    cdef double strips = (wide - 1) // (WIDE_LANES * (p.x.stride if back else 1)) + 1
    return deep * strips * (
        5 + phases * held * (0.3 + 0.25 * terms_of(&p.x, back) * terms_of(&p.z, back))
        + phases * high * (0.5 + 0.3 * terms_of(&p.y, back))
        + (phases if back else 1) * high * division
    )


cdef inline double time_of_rows(const Pool* p, bint back, bint apart) noexcept nogil:
    """Estimate the ns that a plane takes row by row."""
    cdef double high = <double>p.z.extent * p.y.extent, rows
    if not back:
        rows = <double>terms_of(&p.z, back) * terms_of(&p.y, back)
        return <double>p.z.out * p.y.out * (12 + 0.08 * rows * p.x.extent)
    if 0 < p.x.kernel < p.x.stride:  # elements in no window, one by one
        return high * 0.7 * p.x.extent
    if apart:
        return high * (6 + 0.08 * p.x.extent)
    return high * (10 + 0.25 * p.x.extent)


cdef Means means_of(const Pool* given, bint back, Py_ssize_t item) noexcept nogil:
    """Choose the way of a direction, by the shape of a plane."""
    cdef Means m
    cdef Pool* p = &m.p
    cdef bint apart, strips
    cdef double lanes, rest, division = 0
    m.p, m.back = given[0], back
    space_evenly(&p.z)
    space_evenly(&p.y)
    space_evenly(&p.x)
    m.common = m.whole = common_divisor(p)
    if m.common == 0:
        m.whole = <double>p.z.kernel * p.y.kernel * p.x.kernel
    # Strips are for windows that overlap: (8, 64, 112, 112), 2 x 2, backward, takes 1.3 ms
    # in them and 1.1 ms by rows (0.7 as pairs).
    apart = p.x.kernel <= p.x.stride and p.y.kernel <= p.y.stride
    strips = m.whole and fits(p) and p.x.stride < 3 and p.y.extent > 1 and not (back and apart)
    if p.planes == 0:
        use_rows(&m)
    elif m.common and is_single(&p.z) and is_single(&p.y) and is_single(&p.x):
        use_elements(&m)
    elif is_whole(&p.z) and is_whole(&p.y) and is_whole(&p.x):
        use_planes(&m)
    elif m.common and are_pairs(p, item):
        use_pairs(&m)
    else:
        if item == sizeof(double) and not (m.common and scale_by(m.common).exact):
            division = DIVISION
        rest = time_of_rows(p, back, apart)
        if strips and not back and m.common == 0:
            strips = 1.3 * time_of_strips(p, back, division) < rest
        if strips:
            rest = time_of_strips(p, back, division)
        lanes = time_of_lanes(p, back, division) if is_small(p) else rest
        if fits_blocks(p, back, item) and (
            time_of_blocks(p, back, division) < min(lanes, rest)
        ):
            use_blocks(&m)
        elif is_small(p) and (lanes < rest or not strips):
            use_lanes(&m)
        elif strips:
            use_strips(&m, item)
        else:
            use_rows(&m)
    return m


cdef void average_tasks(
    const Means* m, const Rounds* r, const real* x, real* y, Py_ssize_t begin,
    Py_ssize_t end, Room* rooms, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        average_task(m, x, y, first_piece(r, begin), first_piece(r, end), rooms)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        average_task(
            m, x, y, first_piece(r, i), first_piece(r, i + 1), rooms + threadid()
        )


cdef Room* rooms_of(const Buffers* held, const Means* m, int threads) except? NULL:
    """Give the scratch."""
    if m.mode != TURNED:
        return NULL
    return <Room*>room(held, 4, threads * sizeof(Room) // sizeof(double), <double*>NULL)


cdef int average(
    const Means* m, const real* x, real* y, Room* rooms, int threads
) except -1:
    """Write all of y, or of dx, looking for Ctrl-C between rounds."""
    cdef Rounds r = rounds(m.b.count, m.b.work, threads)
    cdef Py_ssize_t begin = 0, end
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            average_tasks(m, &r, x, y, begin, end, rooms, threads)
        look()
        begin = end
    return 0


cdef int means(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, divisor, x and y, and write y."""
    cdef Pool p = divided_pool_of(held)
    cdef Means m = means_of(&p, False, sizeof(real))
    cdef const real* x = reals(held, 2, elements_of(&p), like)
    cdef real* y = reals(held, 3, windows_of(&p), like)
    return average(&m, x, y, rooms_of(held, &m, threads), threads)


cdef int mean_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, divisor, dy and dx, and write dx."""
    cdef Pool p = divided_pool_of(held)
    cdef Means m = means_of(&p, True, sizeof(real))
    cdef const real* dy = reals(held, 2, windows_of(&p), like)
    cdef real* dx = reals(held, 3, elements_of(&p), like)
    return average(&m, dy, dx, rooms_of(held, &m, threads), threads)


cdef Pool divided_pool_of(const Buffers* held) except *:
    """Read the geometry, and the divisor that is the second array."""
    cdef Pool p = pool_of(held)
    cdef const long long* divisor = integers(held, 1, 2)
    p.divisor, p.count_pad = divisor[0], divisor[1]
    return p


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that a direction needs: a room for each thread, or none."""
    cdef Pool p
    read_geometry(geometry, <long long*>&p, POOL_FIELDS)
    if not is_small(&p) or (is_whole(&p.z) and is_whole(&p.y) and is_whole(&p.x)):
        return 0
    return threads * <Py_ssize_t>sizeof(Room) // item


def fprop(geometry, divisor, x, y, scratch, int threads, /):
    """Write the means of x to y; `divisor` is that of `Pool`, and its `count_pad`."""
    call((geometry, divisor, x), (y, scratch), threads, means[float], means[double])


def dgrad(geometry, divisor, dy, dx, scratch, int threads, /):
    """Write the gradient of x to dx."""
    call(
        (geometry, divisor, dy), (dx, scratch), threads, mean_gradient[float],
        mean_gradient[double],
    )
