# Planes with pixels in the lanes: what conv_planes.pyx and its weight gradient share.
#
# What      A tile is `R` rows of outputs by one vector of columns. Its outputs look at
#           N = (R - 1) * S + K rows of the source, K taps of a kernel's column, S rows from
#           one output to the next: for K = 3, S = 1 each loaded vector feeds three outputs.
#
#               source row 0 --k0-- output row 0      A table holds the addresses of the N
#               source row 1 <      output row 1      rows; one that is outside of the plane
#               source row 2 ...                      is a row of zeros in scratch, or
#                                                     what the border says: another row of
#                                                     the source, a row of its constant.
#
# Columns   A vector is loaded where it lies, at any address; what is left and right of a
#           row is masked, so that nothing beyond a row is read or multiplied. With a stride
#           of 2, a tile's rows are first split into even and odd scalars: then all is dense.
#           Where the border is no zeros, planes_ends.pxd sums what sees it; if many results
#           look at the same row, it is copied instead, and gets its ends there.
# Rows      Outputs of a tile are `unit` rows apart so that with a dilation, too, they share
#           rows: of a dilation of 2, the even rows are one tile and the odd ones another.

from convcore.kernels.border cimport CONSTANT, ZEROS, source_at
from convcore.kernels.geometry cimport Axis, gcd
from convcore.kernels.rounds cimport ceil_div
from convcore.kernels.vector cimport (
    ROWS, ROWS_HALF, VEC_BYTES, f32v, real, vec, ahead, cc_fetch, pair, part,
)

cdef enum:
    MOST_LOADS = 16  # rows N of a tile: more would leave the registers
    OUTSIDE = -1
    FAR = 8192  # bytes from what is read to what is asked for
    BITS = 32  # scalars of one load at most, every second one of them used
    ALL_BITS = 0xFFFFFFFF
    MOST_PATCHED = 8  # scalars on either side of a row
    MOST_PATCHED_TAPS = 64
    FEW_RESULTS = 4  # channels: with more, copies of rows cost less than patches

cdef struct one:
    char _

cdef struct two:
    char _

cdef struct three:
    char _

cdef struct five:
    char _

cdef struct seven:
    char _

cdef struct three_apart:
    char _

cdef struct five_apart:
    char _

ctypedef fused taps:  # of a kernel's column, as a type: K and S are constants
    one
    two
    three
    five
    seven
    three_apart
    five_apart

cdef struct dense:
    char _

cdef struct zipped:
    char _

ctypedef fused along:  # the columns: as they lie; two phases written in turns
    dense
    zipped

cdef enum Column:
    ONE, TWO, THREE, FIVE, SEVEN, THREE_APART, FIVE_APART

cdef struct Halves:  # rows that are copied; of stride 2, even scalars, then odd ones
    bint used, split, patched   # whether rows are copied; into halves; loads are patched
    Py_ssize_t first            # of the source's scalars or pairs, for output 0
    Py_ssize_t filled, vectors  # of a half or row: those that are written; all
    Py_ssize_t seen             # scalars of the source that the outputs look at
    Py_ssize_t room             # scalars of a copy
    Py_ssize_t odd              # scalars from one half to the other
    Py_ssize_t at               # where the first tap of output 0 is
    Py_ssize_t[2] steps         # from tap to tap, alternating
    Py_ssize_t nothing          # where the row outside of the source begins in its room
    double value                # of a constant border

cdef struct Rows:  # how the rows of a phase are cut into tiles
    Column column
    Py_ssize_t rows, loads, taps   # R, N, K
    Py_ssize_t blocks              # of K taps
    Py_ssize_t unit, between       # rows from output to output, from load to load
    Py_ssize_t per_unit, tiles     # tiles of every `unit`-th row; of all rows


cdef inline int taps_of(taps* column) noexcept nogil:
    """Count the taps that share loads."""
    if taps is one:
        return 1
    elif taps is two:
        return 2
    elif taps is three or taps is three_apart:
        return 3
    elif taps is five or taps is five_apart:
        return 5
    else:
        return 7


cdef inline int apart_of(taps* column) noexcept nogil:
    """Count the loaded rows from one output to the next."""
    return 2 if taps is three_apart or taps is five_apart else 1


cdef inline Axis ascending(Axis a) noexcept nogil:
    """Number the taps so that they meet the source in ascending order."""
    if a.off_step < 0 and a.taps:
        a.tap0 += a.tap_step * (a.taps - 1)
        a.tap_step = -a.tap_step
        a.off0 += a.off_step * (a.taps - 1)
        a.off_step = -a.off_step
    return a


cdef inline Py_ssize_t tiles_cost(Py_ssize_t count, Py_ssize_t rows) noexcept nogil:
    """Estimate the work for `count` rows: a tile costs as much as two rows besides."""
    return ((count - 1) // rows + 1) * (rows + 2)


cdef inline Rows cut_rows(const Axis* y) noexcept nogil:
    """Choose the tile for the rows of an axis: by its shape alone."""
    cdef Rows r
    cdef Py_ssize_t step = y.off_step if y.taps > 1 else 1, common = gcd(step, y.advance)
    cdef Py_ssize_t apart = y.advance // common, count
    r.column, r.taps = ONE, 1
    if apart == 1:
        if y.taps % 7 == 0 and y.taps:
            r.column, r.taps = SEVEN, 7
        elif y.taps % 5 == 0 and y.taps:
            r.column, r.taps = FIVE, 5
        elif y.taps % 3 == 0 and y.taps:
            r.column, r.taps = THREE, 3
        elif y.taps % 2 == 0 and y.taps:
            r.column, r.taps = TWO, 2
    elif apart == 2:
        if y.taps % 5 == 0 and y.taps:
            r.column, r.taps = FIVE_APART, 5
        elif y.taps % 3 == 0 and y.taps:
            r.column, r.taps = THREE_APART, 3
    r.unit = 1 if r.taps == 1 else step // common
    r.between = y.advance if r.taps == 1 else step
    count = (y.extent - 1) // r.unit + 1
    r.rows = ROWS
    if r.column == FIVE_APART or (
        tiles_cost(count, ROWS_HALF) < tiles_cost(count, ROWS)
    ):
        r.rows = ROWS_HALF
    r.loads = (r.rows - 1) * (apart if r.taps > 1 else 1) + r.taps
    r.blocks = y.taps // r.taps
    r.per_unit = (count - 1) // r.rows + 1
    r.tiles = r.per_unit * min(r.unit, y.extent)
    return r


cdef inline Py_ssize_t list_rows(
    const Rows* r, const Axis* z, const Axis* y, Py_ssize_t row, Py_ssize_t at_z,
    Py_ssize_t first, Py_ssize_t loads, long long* rows,
) noexcept nogil:
    """List for each (kz, block of ky) where the rows are that a tile loads.

    Rows of `row` scalars, counted from the start of a channel; OUTSIDE for the others.
    """
    cdef Py_ssize_t kz, ky, _j, iz, iy, at, count = 0
    for kz in range(z.taps):
        iz = source_at(z.border, z.advance * at_z + z.off0 + z.off_step * kz, z.source)
        for ky in range(r.blocks):
            iy = y.advance * first + y.off0 + y.off_step * ky * r.taps
            for _j in range(loads):
                at = source_at(y.border, iy, y.source)
                rows[count] = OUTSIDE
                if iz >= 0 and at >= 0:
                    rows[count] = (iz * y.source + at) * row
                count += 1
                iy += r.between
    return count


cdef inline void point(
    const vec** table, const long long* rows, Py_ssize_t count, const vec* plane,
    const vec* nothing,
) noexcept nogil:
    """Turn rows into addresses."""
    cdef Py_ssize_t j
    for j in range(count):
        table[j] = nothing if rows[j] < 0 else ahead(plane, rows[j])


cdef inline unsigned int span(Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    """Set the bits low .. high, as far as they are bits of one load."""
    low = min(max(low, 0), BITS)
    high = min(max(high, low), BITS)
    return <unsigned int>((<unsigned long long>1 << high) - (<unsigned long long>1 << low))


cdef inline void list_masks(
    const Axis* a, Py_ssize_t x, unsigned int* masks
) noexcept nogil:
    """Tell for each tap which scalars of a load for column x are in the row."""
    cdef Py_ssize_t kx, at = a.advance * x + a.off0
    for kx in range(a.taps):
        masks[kx] = span(-at, a.source - at)
        at += a.off_step


cdef inline void load(
    const vec* const* table, Py_ssize_t at, unsigned int bits, int loads, vec* v
) noexcept nogil:
    """Load a vector of each row, from scalar `at` on."""
    cdef int j
    for j in range(loads):
        v[j] = part(ahead(table[j], at), bits)


cdef inline Halves halves_of(
    const Axis* x, Py_ssize_t outputs, Py_ssize_t lanes, Py_ssize_t results, double value
) noexcept nogil:
    """Describe the copies of what some outputs of an axis read, if it has any.

    So many results, channels, look at each scalar.
    """
    cdef Halves h
    cdef Py_ssize_t reach = x.off_step * (x.taps - 1), first
    cdef Py_ssize_t right = x.advance * (x.extent - 1) + x.off0 + reach + 1 - x.source
    cdef bint leaves = x.border != ZEROS and (x.off0 < 0 or right > 0)
    h.split = x.advance == 2
    h.patched = leaves and not h.split and results <= FEW_RESULTS
    h.patched = h.patched and max(-x.off0, right) <= MOST_PATCHED
    h.patched = h.patched and x.taps <= MOST_PATCHED_TAPS
    h.used = h.split or (leaves and not h.patched)
    h.value = value
    h.steps[0] = h.steps[1] = x.off_step
    h.first = h.at = x.off0
    h.seen = x.advance * (outputs - 1) + reach + 1
    h.filled, h.odd, h.nothing = ceil_div(h.seen, lanes), 0, max(-x.off0, 0)
    if h.split:
        h.first = first = x.off0 >> 1
        h.seen += x.off0 & 1
        h.filled = ceil_div(outputs + ((x.off0 + reach) >> 1) - first, lanes)
        h.odd = (h.filled + 1) * lanes
        h.at = (x.off0 & 1) * h.odd
        h.steps[0] = h.steps[1] = x.off_step // 2
        if x.off_step % 2:
            h.steps[x.off0 & 1] += h.odd  # from an even scalar to an odd one
            h.steps[1 - (x.off0 & 1)] += 1 - h.odd
        h.nothing = 0
    h.vectors = h.filled + 1  # loads go beyond what any output needs
    h.room = h.vectors * lanes + h.odd
    return h


cdef inline void fill_nothing(
    const Halves* h, Py_ssize_t border, real* to, Py_ssize_t count
) noexcept nogil:
    """Write the row that is outside of the source."""
    cdef Py_ssize_t i
    cdef real value = <real>h.value if border == CONSTANT else 0
    for i in range(count):
        to[i] = value


cdef inline void put_one(
    vec* to, Py_ssize_t i, const vec* row, Py_ssize_t j, double value
) noexcept nogil:
    """Write scalar j of a row, or a constant."""
    if vec is f32v:
        (<float*>to)[i] = (<const float*>row)[j] if j >= 0 else <float>value
    else:
        (<double*>to)[i] = (<const double*>row)[j] if j >= 0 else value


cdef inline void put_ends(
    const Halves* h, const Axis* x, Py_ssize_t first, const vec* row, vec* to
) noexcept nogil:
    """Write what lies left and right of the source into the copy of a row."""
    cdef Py_ssize_t at = first, end = first + h.seen, place
    while at < end:
        if 0 <= at < x.source:
            at = x.source
            continue
        place = at - first
        if h.split:
            place = (place >> 1) + (place & 1) * h.odd
        put_one(to, place, row, source_at(x.border, at, x.source), h.value)
        at += 1


cdef inline void split(
    const Halves* h, Py_ssize_t x, Py_ssize_t source, const vec* row, vec* to
) noexcept nogil:
    """Write the even and odd scalars of a row that outputs from x on read; zeros outside."""
    cdef Py_ssize_t i, at = 2 * (x + h.first)
    cdef Py_ssize_t scalars = 2 * VEC_BYTES // (4 if vec is f32v else 8)
    for i in range(h.filled):
        cc_fetch(<const char*>ahead(row, at) + FAR)
        cc_fetch(<const char*>ahead(row, at) + FAR + VEC_BYTES)
        if at >= 0 and at + scalars <= source:
            pair(ahead(row, at), ALL_BITS, to + i, to + h.vectors + i)
        else:
            pair(ahead(row, at), span(-at, source - at), to + i, to + h.vectors + i)
        at += scalars


cdef inline void copy_row(
    const Halves* h, Py_ssize_t x, Py_ssize_t source, const vec* row, vec* to
) noexcept nogil:
    """Write the scalars of a row that outputs from x on read; zeros outside."""
    cdef Py_ssize_t i, at = x + h.first, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    for i in range(h.filled):
        cc_fetch(<const char*>ahead(row, at) + FAR)
        if at >= 0 and at + lanes <= source:
            to[i] = ahead(row, at)[0]
        else:
            to[i] = part(ahead(row, at), span(-at, source - at))
        at += lanes


cdef inline void point_copies(
    const Halves* h, const Axis* x, Py_ssize_t column, const long long* rows,
    Py_ssize_t count, const vec* plane, const vec* nothing, const vec** table, vec** to,
) noexcept nogil:
    """Copy rows for outputs from a column on, and give their addresses."""
    cdef Py_ssize_t i, first = x.advance * (column + h.first)
    for i in range(count):
        table[i] = nothing
        if rows[i] >= 0:
            if h.split:
                split(h, column, x.source, ahead(plane, rows[i]), to[0])
            else:
                copy_row(h, column, x.source, ahead(plane, rows[i]), to[0])
            if x.border != ZEROS:
                put_ends(h, x, first, ahead(plane, rows[i]), to[0])
            table[i] = ahead(<const vec*>to[0], -column if h.split else -first)
            to[0] = <vec*>ahead(<const vec*>to[0], h.room)
