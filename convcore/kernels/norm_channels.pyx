# Batch normalisation, and its gradient.
#
# What      y = (x - mean) * scale + bias, scale = weight / sqrt(var + eps), for each channel
#           dx = scale * (g - sum(g) / m - h * sum(g * h) / m),  h = (x - mean) / sqrt(...)
# Layout    x (n, c, rest); sums as channel_sums.pxd has them.
# Assumes   buffers of the sizes that the geometry tells.
# Parallel  over units for sums, over runs of channels, or rows of columns, for results: each
#           has one writer.
# Scratch   lent: that of the sums.
# Cost      memory: x twice and y once; in inference x once and y once; the gradient g and x
#           twice and dx once; in inference all three once, but for columns.
# Digits    Sums in float64 around a value of the channel (moments.pxd). The result in the
#           type of x: x - mean is exact near the mean, what the mean lost by rounding is in
#           the bias.
# Source    Ioffe and Szegedy, ICML 2015, algorithm 1 and section 3.

from cython.parallel cimport prange
from libc.math cimport isfinite, sqrt
from libc.string cimport memcpy

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    Buffers, call_as, from_bits, geometry_of, reals, reals_or_nothing, room,
)
from convcore.kernels.channel_sums cimport (
    PIECE, Room, Shape, room_for, shape_for, sums_of, take_sums,
)
from convcore.kernels.elements cimport keep_some, past_caches
from convcore.kernels.moments cimport (
    Sums, blend_run, lanes_of, load, multiply_run, put_scalar, rounded, scalar_at, scale_run,
)
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport ahead, f32v, f64v, real, settle, vec

cdef enum:
    FIELDS = 6  # n, c, rest, training, and the bits of eps and momentum


cdef Shape shape_of(const Buffers* held) except *:
    """Read the geometry."""
    cdef const long long* fields = geometry_of(held, FIELDS)
    cdef Shape s
    if fields[0] < 0 or fields[1] < 1 or fields[2] < 1:
        raise ValueError("kernel: extents must be positive")
    s = shape_for(fields[0], fields[1], fields[2])
    s.training = fields[3] != 0
    s.eps, s.momentum = from_bits(fields[4]), from_bits(fields[5])
    return s


cdef Room room_of(const Buffers* held, int index, const Shape* s) except *:
    """Part the scratch."""
    cdef Room r
    r.centre = room(held, index, room_for(s), <double*>NULL)
    r.factors = r.centre + s.c + s.columns
    r.lines = r.factors + 4 * s.c
    r.statistics = r.lines + 4 * s.columns
    r.var = r.statistics + 2 * s.c
    r.sums = r.var + s.c
    return r


# Results --------------------------------------------------------------------------


cdef inline void next_run(
    const Shape* s, Py_ssize_t* row, Py_ssize_t* piece, Py_ssize_t* channel
) noexcept nogil:
    """Go on to the next run, without a division: short runs take as long as one."""
    piece[0] += 1
    if piece[0] == s.pieces:
        piece[0] = 0
        row[0] += 1
        channel[0] += 1
        if channel[0] == s.c:
            channel[0] = 0


cdef void scale_runs(
    const Shape* s, const vec* x, vec* y, const double* factors, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write runs begin .. end of y; factors are mean, scale and bias."""
    cdef Py_ssize_t row = begin // s.pieces, piece = begin - row * s.pieces
    cdef Py_ssize_t _i, at, channel = row % s.c
    cdef const double* f
    for _i in range(begin, end):
        at = row * s.rest + piece * PIECE
        f = factors + 4 * channel
        scale_run(
            <vec*>ahead(y, at), ahead(x, at), min(PIECE, s.rest - piece * PIECE), f[0], f[1], f[2]
        )
        next_run(s, &row, &piece, &channel)


cdef void scale_rows(
    const Shape* s, const vec* x, vec* y, const vec* lines, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Write samples begin .. end of y, column by column."""
    cdef Py_ssize_t i, j, n, at, w = s.columns, lanes = lanes_of(x)
    cdef bint past = w % lanes == 0 and past_caches(<const vec*>y, s.n * w)
    for i in range(begin, end):
        j = 0
        while j < w:
            n = w - j
            at = i * w + j
            keep_some(
                y, at,
                (load(ahead(x, at), n) - load(ahead(lines, j), n)) * load(ahead(lines, w + j), n)
                + load(ahead(lines, 2 * w + j), n),
                n, past,
            )
            j += lanes
    if past:
        settle()


cdef void blend_runs(
    const Shape* s, const vec* g, const vec* x, vec* dx, const double* factors,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Write runs begin .. end of dx; factors are mean, and those of g, x - mean and 1."""
    cdef Py_ssize_t row = begin // s.pieces, piece = begin - row * s.pieces
    cdef Py_ssize_t _i, at, n, channel = row % s.c
    cdef const double* f
    for _i in range(begin, end):
        at = row * s.rest + piece * PIECE
        n = min(PIECE, s.rest - piece * PIECE)
        f = factors + 4 * channel
        if s.training:
            blend_run(<vec*>ahead(dx, at), ahead(g, at), ahead(x, at), n, f + 1, f[0])
        else:
            multiply_run(<vec*>ahead(dx, at), ahead(g, at), n, f[1])
        next_run(s, &row, &piece, &channel)


cdef void blend_rows(
    const Shape* s, const vec* g, const vec* x, vec* dx, const vec* lines, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write samples begin .. end of dx, column by column."""
    cdef Py_ssize_t i, j, n, at, w = s.columns, lanes = lanes_of(x)
    cdef bint past = w % lanes == 0 and past_caches(<const vec*>dx, s.n * w)
    cdef vec v
    for i in range(begin, end):
        j = 0
        while j < w:
            n = w - j
            at = i * w + j
            v = load(ahead(g, at), n) * load(ahead(lines, w + j), n)
            if s.training:
                v = v + (
                    (load(ahead(x, at), n) - load(ahead(lines, j), n))
                    * load(ahead(lines, 2 * w + j), n)
                    + load(ahead(lines, 3 * w + j), n)
                )
            keep_some(dx, at, v, n, past)
            j += lanes
    if past:
        settle()


cdef void write_task(
    const Shape* s, const vec* g, const vec* x, vec* out, const Room* r, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Write runs or rows begin .. end of y, or of dx if there is a g."""
    if g == NULL:
        if s.columns:
            scale_rows(s, x, out, <const vec*>r.lines, begin, end)
        else:
            scale_runs(s, x, out, r.factors, begin, end)
    elif s.columns:
        blend_rows(s, g, x, out, <const vec*>r.lines, begin, end)
    else:
        blend_runs(s, g, x, out, r.factors, begin, end)


cdef void write_tasks(
    const Shape* s, const Rounds* tasks, const vec* g, const vec* x, vec* out, const Room* r,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end of the results."""
    cdef Py_ssize_t i
    if threads == 1:
        write_task(s, g, x, out, r, first_piece(tasks, begin), first_piece(tasks, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        write_task(s, g, x, out, r, first_piece(tasks, i), first_piece(tasks, i + 1))


cdef int write_results(
    const Shape* s, const vec* g, const vec* x, vec* out, const Room* r, int threads
) except -1:
    """Write y, or dx if there is a g."""
    cdef Py_ssize_t begin = 0, end, j, i
    cdef Rounds tasks
    if s.columns:
        for i in range(4):
            for j in range(s.columns):
                put_scalar(<vec*>r.lines, i * s.columns + j, r.factors[4 * (j // s.rest) + i])
        tasks = rounds(s.n, s.columns, threads)
    else:
        tasks = rounds(s.n * s.c * s.pieces, min(s.rest, PIECE), threads)
    while begin < tasks.tasks:
        end = min(begin + tasks.step, tasks.tasks)
        with nogil:
            write_tasks(s, &tasks, g, x, out, r, begin, end, threads)
        look()
        begin = end
    return 0


# Channels -------------------------------------------------------------------------


cdef void shifts(const Shape* s, const vec* x, const Room* r) noexcept nogil:
    """Take a value of each channel, if it is a number."""
    cdef Py_ssize_t channel
    for channel in range(s.c):
        r.centre[channel] = scalar_at(x, channel * s.rest)
        if not isfinite(r.centre[channel]):
            r.centre[channel] = 0


cdef void finish_statistics(
    const Shape* s, const Room* r, double* mean, double* rstd
) noexcept nogil:
    """Take mean, variance and 1 / deviation of each channel from the sums."""
    cdef Py_ssize_t channel, apart = s.rest if s.columns else 1
    cdef double m = s.m, share
    cdef Sums sums
    for channel in range(s.c):
        sums = sums_of(s, r, channel)
        share = sums.first / m
        mean[channel] = r.centre[channel * apart] + share
        r.var[channel] = (sums.second - sums.first * share) / m
        if r.var[channel] < 0:
            r.var[channel] = 0
        rstd[channel] = 1 / sqrt(r.var[channel] + s.eps)


cdef void update_running(
    const Shape* s, const Room* r, const double* mean, vec* running_mean, vec* running_var
) noexcept nogil:
    """Mix a share of the batch's statistics into the running ones."""
    cdef Py_ssize_t channel
    cdef double new = s.momentum, old = 1 - s.momentum, unbiased = new * (s.m / (s.m - 1.0))
    for channel in range(s.c):
        put_scalar(
            running_mean, channel, old * scalar_at(running_mean, channel) + new * mean[channel]
        )
        put_scalar(
            running_var, channel,
            old * scalar_at(running_var, channel) + unbiased * r.var[channel],
        )


cdef void set_factors(
    const Shape* s, const vec* weight, const vec* bias, const double* mean, const double* rstd,
    const Room* r,
) noexcept nogil:
    """Set mean, scale and bias of each channel; what the mean loses is the bias's."""
    cdef Py_ssize_t channel
    cdef double scale, m
    for channel in range(s.c):
        scale = rstd[channel]
        if weight != NULL:
            scale *= scalar_at(weight, channel)
        m = rounded(weight, mean[channel])
        r.factors[4 * channel] = m
        r.factors[4 * channel + 1] = scale
        r.factors[4 * channel + 2] = 0 if m == mean[channel] else (m - mean[channel]) * scale
        if bias != NULL:
            r.factors[4 * channel + 2] += scalar_at(bias, channel)


cdef inline double scale_of(
    const vec* weight, const double* rstd, Py_ssize_t channel
) noexcept nogil:
    """Give what a channel's x - mean is multiplied by."""
    return rstd[channel] * (1 if weight == NULL else scalar_at(weight, channel))


cdef void set_gradient_factors(
    const Shape* s, const vec* weight, const double* mean, const double* rstd, const Room* r,
    vec* grad_weight, vec* grad_bias, bint summed,
) noexcept nogil:
    """Set mean and the factors of g, x - mean and 1, and write the sums that are asked for."""
    cdef Py_ssize_t channel
    cdef double* f
    cdef Sums sums
    sums.first = sums.second = 0
    for channel in range(s.c):
        f = r.factors + 4 * channel
        if summed:
            sums = sums_of(s, r, channel)
            sums.second *= rstd[channel]
        if grad_weight != NULL:
            put_scalar(grad_weight, channel, sums.second)
        if grad_bias != NULL:
            put_scalar(grad_bias, channel, sums.first)
        f[0] = rounded(weight, mean[channel])
        f[1] = scale_of(weight, rstd, channel)
        f[2] = -f[1] * (rstd[channel] * (sums.second / s.m))
        f[3] = -f[1] * (sums.first / s.m)
        if f[0] != mean[channel]:
            f[3] += f[2] * (f[0] - mean[channel])


# Calls ----------------------------------------------------------------------------


cdef int forward_of(
    const Shape* s, const vec* x, vec* running_mean, vec* running_var, const vec* weight,
    const vec* bias, vec* y, double* statistics, const Room* r, int threads,
) except -1:
    """Take the statistics, in training, and write y."""
    cdef Py_ssize_t channel
    cdef double* mean = statistics
    cdef double* rstd = statistics + s.c
    if s.training:
        shifts(s, x, r)
        take_sums(s, <const vec*>NULL, x, <vec*>NULL, r, threads)
        finish_statistics(s, r, mean, rstd)
    else:
        for channel in range(s.c):
            mean[channel] = scalar_at(running_mean, channel)
            rstd[channel] = 1 / sqrt(scalar_at(running_var, channel) + s.eps)
    if y != NULL:
        set_factors(s, weight, bias, mean, rstd, r)
        write_results(s, <const vec*>NULL, x, y, r, threads)
    if s.training and running_mean != NULL:
        update_running(s, r, mean, running_mean, running_var)
    return 0


cdef int forward_call(const Buffers* held, int threads, real* like) except -1:
    """Check the arrays, and run."""
    cdef Shape s = shape_of(held)
    cdef Py_ssize_t size = s.n * s.c * s.rest
    cdef const real* x = reals(held, 1, size, like)
    cdef const real* weight = reals_or_nothing(held, 2, s.c, like)
    cdef const real* bias = reals_or_nothing(held, 3, s.c, like)
    cdef real* running_mean = reals_or_nothing(held, 4, s.c, like)
    cdef real* running_var = reals_or_nothing(held, 5, s.c, like)
    cdef real* y = NULL if held.views[6].buf == NULL else reals(held, 6, size, like)
    cdef Room r = room_of(held, 8, &s)
    cdef double* statistics = reals_or_nothing(held, 7, 2 * s.c, <double*>NULL)
    if statistics == NULL:
        statistics = r.statistics
    if (running_mean == NULL) != (running_var == NULL):
        raise ValueError("kernel: one of the running statistics is missing")
    if s.training and s.m < 2 or not s.training and running_mean == NULL:
        raise ValueError("kernel: no statistics")
    if real is float:
        return forward_of(
            &s, <f32v*>x, <f32v*>running_mean, <f32v*>running_var, <f32v*>weight, <f32v*>bias,
            <f32v*>y, statistics, &r, threads,
        )
    else:
        return forward_of(
            &s, <f64v*>x, <f64v*>running_mean, <f64v*>running_var, <f64v*>weight, <f64v*>bias,
            <f64v*>y, statistics, &r, threads,
        )


cdef int backward_of(
    const Shape* s, const vec* g, const vec* x, const vec* weight, vec* dx, vec* grad_weight,
    vec* grad_bias, const Room* r, int threads,
) except -1:
    """Take the sums that are needed, and write the gradients.

    In inference dx needs no sum, and runs of it are written along with the sums.
    """
    cdef Py_ssize_t channel
    cdef bint summed = s.training or grad_weight != NULL or grad_bias != NULL
    cdef const double* mean = r.statistics
    cdef const double* rstd = mean + s.c
    cdef vec* early = NULL if s.training or s.columns else dx
    if summed:
        for channel in range(s.c):
            r.centre[channel] = mean[channel]
            r.factors[4 * channel + 1] = scale_of(weight, rstd, channel)
        take_sums(s, g, x, early, r, threads)
    set_gradient_factors(s, weight, mean, rstd, r, grad_weight, grad_bias, summed)
    if dx != NULL and not (summed and early != NULL):
        write_results(s, g, x, dx, r, threads)
    return 0


cdef int read_statistics(
    const Buffers* held, const Shape* s, const Room* r, real* like
) except -1:
    """Read mean and 1 / deviation of the batch, or running mean and variance."""
    cdef double* rstd = r.statistics + s.c
    cdef real* value
    cdef real* var
    cdef Py_ssize_t channel
    if s.training:
        memcpy(r.statistics, reals(held, 4, s.c, <double*>NULL), s.c * sizeof(double))
        memcpy(rstd, reals(held, 5, s.c, <double*>NULL), s.c * sizeof(double))
        return 0
    value, var = reals(held, 4, s.c, like), reals(held, 5, s.c, like)
    for channel in range(s.c):
        r.statistics[channel] = value[channel]
        rstd[channel] = 1 / sqrt(var[channel] + s.eps)
    return 0


cdef int backward_call(const Buffers* held, int threads, real* like) except -1:
    """Check the arrays, and run."""
    cdef Shape s = shape_of(held)
    cdef Py_ssize_t size = s.n * s.c * s.rest
    cdef const real* g = reals(held, 1, size, like)
    cdef const real* x = reals(held, 2, size, like)
    cdef const real* weight = reals_or_nothing(held, 3, s.c, like)
    cdef real* dx = NULL if held.views[6].buf == NULL else reals(held, 6, size, like)
    cdef real* grad_weight = reals_or_nothing(held, 7, s.c, like)
    cdef real* grad_bias = reals_or_nothing(held, 8, s.c, like)
    cdef Room r = room_of(held, 9, &s)
    read_statistics(held, &s, &r, like)
    if real is float:
        return backward_of(
            &s, <f32v*>g, <f32v*>x, <f32v*>weight, <f32v*>dx, <f32v*>grad_weight, <f32v*>grad_bias,
            &r, threads,
        )
    else:
        return backward_of(
            &s, <f64v*>g, <f64v*>x, <f64v*>weight, <f64v*>dx, <f64v*>grad_weight, <f64v*>grad_bias,
            &r, threads,
        )


def scratch_size(Py_ssize_t n, Py_ssize_t c, Py_ssize_t rest, /):
    """Count the bytes of scratch."""
    cdef Shape s = shape_for(n, c, rest)
    return room_for(&s) * sizeof(double)


def infer(sizes, x, weight, bias, running_mean, running_var, y, scratch, int threads, /):
    """Write y by the running statistics."""
    call_as(
        (sizes, x, weight, bias, running_mean, running_var), (y, None, scratch), threads,
        forward_call[float], forward_call[double], 1,
    )


def forward(
    sizes, x, weight, bias, running_mean, running_var, y, statistics, scratch,
    int threads, /
):
    """Write y, mean and 1 / deviation of the batch, and update the running statistics.

    There may be no running statistics, and no y.
    """
    call_as(
        (sizes, x, weight, bias), (running_mean, running_var, y, statistics, scratch), threads,
        forward_call[float], forward_call[double], 1,
    )


def backward(
    sizes, g, x, weight, mean, deviation, dx, grad_weight, grad_bias, scratch, int threads, /,
):
    """Write the gradients that are not None.

    In training, mean and deviation are the statistics of `forward`; else the running ones.
    """
    call_as(
        (sizes, g, x, weight, mean, deviation), (dx, grad_weight, grad_bias, scratch), threads,
        backward_call[float], backward_call[double], 1,
    )
