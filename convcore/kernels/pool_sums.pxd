# Sums over rectangular windows: over their rows into a line, then along the line.
#
# What      columns   line[c] = sum of x[row][c] over some rows of some slabs
#           along     y[j] = sum of `kernel` neighbours of the line, divided
#
#               line      0 0 | c0 c1 c2 ... | 0 0          (lo zeros, columns, zeros)
#               result    [_______] [_______]               every stride-th
#
# Ways      along a line, by the shape: neighbours from every lane on (stride 1, and small
#           strides, of which every stride-th is taken); pairs (stride 2); halves of halves,
#           where windows of 2, 4 or 8 lie side by side; from two vectors by places, where
#           windows differ; one by one else. Terms are added in order, but for the halves.
# Assumes   places of at most SPAN columns (pool_places.pxd); SLACK behind them.
# Scratch   the caller's lines. A group of lines is written before the first is read, so
#           that no load waits for a store just done.
# Cost      a load, a conversion and an addition for each vector of x; rows of less than a
#           vector take as long as whole ones.
# Why not   Sums in float32: a mean of large numbers would overflow.

from convcore.kernels.blocks cimport SPAN
from convcore.kernels.pool_places cimport SLACK, Cells, Lanes, Places
from convcore.kernels.vector cimport (
    cc_fetch, cc_fold_f64, cc_take_far_f64, cc_take_f64, f64v, pair, real, zero_lanes,
)
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, Scale, cc_masked, cc_more, divided, narrow, narrow_part, quotient, wide,
    wide_part,
)
from convcore.kernels.windows cimport Axis

cdef enum:
    LINE = 64  # bytes that are asked for at once
    NEAR = 4096  # bytes from what is read to what is asked for

cdef enum Way:
    NEIGHBOURS, BY_TWO, HALVES, FAR, EACH

cdef struct Rows:  # what a row of results needs of the source
    Py_ssize_t slabs, rows  # how many
    Py_ssize_t slab, row  # from one to the next


cdef inline void fetch_vectors(const real* x, Py_ssize_t n) noexcept nogil:
    """Ask for what is NEAR, as many scalars as n vectors of doubles have lanes."""
    cdef Py_ssize_t i
    for i in range(n * WIDE_LANES * <Py_ssize_t>sizeof(real) // LINE):
        cc_fetch(<const char*>x + NEAR + i * LINE)


cdef inline void sum_columns(
    const real* x, const Rows* s, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t left,
    double* line,
) noexcept nogil:
    """Write the sums of n columns to a line, and more; `left` scalars may be read."""
    cdef Py_ssize_t j = 0, z
    cdef Py_ssize_t whole = left - ((s.slabs - 1) * s.slab + (rows - 1) * s.row)
    cdef const real* at
    cdef f64v a, b, c, d
    while j < n and j + 4 * WIDE_LANES <= whole and n - j > 2 * WIDE_LANES:
        a = zero_lanes(&a)
        b, c, d = a, a, a
        for z in range(s.slabs):
            at = x + j + z * s.slab
            for _ in range(rows):
                fetch_vectors(at, 4)
                a = a + wide(at)
                b = b + wide(at + WIDE_LANES)
                c = c + wide(at + 2 * WIDE_LANES)
                d = d + wide(at + 3 * WIDE_LANES)
                at += s.row
        (<f64v*>(line + j))[0] = a
        (<f64v*>(line + j + WIDE_LANES))[0] = b
        (<f64v*>(line + j + 2 * WIDE_LANES))[0] = c
        (<f64v*>(line + j + 3 * WIDE_LANES))[0] = d
        j += 4 * WIDE_LANES
    while j < n and j + 2 * WIDE_LANES <= whole and n - j > WIDE_LANES:
        a = zero_lanes(&a)
        b = a
        for z in range(s.slabs):
            at = x + j + z * s.slab
            for _ in range(rows):
                fetch_vectors(at, 2)
                a = a + wide(at)
                b = b + wide(at + WIDE_LANES)
                at += s.row
        (<f64v*>(line + j))[0] = a
        (<f64v*>(line + j + WIDE_LANES))[0] = b
        j += 2 * WIDE_LANES
    while j < n:
        a = zero_lanes(&a)
        for z in range(s.slabs):
            at = x + j + z * s.slab
            for _ in range(rows):
                if j + WIDE_LANES <= whole:
                    a = a + wide(at)
                else:
                    a = a + wide_part(at, min(n - j, WIDE_LANES))
                at += s.row
        (<f64v*>(line + j))[0] = a
        j += WIDE_LANES


cdef inline void sum_few_columns(
    const real* x, const Rows* s, Py_ssize_t n, Py_ssize_t left, double* line
) noexcept nogil:
    """Do `sum_columns`, with the usual numbers of rows as constants."""
    if s.rows == 1:
        sum_columns(x, s, 1, n, left, line)
    elif s.rows == 2:
        sum_columns(x, s, 2, n, left, line)
    elif s.rows == 3:
        sum_columns(x, s, 3, n, left, line)
    else:
        sum_columns(x, s, s.rows, n, left, line)


cdef inline void fill_line(
    const real* x, const Rows* s, Py_ssize_t skip, Py_ssize_t n, Py_ssize_t left,
    double* line, Py_ssize_t length,
) noexcept nogil:
    """Write a line: `skip` zeros, the sums of n columns, zeros up to `length`, and more."""
    cdef Py_ssize_t j
    cdef f64v zeros = zero_lanes(&zeros)
    for j in range(min(skip, length)):
        line[j] = 0
    if s.slabs <= 0 or s.rows <= 0:
        n = 0
    if n > 0:
        sum_few_columns(x, s, n, left, line + skip)
    j = skip + max(n, 0)
    while j < length:
        (<f64v*>(line + j))[0] = zeros
        j += WIDE_LANES


cdef inline f64v neighbours(const double* line, Py_ssize_t k) noexcept nogil:
    """Sum k neighbours, from each lane on."""
    cdef f64v v = (<const f64v*>line)[0]
    cdef Py_ssize_t i
    for i in range(1, k):
        v = v + (<const f64v*>(line + i))[0]
    return v


cdef inline f64v neighbours_by_two(const double* line, Py_ssize_t k) noexcept nogil:
    """Sum k neighbours, from each second scalar on."""
    cdef f64v v, even, odd
    cdef unsigned long long all_bits = (1 << (2 * WIDE_LANES)) - 1
    cdef Py_ssize_t i
    pair(<const f64v*>line, all_bits, &even, &odd)
    if k == 1:
        return even
    v = even + odd
    for i in range(2, k - 1, 2):
        pair(<const f64v*>(line + i), all_bits, &even, &odd)
        v = v + even
        v = v + odd
    if k & 1:
        pair(<const f64v*>(line + k - 1), all_bits, &even, &odd)
        v = v + even
    return v


cdef inline f64v halves(const double* line, Py_ssize_t k) noexcept nogil:
    """Sum each k neighbours, side by side: k is 2, 4 or 8."""
    cdef const f64v* v = <const f64v*>line
    if k == 2:
        return cc_fold_f64(v[0], v[1])
    if k == 4:
        return cc_fold_f64(cc_fold_f64(v[0], v[1]), cc_fold_f64(v[2], v[3]))
    return cc_fold_f64(
        cc_fold_f64(cc_fold_f64(v[0], v[1]), cc_fold_f64(v[2], v[3])),
        cc_fold_f64(cc_fold_f64(v[4], v[5]), cc_fold_f64(v[6], v[7])),
    )


cdef inline f64v by_places(
    const double* line, const Lanes* l, Py_ssize_t j, Py_ssize_t least, Py_ssize_t most
) noexcept nogil:
    """Sum the terms of a vector of results, whose first is result j."""
    cdef f64v v, t
    cdef Py_ssize_t k
    line += l.base[j // WIDE_LANES]
    v = cc_take_far_f64(line, &l.near[j])
    if least < 1:
        v = cc_masked(v, cc_more(<const double*>&l.counts[j], 0))
    for k in range(1, most):
        t = cc_take_far_f64(line + k, &l.near[j])
        if k >= least:
            t = cc_masked(t, cc_more(<const double*>&l.counts[j], k))
        v = v + t
    return v


cdef inline f64v by_near_places(
    const double* line, const Lanes* l, Py_ssize_t j, Py_ssize_t least, Py_ssize_t most
) noexcept nogil:
    """Do the same where all terms are in one vector."""
    cdef f64v v, t
    cdef Py_ssize_t k
    line += l.base[j // WIDE_LANES]
    v = cc_take_f64(line, &l.near[j])
    if least < 1:
        v = cc_masked(v, cc_more(<const double*>&l.counts[j], 0))
    for k in range(1, most):
        t = cc_take_f64(line + k, &l.near[j])
        if k >= least:
            t = cc_masked(t, cc_more(<const double*>&l.counts[j], k))
        v = v + t
    return v


cdef inline double some(const double* line, Py_ssize_t k) noexcept nogil:
    """Sum k neighbours; many, in parts."""
    cdef double v = 0
    cdef Py_ssize_t i = 1, j
    cdef double[4] part
    if k <= 0:
        return 0
    if k < 16:
        v = line[0]
        for i in range(1, k):
            v += line[i]
        return v
    for j in range(4):
        part[j] = line[j]
    i = 4
    while i + 4 <= k:
        for j in range(4):
            part[j] += line[i + j]
        i += 4
    for j in range(k - i):
        part[j] += line[i + j]
    return (part[0] + part[1]) + (part[2] + part[3])


cdef inline Way way_of(const Axis* a) noexcept nogil:
    """Choose how windows are summed along a line."""
    if a.kernel == 0:
        return FAR
    if a.stride == a.kernel and (a.kernel == 2 or a.kernel == 4 or a.kernel == 8):
        return HALVES
    if a.stride == 2:
        return BY_TWO
    if 2 * a.stride <= WIDE_LANES or a.stride == 1:
        return NEIGHBOURS
    return EACH


cdef inline f64v mean(
    f64v v, Py_ssize_t j, const Scale* by, const Cells* c, const real* like
) noexcept nogil:
    """Divide the sums from result j on; c: `by` is of the rows alone."""
    if c == NULL:
        return divided(v, by, like)
    if real is float:
        return v * ((<const f64v*>&c.inverse[j])[0] * by.factor)
    else:
        return v / ((<const f64v*>&c.count[j])[0] * by.divisor)


cdef inline void put_means(
    Way way, const double* line, Py_ssize_t k, const Places* t, const Lanes* l,
    const Scale* by, const Cells* c, real* y, Py_ssize_t n, Py_ssize_t room,
) noexcept nogil:
    """Write n means of a line; `room` scalars may be written."""
    cdef Py_ssize_t j = 0
    cdef f64v v
    while j < n:
        if way == BY_TWO:
            v = neighbours_by_two(line + 2 * j, k)
        elif way == HALVES:
            v = halves(line + k * j, k)
        elif way == FAR and l.widest < WIDE_LANES:
            v = by_near_places(line, l, j, t.least, t.most)
        elif way == FAR:
            v = by_places(line, l, j, t.least, t.most)
        else:
            v = neighbours(line + j, k)
        v = mean(v, j, by, c, y)
        if j + WIDE_LANES <= room:
            narrow(y + j, v)
        else:
            narrow_part(y + j, v, n - j)
        j += WIDE_LANES


cdef inline void put_each_mean(
    const double* line, const Axis* a, const Places* t, const Scale* by, const Cells* c,
    real* y, Py_ssize_t n,
) noexcept nogil:
    """Do the same one by one."""
    cdef Py_ssize_t j
    cdef double v
    for j in range(n):
        v = some(line + j * a.stride, a.kernel) if a.kernel else some(line + t.first[j], t.count[j])
        if c == NULL:
            y[j] = quotient(v, by, y)
        elif real is float:
            y[j] = <float>(v * (c.inverse[j] * by.factor))
        else:
            y[j] = v / (c.count[j] * by.divisor)


cdef inline void put_every(
    const double* line, const Axis* a, const Scale* by, const Cells* c, real* y, Py_ssize_t n
) noexcept nogil:
    """Sum neighbours from every lane on, and take every stride-th."""
    cdef double[SPAN + SLACK] every
    cdef Py_ssize_t j = 0, k = a.kernel, last = (n - 1) * a.stride
    while j <= last:
        (<f64v*>(every + j))[0] = neighbours(line + j, k)
        j += WIDE_LANES
    for j in range(n):
        if c == NULL:
            y[j] = quotient(every[j * a.stride], by, y)
        elif real is float:
            y[j] = <float>(every[j * a.stride] * (c.inverse[j] * by.factor))
        else:
            y[j] = every[j * a.stride] / (c.count[j] * by.divisor)


cdef inline void write_line(
    Way way, const double* line, const Axis* a, const Places* t, const Lanes* l,
    const Scale* by, const Cells* c, real* y, Py_ssize_t n, Py_ssize_t room,
) noexcept nogil:
    """Write the means of a line, the usual kernels as constants."""
    cdef Py_ssize_t k = a.kernel
    if way == FAR and (l.widest >= 2 * WIDE_LANES or t.most > 15):
        put_each_mean(line, a, t, by, c, y, n)
    elif way == FAR:
        put_means(FAR, line, k, t, l, by, c, y, n, room)
    elif way == EACH:
        put_each_mean(line, a, t, by, c, y, n)
    elif way == HALVES and k == 2:
        put_means(HALVES, line, 2, t, l, by, c, y, n, room)
    elif way == HALVES and k == 4:
        put_means(HALVES, line, 4, t, l, by, c, y, n, room)
    elif way == HALVES:
        put_means(HALVES, line, 8, t, l, by, c, y, n, room)
    elif way == BY_TWO and k == 3:
        put_means(BY_TWO, line, 3, t, l, by, c, y, n, room)
    elif way == BY_TWO:
        put_means(BY_TWO, line, k, t, l, by, c, y, n, room)
    elif a.stride > 1:
        put_every(line, a, by, c, y, n)
    elif k == 3:
        put_means(NEIGHBOURS, line, 3, t, l, by, c, y, n, room)
    else:
        put_means(NEIGHBOURS, line, k, t, l, by, c, y, n, room)
