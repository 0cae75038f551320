# The powers, roots and slopes of p-norms, in lanes of float64.
#
# What      raised   |v|^p                          rooted   s^(1/p)
#           shared   dy y^(1-p), 0 where y is 0     slope    sign(v) |v|^(p-1), 0 for 0
# How       p of 1, 2, 3 and whole numbers up to MOST_WHOLE by products, others by `power_of`.
#           The cube root is s y^2, y = s^(-1/3): the bits of a double, less a third of
#           them, are y to 4 %; a step with e = 1 - s y^3 multiplies y by the first terms of
#           (1 - e)^(-1/3).
# Range     float32 with p <= SAFE: no power, sum or share leaves float64. Else sums and
#           shares between FEW and MANY have lost nothing, and the rest is left to
#           norm_far.pxd.
# Source    Moroz et al., Fast calculation of inverse square root with the use of magic
#           constant, 2018, section 2, there for -1/2.

from libc.math cimport INFINITY, fma, sqrt

from convcore.kernels.vector cimport f64v, pick, real, until
from convcore.kernels.vector_math cimport every, magnitude, signed_as
from convcore.kernels.vector_power cimport Exponent, exponent_of, power_of
from convcore.kernels.vector_wide cimport WIDE_LANES, cc_over
from convcore.kernels.windows cimport Pool

cdef extern from *:
    """
    #define CC_FEW 0x1p-900
    #define CC_MANY 0x1p900
    typedef unsigned long long cc_norm_bits __attribute__((vector_size(CC_VEC_BYTES)));
    static inline cc_f64v cc_cube_root(cc_f64v s) {
        /* the upper half of the bits as a number: behind the point of 2^52 */
        cc_f64v i = (cc_f64v)(((cc_norm_bits)s >> 32) | 0x4330000000000000ull) - 0x1p52, e;
        i = (cc_f64v)((cc_norm_bits)(0x1p52 + 1430186000.0 - i * (1 / 3.0)) << 32);
        e = 1 - ((s * i) * i) * i;
        i += i * (e * (1 / 3.0 + e * (2 / 9.0 + e * (14 / 81.0))));
        e = 1 - ((s * i) * i) * i;
        i += i * (e * (1 / 3.0 + e * (2 / 9.0 + e * (14 / 81.0))));
        return (s * i) * i;
    }
    /* the lanes of v >= 0 beyond FEW .. MANY, where w is not 0 */
    static inline cc_f64v cc_far(cc_f64v v, cc_f64v w) {
        return (cc_f64v)((cc_norm_bits)(v > CC_MANY)
            | ((cc_norm_bits)(v < CC_FEW) & (cc_norm_bits)(w != 0)));
    }
    static inline cc_f64v cc_either(cc_f64v a, cc_f64v b) {
        return (cc_f64v)((cc_norm_bits)a | (cc_norm_bits)b);
    }
    static inline int cc_any(cc_f64v mask) {
        unsigned long long any = 0;
        for (int j = 0; j < CC_VEC_BYTES / 8; j++) any |= ((cc_norm_bits)mask)[j];
        return any != 0;
    }
    """
    const double FEW "CC_FEW"
    const double MANY "CC_MANY"
    f64v cc_cube_root(f64v s) nogil
    f64v cc_far(f64v v, f64v w) nogil
    f64v cc_either(f64v a, f64v b) nogil
    bint cc_any(f64v mask) nogil

cdef enum:
    ANY = 0  # kinds of p: 1, 2 and 3, a whole number, any
    WHOLE = 4
    READY = 5  # powers already
    MOST_WHOLE = 8
    SAFE = 6  # 1e-45 ** 6 and 3e38 ** 6 * 10**30 are within float64, and so are shares


cdef struct Norm:
    Pool p
    double power
    int kind, whole
    bint guarded  # sums and shares may leave float64
    Exponent up, down, slope, share  # p, 1 / p, p - 1, 1 - p


cdef inline void set_power(Norm* m, double power, bint single) noexcept nogil:
    """Decide how powers are taken; exponents keep what their rounding loses."""
    cdef double less = power - 1, inverse = 1 / power
    cdef double beside = power - (less + 1) if power < 1 else (power - less) - 1
    m.power = power
    m.kind = m.whole = 0
    if power <= MOST_WHOLE and power == <int>power:
        m.whole = <int>power
        m.kind = min(m.whole, <int>WHOLE)
    m.guarded = power != 1 and not (single and power <= SAFE)
    m.up = exponent_of(power, 0, False)
    m.down = exponent_of(inverse, fma(-inverse, power, 1) / power, False)
    m.slope = exponent_of(less, beside, False)
    m.share = exponent_of(-less, -beside, False)


cdef inline f64v whole_power(f64v v, int n) noexcept nogil:
    """Give v^n for n >= 1, by squares."""
    cdef f64v r = v
    cdef bint begun = n & 1
    n >>= 1
    while n:
        v = v * v
        if n & 1:
            r = r * v if begun else v
            begun = True
        n >>= 1
    return r


cdef inline f64v raised(f64v v, int kind, const Norm* m) noexcept nogil:
    """Give |v|^p."""
    if kind == READY:
        return v
    if kind == 2:
        return v * v
    if kind == 1:
        return magnitude(v)
    if kind == 3:
        return magnitude(v) * (v * v)
    if kind == WHOLE:
        return whole_power(magnitude(v), m.whole)
    return power_of(magnitude(v), &m.up)


cdef inline f64v cube_root(f64v s) noexcept nogil:
    """Give the cube root of s >= 0, normal or 0."""
    return pick(s, every(s, INFINITY), cc_cube_root(s), s)


cdef inline void take_roots(double* s, Py_ssize_t n, const Norm* m) noexcept nogil:
    """Replace n sums, and what is behind them in a vector, by their p-th roots."""
    cdef Py_ssize_t j
    cdef int left = m.whole
    while left and left % 2 == 0:
        for j in range(n):
            s[j] = sqrt(s[j])
        left //= 2
    if left == 1:
        return
    j = 0
    while j < n:
        if left == 3:
            (<f64v*>(s + j))[0] = cube_root((<f64v*>(s + j))[0])
        else:
            (<f64v*>(s + j))[0] = power_of((<f64v*>(s + j))[0], &m.down)
        j += WIDE_LANES


cdef inline f64v shared(f64v dy, f64v y, const Norm* m) noexcept nogil:
    """Give what a window gives to each of its elements, but for their powers."""
    cdef f64v zero = every(y, 0), v = magnitude(y)
    if m.kind == 1:
        return dy
    if m.kind == 2:
        v = cc_over(dy, v)
    elif m.kind == 3:
        v = cc_over(dy, v * v)
    elif m.kind == WHOLE:
        v = cc_over(dy, whole_power(v, m.whole - 1))
    else:
        v = dy * power_of(v, &m.share)
    return until(magnitude(y), zero, zero, v)


cdef inline f64v slope(f64v v, const Norm* m) noexcept nogil:
    """Give sign(v) |v|^(p - 1)."""
    cdef f64v size = magnitude(v), zero = every(v, 0)
    if m.kind == 2:
        return v
    if m.kind == 3:
        return size * v
    if m.kind == 1:
        return pick(zero, size, signed_as(every(v, 1), v), v)
    if m.kind == WHOLE:
        size = whole_power(size, m.whole - 1)
    else:
        size = power_of(size, &m.slope)
    return signed_as(size, v)
