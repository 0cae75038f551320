# Planes with channels in the lanes: what conv_depthwise.pyx and its weight gradient share.
#
# What      A band is some rows of as many planes as a vector has lanes, transposed: one
#           vector for each pixel, real zeros where windows leave the planes, or what the
#           border says: other pixels of the same row, other rows, its constant.
#
#               plane 0  [ x x x x ]              0 0 0 0 0 0     one vector for each
#               plane 1  [ x x x x ]    -->       0 * * * * 0     x, pitch of them a row
#               ...                               0 * * * * 0
#
#           An output is an address, a tap a distance from it: no masks, no tails, and a
#           stride costs nothing. Rows of x or dy lie together, so whole blocks of pixels
#           are transposed; a list tells where each pixel goes.
# Boxes     Some rows of the result, and the band that they read. How many: by the shape of
#           a plane alone.
# Cost      A load, log2(L) shuffles and a store for each vector of the source.

from convcore.kernels.border cimport ZEROS, source_at
from convcore.kernels.geometry cimport Axis, Conv, forward_axis, gradient_axis, phases
from convcore.kernels.rounds cimport ceil_div
from convcore.kernels.transpose cimport put_pixels
from convcore.kernels.vector cimport vec, ahead, all_lanes, zero_lanes

cdef enum:
    BAND = 600  # vectors of a band and its sums, but for one row: a fraction of L2
    SLACK = 32  # vectors that a tile reads or writes beyond the last row
    COLUMNS = 7  # outputs of a tile: maps have 7, 14, 28, 56 ... columns

cdef struct Frame:
    Axis[2] y, x                       # of each phase
    Py_ssize_t x_phases
    Py_ssize_t height, width           # of the result
    Py_ssize_t rows, boxes             # of the result in a box; boxes of a plane
    Py_ssize_t left, pitch             # the first column of a band, counted in the source
    Py_ssize_t band_rows               # at most
    Py_ssize_t source_height, source_width
    double value                       # of a constant border

cdef struct Slice:                     # what a box reads
    Py_ssize_t first, count            # rows of its band, counted in the source
    Py_ssize_t inside, filled          # the first one that is transposed, and how many
    Py_ssize_t skip, kept              # rows of the last box's band, if they are still there


cdef inline void widen(
    const Axis* a, Py_ssize_t first, Py_ssize_t last, Py_ssize_t* low, Py_ssize_t* high
) noexcept nogil:
    """Stretch low .. high over what outputs first .. last of an axis read."""
    cdef Py_ssize_t reach = a.off_step * (a.taps - 1)
    if a.taps and first <= last:
        low[0] = min(low[0], a.advance * first + a.off0 + min(0, reach))
        high[0] = max(high[0], a.advance * last + a.off0 + max(0, reach))


cdef inline Slice slice_of(const Frame* f, Py_ssize_t y0, Py_ssize_t y1) noexcept nogil:
    """Give what rows y0 .. y1 of the result read."""
    cdef Slice s
    cdef Py_ssize_t low = f.source_height, high = -1, y, step = f.y[0].step
    for y in range(y0, y1):
        widen(&f.y[y % step], y // step, y // step, &low, &high)
    s.first, s.count = low, max(high - low + 1, 0)
    s.inside = max(low, 0)
    s.filled = max(min(high + 1, f.source_height) - s.inside, 0)
    s.skip = s.kept = 0
    return s


cdef inline Frame frame_of(const Conv* p, bint gradient) noexcept nogil:
    """Describe the boxes and bands of a direction."""
    cdef Frame f
    cdef Py_ssize_t i, high, y, least, row
    cdef Slice s
    f.y[0], f.x[0] = forward_axis(p, 1), forward_axis(p, 2)
    f.x_phases = 1
    f.value = p.value
    f.height, f.width = p.out_extent[1], p.out_extent[2]
    if gradient:
        f.height, f.width = p.in_extent[1], p.in_extent[2]
        f.x_phases = phases(p, 2)
        for i in range(phases(p, 1)):
            f.y[i] = gradient_axis(p, 1, i)
        for i in range(f.x_phases):
            f.x[i] = gradient_axis(p, 2, i)
    f.source_height, f.source_width = f.y[0].source, f.x[0].source
    f.left, high = 0, f.source_width - 1
    for i in range(f.x_phases):
        widen(&f.x[i], 0, f.x[i].extent - 1, &f.left, &high)
    f.pitch = high - f.left + 1
    least = slice_of(&f, 0, min(2, f.height)).count
    row = f.y[0].advance * f.pitch // f.y[0].step + f.width
    f.rows = max((BAND - least * f.pitch) // row, 1)
    f.boxes = ceil_div(f.height, f.rows)
    f.rows = ceil_div(f.height, f.boxes)
    f.band_rows = 0
    y = 0
    while y < f.height:
        s = slice_of(&f, y, min(y + f.rows, f.height))
        f.band_rows = max(f.band_rows, s.count)
        y += f.rows
    return f


cdef inline Slice slice_after(
    const Frame* f, const Slice* last, Py_ssize_t y0, Py_ssize_t y1
) noexcept nogil:
    """Give what the next box of the same planes reads; tell what its band keeps.

    With a stride a later box may read earlier rows, or none at all: then nothing is kept.
    """
    cdef Slice s = slice_of(f, y0, y1)
    if last.count == 0 or s.first < last.first:
        return s
    s.kept = min(max(last.first + last.count - s.first, 0), s.count)
    if s.kept:
        s.skip = s.first - last.first
        s.filled = max(s.inside + s.filled - max(s.first + s.kept, 0), 0)
        s.inside = max(s.first + s.kept, 0)
    return s


cdef inline void list_places(const Frame* f, int* places) noexcept nogil:
    """Write where each pixel of a band's rows goes, counted from the first one's row."""
    cdef Py_ssize_t y, x
    for y in range(f.band_rows):
        for x in range(f.source_width):
            places[0] = <int>(y * f.pitch + x - f.left)
            places += 1


cdef inline void put_rows(
    const Frame* f, const vec* source, Py_ssize_t y, Py_ssize_t count, Py_ssize_t rows,
    const int* places, vec* to,
) noexcept nogil:
    """Transpose some rows of the source, from y on."""
    put_pixels(
        ahead(source, y * f.source_width), f.source_height * f.source_width, rows,
        count * f.source_width, places, to,
    )


cdef inline void fill_ends(const Frame* f, Py_ssize_t count, vec* band) noexcept nogil:
    """Write what lies left and right of the source in some rows of a band."""
    cdef Py_ssize_t x = f.left, at, i
    cdef vec value = all_lanes(band, f.value)
    while x < f.left + f.pitch:
        if x == 0:
            x = f.source_width
            continue
        at = source_at(f.x[0].border, x, f.source_width) - f.left
        for i in range(count):
            band[i * f.pitch + x - f.left] = value if at < -f.left else band[i * f.pitch + at]
        x += 1


cdef inline void fill_border(
    const Frame* f, const Slice* s, const vec* source, Py_ssize_t rows, const int* places,
    vec* band,
) noexcept nogil:
    """Write what lies around the rows of the source in a band."""
    cdef Py_ssize_t i, j, y
    cdef vec* to
    if s.filled:
        fill_ends(f, s.filled, band + (s.inside - s.first) * f.pitch)
    for i in range(s.kept, s.count):
        if 0 <= s.first + i < f.source_height:
            continue
        y = source_at(f.y[0].border, s.first + i, f.source_height)
        to = band + i * f.pitch
        if y < 0:
            for j in range(f.pitch):
                to[j] = all_lanes(source, f.value)
        elif 0 <= y - s.first < s.count:
            for j in range(f.pitch):
                to[j] = band[(y - s.first) * f.pitch + j]
        else:
            put_rows(f, source, y, 1, rows, places, to)
            fill_ends(f, 1, to)


cdef inline void fill_band(
    const Frame* f, const Slice* s, const vec* source, Py_ssize_t rows, const int* places,
    vec* band,
) noexcept nogil:
    """Fill the band of a box: rows that are there, rows of the source, and the border.

    The columns left and right of the source have to be zero already.
    """
    cdef Py_ssize_t i, kept = s.kept * f.pitch, all_rows = s.count * f.pitch
    cdef Py_ssize_t top = min(max((s.inside - s.first) * f.pitch, kept), all_rows)
    cdef Py_ssize_t bottom = top + s.filled * f.pitch
    for i in range(kept):
        band[i] = band[s.skip * f.pitch + i]
    if s.filled:
        put_rows(f, source, s.inside, s.filled, rows, places, band + top)
    if f.y[0].border != ZEROS:
        fill_border(f, s, source, rows, places, band)
        return
    for i in range(kept, top):
        band[i] = zero_lanes(source)
    for i in range(bottom, all_rows):
        band[i] = zero_lanes(source)
