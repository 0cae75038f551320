# Max pooling with stride 1 and results as large as x: where the planes lie in memory.
#
# What      y[i] = max x[i + offset(tap)] over the taps that stay in the plane
#           dx[i] = sum of dy[o] over windows o = i - offset(tap) whose label is that tap
# Layout    all planes, one after the other, are one line. The lanes run along it, whatever
#           the width of a plane; strings of bits, one for each row and each column of the
#           window, tell for each place of a plane whether that tap stays in it:
#
#               plane      a b c          a b c d e f a b c d ...     x
#               3 columns  d e f          0 1 1 0 1 1 0 1 1 0 ...     left column of taps
#                                         0 0 0 1 1 1 0 0 0 1 ...     upper row of taps
#
#           The gradient needs none: a label never leads out of its plane.
# Assumes   `PoolMaxSame.accepts`: stride 1, dilation 1, as many windows as elements.
# Parallel  over pieces of the line: each is written by one task. The windows over an
#           element are added in row-major order.
# Scratch   on the stack: the strings, 16 KB, and a piece of maxima over rows, 9 KB.
# Cost      memory: one read of x (dy and labels), one write of y (dx).
# Why not   pool_max_flat.pyx: rows of 7 or 14 elements take longer to copy than to pool.

from cython.parallel cimport prange
from libc.math cimport INFINITY
from libc.string cimport memcpy, memset

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    Buffers, call, flags_of, is_nothing, reals, refuse,
)
from convcore.kernels.pool_flat cimport AHEAD, first_bits, lanes_of
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    ahead, all_lanes, cc_fetch, cc_fetch_to_write, f32v, f64v, merge, put_part, real, vec,
    zero_lanes,
)
from convcore.kernels.vector_compare cimport all_labels, gather, later, widened
from convcore.kernels.windows cimport Axis, Pool, elements_of, pool_of, windows_of

cdef enum:
    PIECE = 2048  # elements of a piece
    MARGIN = 256  # of a row of maxima: taps beside a piece, and two vectors
    STRINGS = 16384  # bytes of all strings
    SPARE = 24  # bytes of a string behind its plane: reads of 8 bytes from anywhere in it
    ROWS = 64  # most rows, and most columns, of a window

cdef struct Line:
    Py_ssize_t total, cells  # elements of all planes and of one
    Py_ssize_t rows, columns  # of the window; slabs times rows
    Py_ssize_t each  # bytes of a string
    Py_ssize_t[ROWS] row, column  # offsets of the taps
    unsigned char[STRINGS] bits


cdef inline unsigned long long string_at(
    const Line* s, Py_ssize_t string, Py_ssize_t place
) noexcept nogil:
    """Give at least 57 bits of a string, the first one that of `place`."""
    cdef unsigned long long bits
    memcpy(&bits, s.bits + string * s.each + place // 8, 8)
    return bits >> (place % 8)


cdef inline void set_bit(unsigned char* bits, Py_ssize_t i) noexcept nogil:
    """Set one bit."""
    bits[i // 8] |= 1 << (i % 8)


cdef inline bint inside(const Axis* a, Py_ssize_t i, Py_ssize_t tap) noexcept nogil:
    """Whether a tap of the window around i is an element."""
    return 0 <= i + tap - a.lo < a.extent


cdef void write_strings(Line* s, const Pool* p) noexcept nogil:
    """Write offsets and strings, repeated as far as reads from the plane's end go."""
    cdef Py_ssize_t i, k, z, y, x, kz, ky
    memset(s.bits, 0, (s.rows + s.columns) * s.each)
    for k in range(s.rows):
        kz, ky = k // p.y.kernel, k % p.y.kernel
        s.row[k] = ((kz - p.z.lo) * p.y.extent + ky - p.y.lo) * p.x.extent
    for k in range(s.columns):
        s.column[k] = k - p.x.lo
    i = 0
    while i < s.cells + 64:
        x = i % p.x.extent
        y = i // p.x.extent % p.y.extent
        z = i // (p.x.extent * p.y.extent) % p.z.extent
        for k in range(s.rows):
            if inside(&p.z, z, k // p.y.kernel) and inside(&p.y, y, k % p.y.kernel):
                set_bit(s.bits + k * s.each, i)
        for k in range(s.columns):
            if inside(&p.x, x, k):
                set_bit(s.bits + (s.rows + k) * s.each, i)
        i += 1


cdef inline Py_ssize_t moved(const Line* s, Py_ssize_t place, Py_ssize_t lanes) noexcept nogil:
    """Give the place that many lanes further on."""
    place += lanes
    while place >= s.cells:
        place -= s.cells
    return place


cdef inline void max_columns(
    const Line* s, const vec* x, Py_ssize_t begin, Py_ssize_t end, vec* to
) noexcept nogil:
    """Write the maxima over the rows of the windows, for elements begin .. end."""
    cdef Py_ssize_t lanes = lanes_of(x), i = begin, k, place = begin % s.cells
    cdef unsigned long long rest, bits
    cdef vec least = all_lanes(x, -INFINITY), a
    while i < end:
        rest = first_bits(end - i)
        cc_fetch(<const char*>ahead(x, i) + AHEAD)
        bits = string_at(s, 0, place) & rest
        a = merge(least, ahead(x, i + s.row[0]), bits)
        for k in range(1, s.rows):
            bits = string_at(s, k, place) & rest
            a = later(merge(least, ahead(x, i + s.row[k]), bits), a)
        (<vec*>ahead(to, i - begin))[0] = a
        place = moved(s, place, lanes)
        i += lanes


cdef inline void max_piece(
    const Line* s, const vec* x, Py_ssize_t begin, Py_ssize_t end, vec* y, vec* spare
) noexcept nogil:
    """Write elements begin .. end of y."""
    cdef Py_ssize_t lanes = lanes_of(x), i = begin, k, place = begin % s.cells
    cdef Py_ssize_t first = max(0, begin + s.column[0])
    cdef unsigned long long rest, bits
    cdef const vec* v
    cdef vec least = all_lanes(x, -INFINITY), a
    max_columns(s, x, first, min(s.total, end + s.column[s.columns - 1]), spare)
    while i < end:
        rest = first_bits(end - i)
        cc_fetch_to_write(<const char*>ahead(y, i) + AHEAD)
        v = ahead(spare, i - first)
        bits = string_at(s, s.rows, place) & rest
        a = merge(least, ahead(v, s.column[0]), bits)
        for k in range(1, s.columns):
            bits = string_at(s, s.rows + k, place) & rest
            a = later(merge(least, ahead(v, s.column[k]), bits), a)
        put_part(<vec*>ahead(y, i), a, end - i)
        place = moved(s, place, lanes)
        i += lanes


cdef inline void gather_piece(
    const Line* s, const vec* dy, const unsigned char* tap, Py_ssize_t begin,
    Py_ssize_t end, vec* dx,
) noexcept nogil:
    """Write elements begin .. end of dx; all windows that are looked at exist."""
    cdef Py_ssize_t lanes = lanes_of(dy), i = begin, k, c, o
    cdef vec a
    while i + lanes <= end:
        cc_fetch(<const char*>ahead(dy, i) + AHEAD)
        cc_fetch_to_write(<const char*>ahead(dx, i) + AHEAD)
        a = zero_lanes(dy)
        for k in range(s.rows - 1, -1, -1):
            for c in range(s.columns - 1, -1, -1):
                o = i - s.row[k] - s.column[c]
                a = gather(
                    a, ahead(dy, o)[0], widened(dy, tap + o),
                    all_labels(dy, k * s.columns + c),
                )
        (<vec*>ahead(dx, i))[0] = a
        i += lanes


cdef void gather_ends(
    const Line* s, const real* dy, const unsigned char* tap, Py_ssize_t begin,
    Py_ssize_t end, real* dx,
) noexcept nogil:
    """Do the same near the ends of the line, one by one."""
    cdef Py_ssize_t i, k, c, o
    cdef real a
    for i in range(begin, end):
        a = 0
        for k in range(s.rows - 1, -1, -1):
            for c in range(s.columns - 1, -1, -1):
                o = i - s.row[k] - s.column[c]
                if 0 <= o < s.total and tap[o] == k * s.columns + c:
                    a += dy[o]
        dx[i] = a


cdef void max_range(
    const Line* s, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write elements begin .. end of y, a piece at most."""
    cdef real[PIECE + MARGIN] spare
    if real is float:
        max_piece(s, <f32v*>x, begin, end, <f32v*>y, <f32v*>spare)
    else:
        max_piece(s, <f64v*>x, begin, end, <f64v*>y, <f64v*>spare)


cdef void gather_range(
    const Line* s, const real* dy, const unsigned char* tap, real* dx, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write elements begin .. end of dx."""
    cdef Py_ssize_t low = max(begin, s.row[s.rows - 1] + s.column[s.columns - 1])
    cdef Py_ssize_t high = min(end, s.total + s.row[0] + s.column[0])
    cdef Py_ssize_t whole
    if low >= high:
        gather_ends(s, dy, tap, begin, end, dx)
        return
    if real is float:
        whole = (high - low) // lanes_of(<f32v*>dy) * lanes_of(<f32v*>dy)
        gather_piece(s, <f32v*>dy, tap, low, low + whole, <f32v*>dx)
    else:
        whole = (high - low) // lanes_of(<f64v*>dy) * lanes_of(<f64v*>dy)
        gather_piece(s, <f64v*>dy, tap, low, low + whole, <f64v*>dx)
    gather_ends(s, dy, tap, begin, low, dx)
    gather_ends(s, dy, tap, low + whole, end, dx)


cdef void do_pieces(
    const Line* s, const real* x, real* y, unsigned char* tap, bint backward,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Do pieces begin .. end of y, or of dx."""
    cdef Py_ssize_t i, stop
    for i in range(begin, end):
        stop = min((i + 1) * PIECE, s.total)
        if backward:
            gather_range(s, x, tap, y, i * PIECE, stop)
        else:
            max_range(s, x, y, i * PIECE, stop)


cdef void do_tasks(
    const Line* s, const Rounds* r, const real* x, real* y, unsigned char* tap,
    bint backward, Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        do_pieces(s, x, y, tap, backward, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        do_pieces(s, x, y, tap, backward, first_piece(r, i), first_piece(r, i + 1))


cdef int all_pieces(
    const Line* s, const real* x, real* y, unsigned char* tap, bint backward, int threads,
) except -1:
    """Do all pieces, in rounds between which Ctrl-C is looked for."""
    cdef Rounds r = rounds(
        (s.total + PIECE - 1) // PIECE, PIECE * s.rows * s.columns // 4 + PIECE, threads
    )
    cdef Py_ssize_t begin = 0, end
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            do_tasks(s, &r, x, y, tap, backward, begin, end, threads)
        look()
        begin = end
    return 0


cdef inline bint is_same(const Axis* a) noexcept nogil:
    """Whether an axis has as many windows as elements, one element apart."""
    return a.kernel > 0 and a.stride == 1 and a.dilation == 1 and a.out == a.extent


cdef int prepare(Line* s, const Pool* p) except -1:
    """Check that the problem is one for this kernel, and write the strings."""
    if not (is_same(&p.z) and is_same(&p.y) and is_same(&p.x)):
        refuse()
    s.total = elements_of(p)
    s.cells = p.z.extent * p.y.extent * p.x.extent
    s.rows = p.z.kernel * p.y.kernel
    s.columns = p.x.kernel
    s.each = s.cells // 8 + SPARE
    if max(s.rows, s.columns) > ROWS or (s.rows + s.columns) * s.each > STRINGS:
        refuse()
    if s.rows * s.columns > 256:
        refuse()
    write_strings(s, p)
    return 0


cdef int maxima(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x and y, and write y."""
    cdef Line s
    cdef Pool p = pool_of(held)
    cdef real* x = reals(held, 1, elements_of(&p), like)
    cdef real* y = reals(held, 2, windows_of(&p), like)
    if not is_nothing(held, 3):
        refuse()
    if p.planes == 0:
        return 0
    prepare(&s, &p)
    return all_pieces(&s, x, y, <unsigned char*>NULL, False, threads)


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, labels and dx, and write dx."""
    cdef Line s
    cdef Pool p = pool_of(held)
    cdef real* dy = reals(held, 1, windows_of(&p), like)
    cdef unsigned char* tap = flags_of(held, 2, windows_of(&p))
    cdef real* dx = reals(held, 3, elements_of(&p), like)
    if p.planes == 0:
        return 0
    prepare(&s, &p)
    return all_pieces(&s, dy, dx, tap, True, threads)


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that a direction needs: none."""
    return 0


def fprop(geometry, x, y, label, scratch, int threads, /):
    """Write the maxima of x to y; `label` is None."""
    call((geometry, x), (y, label, scratch), threads, maxima[float], maxima[double])


def dgrad(geometry, dy, label, dx, scratch, int threads, /):
    """Write the gradient of x from labels as `pool_max_flat.fprop` gives them."""
    call((geometry, dy, label), (dx, scratch), threads, gradient[float], gradient[double])
