/* Render targets and the depth buffer, one pixel at a time: exactly as render/render_target.py, render/blend.py and
 * render/depth_stencil.py compute them; a test compares them. */
#pragma GCC optimize("O3")
#include "draw.h"

static inline void loaded(struct draw *d, struct count *count, uint32_t bytes, int first)
{
    d->load[d->loads].count = count;
    d->load[d->loads].bytes = bytes;
    d->load[d->loads++].first = first;
}

static inline void settle(struct draw *d)
{
    for (uint32_t n = 0; n < d->loads; n++)
        eu_count(d->fixed, d->load[n].count, d->load[n].first, d->load[n].bytes, READ);
    d->detours = 0;
}

static inline char *fixed_at(struct draw *d, uint64_t address, uint32_t bytes, int access)
{
    struct slot *s = d->fixed;
    const uint64_t number = (address >> 16) + 1;
    const int written = access & WRITE ? 1 : 0;
    const struct recent *recent = &s->recent[written][number & (RECENT - 1)];
    uint64_t size = 0x10000;
    if (recent->page != number) {
        recent = small_recent(s, written, address);
        size = 0x1000;
    }
    const uint64_t within = address & (size - 1);
    if (likely(recent && within + bytes <= size)) {
        if (access & WRITE)
            eu_count(s, recent->count, 1, bytes, WRITE);
        else
            loaded(d, recent->count, bytes, 1);
        return recent->host + within;
    }
    return NULL;
}

static int detoured(struct draw *d, uint64_t address, uint32_t bytes, int access, char *data)
{
    for (uint32_t n = 0; n < d->detours; n++)
        if (d->detour[n].address == address && d->detour[n].access == (uint32_t)access && d->detour[n].bytes == bytes) {
            if (access == READ)
                memcpy(data, d->detour[n].data, bytes);
            return 1;
        }
    return 0;
}

/* Access over page borders, to small pages, or by the caller; 0: a page is missing, and nothing was done. */
static NOINLINE int fixed_slowly(struct draw *d, uint64_t address, uint32_t bytes, int access, char *data)
{
    if (d->detours && detoured(d, address, bytes, access, data))
        return 1;
    struct slot *s = d->fixed;
    struct {
        struct page *page;
        char *host;
        uint32_t bytes;
    } part[2];
    int parts = 0;
    for (uint32_t done = 0; done < bytes; parts++) {
        int shift;
        const uint64_t here = (address + done) & ADDRESS_MASK;
        struct page *page = eu_page(s->map, here, access, &shift);
        if (!page) {
            d->miss = address;
            d->miss_bytes = bytes;
            d->miss_kind = access;
            if (access & WRITE)
                memcpy(d->detour[d->detours].data, data, bytes);
            return 0;
        }
        const uint64_t within = here & ((1ull << shift) - 1), left = (1ull << shift) - within;
        part[parts].page = page;
        part[parts].host = page->host + within;
        part[parts].bytes = left < bytes - done ? (uint32_t)left : bytes - done;
        done += part[parts].bytes;
        remember(s, access & WRITE ? 1 : 0, here, shift, page->host, &s->counts[page - s->map->pages]);
    }
    for (int n = 0; n < parts; n++) {
        if (access == READ)
            memcpy(data, part[n].host, part[n].bytes);
        else
            memcpy(part[n].host, data, part[n].bytes);
        data += part[n].bytes;
        struct count *count = &s->counts[part[n].page - s->map->pages];
        if (access & WRITE)
            eu_count(s, count, n == 0, part[n].bytes, WRITE);
        else
            loaded(d, count, part[n].bytes, n == 0);
    }
    return 1;
}

static inline void copy_texel(char *to, const char *from, uint32_t bytes)
{
    if (likely(bytes == 4))
        memcpy(to, from, 4);
    else
        memcpy(to, from, bytes);
}

static inline int load(struct draw *d, uint64_t address, uint32_t bytes, char *data)
{
    const char *host = fixed_at(d, address, bytes, READ);
    if (unlikely(!host))
        return fixed_slowly(d, address, bytes, READ, data);
    copy_texel(data, host, bytes);
    return 1;
}

static inline int store(struct draw *d, uint64_t address, uint32_t bytes, const char *data)
{
    char *host = fixed_at(d, address, bytes, WRITE);
    if (unlikely(!host))
        return fixed_slowly(d, address, bytes, WRITE, (char *)data);
    copy_texel(host, data, bytes);
    return 1;
}

static inline four clamp(four colour, int how)
{
    if (how)
        for (int n = 0; n < 4; n++)
            colour[n] = clip_to(no_nan(colour[n]), how == 1 ? 0 : -1, 1);
    return colour;
}

static four factor(int code, four constant, four source, four second, four there, int alpha)
{
    enum { INVERSE = 16, ZERO = 17 };
    const four one = {1, 1, 1, 1}, zero = {0, 0, 0, 0};
    if (code == ZERO)
        return zero;
    if (code > INVERSE)
        return 1 - factor(code - INVERSE, constant, source, second, there, alpha);
    switch (code) {
    case 2: return source;
    case 3: return (four){source[3], source[3], source[3], source[3]};
    case 4: return (four){there[3], there[3], there[3], there[3]};
    case 5: return there;
    case 6: {
        if (alpha)
            return one;
        const double rest = 1 - there[3], least = source[3] != source[3] || source[3] < rest ? source[3] : rest;
        return (four){least, least, least, least};
    }
    case 7: return constant;
    case 8: return (four){constant[3], constant[3], constant[3], constant[3]};
    case 9: return second;
    case 10: return (four){second[3], second[3], second[3], second[3]};
    default: return one;
    }
}

static four combined(const struct equation *e, four constant, four source, four second, four there, int alpha)
{
    if (e->function == 3 || e->function == 4) {
        four result;
        for (int n = 0; n < 4; n++) {
            const double a = source[n], b = there[n];
            result[n] = a != a ? a : b != b ? b : e->function == 3 ? (a < b ? a : b) : (a > b ? a : b);
        }
        return result;
    }
    const four left = source * factor(e->source, constant, source, second, there, alpha);
    const four right = there * factor(e->destination, constant, source, second, there, alpha);
    return e->function == 1 ? left - right : e->function == 2 ? right - left : left + right;
}

static void operate(int operation, char *new, const char *old, uint32_t bytes)
{
    for (uint32_t n = 0; n < bytes; n++) {
        const uint8_t s = new[n], t = old[n];
        uint8_t result = 0;
        if (operation & 1)
            result |= ~s & ~t;
        if (operation & 2)
            result |= ~s & t;
        if (operation & 4)
            result |= s & ~t;
        if (operation & 8)
            result |= s & t;
        new[n] = result;
    }
}

/* What registers hold, for a target of integers. */
static inline four integers(const struct image *i, const float colour[4])
{
    four found;
    for (int n = 0; n < 4; n++)
        found[n] = i->kind == UINT ? (double)bits_of_f(colour[n]) : (double)(int32_t)bits_of_f(colour[n]);
    return found;
}

/* 0: a page is missing, and nothing was done. */
int eu_write_pixel(struct draw *d, const struct target *target, int64_t x, int64_t y, int64_t layer, int64_t sample,
                   const float colour[4], const float second[4])
{
    const struct image *i = &target->image;
    const uint64_t address = sample_address(i, x, y, layer, sample);
    char new[TEXEL], old[TEXEL];
    four source = {colour[0], colour[1], colour[2], colour[3]};
    d->loads = 0;
    if (i->integer)
        source = integers(i, colour);
    else if (target->alpha_to_one)
        source[3] = 1;
    source = clamp(source, target->pre_clamp);
    if (!target->copies) {
        if (!load(d, address, i->bytes, old))
            return 0;
        if (target->blends) {
            four other = source, constant, there = decode_texel(i, old);
            memcpy(&constant, target->constant, sizeof constant);
            if (second)
                other = (four){second[0], second[1], second[2], second[3]};
            other = clamp(other, target->pre_clamp);
            four result = combined(&target->colour, constant, source, other, there, 0);
            result[3] = combined(&target->alpha, constant, source, other, there, 1)[3];
            source = clamp(result, target->post_clamp);
        }
    }
    encode_texel(i, source, new);
    if (target->logic < 16)
        operate(target->logic, new, old, i->bytes);
    if (!target->write_all)
        for (uint32_t n = 0; n < i->bytes; n++)
            new[n] = (new[n] & target->write[n]) | (old[n] & ~target->write[n]);
    if (!store(d, address, i->bytes, new))
        return 0;
    settle(d);
    return 1;
}

/* Whether texels are what `eu_pack8` makes of the colours, and go to memory as they are. */
int eu_is_packed(const struct target *target)
{
    return target->copies && target->write_all && target->logic >= 16 && !target->alpha_to_one && target->image.even8
        && target->image.bytes == 4 && !target->image.integer;
}

/* Four bytes a lane, as encode_texel makes them one by one; clamping before it changes nothing. */
void eu_pack8(const struct image *i, const uint32_t colours[4][LANES], uint32_t *packed)
{
    memset(packed, 0, LANES * sizeof *packed);
    for (int n = 0; n < 4; n++) {
        const float *from = (const float *)colours[i->field[n].channel];
        const int shift = i->field[n].first;
        for (int lane = 0; lane < LANES; lane++)
            packed[lane] |= (uint32_t)(int)rint(clip_to(no_nan((double)from[lane]), 0, 1) * 255.0) << shift;
    }
}

int eu_write_packed(struct draw *d, const struct target *target, int64_t x, int64_t y, int64_t layer, int64_t sample, uint32_t texel)
{
    d->loads = 0;
    if (!store(d, sample_address(&target->image, x, y, layer, sample), 4, (const char *)&texel))
        return 0;
    d->detours = 0;
    return 1;
}

static inline int holds(int function, double left, double right)
{
    switch (function) {
    case 1: return 0;
    case 2: return left < right;
    case 3: return left == right;
    case 4: return left <= right;
    case 5: return left > right;
    case 6: return left != right;
    case 7: return left >= right;
    default: return 1;
    }
}

int eu_compare(int function, double left, double right)
{
    return holds(function, left, right);
}

static inline uint8_t operated(int operation, uint8_t value, uint8_t reference)
{
    switch (operation) {
    case 1: return 0;
    case 2: return reference;
    case 3: return value < 255 ? value + 1 : 255;
    case 4: return value > 0 ? value - 1 : 0;
    case 5: return value + 1;
    case 6: return value - 1;
    case 7: return ~value;
    default: return value;
    }
}

/* Whether a byte can be stored; 0: a page is missing. What the caller has to store in another way is stored then. */
static int storable(struct draw *d, uint64_t address, char *byte)
{
    int shift;
    const uint64_t number = (address >> 16) + 1;
    if (d->fixed->recent[1][number & (RECENT - 1)].page == number || small_recent(d->fixed, 1, address) || (d->detours && detoured(d, address, 1, WRITE, byte))
        || eu_page(d->fixed->map, address & ADDRESS_MASK, WRITE, &shift))
        return 1;
    d->miss = address;
    d->miss_bytes = 1;
    d->miss_kind = WRITE;
    d->detour[d->detours].data[0] = *byte;
    return 0;
}

/* The stencil test of one sample: -1 where a page is missing. `where`: the byte that changes, 0 if none does. */
static int stencilled(struct draw *d, int64_t x, int64_t y, int64_t layer, int64_t sample, int depth_passes, int front,
                      uint64_t *where, char *after)
{
    const struct stencil_test *test = &d->stencil_test;
    const struct face *face = front ? &test->front : &test->back;
    const int inside = image_has(&test->image, x, y, layer);
    const uint64_t address = inside ? sample_address(&test->image, x, y, layer, sample) : 0;
    char old = 0;
    if (inside && !load(d, address, 1, &old))
        return -1;
    const uint8_t value = (uint8_t)old;
    const int passes = holds(face->function, face->reference & face->test_mask, value & face->test_mask);
    const int operation = !passes ? face->fail : depth_passes ? face->both_pass : face->depth_fail;
    const uint8_t changed = operated(operation, value, face->reference), mask = face->write_mask;
    const uint8_t new = (changed & mask) | (value & (uint8_t)~mask);
    *where = inside && test->write && new != value ? address : 0;
    *after = (char)new;
    return passes;
}

/* Whether a sample passes; -1: a page is missing, and nothing was done. */
int eu_test_pixel(struct draw *d, int64_t x, int64_t y, int64_t layer, int64_t sample, double depth, int front)
{
    const struct depth_test *test = &d->depth_test;
    const struct image *i = &test->image;
    const int inside = test->on && image_has(i, x, y, layer);
    const uint64_t address = inside ? sample_address(i, x, y, layer, sample) : 0;
    const double largest = test->form == D24_UNORM_X8 ? 16777215.0 : 65535.0;
    const double new = test->form == D32_FLOAT ? (double)(float)depth : rint(clip_to(depth, 0, 1) * largest);
    double old = 0;
    d->loads = 0;
    if (inside) {
        uint32_t raw = 0;
        if (!load(d, address, i->bytes, (char *)&raw))
            return -1;
        old = test->form == D32_FLOAT ? (double)f_of_bits(raw) : (double)(raw & (test->form == D24_UNORM_X8 ? 0xffffff : 0xffff));
    }
    int passes = !test->bounded || (old >= test->low && old <= test->high);
    if (test->on && test->test)
        passes = passes && holds(test->function, new, old);
    uint64_t where = 0;
    char after = 0;
    if (d->stencil_test.on) {
        const int stencil_passes = stencilled(d, x, y, layer, sample, passes, front, &where, &after);
        if (stencil_passes < 0)
            return -1;
        passes = passes && stencil_passes;
    }
    /* Nothing is stored before all can be. */
    if (where && !storable(d, where, &after))
        return -1;
    if (passes && inside && test->write) {
        const uint32_t raw = test->form == D32_FLOAT ? bits_of_f((float)new) : (uint32_t)new;
        if (!store(d, address, i->bytes, (const char *)&raw))
            return -1;
    }
    if (where)
        store(d, where, 1, &after);
    settle(d);
    return passes;
}

/* Parameters of a payload one after the other; those behind its end are zero. */
struct columns {
    const char *first, *second;
    uint32_t length0, length, at, width;
};

static void column(struct columns *c, uint32_t size, uint32_t skip, char *to)
{
    const uint32_t length = size * c->width, first = c->at + skip;
    c->at += length > 64 ? length : 64;
    for (uint32_t n = 0; n < length; n++) {
        const uint32_t at = first + n;
        const char *from = at < c->length0 ? c->first : c->second;
        to[n] = at < c->length && from ? from[at < c->length0 ? at : at - c->length0] : 0;
    }
}

static void raw_column(struct columns *c, int half, uint32_t *to)
{
    /* The usual case: a whole column in one part. */
    const uint32_t length = (half ? 2 : 4) * c->width;
    char bytes[4 * LANES];
    const char *from = bytes;
    if (c->at + length <= c->length0 && c->first) {
        from = c->first + c->at;
        c->at += length > 64 ? length : 64;
    } else if (c->at >= c->length0 && c->at + length <= c->length && c->second) {
        from = c->second + c->at - c->length0;
        c->at += length > 64 ? length : 64;
    } else {
        column(c, half ? 2 : 4, 0, bytes);
    }
    if (!half) {
        memcpy(to, from, length);
        return;
    }
    for (uint32_t lane = 0; lane < c->width; lane++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * lane, 2);
        to[lane] = bits_of_f(f_of_hf(bits));
    }
}

/* A render target write: kept for the end of the thread. */
const struct op *render_write(const struct op *op, struct thread *t)
{
    const struct render_write *m = op->extra;
    if (!t->slot || !t->slot->output)
        return stop(op, t, INTERPRET);
    struct output *out = t->slot->output;
    const int first = op->first_lane;
    /* Code may name lanes that no thread has. */
    const uint32_t lanes = enabled(op, t) & (m->width == 32 ? ~0u : 0xffffu) & (~0u >> (first & 31));
    if (lanes && first < LANES) {
        struct columns c = {m->null0 ? NULL : t->storage + op->source[0], m->null1 ? NULL : t->storage + m->source1,
                            m->length0, m->length, m->header ? 64 : 0, m->width};
        uint32_t words[4 * LANES];
        out->alive |= lanes << first;
        if (m->source0_alpha)
            raw_column(&c, 0, words);
        if (m->output_mask) {
            uint16_t mask[LANES];
            column(&c, 2, 2 * first, (char *)mask);
            if (!out->has_mask)
                memset(out->mask, 0, sizeof out->mask);
            out->has_mask = 1;
            for (uint32_t left = lanes; left; left &= left - 1)
                out->mask[first + __builtin_ctz(left)] = mask[__builtin_ctz(left)];
        }
        for (int source = 0; source < 1 + m->dual; source++) {
            for (int channel = 0; channel < 4; channel++) {
                uint32_t *to = source ? out->second[m->target][channel] : out->colours[m->target][channel];
                raw_column(&c, m->half, words);
                if (!m->null_target)
                    for (uint32_t left = lanes; left; left &= left - 1)
                        to[first + __builtin_ctz(left)] = words[__builtin_ctz(left)];
            }
        }
        if (!m->null_target) {
            if (m->dual && !(out->has_second >> m->target & 1)) {
                out->has_second |= 1u << m->target;
                for (int channel = 0; channel < 4; channel++)
                    for (uint32_t left = out->written[m->target]; left; left &= left - 1)
                        out->second[m->target][channel][__builtin_ctz(left)] = 0;
            }
            out->written[m->target] |= lanes << first;
        }
        if (m->depth) {
            if (!out->has_depth)
                memset(out->depth, 0, sizeof out->depth);
            out->has_depth = 1;
            raw_column(&c, 0, words);
            for (uint32_t left = lanes; left; left &= left - 1)
                memcpy(&out->depth[first + __builtin_ctz(left)], &words[__builtin_ctz(left)], 4);
        }
    }
    if (!m->ends)
        return op + 1;
    /* It ends its thread even if no pixel is left to be written. */
    eu_end_thread(t);
    return stop(op, t, GONE);
}
