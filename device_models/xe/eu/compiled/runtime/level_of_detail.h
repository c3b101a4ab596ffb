/* Faces of cubes, and levels of detail from the differences between lanes or from slopes (compute/sampler.py). */
#ifndef EU_LEVEL_OF_DETAIL_H
#define EU_LEVEL_OF_DETAIL_H

#include "sampler_parameters.h"

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

#endif
