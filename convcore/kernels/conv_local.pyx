# Locally connected layers: a convolution with weights of its own at every output.
#
# What      y[n, o, oy, ox]  = b[o, oy, ox] + sum over (ky, c, kx) of w * x[n, c, iy, ix]
#           dx[n, c, iy, ix] = sum over (oy, o, ox) that see it of w * dy[n, o, oy, ox]
#           dw               = sum over n of x[n, c, iy, ix] * dy[n, o, oy, ox]
#           with iy = sy oy + dy ky - py, and x zero outside.
# Layout    w (oh, kh, ic, oc, kw, ow): the rows (ky, oy) that a row of x or of y meets lie
#           together, and lanes are neighbouring outputs. Scratch of a thread:
#
#               left    (channels of x, taps, samples, columns)  patches of x; sums of dx
#               right   (channels of y, samples, columns)        sums of y; rows of dy
#
#           A tile of sums, four by four vectors, stays in registers through all terms of
#           a block: weights come from memory once, and from the first cache for the
#           samples behind the first ones.
# Assumes   the geometry of a ConvProblem with one group and a depth of 1, and a direction.
# Parallel  over rows of y, columns, and channels of y; dx over rows and channels of x:
#           each weight is read (written) by one task, once for a block of samples.
# Scratch   3 MB at most.
# Cost      the weights, once for 16 samples: they are the largest array by far. Up to 4
#           samples memory takes most of the time, then the sums and the patches do.
# Why not   Weights (oh, ow, oc, ic kh kw) and dot products: dx then adds where other rows
#           add, too, and lanes are empty for few channels.

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.buffers cimport (
    LINE, Buffers, call, geometry_of, reals, reals_or_nothing, room,
)
from convcore.kernels.elements cimport first_lanes, lanes_of
from convcore.kernels.geometry cimport CONV_FIELDS, Conv, conv_of
from convcore.kernels.rounds cimport TASKS_PER_THREAD, aligned, ceil_div, odd_lines, round_of
from convcore.kernels.vector cimport (
    MR_QUARTER, ahead, cc_fetch, cc_fetch_to_write, copy, f32v, f64v, part, put_part, real,
    vec, zero_lanes,
)

cdef enum:  # directions; 0 is y
    DGRAD = 1
    WGRAD = 2

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
    Py_ssize_t samples, columns, taps, inputs, outputs  # of a block
    Py_ssize_t row, plane  # scalars of scratch: a row, and one for each sample
    Py_ssize_t seen, input, tap  # the same of patches: a row, a channel, to the next tap
    bint shared  # by all taps of a channel, a row of x
    Py_ssize_t left, right  # scalars of scratch

cdef struct Block:  # of samples and columns
    Py_ssize_t n, samples, x, columns

cdef struct Terms:  # of sums: scalars from one to the next
    Py_ssize_t outer, inner  # how many
    Py_ssize_t w_outer, w_inner, w_row  # of weights, and to those of the next row of sums
    Py_ssize_t v_outer, v_inner, v_sample  # of what they are multiplied by
    Py_ssize_t sum_row, sum_sample

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


cdef inline void add_tiles(
    const Terms* t, vec* sums, const vec* w, const vec* v, Py_ssize_t tiles,
    Py_ssize_t left, Py_ssize_t soon, rows* tile, group* samples,
) noexcept nogil:
    """Add all terms to tiles of sums, one vector of columns of each.

    The first tile asks for the weights that come next. The loop over tiles is in here
    because GCC unrolls only loops within loops early enough to keep `acc` in registers.
    """
    cdef vec[4 * MR_QUARTER] acc
    cdef vec[4] a
    cdef const vec* here
    cdef const vec* other
    cdef vec s
    cdef Py_ssize_t i, _k, _m
    cdef int r, n, height = rows_of(tile), width = group_of(samples)
    for _m in range(tiles):
        for n in range(width):
            for r in range(height):
                acc[4 * n + r] = ahead(sums, n * t.sum_sample + r * t.sum_row)[0]
        for i in range(t.outer):
            here = ahead(w, i * t.w_outer)
            other = ahead(v, i * t.v_outer)
            for _k in range(t.inner):
                for r in range(height):
                    a[r] = some(ahead(here, r * t.w_row), left)
                if soon:
                    for r in range(height):
                        cc_fetch(ahead(here, r * t.w_row + soon))
                for n in range(width):
                    s = ahead(other, n * t.v_sample)[0]
                    for r in range(height):
                        acc[4 * n + r] = acc[4 * n + r] + a[r] * s
                here = ahead(here, t.w_inner)
                other = ahead(other, t.v_inner)
        for n in range(width):
            for r in range(height):
                (<vec*>ahead(sums, n * t.sum_sample + r * t.sum_row))[0] = acc[4 * n + r]
        sums = <vec*>ahead(sums, width * t.sum_sample)
        v = ahead(v, width * t.v_sample)
        soon = 0


cdef void add_columns(
    const Terms* t, const Block* at, vec* sums, const vec* w, const vec* v,
    Py_ssize_t soon, rows* tile,
) noexcept nogil:
    """Do all columns and samples of a block."""
    cdef Py_ssize_t tiles = at.samples // MR_QUARTER, done = tiles * MR_QUARTER, x = 0
    cdef vec* rest = <vec*>ahead(sums, done * t.sum_sample)
    cdef const vec* other = ahead(v, done * t.v_sample)
    while x < at.columns:
        add_tiles(
            t, <vec*>ahead(sums, x), ahead(w, x), ahead(v, x), tiles, at.columns - x, soon,
            tile, <several*>NULL,
        )
        add_tiles(
            t, <vec*>ahead(rest, x), ahead(w, x), ahead(other, x), at.samples - done,
            at.columns - x, 0 if tiles else soon, tile, <alone*>NULL,
        )
        x += lanes_of(w)


cdef void add_vectors(
    const Terms* t, const Block* at, vec* sums, const vec* w, const vec* v,
    Py_ssize_t count, Py_ssize_t after,
) noexcept nogil:
    """Do `count` rows of sums; `after` leads from the first weights to those after them."""
    cdef Py_ssize_t r = 0, step = block(count, 4), height, soon
    cdef vec* to
    cdef const vec* here
    while r < count:
        to, here = <vec*>ahead(sums, r * t.sum_row), ahead(w, r * t.w_row)
        height = min(step, count - r)
        soon = step * t.w_row if r + step < count else after - r * t.w_row
        if height == 1:
            add_columns(t, at, to, here, v, soon, <single*>NULL)
        elif height == 2:
            add_columns(t, at, to, here, v, soon, <two*>NULL)
        elif height == 3:
            add_columns(t, at, to, here, v, soon, <three*>NULL)
        else:
            add_columns(t, at, to, here, v, soon, <four*>NULL)
        r += step


cdef inline void add_rows(
    const Terms* t, const Block* at, real* sums, const real* w, const real* v,
    Py_ssize_t count, Py_ssize_t after,
) noexcept nogil:
    """Do the same for scalars."""
    if real is float:
        add_vectors(
            t, at, <f32v*>sums, <const f32v*>w, <const f32v*>v, count, after
        )
    else:
        add_vectors(
            t, at, <f64v*>sums, <const f64v*>w, <const f64v*>v, count, after
        )


cdef inline void sum_tile(
    const Local* p, vec* dw, const vec* v, const vec* dy, Py_ssize_t samples,
    Py_ssize_t left, bint more, rows* tile, group* many,
) noexcept nogil:
    """Write rows of dw of some taps of some pairs of channels, or add to them.

    Sums over samples: a vector of columns of each tap and each channel of y.
    """
    cdef vec[4 * MR_QUARTER] acc
    cdef vec[4] a
    cdef vec g
    cdef vec* to
    cdef Py_ssize_t n, apart = p.kw * p.ow
    cdef int j, k, taps = rows_of(tile), outputs = group_of(many)
    for j in range(outputs):
        for k in range(taps):
            to = <vec*>ahead(dw, j * apart + k * p.ow)
            cc_fetch_to_write(ahead(to, outputs * apart))
            acc[4 * j + k] = some(to, left) if more else zero_lanes(v)
    for n in range(samples):
        for k in range(taps):
            a[k] = ahead(v, n * p.seen + k * p.tap)[0]
        for j in range(outputs):
            g = ahead(dy, n * p.row + j * p.plane)[0]
            for k in range(taps):
                acc[4 * j + k] = acc[4 * j + k] + g * a[k]
    for j in range(outputs):
        for k in range(taps):
            put_part(<vec*>ahead(dw, j * apart + k * p.ow), acc[4 * j + k], left)


cdef void sum_columns(
    const Local* p, const Block* at, vec* dw, const vec* v, const vec* dy, rows* tile,
    group* many,
) noexcept nogil:
    """Do all columns of some taps."""
    cdef Py_ssize_t x = 0
    while x < at.columns:
        sum_tile(
            p, <vec*>ahead(dw, x), ahead(v, x), ahead(dy, x), at.samples, at.columns - x,
            at.n > 0, tile, many,
        )
        x += lanes_of(v)


cdef inline void sum_taps(
    const Local* p, const Block* at, vec* dw, const vec* v, const vec* dy,
    Py_ssize_t taps, group* many,
) noexcept nogil:
    """Do all taps, at most four at a time."""
    cdef Py_ssize_t k = 0, step = block(taps, 4), height
    cdef vec* to
    cdef const vec* here
    while k < taps:
        to, here = <vec*>ahead(dw, k * p.ow), ahead(v, k * p.tap)
        height = min(step, taps - k)
        if height == 1:
            sum_columns(p, at, to, here, dy, <single*>NULL, many)
        elif height == 2:
            sum_columns(p, at, to, here, dy, <two*>NULL, many)
        elif height == 3:
            sum_columns(p, at, to, here, dy, <three*>NULL, many)
        else:
            sum_columns(p, at, to, here, dy, <four*>NULL, many)
        k += step


cdef void sum_vectors(
    const Local* p, const Block* at, vec* dw, const vec* v, const vec* dy,
    Py_ssize_t outputs, Py_ssize_t taps,
) noexcept nogil:
    """Do all channels of y."""
    cdef Py_ssize_t j = 0, apart = p.kw * p.ow
    while j + MR_QUARTER <= outputs:
        sum_taps(
            p, at, <vec*>ahead(dw, j * apart), v, ahead(dy, j * p.plane), taps,
            <several*>NULL,
        )
        j += MR_QUARTER
    while j < outputs:
        sum_taps(
            p, at, <vec*>ahead(dw, j * apart), v, ahead(dy, j * p.plane), taps,
            <alone*>NULL,
        )
        j += 1


cdef inline void sum_rows(
    const Local* p, const Block* at, real* dw, const real* v, const real* dy,
    Py_ssize_t outputs, Py_ssize_t taps,
) noexcept nogil:
    """Do the same for scalars."""
    if real is float:
        sum_vectors(
            p, at, <f32v*>dw, <const f32v*>v, <const f32v*>dy, outputs, taps
        )
    else:
        sum_vectors(
            p, at, <f64v*>dw, <const f64v*>v, <const f64v*>dy, outputs, taps
        )


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


cdef void patches(
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


cdef void fetch_rows(
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


cdef void start_rows(
    const Local* p, const Block* at, const real* bias, Py_ssize_t oy, Py_ssize_t o,
    Py_ssize_t outputs, real* sums,
) noexcept nogil:
    """Let sums of y begin with the bias, or with 0."""
    cdef Py_ssize_t j, n
    memset(sums, 0, outputs * p.plane * sizeof(real))
    if bias != NULL:
        for j in range(outputs):
            for n in range(at.samples):
                copy(
                    sums + j * p.plane + n * p.row,
                    bias + ((o + j) * p.oh + oy) * p.ow + at.x, at.columns,
                )


cdef void put_rows(
    const Local* p, const Block* at, const real* sums, Py_ssize_t oy, Py_ssize_t o,
    Py_ssize_t outputs, real* y,
) noexcept nogil:
    """Write sums to y."""
    cdef Py_ssize_t j, n
    for j in range(outputs):
        for n in range(at.samples):
            copy(
                y + (((at.n + n) * p.oc + o + j) * p.oh + oy) * p.ow + at.x,
                sums + j * p.plane + n * p.row, at.columns,
            )


cdef inline Py_ssize_t weight_at(
    const Local* p, Py_ssize_t oy, Py_ssize_t ky, Py_ssize_t c, Py_ssize_t o
) noexcept nogil:
    """Give the place of the weights of a row and a pair of channels."""
    return (((oy * p.kh + ky) * p.ic + c) * p.oc + o) * p.kw * p.ow


cdef inline Block block_of(const Local* p, Py_ssize_t n, Py_ssize_t x) noexcept nogil:
    """Give the samples from n on and the columns from x on."""
    cdef Block at
    at.n, at.samples = n, min(p.samples, <Py_ssize_t>p.c.n - n)
    at.x, at.columns = x, min(p.columns, p.ow - x)
    return at


cdef void sums_of(
    const Local* p, const Block* at, Py_ssize_t c, Py_ssize_t inputs, Py_ssize_t outputs,
    Py_ssize_t taps, const real* w, const real* left, real* right,
) noexcept nogil:
    """Add to the sums of y what some channels of x give, from c on."""
    cdef Terms t
    cdef Py_ssize_t whole = p.ic * p.oc * p.kw * p.ow  # weights of a row of kernels
    t.outer, t.inner = inputs, taps
    t.w_row = p.kw * p.ow
    t.w_outer, t.w_inner = p.oc * t.w_row, p.ow
    t.v_outer, t.v_inner, t.v_sample = p.input, p.tap, p.seen
    t.sum_row, t.sum_sample = p.plane, p.row
    add_rows(
        &t, at, right, w, left, outputs,
        inputs * t.w_outer if c + inputs < p.ic else whole - c * t.w_outer,
    )


cdef void outputs_of(
    const Local* p, const Block* at, Py_ssize_t oy, Py_ssize_t o, Py_ssize_t outputs,
    const real* x, const real* w, const real* dy, real* dw, real* left, real* right,
) noexcept nogil:
    """Add to the sums of y on the right; or, with dy, write rows of dw."""
    cdef Py_ssize_t ky, tap, taps, c, i, inputs, iy, first
    for ky in range(p.kh):
        iy = oy * p.c.stride[1] + ky * p.c.dilation[1] - p.c.pad[1]
        tap = 0
        while tap < p.kw:
            taps = min(p.taps, p.kw - tap)
            c = 0
            while c < p.ic:
                inputs = min(p.inputs, p.ic - c)
                patches(p, at, x, iy, c, inputs, tap, taps, left)
                first = weight_at(p, oy, ky, c, o) + tap * p.ow + at.x
                if dw == NULL:
                    sums_of(p, at, c, inputs, outputs, taps, w + first, left, right)
                else:
                    for i in range(inputs):
                        sum_rows(
                            p, at, dw + first + i * p.oc * p.kw * p.ow,
                            left + i * p.input, right, outputs, taps,
                        )
                c += inputs
            tap += taps


cdef void output_task(
    const Local* p, Py_ssize_t task, const real* x, const real* w, const real* bias,
    real* y, const real* dy, real* dw, real* scratch,
) noexcept nogil:
    """Write some channels and columns of a row of y; or, with dy, the dw of them."""
    cdef Py_ssize_t o_blocks = ceil_div(p.oc, p.outputs)
    cdef Py_ssize_t x_blocks = ceil_div(p.ow, p.columns)
    cdef Py_ssize_t rest = task // o_blocks, oy = rest // x_blocks, n = 0
    cdef Py_ssize_t o = (task - rest * o_blocks) * p.outputs
    cdef Py_ssize_t outputs = min(p.outputs, p.oc - o)
    cdef real* right = scratch + p.left
    cdef Block at
    while n < p.c.n:
        at = block_of(p, n, (rest - oy * x_blocks) * p.columns)
        if dw == NULL:
            start_rows(p, &at, bias, oy, o, outputs, right)
        else:
            fetch_rows(p, &at, dy, oy, o, outputs, right)
        outputs_of(p, &at, oy, o, outputs, x, w, dy, dw, scratch, right)
        if dw == NULL:
            put_rows(p, &at, right, oy, o, outputs, y)
        n += p.samples


cdef inline void spread(
    const Local* p, const Block* at, const Span* s, const real* sums, real* dx
) noexcept nogil:
    """Add the sums of one tap to a row of dx, where its windows see it."""
    cdef Py_ssize_t i, stride = p.c.stride[2]
    if stride == 1:
        for i in range(s.begin, s.end):
            dx[i + s.off] += sums[i - at.x]
        return
    for i in range(s.begin, s.end):
        dx[i * stride + s.off] += sums[i - at.x]


cdef void spread_all(
    const Local* p, const Block* at, Py_ssize_t iy, Py_ssize_t c, Py_ssize_t inputs,
    Py_ssize_t tap, Py_ssize_t taps, const real* left, real* dx,
) noexcept nogil:
    """Add the sums of some taps to a row of some channels of dx."""
    cdef Py_ssize_t i, k, n
    cdef Span[TAPS] spans
    cdef real* row
    for k in range(taps):
        spans[k] = span_of(p, at, tap + k)
    for n in range(at.samples):
        for i in range(inputs):
            row = dx + (((at.n + n) * p.ic + c + i) * p.ih + iy) * p.iw
            for k in range(taps):
                spread(
                    p, at, &spans[k], left + (i * p.taps + k) * p.plane + n * p.row, row
                )


cdef void inputs_of(
    const Local* p, const Block* at, Py_ssize_t iy, Py_ssize_t c, Py_ssize_t inputs,
    Py_ssize_t tap, Py_ssize_t taps, const real* dy, const real* w, real* left,
    real* right,
) noexcept nogil:
    """Sum on the left, for each tap, what the windows of a row of x give."""
    cdef Py_ssize_t ky, oy, way, o, outputs, i
    cdef Terms t
    t.outer, t.w_outer, t.v_outer = 1, 0, 0
    t.w_row, t.w_inner = p.ow, p.kw * p.ow
    t.v_inner, t.v_sample = p.plane, p.row
    t.sum_row, t.sum_sample = p.plane, p.row
    memset(left, 0, inputs * p.taps * p.plane * sizeof(real))
    for ky in range(p.kh):
        way = iy + p.c.pad[1] - ky * p.c.dilation[1]
        oy = way // p.c.stride[1]
        if way < 0 or oy >= p.oh or oy * p.c.stride[1] != way:
            continue
        o = 0
        while o < p.oc:
            outputs = min(p.outputs, p.oc - o)
            fetch_rows(p, at, dy, oy, o, outputs, right)
            t.inner = outputs
            for i in range(inputs):
                add_rows(
                    &t, at, left + i * p.taps * p.plane,
                    w + weight_at(p, oy, ky, c + i, o) + tap * p.ow + at.x, right, taps,
                    p.oc * p.kw * p.ow,
                )
            o += outputs


cdef void input_task(
    const Local* p, Py_ssize_t task, const real* dy, const real* w, real* dx,
    real* scratch,
) noexcept nogil:
    """Write a row of some channels of dx."""
    cdef Py_ssize_t blocks = ceil_div(p.ic, p.inputs)
    cdef Py_ssize_t iy = task // blocks, n = 0, x, tap, taps, i, m
    cdef Py_ssize_t c = (task - iy * blocks) * p.inputs
    cdef Py_ssize_t inputs = min(p.inputs, p.ic - c)
    cdef real* row
    cdef Block at
    for m in range(p.c.n):
        for i in range(inputs):
            row = dx + ((m * p.ic + c + i) * p.ih + iy) * p.iw
            memset(row, 0, p.iw * sizeof(real))
    while n < p.c.n:
        x = 0
        while x < p.ow:
            at = block_of(p, n, x)
            tap = 0
            while tap < p.kw:
                taps = min(p.taps, p.kw - tap)
                inputs_of(
                    p, &at, iy, c, inputs, tap, taps, dy, w, scratch, scratch + p.left
                )
                spread_all(p, &at, iy, c, inputs, tap, taps, scratch, dx)
                tap += taps
            x += p.columns
        n += p.samples


cdef int output_tasks(
    const Local* p, const real* x, const real* w, const real* bias, real* y,
    const real* dy, real* dw, real* scratch, int threads,
) except -1:
    """Do all rounds of y, or of dw."""
    cdef Py_ssize_t tasks = p.oh * ceil_div(p.ow, p.columns) * ceil_div(p.oc, p.outputs)
    cdef Py_ssize_t macs = p.c.n * p.outputs * p.columns * p.ic * p.kh * p.kw
    cdef Py_ssize_t begin = 0, end, i, size = p.left + p.right
    while begin < tasks:
        end = min(begin + round_of(macs, 1, threads), tasks)
        with nogil:
            for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
                output_task(p, i, x, w, bias, y, dy, dw, scratch + threadid() * size)
        PyErr_CheckSignals()
        begin = end
    return 0


cdef int input_tasks(
    const Local* p, const real* dy, const real* w, real* dx, real* scratch, int threads
) except -1:
    """Do all rounds of dx."""
    cdef Py_ssize_t tasks = p.ih * ceil_div(p.ic, p.inputs)
    cdef Py_ssize_t macs = p.c.n * p.oc * p.ow * p.inputs * p.kh * p.kw
    cdef Py_ssize_t begin = 0, end, i, size = p.left + p.right
    while begin < tasks:
        end = min(begin + round_of(macs, 1, threads), tasks)
        with nogil:
            for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
                input_task(p, i, dy, w, dx, scratch + threadid() * size)
        PyErr_CheckSignals()
        begin = end
    return 0


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


cdef inline Py_ssize_t spread_over(
    Py_ssize_t extent, Py_ssize_t size, Py_ssize_t others, int threads
) noexcept nogil:
    """Make blocks smaller until there are some for each thread, beside `others`."""
    cdef Py_ssize_t wanted = ceil_div(TASKS_PER_THREAD * threads, others)
    return min(size, block(extent, ceil_div(extent, wanted)))


cdef int run_one(const Buffers* held, int threads, real* like) except -1:
    """Check the arrays of a direction, and write its result."""
    cdef const long long* sizes = geometry_of(held, CONV_FIELDS + 1)
    cdef Local p = local_of((<const Conv*>sizes)[0])
    cdef int direction = sizes[CONV_FIELDS]
    cdef Py_ssize_t x_size = p.c.n * p.ic * p.ih * p.iw
    cdef Py_ssize_t y_size = p.c.n * p.oc * p.oh * p.ow
    cdef Py_ssize_t w_size = weight_at(&p, p.oh, 0, 0, 0)
    cdef const real* first = reals(held, 1, y_size if direction == DGRAD else x_size, like)
    cdef const real* second = reals(held, 2, y_size if direction == WGRAD else w_size, like)
    cdef const real* bias = reals_or_nothing(held, 3, p.oc * p.oh * p.ow, like)
    cdef real* scratch = room(held, 5, threads * (p.left + p.right), like)
    cdef real* to
    if p.c.g != 1 or p.c.out_extent[0] * p.c.kernel[0] * p.c.in_extent[0] != 1:
        raise ValueError("kernel: not the geometry of a locally connected layer")
    if direction == DGRAD:
        to = reals(held, 4, x_size, like)
        if threads > 1:
            p.inputs = spread_over(p.ic, p.inputs, p.ih, threads)
        return input_tasks(&p, first, second, to, scratch, threads)
    to = reals(held, 4, w_size if direction == WGRAD else y_size, like)
    if threads > 1:
        p.outputs = spread_over(p.oc, p.outputs, p.oh, threads)
    if direction == WGRAD and p.c.n == 0:
        memset(to, 0, w_size * sizeof(real))
        return 0
    if direction == WGRAD:
        return output_tasks(
            &p, first, <real*>NULL, <real*>NULL, <real*>NULL, second, to, scratch, threads
        )
    return output_tasks(
        &p, first, second, bias, to, <real*>NULL, <real*>NULL, scratch, threads
    )


def scratch_scalars(geometry):
    """Give the scalars of scratch that each thread needs."""
    cdef Local p = local_of(conv_of(geometry, 1))
    return p.left + p.right


def run(geometry, first, second, bias, to, scratch, int threads):
    """Write y from x and weight, dx from dy and weight, or dw from x and dy.

    The last integer behind the geometry is the direction: 0, 1 or 2. One function for all:
    what Cython makes of a list of arguments is as long as the loops.
    """
    call(
        (geometry, first, second, bias), (to, scratch), threads, run_one[float],
        run_one[double],
    )
