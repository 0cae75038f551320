# Activations of results that are still in the cache, or in registers.
#
# What      rectify: 0 for whatever is not above it; NaN stays.
# Cost      One read and one write of L1 or L2. As a pass over the finished output it
#           would be one of memory: as long as the convolution before it, for few channels.

from convcore.kernels.vector cimport cc_rectify_f32, cc_rectify_f64, f32v, real, vec


cdef inline void rectify(real* y, Py_ssize_t count) noexcept nogil:
    """Replace what is negative by 0, and -0 by 0, as the maximum of NumPy does."""
    cdef Py_ssize_t i
    for i in range(count):
        y[i] = 0 if y[i] <= 0 else y[i]


cdef inline void rectify_vectors(vec* y, int count) noexcept nogil:
    """Do the same to vectors in registers."""
    cdef int i
    for i in range(count):
        if vec is f32v:
            y[i] = cc_rectify_f32(y[i])
        else:
            y[i] = cc_rectify_f64(y[i])
