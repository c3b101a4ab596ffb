/* Operations on 32-bit integers that go lane by lane, and those with carries; see alu.h and alu_integer.h. */

#define BY_LANE(name, expression)                                            \
    HANDLER(name)                                                            \
    {                                                                        \
        V a[N], b[N], c[N], r[N];                                            \
        NAME(load)(op, t, 0, a);                                             \
        NAME(load)(op, t, 1, b);                                             \
        NAME(load)(op, t, 2, c);                                             \
        for (int i = 0; i < N; i++)                                          \
            for (int lane = 0; lane < PER; lane++) {                         \
                const T x = a[i][lane], y = b[i][lane], z = c[i][lane];      \
                (void)y, (void)z;                                            \
                r[i][lane] = (T)(expression);                                \
            }                                                                \
        return NAME(finish)(op, t, r);                                       \
    }

#define MAGNITUDE(x) ((U)((x) < 0 ? ~(x) : (x)))

BY_LANE(lzd, (U)x ? __builtin_clz((U)x) : 32)
BY_LANE(fbh, MAGNITUDE(x) ? __builtin_clz(MAGNITUDE(x)) : -1)
BY_LANE(fbl, (U)x ? __builtin_ctz((U)x) : -1)
BY_LANE(cbit, __builtin_popcount((U)x))
BY_LANE(bfrev, eu_reverse((U)x))
BY_LANE(bfe, eu_extract((int64_t)z, (U)x & 31, (U)y & 31, (T)-1 < 0))
BY_LANE(bfi1, ((1ull << ((U)x & 31)) - 1) << ((U)y & 31))
/* The lowest bit of the mask, as a factor, moves what is inserted. */
BY_LANE(bfi2, ((U)x & (U)y * ((U)x & (0 - (U)x))) | (~(U)x & (U)z))
BY_LANE(dp4a, eu_dot(x, y, z, op->detail))

/* acc0 gets the carry or borrow of each lane that is written. */
static const struct op *NAME(with_carry)(const struct op *op, struct thread *t, V *value, const SV *carry)
{
    const uint32_t lanes = enabled(op, t);
    V bits[N];
    for (int i = 0; i < N; i++)
        bits[i] = (V)(carry[i] & 1);
    NAME(store)(op, t, value, lanes);
    NAME(blend)(t->storage + ACCUMULATOR, bits, lanes);
    return op + 1;
}

HANDLER(addc)
{
    V a[N], b[N], r[N];
    SV carry[N];
    NAME(load)(op, t, 0, a);
    NAME(load)(op, t, 1, b);
    for (int i = 0; i < N; i++) {
        r[i] = (V)((UV)a[i] + (UV)b[i]);
        carry[i] = (SV)((UV)r[i] < (UV)a[i]);
    }
    return NAME(with_carry)(op, t, r, carry);
}

HANDLER(subb)
{
    V a[N], b[N], r[N];
    SV carry[N];
    NAME(load)(op, t, 0, a);
    NAME(load)(op, t, 1, b);
    for (int i = 0; i < N; i++) {
        r[i] = (V)((UV)a[i] - (UV)b[i]);
        carry[i] = (SV)((UV)a[i] < (UV)b[i]);
    }
    return NAME(with_carry)(op, t, r, carry);
}
