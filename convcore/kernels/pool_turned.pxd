# Means over windows of small planes, and their gradient: a plane for each lane.
#
# What      As many planes as a vector has doubles are turned, so that the element (y, x) of
#           all of them is one vector. Windows are then summed a vector at a time: first
#           their rows, then along the sums; and the results turned back.
#
#               plane 0   a b c ...            a0 a1 a2 ...
#               plane 1   a b c ...    ->      b0 b1 b2 ...      element by element
#               plane 2   a b c ...            c0 c1 c2 ...
#
# Assumes   `is_small`: planes of few elements. Any windows without dilation.
# Parallel  the caller's, over groups of planes. The lanes behind the last plane do what it
#           does, and are not stored: a plane's bits are its own.
# Scratch   the caller's: a `Room` for each thread; on the stack the places, 12 KB.
# Cost      three shuffles for a vector, and what windows add: independent of the width.
# Why not   Rows of a plane as vectors: 15 elements take as long as 16 or 32, and each row
#           50 cycles beside them: (32, 256, 15, 15) to 7 x 7 took 1.1 ms for 0.25.

from convcore.kernels.blocks cimport SPAN
from convcore.kernels.pool_long cimport count_in_row
from convcore.kernels.pool_places cimport Places, set_places
from convcore.kernels.vector cimport (
    cc_fetch, cc_fetch_to_write, f64v, interleave_high, interleave_low, real, zero_lanes,
)
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, Scale, cc_quotient, divided, narrow, narrow_part, scale_by, wide, wide_part,
)
from convcore.kernels.windows cimport Axis, Pool, cells

cdef enum:
    MOST = 1024  # elements and windows of a plane
    LANES = 8  # WIDE_LANES at most

cdef struct Places3:
    Places z, y, x

cdef struct Line:  # of strided windows: with zeros around it, each has as many elements
    bint back, even  # even: there is room for them
    Py_ssize_t n, length  # of results, and of the source
    Py_ssize_t kernel, stride, lo
    Py_ssize_t before, after  # zeros

cdef struct Room:  # of a thread; bytes, as a field cannot be a vector
    double[LANES * (MOST + 2 * LANES)] turned  # a group, and its results
    double[LANES * SPAN] sums
    double[MOST] divisors


cdef inline bint is_small(const Pool* p) noexcept nogil:
    """Tell whether planes are small, and some vectors of them are there."""
    cdef double n = <double>p.z.extent * p.y.extent * p.x.extent
    n += <double>p.z.out * p.y.out * p.x.out
    return n <= MOST and max(
        max(p.x.extent, p.x.out), max(max(p.y.extent, p.y.out), max(p.z.extent, p.z.out))
    ) <= SPAN


cdef inline void shuffle(const f64v* v, f64v* w) noexcept nogil:
    """Bring the lanes of two vectors together: as often as halving gives one, that turns."""
    cdef Py_ssize_t i
    for i in range(WIDE_LANES // 2):
        w[2 * i] = interleave_low(v[i], v[i + WIDE_LANES // 2])
        w[2 * i + 1] = interleave_high(v[i], v[i + WIDE_LANES // 2])


cdef inline void turn(f64v* v, f64v* w) noexcept nogil:
    """Transpose as many vectors as each has lanes, to w."""
    cdef Py_ssize_t i
    if WIDE_LANES == 2:
        shuffle(v, w)
    elif WIDE_LANES == 4:
        shuffle(v, w)
        shuffle(w, v)
        for i in range(WIDE_LANES):
            w[i] = v[i]
    else:
        shuffle(v, w)
        shuffle(w, v)
        shuffle(v, w)


cdef inline void turn_in(
    const real* x, Py_ssize_t n, Py_ssize_t apart, Py_ssize_t planes, Py_ssize_t ahead,
    f64v* to,
) noexcept nogil:
    """Give n elements of some planes, which lie so far apart in x, as vectors."""
    cdef f64v[LANES] v, w
    cdef Py_ssize_t[LANES] plane
    cdef Py_ssize_t j = 0, i
    for i in range(WIDE_LANES):
        plane[i] = min(i, planes - 1) * apart
    if n < WIDE_LANES:
        for i in range(WIDE_LANES):
            v[i] = wide_part(x + plane[i], n)
        turn(v, w)
        for i in range(n):
            to[i] = w[i]
        return
    while True:
        for i in range(WIDE_LANES):
            v[i] = wide(x + plane[i] + j)
        for i in range(WIDE_LANES):
            cc_fetch(x + plane[i] + j + ahead)
        turn(v, w)
        for i in range(WIDE_LANES):
            to[j + i] = w[i]
        if j + WIDE_LANES >= n:
            break
        j = min(j + WIDE_LANES, n - WIDE_LANES)


cdef inline void turn_out(
    f64v* v, Py_ssize_t n, Py_ssize_t apart, Py_ssize_t planes, real* y
) noexcept nogil:
    """Store n vectors as elements of some planes; all that can be turned are there."""
    cdef f64v[LANES] u, w
    cdef Py_ssize_t j = 0, i
    while True:
        for i in range(WIDE_LANES):
            u[i] = v[j + i]
        turn(u, w)
        if planes == WIDE_LANES and n >= WIDE_LANES:
            for i in range(WIDE_LANES):
                narrow(y + i * apart + j, w[i])
            for i in range(WIDE_LANES):  # of the next group
                cc_fetch_to_write(y + (WIDE_LANES + i) * apart + j)
        else:
            for i in range(planes):
                narrow_part(y + i * apart + j, w[i], n)
        if j + WIDE_LANES >= n:
            break
        j = min(j + WIDE_LANES, n - WIDE_LANES)


cdef inline void add_rows(
    const f64v* v, Py_ssize_t slabs, Py_ssize_t slab, Py_ssize_t rows, Py_ssize_t row,
    f64v* sums,
) noexcept nogil:
    """Sum rows of `row` vectors."""
    cdef Py_ssize_t i, y, z
    cdef f64v a
    for i in range(row):
        a = v[i]
        for y in range(1, rows):
            a = a + v[i + y * row]
        for z in range(1, slabs):
            for y in range(rows):
                a = a + v[i + z * slab + y * row]
        sums[i] = a


cdef inline void add_few_rows(
    const f64v* v, Py_ssize_t slabs, Py_ssize_t slab, Py_ssize_t rows, Py_ssize_t row,
    f64v* sums,
) noexcept nogil:
    """Do `add_rows`, with the usual numbers as constants."""
    if slabs == 1 and rows == 2:
        add_rows(v, 1, slab, 2, row, sums)
    elif slabs == 1 and rows == 3:
        add_rows(v, 1, slab, 3, row, sums)
    elif slabs == 1 and rows == 1:
        add_rows(v, 1, slab, 1, row, sums)
    else:
        add_rows(v, slabs, slab, rows, row, sums)


cdef inline void add_along(
    const f64v* v, const Places* t, const Scale* by, const real* like, f64v* to
) noexcept nogil:
    """Sum neighbours by their places, and divide."""
    cdef Py_ssize_t j, k
    cdef f64v a
    cdef const f64v* at
    for j in range(t.n):
        at = v + t.origin + t.first[j]
        if t.count[j] <= 0:
            to[j] = zero_lanes(&a)
            continue
        a = at[0]
        for k in range(1, t.count[j]):
            a = a + at[k]
        to[j] = divided(a, by, like)


cdef inline Line line_of(const Axis* a, bint back) noexcept nogil:
    """Find the zeros around a line, with which all its windows are alike."""
    cdef Line l
    cdef double zeros
    l.back, l.kernel, l.stride, l.lo, l.even = back, a.kernel, a.stride, a.lo, False
    l.n = a.extent if back else a.out
    l.length = a.out if back else a.extent
    l.before = l.after = 0
    if a.kernel == 0:
        return l
    if back:
        l.before = (a.kernel - 1) // a.stride
        l.after = max(0, (a.extent - 1 + a.lo) // a.stride + 1 - a.out)
    else:
        l.before = a.lo
        l.after = max(0, (a.out - 1) * a.stride + a.kernel - a.lo - a.extent)
    zeros = <double>l.before + l.after
    l.even = l.n >= WIDE_LANES * (a.stride if back else 1)  # fewer: tables are faster
    l.even = l.even and zeros + l.length <= SPAN
    return l


cdef inline void add_even(
    const f64v* v, Py_ssize_t n, Py_ssize_t apart, Py_ssize_t count, const Scale* by,
    const real* like, f64v* to, Py_ssize_t step,
) noexcept nogil:
    """Write n sums of as many neighbours, `apart` from one to the next, and divide."""
    cdef Py_ssize_t k
    cdef f64v a
    for _ in range(n):
        a = v[0]
        for k in range(1, count):
            a = a + v[k]
        to[0] = divided(a, by, like)
        v += apart
        to += step


cdef inline void add_some(
    const f64v* v, Py_ssize_t n, Py_ssize_t apart, Py_ssize_t count, const Scale* by,
    const real* like, f64v* to, Py_ssize_t step,
) noexcept nogil:
    """Do `add_even`, with the usual numbers as constants."""
    cdef Py_ssize_t j
    if count == 3:
        add_even(v, n, apart, 3, by, like, to, step)
    elif count == 2:
        add_even(v, n, apart, 2, by, like, to, step)
    elif count == 1:
        add_even(v, n, apart, 1, by, like, to, step)
    elif count > 0:
        add_even(v, n, apart, count, by, like, to, step)
    else:
        for j in range(n):
            to[j * step] = zero_lanes(to)


cdef inline void add_line(
    const f64v* v, const Line* l, const Scale* by, const real* like, f64v* to
) noexcept nogil:
    """Write all sums along a line that begins with its zeros."""
    cdef Py_ssize_t f, at, rest, count
    if not l.back:
        add_some(v, l.n, l.stride, l.kernel, by, like, to, 1)
    elif l.stride == 1:
        add_some(v + l.lo, l.n, 1, l.kernel, by, like, to, 1)
    else:
        for f in range(min(l.stride, l.n)):
            at = f + l.lo
            rest = at % l.stride
            count = (l.kernel - 1 - rest) // l.stride + 1 if rest < l.kernel else 0
            add_some(
                v + l.before + at // l.stride - (count - 1),
                (l.n - f - 1) // l.stride + 1, 1, count, by, like, to + f, l.stride,
            )


cdef inline void add_windows(
    const Places3* t, const Line* l, Py_ssize_t slab, Py_ssize_t row, const f64v* v,
    const Scale* by, const real* like, f64v* sums, f64v* to,
) noexcept nogil:
    """Write all sums of one turned group; `slab` and `row` are of the source."""
    cdef const f64v* at
    cdef Py_ssize_t z, y, i
    cdef bint bare = l.before == 0 and l.after == 0
    if l.even:
        for i in range(l.before):
            sums[i] = zero_lanes(sums)
        for i in range(l.after):
            sums[l.before + row + i] = zero_lanes(sums)
    for z in range(t.z.n):
        for y in range(t.y.n):
            at = v + (t.z.origin + t.z.first[z]) * slab + (t.y.origin + t.y.first[y]) * row
            if t.z.count[z] <= 0 or t.y.count[y] <= 0:
                for i in range(row):
                    sums[l.before + i] = zero_lanes(sums)
                at = sums
            elif t.z.count[z] * t.y.count[y] > 1 or not bare:
                add_few_rows(at, t.z.count[z], slab, t.y.count[y], row, sums + l.before)
                at = sums
            if l.even:
                add_line(at, l, by, like, to)
            else:
                add_along(at, &t.x, by, like, to)
            to += l.n


cdef inline void note_divisors(
    const Pool* p, const real* like, double* divisors
) noexcept nogil:
    """Note by what each window is divided, or for float32 multiplied."""
    cdef Py_ssize_t z, y, x, i = 0
    cdef double rows
    for z in range(p.z.out):
        for y in range(p.y.out):
            rows = count_in_row(p, z, y)
            for x in range(p.x.out):
                divisors[i] = rows * cells(&p.x, x, p.count_pad)
                if real is float:
                    divisors[i] = 1 / divisors[i]
                i += 1


cdef inline void divide_all(
    const double* divisors, Py_ssize_t n, const real* like, f64v* v
) noexcept nogil:
    """Divide what belongs to windows."""
    cdef Py_ssize_t i
    for i in range(n):
        if real is float:
            v[i] = v[i] * divisors[i]
        else:
            v[i] = cc_quotient(v[i], divisors[i])


cdef inline void use_all(Places* t, const Axis* a, bint back) noexcept nogil:
    """Find the places of a whole axis."""
    t.back, t.inside, t.begin, t.n = back, False, 0, 0
    set_places(a, 0, a.extent if back else a.out, t)


cdef inline void turned_task(
    const Pool* p, bint back, double common, const real* x, real* y, Py_ssize_t begin,
    Py_ssize_t end, Room* room,
) noexcept nogil:
    """Write the results of groups begin .. end of planes."""
    cdef f64v* held = <f64v*>room.turned
    cdef double* divisors = room.divisors
    cdef Places3 t
    cdef Line line
    cdef Scale by = scale_by(common if common else 1)
    cdef Py_ssize_t n = p.z.extent * p.y.extent * p.x.extent
    cdef Py_ssize_t m = p.z.out * p.y.out * p.x.out, i, planes, row = p.x.extent
    cdef Py_ssize_t slab = row * p.y.extent
    cdef f64v* results
    if back:
        n, m, row, slab = m, n, p.x.out, p.x.out * p.y.out
    results = held + n
    if common == 0:
        note_divisors(p, y, divisors)
    use_all(&t.z, &p.z, back)
    use_all(&t.y, &p.y, back)
    line = line_of(&p.x, back)
    if not line.even:
        line.before = line.after = 0
        use_all(&t.x, &p.x, back)
    for i in range(begin, end):
        planes = min(WIDE_LANES, p.planes - i * WIDE_LANES)
        turn_in(x + i * WIDE_LANES * n, n, n, planes, WIDE_LANES * n, held)
        if back and common == 0:
            divide_all(divisors, n, y, held)
        add_windows(
            &t, &line, slab, row, <const f64v*>held, &by, y, <f64v*>room.sums, results
        )
        if common == 0 and not back:
            divide_all(divisors, m, y, results)
        turn_out(results, m, m, planes, y + i * WIDE_LANES * m)
