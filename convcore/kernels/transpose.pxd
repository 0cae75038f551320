# Transposition: rows of a matrix become its columns, a vector by a vector block at a time.
#
# What      to[j, i] = from[i, j]
# How       A block of L rows, L the lanes of a vector, is transposed in registers: first
#           each 16 bytes of as many rows as they have scalars, then such squares: a round
#           puts the even ones of two rows into one vector, the odd ones into another. In
#           the index of a square, written as the bits of (row, column), a round moves one
#           bit from the column to the row; in the end they have changed places.
#           Of two matrices that are transposed into each other, one is near, in a cache,
#           and the other one far: the blocks go along its rows, streams of memory.
# Cost      One load, log2(L) shuffles and one store for each L scalars.
# Why not   Whole vectors interleaved in each round: shuffles across 16 bytes are slower, and
#           their patterns take registers (1.0 ns a vector instead of 0.6). Scalar stores:
#           0.9 ns an element against 0.1. A buffer between, with long copies to the far
#           rows: 3 % of a convolution slower.
# Source    Stone, Parallel Processing with the Perfect Shuffle, IEEE Trans. Computers
#           C-20 (1971).

from libc.string cimport memset

from convcore.kernels.checked cimport check_range
from convcore.kernels.vector cimport (
    NV, VEC_BYTES, f32v, f64v, real, vec, ahead, blocks_even, blocks_odd, cc_fetch, copy,
    interleave_high, interleave_low, part, turn_near, zero_lanes,
)

cdef enum:
    MOST_LANES = 16
    FAR = 4  # vectors from what is read to what is asked for


cdef inline Py_ssize_t lanes_of(const real* like) noexcept nogil:
    """Scalars of one vector."""
    return VEC_BYTES // sizeof(real)


cdef inline void mix(vec* rows) noexcept nogil:
    """Transpose a block of vectors in registers."""
    cdef vec other[MOST_LANES]
    cdef int near = 4 if vec is f32v else 2, far = VEC_BYTES // 16, left = far, i, k
    for i in range(far):
        turn_near(rows + i * near)
    while left > 1:
        for i in range(far // 2):
            for k in range(near):
                other[i * near + k] = blocks_even(
                    rows[2 * i * near + k], rows[(2 * i + 1) * near + k]
                )
                other[(i + far // 2) * near + k] = blocks_odd(
                    rows[2 * i * near + k], rows[(2 * i + 1) * near + k]
                )
        for i in range(far * near):
            rows[i] = other[i]
        left = left // 2


cdef inline void turn_vectors(
    const vec* source, Py_ssize_t ld, vec* to, Py_ssize_t to_ld
) noexcept nogil:
    """Transpose a whole block."""
    cdef vec rows[MOST_LANES]
    cdef int i, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    for i in range(lanes):
        check_range(ahead(source, i * ld), VEC_BYTES)
        rows[i] = ahead(source, i * ld)[0]
    mix(rows)
    for i in range(lanes):
        check_range(ahead(<const vec*>to, i * to_ld), VEC_BYTES)
        (<vec*>ahead(<const vec*>to, i * to_ld))[0] = rows[i]


cdef inline void turn(
    const real* source, Py_ssize_t ld, real* to, Py_ssize_t to_ld
) noexcept nogil:
    """Transpose a whole block of scalars."""
    if real is float:
        turn_vectors(<const f32v*>source, ld, <f32v*>to, to_ld)
    else:
        turn_vectors(<const f64v*>source, ld, <f64v*>to, to_ld)


cdef inline void zip_vectors(
    const vec* even, const vec* odd, vec* to, Py_ssize_t n
) noexcept nogil:
    """Interleave n scalars of each, in whole vectors."""
    cdef Py_ssize_t i = 0, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef vec a, b
    while i < n:
        a = ahead(even, i)[0]
        b = ahead(odd, i)[0]
        (<vec*>ahead(<const vec*>to, 2 * i))[0] = interleave_low(a, b)
        (<vec*>ahead(<const vec*>to, 2 * i + lanes))[0] = interleave_high(a, b)
        i += lanes


cdef inline void zip_rows(
    const real* even, const real* odd, real* to, Py_ssize_t n
) noexcept nogil:
    """Interleave n scalars of each, in whole vectors."""
    if real is float:
        zip_vectors(<const f32v*>even, <const f32v*>odd, <f32v*>to, n)
    else:
        zip_vectors(<const f64v*>even, <const f64v*>odd, <f64v*>to, n)


cdef inline void put_row(
    const real* row, Py_ssize_t n, real* to, Py_ssize_t step
) noexcept nogil:
    """Write n scalars, `step` apart."""
    cdef Py_ssize_t i
    if step == 1:
        copy(to, row, n)
    else:
        for i in range(n):
            to[i * step] = row[i]


cdef inline void spread(
    const real* source, Py_ssize_t ld, Py_ssize_t rows, Py_ssize_t columns,
    real* to, Py_ssize_t to_ld, Py_ssize_t step,
) noexcept nogil:
    """Transpose a near matrix to far rows, whose scalars lie `step` apart.

    Whole blocks are read: up to L - 1 rows and columns beyond those that are written.
    Some rows may be written twice, with the same values.
    """
    cdef real block[MOST_LANES * MOST_LANES]
    cdef Py_ssize_t i, j = 0, k, n, m, lanes = lanes_of(source)
    while j < columns:
        m = min(lanes, columns - j)
        i = 0
        while i < rows:
            if i + lanes > rows and rows > lanes:
                i = rows - lanes  # some of them once more
            n = min(lanes, rows - i)
            if n == lanes and m == lanes and step == 1:
                turn(source + i * ld + j, ld, to + j * to_ld + i, to_ld)
            else:
                turn(source + i * ld + j, ld, block, lanes)
                for k in range(m):
                    put_row(
                        <const real*>block + k * lanes, n,
                        to + (j + k) * to_ld + i * step, step,
                    )
            i += lanes
        j += lanes


cdef inline void spread_pair(
    const real* even, const real* odd, Py_ssize_t ld, Py_ssize_t rows, Py_ssize_t columns,
    real* to, Py_ssize_t to_ld,
) noexcept nogil:
    """Transpose two near matrices to the even and odd scalars of far rows of `rows`."""
    cdef real evens[MOST_LANES * MOST_LANES]
    cdef real odds[MOST_LANES * MOST_LANES]
    cdef real zipped[2 * MOST_LANES]
    cdef Py_ssize_t i, j = 0, k, n, lanes = lanes_of(even)
    while j < columns:
        i = 0
        while 2 * i < rows:
            turn(even + i * ld + j, ld, evens, lanes)
            turn(odd + i * ld + j, ld, odds, lanes)
            n = min(2 * lanes, rows - 2 * i)
            for k in range(min(lanes, columns - j)):
                zip_rows(
                    <const real*>evens + k * lanes, <const real*>odds + k * lanes, zipped,
                    lanes,
                )
                copy(to + (j + k) * to_ld + 2 * i, zipped, n)
            i += lanes
        j += lanes


cdef inline void collect(
    const real* source, Py_ssize_t ld, Py_ssize_t rows, Py_ssize_t columns,
    real* to, Py_ssize_t to_ld,
) noexcept nogil:
    """Transpose far rows to a near matrix.

    Where rows are missing for a whole block, columns of zeros are written.
    """
    cdef real block[MOST_LANES * MOST_LANES]
    cdef Py_ssize_t i = 0, j, k, n, m, lanes = lanes_of(source)
    while i < rows:
        n = min(lanes, rows - i)
        j = 0
        while j < columns:
            if j + lanes > columns and columns > lanes:
                j = columns - lanes  # some of them once more
            m = min(lanes, columns - j)
            if n == lanes and m == lanes:
                turn(source + i * ld + j, ld, to + j * to_ld + i, to_ld)
            else:
                memset(block, 0, sizeof(block))
                for k in range(n):
                    copy(block + k * lanes, source + (i + k) * ld + j, m)
                turn(block, lanes, block, lanes)
                for k in range(m):
                    copy(to + (j + k) * to_ld + i, <const real*>block + k * lanes, lanes)
            j += lanes
        i += lanes


cdef inline void turn_taps(
    const real* weight, Py_ssize_t taps, Py_ssize_t rows, Py_ssize_t here,
    const real* end, real* block,
) noexcept nogil:
    """Write `here` taps of some kernels, `taps` scalars apart, as rows of NR scalars.

    `here` is at most the lanes of a vector. Whole blocks are read if the weights go on
    for so long: `end` is behind the last.
    """
    cdef Py_ssize_t half = lanes_of(weight), j
    if rows == NV * half and weight + (NV * half - 1) * taps + half <= end:
        for j in range(NV):
            turn(weight + j * half * taps, taps, block + j * half, NV * half)
    else:
        collect(weight, taps, rows, here, block, NV * half)


cdef inline void turn_pixels(
    const vec* source, Py_ssize_t ld, Py_ssize_t rows, Py_ssize_t n, const int* places,
    vec* to,
) noexcept nogil:
    """Transpose n pixels of some planes, fewer than a block."""
    cdef vec block[MOST_LANES]
    cdef int i, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    for i in range(lanes):
        block[i] = zero_lanes(source)
        if i < rows:
            block[i] = part(ahead(source, i * ld), (<unsigned long long>1 << n) - 1)
    mix(block)
    for i in range(lanes):
        if i < n:
            to[places[i]] = block[i]


cdef inline void turn_block(
    const vec* source, Py_ssize_t ld, const int* places, vec* to
) noexcept nogil:
    """Transpose a whole block."""
    cdef vec block[MOST_LANES]
    cdef int i, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    for i in range(lanes):
        cc_fetch(ahead(source, i * ld + FAR * lanes))
        block[i] = ahead(source, i * ld)[0]
    mix(block)
    for i in range(lanes):
        to[places[i]] = block[i]


cdef inline void put_pixels(
    const vec* source, Py_ssize_t ld, Py_ssize_t rows, Py_ssize_t pixels,
    const int* places, vec* to,
) noexcept nogil:
    """Put some pixels of some planes to their places, as vectors.

    Lanes without a plane are zero.
    """
    cdef Py_ssize_t i = 0, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    while i < pixels:
        if i + lanes > pixels and pixels > lanes:
            i = pixels - lanes  # some of them once more
        if rows == lanes and pixels >= lanes:
            turn_block(ahead(source, i), ld, places + i, to)
        else:
            turn_pixels(ahead(source, i), ld, rows, min(lanes, pixels), places + i, to)
        i += lanes
