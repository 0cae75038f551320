# The arrays of one call, held as plain memory: what buffers.pyx gives to every kernel.

from libc.string cimport memcpy

from convcore.kernels.checked cimport Watch, begins, ends
from convcore.kernels.vector cimport real

cdef enum:
    MOST = 10  # arrays of a call
    LINE = 64  # bytes of a cache line, and of the widest vector

cdef struct Buffers:
    int count
    Py_buffer[MOST] views

ctypedef int (*Single)(const Buffers* held, int threads, float* like) except -1
ctypedef int (*Double)(const Buffers* held, int threads, double* like) except -1

cdef int run(
    tuple inputs, tuple outputs, int threads, Single single, Double double_, int leader,
    Watch begins, Watch ends,
) except -1
cdef const long long* geometry_of(const Buffers* held, Py_ssize_t fields) except NULL
cdef int read_geometry(object geometry, long long* to, Py_ssize_t fields) except -1
cdef bint has_type(const Buffers* held, int index, char kind) noexcept nogil
cdef bint has_integers(const Buffers* held, int index) noexcept nogil
cdef void* scalars(
    const Buffers* held, int index, char kind, Py_ssize_t item, Py_ssize_t count
) except? NULL
cdef long long* integers(const Buffers* held, int index, Py_ssize_t count) except? NULL
cdef unsigned char* flags_of(const Buffers* held, int index, Py_ssize_t count) except? NULL
cdef void* bytes_of(const Buffers* held, int index, Py_ssize_t size) except? NULL
cdef int refuse() except -1


cdef inline int call(
    tuple inputs, tuple outputs, int threads, Single single, Double double_
) except -1:
    """Hold the arrays and run `single`, or `double_` if there are any of that type."""
    return run(inputs, outputs, threads, single, double_, -1, begins, ends)


cdef inline int call_as(
    tuple inputs, tuple outputs, int threads, Single single, Double double_, int leader
) except -1:
    """Do the same, with the type of one array, whatever that of the others."""
    return run(inputs, outputs, threads, single, double_, leader, begins, ends)


cdef inline double from_bits(long long bits) noexcept nogil:
    """Give the float64 that the geometry holds as an integer."""
    cdef double value
    memcpy(&value, &bits, sizeof(double))
    return value


cdef inline bint is_nothing(const Buffers* held, int index) noexcept nogil:
    """Tell whether an array has no elements."""
    return held.views[index].len == 0


cdef inline real* reals(
    const Buffers* held, int index, Py_ssize_t count, real* like
) except? NULL:
    """Give the memory of an array of `count` scalars, of the type of `like`."""
    return <real*>scalars(held, index, b"f" if real is float else b"d", sizeof(real), count)


cdef inline real* reals_or_nothing(
    const Buffers* held, int index, Py_ssize_t count, real* like
) except? NULL:
    """Do the same, and give NULL for an array of nothing."""
    return NULL if is_nothing(held, index) else reals(held, index, count, like)


cdef inline long long* integers_or_nothing(
    const Buffers* held, int index, Py_ssize_t count
) except? NULL:
    """Do the same with int64."""
    return NULL if is_nothing(held, index) else integers(held, index, count)


cdef inline real* room(
    const Buffers* held, int index, Py_ssize_t count, real* like
) except? NULL:
    """Give room for at least `count` scalars in an array of bytes, aligned to a line."""
    return <real*>bytes_of(held, index, count * sizeof(real))
