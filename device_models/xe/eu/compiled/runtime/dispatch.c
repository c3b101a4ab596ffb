/* Running threads, groups of threads, and walks over groups. */
#pragma GCC optimize("O3") /* loops over lanes become vectors */
#include "draw.h"
#include "sampler.h"

#include <time.h>

enum { AT_ONCE = 64, AT_ONCE_OPS = 1 << 15, PARTS = 64 }; /* take_group */
enum { CLOCK_OPS = 4096 }; /* ops between two looks at the clock */
enum { TURN = 4096 }; /* ops of a thread before the others of its group have theirs: nobody waits for a thread that spins */

/* Ops that were run; the reason is in the thread. */
int64_t eu_run_one(struct thread *t, int64_t budget)
{
    if (!t->ready)
        eu_enter(t);
    t->ready = 0;
    const struct op *op = t->at;
    if (!op)
        return 0;
    int64_t left = budget;
    do {
        left--;
        op = op->run(op, t);
        if (unlikely(!op))
            break;
    } while (left > 0 || !op->begins);
    if (op) {
        t->at = op;
        t->reason = RAN_OUT;
    }
    if (t->reason == RAN_OUT || t->reason == BARRIER)
        t->ready = 1;
    else if (t->reason != GONE)
        eu_leave(t);
    return budget - left;
}

/* A barrier with all its producers and consumers is complete: those who wait for it may go on. */
static void complete(struct slot *s, int id, uint32_t producers, uint32_t consumers)
{
    struct barrier *b = &s->barriers[id];
    if (b->producers < producers || b->consumers < consumers)
        return;
    b->producers = b->consumers = 0;
    for (int i = 0; i < s->thread_count; i++) {
        struct thread *t = &s->threads[i];
        t->notifications += t->signalled >> id & 1;
        t->signalled &= ~(1u << id);
    }
}

void eu_end_thread(struct thread *t)
{
    t->active = t->waiting = 0;
    int64_t *places = t->places;
    for (int lane = 0; lane < LANES; lane++)
        places[lane] = ENDED;
    if (t->state == DONE)
        return;
    t->state = DONE;
    if (!t->slot)
        return;
    t->slot->alive--;
    if (t->slot->barriers[0].producers) /* the others need not wait for it */
        complete(t->slot, 0, t->slot->alive, t->slot->alive);
}

const struct op *gateway_end(const struct op *op, struct thread *t)
{
    eu_end_thread(t);
    return stop(op, t, GONE);
}

/* Gateway payload, dword 2: 7:0 the barrier, 15:14 its type for this thread, 23:16 producers, 31:24 consumers.  Barrier 0 is
 * that of all threads of the group that are left. */
const struct op *gateway_barrier(const struct op *op, struct thread *t)
{
    enum { BOTH = 0, PRODUCER = 1, CONSUMER = 2 };
    uint32_t dword;
    memcpy(&dword, at(t, op->source[0]) + 8, 4);
    const int id = dword & 0xff, type = dword >> 14 & 3;
    if (!reached(op, t))
        return op + 1;
    if (!t->slot || id > 31 || type > CONSUMER)
        return stop(op, t, INTERPRET);
    struct barrier *b = &t->slot->barriers[id];
    b->producers += type != CONSUMER;
    b->consumers += type != PRODUCER;
    if (type != PRODUCER)
        t->signalled |= 1u << id;
    const uint32_t all = t->slot->alive;
    complete(t->slot, id, id ? dword >> 16 & 0xff : all, id ? dword >> 24 : all);
    return op + 1;
}

const struct op *sync_barrier(const struct op *op, struct thread *t)
{
    if (!t->notifications)
        return stop(op, t, BARRIER);
    t->notifications--;
    return op + 1;
}

static void begin_group(struct slot *s, int64_t index)
{
    const struct walk *w = s->walk;
    int64_t size[3];
    for (int i = 0; i < 3; i++)
        size[i] = w->end[i] - w->first[i];
    const int fastest = w->fastest != 0;
    s->group[fastest] = w->first[fastest] + index % size[fastest];
    s->group[!fastest] = w->first[!fastest] + index / size[fastest] % size[!fastest];
    s->group[2] = w->first[2] + index / size[0] / size[1];
    memset(s->barriers, 0, sizeof s->barriers);
    const struct op *entry = eu_op_at(w->kernel, w->entry);
    s->alive = 0;
    for (int i = 0; i < s->thread_count; i++) {
        struct thread *t = &s->threads[i];
        memcpy(t->storage, w->payload + i * w->payload_bytes, w->payload_bytes);
        memcpy(t->storage + w->arf_at, w->arfs + i * w->arf_bytes, w->arf_bytes);
        if (!w->shaders) {
            uint32_t *r0 = (uint32_t *)t->storage;
            r0[1] = s->group[0];
            r0[6] = s->group[1];
            r0[7] = s->group[2];
        }
        /* sr0.0: thread 2:0, execution unit 6:4, subslice from bit 8 on. */
        const uint64_t number = s->number + i;
        const uint32_t where = (number & 7) | (number >> 3 & 7) << 4 | number >> 6 << 8;
        memcpy(t->storage + STATE, &where, sizeof where);
        memcpy(t->places, w->places + i * LANES, LANES * sizeof *t->places);
        memset(t->depths, 0, LANES * sizeof *t->depths);
        t->kernel = w->kernel;
        t->constants = w->kernel->constants;
        t->slot = s;
        t->state = w->dispatch[i] ? RUNNING : DONE;
        s->alive += t->state == RUNNING;
        t->active = w->dispatch[i];
        t->waiting = 0;
        t->next_wait = ENDED;
        t->at = entry;
        t->ready = entry != NULL;
        t->signalled = t->notifications = 0;
        t->reason = RAN_OUT;
    }
    s->current = 0;
    s->occupied = 1;
}

static int must_return(const struct slot *s)
{
    return (s->stop && atomic_load_explicit(s->stop, memory_order_relaxed))
        || atomic_load_explicit(&s->walk->halts, memory_order_relaxed) != s->halts;
}

/* The moment that is so many nanoseconds from now.  It bounds how long a call takes, whatever the card's clock says: how far a
 * kernel comes in a slice is in no recording. */
int64_t eu_deadline(int64_t nanoseconds)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec + nanoseconds;
}

/* More ops for a slot that has used up its own: until `deadline` (`eu_deadline`; 0: none). */
static int64_t more_ops(int64_t deadline)
{
    return deadline && eu_deadline(0) < deadline ? CLOCK_OPS : 0;
}

/* Run the group in flight until it is done (1) or something stops it (0, and the reason). */
static int run_group(struct slot *s, int64_t *budget, int64_t deadline, int *reason)
{
    for (;;) {
        int able = 0, aside = 0;
        for (int n = 0; n < s->thread_count; n++) {
            int i = s->current;
            struct thread *t = &s->threads[i];
            if (t->state == AT_BARRIER && t->notifications)
                t->state = RUNNING;
            aside += t->state == SET_ASIDE;
            if (t->state == RUNNING) {
                if (*budget <= 0 && (*budget = more_ops(deadline)) <= 0) {
                    *reason = RAN_OUT;
                    return 0;
                }
                if (unlikely(must_return(s))) {
                    *reason = STOPPED;
                    return 0;
                }
                able++;
                int64_t done = eu_run_one(t, *budget < TURN ? *budget : TURN);
                s->executed += done;
                *budget -= done + 1;
                if (t->reason == BARRIER)
                    t->state = AT_BARRIER;
                else if (t->reason == INTERPRET && s->walk->shaders)
                    t->state = SET_ASIDE;
                else if (t->reason != RAN_OUT && t->reason != GONE) {
                    s->culprit = i;
                    *reason = t->reason;
                    atomic_fetch_add_explicit(&s->walk->halts, 1, memory_order_relaxed);
                    return 0;
                }
            }
            s->current = i + 1 == s->thread_count ? 0 : i + 1;
        }
        if (!able) {
            if (!s->alive) {
                s->occupied = 0;
                return 1;
            }
            /* Threads that all wait for a barrier nobody can complete wait for ever, as on hardware. */
            *reason = aside ? BLOCKED : RAN_OUT;
            if (!aside)
                *budget = 0;
            return 0;
        }
    }
}

/* Whoever called may have changed places and states. */
static void arrive(struct slot *s)
{
    s->alive = 0;
    for (int i = 0; i < s->thread_count; i++) {
        s->threads[i].ready = 0;
        s->alive += s->threads[i].state != DONE;
    }
}

/* And may want to see them. */
static void leave(struct slot *s)
{
    for (int i = 0; i < s->thread_count; i++)
        if (s->threads[i].ready)
            eu_leave(&s->threads[i]);
}

/* The next group for a slot; -1 if none is left.
 *
 * Neighbours mostly touch neighbouring lines of memory, which the processors of two slots would take from each other; so a slot takes
 * up to AT_ONCE groups, if those are short (`ops` of the last one), and no more than a part of what is left. */
static int64_t take_group(struct slot *s, int64_t ops)
{
    if (s->taken >= s->taken_end) {
        struct walk *w = s->walk;
        int64_t count = (w->total - atomic_load_explicit(&w->next, memory_order_relaxed)) / PARTS;
        if (count > AT_ONCE)
            count = AT_ONCE;
        if (ops * count > AT_ONCE_OPS)
            count = AT_ONCE_OPS / ops;
        if (count < 1)
            count = 1;
        s->taken = atomic_fetch_add(&w->next, count);
        s->taken_end = s->taken + count < w->total ? s->taken + count : w->total;
        if (s->taken >= s->taken_end) {
            s->taken = s->taken_end = 0;
            return -1;
        }
    }
    return s->taken++;
}

/* Run groups for `budget` ops, and on until `deadline`. */
int eu_run(struct slot *s, int64_t budget, int64_t deadline)
{
    int reason = RAN_OUT;
    int64_t ops = AT_ONCE_OPS, before = s->executed; /* the first group of a call is taken alone */
    forget_recent(s);
    if (s->occupied)
        arrive(s);
    for (;;) {
        if (!s->occupied) {
            int64_t index = take_group(s, ops);
            if (index < 0)
                return GONE;
            begin_group(s, index);
            before = s->executed;
        }
        if (!run_group(s, &budget, deadline, &reason)) {
            leave(s);
            return reason;
        }
        ops = s->executed - before;
    }
}

/* One thread alone, outside of a group: tests, and shaders that are dispatched one by one. */
int eu_run_thread(struct thread *t, int64_t budget, int64_t *executed)
{
    t->constants = t->kernel->constants;
    t->ready = 0;
    *executed = eu_run_one(t, budget);
    if (t->ready)
        eu_leave(t);
    return t->reason;
}

const uint64_t *eu_sizes(void)
{
    static const uint64_t sizes[] = {
        sizeof(struct op), sizeof(struct kernel), sizeof(struct thread), sizeof(struct page), sizeof(struct count),
        sizeof(struct map), sizeof(struct surface), sizeof(struct slot), sizeof(struct walk), sizeof(struct message),
        sizeof(struct image), sizeof(struct texture), sizeof(struct sampler), sizeof(struct sampling), sizeof(struct sample),
        sizeof(struct output), sizeof(struct render_write), sizeof(struct depth_test), sizeof(struct stencil_test), sizeof(struct target),
        sizeof(struct draw),
    };
    return sizes;
}
