# Sums of the channels of a batch, taken in parts.
#
# What      of x, around a value of each channel: sum(x - v) and sum((x - v)**2); or of a
#           gradient g: sum(g) and sum(g * (x - mean)), and on the way, where it needs no sum,
#           dx = factor * g.
# Layout    x (n, c, rest), the sums (chunk, 2, unit), in float64:
#
#             samples   c0        c1        c2
#               0    [..|..|.] [..|..|.] [..|..|.]   \
#               1    [..|..|.] [..|..|.] [..|..|.]    | a chunk, added sample by sample
#               2    [..|..|.] [..|..|.] [..|..|.]   /
#               3     piece, a run in memory          } the next chunk
#
#           A run of few scalars leaves lanes empty: below NARROW samples are rows, and
#           their columns (c * rest of them) are summed, a unit each.
# Parallel  over chunks and units. A unit has one writer, and the order of its sum is that of
#           the samples in the chunk; chunks are added in turn: the shape decides both.
# Scratch   16 bytes for each chunk and unit, up to 104 for each channel or column, with the
#           numbers that results are made with.

from cython.parallel cimport prange

from convcore.kernels.blocks cimport LOOK_WORK, ROUND_WORK, Rounds, first_piece, rounds
from convcore.kernels.moments cimport (
    Sums, add_moments, load, moments, multiply_run, products, store,
)
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport ahead, cc_all_f64, f64v, put_sum, vec
from convcore.kernels.vector_wide cimport WIDE_LANES, wide_or_rest

cdef enum:
    CHUNKS = 16  # at most, of the batch
    CHUNK_WORK = 32768  # elements of a chunk, at least
    MOST_SUMS = 524288  # units of more than one chunk: 8 MB, two sums each
    PIECE = 16384  # elements of a run, at most
    NARROW = 32  # elements of a channel and sample below which columns are summed
    SHORT = 128  # elements of a run, at most, whose lanes stay apart
    TOGETHER = 64  # channels of such runs: 8 KB
    COLUMNS = 512  # of one task
    SAMPLES = 4  # whose columns are summed at once
    TASKS = 64  # into which sums of runs are parted, if they are large

cdef struct Shape:
    Py_ssize_t n, c, rest, m  # m values in a channel
    Py_ssize_t chunks, chunk, pieces  # chunks of so many samples
    Py_ssize_t columns, units  # columns are 0 where runs are summed; units of a chunk
    bint training
    double eps, momentum

cdef struct Room:  # parts of the scratch
    double* centre  # of each channel, or column: what is subtracted before sums
    double* factors  # four for each channel
    double* lines  # four scalars of the type of x for each column
    double* sums
    double* var
    double* statistics  # mean and 1 / deviation, where the caller has no room for them


cdef inline Shape shape_for(Py_ssize_t n, Py_ssize_t c, Py_ssize_t rest) noexcept nogil:
    """Decide how sums are parted."""
    cdef Shape s
    cdef Py_ssize_t chunks = min(CHUNKS, n * c * rest // CHUNK_WORK)
    s.n, s.c, s.rest, s.m = n, c, rest, n * rest
    s.pieces = (rest - 1) // PIECE + 1
    s.columns = c * rest if rest < NARROW else 0
    s.units = s.columns if s.columns else c * s.pieces
    chunks = min(chunks, MOST_SUMS // s.units)
    s.chunk = (n - 1) // max(1, chunks) + 1 if n else 1
    s.chunks = (n - 1) // s.chunk + 1 if n else 0
    s.training = False
    s.eps = s.momentum = 0
    return s


cdef inline Py_ssize_t room_for(const Shape* s) noexcept nogil:
    """Count the scalars of scratch."""
    return 8 * s.c + 5 * s.columns + 2 * s.chunks * s.units


cdef inline void sum_short_runs(
    const Shape* s, const vec* x, const Room* r, Py_ssize_t chunk, Py_ssize_t first,
    Py_ssize_t last,
) noexcept nogil:
    """Write the sums of x of channels first .. last, TOGETHER at most, of a chunk.

    They stay in lanes until all samples are added: to add up lanes takes as long as a run.
    """
    cdef f64v[2 * TOGETHER] sums
    cdef double* to = r.sums + 2 * chunk * s.units
    cdef Py_ssize_t i, channel, at
    for channel in range(2 * (last - first)):
        sums[channel] = cc_all_f64(0)
    for i in range(chunk * s.chunk, min((chunk + 1) * s.chunk, s.n)):
        for channel in range(first, last):
            at = (i * s.c + channel) * s.rest
            add_moments(
                ahead(x, at), s.rest, r.centre[channel], sums + 2 * (channel - first)
            )
    for channel in range(first, last):
        put_sum(<f64v*>(to + channel), sums[2 * (channel - first)], 0)
        put_sum(<f64v*>(to + s.units + channel), sums[2 * (channel - first) + 1], 0)


cdef inline void sum_runs(
    const Shape* s, const vec* g, const vec* x, vec* dx, const Room* r, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write units begin .. end, counted through all chunks: of x, or of g and x.

    And dx while g is in the cache, if there is one.
    """
    cdef Py_ssize_t row, chunk, piece, first, last, i, channel, at, n
    cdef double* to
    cdef Sums one
    while begin < end:
        row = begin // s.c
        first = begin - row * s.c
        last = min(s.c, first + end - begin)
        chunk = row // s.pieces
        piece = row - chunk * s.pieces
        n = min(PIECE, s.rest - piece * PIECE)
        if s.rest <= SHORT and g == NULL:
            last = min(last, first + TOGETHER)
            sum_short_runs(s, x, r, chunk, first, last)
            begin += last - first
            continue
        to = r.sums + (2 * chunk * s.pieces + piece) * s.c
        for i in range(chunk * s.chunk, min((chunk + 1) * s.chunk, s.n)):
            for channel in range(first, last):
                at = (i * s.c + channel) * s.rest + piece * PIECE
                if g == NULL:
                    one = moments(ahead(x, at), n, r.centre[channel])
                else:
                    one = products(ahead(g, at), ahead(x, at), n, r.centre[channel])
                if dx != NULL:
                    multiply_run(
                        <vec*>ahead(dx, at), ahead(g, at), n, r.factors[4 * channel + 1]
                    )
                if i > chunk * s.chunk:
                    one.first += to[channel]
                    one.second += to[channel + s.units]
                to[channel] = one.first
                to[channel + s.units] = one.second
        begin += last - first


cdef inline void sum_samples(
    const Shape* s, const vec* g, const vec* x, const double* centre, double* to, Py_ssize_t i,
    int samples, bint anew, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Add columns first .. last of some samples from i on, in turn, to the sums."""
    cdef Py_ssize_t j = first, n, at, lanes = WIDE_LANES
    cdef f64v c, d, e, p, q, zero = cc_all_f64(0)
    cdef int k
    while j < last:
        n = last - j
        c = load(<const f64v*>(centre + j), n)
        p = zero if anew else load(<const f64v*>(to + j), n)
        q = zero if anew else load(<const f64v*>(to + s.units + j), n)
        for k in range(samples):
            at = (i + k) * s.columns + j
            d = wide_or_rest(ahead(x, at), n) - c
            e = d if g == NULL else wide_or_rest(ahead(g, at), n)
            p = p + e
            q = q + e * d
        store(<f64v*>(to + j), p, n)
        store(<f64v*>(to + s.units + j), q, n)
        j += lanes


cdef inline void sum_columns(
    const Shape* s, const vec* g, const vec* x, const Room* r, Py_ssize_t chunk,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Write columns first .. last of a chunk: of x, or of g and x.

    The sums of a sample's columns are more bytes than the sample: SAMPLES of them share a
    look at the sums.
    """
    cdef Py_ssize_t begin = chunk * s.chunk, i = begin, end = min(i + s.chunk, s.n)
    cdef double* to = r.sums + 2 * chunk * s.columns
    while end - i >= SAMPLES:
        sum_samples(s, g, x, r.centre, to, i, SAMPLES, i == begin, first, last)
        i += SAMPLES
    while end > i:
        sum_samples(s, g, x, r.centre, to, i, 1, i == begin, first, last)
        i += 1


cdef inline void sum_task(
    const Shape* s, const Rounds* tasks, const vec* g, const vec* x, vec* dx, const Room* r,
    Py_ssize_t task,
) noexcept nogil:
    """Do one task of the sums."""
    cdef Py_ssize_t i, blocks
    if s.columns == 0:
        sum_runs(s, g, x, dx, r, first_piece(tasks, task), first_piece(tasks, task + 1))
        return
    blocks = (s.columns - 1) // COLUMNS + 1
    for i in range(first_piece(tasks, task), first_piece(tasks, task + 1)):
        sum_columns(
            s, g, x, r, i // blocks, i % blocks * COLUMNS,
            min(s.columns, (i % blocks + 1) * COLUMNS),
        )


cdef inline void sum_tasks(
    const Shape* s, const Rounds* tasks, const vec* g, const vec* x, vec* dx, const Room* r,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end of the sums; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            sum_task(s, tasks, g, x, dx, r, i)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        sum_task(s, tasks, g, x, dx, r, i)


cdef inline Rounds long_rounds(Py_ssize_t count, Py_ssize_t work, int threads) noexcept nogil:
    """Group runs to tasks that walk through long parts of a sample."""
    cdef Rounds r = rounds(count, work, threads)
    r.each = max(r.each, min(count // TASKS, ROUND_WORK // max(work, 1)))
    r.tasks = (count - 1) // r.each + 1 if count else 0
    r.step = max(1, LOOK_WORK // max(r.each * work, 1)) * threads
    return r


cdef inline int take_sums(
    const Shape* s, const vec* g, const vec* x, vec* dx, const Room* r, int threads
) except -1:
    """Write all sums of the chunks, and dx of runs, if there is one."""
    cdef Py_ssize_t begin = 0, end, j
    cdef Rounds tasks
    if s.columns:
        for j in range(s.columns - 1, -1, -1):  # a channel's value for its columns
            r.centre[j] = r.centre[j // s.rest]
        j = ((s.columns - 1) // COLUMNS + 1) * s.chunks
        tasks = rounds(j, min(s.columns, COLUMNS) * s.chunk, threads)
    else:
        tasks = long_rounds(s.units * s.chunks, min(s.rest, PIECE) * s.chunk, threads)
    while begin < tasks.tasks:
        end = min(begin + tasks.step, tasks.tasks)
        with nogil:
            sum_tasks(s, &tasks, g, x, dx, r, begin, end, threads)
        look()
        begin = end
    return 0


cdef inline Sums sums_of(const Shape* s, const Room* r, Py_ssize_t channel) noexcept nogil:
    """Add the parts of a channel's sums, chunk after chunk."""
    cdef Py_ssize_t chunk, i, count, step
    cdef const double* part_
    cdef Sums total
    total.first = total.second = 0
    count = s.rest if s.columns else s.pieces
    step = 1 if s.columns else s.c
    for chunk in range(s.chunks):
        part_ = r.sums + 2 * chunk * s.units + (channel * s.rest if s.columns else channel)
        for i in range(count):
            total.first += part_[i * step]
            total.second += part_[i * step + s.units]
    return total
