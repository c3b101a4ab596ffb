/* What a thread of the pixel shader finds in its registers, exactly as render/pixel_shader.py packs it for many threads. */
#pragma GCC optimize("O3")
#include "raster.h"

/* Where in the pixels of a place something is interpolated: at their centres, centroids, or the sample that is shaded. */
enum where { CENTRE = 0, CENTROID = 1, SAMPLE = 2 };

static inline void offsets_of(const struct draw *d, int64_t place, int where, four *right, four *down)
{
    *right = *down = everywhere(SUBPIXELS / 2);
    if (where == SAMPLE && d->per_sample) {
        *right = everywhere(d->sample_x[d->quad_sample[place]]);
        *down = everywhere(d->sample_y[d->quad_sample[place]]);
    } else if (where == CENTROID && d->samples > 1) {
        const unsigned all = (1u << d->samples) - 1;
        for (int n = 0; n < 4; n++) {
            const unsigned coverage = d->quad_coverage[place] >> 16 * n & 0xffff;
            if (!coverage || coverage == all)
                continue;
            (*right)[n] = d->sample_x[__builtin_ctz(coverage)];
            (*down)[n] = d->sample_y[__builtin_ctz(coverage)];
        }
    }
}

/* Offsets of all lanes in their pixels, in sixteenths: a byte of x and one of y. */
static void load_offsets(const struct draw *d, uint16_t *words)
{
    memset(words, 0, 64);
    for (int64_t place = 0; place < d->width / 4; place++) {
        if (!d->quad_there[place])
            continue;
        four right, down;
        offsets_of(d, place, d->position_offsets == 3 ? SAMPLE : CENTROID, &right, &down);
        for (int n = 0; n < 4; n++)
            words[4 * place + n] = (uint16_t)((int64_t)(right[n] * 16 / SUBPIXELS) | (int64_t)(down[n] * 16 / SUBPIXELS) << 8);
    }
}

/* Registers of the thread, in the order in which they lie (pixel_shader.py). */
void eu_load_registers(struct draw *d)
{
    struct thread *t = &d->threads->threads[0];
    const int64_t halves = d->width / 16, most = REGISTER_FILE / 64;
    int64_t at = 0;
    uint32_t mask = 0;
    /* Places without a quad are zero. */
    four share[6][2][QUADS], depth[QUADS], w[QUADS];
    /* With one sample there is one place in a pixel. */
    const int wheres = d->samples > 1 ? 3 : 1, of_depth = d->per_sample ? SAMPLE : CENTRE;
    const uint32_t modes = d->samples > 1 ? d->modes : (uint32_t)((d->modes & 7) != 0) | (uint32_t)((d->modes & 0x38) != 0) << 3;
#define REGISTER(n) ((uint32_t *)(t->storage + 64 * (n)))
    for (int64_t half = 0; half < halves; half++) {
        uint32_t *r = REGISTER(at++);
        memcpy(r, d->header, 64);
        uint16_t *words = (uint16_t *)r;
        uint32_t live = 0, there = 0;
        for (int quad = 0; quad < 4; quad++) {
            const int64_t place = 4 * half + quad;
            uint32_t info = 0;
            if (d->quad_there[place]) {
                const int64_t primitive = d->quad_primitive[place];
                info = (uint32_t)(d->layer[primitive] & 0x7ff) | (uint32_t)d->viewport[primitive] << 12;
                if (!d->front[primitive])
                    info |= 0x800;
                words[20 + 2 * quad] = (uint16_t)d->quad_x[place];
                words[21 + 2 * quad] = (uint16_t)d->quad_y[place];
                live |= pixels_of(d->quad_coverage[place]) << 4 * quad;
                if (d->per_sample)
                    r[8] = (r[8] & ~(15u << 4 * quad)) | d->quad_sample[place] << 4 * quad;
                there |= 15u << 4 * quad;
            } else {
                words[20 + 2 * quad] = words[21 + 2 * quad] = 0;
            }
            if (!(quad & 1))
                words[18 + quad / 2] = (uint16_t)info;
        }
        r[15] = live;
        mask |= (d->whole_quads ? there : live) << 16 * half;
    }
    for (int64_t place = 0; place < 4 * halves; place++)
        for (int where = 0; where < wheres; where++) {
            const int planes = modes >> where & 1, flat = modes >> (where + 3) & 1;
            const int deep = where == of_depth || wheres == 1;
            if (!planes && !flat && !deep)
                continue;
            four e[3], right, down, first = everywhere(0), second = first, z = first, by_w = first, across = first, below = first;
            if (d->quad_there[place]) {
                const int64_t primitive = d->quad_primitive[place];
                const double *q = d->perspective + 3 * primitive, *n = d->screen + 3 * primitive;
                offsets_of(d, place, where, &right, &down);
                edges_at(d, primitive, d->quad_x[place], d->quad_y[place], right, down, e);
                if (planes) {
                    const four a = e[0] * q[0], b = e[1] * q[1], all = (a + b) + e[2] * q[2];
                    first = a / all;
                    second = b / all;
                }
                if (flat) {
                    const four a = e[0] * n[0], b = e[1] * n[1], all = (a + b) + e[2] * n[2];
                    across = a / all;
                    below = b / all;
                }
                if (deep && d->source_depth)
                    z = interpolated(e, d->depth + 3 * primitive, n);
                if (deep && d->source_w)
                    by_w = interpolated(e, n, q);
            }
            share[where][0][place] = first;
            share[where][1][place] = second;
            share[where + 3][0][place] = across;
            share[where + 3][1][place] = below;
            if (deep) {
                depth[place] = z;
                w[place] = by_w;
            }
        }
    for (int64_t half = 0; half < halves; half++) {
#define COLUMN(values)                                                             \
    do {                                                                           \
        if (at < most) {                                                           \
            float *to = (float *)REGISTER(at);                                     \
            for (int n = 0; n < 16; n++)                                           \
                to[n] = (float)(values)[4 * half + n / 4][n % 4];                  \
        }                                                                          \
        at++;                                                                      \
    } while (0)
        for (int mode = 0; mode < 6; mode++)
            if (d->modes >> mode & 1) {
                const int kept = wheres > 1 ? mode : mode / 3 * 3;
                COLUMN(share[kept][0]);
                COLUMN(share[kept][1]);
            }
        if (d->source_depth)
            COLUMN(depth);
        if (d->source_w)
            COLUMN(w);
        if (d->input_coverage) {
            if (at < most)
                for (int n = 0; n < 16; n++) {
                    const int64_t place = 4 * half + n / 4;
                    REGISTER(at)[n] = d->quad_there[place] ? d->quad_coverage[place] >> 16 * (n % 4) & 0xffff : 0;
                }
            at++;
        }
        if (half)
            continue;
        if (d->position_offsets) {
            if (at < most)
                load_offsets(d, (uint16_t *)REGISTER(at));
            at++;
        }
        if (d->sample_offsets) {
            if (at < most) {
                uint8_t *bytes = (uint8_t *)REGISTER(at);
                memset(bytes, 0, 64);
                for (int64_t n = 0; n < d->samples; n++) {
                    bytes[n] = (uint8_t)(d->sample_x[n] * 16 / SUBPIXELS);
                    bytes[16 + n] = (uint8_t)(d->sample_y[n] * 16 / SUBPIXELS);
                }
            }
            at++;
        }
    }
    const int64_t first = d->first_register > 1 ? d->first_register : 1;
    for (; at < first; at++)
        if (at < most)
            memset(REGISTER(at), 0, 64);
    at = first;
    for (int64_t n = 0; n < d->constant_registers; n++, at++)
        if (at < most)
            memcpy(REGISTER(at), d->constants + 64 * n, 64);
    for (int64_t number = 0; number < d->data_registers; number++)
        for (int64_t group = 0; group < d->polygons; group++, at++) {
            if (at >= most)
                continue;
            const int64_t primitive = d->group_primitive[group < d->groups ? group : d->groups - 1];
            memcpy(REGISTER(at), d->data + 16 * (primitive * d->data_registers + number), 64);
        }
    memcpy(t->storage + d->arf_at, d->arfs, d->arf_bytes);
    memcpy(t->storage + d->arf_at + d->dispatch_at, &mask, 4);
    const uint32_t state[4] = {0, 0, mask, mask}; /* sr0: the masks that find live channels of quads that are not whole */
    memcpy(t->storage + STATE, state, sizeof state);
    for (int lane = 0; lane < LANES; lane++)
        t->places[lane] = mask >> lane & 1 ? d->entry : ENDED;
    memset(t->depths, 0, LANES * sizeof *t->depths);
    t->kernel = d->kernel;
    t->constants = d->kernel->constants;
    t->slot = d->threads;
    t->state = mask ? RUNNING : DONE;
    t->active = mask;
    t->waiting = 0;
    t->next_wait = ENDED;
    t->at = eu_op_at(d->kernel, d->entry);
    t->ready = t->at != NULL;
    t->signalled = t->notifications = 0;
    d->threads->alive = 1;
    struct output *out = d->output;
    out->alive = out->has_second = out->has_mask = out->has_depth = 0;
    memset(out->written, 0, sizeof out->written);
}
