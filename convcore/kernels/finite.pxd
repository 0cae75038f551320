# Whether results are finite, without a branch for each.
#
# What      0 * v is 0, and NaN for what is not finite; a sum of such is 0 only if all are.
# Cost      A multiply-add a vector, hidden behind the stores.

from convcore.kernels.vector cimport (
    NV, cc_sum_f32, cc_sum_f64, f32v, vec, zero_lanes,
)


cdef inline bint is_zero(vec v) noexcept nogil:
    """Tell whether the lanes add up to zero: they do not if one is NaN."""
    if vec is f32v:
        return cc_sum_f32(v) == 0
    else:
        return cc_sum_f64(v) == 0


cdef inline bint are_finite(const vec* v, Py_ssize_t rows, int vectors) noexcept nogil:
    """Tell whether the first vectors of some rows of NR scalars are finite."""
    cdef vec check = zero_lanes(v)
    cdef Py_ssize_t i, j
    for i in range(rows):
        for j in range(vectors):
            check = check + zero_lanes(v) * v[NV * i + j]
    return is_zero(check)
