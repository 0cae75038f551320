# Sums over a run of scalars, and the two lines that normalise one.
#
# What      moments: sum(x - shift) and sum((x - shift)**2).
#           products: sum(g) and sum(g * (x - mean)).
#           scale_run: y = (x - mean) * scale + bias.
#           blend_run: dx = a * g + b * (x - mean) + c.
# Layout    the sums in lanes of float64, four vectors in turn, so that the lane of an
#           element depends on its place in the run alone; lanes behind the end hold a
#           value that adds zero.
# Digits    With the shift one of the data, K in number, the variance is right to K units in
#           the last place of float64 at worst: one datum as far from the others as the
#           shift is makes the variance at least (shift - mean)**2 / K. So no data spoil it.
# Cost      of both sums 8 instructions for 64 bytes of float32.
# Source    Chan, Golub, LeVeque: Algorithms for Computing the Sample Variance, The American
#           Statistician 37 (1983), section 3, shifted data.

from convcore.kernels.elements cimport keep_some
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, all_lanes, cc_all_f64, cc_fetch_far, f32v, f64v, part, put_part, put_sum, vec,
)
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, rest_of, wide_of, wide_or_rest, wide_sum,
)

cdef enum:
    ABREAST = 4  # rows whose sums are taken at once

cdef struct Sums:
    double first, second

cdef struct Line:  # a row, and its statistics
    const void* g
    const void* x
    double mean, scale


cdef inline Py_ssize_t lanes_of(const vec* like) noexcept nogil:
    """Count the lanes of a vector."""
    return VEC_BYTES // (4 if vec is f32v else 8)


cdef inline double scalar_at(const vec* a, Py_ssize_t i) noexcept nogil:
    """Give the i-th scalar."""
    if vec is f32v:
        return (<const float*>a)[i]
    else:
        return (<const double*>a)[i]


cdef inline void put_scalar(vec* a, Py_ssize_t i, double value) noexcept nogil:
    """Set the i-th scalar."""
    if vec is f32v:
        (<float*>a)[i] = <float>value
    else:
        (<double*>a)[i] = value


cdef inline double rounded(const vec* like, double value) noexcept nogil:
    """Round to the type of `like`."""
    if vec is f32v:
        return <float>value
    else:
        return value


cdef inline unsigned long long first_lanes(Py_ssize_t n, Py_ssize_t lanes) noexcept nogil:
    """Set a bit for each of the first n lanes, or for all."""
    return (1ULL << min(n, lanes)) - 1


cdef inline vec load(const vec* p, Py_ssize_t n) noexcept nogil:
    """Load n lanes, or all; the others are zero."""
    if n >= lanes_of(p):
        return p[0]
    return part(p, (1ULL << n) - 1)


cdef inline void store(vec* p, vec v, Py_ssize_t n) noexcept nogil:
    """Store n lanes, or all."""
    if n >= lanes_of(p):
        p[0] = v
    else:
        put_part(p, v, n)


cdef inline Sums moments(const vec* x, Py_ssize_t n, double shift) noexcept nogil:
    """Sum x - shift, and its square."""
    cdef f64v[4] s
    cdef f64v[4] q
    cdef f64v d, centre = cc_all_f64(shift)
    cdef Py_ssize_t i = 0, lanes = WIDE_LANES
    cdef int k
    cdef Sums sums
    for k in range(4):
        s[k] = cc_all_f64(0)
        q[k] = cc_all_f64(0)
    while n - i >= 4 * lanes:
        for k in range(4):
            d = wide_of(ahead(x, i + k * lanes)) - centre
            s[k] = s[k] + d
            q[k] = q[k] + d * d
        i += 4 * lanes
    while n - i >= lanes:
        d = wide_of(ahead(x, i)) - centre
        s[0] = s[0] + d
        q[0] = q[0] + d * d
        i += lanes
    if n > i:
        d = rest_of(ahead(x, i), n - i, shift) - centre
        s[1] = s[1] + d
        q[1] = q[1] + d * d
    sums.first = wide_sum(<const f64v*>s)
    sums.second = wide_sum(<const f64v*>q)
    return sums


cdef inline Sums products(
    const vec* g, const vec* x, Py_ssize_t n, double mean
) noexcept nogil:
    """Sum g, and g * (x - mean)."""
    cdef f64v[4] s
    cdef f64v[4] q
    cdef f64v e, centre = cc_all_f64(mean)
    cdef Py_ssize_t i = 0, lanes = WIDE_LANES
    cdef int k
    cdef Sums sums
    for k in range(4):
        s[k] = cc_all_f64(0)
        q[k] = cc_all_f64(0)
    while n - i >= 4 * lanes:
        for k in range(4):
            e = wide_of(ahead(g, i + k * lanes))
            s[k] = s[k] + e
            q[k] = q[k] + e * (wide_of(ahead(x, i + k * lanes)) - centre)
        i += 4 * lanes
    while n - i >= lanes:
        e = wide_of(ahead(g, i))
        s[0] = s[0] + e
        q[0] = q[0] + e * (wide_of(ahead(x, i)) - centre)
        i += lanes
    if n > i:
        e = rest_of(ahead(g, i), n - i, 0)
        s[1] = s[1] + e
        q[1] = q[1] + e * (rest_of(ahead(x, i), n - i, rounded(x, mean)) - centre)
    sums.first = wide_sum(<const f64v*>s)
    sums.second = wide_sum(<const f64v*>q)
    return sums


cdef inline void scale_run(
    vec* y, const vec* x, Py_ssize_t n, double mean, double scale, double bias
) noexcept nogil:
    """Write (x - mean) * scale + bias; mean, scale and bias are rounded to x's type."""
    cdef vec m = all_lanes(x, mean), s = all_lanes(x, scale), b = all_lanes(x, bias)
    cdef Py_ssize_t i = 0, lanes = lanes_of(x)
    cdef int k
    while n - i >= 4 * lanes:
        for k in range(4):
            (<vec*>ahead(y, i + k * lanes))[0] = (ahead(x, i + k * lanes)[0] - m) * s + b
        i += 4 * lanes
    while n > i:
        store(<vec*>ahead(y, i), (load(ahead(x, i), n - i) - m) * s + b, n - i)
        i += lanes


cdef inline void add_moments(
    const vec* x, Py_ssize_t n, double shift, f64v* sums
) noexcept nogil:
    """Add x - shift and its square, lane by lane, to two sums."""
    cdef f64v s = sums[0], q = sums[1], t = cc_all_f64(0), u = t, d, e
    cdef f64v centre = cc_all_f64(shift)
    cdef Py_ssize_t i = 0, lanes = WIDE_LANES
    while n - i >= 2 * lanes:
        d = wide_of(ahead(x, i)) - centre
        e = wide_of(ahead(x, i + lanes)) - centre
        s = s + d
        q = q + d * d
        t = t + e
        u = u + e * e
        i += 2 * lanes
    while n > i:
        d = rest_of(ahead(x, i), min(n - i, lanes), shift) - centre
        s = s + d
        q = q + d * d
        i += lanes
    sums[0], sums[1] = s + t, q + u


cdef inline void blend_run(
    vec* dx, const vec* g, const vec* x, Py_ssize_t n, const double* coefficients, double mean
) noexcept nogil:
    """Write a * g + b * (x - mean) + c."""
    cdef vec a = all_lanes(x, coefficients[0]), b = all_lanes(x, coefficients[1])
    cdef vec c = all_lanes(x, coefficients[2]), m = all_lanes(x, mean)
    cdef Py_ssize_t i = 0, lanes = lanes_of(x)
    cdef int k
    while n - i >= 2 * lanes:
        for k in range(2):
            (<vec*>ahead(dx, i + k * lanes))[0] = a * ahead(g, i + k * lanes)[0] + (
                b * (ahead(x, i + k * lanes)[0] - m) + c
            )
        i += 2 * lanes
    while n > i:
        store(
            <vec*>ahead(dx, i),
            a * load(ahead(g, i), n - i) + (b * (load(ahead(x, i), n - i) - m) + c),
            n - i,
        )
        i += lanes


cdef inline void scale_line(
    vec* y, const vec* x, const vec* weight, const vec* bias, Py_ssize_t n, double mean,
    double scale, double lost, bint past,
) noexcept nogil:
    """Write ((x - mean) * scale + lost) * weight + bias; one of the two may be NULL."""
    cdef vec m = all_lanes(x, mean), s = all_lanes(x, scale), c = all_lanes(x, lost), v
    cdef Py_ssize_t i = 0, lanes = lanes_of(x)
    while n > i:
        v = (load(ahead(x, i), n - i) - m) * s + c
        if weight != NULL:
            v = v * load(ahead(weight, i), n - i)
        if bias != NULL:
            v = v + load(ahead(bias, i), n - i)
        keep_some(y, i, v, n - i, past)
        i += lanes


cdef inline void blend_line(
    vec* dx, const vec* g, const vec* x, const vec* weight, Py_ssize_t n,
    const double* coefficients, double mean, bint past,
) noexcept nogil:
    """Write a * g * weight + b * (x - mean) + c."""
    cdef vec a = all_lanes(x, coefficients[0]), b = all_lanes(x, coefficients[1])
    cdef vec c = all_lanes(x, coefficients[2]), m = all_lanes(x, mean)
    cdef Py_ssize_t i = 0, lanes = lanes_of(x)
    while n > i:
        keep_some(
            dx, i,
            a * (load(ahead(g, i), n - i) * load(ahead(weight, i), n - i))
            + (b * (load(ahead(x, i), n - i) - m) + c),
            n - i, past,
        )
        i += lanes


cdef inline void add_to(double* sums, f64v v, Py_ssize_t n) noexcept nogil:
    """Add to the first n sums, or as many as fit."""
    if n >= WIDE_LANES:
        (<f64v*>sums)[0] = (<f64v*>sums)[0] + v
    else:
        put_part(<f64v*>sums, part(<const f64v*>sums, (1ULL << n) - 1) + v, n)


cdef inline void lines_step(
    const Line* lines, int rows, const vec* weight, Py_ssize_t i, Py_ssize_t left, f64v* s,
    f64v* q, double* first, double* second,
) noexcept nogil:
    """Do `lines_sums` at i for one vector, or for its first lanes."""
    cdef f64v a = cc_all_f64(0), b = a, w = a, d, e
    cdef int k
    if weight != NULL:
        w = wide_or_rest(ahead(weight, i), left)
    for k in range(rows):
        e = wide_or_rest(ahead(<const vec*>lines[k].g, i), left)
        d = wide_or_rest(ahead(<const vec*>lines[k].x, i), left) - cc_all_f64(lines[k].mean)
        a = a + e
        b = b + e * (d * cc_all_f64(lines[k].scale))
        if weight != NULL:
            e = e * w
        s[k] = s[k] + e
        q[k] = q[k] + e * d
    if first != NULL:
        add_to(first + i, a, left)
        add_to(second + i, b, left)


cdef inline void lines_sums(
    const Line* lines, int rows, const vec* weight, Py_ssize_t n, Py_ssize_t next, double* first,
    double* second, Sums* totals,
) noexcept nogil:
    """Sum g * weight, and g * weight * (x - mean), of each of some rows.

    What lies `next` scalars behind is asked for: short rows are many streams of memory.

    Unless they are NULL, add g to the first sums, and g * (x - mean) * scale to the second,
    place by place: for all rows at once, as the sums are more bytes than a row.
    """
    cdef f64v[ABREAST] s
    cdef f64v[ABREAST] q
    cdef Py_ssize_t i = 0, lanes = WIDE_LANES
    cdef int k
    for k in range(rows):
        s[k] = cc_all_f64(0)
        q[k] = cc_all_f64(0)
    while n - i >= lanes:
        for k in range(rows):
            cc_fetch_far(ahead(<const vec*>lines[k].g, i + next))
            cc_fetch_far(ahead(<const vec*>lines[k].x, i + next))
        lines_step(lines, rows, weight, i, lanes, s, q, first, second)
        i += lanes
    if n > i:
        lines_step(lines, rows, weight, i, n - i, s, q, first, second)
    for k in range(rows):
        put_sum(<f64v*>&totals[k].first, s[k], 0)
        put_sum(<f64v*>&totals[k].second, q[k], 0)


cdef inline void multiply_run(vec* dx, const vec* g, Py_ssize_t n, double a) noexcept nogil:
    """Write a * g."""
    cdef vec scale = all_lanes(g, a)
    cdef Py_ssize_t i = 0, lanes = lanes_of(g)
    cdef int k
    while n - i >= 4 * lanes:
        for k in range(4):
            (<vec*>ahead(dx, i + k * lanes))[0] = scale * ahead(g, i + k * lanes)[0]
        i += 4 * lanes
    while n > i:
        store(<vec*>ahead(dx, i), scale * load(ahead(g, i), n - i), n - i)
        i += lanes
