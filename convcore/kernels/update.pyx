# One step of an optimiser, in place: values and running averages in one pass.
#
# What      sgd:   d = g + decay * p;  v = momentum * v + d;  p = p - lr * v, or with
#           Nesterov's look ahead p - lr * (d + momentum * v); without v, p - lr * d
#           adam:  d = g + decay * p;  m = m + keep1 * (d - m);
#           v = beta2 * v + keep2 * d * d;  p = p - rate * m / (sqrt(v) / root + eps)
# Layout    flat buffers of one size; the settings are scalars of the same type.
# Assumes   g overlaps p not at all, or element by element.
# Parallel  over elements, a run of them for each thread.
# Cost      memory: sgd with momentum reads three arrays and writes two, adam four and
#           three. In NumPy, with fresh memory for what is between, an sgd step of 11.7
#           million float32 took 31 ms, here 5.
# Why not   a look for Ctrl-C: a step is all or nothing, and lasts some milliseconds.

from cython.parallel cimport prange
from libc.math cimport sqrt, sqrtf

from convcore.kernels.buffers cimport Buffers, call, geometry_of, reals, reals_or_nothing
from convcore.kernels.vector cimport real

cdef enum:
    SGD_SETTINGS = 4  # lr, momentum, 1 for nesterov, decay
    ADAM_SETTINGS = 7  # rate, keep1, beta2, keep2, root, eps, decay


cdef inline real root_of(real value) noexcept nogil:
    return sqrtf(value) if real is float else <real>sqrt(value)


cdef void descend(
    const real* s, const real* g, real* p, Py_ssize_t n
) noexcept nogil:
    """Do plain gradient descent."""
    cdef Py_ssize_t i
    cdef real lr = s[0], decay = s[3]
    if decay == 0:
        for i in range(n):
            p[i] = p[i] - lr * g[i]
    else:
        for i in range(n):
            p[i] = p[i] - lr * (g[i] + decay * p[i])


cdef void roll(
    const real* s, const real* g, real* p, real* v, Py_ssize_t n
) noexcept nogil:
    """Do gradient descent with momentum."""
    cdef Py_ssize_t i
    cdef real lr = s[0], momentum = s[1], decay = s[3], d
    cdef bint ahead = s[2] != 0, decays = decay != 0
    for i in range(n):
        d = g[i] + decay * p[i] if decays else g[i]
        v[i] = momentum * v[i] + d
        p[i] = p[i] - lr * (d + momentum * v[i] if ahead else v[i])


cdef void adapt(
    const real* s, const real* g, real* p, real* m, real* v, Py_ssize_t n
) noexcept nogil:
    """Do a step of Adam."""
    cdef Py_ssize_t i
    cdef real rate = s[0], keep1 = s[1], beta2 = s[2], keep2 = s[3]
    cdef real root = s[4], eps = s[5], decay = s[6], d
    cdef bint decays = decay != 0
    for i in range(n):
        d = g[i] + decay * p[i] if decays else g[i]
        m[i] = m[i] + keep1 * (d - m[i])
        v[i] = beta2 * v[i] + keep2 * d * d
        p[i] = p[i] - rate * m[i] / (root_of(v[i]) / root + eps)


cdef void sgd_part(
    const real* s, const real* g, real* p, real* v, Py_ssize_t first, Py_ssize_t stop
) noexcept nogil:
    """Update the elements from `first` on, up to `stop`."""
    if v == NULL:
        descend(s, g + first, p + first, stop - first)
    else:
        roll(s, g + first, p + first, v + first, stop - first)


cdef int run_sgd(const Buffers* held, int threads, real* like) except -1:
    cdef Py_ssize_t size = geometry_of(held, 1)[0]
    cdef const real* s = reals(held, 1, SGD_SETTINGS, like)
    cdef const real* g = reals(held, 2, size, like)
    cdef real* p = reals(held, 3, size, like)
    cdef real* v = reals_or_nothing(held, 4, size, like)
    cdef int t
    with nogil:
        if threads == 1:
            sgd_part(s, g, p, v, 0, size)
        else:
            for t in prange(threads, num_threads=threads, schedule="static"):
                sgd_part(s, g, p, v, size * t // threads, size * (t + 1) // threads)
    return 0


cdef int run_adam(const Buffers* held, int threads, real* like) except -1:
    cdef Py_ssize_t size = geometry_of(held, 1)[0], first, count
    cdef const real* s = reals(held, 1, ADAM_SETTINGS, like)
    cdef const real* g = reals(held, 2, size, like)
    cdef real* p = reals(held, 3, size, like)
    cdef real* m = reals(held, 4, size, like)
    cdef real* v = reals(held, 5, size, like)
    cdef int t
    with nogil:
        if threads == 1:
            adapt(s, g, p, m, v, size)
        else:
            for t in prange(threads, num_threads=threads, schedule="static"):
                first = size * t // threads
                count = size * (t + 1) // threads - first
                adapt(s, g + first, p + first, m + first, v + first, count)
    return 0


def sgd(sizes, settings, gradient, value, velocity, int threads, /):
    """Update a value and its velocity, None without momentum."""
    call(
        (sizes, settings, gradient), (value, velocity), threads,
        run_sgd[float], run_sgd[double],
    )


def adam(sizes, settings, gradient, value, mean, square, int threads, /):
    """Update a value and its two averages."""
    call(
        (sizes, settings, gradient), (value, mean, square), threads,
        run_adam[float], run_adam[double],
    )
