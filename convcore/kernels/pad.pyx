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
# Order     A gradient puts the elements that lie in x, and adds the others to those: a box
#           that holds all of x makes grad_x, one beside it adds to a grad_x that is there.
# Cost      memory: one read and one write.

from cython.parallel cimport prange

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.border cimport source_at
from convcore.kernels.buffers cimport Buffers, call, geometry_of, reals
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport cc_fetch_to_write, copy, real

cdef struct Frame:
    long long planes
    long long[3] count             # of the box along z, y, x
    long long[3] first             # position of its first element
    long long[3] extent            # of x
    long long border
    double value                   # of a constant one

cdef enum:
    FIELDS = 12
    SOON = 24  # rows from what a column adds to, to what is asked for


cdef inline Py_ssize_t volume(const long long* extent) noexcept nogil:
    return extent[0] * extent[1] * extent[2]


cdef inline Py_ssize_t start(const Frame* f, int axis) noexcept nogil:
    """Count the elements of the box before x along an axis."""
    return min(max(-f.first[axis], 0), f.count[axis])


cdef inline Py_ssize_t end(const Frame* f, int axis) noexcept nogil:
    """Count those that are not behind it."""
    return max(min(f.extent[axis] - f.first[axis], f.count[axis]), start(f, axis))


cdef void fill(
    const Frame* f, const real* row, Py_ssize_t first, Py_ssize_t stop, real* to
) noexcept nogil:
    """Write elements first .. stop of a row of the box, which lie beside x."""
    cdef Py_ssize_t i, at
    for i in range(first, stop):
        at = source_at(f.border, f.first[2] + i, f.extent[2]) if row else -1
        to[i] = row[at] if at >= 0 else <real>f.value


cdef inline void pad_row(
    const Frame* f, const real* sheet, Py_ssize_t y, Py_ssize_t left, Py_ssize_t right,
    real* to,
) noexcept nogil:
    """Write row y of a sheet of the box; NULL is a sheet of the constant."""
    cdef const real* row = NULL
    y = source_at(f.border, f.first[1] + y, f.extent[1])
    if sheet == NULL or y < 0:
        fill(f, row, 0, f.count[2], to)
        return
    row = sheet + y * f.extent[2]
    fill(f, row, 0, left, to)
    copy(to + left, row + f.first[2] + left, right - left)
    fill(f, row, right, f.count[2], to)


cdef void pad_rows(
    const Frame* f, const real* x, real* y, Py_ssize_t first, Py_ssize_t stop
) noexcept nogil:
    """Write some rows of the box, sheet by sheet."""
    cdef Py_ssize_t row = first, last, sheet, i, z, left = start(f, 2), right = end(f, 2)
    cdef const real* source
    while row < stop:
        sheet = row // f.count[1]
        last = min((sheet + 1) * f.count[1], stop)
        z = source_at(f.border, f.first[0] + sheet % f.count[0], f.extent[0])
        source = NULL
        if z >= 0:
            z += sheet // f.count[0] * f.extent[0]
            source = x + z * f.extent[1] * f.extent[2]
        for i in range(row, last):
            pad_row(f, source, i - sheet * f.count[1], left, right, y + i * f.count[2])
        row = last


cdef void add_ends(
    const Frame* f, const real* row, Py_ssize_t first, Py_ssize_t stop, real* to
) noexcept nogil:
    """Add elements first .. stop of a row of the box, which lie beside x."""
    cdef Py_ssize_t i, at
    for i in range(first, stop):
        at = source_at(f.border, f.first[2] + i, f.extent[2])
        if at >= 0:
            to[at] = to[at] + row[i]


cdef inline void add_row(const Frame* f, const real* row, real* to) noexcept nogil:
    """Add a row of the box to the row of x that it is."""
    cdef Py_ssize_t i, left = start(f, 2), right = end(f, 2)
    for i in range(left, right):
        to[f.first[2] + i] = to[f.first[2] + i] + row[i]
    add_ends(f, row, 0, left, to)
    add_ends(f, row, right, f.count[2], to)


cdef void add_columns(
    const Frame* f, const real* box, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t rows,
    real* to,
) noexcept nogil:
    """Add columns first .. stop of some rows, which lie beside x, one after the other."""
    cdef Py_ssize_t i, y, at
    for i in range(first, stop):
        at = source_at(f.border, f.first[2] + i, f.extent[2])
        if at >= 0:
            for y in range(rows):
                cc_fetch_to_write(to + (y + SOON) * f.extent[2] + at)
                to[y * f.extent[2] + at] = to[y * f.extent[2] + at] + box[y * f.count[2] + i]


cdef void fold_inner(
    const Frame* f, const real* box, Py_ssize_t rows, real* to
) noexcept nogil:
    """Put the part of some rows that lies in x, and add what lies left and right of it."""
    cdef Py_ssize_t y, left = start(f, 2), right = end(f, 2)
    for y in range(rows if left < right else 0):
        copy(
            to + y * f.extent[2] + f.first[2] + left, box + y * f.count[2] + left,
            right - left,
        )
    add_columns(f, box, 0, left, rows, to)
    add_columns(f, box, right, f.count[2], rows, to)


cdef void fold_outer(
    const Frame* f, const real* box, Py_ssize_t z, Py_ssize_t first, Py_ssize_t stop,
    real* to,
) noexcept nogil:
    """Add rows first .. stop of a sheet of the box, which lie beside x, to sheet z of x."""
    cdef Py_ssize_t j, y
    for j in range(first, stop):
        y = source_at(f.border, f.first[1] + j, f.extent[1])
        if y >= 0:
            add_row(
                f, box + j * f.count[2], to + (z * f.extent[1] + y) * f.extent[2]
            )


cdef void fold_plane(const Frame* f, const real* box, real* to) noexcept nogil:
    """Fold the box of a plane: what lies in x first, then the rows that do not."""
    cdef Py_ssize_t i, z, sheet = f.count[1] * f.count[2]
    cdef Py_ssize_t top = start(f, 1), bottom = end(f, 1)
    cdef Py_ssize_t front = start(f, 0), back = end(f, 0)
    if top < bottom:
        for i in range(front, back):
            z = (f.first[0] + i) * f.extent[1] + f.first[1] + top
            fold_inner(
                f, box + i * sheet + top * f.count[2], bottom - top,
                to + z * f.extent[2],
            )
    for i in range(f.count[0]):
        z = source_at(f.border, f.first[0] + i, f.extent[0])
        if z < 0:
            continue
        if front <= i < back:
            fold_outer(f, box + i * sheet, z, 0, top, to)
            fold_outer(f, box + i * sheet, z, bottom, f.count[1], to)
        else:
            fold_outer(f, box + i * sheet, z, 0, f.count[1], to)


cdef void fold_planes(
    const Frame* f, const real* y, real* x, Py_ssize_t first, Py_ssize_t stop
) noexcept nogil:
    """Fold the boxes of some planes."""
    cdef Py_ssize_t plane
    for plane in range(first, stop):
        fold_plane(f, y + plane * volume(f.count), x + plane * volume(f.extent))


cdef void do_part(
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
        look()
    return 0


cdef int run_pad(const Buffers* held, int threads, real* like) except -1:
    return run(held, threads, False, like)


cdef int run_fold(const Buffers* held, int threads, real* like) except -1:
    return run(held, threads, True, like)


def pad(sizes, x, y, int threads, /):
    """Write a box of x and what lies around it."""
    call((sizes, x), (y,), threads, run_pad[float], run_pad[double])


def fold(sizes, grad_y, grad_x, int threads, /):
    """Add the gradients of a box to those of x."""
    call((sizes, grad_y), (grad_x,), threads, run_fold[float], run_fold[double])
