# Winograd's transforms of whole tiles: from patches to matrices, from sums to outputs.
#
# What      Each transform goes along y, then along x. Patches of x and of dy line by line
#           of tiles, as neighbours share what is done along y; the others tile by tile.
#
#               patch [pixel]  -->  v[point] [tile][channel]
#               sums [point][panel][tile][NR channels]  -->  outputs
#               w [tap][NR channels]  -->  u[point] [row of NR channels], and back
#
# Layout    v: a matrix [tile][channel] for each point, rows `row` and matrices `apart` scalars
#           from each other: neither a power of two, or a tile's points share a cache set.
# Cost      as winograd.pxd.
# Why not   The kind of tile as a number in the loops, not compiled into them: 5 % slower.
# Source    as winograd.pxd.

from convcore.kernels.finite cimport is_zero
from convcore.kernels.rounds cimport ceil_div
from convcore.kernels.vector cimport (
    NV, VEC_BYTES, f32v, vec, ahead, zero_lanes,
)
from convcore.kernels.winograd cimport (
    far, four, gradients, inputs, near, one, results, sums, taps, terms, tile, transform, two,
    weights,
)
from convcore.kernels.winograd_tiles cimport TileBox, Tiles

cdef enum:
    MOST_POINTS = 36  # of a tile
    MOST_OUTPUTS = 16
    MOST_TAPS = 9

ctypedef fused tile_x:  # what `tile` is along y
    four
    two
    one

ctypedef fused patches:  # transforms of tiles that overlap, or lie in an image
    inputs
    gradients

ctypedef fused alone:  # transforms of one tile
    sums
    weights
    taps


cdef inline Py_ssize_t lanes_of(const vec* like) noexcept nogil:
    """Count the lanes of a vector."""
    return VEC_BYTES // (4 if vec is f32v else 8)


cdef inline void transform_rows(
    patches* what, const vec* patch, Py_ssize_t pitch, Py_ssize_t tiles_y,
    Py_ssize_t tiles_x, vec* lines, vec* v, Py_ssize_t apart, Py_ssize_t row, tile* kind_y,
    tile_x* kind_x,
) noexcept nogil:
    """Do `transform_patch` for one kind of tile."""
    cdef Py_ssize_t lanes = lanes_of(patch), _y, x, _x
    cdef int i
    cdef const vec* line
    for _y in range(tiles_y):
        for x in range(pitch):
            transform(what, patch + x, pitch * lanes, lines + x, pitch * lanes, kind_y)
        line = lines
        for _x in range(tiles_x):
            for i in range(results(what, kind_y)):
                transform(
                    what, line + i * pitch, lanes,
                    <vec*>ahead(<const vec*>v, i * results(what, kind_x) * apart), apart,
                    kind_x,
                )
            v = <vec*>ahead(<const vec*>v, row)
            line += results(<sums*>NULL, kind_x)
        patch += results(<sums*>NULL, kind_y) * pitch


cdef inline void transform_patch(
    patches* what, const Tiles* t, const vec* patch, Py_ssize_t pitch, Py_ssize_t tiles_y,
    Py_ssize_t tiles_x, vec* lines, vec* v, Py_ssize_t apart, Py_ssize_t row,
) noexcept nogil:
    """Transform the tiles of a patch of x, or of dy, to their rows of the matrices.

    `lines` is room for as many rows as there are points along y.
    """
    if t.out_y == 4 and t.out_x == 4:
        transform_rows(
            what, patch, pitch, tiles_y, tiles_x, lines, v, apart, row, <four*>NULL, <four*>NULL
        )
    elif t.out_y == 2 and t.out_x == 2:
        transform_rows(
            what, patch, pitch, tiles_y, tiles_x, lines, v, apart, row, <two*>NULL, <two*>NULL
        )
    elif t.out_x == 4:
        transform_rows(
            what, patch, pitch, tiles_y, tiles_x, lines, v, apart, row, <one*>NULL, <four*>NULL
        )
    elif t.out_x == 2:
        transform_rows(
            what, patch, pitch, tiles_y, tiles_x, lines, v, apart, row, <one*>NULL, <two*>NULL
        )
    elif t.out_y == 4:
        transform_rows(
            what, patch, pitch, tiles_y, tiles_x, lines, v, apart, row, <four*>NULL, <one*>NULL
        )
    else:
        transform_rows(
            what, patch, pitch, tiles_y, tiles_x, lines, v, apart, row, <two*>NULL, <one*>NULL
        )


cdef inline void transform_kind(
    alone* what, const vec* a, Py_ssize_t step, vec* to, Py_ssize_t to_step, tile* kind_y,
    tile_x* kind_x,
) noexcept nogil:
    """Do `transform_tile` for one kind of tile."""
    cdef vec half[MOST_POINTS]
    cdef Py_ssize_t lanes = lanes_of(a)
    cdef int i, columns = terms(what, kind_x)
    for i in range(columns):
        transform(
            what, ahead(a, i * step), columns * step, half + i, columns * lanes, kind_y
        )
    for i in range(results(what, kind_y)):
        transform(
            what, half + i * columns, lanes,
            <vec*>ahead(<const vec*>to, i * results(what, kind_x) * to_step), to_step, kind_x,
        )


cdef inline void transform_tile(
    alone* what, const Tiles* t, const vec* a, Py_ssize_t step, vec* to, Py_ssize_t to_step
) noexcept nogil:
    """Transform one vector of a tile: elements are so many scalars apart, row by row."""
    if t.out_y == 4 and t.out_x == 4:
        transform_kind(what, a, step, to, to_step, <four*>NULL, <four*>NULL)
    elif t.out_y == 2 and t.out_x == 2:
        transform_kind(what, a, step, to, to_step, <two*>NULL, <two*>NULL)
    elif t.out_x == 4:
        transform_kind(what, a, step, to, to_step, <one*>NULL, <four*>NULL)
    elif t.out_x == 2:
        transform_kind(what, a, step, to, to_step, <one*>NULL, <two*>NULL)
    elif t.out_y == 4:
        transform_kind(what, a, step, to, to_step, <four*>NULL, <one*>NULL)
    else:
        transform_kind(what, a, step, to, to_step, <two*>NULL, <one*>NULL)


cdef inline void write_tile(
    const Tiles* t, const vec* v, Py_ssize_t apart, const vec* bias, int vectors,
    Py_ssize_t rows, Py_ssize_t columns, vec* to, Py_ssize_t pitch, Py_ssize_t step,
    vec* check,
) noexcept nogil:
    """Write those outputs of a tile that there are, and add 0 * each to `check`.

    The sums come `far` too large.
    """
    cdef vec block[MOST_OUTPUTS]
    cdef vec last, value
    cdef Py_ssize_t y, x
    cdef int half
    for half in range(vectors):
        transform_tile(<sums*>NULL, t, v + half, apart, block, lanes_of(v))
        last = bias[half]
        for y in range(min(rows, t.out_y)):
            for x in range(min(columns, t.out_x)):
                value = near(v) * block[y * t.out_x + x] + last
                check[0] = check[0] + zero_lanes(v) * value
                to[NV * (y * pitch + x * step) + half] = value


cdef inline bint write_tiles(
    const Tiles* t, const TileBox* box, const vec* v, Py_ssize_t apart, const vec* bias,
    int vectors, Py_ssize_t rows, Py_ssize_t columns, vec* to,
) noexcept nogil:
    """Write the tiles of one image of a box to `rows` rows of `columns` outputs.

    So many vectors of each row of NR channels. Tell whether all of them are finite.
    """
    cdef Py_ssize_t first_y, first_x, y, x, here_y, here_x
    cdef vec* line
    cdef vec check = zero_lanes(v)
    for first_y in range(t.apart_y):
        for first_x in range(t.apart_x):
            here_y = ceil_div(rows - first_y, t.apart_y)
            here_x = ceil_div(columns - first_x, t.apart_x)
            line = to + NV * (first_y * columns + first_x)
            for y in range(box.count_y):
                for x in range(box.count_x):
                    write_tile(
                        t, v, apart, bias, vectors, here_y - y * t.out_y,
                        here_x - x * t.out_x, line + NV * x * t.out_x * t.apart_x,
                        columns * t.apart_y, t.apart_x, &check,
                    )
                    v += NV
                line += NV * t.out_y * t.apart_y * columns
    return is_zero(check)


cdef inline void weights_of_tile(
    const Tiles* t, const vec* w, Py_ssize_t step, vec* u, Py_ssize_t point
) noexcept nogil:
    """Transform the taps of a row of NR kernels, `step` scalars apart, to all points.

    And make them `far` larger, so that none loses digits.
    """
    cdef vec block[MOST_TAPS]
    cdef int i, tap
    for i in range(NV):
        for tap in range(t.taps_y * t.taps_x):
            block[tap] = far(w) * ahead(w + i, tap * step)[0]
        transform_tile(<weights*>NULL, t, <const vec*>block, lanes_of(w), u + i, point)


cdef inline void weights_from_tile(
    const Tiles* t, const vec* u, Py_ssize_t point, vec* w, Py_ssize_t step
) noexcept nogil:
    """Turn the gradients at all points into those of the taps, a row of NR kernels."""
    cdef int i
    for i in range(NV):
        transform_tile(<taps*>NULL, t, u + i, point, w + i, step)
