/* Texels in memory: where they are, and what they are as numbers (compute/texels.py, compute/formats.py). */
#ifndef EU_IMAGE_H
#define EU_IMAGE_H

#include <math.h>

#include "half.h"
#include "memory.h"

enum kind { UNORM, SNORM, UINT, SINT, FLOAT, SRGB, USCALED, SSCALED, FIXED, SHARED_EXPONENT };

#define TEXEL 32 /* bytes of the largest */

typedef double four __attribute__((vector_size(32))); /* red, green, blue, alpha */

struct field {
    uint8_t channel, first, width, reserved;
};

/* The view of a surface at one mip level. */
struct image {
    uint64_t base;
    int64_t width, height, depth;
    int64_t step;                /* bytes from a texel to the next of its row */
    int64_t place_x, place_y, place_z; /* of the level */
    int64_t q_pitch, first_element, pitch;
    int64_t across;              /* tiles of a row */
    const int64_t *columns, *rows, *planes; /* bits of an offset in a tile */
    const double *table; /* what raw values of SRGB mean; those of `width` bits begin at 1 << width */
    uint8_t tile_width, tile_height, tile_bytes; /* as shifts; tile_bytes 0 for linear */
    uint8_t flat;                /* rows and slices are texels behind one another */
    uint8_t bytes, kind, fields, integer;
    uint8_t null, even8;         /* four channels of UNORM8 */
    uint8_t swizzle[4];
    uint8_t tile_depth;
    uint8_t samples;
    struct field field[4];
    /* Several samples: in Tile64 each has a plane of a tile, of so many texels as shifts; elsewhere each is a slice. */
    int64_t sample_across, sample_down; /* tiles of a row, and of a slice */
    uint8_t sample_planes, sample_width, sample_height;
    uint8_t block;               /* enum block */
    uint8_t reserved[4];
    const double *steps; /* in the same order: the least linear number that each raw value of SRGB but 0 stands for */
};

static inline int image_has(const struct image *i, int64_t x, int64_t y, int64_t layer)
{
    return !i->null && (uint64_t)x < (uint64_t)i->width && (uint64_t)y < (uint64_t)i->height
        && (uint64_t)layer < (uint64_t)i->depth;
}

static inline uint64_t texel_address(const struct image *i, int64_t x, int64_t y, int64_t layer)
{
    const int64_t slice = layer + i->first_element, byte = (x + i->place_x) * i->step;
    if (i->flat)
        return (byte + slice * i->q_pitch * i->bytes + i->base) & ADDRESS_MASK;
    if (!i->tile_bytes)
        return ((y + i->place_y + slice * i->q_pitch) * i->pitch + byte + i->base) & ADDRESS_MASK;
    const int64_t deep = slice + i->place_z;
    const int64_t row = y + i->place_y + (deep >> i->tile_depth) * i->q_pitch;
    const int64_t tiles = (row >> i->tile_height) * i->across + (byte >> i->tile_width);
    const int64_t offset = i->columns[byte & ((1 << i->tile_width) - 1)] | i->rows[row & ((1 << i->tile_height) - 1)]
        | i->planes[deep & ((1 << i->tile_depth) - 1)];
    return ((tiles << i->tile_bytes) + offset + i->base) & ADDRESS_MASK;
}

static inline uint64_t sample_address(const struct image *i, int64_t x, int64_t y, int64_t layer, int64_t sample)
{
    if (i->samples == 1)
        return texel_address(i, x, y, layer);
    if (!i->sample_planes)
        return texel_address(i, x, y, layer * i->samples + sample);
    const int64_t down = (layer + i->first_element) * i->sample_down + (y >> i->sample_height);
    const int64_t tile = down * i->sample_across + (x >> i->sample_width);
    const int64_t row = (sample << i->sample_height) + (y & ((1 << i->sample_height) - 1));
    const int64_t within = (row << i->sample_width) + (x & ((1 << i->sample_width) - 1));
    return ((tile << i->tile_bytes) + within * i->bytes + i->base) & ADDRESS_MASK;
}

static inline uint64_t raw_bits(const char *texel, int first, int width)
{
    uint64_t value = 0;
    if (likely(!(first & 7) && width <= 32 && !(width & 7))) {
        uint32_t word = 0;
        if (width == 32)
            memcpy(&word, texel + (first >> 3), 4);
        else if (width == 16)
            memcpy(&word, texel + (first >> 3), 2);
        else if (width == 8)
            word = (uint8_t)texel[first >> 3];
        else
            memcpy(&word, texel + (first >> 3), 3);
        return word;
    }
    const int begin = first >> 3, bytes = (first + width + 7) / 8 - begin;
    memcpy(&value, texel + begin, bytes);
    value >>= first & 7;
    return width == 64 ? value : value & ((1ull << width) - 1);
}

static inline double small_float(uint64_t bits, int width)
{
    return f_of_hf((uint16_t)(width == 16 ? bits : bits << (15 - width)));
}

static inline double value_of(const struct image *i, int channel, uint64_t bits, int width)
{
    double number = (double)bits, top = (double)(1ull << (width - 1));
    switch (i->kind) {
    case FLOAT:
        return width == 64 ? df_of_bits(bits) : width == 32 ? (double)f_of_bits((uint32_t)bits) : small_float(bits, width);
    case UNORM:
        return number / (top * 2 - 1);
    case SRGB:
        return channel == 3 ? number / (top * 2 - 1) : i->table[(1ull << width) + bits];
    case SNORM:
        number = (number >= top ? number - top * 2 : number) / (top - 1);
        return number > -1 ? number : -1;
    case SINT:
    case SSCALED:
        return number >= top ? number - top * 2 : number;
    case FIXED:
        return (number >= top ? number - top * 2 : number) / 65536;
    default:
        return number;
    }
}

/* The channels of a texel; what it does not have is 0, alpha 1. */
static inline four decode_texel(const struct image *i, const char *texel)
{
    four found = {0, 0, 0, 1};
    if (i->kind == SHARED_EXPONENT) {
        const double scale = ldexp(1, (int)raw_bits(texel, 27, 5) - 24);
        for (int n = 0; n < 3; n++)
            found[n] = (double)raw_bits(texel, 9 * n, 9) * scale;
        return found;
    }
    for (int n = 0; n < i->fields; n++) {
        const struct field f = i->field[n];
        found[f.channel] = value_of(i, f.channel, raw_bits(texel, f.first, f.width), f.width);
    }
    return found;
}

/* Four channels of UNORM8, in the order in which they are in memory. */
static inline four decode_even8(const char *texel)
{
    typedef uint8_t bytes4 __attribute__((vector_size(4)));
    bytes4 bytes;
    memcpy(&bytes, texel, 4);
    return __builtin_convertvector(bytes, four) / 255.0;
}

static inline double no_nan(double value)
{
    return value == value ? value : 0;
}

static inline double clip_to(double value, double low, double high)
{
    return value < low ? low : value > high ? high : value;
}

/* Floats of 10 or 11 bits without a sign: what is less than zero is zero, what is too large the largest. */
static NOINLINE uint64_t small_pattern(double value, int width)
{
    const int mantissa = width - 5, drop = 10 - mantissa;
    const uint64_t top = 31ull << mantissa;
    if (value != value)
        return top | 1;
    if (value == HUGE_VAL)
        return top;
    const double largest = (2 - ldexp(1, -mantissa)) * 32768;
    const uint64_t bits = hf_of_f(odd_f(value == -HUGE_VAL ? 0 : clip_to(value, 0, largest)));
    const uint64_t rounded = (bits + (1 << (drop - 1)) - 1 + (bits >> drop & 1)) >> drop;
    return rounded < top ? rounded : top - 1;
}

/* The raw value of SRGB whose step a number has reached. */
static inline uint64_t steps_reached(const double *steps, int width, double value)
{
    uint64_t found = 0;
    for (uint64_t half = 1ull << (width - 1); half; half >>= 1)
        if (value >= steps[(1ull << width) + found + half])
            found += half;
    return found;
}

static inline uint64_t pattern_of(const struct image *i, int channel, double value, int width)
{
    const int kind = i->kind;
    if (kind == FLOAT) {
        if (width == 64)
            return bits_of_df(value);
        return width == 32 ? bits_of_f((float)value) : width == 16 ? hf_of_f(odd_f(value)) : small_pattern(value, width);
    }
    const double top = (double)(1ull << (width - 1));
    value = no_nan(value);
    if (kind == SRGB && channel != 3)
        return steps_reached(i->steps, width, value);
    if (kind == UNORM || kind == SRGB)
        value = rint(clip_to(value, 0, 1) * (top * 2 - 1));
    else if (kind == SNORM)
        value = rint(clip_to(value, -1, 1) * (top - 1));
    else if (kind == SINT || kind == SSCALED)
        value = clip_to(value, -top, top - 1);
    else
        value = clip_to(value, 0, top * 2 - 1);
    return (uint64_t)(int64_t)value & (width == 64 ? ~0ull : (1ull << width) - 1);
}

/* A texel of the channels; formats in which it is not done here are not given to a draw (render/compiled_images.py). */
static inline void encode_texel(const struct image *i, four values, char *texel)
{
    if (likely(i->even8)) {
        for (int n = 0; n < 4; n++)
            texel[i->field[n].first >> 3] = (char)(int)rint(clip_to(no_nan(values[i->field[n].channel]), 0, 1) * 255.0);
        return;
    }
    uint64_t words[4] = {0, 0, 0, 0};
    for (int n = i->fields - 1; n >= 0; n--) {
        const struct field f = i->field[n];
        uint64_t bits = pattern_of(i, f.channel, values[f.channel], f.width);
        words[f.first >> 6] |= bits << (f.first & 63);
    }
    memcpy(texel, words, i->bytes);
}

/* log2 of what is not negative, exactly as filtering.py:log2 computes it. */
static inline double log2_of(double value)
{
    if (value != value)
        return value;
    if (value <= 0)
        return -HUGE_VAL;
    if (value == HUGE_VAL)
        return HUGE_VAL;
    int exponent;
    double m = frexp(value, &exponent);
    if (m < 0.7071067811865476) {
        m = m * 2;
        exponent--;
    }
    const double s = (m - 1) / (m + 1), z = s * s;
    double sum = 1 / 21.0;
    for (int n = 19; n > 0; n -= 2)
        sum = sum * z + 1 / (double)n;
    return (double)exponent + sum * s * 2.8853900817779268;
}

#endif
