# The gradient of max pooling of small windows, planes laid out flat.
#
# What      dx[i] = sum of dy[o] over windows o whose label tells that i won
# Layout    pool_flat.pxd, of dy: cell (v, w) of dx belongs to phase (v mod sy, w mod sx),
#           number (v / sy, w / sx), and lies in the same few windows, seen from there, as
#           all others of its phase. For a kernel of 3 and stride 2, along one axis:
#
#               phase 0   windows q - 1 (its tap 2) and q (its tap 0)
#               phase 1   window  q (its tap 1)
#
#           So each window is compared with each of its taps once, lane by lane:
#           sum += dy[o] where label[o] is that tap. Rows of two phases are interleaved.
# Assumes   buffers of the sizes that the geometry tells; pool_flat.pxd.
# Parallel  over pieces of dx: each writes its own rows, once, zeros included. The windows
#           over an element are added in row-major order.
# Scratch   of each thread dy and labels, 8 KB each of float32, all phases of dx, 16 KB.
# Cost      memory: one read of dy and of a byte a label, one write of dx.
# Why not   Scatter over windows: one at a time, after a pass of zeros.

from cython.parallel cimport prange, threadid

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    Buffers, call, flags_of, reals, refuse, room,
)
from convcore.kernels.pool_flat cimport (
    GAP, IMAGES, TAPS, Flat, Piece, divide, fetch, fetch_to_write, fill, has_few_taps,
    lanes_of, load_row, piece_at, shift_of, tap_label,
)
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, copy, f32v, f64v, real, vec, zero_lanes, zip_part,
)
from convcore.kernels.vector_compare cimport all_labels, gather, widened
from convcore.kernels.windows cimport (
    Axis, Pool, elements_of, pool_of, windows_of,
)

cdef enum:
    WINDOWS = 2048  # cells of the image of dy
    SUMS = 4096  # cells of dx in all phases
    OVER = 64  # what loads and stores of two vectors reach beyond

cdef struct Gather:  # the taps of each phase, the last first
    Py_ssize_t[IMAGES + 1] first
    Py_ssize_t[TAPS] offset  # of the window
    long long[TAPS] label

cdef struct Job:
    Pool p
    Flat f
    Gather g
    Py_ssize_t[3] outputs  # cells of a phase, along each axis
    Py_ssize_t[3] shifts

cdef struct Room:  # of a thread; doubles, or as many floats
    double[WINDOWS + OVER] image, label
    double[SUMS + OVER] sums

cdef struct Source:
    const unsigned char* tap
    Py_ssize_t count


cdef inline void read_labels(
    const Source* s, Py_ssize_t at, Py_ssize_t n, vec* to
) noexcept nogil:
    """Read n labels."""
    cdef Py_ssize_t j = 0, lanes = lanes_of(to)
    cdef Py_ssize_t whole = min(n, s.count - at - lanes + 1)  # no byte beyond the array
    while j < whole:
        (<vec*>ahead(to, j))[0] = widened(to, s.tap + at + j)
        j += lanes
    while j < n:
        put_lane(to, j, s.tap[at + j])
        j += 1


cdef inline void put_lane(vec* to, Py_ssize_t i, long long n) noexcept nogil:
    """Write one label."""
    if vec is f32v:
        (<int*>to)[i] = <int>n
    else:
        (<long long*>to)[i] = n


cdef inline void read_row(
    const Job* job, const Source* s, const vec* dy, Py_ssize_t at, Py_ssize_t left,
    Py_ssize_t right, vec* image, vec* label,
) noexcept nogil:
    """Copy a row of dy and of the labels to cells left .. right of a row."""
    cdef vec none = all_labels(dy, -1)
    fill(label, none, 0, left)
    fetch(<const char*>ahead(dy, at), (right - left) * VEC_BYTES // lanes_of(dy))
    fetch(<const char*>(s.tap + at), right - left)
    load_row(ahead(dy, at), right - left, <vec*>ahead(image, left))
    read_labels(s, at, right - left, <vec*>ahead(label, left))
    fill(label, none, max(left, right), job.f.pitch)


cdef void read_windows(
    const Job* job, const Piece* at, const real* dy, const Source* s, real* image,
    real* label,
) noexcept nogil:
    """Copy dy and the labels of all windows over a piece."""
    cdef const Pool* p = &job.p
    cdef const Flat* f = &job.f
    cdef Py_ssize_t b, z, y, oz, oy, to, row, plane, stop
    cdef Py_ssize_t x0 = at.x - job.shifts[2]
    cdef Py_ssize_t left = max(0, -x0), right = min(at.columns + job.shifts[2], p.x.out - x0)
    for b in range(at.planes):
        plane = at.plane + b
        for z in range(at.slabs + job.shifts[0]):
            oz = at.z - job.shifts[0] + z
            for y in range(at.rows + job.shifts[1]):
                oy = at.y - job.shifts[1] + y
                to = b * f.plane + z * f.slab + y * f.pitch
                stop = right
                if oz < 0 or oz >= p.z.out or oy < 0 or oy >= p.y.out:
                    stop = left
                row = ((plane * p.z.out + oz) * p.y.out + oy) * p.x.out + x0 + left
                if real is float:
                    read_row(
                        job, s, <f32v*>dy, row, left, stop, <f32v*>(image + to),
                        <f32v*>(label + to),
                    )
                else:
                    read_row(
                        job, s, <f64v*>dy, row, left, stop, <f64v*>(image + to),
                        <f64v*>(label + to),
                    )


cdef void gather_phase(
    const vec* dy, const vec* label, const Gather* g, Py_ssize_t phase, Py_ssize_t n,
    vec* sums,
) noexcept nogil:
    """Write n neighbouring cells of a phase of dx."""
    cdef Py_ssize_t lanes = lanes_of(dy), j = 0, k, first = g.first[phase]
    cdef Py_ssize_t stop = g.first[phase + 1]
    cdef const vec* v
    cdef const vec* w
    cdef vec a, b, n_k
    while j < n:
        a = b = zero_lanes(dy)
        for k in range(first, stop):
            n_k = all_labels(dy, g.label[k])
            v = ahead(dy, g.offset[k] + j)
            w = ahead(label, g.offset[k] + j)
            a = gather(a, v[0], w[0], n_k)
            b = gather(b, ahead(v, lanes)[0], ahead(w, lanes)[0], n_k)
        (<vec*>ahead(sums, j))[0] = a
        (<vec*>ahead(sums, j + lanes))[0] = b
        j += 2 * lanes


cdef inline void zip_row(
    const vec* a, const vec* b, Py_ssize_t n, vec* to
) noexcept nogil:
    """Write n of a[0], b[0], a[1], b[1], ..."""
    cdef Py_ssize_t lanes = lanes_of(a), j = 0
    while j < n:
        zip_part(<vec*>ahead(to, j), ahead(a, j // 2)[0], ahead(b, j // 2)[0], n - j)
        j += 2 * lanes


cdef inline void write_row(
    const Job* job, const Piece* at, const real* sums, real* dx
) noexcept nogil:
    """Write the columns of a piece to a row of dx, from the phases of W."""
    cdef const Axis* a = &job.p.x
    cdef Py_ssize_t s = a.stride, start = at.x * s - a.lo, i, v
    cdef Py_ssize_t first = max(start, 0), stop = min(start + at.columns * s, a.extent)
    cdef Py_ssize_t size = job.f.size
    cdef const real* even
    cdef const real* odd
    fetch_to_write(<char*>(dx + first), (stop - first) * sizeof(real))
    if s == 1:
        copy(dx + first, sums + first - start, stop - first)
    elif s == 2:
        v = first - start
        even = sums + v // 2
        odd = sums + size + v // 2
        if v % 2:
            even, odd = odd, even + 1
        if real is float:
            zip_row(<const f32v*>even, <const f32v*>odd, stop - first, <f32v*>(dx + first))
        else:
            zip_row(<const f64v*>even, <const f64v*>odd, stop - first, <f64v*>(dx + first))
    else:
        for i in range(s):
            v = start + i
            even = sums + i * size
            while v < stop:
                if v >= 0:
                    dx[v] = even[0]
                even += 1
                v += s


cdef inline void write_slab(
    const Job* job, const Piece* at, const real* sums, real* dx
) noexcept nogil:
    """Write the rows of a piece to a slab of dx."""
    cdef const Axis* a = &job.p.y
    cdef Py_ssize_t y, ry, iy
    for y in range(at.rows):
        for ry in range(a.stride):
            iy = (at.y + y) * a.stride + ry - a.lo
            if 0 <= iy < a.extent:
                write_row(
                    job, at, sums + ry * job.p.x.stride * job.f.size + y * job.f.pitch,
                    dx + iy * job.p.x.extent,
                )


cdef void write_piece(
    const Job* job, const Piece* at, const real* sums, real* dx
) noexcept nogil:
    """Bring the sums of a piece to their rows."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t b, i, z, rz, iz
    for b in range(at.planes):
        for i in range(at.slabs * p.z.stride):
            iz = at.z * p.z.stride + i - p.z.lo
            if iz < 0 or iz >= p.z.extent:
                continue
            z, rz = i // p.z.stride, i % p.z.stride
            write_slab(
                job, at, sums + rz * p.y.stride * p.x.stride * job.f.size
                + b * job.f.plane + z * job.f.slab,
                dx + ((at.plane + b) * p.z.extent + iz) * p.y.extent * p.x.extent,
            )


cdef void gather_piece(
    const Job* job, const Piece* at, const real* dy, const Source* s, real* dx,
    Room* scratch,
) noexcept nogil:
    """Write a piece of dx."""
    cdef real* image = <real*>scratch.image
    cdef real* label = <real*>scratch.label
    cdef real* sums = <real*>scratch.sums
    cdef Py_ssize_t phase, phases = job.p.z.stride * job.p.y.stride * job.p.x.stride
    read_windows(job, at, dy, s, image, label)
    for phase in range(phases):
        if real is float:
            gather_phase(
                <f32v*>image, <f32v*>label, &job.g, phase, at.length,
                <f32v*>(sums + phase * job.f.size),
            )
        else:
            gather_phase(
                <f64v*>image, <f64v*>label, &job.g, phase, at.length,
                <f64v*>(sums + phase * job.f.size),
            )
    write_piece(job, at, sums, dx)


cdef void gather_pieces(
    const Job* job, const real* dy, const Source* s, real* dx, Py_ssize_t begin,
    Py_ssize_t end, Room* scratch,
) noexcept nogil:
    """Write pieces begin .. end."""
    cdef Py_ssize_t i
    cdef Piece at
    for i in range(begin, end):
        at = piece_at(&job.f, &job.p, job.outputs, i)
        gather_piece(job, &at, dy, s, dx, scratch)


cdef void gather_tasks(
    const Job* job, const Rounds* r, const real* dy, const Source* s, real* dx,
    Py_ssize_t begin, Py_ssize_t end, Room* scratch, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        gather_pieces(
            job, dy, s, dx, first_piece(r, begin), first_piece(r, end), scratch
        )
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        gather_pieces(
            job, dy, s, dx, first_piece(r, i), first_piece(r, i + 1),
            scratch + threadid(),
        )


cdef inline Py_ssize_t cells_of_phase(const Axis* a) noexcept nogil:
    """Count the cells of dx in the longest phase of an axis."""
    return (a.extent - 1 + a.lo) // a.stride + 1


cdef inline Py_ssize_t last_tap(const Axis* a, Py_ssize_t phase, Py_ssize_t k) noexcept nogil:
    """Find the last tap at or before k that belongs to a phase; -1 for none."""
    while k >= 0 and k * a.dilation % a.stride != phase:
        k -= 1
    return k


cdef void find_taps(Job* job) noexcept nogil:
    """List the taps of every phase, in the row-major order of the windows."""
    cdef const Pool* p = &job.p
    cdef Gather* g = &job.g
    cdef Py_ssize_t rz, ry, rx, kz, ky, kx, n = 0, phase = 0, shift
    for rz in range(p.z.stride):
        for ry in range(p.y.stride):
            for rx in range(p.x.stride):
                g.first[phase] = n
                phase += 1
                kz = last_tap(&p.z, rz, p.z.kernel - 1)
                while kz >= 0:
                    ky = last_tap(&p.y, ry, p.y.kernel - 1)
                    while ky >= 0:
                        kx = last_tap(&p.x, rx, p.x.kernel - 1)
                        while kx >= 0:
                            shift = job.shifts[0] - kz * p.z.dilation // p.z.stride
                            g.offset[n] = shift * job.f.slab
                            shift = job.shifts[1] - ky * p.y.dilation // p.y.stride
                            g.offset[n] += shift * job.f.pitch
                            g.offset[n] += job.shifts[2] - kx * p.x.dilation // p.x.stride
                            g.label[n] = tap_label(p, kz, ky, kx, False)
                            n += 1
                            kx = last_tap(&p.x, rx, kx - 1)
                        ky = last_tap(&p.y, ry, ky - 1)
                    kz = last_tap(&p.z, rz, kz - 1)
    g.first[phase] = n


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, labels and dx, and write dx."""
    cdef Job job
    cdef Source s
    cdef Py_ssize_t begin = 0, end, phases
    cdef Rounds r
    job.p = pool_of(held)
    cdef const real* dy = reals(held, 1, windows_of(&job.p), like)
    cdef real* dx = reals(held, 3, elements_of(&job.p), like)
    cdef Room* scratch = <Room*>room(
        held, 4, threads * <Py_ssize_t>sizeof(Room) // <Py_ssize_t>sizeof(real), like
    )
    s.count = windows_of(&job.p)
    s.tap = flags_of(held, 2, s.count)
    if job.p.planes == 0:
        return 0
    if not has_few_taps(&job.p):
        refuse()
    phases = job.p.z.stride * job.p.y.stride * job.p.x.stride
    job.outputs = [
        cells_of_phase(&job.p.z), cells_of_phase(&job.p.y), cells_of_phase(&job.p.x)
    ]
    job.shifts = [shift_of(&job.p.z), shift_of(&job.p.y), shift_of(&job.p.x)]
    divide(
        &job.f, &job.p, job.outputs, job.shifts, min(WINDOWS, SUMS // phases) - GAP
    )
    find_taps(&job)
    r = rounds(job.f.count, job.f.planes * job.f.plane * job.g.first[phases], threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            gather_tasks(&job, &r, dy, &s, dx, begin, end, scratch, threads)
        look()
        begin = end
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that a direction needs."""
    return threads * <Py_ssize_t>sizeof(Room) // item


def dgrad(geometry, dy, label, dx, scratch, int threads, /):
    """Write the gradient of x from labels as `pool_max_flat.fprop` gives them.

    Bytes that are no tap get nothing.
    """
    call((geometry, dy, label), (dx, scratch), threads, gradient[float], gradient[double])
