# The register tile: the one loop in which the arithmetic of convolution happens.
#
# What      acc[i, v] = sum over k of a[i * a_row + k * a_step] * b[k, v]
#           for `rows` rows i and NV vectors v.
# Layout    a: scalars, broadcast.        b: rows of NV vectors, NR scalars.
#
#               k ->                        v ->
#           i  [a a a a ...]           k  [bbbb|bbbb]
#           |  [a a a a ...]           |  [bbbb|bbbb]
#           v  [a a a a ...]           v  [bbbb|bbbb]
#
# Order     Each element of acc is one chain of fused multiply-adds in ascending k, from
#           zero, whatever `rows` is: a tail sums as a full tile does.
# Cost      MR * NV multiply-adds for MR + NV loads a step. On AVX-512 28 for 16.
# Why not   Plain float arrays instead of vector types: GCC 12 keeps them in registers
#           for one caller and spills for the next.
# Source    Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication,
#           ACM TOMS 34 (2008), section 6; BLIS for the names MR and NR.

from convcore.kernels.vector cimport (
    MR, MR_HALF, NV, TILE, f32v, f64v, real, vec, ahead, lanes_from, zero_lanes,
)


cdef inline void multiply(
    const vec* a, Py_ssize_t a_row, Py_ssize_t a_step,
    const vec* b, Py_ssize_t depth, vec* acc, const int rows,
) noexcept nogil:
    """Sum `depth` outer products into `acc`; `rows` is a constant at every call."""
    cdef Py_ssize_t k
    cdef int i
    cdef vec b0, b1, s
    for i in range(rows):
        acc[NV * i] = zero_lanes(b)
        acc[NV * i + 1] = zero_lanes(b)
    for k in range(depth):
        b0 = b[0]
        b1 = b[1]
        for i in range(rows):
            s = lanes_from(a, i * a_row)
            acc[NV * i] = acc[NV * i] + s * b0
            acc[NV * i + 1] = acc[NV * i + 1] + s * b1
        a = ahead(a, a_step)
        b += NV


cdef inline void put(
    const vec* a, Py_ssize_t a_row, Py_ssize_t a_step, const vec* b, Py_ssize_t depth,
    const vec* bias, vec* to, Py_ssize_t to_row, const int rows,
) noexcept nogil:
    """Do `put_rows` for a constant number of rows."""
    cdef vec acc[TILE]
    cdef vec* row
    cdef vec s
    cdef int i
    multiply(a, a_row, a_step, b, depth, acc, rows)
    if bias:
        for i in range(rows):
            row = <vec*>ahead(<const vec*>to, i * to_row)
            s = lanes_from(bias, i)
            row[0] = acc[NV * i] + s
            row[1] = acc[NV * i + 1] + s
    else:
        for i in range(rows):
            row = <vec*>ahead(<const vec*>to, i * to_row)
            row[0] = row[0] + acc[NV * i]
            row[1] = row[1] + acc[NV * i + 1]


cdef inline void put_vectors(
    const vec* a, Py_ssize_t a_row, Py_ssize_t a_step, const vec* b, Py_ssize_t depth,
    const vec* bias, vec* to, Py_ssize_t to_row, Py_ssize_t rows,
) noexcept nogil:
    """Choose the smallest tile that holds `rows`."""
    if rows > MR // 2:
        put(a, a_row, a_step, b, depth, bias, to, to_row, MR)
    elif rows > 2:
        put(a, a_row, a_step, b, depth, bias, to, to_row, MR_HALF)
    elif rows == 2:
        put(a, a_row, a_step, b, depth, bias, to, to_row, 2)
    else:
        put(a, a_row, a_step, b, depth, bias, to, to_row, 1)


cdef inline bint exact_rows(Py_ssize_t rows) noexcept nogil:
    """Tell whether there is a tile of exactly so many rows."""
    return rows == MR or rows == MR_HALF or rows == 2 or rows == 1


cdef inline void put_rows(
    const real* a, Py_ssize_t a_row, Py_ssize_t a_step, const real* b, Py_ssize_t depth,
    const real* bias, real* to, Py_ssize_t to_row, Py_ssize_t rows,
) noexcept nogil:
    """Write product + bias to rows of NR scalars `to_row` apart; without bias, add it.

    The smallest tile that holds `rows` is used: unless `exact_rows`, the operands and
    the result have to go on for MR rows.
    """
    if real is float:
        put_vectors(
            <const f32v*>a, a_row, a_step, <const f32v*>b, depth, <const f32v*>bias,
            <f32v*>to, to_row, rows,
        )
    else:
        put_vectors(
            <const f64v*>a, a_row, a_step, <const f64v*>b, depth, <const f64v*>bias,
            <f64v*>to, to_row, rows,
        )
