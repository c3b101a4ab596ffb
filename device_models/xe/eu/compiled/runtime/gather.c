/* LSC loads and stores of dwords whose lanes lie anywhere in shared local memory, or anywhere in one page. */
#pragma GCC optimize("O3") /* loops over lanes become vectors */
#include "memory.h"
#if VECTOR == 64
#include <immintrin.h>
#endif

/* Where lanes begin, in bytes from `host`. */
struct offsets {
    char *host;
    uint32_t at[LANES];
    uint32_t inside; /* lanes that are read or written */
};

/* Lanes behind the end of shared local memory read zero and write nothing. */
static inline int shared(struct thread *t, const struct message *m, const char *source, int width, uint32_t bytes,
                         struct offsets *o)
{
    const uint64_t size = t->slot->slm_bytes;
    if (m->address_bytes != 4 || size < bytes)
        return 0;
    const uint32_t *address = (const uint32_t *)source, offset = (uint32_t)m->offset, last = (uint32_t)(size - bytes);
    uint32_t inside = 0;
    for (int lane = 0; lane < width; lane++)
        o->at[lane] = (address[lane] + offset) & SLM_ADDRESS_MASK;
    for (int lane = 0; lane < width; lane++)
        inside |= (uint32_t)(o->at[lane] <= last) << lane;
    o->host = t->slot->slm;
    o->inside = inside;
    return 1;
}

/* All lanes that are enabled lie in the page of the first of them. */
static inline int paged(struct thread *t, const struct message *m, const char *source, int width, uint32_t lanes, uint32_t bytes,
                        int access, struct offsets *o)
{
    const int first = __builtin_ctz(lanes);
    const uint64_t base = m->space == STATELESS ? t->slot->stateless_base : 0;
    const uint64_t *wide = (const uint64_t *)source;
    const uint32_t *narrow = (const uint32_t *)source;
    uint64_t address[LANES];
    if (m->address_bytes == 8)
        for (int lane = 0; lane < width; lane++)
            address[lane] = (wide[lane] + m->offset + base) & ADDRESS_MASK;
    else
        for (int lane = 0; lane < width; lane++)
            address[lane] = ((uint32_t)(narrow[lane] + m->offset) + base) & ADDRESS_MASK;
    int shift;
    struct page *page = eu_page(t->slot->map, address[first], access, &shift);
    if (!page)
        return 0;
    const uint64_t begin = address[first] >> shift << shift, last = (1ull << shift) - bytes;
    uint32_t inside = 0;
    for (int lane = 0; lane < width; lane++) {
        const uint64_t at = address[lane] - begin;
        o->at[lane] = (uint32_t)at;
        inside |= (uint32_t)(at <= last) << lane;
    }
    if (lanes & ~inside)
        return 0;
    o->host = page->host;
    o->inside = lanes;
    const int count = __builtin_popcount(lanes);
    eu_count(t->slot, &t->slot->counts[page - t->slot->map->pages], count, (uint64_t)count * bytes, access);
    return 1;
}

static inline int find(const struct op *op, struct thread *t, const struct message *m, uint32_t lanes, int access,
                       struct offsets *o)
{
    if (m->data_bytes != 4 || m->register_bytes != 4 || m->space == BOUND || !t->slot)
        return 0;
    const int width = op->lanes >> 16 ? 32 : 16;
    const uint32_t bytes = 4u * m->components;
    const char *source = at(t, op->source[0]);
    if (m->space == SHARED)
        return shared(t, m, source, width, bytes, o);
    return paged(t, m, source, width, lanes, bytes, access, o);
}

int eu_gather(const struct op *op, struct thread *t, const struct message *m, uint32_t lanes)
{
    struct offsets o;
    if (!find(op, t, m, lanes, READ, &o))
        return 0;
    if (!m->returns)
        return 1;
    for (uint32_t c = 0; c < m->components; c++) {
        const char *from = o.host + 4 * c;
        char *to = t->storage + op->destination + c * m->component_bytes;
        for (int i = 0; i < LANES; i += 16) {
            const uint32_t here = lanes >> i & 0xffff, inside = here & o.inside >> i;
            if (!here)
                continue;
#if VECTOR == 64
            const __m512i index = _mm512_loadu_si512(o.at + i);
            const __m512i found = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), (__mmask16)inside, index, from, 1);
            _mm512_mask_storeu_epi32(to + 4 * i, (__mmask16)here, found);
#else
            for (uint32_t left = here; left; left &= left - 1) {
                const int lane = __builtin_ctz(left);
                uint32_t value = 0;
                if (inside >> lane & 1)
                    memcpy(&value, from + o.at[i + lane], 4);
                memcpy(to + 4 * (i + lane), &value, 4);
            }
#endif
        }
    }
    return 1;
}

int eu_scatter(const struct op *op, struct thread *t, const struct message *m, uint32_t lanes)
{
    struct offsets o;
    if (!find(op, t, m, lanes, WRITE, &o))
        return 0;
    /* The highest of the lanes that have one address wins, with all of its components. */
    for (uint32_t left = lanes & o.inside; left; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        const char *from = at(t, m->data) + 4 * lane;
        for (uint32_t c = 0; c < m->components; c++)
            memcpy(o.host + o.at[lane] + 4 * c, from + c * m->component_bytes, 4);
    }
    return 1;
}
