# Any power, in the lanes of vectors.
#
# What      power_of: v^q for v >= 0; lanes that are not above 0 stay as they are.
# How       v = f 2^n, sqrt(1/2) <= f < sqrt(2); log2(f) = l = 2 atanh(s) / ln 2, and
#
#               q log2(v) = first n + (rest n + q l)      first + rest = q
#
#           `first` has so few digits that its product is exact. What is whole of the sum
#           becomes the exponent, and the rest r of at most 1/2 goes through e^(r ln 2).
#           So nothing is lost where q log2(v) is large.
# Bounds    l errs by 2 u, as it is below 1/2; q l and its sum are rounded at 2 (|q| + 2) u
#           at most; e^r is right to 2 u: together (4 |q| + 6) u of the result, u half
#           of a unit in the last place of 1. tests/test_pool_power.py and test_norms.py hold
#           it.
# Assumes   rounding to nearest.
# Cost      45 instructions for a vector of float64, 35 of float32: no tables, no branches.

from libc.math cimport INFINITY, fabs, pow
from libc.string cimport memcpy

from convcore.kernels.elements cimport lanes_of
from convcore.kernels.vector cimport cc_seldom, f32v, pick, scaled, vec
from convcore.kernels.vector_math cimport (
    at_least, at_most, atanh_rest, by_type, cc_exponent_f32, cc_exponent_f64,
    cc_fraction_f32, cc_fraction_f64, every, exp_rest,
)

cdef struct Exponent:
    double q, first, rest, of_infinity
    bint far  # too large for lanes


cdef inline Exponent exponent_of(double q, double more, bint single) noexcept nogil:
    """Take q + more apart: 12 digits first for float32, 26 for float64."""
    cdef Exponent e
    cdef unsigned long long bits
    memcpy(&bits, &q, sizeof(q))
    bits &= 0xfffffe0000000000ULL if single else 0xfffffffff8000000ULL
    memcpy(&e.first, &bits, sizeof(q))
    e.q = q
    e.rest = (q - e.first) + more
    e.of_infinity = INFINITY if q > 0 else q == 0
    e.far = not fabs(q) <= (1024.0 if single else 1048576.0)
    return e


cdef inline vec far_power(vec v, double q) noexcept nogil:
    """Do `power_of` lane by lane."""
    cdef Py_ssize_t k
    cdef float* single
    cdef double* wide
    if vec is f32v:
        single = <float*>&v
        for k in range(lanes_of(&v)):
            if single[k] > 0:
                single[k] = <float>pow(single[k], q)
    else:
        wide = <double*>&v
        for k in range(lanes_of(&v)):
            if wide[k] > 0:
                wide[k] = pow(wide[k], q)
    return v


cdef inline vec whole_part(vec v) noexcept nogil:
    """Round to a whole number."""
    cdef vec far = by_type(v, 12582912.0, 6755399441055744.0)
    return (v + far) - far


cdef inline vec power_of(vec v, const Exponent* e) noexcept nogil:
    """Give v^q."""
    cdef vec least = by_type(v, 1.1754943508222875e-38, 2.2250738585072014e-308)
    cdef vec most = by_type(v, 3.4028234663852886e38, 1.7976931348623157e308)
    cdef vec n, m, s, w, r, k, zero = every(v, 0)
    if cc_seldom(e.far):
        return far_power(v, e.q)
    m = pick(v, least, v * by_type(v, 16777216.0, 18014398509481984.0), v)
    if vec is f32v:
        n = cc_exponent_f32(m) - every(v, 8388864.0)
        m = cc_fraction_f32(m) - every(v, 1)
    else:
        n = cc_exponent_f64(m) - every(v, 4503599627372544.0)
        m = cc_fraction_f64(m) - every(v, 1)
    n = n - pick(v, least, by_type(v, 24, 54), zero)
    s = m / (m + every(v, 2))
    w = s * s
    s = s * every(v, 2.8853900817779268)  # 2 / ln 2
    s = s + s * (w * atanh_rest(w))
    r = every(v, e.first) * n
    k = whole_part(r)
    r = (r - k) + (every(v, e.rest) * n + every(v, e.q) * s)
    n = whole_part(r)
    r = (r - n) * every(v, 0.6931471805599453)
    r = every(v, 1) + (r + r * r * exp_rest(r))
    k = at_most(at_least(k + n, by_type(v, -250, -2000)), by_type(v, 250, 2000))
    r = pick(most, v, every(v, e.of_infinity), scaled(r, k))
    return pick(zero, v, r, v)
