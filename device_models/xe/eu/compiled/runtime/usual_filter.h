/* The message that most programs use, for many lanes side by side. */
#ifndef EU_USUAL_FILTER_H
#define EU_USUAL_FILTER_H

#include "filtering.h"

/* The usual message: bilinear, of one level of a two-dimensional image whose texels are four bytes of UNORM, coordinates from 0
 * to 1 that wrap or are clamped. All as `at_level` does it, for many lanes side by side. */
static int is_usual(const struct work *w, const struct sample *m)
{
    const struct texture *x = w->texture;
    const struct sampler *s = w->sampler;
    return w->in_order && x->type == D2 && !x->array && s->linear && s->linear_min && (s->mip == MIP_NONE || x->levels == 1)
        && !s->texels && (s->modes[0] == WRAP || s->modes[0] == CLAMP) && (s->modes[1] == WRAP || s->modes[1] == CLAMP)
        && s->rounds[0] == s->rounds_min[0] && s->rounds[1] == s->rounds_min[1] && !m->least && s->anisotropy <= 1
        && !x->level[0].null && !x->level[0].flat;
}

/* Part of an offset that a row has, and a column; the offset of a texel is their sum. */
static inline int64_t row_offset(const struct image *i, int64_t y)
{
    if (!i->tile_bytes)
        return y * i->pitch;
    return ((y >> i->tile_height) * i->across << i->tile_bytes) + i->rows[y & ((1 << i->tile_height) - 1)];
}

static inline int64_t column_offset(const struct image *i, int64_t x)
{
    const int64_t byte = x * i->step;
    if (!i->tile_bytes)
        return byte;
    return (byte >> i->tile_width << i->tile_bytes) + i->columns[byte & ((1 << i->tile_width) - 1)];
}

static inline int64_t usual_address(int64_t place, int64_t size, int mode)
{
    return mode == WRAP ? modulo(place, size) : clamped(place, size);
}

static int usual(struct work *w, int width, uint32_t on, four *colours)
{
    const struct image *i = &w->texture->level[0];
    const struct lanes *p = w->lanes;
    const uint8_t *modes = w->sampler->modes, *rounds = w->sampler->rounds;
    const double wide = (double)i->width, high = (double)i->height;
    double u[LANES], v[LANES], low_u[LANES], low_v[LANES];
    for (int lane = 0; lane < width; lane++) {
        u[lane] = fixed_point(bounded(p->u[lane] * wide) + p->offset[0][lane], rounds[0]);
        v[lane] = fixed_point(bounded(p->v[lane] * high) + p->offset[1][lane], rounds[1]);
    }
    for (int lane = 0; lane < width; lane++) {
        low_u[lane] = floor(u[lane] - 0.5);
        low_v[lane] = floor(v[lane] - 0.5);
        u[lane] = u[lane] - 0.5 - low_u[lane];
        v[lane] = v[lane] - 0.5 - low_v[lane];
    }
    const int64_t slice = i->first_element, deep = slice + i->place_z;
    uint64_t base = i->base;
    int64_t first = i->place_y + slice * i->q_pitch;
    if (i->tile_bytes) {
        first = i->place_y + (deep >> i->tile_depth) * i->q_pitch;
        base += i->planes[deep & ((1 << i->tile_depth) - 1)];
    }
    for (; on; on &= on - 1) {
        const int lane = __builtin_ctz(on);
        const int64_t x = (int64_t)low_u[lane], y = (int64_t)low_v[lane];
        const int64_t columns[2] = {column_offset(i, usual_address(x, i->width, modes[0]) + i->place_x),
                                    column_offset(i, usual_address(x + 1, i->width, modes[0]) + i->place_x)};
        const int64_t rows[2] = {row_offset(i, usual_address(y, i->height, modes[1]) + first),
                                 row_offset(i, usual_address(y + 1, i->height, modes[1]) + first)};
        four texels[4];
        for (int number = 0; number < 4; number++) {
            char apart[TEXEL];
            const char *from = find(&w->tally, (base + columns[number & 1] + rows[number >> 1]) & ADDRESS_MASK, 4, apart);
            if (unlikely(!from))
                return 0;
            texels[number] = decode_even8(from);
        }
        const double far_u = u[lane], far_v = v[lane], near_u = 1 - far_u, near_v = 1 - far_v;
        const four sum = texels[0] * (near_u * near_v) + texels[1] * (far_u * near_v) + texels[2] * (near_u * far_v)
            + texels[3] * (far_u * far_v);
        colours[lane] = (four){0, 0, 0, 0} + sum;
    }
    return 1;
}

#endif
