/* Bit fields, dot products of bytes (semantics.py). */
#ifndef EU_BITS_H
#define EU_BITS_H

#include <stdint.h>

static inline uint32_t eu_reverse(uint32_t x)
{
    x = (x >> 1 & 0x55555555) | (x & 0x55555555) << 1;
    x = (x >> 2 & 0x33333333) | (x & 0x33333333) << 2;
    x = (x >> 4 & 0x0f0f0f0f) | (x & 0x0f0f0f0f) << 4;
    x = (x >> 8 & 0x00ff00ff) | (x & 0x00ff00ff) << 8;
    return x >> 16 | x << 16;
}

static inline int64_t eu_extract(int64_t value, uint32_t width, uint32_t offset, int is_signed)
{
    int64_t field = value >> offset;
    if (!width)
        return 0;
    if (width + offset >= 32)
        return field;
    int64_t low = field & ((1ll << width) - 1);
    return is_signed && low >> (width - 1) & 1 ? low - (1ll << width) : low;
}

/* `how`: bit 0, bytes of a are signed; bit 1, those of b. */
static inline uint32_t eu_dot(uint32_t base, uint32_t a, uint32_t b, int how)
{
    for (int shift = 0; shift < 32; shift += 8) {
        int32_t x = a >> shift & 0xff, y = b >> shift & 0xff;
        if (how & 1)
            x = (int8_t)x;
        if (how & 2)
            y = (int8_t)y;
        base += (uint32_t)(x * y);
    }
    return base;
}

#endif
