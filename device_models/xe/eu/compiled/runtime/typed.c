/* Typed loads, stores and atomics: texels by integer coordinates, as compute/typed.py has them. */
#include "sampler.h"

/* A message (typed_messages.py). */
struct typed {
    uint64_t surface;
    uint32_t a0, surface_shift;
    uint32_t coordinate_bytes, component_bytes; /* from one coordinate or component of all lanes to the next */
    uint32_t second;                            /* the payload's second part: a store's data, or more coordinates */
    uint8_t coordinates, components;            /* how many of u, v and r; a mask */
    uint8_t pointer, first;                     /* how many coordinates are in the first part */
    uint8_t atomic, returns;
};

/* Texels of the lanes of one message; `lanes` are those whose texel is in the surface. */
struct texels {
    const struct image *image;
    char *host[LANES];
    uint32_t lanes;
};

static int64_t coordinate(const struct op *op, const struct thread *t, const struct typed *m, int number, int lane)
{
    int32_t found = 0;
    if (number < m->coordinates) {
        const uint32_t at = number < m->first ? op->source[0] + number * m->coordinate_bytes
                                              : m->second + (number - m->first) * m->coordinate_bytes;
        memcpy(&found, t->storage + at + 4 * lane, 4);
    }
    return found;
}

/* Find them, and count their access. 0: the thread has stopped, and nothing was done. */
static int locate(const struct op *op, struct thread *t, const struct typed *m, uint32_t lanes, int access, struct texels *found)
{
    if (!t->slot || !t->slot->sampling) {
        stop(op, t, INTERPRET);
        return 0;
    }
    const struct texture *x = texture_of_key(op, t, key_named(t, m->surface, m->a0, m->surface_shift, m->pointer));
    if (!x)
        return 0;
    const struct image *i = found->image = &x->level[0];
    struct page *page = NULL, *used[LANES];
    uint32_t runs[LANES];
    uint64_t begin = 1, end = 0;
    int pages = 0;
    found->lanes = 0;
    for (; lanes; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        const int64_t px = coordinate(op, t, m, 0, lane);
        int64_t py = coordinate(op, t, m, 1, lane), layer = coordinate(op, t, m, 2, lane);
        if (x->type == BUFFER || x->type == STRUCTURED) {
            py = layer = 0;
        } else if (x->type == D1) {
            layer = x->array ? py : 0;
            py = 0;
        } else if (!x->array && x->type != D3 && x->type != CUBE) {
            layer = 0;
        }
        if (!image_has(i, px, py, layer))
            continue;
        const uint64_t address = texel_address(i, px, py, layer);
        if (address < begin || address >= end) {
            int shift;
            page = eu_page(t->slot->map, address, access, &shift);
            if (!page) {
                t->miss_address = address;
                t->miss_bytes = i->bytes;
                t->miss_kind = access;
                stop(op, t, MISS);
                return 0;
            }
            begin = address >> shift << shift;
            end = begin + (1ull << shift);
            used[pages] = page;
            runs[pages++] = 0;
        }
        if (end - address < i->bytes || (m->atomic && (i->bytes != 4 || address % 4))) { /* in two pages; not one element */
            stop(op, t, INTERPRET);
            return 0;
        }
        found->host[lane] = page->host + (address - begin);
        found->lanes |= 1u << lane;
        runs[pages - 1]++;
    }
    for (int n = 0; n < pages; n++)
        eu_count(t->slot, &t->slot->counts[used[n] - t->slot->map->pages], runs[n], (uint64_t)runs[n] * i->bytes, access);
    return 1;
}

const struct op *typed_load(const struct op *op, struct thread *t)
{
    const struct typed *m = op->extra;
    const uint32_t lanes = enabled(op, t);
    if (!lanes)
        return op + 1;
    struct texels found;
    if (!locate(op, t, m, lanes, READ, &found))
        return NULL;
    const struct image *i = found.image;
    for (uint32_t left = lanes; left; left &= left - 1) {
        const int lane = __builtin_ctz(left), there = found.lanes >> lane & 1;
        four values = {0, 0, 0, 0};
        if (there)
            values = decode_texel(i, found.host[lane]);
        char *to = t->storage + op->destination + 4 * lane;
        for (int channel = 0; channel < 4; channel++) {
            if (!(m->components >> channel & 1))
                continue;
            const uint32_t bits = i->integer ? (uint32_t)(int64_t)values[channel] : bits_of_f((float)values[channel]);
            memcpy(to, &bits, 4);
            to += m->component_bytes;
        }
    }
    return op + 1;
}

const struct op *typed_store(const struct op *op, struct thread *t)
{
    const struct typed *m = op->extra;
    const uint32_t lanes = enabled(op, t);
    if (!lanes)
        return op + 1;
    struct texels found;
    if (!locate(op, t, m, lanes, WRITE, &found))
        return NULL;
    const struct image *i = found.image;
    for (uint32_t left = found.lanes; left; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        const char *from = t->storage + m->second + 4 * lane;
        four values = {0, 0, 0, 1};
        for (int channel = 0; channel < 4; channel++) {
            if (!(m->components >> channel & 1))
                continue;
            uint32_t bits;
            memcpy(&bits, from, 4);
            values[channel] = i->kind == UINT ? (double)bits : i->kind == SINT ? (double)(int32_t)bits : (double)f_of_bits(bits);
            from += m->component_bytes;
        }
        encode_texel(i, values, found.host[lane]);
    }
    return op + 1;
}

const struct op *typed_atomic(const struct op *op, struct thread *t)
{
    const struct typed *m = op->extra;
    const uint32_t lanes = enabled(op, t);
    if (!lanes)
        return op + 1;
    struct texels found;
    if (!locate(op, t, m, lanes, READ | WRITE, &found))
        return NULL;
    uint32_t old[LANES] = {0};
    for (uint32_t left = found.lanes; left; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        const char *operands = t->storage + m->second + 4 * lane;
        uint32_t a, b;
        memcpy(&a, operands, 4);
        memcpy(&b, operands + m->component_bytes, 4);
        old[lane] = (uint32_t)eu_atomic(found.host[lane], 4, m->atomic, a, b);
    }
    if (m->returns)
        for (uint32_t left = lanes; left; left &= left - 1) {
            const int lane = __builtin_ctz(left);
            memcpy(t->storage + op->destination + 4 * lane, &old[lane], 4);
        }
    return op + 1;
}
