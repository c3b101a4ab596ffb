/* The sampler: levels of detail, addressing, filters, comparison, exactly as compute/sampler.py and compute/filtering.py
 * compute them; a test compares the two bit by bit. */
#pragma GCC optimize("O3")
#include "blocks.h"
#include "sampler_parameters.h"

/* A bilinear filter on two levels, along a footprint that is as long as it can be. */
#define MOST_TEXELS (16 * 2 * 4 * LANES)

/* What a message has accessed; counted once it is done, since a message that misses a page is repeated. */
struct tally {
    struct slot *slot;
    struct count *last;
    uint64_t begin, size; /* of the page that was found last */
    char *host;
    uint32_t used;
    struct {
        struct count *count;
        uint32_t times;
    } of[MOST_TEXELS];
    uint64_t miss;
    uint32_t miss_bytes;
    uint64_t bytes;
};

/* The bytes of a texel; NULL if a page is not there. What lies in two pages is copied to `apart`. */
static inline const char *find(struct tally *tally, uint64_t address, uint32_t bytes, char *apart);

static NOINLINE const char *find_slowly(struct tally *tally, uint64_t address, uint32_t bytes, char *apart)
{
    const uint64_t number = (address >> 16) + 1;
    const struct recent *recent = &tally->slot->recent[0][number & (RECENT - 1)];
    uint64_t size = 0x10000;
    if (recent->page != number) {
        recent = small_recent(tally->slot, 0, address);
        size = 0x1000;
    }
    if (likely(recent && (address & (size - 1)) + bytes <= size)) {
        tally->begin = address & -size;
        tally->size = size;
        tally->host = recent->host;
        tally->last = recent->count;
        tally->of[tally->used].count = recent->count;
        tally->of[tally->used++].times = 1;
        return recent->host + (address & (size - 1));
    }
    uint32_t done = 0;
    while (done < bytes) {
        int shift;
        const uint64_t here = (address + done) & ADDRESS_MASK;
        struct page *page = eu_page(tally->slot->map, here, READ, &shift);
        if (!page) {
            tally->miss = here;
            tally->miss_bytes = bytes - done;
            return NULL;
        }
        const uint64_t within = here & ((1ull << shift) - 1), left = (1ull << shift) - within;
        const uint32_t part = left < bytes - done ? (uint32_t)left : bytes - done;
        struct count *count = &tally->slot->counts[page - tally->slot->map->pages];
        if (part == bytes) {
            tally->begin = here - within;
            tally->size = 1ull << shift;
            tally->host = page->host;
            tally->last = count;
            remember(tally->slot, 0, here, shift, page->host, count);
            tally->of[tally->used].count = count;
            tally->of[tally->used++].times = 1;
            return page->host + within;
        }
        memcpy(apart + done, page->host + within, part);
        done += part;
        if (done == bytes) {
            tally->of[tally->used].count = count;
            tally->of[tally->used++].times = 1;
        }
    }
    return apart;
}

static inline const char *find(struct tally *tally, uint64_t address, uint32_t bytes, char *apart)
{
    const uint64_t within = address - tally->begin;
    if (likely(within < tally->size && within + bytes <= tally->size)) {
        if (likely(tally->used && tally->of[tally->used - 1].count == tally->last)) {
            tally->of[tally->used - 1].times++;
        } else {
            tally->of[tally->used].count = tally->last;
            tally->of[tally->used++].times = 1;
        }
        return tally->host + within;
    }
    return find_slowly(tally, address, bytes, apart);
}

/* A texel that is inside; 0: a page is missing. */
static inline int load_texel(struct tally *tally, const struct image *i, int64_t x, int64_t y, int64_t layer, four *found)
{
    char apart[TEXEL];
    if (unlikely(i->block)) {
        const uint64_t address = texel_address(i, x >> BLOCK_SHIFT, y >> BLOCK_SHIFT, layer);
        const char *from = find(tally, address, i->bytes, apart);
        if (from)
            *found = decode_block(i, from, x & BLOCK_MASK, y & BLOCK_MASK);
        return from != NULL;
    }
    const char *from = find(tally, texel_address(i, x, y, layer), i->bytes, apart);
    if (likely(from != NULL))
        *found = decode_texel(i, from);
    return from != NULL;
}

static void settle(struct tally *tally)
{
    for (uint32_t n = 0; n < tally->used; n++)
        eu_count(tally->slot, tally->of[n].count, tally->of[n].times, tally->of[n].times * tally->bytes, READ);
}

static inline double bounded(double value)
{
    if (!(value - value == 0))
        return 0;
    return clip_to(value, -0x1p40, 0x1p40);
}

static inline double number_of(double value)
{
    if (value != value)
        return 0;
    return clip_to(value, -1.7976931348623157e308, 1.7976931348623157e308);
}

static int major_of(double x, double y, double z)
{
    x = fabs(x);
    y = fabs(y);
    z = fabs(z);
    return z >= x && z >= y ? 2 : y >= x ? 1 : 0;
}

/* s, t and the distance along the major axis, of directions or of differences between such. */
static void on_face(int face, double x, double y, double z, double *s, double *t, double *length)
{
    const double across[6] = {-z, z, x, x, x, -x}, down[6] = {-y, -y, z, -z, -y, -y}, along[6] = {x, -x, y, -y, z, -z};
    *s = across[face];
    *t = down[face];
    *length = along[face];
}

static int project(double x, double y, double z, double *s, double *t, double *length)
{
    const int major = major_of(x, y, z);
    const double axis = major == 0 ? x : major == 1 ? y : z;
    const int face = 2 * major + (axis < 0);
    on_face(face, x, y, z, s, t, length);
    return face;
}

static int face_of(double x, double y, double z, double *s, double *t)
{
    double length;
    const int face = project(x, y, z, s, t, &length);
    length = length > 1e-30 ? length : 1e-30;
    *s = (*s / length + 1) / 2;
    *t = (*t / length + 1) / 2;
    return face;
}

/* Level of detail of a footprint with these squares of lengths, in texels, from pixel to pixel. */
static double detail_of(double right, double down, int anisotropy)
{
    double longer = right > down ? right : down;
    if (anisotropy > 1) {
        const double shorter = right < down ? right : down;
        double ratio = ceil(sqrt(longer / (shorter < 1e-30 ? 1e-30 : shorter)));
        ratio = ratio < 1 ? 1 : ratio > anisotropy ? anisotropy : ratio;
        longer = longer / (ratio * ratio);
    }
    return 0.5 * log2_of(longer);
}

/* From the differences between the lanes of a quad, on the face that each lane's direction meets: those of lanes that are not drawn
 * may meet another one. */
static void level_on_cube(const struct image *image, const struct lanes *p, int quad, int anisotropy, double *lod)
{
    double x[4], y[4], z[4];
    for (int n = 0; n < 4; n++) {
        x[n] = bounded(p->u[quad + n]);
        y[n] = bounded(p->v[quad + n]);
        z[n] = bounded(p->r[quad + n]);
    }
    for (int n = 0; n < 4; n++) {
        double s, t, length, square[2];
        const int face = project(x[n], y[n], z[n], &s, &t, &length);
        length = length > 1e-30 ? length : 1e-30;
        for (int other = 1; other < 3; other++) {
            double ds, dt, away;
            on_face(face, x[other] - x[0], y[other] - y[0], z[other] - z[0], &ds, &dt, &away);
            const double across = (ds * length - s * away) / (length * length) * (double)image->width / 2;
            const double down = (dt * length - t * away) / (length * length) * (double)image->height / 2;
            square[other - 1] = across * across + down * down;
        }
        lod[quad + n] = detail_of(square[0], square[1], anisotropy);
    }
}

/* From the differences between the lanes of each quad; lanes of one have the same, but on cubes. */
static void level_of_detail(const struct texture *x, const struct sampler *s, const struct lanes *p, int width, double *lod)
{
    const struct image *image = &x->level[0];
    const double *from[3] = {p->u, p->v, p->r};
    const double size[3] = {(double)image->width, (double)image->height, (double)image->depth};
    const int axes = x->type == D1 ? 1 : x->type == D3 ? 3 : 2;
    for (int quad = 0; quad < width; quad += 4) {
        if (x->type == CUBE) {
            level_on_cube(image, p, quad, s->anisotropy, lod);
            continue;
        }
        double right = 0, down = 0;
        for (int axis = 0; axis < axes; axis++) {
            const double scale = s->texels ? 1 : size[axis];
            const double first = number_of(from[axis][quad] * scale);
            const double across = number_of(from[axis][quad + 1] * scale) - first;
            const double below = number_of(from[axis][quad + 2] * scale) - first;
            right += across * across;
            down += below * below;
        }
        const double found = detail_of(right, down, s->anisotropy);
        for (int n = 0; n < 4; n++)
            lod[quad + n] = found;
    }
}

static void from_slopes(const struct texture *x, const struct sampler *s, const struct lanes *p, int width, double *lod)
{
    const struct image *image = &x->level[0];
    double size[2] = {(double)image->width, (double)image->height};
    if (x->type == CUBE)
        size[0] = size[1] = (double)image->width / 2;
    for (int lane = 0; lane < width; lane++) {
        double right = 0, down = 0;
        for (int axis = 0; axis < 2; axis++) {
            const double across = p->slope[axis][0][lane] * size[axis], below = p->slope[axis][1][lane] * size[axis];
            right += across * across;
            down += below * below;
        }
        lod[lane] = detail_of(right, down, s->anisotropy);
    }
}

static inline int64_t modulo(int64_t place, int64_t size)
{
    if (likely((uint64_t)place < (uint64_t)size))
        return place;
    const int64_t rest = place % size;
    return rest < 0 ? rest + size : rest;
}

static inline int64_t clamped(int64_t place, int64_t size)
{
    return place < 0 ? 0 : place >= size ? size - 1 : place;
}

/* Where a coordinate leads; `beyond`: to the border colour. */
static inline int64_t addressed(int64_t place, int64_t size, int mode, int *beyond)
{
    switch (mode) {
    case WRAP:
        return modulo(place, size);
    case MIRROR: {
        const int64_t turned = modulo(place, 2 * size);
        return turned < size ? turned : 2 * size - 1 - turned;
    }
    case MIRROR_ONCE:
        return clamped(place < 0 ? -1 - place : place, size);
    case BORDER:
    case HALF_BORDER:
        *beyond |= place < 0 || place >= size;
        return clamped(place, size);
    default:
        return clamped(place, size);
    }
}

/* Texels beyond a face's edge are those of its neighbour. */
static NOINLINE void over_the_edge(int64_t size, int64_t *x, int64_t *y, int *face)
{
    const double s = 2 * ((double)*x + 0.5) / (double)size - 1, t = 2 * ((double)*y + 0.5) / (double)size - 1;
    const double to[3][6] = {{1, -1, s, s, s, -s}, {-t, -t, 1, -1, -t, -t}, {-s, s, t, -t, 1, -1}};
    double u, v;
    *face = face_of(bounded(to[0][*face]), bounded(to[1][*face]), bounded(to[2][*face]), &u, &v);
    *x = clamped((int64_t)floor(u * (double)size), size);
    *y = clamped((int64_t)floor(v * (double)size), size);
}

static inline double compared(const struct sampler *s, double texel, double reference)
{
    switch (s->shadow) {
    case 0: return 0;
    case 1: return 1;
    case 2: return !(texel < reference);
    case 3: return !(texel == reference);
    case 4: return !(texel <= reference);
    case 5: return !(texel > reference);
    case 6: return !(texel != reference);
    default: return !(texel >= reference);
    }
}

/* The border colour as a texel of the format would have it: in its range, and without channels that it has not. */
static NOINLINE four border_of(const struct image *i, const struct sampler *s)
{
    const double *border = i->integer ? s->border_bits : s->border;
    four found = {0, 0, 0, 1};
    for (int n = 0; n < i->fields; n++) {
        int same = 0; /* of channels that are the same bits, the first is taken */
        while (i->field[same].first != i->field[n].first)
            same++;
        double value = border[i->field[same].channel];
        if (i->kind == UNORM || i->kind == SRGB || i->kind == SNORM) {
            const double least = i->kind == SNORM ? -1 : 0;
            value = value < least ? least : value;
            value = value > 1 ? 1 : value;
        }
        found[i->field[n].channel] = value;
    }
    return found;
}

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

/* Where a lane looks: coordinates in texels, their number returned; slice, and face of cubes or -1. */
static inline int texel_place(const struct work *w, const struct image *i, int lane, double axis[3], int64_t *layer, int *face)
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
    return axes;
}

static int at_level(struct work *w, const struct image *i, int lane, int linear, four *colour)
{
    double axis[3];
    int64_t layer;
    int face;
    const int axes = texel_place(w, i, lane, axis, &layer, &face);
    const uint8_t *modes = w->sampler->modes;
    if (face < 0 || !w->sampler->seamless) {
        const double size[3] = {(double)i->width, (double)i->height, (double)i->depth};
        for (int n = 0; n < axes; n++)
            if (unlikely(modes[n] == HALF_BORDER))
                axis[n] = clip_to(axis[n], 0, size[n]);
    }
    if (!linear) {
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
    const int last = x->levels - 1, linear = lod <= 0 ? s->linear : s->linear_min;
    const four nothing = {0, 0, 0, 0};
    four colour;
    if (s->mip == MIP_NONE || !last) {
        if (unlikely(!at_level(w, &x->level[0], lane, linear, &colour)))
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
        if (unlikely(!at_level(w, &x->level[level], lane, linear, &colour)))
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
    texel_place(w, i, lane, axis, &layer, &face);
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

/* The usual message: bilinear, of one level of a two-dimensional image whose texels are four bytes of UNORM, coordinates from 0
 * to 1 that wrap or are clamped. All as `at_level` does it, for many lanes side by side. */
static int is_usual(const struct work *w, const struct sample *m)
{
    const struct texture *x = w->texture;
    const struct sampler *s = w->sampler;
    return w->in_order && x->type == D2 && !x->array && s->linear && s->linear_min && (s->mip == MIP_NONE || x->levels == 1)
        && !s->texels && (s->modes[0] == WRAP || s->modes[0] == CLAMP) && (s->modes[1] == WRAP || s->modes[1] == CLAMP)
        && !m->least && s->anisotropy <= 1 && !x->level[0].null && !x->level[0].flat;
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
    const uint8_t *modes = w->sampler->modes;
    const double wide = (double)i->width, high = (double)i->height;
    double u[LANES], v[LANES], low_u[LANES], low_v[LANES];
    for (int lane = 0; lane < width; lane++) {
        u[lane] = bounded(p->u[lane] * wide) + p->offset[0][lane];
        v[lane] = bounded(p->v[lane] * high) + p->offset[1][lane];
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

static const struct texture *texture_of(const struct op *op, struct thread *t, const struct sample *m)
{
    return texture_of_key(op, t, key_named(t, m->surface, m->a0, m->surface_shift, m->pointer));
}

static const struct sampler *sampler_of(const struct op *op, struct thread *t, const struct sample *m)
{
    const struct sampling *known = t->slot->sampling;
    uint64_t key = known->stage;
    if (m->header) {
        const uint32_t pointer = header_dword(op, t, m, 3);
        key = (pointer & 1 ? known->bindless : known->dynamic) + (pointer & ~0x1fu);
    }
    key += 16 * m->sampler;
    for (uint32_t n = 0; n < known->sampler_count; n++)
        if (known->samplers[n].key == key)
            return &known->samplers[n];
    t->miss_address = key;
    stop(op, t, SAMPLER);
    return NULL;
}

static const struct op *missed(const struct op *op, struct thread *t, const struct tally *tally)
{
    t->miss_address = tally->miss;
    t->miss_bytes = tally->miss_bytes;
    t->miss_kind = READ;
    return stop(op, t, MISS);
}

static const uint8_t as_they_are[4] = {4, 5, 6, 7};

/* The channels that a surface answers with, of texels decoded in the order of their bytes. */
static void in_order(const struct image *i, uint8_t *selects)
{
    for (int channel = 0; channel < 4; channel++) {
        selects[channel] = i->swizzle[channel];
        for (int n = 0; n < 4; n++)
            if (i->swizzle[channel] >= 4 && i->field[n].channel == i->swizzle[channel] - 4)
                selects[channel] = 4 + (i->field[n].first >> 3);
    }
}

/* Channels one after the other, as `selects` says, without those that the header masks; lanes that are off keep what their registers hold. */
static void respond(const struct op *op, struct thread *t, const struct sample *m, const struct image *i, uint32_t lanes,
                    const four *colours, const uint8_t *selects)
{
    char *to = t->storage + op->destination;
    const uint32_t masked = header_dword(op, t, m, 2) >> 12 & 15, size = m->half ? 2 : 4;
    if (likely(lanes == op->lanes && !masked && !m->half && !i->integer && m->response == 4 * m->channel_bytes)) {
        for (int channel = 0; channel < 4; channel++) {
            float *row = (float *)(to + channel * m->channel_bytes);
            const uint8_t select = selects[channel];
            const double *from = (const double *)colours + (select >= 4 ? select - 4 : 0);
            for (int lane = 0; lane < m->width; lane++)
                row[lane] = select >= 4 ? (float)from[4 * lane] : (float)(select == 1);
        }
        return;
    }
    uint32_t at = 0;
    for (int channel = 0; channel < 5; channel++) {
        if (channel < 4 && masked >> channel & 1)
            continue;
        do {
            for (uint32_t left = lanes; left; left &= left - 1) {
                const int lane = __builtin_ctz(left);
                const uint32_t place = at + lane * size;
                if (place + size > m->response)
                    continue;
                uint32_t bits = 0;
                if (channel < 4) {
                    const uint8_t select = selects[channel];
                    const double value = select >= 4 ? colours[lane][select - 4] : select == 1;
                    bits = i->integer ? (uint32_t)(int64_t)value : m->half ? hf_of_f(odd_f(value)) : bits_of_f((float)value);
                }
                memcpy(to + place, &bits, size);
            }
            at += m->channel_bytes;
        } while (channel == 4 && at < m->response);
    }
}

/* texelFetch: texels by integers; zero outside. */
static int fetched(const struct op *op, struct thread *t, const struct sample *m, struct work *w, uint32_t lanes, four *colours)
{
    const struct texture *x = w->texture;
    double u[LANES], v[LANES], third[LANES], fourth[LANES];
    int next = 0;
    take(op, t, m, &next, 1, u);
    take(op, t, m, &next, 1, v);
    take(op, t, m, &next, 1, third);
    take(op, t, m, &next, 1, fourth);
    const uint32_t word = header_dword(op, t, m, 2);
    for (; lanes; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        int64_t px = (int64_t)u[lane] + nibble(word, 8), py = (int64_t)v[lane] + nibble(word, 4);
        int64_t level = m->fetch == LD ? (int64_t)third[lane] : 0;
        int64_t layer = (int64_t)(m->fetch == LD ? fourth[lane] : third[lane]);
        if (x->type == BUFFER || x->type == STRUCTURED)
            py = layer = level = 0;
        else if (x->type == D1) {
            layer = x->array ? py : 0;
            py = 0;
        } else if (!x->array && x->type != D3 && x->type != CUBE)
            layer = 0;
        colours[lane] = (four){0, 0, 0, 0};
        if (level < 0 || level >= x->levels)
            continue;
        const struct image *i = &x->level[level];
        if (!image_has(i, px, py, layer))
            continue;
        if (!load_texel(&w->tally, i, px, py, layer, &colours[lane]))
            return 0;
    }
    return 1;
}

/* Samples of texels: parameters are the sample, control words (two dwords, or four halves), u, v, r; zero outside. */
static int fetched_samples(const struct op *op, struct thread *t, const struct sample *m, struct work *w, uint32_t lanes,
                           four *colours)
{
    const struct image *i = &w->texture->level[0];
    double sample[LANES], u[LANES], v[LANES], r[LANES];
    int next = 0;
    take(op, t, m, &next, 1, sample);
    next += m->half_parameters ? 4 : 2;
    take(op, t, m, &next, 1, u);
    take(op, t, m, &next, 1, v);
    take(op, t, m, &next, 1, r);
    for (; lanes; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        const int64_t x = (int64_t)u[lane], y = (int64_t)v[lane], layer = w->texture->array ? (int64_t)r[lane] : 0;
        colours[lane] = (four){0, 0, 0, 0};
        if (!image_has(i, x, y, layer) || sample[lane] < 0 || sample[lane] >= i->samples)
            continue;
        char apart[TEXEL];
        const char *from = find(&w->tally, sample_address(i, x, y, layer, (int64_t)sample[lane]), i->bytes, apart);
        if (!from)
            return 0;
        colours[lane] = decode_texel(i, from);
    }
    return 1;
}

/* Multisample control: every sample is in its own plane, since nothing is compressed. */
static void control(const struct image *i, uint32_t lanes, four *colours)
{
    const int width = i->samples == 2 ? 1 : i->samples == 4 ? 2 : i->samples > 1 ? 4 : 0;
    uint64_t word = 0;
    for (uint64_t sample = 0; width && sample < i->samples; sample++)
        word |= sample << width * sample;
    for (; lanes; lanes &= lanes - 1)
        colours[__builtin_ctz(lanes)] = (four){(double)(uint32_t)word, (double)(word >> 32), 0, 0};
}

/* Width, height and depth of the level that a lane asks for, zero where there is none; and how many there are. */
static void sizes(const struct op *op, struct thread *t, const struct sample *m, const struct texture *x, uint32_t lanes,
                  four *colours)
{
    double level[LANES];
    int next = 0;
    take(op, t, m, &next, 1, level);
    for (; lanes; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        four *to = &colours[lane];
        *to = (four){0, 0, 0, x->levels};
        if (x->type == NULL_SURFACE || level[lane] < 0 || level[lane] >= x->levels)
            continue;
        const struct image *i = &x->level[(int)level[lane]];
        const double depth = x->type == D3 ? i->depth : x->depth;
        (*to)[0] = i->width;
        (*to)[1] = x->type == D1 ? depth : i->height;
        (*to)[2] = x->type == D1 ? 0 : depth;
    }
}

static void begin(struct tally *tally, struct slot *slot, uint32_t bytes)
{
    tally->slot = slot;
    tally->last = NULL;
    tally->begin = tally->size = 0;
    tally->used = 0;
    tally->bytes = bytes;
}

const struct op *sampler_fetch(const struct op *op, struct thread *t)
{
    const struct sample *m = op->extra;
    const uint32_t lanes = enabled(op, t);
    if (!lanes)
        return op + 1;
    if (!t->slot || !t->slot->sampling)
        return stop(op, t, INTERPRET);
    struct work w;
    w.texture = texture_of(op, t, m);
    if (!w.texture)
        return NULL;
    four colours[LANES];
    if (m->fetch >= LD_MCS) {
        const struct image words = {.integer = 1};
        if (m->fetch == LD_MCS)
            control(&w.texture->level[0], lanes, colours);
        else if (m->fetch == RESINFO)
            sizes(op, t, m, w.texture, lanes, colours);
        else
            for (int lane = 0; lane < m->width; lane++)
                colours[lane] = (four){w.texture->level[0].samples, 0, 0, 0};
        respond(op, t, m, &words, lanes, colours, as_they_are);
        return op + 1;
    }
    begin(&w.tally, t->slot, w.texture->level[0].bytes);
    if (!(m->fetch == LD2DMS_W ? fetched_samples : fetched)(op, t, m, &w, lanes, colours))
        return missed(op, t, &w.tally);
    settle(&w.tally);
    respond(op, t, m, &w.texture->level[0], lanes, colours, w.texture->level[0].swizzle);
    return op + 1;
}

/* Levels of detail of all lanes, neither biased by the sampler state nor clamped. */
static void levels_of_lanes(const struct work *w, const struct sample *m, double *lod)
{
    const struct texture *x = w->texture;
    const struct sampler *s = w->sampler;
    const struct lanes *p = w->lanes;
    const size_t bytes = m->width * sizeof *lod;
    if (m->zero)
        memset(lod, 0, bytes);
    else if (m->level)
        memcpy(lod, p->detail, bytes);
    else if (m->derivatives)
        from_slopes(x, s, p, m->width, lod);
    else if (x->levels == 1 && s->linear == s->linear_min && !m->query)
        memset(lod, 0, bytes); /* nothing depends on it */
    else {
        level_of_detail(x, s, p, m->width, lod);
        if (m->bias)
            for (int lane = 0; lane < m->width; lane++)
                lod[lane] += p->detail[lane];
    }
}

static inline double biased(const struct sampler *s, double lod)
{
    const double detail = lod + s->bias;
    return detail != detail ? 0 : detail == HUGE_VAL ? 1e3 : detail == -HUGE_VAL ? -1e3 : detail;
}

/* The level that would be looked at, and what was computed. */
static void details(const struct work *w, const double *lod, uint32_t lanes, four *colours)
{
    const struct sampler *s = w->sampler;
    for (; lanes; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        const double computed = biased(s, lod[lane]), least = computed < s->least ? s->least : computed;
        const double clamped = least > s->most ? s->most : least;
        colours[lane] = (four){clip_to(clamped, 0, w->texture->levels - 1), computed, 0, 0};
    }
}

const struct op *sampler_sample(const struct op *op, struct thread *t)
{
    const struct sample *m = op->extra;
    const uint32_t on = enabled(op, t);
    if (!on)
        return op + 1;
    if (!t->slot || !t->slot->sampling)
        return stop(op, t, INTERPRET);
    struct work w;
    struct lanes p;
    const struct texture *x = w.texture = texture_of(op, t, m);
    if (!x)
        return NULL;
    const struct sampler *s = w.sampler = sampler_of(op, t, m);
    if (!s)
        return NULL;
    const struct image *image = &x->level[0];
    w.lanes = &p;
    w.compares = m->reference;
    w.in_order = image->even8 && !m->reference && !m->gathers;
    take_all(op, t, m, x->type, &p);
    double lod[LANES];
    levels_of_lanes(&w, m, lod);
    four colours[LANES];
    if (m->query) {
        const struct image numbers = {.integer = 0};
        details(&w, lod, on, colours);
        respond(op, t, m, &numbers, on, colours, as_they_are);
        return op + 1;
    }
    uint8_t ordered[4];
    const uint8_t *selects = m->gathers ? as_they_are : image->swizzle;
    if (w.in_order) {
        in_order(image, ordered);
        selects = ordered;
    }
    begin(&w.tally, t->slot, image->bytes);
    if (likely(!m->gathers && is_usual(&w, m))) {
        if (unlikely(!usual(&w, m->width, on, colours)))
            return missed(op, t, &w.tally);
        settle(&w.tally);
        respond(op, t, m, image, on, colours, selects);
        return op + 1;
    }
    struct stretch along;
    const int stretches = unlikely(s->anisotropy > 1 && x->type == D2 && !m->gathers && !m->zero && !m->level);
    if (stretches)
        stretch_of(&w, m, &along);
    const int channel = m->gathers ? image->swizzle[header_dword(op, t, m, 2) >> 16 & 3] : 0;
    for (uint32_t left = on; left; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        double detail = m->zero ? 0 : biased(s, lod[lane]);
        if (!m->zero)
            detail = clip_to(detail, s->least, s->least > s->most ? s->least : s->most);
        if (m->least)
            detail = p.least[lane] > detail ? p.least[lane] : detail;
        int there = 1;
        if (m->gathers && channel < 4)
            colours[lane] = (four){0, 0, 0, 0} + (double)(channel == 1);
        else if (m->gathers)
            there = gathered(&w, lane, detail, channel - 4, &colours[lane]);
        else if (stretches)
            there = stretched(&w, &p, &along, lane, detail, &colours[lane]);
        else
            there = filtered(&w, lane, detail, &colours[lane]);
        if (unlikely(!there))
            return missed(op, t, &w.tally);
    }
    settle(&w.tally);
    respond(op, t, m, image, on, colours, selects);
    return op + 1;
}
