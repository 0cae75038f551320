# Tiles of Winograd's filtering: between images in memory and matrices, one for each point.
#
# What      Images are cut into tiles of outputs; each tile reads a patch that overlaps its
#           neighbours'. A box is some rows of tiles, or some images. For one vector of
#           channels its part of an image is transposed, so that a pixel is a vector, and
#           transformed along y, then along x.
#
#               plane 0 [ x x x ]          0 0 0 0     one vector       v[point]
#               plane 1 [ x x x ]   -->    0 * * *     a pixel   -->      [tile, channel]
#               ...                        0 * * *
#
# Layout    v: a matrix [tile][channel] for each point, rows `row` and matrices `matrix`
#           scalars apart: neither a power of two, or a tile's points share a cache set.
#           sums: [point][panel][tile][NR channels].
# Cost      A load, log2(L) shuffles and a store for each vector; the halo of a box twice.
# Source    as winograd.pxd.

from convcore.kernels.geometry cimport Axis, Window
from convcore.kernels.rounds cimport ceil_div
from convcore.kernels.transpose cimport put_pixels
from convcore.kernels.vector cimport (
    NV, VEC_BYTES, f32v, vec, ahead, cc_sum_f32, cc_sum_f64, zero_lanes,
)
from convcore.kernels.winograd cimport (
    four, from_points, gradient_to_points, one, to_points, two, weights_from_points,
    weights_to_points,
)

cdef enum:
    MOST_OUTPUTS = 16  # of a tile
    MOST_POINTS = 36

cdef struct square4:
    char _

cdef struct square2:
    char _

cdef struct row4:
    char _

cdef struct row2:
    char _

cdef struct column4:
    char _

cdef struct column2:
    char _

ctypedef fused tiling:  # of y and x
    square4
    square2
    row4
    row2
    column4
    column2

cdef struct Tiles:
    Py_ssize_t out_y, out_x            # outputs of a tile
    Py_ssize_t points_y, points_x, points
    Py_ssize_t y, x                    # tiles of an image
    Py_ssize_t images                  # samples * planes
    Py_ssize_t count_y, count_x, count_images  # of a box
    Py_ssize_t number_y, number_x, number_images, boxes
    Py_ssize_t most                    # tiles of a box

cdef struct TileBox:
    Py_ssize_t image, images           # the first, and how many
    Py_ssize_t y, x                    # the first tile
    Py_ssize_t count_y, count_x

cdef struct Patch:                     # of one image, as a box reads it
    Py_ssize_t y, x                    # its first pixel, which may lie outside
    Py_ssize_t rows, pitch
    Py_ssize_t inside_y, inside_x, inside_rows, inside_columns  # of it in the image


cdef inline Tiles tiles_of(const Window* w, Py_ssize_t size) noexcept nogil:
    """Cut the outputs into tiles of `size` along each axis that has taps."""
    cdef Tiles t
    t.out_y = size if w.y.taps > 1 else 1
    t.out_x = size if w.x.taps > 1 else 1
    t.points_y = t.out_y + w.y.taps - 1
    t.points_x = t.out_x + w.x.taps - 1
    t.points = t.points_y * t.points_x
    t.y = ceil_div(w.y.extent, t.out_y)
    t.x = ceil_div(w.x.extent, t.out_x)
    t.images = w.samples * w.z.extent
    cut_boxes(&t, 1)
    return t


cdef inline void cut_boxes(Tiles* t, Py_ssize_t wanted) noexcept nogil:
    """Make boxes of about so many tiles, as even as they can be."""
    cdef Py_ssize_t left = wanted
    t.count_x = max(1, min(t.x, left))
    left = left // t.count_x if t.count_x == t.x else 1
    t.count_y = max(1, min(t.y, left))
    left = left // t.count_y if t.count_y == t.y else 1
    t.count_images = max(1, min(t.images, left))
    t.number_x = ceil_div(t.x, t.count_x)
    t.count_x = ceil_div(t.x, t.number_x)
    t.number_y = ceil_div(t.y, t.count_y)
    t.count_y = ceil_div(t.y, t.number_y)
    t.number_images = ceil_div(t.images, t.count_images)
    t.count_images = ceil_div(t.images, max(t.number_images, 1)) if t.images else 1
    t.boxes = t.number_x * t.number_y * t.number_images
    t.most = t.count_x * t.count_y * t.count_images


cdef inline TileBox tile_box(const Tiles* t, Py_ssize_t index) noexcept nogil:
    """Give a box."""
    cdef TileBox b
    b.x = index % t.number_x * t.count_x
    b.count_x = min(t.count_x, t.x - b.x)
    index = index // t.number_x
    b.y = index % t.number_y * t.count_y
    b.count_y = min(t.count_y, t.y - b.y)
    b.image = index // t.number_y * t.count_images
    b.images = min(t.count_images, t.images - b.image)
    return b


cdef inline Py_ssize_t lowest(const Axis* a) noexcept nogil:
    """Where the first output's lowest tap looks."""
    return a.off0 + min(0, a.off_step * (a.taps - 1))


cdef inline void clip(Patch* p, Py_ssize_t height, Py_ssize_t width) noexcept nogil:
    """Find the pixels of a patch that lie in the image."""
    p.inside_y, p.inside_x = max(p.y, 0), max(p.x, 0)
    p.inside_rows = max(min(p.y + p.rows, height) - p.inside_y, 0)
    p.inside_columns = max(min(p.x + p.pitch, width) - p.inside_x, 0)


cdef inline Patch inputs_of(const Tiles* t, const Window* w, const TileBox* b) noexcept nogil:
    """Tell which pixels the tiles of a box read."""
    cdef Patch p
    p.y = b.y * t.out_y + lowest(&w.y)
    p.x = b.x * t.out_x + lowest(&w.x)
    p.rows = (b.count_y - 1) * t.out_y + t.points_y
    p.pitch = (b.count_x - 1) * t.out_x + t.points_x
    clip(&p, w.y.source, w.x.source)
    return p


cdef inline Patch outputs_of(const Tiles* t, const Window* w, const TileBox* b) noexcept nogil:
    """Tell which pixels they write."""
    cdef Patch p
    p.y, p.x = b.y * t.out_y, b.x * t.out_x
    p.rows, p.pitch = b.count_y * t.out_y, b.count_x * t.out_x
    clip(&p, w.y.extent, w.x.extent)
    return p


cdef inline void list_places(const Patch* p, int* places) noexcept nogil:
    """Write where in the patch each pixel goes that lies in the image."""
    cdef Py_ssize_t y, x
    for y in range(p.inside_rows):
        for x in range(p.inside_columns):
            places[0] = <int>((p.inside_y - p.y + y) * p.pitch + p.inside_x - p.x + x)
            places += 1


cdef inline void turn_patch(
    const Patch* p, const int* places, const vec* source, Py_ssize_t ld, Py_ssize_t channels,
    Py_ssize_t width, vec* to,
) noexcept nogil:
    """Transpose a patch of some planes; it has to be zero where the image is not."""
    cdef Py_ssize_t y
    source = ahead(source, p.inside_y * width + p.inside_x)
    if p.inside_columns == width:
        put_pixels(source, ld, channels, p.inside_rows * width, places, to)
        return
    for y in range(p.inside_rows):
        put_pixels(
            ahead(source, y * width), ld, channels, p.inside_columns,
            places + y * p.inside_columns, to,
        )


cdef inline void to_points_y(
    const vec* d, Py_ssize_t step, vec* v, Py_ssize_t v_step, bint gradient, tiling* kind
) noexcept nogil:
    """Transform along y: inputs, or gradients of outputs."""
    if tiling is square4 or tiling is column4:
        if gradient:
            gradient_to_points(d, step, v, v_step, <four*>NULL)
        else:
            to_points(d, step, v, v_step, <four*>NULL)
    elif tiling is square2 or tiling is column2:
        if gradient:
            gradient_to_points(d, step, v, v_step, <two*>NULL)
        else:
            to_points(d, step, v, v_step, <two*>NULL)
    else:
        to_points(d, step, v, v_step, <one*>NULL)


cdef inline void to_points_x(
    const vec* d, Py_ssize_t step, vec* v, Py_ssize_t v_step, bint gradient, tiling* kind
) noexcept nogil:
    """Transform along x."""
    if tiling is square4 or tiling is row4:
        if gradient:
            gradient_to_points(d, step, v, v_step, <four*>NULL)
        else:
            to_points(d, step, v, v_step, <four*>NULL)
    elif tiling is square2 or tiling is row2:
        if gradient:
            gradient_to_points(d, step, v, v_step, <two*>NULL)
        else:
            to_points(d, step, v, v_step, <two*>NULL)
    else:
        to_points(d, step, v, v_step, <one*>NULL)


cdef inline int points_y(tiling* kind) noexcept nogil:
    """Count the points along y."""
    if tiling is square4 or tiling is column4:
        return 6
    elif tiling is square2 or tiling is column2:
        return 4
    else:
        return 1


cdef inline int points_x(tiling* kind) noexcept nogil:
    """Count the points along x."""
    if tiling is square4 or tiling is row4:
        return 6
    elif tiling is square2 or tiling is row2:
        return 4
    else:
        return 1


cdef inline int outputs_y(tiling* kind) noexcept nogil:
    """Count the outputs of a tile along y."""
    return points_y(kind) - 2 if points_y(kind) > 1 else 1


cdef inline int outputs_x(tiling* kind) noexcept nogil:
    """Count the outputs of a tile along x."""
    return points_x(kind) - 2 if points_x(kind) > 1 else 1


cdef inline void transform_rows(
    const vec* patch, Py_ssize_t pitch, Py_ssize_t tiles_y, Py_ssize_t tiles_x, vec* lines,
    vec* v, Py_ssize_t matrix, Py_ssize_t row, bint gradient, tiling* kind,
) noexcept nogil:
    """Transform the tiles of a patch to their rows of the matrices.

    With `gradient`, patches are gradients of the outputs of tiles. `lines` is room for
    as many rows as there are points along y.
    """
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8), _y, x, _x
    cdef int i
    cdef const vec* line
    for _y in range(tiles_y):
        for x in range(pitch):
            to_points_y(patch + x, pitch * lanes, lines + x, pitch * lanes, gradient, kind)
        line = lines
        for _x in range(tiles_x):
            for i in range(points_y(kind)):
                to_points_x(
                    line + i * pitch, lanes,
                    <vec*>ahead(<const vec*>v, i * points_x(kind) * matrix), matrix,
                    gradient, kind,
                )
            v = <vec*>ahead(<const vec*>v, row)
            line += outputs_x(kind)
        patch += outputs_y(kind) * pitch


cdef inline void transform_patch(
    const Tiles* t, const vec* patch, Py_ssize_t pitch, Py_ssize_t tiles_y,
    Py_ssize_t tiles_x, vec* lines, vec* v, Py_ssize_t matrix, Py_ssize_t row, bint gradient,
) noexcept nogil:
    """Choose the kind of tile."""
    if t.out_y == 4 and t.out_x == 4:
        transform_rows(
            patch, pitch, tiles_y, tiles_x, lines, v, matrix, row, gradient, <square4*>NULL
        )
    elif t.out_y == 2 and t.out_x == 2:
        transform_rows(
            patch, pitch, tiles_y, tiles_x, lines, v, matrix, row, gradient, <square2*>NULL
        )
    elif t.out_x == 4:
        transform_rows(
            patch, pitch, tiles_y, tiles_x, lines, v, matrix, row, gradient, <row4*>NULL
        )
    elif t.out_x == 2:
        transform_rows(
            patch, pitch, tiles_y, tiles_x, lines, v, matrix, row, gradient, <row2*>NULL
        )
    elif t.out_y == 4:
        transform_rows(
            patch, pitch, tiles_y, tiles_x, lines, v, matrix, row, gradient, <column4*>NULL
        )
    else:
        transform_rows(
            patch, pitch, tiles_y, tiles_x, lines, v, matrix, row, gradient, <column2*>NULL
        )


cdef inline void transform_back(
    const vec* sums, Py_ssize_t matrix, vec* block, tiling* kind
) noexcept nogil:
    """Turn one vector of all points of a tile into its outputs, row by row."""
    cdef vec half[MOST_POINTS]
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef int i
    for i in range(points_x(kind)):
        if tiling is square4 or tiling is column4:
            from_points(
                ahead(sums, i * matrix), points_x(kind) * matrix, half + i,
                points_x(kind) * lanes, <four*>NULL,
            )
        elif tiling is square2 or tiling is column2:
            from_points(
                ahead(sums, i * matrix), points_x(kind) * matrix, half + i,
                points_x(kind) * lanes, <two*>NULL,
            )
        else:
            half[i] = ahead(sums, i * matrix)[0]
    for i in range(outputs_y(kind)):
        if tiling is square4 or tiling is row4:
            from_points(
                half + i * points_x(kind), lanes, block + i * outputs_x(kind), lanes,
                <four*>NULL,
            )
        elif tiling is square2 or tiling is row2:
            from_points(
                half + i * points_x(kind), lanes, block + i * outputs_x(kind), lanes,
                <two*>NULL,
            )
        else:
            block[i] = half[i]


cdef inline void write_tile(
    const vec* sums, Py_ssize_t matrix, const vec* bias, int vectors, Py_ssize_t rows,
    Py_ssize_t columns, vec* to, Py_ssize_t pitch, vec* check, tiling* kind,
) noexcept nogil:
    """Write those outputs of a tile that there are, and add 0 * each to `check`."""
    cdef vec block[MOST_OUTPUTS]
    cdef vec last, value
    cdef int half, y, x
    for half in range(vectors):
        transform_back(sums + half, matrix, block, kind)
        last = bias[half]
        for y in range(outputs_y(kind)):
            for x in range(outputs_x(kind)):
                if y < rows and x < columns:
                    value = block[y * outputs_x(kind) + x] + last
                    check[0] = check[0] + zero_lanes(sums) * value
                    to[NV * (y * pitch + x) + half] = value


cdef inline bint is_zero(vec v) noexcept nogil:
    """Tell whether the lanes add up to zero: they do not if one is NaN."""
    if vec is f32v:
        return cc_sum_f32(v) == 0
    else:
        return cc_sum_f64(v) == 0


cdef inline bint are_finite(const vec* v, Py_ssize_t rows, int vectors) noexcept nogil:
    """Tell whether the first vectors of some rows of NR scalars are finite."""
    cdef vec check = zero_lanes(v)
    cdef Py_ssize_t i, j
    for i in range(rows):
        for j in range(vectors):
            check = check + zero_lanes(v) * v[NV * i + j]
    return is_zero(check)


cdef inline bint write_kind(
    const vec* sums, Py_ssize_t matrix, const vec* bias, int vectors, Py_ssize_t rows,
    Py_ssize_t columns, vec* to, tiling* kind,
) noexcept nogil:
    """Do `write_tiles` for one kind."""
    cdef Py_ssize_t y = 0, x
    cdef vec check = zero_lanes(sums)
    while y < rows:
        x = 0
        while x < columns:
            write_tile(
                sums, matrix, bias, vectors, rows - y, columns - x,
                to + NV * (y * columns + x), columns, &check, kind,
            )
            sums += NV
            x += outputs_x(kind)
        y += outputs_y(kind)
    return is_zero(check)


cdef inline bint write_tiles(
    const Tiles* t, const vec* sums, Py_ssize_t matrix, const vec* bias, int vectors,
    Py_ssize_t rows, Py_ssize_t columns, vec* to,
) noexcept nogil:
    """Write the tiles of one image to `rows` rows of `columns` outputs.

    So many vectors of each row of NR channels. Tell whether all of them are finite.
    """
    if t.out_y == 4 and t.out_x == 4:
        return write_kind(sums, matrix, bias, vectors, rows, columns, to, <square4*>NULL)
    elif t.out_y == 2 and t.out_x == 2:
        return write_kind(sums, matrix, bias, vectors, rows, columns, to, <square2*>NULL)
    elif t.out_x == 4:
        return write_kind(sums, matrix, bias, vectors, rows, columns, to, <row4*>NULL)
    elif t.out_x == 2:
        return write_kind(sums, matrix, bias, vectors, rows, columns, to, <row2*>NULL)
    elif t.out_y == 4:
        return write_kind(sums, matrix, bias, vectors, rows, columns, to, <column4*>NULL)
    else:
        return write_kind(sums, matrix, bias, vectors, rows, columns, to, <column2*>NULL)


cdef inline int taps_y(tiling* kind) noexcept nogil:
    """Count the taps along y."""
    return 3 if points_y(kind) > 1 else 1


cdef inline int taps_x(tiling* kind) noexcept nogil:
    """Count the taps along x."""
    return 3 if points_x(kind) > 1 else 1


cdef inline void transform_weights(
    const vec* w, Py_ssize_t step, vec* u, Py_ssize_t point, tiling* kind
) noexcept nogil:
    """Do `weights_of_tile` for one kind."""
    cdef vec half[MOST_POINTS]
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef int i
    for i in range(taps_x(kind)):
        if tiling is square4 or tiling is column4:
            weights_to_points(
                ahead(w, i * step), taps_x(kind) * step, half + i, taps_x(kind) * lanes,
                <four*>NULL,
            )
        elif tiling is square2 or tiling is column2:
            weights_to_points(
                ahead(w, i * step), taps_x(kind) * step, half + i, taps_x(kind) * lanes,
                <two*>NULL,
            )
        else:
            half[i] = ahead(w, i * step)[0]
    for i in range(points_y(kind)):
        if tiling is square4 or tiling is row4:
            weights_to_points(half + i * taps_x(kind), lanes, u, point, <four*>NULL)
        elif tiling is square2 or tiling is row2:
            weights_to_points(half + i * taps_x(kind), lanes, u, point, <two*>NULL)
        else:
            u[0] = half[i]
        u = <vec*>ahead(<const vec*>u, points_x(kind) * point)


cdef inline void weights_of_tile(
    const Tiles* t, const vec* w, Py_ssize_t step, vec* u, Py_ssize_t point
) noexcept nogil:
    """Transform the taps of a row of NR kernels, `step` scalars apart, to all points."""
    cdef int i
    for i in range(NV):
        if t.out_y == 4 and t.out_x == 4:
            transform_weights(w + i, step, u + i, point, <square4*>NULL)
        elif t.out_y == 2 and t.out_x == 2:
            transform_weights(w + i, step, u + i, point, <square2*>NULL)
        elif t.out_x == 4:
            transform_weights(w + i, step, u + i, point, <row4*>NULL)
        elif t.out_x == 2:
            transform_weights(w + i, step, u + i, point, <row2*>NULL)
        elif t.out_y == 4:
            transform_weights(w + i, step, u + i, point, <column4*>NULL)
        else:
            transform_weights(w + i, step, u + i, point, <column2*>NULL)


cdef inline void restore_weights(
    const vec* u, Py_ssize_t point, vec* w, Py_ssize_t step, tiling* kind
) noexcept nogil:
    """Do `weights_from_tile` for one kind."""
    cdef vec half[MOST_POINTS]
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef int i
    for i in range(points_y(kind)):
        if tiling is square4 or tiling is row4:
            weights_from_points(u, point, half + i * taps_x(kind), lanes, <four*>NULL)
        elif tiling is square2 or tiling is row2:
            weights_from_points(u, point, half + i * taps_x(kind), lanes, <two*>NULL)
        else:
            half[i] = u[0]
        u = ahead(u, points_x(kind) * point)
    for i in range(taps_x(kind)):
        if tiling is square4 or tiling is column4:
            weights_from_points(
                half + i, taps_x(kind) * lanes, <vec*>ahead(<const vec*>w, i * step),
                taps_x(kind) * step, <four*>NULL,
            )
        elif tiling is square2 or tiling is column2:
            weights_from_points(
                half + i, taps_x(kind) * lanes, <vec*>ahead(<const vec*>w, i * step),
                taps_x(kind) * step, <two*>NULL,
            )
        else:
            (<vec*>ahead(<const vec*>w, i * step))[0] = half[i]


cdef inline void weights_from_tile(
    const Tiles* t, const vec* u, Py_ssize_t point, vec* w, Py_ssize_t step
) noexcept nogil:
    """Turn the gradients at all points into those of the taps, a row of NR kernels."""
    cdef int i
    for i in range(NV):
        if t.out_y == 4 and t.out_x == 4:
            restore_weights(u + i, point, w + i, step, <square4*>NULL)
        elif t.out_y == 2 and t.out_x == 2:
            restore_weights(u + i, point, w + i, step, <square2*>NULL)
        elif t.out_x == 4:
            restore_weights(u + i, point, w + i, step, <row4*>NULL)
        elif t.out_x == 2:
            restore_weights(u + i, point, w + i, step, <row2*>NULL)
        elif t.out_y == 4:
            restore_weights(u + i, point, w + i, step, <column4*>NULL)
        else:
            restore_weights(u + i, point, w + i, step, <column2*>NULL)
