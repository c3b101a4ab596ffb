/* Operations that compare or choose; see alu.h. */

/* The condition sets flags, and all ones or zeros go to the destination. */
const struct op *NAME(cmp)(const struct op *op, struct thread *t)
{
    V a[N], b[N];
    SV mask[N];
    NAME(load)(op, t, 0, a);
    NAME(load)(op, t, 1, b);
#if FLOAT
    if (unlikely(!(NAME(mode)(t) & KEEP))) {
        FLUSH(a)
        FLUSH(b)
    }
#endif
    NAME(compare)(op->condition, a, b, mask);
    uint32_t lanes = enabled(op, t);
    set_flags(op, t, lanes, NAME(bits)(mask));
    if (op->detail) /* there is a destination */
        NAME(store)(op, t, (const V *)mask, lanes);
    return op + 1;
}

/* The predicate chooses; all lanes that are reached are written. */
const struct op *NAME(sel)(const struct op *op, struct thread *t)
{
    V a[N], b[N], r[N];
    NAME(load)(op, t, 0, a);
    NAME(load)(op, t, 1, b);
    uint32_t first = predicate(op, t);
    UNROLL
    for (int i = 0; i < N; i++) {
        SV mask = NAME(mask)(first, i);
        r[i] = (V)PICK(mask, a[i], b[i]);
    }
    NAME(store)(op, t, r, reached(op, t));
    return op + 1;
}

/* sel.ge and sel.lt without predicate: the greater or smaller one; a NaN loses. */
const struct op *NAME(minmax)(const struct op *op, struct thread *t)
{
    V a[N], b[N], r[N];
    SV mask[N];
    NAME(load)(op, t, 0, a);
    NAME(load)(op, t, 1, b);
    NAME(compare)(op->condition, a, b, mask);
    UNROLL
    for (int i = 0; i < N; i++) {
#if FLOAT
        mask[i] |= (SV)(b[i] != b[i]);
        r[i] = NAME(canonical)((V)PICK(mask[i], a[i], b[i]));
#else
        r[i] = (V)PICK(mask[i], a[i], b[i]);
#endif
    }
    NAME(store)(op, t, r, enabled(op, t));
    return op + 1;
}

/* The condition on source 2 against zero chooses. */
const struct op *NAME(csel)(const struct op *op, struct thread *t)
{
    V a[N], b[N], c[N], zero[N], r[N];
    SV mask[N];
    NAME(load)(op, t, 0, a);
    NAME(load)(op, t, 1, b);
    NAME(load)(op, t, 2, c);
    UNROLL
    for (int i = 0; i < N; i++)
        zero[i] = (V){0};
    NAME(compare)(op->condition, c, zero, mask);
    UNROLL
    for (int i = 0; i < N; i++)
        r[i] = (V)PICK(mask[i], a[i], b[i]);
    NAME(store)(op, t, r, enabled(op, t));
    return op + 1;
}
