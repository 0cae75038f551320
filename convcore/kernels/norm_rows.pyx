# Layer, group, instance and RMS normalisation, and their gradients.
#
# What      y = h * weight + bias, h = (x - mean) / sqrt(var + eps), for each row by itself
#           dx = (gw - sum(gw) / m - h * sum(gw * h) / m) / sqrt(var + eps), gw = g * weight
#           Without a centre mean is 0, and so is sum(gw) in dx: RMS normalisation.
# Layout    x (n, groups, m): n * groups rows of m scalars. A weight for every `run` of them:
#
#             run 1     row   x x x x x x x x x x x x      layer norm, groups 1;
#                    weight   0 1 2 3 4 5 6 7 8 9 ...      runs too short for lanes
#             run 4     row   x x x x|x x x x|x x x x      group norm: channels of a group;
#                    weight      0       1       2         instance norm: one
#
#           and others for each group of a sample.
# Assumes   buffers of the sizes that the geometry tells.
# Parallel  over rows; for gradients over chunks of samples and groups: the sums of weights
#           over the samples of a chunk have one writer, the chunks are added in turn.
# Scratch   lent, for gradients: 16 bytes for each chunk and weight, at most 8 MB if there is
#           more than one chunk.
# Cost      memory: x once and y once, the gradient g, x and dx once: a row stays in the cache
#           from one pass to the next, up to its size.
# Digits    as in norm_channels.pyx.
# Source    Ba, Kiros, Hinton: Layer Normalization, 2016, section 3; Wu and He: Group
#           Normalization, ECCV 2018, section 3; Zhang and Sennrich: Root Mean Square Layer
#           Normalization, NeurIPS 2019, section 3.

from cython.parallel cimport prange
from libc.math cimport isfinite, sqrt

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    Buffers, call_as, from_bits, geometry_of, reals, reals_or_nothing, room,
)
from convcore.kernels.elements cimport lanes_of, past_caches
from convcore.kernels.moments cimport (
    ABREAST, Line, Sums, blend_line, blend_run, lines_sums, moments, products, put_scalar,
    rounded, scalar_at, scale_line, scale_run,
)
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport ahead, f32v, f64v, real, settle, vec

cdef enum:
    FIELDS = 6  # n, groups, m, run, centred, and the bits of eps
    CHUNKS = 64  # at most, of the samples
    CHUNK_WORK = 32768  # elements of a chunk, at least
    MOST_SUMS = 524288  # sums of more than one chunk: 8 MB, two each

cdef struct Rows:
    Py_ssize_t n, groups, m, run
    Py_ssize_t weights  # of a group
    Py_ssize_t chunks, chunk  # so many chunks, of so many samples
    bint centred
    bint past  # whether results of lines are stored past the caches
    double eps
    const double* mean  # of each row, for gradients, and 1 / deviation
    const double* rstd


cdef Rows rows_for(
    Py_ssize_t n, Py_ssize_t groups, Py_ssize_t m, Py_ssize_t run
) noexcept nogil:
    """Decide how the sums over samples are parted."""
    cdef Rows s
    cdef Py_ssize_t chunks = min(CHUNKS, n * groups * m // CHUNK_WORK)
    s.n, s.groups, s.m, s.run = n, groups, m, run
    s.weights = m // run
    chunks = max(1, min(chunks, MOST_SUMS // (groups * s.weights)))
    s.chunk = (n - 1) // chunks + 1 if n else 1
    s.chunks = (n - 1) // s.chunk + 1 if n else 0
    s.centred, s.past = True, False
    s.eps = 0
    s.mean = s.rstd = NULL
    return s


cdef Rows rows_of(const Buffers* held) except *:
    """Read the geometry."""
    cdef const long long* fields = geometry_of(held, FIELDS)
    cdef Rows s
    if fields[0] < 0 or fields[1] < 1 or fields[2] < 1 or fields[3] < 1:
        raise ValueError("kernel: extents must be positive")
    if fields[2] % fields[3]:
        raise ValueError("kernel: a row must consist of whole runs")
    s = rows_for(fields[0], fields[1], fields[2], fields[3])
    s.centred = fields[4] != 0
    s.eps = from_bits(fields[5])
    return s


# Forward --------------------------------------------------------------------------


cdef void statistics_of(
    const Rows* s, const vec* x, double* mean, double* rstd
) noexcept nogil:
    """Take mean and 1 / deviation of a row."""
    cdef double shift = scalar_at(x, 0) if s.centred else 0, share, var
    cdef Sums sums
    if not isfinite(shift):
        shift = 0
    sums = moments(x, s.m, shift)
    share = sums.first / s.m if s.centred else 0
    var = (sums.second - sums.first * share) / s.m
    if var < 0:
        var = 0
    mean[0] = shift + share
    rstd[0] = 1 / sqrt(var + s.eps)


cdef void scale_row(
    const Rows* s, const vec* x, const vec* weight, const vec* bias, vec* y, double mean,
    double rstd,
) noexcept nogil:
    """Write a row of y; what the mean loses by rounding is added to h."""
    cdef double m = rounded(x, mean), lost = 0 if m == mean else (m - mean) * rstd, w, b
    cdef Py_ssize_t i, at
    if weight == NULL and bias == NULL:
        scale_run(y, x, s.m, m, rstd, lost)
        return
    if s.run == 1:
        scale_line(y, x, weight, bias, s.m, m, rstd, lost, s.past)
        return
    for i in range(s.weights):
        at = i * s.run
        w = 1 if weight == NULL else scalar_at(weight, i)
        b = 0 if bias == NULL else scalar_at(bias, i)
        scale_run(<vec*>ahead(y, at), ahead(x, at), s.run, m, rstd * w, lost * w + b)


cdef void forward_task(
    const Rows* s, const vec* x, const vec* weight, const vec* bias, vec* y, double* statistics,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Write rows begin .. end of y, and of the statistics if they are asked for."""
    cdef Py_ssize_t row, first, rows = s.n * s.groups
    cdef double mean, rstd
    for row in range(begin, end):
        first = row % s.groups * s.weights
        statistics_of(s, ahead(x, row * s.m), &mean, &rstd)
        if statistics != NULL:
            statistics[row] = mean
            statistics[rows + row] = rstd
        if y != NULL:
            scale_row(
                s, ahead(x, row * s.m), NULL if weight == NULL else ahead(weight, first),
                NULL if bias == NULL else ahead(bias, first), <vec*>ahead(y, row * s.m), mean,
                rstd,
            )
    if s.past:
        settle()


cdef void forward_tasks(
    const Rows* s, const Rounds* tasks, const vec* x, const vec* weight, const vec* bias, vec* y,
    double* statistics, Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end of y; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        forward_task(
            s, x, weight, bias, y, statistics, first_piece(tasks, begin), first_piece(tasks, end)
        )
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        forward_task(
            s, x, weight, bias, y, statistics, first_piece(tasks, i), first_piece(tasks, i + 1)
        )


cdef inline bint lines_past(const Rows* s, const vec* to) noexcept nogil:
    """Tell whether whole lines of results are better stored past the caches."""
    cdef Py_ssize_t size = s.n * s.groups * s.m
    return s.run == 1 and s.m % lanes_of(to) == 0 and past_caches(to, size)


cdef int forward_of(
    Rows* s, const vec* x, const vec* weight, const vec* bias, vec* y, double* statistics,
    int threads,
) except -1:
    """Write y and the statistics, in rounds."""
    cdef Rounds tasks = rounds(s.n * s.groups, s.m, threads)
    cdef Py_ssize_t begin = 0, end
    s.past = lines_past(s, <const vec*>y)
    while begin < tasks.tasks:
        end = min(begin + tasks.step, tasks.tasks)
        with nogil:
            forward_tasks(s, &tasks, x, weight, bias, y, statistics, begin, end, threads)
        look()
        begin = end
    return 0


cdef int forward_call(const Buffers* held, int threads, real* like) except -1:
    """Check the arrays, and run."""
    cdef Rows s = rows_of(held)
    cdef Py_ssize_t size = s.n * s.groups * s.m
    cdef const real* x = reals(held, 1, size, like)
    cdef const real* weight = reals_or_nothing(held, 2, s.groups * s.weights, like)
    cdef const real* bias = reals_or_nothing(held, 3, s.groups * s.weights, like)
    cdef real* y = NULL if held.views[4].buf == NULL else reals(held, 4, size, like)
    cdef double* statistics = reals_or_nothing(held, 5, 2 * s.n * s.groups, <double*>NULL)
    if real is float:
        return forward_of(
            &s, <f32v*>x, <f32v*>weight, <f32v*>bias, <f32v*>y, statistics, threads
        )
    else:
        return forward_of(
            &s, <f64v*>x, <f64v*>weight, <f64v*>bias, <f64v*>y, statistics, threads
        )


# Gradients ------------------------------------------------------------------------


cdef Sums add_runs(
    const Rows* s, const vec* g, const vec* x, const vec* weight, double* sums, double mean,
    double rstd,
) noexcept nogil:
    """Sum g and g * (x - mean) run by run: to the sums of weights, and weighted to one."""
    cdef Py_ssize_t i, apart = s.groups * s.weights
    cdef Sums one, total
    cdef double w
    total.first = total.second = 0
    for i in range(s.weights):
        one = products(ahead(g, i * s.run), ahead(x, i * s.run), s.run, mean)
        w = 1 if weight == NULL else scalar_at(weight, i)
        total.first += one.first * w
        total.second += one.second * w
        if sums != NULL:
            sums[i] += one.first
            sums[apart + i] += one.second * rstd
    return total


cdef void blend_row(
    const Rows* s, const vec* g, const vec* x, const vec* weight, vec* dx, double mean,
    double rstd, Sums sums,
) noexcept nogil:
    """Write a row of dx."""
    cdef double m = rounded(x, mean)
    cdef double[3] f
    cdef Py_ssize_t i, at
    f[0] = rstd
    f[1] = -rstd * rstd * (rstd * (sums.second / s.m))
    f[2] = -rstd * (sums.first / s.m) if s.centred else 0
    if m != mean:
        f[2] += f[1] * (m - mean)
    if weight == NULL:
        blend_run(dx, g, x, s.m, <const double*>f, m)
        return
    if s.run == 1:
        blend_line(dx, g, x, weight, s.m, <const double*>f, m, s.past)
        return
    for i in range(s.weights):
        at = i * s.run
        f[0] = rstd * scalar_at(weight, i)
        blend_run(<vec*>ahead(dx, at), ahead(g, at), ahead(x, at), s.run, <const double*>f, m)


cdef inline void some_rows(
    const Rows* s, const vec* g, const vec* x, const vec* weight, vec* dx, double* sums,
    Py_ssize_t row, int rows,
) noexcept nogil:
    """Do so many rows of a group, `row` the first of them."""
    cdef Py_ssize_t at
    cdef Line[ABREAST] lines
    cdef Sums[ABREAST] totals
    cdef int k
    for k in range(rows):
        at = row + k * s.groups
        lines[k].g, lines[k].x = ahead(g, at * s.m), ahead(x, at * s.m)
        lines[k].mean, lines[k].scale = s.mean[at], s.rstd[at]
    if s.run > 1:
        totals[0] = add_runs(
            s, <const vec*>lines[0].g, <const vec*>lines[0].x, weight, sums, lines[0].mean,
            lines[0].scale,
        )
    else:
        lines_sums(
            lines, rows, weight, s.m, rows * s.groups * s.m, sums,
            NULL if sums == NULL else sums + s.groups * s.weights, totals,
        )
    if dx == NULL:
        return
    for k in range(rows):
        blend_row(
            s, <const vec*>lines[k].g, <const vec*>lines[k].x, weight,
            <vec*>ahead(dx, (row + k * s.groups) * s.m), lines[k].mean, lines[k].scale, totals[k],
        )


cdef void backward_task(
    const Rows* s, const vec* g, const vec* x, const vec* weight, vec* dx, double* sums,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Do units begin .. end: the rows of a group, of the samples of a chunk."""
    cdef Py_ssize_t unit, chunk, group, i, j, stop
    cdef double* own
    cdef const vec* w
    for unit in range(begin, end):
        chunk = unit // s.groups
        group = unit - chunk * s.groups
        w = weight
        if weight != NULL:
            w = ahead(weight, group * s.weights)
        own = NULL
        if sums != NULL:
            own = sums + (2 * chunk * s.groups + group) * s.weights
            for j in range(s.weights):
                own[j] = 0
                own[s.groups * s.weights + j] = 0
        i = chunk * s.chunk
        stop = min(i + s.chunk, s.n)
        while s.run == 1 and i + ABREAST <= stop:
            some_rows(s, g, x, w, dx, own, i * s.groups + group, ABREAST)
            i += ABREAST
        for i in range(i, stop):
            some_rows(s, g, x, w, dx, own, i * s.groups + group, 1)
    if s.past:
        settle()


cdef void backward_tasks(
    const Rows* s, const Rounds* tasks, const vec* g, const vec* x, const vec* weight,
    vec* dx, double* sums, Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end of the gradients."""
    cdef Py_ssize_t i
    if threads == 1:
        backward_task(
            s, g, x, weight, dx, sums, first_piece(tasks, begin), first_piece(tasks, end)
        )
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        backward_task(
            s, g, x, weight, dx, sums, first_piece(tasks, i), first_piece(tasks, i + 1)
        )


cdef void add_chunks(
    const Rows* s, double* sums, vec* grad_weight, vec* grad_bias
) noexcept nogil:
    """Add the sums of all chunks, and write those that are asked for."""
    cdef Py_ssize_t chunk, i, size = s.groups * s.weights
    for chunk in range(1, s.chunks):
        for i in range(2 * size):
            sums[i] += sums[2 * chunk * size + i]
    for i in range(size):
        if grad_bias != NULL:
            put_scalar(grad_bias, i, sums[i] if s.chunks else 0)
        if grad_weight != NULL:
            put_scalar(grad_weight, i, sums[size + i] if s.chunks else 0)


cdef int backward_of(
    Rows* s, const vec* g, const vec* x, const vec* weight, vec* dx, vec* grad_weight,
    vec* grad_bias, double* sums, int threads,
) except -1:
    """Write the gradients, in rounds."""
    cdef Rounds tasks = rounds(s.chunks * s.groups, s.chunk * s.m, threads)
    cdef Py_ssize_t begin = 0, end
    s.past = lines_past(s, <const vec*>dx)
    if grad_weight == NULL and grad_bias == NULL:
        sums = NULL
    while begin < tasks.tasks:
        end = min(begin + tasks.step, tasks.tasks)
        with nogil:
            backward_tasks(s, &tasks, g, x, weight, dx, sums, begin, end, threads)
        look()
        begin = end
    if sums != NULL:
        add_chunks(s, sums, grad_weight, grad_bias)
    return 0


cdef int backward_call(const Buffers* held, int threads, real* like) except -1:
    """Check the arrays, and run."""
    cdef Rows s = rows_of(held)
    cdef Py_ssize_t size = s.n * s.groups * s.m, weights = s.groups * s.weights
    cdef const real* g = reals(held, 1, size, like)
    cdef const real* x = reals(held, 2, size, like)
    cdef const real* weight = reals_or_nothing(held, 3, weights, like)
    cdef real* dx = NULL if held.views[6].buf == NULL else reals(held, 6, size, like)
    cdef real* grad_weight = reals_or_nothing(held, 7, weights, like)
    cdef real* grad_bias = reals_or_nothing(held, 8, weights, like)
    cdef double* sums = room(held, 9, 2 * s.chunks * weights, <double*>NULL)
    s.mean = reals(held, 4, s.n * s.groups, <double*>NULL)
    s.rstd = reals(held, 5, s.n * s.groups, <double*>NULL)
    if real is float:
        return backward_of(
            &s, <f32v*>g, <f32v*>x, <f32v*>weight, <f32v*>dx, <f32v*>grad_weight,
            <f32v*>grad_bias, sums, threads,
        )
    else:
        return backward_of(
            &s, <f64v*>g, <f64v*>x, <f64v*>weight, <f64v*>dx, <f64v*>grad_weight,
            <f64v*>grad_bias, sums, threads,
        )


def scratch_size(Py_ssize_t n, Py_ssize_t groups, Py_ssize_t m, Py_ssize_t run, /):
    """Count the bytes of scratch that gradients need."""
    cdef Rows s = rows_for(n, groups, m, run)
    return max(2 * s.chunks * groups * s.weights, 1) * sizeof(double)


def forward(sizes, x, weight, bias, y, statistics, int threads, /):
    """Write y, and mean and 1 / deviation of each row; either may be None."""
    call_as(
        (sizes, x, weight, bias), (y, statistics), threads, forward_call[float],
        forward_call[double], 1,
    )


def backward(
    sizes, g, x, weight, mean, rstd, dx, grad_weight, grad_bias, scratch, int threads, /,
):
    """Write the gradients that are not None, by mean and 1 / deviation of each row."""
    call_as(
        (sizes, g, x, weight, mean, rstd), (dx, grad_weight, grad_bias, scratch), threads,
        backward_call[float], backward_call[double], 1,
    )
