# Locally connected layers: the gradient of weights that every output has for itself.
#
# What      dw = sum over n of x[n, c, iy, ix] * dy[n, o, oy, ox]
#           with iy = sy oy + dy ky - py, and x zero outside.
# Layout    dw (oh, kh, ic, oc, kw, ow), as in conv_local.pyx. Scratch of a thread:
#
#               left    (channels of x, taps, samples, columns)  patches of x
#               right   (channels of y, samples, columns)        rows of dy
#
#           A tile of sums, four taps by four channels of y, stays in registers through the
#           samples of a block.
# Assumes   the geometry of a ConvProblem with one group and a depth of 1.
# Parallel  over rows of y, columns, and channels of y: each weight is written by one task,
#           once for a block of samples.
# Scratch   3 MB at most.
# Cost      the weights, once for 16 samples: they are the largest array by far.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.buffers cimport Buffers, call, reals, room
from convcore.kernels.elements cimport lanes_of
from convcore.kernels.local cimport (
    Block, Local, Part, alone, block, block_of, fetch_rows, four, group, group_of,
    local_held, part_of, parts_of, patches, rows, rows_of, several, single, some,
    spread_over, three, two, weight_at,
)
from convcore.kernels.rounds cimport round_of
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    MR_QUARTER, ahead, cc_fetch_to_write, f32v, f64v, put_part, real, vec, zero_lanes,
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


cdef void outputs_of(
    const Local* p, const Block* at, const Part* of, const real* x, const real* dy,
    real* dw, real* left,
) noexcept nogil:
    """Write rows of dw, or add to them, with rows of dy on the right."""
    cdef Py_ssize_t ky, tap, taps, c, i, inputs, iy, first
    for ky in range(p.kh):
        iy = of.oy * p.c.stride[1] + ky * p.c.dilation[1] - p.c.pad[1]
        tap = 0
        while tap < p.kw:
            taps = min(p.taps, p.kw - tap)
            c = 0
            while c < p.ic:
                inputs = min(p.inputs, p.ic - c)
                patches(p, at, x, iy, c, inputs, tap, taps, left)
                first = weight_at(p, of.oy, ky, c, of.o) + tap * p.ow + at.x
                for i in range(inputs):
                    sum_rows(
                        p, at, dw + first + i * p.oc * p.kw * p.ow, left + i * p.input, dy,
                        of.outputs, taps,
                    )
                c += inputs
            tap += taps


cdef void output_task(
    const Local* p, Py_ssize_t task, const real* x, const real* dy, real* dw, real* scratch
) noexcept nogil:
    """Write the dw of some channels and columns of a row of y."""
    cdef Py_ssize_t n = 0
    cdef Part of = part_of(p, task)
    cdef real* right = scratch + p.left
    cdef Block at
    while n < p.c.n:
        at = block_of(p, n, of.x)
        fetch_rows(p, &at, dy, of.oy, of.o, of.outputs, right)
        outputs_of(p, &at, &of, x, right, dw, scratch)
        n += p.samples


cdef int output_tasks(
    const Local* p, const real* x, const real* dy, real* dw, real* scratch, int threads
) except -1:
    """Do all rounds."""
    cdef Py_ssize_t macs = p.c.n * p.outputs * p.columns * p.ic * p.kh * p.kw
    cdef Py_ssize_t begin = 0, end, i, size = p.left + p.right, tasks = parts_of(p)
    while begin < tasks:
        end = min(begin + round_of(macs, 1, threads), tasks)
        with nogil:
            for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
                output_task(p, i, x, dy, dw, scratch + threadid() * size)
        look()
        begin = end
    return 0


cdef int run(const Buffers* held, int threads, real* like) except -1:
    """Check the arrays, and write dw."""
    cdef Local p = local_held(held)
    cdef const real* x = reals(held, 1, p.x_size, like)
    cdef const real* dy = reals(held, 2, p.y_size, like)
    cdef real* dw = reals(held, 3, p.w_size, like)
    cdef real* scratch = room(held, 4, threads * (p.left + p.right), like)
    if p.c.n == 0:
        memset(dw, 0, p.w_size * sizeof(real))
    if threads > 1:
        p.outputs = spread_over(p.oc, p.outputs, p.oh, threads)
    return output_tasks(&p, x, dy, dw, scratch, threads)


def wgrad(geometry, x, dy, dw, scratch, int threads, /):
    """Write dw; scratch as `conv_local.scratch_scalars` says."""
    call((geometry, x, dy), (dw, scratch), threads, run[float], run[double])
