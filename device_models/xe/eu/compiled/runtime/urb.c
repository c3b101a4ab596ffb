/* URB messages: dwords of vertices between the stages, as render/urb.py has them. */
#pragma GCC optimize("O3")
#include "memory.h"

#define HANDLE_MASK 0xffffffu /* bits of a handle that are a byte offset */

static inline uint64_t place_of(const struct op *op, struct thread *t, const struct message *m, int lane)
{
    uint32_t offset;
    memcpy(&offset, at(t, op->source[0]) + 4 * lane, 4);
    return (offset + (uint32_t)m->offset) & HANDLE_MASK & ~3u;
}

const struct op *urb_store(const struct op *op, struct thread *t)
{
    const struct message *m = op->extra;
    if (!t->slot || !t->slot->urb)
        return stop(op, t, INTERPRET);
    uint32_t lanes = enabled(op, t);
    const char *from = m->components ? at(t, m->data) : NULL;
    for (uint32_t left = m->components ? lanes : 0; left; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        const uint64_t place = place_of(op, t, m, lane);
        for (uint32_t c = 0; c < m->components; c++)
            if (place + 4 * c + 4 <= t->slot->urb_bytes)
                memcpy(t->slot->urb + place + 4 * c, from + c * m->component_bytes + 4 * lane, 4);
    }
    if (!m->atomic) /* of the URB: the thread ends */
        return op + 1;
    eu_end_thread(t);
    return stop(op, t, GONE);
}

const struct op *urb_load(const struct op *op, struct thread *t)
{
    const struct message *m = op->extra;
    if (!t->slot || !t->slot->urb)
        return stop(op, t, INTERPRET);
    char *to = t->storage + op->destination;
    for (uint32_t left = enabled(op, t); left; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        const uint64_t place = place_of(op, t, m, lane);
        for (uint32_t c = 0; c < m->components; c++) {
            uint32_t value = 0;
            if (place + 4 * c + 4 <= t->slot->urb_bytes)
                memcpy(&value, t->slot->urb + place + 4 * c, 4);
            memcpy(to + c * m->component_bytes + 4 * lane, &value, 4);
        }
    }
    return op + 1;
}
