/* Parameters of the sampler's messages, by lane (compute/sampler_parameters.py). */
#ifndef EU_SAMPLER_PARAMETERS_H
#define EU_SAMPLER_PARAMETERS_H

#include "sampler.h"

struct lanes {
    double u[LANES], v[LANES], r[LANES], layer[LANES];
    double reference[LANES], detail[LANES], least[LANES];
    double slope[2][2][LANES]; /* of u and v; those of r are not looked at, nor in numpy */
    double offset[3][LANES];   /* in texels */
};

static const char *parameter_at(const struct op *op, struct thread *t, const struct sample *m, uint32_t at)
{
    if (at + m->width * (m->half_parameters ? 2 : 4) > m->length)
        return NULL;
    if (at < m->length0)
        return m->null0 ? NULL : t->storage + op->source[0] + at;
    return m->null1 ? NULL : t->storage + m->source1 + at - m->length0;
}

static void take(const struct op *op, struct thread *t, const struct sample *m, int *next, int integer, double *values)
{
    const char *from = parameter_at(op, t, m, (m->header ? 64 : 0) + *next * m->parameter_bytes);
    ++*next;
    if (!from) {
        memset(values, 0, m->width * sizeof *values);
        return;
    }
    for (int lane = 0; lane < m->width; lane++) {
        if (m->half_parameters) {
            uint16_t bits;
            memcpy(&bits, from + 2 * lane, 2);
            values[lane] = integer ? (double)(int16_t)bits : (double)f_of_hf(bits);
        } else if (integer) {
            int32_t number;
            memcpy(&number, from + 4 * lane, 4);
            values[lane] = number;
        } else {
            float number;
            memcpy(&number, from + 4 * lane, 4);
            values[lane] = number;
        }
    }
}

static uint32_t header_dword(const struct op *op, const struct thread *t, const struct sample *m, int dword)
{
    uint32_t value = 0;
    if (m->header && !m->null0)
        memcpy(&value, t->storage + op->source[0] + 4 * dword, 4);
    return value;
}

static int nibble(uint32_t word, int shift)
{
    return (int)(word >> shift & 7) - (int)(word >> shift & 8);
}

/* Level or bias of a cube, with the array index in its lowest bits (Mesa brw_nir_lower_texture.c:pack_lod_and_array_index). */
static void unpack_index(double *detail, double *layer, int width)
{
    enum { INDEX = 0x1ff };
    for (int lane = 0; lane < width; lane++) {
        float value = (float)detail[lane];
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        layer[lane] = bits & INDEX;
        bits &= ~(uint32_t)INDEX;
        memcpy(&value, &bits, sizeof value);
        detail[lane] = value;
    }
}

/* A parameter's bits. */
static void take_words(const struct op *op, struct thread *t, const struct sample *m, int *next, uint32_t *words)
{
    const char *from = parameter_at(op, t, m, (m->header ? 64 : 0) + *next * m->parameter_bytes);
    ++*next;
    if (from)
        memcpy(words, from, m->width * sizeof *words);
    else
        memset(words, 0, m->width * sizeof *words);
}

/* Offsets of every lane, and what is in the same parameter. */
static void unpack_offsets(const struct sample *m, enum parameter kind, const uint32_t *words, struct lanes *p)
{
    enum { PACKED = 0xfff };
    const int bits = m->offset_bits, down = kind == OFFSETS_AND_R ? 12 : 0;
    for (int lane = 0; lane < m->width; lane++) {
        if (kind == OFFSETS_AND_R)
            p->r[lane] = words[lane] & PACKED;
        if (kind == OFFSETS_AND_DETAIL) {
            const uint32_t rest = words[lane] & ~(uint32_t)PACKED;
            float value;
            memcpy(&value, &rest, sizeof value);
            p->detail[lane] = value;
        }
        for (int axis = 0; axis < m->offset_axes; axis++) {
            const int32_t number = words[lane] >> down >> axis * bits & ((1 << bits) - 1);
            p->offset[axis][lane] += number >> (bits - 1) ? number - (1 << bits) : number;
        }
    }
}

/* All parameters of a message that samples; those that it does not have are zero. */
static void take_all(const struct op *op, struct thread *t, const struct sample *m, int type, struct lanes *p)
{
    const uint32_t word = header_dword(op, t, m, 2);
    const int width = m->width;
    for (int axis = 0; axis < 3; axis++)
        for (int lane = 0; lane < width; lane++)
            p->offset[axis][lane] = nibble(word, 8 - 4 * axis);
    double *to[PARAMETERS] = {[PARAMETER_U] = p->u, [PARAMETER_V] = p->v, [PARAMETER_R] = p->r, [ELEMENT] = p->layer,
                              [REFERENCE] = p->reference, [DETAIL] = p->detail, [LEAST] = p->least,
                              [U_RIGHT] = p->slope[0][0], [U_DOWN] = p->slope[0][1], [V_RIGHT] = p->slope[1][0],
                              [V_DOWN] = p->slope[1][1]};
    memset(p->r, 0, width * sizeof *p->r);
    memset(p->layer, 0, width * sizeof *p->layer);
    int next = 0, unpacked = 0;
    for (int n = 0; m->parameters[n]; n++) {
        const enum parameter kind = m->parameters[n];
        if (kind >= OFFSETS) {
            uint32_t words[LANES];
            take_words(op, t, m, &next, words);
            unpack_offsets(m, kind, words, p);
        } else if (kind == ELEMENT && (unpacked || type != CUBE)) {
            next++;
        } else {
            take(op, t, m, &next, 0, to[kind]);
            if (kind == DETAIL && type == CUBE && m->packed && !m->half_parameters) {
                unpack_index(p->detail, p->layer, width);
                unpacked = 1;
            }
        }
    }
    if (type != CUBE)
        memcpy(p->layer, type == D1 ? p->v : p->r, width * sizeof *p->layer);
}

#endif
