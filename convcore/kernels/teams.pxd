cdef void enter() noexcept
cdef void leave() noexcept
