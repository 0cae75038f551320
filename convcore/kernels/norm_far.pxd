# p-norms of windows whose powers leave float64, one at a time.
#
# What      y = M (sum of (|x[i]| / M)^p)^(1/p), M the largest |x[i]|
#           dx[i] = sign(x[i]) sum of dy[o] (|x[i]| / y[o])^(p-1) over windows o
# Cost      some 20 ns for an element and window. Only windows with sums below 2^-900 or
#           above 2^900 come here, and blocks of dx with such shares.

from libc.math cimport exp2, fabs, fma, frexp, isfinite, ldexp, pow, rint

from convcore.kernels.blocks cimport Block
from convcore.kernels.norm_lanes cimport Norm
from convcore.kernels.vector cimport real
from convcore.kernels.windows cimport first_of, over_first, over_stop, stop_of


cdef inline double plain_power(double v, double power) noexcept nogil:
    """Give v^p of v >= 0."""
    return v * v if power == 2 else v * v * v if power == 3 else pow(v, power)


cdef inline double far_norm(
    const Norm* m, const real* x, Py_ssize_t oz, Py_ssize_t oy, Py_ssize_t ox
) noexcept nogil:
    """Give the norm of one window of a plane; there is no NaN in it."""
    cdef Py_ssize_t iz, iy, ix
    cdef double most = 0, s = 0
    cdef const real* row
    for iz in range(first_of(&m.p.z, oz), stop_of(&m.p.z, oz)):
        for iy in range(first_of(&m.p.y, oy), stop_of(&m.p.y, oy)):
            row = x + (iz * m.p.y.extent + iy) * m.p.x.extent
            for ix in range(first_of(&m.p.x, ox), stop_of(&m.p.x, ox)):
                most = max(most, fabs(row[ix]))
    if most == 0 or not isfinite(most):
        return most
    for iz in range(first_of(&m.p.z, oz), stop_of(&m.p.z, oz)):
        for iy in range(first_of(&m.p.y, oy), stop_of(&m.p.y, oy)):
            row = x + (iz * m.p.y.extent + iy) * m.p.x.extent
            for ix in range(first_of(&m.p.x, ox), stop_of(&m.p.x, ox)):
                s += plain_power(fabs(row[ix]) / most, m.power)
    return most * pow(s, 1 / m.power)


cdef inline double far_share(double dy, double x, double y, double q) noexcept nogil:
    """Give dy (x / y)^q for x > 0, y >= 0, by way of the root of that power."""
    cdef int ex, ey
    cdef double mx = frexp(x, &ex), my = frexp(y, &ey), f, k
    if y == 0:
        return 0
    if not (isfinite(x) and isfinite(y)):
        return dy * pow(x / y, q)
    q = q / 2
    if -1000 < ex - ey < 1000:
        f = pow(x / y if 1e-300 < y < 1e300 else ldexp(mx / my, ex - ey), q)
    else:  # no number of its own
        k = rint((ex - ey) * q)
        if k < -2200:
            return 0 * dy
        f = pow(mx / my, q) * exp2(fma(ex - ey, q, -k))
        f = ldexp(f, <int>min(3000.0, k))
    return dy * f * f


cdef inline void far_slopes(
    const Norm* m, const real* dy, const real* y, const real* x, real* dx, const Block* i
) noexcept nogil:
    """Write one block of dx; dy and y are those of its plane."""
    cdef Py_ssize_t j, at, oz, oy, ox
    cdef double size, s
    for j in range(i.n):
        size, s = fabs(x[j]), 0
        if size == 0:
            dx[j] = 0
            continue
        for oz in range(over_first(&m.p.z, i.z), over_stop(&m.p.z, i.z)):
            for oy in range(over_first(&m.p.y, i.y), over_stop(&m.p.y, i.y)):
                at = (oz * m.p.y.out + oy) * m.p.x.out
                for ox in range(over_first(&m.p.x, i.x + j), over_stop(&m.p.x, i.x + j)):
                    s += far_share(dy[at + ox], size, fabs(y[at + ox]), m.power - 1)
        dx[j] = <real>(s if x[j] > 0 else -s if x[j] < 0 else s * x[j])
