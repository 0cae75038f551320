# Local response normalisation over channels, and its gradient.
#
# What      y[c] = x[c] * t[c]**-beta,  t[c] = k + alpha / size * sum(x[i]**2 over window c)
#           dx[c] = g[c] * t[c]**-beta - 2 * alpha * beta / size * x[c] * sum of
#                   g[i] * x[i] * t[i]**(-beta - 1) over the i whose windows hold c
# Layout    x (n, c, plane); window c is c - size // 2 .. c + (size - 1) // 2, less what is
#           outside. A task goes through all channels of a block of pixels:
#
#             channel 0   ........|BLOCK|........      lanes over pixels: the rows of a
#                     1   ........|     |........      window are in L1
#                     2   ........|     |........
#
#           The gradient keeps the terms of the last `size` channels in a ring.
# Assumes   buffers of the sizes that the geometry tells.
# Parallel  over samples and blocks: each is written by one task.
# Scratch   lent, for the gradient: a ring for each thread, at most 1 MB.
# Cost      memory: x once and y once; g, x and dx once (and dx again in L2). A window is
#           summed anew for each channel, from L1: `size` loads a vector.
# Why not   A running sum: it would keep what was left of large values after they have left.
# Source    Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional
#           Neural Networks, NeurIPS 2012, section 3.3.

from cython.parallel cimport prange, threadid
from libc.float cimport FLT_MAX, FLT_MIN
from libc.math cimport isfinite, pow, sqrt, sqrtf

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport Buffers, call_as, from_bits, geometry_of, reals, room
from convcore.kernels.finite cimport is_zero
from convcore.kernels.moments cimport lanes_of, load, store
from convcore.kernels.powers cimport power_34
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    ahead, all_lanes, cc_fetch_far, f32v, f64v, real, vec,
)
from convcore.kernels.vector_power cimport Exponent, exponent_of, power_of

cdef enum:
    FIELDS = 7  # n, c, plane, size, and the bits of alpha, beta and k
    BLOCK = 1024  # pixels of a task
    AHEAD = 4  # channels behind a window whose pixels are asked for
    RING = 131072  # scalars of a ring, if a window is not larger by itself
    SLOW = 0  # kinds of powers: of any t, one by one
    QUARTERS = 1  # beta 3/4, and for what is not finite one by one
    HALF = 2  # beta 1/2, alike
    INVERSE = 3  # beta 1
    ANY = 4

cdef struct Local:
    Py_ssize_t n, c, plane, size, before, after  # channels of a window around its own
    Py_ssize_t block, blocks, ring  # pixels of a task; tasks of a sample; rows of a ring
    double scale, beta, k
    int kind  # how powers are taken where every finite t is a normal number above 0
    Exponent lower  # -beta


cdef Local local_for(Py_ssize_t n, Py_ssize_t c, Py_ssize_t plane, Py_ssize_t size) noexcept nogil:
    """Decide how pixels are parted."""
    cdef Local s
    s.n, s.c, s.plane, s.size = n, c, plane, size
    s.before, s.after = min(size // 2, c), min((size - 1) // 2, c)
    s.ring = min(s.before + s.after + 1, c)
    s.block = max(16, min(min(BLOCK, RING // s.ring), plane))
    s.blocks = (plane - 1) // s.block + 1
    s.scale = s.beta = s.k = 0
    s.kind = SLOW
    s.lower = exponent_of(0, 0, False)
    return s


cdef Local local_of(const Buffers* held, bint single) except *:
    """Read the geometry."""
    cdef const long long* fields = geometry_of(held, FIELDS)
    cdef Local s
    if fields[0] < 0 or fields[1] < 1 or fields[2] < 1 or fields[3] < 1:
        raise ValueError("kernel: extents must be positive")
    s = local_for(fields[0], fields[1], fields[2], fields[3])
    s.scale, s.beta, s.k = from_bits(fields[4]) / s.size, from_bits(fields[5]), from_bits(fields[6])
    s.lower = exponent_of(-s.beta, 0, single)
    if s.scale >= 0 and FLT_MIN <= s.k <= FLT_MAX:
        s.kind = (
            QUARTERS if s.beta == 0.75 else HALF if s.beta == 0.5 else
            INVERSE if s.beta == 1 else ANY
        )
    return s


cdef inline vec window_sum(
    const vec* x, Py_ssize_t plane, Py_ssize_t rows, Py_ssize_t n
) noexcept nogil:
    """Sum the squares of so many rows, for n pixels."""
    cdef vec u, v = all_lanes(x, 0)
    cdef Py_ssize_t _row
    for _row in range(rows):
        u = load(x, n)
        v = v + u * u
        x = ahead(x, plane)
    return v


cdef inline Py_ssize_t window_of(
    const Local* s, Py_ssize_t channel, Py_ssize_t* rows
) noexcept nogil:
    """Give the first channel of a window, and their number."""
    cdef Py_ssize_t first = max(0, channel - s.before)
    rows[0] = min(s.c, channel + s.after + 1) - first
    return first


cdef inline real root(real v) noexcept nogil:
    """Give the square root."""
    if real is float:
        return sqrtf(v)
    else:
        return sqrt(v)


cdef inline void any_powers(
    const vec* t, vec* p, Py_ssize_t n, const Exponent* e
) noexcept nogil:
    """Write powers of n numbers above 0."""
    cdef Py_ssize_t j = 0
    while j < n:
        store(<vec*>ahead(p, j), power_of(load(ahead(t, j), n - j), e), n - j)
        j += lanes_of(t)


cdef inline void powers(
    const real* t, real* p, Py_ssize_t n, double beta, const Exponent* e
) noexcept nogil:
    """Write t**-beta, whatever t is."""
    cdef Py_ssize_t j
    if beta == 0.75:
        for j in range(n):
            p[j] = 1 / (root(t[j]) * root(root(t[j])))
    elif beta == 0.5:
        for j in range(n):
            p[j] = 1 / root(t[j])
    elif beta == 1:
        for j in range(n):
            p[j] = 1 / t[j]
    else:
        if real is float:
            any_powers(<const f32v*>t, <f32v*>p, n, e)
        else:
            any_powers(<const f64v*>t, <f64v*>p, n, e)
        for j in range(n):
            if t[j] <= 0:
                p[j] = <real>pow(t[j], -beta)


cdef void windows(
    const Local* s, const vec* x, vec* t, Py_ssize_t channel, Py_ssize_t n
) noexcept nogil:
    """Write t of a channel, for n pixels; x begins with those of channel 0."""
    cdef Py_ssize_t rows, j = 0, lanes = lanes_of(x)
    cdef const vec* first = ahead(x, window_of(s, channel, &rows) * s.plane)
    cdef vec a = all_lanes(x, s.scale), b = all_lanes(x, s.k)
    while j < n:
        store(
            <vec*>ahead(t, j),
            window_sum(ahead(first, j), s.plane, rows, n - j) * a + b, n - j,
        )
        j += lanes


cdef inline void two_windows(
    const vec* x, Py_ssize_t plane, Py_ssize_t rows, vec* sums
) noexcept nogil:
    """Sum the squares of so many rows, for two vectors of pixels."""
    cdef vec u, v = all_lanes(x, 0), w = all_lanes(x, 0)
    cdef Py_ssize_t _row, lanes = lanes_of(x)
    for _row in range(rows):
        u = x[0]
        v = v + u * u
        u = ahead(x, lanes)[0]
        w = w + u * u
        x = ahead(x, plane)
    sums[0], sums[1] = v, w


cdef inline vec lowered(vec t, int kind, const Local* s) noexcept nogil:
    """Give t**-beta."""
    cdef vec p
    if kind == QUARTERS:
        return power_34(t)
    if kind == HALF:
        p = power_34(t)
        return (t * p) * p
    if kind == INVERSE:
        return all_lanes(&t, 1) / t
    return power_of(t, &s.lower)


cdef inline bint respond(
    const Local* s, int kind, const vec* x, vec* y, Py_ssize_t channel, Py_ssize_t n
) noexcept nogil:
    """Write n pixels of a channel of y; tell whether one is left, as its t is not finite."""
    cdef Py_ssize_t rows, j = 0, lanes = lanes_of(x), plane = s.plane
    cdef Py_ssize_t soon = (s.after + AHEAD) * plane
    cdef const vec* first = ahead(x, window_of(s, channel, &rows) * plane)
    cdef vec zero = all_lanes(x, 0)
    cdef vec a = all_lanes(x, s.scale), b = all_lanes(x, s.k), odd = zero
    cdef vec[2] t
    cdef int k
    x = ahead(x, channel * plane)
    y = <vec*>ahead(y, channel * plane)
    while n - j >= 2 * lanes:
        two_windows(ahead(first, j), plane, rows, t)
        for k in range(2):
            cc_fetch_far(ahead(x, j + soon))
            cc_fetch_far(ahead(y, j + AHEAD * plane))
            t[k] = t[k] * a + b
            odd = odd + t[k] * zero
            (<vec*>ahead(y, j))[0] = ahead(x, j)[0] * lowered(t[k], kind, s)
            j += lanes
    while j < n:
        t[0] = window_sum(ahead(first, j), plane, rows, n - j) * a + b
        odd = odd + t[0] * zero
        store(<vec*>ahead(y, j), load(ahead(x, j), n - j) * lowered(t[0], kind, s), n - j)
        j += lanes
    return kind <= HALF and not is_zero(odd)


cdef inline vec terms_at(
    const Local* s, int kind, const vec* g, const vec* x, vec* dx, vec* row, vec t, Py_ssize_t n
) noexcept nogil:
    """Write g * p to dx and g * x * p / t to the row, p = t**-beta; give t."""
    cdef vec p = lowered(t, kind, s), r = p
    if kind == QUARTERS:
        r = (t * p) * p  # the root of 1 / t
        r = r * r
    elif kind == HALF:
        r = p * p
    elif kind == ANY:
        r = all_lanes(x, 1) / t
    p = p * load(g, n)
    store(dx, p, n)
    store(row, (p * load(x, n)) * r, n)
    return t


cdef inline bint respond_back(
    const Local* s, int kind, const vec* g, const vec* x, vec* dx, vec* row,
    Py_ssize_t channel, Py_ssize_t n,
) noexcept nogil:
    """Write g * t**-beta to dx and the terms g * x * t**(-beta - 1)."""
    cdef Py_ssize_t rows, j = 0, lanes = lanes_of(x), plane = s.plane
    cdef Py_ssize_t soon = (s.after + AHEAD) * plane
    cdef const vec* first = ahead(x, window_of(s, channel, &rows) * plane)
    cdef vec zero = all_lanes(x, 0)
    cdef vec a = all_lanes(x, s.scale), b = all_lanes(x, s.k), odd = zero
    cdef vec[2] t
    cdef int k
    x, g = ahead(x, channel * plane), ahead(g, channel * plane)
    dx = <vec*>ahead(dx, channel * plane)
    while n - j >= 2 * lanes:
        two_windows(ahead(first, j), plane, rows, t)
        for k in range(2):
            cc_fetch_far(ahead(x, j + soon))
            cc_fetch_far(ahead(dx, j + AHEAD * plane))
            cc_fetch_far(ahead(g, j + AHEAD * plane))
            t[k] = terms_at(
                s, kind, ahead(g, j), ahead(x, j), <vec*>ahead(dx, j), <vec*>ahead(row, j),
                t[k] * a + b, lanes,
            )
            odd = odd + t[k] * zero
            j += lanes
    while j < n:
        t[0] = terms_at(
            s, kind, ahead(g, j), ahead(x, j), <vec*>ahead(dx, j), <vec*>ahead(row, j),
            window_sum(ahead(first, j), plane, rows, n - j) * a + b, n - j,
        )
        odd = odd + t[0] * zero
        j += lanes
    return kind <= HALF and not is_zero(odd)


cdef bint respond_as(
    const Local* s, const vec* x, vec* y, Py_ssize_t channel, Py_ssize_t n
) noexcept nogil:
    """Do `respond`, with a loop of its own for each kind of power."""
    if s.kind == QUARTERS:
        return respond(s, QUARTERS, x, y, channel, n)
    if s.kind == HALF:
        return respond(s, HALF, x, y, channel, n)
    if s.kind == INVERSE:
        return respond(s, INVERSE, x, y, channel, n)
    return s.kind == ANY and respond(s, ANY, x, y, channel, n)


cdef bint respond_back_as(
    const Local* s, const vec* g, const vec* x, vec* dx, vec* row, Py_ssize_t channel,
    Py_ssize_t n,
) noexcept nogil:
    """Do `respond_back`, with a loop of its own for each kind of power."""
    if s.kind == QUARTERS:
        return respond_back(s, QUARTERS, g, x, dx, row, channel, n)
    if s.kind == HALF:
        return respond_back(s, HALF, g, x, dx, row, channel, n)
    if s.kind == INVERSE:
        return respond_back(s, INVERSE, g, x, dx, row, channel, n)
    return s.kind == ANY and respond_back(s, ANY, g, x, dx, row, channel, n)


cdef void respond_anyhow(
    const Local* s, const real* g, const real* x, real* out, real* row, Py_ssize_t channel,
    Py_ssize_t n, bint odd,
) noexcept nogil:
    """Write the same, or y if there is no g, for any beta, or only where t is not finite."""
    cdef real[BLOCK] t
    cdef real[BLOCK] p
    cdef Py_ssize_t j
    if real is float:
        windows(s, <const f32v*>x, <f32v*>t, channel, n)
    else:
        windows(s, <const f64v*>x, <f64v*>t, channel, n)
    powers(<const real*>t, p, n, s.beta, &s.lower)
    x += channel * s.plane
    out += channel * s.plane
    for j in range(n):
        if odd and isfinite(t[j]):
            continue
        if g == NULL:
            out[j] = x[j] * p[j]
        else:
            out[j] = g[channel * s.plane + j] * p[j]
            row[j] = out[j] * x[j] / t[j]


cdef void forward_block(
    const Local* s, const real* x, real* y, Py_ssize_t n
) noexcept nogil:
    """Write n pixels of all channels of y."""
    cdef Py_ssize_t channel
    cdef bint odd = False
    for channel in range(s.c):
        if real is float:
            odd = respond_as(s, <const f32v*>x, <f32v*>y, channel, n)
        else:
            odd = respond_as(s, <const f64v*>x, <f64v*>y, channel, n)
        if odd or s.kind == SLOW:
            respond_anyhow(s, <const real*>NULL, x, y, <real*>NULL, channel, n, odd)


cdef inline void take_others(
    const Local* s, const vec* x, const vec* ring, vec* dx, Py_ssize_t channel, Py_ssize_t n
) noexcept nogil:
    """Take from dx of a channel what it does to the windows that hold it."""
    cdef Py_ssize_t first = max(0, channel - s.after), last = min(s.c, channel + s.before + 1)
    cdef Py_ssize_t j = 0, i, turn = min(last, first - first % s.ring + s.ring)
    cdef Py_ssize_t lanes = lanes_of(x), before = turn - first, after = last - turn
    cdef const vec* one = ahead(ring, first % s.ring * s.block)
    cdef vec a = all_lanes(x, 2 * s.scale * s.beta), v
    while n - j >= lanes:
        v = all_lanes(x, 0)
        for i in range(before):
            v = v + ahead(one, i * s.block + j)[0]
        for i in range(after):
            v = v + ahead(ring, i * s.block + j)[0]
        (<vec*>ahead(dx, j))[0] = ahead(dx, j)[0] - (a * ahead(x, j)[0]) * v
        j += lanes
    if j < n:
        v = all_lanes(x, 0)
        for i in range(before):
            v = v + load(ahead(one, i * s.block + j), n - j)
        for i in range(after):
            v = v + load(ahead(ring, i * s.block + j), n - j)
        v = load(ahead(<const vec*>dx, j), n - j) - (a * load(ahead(x, j), n - j)) * v
        store(<vec*>ahead(dx, j), v, n - j)


cdef inline void finish_channel(
    const Local* s, const real* x, const real* ring, real* dx, Py_ssize_t channel, Py_ssize_t n
) noexcept nogil:
    """Do so for the type of x; x and dx begin with channel 0."""
    cdef Py_ssize_t at = channel * s.plane
    if real is float:
        take_others(s, <const f32v*>(x + at), <const f32v*>ring, <f32v*>(dx + at), channel, n)
    else:
        take_others(s, <const f64v*>(x + at), <const f64v*>ring, <f64v*>(dx + at), channel, n)


cdef void backward_block(
    const Local* s, const real* g, const real* x, real* dx, real* ring, Py_ssize_t n
) noexcept nogil:
    """Write n pixels of all channels of dx."""
    cdef real* row
    cdef Py_ssize_t channel
    cdef bint odd = False
    for channel in range(s.c):
        row = ring + channel % s.ring * s.block
        if real is float:
            odd = respond_back_as(
                s, <const f32v*>g, <const f32v*>x, <f32v*>dx, <f32v*>row, channel, n
            )
        else:
            odd = respond_back_as(
                s, <const f64v*>g, <const f64v*>x, <f64v*>dx, <f64v*>row, channel, n
            )
        if odd or s.kind == SLOW:
            respond_anyhow(s, g, x, dx, row, channel, n, odd)
        if channel >= s.before:
            finish_channel(s, x, <const real*>ring, dx, channel - s.before, n)
    for channel in range(max(0, s.c - s.before), s.c):
        finish_channel(s, x, <const real*>ring, dx, channel, n)


cdef void local_task(
    const Local* s, const real* g, const real* x, real* out, real* ring, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write blocks begin .. end of y, or of dx if there is a g."""
    cdef Py_ssize_t i, sample, at, n
    for i in range(begin, end):
        sample = i // s.blocks
        at = (i - sample * s.blocks) * s.block
        n = min(s.block, s.plane - at)
        at += sample * s.c * s.plane
        if g == NULL:
            forward_block(s, x + at, out + at, n)
        else:
            backward_block(s, g + at, x + at, out + at, ring, n)


cdef void local_tasks(
    const Local* s, const Rounds* tasks, const real* g, const real* x, real* out, real* rings,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        local_task(s, g, x, out, rings, first_piece(tasks, begin), first_piece(tasks, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        local_task(
            s, g, x, out, rings + threadid() * s.ring * s.block, first_piece(tasks, i),
            first_piece(tasks, i + 1),
        )


cdef int run(
    const Local* s, const real* g, const real* x, real* out, real* rings, int threads
) except -1:
    """Write y, or dx if there is a g, in rounds."""
    cdef Py_ssize_t work = s.block * s.c * (8 + s.size)
    cdef Rounds tasks = rounds(s.n * s.blocks, work, threads)
    cdef Py_ssize_t begin = 0, end
    while begin < tasks.tasks:
        end = min(begin + tasks.step, tasks.tasks)
        with nogil:
            local_tasks(s, &tasks, g, x, out, rings, begin, end, threads)
        look()
        begin = end
    return 0


cdef int forward_call(const Buffers* held, int threads, real* like) except -1:
    """Check the arrays, and run."""
    cdef Local s = local_of(held, real is float)
    cdef Py_ssize_t size = s.n * s.c * s.plane
    cdef const real* x = reals(held, 1, size, like)
    cdef real* y = reals(held, 2, size, like)
    return run(&s, <const real*>NULL, x, y, <real*>NULL, threads)


cdef int backward_call(const Buffers* held, int threads, real* like) except -1:
    """Check the arrays, and run."""
    cdef Local s = local_of(held, real is float)
    cdef Py_ssize_t size = s.n * s.c * s.plane
    cdef const real* g = reals(held, 1, size, like)
    cdef const real* x = reals(held, 2, size, like)
    cdef real* dx = reals(held, 3, size, like)
    cdef real* rings = room(held, 4, threads * s.ring * s.block, like)
    return run(&s, g, x, dx, rings, threads)


def scratch_size(Py_ssize_t n, Py_ssize_t c, Py_ssize_t plane, Py_ssize_t size, /):
    """Count the bytes of scratch that the gradient needs for each thread."""
    cdef Local s = local_for(n, c, plane, size)
    return s.ring * s.block * sizeof(double)


def forward(sizes, x, y, int threads, /):
    """Write y."""
    call_as((sizes, x), (y,), threads, forward_call[float], forward_call[double], 1)


def backward(sizes, g, x, dx, scratch, int threads, /):
    """Write dx."""
    call_as(
        (sizes, g, x), (dx, scratch), threads, backward_call[float], backward_call[double], 1
    )
