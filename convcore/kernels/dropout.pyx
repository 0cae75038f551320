# Dropout: zeros at places that a key decides, the rest scaled.
#
# What      y[i] = x[i] * scale where word(key, i) >= threshold, else 0
#           mask[i] = whether that is so
# Layout    Plain memory, in groups of 64 elements (philox.pxd).
# Assumes   sizes (count, key, threshold, scale as bits of a double); y may be x. The
#           gradient is the same function of dy: nothing is kept but the key.
# Parallel  over tasks of groups. An element depends on the key and its place alone.
# Scratch   on the stack: the words and results of a group.
# Cost      memory, one read and one write, and about 20 cycles of random numbers for a
#           vector; past the caches where no cache could hold the results.
# Source    philox.pxd; Srivastava et al., Dropout, JMLR 15 (2014), sections 4 and 10.

from cython.parallel cimport prange
from libc.string cimport memcpy

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    Buffers, call, flags_of, geometry_of, is_nothing, reals, reals_or_nothing,
)
from convcore.kernels.elements cimport keep, lanes_of, past_caches
from convcore.kernels.philox cimport GROUP, Keys, random_group, spread_key
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport cc_fetch, f32v, f64v, real, settle

cdef enum:
    WORK = 2 * GROUP  # of a group, in elements that are read
    AHEAD = 16 * GROUP  # elements from the request to the use of a group: 0.3 us

cdef struct Job:
    Py_ssize_t count
    unsigned long long threshold
    double scale
    bint past
    Keys keys


cdef inline void choose(
    const Job* j, const unsigned* word, const real* x, real* y, Py_ssize_t n
) noexcept nogil:
    """Write n elements."""
    cdef Py_ssize_t i
    cdef unsigned threshold = <unsigned>j.threshold
    cdef real scale = <real>j.scale
    for i in range(n):
        y[i] = x[i] * scale if word[i] >= threshold else 0


cdef inline void store_group(real* to, real* values, bint past) noexcept nogil:
    """Store a whole group."""
    cdef Py_ssize_t i = 0
    if real is float:
        while i < GROUP:
            keep(<f32v*>to, i, (<f32v*>(values + i))[0], past)
            i += lanes_of(<const f32v*>to)
    else:
        while i < GROUP:
            keep(<f64v*>to, i, (<f64v*>(values + i))[0], past)
            i += lanes_of(<const f64v*>to)


cdef inline void fetch_group(const real* x) noexcept nogil:
    """Ask for a group early: random numbers keep the processor from seeing it itself."""
    cdef Py_ssize_t i
    for i in range(GROUP * sizeof(real) // 64):
        cc_fetch(<const char*>x + 64 * i)


cdef void some_groups(
    const Job* j, const real* x, real* y, unsigned char* mask, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Do groups begin .. end."""
    cdef unsigned word[GROUP]
    cdef real values[GROUP]
    cdef Py_ssize_t g, i, n, first
    for g in range(begin, end):
        first = g * GROUP
        n = min(GROUP, j.count - first)
        if y != NULL:
            fetch_group(x + first + AHEAD)
        random_group(&j.keys, g, word)
        if y != NULL and n == GROUP:
            choose(j, word, x + first, values, GROUP)
            store_group(y + first, values, j.past)
        elif y != NULL:
            choose(j, word, x + first, y + first, n)
        if mask != NULL:
            for i in range(n):
                mask[first + i] = word[i] >= <unsigned>j.threshold
    if j.past:
        settle()


cdef void tasks(
    const Job* j, const Rounds* r, const real* x, real* y, unsigned char* mask,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        some_groups(j, x, y, mask, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="static"):
        some_groups(j, x, y, mask, first_piece(r, i), first_piece(r, i + 1))


cdef int run(const Buffers* held, int threads, real* like) except -1:
    """Check the sizes and the arrays that there are, and write y and the mask."""
    cdef const long long* sizes = geometry_of(held, 4)
    cdef Job j
    cdef const real* x
    cdef real* y
    cdef unsigned char* mask = NULL
    cdef Rounds r
    cdef Py_ssize_t begin = 0, end
    j.count, j.threshold = sizes[0], sizes[2]
    spread_key(<unsigned long long>sizes[1], &j.keys)
    memcpy(&j.scale, sizes + 3, sizeof(double))
    x = reals_or_nothing(held, 1, j.count, like)
    y = reals_or_nothing(held, 2, j.count, like)
    if not is_nothing(held, 3):
        mask = flags_of(held, 3, j.count)
    if (x == NULL) != (y == NULL) or j.threshold >= 1ULL << 32:
        raise ValueError("kernel: not the arrays of a dropout")
    if real is float:
        j.past = past_caches(<const f32v*>y, j.count)
    else:
        j.past = past_caches(<const f64v*>y, j.count)
    r = rounds((j.count + GROUP - 1) // GROUP, WORK, threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            tasks(&j, &r, x, y, mask, begin, end, threads)
        look()
        begin = end
    return 0


cdef void masked_part(
    const Job* j, const real* x, const unsigned char* mask, real* y, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write elements begin .. end where a mask is given."""
    cdef Py_ssize_t i
    cdef real scale = <real>j.scale
    for i in range(begin, end):
        y[i] = x[i] * scale if mask[i] else 0


cdef void masked_tasks(
    const Job* j, const Rounds* r, const real* x, const unsigned char* mask, real* y,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end of that; a piece is one element."""
    cdef Py_ssize_t i
    if threads == 1:
        masked_part(j, x, mask, y, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="static"):
        masked_part(j, x, mask, y, first_piece(r, i), first_piece(r, i + 1))


cdef int run_masked(const Buffers* held, int threads, real* like) except -1:
    """Check the sizes, x, the mask and y, and write y."""
    cdef const long long* sizes = geometry_of(held, 2)
    cdef Job j
    cdef const real* x = reals(held, 1, sizes[0], like)
    cdef const unsigned char* mask = flags_of(held, 2, sizes[0])
    cdef real* y = reals(held, 3, sizes[0], like)
    cdef Rounds r = rounds(sizes[0], 1, threads)
    cdef Py_ssize_t begin = 0, end
    memcpy(&j.scale, sizes + 1, sizeof(double))
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            masked_tasks(&j, &r, x, mask, y, begin, end, threads)
        look()
        begin = end
    return 0


def masked(sizes, x, mask, y, int threads, /):
    """Write y where the mask is given; sizes are the count, and the bits of the scale."""
    call((sizes, x, mask), (y,), threads, run_masked[float], run_masked[double])


def forward(sizes, x, y, mask, int threads, /):
    """Write y, or the mask, or both; None is not wanted."""
    call((sizes, x), (y, mask), threads, run[float], run[double])
