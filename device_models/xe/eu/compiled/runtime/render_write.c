/* Render target writes of threads: what they write is kept until the thread ends, as render/pixel_output.py does it. */
#pragma GCC optimize("O3")
#include "draw.h"

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
