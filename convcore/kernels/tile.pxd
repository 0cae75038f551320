# The register tile: the one loop in which the arithmetic of convolution happens.
#
# What      acc[i, v] = sum over k of a[i * a_row + k * a_step] * b[k][v]
#           for `rows` rows i and NV vectors v, or several times NV for few rows.
# Layout    a: scalars, broadcast.        b: addresses of rows of NR scalars.
#
#               k ->                        v ->
#           i  [a a a a ...]           k  *-> [bbbb|bbbb]
#           |  [a a a a ...]           |  *-> [bbbb|bbbb]
#           v  [a a a a ...]           v  *-> [bbbb|bbbb]
#
#           A row of b lies where it already is, if it is there in one piece, so that most
#           patches of a dense convolution are never copied. `sum_scattered` has it the
#           other way round: rows of b packed, and a[i] an address to which at[k] is added.
# Order     Each element of acc is one chain of fused multiply-adds in ascending k, from
#           zero, whatever the shape of the tile is: a tail sums as a full tile does.
# Cost      MR * NV multiply-adds for MR + NV + 1 loads a step. On AVX-512 28 for 17.
#           A tile of one row has NV chains and waits for each sum; so few rows take WIDE
#           panels at once.
# Why not   The rows as an argument: GCC 12 keeps one copy for all of them, with a branch
#           after every row (30 % slower on 7 x 7 maps). Plain float arrays instead of
#           vector types: it keeps them in registers for one caller and spills for the
#           next. One packed panel for b: it copies every patch, for depthwise layers as
#           much work as the sums.
# Source    Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication,
#           ACM TOMS 34 (2008), section 6; BLIS for the names MR and NR; Dukhan, The
#           Indirect Convolution Algorithm, arXiv:1907.02129, for the addresses.

from libc.math cimport sqrt

from convcore.kernels.checked cimport check_range
from convcore.kernels.vector cimport (
    MR, MR_HALF, MR_QUARTER, NR_BYTES, NV, TILE, WIDE, f32v, f64v, real, vec, ahead, cc_fetch,
    lanes_from, zero_lanes,
)


cdef enum:
    CHAIN = 8  # terms of one block of a sum, times the root of all terms
    SHORT = 96  # terms of a block that needs no others to be right

cdef struct full:
    char _

cdef struct half:
    char _

cdef struct quarter:
    char _

cdef struct single:
    char _

ctypedef fused shape:  # of a tile, as a type: its rows are a constant of each function
    full
    half
    quarter
    single


cdef inline int rows_of(shape* tile) noexcept nogil:
    """Count the rows of a tile."""
    if shape is full:
        return MR
    elif shape is half:
        return MR_HALF
    elif shape is quarter:
        return MR_QUARTER
    else:
        return 1


cdef inline Py_ssize_t chain(Py_ssize_t terms) noexcept nogil:
    """Choose how many terms are summed one after the other, before the next block.

    A sum of K equal terms in blocks of L is wrong by up to (L + K / L) / 4 units in the
    last place: with L = 8 * sqrt(K) that is at most 2 * sqrt(K) + 1 for every K >= 64.
    """
    return <Py_ssize_t>(CHAIN * sqrt(<double>terms))


cdef inline Py_ssize_t partial_chain(Py_ssize_t terms) noexcept nogil:
    """Choose the same for blocks of a few taps out of many.

    At a border most taps meet padding, and all terms of one block may be the only ones.
    """
    return min(chain(terms), SHORT)


cdef inline void put(
    const vec* a, Py_ssize_t a_row, Py_ssize_t a_step, const vec* const* b,
    Py_ssize_t depth, const vec* bias, vec* to, Py_ssize_t to_row, Py_ssize_t tiles,
    shape* tile,
) noexcept nogil:
    """Do `put_rows` for tiles of one shape.

    The loop over tiles is in here because GCC unrolls only loops within loops early
    enough to keep `acc` out of memory.
    """
    cdef vec acc[TILE]
    cdef const vec* here
    cdef vec* row
    cdef Py_ssize_t k, t
    cdef int i, rows = rows_of(tile)
    cdef vec b0, b1, s
    for t in range(tiles):
        here = ahead(a, t * rows * a_row)
        row = <vec*>ahead(<const vec*>to, t * rows * to_row)
        for i in range(rows):
            acc[NV * i] = zero_lanes(a)
            acc[NV * i + 1] = zero_lanes(a)
        for k in range(depth):
            b0 = b[k][0]
            b1 = b[k][1]
            for i in range(rows):
                s = lanes_from(here, i * a_row)
                acc[NV * i] = acc[NV * i] + s * b0
                acc[NV * i + 1] = acc[NV * i + 1] + s * b1
            here = ahead(here, a_step)
        if bias:
            for i in range(rows):
                s = lanes_from(bias, t * rows + i)
                row[0] = acc[NV * i] + s
                row[1] = acc[NV * i + 1] + s
                row = <vec*>ahead(<const vec*>row, to_row)
        else:
            for i in range(rows):
                row[0] = row[0] + acc[NV * i]
                row[1] = row[1] + acc[NV * i + 1]
                row = <vec*>ahead(<const vec*>row, to_row)


cdef inline void put_vectors(
    const vec* a, Py_ssize_t a_row, Py_ssize_t a_step, const vec* const* b,
    Py_ssize_t depth, const vec* bias, vec* to, Py_ssize_t to_row, Py_ssize_t rows,
) noexcept nogil:
    """Do whole tiles, then the smallest that holds the rows that are left."""
    cdef Py_ssize_t tiles = rows // MR, done = tiles * MR
    put(a, a_row, a_step, b, depth, bias, to, to_row, tiles, <full*>NULL)
    rows -= done
    a = ahead(a, done * a_row)
    to = <vec*>ahead(<const vec*>to, done * to_row)
    if bias:
        bias = ahead(bias, done)
    tiles = min(rows, 1)
    if rows > MR_HALF:
        put(a, a_row, a_step, b, depth, bias, to, to_row, tiles, <full*>NULL)
    elif rows > MR_QUARTER:
        put(a, a_row, a_step, b, depth, bias, to, to_row, tiles, <half*>NULL)
    elif rows > 1:
        put(a, a_row, a_step, b, depth, bias, to, to_row, tiles, <quarter*>NULL)
    else:
        put(a, a_row, a_step, b, depth, bias, to, to_row, tiles, <single*>NULL)


cdef inline bint exact_rows(Py_ssize_t rows) noexcept nogil:
    """Tell whether there is a tile of exactly so many rows."""
    return rows == MR or rows == MR_HALF or rows == MR_QUARTER or rows == 1


cdef inline void put_rows(
    const real* a, Py_ssize_t a_row, Py_ssize_t a_step, const real* const* b,
    Py_ssize_t depth, const real* bias, real* to, Py_ssize_t to_row, Py_ssize_t rows,
) noexcept nogil:
    """Write product + bias to rows of NR scalars `to_row` apart; without bias, add it.

    The smallest tile that holds the rows behind whole tiles is used: unless `exact_rows`,
    the operands and the result have to go on up to a whole tile.
    """
    check_range(to + (rows - 1) * to_row, NR_BYTES)
    if depth:
        check_range(b[0], NR_BYTES)
        check_range(b[depth - 1], NR_BYTES)
    if real is float:
        put_vectors(
            <const f32v*>a, a_row, a_step, <const f32v* const*>b, depth,
            <const f32v*>bias, <f32v*>to, to_row, rows,
        )
    else:
        put_vectors(
            <const f64v*>a, a_row, a_step, <const f64v* const*>b, depth,
            <const f64v*>bias, <f64v*>to, to_row, rows,
        )


cdef inline void put_wide_vectors(
    const vec* a, Py_ssize_t a_step, const vec* const* b, Py_ssize_t b_panel,
    Py_ssize_t depth, const vec* bias, vec* to, Py_ssize_t to_panel,
) noexcept nogil:
    """Do `put_wide` on vectors."""
    cdef vec acc[WIDE * NV]
    cdef vec* row
    cdef vec s
    cdef Py_ssize_t k
    cdef int j
    for j in range(WIDE * NV):
        acc[j] = zero_lanes(a)
    for k in range(depth):
        s = lanes_from(a, 0)
        for j in range(WIDE):
            acc[NV * j] = acc[NV * j] + s * b[j * b_panel + k][0]
            acc[NV * j + 1] = acc[NV * j + 1] + s * b[j * b_panel + k][1]
        a = ahead(a, a_step)
    for j in range(WIDE):
        row = <vec*>ahead(<const vec*>to, j * to_panel)
        if bias:
            s = lanes_from(bias, 0)
            row[0] = acc[NV * j] + s
            row[1] = acc[NV * j + 1] + s
        else:
            row[0] = row[0] + acc[NV * j]
            row[1] = row[1] + acc[NV * j + 1]


cdef inline void put_wide(
    const real* a, Py_ssize_t a_step, const real* const* b, Py_ssize_t b_panel,
    Py_ssize_t depth, const real* bias, real* to, Py_ssize_t to_panel,
) noexcept nogil:
    """Do `put_rows` for one row and WIDE panels, `b_panel` addresses apart."""
    if real is float:
        put_wide_vectors(
            <const f32v*>a, a_step, <const f32v* const*>b, b_panel, depth,
            <const f32v*>bias, <f32v*>to, to_panel,
        )
    else:
        put_wide_vectors(
            <const f64v*>a, a_step, <const f64v* const*>b, b_panel, depth,
            <const f64v*>bias, <f64v*>to, to_panel,
        )


cdef inline void sum_rows(
    const vec* source, const Py_ssize_t* places, const Py_ssize_t* at, const vec* b,
    Py_ssize_t depth, const vec* start, vec* to, Py_ssize_t tiles, shape* tile,
) noexcept nogil:
    """Do `sum_scattered` for tiles of one shape and whole rows.

    The loop over tiles is in here because GCC unrolls only loops within loops early
    enough to keep `acc` out of memory.
    """
    cdef vec acc[TILE]
    cdef const vec* a[MR]
    cdef Py_ssize_t k, _tile
    cdef int i, rows = rows_of(tile)
    cdef vec b0, b1, s
    for _tile in range(tiles):
        for i in range(rows):
            a[i] = ahead(source, places[i])
            acc[NV * i] = zero_lanes(b)
            acc[NV * i + 1] = zero_lanes(b)
        for k in range(depth):
            b0 = b[NV * k]
            b1 = b[NV * k + 1]
            for i in range(rows):
                s = lanes_from(a[i], at[k])
                acc[NV * i] = acc[NV * i] + s * b0
                acc[NV * i + 1] = acc[NV * i + 1] + s * b1
        if start:
            b0, b1 = start[0], start[1]
            for i in range(rows):
                to[NV * i] = acc[NV * i] + b0
                to[NV * i + 1] = acc[NV * i + 1] + b1
        else:
            for i in range(rows):
                to[NV * i] = to[NV * i] + acc[NV * i]
                to[NV * i + 1] = to[NV * i + 1] + acc[NV * i + 1]
        places += rows
        to += NV * rows


cdef inline void sum_half_rows(
    const vec* source, const Py_ssize_t* places, const Py_ssize_t* at, const vec* b,
    Py_ssize_t depth, const vec* start, vec* to, Py_ssize_t tiles, shape* tile,
) noexcept nogil:
    """Do `sum_scattered` for tiles of one shape and the first vector of each row."""
    cdef vec acc[TILE]
    cdef const vec* a[MR]
    cdef Py_ssize_t k, _tile
    cdef int i, rows = rows_of(tile)
    cdef vec b0
    for _tile in range(tiles):
        for i in range(rows):
            a[i] = ahead(source, places[i])
            acc[i] = zero_lanes(b)
        for k in range(depth):
            b0 = b[NV * k]
            for i in range(rows):
                acc[i] = acc[i] + lanes_from(a[i], at[k]) * b0
        if start:
            b0 = start[0]
            for i in range(rows):
                to[NV * i] = acc[i] + b0
        else:
            for i in range(rows):
                to[NV * i] = to[NV * i] + acc[i]
        places += rows
        to += NV * rows


cdef inline void sum_near_half_rows(
    const vec* source, const Py_ssize_t* at, const vec* b, Py_ssize_t depth,
    const vec* start, vec* to, Py_ssize_t tiles,
) noexcept nogil:
    """Do `sum_half_rows` for whole tiles of neighbours: one load for each product."""
    cdef vec acc[MR]
    cdef const vec* s
    cdef Py_ssize_t k, t
    cdef int i
    cdef vec b0
    for t in range(tiles):
        for i in range(MR):
            acc[i] = zero_lanes(b)
        for k in range(depth):
            b0 = b[NV * k]
            s = ahead(source, t * MR + at[k])
            for i in range(MR):
                acc[i] = acc[i] + lanes_from(s, i) * b0
        if start:
            b0 = start[0]
            for i in range(MR):
                to[NV * i] = acc[i] + b0
        else:
            for i in range(MR):
                to[NV * i] = to[NV * i] + acc[i]
        to += NV * MR


cdef inline void sum_narrow(
    const vec* source, const Py_ssize_t* places, const Py_ssize_t* at, const vec* b,
    Py_ssize_t depth, const vec* start, vec* to, Py_ssize_t rows,
) noexcept nogil:
    """Do `sum_scattered` for the first vector of each row.

    Places ascend: if the last of a tile is MR - 1 behind the first, they are neighbours.
    """
    cdef Py_ssize_t one = min(rows, 1)
    while rows > 0:
        if rows >= MR and places[MR - 1] - places[0] == MR - 1:
            sum_near_half_rows(ahead(source, places[0]), at, b, depth, start, to, one)
        elif rows > MR_HALF:
            sum_half_rows(source, places, at, b, depth, start, to, one, <full*>NULL)
        else:
            sum_half_rows(source, places, at, b, depth, start, to, one, <half*>NULL)
        rows -= MR
        places += MR
        to += MR * NV


cdef inline void sum_vectors(
    const vec* source, const Py_ssize_t* places, const Py_ssize_t* at, const vec* b,
    Py_ssize_t depth, const vec* start, vec* to, Py_ssize_t rows, bint narrow,
) noexcept nogil:
    """Do whole tiles, then the smallest that holds the rows that are left."""
    cdef Py_ssize_t tiles = rows // MR, done = tiles * MR
    if narrow:
        sum_narrow(source, places, at, b, depth, start, to, rows)
        return
    sum_rows(source, places, at, b, depth, start, to, tiles, <full*>NULL)
    rows -= done
    places += done
    to += done * NV
    tiles = min(rows, 1)
    if rows > MR_HALF:
        sum_rows(source, places, at, b, depth, start, to, tiles, <full*>NULL)
    elif rows > MR_QUARTER:
        sum_rows(source, places, at, b, depth, start, to, tiles, <half*>NULL)
    elif rows > 0:
        sum_rows(source, places, at, b, depth, start, to, tiles, <quarter*>NULL)


cdef inline void sum_scattered(
    const real* source, const Py_ssize_t* places, const Py_ssize_t* at, const real* b,
    Py_ssize_t depth, const real* start, real* to, Py_ssize_t rows, bint narrow,
) noexcept nogil:
    """Write start + the product of scalars source[places[i] + at[k]] and rows b[k].

    Rows have NR scalars. Without a start, add it to what is there. `narrow` leaves the
    second half of each row alone. Places and the result have to go on up to whole tiles.
    """
    check_range(b, depth * NR_BYTES)
    check_range(to, rows * NR_BYTES)
    if real is float:
        sum_vectors(
            <const f32v*>source, places, at, <const f32v*>b, depth, <const f32v*>start,
            <f32v*>to, rows, narrow,
        )
    else:
        sum_vectors(
            <const f64v*>source, places, at, <const f64v*>b, depth, <const f64v*>start,
            <f64v*>to, rows, narrow,
        )


cdef inline void add_rows_at(
    const vec* a, const vec* b, Py_ssize_t b_step, Py_ssize_t depth, const vec* soon,
    Py_ssize_t soon_step, vec* const* to, Py_ssize_t tiles, shape* tile,
) noexcept nogil:
    """Do `add_packed` for one shape of the tile; the loop over tiles is that of `put`."""
    cdef vec acc[TILE]
    cdef const vec* here
    cdef vec* row
    cdef Py_ssize_t k, t
    cdef int i, rows = rows_of(tile)
    cdef vec b0, b1, s
    for t in range(tiles):
        here = b
        for i in range(rows):
            acc[NV * i] = zero_lanes(a)
            acc[NV * i + 1] = zero_lanes(a)
        for k in range(depth):
            b0 = here[0]
            b1 = here[1]
            for i in range(rows):
                s = lanes_from(a, i)
                acc[NV * i] = acc[NV * i] + s * b0
                acc[NV * i + 1] = acc[NV * i + 1] + s * b1
            a = ahead(a, MR)
            here = ahead(here, b_step)
            cc_fetch(ahead(soon, k * soon_step))
        for i in range(rows):
            row = to[t * MR + i]
            row[0] = row[0] + acc[NV * i]
            row[1] = row[1] + acc[NV * i + 1]


cdef inline void add_vectors(
    const vec* a, const vec* b, Py_ssize_t b_step, Py_ssize_t depth, const vec* soon,
    Py_ssize_t soon_step, vec* const* to, Py_ssize_t rows,
) noexcept nogil:
    """Choose the smallest tile that holds `rows`."""
    cdef Py_ssize_t one = min(rows, 1)
    if rows > MR_HALF:
        add_rows_at(a, b, b_step, depth, soon, soon_step, to, one, <full*>NULL)
    elif rows > MR_QUARTER:
        add_rows_at(a, b, b_step, depth, soon, soon_step, to, one, <half*>NULL)
    else:
        add_rows_at(a, b, b_step, depth, soon, soon_step, to, one, <quarter*>NULL)


cdef inline void add_packed(
    const real* a, const real* b, Py_ssize_t b_step, Py_ssize_t depth, const real* soon,
    Py_ssize_t soon_step, real* const* to, Py_ssize_t rows,
) noexcept nogil:
    """Add the product of scalars a[k * MR + i] and rows b[k * b_step] to rows to[i] of NR.

    The smallest tile that holds `rows` is used: a and to have to go on for MR rows. At
    each k a line `soon_step` further on is fetched.
    """
    check_range(a, depth * MR * sizeof(real))
    check_range(b + (depth - 1) * b_step, NR_BYTES)
    check_range(to[rows - 1], NR_BYTES)
    if real is float:
        add_vectors(
            <const f32v*>a, <const f32v*>b, b_step, depth, <const f32v*>soon, soon_step,
            <f32v* const*>to, rows,
        )
    else:
        add_vectors(
            <const f64v*>a, <const f64v*>b, b_step, depth, <const f64v*>soon, soon_step,
            <f64v* const*>to, rows,
        )


cdef inline void add_halves(
    const vec* rows, const Py_ssize_t* first, const Py_ssize_t* second, vec* sums,
    shape* tile,
) noexcept nogil:
    """Do `add_halves_of` for one shape of the tile."""
    cdef vec* to
    cdef int i
    for i in range(rows_of(tile)):
        to = <vec*>ahead(<const vec*>sums, first[i])
        to[0] = to[0] + rows[NV * i]
        to = <vec*>ahead(<const vec*>sums, second[i])
        to[0] = to[0] + rows[NV * i + 1]


cdef inline void add_halves_of(
    const real* tile, const Py_ssize_t* first, const Py_ssize_t* second, real* sums
) noexcept nogil:
    """Add the vectors of MR rows to two places each."""
    if real is float:
        add_halves(<const f32v*>tile, first, second, <f32v*>sums, <full*>NULL)
    else:
        add_halves(<const f64v*>tile, first, second, <f64v*>sums, <full*>NULL)
