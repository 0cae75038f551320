# Planes laid out so that every tap of a window is one address offset.
#
# What      A piece is some rows of one plane, or some whole planes. Its part of x is copied
#           into an image in L1, with the padding, and taken apart by the phases of the
#           strides: element (v, w) goes to phase (v mod sy, w mod sx), cell (v / sy, w / sx).
# Layout    the image of two planes, stride 1, one border column and row ('.' padding):
#
#               . . . . . .        Output (y, x) is number y * pitch + x, and its tap
#               . a a a a a        (ky, kx) lies ky * pitch + kx further on: the lanes
#               . a a a a a        run on through rows and planes, however narrow they
#               . . . . . .        are. Outputs that would straddle two rows are
#               . b b b b b        computed, too, and never leave the scratch.
#               . b b b b b
#
#           With a stride there are sz * sy * sx such images, `size` cells apart.
# Assumes   `PoolMaxFlat.accepts`: a piece of few columns fits CELLS; windows.pxd.
# Scratch   on the stack of the caller.

from convcore.kernels.buffers cimport refuse
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, cc_fetch, cc_fetch_to_write, f32v, part, real, vec,
)
from convcore.kernels.windows cimport Axis, Pool

cdef enum:
    CELLS = 3072  # of an image, all phases together: 12 KB of float32
    TAPS = 256  # most taps of a window: their numbers are bytes
    PHASES = 8  # most phases along an axis
    IMAGES = 64  # most phases in all
    GAP = 16  # cells behind an image: stores of whole vectors end in it
    AHEAD = 4096  # bytes from what is read to what is asked for
    LINE = 64  # bytes that are asked for at once
    ROOM = 5120  # CELLS, their gaps, and what loads of four vectors read beyond

cdef struct Flat:
    Py_ssize_t planes, slabs, rows, columns  # outputs of a piece along each axis, at most
    Py_ssize_t per_z, per_y, per_x, count  # pieces along each axis of a plane; in all
    Py_ssize_t pitch, slab, plane, size  # cells of a row, slab, plane, image

cdef struct Piece:
    Py_ssize_t plane, z, y, x  # its first output
    Py_ssize_t planes, slabs, rows, columns, length  # outputs; numbers of all

cdef struct Taps:
    Py_ssize_t count
    Py_ssize_t[TAPS] offset  # in the image
    long long[TAPS] label  # the number of the tap, or how far it is from the window's start


cdef inline Py_ssize_t shift_of(const Axis* a) noexcept nogil:
    """Give how many cells the last tap is behind the first, in its phase."""
    return (a.kernel - 1) * a.dilation // a.stride


cdef inline Py_ssize_t parts(Py_ssize_t* each, Py_ssize_t count) noexcept nogil:
    """Cut `count` into parts of at most `each`, as even as may be, and count them."""
    cdef Py_ssize_t n = (count - 1) // each[0] + 1
    each[0] = (count - 1) // n + 1
    return n


cdef inline int divide(
    Flat* f, const Pool* p, const Py_ssize_t* outputs, const Py_ssize_t* shifts,
    Py_ssize_t cells,
) except -1:
    """Cut outputs (z, y, x) of every plane into pieces; `cells` for each image."""
    cdef Py_ssize_t tz = shifts[0], ty = shifts[1], tx = shifts[2]
    f.columns = min(outputs[2], cells // ((1 + tz) * (1 + ty)) - tx)
    if f.columns < 1:
        refuse()
    f.per_x = parts(&f.columns, outputs[2])
    f.pitch = f.columns + tx
    f.rows = min(outputs[1], cells // ((1 + tz) * f.pitch) - ty)
    f.per_y = parts(&f.rows, outputs[1])
    f.slab = (f.rows + ty) * f.pitch
    f.slabs = 1
    if f.per_x == 1 and f.per_y == 1:
        f.slabs = max(1, min(outputs[0], cells // f.slab - tz))
    f.per_z = parts(&f.slabs, outputs[0])
    f.plane = (f.slabs + tz) * f.slab
    f.planes = 1
    if f.per_x * f.per_y * f.per_z == 1:
        f.planes = max(1, min(p.planes, cells // f.plane))
    f.size = f.planes * f.plane + GAP
    f.count = ((p.planes - 1) // f.planes + 1) * f.per_z * f.per_y * f.per_x
    return 0


cdef inline Piece piece_at(
    const Flat* f, const Pool* p, const Py_ssize_t* outputs, Py_ssize_t i
) noexcept nogil:
    """Find the i-th piece."""
    cdef Piece at
    cdef Py_ssize_t row = i // f.per_x, slab = row // f.per_y, plane = slab // f.per_z
    at.x = (i - row * f.per_x) * f.columns
    at.y = (row - slab * f.per_y) * f.rows
    at.z = (slab - plane * f.per_z) * f.slabs
    at.plane = plane * f.planes
    at.columns = min(f.columns, outputs[2] - at.x)
    at.rows = min(f.rows, outputs[1] - at.y)
    at.slabs = min(f.slabs, outputs[0] - at.z)
    at.planes = min(f.planes, p.planes - at.plane)
    at.length = (at.planes - 1) * f.plane + (at.slabs - 1) * f.slab
    at.length += (at.rows - 1) * f.pitch + at.columns
    return at


cdef inline bint has_few_taps(const Pool* p) noexcept nogil:
    """Whether the window is one that the structures above have room for."""
    cdef double taps = <double>p.z.kernel * p.y.kernel * p.x.kernel
    if taps < 1 or taps > TAPS or p.z.stride * p.y.stride * p.x.stride > IMAGES:
        return False
    return max(p.z.stride, max(p.y.stride, p.x.stride)) <= PHASES


cdef inline long long tap_label(
    const Pool* p, Py_ssize_t z, Py_ssize_t y, Py_ssize_t x, bint flat
) noexcept nogil:
    """Give the label of a tap: `flat`, its distance from the window's start."""
    if not flat:
        return (z * p.y.kernel + y) * p.x.kernel + x
    z, y, x = z * p.z.dilation, y * p.y.dilation, x * p.x.dilation
    return (z * p.y.extent + y) * p.x.extent + x


cdef inline unsigned long long first_bits(Py_ssize_t n) noexcept nogil:
    """The lowest n bits, at most 64."""
    return ~0ULL if n >= 64 else (1ULL << n) - 1


cdef inline Py_ssize_t lanes_of(const vec* like) noexcept nogil:
    """Scalars of a vector."""
    return VEC_BYTES // sizeof(float) if vec is f32v else VEC_BYTES // sizeof(double)


cdef inline void put_label(real* label, Py_ssize_t i, long long n) noexcept nogil:
    """Write one label."""
    if real is float:
        (<int*>label)[i] = <int>n
    else:
        (<long long*>label)[i] = n


cdef inline void fill(vec* to, vec v, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Write v to cells begin .. end of a row of an image, and to some behind them."""
    cdef Py_ssize_t j = begin
    while j < end:
        (<vec*>ahead(to, j))[0] = v
        j += lanes_of(to)


cdef inline void load_row(const vec* x, Py_ssize_t n, vec* to) noexcept nogil:
    """Copy n scalars to a row of an image, and write to some cells behind them."""
    cdef Py_ssize_t j = 0
    while j < n:
        (<vec*>ahead(to, j))[0] = part(ahead(x, j), first_bits(n - j))
        j += lanes_of(to)


cdef inline void fetch(const char* x, Py_ssize_t n) noexcept nogil:
    """Ask for the n bytes that are AHEAD of x."""
    cdef const char* end = x + AHEAD + n
    x += AHEAD
    while x < end:
        cc_fetch(x)
        x += LINE


cdef inline void fetch_to_write(const char* x, Py_ssize_t n) noexcept nogil:
    """Ask for the n bytes that are AHEAD of x, to write them."""
    cdef const char* end = x + AHEAD + n
    x += AHEAD
    while x < end:
        cc_fetch_to_write(x)
        x += LINE
