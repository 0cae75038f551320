# The gradient of adaptive max pooling from byte labels, window by window.
#
# What      dx[i] = sum of dy[o] over windows o whose label tells that i won
# How       A label is the number of a tap in a window of the most rows and columns that one
#           has, and a table tells how far each tap is from the start of its window:
#           dx[start + away[label]] += dy.
# Assumes   labels that `pool_max_places` or `pool_max_turned` gave; others may lead to other
#           elements, but never out of a plane.
# Parallel  over planes.
# Scratch   the starts of SPAN windows on the stack, 4 KB.
# Cost      3 cycles a window.

from cython.parallel cimport prange
from libc.string cimport memset

from convcore.kernels.blocks cimport SPAN, Rounds, first_piece, rounds, taps_at_most
from convcore.kernels.buffers cimport Buffers, call, flags_of, reals, refuse
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport real
from convcore.kernels.windows cimport Pool, elements_of, first_of, pool_of, windows_of

cdef enum:
    TAPS = 256  # whose numbers are bytes

cdef struct Away:  # of each tap, from the start of its window
    unsigned long long[TAPS] tap
    Py_ssize_t cells, windows


cdef inline void measure_taps(const Pool* p, Away* away) noexcept nogil:
    """Write the table; what is no tap leads out of every plane."""
    cdef Py_ssize_t k, x, y, z, row = taps_at_most(&p.x), rows = taps_at_most(&p.y)
    away.cells = elements_of(p) // p.planes
    away.windows = windows_of(p) // p.planes
    for k in range(TAPS):
        x, y, z = k % row, k // row % rows, k // (row * rows)
        away.tap[k] = 1ULL << 62
        if z < taps_at_most(&p.z):
            away.tap[k] = (z * p.y.extent + y) * p.x.extent + x


cdef inline void add_row(
    const Away* away, Py_ssize_t start, const Py_ssize_t* first, const unsigned char* tap,
    const real* dy, Py_ssize_t n, real* dx,
) noexcept nogil:
    """Add the gradients of a row of windows, in order."""
    cdef Py_ssize_t j
    cdef unsigned long long cell
    for j in range(n):
        cell = start + first[j] + away.tap[tap[j]]
        if cell < <unsigned long long>away.cells:
            dx[cell] += dy[j]


cdef void scatter_planes(
    const Pool* p, const Away* away, const real* dy, const unsigned char* tap, real* dx,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Write planes begin .. end of dx: each window adds to what won."""
    cdef Py_ssize_t[SPAN] first
    cdef Py_ssize_t i, z, y, x, n, start, to
    memset(dx + begin * away.cells, 0, (end - begin) * away.cells * sizeof(real))
    x = 0
    while x < p.x.out:
        n = min(SPAN, p.x.out - x)
        for i in range(n):
            first[i] = first_of(&p.x, x + i)
        for to in range(begin * p.z.out * p.y.out, end * p.z.out * p.y.out):
            y, z = to % p.y.out, to // p.y.out
            i, z = z // p.z.out, z % p.z.out
            start = (first_of(&p.z, z) * p.y.extent + first_of(&p.y, y)) * p.x.extent
            add_row(
                away, start, first, tap + to * p.x.out + x, dy + to * p.x.out + x, n,
                dx + i * away.cells,
            )
        x += n


cdef void scatter_tasks(
    const Pool* p, const Away* away, const Rounds* r, const real* dy,
    const unsigned char* tap, real* dx, Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            scatter_planes(
                p, away, dy, tap, dx, first_piece(r, i), first_piece(r, i + 1)
            )
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        scatter_planes(p, away, dy, tap, dx, first_piece(r, i), first_piece(r, i + 1))


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, labels and dx, and write dx."""
    cdef Pool p = pool_of(held)
    cdef const real* dy = reals(held, 1, windows_of(&p), like)
    cdef const unsigned char* tap = flags_of(held, 2, windows_of(&p))
    cdef real* dx = reals(held, 3, elements_of(&p), like)
    cdef Py_ssize_t begin = 0, end
    cdef Rounds r
    cdef Away away
    if p.planes == 0:
        return 0
    if p.z.kernel or p.y.kernel or p.x.kernel:
        refuse()
    measure_taps(&p, &away)
    r = rounds(p.planes, away.cells + 2 * away.windows, threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            scatter_tasks(&p, &away, &r, dy, tap, dx, begin, end, threads)
        look()
        begin = end
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that a direction needs: none."""
    return 0


def dgrad(geometry, dy, tap, dx, scratch, int threads, /):
    """Write the gradient of x from the labels, bytes, of `pool_max_places.fprop`."""
    call((geometry, dy, tap), (dx, scratch), threads, gradient[float], gradient[double])
