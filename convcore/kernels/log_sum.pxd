# Maxima, and sums of exponentials below them, along rows and along columns.
#
# What      m = the largest x; s = the sum of e^(x - m). With NaN, with +Inf, or with nothing
#           but -Inf, s is NaN.
# Layout    a row: n elements side by side, in the lanes. Columns: up to ABREAST vectors of
#           them, their elements `step` apart; m and s are arrays then. With a large step
#           they meet in few sets of the caches: so they are read once, and copied.
# Assumes   the order of a sum is fixed by its length: in a row, lane by lane, CHAIN vectors
#           at a time, then by halves; in columns, CHAIN elements at a time.

from libc.math cimport INFINITY

from convcore.kernels.elements cimport first_lanes, keep_some, lanes_of, load_some
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, cc_fetch, cc_most_f32, cc_most_f64, f32v, larger, merge, part, put_part,
    put_sum, vec,
)
from convcore.kernels.vector_math cimport every, exp_of

cdef enum:
    ABREAST = 16  # vectors of columns side by side
    CHAIN = 16  # what is summed one after the other
    ROOM = 512  # vectors on the stack, for what is read again
    SOON = 1024  # elements of rows from the request to the use
    EARLY = 4  # rows of columns from the request to the use
    CACHE = 131072  # bytes that stay in the cache from one pass to the next


cdef inline Py_ssize_t columns_for(const vec* like, Py_ssize_t count) noexcept nogil:
    """Choose how many columns of `count` elements stay at hand: whole vectors."""
    cdef Py_ssize_t vectors = ROOM // count
    if vectors < 4:  # lines of columns that are too short to be read one by one
        vectors = CACHE // (count * VEC_BYTES)
    return max(1, min(ABREAST, vectors)) * lanes_of(like)


cdef inline vec spread(const vec* like, vec lane_sums) noexcept nogil:
    """Give the sum of all lanes in every lane."""
    cdef vec total = lane_sums
    put_sum(&total, lane_sums, 0)
    if vec is f32v:
        return every(total, (<float*>&total)[0])
    else:
        return every(total, (<double*>&total)[0])


cdef inline vec row_maximum(const vec* x, Py_ssize_t n) noexcept nogil:
    """Give the largest element in every lane; NaN counts as none."""
    cdef Py_ssize_t i = 0, lanes = lanes_of(x)
    cdef vec none = every(load_some(x, n), -INFINITY)
    cdef vec best = none, second = none
    while i + 2 * lanes <= n:
        cc_fetch(ahead(x, i + SOON))
        cc_fetch(ahead(x, i + SOON + lanes))
        best = larger(ahead(x, i)[0], best)
        second = larger(ahead(x, i + lanes)[0], second)
        i += 2 * lanes
    best = larger(second, best)
    if i + lanes <= n:
        best = larger(ahead(x, i)[0], best)
        i += lanes
    if i < n:
        best = larger(merge(none, ahead(x, i), first_lanes(n - i)), best)
    if vec is f32v:
        return every(best, cc_most_f32(best))
    else:
        return every(best, cc_most_f64(best))


cdef inline vec row_sum(const vec* x, Py_ssize_t n, vec most, vec* to) noexcept nogil:
    """Give the sum of e^(x - most) in every lane; store what is summed, if there is a place."""
    cdef Py_ssize_t i = 0, lanes = lanes_of(x)
    cdef vec zero = every(most, 0), v
    cdef vec total = zero, chain = zero
    while i + lanes <= n:
        v = exp_of(ahead(x, i)[0] - most)
        if to != NULL:
            (<vec*>ahead(to, i))[0] = v
        chain = chain + v
        i += lanes
        if i // lanes % CHAIN == 0:
            total = total + chain
            chain = zero
    if i < n:
        v = merge(every(most, -INFINITY), ahead(x, i), first_lanes(n - i))
        v = exp_of(v - most)
        if to != NULL:
            put_part(<vec*>ahead(to, i), v, n - i)
        chain = chain + v
    return spread(x, total + chain)


cdef inline Py_ssize_t ask(
    Py_ssize_t c, Py_ssize_t count, Py_ssize_t step, Py_ssize_t n
) noexcept nogil:
    """Tell what to ask for at the c-th element of n columns; at last, of those beside them."""
    c += EARLY
    return c * step if c < count else (c - count) * step + n


cdef inline void column_maxima(
    const vec* x, Py_ssize_t count, Py_ssize_t step, Py_ssize_t n, vec* most, vec* copy
) noexcept nogil:
    """Write the maxima of n columns; copy them, n rounded up apart, if there is a place."""
    cdef Py_ssize_t c, i, soon, lanes = lanes_of(x)
    cdef vec v
    i = 0
    while i < n:
        most[i // lanes] = every(part(x, 0), -INFINITY)
        i += lanes
    for c in range(count):
        i = 0
        soon = ask(c, count, step, n)
        while i < n:
            cc_fetch(ahead(x, soon + i))
            v = load_some(ahead(x, c * step + i), n - i)
            if copy != NULL:
                copy[0] = v
                copy = copy + 1
            most[i // lanes] = larger(v, most[i // lanes])
            i += lanes


cdef inline void column_sums(
    const vec* x, Py_ssize_t count, Py_ssize_t step, Py_ssize_t n, const vec* most,
    vec* total, vec* to,
) noexcept nogil:
    """Write the sums of e^(x - most); store what is summed beside x, if there is a place."""
    cdef Py_ssize_t c, i, k, lanes = lanes_of(x)
    cdef vec zero = every(part(x, 0), 0), v
    cdef vec chain[ABREAST]
    for k in range((n + lanes - 1) // lanes):
        total[k] = zero
        chain[k] = zero
    for c in range(count):
        i = 0
        while i < n:
            k = i // lanes
            v = exp_of(load_some(ahead(x, c * step + i), n - i) - most[k])
            if to != NULL:
                keep_some(to, c * step + i, v, n - i, False)
            chain[k] = chain[k] + v
            i += lanes
            if (c + 1) % CHAIN == 0 or c + 1 == count:
                total[k] = total[k] + chain[k]
                chain[k] = zero


cdef inline Py_ssize_t whole(const vec* like, Py_ssize_t n) noexcept nogil:
    """Round up to whole vectors."""
    return (n + lanes_of(like) - 1) // lanes_of(like) * lanes_of(like)
