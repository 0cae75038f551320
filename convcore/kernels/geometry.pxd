# Where an output looks: the integers of a problem, and the windows of one direction.
#
# What      A convolution and its gradient of x are the same sum,
#
#               out[m, start + step * t] = sum over (j, c) of
#                   weight[m, c, tap0 + tap_step * j] * source[c, advance * t + off0 + off_step * j]
#
#           with other integers along each axis. Outside of the source it is zero, or, if
#           that is x, what `border` says:
#
#                        fprop     dgrad, phase f in 0 .. min(s, i) - 1
#             extent     o         ceil((i - f) / s)     outputs t of this grid
#             start      0         f                     where they are put
#             step       1         s
#             source     i         o                     extent that is read
#             advance    s         1
#             taps       k         taps with (f + p - d*tap) mod s == 0
#             tap0       0         the first of them
#             tap_step   1         s / gcd(s, d)
#             off0       -p        (f + p - d*tap0) / s
#             off_step   d         -d * tap_step / s
#
#           So a strided gradient is one dense convolution for each of the s phases of
#           its output, and never multiplies an inserted zero.
# Order     Taps are numbered class by class (taps of one phase are one class, classes in
#           the order of their first tap), so that each phase finds its weights together.
# Source    Dumoulin and Visin, A guide to convolution arithmetic, arXiv:1603.07285,
#           section 4, for the gradient as a convolution.

from convcore.kernels.border cimport ZEROS
from convcore.kernels.buffers cimport read_geometry

cdef struct Conv:  # the order of ConvProblem.geometry
    long long n, g, icg, ocg
    long long[3] in_extent
    long long[3] out_extent
    long long[3] kernel
    long long[3] stride
    long long[3] pad
    long long[3] dilation
    long long relu                     # whether y has 0 where it would be negative
    long long border                   # what lies around x: a `Border` of border.pxd
    double value                       # of a constant one

cdef enum:
    CONV_FIELDS = 25

cdef struct Axis:
    Py_ssize_t extent, start, step
    Py_ssize_t source, advance
    Py_ssize_t taps, tap0, tap_step
    Py_ssize_t off0, off_step
    Py_ssize_t tap_base, tap_total  # taps of earlier classes; taps of all classes
    Py_ssize_t border               # what lies beyond the source: of a gradient, zeros

cdef struct Window:
    Axis z, y, x
    Py_ssize_t samples, groups, m, c   # outputs and inputs of one group
    Py_ssize_t plane, source_plane     # scalars of one channel of out and of source
    Py_ssize_t height, width           # out extents, for addresses
    Py_ssize_t columns                 # samples * extents: the pixels of this grid
    Py_ssize_t taps, depth             # of this phase; c * taps: terms of one output
    Py_ssize_t tap_first               # where the taps of this phase start
    bint dense                         # step 1 along every axis: pixels lie together
    double value                       # of a constant border


cdef inline Conv conv_of(object geometry, int threads) except *:
    """Read a problem for `scratch_size`."""
    cdef Conv p
    if threads < 1:
        raise ValueError(f"kernel: threads must be >= 1, got {threads}")
    read_geometry(geometry, <long long*>&p, CONV_FIELDS)
    return p


cdef inline Py_ssize_t volume(const long long* extent) noexcept nogil:
    """Multiply the extents of a plane."""
    return extent[0] * extent[1] * extent[2]


cdef inline Py_ssize_t gcd(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    while b:
        a, b = b, a % b
    return a


cdef inline Py_ssize_t class_step(const Conv* p, int axis) noexcept nogil:
    """Taps so far apart are of one class: they meet the same outputs' phase."""
    return p.stride[axis] // gcd(p.stride[axis], p.dilation[axis])


cdef inline Py_ssize_t class_base(
    Py_ssize_t taps, Py_ssize_t step, Py_ssize_t first
) noexcept nogil:
    """Count the taps in the classes before that of tap `first` < step."""
    cdef Py_ssize_t rest = taps % step
    return first * (taps // step) + (first if first < rest else rest)


cdef inline Py_ssize_t phases(const Conv* p, int axis) noexcept nogil:
    """Count the grids that the gradient of x has along an axis."""
    return min(p.stride[axis], p.in_extent[axis])


cdef inline Axis forward_axis(const Conv* p, int axis) noexcept nogil:
    """Give the windows of fprop along an axis."""
    cdef Axis a
    a.extent = p.out_extent[axis]
    a.start = 0
    a.step = 1
    a.source = p.in_extent[axis]
    a.advance = p.stride[axis]
    a.taps = p.kernel[axis]
    a.tap0 = 0
    a.tap_step = 1
    a.off0 = -p.pad[axis]
    a.off_step = p.dilation[axis]
    a.tap_base = 0
    a.tap_total = p.kernel[axis]
    a.border = p.border
    return a


cdef inline Axis gradient_axis(const Conv* p, int axis, Py_ssize_t phase) noexcept nogil:
    """Give the windows of dgrad along an axis, for the outputs of one phase."""
    cdef Axis a
    cdef Py_ssize_t s = p.stride[axis], d = p.dilation[axis], k = p.kernel[axis]
    cdef Py_ssize_t step = class_step(p, axis), tap = 0
    a.extent = (p.in_extent[axis] - phase - 1) // s + 1
    a.start = phase
    a.step = s
    a.source = p.out_extent[axis]
    a.advance = 1
    while tap < step and tap < k and (phase + p.pad[axis] - tap * d) % s != 0:
        tap += 1
    a.tap0 = tap
    a.tap_step = step
    a.tap_total = k
    a.taps = (k - tap - 1) // step + 1 if tap < step and tap < k else 0
    a.tap_base = class_base(k, step, tap) if a.taps else 0
    a.off0 = (phase + p.pad[axis] - tap * d) // s if a.taps else 0
    a.off_step = -(d // (s // step))
    a.border = ZEROS
    return a


cdef inline bint pointwise(const Axis* a) noexcept nogil:
    """Tell whether output t reads source t and nothing else along this axis."""
    return (
        a.taps == 1 and a.tap_total == 1 and a.off0 == 0 and a.advance == 1
        and a.step == 1 and a.extent == a.source
    )


cdef inline void join(Axis* outer, Axis* inner) noexcept nogil:
    """Make one long axis of two pointwise ones, so that runs of pixels are long."""
    if pointwise(outer) and pointwise(inner):
        inner.extent *= outer.extent
        inner.source *= outer.source
        outer.extent = 1
        outer.source = 1


cdef inline Window finished(Window w) noexcept nogil:
    """Fill in what follows from the axes."""
    cdef Py_ssize_t before_y, before_x
    w.source_plane = w.z.source * w.y.source * w.x.source
    join(&w.z, &w.y)  # the outer ones first: `height` and `width` stay those of `out`
    join(&w.y, &w.x)
    w.columns = w.samples * w.z.extent * w.y.extent * w.x.extent
    w.taps = w.z.taps * w.y.taps * w.x.taps
    w.depth = w.c * w.taps
    before_y = w.z.taps * w.y.tap_base * w.x.tap_total
    before_x = w.z.taps * w.y.taps * w.x.tap_base
    w.tap_first = w.z.tap_base * w.y.tap_total * w.x.tap_total + before_y + before_x
    w.dense = w.z.step == 1 and w.y.step == 1 and w.x.step == 1
    return w


cdef inline Window forward_window(const Conv* p) noexcept nogil:
    """Give the windows of fprop: x is read, y is written."""
    cdef Window w
    w.z = forward_axis(p, 0)
    w.y = forward_axis(p, 1)
    w.x = forward_axis(p, 2)
    w.samples, w.groups, w.m, w.c = p.n, p.g, p.ocg, p.icg
    w.height, w.width = w.y.extent, w.x.extent
    w.plane = w.z.extent * w.y.extent * w.x.extent
    w.value = p.value
    return finished(w)


cdef inline Window gradient_window(const Conv* p, Py_ssize_t phase) noexcept nogil:
    """Give the windows of dgrad: dy is read, one phase of dx is written."""
    cdef Window w
    cdef Py_ssize_t ny = phases(p, 1), nx = phases(p, 2)
    w.z = gradient_axis(p, 0, phase // (ny * nx))
    w.y = gradient_axis(p, 1, phase // nx % ny)
    w.x = gradient_axis(p, 2, phase % nx)
    w.samples, w.groups, w.m, w.c = p.n, p.g, p.icg, p.ocg
    w.height, w.width = p.in_extent[1], p.in_extent[2]
    w.plane = p.in_extent[0] * p.in_extent[1] * p.in_extent[2]
    w.value = 0
    return finished(w)
