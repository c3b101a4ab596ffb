/* LSC load and store. */
#pragma GCC optimize("O3") /* loops over lanes become vectors */
#include "memory.h"

static inline void put(char *to, const char *from, int data, int reg, int high)
{
    uint64_t value = 0;
    switch (data) {
    case 1: value = *(uint8_t *)from; break;
    case 2: { uint16_t v; memcpy(&v, from, 2); value = high ? (uint32_t)v << 16 : v; break; }
    case 4: { uint32_t v; memcpy(&v, from, 4); value = v; break; }
    default: memcpy(&value, from, 8);
    }
    memcpy(to, &value, reg);
}

static inline void load_lanes(const struct op *op, struct thread *t, const struct message *m, uint32_t lanes,
                              const struct places *p, int data, int reg)
{
    char *destination = t->storage + op->destination;
    for (; lanes; lanes &= lanes - 1) {
        int lane = __builtin_ctz(lanes);
        char *to = destination + lane * reg;
        char apart[64];
        const char *from = p->host[lane];
        if (unlikely((p->split | p->outside) >> lane & 1)) {
            memset(apart, 0, sizeof apart);
            if (p->split >> lane & 1)
                eu_copy(t, m, p->address[lane], apart, m->components * data, READ);
            from = apart;
        }
        for (int c = 0; c < m->components; c++)
            put(to + c * m->component_bytes, from + c * data, data, reg, m->high_half);
    }
}

static inline void store_lanes(const struct op *op, struct thread *t, const struct message *m, uint32_t lanes,
                               const struct places *p, int data, int reg)
{
    (void)op;
    const char *source = at(t, m->data) + (m->high_half ? 2 : 0);
    for (lanes &= ~p->outside; lanes; lanes &= lanes - 1) {
        int lane = __builtin_ctz(lanes);
        const char *from = source + lane * reg;
        if (likely(!(p->split >> lane & 1))) {
            for (int c = 0; c < m->components; c++)
                memcpy(p->host[lane] + c * data, from + c * m->component_bytes, data);
            continue;
        }
        char apart[64];
        for (int c = 0; c < m->components; c++)
            memcpy(apart + c * data, from + c * m->component_bytes, data);
        eu_copy(t, m, p->address[lane], apart, m->components * data, WRITE);
    }
}

#define BY_SIZE(what)                                                      \
    switch (m->data_bytes << 4 | m->register_bytes) {                      \
    case 0x11: what(op, t, m, lanes, &p, 1, 1); break;                     \
    case 0x14: what(op, t, m, lanes, &p, 1, 4); break;                     \
    case 0x22: what(op, t, m, lanes, &p, 2, 2); break;                     \
    case 0x24: what(op, t, m, lanes, &p, 2, 4); break;                     \
    case 0x44: what(op, t, m, lanes, &p, 4, 4); break;                     \
    default: what(op, t, m, lanes, &p, 8, 8);                              \
    }

typedef uint64_t whole __attribute__((vector_size(VECTOR), aligned(1), may_alias));

/* 64 or 128 bytes by vectors, whatever GCC makes of memcpy: in a branch that it takes for a rare one, that is `rep movs`. */
#define BY_VECTORS(bytes)                                                  \
    {                                                                      \
        whole values[bytes / VECTOR];                                      \
        for (int i = 0; i < bytes / VECTOR; i++)                           \
            values[i] = ((const whole *)from)[i];                          \
        for (int i = 0; i < bytes / VECTOR; i++)                           \
            ((whole *)to)[i] = values[i];                                  \
    }

/* A copy of a size that is nearly always one of these. */
static inline void copy(char *to, const char *from, int bytes)
{
    if (bytes == 64)
        BY_VECTORS(64)
    else if (bytes == 128)
        BY_VECTORS(128)
    else
        memcpy(to, from, bytes);
}

/* Elements of 4 bytes, 16 lanes, those of `lanes`: from consecutive ones, or all from one. */
static inline void blend(char *to, const char *from, int is_one, uint32_t lanes)
{
    uint32_t *destination = (uint32_t *)to, new[16];
    const uint32_t *source = (const uint32_t *)from;
    if (is_one)
        for (int lane = 0; lane < 16; lane++)
            new[lane] = source[0];
    else
        memcpy(new, source, sizeof new);
    for (int lane = 0; lane < 16; lane++) {
        const uint32_t mask = -(lanes >> lane & 1);
        destination[lane] = (new[lane] & mask) | (destination[lane] & ~mask);
    }
}

static inline void load_piece(const struct op *op, struct thread *t, const struct message *m, struct piece piece, uint32_t lanes)
{
    char *to = t->storage + op->destination;
    const int width = 32 - __builtin_clz(op->lanes), size = m->data_bytes;
    if (!piece.is_one && lanes == op->lanes) {
        copy(to, piece.host, width * size);
    } else if (size == 4) {
        for (int i = 0; i < width; i += 16)
            blend(to + 4 * i, piece.host + (piece.is_one ? 0 : 4 * i), piece.is_one, lanes >> i);
    } else {
        for (; lanes; lanes &= lanes - 1) {
            int lane = __builtin_ctz(lanes);
            memcpy(to + lane * size, piece.host + (piece.is_one ? 0 : lane * size), size);
        }
    }
}

static NOINLINE const struct op *load_each(const struct op *op, struct thread *t, uint32_t lanes)
{
    const struct message *m = op->extra;
    struct places p;
    if (eu_gather(op, t, m, lanes))
        return op + 1;
    if (!eu_locate(op, t, m, lanes, m->data_bytes * m->components, READ, &p))
        return NULL;
    if (m->returns)
        BY_SIZE(load_lanes)
    return op + 1;
}

const struct op *message_load(const struct op *op, struct thread *t)
{
    const struct message *m = op->extra;
    uint32_t lanes = enabled(op, t);
    if (!lanes)
        return op + 1;
    const struct piece piece = eu_piece(op, t, m, lanes, READ);
    if (likely(piece.host != NULL)) {
        if (m->returns)
            load_piece(op, t, m, piece, lanes);
        return op + 1;
    }
    return load_each(op, t, lanes);
}

static NOINLINE const struct op *store_each(const struct op *op, struct thread *t, uint32_t lanes)
{
    const struct message *m = op->extra;
    struct places p;
    if (eu_scatter(op, t, m, lanes))
        return op + 1;
    if (!eu_locate(op, t, m, lanes, m->data_bytes * m->components, WRITE, &p))
        return NULL;
    BY_SIZE(store_lanes)
    return op + 1;
}

const struct op *message_store(const struct op *op, struct thread *t)
{
    const struct message *m = op->extra;
    uint32_t lanes = enabled(op, t);
    if (!lanes)
        return op + 1;
    const struct piece piece = eu_piece(op, t, m, lanes, WRITE);
    if (likely(piece.host != NULL)) {
        const char *from = at(t, m->data);
        const int size = m->data_bytes;
        if (lanes == op->lanes)
            copy(piece.host, from, (32 - __builtin_clz(op->lanes)) * size);
        else
            for (; lanes; lanes &= lanes - 1) {
                int lane = __builtin_ctz(lanes);
                memcpy(piece.host + lane * size, from + lane * size, size);
            }
        return op + 1;
    }
    return store_each(op, t, lanes);
}

/* Of a surface, in two pages, or in one that was not found lately. */
static NOINLINE const struct op *block_apart(const struct op *op, struct thread *t, int access)
{
    const struct message *m = op->extra;
    struct places p;
    const uint32_t whole = m->data_bytes * m->components;
    uint32_t bytes = whole;
    if (!eu_locate(op, t, m, 1, bytes, access, &p))
        return NULL;
    if (unlikely(p.outside)) {
        bytes = p.room < whole ? p.room / m->data_bytes * m->data_bytes : 0;
        if (bytes && !eu_locate(op, t, m, 1, bytes, access, &p))
            return NULL;
    }
    if (access == READ && !m->returns)
        return op + 1;
    char *data = access == READ ? t->storage + op->destination : at(t, m->data);
    if (access == READ)
        memset(data + bytes, 0, whole - bytes);
    if (!bytes)
        return op + 1;
    if (p.split)
        eu_copy(t, m, p.address[0], data, bytes, access);
    else if (access == READ)
        copy(data, p.host[0], bytes);
    else
        copy(p.host[0], data, bytes);
    return op + 1;
}

/* Transposed: one address, and consecutive elements to or from consecutive bytes of registers; the register's rest stays.
 * Elements behind the end of a surface read as zero, and are not written. */
static inline const struct op *block(const struct op *op, struct thread *t, int access)
{
    const struct message *m = op->extra;
    if (!(enabled(op, t) & 1))
        return op + 1;
    const uint32_t whole = m->data_bytes * m->components;
    char *host = eu_block(op, t, m, whole, access);
    if (unlikely(!host))
        return block_apart(op, t, access);
    if (access == WRITE)
        copy(host, at(t, m->data), whole);
    else if (m->returns)
        copy(t->storage + op->destination, host, whole);
    return op + 1;
}

const struct op *message_load_block(const struct op *op, struct thread *t)
{
    return block(op, t, READ);
}

const struct op *message_store_block(const struct op *op, struct thread *t)
{
    return block(op, t, WRITE);
}

const struct op *message_fence(const struct op *op, struct thread *t)
{
    (void)t;
    atomic_thread_fence(memory_order_seq_cst);
    return op + 1;
}

const struct op *message_fence_of_group(const struct op *op, struct thread *t)
{
    (void)t;
    atomic_signal_fence(memory_order_seq_cst);
    return op + 1;
}

/* The response's registers are zero: what they hold means that the fence is done. */
const struct op *message_fence_of_group_answered(const struct op *op, struct thread *t)
{
    const struct message *m = op->extra;
    atomic_signal_fence(memory_order_seq_cst);
    if (enabled(op, t))
        memset(t->storage + op->destination, 0, m->response);
    return op + 1;
}

const struct op *message_fence_answered(const struct op *op, struct thread *t)
{
    atomic_thread_fence(memory_order_seq_cst);
    return message_fence_of_group_answered(op, t);
}
