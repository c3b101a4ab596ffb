/* Control flow: places of lanes, branches, labels (ir.py "Lanes"). */
#pragma GCC optimize("O3") /* loops over lanes become vectors */
#include "eu.h"

const struct op *eu_op_at(const struct kernel *kernel, int64_t address)
{
    if (address < kernel->first || address >= kernel->last || (address - kernel->first) & 7)
        return NULL;
    int32_t index = kernel->op_at[(address - kernel->first) >> 3];
    return index < 0 ? NULL : &kernel->ops[index];
}

/* All lanes that are there are at one place, as they nearly always are: these lanes, or 0. */
static uint32_t together(const struct thread *t, int64_t *place)
{
    const int64_t *places = t->places;
    int64_t lowest = ENDED, deep = 0;
    for (int lane = 0; lane < LANES; lane++) {
        lowest = places[lane] < lowest ? places[lane] : lowest;
        deep |= t->depths[lane];
    }
    uint32_t here = 0, ended = 0;
    for (int lane = 0; lane < LANES; lane++) {
        here |= (uint32_t)(places[lane] == lowest) << lane;
        ended |= (uint32_t)(places[lane] == ENDED) << lane;
    }
    *place = lowest;
    return lowest < ENDED && !deep && (here | ended) == ~0u ? here : 0;
}

/* Choose the thread's place from those of its lanes: the deepest, and among these the lowest. */
void eu_enter(struct thread *t)
{
    int64_t one;
    const uint32_t all = together(t, &one);
    if (likely(all)) {
        t->active = all;
        t->waiting = 0;
        t->next_wait = ENDED;
        t->at = eu_op_at(t->kernel, one);
        if (!t->at)
            t->reason = STRAYED;
        return;
    }
    int64_t place = ENDED;
    int32_t depth = -1;
    uint32_t live = 0;
    for (int lane = 0; lane < LANES; lane++) {
        if (t->places[lane] == ENDED)
            continue;
        live |= 1u << lane;
        if (t->depths[lane] > depth || (t->depths[lane] == depth && t->places[lane] < place)) {
            depth = t->depths[lane];
            place = t->places[lane];
        }
    }
    uint32_t active = 0;
    int64_t next = ENDED;
    for (int lane = 0; lane < LANES; lane++) {
        if (!(live >> lane & 1) || t->depths[lane] != depth)
            continue;
        if (t->places[lane] == place)
            active |= 1u << lane;
        else if (t->places[lane] < next)
            next = t->places[lane];
    }
    t->active = active;
    t->waiting = live & ~active;
    t->next_wait = next;
    if (!live) {
        eu_end_thread(t);
        t->at = NULL;
        t->reason = GONE;
        return;
    }
    t->at = eu_op_at(t->kernel, place);
    if (!t->at)
        t->reason = STRAYED;
}

/* Write the places of the active lanes down. */
void eu_leave(struct thread *t)
{
    if (!t->at)
        return;
    const int64_t address = t->at->address;
    for (int lane = 0; lane < LANES; lane++)
        t->places[lane] = t->active >> lane & 1 ? address : t->places[lane];
}

static const struct op *rearrange(struct thread *t)
{
    eu_enter(t);
    return t->at;
}

/* Lanes `leave` go to `target`, the other active ones on to the op behind. */
const struct op *eu_jump(const struct op *op, struct thread *t, uint32_t leave, int64_t target)
{
    int64_t next = op[1].address;
    for (int lane = 0; lane < LANES; lane++)
        if (t->active >> lane & 1)
            t->places[lane] = leave >> lane & 1 ? target : next;
    return rearrange(t);
}

/* The lanes of a branch that its predicate chooses, as lanes of the thread. */
static inline uint32_t chosen(const struct op *op, const struct thread *t)
{
    uint32_t lanes = t->active >> op->first_lane & op->lanes;
    if (op->predicate)
        lanes &= predicate(op, t);
    return lanes << op->first_lane;
}

static inline const struct op *branch(const struct op *op, struct thread *t, uint32_t leave)
{
    const struct op *target = op->extra;
    if (!leave) /* the op behind is at a label and takes up those who wait there */
        return op + 1;
    if (leave == t->active && !t->waiting)
        return target;
    return eu_jump(op, t, leave, target->address);
}

const struct op *flow_true(const struct op *op, struct thread *t)
{
    return branch(op, t, chosen(op, t));
}

const struct op *flow_false(const struct op *op, struct thread *t)
{
    uint32_t reach = (t->active >> op->first_lane & op->lanes) << op->first_lane;
    return branch(op, t, reach & ~chosen(op, t));
}

const struct op *flow_all(const struct op *op, struct thread *t)
{
    return branch(op, t, t->active);
}

const struct op *flow_uniform(const struct op *op, struct thread *t)
{
    uint32_t bit = flags_of(op, t) & 1;
    if (op->predicate == 0 || bit != op->inverse)
        return branch(op, t, t->active);
    return op + 1;
}

/* Calls, returns, and branches to where a register says.  final: of jmpi, one flag bit decides for all lanes; detail: how the target
 * is found; condition: what becomes of the call depth; saturate: there is a destination. */
const struct op *flow_far(const struct op *op, struct thread *t)
{
    enum { DIRECT = 0, DISTANCE = 1, ABSOLUTE_PLACE = 2 };
    enum { CALL = 1, RETURN = 2 };
    uint32_t leave = t->active, word = 0;
    if (op->predicate)
        leave = !op->final ? chosen(op, t) : (flags_of(op, t) & 1) != op->inverse ? t->active : 0;
    if (!leave)
        return op + 1;
    if (op->detail != DIRECT)
        memcpy(&word, at(t, op->source[0]), 4);
    int64_t target = word;
    if (op->detail == DIRECT)
        target = ((const struct op *)op->extra)->address;
    else if (op->detail == DISTANCE)
        target = (uint32_t)(word + op->address);
    target &= ~INT64_C(7); /* ir.py: ADDRESS_MASK */
    if (op->condition) {
        const int32_t deeper = op->condition == CALL ? 1 : -1;
        for (int lane = 0; lane < LANES; lane++)
            if (leave >> lane & 1)
                t->depths[lane] = t->depths[lane] + deeper > 0 ? t->depths[lane] + deeper : 0;
    }
    if (op->saturate) {
        const uint32_t pair[2] = {op[1].address, leave};
        memcpy(t->storage + op->destination, pair, sizeof pair);
    }
    return eu_jump(op, t, leave, target);
}

/* At a label: lanes that wait here are taken up. */
const struct op *flow_label(const struct op *op, struct thread *t)
{
    if (likely(t->next_wait != op->address))
        return op + 1;
    for (int lane = 0; lane < LANES; lane++)
        if (t->active >> lane & 1)
            t->places[lane] = op->address;
    const struct op *here = rearrange(t);
    return here == op ? op + 1 : here;
}

/* Before an instruction that reads ce0: the lanes that are here, also if it masks none (`brw_eu_emit.c:brw_find_live_channel`). */
const struct op *flow_enables(const struct op *op, struct thread *t)
{
    memcpy(t->storage + ENABLES, &t->active, sizeof t->active);
    return op + 1;
}

const struct op *flow_nop(const struct op *op, struct thread *t)
{
    (void)t;
    return op + 1;
}

const struct op *flow_interpret(const struct op *op, struct thread *t)
{
    return stop(op, t, INTERPRET);
}

const struct op *flow_stray(const struct op *op, struct thread *t)
{
    return stop(op, t, STRAYED);
}
