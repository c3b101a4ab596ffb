/* LSC atomics: the host's own, so that they are atomic against everybody who has the memory mapped. */
#include "memory.h"

enum { /* message.LscOp */
    INC = 0x08, DEC, ALOAD, ASTORE, ADD, SUB, SMIN, SMAX, UMIN, UMAX, CAS,
    FADD = 0x13, FSUB, FMIN, FMAX, FCAS, AND, OR, XOR,
};

#define CHANGE(type, new_value)                                                                     \
    do {                                                                                            \
        type old = __atomic_load_n(where, __ATOMIC_RELAXED), now;                                   \
        do {                                                                                        \
            now = (new_value);                                                                      \
        } while (!__atomic_compare_exchange_n(where, &old, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)); \
        return old;                                                                                 \
    } while (0)

#define INTEGER(name, type, stype)                                                                  \
    static uint64_t name(type *where, int op, type a, type b)                                       \
    {                                                                                               \
        switch (op) {                                                                               \
        case INC: return __atomic_fetch_add(where, 1, __ATOMIC_SEQ_CST);                            \
        case DEC: return __atomic_fetch_sub(where, 1, __ATOMIC_SEQ_CST);                            \
        case ALOAD: return __atomic_load_n(where, __ATOMIC_SEQ_CST);                                \
        case ASTORE: return __atomic_exchange_n(where, a, __ATOMIC_SEQ_CST);                        \
        case ADD: return __atomic_fetch_add(where, a, __ATOMIC_SEQ_CST);                            \
        case SUB: return __atomic_fetch_sub(where, a, __ATOMIC_SEQ_CST);                            \
        case SMIN: CHANGE(type, (stype)a < (stype)old ? a : old);                                   \
        case SMAX: CHANGE(type, (stype)a > (stype)old ? a : old);                                   \
        case UMIN: CHANGE(type, a < old ? a : old);                                                 \
        case UMAX: CHANGE(type, a > old ? a : old);                                                 \
        case CAS: CHANGE(type, old == a ? b : old);                                                 \
        case AND: return __atomic_fetch_and(where, a, __ATOMIC_SEQ_CST);                            \
        case OR: return __atomic_fetch_or(where, a, __ATOMIC_SEQ_CST);                              \
        default: return __atomic_fetch_xor(where, a, __ATOMIC_SEQ_CST);                             \
        }                                                                                           \
    }

INTEGER(atomic16, uint16_t, int16_t)
INTEGER(atomic32, uint32_t, int32_t)
INTEGER(atomic64, uint64_t, int64_t)

#define FLOATING(name, type, bits)                                                                  \
    static inline type name##_value(bits pattern)                                                   \
    {                                                                                               \
        type value;                                                                                 \
        memcpy(&value, &pattern, sizeof value);                                                     \
        return value;                                                                               \
    }                                                                                               \
    static inline bits name##_bits(type value)                                                      \
    {                                                                                               \
        bits pattern;                                                                               \
        memcpy(&pattern, &value, sizeof value);                                                     \
        return pattern;                                                                             \
    }                                                                                               \
    static uint64_t name(bits *where, int op, bits a, bits b)                                       \
    {                                                                                               \
        type x = name##_value(a);                                                                   \
        switch (op) {                                                                               \
        case FADD: CHANGE(bits, name##_bits(name##_value(old) + x));                                \
        case FSUB: CHANGE(bits, name##_bits(name##_value(old) - x));                                \
        case FMIN: CHANGE(bits, name##_value(old) != name##_value(old) || x < name##_value(old) ? a : old); \
        case FMAX: CHANGE(bits, name##_value(old) != name##_value(old) || x > name##_value(old) ? a : old); \
        default: CHANGE(bits, name##_value(old) == x ? b : old);                                    \
        }                                                                                           \
    }

FLOATING(float32, float, uint32_t)
FLOATING(float64, double, uint64_t)

uint64_t eu_atomic(void *where, int bytes, int op, uint64_t a, uint64_t b)
{
    if (op >= FADD && op <= FCAS)
        return bytes == 8 ? float64(where, op, a, b) : float32(where, op, a, b);
    switch (bytes) {
    case 2: return atomic16(where, op, a, b);
    case 4: return atomic32(where, op, a, b);
    default: return atomic64(where, op, a, b);
    }
}

static inline uint64_t element(const char *from, int bytes)
{
    uint16_t word;
    uint32_t dword;
    uint64_t qword;
    switch (bytes) {
    case 2: memcpy(&word, from, 2); return word;
    case 4: memcpy(&dword, from, 4); return dword;
    default: memcpy(&qword, from, 8); return qword;
    }
}

const struct op *message_atomic(const struct op *op, struct thread *t)
{
    const struct message *m = op->extra;
    uint32_t lanes = enabled(op, t);
    if (!lanes)
        return op + 1;
    struct places p;
    if (!eu_locate(op, t, m, lanes, m->data_bytes, READ | WRITE, &p))
        return NULL;
    for (uint32_t left = lanes & ~p.outside; left; left &= left - 1)
        if (p.address[__builtin_ctz(left)] % m->data_bytes)
            return stop(op, t, INTERPRET);
    const char *operands = at(t, m->data);
    char *destination = t->storage + op->destination;
    uint64_t old[LANES];
    for (uint32_t left = lanes; left; left &= left - 1) {
        int lane = __builtin_ctz(left);
        uint64_t a = 0, b = 0;
        const char *first = operands + lane * m->register_bytes;
        a = element(first, m->data_bytes);
        b = element(first + m->component_bytes, m->data_bytes);
        old[lane] = p.outside >> lane & 1 ? 0 : eu_atomic(p.host[lane], m->data_bytes, m->atomic, a, b);
    }
    if (m->returns)
        for (uint32_t left = lanes; left; left &= left - 1) {
            int lane = __builtin_ctz(left);
            if (m->register_bytes == 4)
                memcpy(destination + lane * 4, &old[lane], 4);
            else
                memcpy(destination + lane * m->register_bytes, &old[lane], m->register_bytes);
        }
    return op + 1;
}
