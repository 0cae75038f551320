# Lanes of float64 from scalars of either type: what sums have to be taken in.
#
# What      wide: as many scalars as a vector has doubles, as doubles.  wide_rest: the last
#           ones, and a value of no weight beside them.  narrow: back, each rounded once.
#           keep_first: the first n lanes, and zero in the others, whatever was there.
#           more: a mask of the lanes above k.  within: a mask of the lanes whose number,
#           from `first` on, is one of 0 .. extent - 1; masked: zero in the others.
# How       GNU vectors: masks need no instruction set by name. GCC 12 converts half a
#           vector at a time, so conversions stand in vector.pxd.
# Why       A float32 sum of 10**5 squares loses 3 of its 7 digits, and those of data with
#           a mean of 10**4 and a deviation of 1 have 8 digits in front of the variance.
#           In float64 nothing is lost, for one conversion a vector: memory is slower.
# Cost      Half as many lanes; 3 to 4 cycles for the 64 bytes that memory brings in 8.

from libc.math cimport frexp

from convcore.kernels.checked cimport check_lanes, check_range
from convcore.kernels.vector cimport (
    cc_all_f32, cc_all_f64, cc_merge_f32, cc_merge_f64, cc_narrow_f32, cc_narrow_part_f32,
    cc_put_f64, cc_sum_f64, cc_wide_f32, cc_wide_low, f32v, f64v, real, vec,
)

cdef extern from *:
    """
    typedef long long cc_wide_bits
        __attribute__((vector_size(CC_VEC_BYTES), aligned(8), may_alias));
    #define CC_WIDE_LANES (CC_VEC_BYTES / 8)
    static const long long cc_ones_then_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    static inline cc_f64v cc_keep_first(cc_f64v v, Py_ssize_t n) {
        return (cc_f64v)((cc_wide_bits)v & *(const cc_wide_bits *)(cc_ones_then_zeros + 8 - n));
    }
    static const double cc_counting[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    static inline cc_f64v cc_within(double first, double extent) {
        cc_f64v at = first + *(const cc_f64v *)cc_counting;
        return (cc_f64v)((cc_wide_bits)(at >= 0) & (cc_wide_bits)(at < extent));
    }
    static inline cc_f64v cc_masked(cc_f64v v, cc_f64v mask) {
        return (cc_f64v)((cc_wide_bits)v & (cc_wide_bits)mask);
    }
    static inline cc_f64v cc_more(const double *counts, double k) {
        return (cc_f64v)(*(const cc_f64v *)counts > k);
    }
    static inline cc_f64v cc_quotient(cc_f64v a, double b) { return a / b; }
    static inline cc_f64v cc_over(cc_f64v a, cc_f64v b) { return a / b; }
    """
    enum:
        WIDE_LANES "CC_WIDE_LANES"  # doubles of a vector
    f64v cc_keep_first(f64v v, Py_ssize_t n) nogil
    f64v cc_within(double first, double extent) nogil
    f64v cc_masked(f64v v, f64v mask) nogil
    f64v cc_more(const double* counts, double k) nogil
    f64v cc_quotient(f64v a, double b) nogil
    f64v cc_over(f64v a, f64v b) nogil

cdef struct Scale:  # division of sums
    double divisor, factor
    bint exact  # the factor is the inverse of the divisor


cdef inline Scale scale_by(double divisor) noexcept nogil:
    """Prepare to divide; powers of two have an exact inverse."""
    cdef Scale s
    cdef int exponent
    s.divisor, s.factor = divisor, 1 / divisor
    s.exact = frexp(divisor, &exponent) == 0.5
    return s


cdef inline f64v wide(const real* source) noexcept nogil:
    """Load a vector of doubles."""
    check_range(source, WIDE_LANES * sizeof(real))
    if real is float:
        return cc_wide_f32(source)
    else:
        return (<const f64v*>source)[0]


cdef inline f64v wide_rest(const real* source, Py_ssize_t n, double fill) noexcept nogil:
    """Load n scalars, at most a vector, and `fill` beside them; read nothing else.

    In float32, `fill` must be one.
    """
    cdef unsigned long long lanes = (1ULL << n) - 1
    check_lanes(source, sizeof(real), lanes, 64)
    if real is float:
        return cc_wide_low(cc_merge_f32(cc_all_f32(<float>fill), source, lanes))
    else:
        return cc_merge_f64(cc_all_f64(fill), source, lanes)


cdef inline f64v wide_part(const real* source, Py_ssize_t n) noexcept nogil:
    """Load n scalars, at most a vector, and zeros beside them; read nothing else."""
    return wide_rest(source, n, 0)


cdef inline f64v wide_of(const vec* p) noexcept nogil:
    """Do `wide` from where a vector lies."""
    if vec is f32v:
        return wide(<const float*>p)
    else:
        return wide(<const double*>p)


cdef inline f64v rest_of(const vec* p, Py_ssize_t n, double fill) noexcept nogil:
    """Do `wide_rest` from where a vector lies."""
    if vec is f32v:
        return wide_rest(<const float*>p, n, fill)
    else:
        return wide_rest(<const double*>p, n, fill)


cdef inline f64v wide_or_rest(const vec* p, Py_ssize_t n) noexcept nogil:
    """Load n scalars, or as many as fit, and zeros beside them."""
    return wide_of(p) if n >= WIDE_LANES else rest_of(p, n, 0)


cdef inline double wide_sum(const f64v* s) noexcept nogil:
    """Add up four vectors: lane by lane, then by halves."""
    return cc_sum_f64((s[0] + s[1]) + (s[2] + s[3]))


cdef inline void narrow(real* to, f64v v) noexcept nogil:
    """Store a vector of doubles, each rounded once."""
    check_range(to, WIDE_LANES * sizeof(real))
    if real is float:
        cc_narrow_f32(to, v)
    else:
        (<f64v*>to)[0] = v


cdef inline void narrow_part(real* to, f64v v, Py_ssize_t n) noexcept nogil:
    """Store the first n lanes, or all; touch nothing else."""
    check_range(to, min(max(n, 0), WIDE_LANES) * sizeof(real))
    if real is float:
        cc_narrow_part_f32(to, v, n)
    else:
        cc_put_f64(to, v, max(n, 0))


cdef inline f64v divided(f64v v, const Scale* s, const real* like) noexcept nogil:
    """Divide; what is rounded to float32 afterwards may be multiplied by the inverse."""
    if real is float:
        return v * s.factor
    else:
        return v * s.factor if s.exact else cc_quotient(v, s.divisor)


cdef inline real quotient(double v, const Scale* s, const real* like) noexcept nogil:
    """Do `divided` with one scalar, to the same bits."""
    if real is float:
        return <float>(v * s.factor)
    else:
        return v * s.factor if s.exact else v / s.divisor
