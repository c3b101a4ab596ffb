/* Memory of a draw's pixels: what is read is counted when the pixel is done, as it is done again from its beginning after a page was missing. */
#ifndef EU_PIXEL_MEMORY_H
#define EU_PIXEL_MEMORY_H
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

#endif
