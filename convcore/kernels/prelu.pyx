# PReLU: what is negative times a slope that is learned, and the gradients.
#
# What      y  = x where x > 0, w x elsewhere
#           dx = dy where x > 0, w dy elsewhere
#           dw = the sum of x dy where x is not > 0
# Layout    planes of n elements, plane i with slope w[i % slopes]; or, where planes would
#           be shorter than vectors, rows of n elements with a slope each (slopes == n).
#           Sums of dw: one for each PIECE of a plane, in order; the caller adds them.
# Assumes   sizes (planes, n, slopes, rows); y may be x, dx may be dy or x.
# Parallel  over pieces of planes: their borders, and so the sums, depend on the shape alone.
# Scratch   none.
# Cost      memory: one read (two, backward) and one write.
# Source    He, Zhang, Ren, Sun: Delving Deep into Rectifiers, 2015, section 2.1.

from cython.parallel cimport prange

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    Buffers, call, geometry_of, reals, reals_or_nothing,
)
from convcore.kernels.elements cimport PIECE, keep_some, lanes_of, load_some
from convcore.kernels.teams cimport look
from convcore.kernels.vector cimport (
    ahead, f32v, f64v, lanes_from, part, pick, put_sum, real, vec,
)
from convcore.kernels.vector_math cimport every

cdef enum:
    ABREAST = 4  # sums that do not wait for each other
    CHAIN = 16  # vectors that are summed one after the other

cdef struct Planes:
    Py_ssize_t planes, n, slopes, rows, pieces


cdef inline void bend(
    const Planes* p, Py_ssize_t piece, const vec* g, const vec* x, const vec* w, vec* to
) noexcept nogil:
    """Write one piece of y (where g is x), or of dx."""
    cdef Py_ssize_t plane = piece // p.pieces, at = (piece - plane * p.pieces) * PIECE
    cdef Py_ssize_t n = min(p.n - at, PIECE), first = plane * p.n + at
    cdef Py_ssize_t i = 0, lanes = lanes_of(g)
    cdef vec slope = lanes_from(w, 0 if p.rows else plane % p.slopes)
    cdef vec zero = every(slope, 0), v, d
    while i < n:
        v, d = load_some(ahead(x, first + i), n - i), load_some(ahead(g, first + i), n - i)
        if p.rows:
            slope = load_some(ahead(w, at + i), n - i)
        keep_some(to, first + i, pick(zero, v, d, d * slope), n - i, False)
        i += lanes


cdef inline void slope_sum(
    const Planes* p, Py_ssize_t piece, const vec* g, const vec* x, vec* sums
) noexcept nogil:
    """Write the sum of x dy over what is not positive in a piece of a plane."""
    cdef Py_ssize_t plane = piece // p.pieces, at = (piece - plane * p.pieces) * PIECE
    cdef Py_ssize_t n = min(p.n - at, PIECE), first = plane * p.n + at
    cdef Py_ssize_t i = 0, stop, lanes = lanes_of(g)
    cdef int k
    cdef vec v, d, zero = every(part(g, 0), 0)
    cdef vec total = zero
    cdef vec[ABREAST] chain
    while i < n:
        for k in range(ABREAST):
            chain[k] = zero
        stop = min(n, i + ABREAST * CHAIN * lanes)
        while i + ABREAST * lanes <= stop:
            for k in range(ABREAST):
                v, d = ahead(x, first + i + k * lanes)[0], ahead(g, first + i + k * lanes)[0]
                chain[k] = chain[k] + pick(zero, v, zero, v * d)
            i += ABREAST * lanes
        while i < stop:
            v, d = load_some(ahead(x, first + i), n - i), load_some(ahead(g, first + i), n - i)
            chain[0] = chain[0] + pick(zero, v, zero, v * d)
            i += lanes
        total = total + ((chain[0] + chain[1]) + (chain[2] + chain[3]))
    put_sum(sums, total, piece)


cdef void some_pieces(
    const Planes* p, const vec* g, const vec* x, const vec* w, vec* to, vec* sums,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Do pieces begin .. end; the sums first, as dx may lie where x or dy does."""
    cdef Py_ssize_t i
    for i in range(begin, end):
        if sums != NULL:
            slope_sum(p, i, g, x, sums)
        if to != NULL:
            bend(p, i, g, x, w, to)


cdef void tasks(
    const Planes* p, const Rounds* r, const vec* g, const vec* x, const vec* w, vec* to,
    vec* sums, Py_ssize_t begin, Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        some_pieces(p, g, x, w, to, sums, first_piece(r, begin), first_piece(r, end))
        return
    for i in prange(begin, end, num_threads=threads, schedule="static"):
        some_pieces(p, g, x, w, to, sums, first_piece(r, i), first_piece(r, i + 1))


cdef int every_piece(
    const Planes* p, const vec* g, const vec* x, const vec* w, vec* to, vec* sums,
    int threads,
) except -1:
    """Do all rounds."""
    cdef Rounds r = rounds(p.planes * p.pieces, min(p.n, PIECE), threads)
    cdef Py_ssize_t begin = 0, end
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            tasks(p, &r, g, x, w, to, sums, begin, end, threads)
        look()
        begin = end
    return 0


cdef Planes planes_of(const Buffers* held) except *:
    """Read the sizes."""
    cdef const long long* sizes = geometry_of(held, 4)
    cdef Planes p
    p.planes, p.n, p.slopes, p.rows = sizes[0], sizes[1], sizes[2], sizes[3]
    p.pieces = (p.n + PIECE - 1) // PIECE
    if p.n < 1 or p.slopes < 1 or (p.rows and p.slopes != p.n):
        raise ValueError("kernel: not the sizes of a PReLU")
    return p


cdef int run_forward(const Buffers* held, int threads, real* like) except -1:
    """Check x, the slopes and y, and write y."""
    cdef Planes p = planes_of(held)
    cdef const real* x = reals(held, 1, p.planes * p.n, like)
    cdef const real* w = reals(held, 2, p.slopes, like)
    cdef real* y = reals(held, 3, p.planes * p.n, like)
    if real is float:
        every_piece(
            &p, <const f32v*>x, <const f32v*>x, <const f32v*>w, <f32v*>y, <f32v*>NULL,
            threads,
        )
    else:
        every_piece(
            &p, <const f64v*>x, <const f64v*>x, <const f64v*>w, <f64v*>y, <f64v*>NULL,
            threads,
        )
    return 0


cdef int run_backward(const Buffers* held, int threads, real* like) except -1:
    """Check dy, x, the slopes, dx and the sums, and write the last two."""
    cdef Planes p = planes_of(held)
    cdef const real* dy = reals(held, 1, p.planes * p.n, like)
    cdef const real* x = reals(held, 2, p.planes * p.n, like)
    cdef const real* w = reals(held, 3, p.slopes, like)
    cdef real* dx = reals_or_nothing(held, 4, p.planes * p.n, like)
    cdef real* sums = reals_or_nothing(held, 5, p.planes * p.pieces, like)
    if real is float:
        every_piece(
            &p, <const f32v*>dy, <const f32v*>x, <const f32v*>w, <f32v*>dx, <f32v*>sums,
            threads,
        )
    else:
        every_piece(
            &p, <const f64v*>dy, <const f64v*>x, <const f64v*>w, <f64v*>dx, <f64v*>sums,
            threads,
        )
    return 0


def pieces(Py_ssize_t n, /):
    """Give the number of pieces, and so of sums, of a plane of n elements."""
    return (n + PIECE - 1) // PIECE


def forward(sizes, x, weight, y, int threads, /):
    """Write y."""
    call((sizes, x, weight), (y,), threads, run_forward[float], run_forward[double])


def backward(sizes, dy, x, weight, dx, sums, int threads, /):
    """Write dx and the sums of x dy over each piece of a plane; None is not wanted."""
    call(
        (sizes, dy, x, weight), (dx, sums), threads, run_backward[float],
        run_backward[double],
    )
