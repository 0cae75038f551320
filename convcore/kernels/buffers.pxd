# The arrays of one call, held as plain memory.
#
# What      call: takes hold of every array, runs a function for their type, and lets go,
#           also after an error. Large ones are counted (teams.pyx).  reals, integers,
#           room: the memory of one of them, given out only if it is as large as the
#           geometry says.
# Layout    arrays count from 0 in the order in which `call` got them, the geometry first:
#
#               call((geometry, x, weight, bias), (y, scratch), ...)
#                     0         1  2       3       4  5
#
# Assumes   nothing: whatever is no C-contiguous, native, aligned buffer of the right type
#           and size, writeable where it is written, raises. None is an array of nothing.
# Cost      30 ns an array; a typed memoryview takes 120 and wants one axis.
# Source    PEP 3118.

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

from convcore.kernels.checked cimport begin, end
from convcore.kernels.teams cimport enter, leave
from convcore.kernels.vector cimport real

cdef enum:
    MOST = 10  # arrays of a call
    LINE = 64  # bytes of a cache line, and of the widest vector

cdef struct Buffers:
    int count
    Py_buffer[MOST] views

ctypedef int (*Single)(const Buffers* held, int threads, float* like) except -1
ctypedef int (*Double)(const Buffers* held, int threads, double* like) except -1


cdef inline int hold(Buffers* held, tuple arrays, int flags) except -1:
    """Take hold of some more arrays."""
    cdef object array
    for array in arrays:
        if held.count == MOST:
            raise ValueError("kernel: too many arrays")
        if array is None:
            memset(&held.views[held.count], 0, sizeof(Py_buffer))
        else:
            PyObject_GetBuffer(array, &held.views[held.count], flags)
            begin(held.views[held.count].buf, held.views[held.count].len)
        held.count += 1
    return 0


cdef inline bint has_type(const Buffers* held, int index, char kind) noexcept nogil:
    """Tell whether an array consists of that type, in the letters of `struct`."""
    cdef const char* form = held.views[index].format
    return form != NULL and form[0] == kind and form[1] == 0


cdef inline bint has_integers(const Buffers* held, int index) noexcept nogil:
    """Tell whether an array consists of int64, which has two letters."""
    if has_type(held, index, b"q"):
        return True
    return has_type(held, index, b"l") and held.views[index].itemsize == 8


cdef inline int call(
    tuple inputs, tuple outputs, int threads, Single single, Double double_
) except -1:
    """Hold the arrays and run `single`, or `double_` if there are any of that type."""
    return call_as(inputs, outputs, threads, single, double_, -1)


cdef inline int call_as(
    tuple inputs, tuple outputs, int threads, Single single, Double double_, int leader
) except -1:
    """Do the same, with the type of one array, whatever that of the others; -1 for any."""
    cdef Buffers held
    cdef int i
    cdef bint doubles = False
    held.count = 0
    if threads < 1:
        raise ValueError(f"kernel: threads must be >= 1, got {threads}")
    try:
        hold(&held, inputs, PyBUF_FORMAT)
        hold(&held, outputs, PyBUF_FORMAT | PyBUF_WRITABLE)
        for i in range(held.count):
            doubles = doubles or (leader < 0 or i == leader) and has_type(&held, i, b"d")
        enter()
        if doubles:
            double_(&held, threads, <double*>NULL)
        else:
            single(&held, threads, <float*>NULL)
    finally:
        leave()
        for i in range(held.count):
            end(held.views[i].buf, held.views[i].len)
            PyBuffer_Release(&held.views[i])
    return 0


cdef inline int refuse() except -1:
    """Refuse an array that the geometry does not describe: a bug in the caller."""
    raise ValueError("kernel: a buffer does not have the size of its problem")


cdef inline double from_bits(long long bits) noexcept nogil:
    """Give the float64 that the geometry holds as an integer."""
    cdef double value
    memcpy(&value, &bits, sizeof(double))
    return value


cdef inline bint is_nothing(const Buffers* held, int index) noexcept nogil:
    """Tell whether an array has no elements."""
    return held.views[index].len == 0


cdef inline const long long* geometry_of(
    const Buffers* held, Py_ssize_t fields
) except NULL:
    """Give the first array: the integers of the problem."""
    if not has_integers(held, 0) or held.views[0].len // 8 != fields:
        raise ValueError("kernel: not the geometry of this operation")
    return <const long long*>held.views[0].buf


cdef inline int read_geometry(object geometry, long long* to, Py_ssize_t fields) except -1:
    """Copy the integers of a problem, outside of a call."""
    cdef Buffers held
    held.count = 0
    hold(&held, (geometry,), PyBUF_FORMAT)
    try:
        memcpy(to, geometry_of(&held, fields), fields * sizeof(long long))
    finally:
        end(held.views[0].buf, held.views[0].len)
        PyBuffer_Release(&held.views[0])
    return 0


cdef inline real* reals(
    const Buffers* held, int index, Py_ssize_t count, real* like
) except? NULL:
    """Give the memory of an array of `count` scalars, of the type of `like`."""
    cdef bint typed = has_type(held, index, b"f" if real is float else b"d")
    if not typed or held.views[index].len // <Py_ssize_t>sizeof(real) != count:
        refuse()
    return <real*>held.views[index].buf


cdef inline real* reals_or_nothing(
    const Buffers* held, int index, Py_ssize_t count, real* like
) except? NULL:
    """Do the same, and give NULL for an array of nothing."""
    return NULL if is_nothing(held, index) else reals(held, index, count, like)


cdef inline long long* integers(
    const Buffers* held, int index, Py_ssize_t count
) except? NULL:
    """Give the memory of an array of `count` int64."""
    if not has_integers(held, index) or held.views[index].len // 8 != count:
        refuse()
    return <long long*>held.views[index].buf


cdef inline long long* integers_or_nothing(
    const Buffers* held, int index, Py_ssize_t count
) except? NULL:
    """Do the same, and give NULL for an array of nothing."""
    return NULL if is_nothing(held, index) else integers(held, index, count)


cdef inline real* room(
    const Buffers* held, int index, Py_ssize_t count, real* like
) except? NULL:
    """Give room for at least `count` scalars in an array of bytes, aligned to a line."""
    cdef uintptr_t address = <uintptr_t>held.views[index].buf
    cdef Py_ssize_t skip = (LINE - address % LINE) % LINE
    if count and (held.views[index].len - skip) // <Py_ssize_t>sizeof(real) < count:
        refuse()
    return <real*>(<char*>held.views[index].buf + skip)


cdef inline unsigned char* flags_of(
    const Buffers* held, int index, Py_ssize_t count
) except? NULL:
    """Give the memory of an array of `count` bytes, or bools."""
    cdef bint typed = has_type(held, index, b"B") or has_type(held, index, b"?")
    if not typed or held.views[index].len != count:
        refuse()
    return <unsigned char*>held.views[index].buf
