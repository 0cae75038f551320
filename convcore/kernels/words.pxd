# Unsigned integers of 32 bits in vectors, and the int64 that they are cut from.
#
# What      word: as many as a vector holds; +, -, |, & and ~ are ordinary Cython.
#           below: a mask, every bit of the lanes where a < b.  low_words, high_words: the
#           halves of as many int64 as there are lanes, from the two vectors they fill.
#           divide_words: quotients of those below 2**22, from the inverse of the divisor:
#           with u = 2**-24, (n + 0.5) / d is 0.5 / d or more away from any whole number,
#           and computed with an error of at most 2 u (n + 0.5) / d.
# Assumes   little-endian memory: the low half of an int64 comes first.

from convcore.kernels.vector cimport evens, f32v, odds

cdef extern from *:
    """
    typedef unsigned cc_word
        __attribute__((vector_size(CC_VEC_BYTES), aligned(4), may_alias));
    static inline cc_word cc_as_words(cc_f32v v) { return (cc_word)v; }
    static inline cc_word cc_below(cc_word a, cc_word b) { return (cc_word)(a < b); }
    static inline cc_word cc_each_word(unsigned n) { return n - (cc_word){0}; }
    static inline cc_word cc_divide_words(cc_word n, float by) {
        typedef int whole __attribute__((vector_size(CC_VEC_BYTES)));
        typedef float part __attribute__((vector_size(CC_VEC_BYTES)));
        part v = __builtin_convertvector((whole)(n & 0x7FFFFF), part) + 0.5f;
        return (cc_word)__builtin_convertvector(v * by, whole);
    }
    static inline int cc_any_word(cc_word v) {
        unsigned long long held[CC_VEC_BYTES / 8], all = 0;
        memcpy(held, &v, sizeof(held));
        for (int i = 0; i < CC_VEC_BYTES / 8; i++) all |= held[i];
        return all != 0;
    }
    """
    ctypedef unsigned int word "cc_word"
    word cc_as_words(f32v v) nogil
    word below "cc_below"(word a, word b) nogil
    word each_word "cc_each_word"(unsigned int n) nogil
    word divide_words "cc_divide_words"(word n, float inverse) nogil
    bint any_word "cc_any_word"(word v) nogil


cdef inline word low_words(f32v a, f32v b) noexcept nogil:
    """Give the low halves of int64 in a, then in b."""
    return cc_as_words(evens(a, b))


cdef inline word high_words(f32v a, f32v b) noexcept nogil:
    """Give the high halves."""
    return cc_as_words(odds(a, b))
