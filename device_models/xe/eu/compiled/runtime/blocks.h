/* Texels of block-compressed formats, S3TC and RGTC: those that most programs use (compute/block_formats.py). */
#ifndef EU_BLOCKS_H
#define EU_BLOCKS_H

#include "image.h"

enum block { NO_BLOCK, BC1, BC1_OPAQUE, BC2, BC3, BC4, BC5 };
enum { BLOCK_SHIFT = 2, BLOCK_MASK = 3 };

/* In `image.table`, for each two ends of five bits, then of six: the first, a third of the way to the other, half of it. */
enum { END, THIRD, HALF, MIXTURES, ENDS_OF_SIX = 32 * 32 * MIXTURES };

static inline double mixed(const struct image *i, int bits, uint32_t from, uint32_t to, int how)
{
    const double *table = i->table + (bits == 6 ? ENDS_OF_SIX : 0);
    return table[((from << bits) + to) * MIXTURES + how];
}

/* Eight bytes: two colours, and two bits a texel. `always`: there are always two colours between them. */
static inline four colour_565(const struct image *i, const char *block, int number, int always)
{
    uint16_t ends[2];
    uint32_t codes;
    memcpy(ends, block, 4);
    memcpy(&codes, block + 4, 4);
    const int code = codes >> 2 * number & 3, three = !always && ends[0] <= ends[1];
    if (three && code == 3)
        return (four){0, 0, 0, i->block == BC1_OPAQUE};
    const uint32_t from = ends[code & 1], to = ends[!(code & 1)];
    const int how = code < 2 ? END : three ? HALF : THIRD;
    /* Half of the way is the same from both ends; the table is looked at from the first. */
    return (four){mixed(i, 5, from >> 11, to >> 11, how), mixed(i, 6, from >> 5 & 0x3f, to >> 5 & 0x3f, how),
                  mixed(i, 5, from & 0x1f, to & 0x1f, how), 1};
}

/* Eight bytes: two ends, and three bits a texel. */
static inline double channel_of(const char *block, int number, int is_signed)
{
    uint64_t word;
    memcpy(&word, block, 8);
    const int code = word >> (16 + 3 * number) & 7;
    const int ends[2] = {is_signed ? (int8_t)block[0] : (uint8_t)block[0], is_signed ? (int8_t)block[1] : (uint8_t)block[1]};
    const double most = is_signed ? 127 : 255, least = is_signed ? -127 : 0;
    const double first = ends[0] < least ? least : ends[0], last = ends[1] < least ? least : ends[1];
    if (code < 2)
        return (code ? last : first) / most;
    if (ends[0] > ends[1])
        return (first + (last - first) * ((code - 1) / 7.0)) / most;
    if (code < 6)
        return (first + (last - first) * ((code - 1) / 5.0)) / most;
    return (code == 6 ? least : most) / most;
}

static NOINLINE four decode_block(const struct image *i, const char *block, int x, int y)
{
    const int number = y << BLOCK_SHIFT | x, is_signed = i->kind == SNORM;
    four found = {0, 0, 0, 1};
    switch (i->block) {
    case BC2:
        found = colour_565(i, block + 8, number, 1);
        found[3] = ((uint8_t)block[number >> 1] >> 4 * (number & 1) & 15) / 15.0;
        return found;
    case BC3:
        found = colour_565(i, block + 8, number, 1);
        found[3] = channel_of(block, number, 0);
        return found;
    case BC5:
        found[1] = channel_of(block + 8, number, is_signed); /* fall through */
    case BC4:
        found[0] = channel_of(block, number, is_signed);
        return found;
    default:
        return colour_565(i, block, number, 0);
    }
}

#endif
