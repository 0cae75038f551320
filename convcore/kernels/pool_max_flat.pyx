# Max pooling of small windows, planes laid out flat.
#
# What      y[o] = max x[i] over i in window(o); label[o] tells which tap it is: the first
#           NaN, or else the first of equal maxima, in row-major order
# Layout    pool_flat.pxd. Values alone: the rows under a window are reduced on their way
#           into the image, which has one row for each row of y then:
#
#               rows of x     . . . . . . . .
#                             . . . . . . . .     maximum of each column, even and odd
#                             . . . . . . . .     columns apart for stride 2
#               image         e e e e   o o o o
#                             \_\_            y = max(e[j], o[j], e[j + 1]), 16 at a time
#
#           With labels every tap is compared in its order, so that ties need no thought.
# Assumes   buffers of the sizes that the geometry tells; pool_flat.pxd.
# Parallel  over pieces: each writes its own rows of y and of the labels.
# Scratch   on the stack: the image, maxima and labels, 12 KB each of float32.
# Cost      memory: one read of x, one write of y, one byte a label (8 for indices).
# Why not   Lanes within a row of y: planes of 7 and 13 columns leave most of them empty.
#           Rows first with labels: each tie would compare labels, too.
# Source    Gil and Kimmel, IEEE TPAMI 24 (2002): first along one axis, then along the other.

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.math cimport INFINITY
from libc.string cimport memcpy

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    Buffers, call, flags_of, has_integers, integers, is_nothing, reals, refuse,
)
from convcore.kernels.pool_flat cimport (
    CELLS, PHASES, ROOM, TAPS, Flat, Piece, Taps, divide, fetch, fetch_to_write, fill, first_bits,
    has_few_taps, lanes_of, piece_at, put_label, shift_of, tap_label,
)
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, all_lanes, copy, evens, f32v, f64v, odds, part, real,
    vec,
)
from convcore.kernels.vector_compare cimport (
    all_labels, contest, join_equal, later, put_bytes,
)
from convcore.kernels.windows cimport (
    Axis, Pool, elements_of, first_of, is_empty, pool_of, start_of, stop_of, windows_of,
)

cdef enum:
    CHUNK = 16  # bytes of labels that are copied at once

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


cdef void fill_maxima(
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
                    at_new = x + row[rows - 1] - (new - 1) * p.x.extent
                    fetch(<const char*>at_new, new * p.x.extent * sizeof(real))
                    iz += p.z.dilation
                to = image + b * job.f.plane + z * job.f.slab + y * job.f.pitch
                if real is float:
                    fill_row(job, &e, <f32v*>x, row, rows, <f32v*>to, <f32v*>spare)
                else:
                    fill_row(job, &e, <f64v*>x, row, rows, <f64v*>to, <f64v*>spare)


cdef void fill_rows_of_slab(
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


cdef void fill_elements(
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


cdef void max_of_taps(
    const vec* image, const Taps* t, Py_ssize_t n, vec* best
) noexcept nogil:
    """Write the maxima of n windows that begin at neighbouring cells."""
    cdef Py_ssize_t lanes = lanes_of(image), j = 0, k
    cdef const vec* v
    cdef vec a, b
    while j < n:
        v = ahead(image, t.offset[0] + j)
        a = v[0]
        b = ahead(v, lanes)[0]
        for k in range(1, t.count):
            v = ahead(image, t.offset[k] + j)
            a = later(v[0], a)
            b = later(ahead(v, lanes)[0], b)
        (<vec*>ahead(best, j))[0] = a
        (<vec*>ahead(best, j + lanes))[0] = b
        j += 2 * lanes


cdef inline void put_four(const vec* to, vec a, vec b, vec c, vec d) noexcept nogil:
    """Store four neighbouring vectors."""
    cdef Py_ssize_t lanes = lanes_of(to)
    (<vec*>to)[0] = a
    (<vec*>ahead(to, lanes))[0] = b
    (<vec*>ahead(to, 2 * lanes))[0] = c
    (<vec*>ahead(to, 3 * lanes))[0] = d


cdef bint argmax_of_taps(
    const vec* image, const Taps* t, Py_ssize_t n, vec* best, vec* label,
    unsigned char* tap,
) noexcept nogil:
    """Write maxima and labels, as bytes unless `tap` is NULL; tell whether one is -inf."""
    cdef Py_ssize_t lanes = lanes_of(image), j = 0, k
    cdef const vec* v
    cdef vec a, b, c, d, la, lb, lc, ld, new, least = all_lanes(image, -INFINITY)
    cdef vec low = all_labels(image, 0)
    while j < n:
        v = ahead(image, t.offset[0] + j)
        a, b = v[0], ahead(v, lanes)[0]
        c, d = ahead(v, 2 * lanes)[0], ahead(v, 3 * lanes)[0]
        la = lb = lc = ld = all_labels(image, t.label[0])
        for k in range(1, t.count):
            v = ahead(image, t.offset[k] + j)
            new = all_labels(image, t.label[k])
            contest(v[0], new, &a, &la)
            contest(ahead(v, lanes)[0], new, &b, &lb)
            contest(ahead(v, 2 * lanes)[0], new, &c, &lc)
            contest(ahead(v, 3 * lanes)[0], new, &d, &ld)
        low = join_equal(join_equal(low, a, least), b, least)
        low = join_equal(join_equal(low, c, least), d, least)
        put_four(ahead(best, j), a, b, c, d)
        if tap != NULL:
            put_bytes(tap + j, la)
            put_bytes(tap + j + lanes, lb)
            put_bytes(tap + j + 2 * lanes, lc)
            put_bytes(tap + j + 3 * lanes, ld)
        else:
            put_four(ahead(label, j), la, lb, lc, ld)
        j += 4 * lanes
    return any_set(low)


cdef inline bint any_set(vec mask) noexcept nogil:
    """Whether some lane is set."""
    cdef vec[1] held
    cdef const char* byte = <const char*>held
    cdef Py_ssize_t i
    held[0] = mask
    for i in range(VEC_BYTES):
        if byte[i]:
            return True
    return False


cdef long long first_label(
    const Job* job, Py_ssize_t z, Py_ssize_t y, Py_ssize_t x
) noexcept nogil:
    """Give the label of the first element in a window; of none, that of index 0."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t dz, dy, dx
    if is_empty(&p.z, z) or is_empty(&p.y, y) or is_empty(&p.x, x):
        if not job.flat:
            return 0
        dz, dy, dx = -start_of(&p.z, z), -start_of(&p.y, y), -start_of(&p.x, x)
        return (dz * p.y.extent + dy) * p.x.extent + dx
    dz = (first_of(&p.z, z) - start_of(&p.z, z)) // p.z.dilation
    dy = (first_of(&p.y, y) - start_of(&p.y, y)) // p.y.dilation
    dx = (first_of(&p.x, x) - start_of(&p.x, x)) // p.x.dilation
    return job.t.label[(dz * p.y.kernel + dy) * p.x.kernel + dx]


cdef void skip_padding(
    const Job* job, const Piece* at, const real* best, real* label, unsigned char* tap
) noexcept nogil:
    """Let the first element win windows of nothing but -inf: padding came before it."""
    cdef Py_ssize_t b, z, y, x, i
    cdef long long n
    for b in range(at.planes):
        for z in range(at.slabs):
            for y in range(at.rows):
                i = b * job.f.plane + z * job.f.slab + y * job.f.pitch
                for x in range(at.columns):
                    if best[i + x] == -INFINITY:
                        n = first_label(job, at.z + z, at.y + y, at.x + x)
                        if job.flat:
                            put_label(label, i + x, n)
                        else:
                            tap[i + x] = <unsigned char>n


cdef inline void write_indices(
    const real* label, long long start, Py_ssize_t step, Py_ssize_t n, long long* to
) noexcept nogil:
    """Write where the maxima of n windows are; the first window begins at `start`."""
    cdef Py_ssize_t j
    for j in range(n):
        if real is float:
            to[j] = start + j * step + (<const int*>label)[j]
        else:
            to[j] = start + j * step + (<const long long*>label)[j]


cdef inline void write_bytes(
    const unsigned char* label, Py_ssize_t n, unsigned char* to, Py_ssize_t room
) noexcept nogil:
    """Copy n labels; what is behind them, up to `room`, is written later."""
    cdef Py_ssize_t j = 0
    while j < n and j + CHUNK <= room:
        memcpy(to + j, label + j, CHUNK)
        j += CHUNK
    while j < n:
        to[j] = label[j]
        j += 1


cdef void write_rows(
    const Job* job, const Piece* at, const real* best, const real* label,
    const unsigned char* found, real* y, unsigned char* tap, long long* index,
) noexcept nogil:
    """Bring the results of a piece from the scratch to their rows."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t b, oz, oy, i, to, end, start
    end = (at.plane + at.planes - 1) * p.z.out + at.z + at.slabs - 1
    end = (end * p.y.out + at.y + at.rows - 1) * p.x.out + at.x + at.columns
    for b in range(at.planes):
        for oz in range(at.slabs):
            for oy in range(at.rows):
                i = b * job.f.plane + oz * job.f.slab + oy * job.f.pitch
                to = ((at.plane + b) * p.z.out + at.z + oz) * p.y.out + at.y + oy
                to = to * p.x.out + at.x
                if job.f.per_x > 1:
                    end = to + at.columns  # what follows belongs to another piece
                fetch_to_write(<char*>(y + to), at.columns * sizeof(real))
                copy(y + to, best + i, at.columns)
                if index != NULL:
                    fetch_to_write(<char*>(index + to), at.columns * sizeof(long long))
                    start = start_of(&p.z, at.z + oz) * p.y.extent + start_of(&p.y, at.y + oy)
                    start = start * p.x.extent + start_of(&p.x, at.x)
                    write_indices(label + i, start, p.x.stride, at.columns, index + to)
                elif tap != NULL:
                    write_bytes(found + i, at.columns, tap + to, end - to)


cdef void max_piece(
    const Job* job, const Piece* at, const real* x, real* y, unsigned char* tap,
    long long* index,
) noexcept nogil:
    """Write one piece of y and of the labels."""
    cdef real[ROOM] image, best, label
    cdef unsigned char[ROOM] found
    cdef unsigned char* bytes_ = NULL if job.flat else <unsigned char*>found
    cdef bint low
    if not job.labelled:
        fill_maxima(job, at, x, <real*>image, <real*>best)
        if real is float:
            max_of_taps(<f32v*>image, &job.t, at.length, <f32v*>best)
        else:
            max_of_taps(<f64v*>image, &job.t, at.length, <f64v*>best)
    else:
        fill_elements(job, at, x, <real*>image, <real*>best)
        if real is float:
            low = argmax_of_taps(
                <f32v*>image, &job.t, at.length, <f32v*>best, <f32v*>label, bytes_
            )
        else:
            low = argmax_of_taps(
                <f64v*>image, &job.t, at.length, <f64v*>best, <f64v*>label, bytes_
            )
        if low and job.padded:
            skip_padding(job, at, <real*>best, <real*>label, bytes_)
    write_rows(job, at, <real*>best, <real*>label, <unsigned char*>found, y, tap, index)


cdef void max_pieces(
    const Job* job, const real* x, real* y, unsigned char* tap, long long* index,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Write pieces begin .. end."""
    cdef Py_ssize_t i
    cdef Piece at
    for i in range(begin, end):
        at = piece_at(&job.f, &job.p, job.outputs, i)
        max_piece(job, &at, x, y, tap, index)


cdef void max_tasks(
    const Job* job, const Rounds* r, const real* x, real* y, unsigned char* tap,
    long long* index, Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        max_pieces(job, x, y, tap, index, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        max_pieces(job, x, y, tap, index, first_piece(r, i), first_piece(r, i + 1))


cdef void find_taps(Job* job) noexcept nogil:
    """List the taps; without labels, those of one row."""
    cdef const Pool* p = &job.p
    cdef Taps* t = &job.t
    cdef Py_ssize_t kz, ky, kx, z, y, x, phase, k = 0
    cdef Py_ssize_t depth = p.z.kernel if job.labelled else 1
    cdef Py_ssize_t height = p.y.kernel if job.labelled else 1
    for kz in range(PHASES):
        job.used_z[kz] = job.used_y[kz] = False
    for kz in range(depth):
        z = kz * p.z.dilation
        job.used_z[z % p.z.stride] = True
        for ky in range(height):
            y = ky * p.y.dilation
            job.used_y[y % p.y.stride] = True
            for kx in range(p.x.kernel):
                x = kx * p.x.dilation
                phase = (z % p.z.stride * p.y.stride + y % p.y.stride) * p.x.stride
                phase += x % p.x.stride
                t.offset[k] = phase * job.f.size + z // p.z.stride * job.f.slab
                t.offset[k] += y // p.y.stride * job.f.pitch + x // p.x.stride
                t.label[k] = tap_label(p, kz, ky, kx, job.flat)
                k += 1
    t.count = k


cdef int prepare(Job* job) except -1:
    """Cut the pieces of y and list the taps."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t[3] shifts
    cdef Py_ssize_t phases = p.x.stride
    if not has_few_taps(p):
        refuse()
    job.outputs = [p.z.out, p.y.out, p.x.out]
    shifts = [0, 0, shift_of(&p.x)]
    if job.labelled:
        shifts = [shift_of(&p.z), shift_of(&p.y), shift_of(&p.x)]
        phases *= p.z.stride * p.y.stride
    divide(&job.f, p, job.outputs, shifts, CELLS // phases)
    job.padded = reaches_out(&p.z) or reaches_out(&p.y) or reaches_out(&p.x)
    find_taps(job)
    return 0


cdef inline bint reaches_out(const Axis* a) noexcept nogil:
    """Whether some window lies on padding, or hangs over."""
    cdef Py_ssize_t stop = start_of(a, a.out - 1) + (a.kernel - 1) * a.dilation + 1
    return a.lo > 0 or stop > a.extent


cdef int maxima(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x, y and the labels, and write y and the labels."""
    cdef Job job
    cdef unsigned char* tap = NULL
    cdef long long* index = NULL
    cdef Py_ssize_t begin = 0, end
    cdef Rounds r
    job.p = pool_of(held)
    cdef const real* x = reals(held, 1, elements_of(&job.p), like)
    cdef real* y = reals(held, 2, windows_of(&job.p), like)
    job.labelled = not is_nothing(held, 3)
    job.flat = has_integers(held, 3)
    if job.labelled and job.flat:
        index = integers(held, 3, windows_of(&job.p))
    elif job.labelled:
        tap = flags_of(held, 3, windows_of(&job.p))
    if job.p.planes == 0:
        return 0
    prepare(&job)
    r = rounds(job.f.count, job.f.planes * job.f.plane * job.t.count, threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            max_tasks(&job, &r, x, y, tap, index, begin, end, threads)
        PyErr_CheckSignals()
        begin = end
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads):
    """Give the scalars of scratch that a direction needs: none."""
    return 0


def fprop(geometry, x, y, label, scratch, int threads):
    """Write the maxima of x to y.

    And where they were to `label`, unless it is None: int64 get the index in the plane,
    bytes the number of the tap.
    """
    call((geometry, x), (y, label, scratch), threads, maxima[float], maxima[double])
