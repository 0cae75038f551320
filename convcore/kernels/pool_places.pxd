# Which neighbours of the source each result along an axis is a sum of.
#
# What      forward, the elements of a window; backward, the windows over an element:
#
#               result j    first[j] .. first[j] + count[j] - 1, from `origin` on
#
#           `first` never goes down, so a vector of results finds its k-th terms near
#           each other: lane i is source[base + near[i] + k].
# Assumes   dense windows. SPAN results at most, and SPAN of the source for them.
# Scratch   on the stack of the caller: 10 KB. Built anew when a task comes to another part
#           of the axis, but for strided windows that are all alike.

from convcore.kernels.blocks cimport SPAN
from convcore.kernels.windows cimport Axis, cells

cdef enum:
    SLACK = 64  # scalars behind a line that may be read or written
    PARTS = 256  # vectors of SPAN results

cdef struct Places:
    bint back, inside  # inside: none of them is cut off at an end
    Py_ssize_t begin, n, known  # results; those that the tables tell about
    Py_ssize_t origin, span  # of the source
    Py_ssize_t least, most  # of all counts
    int[SPAN] first, count

cdef struct Lanes:  # the same for vectors of `lanes` results
    Py_ssize_t lanes, widest  # widest: most places between the lanes of a vector
    int[PARTS] base
    int[SPAN + SLACK] near
    double[SPAN + SLACK] counts


cdef inline void range_of(
    const Axis* a, Py_ssize_t i, bint back, Py_ssize_t* first, Py_ssize_t* count
) noexcept nogil:
    """Give the elements of window i, backward the windows over element i."""
    cdef Py_ssize_t start, stop
    if a.kernel == 0:
        if back:
            start, stop = i * a.out // a.extent, ((i + 1) * a.out - 1) // a.extent + 1
        else:
            start, stop = i * a.extent // a.out, ((i + 1) * a.extent - 1) // a.out + 1
    elif back:
        start = i + a.lo - a.kernel
        start = 0 if start < 0 else start // a.stride + 1
        stop = min((i + a.lo) // a.stride + 1, a.out)
    else:
        start = i * a.stride - a.lo
        stop = min(start + a.kernel, a.extent)
        start = max(start, 0)
    first[0], count[0] = start, max(0, stop - start)


cdef inline void adaptive_places(const Axis* a, Places* t) noexcept nogil:
    """Find the places of adaptive windows, one after another without a division."""
    cdef Py_ssize_t along = a.out if t.back else a.extent
    cdef Py_ssize_t over = a.extent if t.back else a.out
    cdef Py_ssize_t at = t.begin * along // over, rest = t.begin * along - at * over
    cdef Py_ssize_t j, first, step = along // over, more = along - step * over
    t.origin = at
    for j in range(t.n):
        first = at
        at += step
        rest += more
        if rest >= over:
            rest -= over
            at += 1
        t.first[j] = <int>(first - t.origin)
        t.count[j] = <int>(at + (rest > 0) - first)


cdef inline void strided_places(const Axis* a, Places* t) noexcept nogil:
    """Find the places of strided windows."""
    cdef Py_ssize_t j, first, count
    for j in range(t.n):
        range_of(a, t.begin + j, t.back, &first, &count)
        if j == 0:
            t.origin = first
        t.first[j] = <int>(first - t.origin)
        t.count[j] = <int>count


cdef inline bint are_inside(
    const Axis* a, Py_ssize_t begin, Py_ssize_t n, bint back
) noexcept nogil:
    """Tell whether no end of the axis cuts into the windows of results, or over them."""
    if a.kernel == 0:
        return False
    if back:
        return begin + a.lo + a.stride >= a.kernel and (begin + n - 1 + a.lo) // a.stride < a.out
    if begin * a.stride < a.lo:
        return False
    return (begin + n - 1) * a.stride - a.lo + a.kernel <= a.extent


cdef inline bint set_stretch(
    const Axis* a, Py_ssize_t begin, Py_ssize_t n, Places* t
) noexcept nogil:
    """Do `set_places` for the elements of strided windows, without the tables."""
    cdef bint before = t.inside
    if t.begin == begin and t.n == n:
        return False
    t.begin, t.n, t.inside = begin, n, are_inside(a, begin, n, False)
    t.origin = max(0, begin * a.stride - a.lo)
    t.span = min((begin + n - 1) * a.stride - a.lo + a.kernel, a.extent) - t.origin
    return n > t.known or not (before and t.inside)


cdef inline bint set_places(
    const Axis* a, Py_ssize_t begin, Py_ssize_t n, Places* t
) noexcept nogil:
    """Find the places of n results; tell whether they differ from those before."""
    cdef Py_ssize_t j
    cdef bint inside
    if t.begin == begin and t.n == n:
        return False
    inside = are_inside(a, begin, n, t.back)
    if inside and t.inside and n <= t.known and not (t.back and (begin - t.begin) % a.stride):
        t.origin += (begin - t.begin) // a.stride if t.back else (begin - t.begin) * a.stride
        t.begin, t.n = begin, n
        t.span = t.first[n - 1] + t.count[n - 1]
        return False
    t.begin, t.n, t.known, t.inside = begin, n, n, inside
    if a.kernel:
        strided_places(a, t)
    else:
        adaptive_places(a, t)
    t.span, t.least, t.most = 0, t.count[0], 0
    for j in range(n):
        t.span = max(t.span, <Py_ssize_t>t.first[j] + t.count[j])
        t.least = min(t.least, <Py_ssize_t>t.count[j])
        t.most = max(t.most, <Py_ssize_t>t.count[j])
    return True


cdef inline void set_lanes(const Places* t, Py_ssize_t lanes, Lanes* l) noexcept nogil:
    """Turn places into those of vectors."""
    cdef Py_ssize_t j, part = 0, base = 0
    l.lanes, l.widest = lanes, 0
    for j in range(t.n):
        if j == part * lanes:
            base = l.base[part] = t.first[j]
            part += 1
        l.near[j] = <int>(t.first[j] - base)
        l.counts[j] = t.count[j]
        l.widest = max(l.widest, <Py_ssize_t>l.near[j])
    for j in range(t.n, t.n + SLACK):
        l.near[j], l.counts[j] = 0, 0


cdef inline Py_ssize_t results_at_most(const Axis* a, bint back) noexcept nogil:
    """Give how many results have places for certain; 0 if one needs too much."""
    cdef double along = a.out if back else a.extent, over = a.extent if back else a.out
    if a.kernel == 0:
        if along / over > SPAN // 2:
            return 0
        return max(1, <Py_ssize_t>min((SPAN - 2) * over / along, <double>SPAN))
    if back:
        return SPAN - 2 - (a.kernel - 1) // a.stride if a.kernel <= SPAN // 2 else 0
    if a.kernel > SPAN // 2:
        return 0
    return min((SPAN - a.kernel) // a.stride + 1, SPAN)


cdef struct Cells:  # what each window of a block divides by, along the axis
    bint alike
    double[SPAN + SLACK] count, inverse


cdef inline void set_cells(
    const Axis* a, const Places* t, bint count_pad, Cells* c
) noexcept nogil:
    """Count the cells of the windows of a block: its results, backward its sources."""
    cdef Py_ssize_t j, n = t.span if t.back else t.n, begin = t.origin if t.back else t.begin
    c.alike = True
    for j in range(n):
        c.count[j] = cells(a, min(begin + j, a.out - 1), count_pad)
        c.inverse[j] = 1 / c.count[j]
        c.alike = c.alike and c.count[j] == c.count[0]
    for j in range(n, n + SLACK):
        c.count[j], c.inverse[j] = 1, 1
