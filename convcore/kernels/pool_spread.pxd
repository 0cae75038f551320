# What windows give to the elements that they hold, along one axis.
#
# What      cell[c] = sum over k, j with place + k + stride * j = c of weight[k] * share[j]
# Layout    by phases: the cells c, c + stride, c + 2*stride ... of a tap are neighbours
#
#               phases    0 s 2s 3s ... | 1 s+1 2s+1 ... | ...      cells    0 1 2 3 ...
#
# Order     of each cell: the last tap first, so windows in order.
# Assumes   a stride of at most PHASES; room for `cells` and PHASES more scalars.

from libc.string cimport memset

cdef enum:
    PHASES = 8


cdef inline void add_tap(
    double* sums, const double* shares, Py_ssize_t n, double weight
) noexcept nogil:
    """Add n shares."""
    cdef Py_ssize_t j
    for j in range(n):
        sums[j] += weight * shares[j]


cdef inline void join_phases(
    const double* sums, double* cell, Py_ssize_t each, Py_ssize_t stride
) noexcept nogil:
    """Bring cells into their order."""
    cdef Py_ssize_t j, phase
    if stride == 2:
        for j in range(each):
            cell[2 * j] = sums[j]
            cell[2 * j + 1] = sums[each + j]
        return
    for phase in range(stride):
        for j in range(each):
            cell[stride * j + phase] = sums[phase * each + j]


cdef inline const double* spread_shares(
    const double* shares, Py_ssize_t n, Py_ssize_t place, Py_ssize_t stride,
    Py_ssize_t kernel, const double* weights, double* sums, double* cell,
    Py_ssize_t cells,
) noexcept nogil:
    """Give the cells; n shares, the first tap of the first at `place`; weights or NULL."""
    cdef Py_ssize_t k, at, phase, base, first, each = (cells + stride - 1) // stride
    memset(sums, 0, each * stride * sizeof(double))
    for k in range(kernel - 1, -1, -1):
        at = place + k
        phase = at % stride
        if phase < 0:
            phase += stride
        base = (at - phase) // stride
        first = max(0, -base)
        add_tap(
            sums + phase * each + base + first, shares + first, min(n, each - base) - first,
            weights[k] if weights != NULL else 1,
        )
    if stride == 1:
        return sums
    join_phases(sums, cell, each, stride)
    return cell
