/* Operations on floats: rounded once to nearest even, NaN is the canonical one (semantics.py); see alu.h.
 *
 * KEEP is the bit of cr0.0 that keeps denormals of the type.  Without it the handler goes a second way that makes them zero;
 * what rounds otherwise is interpreted.
 */

#define ROUNDING 0x30u
#define CANONICAL ((U)(sizeof(T) == 8 ? 0x7ff8000000000000ull : 0x7fc00000ull))
#define SMALLEST ((U)(sizeof(T) == 8 ? 0x0010000000000000ull : 0x00800000ull)) /* pattern of the smallest normal */

INLINE uint32_t NAME(mode)(const struct thread *t)
{
    uint32_t cr0;
    memcpy(&cr0, t->storage + CONTROL, 4);
    return cr0 & (ROUNDING | KEEP);
}

INLINE V NAME(flushed)(V value)
{
    const U sign = (U)1 << (8 * sizeof(U) - 1);
    UV bits = (UV)value;
    SV small = (SV)((bits & ~sign) < SMALLEST);
    return (V)(bits & (~(UV)small | sign));
}

INLINE V NAME(canonical)(V value)
{
    SV number = (SV)(value == value);
    UV nan = (UV){0} + CANONICAL;
    return (V)(((SV)value & number) | ((SV)nan & ~number));
}

INLINE V NAME(fused)(V a, V b, V c)
{
    V r;
    for (int lane = 0; lane < PER; lane++)
        r[lane] = sizeof(T) == 8 ? __builtin_fma(b[lane], c[lane], a[lane]) : __builtin_fmaf(b[lane], c[lane], a[lane]);
    return r;
}

#define FLUSH(x)                                                             \
    UNROLL                                                                   \
    for (int i = 0; i < N; i++)                                              \
        x[i] = NAME(flushed)(x[i]);

#define FLOATS(name, sources, expression)                                                  \
    static __attribute__((noinline)) const struct op *NAME(name##_otherwise)(const struct op *op, struct thread *t) \
    {                                                                                      \
        if (NAME(mode)(t) & ROUNDING)                                                      \
            return stop(op, t, INTERPRET);                                                 \
        V a[N], b[N], c[N], r[N];                                                          \
        (void)b, (void)c;                                                                  \
        NAME(load)(op, t, 0, a);                                                           \
        FLUSH(a)                                                                           \
        if (sources > 1) {                                                                 \
            NAME(load)(op, t, 1, b);                                                       \
            FLUSH(b)                                                                       \
        }                                                                                  \
        if (sources > 2) {                                                                 \
            NAME(load)(op, t, 2, c);                                                       \
            FLUSH(c)                                                                       \
        }                                                                                  \
        for (int i = 0; i < N; i++)                                                        \
            r[i] = NAME(flushed)(NAME(canonical)((V)(expression)));                        \
        return NAME(finish)(op, t, r);                                                     \
    }                                                                                      \
    const struct op *NAME(name)(const struct op *op, struct thread *t)                     \
    {                                                                                      \
        if (unlikely(NAME(mode)(t) != KEEP))                                               \
            return NAME(name##_otherwise)(op, t);                                          \
        V a[N], b[N], c[N], r[N];                                                          \
        (void)b, (void)c;                                                                  \
        NAME(load)(op, t, 0, a);                                                           \
        if (sources > 1)                                                                   \
            NAME(load)(op, t, 1, b);                                                       \
        if (sources > 2)                                                                   \
            NAME(load)(op, t, 2, c);                                                       \
        UNROLL                                                                             \
        for (int i = 0; i < N; i++)                                                        \
            r[i] = NAME(canonical)((V)(expression));                                       \
        return NAME(finish)(op, t, r);                                                     \
    }

FLOATS(mov, 1, a[i])
FLOATS(add, 2, a[i] + b[i])
FLOATS(mul, 2, a[i] * b[i])
FLOATS(mad, 3, NAME(fused)(a[i], b[i], c[i]))

/* Bits, whatever they mean. */
const struct op *NAME(raw)(const struct op *op, struct thread *t)
{
    V a[N];
    NAME(load)(op, t, 0, a);
    return NAME(finish)(op, t, a);
}
