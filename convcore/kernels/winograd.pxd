# Winograd's minimal filtering: the transforms that turn a convolution into products.
#
# What      F(m, 3) computes m outputs of a kernel of 3 taps with m + 2 products:
#
#               y = A^T [ (G w) * (B^T d) ]      d: m + 2 inputs, * element by element
#
#           Polynomials that are multiplied at m + 2 points. In two dimensions the
#           transforms go along both axes, and channels are summed between them:
#
#               d (6 x 6) --B--> v (6 x 6)  --sum over c of u * v-->  (6 x 6) --A--> y (4 x 4)
#               w (3 x 3) --G--> u (6 x 6)
#
#           36 products where the definition has 144: at each point a product of matrices.
#           The gradient of weight is the same trilinear form the other way round,
#           dw = G^T [ sum over tiles of (B^T d) * (A dy) ].
# Points    F(4, 3): 0, 3/4, -3/4, 3/2, -3/2, infinity. B and A are exact in binary. The
#           usual 0, 1, -1, 2, -2 have nearly twice the error.  F(2, 3): 0, 1, -1, infinity.
# Range     G makes weights up to 58 times smaller, and the smallest would lose digits. So they
#           are transformed 2^32 times as large (2^64 in float64), and outputs made smaller
#           where the bias is added, at no cost. What overflows is not finite in the end.
# Layout    Every function transforms vectors of lanes, `step` scalars apart.
# Cost      12 operations for six vectors; a tile of F(4 x 4) about 120 (d), 80 (y).
# Why not   F(6, 3): 20 to 60 times the error of a direct sum, for 5.1 instead of 4.
# Source    Winograd, Arithmetic Complexity of Computations (1980), chapter IV; Lavin and
#           Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308,
#           section 4; Barabasz et al., Error Analysis and Improving the Accuracy of
#           Winograd Convolution, arXiv:1803.10986, for points.

from convcore.kernels.vector cimport f32v, vec, ahead, all_lanes

cdef struct four:
    char _

cdef struct two:
    char _

cdef struct one:
    char _

ctypedef fused tile:  # of an axis, as a type: F(4, 3), F(2, 3), or an axis without taps
    four
    two
    one


cdef struct inputs:
    char _

cdef struct sums:
    char _

cdef struct gradients:
    char _

cdef struct weights:
    char _

cdef struct taps:
    char _

ctypedef fused matrix:  # that an axis is multiplied by: B^T, A^T, A, G, G^T
    inputs
    sums
    gradients
    weights
    taps


cdef inline int terms(matrix* what, tile* kind) noexcept nogil:
    """Count the elements that are read along an axis."""
    if tile is one:
        return 1
    elif matrix is weights:
        return 3
    elif matrix is gradients:
        return 4 if tile is four else 2
    else:
        return 6 if tile is four else 4


cdef inline int results(matrix* what, tile* kind) noexcept nogil:
    """Count the elements that are written."""
    if tile is one:
        return 1
    elif matrix is taps:
        return 3
    elif matrix is sums:
        return 4 if tile is four else 2
    else:
        return 6 if tile is four else 4


cdef inline vec far(const vec* like) noexcept nogil:
    """Give the power of two by which weights are larger while they are transformed.

    The smallest number of all, times the smallest element of G x G, then has full digits.
    """
    return all_lanes(like, 4294967296.0 if vec is f32v else 1.8446744073709551616e19)


cdef inline vec near(const vec* like) noexcept nogil:
    """Give its reciprocal, for what comes back."""
    return all_lanes(like, 1 / 4294967296.0 if vec is f32v else 1 / 1.8446744073709551616e19)


cdef inline vec at(const vec* a, Py_ssize_t i) noexcept nogil:
    """The vector i scalars further on."""
    return ahead(a, i)[0]


cdef inline void put(vec* to, Py_ssize_t i, vec v) noexcept nogil:
    """Store a vector i scalars further on."""
    (<vec*>ahead(<const vec*>to, i))[0] = v


cdef inline void to_points(
    const vec* d, Py_ssize_t step, vec* v, Py_ssize_t v_step, tile* kind
) noexcept nogil:
    """Write v = B^T d."""
    cdef vec d0, d1, d2, d3, d4, d5, even, odd
    d0 = at(d, 0)
    if tile is one:
        put(v, 0, d0)
    else:
        d1, d2, d3 = at(d, step), at(d, 2 * step), at(d, 3 * step)
    if tile is two:
        put(v, 0, d0 - d2)
        put(v, v_step, d1 + d2)
        put(v, 2 * v_step, d2 - d1)
        put(v, 3 * v_step, d3 - d1)
    elif tile is four:
        d4, d5 = at(d, 4 * step), at(d, 5 * step)
        put(v, 0, all_lanes(d, 1.265625) * d0 + (d4 - all_lanes(d, 2.8125) * d2))
        even = d4 - all_lanes(d, 2.25) * d2
        odd = d3 - all_lanes(d, 2.25) * d1
        put(v, v_step, even + all_lanes(d, 0.75) * odd)
        put(v, 2 * v_step, even - all_lanes(d, 0.75) * odd)
        even = d4 - all_lanes(d, 0.5625) * d2
        odd = d3 - all_lanes(d, 0.5625) * d1
        put(v, 3 * v_step, even + all_lanes(d, 1.5) * odd)
        put(v, 4 * v_step, even - all_lanes(d, 1.5) * odd)
        put(v, 5 * v_step, all_lanes(d, 1.265625) * d1 + (d5 - all_lanes(d, 2.8125) * d3))


cdef inline void from_points(
    const vec* v, Py_ssize_t step, vec* y, Py_ssize_t y_step, tile* kind
) noexcept nogil:
    """Write y = A^T v."""
    cdef vec v0, a, b, c, d
    v0 = at(v, 0)
    if tile is one:
        put(y, 0, v0)
    else:
        a = at(v, step) + at(v, 2 * step)
        b = at(v, step) - at(v, 2 * step)
    if tile is two:
        put(y, 0, v0 + a)
        put(y, y_step, b + at(v, 3 * step))
    elif tile is four:
        c = at(v, 3 * step) + at(v, 4 * step)
        d = at(v, 3 * step) - at(v, 4 * step)
        put(y, 0, v0 + (a + c))
        put(y, y_step, all_lanes(v, 0.75) * b + all_lanes(v, 1.5) * d)
        put(y, 2 * y_step, all_lanes(v, 0.5625) * a + all_lanes(v, 2.25) * c)
        put(
            y, 3 * y_step,
            all_lanes(v, 0.421875) * b + (all_lanes(v, 3.375) * d + at(v, 5 * step)),
        )


cdef inline void gradient_to_points(
    const vec* dy, Py_ssize_t step, vec* v, Py_ssize_t v_step, tile* kind
) noexcept nogil:
    """Write v = A dy."""
    cdef vec y0, y1, y2, y3, even, odd
    y0 = at(dy, 0)
    put(v, 0, y0)
    if tile is two:
        y1 = at(dy, step)
        put(v, v_step, y0 + y1)
        put(v, 2 * v_step, y0 - y1)
        put(v, 3 * v_step, y1)
    elif tile is four:
        y1, y2, y3 = at(dy, step), at(dy, 2 * step), at(dy, 3 * step)
        even = y0 + all_lanes(dy, 0.5625) * y2
        odd = y1 + all_lanes(dy, 0.5625) * y3
        put(v, v_step, even + all_lanes(dy, 0.75) * odd)
        put(v, 2 * v_step, even - all_lanes(dy, 0.75) * odd)
        even = y0 + all_lanes(dy, 2.25) * y2
        odd = y1 + all_lanes(dy, 2.25) * y3
        put(v, 3 * v_step, even + all_lanes(dy, 1.5) * odd)
        put(v, 4 * v_step, even - all_lanes(dy, 1.5) * odd)
        put(v, 5 * v_step, y3)


cdef inline void weights_to_points(
    const vec* w, Py_ssize_t step, vec* u, Py_ssize_t u_step, tile* kind
) noexcept nogil:
    """Write u = G w."""
    cdef vec w0, w1, w2, even, odd
    w0 = at(w, 0)
    if tile is one:
        put(u, 0, w0)
    else:
        w1, w2 = at(w, step), at(w, 2 * step)
    if tile is two:
        even = all_lanes(w, 0.5) * (w0 + w2)
        odd = all_lanes(w, 0.5) * w1
        put(u, 0, w0)
        put(u, u_step, even + odd)
        put(u, 2 * u_step, even - odd)
        put(u, 3 * u_step, w2)
    elif tile is four:
        put(u, 0, all_lanes(w, 64.0 / 81) * w0)
        even = all_lanes(w, -128.0 / 243) * (w0 + all_lanes(w, 0.5625) * w2)
        odd = all_lanes(w, -96.0 / 243) * w1
        put(u, u_step, even + odd)
        put(u, 2 * u_step, even - odd)
        even = all_lanes(w, 32.0 / 243) * (w0 + all_lanes(w, 2.25) * w2)
        odd = all_lanes(w, 48.0 / 243) * w1
        put(u, 3 * u_step, even + odd)
        put(u, 4 * u_step, even - odd)
        put(u, 5 * u_step, w2)


cdef inline void weights_from_points(
    const vec* u, Py_ssize_t step, vec* w, Py_ssize_t w_step, tile* kind
) noexcept nogil:
    """Write w = G^T u."""
    cdef vec u0, a, b, c, d
    u0 = at(u, 0)
    if tile is one:
        put(w, 0, u0)
    else:
        a = at(u, step) + at(u, 2 * step)
        b = at(u, step) - at(u, 2 * step)
    if tile is two:
        put(w, 0, u0 + all_lanes(u, 0.5) * a)
        put(w, w_step, all_lanes(u, 0.5) * b)
        put(w, 2 * w_step, at(u, 3 * step) + all_lanes(u, 0.5) * a)
    elif tile is four:
        a = all_lanes(u, -128.0 / 243) * a
        c = all_lanes(u, 32.0 / 243) * (at(u, 3 * step) + at(u, 4 * step))
        d = at(u, 3 * step) - at(u, 4 * step)
        put(w, 0, all_lanes(u, 64.0 / 81) * u0 + (a + c))
        put(w, w_step, all_lanes(u, -96.0 / 243) * b + all_lanes(u, 48.0 / 243) * d)
        put(
            w, 2 * w_step,
            all_lanes(u, 0.5625) * a + (all_lanes(u, 2.25) * c + at(u, 5 * step)),
        )


cdef inline void transform(
    matrix* what, const vec* a, Py_ssize_t step, vec* to, Py_ssize_t to_step, tile* kind
) noexcept nogil:
    """Multiply by one of the matrices."""
    if matrix is inputs:
        to_points(a, step, to, to_step, kind)
    elif matrix is sums:
        from_points(a, step, to, to_step, kind)
    elif matrix is gradients:
        gradient_to_points(a, step, to, to_step, kind)
    elif matrix is weights:
        weights_to_points(a, step, to, to_step, kind)
    else:
        weights_from_points(a, step, to, to_step, kind)
