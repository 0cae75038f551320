cdef int enter(int n) noexcept
cdef void leave() noexcept
