/* A draw's pixels in the order of its primitives: which quads are covered, early tests, threads of the pixel shader, late
 * tests, blending; exactly as render/rasterizer.py, render/pixels.py and render/pixel_shader.py do it for many at once.
 *
 * One thread runs at a time, so what it writes is there before the next begins, and its registers stay in the host's
 * cache.  Everything can stop for a page and go on where it was.
 */
#pragma GCC optimize("O3")
#include "raster.h"

enum { BAND_ROWS = 4 /* shift: rows of quads */ };
enum stage { FILL = 0, RUN = 1, FINISH = 2 };

/* Which of four pixels a primitive covers, of those `inside` its bounds, at a place in each. */
static inline unsigned covered_at(const struct draw *d, int64_t primitive, int64_t x, int64_t y, double right, double down,
                                  unsigned inside)
{
    if (d->rectangle[primitive]) {
        const double *extent = d->extent + 4 * primitive;
        for (int n = 0; n < 4; n++) {
            const double px = (double)((x + (n & 1)) * SUBPIXELS) + right, py = (double)((y + (n >> 1)) * SUBPIXELS) + down;
            if (!(px >= extent[0] && px < extent[2] && py >= extent[1] && py < extent[3]))
                inside &= ~(1u << n);
        }
        return inside;
    }
    four e[3];
    edges_at(d, primitive, x, y, everywhere(right), everywhere(down), e);
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

/* A sample of each pixel, as coverage has it. */
static inline uint64_t spread(uint64_t pixels)
{
    return (pixels & 1) | (pixels & 2) << 15 | (pixels & 4) << 30 | (pixels & 8) << 45;
}

static inline uint64_t covered(const struct draw *d, int64_t primitive, int64_t x, int64_t y)
{
    const int64_t *b = d->bounds + 4 * primitive;
    unsigned inside = 0;
    for (int n = 0; n < 4; n++) {
        const int64_t px = x + (n & 1), py = y + (n >> 1);
        inside |= (unsigned)(px >= b[0] && px < b[2] && py >= b[1] && py < b[3]) << n;
        if (unlikely(d->stipple != NULL) && !(d->stipple[py & 31] >> (31 - (px & 31)) & 1))
            inside &= ~(1u << n);
    }
    uint64_t found = 0;
    for (int64_t sample = 0; sample < d->samples; sample++)
        if (d->sample_mask >> sample & 1)
            found |= spread(covered_at(d, primitive, x, y, d->sample_x[sample], d->sample_y[sample], inside)) << sample;
    return found;
}

static inline double clamped(const struct draw *d, int64_t primitive, double depth)
{
    return clip_to(no_nan(depth), d->range[2 * primitive], d->range[2 * primitive + 1]);
}

static inline four depths_at(const struct draw *d, int64_t primitive, int64_t x, int64_t y, int64_t sample)
{
    four e[3];
    edges_at(d, primitive, x, y, everywhere(d->sample_x[sample]), everywhere(d->sample_y[sample]), e);
    const four depth = interpolated(e, d->depth + 3 * primitive, d->screen + 3 * primitive);
    return d->offset ? depth + d->offset[primitive] : depth;
}

/* What of a quad passes; from its sample `tested` on, with what has passed before in `tests_passed`. 0: a page is missing. */
static int test(struct draw *d, int64_t primitive, int64_t x, int64_t y, uint64_t coverage, const float *depth, uint64_t *left)
{
    if (!d->depth_test.on && !d->stencil_test.on) {
        d->passed += __builtin_popcountll(coverage);
        *left = coverage;
        return 1;
    }
    for (int64_t sample = d->tested >> 2; sample < d->samples; sample++, d->tested = 4 * sample) {
        if (!(coverage & OF_ALL_PIXELS << sample))
            continue;
        four depths = {0, 0, 0, 0};
        if (!depth)
            depths = depths_at(d, primitive, x, y, sample);
        for (int n = d->tested & 3; n < 4; n++, d->tested++) {
            const uint64_t bit = 1ull << (16 * n + sample);
            if (!(coverage & bit))
                continue;
            const double z = clamped(d, primitive, depth ? (double)depth[n] : depths[n]);
            const int passes
                = eu_test_pixel(d, x + (n & 1), y + (n >> 1), d->layer[primitive], sample, z, d->front[primitive]);
            if (unlikely(passes < 0))
                return 0;
            d->passed += passes;
            if (passes)
                d->tests_passed |= bit;
        }
    }
    *left = d->tests_passed;
    d->tested = d->tests_passed = 0;
    return 1;
}

/* Quads of the next thread, in groups of one primitive: FILLED, or a page is missing, or the budget is used up. */
enum filled { MISSING = 0, FILLED = 1, TIRED = 2 };

static inline void place(struct draw *d, int64_t of_group, int64_t x, int64_t y, uint64_t coverage, int64_t sample)
{
    const int64_t place = d->quads++;
    d->quad_primitive[place] = d->primitive;
    d->quad_x[place] = (int32_t)x;
    d->quad_y[place] = (int32_t)y;
    d->quad_coverage[place] = coverage;
    d->quad_sample[place] = (uint8_t)sample;
    d->quad_there[place] = 1;
    d->group_primitive[place / of_group] = d->primitive;
    d->groups = place / of_group + 1;
    d->shaded += __builtin_popcount(pixels_of(coverage));
}

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
                uint64_t coverage = d->unplaced;
                if (likely(!coverage)) {
                    coverage = covered(d, d->primitive, x, y);
                    if (!coverage)
                        continue;
                    if (d->quads == all)
                        return FILLED;
                    if (d->early && unlikely(!test(d, d->primitive, x, y, coverage, NULL, &coverage)))
                        return MISSING;
                    if (!coverage || !d->kernel)
                        continue;
                }
                if (likely(!d->per_sample)) {
                    place(d, of_group, x, y, coverage, 0);
                    continue;
                }
                for (; d->placed < d->samples; d->placed++) {
                    const uint64_t part = coverage & OF_ALL_PIXELS << d->placed;
                    if (part && d->quads == all) {
                        d->unplaced = coverage;
                        return FILLED;
                    }
                    if (part)
                        place(d, of_group, x, y, part, d->placed);
                }
                d->placed = 0;
                d->unplaced = 0;
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

/* What is left after the shader: masks, late tests, blending. 0: a page is missing. */
static int finish(struct draw *d)
{
    const struct output *out = d->output;
    const int64_t places = d->width / 4;
    /* Late tests of all quads come before what is written. */
    for (; !d->early && d->tested_late < places; d->tested_late++) {
        const int64_t place = d->tested_late;
        if (!d->quad_there[place])
            continue;
        const uint64_t coverage = d->quad_coverage[place];
        uint64_t left = 0;
        if (coverage
            && unlikely(!test(d, d->quad_primitive[place], d->quad_x[place], d->quad_y[place], coverage,
                              out->has_depth ? out->depth + 4 * place : NULL, &left)))
            return 0;
        d->quad_coverage[place] = left;
    }
    for (; d->target < TARGETS; d->target++, d->lane = 0) {
        const struct target *target = &d->targets[d->target];
        const uint32_t written = out->written[d->target];
        if (!written || !target->present)
            continue;
        uint32_t packed[LANES];
        const int is_packed = eu_is_packed(target);
        if (is_packed)
            eu_pack8(&target->image, out->colours[d->target], packed);
        for (; d->lane < d->width; d->lane++, d->sample = 0) {
            const int64_t lane = d->lane, place = lane >> 2;
            if (!(written >> lane & 1) || !d->quad_there[place])
                continue;
            uint32_t samples = d->quad_coverage[place] >> 16 * (lane & 3) & 0xffff & ~0u << d->sample;
            if (!samples)
                continue;
            const int64_t x = d->quad_x[place] + (lane & 1), y = d->quad_y[place] + (lane >> 1 & 1);
            const int64_t layer = d->layer[d->quad_primitive[place]];
            if (layer >= target->layers || !image_has(&target->image, x, y, layer))
                continue;
            if (is_packed) {
                for (; samples; samples &= samples - 1) {
                    d->sample = __builtin_ctz(samples);
                    if (unlikely(!eu_write_packed(d, target, x, y, layer, d->sample, packed[lane])))
                        return 0;
                }
                continue;
            }
            float colour[4], second[4];
            for (int channel = 0; channel < 4; channel++) {
                memcpy(&colour[channel], &out->colours[d->target][channel][lane], 4);
                memcpy(&second[channel], &out->second[d->target][channel][lane], 4);
            }
            const float *other = out->has_second >> d->target & 1 ? second : NULL;
            for (; samples; samples &= samples - 1) {
                d->sample = __builtin_ctz(samples);
                if (unlikely(!eu_write_pixel(d, target, x, y, layer, d->sample, colour, other)))
                    return 0;
            }
        }
    }
    return 1;
}

/* How much an antialiased line covers of a pixel. */
static double share_of(const struct draw *d, int64_t place, int n)
{
    const double x = (double)((d->quad_x[place] + (n & 1)) * SUBPIXELS + SUBPIXELS / 2);
    const double y = (double)((d->quad_y[place] + (n >> 1)) * SUBPIXELS + SUBPIXELS / 2);
    double share = 1;
    for (int part = 0; part < 2; part++) {
        const double *a = d->smooth + 8 * d->quad_primitive[place] + 4 * part;
        share *= clip_to(a[3] - fabs(a[0] * x + a[1] * y + a[2]), 0, 1);
    }
    return share;
}

/* Alpha of antialiased lines. */
static void smooth(struct draw *d)
{
    struct output *out = d->output;
    for (int64_t lane = 0; lane < d->width; lane++) {
        if (!d->quad_there[lane >> 2])
            continue;
        const float share = (float)share_of(d, lane >> 2, lane & 3);
        for (int target = 0; target < TARGETS; target++)
            if (out->written[target] >> lane & 1) {
                float alpha;
                memcpy(&alpha, &out->colours[target][3][lane], 4);
                alpha *= share;
                memcpy(&out->colours[target][3][lane], &alpha, 4);
            }
    }
}

/* Coverage as the shader has left it. */
static void leave_to(struct draw *d)
{
    const struct output *out = d->output;
    const int looks_at_alpha = (d->alpha_test || d->alpha_to_coverage) && out->written[0];
    for (int64_t place = 0; place < d->width / 4; place++) {
        if (!d->quad_there[place])
            continue;
        uint64_t coverage = d->quad_coverage[place] & spread(out->alive >> 4 * place & 15) * 0xffff;
        for (int n = 0; n < 4 && (out->has_mask || looks_at_alpha); n++) {
            const int64_t lane = 4 * place + n;
            uint64_t left = out->has_mask ? out->mask[lane] : 0xffff;
            if (looks_at_alpha) {
                float alpha = 0;
                if (out->written[0] >> lane & 1)
                    memcpy(&alpha, &out->colours[0][3][lane], 4);
                if (d->alpha_test && !eu_compare(d->alpha_function, (double)alpha, d->alpha_reference))
                    left = 0;
                if (d->alpha_to_coverage)
                    left &= (1u << (int)rint(clip_to(no_nan(alpha), 0, 1) * (double)d->samples)) - 1;
            }
            coverage &= ~(0xffffull << 16 * n) | left << 16 * n;
        }
        d->quad_coverage[place] = coverage;
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
    forget_recent(d->threads);
    forget_recent(d->fixed);
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
            eu_load_registers(d);
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
            if (unlikely(d->smooth != NULL))
                smooth(d);
            leave_to(d);
            d->stage = FINISH;
            d->tested_late = d->target = d->lane = d->sample = 0;
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
