# t**-0.75 without roots or divisions.
#
# What      power_34: t**-0.75 for normal numbers t > 0, to 2 units of rounding; other lanes
#           hold anything.
# How       The bits of a float are about its logarithm: -0.75 times them, by two shifts,
#           are those of the result, to 5 %. Each step then takes e = 1 - t**3 * y**4 and
#           multiplies y by the first terms of (1 - e)**-0.25, which is exact. In the steps
#           a = t * y, so that nothing overflows.
# Cost      19 instructions for a vector of float32. Two square roots and a division took
#           four times as long as memory.
# Source    Moroz et al., Fast calculation of inverse square root with the use of magic
#           constant, 2018, section 2, there for -0.5. The constants minimise the first e.

from convcore.kernels.vector cimport f32v, f64v, vec

cdef extern from *:
    """
    typedef int cc_power_bits32 __attribute__((vector_size(CC_VEC_BYTES), may_alias));
    typedef long long cc_power_bits64 __attribute__((vector_size(CC_VEC_BYTES), may_alias));

    #define CC_ERROR_34(t, y) (a = (t) * (y), 1 - (a * a) * (a * (y)))
    static inline cc_f32v cc_power34_f32(cc_f32v t) {
        cc_power_bits32 i = (cc_power_bits32)t;
        cc_f32v a, e, y = (cc_f32v)(0x6f146740 - (i >> 1) - (i >> 2));
        e = CC_ERROR_34(t, y);
        y += y * (e * (0.25f + e * 0.15625f));
        e = CC_ERROR_34(t, y);
        return y + y * (e * (0.25f + e * 0.15625f));
    }
    static inline cc_f64v cc_power34_f64(cc_f64v t) {
        cc_power_bits64 i = (cc_power_bits64)t;
        cc_f64v a, e, y = (cc_f64v)(0x6fe28ce800000000LL - (i >> 1) - (i >> 2));
        for (int step = 0; step < 2; step++) {
            e = CC_ERROR_34(t, y);
            y += y * (e * (0.25 + e * (0.15625 + e * (0.1171875 + e * 0.09521484375))));
        }
        e = CC_ERROR_34(t, y);
        return y + y * (e * 0.25);
    }
    """
    f32v cc_power34_f32(f32v t) nogil
    f64v cc_power34_f64(f64v t) nogil


cdef inline vec power_34(vec t) noexcept nogil:
    """Give t**-0.75."""
    if vec is f32v:
        return cc_power34_f32(t)
    else:
        return cc_power34_f64(t)
