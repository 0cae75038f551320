# Pooling with windows, or winners, that are drawn: fractional and stochastic.
#
# What      fractional  y[o] = max of x over the window that starts[plane] tells for o;
#                       index[o] the first NaN, or else the first of equal maxima
#           stochastic  one element of a window, drawn with probability max(x, 0) / sum
# Layout    planes (n*c) of (D, H, W) and of (od, oh, ow), flat. Starts of a plane: od for
#           slabs, oh for rows, ow for columns. Draws: a number in [0, 1) for each window.
# Assumes   starts such that all windows lie in the plane.
# Parallel  over planes.
# Scratch   none.
# Cost      windows one at a time: a comparison, or an addition and a comparison, a tap.
# Source    Graham, Fractional max-pooling, arXiv:1412.6071, section 2; Zeiler and Fergus,
#           Stochastic pooling, arXiv:1301.3557, section 3.

from cython.parallel cimport prange
from libc.math cimport INFINITY

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport Buffers, call, integers, reals
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport real
from convcore.kernels.windows cimport (
    Pool, elements_of, first_of, pool_of, stop_of, windows_of,
)

cdef struct Box:  # elements of a window: first, stop and step along each axis
    Py_ssize_t z0, z1, dz, y0, y1, dy, x0, x1, dx

cdef struct Job:
    Pool p
    const long long* starts  # NULL: windows of the geometry
    bint drawn


cdef inline Box box_of(
    const Job* job, Py_ssize_t plane, Py_ssize_t z, Py_ssize_t y, Py_ssize_t x
) noexcept nogil:
    """Find the window of output (z, y, x)."""
    cdef const Pool* p = &job.p
    cdef const long long* s
    cdef Box b
    b.dz, b.dy, b.dx = p.z.dilation, p.y.dilation, p.x.dilation
    if job.starts == NULL:
        b.z0, b.y0, b.x0 = first_of(&p.z, z), first_of(&p.y, y), first_of(&p.x, x)
        b.z1, b.y1, b.x1 = stop_of(&p.z, z), stop_of(&p.y, y), stop_of(&p.x, x)
        return b
    s = job.starts + plane * (p.z.out + p.y.out + p.x.out)
    b.z0, b.y0, b.x0 = s[z], s[p.z.out + y], s[p.z.out + p.y.out + x]
    b.z1, b.y1, b.x1 = b.z0 + p.z.kernel, b.y0 + p.y.kernel, b.x0 + p.x.kernel
    return b


cdef inline Py_ssize_t max_of_box(
    const Pool* p, const Box* b, const real* x, real* best
) noexcept nogil:
    """Find the first NaN of a window, or else its first maximum; -1 if it is empty."""
    cdef Py_ssize_t iz = b.z0, iy, ix, row, where = -1
    best[0] = -INFINITY
    while iz < b.z1:
        iy = b.y0
        while iy < b.y1:
            row = (iz * p.y.extent + iy) * p.x.extent
            ix = b.x0
            while ix < b.x1:
                if where < 0 or best[0] == best[0] and not x[row + ix] <= best[0]:
                    best[0] = x[row + ix]
                    where = row + ix
                ix += b.dx
            iy += b.dy
        iz += b.dz
    return where


cdef inline double walk(
    const Pool* p, const Box* b, const real* x, double target, Py_ssize_t* where
) noexcept nogil:
    """Add what is positive in a window until the sum exceeds `target`; give the sum."""
    cdef Py_ssize_t iz = b.z0, iy, ix, row
    cdef double total = 0
    while iz < b.z1:
        iy = b.y0
        while iy < b.y1:
            row = (iz * p.y.extent + iy) * p.x.extent
            ix = b.x0
            while ix < b.x1:
                if x[row + ix] > 0:
                    total += x[row + ix]
                    where[0] = row + ix
                    if total > target:
                        return total
                ix += b.dx
            iy += b.dy
        iz += b.dz
    return total


cdef inline Py_ssize_t draw_from(
    const Pool* p, const Box* b, const real* x, double u, real* value
) noexcept nogil:
    """Draw an element; the maximum where it is NaN, infinite or not positive."""
    cdef Py_ssize_t where = max_of_box(p, b, x, value)
    cdef double total
    if not value[0] > 0 or value[0] == INFINITY:
        return where
    total = walk(p, b, x, INFINITY, &where)
    walk(p, b, x, u * total, &where)
    value[0] = x[where]
    return where


cdef void do_plane(
    const Job* job, Py_ssize_t plane, const real* x, const real* draws, real* y,
    long long* index,
) noexcept nogil:
    """Write one plane of y and of the indices."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t oz, oy, ox, o = plane * p.z.out * p.y.out * p.x.out
    cdef const real* source = x + plane * p.z.extent * p.y.extent * p.x.extent
    cdef Box b
    for oz in range(p.z.out):
        for oy in range(p.y.out):
            for ox in range(p.x.out):
                b = box_of(job, plane, oz, oy, ox)
                if job.drawn:
                    index[o] = max(draw_from(p, &b, source, draws[o], y + o), 0)
                else:
                    index[o] = max(max_of_box(p, &b, source, y + o), 0)
                o += 1


cdef void do_tasks(
    const Job* job, const Rounds* r, const real* x, const real* draws, real* y,
    long long* index, Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i, plane
    if threads == 1:
        for plane in range(first_piece(r, begin), first_piece(r, end)):
            do_plane(job, plane, x, draws, y, index)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        for plane in range(first_piece(r, i), first_piece(r, i + 1)):
            do_plane(job, plane, x, draws, y, index)


cdef int all_planes(
    const Job* job, const real* x, const real* draws, real* y, long long* index,
    int threads,
) except -1:
    """Do all planes, in rounds between which Ctrl-C is looked for."""
    cdef const Pool* p = &job.p
    cdef double taps = <double>p.z.kernel * p.y.kernel * p.x.kernel
    cdef double work = taps * p.z.out * p.y.out * p.x.out
    cdef Rounds r = rounds(p.planes, <Py_ssize_t>min(work, 1e15), threads)
    cdef Py_ssize_t begin = 0, end
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            do_tasks(job, &r, x, draws, y, index, begin, end, threads)
        look()
        begin = end
    return 0


cdef int fractional_maxima(const Buffers* held, int threads, real* like) except -1:
    cdef Job job
    job.p = pool_of(held)
    cdef const real* x = reals(held, 1, elements_of(&job.p), like)
    cdef real* y = reals(held, 3, windows_of(&job.p), like)
    cdef Py_ssize_t each = job.p.z.out + job.p.y.out + job.p.x.out
    job.starts = integers(held, 2, job.p.planes * each)
    job.drawn = False
    return all_planes(
        &job, x, NULL, y, integers(held, 4, windows_of(&job.p)), threads
    )


cdef int stochastic_values(const Buffers* held, int threads, real* like) except -1:
    cdef Job job
    job.p = pool_of(held)
    cdef const real* x = reals(held, 1, elements_of(&job.p), like)
    cdef const real* draws = reals(held, 2, windows_of(&job.p), like)
    cdef real* y = reals(held, 3, windows_of(&job.p), like)
    job.starts = NULL
    job.drawn = True
    return all_planes(
        &job, x, draws, y, integers(held, 4, windows_of(&job.p)), threads
    )


def fprop(geometry, x, starts, y, index, int threads, /):
    """Write the maxima of windows at `starts`, and where they are."""
    call(
        (geometry, x, starts), (y, index), threads, fractional_maxima[float],
        fractional_maxima[double],
    )


def stochastic(geometry, x, draws, y, index, int threads, /):
    """Write an element of each window, drawn by `draws`, and where it is."""
    call(
        (geometry, x, draws), (y, index), threads, stochastic_values[float],
        stochastic_values[double],
    )
