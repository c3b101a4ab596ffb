/* A draw's pixels in the order of its primitives: which quads are covered, early tests, threads of the pixel shader, late
 * tests, blending; exactly as render/rasterizer.py, render/pixels.py and render/pixel_shader.py do it for many at once.
 *
 * One thread runs at a time, so what it writes is there before the next begins, and its registers stay in the host's
 * cache.  Everything can stop for a page and go on where it was.
 */
#pragma GCC optimize("O3")
#include "draw.h"

enum { SUBPIXELS = 256, BAND_ROWS = 4 /* shift: rows of quads */ };
enum stage { FILL = 0, RUN = 1, FINISH = 2 };

/* The three edge functions at the four pixels of a quad. */
static inline void edges_at(const struct draw *d, int64_t primitive, int64_t x, int64_t y, double offset, four values[3])
{
    const double *e = d->edges + 9 * primitive;
    const double left = (double)(x * SUBPIXELS) + offset, right = (double)((x + 1) * SUBPIXELS) + offset;
    const double top = (double)(y * SUBPIXELS) + offset, low = (double)((y + 1) * SUBPIXELS) + offset;
    const four px = {left, right, left, right}, py = {top, top, low, low};
    for (int n = 0; n < 3; n++)
        values[n] = e[3 * n] * px + e[3 * n + 1] * py + e[3 * n + 2];
}

static inline unsigned covered(const struct draw *d, int64_t primitive, int64_t x, int64_t y)
{
    const int64_t *b = d->bounds + 4 * primitive;
    unsigned inside = 0;
    for (int n = 0; n < 4; n++) {
        const int64_t px = x + (n & 1), py = y + (n >> 1);
        inside |= (unsigned)(px >= b[0] && px < b[2] && py >= b[1] && py < b[3]) << n;
    }
    if (d->rectangle[primitive]) {
        const double *extent = d->extent + 4 * primitive;
        for (int n = 0; n < 4; n++) {
            const double px = (double)((x + (n & 1)) * SUBPIXELS) + 128.0, py = (double)((y + (n >> 1)) * SUBPIXELS) + 128.0;
            if (!(px >= extent[0] && px < extent[2] && py >= extent[1] && py < extent[3]))
                inside &= ~(1u << n);
        }
        return inside;
    }
    four e[3];
    edges_at(d, primitive, x, y, 128.0, e);
    const uint8_t *inclusive = d->inclusive + 3 * primitive;
    for (int k = 0; k < 3; k++)
        for (int n = 0; n < 4; n++)
            if (!(e[k][n] > 0 || (e[k][n] == 0 && inclusive[k])))
                inside &= ~(1u << n);
    if (d->plane_count && inside) {
        const double *q = d->perspective + 3 * primitive, *planes = d->planes + 3 * d->plane_count * primitive;
        for (int64_t plane = 0; plane < d->plane_count; plane++) {
            const double *p = planes + plane;
            const four distance = (e[0] * q[0] * p[0] + e[1] * q[1] * p[d->plane_count]) + e[2] * q[2] * p[2 * d->plane_count];
            for (int n = 0; n < 4; n++)
                if (distance[n] < 0)
                    inside &= ~(1u << n);
        }
    }
    return inside;
}

static inline double clamped(const struct draw *d, int64_t primitive, double depth)
{
    return clip_to(no_nan(depth), d->range[2 * primitive], d->range[2 * primitive + 1]);
}

/* n / q for weights n and q of the edge functions. */
static inline four interpolated(const four e[3], const double *n, const double *q)
{
    return ((e[0] * n[0] + e[1] * n[1]) + e[2] * n[2]) / ((e[0] * q[0] + e[1] * q[1]) + e[2] * q[2]);
}

static inline four depths_at(const struct draw *d, int64_t primitive, int64_t x, int64_t y)
{
    four e[3];
    edges_at(d, primitive, x, y, 128.0, e);
    const four depth = interpolated(e, d->depth + 3 * primitive, d->screen + 3 * primitive);
    return d->offset ? depth + d->offset[primitive] : depth;
}

/* What of a quad passes; from pixel `done` on, with what has passed before in `passed`. 0: a page is missing. */
static int tested(struct draw *d, int64_t primitive, int64_t x, int64_t y, unsigned coverage, const float *depth, unsigned *left)
{
    if (!d->depth_test.on) {
        d->passed += __builtin_popcount(coverage);
        *left = coverage;
        return 1;
    }
    four depths = {0, 0, 0, 0};
    if (!depth)
        depths = depths_at(d, primitive, x, y);
    /* `done`: the pixels that were tested before a page was missing, and what passed of them. */
    for (int n = d->done & 7; n < 4; n++, d->done++) {
        if (!(coverage >> n & 1))
            continue;
        const double z = clamped(d, primitive, depth ? (double)depth[n] : depths[n]);
        const int passes = eu_test_pixel(d, x + (n & 1), y + (n >> 1), d->layer[primitive], z);
        if (unlikely(passes < 0))
            return 0;
        d->passed += passes;
        d->done |= passes << (8 + n);
    }
    *left = d->done >> 8 & 15;
    d->done = 0;
    return 1;
}

/* Quads of the next thread, in groups of one primitive: FILLED, or a page is missing, or the budget is used up. */
enum filled { MISSING = 0, FILLED = 1, TIRED = 2 };

static int fill(struct draw *d, int64_t *budget)
{
    const int64_t of_group = d->width / 4 / d->polygons, all = d->width / 4;
    for (; d->primitive < d->primitives; d->primitive++, d->y = INT64_MIN) {
        const int64_t *b = d->bounds + 4 * d->primitive;
        const int64_t left = b[0] >> 1, right = (b[2] + 1) >> 1, end = (b[3] + 1) >> 1;
        if (d->y == INT64_MIN) {
            d->y = b[1] >> 1;
            d->x = left;
            if (d->quads % of_group)
                d->quads += of_group - d->quads % of_group;
        }
        for (; d->y < end; d->y++, d->x = left) {
            if (d->bands > 1 && (d->y >> BAND_ROWS) % d->bands != d->band)
                continue;
            if (unlikely(*budget <= 0))
                return TIRED;
            if (d->x == left)
                *budget -= 1 + (right - left) / 2;
            for (; d->x < right; d->x++) {
                const int64_t x = 2 * d->x, y = 2 * d->y;
                unsigned coverage = covered(d, d->primitive, x, y);
                if (!coverage)
                    continue;
                if (d->quads == all)
                    return FILLED;
                if (d->early && unlikely(!tested(d, d->primitive, x, y, coverage, NULL, &coverage)))
                    return MISSING;
                if (!coverage || !d->kernel)
                    continue;
                const int64_t place = d->quads++;
                d->quad_primitive[place] = d->primitive;
                d->quad_x[place] = (int32_t)x;
                d->quad_y[place] = (int32_t)y;
                d->quad_coverage[place] = (uint8_t)coverage;
                d->quad_there[place] = 1;
                d->group_primitive[place / of_group] = d->primitive;
                d->groups = place / of_group + 1;
                d->shaded += __builtin_popcount(coverage);
            }
        }
        if (d->quads == all) {
            d->primitive++;
            d->y = INT64_MIN;
            return FILLED;
        }
    }
    return FILLED;
}

/* Registers of the thread, in the order in which they lie (pixel_shader.py). */
static void load_registers(struct draw *d)
{
    struct thread *t = &d->threads->threads[0];
    const int64_t halves = d->width / 16, most = REGISTER_FILE / 64;
    int64_t at = 0;
    uint32_t mask = 0;
    /* Places without a quad are zero. */
    four share[2][QUADS], depth[QUADS], w[QUADS], screen[2][QUADS];
    const int wants_perspective = d->modes & 7, wants_screen = d->modes & 0x38;
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
                live |= d->quad_coverage[place] << 4 * quad;
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
    for (int64_t place = 0; place < 4 * halves; place++) {
        const four none = {0, 0, 0, 0};
        share[0][place] = share[1][place] = screen[0][place] = screen[1][place] = depth[place] = w[place] = none;
        if (!d->quad_there[place])
            continue;
        const int64_t primitive = d->quad_primitive[place];
        const double *q = d->perspective + 3 * primitive, *n = d->screen + 3 * primitive;
        four e[3];
        edges_at(d, primitive, d->quad_x[place], d->quad_y[place], 128.0, e);
        if (wants_perspective) {
            const four a = e[0] * q[0], b = e[1] * q[1], all = (a + b) + e[2] * q[2];
            share[0][place] = a / all;
            share[1][place] = b / all;
        }
        if (wants_screen) {
            const four a = e[0] * n[0], b = e[1] * n[1], all = (a + b) + e[2] * n[2];
            screen[0][place] = a / all;
            screen[1][place] = b / all;
        }
        if (d->source_depth)
            depth[place] = interpolated(e, d->depth + 3 * primitive, n);
        if (d->source_w)
            w[place] = interpolated(e, n, q);
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
                COLUMN((mode < 3 ? share : screen)[0]);
                COLUMN((mode < 3 ? share : screen)[1]);
            }
        if (d->source_depth)
            COLUMN(depth);
        if (d->source_w)
            COLUMN(w);
        if (d->input_coverage) {
            if (at < most)
                for (int n = 0; n < 16; n++) {
                    const int64_t place = 4 * half + n / 4;
                    REGISTER(at)[n] = d->quad_there[place] ? d->quad_coverage[place] >> (n % 4) & 1 : 0;
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
            memcpy(REGISTER(at), d->data + 15 * (primitive * d->data_registers + number), 60);
            REGISTER(at)[15] = 0;
        }
    memcpy(t->storage + d->arf_at, d->arfs, d->arf_bytes);
    memcpy(t->storage + d->arf_at + d->dispatch_at, &mask, 4);
    memset(t->storage + STATE, 0, 4);
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

/* What is left after the shader: masks, late tests, blending. 0: a page is missing. */
static int finish(struct draw *d)
{
    const struct output *out = d->output;
    /* Late tests of all quads come before what is written: a step for each quad, then one for each target, quad and pixel. */
    const int64_t places = d->width / 4, tests = d->early ? 0 : places;
    for (; d->x_done < tests; d->x_done++) {
        const int64_t place = d->x_done;
        if (!d->quad_there[place])
            continue;
        const unsigned coverage = d->quad_coverage[place];
        unsigned left = 0;
        if (coverage
            && unlikely(!tested(d, d->quad_primitive[place], d->quad_x[place], d->quad_y[place], coverage,
                                out->has_depth ? out->depth + 4 * place : NULL, &left)))
            return 0;
        d->quad_coverage[place] = (uint8_t)left;
    }
    for (int64_t step = d->x_done - tests;; step++, d->x_done++) {
        const int64_t number = step / d->width, lane = step % d->width;
        if (number >= TARGETS)
            return 1;
        if (!lane && (!out->written[number] || !d->targets[number].present)) {
            step += d->width - 1;
            d->x_done += d->width - 1;
            continue;
        }
        if (!(out->written[number] >> lane & 1) || !d->quad_there[lane >> 2] || !(d->quad_coverage[lane >> 2] >> (lane & 3) & 1))
            continue;
        const struct target *target = &d->targets[number];
        const int64_t x = d->quad_x[lane >> 2] + (lane & 1), y = d->quad_y[lane >> 2] + (lane >> 1 & 1);
        const int64_t layer = d->layer[d->quad_primitive[lane >> 2]];
        if (layer >= target->layers || !image_has(&target->image, x, y, layer))
            continue;
        float colour[4], second[4];
        for (int channel = 0; channel < 4; channel++) {
            memcpy(&colour[channel], &out->colours[number][channel][lane], 4);
            memcpy(&second[channel], &out->second[number][channel][lane], 4);
        }
        if (unlikely(!eu_write_pixel(d, target, x, y, layer, colour, out->has_second >> number & 1 ? second : NULL)))
            return 0;
    }
}

/* Coverage as the shader has left it. */
static void leave_to(struct draw *d)
{
    const struct output *out = d->output;
    for (int64_t place = 0; place < d->width / 4; place++) {
        if (!d->quad_there[place])
            continue;
        unsigned coverage = d->quad_coverage[place] & (out->alive >> 4 * place);
        for (int n = 0; n < 4; n++) {
            const int64_t lane = 4 * place + n;
            if (out->has_mask && !(out->mask[lane] & 1))
                coverage &= ~(1u << n);
            if (d->alpha_test && out->written[0]) {
                float alpha = 0;
                if (out->written[0] >> lane & 1)
                    memcpy(&alpha, &out->colours[0][3][lane], 4);
                if (!eu_compare(d->alpha_function, (double)alpha, d->alpha_reference))
                    coverage &= ~(1u << n);
            }
        }
        d->quad_coverage[place] = (uint8_t)coverage;
    }
}

static int must_return(const struct draw *d)
{
    return d->threads->stop && atomic_load_explicit(d->threads->stop, memory_order_relaxed);
}

/* Go on with a draw: RAN_OUT of its budget of ops, GONE when all is drawn, MISS of a page of the fixed functions (with culprit
 * 1) or of the thread, or what else a thread stops for. */
int eu_draw(struct draw *d, int64_t budget)
{
    struct thread *t = &d->threads->threads[0];
    memset(d->threads->recent, 0, sizeof d->threads->recent); /* the maps may have changed */
    memset(d->fixed->recent, 0, sizeof d->fixed->recent);
    t->ready = 0;
    d->threads->culprit = 0;
    for (;;) {
        const int stopped = must_return(d);
        if (unlikely(stopped || budget <= 0)) {
            if (d->stage == RUN && t->ready) {
                eu_leave(t);
                t->ready = 0;
            }
            return stopped ? STOPPED : RAN_OUT;
        }
        switch (d->stage) {
        case FILL:
            switch (fill(d, &budget)) {
            case MISSING:
                d->threads->culprit = 1;
                return MISS;
            case TIRED:
                continue;
            }
            if (!d->quads)
                return GONE;
            load_registers(d);
            d->stage = RUN;
            /* fall through */
        case RUN:
            if (t->state != DONE) {
                const int64_t used = eu_run_one(t, budget);
                budget -= used + 64;
                d->threads->executed += used;
                if (t->reason == RAN_OUT)
                    continue;
                if (t->state != DONE) {
                    if (t->reason == BARRIER) { /* nobody completes it: it waits for ever, as on hardware */
                        budget = 0;
                        continue;
                    }
                    return t->reason;
                }
            }
            leave_to(d);
            d->stage = FINISH;
            d->x_done = 0;
            /* fall through */
        default:
            if (unlikely(!finish(d))) {
                d->threads->culprit = 1;
                return MISS;
            }
            d->stage = FILL;
            d->quads = d->groups = 0;
            memset(d->quad_there, 0, sizeof d->quad_there);
        }
    }
}
