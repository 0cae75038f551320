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

from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, all_lanes, cc_all_f64, f32v, f64v, part, put_part, vec,
)
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, rest_of, wide_of, wide_or_rest, wide_sum,
)

cdef struct Sums:
    double first, second


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
    double scale, double lost,
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
        store(<vec*>ahead(y, i), v, n - i)
        i += lanes


cdef inline void blend_line(
    vec* dx, const vec* g, const vec* x, const vec* weight, Py_ssize_t n,
    const double* coefficients, double mean,
) noexcept nogil:
    """Write a * g * weight + b * (x - mean) + c."""
    cdef vec a = all_lanes(x, coefficients[0]), b = all_lanes(x, coefficients[1])
    cdef vec c = all_lanes(x, coefficients[2]), m = all_lanes(x, mean)
    cdef Py_ssize_t i = 0, lanes = lanes_of(x)
    while n > i:
        store(
            <vec*>ahead(dx, i),
            a * (load(ahead(g, i), n - i) * load(ahead(weight, i), n - i))
            + (b * (load(ahead(x, i), n - i) - m) + c),
            n - i,
        )
        i += lanes


cdef inline void add_to(double* sums, f64v v, Py_ssize_t n) noexcept nogil:
    """Add to the first n sums, or as many as fit."""
    if n >= WIDE_LANES:
        (<f64v*>sums)[0] = (<f64v*>sums)[0] + v
    else:
        put_part(<f64v*>sums, part(<const f64v*>sums, (1ULL << n) - 1) + v, n)


cdef inline void line_step(
    f64v* s, f64v* q, const vec* g, const vec* x, const vec* weight, Py_ssize_t n, f64v centre,
    f64v factor, double* first, double* second,
) noexcept nogil:
    """Do `line_sums` for one vector, or for its first n lanes."""
    cdef f64v e = wide_or_rest(g, n), d = wide_or_rest(x, n) - centre
    if first != NULL:
        add_to(first, e, n)
        add_to(second, e * (d * factor), n)
    if weight != NULL:
        e = e * wide_or_rest(weight, n)
    s[0] = s[0] + e
    q[0] = q[0] + e * d


cdef inline Sums line_sums(
    const vec* g, const vec* x, const vec* weight, Py_ssize_t n, double mean, double scale,
    double* first, double* second,
) noexcept nogil:
    """Sum g * weight, and g * weight * (x - mean).

    Unless they are NULL, add g to the first sums, and g * (x - mean) * scale to the second,
    place by place.
    """
    cdef f64v[4] s
    cdef f64v[4] q
    cdef f64v centre = cc_all_f64(mean), factor = cc_all_f64(scale)
    cdef Py_ssize_t i = 0, lanes = WIDE_LANES
    cdef const vec* w = weight
    cdef double* a = first
    cdef double* b = second
    cdef int k
    cdef Sums sums
    for k in range(4):
        s[k] = cc_all_f64(0)
        q[k] = cc_all_f64(0)
    while n - i >= 2 * lanes:
        for k in range(2):
            if weight != NULL:
                w = ahead(weight, i)
            if first != NULL:
                a, b = first + i, second + i
            line_step(&s[k], &q[k], ahead(g, i), ahead(x, i), w, lanes, centre, factor, a, b)
            i += lanes
    while n > i:
        if weight != NULL:
            w = ahead(weight, i)
        if first != NULL:
            a, b = first + i, second + i
        line_step(&s[0], &q[0], ahead(g, i), ahead(x, i), w, n - i, centre, factor, a, b)
        i += lanes
    sums.first = wide_sum(<const f64v*>s)
    sums.second = wide_sum(<const f64v*>q)
    return sums


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
