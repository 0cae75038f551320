# Memory of results: blocks that wait until a result of the same size takes them.
#
# What      Block(size): memory that returns here when its last holder lets go of it.
#           keep_at_most: how much may wait.  waiting: how much does.  release: nothing more.
# Layout    Blocks that wait lie in the order in which they came; the last of a size is
#           taken first, as it may still be in a cache, and the first of all leave first.
# Why       In C, as here nothing comes in between: no signal handler, no collection of
#           garbage, no other thread. In Python each line is a place where they do.
# Assumes   nothing: compiled once, for any processor of the architecture.

from cpython.buffer cimport PyBuffer_FillInfo

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #if defined(_WIN32)
      #include <malloc.h>
      #define cc_fresh(size) _aligned_malloc(size, 64)
      #define cc_free(p) _aligned_free(p)
    #else
      #if defined(__linux__)
        #include <sys/mman.h>
      #endif
      /* Aligned to a cache line; large ones ask for large pages, as NumPy's arrays do. */
      static void *cc_fresh(size_t size) {
          void *p = NULL;
          if (posix_memalign(&p, 64, size)) return NULL;
      #if defined(__linux__) && defined(MADV_HUGEPAGE)
          if (size >= (size_t)4 << 20) {
              size_t skip = (4096 - (uintptr_t)p % 4096) % 4096;
              madvise((char *)p + skip, size - skip, MADV_HUGEPAGE);
          }
      #endif
          return p;
      }
      #define cc_free(p) free(p)
    #endif
    /* For builds of Python without a global lock: held for less than a microsecond. */
    static char cc_held;
    static void cc_lock(void) { while (__atomic_test_and_set(&cc_held, __ATOMIC_ACQUIRE)); }
    static void cc_unlock(void) { __atomic_clear(&cc_held, __ATOMIC_RELEASE); }
    static int cc_is_held(void) { return __atomic_load_n(&cc_held, __ATOMIC_ACQUIRE); }
    """
    void* cc_fresh(size_t size) nogil
    void cc_free(void* p) nogil
    void cc_lock() nogil
    void cc_unlock() nogil
    bint cc_is_held() nogil
    void* memmove(void* to, const void* source, size_t bytes) nogil

cdef enum:
    MOST = 512  # blocks that wait

cdef struct Piece:
    void* memory
    Py_ssize_t size

cdef Piece[MOST] pieces  # the oldest first
cdef Py_ssize_t count = 0, total = 0, limit = 0  # of pieces; of their bytes; of these, most


cdef void remove(Py_ssize_t i) noexcept nogil:
    """Take a piece out of the row."""
    global count, total
    total -= pieces[i].size
    count -= 1
    memmove(&pieces[i], &pieces[i + 1], (count - i) * sizeof(Piece))


cdef void trim(Py_ssize_t most) noexcept nogil:
    """Free the oldest ones until at most so many bytes wait."""
    while count and (total > most or count == MOST):
        cc_free(pieces[0].memory)
        remove(0)


cdef void free_all() noexcept nogil:
    """Free all of them."""
    cc_lock()
    trim(0)
    cc_unlock()


cdef void* take(Py_ssize_t size) noexcept nogil:
    """Give a block that waits, or a fresh one; NULL if there is no memory."""
    cdef Py_ssize_t i
    cdef void* memory = NULL
    cc_lock()
    for i in range(count - 1, -1, -1):
        if pieces[i].size == size:
            memory = pieces[i].memory
            remove(i)
            break
    cc_unlock()
    if memory == NULL:
        memory = cc_fresh(size)
    if memory == NULL:  # what waits may be what is missing
        free_all()
        memory = cc_fresh(size)
    return memory


cdef void give_back(void* memory, Py_ssize_t size) noexcept nogil:
    """Let a block wait that nobody holds any more."""
    global count, total
    cc_lock()
    if size > limit:
        cc_free(memory)
    else:
        trim(limit - size)
        pieces[count].memory, pieces[count].size = memory, size
        count += 1
        total += size
    cc_unlock()


cdef class Block:
    """Memory that waits for a later result once nobody holds it.

    Parameters
    ----------
    size : int
        Bytes; aligned to a cache line, not initialised.
    """

    cdef void* memory
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size):
        self.memory = take(size)
        self.size = size
        if self.memory == NULL:
            raise MemoryError(f"convcore: no memory for {size} bytes")

    def __dealloc__(self):
        if self.memory != NULL:
            give_back(self.memory, self.size)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.memory, self.size, 0, flags)


def keep_at_most(Py_ssize_t most, /):
    """Let at most so many bytes wait, from now on."""
    global limit
    cc_lock()
    limit = most
    trim(limit)
    cc_unlock()


def release():
    """Free all blocks that wait."""
    free_all()


def waiting():
    """Count the bytes of the blocks that wait."""
    return total


def begin_anew():
    """Open the lock, in a child: a thread that the child does not have may have held it.

    That was in the middle of a change then, so what waits is forgotten.
    """
    global count, total
    if cc_is_held():
        count = total = 0
        cc_unlock()
