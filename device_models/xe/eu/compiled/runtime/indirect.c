/* Operands whose place in the register file is in a0: what is outside of it reads as zero, and is not written. */
#include "eu.h"

/* Elements of source 0 to consecutive ones at the destination.  modified[0]: the word of a0; modified[1]: each row has its own;
 * source[1]: signed bytes that are added; detail: log2 of a row's elements; strides: bytes between rows and between elements. */
#define GATHER(size)                                                                                    \
    const struct op *gather_##size(const struct op *op, struct thread *t)                               \
    {                                                                                                   \
        const char *a0 = t->storage + op->source[0];                                                    \
        char *to = t->storage + op->destination;                                                        \
        const uint32_t column_mask = (1u << op->detail) - 1;                                            \
        const int count = 32 - __builtin_clz(op->lanes);                                                \
        for (int lane = 0; lane < count; lane++) {                                                      \
            const uint32_t row = (uint32_t)lane >> op->detail, column = (uint32_t)lane & column_mask;   \
            const uint32_t word = op->modified[0] + (op->modified[1] ? row : 0);                        \
            uint16_t pointer;                                                                           \
            memcpy(&pointer, a0 + 2 * (word & 15), 2);                                                  \
            const int64_t at = pointer + (int64_t)(int32_t)op->source[1]                                \
                + (op->modified[1] ? 0 : (int64_t)row * op->strides[0]) + (int64_t)column * op->strides[1]; \
            if (at >= 0 && at + size <= REGISTER_FILE)                                                  \
                memcpy(to + lane * size, t->storage + at, size);                                        \
            else                                                                                        \
                memset(to + lane * size, 0, size);                                                      \
        }                                                                                               \
        return op + 1;                                                                                  \
    }

/* Consecutive elements to the enabled lanes of the destination; source[1], source[2]: a0 and the bytes that are added. */
#define SCATTER(size)                                                                                   \
    const struct op *scatter_##size(const struct op *op, struct thread *t)                              \
    {                                                                                                   \
        const char *from = t->storage + op->source[0];                                                  \
        uint16_t pointer;                                                                               \
        memcpy(&pointer, t->storage + op->source[1] + 2 * op->modified[0], 2);                          \
        for (uint32_t lanes = enabled(op, t); lanes; lanes &= lanes - 1) {                              \
            const int lane = __builtin_ctz(lanes);                                                      \
            const int64_t at = pointer + (int64_t)(int32_t)op->source[2] + (int64_t)lane * op->strides[1]; \
            if (at >= 0 && at + size <= REGISTER_FILE)                                                  \
                memcpy(t->storage + at, from + lane * size, size);                                      \
        }                                                                                               \
        return op + 1;                                                                                  \
    }

GATHER(1)
GATHER(2)
GATHER(4)
GATHER(8)
SCATTER(1)
SCATTER(2)
SCATTER(4)
SCATTER(8)
