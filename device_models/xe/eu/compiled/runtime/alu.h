/* Included once for each class of values and number of lanes, with
 *
 *     T, U, S    type of an element, and the unsigned and signed integers of its size
 *     W          lanes: 1, 16, 32
 *     NAME(x)    x with class and lanes in it
 *     FLOAT      1 or 0
 *
 * An operation loads its sources, all lanes of them, computes, and writes the lanes that are enabled.  Vectors are GCC's,
 * which clang has too.
 */

#define BYTES (W * sizeof(T) < VECTOR ? W * sizeof(T) : VECTOR)
#define N ((int)(W * sizeof(T) / BYTES))
#define PER ((int)(BYTES / sizeof(T))) /* lanes of a vector */

typedef T NAME(vec) __attribute__((vector_size(BYTES), aligned(1), may_alias));
typedef U NAME(uvec) __attribute__((vector_size(BYTES), aligned(1), may_alias));
typedef S NAME(svec) __attribute__((vector_size(BYTES), aligned(1), may_alias));
#define V NAME(vec)
#define UV NAME(uvec)
#define SV NAME(svec)
#define UNROLL _Pragma("GCC unroll 16")
#define INLINE static inline __attribute__((always_inline))
#define FULL ((uint32_t)(W == 32 ? ~0u : (1u << (W & 31)) - 1))

static __attribute__((noinline)) void NAME(load_modified)(const char *from, uint8_t how, V *to)
{
    if (how & SCALAR) {
        U pattern;
        memcpy(&pattern, from, sizeof pattern);
        UV bits = (UV){0} + pattern;
        for (int i = 0; i < N; i++)
            to[i] = (V)bits;
    } else {
        memcpy(to, from, N * sizeof *to);
    }
    const U sign = (U)1 << (8 * sizeof(U) - 1);
    for (int i = 0; i < N; i++) {
        if (FLOAT) {
            UV bits = (UV)to[i];
            if (how & ABSOLUTE)
                bits &= ~sign;
            if (how & NEGATE)
                bits ^= sign;
            to[i] = (V)bits;
        } else {
            if (how & ABSOLUTE) {
                SV negative = (SV)to[i] < 0;
                to[i] = (V)(((UV)to[i] ^ (UV)negative) - (UV)negative);
            }
            if (how & NEGATE)
                to[i] = (V)(-(UV)to[i]);
            if (how & COMPLEMENT)
                to[i] = (V)(~(UV)to[i]);
        }
    }
}

/* The slow ways work on copies, so that the values of the fast ones need not be in memory. */
INLINE void NAME(load)(const struct op *op, struct thread *t, int k, V *to)
{
    const uint8_t how = op->modified[k];
    if (likely(!how)) {
        const V *from = (const V *)(t->storage + op->source[k]);
        UNROLL
        for (int i = 0; i < N; i++)
            to[i] = from[i];
        return;
    }
    const char *from = at(t, op->source[k]);
    if (likely(how == SCALAR)) {
        U pattern;
        memcpy(&pattern, from, sizeof pattern);
        UV bits = (UV){0} + pattern;
        UNROLL
        for (int i = 0; i < N; i++)
            to[i] = (V)bits;
    } else if (!FLOAT && sizeof(T) == 4 && how & (LOW_HALF | HIGH_HALF)) {
        const int shift = how == HIGH_HALF ? 16 : 0;
        UNROLL
        for (int i = 0; i < N; i++)
            to[i] = (V)(((const UV *)from)[i] >> shift & 0xffff);
    } else {
        V copy[N];
        NAME(load_modified)(from, how, copy);
        UNROLL
        for (int i = 0; i < N; i++)
            to[i] = copy[i];
    }
}

/* Bits of lanes as a vector of all ones and zeros, for vector `i`. */
INLINE SV NAME(mask)(uint32_t lanes, int i)
{
    SV mask;
    U bits = (U)(lanes >> (i * PER & 31));
    UV powers;
    for (int lane = 0; lane < PER; lane++)
        powers[lane] = (U)1 << lane;
    mask = ((((UV){0} + bits) & powers) != 0);
    return mask;
}

/* The other way around. */
INLINE uint32_t NAME(bits)(const SV *mask)
{
    uint32_t bits = 0;
#if VECTOR == 64 && W > 1
    UNROLL
    for (int i = 0; i < N; i++) {
        const __m512i vector = (__m512i)mask[i];
        bits |= (uint32_t)(sizeof(T) == 8 ? _mm512_movepi64_mask(vector) : _mm512_movepi32_mask(vector)) << (i * PER & 31);
    }
#elif VECTOR == 32 && W > 1
    UNROLL
    for (int i = 0; i < N; i++) {
        const __m256i vector = (__m256i)mask[i];
        const uint32_t part = sizeof(T) == 8 ? (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(vector))
                                             : (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(vector));
        bits |= part << (i * PER & 31);
    }
#elif defined(__SSE2__) && W > 1
    UNROLL
    for (int i = 0; i < N; i++) {
        const __m128i vector = (__m128i)mask[i];
        const uint32_t part = sizeof(T) == 8 ? (uint32_t)_mm_movemask_pd(_mm_castsi128_pd(vector))
                                             : (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(vector));
        bits |= part << (i * PER & 31);
    }
#else
    for (int i = 0; i < N; i++)
        for (int lane = 0; lane < PER; lane++)
            bits |= (uint32_t)(mask[i][lane] & 1) << ((i * PER + lane) & 31);
#endif
    return bits;
}

#define COMPARE(number, expression)                                          \
    case number:                                                             \
        UNROLL                                                               \
        for (int i = 0; i < N; i++)                                          \
            mask[i] = (SV)(expression);                                      \
        break;

INLINE void NAME(compare)(int condition, const V *a, const V *b, SV *mask)
{
    switch (condition) {
        COMPARE(1, a[i] == b[i])
        COMPARE(2, a[i] != b[i])
        COMPARE(3, a[i] > b[i])
        COMPARE(4, a[i] >= b[i])
        COMPARE(5, a[i] < b[i])
        COMPARE(6, a[i] <= b[i])
    default: /* unordered; of integers never */
        UNROLL
        for (int i = 0; i < N; i++)
#if FLOAT
            mask[i] = (SV)(a[i] != a[i]) | (SV)(b[i] != b[i]);
#else
            mask[i] = (SV){0};
#endif
    }
}

static __attribute__((noinline)) void NAME(blend)(char *to, const V *value, uint32_t lanes)
{
    for (int i = 0; i < N; i++) {
        SV old, new, mask = NAME(mask)(lanes, i);
        memcpy(&old, to + i * BYTES, BYTES);
        memcpy(&new, &value[i], BYTES);
        old = (new & mask) | (old & ~mask);
        memcpy(to + i * BYTES, &old, BYTES);
    }
}

INLINE void NAME(store)(const struct op *op, struct thread *t, const V *value, uint32_t lanes)
{
    char *to = t->storage + op->destination;
    if (likely(lanes == FULL)) {
        UNROLL
        for (int i = 0; i < N; i++)
            ((V *)to)[i] = value[i];
    } else if (lanes) {
        V copy[N];
        UNROLL
        for (int i = 0; i < N; i++)
            copy[i] = value[i];
        NAME(blend)(to, copy, lanes);
    }
}

/* 0 to 1; NaN becomes 0. */
static __attribute__((noinline)) void NAME(saturate)(V *value)
{
    for (int i = 0; i < N; i++) {
        SV above = (SV)(value[i] > 0), below = (SV)(value[i] < 1);
        V one = (V){0} + 1;
        value[i] = (V)(((SV)value[i] & above & below) | ((SV)one & above & ~below));
    }
}

static __attribute__((noinline)) void NAME(test)(const struct op *op, struct thread *t, const V *value, uint32_t lanes)
{
    V zero[N];
    SV mask[N];
    for (int i = 0; i < N; i++)
        zero[i] = (V){0};
    NAME(compare)(op->condition, value, zero, mask);
    set_flags(op, t, lanes, NAME(bits)(mask));
}

INLINE const struct op *NAME(finish)(const struct op *op, struct thread *t, V *value)
{
    uint32_t lanes = enabled(op, t);
    if (unlikely(op->condition | op->saturate)) {
        V copy[N];
        UNROLL
        for (int i = 0; i < N; i++)
            copy[i] = value[i];
        if (FLOAT && op->saturate)
            NAME(saturate)(copy);
        if (op->condition)
            NAME(test)(op, t, copy, lanes);
        NAME(store)(op, t, copy, lanes);
        return op + 1;
    }
    NAME(store)(op, t, value, lanes);
    return op + 1;
}

#define PICK(mask, yes, no) (((SV)(yes) & (mask)) | ((SV)(no) & ~(mask)))
