# Lanes of float64 from either type: what sums have to be taken in.
#
# What      wide: as many scalars as fit, as float64.  wide_rest: the last ones, and a
#           value of no weight in the other lanes.  wide_sum: of four vectors, lane by lane,
#           then by halves.
# Why       A float32 sum of 10**5 squares loses 3 of its 7 digits, and those of data with
#           a mean of 10**4 and a deviation of 1 have 8 digits in front of the variance.
#           In float64 nothing is lost, for one conversion a vector: memory is slower.
# Cost      Half as many lanes; 3 to 4 cycles for the 64 bytes that memory brings in 8.

from convcore.kernels.vector cimport (
    VEC_BYTES, cc_all_f32, cc_all_f64, cc_sum_f64, cc_wide_f32, cc_wide_low, f32v, f64v, merge,
    vec,
)


cdef inline Py_ssize_t wide_lanes() noexcept nogil:
    """Count the lanes of float64."""
    return VEC_BYTES // 8


cdef inline f64v wide(const vec* p) noexcept nogil:
    """Load so many scalars."""
    if vec is f32v:
        return cc_wide_f32(<const float*>p)
    else:
        return p[0]


cdef inline f64v wide_rest(const vec* p, Py_ssize_t n, double fill) noexcept nogil:
    """Load n scalars, fewer than there are lanes, and `fill` beside them.

    In float32, `fill` must be one.
    """
    cdef unsigned long long lanes = (1ULL << n) - 1
    if vec is f32v:
        return cc_wide_low(merge(cc_all_f32(<float>fill), p, lanes))
    else:
        return merge(cc_all_f64(fill), p, lanes)


cdef inline f64v wide_or_rest(const vec* p, Py_ssize_t n) noexcept nogil:
    """Load n scalars, or as many as fit, and zeros beside them."""
    if n >= wide_lanes():
        return wide(p)
    return wide_rest(p, n, 0)


cdef inline double wide_sum(const f64v* s) noexcept nogil:
    """Add up four vectors."""
    return cc_sum_f64((s[0] + s[1]) + (s[2] + s[3]))
