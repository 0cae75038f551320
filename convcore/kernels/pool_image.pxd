# Images of x for max pooling: planes laid out flat, padding and phases apart.
#
# What      fill_elements: all elements under the windows of a piece.  fill_maxima: the
#           maxima over the rows of each window, one row for each row of y.
# Layout    pool_flat.pxd. Maxima are taken on the way into the image:
#
#               rows of x     . . . . . . . .
#                             . . . . . . . .     maximum of each column, even and odd
#                             . . . . . . . .     columns apart for stride 2
#               image         e e e e   o o o o
#
# Assumes   windows.pxd; what pool_flat.pxd does. Padding is -inf.

from libc.math cimport INFINITY

from convcore.kernels.pool_flat cimport (
    PHASES, TAPS, Flat, Piece, Taps, fetch, fill, first_bits, lanes_of, shift_of,
)
from convcore.kernels.vector cimport (
    ahead, all_lanes, evens, f32v, f64v, odds, part, real, vec,
)
from convcore.kernels.vector_compare cimport later
from convcore.kernels.windows cimport Pool, first_of, start_of, stop_of

cdef struct Edges:  # along W, of a piece
    Py_ssize_t first, shift, count  # the first column of x; its place; columns
    Py_ssize_t[PHASES] left, right  # padding: cells before `left`, and from `right` on

cdef struct Job:
    Pool p
    Flat f
    Taps t
    Py_ssize_t[3] outputs
    bint[PHASES] used_z, used_y  # phases with a tap
    bint labelled, flat, padded


cdef inline void edges_of(
    Edges* e, const Pool* p, const Piece* at
) noexcept nogil:
    """Find which cells of the rows of a piece are padding."""
    cdef Py_ssize_t start = start_of(&p.x, at.x), i, s = p.x.stride, stop
    stop = start + (at.columns - 1) * s + (p.x.kernel - 1) * p.x.dilation + 1
    e.first = max(start, 0)
    e.shift = e.first - start
    e.count = max(0, min(stop, p.x.extent) - e.first)
    for i in range(s):
        e.left[i] = (e.shift - i + s - 1) // s if e.shift > i else 0
        e.right[i] = (e.shift + e.count - i + s - 1) // s if e.shift + e.count > i else 0


cdef inline void pad_left(
    const Edges* e, const Flat* f, Py_ssize_t s, vec* to
) noexcept nogil:
    """Write the padding before a row of the image, before the row is written."""
    cdef Py_ssize_t i
    for i in range(s):
        fill(<vec*>ahead(to, i * f.size), all_lanes(to, -INFINITY), 0, e.left[i])


cdef inline void pad_right(
    const Edges* e, const Flat* f, Py_ssize_t s, vec* to
) noexcept nogil:
    """Write the padding behind a row, after it: the rows that follow come later."""
    cdef Py_ssize_t i
    for i in range(s):
        fill(<vec*>ahead(to, i * f.size), all_lanes(to, -INFINITY), e.right[i], f.pitch)


cdef inline vec max_at(
    const vec* x, const Py_ssize_t* row, Py_ssize_t rows, Py_ssize_t j,
    unsigned long long bits,
) noexcept nogil:
    """Give the maxima over rows, which begin at x + row[.], of the columns from j on."""
    cdef vec a = part(ahead(x, row[0] + j), bits)
    cdef Py_ssize_t r
    for r in range(1, rows):
        a = later(part(ahead(x, row[r] + j), bits), a)
    return a


cdef inline void max_rows(
    const vec* x, const Py_ssize_t* row, Py_ssize_t rows, Py_ssize_t n, vec* to
) noexcept nogil:
    """Write the maxima of `rows` rows of n elements, which begin at x + row[.]."""
    cdef Py_ssize_t lanes = lanes_of(x), j = 0, r
    cdef vec a, b
    while j + 2 * lanes <= n:
        a = ahead(x, row[0] + j)[0]
        b = ahead(x, row[0] + j + lanes)[0]
        for r in range(1, rows):
            a = later(ahead(x, row[r] + j)[0], a)
            b = later(ahead(x, row[r] + j + lanes)[0], b)
        (<vec*>ahead(to, j))[0] = a
        (<vec*>ahead(to, j + lanes))[0] = b
        j += 2 * lanes
    while j < n:
        (<vec*>ahead(to, j))[0] = max_at(x, row, rows, j, first_bits(n - j))
        j += lanes


cdef inline void max_rows_in_pairs(
    const vec* x, const Py_ssize_t* row, Py_ssize_t rows, Py_ssize_t n, vec* even, vec* odd
) noexcept nogil:
    """Do the same; columns 0, 2, ... go to `even`, 1, 3, ... to `odd`."""
    cdef Py_ssize_t lanes = lanes_of(x), j = 0, r
    cdef unsigned long long bits
    cdef vec a, b
    while j + 2 * lanes <= n:
        a = ahead(x, row[0] + j)[0]
        b = ahead(x, row[0] + j + lanes)[0]
        for r in range(1, rows):
            a = later(ahead(x, row[r] + j)[0], a)
            b = later(ahead(x, row[r] + j + lanes)[0], b)
        (<vec*>ahead(even, j // 2))[0] = evens(a, b)
        (<vec*>ahead(odd, j // 2))[0] = odds(a, b)
        j += 2 * lanes
    if j < n:
        bits = first_bits(n - j)
        a = max_at(x, row, rows, j, bits)
        b = a
        if n - j > lanes:
            b = max_at(x, row, rows, j + lanes, bits >> lanes)
        (<vec*>ahead(even, j // 2))[0] = evens(a, b)
        (<vec*>ahead(odd, j // 2))[0] = odds(a, b)


cdef inline void fill_row(
    const Job* job, const Edges* e, const vec* x, const Py_ssize_t* row, Py_ssize_t rows,
    vec* to, vec* spare,
) noexcept nogil:
    """Write a row of the image, one in each phase of W: the maxima of some rows of x."""
    cdef Py_ssize_t s = job.p.x.stride, i, odd = e.shift % 2
    cdef vec* flat
    if rows == 0:
        for i in range(s):
            flat = <vec*>ahead(to, i * job.f.size)
            fill(flat, all_lanes(to, -INFINITY), 0, job.f.pitch)
        return
    pad_left(e, &job.f, s, to)
    if s == 1:
        max_rows(x, row, rows, e.count, <vec*>ahead(to, e.shift))
    elif s == 2:
        flat = <vec*>ahead(to, odd * job.f.size + e.shift // 2)
        spare = <vec*>ahead(to, (1 - odd) * job.f.size + (e.shift + 1) // 2)
        max_rows_in_pairs(x, row, rows, e.count, flat, spare)
    else:
        max_rows(x, row, rows, e.count, spare)
        spread(e, &job.f, s, spare, to)
    pad_right(e, &job.f, s, to)


cdef inline void spread(
    const Edges* e, const Flat* f, Py_ssize_t s, const vec* row, vec* to
) noexcept nogil:
    """Bring the columns of a row to their phases."""
    cdef Py_ssize_t i, j
    for i in range(s):
        for j in range(e.left[i], e.right[i]):
            if vec is f32v:
                (<float*>to)[i * f.size + j] = (<const float*>row)[j * s + i - e.shift]
            else:
                (<double*>to)[i * f.size + j] = (<const double*>row)[j * s + i - e.shift]


cdef inline void fill_maxima(
    const Job* job, const Piece* at, const real* x, real* image, real* spare
) noexcept nogil:
    """Write the image of maxima over the rows of each window."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t[TAPS] row
    cdef Py_ssize_t b, z, y, iz, iy, rows, plane
    cdef real* to
    cdef const real* at_new
    cdef Py_ssize_t z1, y0, y1, new = min(p.y.kernel, p.y.stride)
    cdef Edges e
    edges_of(&e, p, at)
    for b in range(at.planes):
        plane = (at.plane + b) * p.z.extent * p.y.extent
        for z in range(at.slabs):
            z1 = stop_of(&p.z, at.z + z)
            for y in range(at.rows):
                y0, y1 = first_of(&p.y, at.y + y), stop_of(&p.y, at.y + y)
                rows = 0
                iz = first_of(&p.z, at.z + z)
                while iz < z1:
                    iy = y0
                    while iy < y1:
                        row[rows] = (plane + iz * p.y.extent + iy) * p.x.extent + e.first
                        rows += 1
                        iy += p.y.dilation
                    if rows:  # windows may step over all of x
                        at_new = x + row[rows - 1] - (new - 1) * p.x.extent
                        fetch(<const char*>at_new, new * p.x.extent * sizeof(real))
                    iz += p.z.dilation
                to = image + b * job.f.plane + z * job.f.slab + y * job.f.pitch
                if real is float:
                    fill_row(job, &e, <f32v*>x, row, rows, <f32v*>to, <f32v*>spare)
                else:
                    fill_row(job, &e, <f64v*>x, row, rows, <f64v*>to, <f64v*>spare)


cdef inline void fill_rows_of_slab(
    const Job* job, const Piece* at, const Edges* e, const real* x, Py_ssize_t slab,
    real* image, real* spare,
) noexcept nogil:
    """Write the rows of one slab of the image; `slab` is that of x, below 0 for none."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t q, r, v, iy, s = p.y.stride, start = start_of(&p.y, at.y)
    cdef Py_ssize_t stop = (at.rows - 1) * s + (p.y.kernel - 1) * p.y.dilation + 1
    cdef Py_ssize_t[1] row
    cdef Py_ssize_t rows
    cdef real* to
    for q in range(at.rows + shift_of(&p.y)):
        for r in range(s):
            v = q * s + r
            if v >= stop or not job.used_y[r]:
                continue
            iy = start + v
            row[0] = (slab * p.y.extent + iy) * p.x.extent + e.first
            fetch(<const char*>(x + row[0]), p.x.extent * sizeof(real))
            rows = 0 <= iy < p.y.extent and slab >= 0
            to = image + r * p.x.stride * job.f.size + q * job.f.pitch
            if real is float:
                fill_row(job, e, <f32v*>x, row, rows, <f32v*>to, <f32v*>spare)
            else:
                fill_row(job, e, <f64v*>x, row, rows, <f64v*>to, <f64v*>spare)


cdef inline void fill_elements(
    const Job* job, const Piece* at, const real* x, real* image, real* spare
) noexcept nogil:
    """Write the image of all elements under the windows of a piece."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t b, q, r, v, iz, slab, s = p.z.stride, start = start_of(&p.z, at.z)
    cdef Py_ssize_t stop = (at.slabs - 1) * s + (p.z.kernel - 1) * p.z.dilation + 1
    cdef Edges e
    edges_of(&e, p, at)
    for b in range(at.planes):
        for q in range(at.slabs + shift_of(&p.z)):
            for r in range(s):
                v = q * s + r
                if v >= stop or not job.used_z[r]:
                    continue
                iz = start + v
                slab = (at.plane + b) * p.z.extent + iz if 0 <= iz < p.z.extent else -1
                fill_rows_of_slab(
                    job, at, &e, x, slab,
                    image + r * p.y.stride * p.x.stride * job.f.size + b * job.f.plane
                    + q * job.f.slab, spare,
                )
