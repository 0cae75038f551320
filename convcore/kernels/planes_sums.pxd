# Sums of products of planes, pixels in the lanes: what a tile adds to a gradient of weight.
#
# What      sums[ky, kx] += dy[row i, x] * source[row i * S + ky, x + kx]
#           for R rows i of some tiles and all columns x, a vector of them at a time; the
#           lanes are added at the end. planes.pxd tells which rows a tile reads.
# Layout    Of K taps a column, N = (R - 1) * S + K rows are loaded, once for all of them:
#
#               dy row 0  x  row 0, 1, 2 of the source  -->  sums k0, k1, k2    K sums, or
#               dy row 1  x  row 1, 2, 3                -->  sums k0, k1, k2    3 * K, in
#               ...                                                             registers
#
# Cost      R + N loads for R * K multiply-adds; R + 3 N for three times as many.
# Why not   All columns of a kernel at once: 5 x 5 sums leave no registers for the rows.
# Source    as conv_planes_weight.pyx.

from convcore.kernels.geometry cimport Axis
from convcore.kernels.planes cimport (
    FAR, FIVE, MOST_LOADS, ONE, SEVEN, THREE, THREE_APART, TWO, Column, Halves, apart_of,
    five, five_apart, load, one, seven, taps, taps_of, three, three_apart, two,
)
from convcore.kernels.vector cimport (
    ROWS, ROWS_HALF, VEC_BYTES, f32v, vec, ahead, cc_fetch, part, zero_lanes,
)

cdef struct tall:
    char _

cdef struct low:
    char _

cdef struct single:
    char _

ctypedef fused shape:  # of a tile, as a type: its rows are a constant
    tall
    low
    single

cdef struct narrow:
    char _

cdef struct wide:
    char _

ctypedef fused width:  # the kernel's columns that share the loads of dy
    narrow
    wide

cdef struct Columns:  # what all tiles share
    Column column                # taps that share loads
    Axis x
    Halves halves                # rows that are copied: split, or with their borders
    Py_ssize_t pitch             # scalars of dy from row to row of a tile
    Py_ssize_t vectors, longest  # of a row; that are summed at a time
    Py_ssize_t kernel_row        # weights


cdef inline int rows_of(shape* tile) noexcept nogil:
    """Count the rows of a tile."""
    if shape is tall:
        return ROWS
    elif shape is low:
        return ROWS_HALF
    else:
        return 1


cdef inline void feed(
    const vec* dy, const vec* v, vec* acc, shape* tile, taps* column
) noexcept nogil:
    """Add the products of one tap."""
    cdef int i
    for i in range(rows_of(tile)):
        acc[0] = acc[0] + dy[i] * v[i * apart_of(column)]


cdef inline void feed_column(
    const vec* dy, const vec* v, vec* acc, shape* tile, taps* column
) noexcept nogil:
    """Add the products of one column of the kernel, K taps."""
    cdef int count = taps_of(column)
    feed(dy, v, acc, tile, column)
    if count > 1:
        feed(dy, v + 1, acc + 1, tile, column)
    if count > 2:
        feed(dy, v + 2, acc + 2, tile, column)
    if count > 3:
        feed(dy, v + 3, acc + 3, tile, column)
        feed(dy, v + 4, acc + 4, tile, column)
    if count > 5:
        feed(dy, v + 5, acc + 5, tile, column)
        feed(dy, v + 6, acc + 6, tile, column)


cdef inline void start_column(vec zero, vec* acc, taps* column) noexcept nogil:
    """Start the sums of a column; a loop would become a call of memset."""
    cdef int count = taps_of(column)
    acc[0] = zero
    if count > 1:
        acc[1] = zero
    if count > 2:
        acc[2] = zero
    if count > 3:
        acc[3] = zero
        acc[4] = zero
    if count > 5:
        acc[5] = zero
        acc[6] = zero


cdef inline void end_column(
    vec* sums, Py_ssize_t row, const vec* acc, taps* column
) noexcept nogil:
    """Add the sums of a column to those of earlier units."""
    cdef int count = taps_of(column)
    sums[0] = sums[0] + acc[0]
    if count > 1:
        sums[row] = sums[row] + acc[1]
    if count > 2:
        sums[2 * row] = sums[2 * row] + acc[2]
    if count > 3:
        sums[3 * row] = sums[3 * row] + acc[3]
        sums[4 * row] = sums[4 * row] + acc[4]
    if count > 5:
        sums[5 * row] = sums[5 * row] + acc[5]
        sums[6 * row] = sums[6 * row] + acc[6]


cdef inline Py_ssize_t place_of(const Columns* c, Py_ssize_t kx) noexcept nogil:
    """Give the scalar of a row, split or not, that tap kx of output 0 meets."""
    cdef Py_ssize_t at = c.x.off0 + kx * c.x.off_step
    if c.halves.split:
        return (at & 1) * c.halves.odd + (at >> 1) - c.halves.first
    return at


cdef inline void add_tiles(
    const Columns* c, const vec* const* table, const vec* dy, const long long* record,
    Py_ssize_t tiles, Py_ssize_t apart, Py_ssize_t kx, bint fetch,
    const unsigned int* all_masks, vec* sums, shape* tile, taps* column, width* columns,
) noexcept nogil:
    """Add the products of some tiles for one block of taps, and its sums to `sums`."""
    cdef vec acc[9]
    cdef vec rows[ROWS]
    cdef vec v[MOST_LOADS]
    cdef Py_ssize_t t, _i, at, pitch = c.pitch
    cdef Py_ssize_t vectors = c.vectors, masks_step = 1 + c.x.taps
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef Py_ssize_t start = place_of(c, kx), kernel_row = c.kernel_row
    cdef Py_ssize_t second = place_of(c, kx + 1) - start
    cdef Py_ssize_t third = place_of(c, kx + 2) - start
    cdef const unsigned int* masks
    cdef const vec* row
    cdef int count = taps_of(column), k, loads = (rows_of(tile) - 1) * apart_of(column) + count
    cdef Py_ssize_t left, here
    start_column(zero_lanes(dy), acc, column)
    if width is wide:
        start_column(zero_lanes(dy), acc + count, column)
        start_column(zero_lanes(dy), acc + 2 * count, column)
    for t in range(tiles):
        row = ahead(dy, record[t * (apart + 1)])
        masks = all_masks
        at = start
        left = vectors
        while left:
            here = min(left, c.longest)
            for _i in range(here):
                if fetch:
                    for k in range(rows_of(tile)):
                        cc_fetch(<const char*>ahead(row, k * pitch) + FAR)
                        cc_fetch(<const char*>ahead(table[k], at) + FAR)
                for k in range(rows_of(tile)):
                    rows[k] = part(ahead(row, k * pitch), masks[0])
                load(table, at, masks[kx + 1], loads, v)
                feed_column(rows, v, acc, tile, column)
                if width is wide:
                    load(table, at + second, masks[kx + 2], loads, v)
                    feed_column(rows, v, acc + count, tile, column)
                    load(table, at + third, masks[kx + 3], loads, v)
                    feed_column(rows, v, acc + 2 * count, tile, column)
                row = ahead(row, lanes)
                at += lanes
                masks += masks_step
            left -= here
            if left:  # a very long row
                end_column(sums, kernel_row, acc, column)
                start_column(zero_lanes(dy), acc, column)
                if width is wide:
                    end_column(sums + 1, kernel_row, acc + count, column)
                    end_column(sums + 2, kernel_row, acc + 2 * count, column)
                    start_column(zero_lanes(dy), acc + count, column)
                    start_column(zero_lanes(dy), acc + 2 * count, column)
        table += apart
    end_column(sums, kernel_row, acc, column)
    if width is wide:
        end_column(sums + 1, kernel_row, acc + count, column)
        end_column(sums + 2, kernel_row, acc + 2 * count, column)


cdef inline void add_rows(
    const Columns* c, const vec* const* table, const vec* dy, const long long* record,
    Py_ssize_t tiles, Py_ssize_t apart, bint fetch, const unsigned int* masks, vec* sums,
    shape* tile, taps* column,
) noexcept nogil:
    """Add all columns of a block of kernel rows: three at once where registers allow."""
    cdef Py_ssize_t kx = 0
    if taps is one or taps is two or taps is three or taps is three_apart:
        while kx + 3 <= c.x.taps:
            add_tiles(
                c, table, dy, record, tiles, apart, kx, fetch and kx == 0, masks,
                sums + kx, tile, column, <wide*>NULL,
            )
            kx += 3
    while kx < c.x.taps:
        add_tiles(
            c, table, dy, record, tiles, apart, kx, fetch and kx == 0, masks, sums + kx,
            tile, column, <narrow*>NULL,
        )
        kx += 1


cdef inline void add_block(
    const Columns* c, const vec* const* table, const vec* dy, const long long* record,
    Py_ssize_t tiles, Py_ssize_t apart, bint fetch, const unsigned int* masks, vec* sums,
    shape* tile,
) noexcept nogil:
    """Choose the block of taps that share loads."""
    if c.column == ONE:
        add_rows(c, table, dy, record, tiles, apart, fetch, masks, sums, tile, <one*>NULL)
    elif c.column == TWO:
        add_rows(c, table, dy, record, tiles, apart, fetch, masks, sums, tile, <two*>NULL)
    elif c.column == THREE:
        add_rows(c, table, dy, record, tiles, apart, fetch, masks, sums, tile, <three*>NULL)
    elif c.column == FIVE:
        add_rows(c, table, dy, record, tiles, apart, fetch, masks, sums, tile, <five*>NULL)
    elif c.column == SEVEN:
        add_rows(c, table, dy, record, tiles, apart, fetch, masks, sums, tile, <seven*>NULL)
    elif c.column == THREE_APART:
        add_rows(
            c, table, dy, record, tiles, apart, fetch, masks, sums, tile, <three_apart*>NULL
        )
    elif shape is low or shape is single:  # `cut_plane` gives `tall` no other
        add_rows(
            c, table, dy, record, tiles, apart, fetch, masks, sums, tile, <five_apart*>NULL
        )
