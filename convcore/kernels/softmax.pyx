# Softmax and its logarithm along one axis, and their gradients.
#
# What      y  = e^(x - m) / s, or (x - m) - log(s);  m = max of x, s = sum of e^(x - m)
#           dx = y (dy - sum of y dy), or dy - e^y sum of dy
# Layout    x is (outer, count, inner); sums run along count.
#
#               inner == 1    rows: lanes along count, one row after the other
#               else          columns: lanes along inner, ABREAST vectors of them side by side
#
# Assumes   sizes (log, outer, count, inner); y may be x, dx may be dy or y.
# Parallel  over rows or blocks of columns. The order of a sum depends on count and on
#           whether inner is 1 (log_sum.pxd).
# Scratch   on the stack: a block of columns, or a row, of up to 32 KB.
# Cost      memory, where a row, or a block of columns, stays in the cache: one read, one
#           write. Three passes over that: maximum, sum, result.
# Why not   Sums and maximum in one pass, scaled anew when a larger one comes: twice as
#           many exponentials, and sums that depend on the order of x.
# Source    Blanchard, Higham, Higham: Accurately computing the log-sum-exp and softmax
#           functions, IMA J. Numer. Anal. 41 (2021), algorithms 3.1 and 3.2 (shifted).

from cython.parallel cimport prange

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport Buffers, call, geometry_of, reals
from convcore.kernels.elements cimport (
    keep, keep_some, lanes_of, lead_of, load_some, past_caches,
)
from convcore.kernels.log_sum cimport (
    ABREAST, CHAIN, EARLY, ROOM, SOON, column_maxima, column_sums, columns_for, row_maximum,
    row_sum, spread, whole,
)
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, cc_fetch, f32v, f64v, part, put_part, real, settle, vec,
)
from convcore.kernels.vector_math cimport at_most, by_type, every, exp_of, log_of

cdef enum:
    TOGETHER = 8  # rows of a logarithm
    NEAR = 4  # vectors of columns whose sums stay in registers
    NEAR_BYTES = 393216  # of dy, y and dx of a sample that stay in L2

cdef struct Axis:
    bint log, past, near  # whether all of a sample is in the cache: other bits
    Py_ssize_t outer, count, inner
    Py_ssize_t columns, blocks  # of one piece of inner; pieces of it


cdef inline vec result(
    bint log, const vec* power, Py_ssize_t i, Py_ssize_t n, vec most, vec total
) noexcept nogil:
    """Give n results of a row; `power` is x where the logarithm is wanted."""
    cdef vec v = load_some(ahead(power, i), n)
    return v - most - total if log else v / total


cdef inline void write_row(
    const Axis* a, const vec* power, vec* y, vec most, vec total
) noexcept nogil:
    """Write one row of y; past the caches, from its first whole line on."""
    cdef Py_ssize_t i = 0, lanes = lanes_of(y), n = a.count
    if a.past:
        i = min(n, lead_of(<const vec*>y))
        put_part(y, result(a.log, power, 0, i, most, total), i)
    while i < n:
        keep_some(y, i, result(a.log, power, i, n - i, most, total), n - i, a.past)
        i += lanes


cdef inline void softmax_row(const Axis* a, const vec* x, vec* y) noexcept nogil:
    """Do one row of a softmax."""
    cdef Py_ssize_t n = a.count
    cdef vec room[ROOM]
    cdef vec* power = &room[0] if n <= ROOM * lanes_of(x) else y
    cdef vec most = row_maximum(x, n)
    write_row(a, <const vec*>power, y, most, row_sum(x, n, most, power))


cdef inline void log_rows(
    const Axis* a, const vec* x, vec* y, Py_ssize_t rows
) noexcept nogil:
    """Do some rows of its logarithm: while one waits for log(s), the next is summed."""
    cdef Py_ssize_t i, n = a.count
    cdef vec most[TOGETHER]
    cdef vec total[TOGETHER]
    for i in range(rows):
        most[i] = row_maximum(ahead(x, i * n), n)
        total[i] = log_of(row_sum(ahead(x, i * n), n, most[i], <vec*>NULL))
    for i in range(rows):
        write_row(a, ahead(x, i * n), <vec*>ahead(y, i * n), most[i], total[i])


cdef inline void softmax_rows(
    const Axis* a, const vec* x, vec* y, Py_ssize_t rows
) noexcept nogil:
    """Do so many rows, or those of a logarithm while they are in the cache."""
    cdef Py_ssize_t i = 0, n = a.count, some
    cdef Py_ssize_t most = max(1, min(TOGETHER, ROOM * lanes_of(x) // (4 * n))) if a.log else 1
    while i < rows:
        some = min(most, rows - i)
        if a.log:
            log_rows(a, ahead(x, i * n), <vec*>ahead(y, i * n), some)
        else:
            softmax_row(a, ahead(x, i * n), <vec*>ahead(y, i * n))
        i += some


cdef inline void softmax_columns(
    const Axis* a, const vec* x, vec* y, Py_ssize_t n
) noexcept nogil:
    """Write n columns of y."""
    cdef Py_ssize_t c, i, k, lanes = lanes_of(x), step = whole(x, n)
    cdef bint copied = a.count * step <= ROOM * lanes
    cdef bint past = a.past and n % lanes == 0 and a.inner % lanes == 0
    cdef vec room[ROOM]
    cdef vec most[ABREAST]
    cdef vec total[ABREAST]
    cdef vec v
    cdef vec* power = room
    column_maxima(x, a.count, a.inner, n, most, &room[0] if copied else <vec*>NULL)
    if not copied:
        step = a.inner
        power = y
    column_sums(
        <const vec*>&room[0] if copied else x, a.count, step, n, <const vec*>most, total,
        <vec*>NULL if a.log else power,
    )
    for k in range((n + lanes - 1) // lanes):
        total[k] = log_of(total[k]) if a.log else total[k]
    if a.log and not copied:
        power = <vec*>x
    for c in range(a.count):
        i = 0
        while i < n:
            k = i // lanes
            v = load_some(<const vec*>ahead(power, c * step + i), n - i)
            v = v - most[k] - total[k] if a.log else v / total[k]
            keep_some(y, c * a.inner + i, v, n - i, past)
            i += lanes


cdef inline vec slope_term(bint log, vec g, vec y) noexcept nogil:
    """Give what is summed for the gradient."""
    return g if log else g * y


cdef inline vec slope(bint log, vec g, vec y, vec total) noexcept nogil:
    """Give the gradient; a y above 0 is no logarithm of a softmax, but e^y all the same."""
    if log:
        return g - exp_of(at_most(y, by_type(y, 89, 710))) * total
    return y * (g - total)


cdef inline vec row_total(
    bint log, const vec* g, const vec* y, Py_ssize_t n
) noexcept nogil:
    """Give the sum of one row in every lane."""
    cdef Py_ssize_t i = 0, stop, lanes = lanes_of(g), full = n - n % lanes
    cdef vec zero = every(part(g, 0), 0)
    cdef vec total = zero, chain
    if full < n:
        total = slope_term(
            log, load_some(ahead(g, full), n - full), load_some(ahead(y, full), n - full)
        )
    while i < full:
        chain = zero
        stop = min(full, i + CHAIN * lanes)
        while i < stop:
            cc_fetch(ahead(g, i + SOON))
            cc_fetch(ahead(y, i + SOON))
            chain = chain + slope_term(log, ahead(g, i)[0], ahead(y, i)[0])
            i += lanes
        total = total + chain
    return spread(g, total)


cdef inline void some_slopes(
    bint log, const vec* g, const vec* y, vec* dx, Py_ssize_t n, vec total
) noexcept nogil:
    """Write less than a vector of dx."""
    put_part(dx, slope(log, load_some(g, n), load_some(y, n), total), n)


cdef inline void gradient_row(
    bint log, bint past, const vec* g, const vec* y, vec* dx, Py_ssize_t n
) noexcept nogil:
    """Write one row of dx; past the caches, from its first whole line on."""
    cdef Py_ssize_t i = 0, lanes = lanes_of(g)
    cdef vec total = row_total(log, g, y, n)
    if past:
        i = min(n, lead_of(<const vec*>dx))
        some_slopes(log, g, y, dx, i, total)
    while i <= n - lanes:
        keep(dx, i, slope(log, ahead(g, i)[0], ahead(y, i)[0], total), past)
        i += lanes
    if i < n:
        some_slopes(log, ahead(g, i), ahead(y, i), <vec*>ahead(dx, i), n - i, total)


cdef inline void near_columns(
    const Axis* a, bint log, const vec* g, const vec* y, vec* dx, Py_ssize_t n, int vectors
) noexcept nogil:
    """Write n columns of dx, at most so many vectors; all of them but one are full."""
    cdef Py_ssize_t c, at, lanes = lanes_of(g)
    cdef vec[NEAR] total
    cdef vec[NEAR] chain
    cdef int k
    for k in range(vectors):
        total[k] = every(part(g, 0), 0)
        chain[k] = total[k]
    for c in range(a.count):
        for k in range(vectors):
            at = c * a.inner + k * lanes
            chain[k] = chain[k] + slope_term(
                log, load_some(ahead(g, at), n - k * lanes), load_some(ahead(y, at), n - k * lanes)
            )
        if (c + 1) % CHAIN == 0 or c + 1 == a.count:
            for k in range(vectors):
                total[k] = total[k] + chain[k]
                chain[k] = every(chain[k], 0)
    for c in range(a.count):
        for k in range(vectors):
            at = c * a.inner + k * lanes
            keep_some(
                dx, at,
                slope(
                    log, load_some(ahead(g, at), n - k * lanes),
                    load_some(ahead(y, at), n - k * lanes), total[k],
                ),
                n - k * lanes, False,
            )


cdef void gradient_near(
    const Axis* a, const vec* g, const vec* y, vec* dx, Py_ssize_t n
) noexcept nogil:
    """Do `gradient_columns` for what is in the cache: sums in registers, and no copy."""
    cdef Py_ssize_t i = 0, lanes = lanes_of(g)
    while i < n:
        if n - i >= NEAR * lanes:
            if a.log:
                near_columns(
                    a, True, ahead(g, i), ahead(y, i), <vec*>ahead(dx, i), NEAR * lanes, NEAR
                )
            else:
                near_columns(
                    a, False, ahead(g, i), ahead(y, i), <vec*>ahead(dx, i), NEAR * lanes, NEAR
                )
            i += NEAR * lanes
        else:
            if a.log:
                near_columns(
                    a, True, ahead(g, i), ahead(y, i), <vec*>ahead(dx, i), min(lanes, n - i), 1
                )
            else:
                near_columns(
                    a, False, ahead(g, i), ahead(y, i), <vec*>ahead(dx, i), min(lanes, n - i), 1
                )
            i += lanes


cdef inline void gradient_columns(
    const Axis* a, const vec* g, const vec* y, vec* dx, Py_ssize_t n
) noexcept nogil:
    """Write n columns of dx."""
    cdef Py_ssize_t c, k, i, at, lanes = lanes_of(g), vectors = (n + lanes - 1) // lanes
    cdef bint copied = 2 * a.count * vectors <= ROOM, full = n % lanes == 0
    cdef bint past = a.past and full and a.inner % lanes == 0
    cdef vec room[ROOM]
    cdef vec total[ABREAST]
    cdef vec chain[ABREAST]
    cdef vec u, v, zero = every(part(g, 0), 0)
    cdef vec* copy = room
    for k in range(vectors):
        total[k] = zero
        chain[k] = zero
    for c in range(a.count):
        for k in range(vectors):
            i = k * lanes
            at = c * a.inner + i
            cc_fetch(ahead(g, at + EARLY * a.inner))
            cc_fetch(ahead(y, at + EARLY * a.inner))
            if full:
                u, v = ahead(g, at)[0], ahead(y, at)[0]
            else:
                u, v = load_some(ahead(g, at), n - i), load_some(ahead(y, at), n - i)
            if copied:
                copy[0] = u
                copy[1] = v
                copy = copy + 2
            chain[k] = chain[k] + slope_term(a.log, u, v)
        if (c + 1) % CHAIN == 0 or c + 1 == a.count:
            for k in range(vectors):
                total[k] = total[k] + chain[k]
                chain[k] = zero
    copy = room
    for c in range(a.count):
        for k in range(vectors):
            i = k * lanes
            at = c * a.inner + i
            if copied:
                u, v = copy[0], copy[1]
                copy = copy + 2
            else:
                u, v = load_some(ahead(g, at), n - i), load_some(ahead(y, at), n - i)
            v = slope(a.log, u, v, total[k])
            if full:
                keep(dx, at, v, past)
            else:
                keep_some(dx, at, v, n - i, False)


cdef void some_pieces(
    const Axis* a, const vec* g, const vec* x, vec* to, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Do rows, or blocks of columns, begin .. end; of y where there is no dy."""
    cdef Py_ssize_t i, row, at, n
    if g == NULL and a.inner == 1:
        at = begin * a.count
        softmax_rows(a, ahead(x, at), <vec*>ahead(to, at), end - begin)
        end = begin
    for i in range(begin, end):
        row = i // a.blocks
        n = min(a.columns, a.inner - (i - row * a.blocks) * a.columns)
        at = row * a.count * a.inner + (i - row * a.blocks) * a.columns
        if g == NULL:
            softmax_columns(a, ahead(x, at), <vec*>ahead(to, at), n)
        elif a.inner == 1:
            gradient_row(
                a.log, a.past, ahead(g, at), ahead(x, at), <vec*>ahead(to, at), a.count
            )
        elif a.near:
            gradient_near(a, ahead(g, at), ahead(x, at), <vec*>ahead(to, at), n)
        else:
            gradient_columns(a, ahead(g, at), ahead(x, at), <vec*>ahead(to, at), n)
    if a.past:
        settle()


cdef void tasks(
    const Axis* a, const Rounds* r, const vec* g, const vec* x, vec* to,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        some_pieces(a, g, x, to, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        some_pieces(a, g, x, to, first_piece(r, i), first_piece(r, i + 1))


cdef int every_piece(
    Axis* a, const vec* g, const vec* x, vec* to, int threads
) except -1:
    """Do all rounds."""
    cdef Rounds r
    cdef Py_ssize_t begin = 0, end
    a.columns = 1 if a.inner == 1 else columns_for(x, a.count * (1 if g == NULL else 2))
    a.near = 3 * VEC_BYTES * (a.count * a.inner // lanes_of(x)) <= NEAR_BYTES
    if a.near and g != NULL:
        a.columns = a.inner
    a.past = past_caches(<const vec*>to, a.outer * a.count * a.inner)
    a.blocks = (a.inner + a.columns - 1) // a.columns
    a.columns = min(a.columns, whole(x, (a.inner + a.blocks - 1) // a.blocks))
    r = rounds(a.outer * a.blocks, a.count * min(a.columns, a.inner), threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            tasks(a, &r, g, x, to, begin, end, threads)
        look()
        begin = end
    return 0


cdef Axis axis_of(const Buffers* held) except *:
    """Read the sizes."""
    cdef const long long* sizes = geometry_of(held, 4)
    cdef Axis a
    a.log, a.outer, a.count, a.inner = sizes[0] != 0, sizes[1], sizes[2], sizes[3]
    if a.outer < 1 or a.count < 1 or a.inner < 1:
        raise ValueError("kernel: not the sizes of a softmax")
    return a


cdef int run_forward(const Buffers* held, int threads, real* like) except -1:
    """Check x and y, and write y."""
    cdef Axis a = axis_of(held)
    cdef Py_ssize_t size = a.outer * a.count * a.inner
    cdef const real* x = reals(held, 1, size, like)
    cdef real* y = reals(held, 2, size, like)
    if real is float:
        every_piece(&a, <const f32v*>NULL, <const f32v*>x, <f32v*>y, threads)
    else:
        every_piece(&a, <const f64v*>NULL, <const f64v*>x, <f64v*>y, threads)
    return 0


cdef int run_backward(const Buffers* held, int threads, real* like) except -1:
    """Check dy, y and dx, and write dx."""
    cdef Axis a = axis_of(held)
    cdef Py_ssize_t size = a.outer * a.count * a.inner
    cdef const real* dy = reals(held, 1, size, like)
    cdef const real* y = reals(held, 2, size, like)
    cdef real* dx = reals(held, 3, size, like)
    if real is float:
        every_piece(&a, <const f32v*>dy, <const f32v*>y, <f32v*>dx, threads)
    else:
        every_piece(&a, <const f64v*>dy, <const f64v*>y, <f64v*>dx, threads)
    return 0


def forward(sizes, x, y, int threads, /):
    """Write the softmax of x, or its logarithm, to y."""
    call((sizes, x), (y,), threads, run_forward[float], run_forward[double])


def backward(sizes, dy, y, dx, int threads, /):
    """Write the gradient of x to dx."""
    call((sizes, dy, y), (dx,), threads, run_backward[float], run_backward[double])
