/* Render targets, one pixel at a time: exactly as render/render_target.py and render/blend.py compute them; a test compares them. */
#pragma GCC optimize("O3")
#include "pixel_memory.h"

static inline four clamp(four colour, int how)
{
    if (how)
        for (int n = 0; n < 4; n++)
            colour[n] = clip_to(no_nan(colour[n]), how == 1 ? 0 : -1, 1);
    return colour;
}

static four factor(int code, four constant, four source, four second, four there, int alpha)
{
    enum { INVERSE = 16, ZERO = 17 };
    const four one = {1, 1, 1, 1}, zero = {0, 0, 0, 0};
    if (code == ZERO)
        return zero;
    if (code > INVERSE)
        return 1 - factor(code - INVERSE, constant, source, second, there, alpha);
    switch (code) {
    case 2: return source;
    case 3: return (four){source[3], source[3], source[3], source[3]};
    case 4: return (four){there[3], there[3], there[3], there[3]};
    case 5: return there;
    case 6: {
        if (alpha)
            return one;
        const double rest = 1 - there[3], least = source[3] != source[3] || source[3] < rest ? source[3] : rest;
        return (four){least, least, least, least};
    }
    case 7: return constant;
    case 8: return (four){constant[3], constant[3], constant[3], constant[3]};
    case 9: return second;
    case 10: return (four){second[3], second[3], second[3], second[3]};
    default: return one;
    }
}

static four combined(const struct equation *e, four constant, four source, four second, four there, int alpha)
{
    if (e->function == 3 || e->function == 4) {
        four result;
        for (int n = 0; n < 4; n++) {
            const double a = source[n], b = there[n];
            result[n] = a != a ? a : b != b ? b : e->function == 3 ? (a < b ? a : b) : (a > b ? a : b);
        }
        return result;
    }
    const four left = source * factor(e->source, constant, source, second, there, alpha);
    const four right = there * factor(e->destination, constant, source, second, there, alpha);
    return e->function == 1 ? left - right : e->function == 2 ? right - left : left + right;
}

static void operate(int operation, char *new, const char *old, uint32_t bytes)
{
    for (uint32_t n = 0; n < bytes; n++) {
        const uint8_t s = new[n], t = old[n];
        uint8_t result = 0;
        if (operation & 1)
            result |= ~s & ~t;
        if (operation & 2)
            result |= ~s & t;
        if (operation & 4)
            result |= s & ~t;
        if (operation & 8)
            result |= s & t;
        new[n] = result;
    }
}

/* What registers hold, for a target of integers. */
static inline four integers(const struct image *i, const float colour[4])
{
    four found;
    for (int n = 0; n < 4; n++)
        found[n] = i->kind == UINT ? (double)bits_of_f(colour[n]) : (double)(int32_t)bits_of_f(colour[n]);
    return found;
}

/* 0: a page is missing, and nothing was done. */
int eu_write_pixel(struct draw *d, const struct target *target, int64_t x, int64_t y, int64_t layer, int64_t sample,
                   const float colour[4], const float second[4])
{
    const struct image *i = &target->image;
    const uint64_t address = sample_address(i, x, y, layer, sample);
    char new[TEXEL], old[TEXEL];
    four source = {colour[0], colour[1], colour[2], colour[3]};
    d->loads = 0;
    if (i->integer)
        source = integers(i, colour);
    else if (target->alpha_to_one)
        source[3] = 1;
    source = clamp(source, target->pre_clamp);
    if (!target->copies) {
        if (!load(d, address, i->bytes, old))
            return 0;
        if (target->blends) {
            four other = source, constant, there = decode_texel(i, old);
            memcpy(&constant, target->constant, sizeof constant);
            if (second)
                other = (four){second[0], second[1], second[2], second[3]};
            other = clamp(other, target->pre_clamp);
            four result = combined(&target->colour, constant, source, other, there, 0);
            result[3] = combined(&target->alpha, constant, source, other, there, 1)[3];
            source = clamp(result, target->post_clamp);
        }
    }
    encode_texel(i, source, new);
    if (target->logic < 16)
        operate(target->logic, new, old, i->bytes);
    if (!target->write_all)
        for (uint32_t n = 0; n < i->bytes; n++)
            new[n] = (new[n] & target->write[n]) | (old[n] & ~target->write[n]);
    if (!store(d, address, i->bytes, new))
        return 0;
    settle(d);
    return 1;
}

/* Whether texels are what `eu_pack8` makes of the colours, and go to memory as they are. */
int eu_is_packed(const struct target *target)
{
    return target->copies && target->write_all && target->logic >= 16 && !target->alpha_to_one && target->image.even8
        && target->image.bytes == 4 && !target->image.integer;
}

/* Four bytes a lane, as encode_texel makes them one by one; clamping before it changes nothing. */
void eu_pack8(const struct image *i, const uint32_t colours[4][LANES], uint32_t *packed)
{
    memset(packed, 0, LANES * sizeof *packed);
    for (int n = 0; n < 4; n++) {
        const float *from = (const float *)colours[i->field[n].channel];
        const int shift = i->field[n].first;
        for (int lane = 0; lane < LANES; lane++)
            packed[lane] |= (uint32_t)(int)rint(clip_to(no_nan((double)from[lane]), 0, 1) * 255.0) << shift;
    }
}

int eu_write_packed(struct draw *d, const struct target *target, int64_t x, int64_t y, int64_t layer, int64_t sample, uint32_t texel)
{
    d->loads = 0;
    if (!store(d, sample_address(&target->image, x, y, layer, sample), 4, (const char *)&texel))
        return 0;
    d->detours = 0;
    return 1;
}
