# Max pooling of small planes: a plane for each lane.
#
# What      y[o] = max x[i] over i in window(o); label[o] tells which one it is: the first
#           NaN, or else the first of equal maxima, in row-major order
# Layout    As many planes as a vector has lanes are turned, so that the element (y, x) of
#           all of them is one vector; results are turned back:
#
#               plane 0   a b c ...            a0 a1 a2 ...
#               plane 1   a b c ...    ->      b0 b1 b2 ...      element by element
#               plane 2   a b c ...            c0 c1 c2 ...
#
#           A band is as many rows of y as the elements under them fit the scratch. Values
#           alone: rows of a window first, then columns. With labels columns first: the
#           first row of equal maxima has the first element then, and windows that share
#           rows share what was found in them.
# Assumes   buffers of the sizes that the geometry tells; windows that have an element and
#           fit the scratch; bytes only for windows of at most 256 elements.
# Parallel  over bands of groups of planes. The lanes behind the last plane do what it
#           does, and are not stored.
# Scratch   the band, maxima of its rows and their labels: 48 KB on the stack where a plane
#           fits them, else 240 KB a thread; on the caller's stack, tables of 30 KB.
# Cost      four shuffles for a vector of x and of results, and one contest a tap of a row
#           or a column: (256, 256, 13, 13), 3 x 3, stride 2, is bound by shuffles.
# Why not   Rows of a plane as vectors: 6 windows take as long as 16.
# Source    Gil and Kimmel, IEEE TPAMI 24 (2002): first along one axis, then along the other.

from cython.parallel cimport prange, threadid
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy

from convcore.kernels.blocks cimport Rounds, first_piece, rounds, taps_at_most
from convcore.kernels.buffers cimport (
    Buffers, call, is_nothing, read_geometry, reals, refuse, room,
)
from convcore.kernels.pool_flat cimport first_bits, lanes_of
from convcore.kernels.teams cimport look
from convcore.kernels.transpose cimport MOST_LANES, mix
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, cc_fetch, cc_fetch_to_write, f32v, f64v, part, put_part, real, vec,
)
from convcore.kernels.vector_compare cimport (
    all_labels, contest, later, plus_labels,
)
from convcore.kernels.windows cimport (
    POOL_FIELDS, Axis, Labels, Pool, elements_of, first_of, labels_of, pool_of, start_of,
    steps_over, stop_of, taps_of, windows_of,
)

cdef enum:
    NEAR = 256  # vectors of a band, of maxima of its rows, of results, on the stack
    CELLS = 1280  # the same in scratch that is lent
    DOUBLES = 8  # of a vector, at most
    PART = 3 * CELLS * 64  # bytes of it, for a thread
    TAPS = 256  # whose numbers are bytes
    AHEAD = 4096  # bytes from what is written to what is asked for
    LINE = 64

cdef struct Job:
    Pool p
    Py_ssize_t cells, windows  # of a plane
    Py_ssize_t each, per_slab, bands  # rows of y in a band; bands of a slab, of a plane
    Py_ssize_t apart, line, across  # elements between taps along W, H and D; 1 is dense
    long long step, row, slab  # labels from a tap to the next, from a row of taps, a slab
    bint labelled, flat
    char* room  # scratch of all threads, or NULL
    Py_ssize_t[CELLS] first, count  # of the windows along W
    long long[CELLS] tap  # that they begin with

cdef struct Band:
    Py_ssize_t z, y, rows  # of y
    Py_ssize_t first_z, first_y, slabs, lines  # of x: slabs of so many rows
    Py_ssize_t to, n  # windows of a plane before them; their windows


cdef inline Py_ssize_t begin_of(const Axis* a, Py_ssize_t o) noexcept nogil:
    """Give the place of the first tap of a window."""
    return first_of(a, o) if a.kernel == 0 else start_of(a, o)


cdef inline Band band_at(const Job* job, Py_ssize_t i) noexcept nogil:
    """Find the i-th band of a plane."""
    cdef const Pool* p = &job.p
    cdef Band b
    b.z = i // job.per_slab
    b.y = (i - b.z * job.per_slab) * job.each
    b.rows = min(job.each, p.y.out - b.y)
    b.first_z, b.first_y = first_of(&p.z, b.z), max(begin_of(&p.y, b.y), 0)
    b.slabs = taps_of(&p.z, b.z)
    b.lines = stop_of(&p.y, b.y + b.rows - 1) - b.first_y
    b.to = (b.z * p.y.out + b.y) * p.x.out
    b.n = b.rows * p.x.out
    return b


cdef inline void turn_in(
    const vec* x, Py_ssize_t plane, Py_ssize_t planes, Py_ssize_t n, Py_ssize_t next_,
    vec* to,
) noexcept nogil:
    """Give n elements of some planes, `plane` scalars apart, as vectors.

    Those that are `next_` scalars further on are asked for.
    """
    cdef vec[MOST_LANES] block
    cdef Py_ssize_t lanes = lanes_of(x), j = 0, i, m = min(n, lanes)
    cdef unsigned long long bits = first_bits(m)
    cdef const vec* at
    while True:
        at = ahead(x, j)
        if planes == lanes and m == lanes:
            for i in range(lanes):
                cc_fetch(ahead(at, next_))
                block[i] = at[0]
                at = ahead(at, plane)
        else:
            for i in range(lanes):
                block[i] = part(at, bits)
                if i + 1 < planes:
                    at = ahead(at, plane)
        mix(block)
        for i in range(m):
            to[j + i] = block[i]
        j += lanes
        if j >= n:
            return
        j = min(j, n - lanes)


cdef inline void turn_back(const vec* v, Py_ssize_t n, vec* to) noexcept nogil:
    """Turn n vectors back: n scalars for each lane, one lane after the other."""
    cdef vec[MOST_LANES] block
    cdef Py_ssize_t lanes = lanes_of(v), j = 0, i, m = min(n, lanes)
    if n == 1:
        to[0] = v[0]
        return
    while True:
        for i in range(lanes):
            block[i] = v[j + min(i, m - 1)]
        mix(block)
        if m == lanes:
            for i in range(lanes):
                (<vec*>ahead(to, i * n + j))[0] = block[i]
        else:
            for i in range(lanes):
                put_part(<vec*>ahead(to, i * n), block[i], m)
        j += lanes
        if j >= n:
            return
        j = min(j, n - lanes)


cdef inline void put_lines(const void* v, Py_ssize_t n, void* to) noexcept nogil:
    """Copy n bytes, line by line."""
    cdef Py_ssize_t i = 0
    while i + LINE <= n:
        cc_fetch_to_write(<char*>to + i + AHEAD)
        memcpy(<char*>to + i, <const char*>v + i, LINE)
        i += LINE
    memcpy(<char*>to + i, <const char*>v + i, n - i)


cdef inline void put_bytes(
    const real* v, Py_ssize_t n, unsigned char* tap
) noexcept nogil:
    """Store n labels as bytes."""
    cdef Py_ssize_t j
    for j in range(n):
        if real is float:
            tap[j] = <unsigned char>(<const int*>v)[j]
        else:
            tap[j] = <unsigned char>(<const long long*>v)[j]


cdef inline void put_indices(const real* v, Py_ssize_t n, long long* index) noexcept nogil:
    """Store n labels as indices."""
    cdef Py_ssize_t i = 0, j
    if real is double:
        put_lines(v, n * sizeof(double), index)
    else:
        while i + LINE // 8 <= n:
            cc_fetch_to_write(<const char*>(index + i) + AHEAD)
            for j in range(LINE // 8):
                index[i + j] = (<const int*>v)[i + j]
            i += LINE // 8
        for j in range(i, n):
            index[j] = (<const int*>v)[j]


cdef inline void max_rows(
    const vec* x, const Job* job, Py_ssize_t slabs, Py_ssize_t slab, Py_ssize_t rows, vec* to
) noexcept nogil:
    """Write the maxima over some rows of some slabs."""
    cdef Py_ssize_t i, y, z, n = job.p.x.extent, row = n * job.line
    cdef vec a
    for i in range(n):
        a = x[i]
        for y in range(1, rows):
            a = later(x[i + y * row], a)
        for z in range(1, slabs):
            for y in range(rows):
                a = later(x[i + z * slab + y * row], a)
        to[i] = a


cdef inline vec max_along(const vec* x, Py_ssize_t n, Py_ssize_t apart) noexcept nogil:
    """Give the maximum of n vectors."""
    cdef vec a = x[0]
    cdef Py_ssize_t k
    for k in range(1, n):
        a = later(x[k * apart], a)
    return a


cdef inline void max_of_band(
    const Job* job, const Band* b, const vec* x, vec* spare, vec* best
) noexcept nogil:
    """Write the maxima of all windows of a band."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t y, j, slab = b.lines * p.x.extent, rows, k
    cdef const vec* at
    for y in range(b.rows):
        k = first_of(&p.y, b.y + y)
        rows = taps_of(&p.y, b.y + y)
        at = x + (k - b.first_y) * p.x.extent
        if b.slabs == 1 and rows == 3:
            max_rows(at, job, 1, slab, 3, spare)
        elif b.slabs == 1 and rows == 2:
            max_rows(at, job, 1, slab, 2, spare)
        else:
            max_rows(at, job, b.slabs, slab, rows, spare)
        for j in range(p.x.out):
            at = spare + job.first[j]
            if job.apart > 1:
                best[j] = max_along(at, job.count[j], job.apart)
            elif job.count[j] == 3:
                best[j] = max_along(at, 3, 1)
            else:
                best[j] = max_along(at, job.count[j], 1)
        best += p.x.out


cdef inline void argmax_along(
    const vec* x, Py_ssize_t n, Py_ssize_t apart, long long tap, long long step, vec* best,
    vec* label,
) noexcept nogil:
    """Give the maximum of n vectors, and which it was; the first is `tap`."""
    cdef vec a = x[0], k = all_labels(x, tap)
    cdef Py_ssize_t i
    for i in range(1, n):
        contest(x[i * apart], all_labels(x, tap + i * step), &a, &k)
    best[0] = a
    label[0] = k


cdef inline void argmax_rows(
    const Job* job, Py_ssize_t lines, const vec* x, vec* best, vec* label
) noexcept nogil:
    """Write the maxima along each row of a band, and their taps."""
    cdef Py_ssize_t j, at, row = job.p.x.extent, n = job.p.x.out
    for _ in range(lines):
        for j in range(n):
            at = job.first[j]
            if job.apart > 1:
                argmax_along(
                    x + at, job.count[j], job.apart, job.tap[j], job.step, best + j,
                    label + j,
                )
            elif job.count[j] == 3:
                argmax_along(x + at, 3, 1, job.tap[j], 1, best + j, label + j)
            else:
                argmax_along(x + at, job.count[j], 1, job.tap[j], 1, best + j, label + j)
        x += row
        best += n
        label += n


cdef inline void argmax_of_columns(
    const Job* job, Py_ssize_t slabs, Py_ssize_t slab, Py_ssize_t rows, long long tap,
    long long start, const vec* best, const vec* label, vec* to, vec* which,
) noexcept nogil:
    """Write maxima over rows, and their labels; the first row is `tap`, less `start`."""
    cdef Py_ssize_t j, y, z, wide = job.p.x.out, row = wide * job.line, at
    cdef long long n, below = job.row
    cdef vec a, k
    for j in range(wide):
        a = best[j]
        k = plus_labels(label[j], all_labels(best, tap))
        for y in range(1, rows):
            at = j + y * row
            contest(
                best[at], plus_labels(label[at], all_labels(best, tap + y * below)), &a, &k
            )
        for z in range(1, slabs):
            for y in range(rows):
                at = j + z * slab + y * row
                n = tap + z * job.slab + y * below
                contest(best[at], plus_labels(label[at], all_labels(best, n)), &a, &k)
        to[j] = a
        which[j] = k
    if job.flat:
        for j in range(wide):
            n = start + job.first[j] - job.tap[j]
            which[j] = plus_labels(which[j], all_labels(best, n))


cdef inline void argmax_of_band(
    const Job* job, const Band* b, const vec* x, vec* spare, vec* labels, vec* best,
    vec* which,
) noexcept nogil:
    """Write the maxima of all windows of a band, and their labels."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t y, slab = b.lines * p.x.out, rows, k, at
    cdef Py_ssize_t y0, z0 = begin_of(&p.z, b.z)
    cdef long long tap, start
    argmax_rows(job, b.slabs * b.lines, x, spare, labels)
    for y in range(b.rows):
        k = first_of(&p.y, b.y + y)
        rows = taps_of(&p.y, b.y + y)
        y0 = begin_of(&p.y, b.y + y)
        tap = (b.first_z - z0) // job.across * job.slab + (k - y0) // job.line * job.row
        start = (z0 * p.y.extent + y0) * p.x.extent
        at = (k - b.first_y) * p.x.out
        if b.slabs == 1 and rows == 3:
            argmax_of_columns(
                job, 1, slab, 3, tap, start, spare + at, labels + at, best, which
            )
        else:
            argmax_of_columns(
                job, b.slabs, slab, rows, tap, start, spare + at, labels + at, best, which
            )
        best += p.x.out
        which += p.x.out


cdef inline void find_maxima(
    const Job* job, const Band* b, Py_ssize_t planes, const vec* x, vec* held, vec* spare,
    vec* labels,
) noexcept nogil:
    """Write the maxima of a band to `spare`, and their labels to `labels`."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t n = b.lines * p.x.extent, z
    cdef Py_ssize_t next_ = lanes_of(x) * job.cells if job.bands == 1 else n
    x = ahead(x, b.first_y * p.x.extent)
    for z in range(b.slabs):
        turn_in(
            ahead(x, (b.first_z + z * job.across) * p.y.extent * p.x.extent), job.cells,
            planes, n,
            next_, held + z * n,
        )
    if not job.labelled:
        max_of_band(job, b, held, spare, labels)
        turn_back(labels, b.n, spare)
        return
    argmax_of_band(job, b, held, spare, labels, held, held + b.n)
    turn_back(held, b.n, spare)
    turn_back(held + b.n, b.n, labels)


cdef inline void do_band(
    const Job* job, const Band* b, Py_ssize_t plane, const real* x, real* y,
    const Labels* r, real* space, Py_ssize_t each,
) noexcept nogil:
    """Write one band of a group of planes; `space` is for three times `each` scalars."""
    cdef real* spare = space + each
    cdef real* labels = spare + each
    cdef Py_ssize_t planes, i, n = b.n, to = plane * job.windows + b.to
    planes = min(VEC_BYTES // <Py_ssize_t>sizeof(real), job.p.planes - plane)
    x += plane * job.cells
    if real is float:
        find_maxima(job, b, planes, <f32v*>x, <f32v*>space, <f32v*>spare, <f32v*>labels)
    else:
        find_maxima(job, b, planes, <f64v*>x, <f64v*>space, <f64v*>spare, <f64v*>labels)
    if job.bands == 1:
        n, planes = n * planes, 1
    for i in range(planes):
        put_lines(spare + i * n, n * sizeof(real), y + to)
        if r.index != NULL:
            put_indices(<const real*>labels + i * n, n, r.index + to)
        elif r.tap != NULL:
            put_bytes(<const real*>labels + i * n, n, r.tap + to)
        to += job.windows


cdef void do_bands(
    const Job* job, const real* x, real* y, const Labels* r, Py_ssize_t begin,
    Py_ssize_t end, int thread,
) noexcept nogil:
    """Write bands begin .. end, counted through all groups of planes."""
    cdef double[3 * NEAR * DOUBLES + DOUBLES] near
    cdef Py_ssize_t i, group, lanes = VEC_BYTES // <Py_ssize_t>sizeof(real)
    cdef Py_ssize_t each = lanes * (NEAR if job.room == NULL else CELLS)
    cdef real* space = <real*>((<uintptr_t>near + LINE - 1) // LINE * LINE)
    cdef Band b
    if job.room != NULL:
        space = <real*>(job.room + thread * PART)
    for i in range(begin, end):
        group = i // job.bands
        b = band_at(job, i - group * job.bands)
        do_band(job, &b, group * lanes, x, y, r, space, each)


cdef void do_tasks(
    const Job* job, const Rounds* rs, const real* x, real* y, const Labels* r,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        do_bands(job, x, y, r, first_piece(rs, begin), first_piece(rs, end), 0)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        do_bands(job, x, y, r, first_piece(rs, i), first_piece(rs, i + 1), threadid())


cdef inline Py_ssize_t reach(const Axis* a, Py_ssize_t windows) noexcept nogil:
    """Bound the elements under so many neighbouring windows."""
    if a.kernel == 0:
        return min(a.extent, (windows * a.extent - 1) // a.out + 2)
    return min(a.extent, (windows - 1) * a.stride + (a.kernel - 1) * a.dilation + 1)


cdef int divide(Job* job) except -1:
    """Find how many rows a band has; refuse what does not fit."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t slabs = (reach(&p.z, 1) - 1) // job.across + 1, n = 1
    cdef Py_ssize_t wide = max(p.x.extent, p.x.out)
    cdef Py_ssize_t most = NEAR if job.room == NULL else CELLS
    if slabs * reach(&p.y, 1) * wide > most or 2 * p.x.out > most:
        refuse()
    while n < p.y.out and 2 * (n + 1) * p.x.out <= most and (
        slabs * reach(&p.y, n + 1) * wide <= most
    ):
        n += 1
    job.per_slab = (p.y.out - 1) // n + 1
    job.each = (p.y.out - 1) // job.per_slab + 1
    job.bands = job.per_slab * p.z.out
    return 0


cdef inline Py_ssize_t apart(const Axis* a) noexcept nogil:
    """Give the elements from one tap to the next."""
    return 1 if a.kernel == 0 else a.dilation


cdef int prepare(Job* job) except -1:
    """Write the tables."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t j, depth
    if steps_over(&p.z) or steps_over(&p.y) or steps_over(&p.x):
        refuse()
    job.apart, job.line, job.across = apart(&p.x), apart(&p.y), apart(&p.z)
    divide(job)
    job.cells = p.z.extent * p.y.extent * p.x.extent
    job.windows = p.z.out * p.y.out * p.x.out
    if job.cells >= 2147483648:
        refuse()
    job.step, job.row = job.apart, job.line * p.x.extent
    job.slab = job.across * p.y.extent * p.x.extent
    if not job.flat:
        job.step = 1
        job.row, job.slab = p.x.kernel, p.y.kernel * p.x.kernel
        depth = p.z.kernel
        if job.row == 0:  # adaptive
            job.row, depth = taps_at_most(&p.x), taps_at_most(&p.z)
            job.slab = taps_at_most(&p.y) * job.row
        if job.labelled and not 1 <= depth * job.slab <= TAPS:
            refuse()
    for j in range(p.x.out):
        job.first[j] = first_of(&p.x, j)
        job.count[j] = taps_of(&p.x, j)
        job.tap[j] = (job.first[j] - begin_of(&p.x, j)) // job.apart * job.step
    return 0


cdef int maxima(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x, y and the labels, and write y and the labels."""
    cdef Job job
    cdef Py_ssize_t begin = 0, end, lanes = VEC_BYTES // <Py_ssize_t>sizeof(real)
    cdef Rounds rs
    job.p = pool_of(held)
    cdef const real* x = reals(held, 1, elements_of(&job.p), like)
    cdef real* y = reals(held, 2, windows_of(&job.p), like)
    cdef Labels r = labels_of(held, 3, &job.p)
    job.flat = r.index != NULL
    job.labelled = job.flat or r.tap != NULL
    job.room = NULL
    if not is_nothing(held, 4):
        job.room = <char*>room(held, 4, threads * PART // <Py_ssize_t>sizeof(real), like)
    if job.p.planes == 0:
        return 0
    prepare(&job)
    rs = rounds(
        ((job.p.planes - 1) // lanes + 1) * job.bands,
        lanes * (job.cells + 2 * job.windows) // job.bands, threads,
    )
    while begin < rs.tasks:
        end = min(begin + rs.step, rs.tasks)
        with nogil:
            do_tasks(&job, &rs, x, y, &r, begin, end, threads)
        look()
        begin = end
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that a direction needs: none if a plane is small."""
    cdef Pool p
    read_geometry(geometry, <long long*>&p, POOL_FIELDS)
    cdef double cells = <double>p.z.extent * p.y.extent * p.x.extent
    if max(cells, 2.0 * p.z.out * p.y.out * p.x.out) <= NEAR:
        return 0
    return threads * PART // item


def fprop(geometry, x, y, label, scratch, int threads, /):
    """Write the maxima of x to y, and labels, as `pool_max_flat.fprop`."""
    call((geometry, x), (y, label, scratch), threads, maxima[float], maxima[double])
