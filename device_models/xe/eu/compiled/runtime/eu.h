/* The execution units' compiled back end: threads, instructions, memory.
 *
 * An instruction is a `struct op` with a handler, a C function that is compiled once for its operation, type and width.
 * A thread runs by calling one handler after the other; each returns the next op, or NULL after `stop`.  Nothing here
 * allocates, locks or calls Python.  All state of a thread is in `struct thread` and its storage, so that it can stop
 * before any op, be saved, and go on elsewhere.
 *
 * The layouts are mirrored in layout.py, which checks the sizes against `eu_sizes`.
 */
#ifndef EU_H
#define EU_H

#include <fenv.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 32

/* Bytes of a vector that the processor has, or that the compiler makes good code for. */
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define VECTOR 64
#elif defined(__AVX2__)
#define VECTOR 32
#else
#define VECTOR 16
#endif

#define ENDED ((1ll << 62) - 1) /* ir.ENDED: the place of a lane that is gone */
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define NOINLINE __attribute__((noinline)) /* a rare way, whose registers and copies the usual one need not save */

/* Why a thread, or a slot, stopped. */
enum reason {
    RAN_OUT = 0,   /* of its budget */
    GONE = 1,      /* the thread has ended; of a slot: no group is left */
    BARRIER = 2,   /* of a thread: waits for the others of its group */
    MISS = 3,      /* a page is not in the map: miss_address, miss_bytes, miss_kind */
    SURFACE = 4,   /* a surface is not in the table: miss_address is its key */
    INTERPRET = 5, /* the op at its place is not for this back end */
    STOPPED = 6,   /* somebody set `stop` */
    STRAYED = 7,   /* no op at its place */
    BLOCKED = 8,   /* of a slot: every thread that could run is set aside */
    TEXTURE = 9,   /* an image is not in the table of sampled ones: miss_address is its key */
    SAMPLER = 10,  /* a sampler state is not in the table: miss_address is where it lies */
};

enum thread_state { RUNNING = 0, AT_BARRIER = 1, SET_ASIDE = 2, DONE = 3 };

enum { READ = 1, WRITE = 2 };

struct thread;
struct op;
typedef const struct op *(*handler)(const struct op *, struct thread *);

/* A source is an offset in the thread's storage, or with bit 31 one in the kernel's constants. */
struct op {
    handler run;
    uint32_t destination;
    uint32_t source[3];
    uint32_t lanes;      /* which of the instruction's lanes exist: 1 << width - 1 */
    uint32_t address;    /* from the instruction base */
    uint16_t flag;       /* flag bit of lane first_lane */
    uint8_t first_lane;
    uint8_t no_mask;
    uint8_t predicate;   /* opcodes.PredicateMode */
    uint8_t inverse;
    uint8_t condition;   /* opcodes.Condition */
    uint8_t saturate;
    uint8_t modified[3]; /* how a source is fetched: SCALAR, NEGATE, ABSOLUTE; words of dwords: LOW_HALF, HIGH_HALF */
    uint8_t begins;      /* the first op of an instruction: only there a thread stops */
    uint8_t detail;      /* truth table of bfn, type codes */
    uint8_t final;       /* of convert.c: the destination is the instruction's, and only enabled lanes are written */
    uint8_t reserved[2];
    uint32_t strides[2]; /* of convert.c: bytes between rows, and between elements of a row */
    const void *extra;   /* struct message, or the target op of a branch */
};

enum { SCALAR = 1, NEGATE = 2, ABSOLUTE = 4, CONSTANT = 8, COMPLEMENT = 16, LOW_HALF = 32, HIGH_HALF = 64 };

struct kernel {
    const struct op *ops;
    const int32_t *op_at; /* op of an address: index (address - first) / 8, -1 where there is none */
    int64_t first, last;  /* addresses [first, last) */
    const char *constants;
};

struct barrier {
    uint16_t producers, consumers; /* that have signalled */
};

struct slot;
struct sampling;
struct output;

struct thread {
    char *storage; /* registers.py */
    const char *constants;
    int64_t *places; /* per lane; valid for all lanes when the thread has stopped, else for lanes that wait */
    int32_t *depths;
    const struct op *at;
    const struct kernel *kernel;
    struct slot *slot;
    uint32_t active;   /* lanes at the thread's place */
    uint32_t waiting;  /* lanes elsewhere */
    int64_t next_wait; /* lowest place of the waiting lanes at the depth of the active ones */
    int64_t ready;     /* at, active, waiting and next_wait are as it stopped; else they are found from the places */
    int32_t state;     /* enum thread_state */
    uint32_t signalled;     /* barriers, by id, that are not complete and that the thread will be notified of */
    uint32_t notifications; /* barriers that are complete, less those that sync.bar has taken (n0.0) */
    int32_t reason;
    int32_t miss_kind;
    int64_t miss_address;
    int64_t miss_bytes;
};

/* A page of a function's address space, mapped for the execution units (memory.c). */
struct page {
    _Atomic uint64_t tag; /* page number << 8 | log2 of its bytes; 0 is free */
    char *host;
    uint32_t access;
    uint32_t ledger; /* not used here: what the caller counts for */
};

struct count {
    uint64_t reads, read_bytes, writes, written_bytes;
};

struct map {
    struct page *pages; /* a hash table with linear probing */
    uint64_t slots;     /* a power of two */
    uint64_t used;
};

struct surface {
    uint64_t key; /* kind << 32 | value, and bit 63 */
    uint64_t base;
    uint64_t bytes; /* accesses behind read zero and are not written; ~0 for none */
    uint64_t stride; /* bytes from a thread's to the next thread's: scratch; 0 for what they share */
};

/* A page of 64 KiB, or of 4 KiB, that was used lately: found again by its number, without the map. */
struct recent {
    uint64_t page; /* number + 1; 0 for none */
    char *host;
    struct count *count;
};
#define RECENT 8
#define SMALL_RECENT 32

/* A place where one group runs at a time, with what a walk over groups needs. */
struct slot {
    struct thread *threads;
    struct map *map;
    struct count *counts; /* by slot of the map */
    uint32_t *touched;    /* how many of them are not zero, and which */
    struct surface *surfaces;
    uint64_t surface_slots;
    char *slm;
    uint64_t slm_bytes;
    uint64_t stateless_base; /* general state base */
    struct walk *walk;
    _Atomic int32_t *stop;
    int32_t thread_count;
    int32_t current;  /* thread whose turn it is */
    int32_t occupied; /* a group is in flight */
    int32_t culprit;  /* thread that made the slot stop */
    int64_t executed; /* ops */
    int64_t alive;    /* threads of the group that have not ended */
    int64_t group[3];
    int64_t taken, taken_end; /* groups that it took from the walk and has not begun */
    struct barrier barriers[32];
    int64_t number; /* of its first thread, among all of the walk that run */
    int64_t halts; /* of the walk, when the slots were let run */
    struct recent recent[2][RECENT]; /* read, and written; of no other call than this */
    struct recent small[2][SMALL_RECENT];
    struct sampling *sampling; /* surfaces and samplers of sampler messages; without them these are interpreted */
    struct output *output;     /* takes what pixel shaders write; without it render target writes are interpreted */
    char *urb;                 /* without it URB messages are interpreted */
    uint64_t urb_bytes;
};

/* Groups [first, end) in each dimension; slots take them one by one. */
struct walk {
    const struct kernel *kernel;
    const char *payload; /* of each thread: payload_bytes at the start of its storage */
    const char *arfs;    /* of each thread: arf_bytes at arf_at in its storage */
    uint64_t payload_bytes, arf_bytes, arf_at;
    const uint32_t *dispatch; /* of each thread: its lanes */
    const int64_t *places;    /* of each thread: where its lanes begin */
    int64_t entry;
    int64_t first[3], end[3];
    int64_t total;
    int64_t shaders; /* its threads are shaders: r0 is the payload's, and who needs the interpreter waits for the others */
    int64_t fastest; /* the dimension in which neighbours follow each other: 0 is x, 1 is y; z is the slowest */
    char apart[64]; /* what follows is written by all slots, what is above is read by all */
    _Atomic int64_t next;
    _Atomic int64_t halts; /* how often a slot needed something: the others come back too */
};

/* The page of 4 KiB at `address` if it was used lately; `written` chooses the table. */
static inline struct recent *small_recent(struct slot *s, int written, uint64_t address)
{
    const uint64_t number = (address >> 12) + 1;
    struct recent *recent = &s->small[written][number & (SMALL_RECENT - 1)];
    return recent->page == number ? recent : NULL;
}

/* Remember the page of `1 << shift` bytes at `address`. */
static inline void remember(struct slot *s, int written, uint64_t address, int shift, char *host, struct count *count)
{
    const uint64_t number = (address >> shift) + 1;
    struct recent *recent = shift == 16 ? &s->recent[written][number & (RECENT - 1)] : &s->small[written][number & (SMALL_RECENT - 1)];
    *recent = (struct recent){number, host, count};
}

/* At the begin of a call: the map may have changed. */
static inline void forget_recent(struct slot *s)
{
    memset(s->recent, 0, sizeof s->recent);
    memset(s->small, 0, sizeof s->small);
}

void eu_enter(struct thread *t);
int64_t eu_run_one(struct thread *t, int64_t budget);
void eu_leave(struct thread *t);
void eu_end_thread(struct thread *t);
const struct op *eu_jump(const struct op *op, struct thread *t, uint32_t leave, int64_t target);
const struct op *eu_op_at(const struct kernel *kernel, int64_t address);

/* Stop the thread before `op`. */
static inline const struct op *stop(const struct op *op, struct thread *t, int reason)
{
    t->at = op;
    t->reason = reason;
    return NULL;
}

static inline char *at(const struct thread *t, uint32_t offset)
{
    return unlikely(offset & 0x80000000u) ? (char *)t->constants + (offset & 0x7fffffffu) : t->storage + offset;
}

#define ROUNDING 0x30u /* of cr0.0: to nearest even is 0 */

static inline uint32_t control_bits(const struct thread *t)
{
    uint32_t cr0;
    memcpy(&cr0, t->storage + CONTROL, 4);
    return cr0;
}

/* From here on the processor rounds as these bits of cr0.0 say.  To nearest again before anything else runs. */
static inline void round_as(uint32_t mode)
{
    static const int ways[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    fesetround(ways[(mode & ROUNDING) >> 4]);
}

/* Between two round_as: operands and results that the compiler cannot compute before or after. */
#define IN_MEMORY(values) __asm__ volatile("" : "+m"(values) : : "memory")

#if !defined(FLAGS) || !defined(ENABLES) || !defined(CONTROL) || !defined(ACCUMULATOR) || !defined(STATE) || !defined(REGISTER_FILE)
#error "FLAGS, ENABLES, CONTROL, ACCUMULATOR, STATE: offsets of f0, ce0, cr0, acc0, sr0 in storage; REGISTER_FILE: bytes of general registers; by the compiler's flags"
#endif

static inline uint32_t flags_of(const struct op *op, const struct thread *t)
{
    uint32_t bits;
    memcpy(&bits, t->storage + FLAGS + (op->flag >> 3), 4);
    return bits;
}

/* Flag bits of the lanes in `which` become those of `bits`. */
static inline void set_flags(const struct op *op, struct thread *t, uint32_t which, uint32_t bits)
{
    char *where = t->storage + FLAGS + (op->flag >> 3);
    uint32_t old;
    memcpy(&old, where, 4);
    old = (old & ~which) | (bits & which);
    memcpy(where, &old, 4);
}

static inline uint32_t predicate(const struct op *op, const struct thread *t)
{
    uint32_t flags = flags_of(op, t) & op->lanes;
    if (op->predicate == 2)
        flags = flags ? ~0u : 0;
    else if (op->predicate == 3)
        flags = flags == op->lanes ? ~0u : 0;
    return op->inverse ? ~flags : flags;
}

/* The lanes of the instruction that could take part, before its predicate. */
static inline uint32_t reached(const struct op *op, const struct thread *t)
{
    return op->no_mask ? op->lanes : t->active >> op->first_lane & op->lanes;
}

static inline uint32_t enabled(const struct op *op, const struct thread *t)
{
    uint32_t lanes = reached(op, t);
    return op->predicate ? lanes & predicate(op, t) : lanes;
}

#endif
