# Means of whole planes, and their gradient.
#
# What      y = sum of a plane / divisor;  dx = dy / divisor in every cell of a plane
# Order     of a sum: four vectors of partial sums, then by halves; by the size of a plane.
# Assumes   a plane is one row: only p.x is more than 1.

from libc.string cimport memcpy

from convcore.kernels.blocks cimport Block, Blocks, block_at
from convcore.kernels.pool_sums cimport NEAR
from convcore.kernels.vector cimport (
    cc_fetch, cc_fetch_to_write, cc_sum_f64, f64v, real, zero_lanes,
)
from convcore.kernels.vector_wide cimport (
    WIDE_LANES, Scale, cc_keep_first, narrow, quotient, scale_by, wide, wide_part,
)
from convcore.kernels.windows cimport Pool, elements_of

cdef enum:
    FILL = 16384  # cells of a plane that get the same share in one go
    FAR = 8192  # bytes from what is summed to what is asked for


cdef inline f64v sum_of_plane(const real* x, Py_ssize_t n, Py_ssize_t left) noexcept nogil:
    """Sum n scalars into a vector; `left` may be read."""
    cdef f64v a, b, c, d
    cdef Py_ssize_t j = 0
    a = zero_lanes(&a)
    b, c, d = a, a, a
    while j + 4 * WIDE_LANES <= n:
        cc_fetch(<const char*>(x + j) + FAR)
        cc_fetch(<const char*>(x + j + 2 * WIDE_LANES) + FAR)
        a = a + wide(x + j)
        b = b + wide(x + j + WIDE_LANES)
        c = c + wide(x + j + 2 * WIDE_LANES)
        d = d + wide(x + j + 3 * WIDE_LANES)
        j += 4 * WIDE_LANES
    while j + WIDE_LANES <= n:
        cc_fetch(<const char*>(x + j) + FAR)
        a = a + wide(x + j)
        j += WIDE_LANES
    if j + WIDE_LANES <= left:
        b = b + cc_keep_first(wide(x + j), n - j)
    elif j < n:
        b = b + wide_part(x + j, n - j)
    return (a + b) + (c + d)


cdef inline void means_of_planes(
    const Pool* p, double divisor, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write the means of planes begin .. end."""
    cdef Py_ssize_t i, n = p.x.extent, total = elements_of(p)
    cdef Scale by = scale_by(divisor)
    for i in range(begin, end):
        y[i] = quotient(cc_sum_f64(sum_of_plane(x + i * n, n, total - i * n)), &by, y)


cdef inline void next_part(const Blocks* b, Block* i) noexcept nogil:
    """Go to the next block."""
    i.offset += i.n
    i.x += i.n
    if i.x == b.width:
        i.x = 0
        i.plane += 1
    i.n = min(b.block, b.width - i.x)


cdef inline void shares_of_planes(
    const Blocks* b, double divisor, const real* dy, real* dx, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Fill blocks begin .. end of planes with the share of each cell."""
    cdef Block i = block_at(b, begin), last = block_at(b, end - 1)
    cdef Py_ssize_t stop = last.offset + last.n, k
    cdef Scale by = scale_by(divisor)
    cdef f64v v
    cdef real share
    for _ in range(begin, end):
        share = quotient(0.0 + dy[i.plane], &by, dx)  # no -0: lanes begin with 0
        v = zero_lanes(&v) + <double>share
        k = i.offset
        while k < i.offset + i.n and k + WIDE_LANES <= stop:
            cc_fetch_to_write(<const char*>(dx + k) + NEAR)
            narrow(dx + k, v)
            k += WIDE_LANES
        while k < i.offset + i.n:
            dx[k] = share
            k += 1
        next_part(b, &i)


cdef inline void divide_each(
    double divisor, const real* x, real* y, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Divide elements begin .. end: what is left where a window is one of them."""
    cdef Scale by = scale_by(divisor)
    cdef Py_ssize_t i
    if divisor == 1:
        memcpy(y + begin, x + begin, (end - begin) * sizeof(real))
        return
    for i in range(begin, end):
        y[i] = quotient(x[i], &by, y)
