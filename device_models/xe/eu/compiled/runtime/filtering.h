/* Filters: near, linear, on two levels, four texels gathered, samples along a footprint (compute/filtering.py, anisotropy.py). */
#ifndef EU_FILTERING_H
#define EU_FILTERING_H

#include "addressing.h"
#include "texels.h"

struct work {
    struct tally tally;
    const struct texture *texture;
    const struct sampler *sampler;
    const struct lanes *lanes;
    int compares, in_order; /* texels are decoded in the order of their bytes, and put right at the end */
};

/* One texel as the sampler addresses it; 0: a page is missing. */
static inline int texel(struct work *w, const struct image *i, const int64_t *corner, int64_t layer, int face, int lane,
                        const uint8_t *modes, four *found)
{
    const struct sampler *s = w->sampler;
    int beyond = 0;
    int64_t x = corner[0], y = corner[1];
    if (face >= 0 && !s->seamless) {
        layer = layer * 6 + face;
        face = -1;
    }
    if (face >= 0) {
        if (unlikely((uint64_t)x >= (uint64_t)i->width || (uint64_t)y >= (uint64_t)i->width))
            over_the_edge(i->width, &x, &y, &face);
        layer = layer * 6 + face;
    } else {
        x = addressed(x, i->width, modes[0], &beyond);
        y = addressed(y, i->height, modes[1], &beyond);
        if (w->texture->type == D3)
            layer = addressed(corner[2], i->depth, modes[2], &beyond);
    }
    four value = {0, 0, 0, 0};
    if (unlikely(beyond)) {
        const four border = border_of(i, s);
        for (int n = 0; n < 4; n++)
            value[w->in_order ? i->field[n].first >> 3 : n] = border[w->in_order ? i->field[n].channel : n];
    } else if (likely(image_has(i, x, y, layer))) {
        if (w->in_order) {
            char apart[TEXEL];
            const char *from = find(&w->tally, texel_address(i, x, y, layer), i->bytes, apart);
            if (unlikely(!from))
                return 0;
            value = decode_even8(from);
        } else if (unlikely(!load_texel(&w->tally, i, x, y, layer, &value))) {
            return 0;
        }
    }
    if (w->compares) {
        const double result = compared(s, value[0], w->lanes->reference[lane]);
        value = (four){result, result, result, result};
    }
    *found = value;
    return 1;
}

/* A coordinate as it is filtered: with eight bits behind the point. */
static inline double fixed_point(double texels, int rounds)
{
    return floor(texels * 256 + (rounds ? 0.5 : 0)) / 256;
}

/* Where a lane looks: coordinates in texels, their number returned; slice, and face of cubes or -1. */
static inline int texel_place(const struct work *w, const struct image *i, int lane, int magnifies, double axis[3],
                              int64_t *layer, int *face)
{
    const struct texture *x = w->texture;
    const struct lanes *p = w->lanes;
    int axes = 2;
    *layer = 0;
    *face = -1;
    if (x->type == CUBE) {
        double s, t;
        *face = face_of(bounded(p->u[lane]), bounded(p->v[lane]), bounded(p->r[lane]), &s, &t);
        axis[0] = s * (double)i->width;
        axis[1] = t * (double)i->height;
        const int64_t last = i->depth / 6 > 0 ? i->depth / 6 - 1 : 0;
        *layer = (int64_t)clip_to(rint(bounded(p->layer[lane])), 0, (double)last);
    } else {
        const int scaled = !w->sampler->texels;
        axis[0] = bounded(p->u[lane] * (scaled ? (double)i->width : 1)) + p->offset[0][lane];
        axis[1] = x->type == D1 ? 0.5 : bounded(p->v[lane] * (scaled ? (double)i->height : 1)) + p->offset[1][lane];
        if (x->type == D3) {
            axis[2] = bounded(p->r[lane] * (scaled ? (double)i->depth : 1)) + p->offset[2][lane];
            axes = 3;
        } else if (x->array) {
            *layer = (int64_t)clip_to(rint(bounded(p->layer[lane])), 0, (double)(i->depth - 1));
        }
    }
    for (int n = 0; n < axes; n++)
        axis[n] = fixed_point(axis[n], (magnifies ? w->sampler->rounds : w->sampler->rounds_min)[n]);
    return axes;
}

static int at_level(struct work *w, const struct image *i, int lane, int magnifies, four *colour)
{
    double axis[3];
    int64_t layer;
    int face;
    const int axes = texel_place(w, i, lane, magnifies, axis, &layer, &face);
    const uint8_t *modes = w->sampler->modes;
    if (face < 0 || !w->sampler->seamless) {
        const double size[3] = {(double)i->width, (double)i->height, (double)i->depth};
        for (int n = 0; n < axes; n++)
            if (unlikely(modes[n] == HALF_BORDER))
                axis[n] = clip_to(axis[n], 0, size[n]);
    }
    if (!(magnifies ? w->sampler->linear : w->sampler->linear_min)) {
        int64_t corner[3];
        uint8_t nearest[3]; /* half of a texel beyond the edge is looked at by linear filters only */
        for (int n = 0; n < 3; n++)
            nearest[n] = modes[n] == HALF_BORDER ? CLAMP : modes[n];
        for (int n = 0; n < axes; n++)
            corner[n] = (int64_t)floor(axis[n]);
        return texel(w, i, corner, layer, face, lane, nearest, colour);
    }
    int64_t base[3];
    double fraction[3];
    for (int n = 0; n < axes; n++) {
        const double low = floor(axis[n] - 0.5);
        fraction[n] = axis[n] - 0.5 - low;
        base[n] = (int64_t)low;
    }
    four sum = {0, 0, 0, 0};
    for (int number = 0; number < 1 << axes; number++) {
        int64_t corner[3];
        double weight = 1;
        for (int n = 0; n < axes; n++) {
            const int far = number >> n & 1;
            corner[n] = base[n] + far;
            weight *= far ? fraction[n] : 1 - fraction[n];
        }
        four found;
        if (unlikely(!texel(w, i, corner, layer, face, lane, modes, &found)))
            return 0;
        sum = number ? sum + found * weight : found * weight;
    }
    *colour = sum;
    return 1;
}

/* A lane's colour at its level of detail; 0: a page is missing. */
static inline int filtered(struct work *w, int lane, double lod, four *total)
{
    const struct texture *x = w->texture;
    const struct sampler *s = w->sampler;
    const int last = x->levels - 1, magnifies = lod <= 0;
    const four nothing = {0, 0, 0, 0};
    four colour;
    if (s->mip == MIP_NONE || !last) {
        if (unlikely(!at_level(w, &x->level[0], lane, magnifies, &colour)))
            return 0;
        *total = nothing + colour;
        return 1;
    }
    const double within = clip_to(lod, 0, last);
    double low = floor(within), fraction;
    if (s->mip == MIP_NEAREST) {
        low = ceil(within - 0.5);
        fraction = 0;
    } else {
        fraction = floor((within - low) * 256) / 256;
    }
    four sum = nothing;
    for (int offset = 0; offset < 2; offset++) {
        const double weight = offset ? fraction : 1 - fraction;
        if (!(weight > 0))
            continue;
        const int level = (int)low + offset < last ? (int)low + offset : last;
        if (unlikely(!at_level(w, &x->level[level], lane, magnifies, &colour)))
            return 0;
        sum = sum + colour * weight;
    }
    *total = sum;
    return 1;
}

/* One channel of the four texels that a linear filter would take, of the level that is nearest; 0: a page is missing. */
static int gathered(struct work *w, int lane, double lod, int channel, four *colour)
{
    static const int64_t columns[4] = {0, 1, 1, 0}, rows[4] = {1, 1, 0, 0};
    const struct texture *x = w->texture;
    const struct image *i = &x->level[(int)clip_to(ceil(lod - 0.5), 0, x->levels - 1)];
    double axis[3];
    int64_t layer;
    int face;
    texel_place(w, i, lane, lod <= 0, axis, &layer, &face);
    const int64_t column = (int64_t)floor(axis[0] - 0.5), row = (int64_t)floor(axis[1] - 0.5);
    for (int n = 0; n < 4; n++) {
        const int64_t corner[3] = {column + columns[n], row + rows[n], 0};
        four found;
        if (unlikely(!texel(w, i, corner, layer, face, lane, w->sampler->modes, &found)))
            return 0;
        (*colour)[n] = found[channel];
    }
    return 1;
}

/* The longer axis of each pixel's footprint, and how many samples are taken along it (compute/anisotropy.py). */
struct stretch {
    double u[LANES], v[LANES];
    int count[LANES];
};

static void stretch_of(const struct work *w, const struct sample *m, struct stretch *found)
{
    const struct lanes *p = w->lanes;
    const double wide = (double)w->texture->level[0].width, high = (double)w->texture->level[0].height;
    for (int lane = 0; lane < m->width; lane++) {
        const int quad = lane & ~3;
        double du[2], dv[2], length[2];
        for (int way = 0; way < 2; way++) {
            const int other = quad + 1 + way;
            du[way] = m->derivatives ? p->slope[0][way][lane] : number_of(p->u[other]) - number_of(p->u[quad]);
            dv[way] = m->derivatives ? p->slope[1][way][lane] : number_of(p->v[other]) - number_of(p->v[quad]);
            length[way] = sqrt(du[way] * wide * (du[way] * wide) + dv[way] * high * (dv[way] * high));
        }
        const int way = !(length[0] >= length[1]);
        found->u[lane] = number_of(du[way]);
        found->v[lane] = number_of(dv[way]);
        found->count[lane] = 1;
        if (length[0] != length[0] || length[1] != length[1])
            continue;
        const double most = length[way], least = length[!way];
        const double ratio = ceil(most / (least < 1e-30 ? 1e-30 : least)), highest = w->sampler->anisotropy;
        if (most > 1)
            found->count[lane] = ratio != ratio || ratio < 1 ? 1 : ratio > highest ? (int)highest : (int)ratio;
    }
}

/* The mean of samples along the footprint; 0: a page is missing. Coordinates are those of the sample meanwhile. */
static int stretched(struct work *w, struct lanes *p, const struct stretch *along, int lane, double lod, four *total)
{
    const double u = p->u[lane], v = p->v[lane];
    const int count = along->count[lane];
    four sum = {0, 0, 0, 0};
    int there = 1;
    for (int number = 0; there && number < count; number++) {
        const double place = (number + 0.5) / count - 0.5;
        four colour;
        p->u[lane] = u + place * along->u[lane];
        p->v[lane] = v + place * along->v[lane];
        there = filtered(w, lane, lod, &colour);
        sum = sum + colour / (double)count;
    }
    p->u[lane] = u;
    p->v[lane] = v;
    *total = sum;
    return there;
}

#endif
