# The arrays of one call, held as plain memory.
#
# What      run: takes hold of every array, runs a function for their type, and lets go,
#           also after an error. Large ones are counted (teams.pyx).  scalars, integers,
#           bytes_of: the memory of one of them, given out only if it is as large as the
#           geometry says.
# Layout    arrays count from 0 in the order in which `call` got them, the geometry first:
#
#               call((geometry, x, weight, bias), (y, scratch), ...)
#                     0         1  2       3       4  5
#
# Assumes   nothing: whatever is no C-contiguous, native, aligned buffer of the right type
#           and size, writeable where it is written, raises. None is an array of nothing.
# Cost      30 ns an array; a typed memoryview takes 120 and wants one axis.
# Why not   all of it in buffers.pxd: each kernel would have a copy, which is larger than
#           the loops of a small one.
# Source    PEP 3118.

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.stdint cimport uintptr_t
from libc.string cimport memset

from convcore.kernels.teams cimport enter, leave


cdef int hold(Buffers* held, tuple arrays, int flags, Watch begins) except -1:
    """Take hold of some more arrays."""
    cdef object array
    for array in arrays:
        if held.count == MOST:
            raise ValueError("kernel: too many arrays")
        if array is None:
            memset(&held.views[held.count], 0, sizeof(Py_buffer))
        else:
            PyObject_GetBuffer(array, &held.views[held.count], flags)
            if begins != NULL:
                begins(held.views[held.count].buf, held.views[held.count].len)
        held.count += 1
    return 0


cdef int run(
    tuple inputs, tuple outputs, int threads, Single single, Double double_, int leader,
    Watch begins, Watch ends,
) except -1:
    """Hold the arrays and run `single`, or `double_` if the leader, -1 for any, says so."""
    cdef Buffers held
    cdef int i
    cdef bint doubles = False
    held.count = 0
    if threads < 1:
        raise ValueError(f"kernel: threads must be >= 1, got {threads}")
    try:
        hold(&held, inputs, PyBUF_FORMAT, begins)
        hold(&held, outputs, PyBUF_FORMAT | PyBUF_WRITABLE, begins)
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
            if ends != NULL:
                ends(held.views[i].buf, held.views[i].len)
            PyBuffer_Release(&held.views[i])
    return 0


cdef int refuse() except -1:
    """Refuse an array that the geometry does not describe: a bug in the caller."""
    raise ValueError("kernel: a buffer does not have the size of its problem")


cdef bint has_type(const Buffers* held, int index, char kind) noexcept nogil:
    """Tell whether an array consists of that type, in the letters of `struct`."""
    cdef const char* form = held.views[index].format
    return form != NULL and form[0] == kind and form[1] == 0


cdef bint has_integers(const Buffers* held, int index) noexcept nogil:
    """Tell whether an array consists of int64, which has two letters."""
    if has_type(held, index, b"q"):
        return True
    return has_type(held, index, b"l") and held.views[index].itemsize == 8


cdef const long long* geometry_of(const Buffers* held, Py_ssize_t fields) except NULL:
    """Give the first array: the integers of the problem."""
    if not has_integers(held, 0) or held.views[0].len // 8 != fields:
        raise ValueError("kernel: not the geometry of this operation")
    return <const long long*>held.views[0].buf


cdef int read_geometry(object geometry, long long* to, Py_ssize_t fields) except -1:
    """Copy the integers of a problem, outside of a call."""
    cdef Buffers held
    held.count = 0
    hold(&held, (geometry,), PyBUF_FORMAT, NULL)
    try:
        memcpy(to, geometry_of(&held, fields), fields * sizeof(long long))
    finally:
        PyBuffer_Release(&held.views[0])
    return 0


cdef void* scalars(
    const Buffers* held, int index, char kind, Py_ssize_t item, Py_ssize_t count
) except? NULL:
    """Give the memory of an array of `count` scalars of that type and size."""
    if not has_type(held, index, kind) or held.views[index].len // item != count:
        refuse()
    return held.views[index].buf


cdef long long* integers(const Buffers* held, int index, Py_ssize_t count) except? NULL:
    """Give the memory of an array of `count` int64."""
    if not has_integers(held, index) or held.views[index].len // 8 != count:
        refuse()
    return <long long*>held.views[index].buf


cdef unsigned char* flags_of(
    const Buffers* held, int index, Py_ssize_t count
) except? NULL:
    """Give the memory of an array of `count` bytes, or bools."""
    cdef bint typed = has_type(held, index, b"B") or has_type(held, index, b"?")
    if not typed or held.views[index].len != count:
        refuse()
    return <unsigned char*>held.views[index].buf


cdef void* bytes_of(const Buffers* held, int index, Py_ssize_t size) except? NULL:
    """Give so many bytes at least of an array of bytes, aligned to a line."""
    cdef uintptr_t address = <uintptr_t>held.views[index].buf
    cdef Py_ssize_t skip = (LINE - address % LINE) % LINE
    if size and held.views[index].len - skip < size:
        refuse()
    return <char*>held.views[index].buf + skip
