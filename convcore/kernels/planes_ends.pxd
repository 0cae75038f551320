# The ends of rows of planes, where windows see a border that is no zeros.
#
# What      A vector of columns that looks left or right of a row is summed here, all others
#           as with zeros: by planes_tile.pxd and planes_sums.pxd, whose loops stay as they
#           are. Lanes that are masked are patched: they become scalars of the same row.
#
#               load for tap 0   [ - a b c d e f g ]      - is a scalar of the row, say b,
#               patched          [ b a b c d e f g ]      or the border's constant
#
# How       A list tells for each vector and tap which lanes become which scalar. The rows of
#           a tile are loaded and patched into a buffer, from which all taps of the column
#           are fed; so one loop does for every kernel.
# Cost      A patch takes a masked broadcast for each row; feeding, a load for each product.
# Why not   Copies of the rows with their ends (`point_copies`): where few results look at
#           them they take as long as the sums. Patches in the loops for all columns: they
#           cost 20 % where there is no border.
# Source    as conv_planes.pyx.

from convcore.kernels.activation cimport rectify_vectors
from convcore.kernels.border cimport source_at
from convcore.kernels.geometry cimport Axis
from convcore.kernels.planes cimport FAR, MOST_LOADS, THREE, Halves, Rows, three
from convcore.kernels.planes_sums cimport Columns, place_of
from convcore.kernels.planes_sums cimport rows_of as rows_of_sum
from convcore.kernels.planes_sums cimport shape as height
from convcore.kernels.planes_tile cimport Head, Span, Terms, low, rows_of, shape, tall
from convcore.kernels.rounds cimport ceil_div
from convcore.kernels.vector cimport (
    ROWS, VEC_BYTES, f32v, vec, ahead, cc_fetch, lanes_from, part, patch, put_part, zero_lanes,
)

cdef enum:
    MOST_PATCHED = 8  # scalars on either side of a row, as in `halves_of`
    LANES = 0xFFFF  # bits of a mask; those above are the number of its first patch
    INDEX = 16

cdef struct any_other:
    char _

ctypedef fused kernel:  # a column of it, as a type: loops over three taps leave no loops
    three
    any_other

cdef struct Patch:  # of a load: lanes that lie left or right of the row
    Py_ssize_t at               # the scalar of the row that they are; NOTHING: the constant
    unsigned int lanes
    bint last                   # of this load

cdef struct Ends:
    Py_ssize_t left, right, vectors  # of a row: those without patches, all
    Py_ssize_t taps, loads, apart    # of a tile's column; loads from output to output
    const Patch* patches
    const void* constant             # of the border


cdef inline Ends ends_of(const Axis* x, const Rows* r, Py_ssize_t lanes) noexcept nogil:
    """Find the vectors of a row, of stride 1, that look beyond it."""
    cdef Ends e
    cdef Py_ssize_t seen = x.source - x.off0 - x.off_step * (x.taps - 1)
    e.vectors = ceil_div(x.extent, lanes)
    e.left = min(ceil_div(max(-x.off0, 0), lanes), e.vectors)
    e.right = e.vectors
    if seen < x.extent:
        e.right = max(max(seen, 0) // lanes, e.left)
    e.taps, e.loads = r.taps, r.loads
    e.apart = (r.loads - r.taps) // max(r.rows - 1, 1)
    e.patches, e.constant = NULL, NULL
    return e


cdef inline Py_ssize_t taps_of(const Ends* e, kernel* column) noexcept nogil:
    """Count the taps that share loads."""
    return 3 if kernel is three else e.taps


cdef inline Py_ssize_t apart_of(const Ends* e, kernel* column) noexcept nogil:
    """Count the loaded rows from one output to the next."""
    return 1 if kernel is three else e.apart


cdef inline Py_ssize_t room_of_patches(const Halves* h, const Axis* x) noexcept nogil:
    """Count the bytes of all patches: of each tap, one for each scalar at most."""
    return (2 * MOST_PATCHED * x.taps + 1) * sizeof(Patch) if h.patched else 0


cdef inline Py_ssize_t list_patches(
    const Axis* a, Py_ssize_t x, Py_ssize_t count, unsigned int* masks, Patch* patches,
    Py_ssize_t number,
) noexcept nogil:
    """Write patches for `count` outputs from column x on; give the new number of them.

    Of an axis with stride 1. The lanes that find the same scalar are one patch. Number 0
    is left out: it means none.
    """
    cdef Py_ssize_t kx, lane, at, first, i
    for kx in range(a.taps):
        first = number
        masks[kx] = masks[kx] & LANES
        for lane in range(count):
            at = x + lane + a.off0 + a.off_step * kx
            if 0 <= at and at - lane + count <= a.source:
                break  # here and behind all are in the row
            if 0 <= at < a.source:
                continue
            at = source_at(a.border, at, a.source)
            i = first
            while i < number and patches[i].at != at:
                i += 1
            if i == number:
                patches[i].at, patches[i].lanes, patches[i].last = at, 0, False
                number += 1
            patches[i].lanes |= <unsigned int>1 << lane
        if number > first:
            patches[number - 1].last = True
            masks[kx] |= <unsigned int>first << INDEX
    return number


cdef inline void load_end(
    const Ends* e, const vec* const* table, Py_ssize_t at, unsigned int bits,
    Py_ssize_t loads, vec* v,
) noexcept nogil:
    """Load a vector of each row, from scalar `at` on, and patch it."""
    cdef const Patch* p = e.patches + (bits >> INDEX)
    cdef Py_ssize_t j
    for j in range(loads):
        v[j] = part(ahead(table[j], at), bits)
    if bits >> INDEX == 0:
        return
    while True:
        for j in range(loads):
            v[j] = patch(
                v[j], <const vec*>e.constant if p.at < 0 else ahead(table[j], p.at), p.lanes
            )
        if p.last:
            break
        p += 1


cdef inline void sum_end(
    const Terms* t, const Ends* e, const vec* const* table, const vec* weight, vec bias,
    const unsigned int* masks, Py_ssize_t x, vec* acc, shape* tile, kernel* column,
) noexcept nogil:
    """Sum all terms of one vector of columns of one channel, as `sum_tile` does."""
    cdef vec v[MOST_LOADS]
    cdef vec sums[ROWS]
    cdef vec total[ROWS]
    cdef vec s
    cdef Py_ssize_t b, kx, ky, at, left = t.run
    cdef int i, rows = rows_of(tile)
    cdef Py_ssize_t taps = taps_of(e, column), apart = apart_of(e, column)
    cdef Py_ssize_t loads = (rows - 1) * apart + taps
    cdef const vec* w
    for i in range(rows):
        sums[i] = total[i] = zero_lanes(weight)
    for b in range(t.blocks):
        if left == 0:
            left = t.run
            for i in range(rows):
                total[i] = total[i] + sums[i]
                sums[i] = zero_lanes(weight)
        left -= 1
        at = x + t.reach[0].at
        w = ahead(weight, t.offsets[b] + t.reach[0].tap0)
        for kx in range(t.reach[0].taps):
            load_end(e, table, at, masks[kx], loads, v)
            for ky in range(taps):
                s = lanes_from(w, ky * t.y_step)
                for i in range(rows):
                    sums[i] = sums[i] + s * v[i * apart + ky]
            w = ahead(w, t.reach[0].tap_step)
            at += t.reach[0].steps[0]
        table += loads
    for i in range(rows):
        acc[i] = total[i] + sums[i] + bias


cdef inline void put_rows(
    const vec* acc, Py_ssize_t rows, Py_ssize_t to_row, Py_ssize_t n, vec* to
) noexcept nogil:
    """Store n scalars at most of some rows."""
    cdef Py_ssize_t i
    for i in range(rows):
        put_part(<vec*>ahead(<const vec*>to, i * to_row), acc[i], n)


cdef inline void put_ends(
    const Terms* t, const Ends* e, const vec* const* table, const Head* head,
    const vec* weights, const vec* biases, const Span* where, vec* out, shape* tile,
    kernel* column,
) noexcept nogil:
    """Compute the ends of all rows of some tiles."""
    cdef vec acc[ROWS]
    cdef vec bias = zero_lanes(weights)
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8), _i, j, m, x
    cdef vec* to
    for _i in range(where.tiles):
        for m in range(t.m):
            if biases:
                bias = lanes_from(biases, head.bias + m)
            j = 0
            while j < e.vectors:
                if e.left <= j < e.right:
                    j = e.right
                    continue
                x = j * lanes
                sum_end(
                    t, e, table, ahead(weights, head.weight + m * t.m_step), bias,
                    where.masks + j * t.reach[0].taps, x, acc, tile, column,
                )
                if t.relu:
                    rectify_vectors(acc, ROWS)
                to = <vec*>ahead(<const vec*>out, head.out + m * t.plane + x)
                put_rows(acc, head.count, where.to_row, where.x_end - x, to)
                j += 1
        table += t.loads
        head += 1


cdef inline void choose_rows(
    const Terms* t, const Ends* e, const vec* const* table, const Head* head,
    const vec* weights, const vec* biases, const Span* where, vec* out, kernel* column,
) noexcept nogil:
    """Choose the rows of a tile."""
    if t.high:
        put_ends(t, e, table, head, weights, biases, where, out, <tall*>NULL, column)
    else:
        put_ends(t, e, table, head, weights, biases, where, out, <low*>NULL, column)


cdef inline void run_ends(
    const Terms* t, const Ends* e, const vec* const* table, const Head* head,
    const vec* weights, const vec* biases, const Span* where, vec* out,
) noexcept nogil:
    """Choose the column of the kernel."""
    if t.column == THREE:
        choose_rows(t, e, table, head, weights, biases, where, out, <three*>NULL)
    else:
        choose_rows(t, e, table, head, weights, biases, where, out, <any_other*>NULL)


cdef inline void sum_ends(
    const Columns* c, const Ends* e, const vec* const* table, const vec* dy,
    const long long* record, Py_ssize_t tiles, Py_ssize_t between,
    const unsigned int* masks, vec* sums, height* tile, kernel* column,
) noexcept nogil:
    """Add the ends of the rows of some tiles to the sums of a block of kernel rows."""
    cdef vec v[MOST_LOADS]
    cdef vec d[ROWS]
    cdef vec acc
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8), t, j, kx, ky
    cdef int i, rows = rows_of_sum(tile)
    cdef Py_ssize_t taps = taps_of(e, column), apart = apart_of(e, column)
    cdef Py_ssize_t loads = (rows - 1) * apart + taps
    cdef const unsigned int* bits
    cdef const vec* row
    for t in range(tiles):
        j = 0
        while j < e.vectors:
            if e.left <= j < e.right:
                j = e.right
                continue
            bits = masks + j * (1 + c.x.taps)
            row = ahead(dy, record[t * (between + 1)] + j * lanes)
            for i in range(rows):
                cc_fetch(<const char*>ahead(row, i * c.pitch) + FAR)
                cc_fetch(<const char*>ahead(table[i], c.x.off0 + j * lanes) + FAR)
                d[i] = part(ahead(row, i * c.pitch), bits[0])
            for kx in range(c.x.taps):
                load_end(e, table, place_of(c, kx) + j * lanes, bits[1 + kx], loads, v)
                for ky in range(taps):
                    acc = d[0] * v[ky]
                    for i in range(1, rows):
                        acc = acc + d[i] * v[i * apart + ky]
                    sums[ky * c.kernel_row + kx] = sums[ky * c.kernel_row + kx] + acc
            j += 1
        table += between


cdef inline void add_ends(
    const Columns* c, const Ends* e, const vec* const* table, const vec* dy,
    const long long* record, Py_ssize_t tiles, Py_ssize_t between,
    const unsigned int* masks, vec* sums, height* tile,
) noexcept nogil:
    """Choose the column of the kernel."""
    if c.column == THREE:
        sum_ends(
            c, e, table, dy, record, tiles, between, masks, sums, tile, <three*>NULL
        )
    else:
        sum_ends(
            c, e, table, dy, record, tiles, between, masks, sums, tile, <any_other*>NULL
        )


cdef inline Columns between_ends(
    const Columns* c, const Ends* e, Py_ssize_t lanes
) noexcept nogil:
    """Give the columns that need no patches."""
    cdef Columns middle = c[0]
    middle.x.off0 += e.left * lanes
    middle.vectors = e.right - e.left
    return middle
