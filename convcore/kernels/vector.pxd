# The only file that knows an instruction set.
#
# What    One vector type per float type, as wide as the widest register that the
#         compiler was told to use, and the tile that fits its register file.
# How     GNU vector types. Cython is told that they are floats, so `acc + a * b` is
#         ordinary Cython; C sees vectors and makes one fused multiply-add of it.
#         The types are declared unaligned and free to alias: any address may be loaded.
# Rules   A vector never meets a Python object, a comparison, // or %; arrays of vectors
#         are local and indexed by constants once loops are unrolled, or they leave the
#         registers.
#
# Rows    The usual numbers of channels, 32, 64, 128 ..., leave 8, 4 or 2 behind full tiles.
#
#             vector bytes   MR   NV   registers used (MR*NV + NV + 1)   of
#   AVX-512        64        14    2              31                     32
#   AVX2+FMA       32         6    2              15                     16
#   NEON           16        12    2              27                     32
#   SSE2           16         6    2              15                     16

cdef extern from *:
    """
    #include <string.h>
    #if defined(__AVX512F__)
      #define CC_VEC_BYTES 64
      #define CC_MR 14
      #define CC_MR_HALF 8
      #define CC_DOT_X 4
    #elif defined(__AVX2__)
      #define CC_VEC_BYTES 32
      #define CC_MR 6
      #define CC_MR_HALF 4
      #define CC_DOT_X 2
    #elif defined(__aarch64__)
      #define CC_VEC_BYTES 16
      #define CC_MR 12
      #define CC_MR_HALF 8
      #define CC_DOT_X 4
    #else
      #define CC_VEC_BYTES 16
      #define CC_MR 6
      #define CC_MR_HALF 4
      #define CC_DOT_X 2
    #endif
    #define CC_NV 2
    #define CC_MR_QUARTER (CC_MR_HALF / 2)
    #define CC_WIDE 4
    #define CC_TILE (CC_MR * CC_NV)
    #define CC_NR_BYTES (CC_NV * CC_VEC_BYTES)
    #define CC_DOT_W 4
    #define CC_DOT_TILE (CC_DOT_X * CC_DOT_W)

    typedef float  cc_f32v __attribute__((vector_size(CC_VEC_BYTES), aligned(4), may_alias));
    typedef double cc_f64v __attribute__((vector_size(CC_VEC_BYTES), aligned(8), may_alias));

    /* Every lane the scalar s: s - 0 is s for every s, the sign of zero included. */
    #define cc_prefetch(p) __builtin_prefetch(p)
    #define cc_all_f32(s) ((float)(s) - (cc_f32v){0})
    #define cc_all_f64(s) ((double)(s) - (cc_f64v){0})

    /* mix: lanes of a, then of b, by their numbers. */
    #if defined(__clang__)
      #define CC_MIX(i, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
    #else
      typedef int cc_i32v __attribute__((vector_size(CC_VEC_BYTES)));
      typedef long long cc_i64v __attribute__((vector_size(CC_VEC_BYTES)));
      #define CC_MIX(i, a, b, ...) __builtin_shuffle(a, b, (i){__VA_ARGS__})
    #endif
    /* low: a0 b0 a1 b1 ..., as many as fit; high: the ones after them. */
    #define CC_LOW_16(i, a, b) \
        CC_MIX(i, a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
    #define CC_HIGH_16(i, a, b) \
        CC_MIX(i, a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
    #define CC_LOW_8(i, a, b) CC_MIX(i, a, b, 0, 8, 1, 9, 2, 10, 3, 11)
    #define CC_HIGH_8(i, a, b) CC_MIX(i, a, b, 4, 12, 5, 13, 6, 14, 7, 15)
    #define CC_LOW_4(i, a, b) CC_MIX(i, a, b, 0, 4, 1, 5)
    #define CC_HIGH_4(i, a, b) CC_MIX(i, a, b, 2, 6, 3, 7)
    #define CC_LOW_2(i, a, b) CC_MIX(i, a, b, 0, 2)
    #define CC_HIGH_2(i, a, b) CC_MIX(i, a, b, 1, 3)
    #if CC_VEC_BYTES == 64
      #define cc_low_f32(a, b) CC_LOW_16(cc_i32v, a, b)
      #define cc_high_f32(a, b) CC_HIGH_16(cc_i32v, a, b)
      #define cc_low_f64(a, b) CC_LOW_8(cc_i64v, a, b)
      #define cc_high_f64(a, b) CC_HIGH_8(cc_i64v, a, b)
    #elif CC_VEC_BYTES == 32
      #define cc_low_f32(a, b) CC_LOW_8(cc_i32v, a, b)
      #define cc_high_f32(a, b) CC_HIGH_8(cc_i32v, a, b)
      #define cc_low_f64(a, b) CC_LOW_4(cc_i64v, a, b)
      #define cc_high_f64(a, b) CC_HIGH_4(cc_i64v, a, b)
    #else
      #define cc_low_f32(a, b) CC_LOW_4(cc_i32v, a, b)
      #define cc_high_f32(a, b) CC_HIGH_4(cc_i32v, a, b)
      #define cc_low_f64(a, b) CC_LOW_2(cc_i64v, a, b)
      #define cc_high_f64(a, b) CC_HIGH_2(cc_i64v, a, b)
    #endif
    /* fold: sums of neighbouring lanes, those of a before those of b. */
    #define CC_FOLD_2(like, a, b) (CC_MIX(like, a, b, 0, 2) + CC_MIX(like, a, b, 1, 3))
    #define CC_FOLD_4(like, a, b) (CC_MIX(like, a, b, 0, 2, 4, 6) \
        + CC_MIX(like, a, b, 1, 3, 5, 7))
    #define CC_FOLD_8(like, a, b) (CC_MIX(like, a, b, 0, 2, 4, 6, 8, 10, 12, 14) \
        + CC_MIX(like, a, b, 1, 3, 5, 7, 9, 11, 13, 15))
    #define CC_FOLD_16(like, a, b) (CC_MIX(like, a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, \
        20, 22, 24, 26, 28, 30) + CC_MIX(like, a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, \
        23, 25, 27, 29, 31))
    #if CC_VEC_BYTES == 64
      #define cc_fold_f32(a, b) CC_FOLD_16(cc_i32v, a, b)
      #define cc_fold_f64(a, b) CC_FOLD_8(cc_i64v, a, b)
    #elif CC_VEC_BYTES == 32
      #define cc_fold_f32(a, b) CC_FOLD_8(cc_i32v, a, b)
      #define cc_fold_f64(a, b) CC_FOLD_4(cc_i64v, a, b)
    #else
      #define cc_fold_f32(a, b) CC_FOLD_4(cc_i32v, a, b)
      #define cc_fold_f64(a, b) CC_FOLD_2(cc_i64v, a, b)
    #endif

    /* merge: the lanes whose bits are set from memory, which is not touched elsewhere.
       copy: n scalars, never a byte beyond. */
    #if defined(__AVX512F__)
      #include <immintrin.h>
      static inline unsigned cc_first(Py_ssize_t n, int lanes) {
          return n <= 0 ? 0u : n >= lanes ? (1u << lanes) - 1 : (1u << n) - 1;
      }
      static inline void cc_copy_f32(float *to, const float *from, Py_ssize_t n) {
          for (; n >= 16; n -= 16, to += 16, from += 16)
              _mm512_storeu_ps(to, _mm512_loadu_ps(from));
          __mmask16 m = (__mmask16)cc_first(n, 16);
          _mm512_mask_storeu_ps(to, m, _mm512_maskz_loadu_ps(m, from));
      }
      static inline void cc_copy_f64(double *to, const double *from, Py_ssize_t n) {
          for (; n >= 8; n -= 8, to += 8, from += 8)
              _mm512_storeu_pd(to, _mm512_loadu_pd(from));
          __mmask8 m = (__mmask8)cc_first(n, 8);
          _mm512_mask_storeu_pd(to, m, _mm512_maskz_loadu_pd(m, from));
      }
      static inline cc_f32v cc_merge_f32(cc_f32v v, const float *p, unsigned long long b) {
          return (cc_f32v)_mm512_mask_loadu_ps((__m512)v, (__mmask16)b, p);
      }
      static inline cc_f64v cc_merge_f64(cc_f64v v, const double *p, unsigned long long b) {
          return (cc_f64v)_mm512_mask_loadu_pd((__m512d)v, (__mmask8)b, p);
      }
    #else
      #if defined(__AVX2__)
      #include <immintrin.h>
      static inline cc_f32v cc_merge_f32(cc_f32v v, const float *p, unsigned long long b) {
          __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
          __m256i set = _mm256_and_si256(_mm256_set1_epi32((int)b), lane);
          __m256i mask = _mm256_cmpeq_epi32(set, lane);
          __m256 loaded = _mm256_maskload_ps(p, mask);
          return (cc_f32v)_mm256_blendv_ps((__m256)v, loaded, _mm256_castsi256_ps(mask));
      }
      static inline cc_f64v cc_merge_f64(cc_f64v v, const double *p, unsigned long long b) {
          __m256i lane = _mm256_setr_epi64x(1, 2, 4, 8);
          __m256i set = _mm256_and_si256(_mm256_set1_epi64x((long long)b), lane);
          __m256i mask = _mm256_cmpeq_epi64(set, lane);
          __m256d loaded = _mm256_maskload_pd(p, mask);
          return (cc_f64v)_mm256_blendv_pd((__m256d)v, loaded, _mm256_castsi256_pd(mask));
      }
      #else
      static inline cc_f32v cc_merge_f32(cc_f32v v, const float *p, unsigned long long b) {
          for (int i = 0; i < CC_VEC_BYTES / 4; i++) if (b >> i & 1) v[i] = p[i];
          return v;
      }
      static inline cc_f64v cc_merge_f64(cc_f64v v, const double *p, unsigned long long b) {
          for (int i = 0; i < CC_VEC_BYTES / 8; i++) if (b >> i & 1) v[i] = p[i];
          return v;
      }
      #endif
      #define cc_copy_f32(to, from, n) memcpy(to, from, (size_t)(n) * sizeof(float))
      #define cc_copy_f64(to, from, n) memcpy(to, from, (size_t)(n) * sizeof(double))
    #endif
    """
    ctypedef float f32v "cc_f32v"
    ctypedef double f64v "cc_f64v"
    enum:
        VEC_BYTES "CC_VEC_BYTES"  # bytes of one vector
        MR "CC_MR"                # rows of the register tile
        MR_HALF "CC_MR_HALF"      # rows of the tiles for few channels
        MR_QUARTER "CC_MR_QUARTER"
        WIDE "CC_WIDE"            # panels of the tile for one channel
        NV "CC_NV"                # vectors of one row of the tile
        TILE "CC_TILE"            # vectors of the tile
        DOT_X "CC_DOT_X"          # rows of x and of weight in the tile of dot products
        DOT_W "CC_DOT_W"
        DOT_TILE "CC_DOT_TILE"    # vectors of that tile
        NR_BYTES "CC_NR_BYTES"    # bytes of one row of the tile
    void prefetch "cc_prefetch"(const void* p) nogil  # harmless for any address
    f32v cc_all_f32(float s) nogil
    f64v cc_all_f64(double s) nogil
    f32v cc_low_f32(f32v a, f32v b) nogil
    f32v cc_high_f32(f32v a, f32v b) nogil
    f64v cc_low_f64(f64v a, f64v b) nogil
    f64v cc_high_f64(f64v a, f64v b) nogil
    f32v cc_fold_f32(f32v a, f32v b) nogil
    f64v cc_fold_f64(f64v a, f64v b) nogil
    f32v cc_merge_f32(f32v v, const float* source, unsigned long long lanes) nogil
    f64v cc_merge_f64(f64v v, const double* source, unsigned long long lanes) nogil
    void cc_copy_f32(float* to, const float* source, Py_ssize_t n) nogil
    void cc_copy_f64(double* to, const double* source, Py_ssize_t n) nogil

ctypedef fused vec:
    f32v
    f64v

ctypedef fused real:
    float
    double


cdef inline vec lanes_from(const vec* a, Py_ssize_t i) noexcept nogil:
    """Every lane the i-th scalar behind `a`."""
    if vec is f32v:
        return cc_all_f32((<const float*>a)[i])
    else:
        return cc_all_f64((<const double*>a)[i])


cdef inline vec zero_lanes(const vec* like) noexcept nogil:
    """Every lane zero; `like` only tells the type."""
    if vec is f32v:
        return cc_all_f32(0)
    else:
        return cc_all_f64(0)


cdef inline const vec* ahead(const vec* a, Py_ssize_t scalars) noexcept nogil:
    """The address that many scalars further on."""
    if vec is f32v:
        return <const vec*>(<const float*>a + scalars)
    else:
        return <const vec*>(<const double*>a + scalars)


cdef inline vec interleave_low(vec a, vec b) noexcept nogil:
    """Give a0 b0 a1 b1 ... of the first halves of two vectors."""
    if vec is f32v:
        return cc_low_f32(a, b)
    else:
        return cc_low_f64(a, b)


cdef inline vec interleave_high(vec a, vec b) noexcept nogil:
    """Give the same of the second halves."""
    if vec is f32v:
        return cc_high_f32(a, b)
    else:
        return cc_high_f64(a, b)


cdef inline vec merge(
    vec v, const vec* source, unsigned long long lanes
) noexcept nogil:
    """Replace the lanes whose bits are set by those in memory; touch no others there."""
    if vec is f32v:
        return cc_merge_f32(v, <const float*>source, lanes)
    else:
        return cc_merge_f64(v, <const double*>source, lanes)


cdef inline vec fold(vec a, vec b) noexcept nogil:
    """Add neighbouring lanes; the sums of a stand before those of b."""
    if vec is f32v:
        return cc_fold_f32(a, b)
    else:
        return cc_fold_f64(a, b)


cdef inline Py_ssize_t nr(const real* like) noexcept nogil:
    """Scalars of one row of the tile."""
    return NR_BYTES // sizeof(real)


cdef inline void copy(real* to, const real* source, Py_ssize_t n) noexcept nogil:
    """Copy n scalars: exact, never a byte beyond."""
    if real is float:
        cc_copy_f32(to, source, n)
    else:
        cc_copy_f64(to, source, n)
