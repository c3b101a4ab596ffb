/* The sampler: levels of detail, addressing, filters, comparison, exactly as compute/sampler.py and compute/filtering.py
 * compute them; a test compares the two bit by bit. */
#pragma GCC optimize("O3")
#include "usual_filter.h"

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
