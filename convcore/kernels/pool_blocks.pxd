# Means, and their gradient, a block of a row at a time: what it needs fits two vectors.
#
# What      The rows under a row of windows are added, two vectors of columns at most; each
#           result then picks its terms out of those, a permutation for each term:
#
#               columns   c0 c1 c2 c3 c4 c5 c6 ...      two vectors of doubles
#               results   c0+c1+c2   c2+c3+c4   ...     lanes 0 2 4 .., then 1 3 5 .., 2 4 6 ..
#
#           backward, columns are rows of dy, and the terms of an element the windows over it.
# Assumes   `fits_blocks`: windows of few columns, or few windows over a column.
# Parallel  the caller's, over planes. A task goes through all of its planes for one block,
#           then for the next, so that there is one table. Nothing beyond a block is written.
# Order     of a sum: by rows, slab by slab, then along them; by the shape of a plane.
# Scratch   tables on the stack: 17 KB.
# Cost      for 8 results of 3 x 3: 6 loads, 5 additions and 3 permutations.
# Why not   Where vectors have fewer lanes: permutations of two vectors are no instruction
#           there. Lines of memory between the steps: loads would wait for stores.

from libc.string cimport memset

from convcore.kernels.pool_long cimport count_in_row
from convcore.kernels.pool_places cimport range_of
from convcore.kernels.vector cimport cc_at_f64, f64v, real, zero_lanes
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, Scale, cc_masked, cc_over, cc_quotient, divided, narrow, narrow_part,
    scale_by, wide, wide_part,
)
from convcore.kernels.windows cimport Axis, Pool, cells

cdef enum:
    LANES = 8  # of a vector of doubles: nothing else is taken
    COLUMNS = 16  # of a block
    VECTORS = 2  # of results
    TERMS = 16  # of a result, along a row
    LIST = 1024  # rows of the source under all rows of the result
    NONE = -1
    MOST = 16384  # bytes of a plane, which is gone through for each block

cdef struct Table:  # of a block; vectors, as bytes
    Py_ssize_t column, columns  # of the source
    Py_ssize_t result, results
    Py_ssize_t[VECTORS] least, most  # terms of a lane
    long long[VECTORS * TERMS * LANES] at, there  # places; all bits where there is a term
    double[COLUMNS] cells  # that results divide by, backward columns; or their inverse

cdef struct Rows:  # of the source, under each row of the result
    Py_ssize_t most  # of them; where there are fewer, the rest is NONE
    Py_ssize_t high, wide  # rows of a plane of the result, slab after slab; from row to row
    Py_ssize_t plane, total  # scalars of a plane of the source, of all
    Py_ssize_t[LIST] first  # scalars from the begin of the plane
    double[LIST] cells  # forward, that a row of results divides by; backward, of each row


cdef inline Py_ssize_t terms_of(const Axis* a, bint back) noexcept nogil:
    """Bound the terms of a result along an axis."""
    cdef Py_ssize_t along = a.out if back else a.extent
    if a.kernel == 0:
        return (along - 1) // (a.extent if back else a.out) + 2
    return (a.kernel - 1) // a.stride + 1 if back else a.kernel


cdef inline bint fits_blocks(const Pool* p, bint back, Py_ssize_t item) noexcept nogil:
    """Tell whether a block has some results, and the list of rows room for all."""
    cdef double rows = <double>terms_of(&p.z, back) * terms_of(&p.y, back)
    cdef double n = <double>p.z.extent * p.y.extent * p.x.extent
    if back:
        rows = rows * p.z.extent * p.y.extent
    else:
        rows = rows * p.z.out * p.y.out
    return (
        WIDE_LANES == LANES and terms_of(&p.x, back) <= TERMS and rows <= LIST
        and max(n, <double>p.z.out * p.y.out * p.x.out) * item <= MOST
    )


cdef inline double time_of_blocks(const Pool* p, bint back, double division) noexcept nogil:
    """Estimate the ns that a plane takes: rows are added, terms are picked and divided.

    Measured for float32 with 2 x 2 to 1 x 7 windows, stride 1 to 4, of 4 to 28 columns.
    """
    cdef Py_ssize_t terms = terms_of(&p.x, back), each, columns, step = p.x.stride
    cdef Py_ssize_t results = p.x.extent if back else p.x.out
    cdef double rows = <double>terms_of(&p.z, back) * terms_of(&p.y, back), high
    high = <double>p.z.extent * p.y.extent if back else <double>p.z.out * p.y.out
    if p.x.kernel == 0:
        step = max(1, p.x.extent // p.x.out)
    if back:
        each = (COLUMNS - terms) * step + 1
    else:
        each = (COLUMNS - terms) // step + 1
    each = min(max(1, each), COLUMNS)
    if p.x.extent <= COLUMNS and p.x.out <= COLUMNS:
        each = results
    columns = (each - 1) // step + terms if back else min((each - 1) * step + terms, p.x.extent)
    return high * ((results - 1) // each + 1) * (
        0.4 + 0.4 * rows * (2 if columns > LANES else 1)
        + (0.8 + division + 0.5 * terms) * (2 if each > LANES else 1)
    )


cdef inline void set_table(
    const Axis* a, bint back, Py_ssize_t result, bint count_pad, const real* like, Table* t
) noexcept nogil:
    """Find the block that begins with a result, and what its results are sums of."""
    cdef Py_ssize_t j, v, k, i, first, count, begin = -1, stop = 0
    cdef Py_ssize_t left = (a.extent if back else a.out) - result
    t.result, t.results = result, 0
    for j in range(min(left, VECTORS * LANES)):
        range_of(a, result + j, back, &first, &count)
        if count > 0:
            if begin < 0:
                begin = first
            if first + count - begin > COLUMNS:
                break
            stop = first + count
        t.results = j + 1
    if LANES < t.results < LANES + LANES // 2 and t.results < left:
        t.results = LANES  # few more would take as long as many
    t.column, t.columns = max(begin, 0), stop - max(begin, 0)
    for v in range(VECTORS):
        t.least[v], t.most[v] = TERMS, 0
        for j in range(LANES):
            i, first, count = v * LANES + j, 0, 0
            if i < t.results:
                range_of(a, result + i, back, &first, &count)
                t.least[v] = min(t.least[v], count)
                t.most[v] = max(t.most[v], count)
            for k in range(TERMS):
                t.at[(v * TERMS + k) * LANES + j] = first - t.column + k if k < count else 0
                t.there[(v * TERMS + k) * LANES + j] = -1 if k < count else 0
    for j in range(COLUMNS):
        i = min((t.column if back else result) + j, a.out - 1)
        t.cells[j] = cells(a, i, count_pad)
        if real is float:
            t.cells[j] = 1 / t.cells[j]


cdef inline void set_rows(const Pool* p, bint back, const real* like, Rows* r) noexcept nogil:
    """List the rows."""
    cdef Py_ssize_t z, y, i = 0, k, m, first_z, first_y, nz, ny
    cdef Py_ssize_t height = p.y.out if back else p.y.extent
    cdef Py_ssize_t width = p.x.out if back else p.x.extent
    cdef Py_ssize_t deep = p.z.extent if back else p.z.out
    cdef Py_ssize_t high = p.y.extent if back else p.y.out
    r.most = terms_of(&p.z, back) * terms_of(&p.y, back)
    r.high, r.wide = deep * high, p.x.extent if back else p.x.out
    r.plane = (p.z.out if back else p.z.extent) * height * width
    r.total = p.planes * r.plane
    for z in range(deep):
        range_of(&p.z, z, back, &first_z, &nz)
        for y in range(high):
            range_of(&p.y, y, back, &first_y, &ny)
            for k in range(r.most):
                r.first[i + k] = NONE
            if not back:
                r.cells[z * high + y] = count_in_row(p, z, y)
                if real is float:
                    r.cells[z * high + y] = 1 / r.cells[z * high + y]
            for k in range(nz):
                for m in range(ny):
                    r.first[i + k * ny + m] = (
                        (first_z + k) * height + first_y + m
                    ) * width
                    if back:
                        r.cells[i + k * ny + m] = count_in_row(p, first_z + k, first_y + m)
            i += r.most


cdef inline f64v some_of(const real* x, Py_ssize_t n, bint whole) noexcept nogil:
    """Load a vector of doubles, or n scalars."""
    return wide(x) if whole else wide_part(x, min(n, LANES))


cdef inline void add_rows(
    const real* x, const real* zeros, const Py_ssize_t* first, Py_ssize_t rows,
    Py_ssize_t n, bint whole, f64v* a, f64v* b,
) noexcept nogil:
    """Sum n columns."""
    cdef Py_ssize_t k
    cdef const real* at = zeros if first[0] < 0 else x + first[0]
    a[0] = some_of(at, n, whole)
    b[0] = some_of(at + LANES, n - LANES, whole) if n > LANES else a[0]
    for k in range(1, rows):
        at = zeros if first[k] < 0 else x + first[k]
        a[0] = a[0] + some_of(at, n, whole)
        if n > LANES:
            b[0] = b[0] + some_of(at + LANES, n - LANES, whole)


cdef inline void add_uneven_rows(
    const real* x, const Py_ssize_t* first, const double* count, Py_ssize_t rows,
    const Table* t, f64v* a, f64v* b,
) noexcept nogil:
    """Do it backward, each divided by what its windows divide by."""
    cdef Py_ssize_t k
    cdef f64v v, w
    a[0] = zero_lanes(a)
    b[0] = a[0]
    for k in range(rows):
        if first[k] < 0:
            continue
        v = wide_part(x + first[k], min(t.columns, LANES))
        w = v
        if t.columns > LANES:
            w = wide_part(x + first[k] + LANES, t.columns - LANES)
        a[0] = a[0] + cc_quotient(v, count[k])
        b[0] = b[0] + cc_quotient(w, count[k])
    if real is float:
        a[0] = a[0] * (<const f64v*>t.cells)[0]
        b[0] = b[0] * (<const f64v*>t.cells)[1]
    else:
        a[0] = cc_over(a[0], (<const f64v*>t.cells)[0])
        b[0] = cc_over(b[0], (<const f64v*>t.cells)[1])


cdef inline f64v pick(const Table* t, Py_ssize_t v, f64v a, f64v b) noexcept nogil:
    """Sum the terms of a vector of results."""
    cdef const f64v* at = <const f64v*>t.at + v * TERMS
    cdef const f64v* there = <const f64v*>t.there + v * TERMS
    cdef Py_ssize_t k
    cdef f64v sums = cc_masked(cc_at_f64(a, b, at[0]), there[0])
    for k in range(1, t.most[v]):
        sums = sums + cc_masked(cc_at_f64(a, b, at[k]), there[k])
    return sums


cdef inline f64v mean_of(
    f64v sums, const Table* t, Py_ssize_t v, const Scale* by, const double* row,
    const real* like,
) noexcept nogil:
    """Divide: `row` NULL, by the same; else by the cells of each."""
    if row == NULL:
        return divided(sums, by, like)
    if real is float:
        return sums * ((<const f64v*>t.cells)[v] * row[0])
    else:
        return cc_over(sums, (<const f64v*>t.cells)[v] * row[0])


cdef inline void means_of_plane(
    const Table* t, const Rows* r, const Scale* by, bint even, bint back, const real* x,
    const real* zeros, bint whole, real* y,
) noexcept nogil:
    """Write one block of all rows of a plane; `whole`: vectors may be read."""
    cdef Py_ssize_t i, n = t.results
    cdef const double* row = NULL
    cdef f64v a, b
    for i in range(r.high):
        if back and not even:
            add_uneven_rows(
                x, r.first + i * r.most, r.cells + i * r.most, r.most, t, &a, &b
            )
        elif whole and t.columns <= LANES:
            add_rows(x, zeros, r.first + i * r.most, r.most, LANES, True, &a, &b)
        elif whole:
            add_rows(x, zeros, r.first + i * r.most, r.most, COLUMNS, True, &a, &b)
        else:
            add_rows(x, zeros, r.first + i * r.most, r.most, t.columns, False, &a, &b)
        if not back and not even:
            row = r.cells + i
        if n > LANES:
            narrow(y, mean_of(pick(t, 0, a, b), t, 0, by, row, y))
            narrow_part(y + LANES, mean_of(pick(t, 1, a, b), t, 1, by, row, y), n - LANES)
        else:
            narrow_part(y, mean_of(pick(t, 0, a, b), t, 0, by, row, y), n)
        y += r.wide


cdef inline void blocks_task(
    const Pool* p, bint back, double common, const real* x, real* y, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write the results of planes begin .. end."""
    cdef real[COLUMNS] zeros
    cdef Rows r
    cdef Table t
    cdef Scale by = scale_by(common if common else 1)
    cdef Py_ssize_t column = 0, i
    cdef const real* at
    memset(zeros, 0, sizeof(zeros))
    set_rows(p, back, x, &r)
    while column < r.wide:
        set_table(&p.x, back, column, p.count_pad, x, &t)
        for i in range(begin, end):
            at = x + i * r.plane + t.column
            means_of_plane(
                &t, &r, &by, common != 0, back, at, zeros,
                (i + 1) * r.plane + COLUMNS <= r.total,
                y + i * r.high * r.wide + t.result,
            )
        column += t.results
