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

#endif
