/* What every generated program shares: vectors, their mathematics, threads.
 *
 * A vector has L lanes of any dtype; flags are masks of 32-bit lanes, all ones or zero. GCC's and
 * clang's vector extensions carry them out on any processor; intrinsics stand only where the
 * extensions have no word for it.
 */
/* loops over vectors leave names unused, and vectors wider than registers pass through memory */
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wpsabi"
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* half a second of every compilation, so only where builtins do not do */
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

/* functions that the outside calls; a program that wraps them says static */
#ifndef ENTRY
#define ENTRY
#endif
/* Kernels are never merged into their callers, which would make one function of a whole network.
 * SPLIT is for programs whose kernels are compiled in several files. */
#if defined(__GNUC__) && !defined(__clang__)
#define APART noinline, noclone
#else
#define APART noinline
#endif
#ifdef SPLIT
#define KERNEL __attribute__((APART, visibility("hidden")))
#else
#define KERNEL static __attribute__((APART))
#endif
/* without optimization, inlining makes code larger and compilation slower, and nothing faster */
#ifdef UNOPTIMIZED
#define INLINE static inline __attribute__((unused))
#else
#define INLINE static inline __attribute__((always_inline, unused))
#endif

#ifndef __has_builtin
#define __has_builtin(x) 0
#endif

/* Loops over the lanes of a vector: none of them is left, whatever the level of optimization. */
#if defined(UNOPTIMIZED)
#define UNROLLED
#elif defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif
#define LANES(l) UNROLLED for (int l = 0; l < L; l++)

typedef float f32;
typedef double f64;
typedef int32_t i32;
typedef int64_t i64;
typedef uint8_t flag;

typedef f32 vf32 __attribute__((vector_size(4 * L)));
typedef f64 vf64 __attribute__((vector_size(8 * L)));
typedef i32 vi32 __attribute__((vector_size(4 * L)));
typedef i64 vi64 __attribute__((vector_size(8 * L)));
typedef uint32_t vu32 __attribute__((vector_size(4 * L)));
typedef uint64_t vu64 __attribute__((vector_size(8 * L)));
typedef vi32 vflag;
typedef flag vbytes __attribute__((vector_size(L)));

/* Vectors of 64-bit lanes fill two registers. GCC takes comparisons of such apart into single
 * lanes, and changes of the width of masks, so these are done with the halves. */
#if defined(__AVX2__) && L == 8 && __has_builtin(__builtin_shufflevector) && !defined(UNOPTIMIZED)
#define HALVED
typedef f64 half_f64 __attribute__((vector_size(32)));
typedef i64 half_i64 __attribute__((vector_size(32)));
typedef i32 half_i32 __attribute__((vector_size(16)));
#define HALVES(T)                                                                                 \
    typedef union {                                                                               \
        v##T whole;                                                                               \
        half_##T half[2];                                                                         \
    } two_##T;
HALVES(f64)
HALVES(i64)
HALVES(i32)
#endif

/* A loaded vector is kept in its register: compilers otherwise read memory again at each use. */
#if defined(__AVX512F__) && L == 16
#define PIN(x) __asm__("" : "+v"(x))
#elif defined(__AVX__) && L == 8
#define PIN(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__) && L == 4
#define PIN(x) __asm__("" : "+w"(x))
#else
#define PIN(x) ((void)(x))
#endif

/* ---- memory ------------------------------------------------------------------------------- */

#define ACCESS(T)                                                                                 \
    typedef v##T loose_##T __attribute__((aligned(sizeof(T)), may_alias));                        \
    INLINE v##T splat_##T(T x) { return x - (v##T){0}; }                                          \
    INLINE v##T load_##T(const T *p) { return *(const loose_##T *)p; }                            \
    INLINE v##T repeat_##T(const T *p) { return splat_##T(*p); }                                  \
    INLINE v##T gather_##T(const T *p, long s) {                                                  \
        v##T v;                                                                                   \
        LANES(l) v[l] = p[l * s];                                                                 \
        return v;                                                                                 \
    }                                                                                             \
    INLINE v##T gather_part_##T(const T *p, long s, long m, T fill) {                             \
        v##T v = splat_##T(fill);                                                                 \
        LANES(l)                                                                                  \
            if (l < m) v[l] = p[l * s];                                                           \
        return v;                                                                                 \
    }                                                                                             \
    INLINE void store_##T(T *p, v##T v) { *(loose_##T *)p = v; }                                  \
    INLINE void scatter_##T(T *p, long s, v##T v) {                                               \
        LANES(l) p[l * s] = v[l];                                                                 \
    }                                                                                             \
    INLINE void scatter_part_##T(T *p, long s, v##T v, long m) {                                  \
        LANES(l)                                                                                  \
            if (l < m) p[l * s] = v[l];                                                           \
    }
ACCESS(f32)
ACCESS(f64)
ACCESS(i32)
ACCESS(i64)

#if defined(__AVX512F__) && L == 16
INLINE __mmask16 first(long m) { return (__mmask16)((1u << m) - 1); }
INLINE vf32 load_part_f32(const f32 *p, long m, f32 fill) {
    return (vf32)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(m), p);
}
INLINE void store_part_f32(f32 *p, vf32 v, long m) {
    _mm512_mask_storeu_ps(p, first(m), (__m512)v);
}
#elif defined(__AVX__) && L == 8 && !defined(UNOPTIMIZED)
/* one instruction where a branch a lane is what half of the time of a compilation would go into;
 * sanitizers do not see what it reads and writes */
INLINE vi32 first(long m) { return (vi32){0, 1, 2, 3, 4, 5, 6, 7} < (vi32){0} + (i32)m; }
INLINE vf32 load_part_f32(const f32 *p, long m, f32 fill) {
    vi32 k = first(m);
    vi32 v = (vi32)__builtin_ia32_maskloadps256((const vf32 *)p, k);
    return (vf32)(v | (~k & (vi32)splat_f32(fill)));
}
INLINE void store_part_f32(f32 *p, vf32 v, long m) {
    __builtin_ia32_maskstoreps256((vf32 *)p, first(m), v);
}
#else
INLINE vf32 load_part_f32(const f32 *p, long m, f32 fill) { return gather_part_f32(p, 1, m, fill); }
INLINE void store_part_f32(f32 *p, vf32 v, long m) { scatter_part_f32(p, 1, v, m); }
#endif
#define PARTS(T)                                                                                  \
    INLINE v##T load_part_##T(const T *p, long m, T fill) {                                       \
        return gather_part_##T(p, 1, m, fill);                                                    \
    }                                                                                             \
    INLINE void store_part_##T(T *p, v##T v, long m) { scatter_part_##T(p, 1, v, m); }
#ifdef HALVED
/* the builtins' masks are of long long, which i64 need not be */
typedef long long half_mask __attribute__((vector_size(32)));
INLINE half_mask first_half(long m) { return (half_mask){0, 1, 2, 3} < (half_mask){0} + m; }
INLINE vf64 load_part_f64(const f64 *p, long m, f64 fill) {
    two_f64 v;
    UNROLLED for (int h = 0; h < 2; h++) {
        half_mask k = first_half(m - 4 * h), f = (half_mask)((half_f64){0} + fill);
        half_f64 part = __builtin_ia32_maskloadpd256((const half_f64 *)p + h, k);
        v.half[h] = (half_f64)((half_mask)part | (~k & f));
    }
    return v.whole;
}
INLINE void store_part_f64(f64 *p, vf64 v, long m) {
    two_f64 x = {v};
    UNROLLED for (int h = 0; h < 2; h++)
        __builtin_ia32_maskstorepd256((half_f64 *)p + h, first_half(m - 4 * h), x.half[h]);
}
#else
PARTS(f64)
#endif
PARTS(i32)
PARTS(i64)

typedef vbytes loose_bytes __attribute__((aligned(1), may_alias));
INLINE vflag splat_flag(flag x) { return (vi32){0} - (x != 0); }
INLINE vflag load_flag(const flag *p) {
    return __builtin_convertvector(*(const loose_bytes *)p, vi32) != 0;
}
INLINE vflag repeat_flag(const flag *p) { return splat_flag(*p); }
INLINE vflag gather_part_flag(const flag *p, long s, long m, flag fill) {
    vflag v = splat_flag(fill);
    LANES(l)
        if (l < m) v[l] = -(p[l * s] != 0);
    return v;
}
INLINE vflag gather_flag(const flag *p, long s) { return gather_part_flag(p, s, L, 0); }
INLINE vflag load_part_flag(const flag *p, long m, flag fill) {
    return gather_part_flag(p, 1, m, fill);
}
INLINE void store_flag(flag *p, vflag v) {
    *(loose_bytes *)p = __builtin_convertvector(v & 1, vbytes);
}
INLINE void scatter_part_flag(flag *p, long s, vflag v, long m) {
    LANES(l)
        if (l < m) p[l * s] = v[l] & 1;
}
INLINE void scatter_flag(flag *p, long s, vflag v) { scatter_part_flag(p, s, v, L); }
INLINE void store_part_flag(flag *p, vflag v, long m) { scatter_part_flag(p, 1, v, m); }

/* rows of a square become columns */
#define TRANSPOSE(T)                                                                              \
    INLINE void transpose_##T(const T *p, long ps, T *q, long qs) {                               \
        LANES(i)                                                                                  \
            LANES(j) q[j * qs + i] = p[i * ps + j];                                               \
    }
TRANSPOSE(f64)
TRANSPOSE(i32)
TRANSPOSE(i64)
TRANSPOSE(flag)
#if defined(__AVX512F__) && L == 16
INLINE void transpose_f32(const f32 *p, long ps, f32 *q, long qs) {
    __m512 r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_ps(p + i * ps);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = (__m512)_mm512_unpacklo_pd((__m512d)t[i + j], (__m512d)t[i + 2 + j]);
            r[i + 2 * j + 1] = (__m512)_mm512_unpackhi_pd((__m512d)t[i + j], (__m512d)t[i + 2 + j]);
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; j++) {
            t[i + j] = _mm512_shuffle_f32x4(r[i + j], r[i + 4 + j], 0x88);
            t[i + 4 + j] = _mm512_shuffle_f32x4(r[i + j], r[i + 4 + j], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        r[j] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0x88);
        r[j + 8] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0xdd);
    }
    for (int i = 0; i < 16; i++) _mm512_storeu_ps(q + i * qs, r[i]);
}
#elif L == 8 && __has_builtin(__builtin_shufflevector) && !defined(UNOPTIMIZED)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
INLINE void transpose_f32(const f32 *p, long ps, f32 *q, long qs) {
    vf32 r[8], t[8];
    LANES(i) r[i] = *(const loose_f32 *)(p + i * ps);
    UNROLLED for (int i = 0; i < 8; i += 2) {
        t[i] = SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    UNROLLED for (int i = 0; i < 8; i += 4)
        UNROLLED for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = SHUFFLE(t[i + j], t[i + 2 + j], 0, 1, 8, 9, 4, 5, 12, 13);
            r[i + 2 * j + 1] = SHUFFLE(t[i + j], t[i + 2 + j], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    UNROLLED for (int j = 0; j < 4; j++) {
        *(loose_f32 *)(q + j * qs) = SHUFFLE(r[j], r[j + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *(loose_f32 *)(q + (j + 4) * qs) = SHUFFLE(r[j], r[j + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}
#else
TRANSPOSE(f32)
#endif

/* ---- arithmetic --------------------------------------------------------------------------- */

#define COMPARISONS(T, COMPARE)                                                                   \
    COMPARE(T, lt, <)                                                                             \
    COMPARE(T, le, <=)                                                                            \
    COMPARE(T, gt, >)                                                                             \
    COMPARE(T, ge, >=)                                                                            \
    COMPARE(T, eq, ==)                                                                            \
    COMPARE(T, ne, !=)
#define WHOLE(T, NAME, OP)                                                                        \
    INLINE vflag NAME##_##T(v##T a, v##T b) { return __builtin_convertvector(a OP b, vi32); }
COMPARISONS(f32, WHOLE)
COMPARISONS(i32, WHOLE)

#ifdef HALVED
#define BY_HALVES(T, NAME, OP)                                                                    \
    INLINE vflag NAME##_##T(v##T a, v##T b) {                                                     \
        two_##T x = {a}, y = {b};                                                                 \
        vi32 low = (vi32)(x.half[0] OP y.half[0]), high = (vi32)(x.half[1] OP y.half[1]);         \
        return __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14);                     \
    }
COMPARISONS(f64, BY_HALVES)
COMPARISONS(i64, BY_HALVES)
INLINE vi64 widened(vflag m) {
    two_i32 x = {m};
    two_i64 y;
    y.half[0] = __builtin_convertvector(x.half[0], half_i64);
    y.half[1] = __builtin_convertvector(x.half[1], half_i64);
    return y.whole;
}
#else
COMPARISONS(f64, WHOLE)
COMPARISONS(i64, WHOLE)
INLINE vi64 widened(vflag m) { return __builtin_convertvector(m, vi64); }
#endif

#define BITS_f32 vi32
#define BITS_f64 vi64
#define BITS_i32 vi32
#define BITS_i64 vi64
#define MASK_f32(m) (m)
#define MASK_i32(m) (m)
#define MASK_f64(m) widened(m)
#define MASK_i64(m) widened(m)

#define EACH(T, NAME, CALL)                                                                       \
    INLINE v##T NAME##_##T(v##T x) {                                                              \
        v##T y;                                                                                   \
        LANES(l) y[l] = CALL(x[l]);                                                               \
        return y;                                                                                 \
    }
#define BASICS(T)                                                                                 \
    INLINE v##T select_##T(vflag m, v##T a, v##T b) {                                             \
        BITS_##T k = MASK_##T(m);                                                                 \
        return (v##T)((k & (BITS_##T)a) | (~k & (BITS_##T)b));                                    \
    }                                                                                             \
    INLINE v##T abs_##T(v##T a) { return select_##T(lt_##T(a, (v##T){0}), -a, a); }               \
    INLINE v##T sign_##T(v##T a) {                                                                \
        v##T z = {0}, one = splat_##T(1);                                                         \
        return select_##T(gt_##T(a, z), one, select_##T(lt_##T(a, z), -one, a));                  \
    }                                                                                             \
    INLINE T all_add_##T(v##T v) {                                                                \
        UNROLLED for (int h = L / 2; h > 0; h /= 2)                                               \
            UNROLLED for (int l = 0; l < h; l++) v[l] += v[l + h];                                \
        return v[0];                                                                              \
    }                                                                                             \
    INLINE T all_max_##T(v##T v) {                                                                \
        T y = v[0];                                                                               \
        UNROLLED for (int l = 1; l < L; l++) y = v[l] > y || v[l] != v[l] ? v[l] : y;             \
        return y;                                                                                 \
    }                                                                                             \
    INLINE T all_min_##T(v##T v) {                                                                \
        T y = v[0];                                                                               \
        UNROLLED for (int l = 1; l < L; l++) y = v[l] < y || v[l] != v[l] ? v[l] : y;             \
        return y;                                                                                 \
    }
BASICS(f64)
BASICS(i32)
BASICS(i64)
#define all_add_f32 all_add_slow_f32
BASICS(f32)
#undef all_add_f32
#if defined(__AVX512F__) && L == 16
INLINE f32 all_add_f32(vf32 v) { return _mm512_reduce_add_ps((__m512)v); }
#else
INLINE f32 all_add_f32(vf32 v) { return all_add_slow_f32(v); }
#endif
#define EXTREMES(T)                                                                               \
    INLINE v##T max_##T(v##T a, v##T b) { return select_##T(gt_##T(a, b) | ne_##T(a, a), a, b); } \
    INLINE v##T min_##T(v##T a, v##T b) { return select_##T(lt_##T(a, b) | ne_##T(a, a), a, b); }
EXTREMES(f32)
EXTREMES(i32)
EXTREMES(i64)
#ifdef HALVED
#define EXTREME(NAME, OP)                                                                         \
    INLINE vf64 NAME##_f64(vf64 a, vf64 b) {                                                      \
        two_f64 x = {a}, y = {b}, z;                                                              \
        UNROLLED for (int h = 0; h < 2; h++) {                                                    \
            half_i64 k = (x.half[h] OP y.half[h]) | (x.half[h] != x.half[h]);                     \
            z.half[h] = (half_f64)((k & (half_i64)x.half[h]) | (~k & (half_i64)y.half[h]));       \
        }                                                                                         \
        return z.whole;                                                                           \
    }
EXTREME(max, >)
EXTREME(min, <)
#else
EXTREMES(f64)
#endif
INLINE vflag select_flag(vflag m, vflag a, vflag b) { return (m & a) | (~m & b); }

#define LIBM(T, S)                                                                                \
    EACH(T, libm_exp, exp##S)                                                                     \
    EACH(T, libm_log, log##S)                                                                     \
    EACH(T, libm_tanh, tanh##S)                                                                   \
    EACH(T, expm1, expm1##S)                                                                      \
    EACH(T, log1p, log1p##S)                                                                      \
    EACH(T, erf, erf##S)                                                                          \
    EACH(T, sin, sin##S)                                                                          \
    EACH(T, cos, cos##S)                                                                          \
    EACH(T, floor, floor##S)                                                                      \
    EACH(T, ceil, ceil##S)                                                                        \
    EACH(T, sqrt, sqrt##S)                                                                        \
    INLINE v##T pow_##T(v##T a, v##T b) {                                                         \
        v##T y;                                                                                   \
        LANES(l) y[l] = pow##S(a[l], b[l]);                                                       \
        return y;                                                                                 \
    }
LIBM(f32, f)
LIBM(f64, )

INLINE vf64 exp_f64(vf64 x) { return libm_exp_f64(x); }
INLINE vf64 log_f64(vf64 x) { return libm_log_f64(x); }
INLINE vf64 tanh_f64(vf64 x) { return libm_tanh_f64(x); }
INLINE vf64 logistic_f64(vf64 x) { return 1.0 / (1.0 + libm_exp_f64(-x)); }
INLINE vf64 softplus_f64(vf64 x) {
    return max_f64(x, (vf64){0}) + log1p_f64(libm_exp_f64(-abs_f64(x)));
}

/* x between two limits; NaN stays */
#if defined(__AVX512F__) && L == 16
INLINE vf32 clamp_f32(vf32 x, f32 lo, f32 hi) {
    __m512 y = _mm512_min_ps(_mm512_set1_ps(hi), (__m512)x);
    return (vf32)_mm512_max_ps(_mm512_set1_ps(lo), y);
}
#elif defined(__AVX__) && L == 8
INLINE vf32 clamp_f32(vf32 x, f32 lo, f32 hi) {
    return __builtin_ia32_maxps256(splat_f32(lo), __builtin_ia32_minps256(splat_f32(hi), x));
}
#else
INLINE vf32 clamp_f32(vf32 x, f32 lo, f32 hi) {
    vf32 y = select_f32(x > hi, splat_f32(hi), x);
    return select_f32(y < lo, splat_f32(lo), y);
}
#endif

/* e^x = 2^n e^r with |r| <= ln(2)/2; coefficients of the Cephes library. The power of two is
 * applied in two halves, so that results below the normal numbers and above them come out right. */
INLINE vf32 exp_f32(vf32 x) {
    vf32 y = clamp_f32(x, -104.0f, 89.0f);
    vf32 n = (y * 1.44269504088896341f + 12582912.0f) - 12582912.0f;
    vf32 r = y - n * 0.693359375f + n * 2.12194440e-4f;
    vf32 p = splat_f32(1.9875691500E-4f);
    p = p * r + 1.3981999507E-3f;
    p = p * r + 8.3334519073E-3f;
    p = p * r + 4.1665795894E-2f;
    p = p * r + 1.6666665459E-1f;
    p = p * r + 5.0000001201E-1f;
    p = p * (r * r) + r + 1.0f;
    n = select_f32(x != x, (vf32){0}, n);
    vi32 k = __builtin_convertvector(n, vi32), h = k >> 1;
    return p * (vf32)((h + 127) << 23) * (vf32)((k - h + 127) << 23);
}

/* log x = log m + e ln 2 with sqrt(1/2) <= m < sqrt(2); Cephes. Zero, negative, huge, tiny and NaN
 * go to the C library. */
INLINE vf32 log_f32(vf32 x) {
    vflag odd = ~((x >= 1.17549435e-38f) & (x < INFINITY));
    vi32 b = (vi32)x - 0x3f3504f3, e = b >> 23;
    vf32 m = (vf32)((b & 0x7fffff) + 0x3f3504f3) - 1.0f;
    vf32 z = m * m, n = __builtin_convertvector(e, vf32);
    vf32 p = splat_f32(7.0376836292E-2f);
    p = p * m - 1.1514610310E-1f;
    p = p * m + 1.1676998740E-1f;
    p = p * m - 1.2420140846E-1f;
    p = p * m + 1.4249322787E-1f;
    p = p * m - 1.6668057665E-1f;
    p = p * m + 2.0000714765E-1f;
    p = p * m - 2.4999993993E-1f;
    p = p * m + 3.3333331174E-1f;
    vf32 y = m + (m * z * p - 2.12194440e-4f * n - 0.5f * z) + 0.693359375f * n;
    LANES(l)
        if (odd[l]) y[l] = logf(x[l]);
    return y;
}

/* a / b for a positive normal b that is not huge: where a division of a register takes as long as 16
 * multiply-adds, an approximate reciprocal and one step of Newton's method; 2 ulp at most */
#if defined(__AVX512F__) && L == 16
INLINE vf32 divide_f32(vf32 a, vf32 b) {
    vf32 r = __builtin_ia32_rcp14ps512_mask(b, b, (unsigned short)-1);
    return a * (r + r * (1.0f - b * r));
}
#else
INLINE vf32 divide_f32(vf32 a, vf32 b) { return a / b; }
#endif

/* a rational function on |x| <= 7.905, beyond which single precision gives 1 */
INLINE vf32 tanh_f32(vf32 x) {
    const f32 limit = 7.90531110763549805f;
    vf32 c = clamp_f32(x, -limit, limit);
    vf32 s = c * c;
    vf32 p = s * -2.76076847742355e-16f + 2.00018790482477e-13f;
    p = p * s - 8.60467152213735e-11f;
    p = p * s + 5.12229709037114e-08f;
    p = p * s + 1.48572235717979e-05f;
    p = p * s + 6.37261928875436e-04f;
    p = p * s + 4.89352455891786e-03f;
    vf32 q = s * 1.19825839466702e-06f + 1.18534705686654e-04f;
    q = q * s + 2.26843463243900e-03f;
    q = q * s + 4.89352518554385e-03f;
    return divide_f32(c * p, q);
}

INLINE vf32 logistic_f32(vf32 x) { return 1.0f / (1.0f + exp_f32(-x)); }
INLINE vf32 softplus_f32(vf32 x) {
    /* log(1 + u) with the rounding of 1 + u taken back */
    vf32 u = exp_f32(-abs_f32(x)), w = 1.0f + u;
    return max_f32(x, (vf32){0}) + log_f32(w) - ((w - 1.0f) - u) / w;
}

/* word i % 4 of Philox 4x32-10 at counter (i / 4, stream, counter), as 24 bits of [0, 1) */
INLINE uint32_t philox(uint64_t i, uint32_t stream, uint64_t key, uint64_t counter) {
    uint64_t c0 = i / 4, c1 = stream, c2 = (uint32_t)counter, c3 = counter >> 32;
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = 0xD2511F53u * c0, p1 = 0xCD9E8D57u * c2;
        c0 = ((p1 >> 32) ^ c1 ^ k0) & 0xFFFFFFFFu, c1 = p1 & 0xFFFFFFFFu;
        c2 = ((p0 >> 32) ^ c3 ^ k1) & 0xFFFFFFFFu, c3 = p0 & 0xFFFFFFFFu;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    uint64_t w[4] = {c0, c1, c2, c3};
    return (uint32_t)w[i % 4];
}

INLINE vf64 philox_f64(vi64 index, uint32_t stream, vi64 seed, vi64 counter) {
    vf64 v;
    LANES(l)
        v[l] = (philox(index[l], stream, seed[0], counter[0]) >> 8) * 0x1p-24;
    return v;
}
INLINE vf32 philox_f32(vi64 index, uint32_t stream, vi64 seed, vi64 counter) {
    return __builtin_convertvector(philox_f64(index, stream, seed, counter), vf32);
}

#define RAMP(T)                                                                                   \
    INLINE v##T ramp_##T(long start, long step) {                                                 \
        v##T v;                                                                                   \
        LANES(l) v[l] = (T)(start + l * step);                                                    \
        return v;                                                                                 \
    }
RAMP(f32)
RAMP(f64)
RAMP(i32)
RAMP(i64)
INLINE vflag lanes_below(long m) { return ramp_i32(0, 1) < splat_i32((i32)m); }

INLINE long least(long a, long b) { return a < b ? a : b; }
INLINE long most(long a, long b) { return a > b ? a : b; }
INLINE long quotient(long a, long b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
INLINE long remainder_of(long a, long b) { return a - quotient(a, b) * b; }

/* ---- threads ------------------------------------------------------------------------------ */

#define MAX_THREADS 64

typedef struct {
    _Alignas(64) atomic_long value;
} Counter;

#define ALL (-1)

/* One call of a function: its memory, sizes, arguments, and what its threads share. */
typedef struct Run {
    char *restrict arena;
    char *restrict memory;
    const i64 *dims;
    const void *const *inputs;
    Counter *next; /* for each phase, chunks given out of each thread's share, and chunks done */
    int threads;
    int only; /* the one phase that is run, with no one waiting for others, or ALL */
    atomic_int error;
    void (*body)(struct Run *, int thread);
} Run;

INLINE void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The next chunk of a phase after the ``last`` that this thread had, -1 before the first: of the
 * thread's own share, which is the same in every phase, so that what it reads is in its cache; then of
 * the shares of threads that are late. -1 at the end. */
INLINE long take(Run *r, int phase, int thread, long total, long last) {
    if (r->threads == 1) return last + 1 < total ? last + 1 : -1;
    for (int s = 0; s < r->threads; s++) {
        int owner = (thread + s) % r->threads;
        long from = total * owner / r->threads, to = total * (owner + 1) / r->threads;
        Counter *next = &r->next[phase * (r->threads + 1) + owner];
        if (from + atomic_load_explicit(&next->value, memory_order_relaxed) >= to) continue;
        long i = from + atomic_fetch_add_explicit(&next->value, 1, memory_order_relaxed);
        if (i < to) return i;
    }
    return -1;
}

/* The end of a phase of which this thread has done some chunks: wait until all are done. Who did
 * them does not matter, so a thread that has not come yet delays nobody. */
INLINE void complete(Run *r, int phase, long mine, long total) {
    if (r->threads == 1 || r->only != ALL) return;
    Counter *done = &r->next[phase * (r->threads + 1) + r->threads];
    if (mine > 0) atomic_fetch_add_explicit(&done->value, mine, memory_order_acq_rel);
    for (int turn = 0; atomic_load_explicit(&done->value, memory_order_acquire) < total; turn++) {
        if (turn < 1000)
            relax();
        else
            sched_yield();
    }
}

/* Phases with little work follow each other on one thread: the run as that thread sees it. */
INLINE Run alone(const Run *r) {
    Run own = {r->arena, r->memory, r->dims, r->inputs, NULL, 1, r->only, 0, NULL};
    return own;
}

#define PHASE(r, number, call)                                                                    \
    do {                                                                                          \
        if (r->only == ALL || r->only == number) call;                                            \
    } while (0)

/* With TESTED defined a function has an entry that runs one of its phases alone: the very calls
 * of the whole, by one thread that does the work of all. */
#ifdef TESTED
#define PHASES(name, count)                                                                       \
    ENTRY int name##_phase(char *arena, char *memory, const i64 *dims, const void *const *inputs, \
                           int threads, int only) {                                               \
        Counter next[2 * count * (threads + 1)];                                                  \
        memset(next, 0, sizeof next);                                                             \
        Run r = {arena, memory, dims, inputs, next, threads, only, 0, name##_body};               \
        name##_body(&r, 0);                                                                       \
        return atomic_load(&r.error);                                                             \
    }
#else
#define PHASES(name, count)
#endif

/* An axis in pieces of whole vectors, one a thread. Pieces are some kilobytes long, or there is one:
 * in shorter ones prefetchers fetch the lines that another core is writing. */
INLINE long pieces_of(long size, int threads) {
    return size * 4 / threads >= 4096 ? threads : 1;
}
INLINE long piece_start(long size, long piece, long pieces) {
    long start = (size + L - 1) / L * piece / pieces * L;
    return start < size ? start : size;
}

/* With PROFILE defined a function notes the time, in nanoseconds, before and after each phase: when
 * the first thread comes there. */
#ifdef PROFILE
#include <time.h>
#define STAMPS(name, count) atomic_long name[count];
#define UNSTAMP(name) memset(name, 0, sizeof name)
#define STAMP(name, k) stamp(&name[k])
INLINE long nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}
INLINE void stamp(atomic_long *at) {
    long none = 0;
    atomic_compare_exchange_strong(at, &none, nanoseconds());
}
#else
#define STAMPS(name, count)
#define UNSTAMP(name) ((void)0)
#define STAMP(name, k) ((void)0)
#endif

static struct {
    pthread_mutex_t caller; /* held for the length of a parallel run */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_long epoch;
    atomic_long asleep, busy;
    int workers; /* threads that exist, beside the caller */
    int wanted;  /* of them, how many take part in this run */
    Run *run;
    long start[MAX_THREADS]; /* the epoch before a worker's first run */
} pool = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};

#ifdef PROFILE
static atomic_long pool_ending, pool_ended;

/* Gives the threads back: a library that only timed something is never called again. REST says that
 * another file of the library has it. */
#ifndef REST
ENTRY void end_pool(void) {
    pthread_mutex_lock(&pool.caller);
    atomic_store(&pool_ending, 1);
    atomic_fetch_add(&pool.epoch, 1);
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    while (atomic_load(&pool_ended) < pool.workers) sched_yield();
    pthread_mutex_unlock(&pool.caller);
}
#endif
#endif

static void *pool_worker(void *argument) {
    long index = (long)(intptr_t)argument;
    long seen = pool.start[index];
    for (;;) {
        int turn = 0;
        while (atomic_load_explicit(&pool.epoch, memory_order_acquire) == seen && turn++ < 5000)
            relax();
        if (atomic_load(&pool.epoch) == seen) {
            pthread_mutex_lock(&pool.lock);
            atomic_fetch_add(&pool.asleep, 1);
            while (atomic_load(&pool.epoch) == seen) pthread_cond_wait(&pool.wake, &pool.lock);
            atomic_fetch_sub(&pool.asleep, 1);
            pthread_mutex_unlock(&pool.lock);
        }
#ifdef PROFILE
        if (atomic_load(&pool_ending)) {
            atomic_fetch_add(&pool_ended, 1);
            return NULL;
        }
#endif
        seen = atomic_load(&pool.epoch);
        if (index < pool.wanted) pool.run->body(pool.run, (int)index + 1);
        atomic_fetch_sub(&pool.busy, 1);
    }
    return NULL;
}

/* A child of fork() has no threads but its own. */
static void pool_forget(void) {
    pool.workers = 0;
    pthread_mutex_init(&pool.caller, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    atomic_store(&pool.asleep, 0);
    atomic_store(&pool.busy, 0);
}

/* Run the body on r->threads threads, this one among them; alone if the pool is taken. */
static void run_parallel(Run *r) {
    if (r->threads <= 1 || pthread_mutex_trylock(&pool.caller) != 0) {
        r->threads = 1;
        r->body(r, 0);
        return;
    }
    static int registered;
    if (!registered) registered = pthread_atfork(NULL, NULL, pool_forget) == 0;
    pool.run = r;
    int want = r->threads - 1;
    while (pool.workers < want) {
        pthread_t thread;
        pool.start[pool.workers] = atomic_load(&pool.epoch);
        void *index = (void *)(intptr_t)pool.workers;
        if (pthread_create(&thread, NULL, pool_worker, index) != 0) break;
        pthread_detach(thread);
        pool.workers++;
    }
    pool.wanted = least(want, pool.workers);
    r->threads = pool.wanted + 1;
    atomic_fetch_add(&pool.busy, pool.workers);
    atomic_fetch_add(&pool.epoch, 1);
    if (atomic_load(&pool.asleep)) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.lock);
    }
    r->body(r, 0);
    for (int turn = 0; atomic_load(&pool.busy) > 0; turn++) {
        if (turn < 1000)
            relax();
        else
            sched_yield();
    }
    pthread_mutex_unlock(&pool.caller);
}
