# exp, log, tanh and the normal distribution, in the lanes of vectors.
#
# What      Functions of one element for vectors of float32 and float64. Every lane is
#           computed alike, without branches: an element has the same bits wherever it
#           stands, and its tail of an array as well.
# How       exp     x = n ln 2 + r, |r| <= ln(2) / 2; e^x = 2^n (1 + r + r^2 P(r))
#           expm1   2^n (r + r^2 P(r)) + (2^n - 1)
#           tanh    E / (E + 2), E = expm1(2 |x|)
#           log1p   2 atanh(s), s = e / (2 + e), atanh(s) = s + s^3 P(s^2)
#           log     m 2^n, sqrt(1/2) <= m < sqrt(2): the same with m - 1, and n ln 2
#           tail    Phi(-t) = e^(-t^2/2) P(t) / Q(t), with t^2 exact
# Bounds    in units in the last place, for float32 and float64 alike, held over all
#           exponents by tests/test_vector_math.py:
#               exp 1.0   expm1 1.3   tanh 2.5   log1p(exp) 3.0   log 1.5   x Phi(x) 4.5
#           Results below the smallest normal number are rounded once, and NaN stays NaN.
# Assumes   rounding to nearest; arguments in the range that a function names.
# Why not   Tables: gathers are slow. Sums 1 - erf: no digits are left of small results.
# Source    Polynomials: `python -m benchmarks.fit_polynomials`. Cody and Waite, Software
#           Manual for the Elementary Functions, 1980, chapters 5, 6 and 13 (reductions);
#           Muller, Elementary Functions, 3rd edition, section 11.2.

from convcore.kernels.vector cimport (
    cc_all_f32, cc_all_f64, f32v, f64v, larger, pick, scaled, smaller, vec,
)

cdef extern from *:
    """
    typedef unsigned cc_bits32 __attribute__((vector_size(CC_VEC_BYTES)));
    typedef unsigned long long cc_bits64 __attribute__((vector_size(CC_VEC_BYTES)));
    #define cc_and_f32(v, bits) ((cc_f32v)((cc_bits32)(v) & (unsigned)(bits)))
    #define cc_and_f64(v, bits) ((cc_f64v)((cc_bits64)(v) & (unsigned long long)(bits)))
    #define cc_or_f32(v, w) ((cc_f32v)((cc_bits32)(v) | (cc_bits32)(w)))
    #define cc_or_f64(v, w) ((cc_f64v)((cc_bits64)(v) | (cc_bits64)(w)))
    /* With k = n + 1.5 * 2^23 + 127 for a whole n: the bits of 2^n. */
    #define cc_power_f32(k) ((cc_f32v)((cc_bits32)(k) << 23))
    #define cc_power_f64(k) ((cc_f64v)((cc_bits64)(k) << 52))
    /* exponent: n of v = m 2^n, plus a bias, behind the point of 2^23 (2^52).
       Differences of bits count exponents from sqrt(1/2) on. */
    #define CC_ROOT_32 0x3f3504f3u
    #define CC_ROOT_64 0x3fe6a09e667f3bcdull
    #define cc_exponent_f32(v) ((cc_f32v)((((cc_bits32)(v) - CC_ROOT_32 \\
        + (256u << 23)) >> 23) | 0x4b000000u))
    #define cc_exponent_f64(v) ((cc_f64v)((((cc_bits64)(v) - CC_ROOT_64 \\
        + (2048ull << 52)) >> 52) | 0x4330000000000000ull))
    #define cc_fraction_f32(v) \\
        ((cc_f32v)((((cc_bits32)(v) - CC_ROOT_32) & 0x7fffffu) + CC_ROOT_32))
    #define cc_fraction_f64(v) \\
        ((cc_f64v)((((cc_bits64)(v) - CC_ROOT_64) & 0xfffffffffffffull) + CC_ROOT_64))
    """
    f32v cc_and_f32(f32v v, unsigned bits) nogil
    f64v cc_and_f64(f64v v, unsigned long long bits) nogil
    f32v cc_or_f32(f32v v, f32v w) nogil
    f64v cc_or_f64(f64v v, f64v w) nogil
    f32v cc_power_f32(f32v k) nogil
    f64v cc_power_f64(f64v k) nogil
    f32v cc_exponent_f32(f32v v) nogil
    f64v cc_exponent_f64(f64v v) nogil
    f32v cc_fraction_f32(f32v v) nogil
    f64v cc_fraction_f64(f64v v) nogil


cdef inline vec every(vec like, double s) noexcept nogil:
    """Every lane s; `like` only tells the type."""
    if vec is f32v:
        return cc_all_f32(<float>s)
    else:
        return cc_all_f64(s)


cdef inline vec by_type(vec like, double single, double double_) noexcept nogil:
    """Every lane the constant of that type."""
    if vec is f32v:
        return cc_all_f32(<float>single)
    else:
        return cc_all_f64(double_)


cdef inline vec at_least(vec v, vec least) noexcept nogil:
    """Give the larger one; NaN stays NaN."""
    return larger(least, v)


cdef inline vec at_most(vec v, vec most) noexcept nogil:
    """Give the smaller one; NaN stays NaN."""
    return smaller(most, v)


cdef inline vec magnitude(vec v) noexcept nogil:
    """Give |v|."""
    if vec is f32v:
        return cc_and_f32(v, 0x7fffffffU)
    else:
        return cc_and_f64(v, 0x7fffffffffffffffULL)


cdef inline vec signed_as(vec v, vec sign) noexcept nogil:
    """Give v, which is not negative, the sign of another."""
    if vec is f32v:
        return cc_or_f32(v, cc_and_f32(sign, 0x80000000U))
    else:
        return cc_or_f64(v, cc_and_f64(sign, 0x8000000000000000ULL))


cdef inline vec leading(vec v) noexcept nogil:
    """Give the first half of the digits: its square is exact."""
    if vec is f32v:
        return cc_and_f32(v, 0xfffff000U)
    else:
        return cc_and_f64(v, 0xfffffffff8000000ULL)


cdef inline vec power_of_two(vec n) noexcept nogil:
    """Give 2^n for whole n from -126 to 127 (-1022 to 1023)."""
    if vec is f32v:
        return cc_power_f32(n + every(n, 12583039.0))
    else:
        return cc_power_f64(n + every(n, 6755399441056767.0))


cdef inline vec exp_rest(vec r) noexcept nogil:
    """Give (e^r - 1 - r) / r^2."""
    cdef vec p, x2 = r * r, x4
    if vec is f32v:
        p = (every(r, 0.00833331093) + every(r, 0.001393365) * r) + every(r, 0.000198909908) * x2
        p = (every(r, 0.166666667) + every(r, 0.0416664649) * r) + p * x2
        p = every(r, 0.500000001) + r * p
    else:
        x4 = x2 * x2
        p = every(r, 2.5105217004720745e-08) + every(r, 2.0914686968086876e-09) * r
        p = (
            (every(r, 0.00019841269874820627) + every(r, 2.4801587325547743e-05) * r)
            + (every(r, 2.7557255400206422e-06) + every(r, 2.75572736431103e-07) * r) * x2
        ) + p * x4
        p = (
            (every(r, 0.1666666666666667) + every(r, 0.04166666666666667) * r)
            + (every(r, 0.008333333333326136) + every(r, 0.0013888888888883748) * r) * x2
        ) + p * x4
        p = every(r, 0.5) + r * p
    return p


cdef inline vec atanh_rest(vec q) noexcept nogil:
    """Give (atanh(s) - s) / s^3 for q = s^2."""
    cdef vec p, x2 = q * q, x4
    if vec is f32v:
        p = (every(q, 0.333332106) + every(q, 0.200106309) * q) + (
            every(q, 0.140029698) + every(q, 0.139962868) * q
        ) * x2
    else:
        x4 = x2 * x2
        p = every(q, 0.08082022805971766)
        p = (
            (every(q, 0.07692785032479312) + every(q, 0.06657072104827468) * q)
            + (every(q, 0.06000536404795356) + every(q, 0.04400369243072337) * q) * x2
        ) + p * x4
        p = (
            (every(q, 0.20000000000007292) + every(q, 0.1428571428355438) * q)
            + (every(q, 0.11111111358713932) + every(q, 0.09090894718066429) * q) * x2
        ) + p * x4
        p = every(q, 0.3333333333333333) + q * p
    return p


cdef inline vec tail_ratio(vec t) noexcept nogil:
    """Give e^(t^2/2) Phi(-t) for 0 <= t <= 15 (40): a quotient of two polynomials."""
    cdef vec p, q, t2, even, odd
    if vec is f32v:
        p = every(t, 3.81828544) + every(t, 0.398944946) * t
        p = every(t, 16.8582917) + p * t
        p = every(t, 39.6294756) + p * t
        p = every(t, 44.259009) + p * t
        q = every(t, 9.57141195) + t
        q = every(t, 43.2476851) + q * t
        q = every(t, 109.048544) + q * t
        q = every(t, 149.886201) + q * t
        q = every(t, 88.5180166) + q * t
    else:  # two chains of half the length for each
        t2 = t * t
        even = every(t, 190.783948709867) + every(t, 0.3989422804015158) * t2
        even = every(t, 12798.155696289725) + even * t2
        even = every(t, 237874.47813408074) + even * t2
        even = every(t, 1226753.402323317) + even * t2
        even = every(t, 904162.9032482101) + even * t2
        odd = every(t, 1865.0332702304893) + every(t, 12.45647957057926) * t2
        odd = every(t, 64176.39865437565) + odd * t2
        odd = every(t, 644421.5066769192) + odd * t2
        odd = every(t, 1495815.6470928595) + odd * t2
        p = even + odd * t
        even = every(t, 4706.168892532388) + every(t, 31.223763894026863) * t2
        even = every(t, 165478.87354780769) + even * t2
        even = every(t, 1767154.1450816393) + even * t2
        even = every(t, 5087536.285942072) + even * t2
        even = every(t, 1808325.8064964202) + even * t2
        odd = every(t, 479.2244401765545) + t2
        odd = every(t, 32556.443355875024) + odd * t2
        odd = every(t, 627396.6498636378) + odd * t2
        odd = every(t, 3611821.4810211346) + odd * t2
        odd = every(t, 4434466.536090603) + odd * t2
        q = even + odd * t
    return p / q


cdef inline vec remainder(vec x, vec* n) noexcept nogil:
    """Give x - n ln 2 for the whole number n that is nearest to x / ln 2.

    ln 2 has two parts; the first times n is exact.
    """
    cdef vec far = by_type(x, 12582912.0, 6755399441055744.0), r
    n[0] = (x * every(x, 1.4426950408889634) + far) - far
    r = x - n[0] * by_type(x, 0.693145751953125, 0.6931471806019545)
    return r - n[0] * by_type(x, 1.42860682e-06, -4.2009150726810846e-11)


cdef inline vec far_below(vec x) noexcept nogil:
    """Cut off where e^x is 0, even times 1000, but 2^n still has a normal root."""
    return at_least(x, by_type(x, -170.0, -1400.0))


cdef inline vec exp_parts(vec x, vec* n) noexcept nogil:
    """Give e^x / 2^n, about 1, for |x| <= 170 (1400)."""
    cdef vec r = remainder(x, n)
    return every(x, 1) + (r + r * r * exp_rest(r))


cdef inline vec exp_of(vec x) noexcept nogil:
    """Give e^x for x <= 0."""
    cdef vec n, p = exp_parts(far_below(x), &n)
    return scaled(p, n)


cdef inline vec expm1_of(vec x) noexcept nogil:
    """Give e^x - 1 for x <= 40."""
    cdef vec n, r = remainder(at_least(x, every(x, -80)), &n)
    cdef vec power = power_of_two(n)
    return power * (r + r * r * exp_rest(r)) + (power - every(x, 1))


cdef inline vec tanh_of(vec x) noexcept nogil:
    """Give tanh(x); it is 1 from 9.02 (19.1) on."""
    cdef vec t = at_most(magnitude(x), by_type(x, 10, 20))
    cdef vec e = expm1_of(t + t)
    return signed_as(e / (e + every(x, 2)), x)


cdef inline vec log1p_of(vec e) noexcept nogil:
    """Give log(1 + e) for 0 <= e <= 1."""
    cdef vec s = e / (e + every(e, 2))
    cdef vec q = s * s
    s = s + s
    return s + s * q * atanh_rest(q)


cdef inline vec log_of(vec v) noexcept nogil:
    """Give log(v) for a normal v, +Inf or NaN."""
    cdef vec n, m, s, q, top
    if vec is f32v:
        n = cc_exponent_f32(v) - every(v, 8388864.0)
        m = cc_fraction_f32(v) - every(v, 1)
        top = every(v, 3.4028234663852886e38)
    else:
        n = cc_exponent_f64(v) - every(v, 4503599627372544.0)
        m = cc_fraction_f64(v) - every(v, 1)
        top = every(v, 1.7976931348623157e308)
    s = m / (m + every(v, 2))
    q = s * s
    s = s + s
    s = n * by_type(v, 0.693145751953125, 0.6931471806019545) + (
        s + (s * q * atanh_rest(q) + n * by_type(v, 1.42860682e-06, -4.2009150726810846e-11))
    )
    return pick(top, v, v, s + (v - v))  # Inf as it is; NaN - NaN


cdef inline vec density_parts(vec t, vec* n) noexcept nogil:
    """Give e^(-t^2/2) / 2^n, for 0 <= t <= 15 (40).

    t^2 is h^2 + (t - h)(t + h), where h has half of the digits of t.
    """
    cdef vec h = leading(t), minus_half = every(t, -0.5), r
    r = remainder(h * h * minus_half, n)
    r = r + (t - h) * (t + h) * minus_half
    return every(t, 1) + (r + r * r * exp_rest(r))
