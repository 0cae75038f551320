# Lp pooling of strided windows and of whole planes, and its gradient.
#
# What      y[o] = (sum of |x[i]|^p over i in window(o))^(1/p): norm_windows.pxd
#           dx[i] = sign(x[i]) * sum of dy[o] (|x[i]| / y[o])^(p-1) over windows o that
#           hold i: norm_slopes.pxd
#           signs: the gradient of |x| from that of its maxima, for infinite p
# Assumes   buffers of the sizes that the geometry tells; windows.pxd. p > 0 and finite.
# Parallel  over blocks of y, for the gradient over blocks of dx: each is written by one
#           task. The order of every sum depends on the shape of one plane alone.
# Scratch   on the stack, at most 48 KB: 25 of rows that windows share, and lines.
# Cost      memory and 5 instructions an element and window row for whole p; others 45 an
#           element. Sums are of doubles; norm_lanes.pxd says what is done where those end.
# Source    Gulcehre, Cho, Pascanu and Bengio, Learned-norm pooling for deep feedforward
#           and recurrent neural networks, arXiv:1311.1780, section 2.

from cython.parallel cimport prange
from libc.string cimport memcpy

from convcore.kernels.blocks cimport (
    SPAN, Blocks, Rounds, columns_for, cut, element_blocks, first_piece, rounds, taps_at_most,
    window_blocks, windows_at_most,
)
from convcore.kernels.buffers cimport Buffers, call, geometry_of, integers, reals
from convcore.kernels.elements cimport lanes_of, load_some
from convcore.kernels.norm_lanes cimport ANY, Norm, set_power
from convcore.kernels.norm_rows_kept cimport KEPT, spreads, takes_long
from convcore.kernels.norm_slopes cimport slopes_task
from convcore.kernels.norm_windows cimport norms_task
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    ahead, all_lanes, f32v, f64v, pick, put_part, real, until, vec,
)
from convcore.kernels.vector_math cimport magnitude, signed_as
from convcore.kernels.windows cimport elements_of, is_whole, pool_of, windows_of


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
    if m.kind == ANY or m.guarded:
        b.work *= 4  # of powers, or of quotients
    r = rounds(b.count, b.work, threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            tasks(m, b, &r, given, to, begin, end, threads)
        look()
        begin = end
    return 0


cdef Norm norm_of(const Buffers* held, bint single) except *:
    """Read the geometry, and the power: the bits of the second array."""
    cdef Norm m
    cdef double power
    m.p = pool_of(held)
    if m.p.planes and is_whole(&m.p.z) and is_whole(&m.p.y) and is_whole(&m.p.x):
        m.p.x.extent = elements_of(&m.p) // m.p.planes  # the plane is one row
        m.p.z.extent = m.p.y.extent = 1
        m.p.z.kernel = m.p.y.kernel = m.p.x.kernel = 0
    memcpy(&power, integers(held, 1, 1), sizeof(double))
    set_power(&m, power, single)
    return m


cdef inline Blocks recut(const Norm* m, const Blocks* b, Py_ssize_t block) noexcept nogil:
    """Cut the same rows into blocks that are not larger."""
    cdef Blocks less
    if block >= b.block:
        return b[0]
    less = cut(m.p.planes, b.depth, b.height, b.width, block)
    less.work = max(1, b.work * less.block // b.block)
    return less


cdef inline Blocks norm_blocks(const Norm* m, const Blocks* b) noexcept nogil:
    """Cut rows of y so that the powers of a window's rows can be kept, where that pays."""
    cdef double rows = <double>taps_at_most(&m.p.z) * taps_at_most(&m.p.y)
    cdef Py_ssize_t span = <Py_ssize_t>(KEPT / rows)
    if columns_for(&m.p.x) == 0 or not takes_long(m) or span < 2 * m.p.x.kernel:
        return b[0]
    return recut(m, b, (span - m.p.x.kernel) // m.p.x.stride + 1)


cdef inline Blocks slope_blocks(const Norm* m, const Blocks* b) noexcept nogil:
    """Cut rows of dx so that shares can be kept."""
    cdef double rows = <double>windows_at_most(&m.p.z) * windows_at_most(&m.p.y)
    cdef Py_ssize_t beside = windows_at_most(&m.p.x) + 1
    cdef Py_ssize_t span = <Py_ssize_t>min(<double>SPAN, KEPT / rows)
    if not spreads(m) or span < 2 * beside:
        return b[0]
    return recut(m, b, (span - beside) * m.p.x.stride)


cdef int norms(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x and y, and write y."""
    cdef Norm m = norm_of(held, real is float)
    cdef const real* given[3]
    cdef real* y = reals(held, 3, windows_of(&m.p), like)
    cdef Blocks b = window_blocks(&m.p)
    given[0], given[1] = reals(held, 2, elements_of(&m.p), like), NULL
    b = norm_blocks(&m, &b)
    return write(&m, &b, given, y, threads)


cdef int slopes(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, y, x and dx, and write dx."""
    cdef Norm m = norm_of(held, real is float)
    cdef const real* given[3]
    cdef real* dx = reals(held, 5, elements_of(&m.p), like)
    cdef Blocks b = element_blocks(&m.p)
    given[0] = reals(held, 2, windows_of(&m.p), like)
    given[1] = reals(held, 3, windows_of(&m.p), like)
    given[2] = reals(held, 4, elements_of(&m.p), like)
    if b.count == 0:
        return 0
    b = slope_blocks(&m, &b)
    return write(&m, &b, given, dx, threads)


# Infinite p -------------------------------------------------------------------------


cdef void signs_piece(
    const vec* share, const vec* x, vec* dx, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write shares with the signs of x; what got none of them has none, even NaN."""
    cdef Py_ssize_t j = begin, lanes = lanes_of(x)
    cdef vec u, v, s, zero = all_lanes(x, 0)
    while j < end:
        s, u = load_some(ahead(share, j), end - j), load_some(ahead(x, j), end - j)
        v = pick(zero, magnitude(u), s * signed_as(all_lanes(x, 1), u), u)
        put_part(<vec*>ahead(dx, j), until(magnitude(s), zero, zero, v), end - j)
        j += lanes


cdef void signs_task(
    const Rounds* r, Py_ssize_t i, const real* share, const real* x, real* dx, Py_ssize_t count
) noexcept nogil:
    """Do so for a task."""
    cdef Py_ssize_t begin = first_piece(r, i) * SPAN
    cdef Py_ssize_t end = min(first_piece(r, i + 1) * SPAN, count)
    if real is float:
        signs_piece(<const f32v*>share, <const f32v*>x, <f32v*>dx, begin, end)
    else:
        signs_piece(<const f64v*>share, <const f64v*>x, <f64v*>dx, begin, end)


cdef int signs_call(const Buffers* held, int threads, real* like) except -1:
    """Check all arrays, and write dx."""
    cdef Py_ssize_t count = geometry_of(held, 1)[0], i, begin = 0, end
    cdef const real* share = reals(held, 1, count, like)
    cdef const real* x = reals(held, 2, count, like)
    cdef real* dx = reals(held, 3, count, like)
    cdef Rounds r = rounds((count + SPAN - 1) // SPAN, SPAN, threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            for i in prange(begin, end, num_threads=threads):
                signs_task(&r, i, share, x, dx, count)
        look()
        begin = end
    return 0


def signs(geometry, share, x, dx, int threads, /):
    """Write the gradient of magnitudes x that got these shares of one."""
    call((geometry, share, x), (dx,), threads, signs_call[float], signs_call[double])


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
