# Comparisons of vectors, lane by lane, without branches.
#
# What    The greater of two, with NaN as the greatest; labels of what was greater; sums of
#         what has a label. A label is an integer as wide as a scalar, and kept in a vector
#         of the same type: only its bits count.
# How     GNU vector types; what takes mask registers is in vector.pxd.

from convcore.kernels.checked cimport check_range
from convcore.kernels.vector cimport (
    VEC_BYTES, cc_bytes_f32, cc_bytes_f64, cc_contest_f32, cc_contest_f64, cc_gather_f32,
    cc_gather_f64, cc_has_nan_f32, cc_has_nan_f64, cc_later_f32, cc_later_f64, cc_widen_f32,
    cc_widen_f64, f32v, f64v, pick, vec,
)

cdef extern from *:
    """
    #define CC_BITS(v) ((__typeof__((v) <= (v)))(v))
    static inline cc_f32v cc_label_f32(long long n) {
        return (cc_f32v)((int)n - CC_BITS((cc_f32v){0}));
    }
    static inline cc_f32v cc_join_equal_f32(cc_f32v mask, cc_f32v a, cc_f32v b) {
        return (cc_f32v)(CC_BITS(mask) | (a == b));
    }
    static inline cc_f32v cc_plus_f32(cc_f32v a, cc_f32v b) {
        return (cc_f32v)(CC_BITS(a) + CC_BITS(b));
    }
    static inline cc_f64v cc_plus_f64(cc_f64v a, cc_f64v b) {
        return (cc_f64v)(CC_BITS(a) + CC_BITS(b));
    }
    #define CC_LOWER(a, b) \
        ((CC_BITS(a) & (CC_BITS(a) < CC_BITS(b))) | (CC_BITS(b) & ~(CC_BITS(a) < CC_BITS(b))))
    static inline cc_f32v cc_lower_f32(cc_f32v a, cc_f32v b) {
        return (cc_f32v)CC_LOWER(a, b);
    }
    static inline cc_f64v cc_lower_f64(cc_f64v a, cc_f64v b) {
        return (cc_f64v)CC_LOWER(a, b);
    }
    static inline cc_f64v cc_label_f64(long long n) {
        return (cc_f64v)((long long)n - CC_BITS((cc_f64v){0}));
    }
    static inline cc_f64v cc_join_equal_f64(cc_f64v mask, cc_f64v a, cc_f64v b) {
        return (cc_f64v)(CC_BITS(mask) | (a == b));
    }
    """
    f32v cc_label_f32(long long n) nogil
    f32v cc_join_equal_f32(f32v mask, f32v a, f32v b) nogil
    void cc_bytes_f32(unsigned char* to, f32v label) nogil
    f32v cc_plus_f32(f32v a, f32v b) nogil
    f64v cc_plus_f64(f64v a, f64v b) nogil
    f32v cc_lower_f32(f32v a, f32v b) nogil
    f64v cc_lower_f64(f64v a, f64v b) nogil
    f64v cc_label_f64(long long n) nogil
    f64v cc_join_equal_f64(f64v mask, f64v a, f64v b) nogil
    void cc_bytes_f64(unsigned char* to, f64v label) nogil


cdef inline vec later(vec v, vec best) noexcept nogil:
    """Give v where it beats an earlier `best`, greater or the first NaN; else that."""
    if vec is f32v:
        return cc_later_f32(v, best)
    else:
        return cc_later_f64(v, best)


cdef inline void contest(vec v, vec n, vec* best, vec* label) noexcept nogil:
    """Do the same to `best`, and give what v won the label n."""
    if vec is f32v:
        cc_contest_f32(v, n, best, label)
    else:
        cc_contest_f64(v, n, best, label)


cdef inline void compare(vec v, vec n, vec* best, vec* label) noexcept nogil:
    """Do `contest` where nothing is NaN."""
    label[0] = pick(best[0], v, n, label[0])
    best[0] = pick(best[0], v, v, best[0])


cdef inline bint has_nan(vec a, vec b) noexcept nogil:
    """Tell whether a lane of one of them is NaN."""
    if vec is f32v:
        return cc_has_nan_f32(a, b)
    else:
        return cc_has_nan_f64(a, b)


cdef inline vec gather(vec acc, vec v, vec label, vec n) noexcept nogil:
    """Add v where its label is n."""
    if vec is f32v:
        return cc_gather_f32(acc, v, label, n)
    else:
        return cc_gather_f64(acc, v, label, n)


cdef inline vec all_labels(const vec* like, long long n) noexcept nogil:
    """Every lane the label n; `like` only tells the type."""
    if vec is f32v:
        return cc_label_f32(n)
    else:
        return cc_label_f64(n)


cdef inline vec plus_labels(vec a, vec b) noexcept nogil:
    """Add labels."""
    if vec is f32v:
        return cc_plus_f32(a, b)
    else:
        return cc_plus_f64(a, b)


cdef inline vec lower_label(vec a, vec b) noexcept nogil:
    """Give the lower of two labels."""
    if vec is f32v:
        return cc_lower_f32(a, b)
    else:
        return cc_lower_f64(a, b)


cdef inline vec join_equal(vec mask, vec a, vec b) noexcept nogil:
    """Set the lanes of a mask where a and b are equal."""
    if vec is f32v:
        return cc_join_equal_f32(mask, a, b)
    else:
        return cc_join_equal_f64(mask, a, b)


cdef inline void put_bytes(unsigned char* to, vec labels) noexcept nogil:
    """Store the labels, below 256, as bytes."""
    check_range(to, VEC_BYTES // (4 if vec is f32v else 8))
    if vec is f32v:
        cc_bytes_f32(to, labels)
    else:
        cc_bytes_f64(to, labels)


cdef inline vec widened(const vec* like, const unsigned char* labels) noexcept nogil:
    """Load as many bytes as there are lanes; `like` only tells the type."""
    check_range(labels, VEC_BYTES // (4 if vec is f32v else 8))
    if vec is f32v:
        return cc_widen_f32(labels)
    else:
        return cc_widen_f64(labels)
