# Max pooling over channels: which of them won, and the gradient that goes there.
#
# What      indices   index[g, j] = g * stride + tap[g, j]
#           dgrad     dx[c, j] = sum of dy[g, j] over groups g whose label at j is c
# Layout    x (samples, channels, pixels), y and labels (samples, groups, pixels): a group is
#           `kernel` channels from g * stride on. Labels are taps, a byte each, or channels,
#           an int64 each. A block is some pixels of all channels of a sample:
#
#               dy     group 0      a b c d        dx   channel 0     . b . .
#               label  group 0      1 0 1 1             channel 1     a . c d
#
# Assumes   sizes = (samples, channels, pixels, groups, kernel, stride).
# Parallel  over blocks: each is written by one task, its groups in order.
# Scratch   the labels of one group of a block on the stack, 16 KB.
# Cost      memory: one read of dy and labels, one write of dx, in a cache again where groups
#           overlap. Rows of few pixels: 3 cycles for each of dy.
# Why not   The windows of an image whose rows are channels: flat indices in front of it,
#           16 copies of x, or copies of rows, 5.

from cython.parallel cimport prange

from convcore.kernels.blocks cimport LOOK_WORK, Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    Buffers, call, flags_of, geometry_of, has_integers, integers, reals,
)
from convcore.kernels.elements cimport keep_some, lanes_of, load_some
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, cc_fetch_to_write, f32v, f64v, real, vec, zero_lanes,
)
from convcore.kernels.vector_compare cimport all_labels, gather

cdef enum:
    PIXELS = 2048  # of a block
    AHEAD = 4096  # bytes from what is written to what is asked for

cdef struct Sizes:  # as they come
    long long samples, channels, pixels, groups, kernel, stride

cdef struct Job:
    Sizes s
    const unsigned char* tap  # labels of either kind
    const long long* index
    Py_ssize_t per_sample  # blocks
    bint checks  # labels alone: nothing is written


cdef inline bint take_labels(
    const Job* job, Py_ssize_t g, Py_ssize_t at, Py_ssize_t n, long long* to, const real* like
) noexcept nogil:
    """Write taps as wide as scalars; tell whether all are some of the group."""
    cdef Py_ssize_t j
    cdef long long tap, kernel = job.s.kernel
    cdef unsigned long long first = g * job.s.stride  # wraps for any index
    cdef bint bad = False
    if job.tap != NULL:
        for j in range(n):
            if real is float:
                (<int*>to)[j] = job.tap[at + j]
            else:
                to[j] = job.tap[at + j]
        return True
    for j in range(n):
        tap = <long long>(<unsigned long long>job.index[at + j] - first)
        bad = bad | (tap < 0) | (tap >= kernel)
        if real is float:
            (<int*>to)[j] = <int>tap
        else:
            to[j] = tap
    return not bad


cdef inline void give(
    const vec* dy, const vec* label, long long tap, Py_ssize_t n, vec* dx, bint fresh
) noexcept nogil:
    """Write, or add, the gradients that go to one channel."""
    cdef Py_ssize_t j = 0, lanes = lanes_of(dy)
    cdef vec which = all_labels(dy, tap), old = zero_lanes(dy)
    while j < n:
        if fresh:
            cc_fetch_to_write(<const char*>ahead(dx, j) + AHEAD)
        else:
            old = load_some(<const vec*>ahead(dx, j), n - j)
        old = gather(
            zero_lanes(dy) if fresh else old, load_some(ahead(dy, j), n - j),
            ahead(label, j)[0], which,
        )
        keep_some(dx, j, old, n - j, False)
        j += lanes


cdef inline void clear(real* dx, Py_ssize_t n) noexcept nogil:
    """Write n zeros."""
    cdef Py_ssize_t j
    for j in range(n):
        dx[j] = 0


cdef inline bint do_rows(
    const Job* job, Py_ssize_t sample, Py_ssize_t begin, Py_ssize_t n, const real* dy,
    real* dx,
) noexcept nogil:
    """Write n pixels of all channels of a sample; tell whether labels were good."""
    cdef long long[PIXELS + 16] label
    cdef const Sizes* s = &job.s
    cdef Py_ssize_t g, k, c, at, fresh = 0  # the first channel that is not written yet
    cdef real* to = dx
    cdef bint good = True
    if not job.checks:
        to += sample * s.channels * s.pixels + begin
    for g in range(s.groups):
        at = (sample * s.groups + g) * s.pixels + begin
        good = take_labels(job, g, at, n, label, dy) and good
        if job.checks:
            continue
        while fresh < g * s.stride:
            clear(to + fresh * s.pixels, n)
            fresh += 1
        for k in range(s.kernel):
            c = g * s.stride + k
            if real is float:
                give(
                    <const f32v*>(dy + at), <const f32v*>label, k, n,
                    <f32v*>(to + c * s.pixels), c >= fresh,
                )
            else:
                give(
                    <const f64v*>(dy + at), <const f64v*>label, k, n,
                    <f64v*>(to + c * s.pixels), c >= fresh,
                )
        fresh = max(fresh, g * s.stride + s.kernel)
    while fresh < s.channels and not job.checks:
        clear(to + fresh * s.pixels, n)
        fresh += 1
    return good


cdef inline bint do_columns(
    const Job* job, Py_ssize_t sample, const real* dy, real* dx
) noexcept nogil:
    """Write a sample whose rows have few pixels; tell whether labels were good."""
    cdef const Sizes* s = &job.s
    cdef Py_ssize_t g, j, at
    cdef unsigned long long tap
    cdef real* to = dx
    cdef bint good = True
    if not job.checks:
        to += sample * s.channels * s.pixels
        clear(to, s.channels * s.pixels)
    for g in range(s.groups):
        for j in range(s.pixels):
            at = (sample * s.groups + g) * s.pixels + j
            if job.tap != NULL:
                tap = job.tap[at]
            else:
                tap = <unsigned long long>job.index[at] - <unsigned long long>(g * s.stride)
            if tap >= <unsigned long long>s.kernel:
                good = False
            elif not job.checks:
                to[(g * s.stride + tap) * s.pixels + j] += dy[at]
    return good


cdef bint do_blocks(
    const Job* job, const real* dy, real* dx, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write blocks begin .. end, counted through the samples."""
    cdef Py_ssize_t i, sample, at
    cdef bint good = True
    for i in range(begin, end):
        sample = i // job.per_sample
        if job.s.pixels * <Py_ssize_t>sizeof(real) < VEC_BYTES:
            good = do_columns(job, sample, dy, dx) and good
            continue
        at = (i - sample * job.per_sample) * PIXELS
        good = do_rows(job, sample, at, min(PIXELS, job.s.pixels - at), dy, dx) and good
    return good


cdef void do_tasks(
    const Job* job, const Rounds* r, const real* dy, real* dx, Py_ssize_t begin,
    Py_ssize_t end, int threads, long long* bad,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        if not do_blocks(job, dy, dx, first_piece(r, begin), first_piece(r, end)):
            bad[0] = 1
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        if not do_blocks(job, dy, dx, first_piece(r, i), first_piece(r, i + 1)):
            bad[0] = 1  # the same, whoever writes it


cdef Job job_of(const Buffers* held, int label) except *:
    """Read the sizes and the labels."""
    cdef Job job
    job.s = (<const Sizes*>geometry_of(held, 6))[0]
    cdef Py_ssize_t windows = job.s.samples * job.s.groups * job.s.pixels
    job.tap, job.index = NULL, NULL
    if has_integers(held, label):
        job.index = integers(held, label, windows)
    else:
        job.tap = flags_of(held, label, windows)
    job.checks = False
    job.per_sample = (job.s.pixels - 1) // PIXELS + 1
    return job


cdef int run(
    const Job* job, const real* dy, real* dx, long long* bad, int threads
) except -1:
    """Do all blocks, in rounds between which Ctrl-C is looked for."""
    cdef Py_ssize_t begin = 0, end
    cdef Rounds r
    bad[0] = 0
    r = rounds(
        job.s.samples * job.per_sample,
        (job.s.channels + job.s.groups) * min(job.s.pixels, PIXELS), threads,
    )
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            do_tasks(job, &r, dy, dx, begin, end, threads, bad)
        look()
        begin = end
    return 0


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Check sizes, dy, labels and dx, and write dx and whether labels were bad."""
    cdef Job job = job_of(held, 2)
    cdef const Sizes* s = &job.s
    cdef const real* dy = reals(held, 1, s.samples * s.groups * s.pixels, like)
    cdef real* dx = reals(held, 3, s.samples * s.channels * s.pixels, like)
    return run(&job, dy, dx, integers(held, 4, 1), threads)


cdef int checked(const Buffers* held, int threads, real* like) except -1:
    """Check sizes and labels, and write whether these were bad."""
    cdef Job job = job_of(held, 1)
    job.checks = True
    return run(&job, like, like, integers(held, 2, 1), threads)


cdef void add_starts(
    const Sizes* s, const unsigned char* tap, long long* index, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write the channels of rows begin .. end, counted through the samples."""
    cdef Py_ssize_t i, j, n = s.pixels
    cdef long long first
    for i in range(begin, end):
        first = i % s.groups * s.stride
        for j in range(i * n, (i + 1) * n):
            index[j] = first + tap[j]


cdef void all_starts(
    const Sizes* s, const unsigned char* tap, long long* index, Py_ssize_t begin,
    Py_ssize_t end, int threads,
) noexcept nogil:
    """Do the same; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        add_starts(s, tap, index, begin, end)
        return
    for i in prange(begin, end, num_threads=threads, schedule="static"):
        add_starts(s, tap, index, i, i + 1)


cdef int channels(const Buffers* held, int threads, real* like) except -1:
    """Check sizes, taps and indices, and write the latter."""
    cdef const Sizes* s = <const Sizes*>geometry_of(held, 6)
    cdef Py_ssize_t rows = s.samples * s.groups, begin = 0, end
    cdef const unsigned char* tap = flags_of(held, 1, rows * s.pixels)
    cdef long long* index = integers(held, 2, rows * s.pixels)
    while begin < rows:
        end = min(begin + max(1, LOOK_WORK // s.pixels), rows)
        with nogil:
            all_starts(s, tap, index, begin, end, threads)
        look()
        begin = end
    return 0


def indices(sizes, tap, index, int threads, /):
    """Write the channels that won, from their places in their groups."""
    call((sizes, tap), (index,), threads, channels[float], channels[double])


def check(sizes, index, bad, int threads, /):
    """Write to `bad` whether an index is no channel of its group."""
    call((sizes, index), (bad,), threads, checked[float], checked[double])


def dgrad(sizes, dy, label, dx, bad, int threads, /):
    """Write dx, and to `bad` whether a label was no channel of its group."""
    call((sizes, dy, label), (dx, bad), threads, gradient[float], gradient[double])
