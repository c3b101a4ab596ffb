/* Operations on integers that wrap, signed (T = S) or unsigned (T = U); see alu.h. */

#define BODY(loads, expression)                                              \
    {                                                                        \
        V a[N], b[N], c[N], r[N];                                            \
        (void)a, (void)b, (void)c;                                           \
        loads;                                                               \
        UNROLL                                                               \
        for (int i = 0; i < N; i++)                                          \
            r[i] = (V)(expression);                                          \
        return NAME(finish)(op, t, r);                                       \
    }
#define HANDLER(name) const struct op *NAME(name)(const struct op *op, struct thread *t)
#define ONE(name, expression) HANDLER(name) BODY(NAME(load)(op, t, 0, a), expression)
#define TWO(name, expression) HANDLER(name) BODY((NAME(load)(op, t, 0, a), NAME(load)(op, t, 1, b)), expression)
#define THREE(name, expression) \
    HANDLER(name) BODY((NAME(load)(op, t, 0, a), NAME(load)(op, t, 1, b), NAME(load)(op, t, 2, c)), expression)

ONE(mov, a[i])
ONE(not, ~a[i])
TWO(and, a[i] & b[i])
TWO(or, a[i] | b[i])
TWO(xor, a[i] ^ b[i])
TWO(add, (UV)a[i] + (UV)b[i])
TWO(mul, (UV)a[i] * (UV)b[i])
THREE(add3, (UV)a[i] + (UV)b[i] + (UV)c[i])
THREE(mad, (UV)a[i] + (UV)b[i] * (UV)c[i])
TWO(shl, (UV)a[i] << ((UV)b[i] & (8 * sizeof(T) - 1)))
TWO(shr, a[i] >> ((V)((UV)b[i] & (8 * sizeof(T) - 1)))) /* shr if unsigned, asr if signed */
TWO(rol, (UV)a[i] << ((UV)b[i] & (8 * sizeof(T) - 1)) | (UV)a[i] >> (-(UV)b[i] & (8 * sizeof(T) - 1)))
TWO(ror, (UV)a[i] >> ((UV)b[i] & (8 * sizeof(T) - 1)) | (UV)a[i] << (-(UV)b[i] & (8 * sizeof(T) - 1)))

const struct op *NAME(bfn)(const struct op *op, struct thread *t)
{
    V a[N], b[N], c[N], r[N];
    NAME(load)(op, t, 0, a);
    NAME(load)(op, t, 1, b);
    NAME(load)(op, t, 2, c);
    UNROLL
    for (int i = 0; i < N; i++) {
        V sum = {0};
        for (int index = 0; index < 8; index++)
            if (op->detail >> index & 1)
                sum |= (index & 1 ? a[i] : ~a[i]) & (index & 2 ? b[i] : ~b[i]) & (index & 4 ? c[i] : ~c[i]);
        r[i] = sum;
    }
    return NAME(finish)(op, t, r);
}

/* Exact in 64 bits, of operands that have 32. */
#if !defined(NARROW_ONLY)
TWO(avg, (a[i] + b[i] + 1) >> 1)
TWO(mach, (a[i] * b[i]) >> 32)
#endif
