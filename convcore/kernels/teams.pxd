cdef void enter() noexcept
cdef void leave() noexcept
cdef int look() except -1
