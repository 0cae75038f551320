# OpenMP's few questions, answered "one thread" where the compiler has no OpenMP.

cdef extern from *:
    """
    #ifdef _OPENMP
      #include <omp.h>
      #define cc_openmp _OPENMP
      #define cc_max_threads() omp_get_max_threads()
      #define cc_processors() omp_get_num_procs()
    #else
      #define cc_openmp 0
      #define cc_max_threads() 1
      #define cc_processors() 1
    #endif
    """
    int cc_openmp
    int cc_max_threads() nogil
    int cc_processors() nogil
