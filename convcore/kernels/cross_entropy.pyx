# Cross-entropy of a softmax, from the scores, and its gradient.
#
# What      truth[c] = w[c] ((1 - a) t[c] + a / C), where t is 1 for the true class, or given
#           loss = sum of truth[c] (log s - (x[c] - m)), m and s as in log_sum.pxd
#           dx[c] = (e^(x[c] - m) / s sum of truth - truth[c]) scale
# Layout    x is (outer, count, inner), as for softmax.pyx: rows where inner is 1, columns
#           elsewhere. A position is a place in (outer, inner); classes are (outer, inner),
#           probabilities lie like x.
#           The loss of all is their sum, or that divided by the weight of all positions.
# Assumes   sizes (outer, count, inner, ignored class, a, soft, reduction); dx may be x. A
#           class that is none is an IndexError, before anything is written.
# Parallel  over rows or blocks of columns; a position depends on itself alone. The sum is
#           taken in turn, in float64.
# Scratch   on the stack: a block of columns of up to 32 KB.
# Cost      memory: one read; backward, one write as well. A class that has no truth costs
#           nothing, even when it is impossible; an ignored position nothing whatever it is.
# Source    as softmax.pyx; Szegedy et al., Rethinking the Inception Architecture, 2015,
#           section 7 (a, label smoothing).

from cython.parallel cimport prange
from libc.string cimport memcpy

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    Buffers, call_as, geometry_of, integers_or_nothing, reals, reals_or_nothing,
)
from convcore.kernels.elements cimport first_lanes, lanes_of
from convcore.kernels.log_sum cimport (
    ABREAST, CHAIN, ROOM, column_maxima, column_sums, columns_for, row_maximum, row_sum,
    spread, whole,
)
from convcore.kernels.teams cimport look
from convcore.kernels.truth cimport (
    class_at, Case, Place, kept_positions, number, put_number, sum_of_weights, truth_of, weight_of,
    weight_of_positions, wrong_classes,
)
from convcore.kernels.vector cimport (
    ahead, f32v, f64v, lanes_from, part, put_part, real, until, vec,
)
from convcore.kernels.vector_math cimport every, log_of, magnitude

cdef enum:
    MOST = 256  # columns side by side: ABREAST of the widest vectors
    CHAINS = 16  # sums side by side
    SURVEY = 16384  # positions that are looked at in one go
    MEAN = 2  # reductions: 0 for none, 1 for the sum

cdef inline vec costs_in_row(
    const Case* k, const vec* x, const vec* t, const vec* w, Py_ssize_t at, vec most,
    vec logs,
) noexcept nogil:
    """Give the sum of truth times cost over a row, in every lane."""
    cdef Py_ssize_t i = 0, lanes = lanes_of(x)
    cdef vec zero = every(most, 0), truth, v
    cdef vec total = zero, chain = zero
    cdef unsigned long long bits
    while i < k.count:
        bits = first_lanes(min(k.count - i, lanes))
        truth = truth_of(k, t, w, at + i, i, bits)
        v = truth * (logs - (part(ahead(x, at + i), bits) - most))
        chain = chain + until(magnitude(truth), zero, zero, v)
        i += lanes
        if i // lanes % CHAIN == 0:
            total = total + chain
            chain = zero
    return spread(x, total + chain)


cdef inline void costs_in_columns(
    const Case* k, const vec* x, const vec* t, const vec* w, const Place* o,
    const vec* most, const vec* logs, vec* total,
) noexcept nogil:
    """Write the same sums of some columns."""
    cdef Py_ssize_t c, i, j, at, lanes = lanes_of(x)
    cdef vec zero = every(most[0], 0), truth, v
    cdef vec chain[ABREAST]
    cdef unsigned long long bits
    for j in range((o.n + lanes - 1) // lanes):
        total[j] = zero
        chain[j] = zero
    for c in range(k.count):
        i = 0
        while i < o.n:
            j = i // lanes
            at = o.at + c * k.inner + i
            bits = first_lanes(min(o.n - i, lanes))
            truth = truth_of(k, t, w, at, c, bits)
            v = truth * (logs[j] - (part(ahead(x, at), bits) - most[j]))
            chain[j] = chain[j] + until(magnitude(truth), zero, zero, v)
            i += lanes
            if (c + 1) % CHAIN == 0 or c + 1 == k.count:
                total[j] = total[j] + chain[j]
                chain[j] = zero


cdef inline void write_loss(
    const Case* k, const vec* x, const vec* w, const Place* o, Py_ssize_t i, double most,
    double logs, double spread_cost, vec* losses,
) noexcept nogil:
    """Write the loss of one position: that of its true class, and what is spread."""
    cdef Py_ssize_t c
    cdef double truth
    if not k.soft:
        c = class_at(k, o.position + i)
        if c < 0:
            put_number(losses, o.position + i, 0)
            return
        truth = k.kept * weight_of(w, c)
        if truth != 0:
            spread_cost += truth * (logs - (number(x, o.at + c * k.inner + i) - most))
    put_number(losses, o.position + i, spread_cost)


cdef void losses_of(
    const Case* k, const vec* x, const vec* t, const vec* w, const Place* o, vec* losses
) noexcept nogil:
    """Write the losses of a row, or of some columns."""
    cdef vec most[ABREAST]
    cdef vec logs[ABREAST]
    cdef vec costs[ABREAST]
    cdef vec room[ROOM]
    cdef bint copied
    cdef Py_ssize_t i, lanes = lanes_of(x)
    cdef const vec* from_ = ahead(x, o.at)
    if k.inner == 1:
        most[0] = row_maximum(from_, k.count)
        logs[0] = log_of(row_sum(from_, k.count, most[0], <vec*>NULL))
        if k.smooth:
            costs[0] = costs_in_row(k, x, t, w, o.at, most[0], logs[0])
    else:
        copied = k.count * whole(x, o.n) <= ROOM * lanes
        column_maxima(from_, k.count, k.inner, o.n, most, &room[0] if copied else <vec*>NULL)
        column_sums(
            <const vec*>&room[0] if copied else from_, k.count,
            whole(x, o.n) if copied else k.inner, o.n, <const vec*>most, logs, <vec*>NULL,
        )
        for i in range((o.n + lanes - 1) // lanes):
            logs[i] = log_of(logs[i])
        if k.smooth:
            costs_in_columns(k, x, t, w, o, <const vec*>most, <const vec*>logs, costs)
    for i in range(o.n):
        write_loss(
            k, x, w, o, i, number(<const vec*>most, i), number(<const vec*>logs, i),
            number(<const vec*>costs, i) if k.smooth else 0, losses,
        )


cdef inline double at_class(
    const Case* k, const vec* w, double spread_truth, Py_ssize_t c, double* own
) noexcept nogil:
    """Give all truth about a position, and that of its class c alone."""
    own[0] = k.kept * weight_of(w, c)
    return own[0] + spread_truth


cdef inline vec truth_in_row(
    const Case* k, const vec* t, const vec* w, Py_ssize_t at
) noexcept nogil:
    """Give all truth about a row."""
    cdef Py_ssize_t i = 0, lanes = lanes_of(t)
    cdef vec total = every(part(t, 0), 0)
    while i < k.count:
        total = total + truth_of(k, t, w, at + i, i, first_lanes(min(k.count - i, lanes)))
        i += lanes
    return spread(t, total)


cdef inline void zero_column(const Case* k, vec* to, Py_ssize_t i) noexcept nogil:
    """Write 0 to one position: it is ignored."""
    cdef Py_ssize_t c
    for c in range(k.count):
        put_number(to, c * k.inner + i, 0)


cdef inline void mend_class(
    const Case* k, const vec* w, vec* to, Py_ssize_t c, Py_ssize_t i, double own,
    double probability, double truth, double scale,
) noexcept nogil:
    """Write the gradient of the true class, which has truth of its own."""
    own += k.each * weight_of(w, c)
    put_number(to, c * k.inner + i, (probability * truth - own) * scale)


cdef void gradient_row(
    const Case* k, const vec* x, const vec* t, const vec* w, double spread_truth,
    const vec* scales, const Place* o, vec* dx,
) noexcept nogil:
    """Write one row of dx."""
    cdef Py_ssize_t i = 0, lanes = lanes_of(x), c = 0
    cdef vec* to = <vec*>ahead(dx, o.at)
    cdef vec most = row_maximum(ahead(x, o.at), k.count)
    cdef vec total = row_sum(ahead(x, o.at), k.count, most, to), all_truth, truth
    cdef vec scale = lanes_from(scales, o.position if k.scales > 1 else 0)
    cdef double own = 0, e = 0
    cdef unsigned long long bits
    if k.soft:
        all_truth = truth_in_row(k, t, w, o.at)
    else:
        c = class_at(k, o.position)
        if c < 0:
            zero_column(k, to, 0)
            return
        e = number(to, c)
        all_truth = every(most, at_class(k, w, spread_truth, c, &own))
    while i < k.count:
        bits = first_lanes(min(k.count - i, lanes))
        truth = part(<const vec*>ahead(to, i), bits) / total * all_truth
        truth = truth - truth_of(k, t, w, o.at + i, i, bits)
        put_part(<vec*>ahead(to, i), truth * scale, k.count - i)
        i += lanes
    if not k.soft:
        mend_class(
            k, w, to, c, 0, own, e / number(&total, 0), number(&all_truth, 0),
            number(&scale, 0),
        )


cdef void gradient_columns(
    const Case* k, const vec* x, const vec* t, const vec* w, double spread_truth,
    const vec* scales, const Place* o, vec* dx,
) noexcept nogil:
    """Write some columns of dx."""
    cdef vec most[ABREAST]
    cdef vec total[ABREAST]
    cdef vec truth[ABREAST]
    cdef vec scale[ABREAST]
    cdef double e[MOST]  # e^(x - m) of the true classes, and their truth
    cdef double own[MOST]
    cdef Py_ssize_t i, j, c, lanes = lanes_of(x), at
    cdef unsigned long long bits
    cdef vec* to = <vec*>ahead(dx, o.at)
    cdef vec room[ROOM]
    cdef vec* power = room
    cdef Py_ssize_t step = whole(x, o.n)
    cdef bint copied = k.count * step <= ROOM * lanes
    cdef vec v
    column_maxima(ahead(x, o.at), k.count, k.inner, o.n, most, &room[0] if copied else <vec*>NULL)
    if not copied:
        step = k.inner
        power = to
    column_sums(
        <const vec*>&room[0] if copied else ahead(x, o.at), k.count, step, o.n,
        <const vec*>most, total, power,
    )
    for j in range((o.n + lanes - 1) // lanes):
        truth[j] = every(most[0], 0)
        scale[j] = lanes_from(scales, 0)
        if k.scales > 1:
            bits = first_lanes(min(o.n - j * lanes, lanes))
            scale[j] = part(ahead(scales, o.position + j * lanes), bits)
    if k.soft:
        for c in range(k.count):
            for j in range((o.n + lanes - 1) // lanes):
                bits = first_lanes(min(o.n - j * lanes, lanes))
                at = o.at + c * k.inner + j * lanes
                truth[j] = truth[j] + truth_of(k, t, w, at, c, bits)
    else:
        for i in range(o.n):
            c = class_at(k, o.position + i)
            if c >= 0:
                e[i] = number(<const vec*>power, c * step + i)
                put_number(truth, i, at_class(k, w, spread_truth, c, &own[i]))
    for c in range(k.count):
        i = 0
        while i < o.n:
            j = i // lanes
            at = c * k.inner + i
            bits = first_lanes(min(o.n - i, lanes))
            v = part(<const vec*>ahead(power, c * step + i), bits) / total[j] * truth[j]
            v = (v - truth_of(k, t, w, o.at + at, c, bits)) * scale[j]
            put_part(<vec*>ahead(to, at), v, o.n - i)
            i += lanes
    if k.soft:
        return
    for i in range(o.n):
        c = class_at(k, o.position + i)
        if c < 0:
            zero_column(k, to, i)
        else:
            mend_class(
                k, w, to, c, i, own[i], e[i] / number(<const vec*>total, i),
                number(<const vec*>truth, i), number(<const vec*>scale, i),
            )


cdef void some_pieces(
    const Case* k, const vec* x, const vec* t, const vec* w, double spread_truth,
    const vec* scales, vec* to, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Do rows, or blocks of columns, begin .. end; of losses where there are no scales."""
    cdef Py_ssize_t i, row, column
    cdef Place o
    for i in range(begin, end):
        row = i // k.blocks
        column = (i - row * k.blocks) * k.columns
        o.at = row * k.count * k.inner + column
        o.position = row * k.inner + column
        o.n = min(k.columns, k.inner - column)
        if scales == NULL:
            losses_of(k, x, t, w, &o, to)
        elif k.inner == 1:
            gradient_row(k, x, t, w, spread_truth, scales, &o, to)
        else:
            gradient_columns(k, x, t, w, spread_truth, scales, &o, to)


cdef void tasks(
    const Case* k, const Rounds* r, const vec* x, const vec* t, const vec* w,
    double spread_truth, const vec* scales, vec* to, Py_ssize_t begin, Py_ssize_t end,
    int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        some_pieces(
            k, x, t, w, spread_truth, scales, to, first_piece(r, begin), first_piece(r, end)
        )
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        some_pieces(
            k, x, t, w, spread_truth, scales, to, first_piece(r, i), first_piece(r, i + 1)
        )


cdef int every_piece(
    Case* k, const vec* x, const vec* t, const vec* w, const vec* scales, vec* to,
    int threads,
) except -1:
    """Do all rounds."""
    cdef Rounds r
    cdef Py_ssize_t begin = 0, end
    cdef double spread_truth = sum_of_weights(k, w)
    k.columns = 1 if k.inner == 1 else columns_for(x, k.count)
    k.blocks = (k.inner + k.columns - 1) // k.columns
    r = rounds(k.outer * k.blocks, k.count * min(k.columns, k.inner), threads)
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            tasks(k, &r, x, t, w, spread_truth, scales, to, begin, end, threads)
        look()
        begin = end
    return 0


cdef double sum_of(const vec* losses, Py_ssize_t n) noexcept nogil:
    """Add all losses: CHAINS sums of every so many, then these."""
    cdef double[CHAINS] sums
    cdef Py_ssize_t i, k, whole_ = n // CHAINS * CHAINS
    cdef double total = 0
    for k in range(CHAINS):
        sums[k] = 0
    for i in range(whole_ // CHAINS):
        for k in range(CHAINS):
            sums[k] += number(losses, i * CHAINS + k)
    for k in range(n - whole_):
        sums[k] += number(losses, whole_ + k)
    for k in range(CHAINS):
        total += sums[k]
    return total


cdef Case case_of(const Buffers* held, int threads) except *:
    """Read the sizes, and the classes behind x."""
    cdef const long long* sizes = geometry_of(held, 7)
    cdef Case k
    cdef double smoothing
    k.outer, k.count, k.inner, k.ignored = sizes[0], sizes[1], sizes[2], sizes[3]
    memcpy(&smoothing, sizes + 4, sizeof(double))
    k.soft, k.mean = sizes[5] != 0, sizes[6] == MEAN
    k.scales = 1 if sizes[6] else k.outer * k.inner
    if k.outer < 1 or k.count < 1 or k.inner < 1:
        raise ValueError("kernel: not the sizes of a cross-entropy")
    k.kept, k.each = 1 - smoothing, smoothing / k.count
    k.smooth = k.soft or k.each != 0
    k.weight = <double>(k.outer * k.inner)
    k.classes = integers_or_nothing(held, 2, k.outer * k.inner)
    if k.soft == (k.classes != NULL):
        raise ValueError("kernel: either classes or probabilities")
    if not k.soft:
        check_classes(&k, threads)
    return k


cdef int check_classes(Case* k, int threads) except -1:
    """Refuse a class that is none, and count the positions that are not ignored."""
    cdef Py_ssize_t n = k.outer * k.inner, wrong = 0, kept = 0, i
    if n <= SURVEY:
        wrong, kept = wrong_classes(k, 0, n), kept_positions(k, 0, n)
    else:
        for i in prange((n - 1) // SURVEY + 1, num_threads=threads, nogil=True):
            wrong += wrong_classes(k, i * SURVEY, min(n, (i + 1) * SURVEY))
            kept += kept_positions(k, i * SURVEY, min(n, (i + 1) * SURVEY))
    if wrong:
        raise IndexError("kernel: a class that is none")
    k.weight = <double>kept
    return 0


cdef int forward_of(
    Case* k, const vec* x, const vec* t, const vec* w, vec* losses, vec* loss, int threads
) except -1:
    """Write the losses, and that of all, if it is wanted."""
    cdef double total
    every_piece(k, x, t, w, <const vec*>NULL, losses, threads)
    if loss != NULL:
        if k.mean and w != NULL and not k.soft:
            k.weight = weight_of_positions(k, w)
        total = sum_of(<const vec*>losses, k.outer * k.inner)
        put_number(loss, 0, total / k.weight if k.mean else total)
    return 0


cdef int run_forward(const Buffers* held, int threads, real* like) except -1:
    """Check x, the truth, the weights and the losses, and write the last."""
    cdef Case k = case_of(held, threads)
    cdef Py_ssize_t size = k.outer * k.count * k.inner
    cdef const real* x = reals(held, 1, size, like)
    cdef const real* t = reals(held, 3, size, like) if k.soft else x
    cdef const real* w = reals_or_nothing(held, 4, k.count, like)
    cdef real* losses = reals(held, 5, k.outer * k.inner, like)
    cdef real* loss = reals_or_nothing(held, 6, 1, like)
    if real is float:
        return forward_of(
            &k, <const f32v*>x, <const f32v*>t, <const f32v*>w, <f32v*>losses, <f32v*>loss,
            threads,
        )
    else:
        return forward_of(
            &k, <const f64v*>x, <const f64v*>t, <const f64v*>w, <f64v*>losses, <f64v*>loss,
            threads,
        )


cdef int backward_of(
    Case* k, const vec* x, const vec* t, const vec* w, const vec* scales, double gradient,
    vec* dx, int threads,
) except -1:
    """Write dx, with one scale for all positions unless there are some."""
    cdef vec one
    if scales == NULL:
        if k.mean and w != NULL and not k.soft:
            k.weight = weight_of_positions(k, w)
        put_number(&one, 0, gradient / k.weight if k.mean else gradient)
        scales = &one
    return every_piece(k, x, t, w, scales, dx, threads)


cdef int run_backward(const Buffers* held, int threads, real* like) except -1:
    """Check x, the truth, weights, gradients of the losses and dx, and write the last."""
    cdef Case k = case_of(held, threads)
    cdef Py_ssize_t size = k.outer * k.count * k.inner
    cdef const real* x = reals(held, 1, size, like)
    cdef const real* t = reals(held, 3, size, like) if k.soft else x
    cdef const real* w = reals_or_nothing(held, 4, k.count, like)
    cdef const long long* sizes = geometry_of(held, 7)
    cdef const real* scales = NULL
    cdef double gradient = 0
    cdef real* dx = reals(held, 6, size, like)
    if sizes[6]:
        gradient = reals(held, 5, 1, <double*>NULL)[0]
    else:
        scales = reals(held, 5, k.scales, like)
    if real is float:
        return backward_of(
            &k, <const f32v*>x, <const f32v*>t, <const f32v*>w, <const f32v*>scales,
            gradient, <f32v*>dx, threads,
        )
    else:
        return backward_of(
            &k, <const f64v*>x, <const f64v*>t, <const f64v*>w, <const f64v*>scales,
            gradient, <f64v*>dx, threads,
        )


def forward(sizes, x, classes, probabilities, weight, losses, loss, int threads, /):
    """Write the losses of all positions, and their sum or mean, unless it is None."""
    call_as(
        (sizes, x, classes, probabilities, weight), (losses, loss), threads,
        run_forward[float], run_forward[double], 1,
    )


def backward(sizes, x, classes, probabilities, weight, gradients, dx, int threads, /):
    """Write the gradient of x to dx; there is one float64 gradient of a sum or mean."""
    call_as(
        (sizes, x, classes, probabilities, weight, gradients), (dx,), threads,
        run_backward[float], run_backward[double], 1,
    )
