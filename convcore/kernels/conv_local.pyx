# Locally connected layers: a convolution with weights of its own at every output.
#
# What      y[n, o, oy, ox]  = b[o, oy, ox] + sum over (ky, c, kx) of w * x[n, c, iy, ix]
#           dx[n, c, iy, ix] = sum over (oy, o, ox) that see it of w * dy[n, o, oy, ox]
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
# Assumes   the geometry of a ConvProblem with one group and a depth of 1.
# Parallel  over rows of y, columns, and channels of y; dx over rows and channels of x:
#           each weight is read by one task, once for a block of samples.
# Scratch   3 MB at most.
# Cost      the weights, once for 16 samples: they are the largest array by far. Up to 4
#           samples memory takes most of the time, then the sums and the patches do.
# Why not   Weights (oh, ow, oc, ic kh kw) and dot products: dx then adds where other rows
#           add, too, and lanes are empty for few channels.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.buffers cimport Buffers, call, reals, reals_or_nothing, room
from convcore.kernels.elements cimport lanes_of
from convcore.kernels.geometry cimport conv_of
from convcore.kernels.local cimport (
    TAPS, Block, Local, Part, Span, alone, block, block_of, fetch_rows, four, group,
    group_of, local_held, local_of, part_of, parts_of, patches, rows, rows_of, several,
    single, some, span_of, spread_over, three, two, weight_at,
)
from convcore.kernels.rounds cimport ceil_div, round_of
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    MR_QUARTER, ahead, cc_fetch, copy, f32v, f64v, real, vec,
)

cdef struct Terms:  # of sums: scalars from one to the next
    Py_ssize_t outer, inner  # how many
    Py_ssize_t w_outer, w_inner, w_row  # of weights, and to those of the next row of sums
    Py_ssize_t v_outer, v_inner, v_sample  # of what they are multiplied by
    Py_ssize_t sum_row, sum_sample


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
    const real* x, const real* w, real* left, real* right,
) noexcept nogil:
    """Add to the sums of y on the right."""
    cdef Py_ssize_t ky, tap, taps, c, inputs, iy, first
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
                sums_of(p, at, c, inputs, outputs, taps, w + first, left, right)
                c += inputs
            tap += taps


cdef void output_task(
    const Local* p, Py_ssize_t task, const real* x, const real* w, const real* bias,
    real* y, real* scratch,
) noexcept nogil:
    """Write some channels and columns of a row of y."""
    cdef Py_ssize_t n = 0
    cdef Part of = part_of(p, task)
    cdef real* right = scratch + p.left
    cdef Block at
    while n < p.c.n:
        at = block_of(p, n, of.x)
        start_rows(p, &at, bias, of.oy, of.o, of.outputs, right)
        outputs_of(p, &at, of.oy, of.o, of.outputs, x, w, scratch, right)
        put_rows(p, &at, right, of.oy, of.o, of.outputs, y)
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
    const Local* p, const real* x, const real* w, const real* bias, real* y, real* scratch,
    int threads,
) except -1:
    """Do all rounds of y."""
    cdef Py_ssize_t macs = p.c.n * p.outputs * p.columns * p.ic * p.kh * p.kw
    cdef Py_ssize_t begin = 0, end, i, size = p.left + p.right, tasks = parts_of(p)
    while begin < tasks:
        end = min(begin + round_of(macs, 1, threads), tasks)
        with nogil:
            for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
                output_task(p, i, x, w, bias, y, scratch + threadid() * size)
        look()
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
        look()
        begin = end
    return 0


cdef int forward(const Buffers* held, int threads, real* like) except -1:
    """Check the arrays, and write y."""
    cdef Local p = local_held(held)
    cdef const real* x = reals(held, 1, p.x_size, like)
    cdef const real* w = reals(held, 2, p.w_size, like)
    cdef const real* bias = reals_or_nothing(held, 3, p.oc * p.oh * p.ow, like)
    cdef real* y = reals(held, 4, p.y_size, like)
    cdef real* scratch = room(held, 5, threads * (p.left + p.right), like)
    if threads > 1:
        p.outputs = spread_over(p.oc, p.outputs, p.oh, threads)
    return output_tasks(&p, x, w, bias, y, scratch, threads)


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Check the arrays, and write dx."""
    cdef Local p = local_held(held)
    cdef const real* dy = reals(held, 1, p.y_size, like)
    cdef const real* w = reals(held, 2, p.w_size, like)
    cdef real* dx = reals(held, 3, p.x_size, like)
    cdef real* scratch = room(held, 4, threads * (p.left + p.right), like)
    if threads > 1:
        p.inputs = spread_over(p.ic, p.inputs, p.ih, threads)
    return input_tasks(&p, dy, w, dx, scratch, threads)


def scratch_scalars(geometry, /):
    """Give the scalars of scratch that each thread needs, in any direction."""
    cdef Local p = local_of(conv_of(geometry, 1))
    return p.left + p.right


def fprop(geometry, x, weight, bias, y, scratch, int threads, /):
    """Write y; the bias may be None."""
    call((geometry, x, weight, bias), (y, scratch), threads, forward[float], forward[double])


def dgrad(geometry, dy, weight, dx, scratch, int threads, /):
    """Write dx."""
    call((geometry, dy, weight), (dx, scratch), threads, gradient[float], gradient[double])
