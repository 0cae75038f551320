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
#           so many indices at once are looked at. What index - first leaves when slabs
#           and rows of the window are taken off is less than `count`, unsigned. With a
#           dilation it is divided by that first, modulo 2**32: what it does not divide
#           becomes larger than any count (Granlund and Montgomery, PLDI 1994, section 9).
# Assumes   buffers of the sizes that the geometry tells; windows.pxd; planes of less than
#           2**31 elements; windows that have an element, and reach less than 2**22.
# Parallel  over planes: each is written by one task, its windows in order.
# Scratch   on the stack: tables 67 KB, the indices of a run as they were checked, 4 KB.
# Cost      memory: one read of dy and of 8 bytes an index, one write of dx. Zeros are
#           written just before the windows that add to them, so those are found in L1; of
#           a plane that L2 keeps at once, since loops over short rows end unforeseen.
# Why not   Gather by elements: a comparison for each tap, in lanes that narrow planes leave
#           empty, where an addition takes 3 cycles a window whatever the shape.

from cython.parallel cimport prange

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    Buffers, call, flags_of, has_integers, integers, integers_or_nothing, reals, refuse,
)
from convcore.kernels.pool_flat cimport TAPS, first_bits, lanes_of
from convcore.kernels.pool_scatter_labels cimport (
    AHEAD, Away, clear, end_of, measure_taps, plane_by_labels,
)
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport ahead, cc_fetch, f32v, part, real
from convcore.kernels.windows cimport (
    Axis, Pool, elements_of, first_of, pool_of, start_of, steps_over, taps_of,
    windows_of,
)
from convcore.kernels.words cimport (
    any_word, below, divide_words, each_word, high_words, low_words, word,
)

cdef enum:
    RUN = 1024  # windows of a run, at most
    PIECE = 512  # of a run where a row has more
    SPARE = 16  # entries behind a table: vectors end in them
    WHOLE = 4096  # windows of a plane that is one run, though its rows are short
    FEW = 64  # windows of a plane that shares a run with others
    TOGETHER = 256  # windows of such a run
    NEAR = 65536  # bytes of a plane whose zeros are written at once
    REACH = 4194304  # elements from the first of a window to its last: see words.pxd
    SHORT = 128  # windows of such a row: two vectors, both of them used in part
    LINE = 64
    UNROLLED = 8  # additions, a line of float64

cdef struct Marks:
    unsigned int[WHOLE + SPARE] first, count, tall, deep

cdef struct Job:
    Pool p
    Marks m
    Py_ssize_t cells, windows  # of a plane
    unsigned int row, slab  # elements from a row of a window to the next, from a slab
    float by_row, by_slab  # their inverses
    unsigned int inverse  # of the odd part of the dilation along W
    int even  # times that this dilation has the factor 2
    bint whole  # the tables have all windows of a plane
    Py_ssize_t group  # planes of a run
    unsigned int[TOGETHER] plane  # the first element of each window's plane
    Away away
    const unsigned char* tap  # labels of all planes, if those are given

cdef struct Run:
    Py_ssize_t at, n  # the first window, and how many
    Py_ssize_t mark  # its entry in the tables
    unsigned int begin  # the element that these count from
    unsigned int tall, deep  # what all of its marks lack


cdef struct Look:  # what checks need, in registers
    const unsigned int* first
    const unsigned int* count
    const unsigned int* tall
    const unsigned int* deep
    unsigned int begin, more_tall, more_deep
    unsigned int row, slab, inverse
    float by_row, by_slab
    int even


cdef inline word at_mark(const unsigned int* marks, Py_ssize_t j) noexcept nogil:
    """Give a vector of marks."""
    return (<const word*>(marks + j))[0]


cdef inline word taps_along(const Look* l, word n) noexcept nogil:
    """Divide by the dilation; what it does not divide becomes larger than any count."""
    if l.even == 0:
        return n * each_word(l.inverse)
    n = n * each_word(l.inverse)
    return n >> l.even | n << (32 - l.even)


cdef inline word in_windows(
    const Look* l, Py_ssize_t j, word index, int axes, bint dilated
) noexcept nogil:
    """Set the lanes whose index lies in its window; the first is window j of the run."""
    cdef word place = index - at_mark(l.first, j) - each_word(l.begin)
    cdef word inside = below(place, at_mark(l.deep, j) + each_word(l.more_deep))
    if axes > 2:
        place = place - divide_words(place, l.by_slab) * each_word(l.slab)
        inside = inside & below(place, at_mark(l.tall, j) + each_word(l.more_tall))
    if axes > 1:
        place = place - divide_words(place, l.by_row) * each_word(l.row)
    if dilated:
        place = taps_along(l, place)
    return inside & below(place, at_mark(l.count, j))


cdef inline bint take(
    const Look* l, const long long* index, Py_ssize_t n, unsigned int* cell, int axes,
    bint dilated,
) noexcept nogil:
    """Do `take_run` for windows along some axes."""
    cdef Py_ssize_t j = 0, lanes = lanes_of(<f32v*>index)
    cdef const f32v* v
    cdef f32v a, b
    cdef f32v[1] rest
    cdef word bad = each_word(0), low
    cdef unsigned long long bits
    while j + lanes <= n:
        v = <const f32v*>(index + j)
        cc_fetch(<const char*>v + AHEAD)
        cc_fetch(<const char*>v + AHEAD + LINE)
        a, b = v[0], ahead(v, lanes)[0]
        low = low_words(a, b)
        (<word*>(cell + j))[0] = low
        bad = bad | high_words(a, b) | ~in_windows(l, j, low, axes, dilated)
        j += lanes
    if j < n:
        v = <const f32v*>(index + j)
        bits = first_bits(2 * (n - j))
        a, b = part(v, bits), part(ahead(v, lanes), bits >> lanes)
        low = low_words(a, b)
        (<word*>(cell + j))[0] = low
        (<word*>rest)[0] = high_words(a, b) | ~in_windows(l, j, low, axes, dilated)
        rest[0] = part(<const f32v*>rest, first_bits(n - j))
        bad = bad | (<word*>rest)[0]
    return not any_word(bad)


cdef inline bint take_run(
    const Job* job, const Run* r, const long long* index, unsigned int* cell
) noexcept nogil:
    """Cut the indices of a run to 32 bits; tell whether all are inside."""
    cdef Look l
    l.first, l.count = job.m.first + r.mark, job.m.count + r.mark
    l.tall, l.deep = job.m.tall + r.mark, job.m.deep + r.mark
    l.begin, l.more_tall, l.more_deep = r.begin, r.tall, r.deep
    l.row, l.slab, l.by_row, l.by_slab = job.row, job.slab, job.by_row, job.by_slab
    l.inverse, l.even = job.inverse, job.even
    index += r.at
    if job.p.x.dilation > 1:
        return take(&l, index, r.n, cell, 3, True)
    if job.p.z.kernel > 1:
        return take(&l, index, r.n, cell, 3, False)
    if job.p.y.kernel > 1:
        return take(&l, index, r.n, cell, 2, False)
    return take(&l, index, r.n, cell, 1, False)


cdef inline void add_run(
    const unsigned int* cell, const real* source, Py_ssize_t n, real* to
) noexcept nogil:
    """Add the values of a run to their cells, in order."""
    cdef Py_ssize_t o = 0, i
    while o + UNROLLED <= n:
        cc_fetch(<const char*>(source + o) + AHEAD)
        for i in range(UNROLLED):
            to[cell[o + i]] += source[o + i]
        o += UNROLLED
    while o < n:
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
    r.tall = <unsigned int>(taps_of(&p.y, y) - 1) * job.row
    r.deep = r.tall + <unsigned int>(taps_of(&p.z, z) - 1) * job.slab
    r.at = (z * p.y.out + y) * p.x.out + x
    r.n = length_of(&p.x, x)
    r.begin = <unsigned int>(
        (first_of(&p.z, z) * p.y.extent + first_of(&p.y, y)) * p.x.extent
    )
    r.mark = 0
    if x > 0 and x + r.n == p.x.out:
        r.mark = RUN
    elif x > 0:
        r.mark = PIECE
        r.begin += <unsigned int>start_of(&p.x, x)
    return r


cdef inline Py_ssize_t clear_near(const Job* job, real* dx) noexcept nogil:
    """Write the zeros of a plane that L1 and L2 keep; tell how many that were."""
    if dx == NULL or job.cells * <Py_ssize_t>sizeof(real) > NEAR:
        return 0
    clear(dx, job.cells)
    return job.cells


cdef inline Py_ssize_t clear_up_to(real* dx, Py_ssize_t zeros, Py_ssize_t end) noexcept nogil:
    """Write those that are missing before `end`."""
    if end <= zeros:
        return zeros
    clear(dx + zeros, end - zeros)
    return end


cdef inline bint plane_in_runs(
    const Job* job, const real* dy, const long long* index, real* dx
) noexcept nogil:
    """Do one plane, row by row; without dx, check only. Tell whether all is well."""
    cdef const Pool* p = &job.p
    cdef unsigned int[RUN + SPARE] cell
    cdef Py_ssize_t z, y, x, zeros = clear_near(job, dx)
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
                zeros = clear_up_to(dx, zeros, end_of(p, z, y, x - 1))
                add_run(<const unsigned int*>cell, dy + r.at, r.n, dx)
    if dx != NULL:
        clear_up_to(dx, zeros, job.cells)
    return True


cdef inline bint plane_in_pieces(
    const Job* job, const real* dy, const long long* index, real* dx
) noexcept nogil:
    """Do one plane, as many rows at a time as a run may have windows."""
    cdef const Pool* p = &job.p
    cdef unsigned int[RUN + SPARE] cell
    cdef Py_ssize_t row = 0, rows = p.z.out * p.y.out, zeros = clear_near(job, dx), i, end
    cdef Py_ssize_t each = p.x.out if zeros < job.cells else RUN
    cdef Run r
    r.begin = r.tall = r.deep = 0
    while row < rows:
        r.at = r.mark = row * p.x.out
        r.n = min(RUN // p.x.out, rows - row) * p.x.out
        if not take_run(job, &r, index, cell):
            return False
        i = 0
        while i < r.n and dx != NULL:
            if zeros < job.cells:
                end = row + i // each
                end = end_of(p, end // p.y.out, end % p.y.out, p.x.out - 1)
                zeros = clear_up_to(dx, zeros, end)
            add_run(
                <const unsigned int*>cell + i, dy + r.at + i, min(each, r.n - i), dx
            )
            i += each
        row += RUN // p.x.out
    if dx != NULL:
        clear_up_to(dx, zeros, job.cells)
    return True


cdef inline bint planes_in_one(
    const Job* job, Py_ssize_t planes, const real* dy, const long long* index, real* dx
) noexcept nogil:
    """Do some planes of few windows, which are one run."""
    cdef unsigned int[RUN + SPARE] cell
    cdef Py_ssize_t i
    cdef Run r
    r.at = r.mark = 0
    r.begin = r.tall = r.deep = 0
    r.n = planes * job.windows
    if not take_run(job, &r, index, cell):
        return False
    if dx == NULL:
        return True
    for i in range(r.n):
        cell[i] += job.plane[i]
    clear(dx, planes * job.cells)
    add_run(<const unsigned int*>cell, dy, r.n, dx)
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
        elif job.group > 1:
            bad += not planes_in_one(job, n, dy_i, its, dx_i)
        elif job.whole:
            bad += not plane_in_pieces(job, dy_i, its, dx_i)
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
    """Write the marks of windows x .. x + n of a row, as if it were the only one."""
    cdef Py_ssize_t j
    cdef unsigned int count
    for j in range(n):
        count = <unsigned int>taps_of(&job.p.x, x + j)
        job.m.first[at + j] = <unsigned int>first_of(&job.p.x, x + j)
        job.m.count[at + j] = count
        job.m.tall[at + j] = (count - 1) * <unsigned int>job.p.x.dilation + 1
        job.m.deep[at + j] = job.m.tall[at + j]


cdef inline void copy_marks(
    unsigned int* marks, Py_ssize_t to, Py_ssize_t at, Py_ssize_t n, unsigned int more
) noexcept nogil:
    """Copy n marks, more being added."""
    cdef Py_ssize_t j
    for j in range(n):
        marks[to + j] = marks[at + j] + more


cdef void mark_planes(Job* job) noexcept nogil:
    """Write the marks of all windows of a plane, for each plane of a run."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t row, j, n = p.x.out
    cdef Run r
    mark_columns(job, 0, 0, n)
    for row in range(p.z.out * p.y.out - 1, -1, -1):  # the first is needed to the last
        r = run_at(job, row // p.y.out, row % p.y.out, 0)
        copy_marks(job.m.first, r.at, 0, n, r.begin)
        copy_marks(job.m.count, r.at, 0, n, 0)
        copy_marks(job.m.tall, r.at, 0, n, r.tall)
        copy_marks(job.m.deep, r.at, 0, n, r.deep)
    n = job.windows
    for j in range(n if job.group > 1 else 0):
        job.plane[j] = 0
    for j in range(1, job.group):
        copy_marks(job.plane, j * n, 0, n, <unsigned int>(j * job.cells))
        copy_marks(job.m.first, j * n, 0, n, 0)
        copy_marks(job.m.count, j * n, 0, n, 0)
        copy_marks(job.m.tall, j * n, 0, n, 0)
        copy_marks(job.m.deep, j * n, 0, n, 0)


cdef void mark_rows(Job* job) noexcept nogil:
    """Write the marks of the runs of a row: the first, one in the middle, the last."""
    cdef const Pool* p = &job.p
    cdef Py_ssize_t j, x = 0
    mark_columns(job, 0, 0, length_of(&p.x, 0))
    if p.x.out <= RUN:
        return
    mark_columns(job, PIECE, PIECE, PIECE)
    for j in range(PIECE):
        job.m.first[PIECE + j] = <unsigned int>(j * p.x.stride)
    while p.x.out - x > RUN:
        x += PIECE
    mark_columns(job, RUN, x, p.x.out - x)


cdef inline unsigned int inverse_of(unsigned int n) noexcept nogil:
    """Give what an odd number has to be multiplied by to get 1, modulo 2**32."""
    cdef unsigned int m = n
    for _ in range(4):  # Newton: each step doubles the bits that are right, 3 at first
        m *= 2 - n * m
    return m


cdef int prepare(Job* job) except -1:
    """Write the tables; refuse what they have no room for."""
    cdef const Pool* p = &job.p
    cdef unsigned int odd = <unsigned int>p.x.dilation
    cdef double reach = (<double>p.z.kernel * p.z.dilation * p.y.extent + (
        p.y.kernel * p.y.dilation
    )) * p.x.extent
    job.tap = NULL
    job.cells = p.z.extent * p.y.extent * p.x.extent
    job.windows = p.z.out * p.y.out * p.x.out
    job.whole = job.windows <= (WHOLE if p.x.out <= SHORT else RUN)
    if not (p.z.kernel > 0 and p.y.kernel > 0 and p.x.kernel > 0):
        refuse()
    if steps_over(&p.z) or steps_over(&p.y) or steps_over(&p.x):
        refuse()
    if job.cells >= 2147483648 or reach >= REACH or p.x.out > RUN and (
        (p.x.kernel - 1) * p.x.dilation >= PIECE
    ):
        refuse()
    job.row = <unsigned int>(p.x.extent * p.y.dilation)
    job.slab = <unsigned int>(p.x.extent * p.y.extent * p.z.dilation)
    job.by_row, job.by_slab = <float>(1.0 / job.row), <float>(1.0 / job.slab)
    job.even = 0
    while odd % 2 == 0:
        odd //= 2
        job.even += 1
    job.inverse = inverse_of(odd)
    job.group = 1
    if job.windows <= FEW:
        job.group = min(TOGETHER // job.windows, NEAR // (8 * job.cells))
        job.group = max(1, min(p.planes, job.group))
    if job.whole:
        mark_planes(job)
    else:
        mark_rows(job)
    return 0


cdef inline bint is_dense(const Axis* a) noexcept nogil:
    """Whether windows are runs of neighbours, all alike."""
    return a.kernel > 0 and a.dilation == 1


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
