/* Finding memory (memory.c), and the messages of the LSC (message.c, atomic.c). */
#ifndef EU_MEMORY_H
#define EU_MEMORY_H

#include "eu.h"

enum space { FLAT = 0, STATELESS = 1, BOUND = 2, SHARED = 3 };

#define SLM_ADDRESS_MASK 0x7FFFFull /* groups.SLM_ADDRESS_MASK: the bits above are ignored */

/* A load, store or atomic; what does not fit here is interpreted (messages.py). */
struct message {
    uint8_t address_bytes; /* 4 or 8 */
    uint8_t data_bytes;    /* 1, 2, 4, 8: of an element in memory */
    uint8_t register_bytes;
    uint8_t components;
    uint8_t space;
    uint8_t atomic;   /* LscOp; of 2-D blocks how they lie in registers */
    uint8_t returns;  /* there is a response */
    uint8_t pointer;  /* the surface is in a0: 1 + its dword */
    uint8_t high_half; /* d16u32h: the element is in the upper half of its dword */
    uint8_t plain;     /* one component, as many bytes in memory as in the register, 16 or 32 lanes */
    uint8_t reserved[2];
    uint32_t component_bytes; /* registers of one component of all lanes */
    uint32_t data;            /* of a store or an atomic: where data begins in storage */
    uint32_t a0;              /* offset of a0 in storage */
    uint32_t surface_shift;   /* of the dword in a0: how much of it is no key */
    uint32_t response;        /* bytes; a block clears what it does not load of them */
    int64_t offset;           /* added to each address */
    uint64_t surface;         /* key; of what is in a0, the kind */
};

enum { INDEX_SHIFT = 24 }; /* `surface_shift` of binding table indices */

/* What a dword in a0 adds to a surface's key (messages.py: surface_key): an index, or the offset of a surface state. */
static inline uint32_t key_of(uint32_t dword, uint32_t shift)
{
    return shift == INDEX_SHIFT ? dword >> shift : dword >> shift << shift;
}

/* The key of the surface that a message names, by itself or by a dword of a0. */
static inline uint64_t key_named(const struct thread *t, uint64_t surface, uint32_t a0, uint32_t shift, uint32_t pointer)
{
    if (pointer) {
        uint32_t dword;
        memcpy(&dword, t->storage + a0 + 4 * (pointer - 1), 4);
        surface |= key_of(dword, shift);
    }
    return surface;
}

/* Lanes whose elements lie one behind the other, or are all the same one, inside of one page: the usual ways. */
struct piece {
    char *host; /* of lane 0's element; NULL if it is none of these */
    int is_one; /* all lanes have the same address */
};
struct piece eu_piece(const struct op *op, struct thread *t, const struct message *m, uint32_t lanes, int access);
char *eu_block(const struct op *op, struct thread *t, const struct message *m, uint32_t bytes, int access);

/* Where the lanes of one message are in the host's memory. */
struct places {
    char *host[LANES];        /* NULL: behind a surface's end, or in two pages */
    uint64_t address[LANES];
    uint32_t split, outside;  /* lanes */
    uint64_t room;            /* bytes from the first lane's address to the end of what its space or surface has */
};

#define ADDRESS_MASK 0xffffffffffffull

/* The page of 64 or 4 KiB at an address, and the shift of its size; NULL if it is not there for this access. */
struct page *eu_page(const struct map *map, uint64_t address, int access, int *shift);
/* Count accesses of a slot to a page of its map. */
void eu_count(struct slot *s, struct count *c, uint64_t times, uint64_t bytes, int access);
uint64_t eu_atomic(void *where, int bytes, int op, uint64_t a, uint64_t b); /* message.LscOp; what was there */

/* Whether all pages of some consecutive bytes are there; without them the thread has stopped. */
int eu_reach(const struct op *op, struct thread *t, uint64_t address, uint32_t bytes, int access);
int eu_locate(const struct op *op, struct thread *t, const struct message *m, uint32_t lanes, uint32_t bytes, int access,
              struct places *p);
/* Dwords of lanes that lie anywhere in SLM or in one page (gather.c); 0: they do not, and nothing was done. */
int eu_gather(const struct op *op, struct thread *t, const struct message *m, uint32_t lanes);
int eu_scatter(const struct op *op, struct thread *t, const struct message *m, uint32_t lanes);
void eu_copy(struct thread *t, const struct message *m, uint64_t address, char *data, uint32_t bytes, int access);

#endif
