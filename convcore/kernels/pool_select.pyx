# Planes addressed by flat indices, one to a window: unpooling, and gradients of choices.
#
# What      scatter          dx[i] = sum of dy[o] over windows o with index[o] = i
#           unpool           y[i] = x[o] for the last window o with index[o] = i, else 0
#           unpool_gradient  dx[o] = dy[index[o]] for those last windows, else 0
#           check            the first index that is in no plane
#           maxima           maximum of a plane, and the first index of it or of a NaN
# Layout    planes (n*c) of `cells` elements and of `windows` indices, flat. Maxima of a
#           plane are first those of each lane; then as many planes as a vector has lanes
#           are turned, and compared a vector at a time.
# Assumes   sizes = (planes, cells, windows). An index that is in no plane is left out, and
#           told of.
# Parallel  over planes: each is written by one task, its windows in order.
# Scratch   unpool_gradient: a byte a cell of a plane, for each thread.
# Cost      memory: one read of the values and 8 bytes an index, one write of the result.

from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY
from libc.string cimport memset

from convcore.kernels.blocks cimport Rounds, first_piece, rounds
from convcore.kernels.buffers cimport (
    LINE, Buffers, bytes_of, call, geometry_of, integers, integers_or_nothing, reals,
    refuse,
)
from convcore.kernels.pool_flat cimport AHEAD, fetch, first_bits, lanes_of
from convcore.kernels.teams cimport look
from convcore.kernels.transpose cimport MOST_LANES, mix
from convcore.kernels.vector cimport (
    VEC_BYTES, ahead, all_lanes, cc_fetch, f32v, f64v, merge, pick, put_part, real, smaller, vec,
    zero_lanes,
)
from convcore.kernels.vector_compare cimport contest, later
from convcore.kernels.windows cimport Pool, elements_of, is_whole, pool_of, windows_of

cdef enum:
    SCATTER = 0
    UNPOOL = 1
    UNPOOL_GRADIENT = 2
    MAXIMA = 3
    PLACES = 16777216  # in a plane: float32 counts so far
    CHUNK = 64  # elements that are searched at once

cdef struct Planes:
    Py_ssize_t planes, cells, windows
    int what
    const long long* index
    long long* found  # of maxima; may be NULL
    long long* bad  # whether an index is in no plane
    char* seen  # a row of bytes for each thread
    Py_ssize_t seen_bytes  # of one


cdef inline bint scatter(
    const Planes* p, Py_ssize_t plane, const real* source, real* to
) noexcept nogil:
    """Add the values of a plane of windows to their cells, in order."""
    cdef Py_ssize_t o
    cdef unsigned long long i, cells = p.cells
    cdef const long long* index = p.index + plane * p.windows
    cdef bint good = True
    source += plane * p.windows
    to += plane * p.cells
    memset(to, 0, p.cells * sizeof(real))
    for o in range(p.windows):
        i = index[o]
        if i < cells:
            to[i] += source[o]
        else:
            good = False
    return good


cdef inline bint unpool(
    const Planes* p, Py_ssize_t plane, const real* source, real* to
) noexcept nogil:
    """Put the values of a plane of windows into their cells, in order."""
    cdef Py_ssize_t o
    cdef unsigned long long i, cells = p.cells
    cdef const long long* index = p.index + plane * p.windows
    cdef bint good = True
    source += plane * p.windows
    to += plane * p.cells
    memset(to, 0, p.cells * sizeof(real))
    for o in range(p.windows):
        i = index[o]
        if i < cells:
            to[i] = source[o]
        else:
            good = False
    return good


cdef inline bint unpool_gradient(
    const Planes* p, Py_ssize_t plane, const real* source, real* to, unsigned char* seen
) noexcept nogil:
    """Take the gradients of windows from their cells: only the last one wrote there."""
    cdef Py_ssize_t o
    cdef unsigned long long i, cells = p.cells
    cdef const long long* index = p.index + plane * p.windows
    cdef real value
    cdef bint good = True
    source += plane * p.cells
    to += plane * p.windows
    memset(seen, 0, p.cells)
    for o in range(p.windows - 1, -1, -1):
        i = index[o]
        if i < cells:
            value = source[i]
            cc_fetch(<const char*>(source + i) - AHEAD)
            to[o] = value if seen[i] == 0 else 0
            seen[i] = 1
        else:
            to[o] = 0
            good = False
    return good


cdef inline vec max_lanes(const vec* x, Py_ssize_t n) noexcept nogil:
    """Let n scalars compete, in four vectors of lanes."""
    cdef Py_ssize_t lanes = lanes_of(x), j = 0
    cdef vec a = all_lanes(x, -INFINITY), b = a, c = a, d = a
    while j + 4 * lanes <= n:
        fetch(<const char*>ahead(x, j), 4 * VEC_BYTES)
        a = later(ahead(x, j)[0], a)
        b = later(ahead(x, j + lanes)[0], b)
        c = later(ahead(x, j + 2 * lanes)[0], c)
        d = later(ahead(x, j + 3 * lanes)[0], d)
        j += 4 * lanes
    while j < n:
        a = later(merge(a, ahead(x, j), first_bits(n - j)), a)
        j += lanes
    return later(later(d, c), later(b, a))


cdef inline void max_planes(
    const vec* x, Py_ssize_t cells, Py_ssize_t planes, vec* y
) noexcept nogil:
    """Write the maxima of some planes, at most one for each lane: lanes become planes."""
    cdef vec[MOST_LANES] held
    cdef Py_ssize_t i, lanes = lanes_of(x)
    cdef vec best
    for i in range(lanes):
        held[i] = max_lanes(ahead(x, i * cells), cells) if i < planes else held[0]
    mix(held)
    best = held[0]
    for i in range(1, lanes):
        best = later(held[i], best)
    put_part(y, best, planes)


cdef inline vec placed(vec v, vec best, vec place) noexcept nogil:
    """Give the places of what is the best, and one behind all of them elsewhere."""
    return pick(v, best, all_lanes(&v, 2 * PLACES), place)


cdef inline void argmax_lanes(
    const vec* x, Py_ssize_t n, vec* best, vec* place
) noexcept nogil:
    """Do `max_lanes`, and tell which vector of x the first maximum of each lane is in."""
    cdef Py_ssize_t lanes = lanes_of(x), j = 0
    cdef vec a = all_lanes(x, -INFINITY), b = a, c = a, d = a
    cdef vec k = zero_lanes(x), ka = k, kb = k, kc = k, kd = k
    while j + 4 * lanes <= n:
        fetch(<const char*>ahead(x, j), 4 * VEC_BYTES)
        contest(ahead(x, j)[0], k, &a, &ka)
        contest(ahead(x, j + lanes)[0], k, &b, &kb)
        contest(ahead(x, j + 2 * lanes)[0], k, &c, &kc)
        contest(ahead(x, j + 3 * lanes)[0], k, &d, &kd)
        j += 4 * lanes
        k = all_lanes(x, j)
    while j < n:
        contest(merge(a, ahead(x, j), first_bits(n - j)), k, &a, &ka)
        j += lanes
        k = all_lanes(x, j)
    best[0] = later(later(d, c), later(b, a))
    kb = smaller(placed(a, best[0], ka), placed(b, best[0], kb + all_lanes(x, lanes)))
    kc = placed(c, best[0], kc + all_lanes(x, 2 * lanes))
    kd = placed(d, best[0], kd + all_lanes(x, 3 * lanes))
    place[0] = smaller(kb, smaller(kc, kd))


cdef inline void argmax_planes(
    const vec* x, Py_ssize_t cells, Py_ssize_t planes, vec* y, vec* place
) noexcept nogil:
    """Do `max_planes`, and give the places of the first maxima."""
    cdef vec[MOST_LANES] held, at
    cdef Py_ssize_t i, lanes = lanes_of(x)
    cdef vec best
    for i in range(lanes):
        if i < planes:
            argmax_lanes(ahead(x, i * cells), cells, &held[i], &at[i])
        else:
            held[i], at[i] = held[0], at[0]
    mix(held)
    mix(at)
    best = held[0]
    for i in range(1, lanes):
        best = later(held[i], best)
    place[0] = placed(held[0], best, at[0])
    for i in range(1, lanes):
        place[0] = smaller(placed(held[i], best, at[i] + all_lanes(x, i)), place[0])
    put_part(y, best, planes)


cdef inline Py_ssize_t first_match(const real* x, Py_ssize_t n, real best) noexcept nogil:
    """Find the first element that is `best`, or NaN as it is."""
    cdef Py_ssize_t begin = 0, j, end
    cdef bint found
    while begin < n:
        end = min(begin + CHUNK, n)
        found = False
        for j in range(begin, end):
            found = found | (x[j] == best) | (x[j] != x[j])
        if found:
            for j in range(begin, end):
                if x[j] == best or x[j] != x[j]:
                    return j
        begin = end
    return 0


cdef inline void find(
    const Planes* p, Py_ssize_t plane, Py_ssize_t n, const real* x, real* y
) noexcept nogil:
    """Find the maxima of some planes, at most one for each lane, and where they are."""
    cdef real[MOST_LANES] place
    cdef long long* found = p.found + plane
    cdef Py_ssize_t i
    x += plane * p.cells
    y += plane
    if real is float:
        argmax_planes(<const f32v*>x, p.cells, n, <f32v*>y, <f32v*>place)
    else:
        argmax_planes(<const f64v*>x, p.cells, n, <f64v*>y, <f64v*>place)
    for i in range(n):
        if y[i] == y[i] and p.cells <= PLACES:
            found[i] = <long long>place[i]
        else:
            found[i] = first_match(x + i * p.cells, p.cells, y[i])
        y[i] = x[i * p.cells + found[i]]  # of 0 and -0, the first


cdef inline void maxima_of(
    const Planes* p, Py_ssize_t begin, Py_ssize_t end, const real* x, real* y
) noexcept nogil:
    """Find the maxima of planes begin .. end, and where they are if that is asked."""
    cdef Py_ssize_t lanes = VEC_BYTES // <Py_ssize_t>sizeof(real), plane = begin, n
    cdef const real* at
    while plane < end:
        n = min(lanes, end - plane)
        at = x + plane * p.cells
        if p.found != NULL:
            find(p, plane, n, x, y)
        elif real is float:
            max_planes(<const f32v*>at, p.cells, n, <f32v*>(y + plane))
        else:
            max_planes(<const f64v*>at, p.cells, n, <f64v*>(y + plane))
        plane += n


cdef void do_planes(
    const Planes* p, const real* source, real* to, Py_ssize_t begin, Py_ssize_t end,
    int thread,
) noexcept nogil:
    """Do planes begin .. end."""
    cdef unsigned char* seen = <unsigned char*>p.seen + thread * p.seen_bytes
    cdef Py_ssize_t plane
    cdef bint good = True
    if p.what == MAXIMA:
        maxima_of(p, begin, end, source, to)
        return
    for plane in range(begin, end):
        if p.what == SCATTER:
            good = scatter(p, plane, source, to) and good
        elif p.what == UNPOOL:
            good = unpool(p, plane, source, to) and good
        else:
            good = unpool_gradient(p, plane, source, to, seen) and good
    if not good:
        p.bad[0] = 1  # the same, whoever writes it


cdef void do_tasks(
    const Planes* p, const Rounds* r, const real* source, real* to, Py_ssize_t begin,
    Py_ssize_t end, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    if threads == 1:
        do_planes(p, source, to, first_piece(r, begin), first_piece(r, end), 0)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        do_planes(p, source, to, first_piece(r, i), first_piece(r, i + 1), threadid())


cdef int all_planes(
    const Planes* p, const real* source, real* to, int threads
) except -1:
    """Do all planes, in rounds between which Ctrl-C is looked for."""
    cdef Rounds r = rounds(p.planes, p.cells + p.windows, threads)
    cdef Py_ssize_t begin = 0, end
    while begin < r.tasks:
        end = min(begin + r.step, r.tasks)
        with nogil:
            do_tasks(p, &r, source, to, begin, end, threads)
        look()
        begin = end
    return 0


cdef Planes planes_of(const Buffers* held, int what) except *:
    """Read the sizes."""
    cdef const long long* sizes = geometry_of(held, 3)
    cdef Planes p
    p.planes, p.cells, p.windows = sizes[0], sizes[1], sizes[2]
    p.what = what
    p.index = NULL
    p.found = p.bad = NULL
    p.seen, p.seen_bytes = NULL, 0
    return p


cdef int by_index(
    Planes* p, const Buffers* held, const real* source, real* to, int threads
) except -1:
    """Do all planes, and tell whether an index was in none."""
    p.index = integers(held, 2, p.planes * p.windows)
    p.bad = integers(held, 4, 1)
    p.bad[0] = 0
    return all_planes(p, source, to, threads)


cdef int scattered(const Buffers* held, int threads, real* like) except -1:
    cdef Planes p = planes_of(held, SCATTER)
    cdef const real* source = reals(held, 1, p.planes * p.windows, like)
    return by_index(&p, held, source, reals(held, 3, p.planes * p.cells, like), threads)


cdef int unpooled(const Buffers* held, int threads, real* like) except -1:
    cdef Planes p = planes_of(held, UNPOOL)
    cdef const real* source = reals(held, 1, p.planes * p.windows, like)
    return by_index(&p, held, source, reals(held, 3, p.planes * p.cells, like), threads)


cdef int unpooled_gradient(const Buffers* held, int threads, real* like) except -1:
    cdef Planes p = planes_of(held, UNPOOL_GRADIENT)
    cdef const real* source = reals(held, 1, p.planes * p.cells, like)
    p.seen_bytes = (p.cells + LINE - 1) // LINE * LINE
    p.seen = <char*>bytes_of(held, 5, threads * p.seen_bytes)
    return by_index(&p, held, source, reals(held, 3, p.planes * p.windows, like), threads)


cdef int global_maxima(const Buffers* held, int threads, real* like) except -1:
    cdef Planes p = planes_of(held, MAXIMA)
    cdef const real* source = reals(held, 1, p.planes * p.cells, like)
    cdef real* to = reals(held, 2, p.planes, like)
    p.found = integers_or_nothing(held, 3, p.planes)
    return all_planes(&p, source, to, threads)


cdef int window_maxima(const Buffers* held, int threads, real* like) except -1:
    cdef Pool pool = pool_of(held)
    cdef Planes p
    cdef const real* x = reals(held, 1, elements_of(&pool), like)
    cdef real* y = reals(held, 2, windows_of(&pool), like)
    if not (is_whole(&pool.z) and is_whole(&pool.y) and is_whole(&pool.x)):
        refuse()
    p.what, p.index, p.bad, p.seen, p.seen_bytes = MAXIMA, NULL, NULL, NULL, 0
    p.planes, p.windows = pool.planes, 1
    p.cells = elements_of(&pool) // max(pool.planes, 1)
    p.found = integers_or_nothing(held, 3, p.planes)
    return all_planes(&p, x, y, threads)


cdef inline Py_ssize_t first_outside(
    const long long* index, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t cells
) noexcept nogil:
    """Find the first index that is not in 0 .. cells - 1, or give -1."""
    cdef Py_ssize_t i
    cdef bint bad = False
    for i in range(begin, end):
        bad = bad | (index[i] < 0) | (index[i] >= cells)
    if bad:
        for i in range(begin, end):
            if index[i] < 0 or index[i] >= cells:
                return i
    return -1


cdef int checked(const Buffers* held, int threads, real* like) except -1:
    cdef Planes p = planes_of(held, SCATTER)
    cdef const long long* index = integers(held, 1, p.planes * p.windows)
    cdef long long* found = integers(held, 2, 1)
    cdef Py_ssize_t begin = 0, end, count = p.planes * p.windows
    found[0] = -1
    while begin < count and found[0] < 0:
        end = min(begin + (1 << 22), count)
        with nogil:
            found[0] = first_outside(index, begin, end, p.cells)
        look()
        begin = end
    return 0


def scatter_add(sizes, dy, index, dx, bad, int threads, /):
    """Write dx: the sum of dy over the windows whose index tells the cell.

    And to `bad` whether an index is in no plane; `check` finds it.
    """
    call((sizes, dy, index), (dx, bad), threads, scattered[float], scattered[double])


def put(sizes, x, index, y, bad, int threads, /):
    """Write y: x at the cells that the indices tell, 0 elsewhere; and `bad`."""
    call((sizes, x, index), (y, bad), threads, unpooled[float], unpooled[double])


def put_gradient(sizes, dy, index, dx, bad, seen, int threads, /):
    """Write dx, the gradient of x in `put`, and `bad`; `seen` is scratch."""
    call(
        (sizes, dy, index), (dx, bad, seen), threads, unpooled_gradient[float],
        unpooled_gradient[double],
    )


def maxima(sizes, x, y, index, int threads, /):
    """Write the maximum of each plane, and where it is unless `index` is None."""
    call((sizes, x), (y, index), threads, global_maxima[float], global_maxima[double])


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that `fprop` needs: none."""
    return 0


def fprop(geometry, x, y, index, scratch, int threads, /):
    """Do `maxima` for a pooling with one window, dense and as large as a plane."""
    call((geometry, x), (y, index, scratch), threads, window_maxima[float],
         window_maxima[double])


def check(sizes, index, found, int threads, /):
    """Write the place of the first index that is in no plane, or -1."""
    call((sizes, index), (found,), threads, checked[float], checked[double])
