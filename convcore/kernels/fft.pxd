# Fourier transforms of tiles: real data along x, complex along y, channels in the lanes.
#
# What      X[k] = sum over j of x[j] * exp(-2 pi i j k / n), and its inverse without 1 / n:
#           the same with real and imaginary parts exchanged on both sides.
# Layout    A complex number is two vectors, real and imaginary part. A row of n reals is
#           read as n / 2 complex numbers: their transform tells that of the reals, n / 2 + 1
#           numbers, of which the first and the last are real and share column 0:
#
#               tile (y, x)  --along x-->  grid (y, x / 2)  --along y-->  points
#
#           Column 0 is two real columns A + iB; their spectra are symmetric, so that rows
#           0 to y / 2 of both are kept. x * y / 2 + 2 points in all (x / 2 + 1 if y is 1):
#
#               A[0] ... A[y/2]  B[0] ... B[y/2]  column 1  column 2  ...
#
#           Everything comes out twice as large: nothing is halved on the way.
# Range     Numbers near the smallest normal one would lose digits in sums of products with
#           cosines. One factor is lifted by a power of two before it is transformed, and
#           what the product is too large by is taken away at the very end: then those of
#           that factor lose none, and the other's so many only if this one overflows.
# Products  A complex product of three real ones (`Three`): of re + im, re, im of one factor
#           and re, im - re, im + re of the other. A point is three vectors, `step` apart.
# How       Leaves of 3, 4, 8 and 16 numbers in registers; a longer transform is n1 of n2
#           numbers, then n2 of n1, with turns between them (four-step, in natural order).
# Cost      About 2.5 n log2(n) operations for n reals. No shuffles: lanes are channels.
# Why not   A library: it transforms one channel after the other, and its spectra would have
#           to be transposed for the products.
# Source    Cooley and Tukey, Math. Comp. 19 (1965); Bailey, FFTs in External or Hierarchical
#           Memory, J. Supercomputing 4 (1990), for four steps; Knuth, TAOCP 2, 4.6.4,
#           for three products.

from libc.math cimport M_PI, cos, sin
from libc.string cimport memset

from convcore.kernels.vector cimport ahead, all_lanes, f32v, lanes_from, real, vec

cdef enum:
    LEAF = 16  # numbers of the largest leaf

cdef struct radix3:
    char _

cdef struct radix4:
    char _

cdef struct radix8:
    char _

cdef struct radix16:
    char _

ctypedef fused radix:
    radix3
    radix4
    radix8
    radix16

cdef struct Spectra:                      # how a tile is transformed
    Py_ssize_t y, x, half                 # lengths; x // 2
    Py_ssize_t points
    Py_ssize_t pitch                      # vectors of a row of the grid
    Py_ssize_t turns_y, turns_x, turns_real, turns  # where turns begin, and all of them
    Py_ssize_t room                       # vectors of grid and lines


cdef inline int size_of(radix* kind) noexcept nogil:
    """Count the numbers of a leaf."""
    if radix is radix3:
        return 3
    elif radix is radix4:
        return 4
    elif radix is radix8:
        return 8
    else:
        return 16


cdef inline int place_of(int k, radix* kind) noexcept nogil:
    """Tell where a leaf leaves its result k."""
    if radix is radix8:
        return 2 * (k % 4) + k // 4
    elif radix is radix16:
        return 4 * (k % 4) + k // 4
    else:
        return k


cdef inline void turn_by(vec* r, vec* i, int k, double c, double s) noexcept nogil:
    """Multiply number k by c - i s."""
    cdef vec a = r[k], b = i[k]
    r[k] = a * all_lanes(r, c) + b * all_lanes(r, s)
    i[k] = b * all_lanes(r, c) - a * all_lanes(r, s)


cdef inline void cross(vec* r, vec* i, int a, int b) noexcept nogil:
    """Transform two numbers."""
    cdef vec s = r[b], t = i[b]
    r[b], i[b] = r[a] - s, i[a] - t
    r[a], i[a] = r[a] + s, i[a] + t


cdef inline void cross_turned(vec* r, vec* i, int a, int b) noexcept nogil:
    """Transform two numbers, the second times -i."""
    cdef vec s = i[b], t = r[b]
    r[b], i[b] = r[a] - s, i[a] + t
    r[a], i[a] = r[a] + s, i[a] - t


cdef inline void four_of(vec* r, vec* i, int a, int b, int c, int d) noexcept nogil:
    """Transform four numbers in place."""
    cdef vec s, t
    cross(r, i, a, c)
    cross(r, i, b, d)
    cross(r, i, a, b)
    cross_turned(r, i, c, d)
    # results 0, 2, 1, 3 lie at a, b, c, d
    s, t = r[b], i[b]
    r[b], i[b] = r[c], i[c]
    r[c], i[c] = s, t


cdef inline void transform_leaf(vec* r, vec* i, radix* kind) noexcept nogil:
    """Transform the numbers of a leaf in registers; `place_of` tells where results are."""
    cdef double h = 0.70710678118654752440, c = 0.92387953251128675613, s = 0.38268343236508977173
    cdef vec t, u, v, w
    cdef int k
    if radix is radix3:
        t, u = r[1] + r[2], i[1] + i[2]
        v = all_lanes(r, 0.86602540378443864676) * (r[1] - r[2])
        w = all_lanes(r, 0.86602540378443864676) * (i[1] - i[2])
        r[1], i[1] = r[0] - all_lanes(r, 0.5) * t, i[0] - all_lanes(r, 0.5) * u
        r[0], i[0] = r[0] + t, i[0] + u
        r[2], i[2] = r[1] - w, i[1] + v
        r[1], i[1] = r[1] + w, i[1] - v
    elif radix is radix4:
        four_of(r, i, 0, 1, 2, 3)
    elif radix is radix8:
        for k in range(2):
            four_of(r, i, k, k + 2, k + 4, k + 6)
        t, u = r[3] + i[3], i[3] - r[3]
        r[3], i[3] = all_lanes(r, h) * t, all_lanes(r, h) * u
        t, u = r[7] + i[7], i[7] - r[7]
        r[7], i[7] = all_lanes(r, h) * t, all_lanes(r, h) * u
        cross(r, i, 0, 1)
        cross(r, i, 2, 3)
        cross_turned(r, i, 4, 5)
        cross_turned(r, i, 6, 7)
    else:
        for k in range(4):
            four_of(r, i, k, k + 4, k + 8, k + 12)
        turn_by(r, i, 5, c, s)
        turn_by(r, i, 6, h, h)
        turn_by(r, i, 7, s, c)
        turn_by(r, i, 9, h, h)
        t = r[10]
        r[10], i[10] = i[10], -t
        turn_by(r, i, 11, -h, h)
        turn_by(r, i, 13, s, c)
        turn_by(r, i, 14, -h, h)
        turn_by(r, i, 15, -c, -s)
        for k in range(4):
            four_of(r, i, 4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3)


cdef inline void leaves(
    const vec* re, const vec* im, Py_ssize_t step, Py_ssize_t follow, vec* to_re, vec* to_im,
    Py_ssize_t to_step, Py_ssize_t to_follow, const vec* turns, Py_ssize_t count, radix* kind,
) noexcept nogil:
    """Transform `count` times some numbers `step` apart, and turn the results if wanted."""
    cdef vec r[LEAF]
    cdef vec i[LEAF]
    cdef vec c, s, a, b
    cdef Py_ssize_t n
    cdef int k
    for n in range(count):
        for k in range(size_of(kind)):
            r[k] = re[n * follow + k * step]
            i[k] = im[n * follow + k * step]
        transform_leaf(r, i, kind)
        if turns:
            for k in range(size_of(kind)):
                a, b = r[place_of(k, kind)], i[place_of(k, kind)]
                c = lanes_from(turns, 2 * (n * size_of(kind) + k))
                s = lanes_from(turns, 2 * (n * size_of(kind) + k) + 1)
                to_re[n * to_follow + k * to_step] = a * c + b * s
                to_im[n * to_follow + k * to_step] = b * c - a * s
        else:
            for k in range(size_of(kind)):
                to_re[n * to_follow + k * to_step] = r[place_of(k, kind)]
                to_im[n * to_follow + k * to_step] = i[place_of(k, kind)]


cdef inline void leaves_of(
    Py_ssize_t size, const vec* re, const vec* im, Py_ssize_t step, Py_ssize_t follow,
    vec* to_re, vec* to_im, Py_ssize_t to_step, Py_ssize_t to_follow, const vec* turns,
    Py_ssize_t count,
) noexcept nogil:
    """Choose the leaf."""
    if size == 3:
        leaves(
            re, im, step, follow, to_re, to_im, to_step, to_follow, turns, count, <radix3*>NULL
        )
    elif size == 4:
        leaves(
            re, im, step, follow, to_re, to_im, to_step, to_follow, turns, count, <radix4*>NULL
        )
    elif size == 8:
        leaves(
            re, im, step, follow, to_re, to_im, to_step, to_follow, turns, count, <radix8*>NULL
        )
    else:
        leaves(
            re, im, step, follow, to_re, to_im, to_step, to_follow, turns, count, <radix16*>NULL
        )


cdef inline Py_ssize_t leaf_of(Py_ssize_t n) noexcept nogil:
    """Give the leaf n1 of a transform of n numbers: all, or n // n1 is another one."""
    if n <= 8:
        return n
    if n == 12 or n == 16:
        return 4
    if n == 24 or n == 32 or n == 64:
        return 8
    return 16


cdef inline void transform(
    Py_ssize_t n, const vec* re, const vec* im, Py_ssize_t step, vec* to_re, vec* to_im,
    Py_ssize_t to_step, const vec* turns, vec* work,
) noexcept nogil:
    """Transform n complex numbers; steps are in vectors, from number to number."""
    cdef Py_ssize_t n1 = leaf_of(n), n2 = n // n1
    if n == 1:
        to_re[0], to_im[0] = re[0], im[0]
    elif n2 == 1:
        leaves_of(n, re, im, step, 0, to_re, to_im, to_step, 0, <const vec*>NULL, 1)
    else:
        leaves_of(n1, re, im, n2 * step, step, work, work + 1, 2 * n2, 2, turns, n2)
        leaves_of(
            n2, <const vec*>work, <const vec*>work + 1, 2, 2 * n2, to_re, to_im,
            n1 * to_step, to_step, <const vec*>NULL, n1,
        )


cdef inline Spectra spectra_of(Py_ssize_t y, Py_ssize_t x) noexcept nogil:
    """Describe the transform of tiles of y rows and x columns; x is even, y even or 1."""
    cdef Spectra s
    s.y, s.x, s.half = y, x, x // 2
    s.points = y * (s.half - 1) + 2 * (y // 2 + 1)
    s.pitch = 2 * s.half + 2  # no power of two, or columns share cache sets
    s.turns_y, s.turns_x = 0, 2 * y
    s.turns_real = s.turns_x + 2 * s.half
    s.turns = s.turns_real + 2 * s.half
    s.room = y * s.pitch + 4 * max(y, s.half)
    return s


cdef inline void list_turns_of(Py_ssize_t n, real* to) noexcept nogil:
    """Write exp(-2 pi i j k / n) for the four-step transform of n numbers."""
    cdef Py_ssize_t n1 = leaf_of(n), j, k
    for j in range(n // n1):
        for k in range(n1):
            to[2 * (j * n1 + k)] = <real>cos(2 * M_PI * (j * k) / n)
            to[2 * (j * n1 + k) + 1] = <real>sin(2 * M_PI * (j * k) / n)


cdef inline void list_turns(const Spectra* s, real* to) noexcept nogil:
    """Write all cosines and sines that the transforms of a tile take."""
    cdef Py_ssize_t k
    list_turns_of(s.y, to + s.turns_y)
    list_turns_of(s.half, to + s.turns_x)
    for k in range(s.half):
        to[s.turns_real + 2 * k] = <real>cos(2 * M_PI * k / s.x)
        to[s.turns_real + 2 * k + 1] = <real>sin(2 * M_PI * k / s.x)


cdef inline void twist(
    const vec* z, vec* to, Py_ssize_t half, const vec* turns, bint back
) noexcept nogil:
    """Turn the spectrum of pairs of reals into that of the reals (twice), or back."""
    cdef vec pr, pi, mr, mi, tr, ti, c, s
    cdef Py_ssize_t k, j
    to[0], to[1] = z[0] + z[1], z[0] - z[1]
    for k in range(1, half // 2):
        j = half - k
        c, s = lanes_from(turns, 2 * k), lanes_from(turns, 2 * k + 1)
        pr, pi = z[2 * k] + z[2 * j], z[2 * k + 1] - z[2 * j + 1]
        mr, mi = z[2 * k] - z[2 * j], z[2 * k + 1] + z[2 * j + 1]
        if back:
            tr, ti = -(s * mr + c * mi), c * mr - s * mi
        else:
            tr, ti = c * mi - s * mr, -(s * mi + c * mr)
        to[2 * k], to[2 * k + 1] = pr + tr, pi + ti
        to[2 * j], to[2 * j + 1] = pr - tr, ti - pi
    pr, pi = z[half], z[half + 1]
    to[half], to[half + 1] = pr + pr, -(pi + pi)


cdef inline double lift_of(const vec* kind) noexcept nogil:
    """Give what the other factor is lifted by: more than the digits of a number.

    Less than what would make sums of usual data overflow: those below 2^70 do not.
    """
    return 1099511627776.0 if vec is f32v else 1208925819614629174706176.0  # 2^40, 2^80


cdef inline double scale_of(const Spectra* s, const vec* kind) noexcept nogil:
    """Give what a tile of sums is multiplied by, once it is transformed back."""
    return 0.25 / (s.y * s.x) / lift_of(kind)


cdef inline void lift(
    vec* tile, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t pitch
) noexcept nogil:
    """Lift some columns of the first rows of a tile of the other factor."""
    cdef vec factor = all_lanes(tile, lift_of(tile))
    cdef Py_ssize_t y, x
    for y in range(rows):
        for x in range(columns):
            tile[y * pitch + x] = tile[y * pitch + x] * factor


cdef inline void put_point(vec* to, Py_ssize_t step, vec re, vec im, bint other) noexcept nogil:
    """Write the three vectors of a point: of the first factor, or the other's conjugate."""
    if other:
        to[0], to[step], to[2 * step] = re, -im - re, re - im
    else:
        to[0], to[step], to[2 * step] = re + im, re, im


cdef inline void to_points(
    const Spectra* s, const vec* tile, Py_ssize_t rows, const vec* turns, vec* room, vec* to,
    Py_ssize_t step, bint other,
) noexcept nogil:
    """Transform a tile of which `rows` rows are not zero to three vectors a point.

    Those of the first factor of a product, or of the other: of the conjugate spectrum.
    """
    cdef vec* line = room + s.y * s.pitch
    cdef vec* work = line + 2 * max(s.y, s.half)
    cdef Py_ssize_t y, k, j, last = s.y // 2 + 1
    for y in range(rows):
        transform(
            s.half, tile + y * s.x, tile + y * s.x + 1, 2, line, line + 1, 2,
            ahead(turns, s.turns_x), work,
        )
        twist(
            <const vec*>line, room + y * s.pitch, s.half, ahead(turns, s.turns_real), False
        )
    for y in range(rows, s.y):
        memset(room + y * s.pitch, 0, s.pitch * sizeof(vec))
    for k in range(s.half):
        transform(
            s.y, <const vec*>room + 2 * k, <const vec*>room + 2 * k + 1, s.pitch, line,
            line + 1, 2, ahead(turns, s.turns_y), work,
        )
        if k == 0:
            for y in range(last):
                j = (s.y - y) % s.y
                put_point(
                    to + 3 * y * step, step, line[2 * y] + line[2 * j],
                    line[2 * y + 1] - line[2 * j + 1], other,
                )
                put_point(
                    to + 3 * (last + y) * step, step, line[2 * y + 1] + line[2 * j + 1],
                    line[2 * j] - line[2 * y], other,
                )
            to += 6 * last * step
        else:
            for y in range(s.y):
                put_point(to + 3 * y * step, step, line[2 * y], line[2 * y + 1], other)
            to += 3 * s.y * step


cdef inline vec real_part(const vec* p, Py_ssize_t step) noexcept nogil:
    """Of the product of which p are the three sums."""
    return p[0] - p[2 * step]


cdef inline vec imaginary_part(const vec* p, Py_ssize_t step) noexcept nogil:
    return p[0] + p[step]


cdef inline void gather_first(
    const Spectra* s, const vec* sums, Py_ssize_t step, vec* line
) noexcept nogil:
    """Make column 0 of its two real columns."""
    cdef Py_ssize_t y, last = s.y // 2 + 1
    cdef const vec* other = sums + 3 * last * step
    cdef vec ar, ai, br, bi
    for y in range(last):
        ar, ai = real_part(sums + 3 * y * step, step), imaginary_part(sums + 3 * y * step, step)
        br, bi = real_part(other + 3 * y * step, step), imaginary_part(other + 3 * y * step, step)
        line[2 * y], line[2 * y + 1] = ar - bi, ai + br
        if y > 0 and 2 * y < s.y:
            line[2 * (s.y - y)], line[2 * (s.y - y) + 1] = ar + bi, br - ai


cdef inline void from_points(
    const Spectra* s, const vec* sums, Py_ssize_t step, const vec* turns, vec* room,
    Py_ssize_t rows, vec* tile,
) noexcept nogil:
    """Transform the sums of products of all points back to the first rows of a tile."""
    cdef vec* line = room + s.y * s.pitch
    cdef vec* work = line + 2 * max(s.y, s.half)
    cdef Py_ssize_t y, k
    for k in range(s.half):
        if k == 0:
            gather_first(s, sums, step, line)
            sums += 6 * (s.y // 2 + 1) * step
        else:
            for y in range(s.y):
                line[2 * y] = real_part(sums + 3 * y * step, step)
                line[2 * y + 1] = imaginary_part(sums + 3 * y * step, step)
            sums += 3 * s.y * step
        transform(
            s.y, <const vec*>line + 1, <const vec*>line, 2, room + 2 * k + 1, room + 2 * k,
            s.pitch, ahead(turns, s.turns_y), work,
        )
    for y in range(rows):
        twist(
            <const vec*>room + y * s.pitch, line, s.half, ahead(turns, s.turns_real), True
        )
        transform(
            s.half, <const vec*>line + 1, <const vec*>line, 2, tile + y * s.x + 1,
            tile + y * s.x, 2, ahead(turns, s.turns_x), work,
        )
