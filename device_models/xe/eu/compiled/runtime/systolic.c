/* dpas (semantics.py, reference/systolic.py): rows of 16 columns, products added one by one in f32 or modulo 2**32. */
#pragma GCC optimize("O3") /* loops over columns become vectors */
#include "half.h"

enum { COLUMNS = 16, REPEAT = 8, DEPTH = 8, OPS = 8 };
enum { UD = 2, D = 6, HF = 9, F = 10, BF = 13, TF32 = 14 }; /* data_types.py */

/* op->detail: rows; final: steps; modified: types of the accumulator, b and a; condition: of the destination;
 * strides: bits of an element of b with the elements of a step from bit 8 on, and bits of an element of a. */
static inline int ops_of(const struct op *op)
{
    return op->strides[0] >> 8;
}

static inline float number(const char *from, int type)
{
    uint32_t dword;
    uint16_t word;
    if (type == F || type == TF32) {
        memcpy(&dword, from, 4);
        return f_of_bits(type == TF32 ? dword & 0xffffe000 : dword);
    }
    memcpy(&word, from, 2);
    return type == HF ? f_of_hf(word) : f_of_bf(word);
}

static inline int bytes_of(int type)
{
    return type == HF || type == BF ? 2 : 4;
}

/* Element `index` of `bits` bits. */
static inline int32_t integer(const char *from, int index, int bits, int is_signed)
{
    const int at = index * bits;
    const uint32_t field = (uint8_t)from[at >> 3] >> (at & 7) & ((1u << bits) - 1);
    return is_signed ? (int32_t)(field << (32 - bits)) >> (32 - bits) : (int32_t)field;
}

static void store(const struct op *op, struct thread *t, const void *rows, int size)
{
    const uint32_t lanes = enabled(op, t) & 0xffff;
    for (int row = 0; row < op->detail; row++) {
        char *to = t->storage + op->destination + row * COLUMNS * size;
        const char *from = (const char *)rows + row * COLUMNS * size;
        if (likely(lanes == 0xffff))
            memcpy(to, from, COLUMNS * size);
        else
            for (uint32_t left = lanes; left; left &= left - 1)
                memcpy(to + __builtin_ctz(left) * size, from + __builtin_ctz(left) * size, size);
    }
}

const struct op *dpas_float(const struct op *op, struct thread *t)
{
    const int repeat = op->detail, depth = op->final, ops = ops_of(op);
    const int type_c = op->modified[0], type_b = op->modified[1], type_a = op->modified[2];
    const int size_a = bytes_of(type_a), size_b = bytes_of(type_b), steps = 4 / (ops * size_b);
    const char *from_c = at(t, op->source[0]), *from_b = at(t, op->source[1]), *from_a = at(t, op->source[2]);
    float total[REPEAT * COLUMNS], b[DEPTH * 2][COLUMNS], a[REPEAT][DEPTH * 2];
    for (int i = 0; i < repeat * COLUMNS; i++)
        total[i] = number(from_c + i * bytes_of(type_c), type_c);
    for (int i = 0; i < depth * ops; i++) {
        const int step = i / ops, place = step % steps * ops + i % ops;
        for (int column = 0; column < COLUMNS; column++)
            b[i][column] = number(from_b + step / steps * 64 + column * 4 + place * size_b, type_b);
    }
    for (int row = 0; row < repeat; row++)
        for (int i = 0; i < depth * ops; i++)
            a[row][i] = number(from_a + (row * depth * ops + i) * size_a, type_a);
    for (int row = 0; row < repeat; row++)
        for (int i = 0; i < depth * ops; i++)
            for (int column = 0; column < COLUMNS; column++)
                total[row * COLUMNS + column] += a[row][i] * b[i][column];
    if (op->condition == F) {
        for (int i = 0; i < repeat * COLUMNS; i++)
            total[i] = canonical_f(total[i]);
        store(op, t, total, 4);
        return op + 1;
    }
    uint16_t narrow[REPEAT * COLUMNS];
    for (int i = 0; i < repeat * COLUMNS; i++)
        narrow[i] = op->condition == HF ? hf_of_f(total[i]) : bf_of_f(total[i]);
    store(op, t, narrow, 2);
    return op + 1;
}

const struct op *dpas_integer(const struct op *op, struct thread *t)
{
    const int repeat = op->detail, depth = op->final, ops = ops_of(op);
    const int bits_b = op->strides[0] & 0xff, bits_a = op->strides[1], steps = 32 / (ops * bits_b);
    const int signed_b = op->modified[1], signed_a = op->modified[2];
    const char *from_b = at(t, op->source[1]), *from_a = at(t, op->source[2]);
    uint32_t total[REPEAT * COLUMNS];
    int32_t b[DEPTH * OPS][COLUMNS];
    memcpy(total, at(t, op->source[0]), repeat * COLUMNS * sizeof total[0]);
    for (int i = 0; i < depth * ops; i++) {
        const int step = i / ops, place = step % steps * ops + i % ops;
        for (int column = 0; column < COLUMNS; column++)
            b[i][column] = integer(from_b + step / steps * 64 + column * 4, place, bits_b, signed_b);
    }
    for (int row = 0; row < repeat; row++)
        for (int i = 0; i < depth * ops; i++) {
            const uint32_t a = integer(from_a, row * depth * ops + i, bits_a, signed_a);
            for (int column = 0; column < COLUMNS; column++)
                total[row * COLUMNS + column] += a * (uint32_t)b[i][column];
        }
    store(op, t, total, 4);
    return op + 1;
}
