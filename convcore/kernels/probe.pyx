# What    What this processor, this compiler and this OpenMP can do.
# Assumes nothing: compiled once, for any processor of the architecture.

from convcore.kernels.omp cimport cc_max_threads, cc_openmp, cc_processors

cdef extern from *:
    """
    #if defined(__x86_64__) || defined(__i386__)
      #define cc_init() __builtin_cpu_init()
      #define cc_v3() (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") \\
          && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
      #define cc_v4() (cc_v3() && __builtin_cpu_supports("avx512f") \\
          && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") \\
          && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    #else
      #define cc_init() ((void)0)
      #define cc_v3() 0
      #define cc_v4() 0
    #endif
    #if defined(__clang__)
      #define cc_compiler "clang " __clang_version__
    #elif defined(__GNUC__)
      #define cc_compiler "gcc " __VERSION__
    #else
      #define cc_compiler "unknown"
    #endif
    """
    void cc_init() nogil
    bint cc_v3() nogil
    bint cc_v4() nogil
    const char* cc_compiler


def runs(str isa not None, /):
    """Tell whether processor and operating system run the code of an ISA package."""
    cc_init()
    if isa == "x86_64_v4":
        return bool(cc_v4())
    if isa == "x86_64_v3":
        return bool(cc_v3())
    return isa == "baseline"


def openmp():
    """Give the date of the OpenMP specification that was compiled in, or 0."""
    return int(cc_openmp)


def max_threads():
    """Give the threads that OpenMP would use: OMP_NUM_THREADS, affinity, its callers."""
    return cc_max_threads()


def processors():
    """Count the processors that OpenMP may use: those of the process's affinity."""
    return cc_processors()


def compiler():
    """Name the compiler of the kernels."""
    return cc_compiler.decode()
