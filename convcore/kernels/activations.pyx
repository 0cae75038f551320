# Activations: functions of one element, and their gradients, in one pass.
#
# What      forward     y[i] = f(x[i])
#           backward    dx[i] = dy[i] * f'(kept[i])     kept: x, or y where that is enough
# Layout    Plain memory, in pieces of PIECE elements.
# Assumes   sizes (kind, count, three numbers as bits of a double); y may be x, dx may be dy
#           or kept: an element is read before it is written.
# Parallel  over tasks of pieces. An element depends on nothing but itself, and its bits not
#           on its place: what is left of a piece goes through the same vectors.
# Scratch   none.
# Cost      memory, one read (two, backward) and one write; results that no cache could
#           hold are stored past the caches, without reading their lines first. Arithmetic
#           of a vector: 2 cycles for ReLU, about 15 where there is an exponential.
# Why not   A function pointer for each element: a kind is known to the compiler, which
#           makes a loop of its own for each. Tables of results: slower than polynomials.
# Source    vector_math.pxd; for each function, its docstring in functional/.

from cython.parallel cimport prange
from libc.string cimport memcpy

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport Buffers, call, geometry_of, reals
from convcore.kernels.elements cimport (
    PIECE, first_lanes, keep, lanes_of, past_caches,
)
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    ahead, f32v, f64v, loaded, part, pick, put_part, real, scaled, settle, until, vec,
)
from convcore.kernels.vector_math cimport (
    at_least, at_most, by_type, density_parts, every, exp_of, exp_parts, expm1_of, far_below,
    log1p_of, magnitude, power_of_two, tail_ratio, tanh_of,
)

cdef enum Kind:  # numbered as in functional/_elementwise.py
    RELU
    CLAMP  # a: least, b: most
    LEAKY  # a: slope
    ELU  # a: factor below 0, b: above
    GELU
    GELU_TANH
    SILU
    SIGMOID
    TANH
    SOFTPLUS  # a: beta, b: threshold, c: 1 / beta
    HARDSIGMOID
    HARDSWISH
    KINDS

cdef struct Numbers:
    double a, b, c

cdef struct Job:
    Kind kind
    Py_ssize_t count
    Numbers numbers
    bint past

cdef double FIRST = 1.5957691216057308  # 2 sqrt(2 / pi): GELU as x sigmoid(z),
cdef double CUBIC = 0.07135481627260025  # z = FIRST x + CUBIC x^3; 0.044715 FIRST
cdef double DENSITY = 0.3989422804014327  # 1 / sqrt(2 pi)


cdef inline vec one_more(vec z, vec* n) noexcept nogil:
    """Give (1 + e^-z) / 2^-n, between 1/2 and 2^60; from z = 40 on, it counts as 40."""
    cdef vec far = by_type(z, 170, 1400)
    cdef vec power = exp_parts(at_most(at_least(-z, every(z, -40)), far), n)
    n[0] = -n[0]
    return power_of_two(at_least(n[0], by_type(z, -126, -1022))) + power


cdef inline vec gated(vec x, vec z) noexcept nogil:
    """Give x sigmoid(z), scaled last: small results are rounded once."""
    cdef vec n, share = one_more(z, &n)
    return scaled(x / share, n)


cdef inline vec gate_slope(vec x, vec z, vec dz) noexcept nogil:
    """Give the slope of x sigmoid(z): s + x s (1 - s) dz."""
    cdef vec one = every(z, 1), zero = every(z, 0)
    cdef vec e = exp_of(-magnitude(z))
    cdef vec large = one / (one + e)
    cdef vec small = e * large
    return pick(z, zero, small, large) + x * (small * large) * dz


cdef inline vec sigmoid_of(vec x) noexcept nogil:
    """Give 1 / (1 + e^-x)."""
    return gated(every(x, 1), x)


cdef inline vec gelu_of(vec x) noexcept nogil:
    """Give x Phi(x), as max(x, 0) - |x| Phi(-|x|); beyond the ends, x or 0."""
    cdef vec n, t = at_most(magnitude(x), by_type(x, 15, 40))
    cdef vec tail = t * density_parts(t, &n) * tail_ratio(t)
    return at_least(x, every(x, -0.0)) - scaled(tail, n)  # -0: small results keep their sign


cdef inline vec gelu_slope(vec x) noexcept nogil:
    """Give Phi(x) + x phi(x)."""
    cdef vec zero = every(x, 0), n, t = at_most(magnitude(x), by_type(x, 15, 40))
    cdef vec tail = density_parts(t, &n) * (tail_ratio(t) - t * every(x, DENSITY))
    tail = scaled(tail, n)
    return pick(x, zero, tail, every(x, 1) - tail)


cdef inline vec gelu_tanh_of(vec x) noexcept nogil:
    """Give x (1 + tanh(z / 2)) / 2 = x sigmoid(z)."""
    cdef vec near = at_least(x, every(x, -40))
    return gated(near, near * (every(x, FIRST) + every(x, CUBIC) * (near * near)))


cdef inline vec gelu_tanh_slope(vec x) noexcept nogil:
    """Give the slope of that."""
    cdef vec near = at_most(at_least(x, every(x, -40)), every(x, 40)), square
    square = near * near
    return gate_slope(
        near, near * (every(x, FIRST) + every(x, CUBIC) * square),
        every(x, FIRST) + every(x, 3 * CUBIC) * square,
    )


cdef inline vec softplus_of(vec x, const Numbers* k) noexcept nogil:
    """Give log(1 + e^(beta x)) / beta, x above the threshold."""
    cdef vec z = x * every(x, k.a), zero = every(x, 0)
    cdef vec low = log1p_of(exp_of(-magnitude(z)))
    low = (at_least(z, zero) + low) * every(x, k.c)
    return pick(every(x, k.b), z, x, low)


cdef inline vec value(Kind kind, vec x, const Numbers* k) noexcept nogil:
    """Give f(x)."""
    cdef vec zero = every(x, 0), three = every(x, 3), near
    if kind == RELU:
        return until(x, zero, zero, x)
    elif kind == CLAMP:
        return at_most(at_least(x, every(x, k.a)), every(x, k.b))
    elif kind == LEAKY:
        return pick(zero, x, x, x * every(x, k.a))
    elif kind == ELU:
        near = at_most(x, zero)
        return pick(zero, x, x * every(x, k.b), expm1_of(near) * every(x, k.a))
    elif kind == GELU:
        return gelu_of(x)
    elif kind == GELU_TANH:
        return gelu_tanh_of(x)
    elif kind == SILU:
        near = far_below(x)
        return gated(near, near)
    elif kind == SIGMOID:
        return sigmoid_of(x)
    elif kind == TANH:
        return tanh_of(x)
    elif kind == SOFTPLUS:
        return softplus_of(x, k)
    near = at_least(x, -three)
    zero = (at_most(near, three) + three) * every(x, 1.0 / 6)
    return zero if kind == HARDSIGMOID else near * zero


cdef inline vec gradient(Kind kind, vec g, vec v, const Numbers* k) noexcept nogil:
    """Give g f'(v), where v is x, or y for RELU, CLAMP, SIGMOID and TANH."""
    cdef vec zero = every(v, 0), one = every(v, 1), three = every(v, 3), near
    if kind == RELU:
        return until(v, zero, zero, g)
    elif kind == CLAMP:
        return until(v, every(v, k.a), zero, until(every(v, k.b), v, zero, g))
    elif kind == LEAKY:
        return pick(zero, v, g, g * every(v, k.a))
    elif kind == ELU:
        near = exp_of(at_most(v, zero)) * every(v, k.a)
        return g * pick(zero, v, every(v, k.b), near)
    elif kind == GELU:
        return g * gelu_slope(v)
    elif kind == GELU_TANH:
        return g * gelu_tanh_slope(v)
    elif kind == SILU:
        near = at_most(far_below(v), by_type(v, 170, 1400))
        return g * gate_slope(near, near, one)
    elif kind == SIGMOID:
        return g * (v * (one - v))
    elif kind == TANH:
        return g * ((one - v) * (one + v))
    elif kind == SOFTPLUS:
        near = v * every(v, k.a)
        return pick(every(v, k.b), near, g, g * sigmoid_of(near))
    elif kind == HARDSIGMOID:
        near = until(three, v, zero, g * every(v, 1.0 / 6))
    else:
        near = until(three, v, g, g * (v * every(v, 1.0 / 3) + every(v, 0.5)))
    return until(v, -three, zero, near)


cdef inline void map_values(
    Kind kind, const Job* j, const vec* x, vec* y, Py_ssize_t n
) noexcept nogil:
    """Write n results of one kind: whole vectors, then one that holds what is left."""
    cdef Py_ssize_t lanes = lanes_of(x), left = n % lanes, stop = n - left, i = 0
    cdef vec* end = <vec*>ahead(y, stop)
    cdef bint past = j.past
    cdef Numbers k = j.numbers
    cdef vec rest = part(ahead(x, stop), first_lanes(left))
    while True:
        while i < stop:
            keep(y, i, value(kind, loaded(ahead(x, i)[0]), &k), past)
            i += lanes
        if y == &rest or left == 0:
            break
        x, y, i, stop, past = &rest, &rest, 0, lanes, False
    put_part(end, rest, left)


cdef inline void map_gradients(
    Kind kind, const Job* j, const vec* dy, const vec* v, vec* dx, Py_ssize_t n
) noexcept nogil:
    """Write n gradients of one kind in the same way."""
    cdef Py_ssize_t lanes = lanes_of(dy), left = n % lanes, stop = n - left, i = 0
    cdef vec* end = <vec*>ahead(dx, stop)
    cdef bint past = j.past
    cdef Numbers k = j.numbers
    cdef vec rest = part(ahead(dy, stop), first_lanes(left))
    cdef vec rest_v = part(ahead(v, stop), first_lanes(left)), g
    while True:
        while i < stop:
            g = loaded(ahead(dy, i)[0])
            keep(dx, i, gradient(kind, g, loaded(ahead(v, i)[0]), &k), past)
            i += lanes
        if dx == &rest or left == 0:
            break
        dy, v, dx, i, stop, past = &rest, &rest_v, &rest, 0, lanes, False
    put_part(end, rest, left)


cdef void values(const Job* j, const vec* x, vec* y, Py_ssize_t n) noexcept nogil:
    """Write n results: a loop for each kind."""
    if j.kind == RELU:
        map_values(RELU, j, x, y, n)
    elif j.kind == CLAMP:
        map_values(CLAMP, j, x, y, n)
    elif j.kind == LEAKY:
        map_values(LEAKY, j, x, y, n)
    elif j.kind == ELU:
        map_values(ELU, j, x, y, n)
    elif j.kind == GELU:
        map_values(GELU, j, x, y, n)
    elif j.kind == GELU_TANH:
        map_values(GELU_TANH, j, x, y, n)
    elif j.kind == SILU:
        map_values(SILU, j, x, y, n)
    elif j.kind == SIGMOID:
        map_values(SIGMOID, j, x, y, n)
    elif j.kind == TANH:
        map_values(TANH, j, x, y, n)
    elif j.kind == SOFTPLUS:
        map_values(SOFTPLUS, j, x, y, n)
    elif j.kind == HARDSIGMOID:
        map_values(HARDSIGMOID, j, x, y, n)
    else:
        map_values(HARDSWISH, j, x, y, n)


cdef void gradients(
    const Job* j, const vec* dy, const vec* v, vec* dx, Py_ssize_t n
) noexcept nogil:
    """Write n gradients: a loop for each kind."""
    if j.kind == RELU:
        map_gradients(RELU, j, dy, v, dx, n)
    elif j.kind == CLAMP:
        map_gradients(CLAMP, j, dy, v, dx, n)
    elif j.kind == LEAKY:
        map_gradients(LEAKY, j, dy, v, dx, n)
    elif j.kind == ELU:
        map_gradients(ELU, j, dy, v, dx, n)
    elif j.kind == GELU:
        map_gradients(GELU, j, dy, v, dx, n)
    elif j.kind == GELU_TANH:
        map_gradients(GELU_TANH, j, dy, v, dx, n)
    elif j.kind == SILU:
        map_gradients(SILU, j, dy, v, dx, n)
    elif j.kind == SIGMOID:
        map_gradients(SIGMOID, j, dy, v, dx, n)
    elif j.kind == TANH:
        map_gradients(TANH, j, dy, v, dx, n)
    elif j.kind == SOFTPLUS:
        map_gradients(SOFTPLUS, j, dy, v, dx, n)
    elif j.kind == HARDSIGMOID:
        map_gradients(HARDSIGMOID, j, dy, v, dx, n)
    else:
        map_gradients(HARDSWISH, j, dy, v, dx, n)


cdef void some_pieces(
    const Job* j, const vec* dy, const vec* v, vec* to, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Do pieces begin .. end, of values where there is no dy."""
    cdef Py_ssize_t first = begin * PIECE, n = min(end * PIECE, j.count) - first
    if dy == NULL:
        values(j, ahead(v, first), <vec*>ahead(to, first), n)
    else:
        gradients(j, ahead(dy, first), ahead(v, first), <vec*>ahead(to, first), n)
    if j.past:
        settle()


cdef void tasks(
    const Job* j, const Rounds* r, const vec* dy, const vec* v, vec* to,
    Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        some_pieces(j, dy, v, to, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="static"):
        some_pieces(j, dy, v, to, first_piece(r, i), first_piece(r, i + 1))


cdef int every_piece(
    const Job* j, const vec* dy, const vec* v, vec* to, int threads
) except -1:
    """Do all rounds."""
    cdef Rounds r = rounds((j.count + PIECE - 1) // PIECE, PIECE, threads)
    cdef Py_ssize_t begin = 0, end
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            tasks(j, &r, dy, v, to, begin, end, threads)
        look()
        begin = end
    return 0


cdef Job job_of(const Buffers* held) except *:
    """Read what to do; the numbers are the bits of doubles."""
    cdef const long long* sizes = geometry_of(held, 5)
    cdef Job j
    if not 0 <= sizes[0] < KINDS:
        raise ValueError(f"kernel: no activation has the number {sizes[0]}")
    j.kind = <Kind>sizes[0]
    j.count = sizes[1]
    memcpy(&j.numbers, sizes + 2, sizeof(Numbers))
    return j


cdef int run_forward(const Buffers* held, int threads, real* like) except -1:
    """Check the sizes, x and y, and write y."""
    cdef Job j = job_of(held)
    cdef const real* x = reals(held, 1, j.count, like)
    cdef real* y = reals(held, 2, j.count, like)
    if real is float:
        j.past = past_caches(<const f32v*>y, j.count)
        every_piece(&j, <const f32v*>NULL, <const f32v*>x, <f32v*>y, threads)
    else:
        j.past = past_caches(<const f64v*>y, j.count)
        every_piece(&j, <const f64v*>NULL, <const f64v*>x, <f64v*>y, threads)
    return 0


cdef int run_backward(const Buffers* held, int threads, real* like) except -1:
    """Check the sizes, dy, what was kept, and dx, and write dx."""
    cdef Job j = job_of(held)
    cdef const real* dy = reals(held, 1, j.count, like)
    cdef const real* v = reals(held, 2, j.count, like)
    cdef real* dx = reals(held, 3, j.count, like)
    if real is float:
        j.past = past_caches(<const f32v*>dx, j.count)
        every_piece(&j, <const f32v*>dy, <const f32v*>v, <f32v*>dx, threads)
    else:
        j.past = past_caches(<const f64v*>dx, j.count)
        every_piece(&j, <const f64v*>dy, <const f64v*>v, <f64v*>dx, threads)
    return 0


def forward(sizes, x, y, int threads, /):
    """Write f(x) to y; sizes are the kind, the count, and three numbers."""
    call((sizes, x), (y,), threads, run_forward[float], run_forward[double])


def backward(sizes, dy, kept, dx, int threads, /):
    """Write the gradient of x to dx; `kept` is x, or y where that is enough."""
    call((sizes, dy, kept), (dx,), threads, run_backward[float], run_backward[double])
