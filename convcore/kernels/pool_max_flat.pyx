# Max pooling of small windows, planes laid out flat.
#
# What      y[o] = max x[i] over i in window(o); label[o] tells which tap it is: the first
#           NaN, or else the first of equal maxima, in row-major order
# Layout    pool_flat.pxd. Values alone: the rows under a window are reduced on their way
#           into the image (pool_image.pxd), which has one row for each row of y then:
#
#               image     e e e e   o o o o      even and odd columns, for stride 2
#                         \_\__                  y = max(e[j], o[j], e[j + 1])
#
#           With labels every tap is compared in its order, so that ties need no thought.
# Assumes   buffers of the sizes that the geometry tells; pool_flat.pxd.
# Parallel  over pieces: each writes its own rows of y and of the labels.
# Scratch   of each thread the image, maxima and labels: 12 KB each are used of float32.
# Cost      memory: one read of x, one write of y, one byte a label (8 for indices).
# Why not   Lanes within a row of y: planes of 7 and 13 columns leave most of them empty.
#           Rows first with labels: each tie would compare labels, too.
# Source    Gil and Kimmel, IEEE TPAMI 24 (2002): first along one axis, then along the other.

from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY
from libc.string cimport memcpy

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport Buffers, call, reals, refuse, room
from convcore.kernels.pool_flat cimport (
    CELLS, PHASES, ROOM, Piece, Taps, divide, fetch_to_write, has_few_taps, lanes_of,
    piece_at, put_label, shift_of, tap_label,
)
from convcore.kernels.pool_image cimport Job, fill_elements, fill_maxima
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, all_lanes, copy, f32v, f64v, real, vec,
)
from convcore.kernels.vector_compare cimport (
    all_labels, contest, join_equal, later, put_bytes,
)
from convcore.kernels.windows cimport (
    Axis, Labels, Pool, elements_of, first_of, is_empty, labels_of, pool_of, start_of,
    windows_of,
)

cdef enum:
    CHUNK = 16  # bytes of labels that are copied at once

cdef struct Room:  # of a thread; doubles, or as many floats
    double[ROOM] image, best, label
    unsigned char[ROOM] found


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
    const unsigned char* label, Py_ssize_t n, unsigned char* to, Py_ssize_t most
) noexcept nogil:
    """Copy n labels; what is behind them, up to `most`, is written later."""
    cdef Py_ssize_t j = 0
    while j < n and j + CHUNK <= most:
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
    long long* index, Room* scratch,
) noexcept nogil:
    """Write one piece of y and of the labels."""
    cdef real* image = <real*>scratch.image
    cdef real* best = <real*>scratch.best
    cdef real* label = <real*>scratch.label
    cdef unsigned char* bytes_ = NULL if job.flat else scratch.found
    cdef bint low
    if not job.labelled:
        fill_maxima(job, at, x, image, best)
        if real is float:
            max_of_taps(<f32v*>image, &job.t, at.length, <f32v*>best)
        else:
            max_of_taps(<f64v*>image, &job.t, at.length, <f64v*>best)
    else:
        fill_elements(job, at, x, image, best)
        if real is float:
            low = argmax_of_taps(
                <f32v*>image, &job.t, at.length, <f32v*>best, <f32v*>label, bytes_
            )
        else:
            low = argmax_of_taps(
                <f64v*>image, &job.t, at.length, <f64v*>best, <f64v*>label, bytes_
            )
        if low and job.padded:
            skip_padding(job, at, best, label, bytes_)
    write_rows(job, at, best, label, scratch.found, y, tap, index)


cdef void max_pieces(
    const Job* job, const real* x, real* y, unsigned char* tap, long long* index,
    Py_ssize_t begin, Py_ssize_t end, Room* scratch,
) noexcept nogil:
    """Write pieces begin .. end."""
    cdef Py_ssize_t i
    cdef Piece at
    for i in range(begin, end):
        at = piece_at(&job.f, &job.p, job.outputs, i)
        max_piece(job, &at, x, y, tap, index, scratch)


cdef void max_tasks(
    const Job* job, const Rounds* r, const real* x, real* y, unsigned char* tap,
    long long* index, Py_ssize_t begin, Py_ssize_t end, Room* scratch, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        max_pieces(
            job, x, y, tap, index, first_piece(r, begin), first_piece(r, end), scratch
        )
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        max_pieces(
            job, x, y, tap, index, first_piece(r, i), first_piece(r, i + 1),
            scratch + threadid(),
        )


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
    cdef Py_ssize_t begin = 0, end
    cdef Rounds r
    job.p = pool_of(held)
    cdef const real* x = reals(held, 1, elements_of(&job.p), like)
    cdef real* y = reals(held, 2, windows_of(&job.p), like)
    cdef Room* scratch = <Room*>room(
        held, 4, threads * <Py_ssize_t>sizeof(Room) // <Py_ssize_t>sizeof(real), like
    )
    cdef Labels to = labels_of(held, 3, &job.p)
    job.flat = to.index != NULL
    job.labelled = job.flat or to.tap != NULL
    if job.p.planes == 0:
        return 0
    prepare(&job)
    r = rounds(job.f.count, job.f.planes * job.f.plane * job.t.count, threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            max_tasks(&job, &r, x, y, to.tap, to.index, begin, end, scratch, threads)
        look()
        begin = end
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that a direction needs."""
    return threads * <Py_ssize_t>sizeof(Room) // item


def fprop(geometry, x, y, label, scratch, int threads, /):
    """Write the maxima of x to y.

    And where they were to `label`, unless it is None: int64 get the index in the plane,
    bytes the number of the tap.
    """
    call((geometry, x), (y, label, scratch), threads, maxima[float], maxima[double])
