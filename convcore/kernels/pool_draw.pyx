# Stochastic pooling: a winner that is drawn, and the mean of what may be.
#
# What      drawn  y[o] = x[i] for the first i of the window, in row-major order, up to which
#                  the sum of r exceeds draw[o] times that over all of it, r = max(x, 0)
#           mean   y[o] = sum of r * r / sum of r
# Layout    A plane for each lane of doubles, as in pool_turned.pxd: element (y, x) of all
#           of them is one vector, so are their draws, and the results are turned back.
#           A block is some windows of some rows, for which the elements under them fit.
#           Draws: a number in [0, 1) for each window.
# Assumes   dense windows, each of which holds an element. One that no block fits is
#           walked through by itself.
# Parallel  over blocks of groups of planes. The lanes behind the last plane do what it
#           does, and are not stored.
# Scratch   a `Room` for each thread, lent by the caller.
# Cost      per window and tap: 3 operations of 8 lanes for its sum, 6 for the search.
#           Windows with a NaN, with +inf or without a positive element need 8 more: they
#           give their maximum.
# Why not   Windows one at a time: 570 copies of x for 3 x 3, stride 1, as nobody foresees
#           where a walk ends.
# Source    Zeiler and Fergus, Stochastic pooling, arXiv:1301.3557, section 3.

from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY, NAN, frexp, isinf, isnan, ldexp

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport Buffers, bytes_of, call, integers, reals, refuse
from convcore.kernels.pool_turned cimport LANES, turn_in, turn_out
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    all_lanes, cc_rectify_f64, f64v, larger, pick, real, until,
)
from convcore.kernels.vector_compare cimport all_labels, contest, has_nan, plus_labels
from convcore.kernels.vector_wide cimport WIDE_LANES
from convcore.kernels.windows cimport (
    Axis, Pool, elements_of, first_of, pool_of, stop_of, windows_of,
)

cdef enum:
    CELLS = 1024  # elements under a block
    WINDOWS = 512  # of a block
    SHIFT = 64  # sums of float64 beyond its range are those of x / 2**SHIFT

cdef double MOST = 1e300  # sums of float64 from here on, or up to LEAST,
cdef double LEAST = 1e-270  # are found once more, with other units

cdef struct Room:  # of a thread; doubles, as a field cannot be a vector
    double[LANES * CELLS] x
    double[LANES * (WINDOWS + LANES)] y  # draws, then results
    double[LANES * (WINDOWS + LANES)] label

cdef struct Job:
    Pool p
    Py_ssize_t rows, columns  # windows of a block along each axis, at most
    Py_ssize_t per_y, per_x, blocks  # along each axis, and of a plane
    Py_ssize_t cells, windows  # of a plane
    bint drawn
    Room* room  # of all threads; NULL: windows one at a time

cdef struct Block:
    Py_ssize_t z, y, x, rows, columns  # its windows
    Py_ssize_t z0, y0, x0, slabs, lines, width  # the elements under it

cdef struct Box:  # a window: its elements, and how they lie
    Py_ssize_t slabs, rows, taps, slab, row


# One window by itself ---------------------------------------------------------------


cdef inline Py_ssize_t max_of_box(const Box* b, const real* x) noexcept nogil:
    """Find the first NaN of a window, or else its first maximum."""
    cdef Py_ssize_t z, y, k, where = 0, at
    for z in range(b.slabs):
        for y in range(b.rows):
            for k in range(b.taps):
                at = z * b.slab + y * b.row + k
                if x[where] == x[where] and not x[at] <= x[where]:
                    where = at
    return where


cdef inline double walk(
    const Box* b, const real* x, int shift, double target, Py_ssize_t* where
) noexcept nogil:
    """Add what is positive, by 2**shift, until that exceeds `target`; give the sum."""
    cdef Py_ssize_t z, y, k, at
    cdef double total = 0
    for z in range(b.slabs):
        for y in range(b.rows):
            for k in range(b.taps):
                at = z * b.slab + y * b.row + k
                if x[at] > 0:
                    total += ldexp(x[at], shift) if shift else x[at]
                    where[0] = at
                    if total > target:
                        return total
    return total


cdef inline Py_ssize_t draw_from(const Box* b, const real* x, double u) noexcept nogil:
    """Draw an element; the maximum where that is NaN, infinite or not positive."""
    cdef Py_ssize_t where = max_of_box(b, x)
    cdef double total
    cdef int shift = 0
    if not x[where] > 0 or x[where] == INFINITY:
        return where
    total = walk(b, x, shift, INFINITY, &where)
    if total == INFINITY:
        shift = -SHIFT
        total = walk(b, x, shift, INFINITY, &where)
    walk(b, x, shift, u * total, &where)
    return where


cdef inline double mean_of(const Box* b, const real* x) noexcept nogil:
    """Give the mean of what may be drawn, in units of about the maximum."""
    cdef double best = x[max_of_box(b, x)], sums = 0, squares = 0, r
    cdef Py_ssize_t z, y, k
    cdef int exponent
    if isnan(best) or isinf(best) or best <= 0:
        return 0 if best <= 0 else best
    frexp(best, &exponent)
    for z in range(b.slabs):
        for y in range(b.rows):
            for k in range(b.taps):
                r = x[z * b.slab + y * b.row + k]
                r = ldexp(r, -exponent) if r > 0 else 0
                sums += r
                squares += r * r
    return ldexp(squares / sums, exponent)


cdef inline Py_ssize_t find_box(
    const Pool* p, Py_ssize_t z, Py_ssize_t y, Py_ssize_t x, Box* b
) noexcept nogil:
    """Find the extents of a window, and its first element."""
    cdef Py_ssize_t z0 = first_of(&p.z, z), y0 = first_of(&p.y, y), x0 = first_of(&p.x, x)
    b.slabs = stop_of(&p.z, z) - z0
    b.rows = stop_of(&p.y, y) - y0
    b.taps = stop_of(&p.x, x) - x0
    return (z0 * p.y.extent + y0) * p.x.extent + x0


cdef void do_plane(
    const Job* job, Py_ssize_t plane, const real* x, const real* draws, real* y,
    long long* index,
) noexcept nogil:
    """Write one plane of y and of the indices, window by window."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t z, v, w, o = plane * job.windows, start, where
    cdef Box b
    b.slab, b.row = p.y.extent * p.x.extent, p.x.extent
    x += plane * job.cells
    for z in range(p.z.out):
        for v in range(p.y.out):
            for w in range(p.x.out):
                start = find_box(p, z, v, w, &b)
                if job.drawn:
                    where = draw_from(&b, x + start, draws[o])
                    y[o] = x[start + where]
                    index[o] = start + where
                else:
                    y[o] = <real>mean_of(&b, x + start)
                o += 1


# A window of each plane of a group ----------------------------------------------------


cdef inline f64v outside(f64v sums, f64v otherwise) noexcept nogil:
    """Give 0 in the lanes whose sums lie between LEAST and MOST, `otherwise` elsewhere."""
    cdef f64v inside = pick(
        sums, all_lanes(&sums, MOST), all_lanes(&sums, 0), all_lanes(&sums, NAN)
    )
    return pick(all_lanes(&sums, LEAST), sums, inside, otherwise)


cdef inline f64v sum_of(const Box* b, const f64v* x) noexcept nogil:
    """Sum what is positive; NaN where something is."""
    cdef f64v total = all_lanes(x, 0)
    cdef Py_ssize_t z, y, k
    cdef const f64v* at
    for z in range(b.slabs):
        for y in range(b.rows):
            at = x + z * b.slab + y * b.row
            for k in range(b.taps):
                total = total + cc_rectify_f64(at[k])
    return total


cdef inline f64v find(
    const Job* job, const Box* b, const f64v* x, long long start, f64v target, f64v* where
) noexcept nogil:
    """Give the first element up to which the sum exceeds `target`, and its index."""
    cdef f64v sums = all_lanes(x, 0), v = sums, one = all_labels(x, 1), n
    cdef Py_ssize_t z, y, k
    cdef const f64v* at
    for z in range(b.slabs):
        for y in range(b.rows):
            at = x + z * b.slab + y * b.row
            n = all_labels(x, start + (z * job.p.y.extent + y) * job.p.x.extent)
            for k in range(b.taps):
                v = until(sums, target, at[k], v)
                where[0] = until(sums, target, n, where[0])
                sums = sums + larger(at[k], all_lanes(x, 0))
                n = plus_labels(n, one)
    return v


cdef inline f64v find_maximum(
    const Job* job, const Box* b, const f64v* x, long long start, f64v* where
) noexcept nogil:
    """Give the first NaN, or else the first maximum, and its index."""
    cdef f64v best = x[0], one = all_labels(x, 1), n
    cdef Py_ssize_t z, y, k
    cdef const f64v* at
    where[0] = all_labels(x, start)
    for z in range(b.slabs):
        for y in range(b.rows):
            at = x + z * b.slab + y * b.row
            n = all_labels(x, start + (z * job.p.y.extent + y) * job.p.x.extent)
            for k in range(b.taps):
                contest(at[k], n, &best, where)
                n = plus_labels(n, one)
    return best


cdef inline bint draw(
    const Job* job, const Box* b, const f64v* x, long long start, f64v* y, f64v* label
) noexcept nogil:
    """Put a winner in the place of the draw; tell whether all lanes could."""
    cdef f64v total = sum_of(b, x), zero = all_lanes(x, 0), most = all_lanes(x, INFINITY)
    cdef f64v where = zero, which = zero, odd = outside(total, all_lanes(x, NAN)), v, best
    v = find(job, b, x, start, y[0] * total, &where)
    if not has_nan(odd, odd):
        y[0], label[0] = v, where
        return True
    best = find_maximum(job, b, x, start, &which)
    odd = pick(zero, best, pick(best, most, odd, zero), zero)
    v = pick(zero, best, pick(best, most, v, best), best)
    where = pick(zero, best, pick(best, most, where, which), which)
    y[0], label[0] = v, where
    return not has_nan(odd, odd)


cdef inline bint average(const Box* b, const f64v* x, f64v* y) noexcept nogil:
    """Write means; tell whether all lanes could."""
    cdef f64v sums = all_lanes(x, 0), squares = sums, zero = sums, r
    cdef Py_ssize_t z, v, k
    cdef const f64v* at
    for z in range(b.slabs):
        for v in range(b.rows):
            at = x + z * b.slab + v * b.row
            for k in range(b.taps):
                r = cc_rectify_f64(at[k])
                sums = sums + r
                squares = squares + r * r
    y[0] = pick(zero, sums, squares / sums, zero)
    r = outside(squares, until(sums, zero, zero, all_lanes(x, NAN)))
    return not has_nan(r, r)


cdef inline void repeat(
    const Job* job, Box b, const real* x, Py_ssize_t start, Py_ssize_t planes,
    double* y, long long* index, const double* draws,
) noexcept nogil:
    """Do a window of some planes, one plane after the other; the results are lanes."""
    cdef Py_ssize_t i, where
    b.slab, b.row = job.p.y.extent * job.p.x.extent, job.p.x.extent
    x += start
    for i in range(planes):
        if job.drawn:
            where = draw_from(&b, x, draws[i])
            y[i] = x[where]
            index[i] = start + where
        else:
            y[i] = mean_of(&b, x)
        x += job.cells


cdef inline Block block_at(const Job* job, Py_ssize_t i) noexcept nogil:
    """Find the i-th block of a plane."""
    cdef const Pool* p = &job.p
    cdef Block b
    cdef Py_ssize_t row = i // job.per_x
    b.x = (i - row * job.per_x) * job.columns
    b.z = row // job.per_y
    b.y = (row - b.z * job.per_y) * job.rows
    b.rows, b.columns = min(job.rows, p.y.out - b.y), min(job.columns, p.x.out - b.x)
    b.z0, b.y0, b.x0 = first_of(&p.z, b.z), first_of(&p.y, b.y), first_of(&p.x, b.x)
    b.slabs = stop_of(&p.z, b.z) - b.z0
    b.lines = stop_of(&p.y, b.y + b.rows - 1) - b.y0
    b.width = stop_of(&p.x, b.x + b.columns - 1) - b.x0
    return b


cdef inline void load_block(
    const Job* job, const Block* b, const real* x, Py_ssize_t planes, f64v* to
) noexcept nogil:
    """Turn the elements under a block of some planes."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t z, y, at
    for z in range(b.slabs):
        at = ((b.z0 + z) * p.y.extent + b.y0) * p.x.extent + b.x0
        if b.width == p.x.extent:
            turn_in(x + at, b.lines * b.width, job.cells, planes, b.lines * b.width, to)
            to += b.lines * b.width
            continue
        for y in range(b.lines):
            turn_in(x + at + y * p.x.extent, b.width, job.cells, planes, b.width, to)
            to += b.width


cdef inline void do_block(
    const Job* job, const Block* b, Py_ssize_t plane, const real* x, const real* draws,
    real* y, long long* index, Room* room,
) noexcept nogil:
    """Write one block of a group of planes, from `plane` on."""
    cdef const Pool* p = &job.p
    cdef f64v* held = <f64v*>room.x
    cdef f64v* result = <f64v*>room.y
    cdef f64v* label = <f64v*>room.label
    cdef double[LANES] before
    cdef Py_ssize_t planes = min(WIDE_LANES, p.planes - plane), v, w, i, start, at
    cdef Py_ssize_t row, line
    cdef Py_ssize_t n = b.columns, o = (b.z * p.y.out + b.y) * p.x.out + b.x
    cdef bint fine
    cdef Box box
    box.slab, box.row = b.lines * b.width, b.width
    x += plane * job.cells
    load_block(job, b, x, planes, held)
    for v in range(b.rows):
        at = plane * job.windows + o + v * p.x.out
        if job.drawn:
            turn_in(draws + at, n, job.windows, planes, n, result)
        row = find_box(p, b.z, b.y + v, b.x, &box) - b.x0
        line = (first_of(&p.y, b.y + v) - b.y0) * b.width - b.x0
        for w in range(n):
            i = first_of(&p.x, b.x + w)
            box.taps = stop_of(&p.x, b.x + w) - i
            start = row + i
            i += line
            (<f64v*>before)[0] = result[w]
            if job.drawn:
                fine = draw(job, &box, held + i, start, result + w, label + w)
            else:
                fine = average(&box, held + i, result + w)
            if not fine:
                repeat(
                    job, box, x, start, planes, <double*>(result + w),
                    <long long*>(label + w), before,
                )
        turn_out(result, n, job.windows, planes, y + at)
        if job.drawn:
            turn_out(label, n, job.windows, planes, <double*>(index + at))


cdef void do_pieces(
    const Job* job, const real* x, const real* draws, real* y, long long* index,
    Py_ssize_t begin, Py_ssize_t end, int thread,
) noexcept nogil:
    """Do blocks begin .. end, counted through all groups, or so many planes."""
    cdef Py_ssize_t i, group
    cdef Block b
    for i in range(begin, end):
        if job.room == NULL:
            do_plane(job, i, x, draws, y, index)
            continue
        group = i // job.blocks
        b = block_at(job, i - group * job.blocks)
        do_block(job, &b, group * WIDE_LANES, x, draws, y, index, job.room + thread)


cdef void do_tasks(
    const Job* job, const Rounds* r, const real* x, const real* draws, real* y,
    long long* index, Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        do_pieces(job, x, draws, y, index, first_piece(r, begin), first_piece(r, end), 0)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        do_pieces(
            job, x, draws, y, index, first_piece(r, i), first_piece(r, i + 1), threadid()
        )


cdef inline Py_ssize_t reach(const Axis* a, Py_ssize_t windows) noexcept nogil:
    """Bound the elements under so many neighbouring windows."""
    return min(a.extent, (windows - 1) * a.stride + a.kernel)


cdef bint divide(Job* job) noexcept nogil:
    """Find how many windows a block has; tell whether one fits."""
    cdef const Pool* p = &job.p
    cdef double depth = <double>reach(&p.z, 1)
    cdef Py_ssize_t columns = min(p.x.out, WINDOWS), rows = 1
    if depth * reach(&p.y, 1) * reach(&p.x, 1) > CELLS:
        return False
    while depth * reach(&p.y, 1) * reach(&p.x, columns) > CELLS:
        columns = (columns + 1) // 2
    while rows < p.y.out and (
        depth * reach(&p.y, rows + 1) * reach(&p.x, columns) <= CELLS
    ):
        rows += 1
    job.per_x = (p.x.out - 1) // columns + 1
    job.per_y = (p.y.out - 1) // rows + 1
    job.columns = (p.x.out - 1) // job.per_x + 1
    job.rows = (p.y.out - 1) // job.per_y + 1
    job.blocks = p.z.out * job.per_y * job.per_x
    return True


cdef Job job_of(const Buffers* held, int scratch, bint drawn, int threads) except *:
    """Read the geometry, and divide the work."""
    cdef Job job
    job.p = pool_of(held)
    cdef const Pool* p = &job.p
    if p.z.dilation != 1 or p.y.dilation != 1 or p.x.dilation != 1:
        refuse()
    if p.z.kernel == 0 or p.y.kernel == 0 or p.x.kernel == 0:
        refuse()
    job.drawn = drawn
    job.cells = elements_of(p) // max(p.planes, 1)
    job.windows = windows_of(p) // max(p.planes, 1)
    job.room = NULL
    if divide(&job):
        job.room = <Room*>bytes_of(held, scratch, threads * sizeof(Room))
    return job


cdef int run(
    const Job* job, const real* x, const real* draws, real* y, long long* index,
    int threads,
) except -1:
    """Do all planes, in rounds between which Ctrl-C is looked for."""
    cdef const Pool* p = &job.p
    cdef double work = <double>p.z.kernel * p.y.kernel * p.x.kernel * job.windows
    cdef Py_ssize_t begin = 0, end, pieces = p.planes
    cdef Rounds r
    if job.room != NULL:
        pieces = ((p.planes - 1) // WIDE_LANES + 1) * job.blocks
        work = work * WIDE_LANES / job.blocks
    if p.planes == 0:
        return 0
    r = rounds(pieces, <Py_ssize_t>min(work, 1e15), threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            do_tasks(job, &r, x, draws, y, index, begin, end, threads)
        look()
        begin = end
    return 0


cdef int drawn_values(const Buffers* held, int threads, real* like) except -1:
    cdef Job job = job_of(held, 5, True, threads)
    cdef const real* x = reals(held, 1, elements_of(&job.p), like)
    cdef const real* draws = reals(held, 2, windows_of(&job.p), like)
    cdef real* y = reals(held, 3, windows_of(&job.p), like)
    return run(&job, x, draws, y, integers(held, 4, windows_of(&job.p)), threads)


cdef int means(const Buffers* held, int threads, real* like) except -1:
    cdef Job job = job_of(held, 3, False, threads)
    cdef const real* x = reals(held, 1, elements_of(&job.p), like)
    cdef real* y = reals(held, 2, windows_of(&job.p), like)
    return run(&job, x, NULL, y, NULL, threads)


def stochastic(geometry, x, draws, y, index, room, int threads, /):
    """Write an element of each window, drawn by `draws`, and where it is."""
    call(
        (geometry, x, draws), (y, index, room), threads, drawn_values[float],
        drawn_values[double],
    )


def mean(geometry, x, y, room, int threads, /):
    """Write the mean of what may be drawn from each window."""
    call((geometry, x), (y, room), threads, means[float], means[double])
