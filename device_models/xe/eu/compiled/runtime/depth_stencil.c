/* The tests of depth and stencil, one pixel at a time: exactly as render/depth_stencil.py has them; a test compares them. */
#pragma GCC optimize("O3")
#include "pixel_memory.h"

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
