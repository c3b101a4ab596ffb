/* Operations on floats: rounded once, NaN is the canonical one (semantics.py); see alu.h.
 *
 * KEEP is the bit of cr0.0 that keeps denormals of the type.  Without it the handler goes a second way, and where cr0.0 does not
 * round to nearest even a third: to change how the processor rounds takes longer than all else.
 */

#define CANONICAL ((U)(sizeof(T) == 8 ? 0x7ff8000000000000ull : 0x7fc00000ull))
#define SMALLEST ((U)(sizeof(T) == 8 ? 0x0010000000000000ull : 0x00800000ull)) /* pattern of the smallest normal */

INLINE uint32_t NAME(mode)(const struct thread *t)
{
    return control_bits(t) & (ROUNDING | KEEP);
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

#define LOAD_SOURCES(sources)          \
    NAME(load)(op, t, 0, a);           \
    if (sources > 1)                   \
        NAME(load)(op, t, 1, b);       \
    if (sources > 2)                   \
        NAME(load)(op, t, 2, c);

#define FLUSH_SOURCES(sources)         \
    FLUSH(a)                           \
    if (sources > 1)                   \
        FLUSH(b)                       \
    if (sources > 2)                   \
        FLUSH(c)

/* `rounds`: whether the result is rounded as cr0.0 says; else it is exact, or rounded to nearest whatever cr0.0 says. */
#define WAYS(name, sources, rounds, expression)                                            \
    static __attribute__((noinline)) const struct op *NAME(name##_otherwise)(const struct op *op, struct thread *t) \
    {                                                                                      \
        const uint32_t mode = NAME(mode)(t);                                               \
        V a[N], b[N], c[N], r[N];                                                          \
        (void)b, (void)c;                                                                  \
        LOAD_SOURCES(sources)                                                              \
        if (!(mode & KEEP)) {                                                              \
            FLUSH_SOURCES(sources)                                                         \
        }                                                                                  \
        round_as(mode);                                                                    \
        IN_MEMORY(a);                                                                      \
        IN_MEMORY(b);                                                                      \
        IN_MEMORY(c);                                                                      \
        for (int i = 0; i < N; i++)                                                        \
            r[i] = NAME(canonical)((V)(expression));                                       \
        IN_MEMORY(r);                                                                      \
        round_as(0);                                                                       \
        if (!(mode & KEEP))                                                                \
            FLUSH(r)                                                                       \
        return NAME(finish)(op, t, r);                                                     \
    }                                                                                      \
    static __attribute__((noinline)) const struct op *NAME(name##_flushed)(const struct op *op, struct thread *t) \
    {                                                                                      \
        V a[N], b[N], c[N], r[N];                                                          \
        (void)b, (void)c;                                                                  \
        LOAD_SOURCES(sources)                                                              \
        FLUSH_SOURCES(sources)                                                             \
        UNROLL                                                                             \
        for (int i = 0; i < N; i++)                                                        \
            r[i] = NAME(flushed)(NAME(canonical)((V)(expression)));                        \
        return NAME(finish)(op, t, r);                                                     \
    }                                                                                      \
    const struct op *NAME(name)(const struct op *op, struct thread *t)                     \
    {                                                                                      \
        const uint32_t mode = NAME(mode)(t);                                               \
        if (unlikely(mode != KEEP)) {                                                      \
            if (rounds && mode & ROUNDING)                                                 \
                return NAME(name##_otherwise)(op, t);                                      \
            if (!(mode & KEEP))                                                            \
                return NAME(name##_flushed)(op, t);                                        \
        }                                                                                  \
        V a[N], b[N], c[N], r[N];                                                          \
        (void)b, (void)c;                                                                  \
        LOAD_SOURCES(sources)                                                              \
        UNROLL                                                                             \
        for (int i = 0; i < N; i++)                                                        \
            r[i] = NAME(canonical)((V)(expression));                                       \
        return NAME(finish)(op, t, r);                                                     \
    }

#define FLOATS(name, sources, expression) WAYS(name, sources, 0, expression)

FLOATS(mov, 1, a[i])
WAYS(add, 2, 1, a[i] + b[i])
WAYS(mul, 2, 1, a[i] * b[i])
WAYS(mad, 3, 1, NAME(fused)(a[i], b[i], c[i]))

/* Bits, whatever they mean. */
const struct op *NAME(raw)(const struct op *op, struct thread *t)
{
    V a[N];
    NAME(load)(op, t, 0, a);
    return NAME(finish)(op, t, a);
}
