# What a target says about each class: for cross_entropy.pyx.
#
# What      truth[c] = w[c] ((1 - a) t[c] + a / C): t is 1 for the true class, or given as a
#           probability; a is the label smoothing, w the weight, or 1.
# Layout    x is (outer, count, inner). A position is a place in (outer, inner): classes have
#           one number for each, probabilities lie like x.

from convcore.kernels.vector cimport ahead, f32v, lanes_from, part, vec
from convcore.kernels.vector_math cimport every

cdef struct Case:
    Py_ssize_t outer, count, inner, ignored, scales
    bint soft, smooth, mean
    double kept, each  # 1 - a; a / C
    double weight  # of all positions: what a mean is divided by
    Py_ssize_t columns, blocks
    const long long* classes

cdef struct Place:  # a row, or a block of columns
    Py_ssize_t at, position, n


cdef inline double number(const vec* a, Py_ssize_t i) noexcept nogil:
    """Give one scalar."""
    if vec is f32v:
        return (<const float*>a)[i]
    else:
        return (<const double*>a)[i]


cdef inline void put_number(vec* a, Py_ssize_t i, double value) noexcept nogil:
    """Write one scalar."""
    if vec is f32v:
        (<float*>a)[i] = <float>value
    else:
        (<double*>a)[i] = value


cdef inline double weight_of(const vec* w, Py_ssize_t c) noexcept nogil:
    """Give the weight of a class."""
    return 1 if w == NULL else number(w, c)


cdef inline vec truth_of(
    const Case* k, const vec* t, const vec* w, Py_ssize_t at, Py_ssize_t c,
    unsigned long long bits,
) noexcept nogil:
    """Give the truth about some elements that no true class makes; 0 in other lanes."""
    cdef vec like = every(part(t, 0), 0), each = every(like, k.each)
    cdef vec truth = part(&each, bits)
    if k.soft:
        truth = truth + every(like, k.kept) * part(ahead(t, at), bits)
    if w != NULL:
        if k.inner == 1:
            truth = truth * part(ahead(w, c), bits)
        else:
            truth = truth * lanes_from(w, c)
    return truth


cdef inline double sum_of_weights(const Case* k, const vec* w) noexcept nogil:
    """Give the truth of all classes that smoothing makes."""
    cdef double total = 0
    cdef Py_ssize_t c
    if k.each == 0:
        return 0
    for c in range(k.count):
        total += weight_of(w, c)
    return total * k.each


cdef inline Py_ssize_t wrong_classes(
    const Case* k, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Count the positions that are neither of a class nor ignored."""
    cdef Py_ssize_t i, found = 0, count = k.count, ignored = k.ignored
    cdef const long long* classes = k.classes
    for i in range(begin, end):
        found += <Py_ssize_t>(<size_t>classes[i] >= <size_t>count) & (classes[i] != ignored)
    return found


cdef inline Py_ssize_t class_at(const Case* k, Py_ssize_t position) noexcept nogil:
    """Give a true class; -1 if it is ignored, or was written after it was checked."""
    cdef Py_ssize_t c = k.classes[position]
    return c if c != k.ignored and 0 <= c < k.count else -1


cdef inline Py_ssize_t kept_positions(
    const Case* k, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Count the positions that are not ignored."""
    cdef Py_ssize_t i, found = 0, ignored = k.ignored
    cdef const long long* classes = k.classes
    for i in range(begin, end):
        found += classes[i] != ignored
    return found


cdef inline double weight_of_positions(const Case* k, const vec* w) noexcept nogil:
    """Add the weights of the classes of all positions that are not ignored, in turn."""
    cdef double total = 0
    cdef Py_ssize_t i, c
    for i in range(k.outer * k.inner):
        c = class_at(k, i)
        if c >= 0:
            total += number(w, c)
    return total
