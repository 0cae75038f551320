# Where the windows of a pooling lie, and which windows lie over an element.
#
# What      Along one axis, window o holds the elements that exist among
#
#               strided    o*stride - lo + k*dilation      0 <= k < kernel
#               adaptive   floor(o*extent/out) ... ceil((o+1)*extent/out) - 1
#
#           Both ends move forward with o, so the windows over an element are a run
#           of neighbours, too: `over_first` up to `over_stop`. With a dilation that run
#           may hold windows that step over the element.
#
#           elements    |<- lo ->| 0  1  2  3  4  5 |<- hi ->|
#           window 0    [ o  o  o ]                              first_of .. stop_of:
#           window 1             [ o  o  o ]                     the part on elements
# Assumes   the clipped integers of `PoolProblem.geometry`: every window starts before the
#           end of the axis, and no product of two of them leaves a long long.

from libc.string cimport memcpy

from convcore.kernels.buffers cimport (
    Buffers, flags_of, geometry_of, has_integers, integers, is_nothing,
)

cdef struct Axis:
    long long extent, out, kernel, stride, lo, hi, dilation  # kernel 0: adaptive

cdef struct Pool:  # as far as the axes: the order of `PoolProblem.geometry`
    long long planes  # samples * channels
    Axis z, y, x
    long long divisor  # of every mean; 0: the elements of its window
    bint count_pad  # whether padding counts as elements

cdef struct Labels:  # of maxima: where they are written, or NULL
    unsigned char* tap
    long long* index

cdef enum:
    POOL_FIELDS = 22


cdef inline Py_ssize_t start_of(const Axis* a, Py_ssize_t o) noexcept nogil:
    """Give the place of the first tap of a strided window; it may be in the padding."""
    return o * a.stride - a.lo


cdef inline Py_ssize_t first_of(const Axis* a, Py_ssize_t o) noexcept nogil:
    """Give the first element of window o."""
    cdef Py_ssize_t start
    if a.kernel == 0:
        return o * a.extent // a.out
    start = start_of(a, o)
    if start >= 0:
        return start
    return start + ((-start - 1) // a.dilation + 1) * a.dilation


cdef inline Py_ssize_t stop_of(const Axis* a, Py_ssize_t o) noexcept nogil:
    """Give what is one behind the last element of window o (or behind its reach)."""
    if a.kernel == 0:
        return ((o + 1) * a.extent - 1) // a.out + 1
    return min(start_of(a, o) + (a.kernel - 1) * a.dilation + 1, a.extent)


cdef inline bint is_whole(const Axis* a) noexcept nogil:
    """Tell whether the only window of an axis holds all of it."""
    return a.out == 1 and first_of(a, 0) <= 0 and stop_of(a, 0) >= a.extent


cdef inline bint is_empty(const Axis* a, Py_ssize_t o) noexcept nogil:
    """Whether a dilated window steps over the whole axis."""
    return first_of(a, o) >= stop_of(a, o)


cdef inline bint steps_over(const Axis* a) noexcept nogil:
    """Whether some window may do that."""
    return a.kernel > 0 and a.lo > 0 and a.dilation > a.extent


cdef inline Py_ssize_t taps_of(const Axis* a, Py_ssize_t o) noexcept nogil:
    """Count the elements of a window that does not."""
    cdef Py_ssize_t n = stop_of(a, o) - first_of(a, o)
    return n if a.kernel == 0 or a.dilation == 1 else (n - 1) // a.dilation + 1


cdef inline bint is_tap(const Axis* a, Py_ssize_t offset) noexcept nogil:
    """Whether a strided window has a tap that far behind its start."""
    if offset < 0 or offset > (a.kernel - 1) * a.dilation:
        return False
    return a.dilation == 1 or offset % a.dilation == 0


cdef inline Py_ssize_t cells(const Axis* a, Py_ssize_t o, bint count_pad) noexcept nogil:
    """Count the elements, with `count_pad` also the padding, in the dense window o."""
    if count_pad and a.kernel:
        return min(a.kernel, a.extent + a.hi - start_of(a, o))
    return stop_of(a, o) - first_of(a, o)


cdef inline Py_ssize_t over_first(const Axis* a, Py_ssize_t i) noexcept nogil:
    """Give the first window whose reach ends at or behind element i."""
    cdef Py_ssize_t before
    if a.kernel == 0:
        return i * a.out // a.extent
    before = i + a.lo - (a.kernel - 1) * a.dilation
    return 0 if before <= 0 else (before - 1) // a.stride + 1


cdef inline Py_ssize_t over_stop(const Axis* a, Py_ssize_t i) noexcept nogil:
    """Give what is one behind the last window that starts at or before element i."""
    if a.kernel == 0:
        return ((i + 1) * a.out - 1) // a.extent + 1
    return min((i + a.lo) // a.stride + 1, a.out)


cdef inline Pool pool_of(const Buffers* held) except *:
    """Read the geometry; without `divisor` and `count_pad`."""
    cdef Pool p
    memcpy(&p, geometry_of(held, POOL_FIELDS), POOL_FIELDS * sizeof(long long))
    p.divisor = 0
    p.count_pad = False
    if p.x.kernel == 0 and p.planes and windows_of(&p) == p.planes:
        p.x.extent = elements_of(&p) // p.planes  # global: the plane is one row
        p.z.extent = 1
        p.y.extent = 1
    return p


cdef inline Py_ssize_t elements_of(const Pool* p) noexcept nogil:
    """Count x; extents of an empty batch may be too large to multiply."""
    return p.planes * p.z.extent * p.y.extent * p.x.extent if p.planes else 0


cdef inline Py_ssize_t windows_of(const Pool* p) noexcept nogil:
    """Count y."""
    return p.planes * p.z.out * p.y.out * p.x.out if p.planes else 0


cdef inline Labels labels_of(const Buffers* held, int array, const Pool* p) except *:
    """Give the memory of labels: int64 get indices, bytes taps; None gets nothing."""
    cdef Labels to
    to.tap, to.index = NULL, NULL
    if has_integers(held, array):
        to.index = integers(held, array, windows_of(p))
    elif not is_nothing(held, array):
        to.tap = flags_of(held, array, windows_of(p))
    return to
