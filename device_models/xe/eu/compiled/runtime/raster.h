/* Quads of a primitive: its functions at places in their pixels (render/setup.py). */
#ifndef EU_RASTER_H
#define EU_RASTER_H

#include "draw.h"

enum { SUBPIXELS = 256 };

static inline four everywhere(double value)
{
    return (four){value, value, value, value};
}

/* The three edge functions in the four pixels of a quad, so far from their corners. */
static inline void edges_at(const struct draw *d, int64_t primitive, int64_t x, int64_t y, four right, four down, four values[3])
{
    const double *e = d->edges + 9 * primitive;
    const four px = (four){0, SUBPIXELS, 0, SUBPIXELS} + (double)(x * SUBPIXELS) + right;
    const four py = (four){0, 0, SUBPIXELS, SUBPIXELS} + (double)(y * SUBPIXELS) + down;
    for (int n = 0; n < 3; n++)
        values[n] = e[3 * n] * px + e[3 * n + 1] * py + e[3 * n + 2];
}

/* n / q for weights n and q of the edge functions. */
static inline four interpolated(const four e[3], const double *n, const double *q)
{
    return ((e[0] * n[0] + e[1] * n[1]) + e[2] * n[2]) / ((e[0] * q[0] + e[1] * q[1]) + e[2] * q[2]);
}

/* Pixels of which any sample is covered. */
static inline unsigned pixels_of(uint64_t coverage)
{
    unsigned found = 0;
    for (int n = 0; n < 4; n++)
        found |= (unsigned)((coverage >> 16 * n & 0xffff) != 0) << n;
    return found;
}

void eu_load_registers(struct draw *d);

#endif
