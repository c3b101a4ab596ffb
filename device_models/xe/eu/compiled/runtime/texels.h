/* Texels that a sampler message reads: found in memory page by page, and counted once the message is done. */
#ifndef EU_TEXELS_H
#define EU_TEXELS_H

#include "blocks.h"
#include "sampler.h"

/* A bilinear filter on two levels, along a footprint that is as long as it can be. */
#define MOST_TEXELS (16 * 2 * 4 * LANES)

/* What a message has accessed; counted once it is done, since a message that misses a page is repeated. */
struct tally {
    struct slot *slot;
    struct count *last;
    uint64_t begin, size; /* of the page that was found last */
    char *host;
    uint32_t used;
    struct {
        struct count *count;
        uint32_t times;
    } of[MOST_TEXELS];
    uint64_t miss;
    uint32_t miss_bytes;
    uint64_t bytes;
};

/* The bytes of a texel; NULL if a page is not there. What lies in two pages is copied to `apart`. */
static inline const char *find(struct tally *tally, uint64_t address, uint32_t bytes, char *apart);

static NOINLINE const char *find_slowly(struct tally *tally, uint64_t address, uint32_t bytes, char *apart)
{
    const uint64_t number = (address >> 16) + 1;
    const struct recent *recent = &tally->slot->recent[0][number & (RECENT - 1)];
    uint64_t size = 0x10000;
    if (recent->page != number) {
        recent = small_recent(tally->slot, 0, address);
        size = 0x1000;
    }
    if (likely(recent && (address & (size - 1)) + bytes <= size)) {
        tally->begin = address & -size;
        tally->size = size;
        tally->host = recent->host;
        tally->last = recent->count;
        tally->of[tally->used].count = recent->count;
        tally->of[tally->used++].times = 1;
        return recent->host + (address & (size - 1));
    }
    uint32_t done = 0;
    while (done < bytes) {
        int shift;
        const uint64_t here = (address + done) & ADDRESS_MASK;
        struct page *page = eu_page(tally->slot->map, here, READ, &shift);
        if (!page) {
            tally->miss = here;
            tally->miss_bytes = bytes - done;
            return NULL;
        }
        const uint64_t within = here & ((1ull << shift) - 1), left = (1ull << shift) - within;
        const uint32_t part = left < bytes - done ? (uint32_t)left : bytes - done;
        struct count *count = &tally->slot->counts[page - tally->slot->map->pages];
        if (part == bytes) {
            tally->begin = here - within;
            tally->size = 1ull << shift;
            tally->host = page->host;
            tally->last = count;
            remember(tally->slot, 0, here, shift, page->host, count);
            tally->of[tally->used].count = count;
            tally->of[tally->used++].times = 1;
            return page->host + within;
        }
        memcpy(apart + done, page->host + within, part);
        done += part;
        if (done == bytes) {
            tally->of[tally->used].count = count;
            tally->of[tally->used++].times = 1;
        }
    }
    return apart;
}

static inline const char *find(struct tally *tally, uint64_t address, uint32_t bytes, char *apart)
{
    const uint64_t within = address - tally->begin;
    if (likely(within < tally->size && within + bytes <= tally->size)) {
        if (likely(tally->used && tally->of[tally->used - 1].count == tally->last)) {
            tally->of[tally->used - 1].times++;
        } else {
            tally->of[tally->used].count = tally->last;
            tally->of[tally->used++].times = 1;
        }
        return tally->host + within;
    }
    return find_slowly(tally, address, bytes, apart);
}

/* A texel that is inside; 0: a page is missing. */
static inline int load_texel(struct tally *tally, const struct image *i, int64_t x, int64_t y, int64_t layer, four *found)
{
    char apart[TEXEL];
    if (unlikely(i->block)) {
        const uint64_t address = texel_address(i, x >> BLOCK_SHIFT, y >> BLOCK_SHIFT, layer);
        const char *from = find(tally, address, i->bytes, apart);
        if (from)
            *found = decode_block(i, from, x & BLOCK_MASK, y & BLOCK_MASK);
        return from != NULL;
    }
    const char *from = find(tally, texel_address(i, x, y, layer), i->bytes, apart);
    if (likely(from != NULL))
        *found = decode_texel(i, from);
    return from != NULL;
}

static void settle(struct tally *tally)
{
    for (uint32_t n = 0; n < tally->used; n++)
        eu_count(tally->slot, tally->of[n].count, tally->of[n].times, tally->of[n].times * tally->bytes, READ);
}

#endif
