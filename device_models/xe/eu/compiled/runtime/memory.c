/* The map of an address space: from a function's virtual addresses to the host's memory, and what was accessed. */
#pragma GCC optimize("O3") /* loops over lanes become vectors */
#include "memory.h"
#if VECTOR == 64
#include <immintrin.h>
#endif

/* Pages of 64 KiB and of 4 KiB; a larger page is entered as many. */
enum { LARGE = 16, SMALL = 12 };

static inline uint64_t tag_of(uint64_t address, int shift)
{
    return address >> shift << 8 | shift;
}

static inline uint64_t hash(uint64_t tag, uint64_t slots)
{
    return (tag * 0x9e3779b97f4a7c15ull >> 20) & (slots - 1);
}

static inline struct page *probe(const struct map *map, uint64_t tag)
{
    for (uint64_t slot = hash(tag, map->slots);; slot = (slot + 1) & (map->slots - 1)) {
        struct page *page = &map->pages[slot];
        uint64_t found = atomic_load_explicit(&page->tag, memory_order_acquire);
        if (found == tag)
            return page;
        if (!found)
            return NULL;
    }
}

static inline struct page *page_at(const struct map *map, uint64_t address, int access, int *shift)
{
    *shift = LARGE;
    struct page *page = probe(map, tag_of(address, LARGE));
    if (unlikely(!page)) {
        *shift = SMALL;
        page = probe(map, tag_of(address, SMALL));
    }
    return page && (page->access & access) == (uint32_t)access ? page : NULL;
}

struct page *eu_page(const struct map *map, uint64_t address, int access, int *shift)
{
    return page_at(map, address, access, shift);
}

static inline void add(struct slot *s, struct count *c, uint64_t times, uint64_t bytes, int access)
{
    if (unlikely(!(c->reads | c->writes)))
        s->touched[++s->touched[0]] = (uint32_t)(c - s->counts);
    if (access & WRITE) {
        c->writes += times;
        c->written_bytes += bytes;
    }
    if (access & READ) {
        c->reads += times;
        c->read_bytes += bytes;
    }
}

void eu_count(struct slot *s, struct count *c, uint64_t times, uint64_t bytes, int access)
{
    add(s, c, times, bytes, access);
}

static inline void count(struct thread *t, const struct page *page, uint64_t times, uint64_t bytes, int access)
{
    add(t->slot, &t->slot->counts[page - t->slot->map->pages], times, bytes, access);
}

/* What a slot has counted, added to `totals` by ledger number, and forgotten. */
void eu_harvest(const struct map *map, struct count *counts, uint32_t *touched, struct count *totals)
{
    for (uint32_t i = 1; i <= touched[0]; i++) {
        struct count *c = &counts[touched[i]], *total = &totals[map->pages[touched[i]].ledger];
        total->reads += c->reads;
        total->read_bytes += c->read_bytes;
        total->writes += c->writes;
        total->written_bytes += c->written_bytes;
        memset(c, 0, sizeof *c);
    }
    touched[0] = 0;
}

static int miss(const struct op *op, struct thread *t, uint64_t address, uint32_t bytes, int access)
{
    t->miss_address = address;
    t->miss_bytes = bytes;
    t->miss_kind = access;
    stop(op, t, MISS);
    return 0;
}

int eu_reach(const struct op *op, struct thread *t, uint64_t address, uint32_t bytes, int access)
{
    const uint64_t end = address + bytes;
    for (uint64_t here = address; here < end;) {
        int shift;
        if (!page_at(t->slot->map, here & ADDRESS_MASK, access, &shift))
            return miss(op, t, here & ADDRESS_MASK, (uint32_t)(end - here), access);
        here = (here >> shift << shift) + (1ull << shift);
    }
    return 1;
}

/* Enter a page; nobody runs on this map meanwhile but those who look for other pages. */
int eu_map_insert(struct map *map, uint64_t address, int shift, char *host, uint32_t access, uint32_t ledger)
{
    if (map->used * 2 >= map->slots)
        return -1;
    uint64_t tag = tag_of(address, shift);
    uint64_t slot = hash(tag, map->slots);
    while (map->pages[slot].tag && map->pages[slot].tag != tag)
        slot = (slot + 1) & (map->slots - 1);
    struct page *page = &map->pages[slot];
    map->used += !page->tag;
    page->host = host;
    page->access = access;
    page->ledger = ledger;
    atomic_store_explicit(&page->tag, tag, memory_order_release);
    return (int)slot;
}

/* Access to an address, without counting; for tests and tools. */
char *eu_map_find(const struct map *map, uint64_t address, int access)
{
    int shift;
    struct page *page = page_at(map, address, access, &shift);
    return page ? page->host + (address & ((1ull << shift) - 1)) : NULL;
}

/* Copy between a register and memory, over page borders; all pages are known to be there. */
void eu_copy(struct thread *t, const struct message *m, uint64_t address, char *data, uint32_t bytes, int access)
{
    while (bytes) {
        uint32_t part = bytes;
        char *host;
        if (m->space == SHARED) {
            host = t->slot->slm + address;
        } else {
            int shift;
            struct page *page = page_at(t->slot->map, address & ADDRESS_MASK, access, &shift);
            uint64_t within = address & ((1ull << shift) - 1);
            if (part > (1ull << shift) - within)
                part = (1ull << shift) - within;
            host = page->host + within;
            count(t, page, 1, part, access);
        }
        if (access & WRITE)
            memcpy(host, data, part);
        else
            memcpy(data, host, part);
        address += part;
        data += part;
        bytes -= part;
    }
}

static const struct surface *surface_of(const struct op *op, struct thread *t, const struct message *m)
{
    const uint64_t key = key_named(t, m->surface, m->a0, m->surface_shift, m->pointer);
    const struct slot *s = t->slot;
    for (uint64_t slot = hash(key, s->surface_slots);; slot = (slot + 1) & (s->surface_slots - 1)) {
        if (s->surfaces[slot].key == key)
            return &s->surfaces[slot];
        if (!s->surfaces[slot].key)
            break;
    }
    t->miss_address = key;
    stop(op, t, SURFACE);
    return NULL;
}

/* Addresses of the lanes: the function's, or offsets in SLM; lanes outside of a surface are put into `outside`. */
static int addresses(const struct op *op, struct thread *t, const struct message *m, uint32_t lanes, uint32_t bytes,
                     struct places *p)
{
    const char *source = at(t, op->source[0]);
    const int width = op->lanes >> 16 ? 32 : 16;
    uint64_t base = m->space == STATELESS ? t->slot->stateless_base : 0, limit = ~0ull;
    if (m->space == SHARED)
        limit = t->slot->slm_bytes;
    if (m->space == BOUND) {
        const struct surface *surface = surface_of(op, t, m);
        if (!surface)
            return 0;
        base = surface->base + surface->stride * (uint64_t)(t - t->slot->threads);
        limit = surface->bytes;
    }
    if (m->address_bytes == 8) {
        const int64_t *wide = (const int64_t *)source;
        for (int lane = 0; lane < width; lane++)
            p->address[lane] = wide[lane] + m->offset;
    } else {
        const uint32_t *narrow = (const uint32_t *)source;
        for (int lane = 0; lane < width; lane++)
            p->address[lane] = (uint32_t)(narrow[lane] + m->offset);
    }
    if (m->space == SHARED)
        for (int lane = 0; lane < width; lane++)
            p->address[lane] &= SLM_ADDRESS_MASK;
    p->outside = 0;
    p->room = limit > p->address[0] ? limit - p->address[0] : 0;
    if (limit != ~0ull) {
        for (int lane = 0; lane < width; lane++)
            if (p->address[lane] > limit || limit - p->address[lane] < bytes)
                p->outside |= 1u << lane;
        p->outside &= lanes;
    }
    if (m->space != SHARED)
        for (int lane = 0; lane < width; lane++)
            p->address[lane] = (p->address[lane] + base) & ADDRESS_MASK;
    return 1;
}

/* Find the memory of each lane, `bytes` at its address.  Without it the thread has stopped (0), and nothing was done. */
int eu_locate(const struct op *op, struct thread *t, const struct message *m, uint32_t lanes, uint32_t bytes, int access,
              struct places *p)
{
    if (unlikely(!t->slot)) {
        stop(op, t, INTERPRET);
        return 0;
    }
    if (!addresses(op, t, m, lanes, bytes, p))
        return 0;
    p->split = 0;
    uint32_t inside = lanes & ~p->outside;
    if (m->space == SHARED) {
        for (int lane = 0; lane < LANES; lane++)
            p->host[lane] = t->slot->slm + p->address[lane];
        return 1;
    }
    const struct map *map = t->slot->map;
    struct page *page = NULL, *used[LANES];
    uint32_t runs[LANES];
    uint64_t begin = 1, end = 0;
    int pages = 0;
    while (inside) {
        int lane = __builtin_ctz(inside);
        uint64_t address = p->address[lane];
        inside &= inside - 1;
        if (unlikely(address < begin || address >= end)) {
            int shift;
            page = page_at(map, address, access, &shift);
            if (!page)
                return miss(op, t, address, bytes, access);
            used[pages] = page;
            runs[pages++] = 0;
            begin = address >> shift << shift;
            end = begin + (1ull << shift);
        }
        if (unlikely(end - address < bytes)) {
            int shift;
            if (!page_at(map, (address + bytes - 1) & ADDRESS_MASK, access, &shift))
                return miss(op, t, end & ADDRESS_MASK, bytes - (end - address), access);
            p->split |= 1u << lane;
            continue;
        }
        p->host[lane] = page->host + (address - begin);
        runs[pages - 1]++;
    }
    for (int i = 0; i < pages; i++)
        count(t, used[i], runs[i], (uint64_t)runs[i] * bytes, access);
    return 1;
}

/* 1: elements of `1 << shift` bytes one behind the other; 2: all lanes have one address; 0: neither. */
#if VECTOR == 64
static inline int pattern8(const char *source, int width, int shift)
{
    const __m512i first = _mm512_set1_epi64(*(const int64_t *)source), lanes = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    const __m128i by = _mm_cvtsi32_si128(shift);
    __m512i expected = _mm512_add_epi64(first, _mm512_sll_epi64(lanes, by));
    const __m512i step = _mm512_set1_epi64(8ll << shift);
    unsigned wrong = 0, differ = 0;
    for (int i = 0; i < width; i += 8) {
        const __m512i found = _mm512_loadu_si512(source + 8 * i);
        wrong |= _mm512_cmpneq_epi64_mask(found, expected);
        differ |= _mm512_cmpneq_epi64_mask(found, first);
        expected = _mm512_add_epi64(expected, step);
    }
    return !wrong ? 1 : !differ ? 2 : 0;
}

static inline int pattern4(const char *source, int width, int shift)
{
    const __m512i first = _mm512_set1_epi32(*(const int32_t *)source);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i expected = _mm512_add_epi32(first, _mm512_sll_epi32(lanes, _mm_cvtsi32_si128(shift)));
    const __m512i step = _mm512_set1_epi32(16 << shift);
    unsigned wrong = 0, differ = 0;
    for (int i = 0; i < width; i += 16) {
        const __m512i found = _mm512_loadu_si512(source + 4 * i);
        wrong |= _mm512_cmpneq_epi32_mask(found, expected);
        differ |= _mm512_cmpneq_epi32_mask(found, first);
        expected = _mm512_add_epi32(expected, step);
    }
    return !wrong ? 1 : !differ ? 2 : 0;
}
#else
#define PATTERN(name, T)                                                            \
    static inline int name(const char *source, int width, int shift)                \
    {                                                                               \
        const T *a = (const T *)source, first = a[0];                               \
        T wrong = 0, differ = 0;                                                    \
        if (width == 16)                                                            \
            for (int lane = 0; lane < 16; lane++) {                                 \
                wrong |= (a[lane] - first) ^ ((T)lane << shift);                    \
                differ |= a[lane] - first;                                          \
            }                                                                       \
        else                                                                        \
            for (int lane = 0; lane < 32; lane++) {                                 \
                wrong |= (a[lane] - first) ^ ((T)lane << shift);                    \
                differ |= a[lane] - first;                                          \
            }                                                                       \
        return !wrong ? 1 : !differ ? 2 : 0;                                        \
    }

PATTERN(pattern8, uint64_t)
PATTERN(pattern4, uint32_t)
#endif

/* By a page of 4 KiB, or one of 64 KiB that was not used lately. */
static NOINLINE struct piece small_piece(struct thread *t, uint64_t address, uint32_t bytes, uint32_t lanes,
                                         uint32_t data_bytes, int pattern, int access)
{
    const struct piece none = {NULL, 0};
    const int written = access & WRITE ? 1 : 0;
    struct slot *s = t->slot;
    const struct recent *recent = small_recent(s, written, address);
    int shift = SMALL;
    if (!recent) {
        struct page *page = page_at(s->map, address, access, &shift);
        if (!page)
            return none;
        remember(s, written, address, shift, page->host, &s->counts[page - s->map->pages]);
        recent = shift == LARGE ? &s->recent[written][((address >> LARGE) + 1) & (RECENT - 1)] : small_recent(s, written, address);
    }
    const uint64_t within = address & ((1ull << shift) - 1);
    if ((1ull << shift) - within < bytes)
        return none;
    add(s, recent->count, 1, pattern == 1 ? __builtin_popcount(lanes) * data_bytes : data_bytes, access);
    return (struct piece){recent->host + within, pattern == 2};
}

struct piece eu_piece(const struct op *op, struct thread *t, const struct message *m, uint32_t lanes, int access)
{
    const struct piece none = {NULL, 0};
    if (unlikely(!m->plain || !t->slot || m->space == BOUND))
        return none;
    const char *source = at(t, op->source[0]);
    const int width = op->lanes >> 16 ? 32 : 16;
    const int size = __builtin_ctz(m->data_bytes);
    const int pattern = m->address_bytes == 8 ? pattern8(source, width, size) : pattern4(source, width, size);
    if (!pattern || (pattern == 2 && (access & WRITE)))
        return none;
    const uint32_t bytes = pattern == 1 ? width * m->data_bytes : m->data_bytes;
    uint64_t address;
    if (m->address_bytes == 8) {
        address = *(const uint64_t *)source + m->offset;
    } else {
        address = (uint32_t)(*(const uint32_t *)source + m->offset);
        if (address + bytes > UINT32_MAX)
            return none;
    }
    if (m->space == SHARED) {
        address &= SLM_ADDRESS_MASK;
        if (address > t->slot->slm_bytes || t->slot->slm_bytes - address < bytes)
            return none;
        return (struct piece){t->slot->slm + address, pattern == 2};
    }
    if (m->space == STATELESS)
        address += t->slot->stateless_base;
    address &= ADDRESS_MASK;
    const uint64_t within = address & ((1ull << LARGE) - 1), number = (address >> LARGE) + 1;
    struct recent *recent = &t->slot->recent[access & WRITE ? 1 : 0][number & (RECENT - 1)];
    if (unlikely(recent->page != number))
        return small_piece(t, address, bytes, lanes, m->data_bytes, pattern, access);
    if ((1ull << LARGE) - within < bytes)
        return none;
    add(t->slot, recent->count, 1, pattern == 1 ? __builtin_popcount(lanes) * m->data_bytes : m->data_bytes, access);
    return (struct piece){recent->host + within, pattern == 2};
}

/* Consecutive bytes at one address, inside of one page that was used lately or of shared local memory; NULL: not so, and nothing
 * was counted. */
char *eu_block(const struct op *op, struct thread *t, const struct message *m, uint32_t bytes, int access)
{
    if (unlikely(!t->slot || m->space == BOUND))
        return NULL;
    const char *source = at(t, op->source[0]);
    uint64_t address;
    if (m->address_bytes == 8)
        address = *(const uint64_t *)source + m->offset;
    else
        address = (uint32_t)(*(const uint32_t *)source + m->offset);
    if (m->space == SHARED) {
        address &= SLM_ADDRESS_MASK;
        if (address > t->slot->slm_bytes || t->slot->slm_bytes - address < bytes)
            return NULL;
        return t->slot->slm + address;
    }
    if (m->space == STATELESS)
        address += t->slot->stateless_base;
    address &= ADDRESS_MASK;
    const uint64_t within = address & ((1ull << LARGE) - 1), number = (address >> LARGE) + 1;
    const struct recent *recent = &t->slot->recent[access & WRITE ? 1 : 0][number & (RECENT - 1)];
    if (unlikely(recent->page != number))
        return small_piece(t, address, bytes, 1, bytes, 1, access).host;
    if ((1ull << LARGE) - within < bytes)
        return NULL;
    add(t->slot, recent->count, 1, bytes, access);
    return recent->host + within;
}
