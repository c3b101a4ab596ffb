/* Operands that are not laid out as an operation wants them.
 *
 * `widen_TYPE_CLASS` fetches source 0, elements of TYPE in any region, into consecutive elements of CLASS (in scratch);
 * `narrow_CLASS_TYPE` brings a result from there to its destination: converts, saturates, sets flags, and writes the
 * lanes that are enabled.  strides: bytes between rows and between the elements of a row; detail: log2 of a row's elements.
 */
#pragma GCC optimize("O3") /* loops over lanes become vectors */
#include "half.h"

static inline int count_of(const struct op *op)
{
    return 32 - __builtin_clz(op->lanes);
}

/* Whether all elements are equally far apart. */
static inline int is_even(const struct op *op)
{
    return op->strides[0] == op->strides[1] << op->detail;
}

/* No byte of one is a byte of the other. */
static inline int apart(const char *a, uint32_t bytes_a, const char *b, uint32_t bytes_b)
{
    return a + bytes_a <= b || b + bytes_b <= a;
}

/* Consecutive elements to the destination, those of enabled lanes. */
static inline void deliver(const struct op *op, struct thread *t, const void *from, int size)
{
    uint32_t lanes = op->final ? enabled(op, t) : op->lanes;
    char *to = t->storage + op->destination;
    if (lanes == op->lanes)
        memcpy(to, from, count_of(op) * size);
    else
        for (; lanes; lanes &= lanes - 1) {
            int lane = __builtin_ctz(lanes);
            memcpy(to + lane * size, (const char *)from + lane * size, size);
        }
}

/* One way for consecutive elements that all go to where nothing is read from: it needs no copy.  Another for one element. */
#define WIDEN(type, S, class, T, convert) WIDEN_AS(type, S, class, T, convert, 0, 0, 0)

/* Values of magnitudes below `least`, denormals of a float type, are zeros of their sign. */
#define FLUSH_BELOW(least, values)                                                              \
    for (int lane = 0; lane < LANES; lane++)                                                    \
        if (values[lane] < (least) && values[lane] > -(least))                                  \
            values[lane] *= 0;
#define LEAST_F 0x1p-126f
#define LEAST_HF 0x1p-14f
/* Bits of cr0.0 that keep denormals (semantics.py). */
#define KEEP_DF (1u << 6)
#define KEEP_F (1u << 7)
#define KEEP_HF (1u << 10)

/* `rounds`: some values of the source are rounded, as cr0.0 says.  `keep`: the bit of cr0.0 without which denormals of the source,
 * those below `least`, are zeros. */
#define WIDEN_AS(type, S, class, T, convert, rounds, keep, least)                               \
    static NOINLINE const struct op *widen_##type##_##class##_region(const struct op *op, struct thread *t) \
    {                                                                                           \
        const char *from = at(t, op->source[0]);                                                \
        T to[LANES] = {0};                                                                      \
        const int count = count_of(op);                                                         \
        const uint32_t column = op->strides[1];                                                 \
        if (is_even(op) && column == 2 * sizeof(S) && count == 16) { /* parts of elements twice or four times as large */ \
            for (int lane = 0; lane < 16; lane++) { S x; memcpy(&x, from + lane * 2 * sizeof(S), sizeof x); to[lane] = (convert); } \
        } else if (is_even(op) && column == 2 * sizeof(S) && count == 32) {                     \
            for (int lane = 0; lane < 32; lane++) { S x; memcpy(&x, from + lane * 2 * sizeof(S), sizeof x); to[lane] = (convert); } \
        } else if (is_even(op) && column == 4 * sizeof(S) && count == 16) {                     \
            for (int lane = 0; lane < 16; lane++) { S x; memcpy(&x, from + lane * 4 * sizeof(S), sizeof x); to[lane] = (convert); } \
        } else if (is_even(op) && column == 4 * sizeof(S) && count == 32) {                     \
            for (int lane = 0; lane < 32; lane++) { S x; memcpy(&x, from + lane * 4 * sizeof(S), sizeof x); to[lane] = (convert); } \
        } else if (is_even(op)) {                                                               \
            for (int lane = 0; lane < count; lane++) { S x; memcpy(&x, from + lane * column, sizeof x); to[lane] = (convert); } \
        } else {                                                                                \
            const uint32_t mask = (1u << op->detail) - 1;                                       \
            for (uint32_t lane = 0; lane < (uint32_t)count; lane++) {                           \
                S x;                                                                            \
                memcpy(&x, from + (lane >> op->detail) * op->strides[0] + (lane & mask) * column, sizeof x); \
                to[lane] = (convert);                                                           \
            }                                                                                   \
        }                                                                                       \
        if (keep && unlikely(!(control_bits(t) & keep)))                                        \
            FLUSH_BELOW(least, to)                                                              \
        deliver(op, t, to, sizeof(T));                                                          \
        return op + 1;                                                                          \
    }                                                                                           \
    static NOINLINE const struct op *widen_##type##_##class##_rounded(const struct op *op, struct thread *t, uint32_t mode) \
    {                                                                                           \
        round_as(mode);                                                                         \
        const struct op *next = widen_##type##_##class##_region(op, t);                         \
        round_as(0);                                                                            \
        return next;                                                                            \
    }                                                                                           \
    const struct op *widen_##type##_##class(const struct op *op, struct thread *t)              \
    {                                                                                           \
        if (rounds && unlikely(control_bits(t) & ROUNDING))                                          \
            return widen_##type##_##class##_rounded(op, t, control_bits(t));                         \
        if (keep && unlikely(!(control_bits(t) & keep)))                                        \
            return widen_##type##_##class##_region(op, t);                                      \
        const uint32_t lanes = op->lanes;                                                       \
        const char *source = at(t, op->source[0]);                                              \
        if (lanes == 1 && (!op->final || enabled(op, t))) {                                     \
            S x;                                                                                \
            memcpy(&x, source, sizeof x);                                                       \
            T y = (convert);                                                                    \
            memcpy(t->storage + op->destination, &y, sizeof y);                                 \
            return op + 1;                                                                      \
        }                                                                                       \
        if (likely(op->strides[1] == sizeof(S) && is_even(op) && (!op->final || enabled(op, t) == lanes)) \
            && apart(source, LANES * sizeof(S), t->storage + op->destination, LANES * sizeof(T))) { \
            const char *restrict from = source;                                                 \
            T *restrict to = (T *)(t->storage + op->destination);                               \
            if (lanes == 0xffff) {                                                              \
                for (int lane = 0; lane < 16; lane++) { S x; memcpy(&x, from + lane * sizeof(S), sizeof x); to[lane] = (convert); } \
                return op + 1;                                                                  \
            }                                                                                   \
            if (lanes == 0xffffffff) {                                                          \
                for (int lane = 0; lane < 32; lane++) { S x; memcpy(&x, from + lane * sizeof(S), sizeof x); to[lane] = (convert); } \
                return op + 1;                                                                  \
            }                                                                                   \
        }                                                                                       \
        return widen_##type##_##class##_region(op, t);                                          \
    }

#define INTEGER(type, S)                        \
    WIDEN(type, S, d, uint32_t, (uint32_t)x)    \
    WIDEN(type, S, q, uint64_t, (uint64_t)x)

INTEGER(ub, uint8_t)
INTEGER(uw, uint16_t)
INTEGER(ud, uint32_t)
INTEGER(uq, uint64_t)
INTEGER(b, int8_t)
INTEGER(w, int16_t)
INTEGER(d, int32_t)
INTEGER(q, int64_t)

/* Integers have their modifiers before they are converted: modified[0]. */
#define SIGNED(x) (op->modified[0] ? modified(op->modified[0], (int64_t)(x)) : (int64_t)(x))
static inline int64_t modified(uint8_t how, int64_t x)
{
    if ((how & ABSOLUTE) && x < 0)
        x = -x;
    return how & NEGATE ? -x : x;
}

#define TO_FLOAT(type, S)                                                          \
    WIDEN_AS(type, S, f, float, (float)SIGNED(x), sizeof(S) > 2, 0, 0)               \
    WIDEN_AS(type, S, df, double, (double)SIGNED(x), sizeof(S) > 4, 0, 0)

TO_FLOAT(ub, uint8_t)
TO_FLOAT(uw, uint16_t)
TO_FLOAT(ud, uint32_t)
TO_FLOAT(b, int8_t)
TO_FLOAT(w, int16_t)
TO_FLOAT(d, int32_t)
TO_FLOAT(q, int64_t)
WIDEN_AS(uq, uint64_t, f, float, (float)x, 1, 0, 0)
WIDEN_AS(uq, uint64_t, df, double, (double)x, 1, 0, 0)
WIDEN_AS(hf, uint16_t, f_each, float, f_of_hf(x), 0, KEEP_HF, LEAST_HF)
WIDEN_AS(bf, uint16_t, f, float, f_of_bf(x), 0, KEEP_F, LEAST_F)
WIDEN(f, uint32_t, f, uint32_t, x)
WIDEN_AS(hf, uint16_t, df, double, f_of_hf(x), 0, KEEP_HF, LEAST_HF)
WIDEN_AS(bf, uint16_t, df, double, f_of_bf(x), 0, KEEP_F, LEAST_F)
WIDEN_AS(f, float, df, double, x, 0, KEEP_F, LEAST_F)
WIDEN(df, uint64_t, df, uint64_t, x)

/* All of 16 or 32 halves one behind the other are converted at once. */
const struct op *widen_hf_f(const struct op *op, struct thread *t)
{
    const uint32_t lanes = op->lanes;
    if ((lanes != 0xffff && lanes != ~0u) || op->strides[1] != 2 || !is_even(op) || (op->final && enabled(op, t) != lanes)
        || unlikely(!(control_bits(t) & KEEP_HF)))
        return widen_hf_f_each(op, t);
    float to[LANES];
    eu_floats_of_halves(to, at(t, op->source[0]), 16);
    if (lanes == ~0u)
        eu_floats_of_halves(to + 16, at(t, op->source[0]) + 32, 16);
    memcpy(t->storage + op->destination, to, count_of(op) * sizeof *to);
    return op + 1;
}

/* Elements that are the lower parts of larger ones, as compilers make quadwords of two halves. The other parts keep what they have. */
#define PARTS(part, whole)                                                             \
    static inline void part##_of_##whole(char *to, const part##_t *from, int count)    \
    {                                                                                  \
        for (int lane = 0; lane < count; lane++) {                                     \
            whole##_t all;                                                             \
            memcpy(&all, to + lane * sizeof all, sizeof all);                          \
            all = (all & ~(whole##_t)(part##_t)~0) | from[lane];                       \
            memcpy(to + lane * sizeof all, &all, sizeof all);                          \
        }                                                                              \
    }
PARTS(uint8, uint16)
PARTS(uint8, uint32)
PARTS(uint16, uint32)
PARTS(uint32, uint64)

/* Whether all elements were written as parts. */
static inline int scatter_parts(char *to, const void *from, int size, uint32_t step, int count)
{
    switch (size << 8 | step << 1 | (count == 32)) {
#define PART(part, whole)                                                              \
    case sizeof(part##_t) << 8 | sizeof(whole##_t) << 1: part##_of_##whole(to, from, 16); return 1; \
    case sizeof(part##_t) << 8 | sizeof(whole##_t) << 1 | 1: part##_of_##whole(to, from, 32); return 1;
        PART(uint8, uint16)
        PART(uint8, uint32)
        PART(uint16, uint32)
        PART(uint32, uint64)
    }
    return 0;
}

/* Elements at `at` bytes apart to the destination, those of `lanes`. */
static inline void scatter(const struct op *op, struct thread *t, const void *from, int size, uint32_t lanes)
{
    char *to = t->storage + op->destination;
    const uint32_t step = op->strides[1];
    if (lanes == op->lanes && step == (uint32_t)size) {
        memcpy(to, from, count_of(op) * size);
        return;
    }
    const int count = count_of(op);
    if (lanes == op->lanes && (count == 16 || count == 32) && scatter_parts(to, from, size, step, count))
        return;
    for (; lanes; lanes &= lanes - 1) {
        int lane = __builtin_ctz(lanes);
        memcpy(to + lane * step, (const char *)from + lane * size, size);
    }
}

static inline int holds(int condition, int less, int equal, int greater)
{
    switch (condition) {
    case 1: return equal;
    case 2: return !equal;
    case 3: return greater;
    case 4: return greater || equal;
    case 5: return less;
    case 6: return less || equal;
    default: return !(less || equal || greater); /* un */
    }
}

#define NARROW(class, C, type, D, convert, tested) NARROW_AS(class, C, type, D, convert, tested, 0, 0, 0, SAME, 0)
#define SAME(values)

/* `from` and `to` are the bits of cr0.0 without which denormals are flushed before and after the conversion: those below `least`,
 * and by `flush`.  `rounds`: it rounds as cr0.0 says. */
#define NARROW_AS(class, C, type, D, convert, tested, from, least, to, flush, rounds)           \
    static NOINLINE const struct op *narrow_##class##_##type##_region(const struct op *op, struct thread *t) \
    {                                                                                           \
        const uint32_t lanes = enabled(op, t);                                                  \
        const int count = count_of(op), saturate = op->saturate;                                \
        C in[LANES];                                                                            \
        D out[LANES];                                                                           \
        memcpy(in, at(t, op->source[0]), sizeof in);                                            \
        if (from && unlikely(!(control_bits(t) & from)))                                        \
            FLUSH_BELOW(least, in)                                                              \
        if (rounds && unlikely(control_bits(t) & ROUNDING)) {                                   \
            round_as(control_bits(t));                                                          \
            IN_MEMORY(in);                                                                      \
        }                                                                                       \
        for (int lane = 0; lane < LANES; lane++) { C x = in[lane]; out[lane] = (convert); }     \
        if (rounds && unlikely(control_bits(t) & ROUNDING)) {                                   \
            IN_MEMORY(out);                                                                     \
            round_as(0);                                                                        \
        }                                                                                       \
        if (to && unlikely(!(control_bits(t) & to))) {                                          \
            flush(out)                                                                          \
        }                                                                                       \
        (void)saturate;                                                                         \
        if (unlikely(op->condition)) {                                                          \
            uint32_t bits = 0;                                                                  \
            for (int lane = 0; lane < count; lane++) {                                          \
                const D x = out[lane];                                                          \
                bits |= (uint32_t)holds(op->condition, (tested) < 0, (tested) == 0, (tested) > 0) << lane; \
            }                                                                                   \
            set_flags(op, t, lanes, bits);                                                      \
        }                                                                                       \
        scatter(op, t, out, sizeof(D), lanes);                                                  \
        return op + 1;                                                                          \
    }                                                                                           \
    const struct op *narrow_##class##_##type(const struct op *op, struct thread *t)             \
    {                                                                                           \
        const int saturate = op->saturate;                                                      \
        const char *source = at(t, op->source[0]);                                              \
        char *destination = t->storage + op->destination;                                       \
        (void)saturate;                                                                         \
        if (unlikely(op->condition) || enabled(op, t) != op->lanes                              \
            || ((from || to) && unlikely((control_bits(t) & (from | to)) != (from | to)))       \
            || (rounds && unlikely(control_bits(t) & ROUNDING)))                                \
            return narrow_##class##_##type##_region(op, t);                                     \
        if (op->lanes == 1) {                                                                   \
            C x;                                                                                \
            memcpy(&x, source, sizeof x);                                                       \
            D y = (convert);                                                                    \
            memcpy(destination, &y, sizeof y);                                                  \
            return op + 1;                                                                      \
        }                                                                                       \
        if (likely(op->strides[1] == sizeof(D) && apart(source, LANES * sizeof(C), destination, LANES * sizeof(D)))) { \
            const C *restrict values = (const C *)source;                                       \
            D *restrict results = (D *)destination;                                             \
            if (op->lanes == 0xffff) {                                                          \
                for (int lane = 0; lane < 16; lane++) { C x = values[lane]; results[lane] = (convert); } \
                return op + 1;                                                                  \
            }                                                                                   \
            if (op->lanes == 0xffffffff) {                                                      \
                for (int lane = 0; lane < 32; lane++) { C x = values[lane]; results[lane] = (convert); } \
                return op + 1;                                                                  \
            }                                                                                   \
        }                                                                                       \
        return narrow_##class##_##type##_region(op, t);                                         \
    }

static inline int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

#define WRAP(type, D) NARROW(d, uint32_t, type, D, (D)x, x)
WRAP(ub, uint8_t)
WRAP(uw, uint16_t)
WRAP(ud, uint32_t)
WRAP(b, int8_t)
WRAP(w, int16_t)
WRAP(d, int32_t)

#define CLAMP(type, D, low, high) NARROW(q, int64_t, type, D, (D)(saturate ? clamp(x, low, high) : x), x)
CLAMP(ub, uint8_t, 0, UINT8_MAX)
CLAMP(uw, uint16_t, 0, UINT16_MAX)
CLAMP(ud, uint32_t, 0, UINT32_MAX)
CLAMP(uq, uint64_t, 0, INT64_MAX)
CLAMP(b, int8_t, INT8_MIN, INT8_MAX)
CLAMP(w, int16_t, INT16_MIN, INT16_MAX)
CLAMP(d, int32_t, INT32_MIN, INT32_MAX)
CLAMP(q, int64_t, INT64_MIN, INT64_MAX)

/* Truncated and clamped; NaN is 0. */
#define TRUNCATE(type, D, low, high)                                                                           \
    NARROW(f, float, type, D, x != x ? 0 : x >= (high) + 1.0f ? (D)(high) : x <= (low) ? (D)(low) : (D)x, x)     \
    NARROW(df, double, type, D, x != x ? 0 : x >= (high) + 1.0 ? (D)(high) : x <= (low) ? (D)(low) : (D)x, x)
TRUNCATE(ub, uint8_t, 0, 255)
TRUNCATE(uw, uint16_t, 0, 65535)
TRUNCATE(ud, uint32_t, 0, 4294967295ll)
TRUNCATE(b, int8_t, -128, 127)
TRUNCATE(w, int16_t, -32768, 32767)
TRUNCATE(d, int32_t, -2147483648ll, 2147483647ll)
/* In place of the largest value plus one, which is no value of the class. */
NARROW(f, float, uq, uint64_t, x != x || x <= 0 ? 0 : x >= 0x1p64f ? UINT64_MAX : (uint64_t)x, x)
NARROW(df, double, uq, uint64_t, x != x || x <= 0 ? 0 : x >= 0x1p64 ? UINT64_MAX : (uint64_t)x, x)
NARROW(f, float, q, int64_t, x != x ? 0 : x >= 0x1p63f ? INT64_MAX : x <= -0x1p63f ? INT64_MIN : (int64_t)x, x)
NARROW(df, double, q, int64_t, x != x ? 0 : x >= 0x1p63 ? INT64_MAX : x <= -0x1p63 ? INT64_MIN : (int64_t)x, x)

/* 0 to 1, NaN is 0. */
#define UNIT(x) (!saturate ? (x) : (x) > 0 ? (x) < 1 ? (x) : 1 : 0)
#define FLUSH_BITS(least, results)                                                                             \
    for (int lane = 0; lane < LANES; lane++)                                                                   \
        if ((results[lane] & 0x7fff) < (least))                                                                \
            results[lane] &= 0x8000;
#define FLUSH_HF(results) FLUSH_BITS(0x400, results)
#define FLUSH_BF(results) FLUSH_BITS(0x80, results)
#define FLUSH_F(results) FLUSH_BELOW(LEAST_F, results)
#define LEAST_DF 0x1p-1022
NARROW_AS(f, float, hf_each, uint16_t, hf_of_f_as(UNIT(x), control_bits(t)), f_of_hf(x), KEEP_F, LEAST_F, KEEP_HF, FLUSH_HF, 0)
NARROW_AS(f, float, bf, uint16_t, bf_of_f(UNIT(x)), f_of_bf(x), KEEP_F, LEAST_F, KEEP_F, FLUSH_BF, 0)
NARROW(f, float, f, float, canonical_f(UNIT(x)), x)
NARROW_AS(df, double, hf, uint16_t, hf_of_f(odd_f(UNIT(x))), f_of_hf(x), KEEP_DF, LEAST_DF, KEEP_HF, FLUSH_HF, 0)
NARROW_AS(df, double, bf, uint16_t, bf_of_f(odd_f(UNIT(x))), f_of_bf(x), KEEP_DF, LEAST_DF, KEEP_F, FLUSH_BF, 0)
NARROW_AS(df, double, f, float, canonical_f((float)UNIT(x)), x, KEEP_DF, LEAST_DF, KEEP_F, FLUSH_F, 1)
NARROW(df, double, df, double, UNIT(x) == UNIT(x) ? UNIT(x) : df_of_bits(0x7ff8000000000000ull), x)

const struct op *narrow_f_hf(const struct op *op, struct thread *t)
{
    const uint32_t lanes = op->lanes;
    if ((lanes != 0xffff && lanes != ~0u) || op->strides[1] != 2 || op->condition || op->saturate || enabled(op, t) != lanes
        || unlikely((control_bits(t) & (ROUNDING | KEEP_F | KEEP_HF)) != (KEEP_F | KEEP_HF)))
        return narrow_f_hf_each(op, t);
    float from[LANES];
    uint16_t to[LANES];
    memcpy(from, at(t, op->source[0]), count_of(op) * sizeof *from);
    eu_halves_of_floats(to, from, 16);
    if (lanes == ~0u)
        eu_halves_of_floats(to + 16, from + 16, 16);
    memcpy(t->storage + op->destination, to, count_of(op) * sizeof *to);
    return op + 1;
}

/* One element as it is. */
#define MOVE(type, D)                                                          \
    const struct op *move_##type(const struct op *op, struct thread *t)        \
    {                                                                          \
        if (enabled(op, t))                                                    \
            memcpy(t->storage + op->destination, at(t, op->source[0]), sizeof(D)); \
        return op + 1;                                                         \
    }
MOVE(ub, uint8_t)
MOVE(uw, uint16_t)

/* Before ops that know only one way: of the bits strides[0] of cr0.0 those of strides[1] must be set, and only those. */
const struct op *float_guard(const struct op *op, struct thread *t)
{
    return (control_bits(t) & op->strides[0]) == op->strides[1] ? op + 1 : stop(op, t, INTERPRET);
}
