# Borders: which element of the source lies at a position before or behind it.
#
# What      As problem/border.py says, in the order of its BORDERS:
#
#               mode        -4 -3 -2 -1 | 0 1 2 | 3 4 5 6
#               reflect      a  b  c  b | a b c | b a b c
#               symmetric    c  c  b  a | a b c | c b a a
#               replicate    a  a  a  a | a b c | c c c c
#               circular     c  a  b  c | a b c | a b c a
#
#           Kernels ask it where they copy a part of the source: a padded source is nowhere.

cdef enum Border:
    ZEROS, CONSTANT, REFLECT, SYMMETRIC, REPLICATE, CIRCULAR

cdef enum:
    NOTHING = -1  # no element: zero, or the constant


cdef inline Py_ssize_t source_at(
    Py_ssize_t border, Py_ssize_t i, Py_ssize_t extent
) noexcept nogil:
    """Give the element at position `i`, or NOTHING."""
    cdef Py_ssize_t period
    if 0 <= i < extent:
        return i
    if border == ZEROS or border == CONSTANT:
        return NOTHING
    if border == REPLICATE:
        return 0 if i < 0 else extent - 1
    period = extent
    if border != CIRCULAR:
        period = 2 * extent if border == SYMMETRIC else max(2 * (extent - 1), 1)
    i += period if i < 0 else 0
    i -= period if i >= period else 0
    if i < 0 or i >= period:  # further away: a division
        i = i % period  # as C has it: of the sign of i
        i += period if i < 0 else 0
    if i >= extent:
        i = period - i - (1 if border == SYMMETRIC else 0)
    return i
