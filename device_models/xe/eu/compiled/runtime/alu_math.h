/* Operations on floats that go lane by lane; see alu.h and alu_float.h. */

#define BY_LANE(name, sources, expression)                                   \
    INLINE V NAME(name##_lanes)(V a, V b)                                    \
    {                                                                        \
        V r;                                                                 \
        for (int lane = 0; lane < PER; lane++) {                             \
            const T x = a[lane], y = sources > 1 ? b[lane] : 0;              \
            (void)y;                                                         \
            r[lane] = (T)(expression);                                       \
        }                                                                    \
        return r;                                                            \
    }                                                                        \
    FLOATS(name, sources, NAME(name##_lanes)(a[i], b[i]))

BY_LANE(rndu, 1, sizeof(T) == 8 ? ceil(x) : ceilf(x))
BY_LANE(rndd, 1, sizeof(T) == 8 ? floor(x) : floorf(x))
BY_LANE(rnde, 1, sizeof(T) == 8 ? rint(x) : rintf(x))
BY_LANE(rndz, 1, sizeof(T) == 8 ? trunc(x) : truncf(x))
BY_LANE(frc, 1, x - (T)(sizeof(T) == 8 ? floor(x) : floorf(x)))
BY_LANE(sqt, 1, sizeof(T) == 8 ? sqrt(x) : sqrtf(x))
BY_LANE(rsqt, 1, 1.0 / sqrt((double)x))
BY_LANE(log, 1, eu_log2(x))
BY_LANE(exp, 1, eu_exp2(x))
BY_LANE(sin, 1, eu_sin(x))
BY_LANE(cos, 1, eu_cos(x))
BY_LANE(pow, 2, eu_pow(x, y))
FLOATS(inv, 1, (T)1 / a[i])
FLOATS(fdiv, 2, a[i] / b[i])

/* The macros' first step gives the final result, and says so in the flags of all lanes that it writes. */
const struct op *NAME(invm)(const struct op *op, struct thread *t)
{
    const uint32_t lanes = enabled(op, t);
    const struct op *next = NAME(fdiv)(op, t);
    if (next)
        set_flags(op, t, lanes, ~0u);
    return next;
}

const struct op *NAME(rsqtm)(const struct op *op, struct thread *t)
{
    const uint32_t lanes = enabled(op, t);
    const struct op *next = NAME(sqt)(op, t);
    if (next)
        set_flags(op, t, lanes, ~0u);
    return next;
}
