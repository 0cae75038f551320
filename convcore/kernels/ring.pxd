# What the border of x adds to a gradient of x: for planes of one channel a group.
#
# What      Where windows see elements of x beyond its border, these get the gradient of
#           that place, too. Each (tap, row of dy) that falls beside x is listed with the
#           row of x that lies there, and columns likewise; of a 3x3 kernel with `reflect`:
#
#               dy row 0, tap 0     at row -1 of x, that is, row 1
#               dy row last, tap 2  at row `height`, that is, row `height` - 2
#
#           The kernel adds rows of the list by all columns, columns by all rows that are in
#           x, and both lists by each other: as many products as the padding takes.
# Order     As listed, after all that comes from x itself: by the shape of a plane alone.
# Why not   The gradient of a padded x, folded onto x: all taps for all of its places, and
#           a pass over memory. Or one gradient for each side: four calls, and their folds.

from convcore.kernels.border cimport CONSTANT, ZEROS, source_at
from convcore.kernels.geometry cimport Conv

cdef struct Extra:
    Py_ssize_t target, tap, source  # of x; of the kernel; of dy

cdef struct Ring:
    Py_ssize_t rows, columns        # of the lists, which lie together
    const Extra* extras


cdef inline Py_ssize_t list_extras(const Conv* p, int axis, Extra* to) noexcept nogil:
    """List what falls beside x along an axis, if there is a list, and count it."""
    cdef Py_ssize_t at, i, k, place, target, count = 0
    cdef Py_ssize_t extent = p.in_extent[axis], reach = p.dilation[axis] * (p.kernel[axis] - 1)
    for i in range(p.out_extent[axis]):
        at = p.stride[axis] * i - p.pad[axis]
        if at >= 0 and at + reach < extent:
            continue
        for k in range(p.kernel[axis]):
            place = at + p.dilation[axis] * k
            if 0 <= place < extent:
                continue
            target = source_at(p.border, place, extent)
            if to:
                to[count].target, to[count].tap, to[count].source = target, k, i
            count += 1
    return count


cdef inline Ring ring_of(const Conv* p, bint gradient) noexcept nogil:
    """Describe the ring of a gradient; it is empty where zeros or a constant lie around x."""
    cdef Ring r
    cdef int axis
    r.rows = r.columns = 0
    r.extras = NULL
    if gradient and p.border != ZEROS and p.border != CONSTANT:
        for axis in range(1, 3):
            r.columns = list_extras(p, axis, NULL)
            if axis == 1:
                r.rows = r.columns
    return r


cdef inline void list_ring(Ring* r, const Conv* p, Extra* to) noexcept nogil:
    """Write the lists."""
    cdef int axis
    r.extras = to
    for axis in range(1, 3):
        to += list_extras(p, axis, to)


cdef inline Py_ssize_t window_from(
    const Conv* p, int axis, Py_ssize_t tap, Py_ssize_t first
) noexcept nogil:
    """Give the first window of an axis whose tap falls on element `first` or behind it."""
    cdef Py_ssize_t s = p.stride[axis], at = first + p.pad[axis] - p.dilation[axis] * tap
    return min((at + s - 1) // s if at > 0 else 0, p.out_extent[axis])
