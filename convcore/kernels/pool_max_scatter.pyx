# The gradient of max pooling from flat indices, which are checked on the way, or labels.
#
# What      dx[i] = sum of dy[o] over windows o with index[o] = i
#           check: whether every index lies in its own window
# Layout    planes (n*c) of (id, ih, iw) and of (od, oh, ow), flat. Windows are taken in runs:
#           a whole plane, some planes of few windows, or a piece of a row where a plane has
#           many. Tables that all runs share tell of each window of a run
#
#               first      its first element, counted from where the run begins
#               count      its elements along W
#               tall       the elements from its first to its last, in one slab
#               deep       the same in the plane
#
#           so many indices at once are looked at: inside is index - first - k * iw < count,
#           unsigned, for some row k of the window, none of them beyond `tall` and `deep`.
# Assumes   buffers of the sizes that the geometry tells; windows.pxd; planes of less than
#           2**31 elements; no dilation.
# Parallel  over planes: each is written by one task, its windows in order.
# Scratch   on the stack: tables 64 KB, the indices of a run as they were checked, 16 KB.
# Cost      memory: one read of dy and of 8 bytes an index, one write of dx. Zeros are
#           written just before the windows that add to them, so those are found in L1.
# Why not   Gather by elements: a comparison for each tap, in lanes that narrow planes leave
#           empty, where an addition takes 3 cycles a window whatever the shape.

from cython.parallel cimport prange
from libc.string cimport memset

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    Buffers, call, flags_of, has_integers, integers, integers_or_nothing, reals, refuse,
)
from convcore.kernels.pool_flat cimport TAPS, first_bits, lanes_of
from convcore.kernels.pool_scatter_labels cimport (
    AHEAD, SMALL, Away, clear, end_of, measure_taps, plane_by_labels,
)
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport ahead, cc_fetch, f32v, part, real
from convcore.kernels.windows cimport (
    Axis, Pool, elements_of, first_of, pool_of, start_of, stop_of, windows_of,
)
from convcore.kernels.words cimport any_word, below, each_word, high_words, low_words, word

cdef enum:
    RUN = 1024  # windows of a run, at most
    PIECE = 512  # of a run where a row has more
    SPARE = 16  # entries behind a table: vectors end in them
    WHOLE = 4096  # windows of a plane that is one run, though its rows are short
    FEW = 32  # windows of a run of some planes
    SHORT = 32  # windows of such a row: two vectors, both of them used in part
    LINE = 64

cdef struct Marks:
    unsigned int[WHOLE + SPARE] first, count, tall, deep

cdef struct Job:
    Pool p
    Marks m
    Py_ssize_t cells, windows  # of a plane
    Py_ssize_t slabs, rows  # of a window, at most
    bint whole  # a run is a plane, or some
    Py_ssize_t group  # planes of a run
    Away away
    const unsigned char* tap  # labels of all planes, if those are given

cdef struct Run:
    Py_ssize_t at, n  # the first window, and how many
    Py_ssize_t mark  # its entry in the tables
    Py_ssize_t begin  # the element that these count from
    Py_ssize_t slabs, rows  # of its windows, at most


cdef inline word in_windows(const Job* job, const Run* r, Py_ssize_t j, word index) noexcept nogil:
    """Set the lanes whose index lies in its window; the first is window j of the run."""
    cdef word count = (<const word*>&job.m.count[r.mark + j])[0]
    cdef word tall = (<const word*>&job.m.tall[r.mark + j])[0]
    cdef word deep = (<const word*>&job.m.deep[r.mark + j])[0]
    cdef word first = (<const word*>&job.m.first[r.mark + j])[0]
    cdef word place = index - first - each_word(<unsigned int>r.begin), away, some, inside
    cdef word row = each_word(<unsigned int>job.p.x.extent)
    cdef word slab = row * each_word(<unsigned int>job.p.y.extent)
    inside = each_word(0)
    deep = below(place, deep)
    for _ in range(r.slabs):
        some = below(place, count)
        away = place
        for _ in range(1, r.rows):
            away = away - row
            some = some | below(away, count)
        inside = inside | some & below(place, tall)
        place = place - slab
    return inside & deep


cdef inline word outside(
    const Job* job, const Run* r, Py_ssize_t j, f32v a, f32v b, unsigned int* cell
) noexcept nogil:
    """Cut a vector of indices to 32 bits; set something in lanes that are not inside."""
    cdef word index = low_words(a, b)
    (<word*>(cell + j))[0] = index
    return high_words(a, b) | ~in_windows(job, r, j, index)


cdef inline bint take_run(
    const Job* job, const Run* r, const long long* index, unsigned int* cell
) noexcept nogil:
    """Cut the indices of a run to 32 bits; tell whether all are inside."""
    cdef Py_ssize_t j = 0, lanes = lanes_of(<f32v*>index)
    cdef const f32v* v
    cdef f32v[1] rest
    cdef word bad = each_word(0)
    cdef unsigned long long bits
    while j + lanes <= r.n:
        v = <const f32v*>(index + r.at + j)
        cc_fetch(<const char*>v + AHEAD)
        cc_fetch(<const char*>v + AHEAD + LINE)
        bad = bad | outside(job, r, j, v[0], ahead(v, lanes)[0], cell)
        j += lanes
    if j < r.n:
        v = <const f32v*>(index + r.at + j)
        bits = first_bits(2 * (r.n - j))
        (<word*>rest)[0] = outside(
            job, r, j, part(v, bits), part(ahead(v, lanes), bits >> lanes), cell
        )
        rest[0] = part(<const f32v*>rest, first_bits(r.n - j))
        bad = bad | (<word*>rest)[0]
    return not any_word(bad)


cdef inline void add_run(
    const unsigned int* cell, const real* source, Py_ssize_t n, real* to
) noexcept nogil:
    """Add the values of a run to their cells, in order."""
    cdef Py_ssize_t o = 0, end
    while o < n:
        cc_fetch(<const char*>(source + o) + AHEAD)
        end = min(o + LINE // <Py_ssize_t>sizeof(real), n)
        while o < end:
            to[cell[o]] += source[o]
            o += 1


cdef inline Py_ssize_t length_of(const Axis* a, Py_ssize_t x) noexcept nogil:
    """Give the windows of the run that begins at window x of a row."""
    return a.out - x if a.out - x <= RUN else PIECE


cdef inline Run run_at(
    const Job* job, Py_ssize_t z, Py_ssize_t y, Py_ssize_t x
) noexcept nogil:
    """Give the run that begins at a window, as long as `mark_rows` has made it."""
    cdef const Pool* p = &job.p
    cdef Run r
    r.slabs = stop_of(&p.z, z) - first_of(&p.z, z)
    r.rows = stop_of(&p.y, y) - first_of(&p.y, y)
    r.at = (z * p.y.out + y) * p.x.out + x
    r.n = length_of(&p.x, x)
    r.begin = (first_of(&p.z, z) * p.y.extent + first_of(&p.y, y)) * p.x.extent
    r.mark = 0
    if x > 0 and x + r.n == p.x.out:
        r.mark = RUN
    elif x > 0:
        r.mark = PIECE
        r.begin += start_of(&p.x, x)
    return r


cdef inline bint plane_in_runs(
    const Job* job, const real* dy, const long long* index, real* dx
) noexcept nogil:
    """Do one plane, row by row; without dx, check only. Tell whether all is well."""
    cdef const Pool* p = &job.p
    cdef unsigned int[RUN + SPARE] cell
    cdef Py_ssize_t z, y, x, zeros = 0, end
    cdef Run r
    for z in range(p.z.out):
        for y in range(p.y.out):
            x = 0
            while x < p.x.out:
                r = run_at(job, z, y, x)
                x += r.n
                if not take_run(job, &r, index, cell):
                    return False
                if dx == NULL:
                    continue
                end = end_of(p, z, y, x - 1)
                clear(dx + zeros, end - zeros)
                zeros = max(zeros, end)
                add_run(<const unsigned int*>cell, dy + r.at, r.n, dx)
    if dx != NULL:
        clear(dx + zeros, job.cells - zeros)
    return True


cdef inline bint planes_in_one(
    const Job* job, Py_ssize_t planes, const real* dy, const long long* index, real* dx
) noexcept nogil:
    """Do one plane of few windows, or some planes, which are one run."""
    cdef unsigned int[WHOLE + SPARE] cell
    cdef const Pool* p = &job.p
    cdef Py_ssize_t z, y, at = 0, zeros = 0, end, n = job.windows
    cdef Run r
    r.at = r.mark = r.begin = 0
    r.n, r.slabs, r.rows = n * planes, job.slabs, job.rows
    if not take_run(job, &r, index, cell):
        return False
    if dx == NULL:
        return True
    if job.cells <= SMALL or job.group > 1:
        for _ in range(planes):
            clear(dx, job.cells)
            add_run(<const unsigned int*>cell + at, dy + at, n, dx)
            dx += job.cells
            at += n
        return True
    for z in range(p.z.out):
        for y in range(p.y.out):
            end = end_of(p, z, y, p.x.out - 1)
            clear(dx + zeros, end - zeros)
            zeros = max(zeros, end)
            add_run(<const unsigned int*>cell + at, dy + at, p.x.out, dx)
            at += p.x.out
    clear(dx + zeros, job.cells - zeros)
    return True


cdef Py_ssize_t do_planes(
    const Job* job, const real* dy, const long long* index, real* dx, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Do planes begin .. end; count those with an index that is not inside."""
    cdef Py_ssize_t i = begin, n, bad = 0
    cdef const long long* its
    cdef const real* dy_i
    cdef real* dx_i
    while i < end:
        n = min(job.group, end - i)
        its = index + i * job.windows
        dy_i, dx_i = dy, dx
        if dx != NULL:
            dy_i, dx_i = dy + i * job.windows, dx + i * job.cells
        if job.tap != NULL:
            plane_by_labels(&job.p, &job.away, dy_i, job.tap + i * job.windows, dx_i)
        elif job.whole:
            bad += not planes_in_one(job, n, dy_i, its, dx_i)
        else:
            bad += not plane_in_runs(job, dy_i, its, dx_i)
        i += n
    return bad


cdef Py_ssize_t do_tasks(
    const Job* job, const Rounds* r, const real* dy, const long long* index, real* dx,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i, bad = 0
    if threads == 1:
        return do_planes(job, dy, index, dx, first_piece(r, begin), first_piece(r, end))
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        bad += do_planes(job, dy, index, dx, first_piece(r, i), first_piece(r, i + 1))
    return bad


cdef Py_ssize_t all_planes(
    const Job* job, const real* dy, const long long* index, real* dx, int threads
) except -1:
    """Do all planes, in rounds between which Ctrl-C is looked for, up to a bad one."""
    cdef Rounds r = rounds(job.p.planes, job.cells + job.windows, threads)
    cdef Py_ssize_t begin = 0, end, bad = 0
    while begin < r.tasks and not bad:
        end = min(begin + r.step, r.tasks)
        with nogil:
            bad = do_tasks(job, &r, dy, index, dx, begin, end, threads)
        look()
        begin = end
    return bad


cdef void mark_columns(Job* job, Py_ssize_t at, Py_ssize_t x, Py_ssize_t n) noexcept nogil:
    """Write the marks of windows x .. x + n of a row, whatever the row."""
    cdef Py_ssize_t j
    for j in range(n):
        job.m.first[at + j] = <unsigned int>first_of(&job.p.x, x + j)
        job.m.count[at + j] = <unsigned int>(
            stop_of(&job.p.x, x + j) - first_of(&job.p.x, x + j)
        )


cdef void mark_planes(Job* job) noexcept nogil:
    """Write the marks of all windows of a plane, for each plane of a run."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t z, y, j = 0, slab = p.y.extent * p.x.extent, rows
    for z in range(p.z.out):
        for y in range(p.y.out):
            mark_columns(job, j, 0, p.x.out)
            rows = stop_of(&p.y, y) - first_of(&p.y, y)
            for _ in range(p.x.out):
                job.m.first[j] += <unsigned int>(
                    first_of(&p.z, z) * slab + first_of(&p.y, y) * p.x.extent
                )
                job.m.tall[j] = <unsigned int>((rows - 1) * p.x.extent) + job.m.count[j]
                job.m.deep[j] = job.m.tall[j] + <unsigned int>(
                    (stop_of(&p.z, z) - first_of(&p.z, z) - 1) * slab
                )
                j += 1
    y = job.windows
    for j in range(y, job.group * y):
        job.m.first[j], job.m.count[j] = job.m.first[j - y], job.m.count[j - y]
        job.m.tall[j], job.m.deep[j] = job.m.tall[j - y], job.m.deep[j - y]


cdef void mark_rows(Job* job) noexcept nogil:
    """Write the marks of the runs of a row: the first, one in the middle, the last."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t j, x = 0
    memset(job.m.tall, 255, sizeof(job.m.tall))  # the rows of a run are known
    memset(job.m.deep, 255, sizeof(job.m.deep))
    mark_columns(job, 0, 0, length_of(&p.x, 0))
    if p.x.out <= RUN:
        return
    for j in range(PIECE):
        job.m.first[PIECE + j] = <unsigned int>(j * p.x.stride)
        job.m.count[PIECE + j] = <unsigned int>p.x.kernel
    while p.x.out - x > RUN:
        x += PIECE
    mark_columns(job, RUN, x, p.x.out - x)


cdef inline bint is_dense(const Axis* a) noexcept nogil:
    """Whether windows are runs of neighbours, all alike."""
    return a.kernel > 0 and a.dilation == 1


cdef int prepare(Job* job) except -1:
    """Write the tables; refuse what they have no room for."""
    cdef const Pool* p = &job.p
    job.tap = NULL
    job.group = 1
    job.cells = p.z.extent * p.y.extent * p.x.extent
    job.windows = p.z.out * p.y.out * p.x.out
    job.slabs, job.rows = p.z.kernel, p.y.kernel
    job.whole = job.windows <= (WHOLE if p.x.out <= SHORT else RUN)
    if not (is_dense(&p.z) and is_dense(&p.y) and is_dense(&p.x)):
        refuse()
    if job.cells >= 2147483648 or p.x.out > RUN and p.x.kernel > PIECE:
        refuse()
    if job.whole:
        job.group = max(1, min(p.planes, FEW // job.windows))
        mark_planes(job)
    else:
        mark_rows(job)
    return 0


cdef int prepare_labels(Job* job, const unsigned char* tap) except -1:
    """Do the same for labels."""
    cdef const Pool* p = &job.p
    if <double>p.z.kernel * p.y.kernel * p.x.kernel > TAPS:
        refuse()
    if not (is_dense(&p.z) and is_dense(&p.y) and is_dense(&p.x)):
        refuse()
    measure_taps(p, &job.away)
    job.tap, job.group, job.cells = tap, 1, job.away.cells
    job.windows = p.z.out * p.y.out * p.x.out
    return 0


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, index or labels, dx and found, and write the latter two."""
    cdef Job job
    job.p = pool_of(held)
    cdef const real* dy = reals(held, 1, windows_of(&job.p), like)
    cdef const long long* index = NULL
    cdef const unsigned char* tap = NULL
    cdef real* dx = reals(held, 3, elements_of(&job.p), like)
    cdef long long* found = integers_or_nothing(held, 4, 1)
    cdef Py_ssize_t bad = 0
    if has_integers(held, 2):
        index = integers(held, 2, windows_of(&job.p))
    else:
        tap = flags_of(held, 2, windows_of(&job.p))
    if job.p.planes:
        if tap == NULL:
            prepare(&job)
        else:
            prepare_labels(&job, tap)
        bad = all_planes(&job, dy, index, dx, threads)
    if found != NULL:
        found[0] = 0 if bad else -1
    return 0


cdef int checked(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, index and found, and write the latter."""
    cdef Job job
    job.p = pool_of(held)
    cdef const long long* index = integers(held, 1, windows_of(&job.p))
    cdef long long* found = integers(held, 2, 1)
    cdef Py_ssize_t bad = 0
    if job.p.planes:
        prepare(&job)
        bad = all_planes(&job, <const real*>NULL, index, <real*>NULL, threads)
    found[0] = 0 if bad else -1
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that a direction needs: none."""
    return 0


def dgrad(geometry, dy, index, dx, scratch, int threads, /):
    """Write the gradient of x from int64 indices, or labels that are bytes.

    A plane with an index not in its window is not complete; bytes that are no tap get
    nothing.
    """
    checked_dgrad(geometry, dy, index, dx, None, scratch, threads)


def checked_dgrad(geometry, dy, index, dx, found, scratch, int threads, /):
    """Do the same, and write -1, or 0 if an index is not in its own window."""
    call(
        (geometry, dy, index), (dx, found, scratch), threads, gradient[float],
        gradient[double],
    )


def check(geometry, index, found, scratch, int threads, /):
    """Write -1, or 0 if an index is not in its own window."""
    call((geometry, index), (found, scratch), threads, checked[float], checked[double])
