# Sums over chosen rows: a sparse matrix times a dense one, and the gradient of its weights.
#
# What      gather   to[r] = bias[r] + sum over entries t of row r of
#                            w[place[t]] * source[column[t]],  all samples at once
#           weights  dw[t] = sum over samples of dy[r] * x[column[t]]
# Layout    entries row by row (CSR), those of row r from start[r] on; samples are the last
#           axis of source (columns, n), to and dy (rows, n): lanes are samples, and one
#           index serves all of them. The gradient of x is a gather, too: by the columns of
#           the matrix, whose weights lie at `place`; without places, at t.
# Assumes   sizes = (rows, columns, n, entries); starts rise from 0 to entries, columns and
#           places are in range: the caller has checked them.
# Parallel  over rows; the order of every sum is that of the entries.
# Scratch   none.
# Cost      12 bytes an entry (20 with places), and n scalars of the source, from the cache.

from cython.parallel cimport prange

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    Buffers, call, geometry_of, integers, integers_or_nothing, reals, reals_or_nothing,
)
from convcore.kernels.elements cimport first_lanes, lanes_of
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    ahead, f32v, f64v, lanes_from, part, put_part, put_sum, real, vec, zero_lanes,
)

cdef struct Matrix:
    Py_ssize_t rows, columns, n, entries
    const long long* start
    const long long* column
    const long long* place  # or NULL


cdef inline void gather_row(
    const Matrix* m, Py_ssize_t row, const vec* w, const vec* source, const vec* bias,
    vec* to,
) noexcept nogil:
    """Sum one row, a vector of samples after the other."""
    cdef Py_ssize_t at = 0, t, end = m.start[row + 1], lanes = lanes_of(w), left
    cdef unsigned long long bits
    cdef vec sum
    while at < m.n:
        left = m.n - at
        sum = zero_lanes(w) if bias == NULL else lanes_from(bias, row)
        if left >= lanes:
            for t in range(m.start[row], end):
                sum = sum + lanes_from(w, t if m.place == NULL else m.place[t]) * ahead(
                    source, m.column[t] * m.n + at
                )[0]
        else:
            bits = first_lanes(left)
            for t in range(m.start[row], end):
                sum = sum + lanes_from(w, t if m.place == NULL else m.place[t]) * part(
                    ahead(source, m.column[t] * m.n + at), bits
                )
        put_part(<vec*>ahead(to, row * m.n + at), sum, left)
        at += lanes


cdef inline void weights_of_row(
    const Matrix* m, Py_ssize_t row, const vec* x, const vec* dy, vec* dw
) noexcept nogil:
    """Sum over samples for each entry of a row."""
    cdef Py_ssize_t at, t, lanes = lanes_of(x)
    cdef unsigned long long bits
    cdef vec sum
    for t in range(m.start[row], m.start[row + 1]):
        sum = zero_lanes(x)
        at = 0
        while at < m.n:
            bits = first_lanes(min(lanes, m.n - at))
            sum = sum + part(ahead(x, m.column[t] * m.n + at), bits) * part(
                ahead(dy, row * m.n + at), bits
            )
            at += lanes
        put_sum(dw, sum, t)


cdef void some_rows(
    const Matrix* m, const vec* w, const vec* source, const vec* other, vec* to,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Do rows begin .. end: sums with weights, or without them those of dw."""
    cdef Py_ssize_t row
    for row in range(begin, end):
        if w != NULL:
            gather_row(m, row, w, source, other, to)
        else:
            weights_of_row(m, row, source, other, to)


cdef int all_vectors(
    const Matrix* m, const vec* w, const vec* source, const vec* other, vec* to,
    int threads,
) except -1:
    """Do all rounds."""
    cdef Rounds r = rounds(
        m.rows, (m.entries // max(m.rows, 1) + 1) * (m.n + 1), threads
    )
    cdef Py_ssize_t begin = 0, end, i
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
                some_rows(
                    m, w, source, other, to, first_piece(&r, i), first_piece(&r, i + 1)
                )
        look()
        begin = end
    return 0


cdef int all_rows(
    const Matrix* m, const real* w, const real* source, const real* other, real* to,
    int threads,
) except -1:
    """Do the same for scalars."""
    if real is float:
        return all_vectors(
            m, <const f32v*>w, <const f32v*>source, <const f32v*>other, <f32v*>to, threads
        )
    else:
        return all_vectors(
            m, <const f64v*>w, <const f64v*>source, <const f64v*>other, <f64v*>to, threads
        )


cdef int run_one(const Buffers* held, int threads, real* like) except -1:
    """Check the arrays, and write sums, or without weights their gradients."""
    cdef const long long* sizes = geometry_of(held, 4)
    cdef Matrix m
    m.rows, m.columns, m.n, m.entries = sizes[0], sizes[1], sizes[2], sizes[3]
    m.start = integers(held, 1, m.rows + 1)
    m.column = integers(held, 2, m.entries)
    m.place = integers_or_nothing(held, 3, m.entries)
    cdef const real* w = reals_or_nothing(held, 4, m.entries, like)
    cdef const real* source = reals(held, 5, m.columns * m.n, like)
    cdef Py_ssize_t sums = m.rows * m.n
    cdef const real* other = reals_or_nothing(held, 6, sums if w == NULL else m.rows, like)
    cdef real* to = reals(held, 7, m.entries if w == NULL else sums, like)
    if m.start[0] != 0 or m.start[m.rows] != m.entries:
        raise ValueError("kernel: not the rows of a sparse matrix")
    if w == NULL and m.n > 0 and other == NULL:
        raise ValueError("kernel: no gradients")
    return all_rows(&m, w, source, other, to, threads)


def run(sizes, start, column, place, weight, source, other, to, int threads, /):
    """Write sums, of which `other` is the bias; or without weights dw, and `other` is dy.

    A bias of None is 0, and without places weights lie as the entries do.
    """
    call(
        (sizes, start, column, place, weight, source, other), (to,), threads,
        run_one[float], run_one[double],
    )
