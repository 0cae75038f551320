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
    ROUNDS = 10

cdef extern from *:
    """
    static inline cc_words cc_same_word(unsigned long long w) { return w - (cc_words){0}; }
    static inline cc_words cc_even_numbers(void) {
        cc_words c;
        for (int i = 0; i < CC_VEC_BYTES / 8; i++) c[i] = 2 * i;
        return c;
    }
    /* The words of two sets of counters, one after the other. */
    static inline void cc_put_words(unsigned *to, cc_words even, cc_words odd) {
        cc_words both = (even & 0xffffffffull) | (odd << 32);
        memcpy(to, &both, sizeof both);
    }
    #define cc_upper(a) ((a) >> 32)
    #define cc_mix(a, b, k) ((a) ^ (b) ^ (k))
    """
    words cc_same_word(unsigned long long w) nogil
    words cc_even_numbers() nogil
    void cc_put_words(unsigned* to, words even, words odd) nogil
    words cc_upper(words a) nogil
    words cc_mix(words a, words b, words k) nogil

cdef struct Keys:  # what does not change from group to group
    words steps  # 0, 2, 4, ...
    words[2 * ROUNDS] of_round


cdef inline void spread_key(unsigned long long key, Keys* k) noexcept nogil:
    """Give each round its two words of the key, in all lanes."""
    cdef unsigned low = <unsigned>key, high = <unsigned>(key >> 32)
    cdef int i
    k.steps = cc_even_numbers()
    for i in range(ROUNDS):
        k.of_round[2 * i] = cc_same_word(low)
        k.of_round[2 * i + 1] = cc_same_word(high)
        low = low + <unsigned>0x9E3779B9
        high = high + <unsigned>0xBB67AE85


cdef inline void philox(const Keys* k, unsigned long long first, words* c) noexcept nogil:
    """Write the four words of counters first, first + 2, ... to c."""
    cdef words a, b
    cdef int i
    c[0] = k.steps + cc_same_word(first)
    c[1] = cc_upper(c[0])
    c[2] = cc_same_word(0)
    c[3] = c[2]
    for i in range(ROUNDS):
        a = cc_times(c[0], 0xD2511F53)
        b = cc_times(c[2], 0xCD9E8D57)
        c[0] = cc_mix(cc_upper(b), c[1], k.of_round[2 * i])
        c[1] = b
        c[2] = cc_mix(cc_upper(a), c[3], k.of_round[2 * i + 1])
        c[3] = a


cdef inline void random_group(
    const Keys* k, unsigned long long group, unsigned* to
) noexcept nogil:
    """Write the 64 words of a group."""
    cdef Py_ssize_t c = 0, w
    cdef words even[4]
    cdef words odd[4]
    while c < COUNTERS:
        philox(k, COUNTERS * group + c, even)
        philox(k, COUNTERS * group + c + 1, odd)
        for w in range(4):
            cc_put_words(to + COUNTERS * w + c, even[w], odd[w])
        c += VEC_BYTES // 4
