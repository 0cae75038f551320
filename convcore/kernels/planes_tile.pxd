# The register tile of planes, pixels in the lanes: rows of a result, channel by channel.
#
# What      acc[m, i] = bias[m] + sum over (block of terms, kx, ky) of
#               weight[m, block, ky, kx] * source[row i * S + ky of the block, x + kx]
#           for R rows i of a tile, ROWS or ROWS_HALF, and one or two channels m; a vector
#           of columns x at a time. planes.pxd tells which rows a tile reads.
# Layout    Of K taps a column, N = (R - 1) * S + K rows are loaded, once for all of them:
#
#               row 0  *--k0--> acc 0        S = 1, K = 3, N = R + 2
#               row 1  *--k1--> acc 0, --k0--> acc 1
#               row 2  *--k2--> acc 0, --k1--> acc 1, --k0--> acc 2 ...
#
# Order     Each sum is a chain of fused multiply-adds in the order (block, kx, ky), whatever
#           the tile is: one, or several of `run` blocks, added up; the bias comes last.
# Cost      N loads for R * K multiply-adds of each channel.
# Why not   Tile after tile through one function call each: with one channel that is a
#           quarter of the time on small maps; so batches of tiles, with all that the loop
#           needs in a copy of `Terms`, which no store can change.
# Source    Georganas et al., SC 2018, for loads that several taps share.

from convcore.kernels.activation cimport rectify_vectors
from convcore.kernels.planes cimport (
    FAR, FIVE, MOST_LOADS, ONE, SEVEN, THREE, THREE_APART, TWO, Column, along, apart_of,
    dense, five, five_apart, load, one, seven, taps, taps_of, three, three_apart, two, zipped,
)
from convcore.kernels.vector cimport (
    ROWS, ROWS_HALF, VEC_BYTES, f32v, vec, ahead, cc_fetch, lanes_from, put_part,
    zero_lanes, zip_part,
)

cdef struct tall:
    char _

cdef struct low:
    char _

cdef struct tall_pair:
    char _

cdef struct low_pair:
    char _

ctypedef fused shape:  # of a tile, as a type: its rows and channels are constants
    tall
    low
    tall_pair
    low_pair

cdef struct Reach:  # from a column to its taps
    Py_ssize_t taps, at            # to the first of them
    Py_ssize_t[2] steps            # from one to the next, alternating
    Py_ssize_t tap0, tap_step      # in the weights

cdef struct Head:  # of a tile, counted in scalars
    Py_ssize_t weight, bias, out   # where its first channel is
    Py_ssize_t count               # rows that are written

cdef struct Terms:  # what a tile sums
    Column column                  # taps that share loads
    bint high                      # ROWS rows, or ROWS_HALF
    Py_ssize_t blocks              # (c, kz, block of ky)
    Py_ssize_t run                 # of them in one chain: see `chain` in tile.pxd
    Py_ssize_t loads               # rows of a tile
    const Py_ssize_t* offsets      # of their weights
    Py_ssize_t m_step, y_step      # weights to the next channel, row of the kernel
    Py_ssize_t m                   # channels
    Py_ssize_t plane, width        # scalars of a channel, of a row of the result
    int phases                     # along x
    bint relu                      # of what is dense along x
    Reach[2] reach                 # of each of them

cdef struct Span:  # of some tiles
    Py_ssize_t x, x_end            # columns
    Py_ssize_t tiles, to_row       # tiles; from one row to the next
    const unsigned int* masks      # of the phases along x, from column x on
    const unsigned int* masks1


cdef inline int rows_of(shape* tile) noexcept nogil:
    """Count the rows of a tile."""
    return ROWS if shape is tall or shape is tall_pair else ROWS_HALF


cdef inline int channels_of(shape* tile) noexcept nogil:
    """Count the channels of a tile."""
    return 1 if shape is tall or shape is low else 2


cdef inline void feed(
    const vec* weight, Py_ssize_t m_step, const vec* v, vec* acc, shape* tile, taps* column
) noexcept nogil:
    """Add one tap's products to every row and channel."""
    cdef int m, i, rows = rows_of(tile)
    cdef vec s
    for m in range(channels_of(tile)):
        s = lanes_from(weight, m * m_step)
        for i in range(rows):
            acc[m * rows + i] = acc[m * rows + i] + s * v[i * apart_of(column)]


cdef inline void feed_column(
    const Terms* t, const vec* weight, const vec* v, vec* acc, shape* tile, taps* column
) noexcept nogil:
    """Add the products of K taps."""
    cdef int count = taps_of(column)
    feed(weight, t.m_step, v, acc, tile, column)
    if count > 1:
        feed(ahead(weight, t.y_step), t.m_step, v + 1, acc, tile, column)
    if count > 2:
        feed(ahead(weight, 2 * t.y_step), t.m_step, v + 2, acc, tile, column)
    if count > 3:
        feed(ahead(weight, 3 * t.y_step), t.m_step, v + 3, acc, tile, column)
        feed(ahead(weight, 4 * t.y_step), t.m_step, v + 4, acc, tile, column)
    if count > 5:
        feed(ahead(weight, 5 * t.y_step), t.m_step, v + 5, acc, tile, column)
        feed(ahead(weight, 6 * t.y_step), t.m_step, v + 6, acc, tile, column)


cdef inline void sum_tile(
    const Terms* t, const Reach* r, const vec* const* table, const vec* weight,
    const vec* bias, const unsigned int* masks, Py_ssize_t x, vec* acc, vec* total,
    shape* tile, taps* column,
) noexcept nogil:
    """Sum all terms of one vector of columns: chains of t.run blocks, then the bias."""
    cdef vec v[MOST_LOADS]
    cdef vec sums[2 * ROWS]
    cdef Py_ssize_t b = 0, end, kx, at, step, next_step
    cdef int m, i, rows = rows_of(tile), loads = (rows - 1) * apart_of(column) + taps_of(column)
    cdef const vec* w
    cdef vec last
    weight = ahead(weight, r.tap0)
    while True:
        # In two loops GCC keeps sums in registers: 150 for 56 GFLOP/s with seven taps.
        for i in range(channels_of(tile) * rows):
            sums[i] = zero_lanes(weight)
        end = min(b + t.run, t.blocks)
        while b < end:
            at = x + r.at
            for i in range(rows):
                cc_fetch(<const char*>ahead(table[i], at) + FAR)
            step, next_step = r.steps[0], r.steps[1]
            w = ahead(weight, t.offsets[b])
            for kx in range(r.taps):
                load(table, at, masks[kx], loads, v)
                feed_column(t, w, v, sums, tile, column)
                w = ahead(w, r.tap_step)
                at += step
                step, next_step = next_step, step
            table += loads
            b += 1
        if b < t.blocks:
            for i in range(channels_of(tile) * rows):
                total[i] = sums[i] if b == t.run else total[i] + sums[i]
            continue
        for m in range(channels_of(tile)):
            last = lanes_from(bias, m) if bias else zero_lanes(weight)
            if b <= t.run:
                for i in range(m * rows, (m + 1) * rows):
                    acc[i] = sums[i] + last
            else:
                for i in range(m * rows, (m + 1) * rows):
                    acc[i] = total[i] + sums[i] + last
        break


cdef inline void put_tile(
    const vec* acc, const vec* acc1, vec* to, Py_ssize_t to_m, Py_ssize_t to_row, Py_ssize_t n,
    Py_ssize_t count, shape* tile, along* x,
) noexcept nogil:
    """Store `count` rows of n scalars at most, of two phases in turns."""
    cdef int m, i, rows = rows_of(tile)
    cdef vec* row
    for m in range(channels_of(tile)):
        row = <vec*>ahead(<const vec*>to, m * to_m)
        for i in range(rows):
            if i < count:
                if along is zipped:
                    zip_part(row, acc[m * rows + i], acc1[m * rows + i], n)
                else:
                    put_part(row, acc[m * rows + i], n)
                row = <vec*>ahead(<const vec*>row, to_row)


cdef inline void run_batch(
    const Terms* terms, const vec* const* table, const Head* head,
    const vec* weights, const vec* biases, const Span* where, vec* out, shape* tile,
    taps* column, along* step,
) noexcept nogil:
    """Compute some columns of some tiles."""
    cdef Terms t = terms[0]  # a copy, which no store to `out` can change
    cdef vec acc[2 * ROWS]
    cdef vec acc1[2 * ROWS]
    cdef vec total[2 * ROWS]
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8), x, _i, count
    cdef Py_ssize_t row = where.to_row
    cdef Py_ssize_t x_end = where.x_end, tiles = where.tiles
    cdef const unsigned int* masks
    cdef const unsigned int* masks1
    cdef const vec* weight
    cdef const vec* bias = NULL
    cdef vec* to
    cdef int rows = rows_of(tile), i
    for i in range(2 * ROWS):
        total[i] = zero_lanes(weights)
    for _i in range(tiles):
        x, masks, masks1 = where.x, where.masks, where.masks1
        weight, count = ahead(weights, head.weight), head.count
        if biases:
            bias = ahead(biases, head.bias)
        while x < x_end:
            to = <vec*>ahead(<const vec*>out, head.out + x * (2 if along is zipped else 1))
            sum_tile(
                &t, &t.reach[0], table, weight, bias, masks, x, acc, total, tile, column
            )
            masks += t.reach[0].taps
            if along is zipped:
                sum_tile(
                    &t, &t.reach[1], table, weight, bias, masks1, x, acc1, total, tile,
                    column,
                )
                masks1 += t.reach[1].taps
                put_tile(acc, acc1, to, t.plane, row, t.width - 2 * x, count, tile, step)
            else:
                if t.relu:
                    rectify_vectors(acc, channels_of(tile) * rows)
                if count == rows:
                    put_tile(acc, acc1, to, t.plane, row, x_end - x, rows, tile, step)
                else:
                    put_tile(acc, acc1, to, t.plane, row, x_end - x, count, tile, step)
            x += lanes
        table += t.loads
        head += 1


cdef inline void choose_along(
    const Terms* t, const vec* const* table, const Head* head,
    const vec* weight, const vec* bias, const Span* where, vec* to, shape* tile, taps* column,
) noexcept nogil:
    """Choose how columns are written."""
    if t.phases == 1:
        run_batch(t, table, head, weight, bias, where, to, tile, column, <dense*>NULL)
    elif not (taps is three_apart or taps is five_apart):  # no gradient has them
        run_batch(t, table, head, weight, bias, where, to, tile, column, <zipped*>NULL)


cdef inline void choose_column(
    const Terms* t, const vec* const* table, const Head* head,
    const vec* weight, const vec* bias, const Span* where, vec* to, shape* tile,
) noexcept nogil:
    """Choose the column of the kernel."""
    if t.column == ONE:
        choose_along(t, table, head, weight, bias, where, to, tile, <one*>NULL)
    elif t.column == TWO:
        choose_along(t, table, head, weight, bias, where, to, tile, <two*>NULL)
    elif t.column == THREE:
        choose_along(t, table, head, weight, bias, where, to, tile, <three*>NULL)
    elif t.column == FIVE:
        choose_along(t, table, head, weight, bias, where, to, tile, <five*>NULL)
    elif t.column == SEVEN:
        choose_along(t, table, head, weight, bias, where, to, tile, <seven*>NULL)
    elif t.column == THREE_APART:
        choose_along(t, table, head, weight, bias, where, to, tile, <three_apart*>NULL)
    elif shape is low or shape is low_pair:  # `cut_rows` gives it no other
        choose_along(t, table, head, weight, bias, where, to, tile, <five_apart*>NULL)


cdef inline void run_channels(
    const Terms* t, const vec* const* table, const Head* head,
    const vec* weight, const vec* bias, const Span* where, vec* to,
) noexcept nogil:
    """Compute all channels of some tiles, in pairs."""
    cdef Py_ssize_t m = 0
    while m < t.m:
        if m + 1 < t.m:
            if t.high:
                choose_column(t, table, head, weight, bias, where, to, <tall_pair*>NULL)
            else:
                choose_column(t, table, head, weight, bias, where, to, <low_pair*>NULL)
        elif t.high:
            choose_column(t, table, head, weight, bias, where, to, <tall*>NULL)
        else:
            choose_column(t, table, head, weight, bias, where, to, <low*>NULL)
        weight = ahead(weight, 2 * t.m_step)
        to = <vec*>ahead(<const vec*>to, 2 * t.plane)
        if bias:
            bias = ahead(bias, 2)
        m += 2
