# Locally connected layers: how the work is cut, and what their kernels copy to scratch.
#
# What      local_of: the blocks of a problem.  patches: what taps see of rows of x.
#           fetch_rows: rows of dy.  rows, group: the height and width of a tile of sums.
# Layout    as in conv_local.pyx: left (channels of x, taps, samples, columns), right
#           (channels of y, samples, columns).
# Scratch   3 MB at most.

from libc.string cimport memset

from convcore.kernels.buffers cimport LINE, Buffers, geometry_of
from convcore.kernels.elements cimport first_lanes, lanes_of
from convcore.kernels.geometry cimport CONV_FIELDS, Conv
from convcore.kernels.rounds cimport TASKS_PER_THREAD, aligned, ceil_div, odd_lines
from convcore.kernels.vector cimport MR_QUARTER, cc_fetch, copy, part, real, vec

cdef enum:
    SAMPLES = 16  # of a block, at most: their sums stay near; weights are read for each
    COLUMNS = 256
    TAPS = 16
    LEFT = 32768  # scalars, about: with those on the right they fit the second cache
    RIGHT = 16384
    AHEAD = 8  # rows that are asked for early: they lie a plane apart
    ASKED = 64  # scalars of a row that are; for the others the processor sees to it

cdef struct Local:
    Conv c
    Py_ssize_t ic, oc, ih, iw, oh, ow, kh, kw
    Py_ssize_t x_size, y_size, w_size  # scalars of the arrays
    Py_ssize_t samples, columns, taps, inputs, outputs  # of a block
    Py_ssize_t row, plane  # scalars of scratch: a row, and one for each sample
    Py_ssize_t seen, input, tap  # the same of patches: a row, a channel, to the next tap
    bint shared  # by all taps of a channel, a row of x
    Py_ssize_t left, right  # scalars of scratch

cdef struct Part:  # the work of a task: some channels and columns of a row of y
    Py_ssize_t oy, x, o, outputs

cdef struct Block:  # of samples and columns
    Py_ssize_t n, samples, x, columns

cdef struct four:  # height of a tile, as a type: a constant of each function
    char _

cdef struct three:
    char _

cdef struct two:
    char _

cdef struct single:
    char _

ctypedef fused rows:
    four
    three
    two
    single

cdef struct several:  # width of a tile: samples, or channels of y
    char _

cdef struct alone:
    char _

ctypedef fused group:
    several
    alone

cdef struct Span:  # where a tap lies on a row of x
    Py_ssize_t begin, end  # columns of y
    Py_ssize_t off  # of the element of x behind those of earlier columns


cdef inline vec some(const vec* source, Py_ssize_t left) noexcept nogil:
    """Load a vector, of which `left` scalars may be read, and zero behind them."""
    if left >= lanes_of(source):
        return source[0]
    return part(source, first_lanes(left))


cdef inline int rows_of(rows* tile) noexcept nogil:
    """Count the sums of a tile that share what the weights are multiplied by."""
    if rows is four:
        return 4
    elif rows is three:
        return 3
    elif rows is two:
        return 2
    else:
        return 1


cdef inline int group_of(group* many) noexcept nogil:
    """Count the samples of a tile of sums, or the channels of y of one of dw."""
    if group is several:
        return MR_QUARTER
    else:
        return 1


cdef inline Py_ssize_t block(Py_ssize_t extent, Py_ssize_t most) noexcept nogil:
    """Cut an extent into equal blocks of at most `most`, or of 1; give their size."""
    most = max(<Py_ssize_t>1, min(extent, most))
    return ceil_div(extent, ceil_div(extent, most))


cdef inline Local local_of(Conv c) noexcept nogil:
    """Decide how the work is cut; sums do not depend on it."""
    cdef Local p
    p.c = c
    p.ic, p.oc = c.icg, c.ocg
    p.ih, p.iw, p.oh, p.ow = c.in_extent[1], c.in_extent[2], c.out_extent[1], c.out_extent[2]
    p.kh, p.kw = c.kernel[1], c.kernel[2]
    p.x_size, p.y_size = c.n * p.ic * p.ih * p.iw, c.n * p.oc * p.oh * p.ow
    p.w_size = weight_at(&p, p.oh, 0, 0, 0)
    p.samples = max(<Py_ssize_t>1, min(<Py_ssize_t>c.n, <Py_ssize_t>SAMPLES))
    p.columns = min(p.ow, <Py_ssize_t>COLUMNS)
    p.taps = min(p.kw, <Py_ssize_t>TAPS)
    p.row = aligned(p.columns)
    p.plane = odd_lines(p.samples * p.row)
    p.inputs = block(p.ic, LEFT // (p.taps * p.plane))
    p.outputs = block(p.oc, RIGHT // p.plane)
    p.shared = p.taps > 1 and c.stride[2] == 1 and (p.taps - 1) * c.dilation[2] <= p.columns
    p.seen = aligned(p.row + (p.taps - 1) * c.dilation[2]) if p.shared else p.row
    p.input = odd_lines(p.samples * p.seen) if p.shared else p.taps * p.plane
    p.tap = c.dilation[2] if p.shared else p.plane
    p.left = p.inputs * max(p.input, p.taps * p.plane)
    p.right = p.outputs * p.plane
    return p


cdef inline Local local_held(const Buffers* held) except *:
    """Read the geometry of a call."""
    cdef Local p = local_of((<const Conv*>geometry_of(held, CONV_FIELDS))[0])
    if p.c.g != 1 or p.c.out_extent[0] * p.c.kernel[0] * p.c.in_extent[0] != 1:
        raise ValueError("kernel: not the geometry of a locally connected layer")
    return p


cdef inline Py_ssize_t spread_over(
    Py_ssize_t extent, Py_ssize_t size, Py_ssize_t others, int threads
) noexcept nogil:
    """Make blocks smaller until there are some for each thread, beside `others`."""
    cdef Py_ssize_t wanted = ceil_div(TASKS_PER_THREAD * threads, others)
    return min(size, block(extent, ceil_div(extent, wanted)))


cdef inline Block block_of(const Local* p, Py_ssize_t n, Py_ssize_t x) noexcept nogil:
    """Give the samples from n on and the columns from x on."""
    cdef Block at
    at.n, at.samples = n, min(p.samples, <Py_ssize_t>p.c.n - n)
    at.x, at.columns = x, min(p.columns, p.ow - x)
    return at


cdef inline Py_ssize_t weight_at(
    const Local* p, Py_ssize_t oy, Py_ssize_t ky, Py_ssize_t c, Py_ssize_t o
) noexcept nogil:
    """Give the place of the weights of a row and a pair of channels."""
    return (((oy * p.kh + ky) * p.ic + c) * p.oc + o) * p.kw * p.ow


cdef inline void ask(const real* row, Py_ssize_t n) noexcept nogil:
    """Ask for the first lines of a row early; any address will do."""
    cdef Py_ssize_t i = 0
    while i < n and i < ASKED:
        cc_fetch(row + i)
        i += LINE // <Py_ssize_t>sizeof(real)


cdef inline Py_ssize_t column_at(const Local* p, Py_ssize_t way) noexcept nogil:
    """Give the first column of y that begins `way` elements of x further on, or behind."""
    return 0 if way <= 0 else min(p.ow, (way - 1) // p.c.stride[2] + 1)


cdef inline Span span_of(const Local* p, const Block* at, Py_ssize_t tap) noexcept nogil:
    """Find the columns of a block that see x through a tap: divisions take their time."""
    cdef Span s
    s.off = tap * p.c.dilation[2] - p.c.pad[2]
    s.begin = max(at.x, column_at(p, -s.off))
    s.end = min(at.x + at.columns, column_at(p, p.iw - s.off))
    return s


cdef inline void patch_row(
    const Local* p, const Block* at, const Span* s, const real* x, real* to
) noexcept nogil:
    """Copy what one tap sees of a row of x, between zeros that are there."""
    cdef Py_ssize_t i, stride = p.c.stride[2]
    if stride == 1:
        copy(to + s.begin - at.x, x + s.begin + s.off, s.end - s.begin)
        return
    for i in range(s.begin, s.end):
        to[i - at.x] = x[i * stride + s.off]


cdef inline void patches(
    const Local* p, const Block* at, const real* x, Py_ssize_t iy, Py_ssize_t c,
    Py_ssize_t inputs, Py_ssize_t tap, Py_ssize_t taps, real* to,
) noexcept nogil:
    """Fill the left scratch with patches of some channels of a row of x."""
    cdef Py_ssize_t i, k, n, apart = p.ih * p.iw
    cdef Span[TAPS] spans
    cdef const real* row
    for k in range(taps):
        spans[k] = span_of(p, at, tap + k)
    if p.shared:
        spans[0].end = min(
            at.x + at.columns + (taps - 1) * p.c.dilation[2], p.iw - spans[0].off
        )
        spans[0].begin = max(at.x, -spans[0].off)
        taps = 1
    memset(to, 0, inputs * p.input * sizeof(real))
    if iy < 0 or iy >= p.ih:
        return
    for n in range(at.samples):
        row = x + (((at.n + n) * p.ic + c) * p.ih + iy) * p.iw
        for i in range(inputs):
            ask(row + AHEAD * apart, p.iw)
            for k in range(taps):
                patch_row(
                    p, at, &spans[k], row, to + i * p.input + k * p.plane + n * p.seen
                )
            row += apart


cdef inline void fetch_rows(
    const Local* p, const Block* at, const real* dy, Py_ssize_t oy, Py_ssize_t o,
    Py_ssize_t outputs, real* to,
) noexcept nogil:
    """Fill the right scratch with rows of dy."""
    cdef Py_ssize_t j, n, apart = p.oh * p.ow
    cdef const real* row
    memset(to, 0, outputs * p.plane * sizeof(real))
    for n in range(at.samples):
        row = dy + (((at.n + n) * p.oc + o) * p.oh + oy) * p.ow + at.x
        for j in range(outputs):
            ask(row + AHEAD * apart, at.columns)
            copy(to + j * p.plane + n * p.row, row, at.columns)
            row += apart


cdef inline Py_ssize_t parts_of(const Local* p) noexcept nogil:
    """Count the tasks over rows of y, blocks of columns and of channels of y."""
    return p.oh * ceil_div(p.ow, p.columns) * ceil_div(p.oc, p.outputs)


cdef inline Part part_of(const Local* p, Py_ssize_t task) noexcept nogil:
    """Find what a task does."""
    cdef Part of
    cdef Py_ssize_t o_blocks = ceil_div(p.oc, p.outputs), rest = task // o_blocks
    cdef Py_ssize_t x_blocks = ceil_div(p.ow, p.columns)
    of.oy = rest // x_blocks
    of.x = (rest - of.oy * x_blocks) * p.columns
    of.o = (task - rest * o_blocks) * p.outputs
    of.outputs = min(p.outputs, p.oc - of.o)
    return of
