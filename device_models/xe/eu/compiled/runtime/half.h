/* Narrow floats: conversions rounded once to nearest even, NaN is the canonical one (semantics.py). */
#ifndef EU_HALF_H
#define EU_HALF_H

#include "eu.h"
#ifdef __F16C__
#include <immintrin.h>
#endif

static inline uint32_t bits_of_f(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline float f_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint64_t bits_of_df(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, 8);
    return bits;
}

static inline double df_of_bits(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

static inline float f_of_hf(uint16_t half)
{
#ifdef __F16C__
    return _cvtsh_ss(half);
#else
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00)
        return f_of_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    if (rest >= 0x400)
        return f_of_bits(sign | ((rest << 13) + (112u << 23)));
    return f_of_bits(sign | bits_of_f((float)rest * 0x1p-24f));
#endif
}

static inline float f_of_bf(uint16_t bits)
{
    return f_of_bits((uint32_t)bits << 16);
}

static inline uint16_t hf_of_f(float value)
{
    uint32_t bits = bits_of_f(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000)
        return 0x7e00;
#ifdef __F16C__
    (void)sign;
    return _cvtss_sh(value, 0);
#else
    if (rest >= 0x477ff000) /* rounds to infinity */
        return sign | 0x7c00;
    if (rest >= 0x38800000) /* normal */
        return sign | ((rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13);
    /* 0.5 has the same unit in the last place as a half's denormals have, times 2 ** -1. */
    return sign | (bits_of_f(f_of_bits(rest) + 0.5f) - bits_of_f(0.5f));
#endif
}

/* Rounded as cr0.0 says (`mode`: its bits). */
static inline uint16_t hf_of_f_as(float value, uint32_t mode)
{
    enum { NEAREST, UP, DOWN };
    const uint32_t way = (mode & ROUNDING) >> 4;
    if (way == NEAREST)
        return hf_of_f(value);
    const uint32_t bits = bits_of_f(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    const uint32_t away = way == (sign ? DOWN : UP); /* from zero */
    if (rest > 0x7f800000)
        return 0x7e00;
    if (rest >= 0x47800000) /* 65536 and more */
        return sign | (rest == 0x7f800000 || away ? 0x7c00 : 0x7bff);
    if (rest >= 0x38800000) /* normal */
        return sign | ((rest - (112u << 23) + (away ? 0x1fff : 0)) >> 13);
    const float scaled = f_of_bits(rest) * 0x1p24f; /* exact: the smallest half is 1 */
    const uint32_t half = (uint32_t)scaled;
    return sign | (half + (away && (float)half != scaled));
}

static inline uint16_t bf_of_f(float value)
{
    uint32_t bits = bits_of_f(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return 0x7fc0;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* A double as a float rounded to odd: rounding that again, to fewer bits, is as if there had been one rounding. */
static inline float odd_f(double value)
{
    float near = (float)value;
    uint32_t bits = bits_of_f(near);
    if ((double)near == value || near != near || (bits & 1) || (value - value) != 0)
        return near;
    double magnitude = value < 0 ? -value : value, wide = near < 0 ? -(double)near : (double)near;
    return f_of_bits(wide < magnitude ? bits + 1 : bits - 1);
}

static inline float canonical_f(float value)
{
    return value == value ? value : f_of_bits(0x7fc00000);
}

/* `count` halves, a multiple of 16 or fewer than 16, one behind the other. */
static inline __attribute__((always_inline)) void eu_floats_of_halves(float *to, const char *from, int count)
{
    int lane = 0;
#if defined(__AVX512F__)
    for (; lane + 16 <= count; lane += 16)
        _mm512_storeu_ps(to + lane, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + 2 * lane))));
#elif defined(__F16C__)
    for (; lane + 8 <= count; lane += 8)
        _mm256_storeu_ps(to + lane, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 2 * lane))));
#endif
    for (; lane < count; lane++) {
        uint16_t half;
        memcpy(&half, from + 2 * lane, sizeof half);
        to[lane] = f_of_hf(half);
    }
}

static inline __attribute__((always_inline)) void eu_halves_of_floats(uint16_t *to, const float *from, int count)
{
    int lane = 0;
#if defined(__AVX512F__)
    for (; lane + 16 <= count; lane += 16) {
        const __m512 x = _mm512_loadu_ps(from + lane);
        const __mmask16 number = _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q);
        const __m512 y = _mm512_mask_blend_ps(number, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)), x);
        _mm256_storeu_si256((__m256i *)(to + lane), _mm512_cvtps_ph(y, 0));
    }
#elif defined(__F16C__)
    for (; lane + 8 <= count; lane += 8) {
        const __m256 x = _mm256_loadu_ps(from + lane), nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
        _mm_storeu_si128((__m128i *)(to + lane), _mm256_cvtps_ph(_mm256_blendv_ps(nan, x, _mm256_cmp_ps(x, x, _CMP_ORD_Q)), 0));
    }
#endif
    for (; lane < count; lane++)
        to[lane] = hf_of_f(from[lane]);
}

#endif
