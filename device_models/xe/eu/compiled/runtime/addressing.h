/* Where coordinates lead, what lies beyond an edge, and comparisons (compute/filtering.py). */
#ifndef EU_ADDRESSING_H
#define EU_ADDRESSING_H

#include "level_of_detail.h"

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

#endif
