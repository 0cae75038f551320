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

from convcore.kernels.checked cimport check_lanes, check_part, check_range

cdef extern from *:
    """
    #include <string.h>
    #if defined(__AVX512F__)
      #define CC_VEC_BYTES 64
      #define CC_ROWS 7
      #define CC_ROWS_HALF 4
      #define CC_MR 14
      #define CC_MR_HALF 8
      #define CC_DOT_X 4
    #elif defined(__AVX2__)
      #define CC_VEC_BYTES 32
      #define CC_ROWS 4
      #define CC_ROWS_HALF 2
      #define CC_MR 6
      #define CC_MR_HALF 4
      #define CC_DOT_X 2
    #elif defined(__aarch64__)
      #define CC_VEC_BYTES 16
      #define CC_ROWS 7
      #define CC_ROWS_HALF 4
      #define CC_MR 12
      #define CC_MR_HALF 8
      #define CC_DOT_X 4
    #else
      #define CC_VEC_BYTES 16
      #define CC_ROWS 4
      #define CC_ROWS_HALF 2
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
    #define cc_all_f32(s) ((float)(s) - (cc_f32v){0})
    #define cc_all_f64(s) ((double)(s) - (cc_f64v){0})

    /* 0 for every lane that is not above it; NaN compares as false and stays. */
    #define CC_RECTIFY(v) ((__typeof__(v))(~((v) <= (__typeof__(v)){0}) \\
        & (__typeof__((v) <= (v)))(v)))
    static inline cc_f32v cc_rectify_f32(cc_f32v v) { return CC_RECTIFY(v); }
    static inline cc_f64v cc_rectify_f64(cc_f64v v) { return CC_RECTIFY(v); }

    /* Ask for a cache line early, into L1 or L2; any address will do. */
    #define cc_fetch(p) __builtin_prefetch(p, 0, 3)
    #define cc_fetch_far(p) __builtin_prefetch(p, 0, 2)
    #define cc_fetch_to_write(p) __builtin_prefetch(p, 1, 3)

    /* x, which is hardly ever true: what it guards is not inlined into hot functions. */
    #define cc_seldom(x) __builtin_expect_with_probability(!!(x), 0, 1.0)

    /* mix: lanes of a, then of b, by their numbers.  at: the same, by integers as wide as
       the scalars, which are kept in a vector of the same type. */
    #if defined(__clang__)
      #define CC_MIX(i, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
      static inline cc_f32v cc_at_f32(cc_f32v a, cc_f32v b, cc_f32v at) {
          float held[CC_VEC_BYTES / 2]; int i[CC_VEC_BYTES / 4];
          memcpy(held, &a, sizeof(a)), memcpy(held + CC_VEC_BYTES / 4, &b, sizeof(b));
          memcpy(i, &at, sizeof(at));
          for (int j = 0; j < CC_VEC_BYTES / 4; j++) a[j] = held[i[j]];
          return a;
      }
      static inline cc_f64v cc_at_f64(cc_f64v a, cc_f64v b, cc_f64v at) {
          double held[CC_VEC_BYTES / 4]; long long i[CC_VEC_BYTES / 8];
          memcpy(held, &a, sizeof(a)), memcpy(held + CC_VEC_BYTES / 8, &b, sizeof(b));
          memcpy(i, &at, sizeof(at));
          for (int j = 0; j < CC_VEC_BYTES / 8; j++) a[j] = held[i[j]];
          return a;
      }
    #else
      typedef int cc_i32v __attribute__((vector_size(CC_VEC_BYTES)));
      typedef long long cc_i64v __attribute__((vector_size(CC_VEC_BYTES)));
      #define CC_MIX(i, a, b, ...) __builtin_shuffle(a, b, (i){__VA_ARGS__})
      #define cc_at_f32(a, b, at) __builtin_shuffle(a, b, (cc_i32v)(at))
      #define cc_at_f64(a, b, at) __builtin_shuffle(a, b, (cc_i64v)(at))
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
    /* near: a0 b0 a1 b1 ... of the first or last half of each 16 bytes; pair: the same
       with 8 bytes for a scalar.  blocks: 16 bytes of a, every second, then of b. */
    #if CC_VEC_BYTES == 64
      #define cc_near_low_f32(a, b) CC_MIX(cc_i32v, a, b, \
          0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
      #define cc_near_high_f32(a, b) CC_MIX(cc_i32v, a, b, \
          2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
      #define cc_near_low_f64(a, b) CC_MIX(cc_i64v, a, b, 0, 8, 2, 10, 4, 12, 6, 14)
      #define cc_near_high_f64(a, b) CC_MIX(cc_i64v, a, b, 1, 9, 3, 11, 5, 13, 7, 15)
      #define cc_blocks_even_f64(a, b) CC_MIX(cc_i64v, a, b, 0, 1, 4, 5, 8, 9, 12, 13)
      #define cc_blocks_odd_f64(a, b) CC_MIX(cc_i64v, a, b, 2, 3, 6, 7, 10, 11, 14, 15)
    #elif CC_VEC_BYTES == 32
      #define cc_near_low_f32(a, b) CC_MIX(cc_i32v, a, b, 0, 8, 1, 9, 4, 12, 5, 13)
      #define cc_near_high_f32(a, b) CC_MIX(cc_i32v, a, b, 2, 10, 3, 11, 6, 14, 7, 15)
      #define cc_near_low_f64(a, b) CC_MIX(cc_i64v, a, b, 0, 4, 2, 6)
      #define cc_near_high_f64(a, b) CC_MIX(cc_i64v, a, b, 1, 5, 3, 7)
      #define cc_blocks_even_f64(a, b) CC_MIX(cc_i64v, a, b, 0, 1, 4, 5)
      #define cc_blocks_odd_f64(a, b) CC_MIX(cc_i64v, a, b, 2, 3, 6, 7)
    #else
      #define cc_near_low_f32 cc_low_f32
      #define cc_near_high_f32 cc_high_f32
      #define cc_near_low_f64 cc_low_f64
      #define cc_near_high_f64 cc_high_f64
      #define cc_blocks_even_f64(a, b) (a)
      #define cc_blocks_odd_f64(a, b) (b)
    #endif
    #define CC_AS_F64(f, a, b) ((cc_f32v)f((cc_f64v)(a), (cc_f64v)(b)))
    #define cc_pair_low_f32(a, b) CC_AS_F64(cc_near_low_f64, a, b)
    #define cc_pair_high_f32(a, b) CC_AS_F64(cc_near_high_f64, a, b)
    #define cc_blocks_even_f32(a, b) CC_AS_F64(cc_blocks_even_f64, a, b)
    #define cc_blocks_odd_f32(a, b) CC_AS_F64(cc_blocks_odd_f64, a, b)
    /* even, odd: lanes 0, 2, ... and 1, 3, ... of a, then of b.
       fold: sums of neighbouring lanes, those of a before those of b. */
    #define CC_EVEN_2(like, a, b) CC_MIX(like, a, b, 0, 2)
    #define CC_ODD_2(like, a, b) CC_MIX(like, a, b, 1, 3)
    #define CC_EVEN_4(like, a, b) CC_MIX(like, a, b, 0, 2, 4, 6)
    #define CC_ODD_4(like, a, b) CC_MIX(like, a, b, 1, 3, 5, 7)
    #define CC_EVEN_8(like, a, b) CC_MIX(like, a, b, 0, 2, 4, 6, 8, 10, 12, 14)
    #define CC_ODD_8(like, a, b) CC_MIX(like, a, b, 1, 3, 5, 7, 9, 11, 13, 15)
    #define CC_EVEN_16(like, a, b) CC_MIX(like, a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, \
        20, 22, 24, 26, 28, 30)
    #define CC_ODD_16(like, a, b) CC_MIX(like, a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, \
        23, 25, 27, 29, 31)
    #if CC_VEC_BYTES == 64
      #define cc_evens_f32(a, b) CC_EVEN_16(cc_i32v, a, b)
      #define cc_evens_f64(a, b) CC_EVEN_8(cc_i64v, a, b)
      #define cc_odds_f32(a, b) CC_ODD_16(cc_i32v, a, b)
      #define cc_odds_f64(a, b) CC_ODD_8(cc_i64v, a, b)
    #elif CC_VEC_BYTES == 32
      #define cc_evens_f32(a, b) CC_EVEN_8(cc_i32v, a, b)
      #define cc_evens_f64(a, b) CC_EVEN_4(cc_i64v, a, b)
      #define cc_odds_f32(a, b) CC_ODD_8(cc_i32v, a, b)
      #define cc_odds_f64(a, b) CC_ODD_4(cc_i64v, a, b)
    #else
      #define cc_evens_f32(a, b) CC_EVEN_4(cc_i32v, a, b)
      #define cc_evens_f64(a, b) CC_EVEN_2(cc_i64v, a, b)
      #define cc_odds_f32(a, b) CC_ODD_4(cc_i32v, a, b)
      #define cc_odds_f64(a, b) CC_ODD_2(cc_i64v, a, b)
    #endif
    #define cc_fold_f32(a, b) (cc_evens_f32(a, b) + cc_odds_f32(a, b))
    #define cc_fold_f64(a, b) (cc_evens_f64(a, b) + cc_odds_f64(a, b))

    /* later: v where it is greater than best or the first NaN, else best.  contest: the
       same, and the label n for its winners.  gather: acc + v where the label is n. Labels
       are integers as wide as the scalars, and kept in vectors of the same type; bytes
       stores them as bytes, widen loads such.
       merge: the lanes whose bits are set from memory, which is not touched elsewhere.
       copy: n scalars, never a byte beyond.
       part: the lanes whose bits are set, the others zero; only the former are read.
       pair: the even and the odd ones of twice as many scalars, a bit for each of them.
       sum: of all lanes, by halves.  most: the largest, without NaN.  put: n lanes at most.
       wide: as many scalars as float64 has lanes, from memory or from the first half of a
       vector, as float64.  narrow: such float64 to memory as float32, rounded.
       zip: n scalars at most, from a and b in turn.
       take: lane i is p[at[i]], for numbers below that of lanes; take_far: below twice
       that of lanes. All of p below that may be read. */
    #if defined(__AVX512F__)
      #include <immintrin.h>
      static inline cc_f32v cc_later_f32(cc_f32v v, cc_f32v best) {
          __m512 b = (__m512)best;  /* not max, which takes the later of 0 and -0 */
          return (cc_f32v)_mm512_mask_mov_ps(b, _mm512_mask_cmp_ps_mask(
              _mm512_cmp_ps_mask(b, b, _CMP_ORD_Q), (__m512)v, b, _CMP_NLE_UQ), (__m512)v);
      }
      static inline cc_f64v cc_later_f64(cc_f64v v, cc_f64v best) {
          __m512d b = (__m512d)best;
          return (cc_f64v)_mm512_mask_mov_pd(b, _mm512_mask_cmp_pd_mask(
              _mm512_cmp_pd_mask(b, b, _CMP_ORD_Q), (__m512d)v, b, _CMP_NLE_UQ), (__m512d)v);
      }
      static inline void cc_contest_f32(cc_f32v v, cc_f32v n, cc_f32v *best, cc_f32v *label) {
          __m512 b = (__m512)*best;
          __mmask16 m = _mm512_mask_cmp_ps_mask(
              _mm512_cmp_ps_mask(b, b, _CMP_ORD_Q), (__m512)v, b, _CMP_NLE_UQ);
          *best = (cc_f32v)_mm512_mask_mov_ps(b, m, (__m512)v);
          *label = (cc_f32v)_mm512_mask_mov_ps((__m512)*label, m, (__m512)n);
      }
      static inline void cc_contest_f64(cc_f64v v, cc_f64v n, cc_f64v *best, cc_f64v *label) {
          __m512d b = (__m512d)*best;
          __mmask8 m = _mm512_mask_cmp_pd_mask(
              _mm512_cmp_pd_mask(b, b, _CMP_ORD_Q), (__m512d)v, b, _CMP_NLE_UQ);
          *best = (cc_f64v)_mm512_mask_mov_pd(b, m, (__m512d)v);
          *label = (cc_f64v)_mm512_mask_mov_pd((__m512d)*label, m, (__m512d)n);
      }
      #define cc_has_nan_f32(a, b) \\
          (_mm512_cmp_ps_mask((__m512)(a), (__m512)(b), _CMP_UNORD_Q) != 0)
      #define cc_has_nan_f64(a, b) \\
          (_mm512_cmp_pd_mask((__m512d)(a), (__m512d)(b), _CMP_UNORD_Q) != 0)
      static inline void cc_bytes_f32(unsigned char *to, cc_f32v label) {
          _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)label));
      }
      static inline void cc_bytes_f64(unsigned char *to, cc_f64v label) {
          _mm_storel_epi64((__m128i *)to, _mm512_cvtepi64_epi8((__m512i)label));
      }
      static inline cc_f32v cc_widen_f32(const unsigned char *label) {
          return (cc_f32v)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)label));
      }
      static inline cc_f64v cc_widen_f64(const unsigned char *label) {
          return (cc_f64v)_mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)label));
      }
      static inline cc_f32v cc_gather_f32(cc_f32v acc, cc_f32v v, cc_f32v label, cc_f32v n) {
          __mmask16 m = _mm512_cmpeq_epi32_mask((__m512i)label, (__m512i)n);
          return (cc_f32v)_mm512_mask_add_ps((__m512)acc, m, (__m512)acc, (__m512)v);
      }
      static inline cc_f64v cc_gather_f64(cc_f64v acc, cc_f64v v, cc_f64v label, cc_f64v n) {
          __mmask8 m = _mm512_cmpeq_epi64_mask((__m512i)label, (__m512i)n);
          return (cc_f64v)_mm512_mask_add_pd((__m512d)acc, m, (__m512d)acc, (__m512d)v);
      }
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
      static inline cc_f32v cc_part_f32(const float *p, unsigned long long b) {
          return (cc_f32v)_mm512_maskz_loadu_ps((__mmask16)b, p);
      }
      static inline cc_f64v cc_part_f64(const double *p, unsigned long long b) {
          return (cc_f64v)_mm512_maskz_loadu_pd((__mmask8)b, p);
      }
      static inline void cc_pair_f32(
          const float *p, unsigned long long b, cc_f32v *even, cc_f32v *odd) {
          __m512i at = _mm512_setr_epi32(
              0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
          __m512 low = _mm512_maskz_loadu_ps((__mmask16)b, p);
          __m512 high = _mm512_maskz_loadu_ps((__mmask16)(b >> 16), p + 16);
          *even = (cc_f32v)_mm512_permutex2var_ps(low, at, high);
          at = _mm512_add_epi32(at, _mm512_set1_epi32(1));
          *odd = (cc_f32v)_mm512_permutex2var_ps(low, at, high);
      }
      static inline void cc_pair_f64(
          const double *p, unsigned long long b, cc_f64v *even, cc_f64v *odd) {
          __m512i at = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
          __m512d low = _mm512_maskz_loadu_pd((__mmask8)b, p);
          __m512d high = _mm512_maskz_loadu_pd((__mmask8)(b >> 8), p + 8);
          *even = (cc_f64v)_mm512_permutex2var_pd(low, at, high);
          at = _mm512_add_epi64(at, _mm512_set1_epi64(1));
          *odd = (cc_f64v)_mm512_permutex2var_pd(low, at, high);
      }
      #define cc_wide_f32(p) ((cc_f64v)_mm512_cvtps_pd(_mm256_loadu_ps(p)))
      #define cc_narrow_f32(p, v) _mm256_storeu_ps(p, _mm512_cvtpd_ps((__m512d)(v)))
      static inline void cc_narrow_part_f32(float *p, cc_f64v v, Py_ssize_t n) {
          _mm256_mask_storeu_ps(p, (__mmask8)cc_first(n, 8), _mm512_cvtpd_ps((__m512d)v));
      }
      #define cc_wide_low(v) \\
          ((cc_f64v)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)(v))))
      #define cc_sum_f32(v) _mm512_reduce_add_ps((__m512)(v))
      #define cc_sum_f64(v) _mm512_reduce_add_pd((__m512d)(v))
      #define cc_most_f32(v) _mm512_reduce_max_ps((__m512)(v))
      #define cc_most_f64(v) _mm512_reduce_max_pd((__m512d)(v))
      static inline void cc_put_f32(float *p, cc_f32v v, Py_ssize_t n) {
          __mmask16 m = n >= 16 ? 0xFFFF : (__mmask16)((1u << n) - 1);
          _mm512_mask_storeu_ps(p, m, (__m512)v);
      }
      static inline void cc_put_f64(double *p, cc_f64v v, Py_ssize_t n) {
          __mmask8 m = n >= 8 ? 0xFF : (__mmask8)((1u << n) - 1);
          _mm512_mask_storeu_pd(p, m, (__m512d)v);
      }
      #define cc_take_f32(p, at) ((cc_f32v)_mm512_permutexvar_ps( \\
          _mm512_loadu_si512(at), _mm512_loadu_ps(p)))
      #define CC_AT_8(at) _mm512_cvtepi32_epi64(_mm256_loadu_si256((const __m256i *)(at)))
      #define cc_take_f64(p, at) \\
          ((cc_f64v)_mm512_permutexvar_pd(CC_AT_8(at), _mm512_loadu_pd(p)))
      #define cc_take_far_f64(p, at) ((cc_f64v)_mm512_permutex2var_pd( \\
          _mm512_loadu_pd(p), CC_AT_8(at), _mm512_loadu_pd((p) + 8)))
      static inline void cc_zip_f32(float *p, cc_f32v a, cc_f32v b, Py_ssize_t n) {
          __m512i low = _mm512_setr_epi32(
              0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
          __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
          cc_put_f32(p, (cc_f32v)_mm512_permutex2var_ps((__m512)a, low, (__m512)b), n);
          if (n > 16)
              cc_put_f32(p + 16,
                  (cc_f32v)_mm512_permutex2var_ps((__m512)a, high, (__m512)b), n - 16);
      }
      static inline void cc_zip_f64(double *p, cc_f64v a, cc_f64v b, Py_ssize_t n) {
          __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
          __m512i high = _mm512_add_epi64(low, _mm512_set1_epi64(4));
          cc_put_f64(p, (cc_f64v)_mm512_permutex2var_pd((__m512d)a, low, (__m512d)b), n);
          if (n > 8)
              cc_put_f64(p + 8,
                  (cc_f64v)_mm512_permutex2var_pd((__m512d)a, high, (__m512d)b), n - 8);
      }
    #else
      #if defined(__AVX2__)
      #include <immintrin.h>
      #define cc_wide_f32(p) ((cc_f64v)_mm256_cvtps_pd(_mm_loadu_ps((const float *)(p))))
      #define cc_narrow_f32(p, v) _mm_storeu_ps(p, _mm256_cvtpd_ps((__m256d)(v)))
      static inline void cc_narrow_part_f32(float *p, cc_f64v v, Py_ssize_t n) {
          __m128i lane = _mm_setr_epi32(0, 1, 2, 3);
          __m128i first = _mm_cmpgt_epi32(_mm_set1_epi32(n < 4 ? (int)n : 4), lane);
          _mm_maskstore_ps(p, first, _mm256_cvtpd_ps((__m256d)v));
      }
      #else
      typedef float cc_f32h
          __attribute__((vector_size(CC_VEC_BYTES / 2), aligned(4), may_alias));
      #define cc_wide_f32(p) __builtin_convertvector(*(const cc_f32h *)(p), cc_f64v)
      #define cc_narrow_f32(p, v) (*(cc_f32h *)(p) = __builtin_convertvector(v, cc_f32h))
      static inline void cc_narrow_part_f32(float *p, cc_f64v v, Py_ssize_t n) {
          for (int i = 0; i < CC_VEC_BYTES / 8; i++) if (i < n) p[i] = (float)v[i];
      }
      #endif
      static inline cc_f64v cc_wide_low(cc_f32v v) { return cc_wide_f32(&v); }
      #define CC_WORD(v) ((__typeof__((v) <= (v)))(v))
      #define CC_WINS(v, best) (((best) == (best)) & ~((v) <= (best)))
      #define CC_EITHER(m, a, b) ((__typeof__(a))((CC_WORD(a) & (m)) | (CC_WORD(b) & ~(m))))
      #define CC_HAS_NAN(a, b) ({ \\
          __typeof__((a) != (a)) m = ((a) != (a)) | ((b) != (b)); \\
          int found = 0; \\
          for (int i = 0; i < (int)(sizeof(m) / sizeof(m[0])); i++) found |= m[i] != 0; \\
          found; })
      #define cc_has_nan_f32(a, b) CC_HAS_NAN(a, b)
      #define cc_has_nan_f64(a, b) CC_HAS_NAN(a, b)
      static inline cc_f32v cc_later_f32(cc_f32v v, cc_f32v best) {
          return CC_EITHER(CC_WINS(v, best), v, best);
      }
      static inline void cc_contest_f32(cc_f32v v, cc_f32v n, cc_f32v *best, cc_f32v *label) {
          __typeof__(v <= v) m = CC_WINS(v, *best);
          *best = CC_EITHER(m, v, *best);
          *label = CC_EITHER(m, n, *label);
      }
      static inline cc_f32v cc_gather_f32(cc_f32v acc, cc_f32v v, cc_f32v label, cc_f32v n) {
          return acc + (cc_f32v)(CC_WORD(v) & (CC_WORD(label) == CC_WORD(n)));
      }
      static inline cc_f64v cc_later_f64(cc_f64v v, cc_f64v best) {
          return CC_EITHER(CC_WINS(v, best), v, best);
      }
      static inline void cc_contest_f64(cc_f64v v, cc_f64v n, cc_f64v *best, cc_f64v *label) {
          __typeof__(v <= v) m = CC_WINS(v, *best);
          *best = CC_EITHER(m, v, *best);
          *label = CC_EITHER(m, n, *label);
      }
      static inline cc_f64v cc_gather_f64(cc_f64v acc, cc_f64v v, cc_f64v label, cc_f64v n) {
          return acc + (cc_f64v)(CC_WORD(v) & (CC_WORD(label) == CC_WORD(n)));
      }
      static inline void cc_bytes_f32(unsigned char *to, cc_f32v label) {
          int held[CC_VEC_BYTES / 4];
          memcpy(held, &label, sizeof(held));
          for (int i = 0; i < CC_VEC_BYTES / 4; i++) to[i] = (unsigned char)held[i];
      }
      static inline cc_f32v cc_widen_f32(const unsigned char *label) {
          int held[CC_VEC_BYTES / 4];
          cc_f32v v;
          for (int i = 0; i < CC_VEC_BYTES / 4; i++) held[i] = label[i];
          memcpy(&v, held, sizeof(held));
          return v;
      }
      static inline void cc_bytes_f64(unsigned char *to, cc_f64v label) {
          long long held[CC_VEC_BYTES / 8];
          memcpy(held, &label, sizeof(held));
          for (int i = 0; i < CC_VEC_BYTES / 8; i++) to[i] = (unsigned char)held[i];
      }
      static inline cc_f64v cc_widen_f64(const unsigned char *label) {
          long long held[CC_VEC_BYTES / 8];
          cc_f64v v;
          for (int i = 0; i < CC_VEC_BYTES / 8; i++) held[i] = label[i];
          memcpy(&v, held, sizeof(held));
          return v;
      }
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
      static inline float cc_sum_f32(cc_f32v v) {
          for (int n = CC_VEC_BYTES / 8; n; n /= 2) for (int i = 0; i < n; i++) v[i] += v[i + n];
          return v[0];
      }
      static inline double cc_sum_f64(cc_f64v v) {
          for (int n = CC_VEC_BYTES / 16; n; n /= 2) for (int i = 0; i < n; i++) v[i] += v[i + n];
          return v[0];
      }
      #define CC_MOST(v, lanes) \
          for (int n = (lanes) / 2; n; n /= 2) \
              for (int i = 0; i < n; i++) v[i] = v[i] < v[i + n] ? v[i + n] : v[i]; \
          return v[0]
      static inline float cc_most_f32(cc_f32v v) { CC_MOST(v, CC_VEC_BYTES / 4); }
      static inline double cc_most_f64(cc_f64v v) { CC_MOST(v, CC_VEC_BYTES / 8); }
      /* A whole vector as a constant case, the rest scalar by scalar. */
      #define CC_LANES_F32 (CC_VEC_BYTES / 4)
      #define CC_LANES_F64 (CC_VEC_BYTES / 8)
      #define CC_ALL_F32 ((1ull << CC_LANES_F32) - 1)
      #define CC_ALL_F64 ((1ull << CC_LANES_F64) - 1)
      static inline cc_f32v cc_part_f32(const float *p, unsigned long long b) {
          if ((b & CC_ALL_F32) == CC_ALL_F32) return *(const cc_f32v *)p;
          return cc_merge_f32((cc_f32v){0}, p, b);
      }
      static inline cc_f64v cc_part_f64(const double *p, unsigned long long b) {
          if ((b & CC_ALL_F64) == CC_ALL_F64) return *(const cc_f64v *)p;
          return cc_merge_f64((cc_f64v){0}, p, b);
      }
      #if defined(__AVX2__)
      static inline void cc_pair_f32(
          const float *p, unsigned long long b, cc_f32v *even, cc_f32v *odd) {
          __m256 low = (__m256)cc_part_f32(p, b);
          __m256 high = (__m256)cc_part_f32(p + 8, b >> 8);
          *even = (cc_f32v)_mm256_permute4x64_pd(
              (__m256d)_mm256_shuffle_ps(low, high, 0x88), 0xD8);
          *odd = (cc_f32v)_mm256_permute4x64_pd(
              (__m256d)_mm256_shuffle_ps(low, high, 0xDD), 0xD8);
      }
      static inline void cc_pair_f64(
          const double *p, unsigned long long b, cc_f64v *even, cc_f64v *odd) {
          __m256d low = (__m256d)cc_part_f64(p, b);
          __m256d high = (__m256d)cc_part_f64(p + 4, b >> 4);
          *even = (cc_f64v)_mm256_permute4x64_pd(_mm256_shuffle_pd(low, high, 0), 0xD8);
          *odd = (cc_f64v)_mm256_permute4x64_pd(_mm256_shuffle_pd(low, high, 15), 0xD8);
      }
      #else
      static inline cc_f32v cc_even_f32(const float *p, unsigned long long b) {
          cc_f32v v = {0};
          for (int i = 0; i < CC_LANES_F32; i++) if (b >> 2 * i & 1) v[i] = p[2 * i];
          return v;
      }
      static inline cc_f64v cc_even_f64(const double *p, unsigned long long b) {
          cc_f64v v = {0};
          for (int i = 0; i < CC_LANES_F64; i++) if (b >> 2 * i & 1) v[i] = p[2 * i];
          return v;
      }
      #define cc_pair_f32(p, b, even, odd) \\
          (*(even) = cc_even_f32(p, b), *(odd) = cc_even_f32((p) + 1, (b) >> 1))
      #define cc_pair_f64(p, b, even, odd) \\
          (*(even) = cc_even_f64(p, b), *(odd) = cc_even_f64((p) + 1, (b) >> 1))
      #endif
      static inline cc_f32v cc_take_f32(const float *p, const int *at) {
      #if defined(__AVX2__)
          return (cc_f32v)_mm256_permutevar8x32_ps(
              _mm256_loadu_ps(p), _mm256_loadu_si256((const __m256i *)at));
      #else
          cc_f32v v;
          for (int i = 0; i < CC_LANES_F32; i++) v[i] = p[at[i]];
          return v;
      #endif
      }
      static inline cc_f64v cc_take_f64(const double *p, const int *at) {
          cc_f64v v;
          for (int i = 0; i < CC_LANES_F64; i++) v[i] = p[at[i]];
          return v;
      }
      #define cc_take_far_f64 cc_take_f64
      static inline void cc_put_f32(float *p, cc_f32v v, Py_ssize_t n) {
          if (n >= CC_LANES_F32) *(cc_f32v *)p = v;
          else for (Py_ssize_t i = 0; i < n; i++) p[i] = v[i];
      }
      static inline void cc_put_f64(double *p, cc_f64v v, Py_ssize_t n) {
          if (n >= CC_LANES_F64) *(cc_f64v *)p = v;
          else for (Py_ssize_t i = 0; i < n; i++) p[i] = v[i];
      }
      static inline void cc_zip_f32(float *p, cc_f32v a, cc_f32v b, Py_ssize_t n) {
          if (n >= 2 * CC_LANES_F32)
              for (int i = 0; i < CC_LANES_F32; i++) p[2 * i] = a[i], p[2 * i + 1] = b[i];
          else
              for (Py_ssize_t i = 0; i < n; i++) p[i] = i % 2 ? b[i / 2] : a[i / 2];
      }
      static inline void cc_zip_f64(double *p, cc_f64v a, cc_f64v b, Py_ssize_t n) {
          if (n >= 2 * CC_LANES_F64)
              for (int i = 0; i < CC_LANES_F64; i++) p[2 * i] = a[i], p[2 * i + 1] = b[i];
          else
              for (Py_ssize_t i = 0; i < n; i++) p[i] = i % 2 ? b[i / 2] : a[i / 2];
      }
      #define cc_copy_f32(to, from, n) memcpy(to, from, (size_t)(n) * sizeof(float))
      #define cc_copy_f64(to, from, n) memcpy(to, from, (size_t)(n) * sizeof(double))
    #endif

    /* loaded: v, in a register from here on; GCC would rather load it again, by masks. */
    #if defined(__AVX512F__)
      #define CC_HOLD(v) __asm__("" : "+v"(v))
    #elif defined(__x86_64__)
      #define CC_HOLD(v) __asm__("" : "+x"(v))
    #else
      #define CC_HOLD(v) ((void)0)
    #endif
    static inline cc_f32v cc_loaded_f32(cc_f32v v) { CC_HOLD(v); return v; }
    static inline cc_f64v cc_loaded_f64(cc_f64v v) { CC_HOLD(v); return v; }

    /* patch: the lanes whose bits are set become one scalar from memory.
       pick: lanes of x where a < b, of y elsewhere and where one of them is NaN.
       until: the same where a <= b.
       smaller, larger: a where a < b (a > b), else b, so b where one of them is NaN.
       scale: v * 2^n for whole n, rounded once where v is about 1, |n| < 2 * 126.
       stream: store to an aligned address, past the caches; settle: after the last one. */
    #if defined(__AVX512F__)
      #define cc_patch_f32(v, p, b) ((cc_f32v)_mm512_mask_broadcastss_ps( \\
          (__m512)(v), (__mmask16)(b), _mm_load_ss(p)))
      #define cc_patch_f64(v, p, b) ((cc_f64v)_mm512_mask_broadcastsd_pd( \\
          (__m512d)(v), (__mmask8)(b), _mm_load_sd(p)))
      #define cc_pick_f32(a, b, x, y) ((cc_f32v)_mm512_mask_blend_ps( \\
          _mm512_cmp_ps_mask((__m512)(a), (__m512)(b), _CMP_LT_OQ), (__m512)(y), (__m512)(x)))
      #define cc_pick_f64(a, b, x, y) ((cc_f64v)_mm512_mask_blend_pd( \\
          _mm512_cmp_pd_mask((__m512d)(a), (__m512d)(b), _CMP_LT_OQ), (__m512d)(y), \\
          (__m512d)(x)))
      #define cc_until_f32(a, b, x, y) ((cc_f32v)_mm512_mask_blend_ps( \\
          _mm512_cmp_ps_mask((__m512)(a), (__m512)(b), _CMP_LE_OQ), (__m512)(y), (__m512)(x)))
      #define cc_until_f64(a, b, x, y) ((cc_f64v)_mm512_mask_blend_pd( \\
          _mm512_cmp_pd_mask((__m512d)(a), (__m512d)(b), _CMP_LE_OQ), (__m512d)(y), \\
          (__m512d)(x)))
      #define cc_smaller_f32(a, b) ((cc_f32v)_mm512_min_ps((__m512)(a), (__m512)(b)))
      #define cc_smaller_f64(a, b) ((cc_f64v)_mm512_min_pd((__m512d)(a), (__m512d)(b)))
      #define cc_larger_f32(a, b) ((cc_f32v)_mm512_max_ps((__m512)(a), (__m512)(b)))
      #define cc_larger_f64(a, b) ((cc_f64v)_mm512_max_pd((__m512d)(a), (__m512d)(b)))
      #define cc_scale_f32(v, n) ((cc_f32v)_mm512_scalef_ps((__m512)(v), (__m512)(n)))
      #define cc_scale_f64(v, n) ((cc_f64v)_mm512_scalef_pd((__m512d)(v), (__m512d)(n)))
      #define cc_stream_f32(p, v) _mm512_stream_ps(p, (__m512)(v))
      #define cc_stream_f64(p, v) _mm512_stream_pd(p, (__m512d)(v))
    #else
      typedef unsigned cc_u32v __attribute__((vector_size(CC_VEC_BYTES)));
      typedef unsigned long long cc_u64v __attribute__((vector_size(CC_VEC_BYTES)));
      #define CC_PICK(u, f, test, x, y) \\
          ((f)(((u)(test) & (u)(x)) | (~(u)(test) & (u)(y))))
      #if CC_VEC_BYTES == 32
        #define CC_LANE_BITS_F32 1, 2, 4, 8, 16, 32, 64, 128
        #define CC_LANE_BITS_F64 1, 2, 4, 8
      #else
        #define CC_LANE_BITS_F32 1, 2, 4, 8
        #define CC_LANE_BITS_F64 1, 2
      #endif
      #define cc_patch_f32(v, p, b) CC_PICK(cc_u32v, cc_f32v, \\
          ((cc_u32v){CC_LANE_BITS_F32} & (unsigned)(b)) != 0, cc_all_f32(*(p)), v)
      #define cc_patch_f64(v, p, b) CC_PICK(cc_u64v, cc_f64v, \\
          ((cc_u64v){CC_LANE_BITS_F64} & (unsigned long long)(b)) != 0, cc_all_f64(*(p)), v)
      #if defined(__AVX2__)
      #define cc_pick_f32(a, b, x, y) ((cc_f32v)_mm256_blendv_ps( \\
          (__m256)(y), (__m256)(x), _mm256_cmp_ps((__m256)(a), (__m256)(b), _CMP_LT_OQ)))
      #define cc_pick_f64(a, b, x, y) ((cc_f64v)_mm256_blendv_pd( \\
          (__m256d)(y), (__m256d)(x), _mm256_cmp_pd((__m256d)(a), (__m256d)(b), _CMP_LT_OQ)))
      #define cc_until_f32(a, b, x, y) ((cc_f32v)_mm256_blendv_ps( \\
          (__m256)(y), (__m256)(x), _mm256_cmp_ps((__m256)(a), (__m256)(b), _CMP_LE_OQ)))
      #define cc_until_f64(a, b, x, y) ((cc_f64v)_mm256_blendv_pd( \\
          (__m256d)(y), (__m256d)(x), _mm256_cmp_pd((__m256d)(a), (__m256d)(b), _CMP_LE_OQ)))
      #define cc_smaller_f32(a, b) ((cc_f32v)_mm256_min_ps((__m256)(a), (__m256)(b)))
      #define cc_smaller_f64(a, b) ((cc_f64v)_mm256_min_pd((__m256d)(a), (__m256d)(b)))
      #define cc_larger_f32(a, b) ((cc_f32v)_mm256_max_ps((__m256)(a), (__m256)(b)))
      #define cc_larger_f64(a, b) ((cc_f64v)_mm256_max_pd((__m256d)(a), (__m256d)(b)))
      #else
      static inline cc_f32v cc_pick_f32(cc_f32v a, cc_f32v b, cc_f32v x, cc_f32v y) {
          return CC_PICK(cc_u32v, cc_f32v, a < b, x, y);
      }
      static inline cc_f32v cc_until_f32(cc_f32v a, cc_f32v b, cc_f32v x, cc_f32v y) {
          return CC_PICK(cc_u32v, cc_f32v, a <= b, x, y);
      }
      static inline cc_f64v cc_pick_f64(cc_f64v a, cc_f64v b, cc_f64v x, cc_f64v y) {
          return CC_PICK(cc_u64v, cc_f64v, a < b, x, y);
      }
      static inline cc_f64v cc_until_f64(cc_f64v a, cc_f64v b, cc_f64v x, cc_f64v y) {
          return CC_PICK(cc_u64v, cc_f64v, a <= b, x, y);
      }
      #define cc_smaller_f32(a, b) cc_pick_f32(a, b, a, b)
      #define cc_smaller_f64(a, b) cc_pick_f64(a, b, a, b)
      #define cc_larger_f32(a, b) cc_pick_f32(b, a, a, b)
      #define cc_larger_f64(a, b) cc_pick_f64(b, a, a, b)
      #endif
      /* The low bits of n + 1.5 * 2^23 + 127 are the exponent's; two factors reach below
         the smallest normal number. */
      static inline cc_f32v cc_scale_f32(cc_f32v v, cc_f32v n) {
          cc_f32v half = (n * 0.5f + 12582912.0f) - 12582912.0f;
          cc_f32v rest = n - half;
          v *= (cc_f32v)((cc_u32v)(half + 12583039.0f) << 23);
          return v * (cc_f32v)((cc_u32v)(rest + 12583039.0f) << 23);
      }
      static inline cc_f64v cc_scale_f64(cc_f64v v, cc_f64v n) {
          cc_f64v half = (n * 0.5 + 6755399441055744.0) - 6755399441055744.0;
          cc_f64v rest = n - half;
          v *= (cc_f64v)((cc_u64v)(half + 6755399441056767.0) << 52);
          return v * (cc_f64v)((cc_u64v)(rest + 6755399441056767.0) << 52);
      }
      #if defined(__AVX2__)
        #define cc_stream_f32(p, v) _mm256_stream_ps(p, (__m256)(v))
        #define cc_stream_f64(p, v) _mm256_stream_pd(p, (__m256d)(v))
      #elif defined(__SSE2__)
        #include <emmintrin.h>
        #define cc_stream_f32(p, v) _mm_stream_ps(p, (__m128)(v))
        #define cc_stream_f64(p, v) _mm_stream_pd(p, (__m128d)(v))
      #else
        #define cc_stream_f32(p, v) (*(cc_f32v *)(p) = (v))
        #define cc_stream_f64(p, v) (*(cc_f64v *)(p) = (v))
      #endif
    #endif
    #if defined(__SSE2__)
      #define cc_settle() _mm_sfence()
    #else
      #define cc_settle() ((void)0)
    #endif

    /* Words of 32 bits in lanes of 64, whose upper halves do not matter.
       times: products of 64 bits with a word of 32. */
    typedef unsigned long long cc_words __attribute__((vector_size(CC_VEC_BYTES)));
    #if defined(__AVX512F__)
      #define cc_times(a, m) ((cc_words)_mm512_mul_epu32((__m512i)(a), _mm512_set1_epi64(m)))
    #elif defined(__AVX2__)
      #define cc_times(a, m) \\
          ((cc_words)_mm256_mul_epu32((__m256i)(a), _mm256_set1_epi64x(m)))
    #elif defined(__SSE2__)
      #define cc_times(a, m) ((cc_words)_mm_mul_epu32((__m128i)(a), _mm_set1_epi64x(m)))
    #else
      #define cc_times(a, m) (((a) & 0xffffffffull) * (m))
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
        ROWS "CC_ROWS"            # rows of the tiles of conv_planes.pyx
        ROWS_HALF "CC_ROWS_HALF"
    void cc_fetch(const void* source) nogil
    void cc_fetch_far(const void* source) nogil
    void cc_fetch_to_write(const void* target) nogil
    bint cc_seldom(bint x) nogil
    f32v cc_all_f32(float s) nogil
    f64v cc_all_f64(double s) nogil
    f32v cc_rectify_f32(f32v v) nogil
    f64v cc_rectify_f64(f64v v) nogil
    f32v cc_low_f32(f32v a, f32v b) nogil
    f32v cc_high_f32(f32v a, f32v b) nogil
    f64v cc_low_f64(f64v a, f64v b) nogil
    f64v cc_high_f64(f64v a, f64v b) nogil
    f32v cc_near_low_f32(f32v a, f32v b) nogil
    f32v cc_near_high_f32(f32v a, f32v b) nogil
    f64v cc_near_low_f64(f64v a, f64v b) nogil
    f64v cc_near_high_f64(f64v a, f64v b) nogil
    f32v cc_pair_low_f32(f32v a, f32v b) nogil
    f32v cc_pair_high_f32(f32v a, f32v b) nogil
    f32v cc_blocks_even_f32(f32v a, f32v b) nogil
    f32v cc_blocks_odd_f32(f32v a, f32v b) nogil
    f64v cc_blocks_even_f64(f64v a, f64v b) nogil
    f64v cc_blocks_odd_f64(f64v a, f64v b) nogil
    f32v cc_evens_f32(f32v a, f32v b) nogil
    f32v cc_odds_f32(f32v a, f32v b) nogil
    f64v cc_evens_f64(f64v a, f64v b) nogil
    f64v cc_odds_f64(f64v a, f64v b) nogil
    f32v cc_at_f32(f32v a, f32v b, f32v at) nogil
    f64v cc_at_f64(f64v a, f64v b, f64v at) nogil
    f32v cc_fold_f32(f32v a, f32v b) nogil
    f64v cc_fold_f64(f64v a, f64v b) nogil
    f32v cc_later_f32(f32v v, f32v best) nogil
    void cc_contest_f32(f32v v, f32v n, f32v* best, f32v* label) nogil
    void cc_bytes_f32(unsigned char* to, f32v label) nogil
    void cc_bytes_f64(unsigned char* to, f64v label) nogil
    f32v cc_widen_f32(const unsigned char* label) nogil
    f64v cc_widen_f64(const unsigned char* label) nogil
    f32v cc_gather_f32(f32v acc, f32v v, f32v label, f32v n) nogil
    f64v cc_later_f64(f64v v, f64v best) nogil
    void cc_contest_f64(f64v v, f64v n, f64v* best, f64v* label) nogil
    f64v cc_gather_f64(f64v acc, f64v v, f64v label, f64v n) nogil
    f32v cc_merge_f32(f32v v, const float* source, unsigned long long lanes) nogil
    f64v cc_merge_f64(f64v v, const double* source, unsigned long long lanes) nogil
    void cc_copy_f32(float* to, const float* source, Py_ssize_t n) nogil
    void cc_copy_f64(double* to, const double* source, Py_ssize_t n) nogil
    f32v cc_part_f32(const float* source, unsigned long long lanes) nogil
    f64v cc_part_f64(const double* source, unsigned long long lanes) nogil
    void cc_pair_f32(const float* source, unsigned long long lanes, f32v* a, f32v* b) nogil
    void cc_pair_f64(const double* source, unsigned long long lanes, f64v* a, f64v* b) nogil
    f32v cc_take_f32(const float* source, const int* places) nogil
    f64v cc_take_f64(const double* source, const int* places) nogil
    f64v cc_take_far_f64(const double* source, const int* places) nogil
    f64v cc_wide_f32(const float* source) nogil
    void cc_narrow_f32(float* to, f64v v) nogil
    void cc_narrow_part_f32(float* to, f64v v, Py_ssize_t n) nogil
    f64v cc_wide_low(f32v v) nogil
    float cc_most_f32(f32v v) nogil
    double cc_most_f64(f64v v) nogil
    float cc_sum_f32(f32v v) nogil
    double cc_sum_f64(f64v v) nogil
    void cc_put_f32(float* to, f32v v, Py_ssize_t n) nogil
    void cc_put_f64(double* to, f64v v, Py_ssize_t n) nogil
    void cc_zip_f32(float* to, f32v a, f32v b, Py_ssize_t n) nogil
    void cc_zip_f64(double* to, f64v a, f64v b, Py_ssize_t n) nogil
    f32v cc_patch_f32(f32v v, const float* scalar, unsigned int lanes) nogil
    f64v cc_patch_f64(f64v v, const double* scalar, unsigned int lanes) nogil
    bint cc_has_nan_f32(f32v a, f32v b) nogil
    bint cc_has_nan_f64(f64v a, f64v b) nogil
    f32v cc_pick_f32(f32v a, f32v b, f32v x, f32v y) nogil
    f64v cc_pick_f64(f64v a, f64v b, f64v x, f64v y) nogil
    f32v cc_until_f32(f32v a, f32v b, f32v x, f32v y) nogil
    f64v cc_until_f64(f64v a, f64v b, f64v x, f64v y) nogil
    f32v cc_loaded_f32(f32v v) nogil
    f64v cc_loaded_f64(f64v v) nogil
    f32v cc_smaller_f32(f32v a, f32v b) nogil
    f64v cc_smaller_f64(f64v a, f64v b) nogil
    f32v cc_larger_f32(f32v a, f32v b) nogil
    f64v cc_larger_f64(f64v a, f64v b) nogil
    f32v cc_scale_f32(f32v v, f32v n) nogil
    f64v cc_scale_f64(f64v v, f64v n) nogil
    void cc_stream_f32(float* to, f32v v) nogil
    void cc_stream_f64(double* to, f64v v) nogil
    void settle "cc_settle"() nogil
    ctypedef unsigned long long words "cc_words"
    words cc_times(words a, unsigned long long m) nogil

ctypedef fused vec:
    f32v
    f64v

ctypedef fused real:
    float
    double


cdef inline vec lanes_from(const vec* a, Py_ssize_t i) noexcept nogil:
    """Every lane the i-th scalar behind `a`."""
    check_range(ahead(a, i), 4 if vec is f32v else 8)
    if vec is f32v:
        return cc_all_f32((<const float*>a)[i])
    else:
        return cc_all_f64((<const double*>a)[i])


cdef inline vec all_lanes(const vec* like, double s) noexcept nogil:
    """Every lane s; `like` only tells the type."""
    if vec is f32v:
        return cc_all_f32(<float>s)
    else:
        return cc_all_f64(s)


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


cdef inline void turn_near(vec* rows) noexcept nogil:
    """Transpose each 16 bytes of as many rows as there are scalars in them."""
    cdef vec a, b, c, d
    if vec is f32v:
        a, b = cc_near_low_f32(rows[0], rows[1]), cc_near_high_f32(rows[0], rows[1])
        c, d = cc_near_low_f32(rows[2], rows[3]), cc_near_high_f32(rows[2], rows[3])
        rows[0], rows[1] = cc_pair_low_f32(a, c), cc_pair_high_f32(a, c)
        rows[2], rows[3] = cc_pair_low_f32(b, d), cc_pair_high_f32(b, d)
    else:
        a, b = cc_near_low_f64(rows[0], rows[1]), cc_near_high_f64(rows[0], rows[1])
        rows[0], rows[1] = a, b


cdef inline vec blocks_even(vec a, vec b) noexcept nogil:
    """Give 16 bytes 0, 2, ... of a, then of b."""
    if vec is f32v:
        return cc_blocks_even_f32(a, b)
    else:
        return cc_blocks_even_f64(a, b)


cdef inline vec blocks_odd(vec a, vec b) noexcept nogil:
    """Give 16 bytes 1, 3, ... of a, then of b."""
    if vec is f32v:
        return cc_blocks_odd_f32(a, b)
    else:
        return cc_blocks_odd_f64(a, b)


cdef inline vec merge(
    vec v, const vec* source, unsigned long long lanes
) noexcept nogil:
    """Replace the lanes whose bits are set by those in memory; touch no others there."""
    check_lanes(source, 4 if vec is f32v else 8, lanes, VEC_BYTES)
    if vec is f32v:
        return cc_merge_f32(v, <const float*>source, lanes)
    else:
        return cc_merge_f64(v, <const double*>source, lanes)


cdef inline vec patch(vec v, const vec* scalar, unsigned int lanes) noexcept nogil:
    """Replace the lanes whose bits are set by one scalar in memory."""
    check_range(scalar, 4 if vec is f32v else 8)
    if vec is f32v:
        return cc_patch_f32(v, <const float*>scalar, lanes)
    else:
        return cc_patch_f64(v, <const double*>scalar, lanes)


cdef inline vec evens(vec a, vec b) noexcept nogil:
    """Give lanes 0, 2, ... of a, then of b."""
    if vec is f32v:
        return cc_evens_f32(a, b)
    else:
        return cc_evens_f64(a, b)


cdef inline vec odds(vec a, vec b) noexcept nogil:
    """Give lanes 1, 3, ... of a, then of b."""
    if vec is f32v:
        return cc_odds_f32(a, b)
    else:
        return cc_odds_f64(a, b)


cdef inline vec lanes_at(vec a, vec b, vec at) noexcept nogil:
    """Give lanes of a, and then of b, by their numbers: integers as wide as scalars."""
    if vec is f32v:
        return cc_at_f32(a, b, at)
    else:
        return cc_at_f64(a, b, at)


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
    check_range(source, n * sizeof(real))
    check_range(to, n * sizeof(real))
    if real is float:
        cc_copy_f32(to, source, n)
    else:
        cc_copy_f64(to, source, n)


cdef inline vec part(const vec* source, unsigned long long lanes) noexcept nogil:
    """Load the lanes whose bits are set, and read no others: those are zero."""
    check_lanes(source, 4 if vec is f32v else 8, lanes, VEC_BYTES)
    if vec is f32v:
        return cc_part_f32(<const float*>source, lanes)
    else:
        return cc_part_f64(<const double*>source, lanes)


cdef inline void pair(
    const vec* source, unsigned long long scalars, vec* a, vec* b
) noexcept nogil:
    """Load scalars 0, 2, 4 ... to a and 1, 3, 5 ... to b.

    A bit for each scalar tells whether it may be read; the others are zero.
    """
    check_lanes(source, 4 if vec is f32v else 8, scalars, 2 * VEC_BYTES)
    if vec is f32v:
        cc_pair_f32(<const float*>source, scalars, a, b)
    else:
        cc_pair_f64(<const double*>source, scalars, a, b)


cdef inline void put_part(vec* to, vec v, Py_ssize_t n) noexcept nogil:
    """Store the first n lanes, or all."""
    check_part(to, n, 4 if vec is f32v else 8, VEC_BYTES)
    if vec is f32v:
        cc_put_f32(<float*>to, v, n)
    else:
        cc_put_f64(<double*>to, v, n)


cdef inline void zip_part(vec* to, vec a, vec b, Py_ssize_t n) noexcept nogil:
    """Store the first n of a[0], b[0], a[1], b[1], ..., or all."""
    check_part(to, n, 4 if vec is f32v else 8, 2 * VEC_BYTES)
    if vec is f32v:
        cc_zip_f32(<float*>to, a, b, n)
    else:
        cc_zip_f64(<double*>to, a, b, n)


cdef inline void put_sum(vec* to, vec v, Py_ssize_t place) noexcept nogil:
    """Store the sum of all lanes as the scalar at `place`."""
    check_range(ahead(to, place), 4 if vec is f32v else 8)
    if vec is f32v:
        (<float*>to)[place] = cc_sum_f32(v)
    else:
        (<double*>to)[place] = cc_sum_f64(v)


cdef inline vec pick(vec a, vec b, vec x, vec y) noexcept nogil:
    """Give the lanes of x where a < b, and those of y elsewhere, also beside a NaN."""
    if vec is f32v:
        return cc_pick_f32(a, b, x, y)
    else:
        return cc_pick_f64(a, b, x, y)


cdef inline vec until(vec a, vec b, vec x, vec y) noexcept nogil:
    """Give the lanes of x where a <= b, and those of y elsewhere, also beside a NaN."""
    if vec is f32v:
        return cc_until_f32(a, b, x, y)
    else:
        return cc_until_f64(a, b, x, y)


cdef inline vec loaded(vec v) noexcept nogil:
    """Give v, which is loaded once, however often it is used."""
    if vec is f32v:
        return cc_loaded_f32(v)
    else:
        return cc_loaded_f64(v)


cdef inline vec smaller(vec a, vec b) noexcept nogil:
    """Give a where a < b, else b: where one of them is NaN, b."""
    if vec is f32v:
        return cc_smaller_f32(a, b)
    else:
        return cc_smaller_f64(a, b)


cdef inline vec larger(vec a, vec b) noexcept nogil:
    """Give a where a > b, else b: where one of them is NaN, b."""
    if vec is f32v:
        return cc_larger_f32(a, b)
    else:
        return cc_larger_f64(a, b)


cdef inline vec scaled(vec v, vec n) noexcept nogil:
    """Give v * 2^n, rounded once, for whole n."""
    if vec is f32v:
        return cc_scale_f32(v, n)
    else:
        return cc_scale_f64(v, n)


cdef inline void stream(vec* to, vec v) noexcept nogil:
    """Store to an aligned address, without reading the line first; then `settle`."""
    check_range(to, VEC_BYTES)
    if vec is f32v:
        cc_stream_f32(<float*>to, v)
    else:
        cc_stream_f64(<double*>to, v)
