# Padding: an array with what lies around it, and the gradient of that.
#
# What      y[i] = x[source_at(i)] over a box of positions, which may begin before x and end
#           behind it: all of a padded array, or one side of it. See border.pxd. The
#           gradient gives each element of x the sum of those that it became.
# Layout    planes of (depth, height, width), and of the box; a row of the box is
#
#               [ ends | a run of a row of x, as it lies | ends ]
#
# Parallel  padding over rows of the box, its gradient over planes, so that no element of
#           grad_x has two writers.
# Order     A gradient adds the elements of the box in the order in which they lie, to the
#           sum that is there or to zero.
# Cost      memory: one read and one write.

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.string cimport memcpy, memset

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.border cimport source_at
from convcore.kernels.buffers cimport Buffers, call, geometry_of, reals
from convcore.kernels.vector cimport real

cdef struct Frame:
    long long planes
    long long[3] count             # of the box along z, y, x
    long long[3] first             # position of its first element
    long long[3] extent            # of x
    long long border
    double value                   # of a constant one
    long long adds                 # whether a gradient adds to what is there

cdef enum:
    FIELDS = 13


cdef inline Py_ssize_t volume(const long long* extent) noexcept nogil:
    return extent[0] * extent[1] * extent[2]


cdef inline Py_ssize_t run_start(const Frame* f) noexcept nogil:
    """Count the elements of a row of the box before x."""
    return min(max(-f.first[2], 0), f.count[2])


cdef inline Py_ssize_t run_end(const Frame* f) noexcept nogil:
    """Count those that are not behind it."""
    return max(min(f.extent[2] - f.first[2], f.count[2]), run_start(f))


cdef inline Py_ssize_t source_row(const Frame* f, Py_ssize_t row) noexcept nogil:
    """Give the first element of the row of x that a row of the box is; or NOTHING."""
    cdef Py_ssize_t y, z, plane
    y = source_at(f.border, f.first[1] + row % f.count[1], f.extent[1])
    row = row // f.count[1]
    z = source_at(f.border, f.first[0] + row % f.count[0], f.extent[0])
    plane = row // f.count[0]
    if y < 0 or z < 0:
        return -1
    return ((plane * f.extent[0] + z) * f.extent[1] + y) * f.extent[2]


cdef inline void fill(
    const Frame* f, const real* row, Py_ssize_t first, Py_ssize_t stop, real* to
) noexcept nogil:
    """Write elements first .. stop of a row of the box, which lie beside x."""
    cdef Py_ssize_t i, at
    for i in range(first, stop):
        at = source_at(f.border, f.first[2] + i, f.extent[2]) if row else -1
        to[i] = row[at] if at >= 0 else <real>f.value


cdef inline void pad_rows(
    const Frame* f, const real* x, real* y, Py_ssize_t first, Py_ssize_t stop
) noexcept nogil:
    """Write some rows of the box."""
    cdef Py_ssize_t row, at, left = run_start(f), right = run_end(f)
    cdef real* to
    for row in range(first, stop):
        at = source_row(f, row)
        to = y + row * f.count[2]
        if at < 0:
            fill(f, <const real*>NULL, 0, f.count[2], to)
            continue
        fill(f, x + at, 0, left, to)
        if left < right:
            memcpy(to + left, x + at + f.first[2] + left, (right - left) * sizeof(real))
        fill(f, x + at, right, f.count[2], to)


cdef inline void add_ends(
    const Frame* f, const real* row, Py_ssize_t first, Py_ssize_t stop, real* to
) noexcept nogil:
    """Add elements first .. stop of a row of the box to those of x that they are."""
    cdef Py_ssize_t i, at
    for i in range(first, stop):
        at = source_at(f.border, f.first[2] + i, f.extent[2])
        if at >= 0:
            to[at] = to[at] + row[i]


cdef inline void add_run(const real* row, Py_ssize_t count, real* to) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        to[i] = to[i] + row[i]


cdef inline void fold_planes(
    const Frame* f, const real* y, real* x, Py_ssize_t first, Py_ssize_t stop
) noexcept nogil:
    """Add the box of some planes to x."""
    cdef Py_ssize_t row, at, left = run_start(f), right = run_end(f)
    cdef Py_ssize_t rows = f.count[0] * f.count[1], plane = volume(f.extent)
    cdef const real* here
    if not f.adds:
        memset(x + first * plane, 0, (stop - first) * plane * sizeof(real))
    for row in range(first * rows, stop * rows):
        at = source_row(f, row)
        if at < 0:
            continue
        here = y + row * f.count[2]
        add_ends(f, here, 0, left, x + at)
        add_run(here + left, right - left, x + at + f.first[2] + left)
        add_ends(f, here, right, f.count[2], x + at)


cdef inline void do_part(
    const Frame* f, bint gradient, const real* source, real* to, Py_ssize_t first,
    Py_ssize_t stop,
) noexcept nogil:
    if gradient:
        fold_planes(f, source, to, first, stop)
    else:
        pad_rows(f, source, to, first, stop)


cdef int run(const Buffers* held, int threads, bint gradient, real* like) except -1:
    """Do some pieces at a time: rows of the box, or planes."""
    cdef const Frame* f = <const Frame*>geometry_of(held, FIELDS)
    cdef Py_ssize_t box = f.planes * volume(f.count), x = f.planes * volume(f.extent)
    cdef const real* source = reals(held, 1, box if gradient else x, like)
    cdef real* to = reals(held, 2, x if gradient else box, like)
    cdef Py_ssize_t pieces = f.planes if gradient else f.planes * f.count[0] * f.count[1]
    cdef Py_ssize_t work = volume(f.count) if gradient else f.count[2]
    cdef Rounds r = rounds(pieces, work, threads)
    cdef Py_ssize_t first = 0, last, task
    while first < r.tasks:
        last = min(first + r.step, r.tasks)
        with nogil:
            if threads == 1:
                do_part(
                    f, gradient, source, to, first_piece(&r, first), first_piece(&r, last)
                )
            else:
                for task in prange(first, last, num_threads=threads, schedule="static"):
                    do_part(
                        f, gradient, source, to, first_piece(&r, task),
                        first_piece(&r, task + 1),
                    )
        first = last
        PyErr_CheckSignals()
    return 0


cdef int run_pad(const Buffers* held, int threads, real* like) except -1:
    return run(held, threads, False, like)


cdef int run_fold(const Buffers* held, int threads, real* like) except -1:
    return run(held, threads, True, like)


def pad(sizes, x, y, int threads):
    """Write a box of x and what lies around it."""
    call((sizes, x), (y,), threads, run_pad[float], run_pad[double])


def fold(sizes, grad_y, grad_x, int threads):
    """Add the gradients of a box to those of x."""
    call((sizes, grad_y), (grad_x,), threads, run_fold[float], run_fold[double])
