# Random numbers that are a function of a key and a place: no state, no order.
#
# What      64 words of 32 bits for group g of a key. Word i of the sequence belongs to
#           element i; a group is 16 counters of Philox4x32-10 with 4 words each:
#
#               word 64 g + 16 w + c   is   word w of philox(counter = 16 g + c, key)
#
#           whatever the instruction set, the thread, or how many words are wanted.
# Layout    a counter's words in four vectors, in the lower halves of their lanes of 64;
#           even and odd counters in turn, so that both together are neighbours.
# Cost      6 instructions a round for 32 words (AVX-512): about 2 a word in all.
# Why not   A generator with a state: its place in the sequence depends on who came before.
# Source    Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011,
#           sections 2.2 and 4 (the constants; ten rounds).

from convcore.kernels.vector cimport VEC_BYTES, cc_times, words

cdef enum:
    GROUP = 64  # words
    COUNTERS = 16

cdef extern from *:
    """
    /* Counters first, first + 2, ...; and the words of two such sets, one after the other. */
    static inline cc_words cc_counters(unsigned long long first) {
        cc_words c;
        for (int i = 0; i < CC_VEC_BYTES / 8; i++) c[i] = first + 2 * i;
        return c;
    }
    static inline void cc_put_words(unsigned *to, cc_words even, cc_words odd) {
        cc_words both = (even & 0xffffffffull) | (odd << 32);
        memcpy(to, &both, sizeof both);
    }
    #define cc_upper(a) ((a) >> 32)
    #define cc_mix(a, b, k) ((a) ^ (b) ^ (unsigned long long)(k))
    """
    words cc_counters(unsigned long long first) nogil
    void cc_put_words(unsigned* to, words even, words odd) nogil
    words cc_upper(words a) nogil
    words cc_mix(words a, words b, unsigned k) nogil


cdef inline void philox(
    unsigned long long first, unsigned long long key, words* c
) noexcept nogil:
    """Write the four words of counters first, first + 2, ... to c."""
    cdef unsigned k0 = <unsigned>key, k1 = <unsigned>(key >> 32)
    cdef words a, b
    cdef int i
    c[0] = cc_counters(first)
    c[1] = cc_upper(c[0])
    c[2] = cc_mix(c[0], c[0], 0)
    c[3] = c[2]
    for i in range(10):
        a = cc_times(c[0], 0xD2511F53)
        b = cc_times(c[2], 0xCD9E8D57)
        c[0] = cc_mix(cc_upper(b), c[1], k0)
        c[1] = b
        c[2] = cc_mix(cc_upper(a), c[3], k1)
        c[3] = a
        k0 = k0 + <unsigned>0x9E3779B9
        k1 = k1 + <unsigned>0xBB67AE85


cdef inline void random_group(
    unsigned long long key, unsigned long long group, unsigned* to
) noexcept nogil:
    """Write the 64 words of a group."""
    cdef Py_ssize_t c = 0, w
    cdef words even[4]
    cdef words odd[4]
    while c < COUNTERS:
        philox(COUNTERS * group + c, key, even)
        philox(COUNTERS * group + c + 1, key, odd)
        for w in range(4):
            cc_put_words(to + COUNTERS * w + c, even[w], odd[w])
        c += VEC_BYTES // 4
