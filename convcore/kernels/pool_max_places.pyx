# Max pooling over windows that lie at given places: adaptive and fractional.
#
# What      y[o] = max x[i] over i in window(o); label[o] tells which one it is: the first
#           NaN, or else the first of equal maxima, in row-major order
# Layout    Narrow windows of a row stand side by side: a group is as many as lie over two
#           vectors of columns, and a table tells which columns the k-th elements are.
#
#               columns    a b c d e f g h | i j k l m n o p     windows abc cde def fgh ...
#               element 0  a c d f ...                           one pick from two vectors
#               element 1  b d e g ...
#               element 2  c e f h ...      shorter windows repeat their last element
#
#           Wide ones are taken one by one, a lane for each column; then the lanes of as
#           many as a vector has are turned, and compared a vector at a time.
# Assumes   buffers of the sizes that the geometry tells, windows that lie in their planes.
# Parallel  over pieces, some rows of y of a plane.
# Scratch   tables of 10 KB on the stack.
# Cost      narrow: a pick and a contest for each element and group of windows; wide: a
#           contest for each vector. Windows that share rows look at them again.
#           Values alone: a contest for each row, then the picks.
# Why not   One window at a time: 47 copies of x for 112 x 112 to 50 x 50.
#           Labels over rows first: ties then need a comparison of places as well.

from cython.parallel cimport prange
from libc.math cimport INFINITY

from convcore.kernels.blocks cimport Rounds, first_piece, rounds, taps_at_most
from convcore.kernels.buffers cimport Buffers, call, integers, reals, refuse
from convcore.kernels.pool_flat cimport AHEAD, first_bits, lanes_of, put_label
from convcore.kernels.teams cimport look
from convcore.kernels.transpose cimport MOST_LANES, mix
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, all_lanes, cc_fetch, f32v, f64v, lanes_at, merge, part, pick, put_part,
    real, vec, zero_lanes, zip_part,
)
from convcore.kernels.vector_compare cimport (
    all_labels, contest, has_nan, lower_label, later, plus_labels, put_bytes,
)
from convcore.kernels.windows cimport (
    Axis, Labels, Pool, elements_of, first_of, labels_of, pool_of, stop_of, windows_of,
)

cdef enum:
    GROUPS = 16  # of a table
    PICKS = 8  # most columns of narrow windows
    LANES = 16  # of a vector, at most
    BYTES = 64  # of a vector, at most
    TAPS = 256  # whose numbers are bytes
    MOST = 1 << 30  # elements of a plane whose indices are labels: behind all of them
    PIECE = 32768  # elements under a piece, about

cdef struct Group:  # of windows that are done together
    Py_ssize_t to, n, base  # the first; how many; its first column
    Py_ssize_t span  # columns under them

cdef struct Table:  # some groups of a row of windows
    Py_ssize_t count, begin, stop  # groups; their first window, what is behind the last
    Py_ssize_t plane  # whose it is; of adaptive windows, any
    Py_ssize_t taps  # of the widest window
    Group[GROUPS] group
    char[GROUPS * PICKS * BYTES] at  # the columns of the k-th elements
    char[GROUPS * BYTES] first  # of the first ones

cdef struct Job:
    Pool p
    const long long* starts  # of the windows of each plane, axis by axis; NULL: adaptive
    Py_ssize_t cells, windows, all_rows  # of a plane
    Py_ssize_t rows, pieces  # of a piece; of a chunk of a plane
    Py_ssize_t chunk, chunks  # windows of a row that one table tells about; of a row
    Py_ssize_t most  # columns of a window
    long long row, slab  # labels from a row of taps to the next one, from a slab
    const void* last  # the last place from which a vector can be loaded
    bint narrow, labelled, flat
    bint large  # whether planes have indices that are no labels

cdef struct Rows:  # of elements under a row of windows
    Py_ssize_t z, y, slabs, lines


cdef inline void find_window(
    const Job* job, Py_ssize_t plane, int axis, Py_ssize_t o, Py_ssize_t* first,
    Py_ssize_t* count
) noexcept nogil:
    """Find the elements of window o along axis 0, 1 or 2."""
    cdef const Pool* p = &job.p
    cdef const Axis* a = &p.z if axis == 0 else &p.y if axis == 1 else &p.x
    cdef const long long* s
    if job.starts == NULL:
        first[0] = first_of(a, o)
        count[0] = stop_of(a, o) - first[0]
        return
    s = job.starts + plane * (p.z.out + p.y.out + p.x.out)
    if axis > 0:
        s += p.z.out
    if axis > 1:
        s += p.y.out
    first[0], count[0] = s[o], a.kernel


cdef inline void make_table(
    const Job* job, Py_ssize_t plane, Py_ssize_t o, Py_ssize_t stop, Py_ssize_t lanes,
    Table* t, real* like,
) noexcept nogil:
    """Divide the windows of a row, from o on, into groups."""
    cdef Py_ssize_t first, count, k, j, i, most = 2 * lanes if job.narrow else MOST
    cdef Py_ssize_t picks = min(job.most, PICKS)
    cdef real* at = <real*>t.at
    cdef Group* g
    t.count, t.taps, t.plane, t.begin = 0, 0, plane, o
    while o < stop and t.count < GROUPS:
        g = &t.group[t.count]
        g.to, g.n, g.span = o, 0, 0
        while o < stop and g.n < lanes:
            find_window(job, plane, 2, o, &first, &count)
            if g.n == 0:
                g.base = first
            if g.n and first + count - g.base > most:
                break
            g.span = max(g.span, first + count - g.base)
            t.taps = max(t.taps, count)
            put_label(<real*>t.first, t.count * lanes + g.n, first)
            if job.narrow:
                for k in range(picks):
                    i = (t.count * PICKS + k) * lanes + g.n
                    put_label(at, i, first - g.base + min(k, count - 1))
            g.n += 1
            o += 1
        for j in range(g.n, lanes):
            put_label(<real*>t.first, t.count * lanes + j, g.base)
            for k in range(picks):
                put_label(at, (t.count * PICKS + k) * lanes + j, 0)
        t.count += 1
    t.stop = o


cdef inline vec columns(const Job* job, const vec* row, Py_ssize_t n) noexcept nogil:
    """Load a vector, of which the first n scalars exist, if not more."""
    if <const void*>row <= job.last:
        return row[0]
    return part(row, first_bits(max(n, 0)))


cdef inline vec max_narrow(
    const Job* job, const Table* t, Py_ssize_t i, const Rows* r, const vec* x
) noexcept nogil:
    """Find the maxima of a group of narrow windows: over rows first, then over columns."""
    cdef const Group* g = &t.group[i]
    cdef Py_ssize_t lanes = lanes_of(x), z, y, k, from_
    cdef const vec* at = ahead(<const vec*>t.at, i * PICKS * lanes)
    cdef const vec* row
    cdef vec a = all_lanes(x, -INFINITY), b = a, best
    for z in range(r.slabs):
        for y in range(r.lines):
            from_ = ((r.z + z) * job.p.y.extent + r.y + y) * job.p.x.extent + g.base
            row = ahead(x, from_)
            cc_fetch(<const char*>row + AHEAD)
            a = later(columns(job, row, g.span), a)
            b = later(columns(job, ahead(row, lanes), g.span - lanes), b)
    best = lanes_at(a, b, at[0])
    for k in range(1, t.taps):
        best = later(lanes_at(a, b, ahead(at, k * lanes)[0]), best)
    return best


cdef inline void do_narrow(
    const Job* job, const Table* t, Py_ssize_t i, const Rows* r, const vec* x, vec* best,
    vec* label, Py_ssize_t taps,
) noexcept nogil:
    """Find the maxima of a group of narrow windows, and their labels."""
    cdef const Group* g = &t.group[i]
    cdef Py_ssize_t lanes = lanes_of(x), z, y, k, from_
    cdef const vec* at = ahead(<const vec*>t.at, i * PICKS * lanes)
    cdef const vec* row
    cdef vec a, b, v, n
    cdef long long place
    best[0] = all_lanes(x, -INFINITY)
    label[0] = all_labels(x, 0)
    if job.flat:
        from_ = (r.z * job.p.y.extent + r.y) * job.p.x.extent
        label[0] = plus_labels(
            ahead(<const vec*>t.first, i * lanes)[0], all_labels(x, from_)
        )
    for z in range(r.slabs):
        for y in range(r.lines):
            from_ = ((r.z + z) * job.p.y.extent + r.y + y) * job.p.x.extent + g.base
            row = ahead(x, from_)
            cc_fetch(<const char*>row + AHEAD)
            a = columns(job, row, g.span)
            b = columns(job, ahead(row, lanes), g.span - lanes)
            place = z * job.slab + y * job.row
            for k in range(taps):
                n = ahead(at, k * lanes)[0]
                v = lanes_at(a, b, n)
                if job.flat:
                    contest(v, plus_labels(n, all_labels(x, from_)), best, label)
                else:
                    contest(v, all_labels(x, place + k), best, label)


cdef inline void do_wide(
    const Job* job, const Rows* r, Py_ssize_t first, Py_ssize_t count, const vec* x,
    vec counting, vec* best, vec* label, bint labelled,
) noexcept nogil:
    """Find the maxima of the lanes of one window."""
    cdef Py_ssize_t lanes = lanes_of(x), z, y, k, from_
    cdef const vec* row
    cdef long long place
    cdef vec v
    best[0] = all_lanes(x, -INFINITY)
    label[0] = all_labels(x, 0)
    if job.flat:
        from_ = (r.z * job.p.y.extent + r.y) * job.p.x.extent + first
        label[0] = all_labels(x, from_)
    for z in range(r.slabs):
        for y in range(r.lines):
            from_ = ((r.z + z) * job.p.y.extent + r.y + y) * job.p.x.extent + first
            row = ahead(x, from_)
            place = from_ if job.flat else z * job.slab + y * job.row
            k = 0
            while k < count:
                if count - k >= lanes:
                    v = ahead(row, k)[0]
                else:
                    v = merge(all_lanes(x, -INFINITY), ahead(row, k), first_bits(count - k))
                cc_fetch(<const char*>ahead(row, k) + AHEAD)
                if labelled:
                    contest(v, plus_labels(counting, all_labels(x, place + k)), best, label)
                else:
                    best[0] = later(v, best[0])
                k += lanes


cdef inline bint join(
    vec* held, vec* at, Py_ssize_t n, vec* best, vec* label, bint labelled
) noexcept nogil:
    """Find the maxima of n lots of lanes; tell whether labels are known: nothing is NaN."""
    cdef Py_ssize_t i, lanes = lanes_of(<const vec*>held)
    cdef vec beyond = all_labels(<const vec*>held, MOST), low
    for i in range(n, lanes):
        held[i] = held[0]
        at[i] = at[0]
    mix(held)
    best[0] = held[0]
    for i in range(1, lanes):
        best[0] = later(held[i], best[0])
    if not labelled:
        return True
    if has_nan(best[0], best[0]):
        return False
    mix(at)
    low = beyond
    for i in range(lanes):
        low = lower_label(low, pick(held[i], best[0], beyond, at[i]))
    label[0] = low
    return True


cdef inline Py_ssize_t first_maximum(
    const Job* job, const Rows* r, Py_ssize_t first, Py_ssize_t count, const real* x,
    long long* label,
) noexcept nogil:
    """Find the first NaN of a window, or else its first maximum, and its label."""
    cdef Py_ssize_t z, y, k, at = (r.z * job.p.y.extent + r.y) * job.p.x.extent + first
    cdef Py_ssize_t best = at
    label[0] = at if job.flat else 0
    for z in range(r.slabs):
        for y in range(r.lines):
            at = ((r.z + z) * job.p.y.extent + r.y + y) * job.p.x.extent + first
            for k in range(count):
                if x[best] == x[best] and not x[at + k] <= x[best]:
                    best = at + k
                    label[0] = at + k if job.flat else z * job.slab + y * job.row + k
    return best


cdef inline void put_labels(
    const Job* job, vec label, Py_ssize_t n, Py_ssize_t to, const Labels* r
) noexcept nogil:
    """Store the labels of n windows."""
    cdef unsigned char[LANES] held
    cdef Py_ssize_t j
    if not job.flat:
        put_bytes(held, label)
        for j in range(n):
            r.tap[to + j] = held[j]
    elif vec is f32v:  # zeros are the high halves
        zip_part(<vec*>(r.index + to), label, zero_lanes(&label), 2 * n)
    else:
        put_part(<vec*>(r.index + to), label, n)


cdef inline Py_ssize_t place_of(
    const Job* job, const Rows* r, Py_ssize_t first, Py_ssize_t tap
) noexcept nogil:
    """Give the index of a tap of a window."""
    cdef Py_ssize_t z = tap // job.slab, y = tap % job.slab // job.row
    return ((r.z + z) * job.p.y.extent + r.y + y) * job.p.x.extent + first + tap % job.row


cdef inline void put_again(
    const Job* job, Py_ssize_t plane, const Group* g, const Rows* rows, const real* x,
    real* y, Py_ssize_t to, const Labels* r, bint known,
) noexcept nogil:
    """Give zeros the sign of the first one; search all windows if no label is known."""
    cdef Py_ssize_t j, first, count
    cdef long long label
    for j in range(g.n):
        if known and y[to + j] != 0:
            continue
        find_window(job, plane, 2, g.to + j, &first, &count)
        if not known:
            y[to + j] = x[first_maximum(job, rows, first, count, x, &label)]
            if job.flat:
                r.index[to + j] = label
            else:
                r.tap[to + j] = <unsigned char>label
        elif job.flat:
            y[to + j] = x[r.index[to + j]]
        else:
            y[to + j] = x[place_of(job, rows, first, r.tap[to + j])]


cdef inline bint do_group(
    const Job* job, Py_ssize_t plane, const Table* t, Py_ssize_t i, const Rows* rows,
    const vec* x, vec counting, vec* y, Py_ssize_t to, const Labels* r, bint labelled,
) noexcept nogil:
    """Write the results of a group; tell whether labels are known."""
    cdef vec[MOST_LANES] held, at
    cdef Py_ssize_t j, first, count
    cdef const Group* g = &t.group[i]
    cdef vec best, label
    cdef bint known = True
    if job.narrow and not labelled:
        best = max_narrow(job, t, i, rows, x)
    elif job.narrow:
        if t.taps == 2:
            do_narrow(job, t, i, rows, x, &best, &label, 2)
        else:
            do_narrow(job, t, i, rows, x, &best, &label, t.taps)
    else:
        for j in range(g.n):
            find_window(job, plane, 2, g.to + j, &first, &count)
            do_wide(job, rows, first, count, x, counting, &held[j], &at[j], labelled)
        known = join(held, at, g.n, &best, &label, labelled)
    put_part(<vec*>ahead(y, to), best, g.n)
    if labelled and known:
        put_labels(job, label, g.n, to, r)
    return known


cdef inline void do_row(
    const Job* job, Py_ssize_t plane, const Table* t, Py_ssize_t oz, Py_ssize_t oy,
    const real* x, real* y, const Labels* r,
) noexcept nogil:
    """Write the results of a row of windows, as far as the table tells about them."""
    cdef real[LANES] counting
    cdef Py_ssize_t i, to = plane * job.windows + (oz * job.p.y.out + oy) * job.p.x.out
    cdef Rows rows
    cdef bint known
    for i in range(VEC_BYTES // <Py_ssize_t>sizeof(real)):
        put_label(<real*>counting, i, i)
    find_window(job, plane, 0, oz, &rows.z, &rows.slabs)
    find_window(job, plane, 1, oy, &rows.y, &rows.lines)
    for i in range(t.count):
        if job.large:
            known = False
        elif real is float:
            known = do_group(
                job, plane, t, i, &rows, <const f32v*>x, (<const f32v*>counting)[0],
                <f32v*>y, to + t.group[i].to, r, job.labelled,
            )
        else:
            known = do_group(
                job, plane, t, i, &rows, <const f64v*>x, (<const f64v*>counting)[0],
                <f64v*>y, to + t.group[i].to, r, job.labelled,
            )
        if job.large or job.labelled and not job.narrow:
            put_again(
                job, plane, &t.group[i], &rows, x, y, to + t.group[i].to, r, known
            )


cdef void do_pieces(
    const Job* job, const real* x, real* y, const Labels* r, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write pieces begin .. end, those of a table one after another."""
    cdef Py_ssize_t lanes = VEC_BYTES // <Py_ssize_t>sizeof(real)
    cdef Py_ssize_t i, o, plane, piece, chunk, row, whose, stop
    cdef Table t
    t.begin = t.stop = t.plane = -1
    for i in range(begin, end):
        piece = i % job.pieces
        plane = i // job.pieces % job.p.planes
        chunk = i // (job.pieces * job.p.planes)
        whose = 0 if job.starts == NULL else plane
        o = chunk * job.chunk
        stop = min(o + job.chunk, job.p.x.out)
        while o < stop:
            if t.begin != o or t.plane != whose:
                make_table(job, whose, o, stop, lanes, &t, y)
            for row in range(piece * job.rows, min((piece + 1) * job.rows, job.all_rows)):
                do_row(
                    job, plane, &t, row // job.p.y.out, row % job.p.y.out,
                    x + plane * job.cells, y, r,
                )
            o = t.stop


cdef void do_tasks(
    const Job* job, const Rounds* rs, const real* x, real* y, const Labels* r,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        do_pieces(job, x, y, r, first_piece(rs, begin), first_piece(rs, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        do_pieces(job, x, y, r, first_piece(rs, i), first_piece(rs, i + 1))


cdef inline bint are_narrow(const Pool* p, Py_ssize_t lanes) noexcept nogil:
    """Tell whether groups of windows pay: a pick takes 6 operations, a turn 30."""
    cdef Py_ssize_t taps = taps_at_most(&p.x)
    cdef double n = (2.0 * lanes - taps) * p.x.out / p.x.extent + 1
    if taps > PICKS or taps > 2 * lanes:
        return False
    return 2 + 6 * taps <= 10 * min(n, <double>lanes)


cdef int prepare(Job* job, Py_ssize_t lanes, const real* x) except -1:
    """Divide the work; refuse bytes for large windows."""
    cdef const Pool* p = &job.p
    cdef double each
    job.cells = elements_of(p) // p.planes
    job.windows = windows_of(p) // p.planes
    job.large = job.flat and job.cells >= MOST
    job.row, job.slab = p.x.extent, p.y.extent * p.x.extent
    if not job.flat:
        job.row, job.slab = taps_at_most(&p.x), taps_at_most(&p.y) * taps_at_most(&p.x)
        if job.labelled and taps_at_most(&p.z) * job.slab > TAPS:
            refuse()
    job.most = taps_at_most(&p.x)
    job.narrow = are_narrow(p, lanes)
    job.last = x + elements_of(p) - lanes
    # As many windows as lie over two vectors, or a few less.
    job.chunk = lanes
    if job.narrow:
        job.chunk = (2 * lanes - job.most) * p.x.out // p.x.extent
        job.chunk = max(1, min(job.chunk, lanes))
    job.chunk = GROUPS * job.chunk
    job.chunks = (p.x.out - 1) // job.chunk + 1
    job.all_rows = p.z.out * p.y.out
    each = <double>taps_at_most(&p.z) * taps_at_most(&p.y) * (p.x.extent + p.x.out) / job.chunks
    job.rows = max(1, min(job.all_rows, <Py_ssize_t>(PIECE / each)))
    job.pieces = (job.all_rows - 1) // job.rows + 1
    return 0


cdef int run(Job* job, const real* x, real* y, const Labels* r, int threads) except -1:
    """Do all pieces, in rounds between which Ctrl-C is looked for."""
    cdef Py_ssize_t begin = 0, end
    cdef Rounds rs
    if job.p.planes == 0:
        return 0
    job.flat = r.index != NULL
    job.labelled = job.flat or r.tap != NULL
    prepare(job, VEC_BYTES // <Py_ssize_t>sizeof(real), x)
    rs = rounds(
        job.p.planes * job.pieces * job.chunks,
        (2 * job.cells + 4 * job.windows) // (job.pieces * job.chunks), threads,
    )
    while begin < rs.tasks:
        end = min(begin + rs.step, rs.tasks)
        with nogil:
            do_tasks(job, &rs, x, y, r, begin, end, threads)
        look()
        begin = end
    return 0


cdef int maxima(const Buffers* held, int threads, real* like) except -1:
    """Do adaptive windows."""
    cdef Job job
    job.p = pool_of(held)
    cdef const real* x = reals(held, 1, elements_of(&job.p), like)
    cdef real* y = reals(held, 2, windows_of(&job.p), like)
    cdef Labels r = labels_of(held, 3, &job.p)
    if job.p.z.kernel or job.p.y.kernel or job.p.x.kernel:
        refuse()
    job.starts = NULL
    return run(&job, x, y, &r, threads)


cdef int drawn_maxima(const Buffers* held, int threads, real* like) except -1:
    """Do windows that start where a table tells."""
    cdef Job job
    job.p = pool_of(held)
    cdef const Pool* p = &job.p
    cdef const real* x = reals(held, 1, elements_of(p), like)
    cdef real* y = reals(held, 3, windows_of(p), like)
    cdef Labels r = labels_of(held, 4, p)
    job.starts = integers(held, 2, p.planes * (p.z.out + p.y.out + p.x.out))
    return run(&job, x, y, &r, threads)


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that a direction needs: none."""
    return 0


def fprop(geometry, x, y, label, scratch, int threads, /):
    """Write the maxima of adaptive windows, and labels, as `pool_max_flat.fprop`."""
    call((geometry, x), (y, label, scratch), threads, maxima[float], maxima[double])


def fractional(geometry, x, starts, y, index, int threads, /):
    """Write the maxima of windows at `starts`, and where they are unless that is None."""
    call(
        (geometry, x, starts), (y, index), threads, drawn_maxima[float],
        drawn_maxima[double],
    )
