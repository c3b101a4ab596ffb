/* add, mul and mad on hf, of elements one behind the other: in single precision, rounded once at the end.
 *
 * A product of two halves is exact in single precision, and a sum rounded there first gives the same half.  A sum of a product and a half
 * does not; it is rounded to odd, after which another rounding is as if there had been one.
 */
#pragma GCC optimize("O3") /* loops over lanes become vectors */
#include "half.h"

enum { KEEP = 0x400 }; /* of cr0.0: halves keep their denormals */

#define INLINE static inline __attribute__((always_inline))

/* Lanes of a vector that the processor has: what GCC makes of larger ones, it makes of comparisons element by element. */
enum { PART = VECTOR / 4 };
typedef float floats __attribute__((vector_size(4 * PART), aligned(4), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * PART), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(2 * PART), aligned(2), may_alias));

INLINE floats floats_of_halves(const char *from)
{
    floats to;
    eu_floats_of_halves((float *)&to, from, PART);
    return to;
}

INLINE halves halves_of_floats(floats from)
{
    halves to;
    eu_halves_of_floats((uint16_t *)&to, (const float *)&from, PART);
    return to;
}

/* Lanes from `first` on of source `k`. */
INLINE floats fetch(const struct op *op, const struct thread *t, int k, int first)
{
    const uint8_t how = op->modified[k];
    const char *from = at(t, op->source[k]);
    floats value;
    if (unlikely(how & SCALAR)) {
        uint16_t one;
        memcpy(&one, from, sizeof one);
        value = (floats)((words){0} + bits_of_f(f_of_hf(one))); /* of a sum of floats -0 would be lost */
    } else {
        value = floats_of_halves(from + 2 * first);
    }
    if (unlikely(how & (ABSOLUTE | NEGATE))) {
        const uint32_t keep = how & ABSOLUTE ? 0x7fffffff : ~0u, flip = how & NEGATE ? 0x80000000 : 0;
        value = (floats)(((words)value & keep) ^ flip);
    }
    return value;
}

INLINE floats sum_to_odd(floats product, floats other)
{
    const floats sum = product + other, part = sum - product;
    const floats rest = (product - (sum - part)) + (other - part); /* exact; no number if the sum is none, or infinite */
    const words bits = (words)sum, even = (bits & 1) - 1;
    const words inexact = (words)(rest < 0) | (words)(rest > 0), away = ~((words)(rest > 0) ^ (words)(sum > 0));
    return (floats)(bits + (inexact & even & ((away & 1) - (~away & 1))));
}

INLINE const struct op *deliver(const struct op *op, struct thread *t, const halves *result, int width)
{
    uint32_t lanes = enabled(op, t);
    char *to = t->storage + op->destination;
    if (likely(lanes == (width == 32 ? ~0u : (1u << width) - 1))) {
        memcpy(to, result, 2 * width);
        return op + 1;
    }
    for (; lanes; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        memcpy(to + 2 * lane, (const char *)result + 2 * lane, 2);
    }
    return op + 1;
}

INLINE int as_usual(const struct thread *t)
{
    uint32_t cr0;
    memcpy(&cr0, t->storage + CONTROL, 4);
    return likely((cr0 & (ROUNDING | KEEP)) == KEEP);
}

/* The sources of all lanes are there before one is written. */
#define OPERATION(name, width, sources, expression)                                   \
    const struct op *name##_hf_##width(const struct op *op, struct thread *t)         \
    {                                                                                 \
        enum { PARTS = (width + PART - 1) / PART };                                   \
        if (!as_usual(t))                                                             \
            return stop(op, t, INTERPRET);                                            \
        halves result[PARTS];                                                         \
        _Pragma("GCC unroll 8")                                                       \
        for (int i = 0; i < PARTS; i++) {                                             \
            const floats a = fetch(op, t, 0, i * PART), b = fetch(op, t, 1, i * PART); \
            const floats c = sources > 2 ? fetch(op, t, 2, i * PART) : b;             \
            (void)c;                                                                  \
            result[i] = halves_of_floats(expression);                                 \
        }                                                                             \
        return deliver(op, t, result, width);                                         \
    }

#define WIDTHS(name, sources, expression)                                             \
    OPERATION(name, 1, sources, expression)                                           \
    OPERATION(name, 16, sources, expression)                                          \
    OPERATION(name, 32, sources, expression)

WIDTHS(add, 2, a + b)
WIDTHS(mul, 2, a * b)
WIDTHS(mad, 3, sum_to_odd(b * c, a))
