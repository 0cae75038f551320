# Sums over small windows, and over the small windows that hold an element.
#
# What      A strip is as many neighbouring columns of the result as a few vectors hold. Going
#           down the source, each row gives the sums of the neighbours along W that belong
#           to the strip; each row of the result adds some of those.
#
#               forward     P = stride vectors of columns in a row; every stride-th lane
#                           is a result
#               backward    P = stride phases: cells i, i + stride, ... see as many
#                           neighbouring windows; the phases are stored in turns
#
#           source row   x x x x x x x x x x x     h[row] = sums of kernel neighbours
#                        x x x x x x x x x x x     h[row + 1]
#           result       h[row] + h[row + 1] + ..., divided
#
#           Windows that are cut off at an end divide by less: forward, the sums of their
#           rows and lanes; backward, what they give counts so much more before it is added.
# Assumes   `fits`.
# Order     along W first, then down, then through the depth of a row; all by the shape of
#           one plane. The last strip starts where it ends with the row: what two strips
#           share they compute twice, alike.
# Scratch   h on the stack: 16 KB.
# Cost      3 x 3: 12 vector instructions for 8 results.
# Why not   Rows first, then along them: 23 ms for (96, 1280, 8, 8), 3 x 3; strips take 3.5.
#           Without asking ahead for the next band, (64, 64, 56, 56) took 11 ms for 4.2.

from libc.stdint cimport uintptr_t

from convcore.kernels.pool_places cimport range_of
from convcore.kernels.vector cimport (
    cc_evens_f64, cc_fetch, f64v, interleave_high, interleave_low, real, zero_lanes,
)
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, Scale, cc_masked, cc_over, cc_quotient, cc_within, divided, narrow, narrow_part,
    scale_by, wide,
)
from convcore.kernels.windows cimport Axis, Pool, cells

cdef enum:
    MOST_PHASES = 8
    MOST_TAPS = 16  # of a window along one axis
    LANES = 8  # WIDE_LANES at most
    HELD = 256  # vectors of h
    NEAR = 24576  # bytes of the source that a band should read: half of L1
    FEW = 4096  # ... and a band of whole planes

cdef struct Run:  # rows of a band, `step` apart, that add the same number of rows of h
    Py_ssize_t rows, first, step, count  # first, step: of h

cdef struct Whole:  # windows along an axis that have all of their cells
    Py_ssize_t first, stop

cdef struct Strips:  # of one direction of a pooling
    bint back, inside  # inside: no window reaches beyond an end of a row
    bint common  # all windows have the same divisor
    Whole along, down, through
    Py_ssize_t phases, step  # vectors; columns of the result
    Py_ssize_t depth, height, width, total  # of a plane of the source; of all
    Py_ssize_t deep, high, wide, planes  # of a plane of the result; planes of all
    Py_ssize_t band, bands, group  # rows of a band; bands of a plane; planes of a band
    Py_ssize_t held  # rows of h for a plane

cdef struct Band:  # neighbouring rows of the result, in one plane or in some whole ones
    Py_ssize_t source, result  # the first scalar of the first row of each
    Py_ssize_t planes, nz, rows, results  # of each plane: depth, rows of source and result
    Py_ssize_t z, y  # the first of them in a plane: slab and row of windows
    Py_ssize_t above  # rows of h before those of the source: zeros
    Run[MOST_PHASES] run  # rows o, o + runs, ... of the result
    Py_ssize_t runs


cdef struct Share:  # what sums divide by; a vector, as bytes
    Scale all
    bint uneven
    double[LANES] lane

cdef struct Ends:  # what lanes of taps count where a row ends; vectors, as bytes
    bint uneven  # there are weights
    double cells  # of a whole window
    double[MOST_TAPS * LANES] mask, weight


cdef inline bint fits(const Pool* p) noexcept nogil:
    """Tell whether windows are small enough, and evenly apart."""
    return (
        0 < p.x.kernel <= MOST_TAPS and p.x.stride <= MOST_PHASES
        and 0 < p.y.kernel <= MOST_TAPS and p.y.stride <= MOST_PHASES
    )


cdef inline Whole whole_of(const Axis* a, bint count_pad) noexcept nogil:
    """Find the windows that no end of an axis cuts off."""
    cdef Whole w
    cdef Py_ssize_t last = a.extent + (a.hi if count_pad else 0) + a.lo - a.kernel
    w.stop = min(a.out, last // a.stride + 1) if last >= 0 else 0
    w.first = min(w.stop, 0 if count_pad else (a.lo + a.stride - 1) // a.stride)
    return w


cdef inline Py_ssize_t held_for(const Axis* a, Py_ssize_t rows, bint back) noexcept nogil:
    """Give the rows of h that so many rows of the result need."""
    if back:
        return (rows - 1 + a.stride - 1) // a.stride + (a.kernel - 1) // a.stride + 1
    return (rows - 1) * a.stride + a.kernel


cdef inline Strips strips_of(
    const Pool* p, bint back, bint common, Py_ssize_t item
) noexcept nogil:
    """Divide the result of a direction."""
    cdef Strips s
    cdef Py_ssize_t rows
    s.back, s.common = back, common
    s.along.first = s.down.first = s.through.first = 0
    s.along.stop, s.down.stop, s.through.stop = p.x.out, p.y.out, p.z.out
    if not common:
        s.along = whole_of(&p.x, p.count_pad)
        s.down = whole_of(&p.y, p.count_pad)
        s.through = whole_of(&p.z, p.count_pad)
    s.inside = not back and p.x.lo == 0 and (p.x.out - 1) * p.x.stride + p.x.kernel <= p.x.extent
    s.phases = p.x.stride
    s.step = WIDE_LANES * (s.phases if back else 1)
    s.planes = p.planes
    if back:
        s.depth, s.height, s.width = p.z.out, p.y.out, p.x.out
        s.deep, s.high, s.wide = p.z.extent, p.y.extent, p.x.extent
    else:
        s.depth, s.height, s.width = p.z.extent, p.y.extent, p.x.extent
        s.deep, s.high, s.wide = p.z.out, p.y.out, p.x.out
    s.total = p.planes * s.depth * s.height * s.width
    rows = min(HELD // s.phases, max(2 * p.y.kernel, NEAR // (s.width * item)))
    s.band = s.high
    while s.band > 1 and held_for(&p.y, s.band, back) > rows:
        s.band = (s.band + 1) // 2
    s.bands = (s.high - 1) // s.band + 1
    s.held = held_for(&p.y, s.band, back)
    s.group = 1
    if s.bands == 1 and s.deep == 1:
        s.group = max(1, min(s.planes, FEW // (s.width * item) // s.held))
        s.group = min(s.group, HELD // s.phases // s.held)
    return s


cdef inline Py_ssize_t bands_of(const Strips* s) noexcept nogil:
    """Count all bands."""
    return ((s.planes - 1) // s.group + 1) * s.deep * s.bands


cdef inline void set_runs(const Pool* p, Band* b, Py_ssize_t y, bint back) noexcept nogil:
    """Find which rows of h each row of the result adds, and which of them are zero."""
    cdef Py_ssize_t f, at, rest, origin, last = y + b.results - 1, stop
    if back:
        b.runs = p.y.stride
        origin = (y + p.y.lo) // p.y.stride - (p.y.kernel - 1) // p.y.stride
        stop = min((last + p.y.lo) // p.y.stride + 1, p.y.out)
        for f in range(b.runs):
            at = y + f + p.y.lo
            rest = at % p.y.stride
            b.run[f].count = (p.y.kernel - 1 - rest + p.y.stride) // p.y.stride
            b.run[f].first = at // p.y.stride - (b.run[f].count - 1) - origin
            b.run[f].step = 1
            b.run[f].rows = (b.results - 1 - f + b.runs) // b.runs
    else:
        b.runs = 1
        origin = y * p.y.stride - p.y.lo
        stop = min(last * p.y.stride - p.y.lo + p.y.kernel, p.y.extent)
        b.run[0].rows, b.run[0].first = b.results, 0
        b.run[0].step, b.run[0].count = p.y.stride, p.y.kernel
    b.above = max(0, -origin)
    b.rows = max(0, stop - (origin + b.above))
    b.source = origin + b.above


cdef inline void set_band(
    const Pool* p, const Strips* s, Py_ssize_t index, Band* b
) noexcept nogil:
    """Find what a band of the result needs."""
    cdef Py_ssize_t slab = index // s.bands, y = (index - slab * s.bands) * s.band
    cdef Py_ssize_t plane = slab // s.deep, z, deep = slab - plane * s.deep
    range_of(&p.z, deep, s.back, &z, &b.nz)
    b.z = z if s.back else deep
    plane *= s.group
    b.planes = min(s.group, s.planes - plane)
    b.results = min(s.band, s.high - y)
    set_runs(p, b, y, s.back)
    b.y = b.source if s.back else y
    b.source = ((plane * s.depth + z) * s.height + b.source) * s.width
    b.result = ((plane * s.deep + deep) * s.high + y) * s.wide


cdef inline f64v wide_inside(const real* x, Py_ssize_t i, Py_ssize_t total) noexcept nogil:
    """Load a vector of which some lanes lie outside of x: those are zero."""
    cdef real[8] room
    cdef Py_ssize_t j
    for j in range(8):
        room[j] = x[i + j] if 0 <= i + j < total and j < WIDE_LANES else 0
    return wide(<const real*>room)


cdef inline bint is_uneven_through(const Strips* s) noexcept nogil:
    """Tell whether windows that give to the result are cut off in depth."""
    return s.back and not s.common and (
        s.through.first > 0 or s.through.stop < s.depth
    )


cdef inline double weight_of(
    const Axis* a, Py_ssize_t o, bint count_pad, const real* like
) noexcept nogil:
    """Give how much more window o counts, if there is one; in float64, the cells it has."""
    cdef double count = cells(a, o, count_pad) if 0 <= o < a.out else a.kernel
    if real is float:
        return a.kernel / count
    else:
        return count


cdef inline void add_taps(
    const real* x, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t taps, const f64v* masks,
    f64v* h, Py_ssize_t apart, bint more, Py_ssize_t ahead,
) noexcept nogil:
    """Write the sums of `taps` neighbours of each row; `more`: add them."""
    cdef Py_ssize_t k
    cdef f64v v, t
    for _ in range(rows):
        v = cc_masked(wide(x), masks[0]) if masks != NULL else wide(x)
        if more:
            v = h[0] + v
        for k in range(1, taps):
            t = wide(x + k)
            v = v + (cc_masked(t, masks[k]) if masks != NULL else t)
        h[0] = v
        cc_fetch(x + ahead)
        x += row
        h += apart


cdef inline f64v weighed(f64v v, const Ends* e, Py_ssize_t k, const real* like) noexcept nogil:
    """Give what a tap counts: nothing beside the row, more where windows are cut off."""
    v = cc_masked(v, (<const f64v*>e.mask)[k])
    if not e.uneven:
        return v
    if real is float:
        return v * (<const f64v*>e.weight)[k]
    else:
        return cc_over(v * e.cells, (<const f64v*>e.weight)[k])


cdef inline void add_uneven_taps(
    const real* x, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t taps, const Ends* ends,
    f64v* h, Py_ssize_t apart, bint more, Py_ssize_t ahead,
) noexcept nogil:
    """Do the same with weights."""
    cdef Py_ssize_t k
    cdef f64v v
    for _ in range(rows):
        v = weighed(wide(x), ends, 0, x)
        if more:
            v = h[0] + v
        for k in range(1, taps):
            v = v + weighed(wide(x + k), ends, k, x)
        h[0] = v
        cc_fetch(x + ahead)
        x += row
        h += apart


cdef inline void add_taps_at_end(
    const real* x, Py_ssize_t at, Py_ssize_t total, Py_ssize_t taps, const Ends* ends,
    f64v* h, bint more,
) noexcept nogil:
    """Do the same with one row, and read nothing outside of x."""
    cdef Py_ssize_t k
    cdef f64v v, t
    cdef f64v sums = h[0]
    for k in range(taps):
        t = wide_inside(x, at + k, total)
        v = weighed(t, ends, k, x) if ends != NULL else t
        sums = sums + v if more or k > 0 else v  # as above: 0 + -0 is no -0
    h[0] = sums


cdef inline void add_few_taps(
    const real* x, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t taps, const Ends* ends,
    f64v* h, Py_ssize_t apart, bint more, Py_ssize_t ahead, bint common,
) noexcept nogil:
    """Do `add_taps`, with the usual numbers as constants."""
    cdef const f64v* masks = <const f64v*>ends.mask if ends != NULL else NULL
    if not common and ends != NULL and ends.uneven:
        add_uneven_taps(x, row, rows, taps, ends, h, apart, more, ahead)
    elif more:
        add_taps(x, row, rows, taps, masks, h, apart, True, ahead)
    elif masks == NULL and taps == 1:
        add_taps(x, row, rows, 1, NULL, h, apart, False, ahead)
    elif masks == NULL and taps == 2:
        add_taps(x, row, rows, 2, NULL, h, apart, False, ahead)
    elif masks == NULL and taps == 3:
        add_taps(x, row, rows, 3, NULL, h, apart, False, ahead)
    elif masks == NULL:
        add_taps(x, row, rows, taps, NULL, h, apart, False, ahead)
    elif taps == 3:
        add_taps(x, row, rows, 3, masks, h, apart, False, ahead)
    else:
        add_taps(x, row, rows, taps, masks, h, apart, False, ahead)


cdef inline void weigh_slab(
    const Pool* p, Py_ssize_t z, Py_ssize_t taps, const Ends* ends, const real* like,
    Ends* e,
) noexcept nogil:
    """Change the weights of a row of taps to those in slab z of windows."""
    cdef Py_ssize_t k
    cdef double count = cells(&p.z, z, p.count_pad)
    e.uneven = True
    e.cells = ends.cells * p.z.kernel
    for k in range(taps):
        (<f64v*>e.mask)[k] = (<const f64v*>ends.mask)[k]
        if real is float:
            (<f64v*>e.weight)[k] = (<const f64v*>ends.weight)[k] * (p.z.kernel / count)
        else:
            (<f64v*>e.weight)[k] = (<const f64v*>ends.weight)[k] * count


cdef inline void sum_taps(
    const Pool* p, const Strips* s, const Band* b, const real* x, Py_ssize_t column,
    Py_ssize_t taps, const Ends* given, f64v* h, bint common,
) noexcept nogil:
    """Write the sums of `taps` neighbours, a vector of them from `column` on in each row."""
    cdef Py_ssize_t i, z, r, at, slab = s.height * s.width
    cdef Ends other
    cdef const Ends* ends = given
    cdef Py_ssize_t ahead = b.planes * s.depth * slab if s.bands == 1 else b.rows * s.width
    cdef f64v zeros = zero_lanes(&zeros)
    for i in range(b.planes):
        for r in range(b.above):
            h[r * s.phases] = zeros
        for r in range(b.above + b.rows, s.held):
            h[r * s.phases] = zeros
        if taps <= 0 or b.nz <= 0:
            for r in range(b.above, b.above + b.rows):
                h[r * s.phases] = zeros
            h += s.held * s.phases
            continue
        for z in range(b.nz):
            at = b.source + column + (i * s.depth + z) * slab
            if not common and is_uneven_through(s):
                weigh_slab(p, b.z + z, taps, given, x, &other)
                ends = &other
            if at >= 0 and at + (b.rows - 1) * s.width + taps - 1 + WIDE_LANES <= s.total:
                add_few_taps(
                    x + at, s.width, b.rows, taps, ends, h + b.above * s.phases,
                    s.phases, z > 0, ahead, common,
                )
                continue
            for r in range(b.above, b.above + b.rows):
                if ends == NULL and at >= 0 and at + taps - 1 + WIDE_LANES <= s.total:
                    add_taps(x + at, 0, 1, taps, NULL, h + r * s.phases, 1, z > 0, 0)
                elif at >= 0 and at + taps - 1 + WIDE_LANES <= s.total:
                    add_uneven_taps(x + at, 0, 1, taps, ends, h + r * s.phases, 1, z > 0, 0)
                else:
                    add_taps_at_end(x, at, s.total, taps, ends, h + r * s.phases, z > 0)
                at += s.width
        h += s.held * s.phases


cdef inline void sum_phase(
    const Pool* p, const Strips* s, const Band* b, const real* x, Py_ssize_t column,
    Py_ssize_t phase, f64v* h, bint common,
) noexcept nogil:
    """Write one vector of each row of h."""
    cdef Ends ends
    cdef Py_ssize_t k, j, at, taps, rest
    cdef Whole columns
    columns.first, columns.stop = 0, s.width
    if s.back:
        at = column + phase + p.x.lo
        rest = at % p.x.stride
        taps = (p.x.kernel - 1 - rest + p.x.stride) // p.x.stride
        at = at // p.x.stride - (taps - 1)
        columns = s.along
    else:
        at = column * p.x.stride - p.x.lo + phase * WIDE_LANES
        taps = p.x.kernel
    if (common or not is_uneven_through(s)) and (
        s.inside or (at >= columns.first and at + taps - 1 + WIDE_LANES <= columns.stop)
    ):
        sum_taps(p, s, b, x, at, taps, NULL, h + phase, common)
        return
    ends.uneven = not common and s.back
    ends.cells = p.x.kernel
    for k in range(taps):
        (<f64v*>ends.mask)[k] = cc_within(at + k, s.width)
        if not common and s.back:
            for j in range(WIDE_LANES):
                ends.weight[k * WIDE_LANES + j] = weight_of(&p.x, at + k + j, p.count_pad, x)
    sum_taps(p, s, b, x, at, taps, &ends, h + phase, common)


cdef inline void weigh_rows(
    const Pool* p, const Strips* s, const Band* b, const real* like, f64v* h
) noexcept nogil:
    """Let rows of windows that are cut off count more."""
    cdef Py_ssize_t i, r, f
    cdef double weight
    cdef f64v* at
    for r in range(b.rows):
        if s.down.first <= b.y + r < s.down.stop:
            continue
        weight = weight_of(&p.y, b.y + r, p.count_pad, like)
        for i in range(b.planes):
            for f in range(s.phases):
                at = h + (i * s.held + b.above + r) * s.phases + f
                if real is float:
                    at[0] = at[0] * weight
                else:
                    at[0] = cc_quotient(at[0] * <double>p.y.kernel, weight)


cdef inline f64v sum_down(const f64v* h, Py_ssize_t apart, Py_ssize_t count) noexcept nogil:
    """Sum some rows of h."""
    cdef f64v v
    cdef Py_ssize_t i
    if count <= 0:
        return zero_lanes(&v)
    v = h[0]
    for i in range(1, count):
        v = v + h[i * apart]
    return v


cdef inline f64v shared(
    f64v v, const Scale* by, const f64v* lanes, const real* like
) noexcept nogil:
    """Divide sums: all by the same, or each by what its window has."""
    if lanes == NULL:
        return divided(v, by, like)
    if real is float:
        return v * lanes[0]
    else:
        return cc_over(v, lanes[0])


cdef inline void put_rest(real* y, f64v v, Py_ssize_t n) noexcept nogil:
    """Store n scalars, a vector at most, or none."""
    if n > 0:
        narrow_part(y, v, n)


cdef inline void put_run(
    const Strips* s, const Run* r, Py_ssize_t count, const f64v* h, const Scale* by,
    const f64v* lanes, real* y, Py_ssize_t row, Py_ssize_t n, Py_ssize_t room,
) noexcept nogil:
    """Write a run of one phase, or of two; y is `row` scalars from row to row.

    Whole vectors are stored where there is room.
    """
    cdef f64v even, odd, v
    cdef Py_ssize_t ahead = r.rows * row, step = r.step * s.phases
    for _ in range(r.rows):
        cc_fetch(y + ahead)
        if s.phases == 1:
            v = shared(sum_down(h, 1, count), by, lanes, y)
        else:
            even = sum_down(h, 2, count)
            odd = sum_down(h + 1, 2, count)
            v = interleave_low(even, odd) if s.back else cc_evens_f64(even, odd)
            v = shared(v, by, lanes, y)
        if room >= WIDE_LANES:
            narrow(y, v)
        else:
            put_rest(y, v, n)
        if s.phases == 2 and s.back:
            v = shared(interleave_high(even, odd), by, lanes, y)
            if room >= 2 * WIDE_LANES:
                narrow(y + WIDE_LANES, v)
            else:
                put_rest(y + WIDE_LANES, v, n - WIDE_LANES)
        y += row
        room -= row
        h += step


cdef inline void put_few(
    const Strips* s, const Run* r, const f64v* h, const Scale* by,
    const f64v* lanes, real* y, Py_ssize_t row, Py_ssize_t n, Py_ssize_t room,
) noexcept nogil:
    """Do `put_run`, with the usual numbers as constants."""
    if r.count == 3:
        put_run(s, r, 3, h, by, lanes, y, row, n, room)
    elif r.count == 2:
        put_run(s, r, 2, h, by, lanes, y, row, n, room)
    elif r.count == 1:
        put_run(s, r, 1, h, by, lanes, y, row, n, room)
    else:
        put_run(s, r, r.count, h, by, lanes, y, row, n, room)


cdef inline void put_phases(
    const Strips* s, const Run* r, const f64v* h, const Scale* by, real* y,
    Py_ssize_t row, Py_ssize_t n,
) noexcept nogil:
    """Write a run of more phases, scalar by scalar."""
    cdef real[MOST_PHASES * 8] lane  # WIDE_LANES at most
    cdef Py_ssize_t j, f, count = s.phases
    for _ in range(r.rows):
        for f in range(count):
            narrow(
                lane + f * WIDE_LANES, divided(sum_down(h + f, count, r.count), by, y)
            )
        if not s.back:
            for j in range(n):
                y[j] = lane[j * count]
        elif n == s.step:
            for j in range(WIDE_LANES):
                for f in range(count):
                    y[j * count + f] = lane[f * WIDE_LANES + j]
        else:
            for j in range(n):
                y[j] = lane[j % count * WIDE_LANES + j // count]
        y += row
        h += count * r.step


cdef inline void put_band(
    const Strips* s, const Band* b, const f64v* h, const Scale* by, real* y,
    Py_ssize_t n, Py_ssize_t room,
) noexcept nogil:
    """Write the rows of one strip; `room` scalars may be spilled over."""
    cdef Py_ssize_t f
    cdef const f64v* from_
    for _ in range(b.planes):
        for f in range(b.runs):
            from_ = h + b.run[f].first * s.phases
            if s.phases <= 2:
                put_few(
                    s, &b.run[f], from_, by, NULL, y + f * s.wide, b.runs * s.wide, n,
                    room - f * s.wide,
                )
            else:
                put_phases(
                    s, &b.run[f], from_, by, y + f * s.wide, b.runs * s.wide, n
                )
        h += s.held * s.phases
        y += b.results * s.wide
        room -= b.results * s.wide


cdef inline void share_among(
    const Pool* p, const Strips* s, const Band* b, Py_ssize_t column, Py_ssize_t row,
    const real* like, Share* to,
) noexcept nogil:
    """Find what a vector of windows in a row of the band divides by."""
    cdef Py_ssize_t j
    cdef double rows = <double>cells(&p.z, b.z, p.count_pad)
    rows *= cells(&p.y, b.y + row, p.count_pad)
    to.all = scale_by(rows * p.x.kernel)
    to.uneven = column < s.along.first or (
        min(column + WIDE_LANES, s.wide) > s.along.stop
    )
    if not to.uneven:
        return
    for j in range(WIDE_LANES):
        to.lane[j] = rows * cells(&p.x, min(column + j, s.wide - 1), p.count_pad)
        if real is float:
            to.lane[j] = 1 / to.lane[j]


cdef inline void put_uneven(
    const Pool* p, const Strips* s, const Band* b, const f64v* h, Py_ssize_t column,
    real* y, Py_ssize_t n, Py_ssize_t room,
) noexcept nogil:
    """Do `put_band` forward with windows that divide by what they have."""
    cdef Share by
    cdef Run r = b.run[0]
    cdef Py_ssize_t row = 0, i, at, left, first, stop, plane = b.results * s.wide
    cdef const f64v* from_
    stop = max(0, min(s.down.stop - b.y, b.results))
    first = max(0, min(s.down.first - b.y, stop))
    while row < b.results:
        r.rows = stop - first if row == first and stop > first else 1
        share_among(p, s, b, column, row, y, &by)
        for i in range(b.planes):
            at = i * plane + row * s.wide
            left = min(room, (i + 1) * plane - column) - at  # the next plane has rows
            from_ = h + (i * s.held + row * r.step) * s.phases
            if by.uneven:
                put_few(
                    s, &r, from_, &by.all, <const f64v*>by.lane, y + at, s.wide, n, left
                )
            else:
                put_few(s, &r, from_, &by.all, NULL, y + at, s.wide, n, left)
        row += r.rows


cdef inline void write_band(
    const Pool* p, const Strips* s, const Band* b, const Scale* by, const real* x,
    real* y, Py_ssize_t stop, bint common,
) noexcept nogil:
    """Write a band of the result; what lies before `stop` may be spilled over.

    `common`, that of the strips, is a constant.
    """
    cdef f64v[HELD + 4] held  # a line more: four of the smallest vectors
    cdef f64v* h = <f64v*>((<uintptr_t>held + 63) // 64 * 64)  # whole lines of cache
    cdef Py_ssize_t column = 0, n = min(s.step, s.wide), phase, room
    while True:
        for phase in range(s.phases):
            sum_phase(p, s, b, x, column, phase, h, common)
        room = stop - b.result - column if b.runs == 1 else 0
        if common or s.back:
            if not common:
                weigh_rows(p, s, b, x, h)
            put_band(s, b, h, by, y + b.result + column, n, room)
        else:
            put_uneven(p, s, b, h, column, y + b.result + column, n, room)
        if column + n >= s.wide:
            break
        column = min(column + s.step, s.wide - n)
