# Blur pooling: a binomial filter with a stride, and its gradient.
#
# What      y[o] = sum of w[k] x[at(o*stride - lo + k)], w[k] = C(kernel - 1, k) / 2^(kernel - 1)
#           along each axis, lo = (kernel - 1) / 2; dx is the transpose of that.
#           `at` leads places outside of the axis back to it, or nowhere: see border.pxd.
# Layout    rows first, into a line of doubles; then along it. A row of the result needs the
#           rows of a short list, each with its weight; so does each column at the ends.
# Assumes   sizes that were checked: kernels up to MOST.
# Parallel  over blocks of the result; the order of every sum depends on the shape of one
#           plane alone.
# Scratch   on the stack: 32 KB.
# Cost      memory: one read of x (dy), one write of y (dx).
# Source    Zhang, Making convolutional networks shift-invariant again, ICML 2019,
#           section 3.2; arXiv:1904.11486.

from cython.parallel cimport prange
from libc.string cimport memset

from convcore.kernels.blocks cimport (
    SPAN, Block, Blocks, Rounds, block_at, cut, first_piece, rounds,
)
from convcore.kernels.border cimport ZEROS, source_at
from convcore.kernels.buffers cimport Buffers, call, geometry_of, reals
from convcore.kernels.pool_spread cimport PHASES, spread_shares
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport cc_fetch, f64v, pair, real, zero_lanes
from convcore.kernels.vector_wide cimport WIDE_LANES, narrow_part, wide, wide_part

cdef enum:
    MOST = 15  # taps along an axis
    LIST = 48  # sources of one place: a long axis mirrors twice, a short one has few
    ENDS = 16  # results at each end of a row whose sources are noted
    FIELDS = 14
    FAR = 512  # scalars from what is read to what is asked for
    ROOM = 32  # scalars behind a line that may be read or written

cdef struct Axis:
    Py_ssize_t extent, out, kernel, stride, lo, mode
    double[MOST] weight

cdef struct Blur:
    Py_ssize_t planes
    Axis z, y, x
    bint back

cdef struct Sources:  # places with weights
    Py_ssize_t count
    Py_ssize_t[LIST] place
    double[LIST] weight

cdef struct Ends:  # of a row of the result
    Sources[ENDS] low, high  # of the first and of the last, the last first


cdef inline Py_ssize_t at(const Axis* a, Py_ssize_t i) noexcept nogil:
    """Give the element that a place stands for; NOTHING for none."""
    return source_at(a.mode, i, a.extent)


cdef inline void note(Sources* s, Py_ssize_t place, double weight) noexcept nogil:
    """Add a source, to the same one if it is there."""
    cdef Py_ssize_t i
    for i in range(s.count):
        if s.place[i] == place:
            s.weight[i] += weight
            return
    s.place[s.count], s.weight[s.count] = place, weight
    s.count += 1


cdef inline void note_windows(
    const Axis* a, Py_ssize_t place, Sources* s
) noexcept nogil:
    """Add the windows over a place, in order."""
    cdef Py_ssize_t k, o
    for k in range(a.kernel - 1, -1, -1):
        o = place + a.lo - k
        if o >= 0 and o % a.stride == 0 and o // a.stride < a.out:
            note(s, o // a.stride, a.weight[k])


cdef inline void sources_of(
    const Axis* a, Py_ssize_t i, bint back, Sources* s
) noexcept nogil:
    """List what result i is a sum of, with weights."""
    cdef Py_ssize_t k, place
    s.count = 0
    if not back:
        for k in range(a.kernel):
            place = at(a, i * a.stride - a.lo + k)
            if place >= 0:
                note(s, place, a.weight[k])
        return
    note_windows(a, i, s)
    if a.mode == ZEROS:
        return
    for k in range(1, a.lo + 1):
        if at(a, -k) == i:
            note_windows(a, -k, s)
    for k in range(a.kernel - 1 - a.lo):
        if at(a, a.extent + k) == i:
            note_windows(a, a.extent + k, s)


cdef inline bint is_inside(const Axis* a, Py_ssize_t i, bint back) noexcept nogil:
    """Tell whether result i needs nothing that is reflected, nor cut off."""
    if back:
        return a.kernel // 2 < i < a.extent - 1 - a.kernel // 2
    return i * a.stride >= a.lo and i * a.stride - a.lo + a.kernel <= a.extent


cdef inline void add_columns(
    double* sums, const double* v, Py_ssize_t n, Py_ssize_t step, double weight
) noexcept nogil:
    """Add every step-th v with a weight."""
    cdef Py_ssize_t j
    if step == 1:
        for j in range(n):
            sums[j] += weight * v[j]
    elif step == 2:
        for j in range(n):
            sums[j] += weight * v[2 * j]
    else:
        for j in range(n):
            sums[j] += weight * v[step * j]


cdef inline void spread_far(
    double* sums, const double* v, Py_ssize_t n, Py_ssize_t place, Py_ssize_t cells,
    const Axis* a, Py_ssize_t tap,
) noexcept nogil:
    """Add what windows far apart give to their element under a tap, from `place` on."""
    cdef Py_ssize_t j
    for j in range(n):
        if 0 <= place + j * a.stride < cells:
            sums[place + j * a.stride] += a.weight[tap] * v[j]


cdef void fill_line(
    const real* x, const Sources* z, const Sources* y, Py_ssize_t height,
    Py_ssize_t width, Py_ssize_t first, Py_ssize_t n, double* line,
) noexcept nogil:
    """Sum n columns from `first` on over the rows, each with its weight."""
    cdef Py_ssize_t i, j, at = 0
    cdef double weight
    cdef f64v a, b
    cdef const real* row
    while at < n:
        a = zero_lanes(&a)
        b = a
        for i in range(z.count):
            for j in range(y.count):
                row = x + (z.place[i] * height + y.place[j]) * width + first + at
                weight = z.weight[i] * y.weight[j]
                cc_fetch(row + FAR)
                cc_fetch(row + FAR + WIDE_LANES)
                if at + 2 * WIDE_LANES <= n:
                    a = a + weight * wide(row)
                    b = b + weight * wide(row + WIDE_LANES)
                else:
                    a = a + weight * wide_part(row, min(n - at, WIDE_LANES))
                    if at + WIDE_LANES < n:
                        b = b + weight * wide_part(row + WIDE_LANES, n - at - WIDE_LANES)
        (<f64v*>(line + at))[0] = a
        (<f64v*>(line + at + WIDE_LANES))[0] = b
        at += 2 * WIDE_LANES


cdef inline f64v weighted(const Axis* a, const double* line, Py_ssize_t kernel) noexcept nogil:
    """Sum neighbours with their weights, from each lane on; by two where that is the stride."""
    cdef unsigned long long all_bits = (1 << (2 * WIDE_LANES)) - 1
    cdef f64v v, even, odd
    cdef Py_ssize_t k
    v = zero_lanes(&v)
    if a.stride == 1:
        for k in range(kernel):
            v = v + a.weight[k] * (<const f64v*>(line + k))[0]
        return v
    for k in range(0, kernel - 1, 2):
        pair(<const f64v*>(line + k), all_bits, &even, &odd)
        v = v + a.weight[k] * even
        v = v + a.weight[k + 1] * odd
    if kernel % 2:
        pair(<const f64v*>(line + kernel - 1), all_bits, &even, &odd)
        v = v + a.weight[kernel - 1] * even
    return v


cdef inline void put_along(
    const Axis* a, const double* line, Py_ssize_t kernel, real* y, Py_ssize_t n
) noexcept nogil:
    """Write n results along a line, for a stride of 1 or 2."""
    cdef Py_ssize_t j = 0
    while j < n:
        narrow_part(y + j, weighted(a, line + j * a.stride, kernel), n - j)
        j += WIDE_LANES


cdef void put_few_along(
    const Axis* a, const double* line, real* y, Py_ssize_t n
) noexcept nogil:
    """Do `put_along`, with the usual kernels as constants."""
    if a.kernel == 3:
        put_along(a, line, 3, y, n)
    elif a.kernel == 4:
        put_along(a, line, 4, y, n)
    elif a.kernel == 5:
        put_along(a, line, 5, y, n)
    else:
        put_along(a, line, a.kernel, y, n)


cdef void note_ends(const Blur* p, Ends* e) noexcept nogil:
    """Note the sources of the results at the ends of a row."""
    cdef Py_ssize_t j, n = p.x.extent if p.back else p.x.out
    for j in range(min(ENDS, n)):
        e.low[j].count = e.high[j].count = 0
        if not is_inside(&p.x, j, p.back):
            sources_of(&p.x, j, p.back, &e.low[j])
        if not is_inside(&p.x, n - 1 - j, p.back):
            sources_of(&p.x, n - 1 - j, p.back, &e.high[j])


cdef void blur_block(
    const Blur* p, const Ends* e, const real* x, real* y, const Block* o
) noexcept nogil:
    """Write one block of the result."""
    cdef double[SPAN + ROOM] line
    cdef double[SPAN + PHASES] sums, cells
    cdef const double* result = NULL
    cdef double[ROOM] one
    cdef Sources sz, sy, other
    cdef const Sources* sx
    cdef Py_ssize_t last = (p.x.extent if p.back else p.x.out) - 1
    cdef const Axis* a = &p.x
    cdef Py_ssize_t height = p.y.out if p.back else p.y.extent
    cdef Py_ssize_t width = a.out if p.back else a.extent
    cdef Py_ssize_t first = 0, n, i = o.x, stop = o.x + o.n, j, k, place
    cdef double total
    sources_of(&p.z, o.z, p.back, &sz)
    sources_of(&p.y, o.y, p.back, &sy)
    while i < stop and not is_inside(a, i, p.back):
        i += 1
    while stop > i and not is_inside(a, stop - 1, p.back):
        stop -= 1
    n = 0
    if i < stop:  # of the columns inside
        if p.back:
            first = max(0, i + a.lo - a.kernel + a.stride) // a.stride
            n = min((stop - 1 + a.lo) // a.stride + 1, a.out) - first
        else:
            first = i * a.stride - a.lo
            n = (stop - 1 - i) * a.stride + a.kernel
        n = max(n, 0)
        fill_line(x, &sz, &sy, height, width, first, n, line)
        if not p.back and a.stride <= 2:
            put_few_along(a, line, y + i - o.x, stop - i)
        elif p.back and a.stride <= PHASES:
            place = first * a.stride - a.lo - i
            result = spread_shares(
                line, n, place, a.stride, a.kernel, a.weight, sums, cells, stop - i
            )
        else:
            result = sums
            memset(sums, 0, (stop - i) * sizeof(double))
            for k in range(a.kernel):
                if p.back:  # the last tap first: windows in order
                    j = a.kernel - 1 - k
                    spread_far(sums, line, n, first * a.stride - a.lo + j - i, stop - i, a, j)
                else:
                    add_columns(sums, line + k, stop - i, a.stride, a.weight[k])
        for j in range(stop - i if result != NULL else 0):
            y[i - o.x + j] = <real>result[j]
    j = 0
    while j < o.n:
        if o.x + j == i < stop:
            j = stop - o.x  # step over those inside
            continue
        if o.x + j < ENDS:
            sx = &e.low[o.x + j]
        elif last - (o.x + j) < ENDS:
            sx = &e.high[last - (o.x + j)]
        else:
            sources_of(a, o.x + j, p.back, &other)
            sx = &other
        total = 0
        for k in range(sx.count):
            place = sx.place[k]
            if n and first <= place < first + n:
                total += sx.weight[k] * line[place - first]
            else:
                fill_line(x, &sz, &sy, height, width, place, 1, one)
                total += sx.weight[k] * one[0]
        y[j] = <real>total
        j += 1


cdef void blur_task(
    const Blur* p, const Blocks* b, const real* x, real* y, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write blocks begin .. end of the result."""
    cdef Py_ssize_t i, plane = p.z.extent * p.y.extent * p.x.extent
    cdef Block o
    cdef Ends ends
    note_ends(p, &ends)
    if p.back:
        plane = p.z.out * p.y.out * p.x.out
    for i in range(begin, end):
        o = block_at(b, i)
        blur_block(p, &ends, x + o.plane * plane, y + o.offset, &o)


cdef void tasks(
    const Blur* p, const Blocks* b, const Rounds* r, const real* x, real* y,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        blur_task(p, b, x, y, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        blur_task(p, b, x, y, first_piece(r, i), first_piece(r, i + 1))


cdef Axis axis_of(const long long* fields, long long mode) noexcept nogil:
    """Read extent, out, kernel and stride of an axis; weigh its taps."""
    cdef Axis a
    cdef Py_ssize_t k, last
    a.extent, a.out, a.kernel, a.stride = fields[0], fields[1], fields[2], fields[3]
    a.lo, a.mode, last = (a.kernel - 1) // 2, mode, a.kernel - 1
    a.weight[0] = 1.0 / (1 << last)
    for k in range(last):
        a.weight[k + 1] = a.weight[k] * (last - k) / (k + 1)
    return a


cdef Blur blur_of(const Buffers* held, bint back) except *:
    """Read the sizes: planes, four of each axis, the mode."""
    cdef const long long* sizes = geometry_of(held, FIELDS)
    cdef Blur p
    if max(sizes[3], sizes[7], sizes[11]) > MOST:
        raise ValueError("kernel: not the sizes of this operation")
    p.planes, p.back = sizes[0], back
    p.z = axis_of(sizes + 1, sizes[13])
    p.y = axis_of(sizes + 5, sizes[13])
    p.x = axis_of(sizes + 9, sizes[13])
    return p


cdef inline Py_ssize_t count(const Blur* p, bint results) noexcept nogil:
    """Count y, or x; extents of an empty batch may be too large to multiply."""
    if p.planes == 0:
        return 0
    if results:
        return p.planes * p.z.out * p.y.out * p.x.out
    return p.planes * p.z.extent * p.y.extent * p.x.extent


cdef int write(const Blur* p, const real* x, real* y, int threads) except -1:
    """Write all results, looking for Ctrl-C between rounds."""
    cdef Blocks b
    cdef Rounds r
    cdef Py_ssize_t begin = 0, end, block
    if p.planes == 0:
        return 0
    if p.back:
        b = cut(p.planes, p.z.extent, p.y.extent, p.x.extent, SPAN - 2 * MOST)
    else:
        block = max(1, (SPAN - p.x.kernel) // min(p.x.stride, SPAN) + 1)
        b = cut(p.planes, p.z.out, p.y.out, p.x.out, block)
    block = 1 if p.back else min(p.x.stride, SPAN)
    b.work = (b.block * block + p.x.kernel) * p.z.kernel * p.y.kernel
    r = rounds(b.count, b.work, threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            tasks(p, &b, &r, x, y, begin, end, threads)
        look()
        begin = end
    return 0


cdef int blur(const Buffers* held, int threads, real* like) except -1:
    """Check sizes, x and y, and write y."""
    cdef Blur p = blur_of(held, False)
    cdef const real* x = reals(held, 1, count(&p, False), like)
    return write(&p, x, reals(held, 2, count(&p, True), like), threads)


cdef int blur_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check sizes, dy and dx, and write dx."""
    cdef Blur p = blur_of(held, True)
    cdef const real* dy = reals(held, 1, count(&p, True), like)
    return write(&p, dy, reals(held, 2, count(&p, False), like), threads)


def forward(sizes, x, y, int threads, /):
    """Write the blurred x to y."""
    call((sizes, x), (y,), threads, blur[float], blur[double])


def backward(sizes, dy, dx, int threads, /):
    """Write the gradient of x to dx."""
    call((sizes, dy), (dx,), threads, blur_gradient[float], blur_gradient[double])
