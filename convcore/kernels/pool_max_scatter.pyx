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
#           With a dilation along W that difference is divided by it first, modulo 2**32:
#           what it does not divide becomes larger than any count (Granlund and
#           Montgomery, PLDI 1994, section 9).
# Assumes   buffers of the sizes that the geometry tells; windows.pxd; planes of less than
#           2**31 elements; windows that have an element.
# Parallel  over planes: each is written by one task, its windows in order. Four planes go
#           side by side: neighbouring windows often have the same winner, whose sum is
#           stored and loaded again, 8 cycles that other planes use.
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
    ABREAST, AHEAD, Away, clear, clear_abreast, end_of, measure_taps,
    planes_by_labels,
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
    FEW = 64  # windows of a plane that shares a run with others
    PITCH = RUN + SPARE  # cells of each
    NEAR = 32768  # bytes of planes whose zeros are written at once: most of L1
    SHORT = 32  # windows of such a row: two vectors, both of them used in part
    LINE = 64

cdef struct Marks:
    unsigned int[WHOLE + SPARE] first, count, tall, deep

cdef struct Job:
    Pool p
    Marks m
    Py_ssize_t cells, windows  # of a plane
    Py_ssize_t slabs, rows  # of a window, at most
    unsigned int row, slab  # elements from a row of a window to the next, from a slab
    unsigned int inverse  # of the odd part of the dilation along W
    int even  # times that this dilation has the factor 2
    bint whole  # the tables have all windows of a plane
    bint few  # a run is some planes
    Py_ssize_t group  # planes that are done together
    Away away
    const unsigned char* tap  # labels of all planes, if those are given

cdef struct Run:
    Py_ssize_t at, n  # the first window, and how many
    Py_ssize_t mark  # its entry in the tables
    Py_ssize_t begin  # the element that these count from
    Py_ssize_t slabs, rows  # of its windows, at most


cdef inline word divided(const Job* job, word n) noexcept nogil:
    """Divide by the powers of two in the dilation, after its odd part."""
    if job.even == 0:
        return n
    return n >> job.even | n << (32 - job.even)


cdef inline word in_windows(const Job* job, const Run* r, Py_ssize_t j, word index) noexcept nogil:
    """Set the lanes whose index lies in its window; the first is window j of the run."""
    cdef word count = (<const word*>&job.m.count[r.mark + j])[0]
    cdef word tall = (<const word*>&job.m.tall[r.mark + j])[0]
    cdef word deep = (<const word*>&job.m.deep[r.mark + j])[0]
    cdef word first = (<const word*>&job.m.first[r.mark + j])[0]
    cdef word place = index - first - each_word(<unsigned int>r.begin), some, inside, far, at
    cdef word row = each_word(job.row * job.inverse), slab = each_word(job.slab)
    cdef word inverse = each_word(job.inverse)
    inside = each_word(0)
    far = ~below(place, deep)
    for _ in range(r.slabs):
        at = place * inverse
        some = below(divided(job, at), count)
        for _ in range(1, r.rows):
            at = at - row
            some = some | below(divided(job, at), count)
        inside = inside | some & below(place, tall)
        place = place - slab
    return inside & ~far


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


cdef inline void add_abreast(
    const unsigned int* cell, Py_ssize_t pitch, const real* source, Py_ssize_t windows,
    Py_ssize_t n, real* to, Py_ssize_t cells, Py_ssize_t planes,
) noexcept nogil:
    """Add n values of each of 1, 2 or 4 planes to their cells, in order."""
    cdef Py_ssize_t o = 0, end, i
    cdef unsigned int[ABREAST] at
    cdef real[ABREAST] sums
    while o < n:
        for i in range(planes):
            cc_fetch(<const char*>(source + i * windows + o) + AHEAD)
        end = min(o + LINE // <Py_ssize_t>sizeof(real), n)
        while o < end:
            for i in range(planes):
                at[i] = cell[i * pitch + o]
                sums[i] = to[i * cells + at[i]] + source[i * windows + o]
            for i in range(planes):
                to[i * cells + at[i]] = sums[i]
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
    r.slabs, r.rows = taps_of(&p.z, z), taps_of(&p.y, y)
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


cdef inline bint take_abreast(
    const Job* job, const Run* r, const long long* index, unsigned int* cell,
    Py_ssize_t planes,
) noexcept nogil:
    """Do `take_run` for the same run of some planes."""
    cdef Py_ssize_t i
    for i in range(planes):
        if not take_run(job, r, index + i * job.windows, cell + i * PITCH):
            return False
    return True


cdef inline bint planes_in_runs(
    const Job* job, const real* dy, const long long* index, real* dx, Py_ssize_t planes
) noexcept nogil:
    """Do planes row by row; without dx, check only. Tell whether all is well."""
    cdef const Pool* p = &job.p
    cdef unsigned int[ABREAST * PITCH] cell
    cdef Py_ssize_t z, y, x, zeros = 0, end, n = job.windows
    cdef Run r
    for z in range(p.z.out):
        for y in range(p.y.out):
            x = 0
            while x < p.x.out:
                r = run_at(job, z, y, x)
                x += r.n
                if not take_abreast(job, &r, index, cell, planes):
                    return False
                if dx == NULL:
                    continue
                end = end_of(p, z, y, x - 1)
                clear_abreast(dx + zeros, end - zeros, job.cells, planes)
                zeros = max(zeros, end)
                add_abreast(
                    <const unsigned int*>cell, PITCH, dy + r.at, n, r.n, dx, job.cells,
                    planes,
                )
    if dx != NULL:
        clear_abreast(dx + zeros, job.cells - zeros, job.cells, planes)
    return True


cdef inline bint planes_in_pieces(
    const Job* job, const real* dy, const long long* index, real* dx, Py_ssize_t planes
) noexcept nogil:
    """Do planes of short rows, of which there are many in a run."""
    cdef unsigned int[ABREAST * PITCH] cell
    cdef const Pool* p = &job.p
    cdef Py_ssize_t row = 0, rows, each = p.x.out, i, zeros = 0, end
    cdef Run r
    r.begin, r.slabs, r.rows = 0, job.slabs, job.rows
    if dx != NULL and planes * job.cells * <Py_ssize_t>sizeof(real) <= NEAR:
        clear(dx, planes * job.cells)
        zeros = job.cells
        each = RUN
    while row < p.z.out * p.y.out:
        rows = min(RUN // p.x.out, p.z.out * p.y.out - row)
        r.at = r.mark = row * p.x.out
        r.n = rows * p.x.out
        if not take_abreast(job, &r, index, cell, planes):
            return False
        i = 0
        while i < r.n and dx != NULL:
            if zeros < job.cells:
                end = row + i // each
                end = end_of(p, end // p.y.out, end % p.y.out, p.x.out - 1)
                clear_abreast(dx + zeros, end - zeros, job.cells, planes)
                zeros = max(zeros, end)
            add_abreast(
                <const unsigned int*>cell + i, PITCH, dy + r.at + i, job.windows,
                min(each, r.n - i), dx, job.cells, planes,
            )
            i += each
        row += rows
    if dx != NULL:
        clear_abreast(dx + zeros, job.cells - zeros, job.cells, planes)
    return True


cdef inline void add_few(
    const Job* job, const unsigned int* cell, const real* dy, real* dx, Py_ssize_t planes
) noexcept nogil:
    """Write whole planes of few windows."""
    clear(dx, planes * job.cells)
    add_abreast(cell, job.windows, dy, job.windows, job.windows, dx, job.cells, planes)


cdef inline bint planes_in_one(
    const Job* job, Py_ssize_t planes, const real* dy, const long long* index, real* dx
) noexcept nogil:
    """Do some planes of few windows, which are one run."""
    cdef unsigned int[RUN + SPARE] cell
    cdef Py_ssize_t i = 0, n = job.windows
    cdef Run r
    r.at = r.mark = r.begin = 0
    r.n, r.slabs, r.rows = n * planes, job.slabs, job.rows
    if not take_run(job, &r, index, cell):
        return False
    if dx == NULL:
        return True
    while i + ABREAST <= planes:
        add_few(job, <const unsigned int*>cell + i * n, dy + i * n, dx + i * job.cells, ABREAST)
        i += ABREAST
    if i + 2 <= planes:
        add_few(job, <const unsigned int*>cell + i * n, dy + i * n, dx + i * job.cells, 2)
        i += 2
    if i < planes:
        add_few(job, <const unsigned int*>cell + i * n, dy + i * n, dx + i * job.cells, 1)
    return True


cdef inline bint some_planes(
    const Job* job, const real* dy, const long long* index, const unsigned char* tap,
    real* dx, Py_ssize_t planes,
) noexcept nogil:
    """Do 1, 2 or 4 planes."""
    if tap != NULL:
        planes_by_labels(&job.p, &job.away, dy, tap, dx, planes)
        return True
    if job.whole:
        return planes_in_pieces(job, dy, index, dx, planes)
    return planes_in_runs(job, dy, index, dx, planes)


cdef Py_ssize_t do_planes(
    const Job* job, const real* dy, const long long* index, real* dx, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Do planes begin .. end; count groups with an index that is not inside."""
    cdef Py_ssize_t i = begin, n, bad = 0
    cdef const long long* its = NULL
    cdef const unsigned char* tap = NULL
    cdef const real* dy_i
    cdef real* dx_i
    while i < end:
        if job.tap == NULL:
            its = index + i * job.windows
        else:
            tap = job.tap + i * job.windows
        dy_i, dx_i = dy, dx
        if dx != NULL:
            dy_i, dx_i = dy + i * job.windows, dx + i * job.cells
        n = min(job.group, end - i)
        if job.few:
            bad += not planes_in_one(job, n, dy_i, its, dx_i)
        elif n >= ABREAST:
            n = ABREAST
            bad += not some_planes(job, dy_i, its, tap, dx_i, ABREAST)
        elif n >= 2:
            n = 2
            bad += not some_planes(job, dy_i, its, tap, dx_i, 2)
        else:
            bad += not some_planes(job, dy_i, its, tap, dx_i, 1)
        i += n
    return bad


cdef Py_ssize_t do_groups(
    const Job* job, const real* dy, const long long* index, real* dx, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Do groups begin .. end of planes."""
    end = min(end * job.group, job.p.planes)
    return do_planes(job, dy, index, dx, begin * job.group, end)


cdef Py_ssize_t do_tasks(
    const Job* job, const Rounds* r, const real* dy, const long long* index, real* dx,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i, bad = 0
    if threads == 1:
        return do_groups(job, dy, index, dx, first_piece(r, begin), first_piece(r, end))
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        bad += do_groups(job, dy, index, dx, first_piece(r, i), first_piece(r, i + 1))
    return bad


cdef Py_ssize_t all_planes(
    const Job* job, const real* dy, const long long* index, real* dx, int threads
) except -1:
    """Do all planes, in rounds between which Ctrl-C is looked for, up to a bad one."""
    cdef Rounds r = rounds(
        (job.p.planes - 1) // job.group + 1, job.group * (job.cells + job.windows), threads
    )
    cdef Py_ssize_t begin = 0, end, bad = 0
    while begin < r.tasks and not bad:
        end = min(begin + r.step, r.tasks)
        with nogil:
            bad = do_tasks(job, &r, dy, index, dx, begin, end, threads)
        look()
        begin = end
    return bad


cdef inline unsigned int taps_of(const Axis* a, Py_ssize_t o) noexcept nogil:
    """Count the elements of a window along one axis."""
    cdef Py_ssize_t reach = stop_of(a, o) - first_of(a, o)
    return <unsigned int>(reach if a.dilation == 1 else (reach - 1) // a.dilation + 1)


cdef void mark_columns(
    const Axis* a, Py_ssize_t x, Py_ssize_t n, unsigned int* first, unsigned int* count
) noexcept nogil:
    """Write the marks of windows x .. x + n of a row, whatever the row."""
    cdef Py_ssize_t j
    for j in range(n):
        first[j] = <unsigned int>first_of(a, x + j)
        count[j] = taps_of(a, x + j)


cdef void mark_planes(Job* job) noexcept nogil:
    """Write the marks of all windows of a plane, for each plane of a run."""
    cdef const Pool* p = &job.p
    cdef unsigned int[RUN + SPARE] first, count
    cdef Py_ssize_t z, y, x, j = 0, n = p.x.out
    cdef unsigned int start, rows, slabs, step = <unsigned int>p.x.dilation
    mark_columns(&p.x, 0, n, first, count)
    for z in range(p.z.out):
        slabs = (taps_of(&p.z, z) - 1) * job.slab
        for y in range(p.y.out):
            rows = (taps_of(&p.y, y) - 1) * job.row + 1
            start = <unsigned int>(
                (first_of(&p.z, z) * p.y.extent + first_of(&p.y, y)) * p.x.extent
            )
            for x in range(n):
                job.m.first[j + x] = first[x] + start
                job.m.count[j + x] = count[x]
                job.m.tall[j + x] = rows + (count[x] - 1) * step
                job.m.deep[j + x] = rows + (count[x] - 1) * step + slabs
            j += n
    y = job.windows
    if job.few:
        for j in range(y, job.group * y):
            job.m.first[j], job.m.count[j] = job.m.first[j - y], job.m.count[j - y]
            job.m.tall[j], job.m.deep[j] = job.m.tall[j - y], job.m.deep[j - y]


cdef void mark_rows(Job* job) noexcept nogil:
    """Write the marks of the runs of a row: the first, one in the middle, the last."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t j, x = 0
    memset(job.m.tall, 255, sizeof(job.m.tall))  # the rows of a run are known
    memset(job.m.deep, 255, sizeof(job.m.deep))
    mark_columns(&p.x, 0, length_of(&p.x, 0), job.m.first, job.m.count)
    if p.x.out <= RUN:
        return
    for j in range(PIECE):
        job.m.first[PIECE + j] = <unsigned int>(j * p.x.stride)
        job.m.count[PIECE + j] = <unsigned int>p.x.kernel
    while p.x.out - x > RUN:
        x += PIECE
    mark_columns(&p.x, x, p.x.out - x, job.m.first + RUN, job.m.count + RUN)


cdef inline bint has_elements(const Axis* a) noexcept nogil:
    """Whether no window steps over the whole axis."""
    return a.kernel > 0 and (a.lo == 0 or a.dilation <= a.extent)


cdef inline unsigned int inverse_of(unsigned int n) noexcept nogil:
    """Give what an odd number has to be multiplied by to get 1, modulo 2**32."""
    cdef unsigned int m = n
    for _ in range(4):  # Newton: each step doubles the bits that are right, 3 at first
        m *= 2 - n * m
    return m


cdef void group_planes(Job* job, int threads) noexcept nogil:
    """Find how many planes are done together: fewer if threads would have none."""
    job.group = max(1, min(ABREAST, job.p.planes // threads))
    job.few = job.tap == NULL and job.windows <= FEW
    if job.few:
        job.group = min(job.p.planes, ABREAST * max(1, FEW // 2 // job.windows))


cdef int prepare(Job* job, int threads) except -1:
    """Write the tables; refuse what they have no room for."""
    cdef const Pool* p = &job.p
    cdef unsigned int odd = <unsigned int>p.x.dilation
    job.tap = NULL
    job.cells = p.z.extent * p.y.extent * p.x.extent
    job.windows = p.z.out * p.y.out * p.x.out
    job.slabs, job.rows = p.z.kernel, p.y.kernel
    job.whole = job.windows <= (WHOLE if p.x.out <= SHORT else RUN)
    if not (has_elements(&p.z) and has_elements(&p.y) and has_elements(&p.x)):
        refuse()
    if job.cells >= 2147483648 or p.x.out > RUN and (
        (p.x.kernel - 1) * p.x.dilation >= PIECE
    ):
        refuse()
    job.row = <unsigned int>(p.x.extent * p.y.dilation)
    job.slab = <unsigned int>(p.x.extent * p.y.extent * p.z.dilation)
    job.even = 0
    while odd % 2 == 0:
        odd //= 2
        job.even += 1
    job.inverse = inverse_of(odd)
    group_planes(job, threads)
    if job.whole:
        mark_planes(job)
    else:
        mark_rows(job)
    return 0


cdef inline bint is_dense(const Axis* a) noexcept nogil:
    """Whether windows are runs of neighbours, all alike."""
    return a.kernel > 0 and a.dilation == 1


cdef int prepare_labels(Job* job, const unsigned char* tap, int threads) except -1:
    """Do the same for labels."""
    cdef const Pool* p = &job.p
    if <double>p.z.kernel * p.y.kernel * p.x.kernel > TAPS:
        refuse()
    if not (is_dense(&p.z) and is_dense(&p.y) and is_dense(&p.x)):
        refuse()
    measure_taps(p, &job.away)
    job.tap, job.cells = tap, job.away.cells
    job.windows = p.z.out * p.y.out * p.x.out
    group_planes(job, threads)
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
            prepare(&job, threads)
        else:
            prepare_labels(&job, tap, threads)
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
        prepare(&job, threads)
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
