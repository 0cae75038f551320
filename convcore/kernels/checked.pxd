# Assertions on memory, in builds that find faults; nothing in any other.
#
# What      check_range: a kernel touches so many bytes at an address, all of which belong to an
#           array of its call, or to the stack. Otherwise the process ends, and says where.
#           begins, ends: a call holds an array, and lets go of it.
# How       CC_CHECKED (CONVCORE_BUILD=checked) compares with the arrays that the module's
#           calls hold: a kernel has no other memory. Under AddressSanitizer, it is asked:
#           by itself it does not see what the instructions with masks read and write.
# Assumes   at most 512 arrays in the hands of the calls of a module.

ctypedef void (*Watch)(const void* first, Py_ssize_t size) noexcept nogil

cdef extern from *:
    """
    #if defined(CC_CHECKED)
      #include <pthread.h>
      #include <stdio.h>
      #include <stdlib.h>
      typedef struct { const char *first, *last; } cc_array;
      static cc_array cc_arrays[512];
      static int cc_arrays_ever;
      static __thread const char *cc_stack_end;

      static __attribute__((unused)) void cc_begin(const void *p, Py_ssize_t bytes) {
          for (int i = 0; p && i < 512; i++) {
              const char *free = NULL;
              if (!__atomic_compare_exchange_n(&cc_arrays[i].first, &free,
                      (const char *)p, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) continue;
              int ever = cc_arrays_ever;
              while (ever <= i && !__atomic_compare_exchange_n(&cc_arrays_ever, &ever,
                  i + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
              __atomic_store_n(
                  &cc_arrays[i].last, (const char *)p + bytes, __ATOMIC_SEQ_CST);
              return;
          }
      }
      /* Of equal arrays the first one goes: who looks for another meets the last. */
      static __attribute__((unused)) void cc_end(const void *p, Py_ssize_t bytes) {
          for (int i = 0; p && i < 512; i++)
              if (cc_arrays[i].first == p && cc_arrays[i].last == (const char *)p + bytes) {
                  cc_arrays[i].last = NULL;
                  __atomic_store_n(&cc_arrays[i].first, NULL, __ATOMIC_SEQ_CST);
                  return;
              }
      }
      static __attribute__((noinline)) int cc_on_stack(const char *p) {
          if (!cc_stack_end) {
              pthread_attr_t of;
              void *low;
              size_t size;
              pthread_getattr_np(pthread_self(), &of);
              pthread_attr_getstack(&of, &low, &size);
              pthread_attr_destroy(&of);
              cc_stack_end = (char *)low + size;
          }
          return p > (char *)__builtin_frame_address(0) && p < cc_stack_end;
      }
      static __attribute__((unused, noinline)) void cc_assert_inside(
          const char *p, Py_ssize_t bytes, const char *file, int line) {
          if (bytes <= 0) return;
          for (int i = 0; i < __atomic_load_n(&cc_arrays_ever, __ATOMIC_SEQ_CST); i++)
              if (p >= cc_arrays[i].first && p + bytes <= cc_arrays[i].last) return;
          if (cc_on_stack(p)) return;
          fprintf(stderr, "%s:%d: %zd bytes at %p are in no array of the call; it has\\n",
              file, line, bytes, (void *)p);
          for (int i = 0; i < cc_arrays_ever; i++)
              if (cc_arrays[i].first)
                  fprintf(stderr, "    %zd bytes at %p; from its first %+zd, its end %+zd\\n",
                      cc_arrays[i].last - cc_arrays[i].first, (void *)cc_arrays[i].first,
                      p - cc_arrays[i].first, p + bytes - cc_arrays[i].last);
          abort();
      }
      #define cc_check(p, bytes) \
          cc_assert_inside((const char *)(p), (Py_ssize_t)(bytes), __FILE__, __LINE__)
    #else
      #define cc_begin NULL
      #define cc_end NULL
      #if defined(__SANITIZE_ADDRESS__)
        #include <sanitizer/asan_interface.h>
        static __attribute__((unused)) void cc_check(const void *p, Py_ssize_t bytes) {
            volatile char *bad = (volatile char *)(
                bytes > 0 ? __asan_region_is_poisoned((void *)p, (size_t)bytes) : NULL);
            if (bad) *bad;
        }
      #else
        #define cc_check(p, bytes) ((void)0)
      #endif
    #endif
    /* The same for n scalars, and for those whose bits are set, of so many bytes. */
    #define cc_check_part(p, n, size, most) \
        cc_check(p, (n) * (size) < (most) ? (n) * (size) : (most))
    #if defined(CC_CHECKED) || defined(__SANITIZE_ADDRESS__)
      #define cc_check_lanes(p, size, bits, most) do { \
          unsigned long long cc_bits = (bits); \
          for (int cc_i = 0; cc_i * (size) < (most); cc_i++) \
              if (cc_bits >> cc_i & 1) cc_check((const char *)(p) + cc_i * (size), size); \
      } while (0)
    #else
      #define cc_check_lanes(p, size, bits, most) ((void)0)
    #endif
    """
    Watch begins "cc_begin"  # or NULL
    Watch ends "cc_end"
    void check_range "cc_check"(const void* first, Py_ssize_t size) nogil
    void check_part "cc_check_part"(
        const void* first, Py_ssize_t n, Py_ssize_t item, Py_ssize_t most
    ) nogil
    void check_lanes "cc_check_lanes"(
        const void* first, Py_ssize_t item, unsigned long long bits, Py_ssize_t most
    ) nogil
