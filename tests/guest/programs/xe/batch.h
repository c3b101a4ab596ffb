/* SPDX-License-Identifier: MIT */
/*
 * Building batches: the commands of Xe2's command streamers and of its copy engine.
 *
 * Encodings: Intel's public programmer's reference manuals (Arc A-series, volume 2a), for Xe2 as Intel's open drivers
 * use them.  Commands that read memory which an earlier command of the same batch wrote need mi_fence between
 * them: since Xe2 the command streamer's reads may pass its writes.
 */
#ifndef BATCH_H
#define BATCH_H

#include "xe.h"

struct batch {
	uint32_t *cpu;
	uint64_t va;
	unsigned used, capacity; /* dwords */
};

/* A batch in a mapped and bound buffer, from `offset` on. */
struct batch batch_in(struct bo *bo, uint64_t offset);
void emit(struct batch *b, uint32_t dword);

static inline void emit64(struct batch *b, uint64_t qword)
{
	emit(b, (uint32_t)qword);
	emit(b, qword >> 32);
}

static inline void emit_address(struct batch *b, uint64_t va)
{
	emit64(b, canonical(va));
}

/* Where the next command will be. */
static inline uint64_t here(const struct batch *b)
{
	return b->va + 4ull * b->used;
}

/* Command streamer --------------------------------------------------------------------------------------------- */

/* Registers by their offset from the engine's base, which commands add with bit 19 (source of LRR: bit 18). */
#define GPR(n) (0x600 + 8 * (n))
#define PREDICATE_RESULT 0x418
#define PREDICATE_RESULT_2 0x3bc
#define TIMESTAMP 0x358
#define CTX_TIMESTAMP 0x3a8
#define CS_RELATIVE (1u << 19)
#define CS_RELATIVE_SOURCE (1u << 18)

#define MI(opcode, flags_and_length) ((uint32_t)(opcode) << 23 | (flags_and_length))

static inline void mi_noop(struct batch *b)
{
	emit(b, 0);
}

static inline void mi_arb_check(struct batch *b)
{
	emit(b, MI(0x05, 0));
}

static inline void mi_batch_buffer_end(struct batch *b)
{
	emit(b, MI(0x0a, 0));
}

/* The reads of later commands see the writes of earlier ones. */
static inline void mi_fence(struct batch *b)
{
	emit(b, MI(0x09, 3));
}

static inline void mi_store_dword(struct batch *b, uint64_t va, uint32_t value)
{
	emit(b, MI(0x20, 2));
	emit_address(b, va);
	emit(b, value);
}

static inline void mi_store_qword(struct batch *b, uint64_t va, uint64_t value)
{
	emit(b, MI(0x20, 1u << 21 | 3));
	emit_address(b, va);
	emit64(b, value);
}

static inline void mi_load_register(struct batch *b, uint32_t offset, uint32_t value)
{
	emit(b, MI(0x22, CS_RELATIVE | 1));
	emit(b, offset);
	emit(b, value);
}

static inline void mi_load_gpr(struct batch *b, unsigned gpr, uint64_t value)
{
	emit(b, MI(0x22, CS_RELATIVE | 3));
	emit(b, GPR(gpr));
	emit(b, (uint32_t)value);
	emit(b, GPR(gpr) + 4);
	emit(b, value >> 32);
}

static inline void mi_store_register(struct batch *b, uint32_t offset, uint64_t va)
{
	emit(b, MI(0x24, CS_RELATIVE | 2));
	emit(b, offset);
	emit_address(b, va);
}

static inline void mi_store_gpr(struct batch *b, unsigned gpr, uint64_t va)
{
	mi_store_register(b, GPR(gpr), va);
	mi_store_register(b, GPR(gpr) + 4, va + 4);
}

/* Stores only when bit 0 of PREDICATE_RESULT is set. */
static inline void mi_store_register_predicated(struct batch *b, uint32_t offset, uint64_t va)
{
	emit(b, MI(0x24, CS_RELATIVE | 1u << 21 | 2));
	emit(b, offset);
	emit_address(b, va);
}

static inline void mi_load_register_mem(struct batch *b, uint32_t offset, uint64_t va)
{
	emit(b, MI(0x29, CS_RELATIVE | 2));
	emit(b, offset);
	emit_address(b, va);
}

static inline void mi_load_register_reg(struct batch *b, uint32_t destination, uint32_t source)
{
	emit(b, MI(0x2a, CS_RELATIVE | CS_RELATIVE_SOURCE | 1));
	emit(b, source);
	emit(b, destination);
}

static inline void mi_copy_mem_mem(struct batch *b, uint64_t destination, uint64_t source)
{
	emit(b, MI(0x2e, 3));
	emit_address(b, destination);
	emit_address(b, source);
}

/* MI_FLUSH_DW with a post-sync write of a qword; for copy and media engines. */
static inline void mi_flush_store(struct batch *b, uint64_t va, uint64_t value)
{
	emit(b, MI(0x26, 1u << 14 | 3));
	emit_address(b, va);
	emit64(b, value);
}

/* PIPE_CONTROL with a stall and a post-sync write of a qword; for render and compute engines. */
static inline void pipe_control_store(struct batch *b, uint64_t va, uint64_t value)
{
	emit(b, 0x7a000004);
	emit(b, 1u << 20 | 1u << 14 | 1u << 7);
	emit_address(b, va);
	emit64(b, value);
}

/* Comparisons of MI_SEMAPHORE_WAIT (memory against data) and of MI_CONDITIONAL_BATCH_BUFFER_END, unsigned. */
enum comparison { GREATER, GREATER_OR_EQUAL, LESS, LESS_OR_EQUAL, EQUAL, NOT_EQUAL };

/* Wait, polling, until memory `comparison` data. */
static inline void mi_semaphore_wait(struct batch *b, uint64_t va, enum comparison comparison, uint32_t data)
{
	emit(b, MI(0x1c, 1u << 15 | (uint32_t)comparison << 12 | 3));
	emit(b, data);
	emit_address(b, va);
	emit(b, 0);
}

/* Go on while memory `comparison` data, else end the batch. */
static inline void mi_conditional_end(struct batch *b, uint64_t va, enum comparison comparison, uint32_t data)
{
	emit(b, MI(0x36, 1u << 21 | (uint32_t)comparison << 12 | 2));
	emit(b, data);
	emit_address(b, va);
}

static inline void mi_jump(struct batch *b, uint64_t va)
{
	emit(b, MI(0x31, 1u << 8 | 1));
	emit_address(b, va);
}

/* Run a second-level batch, which returns here. */
static inline void mi_call(struct batch *b, uint64_t va)
{
	emit(b, MI(0x31, 1u << 22 | 1u << 8 | 1));
	emit_address(b, va);
}

/* Jump unless the predicate says no; see mi_set_predicate. */
static inline void mi_jump_predicated(struct batch *b, uint64_t va)
{
	emit(b, MI(0x31, 1u << 15 | 1u << 8 | 1));
	emit_address(b, va);
}

enum predicate {
	NOOP_NEVER = 0,
	NOOP_ON_RESULT_2_CLEAR = 1,
	NOOP_ON_RESULT_2_SET = 2,
	NOOP_ON_RESULT_CLEAR = 3,
	NOOP_ON_RESULT_SET = 4,
	NOOP_ALWAYS = 15,
};

static inline void mi_set_predicate(struct batch *b, enum predicate predicate)
{
	emit(b, MI(0x01, predicate));
}

/* MI_MATH: an instruction is a dword; ALU_STORE's first operand is the GPR. */
enum alu_operation {
	ALU_NOOP = 0x000,
	ALU_LOAD = 0x080,
	ALU_LOADINV = 0x480,
	ALU_LOAD0 = 0x081,
	ALU_LOAD1 = 0x481,
	ALU_ADD = 0x100,
	ALU_SUB = 0x101,
	ALU_AND = 0x102,
	ALU_OR = 0x103,
	ALU_XOR = 0x104,
	ALU_SHL = 0x105,
	ALU_SHR = 0x106,
	ALU_SAR = 0x107,
	ALU_STORE = 0x180,
	ALU_STOREINV = 0x580,
};
enum alu_operand { ALU_SRCA = 0x20, ALU_SRCB = 0x21, ALU_ACCU = 0x31, ALU_ZF = 0x32, ALU_CF = 0x33 };

static inline uint32_t alu(enum alu_operation operation, unsigned first, unsigned second)
{
	return (uint32_t)operation << 20 | first << 10 | second;
}

/* GPR `destination` := `result` (ALU_ACCU, ALU_ZF, ALU_CF) of GPR `a` operation GPR `b`. */
static inline void mi_math(struct batch *b, enum alu_operation operation, unsigned destination, unsigned left,
			   unsigned right, enum alu_operand result)
{
	emit(b, MI(0x1a, 3));
	emit(b, alu(ALU_LOAD, ALU_SRCA, left));
	emit(b, alu(ALU_LOAD, ALU_SRCB, right));
	emit(b, alu(operation, 0, 0));
	emit(b, alu(ALU_STORE, destination, result));
}

/* MI_ATOMIC: dword operations; add ATOMIC_QWORD for the qword ones. */
enum atomic {
	ATOMIC_AND = 0x01,
	ATOMIC_OR = 0x02,
	ATOMIC_XOR = 0x03,
	ATOMIC_MOVE = 0x04,
	ATOMIC_INC = 0x05,
	ATOMIC_DEC = 0x06,
	ATOMIC_ADD = 0x07,
	ATOMIC_SUB = 0x08,
	ATOMIC_RSUB = 0x09,
	ATOMIC_IMAX = 0x0a,
	ATOMIC_IMIN = 0x0b,
	ATOMIC_UMAX = 0x0c,
	ATOMIC_UMIN = 0x0d,
	ATOMIC_CMP_WR = 0x0e,
	ATOMIC_PREDEC = 0x0f,
	ATOMIC_QWORD = 0x20,
};

/* With operands in the command; CMP_WR writes the second when memory equals the first. */
static inline void mi_atomic(struct batch *b, enum atomic operation, uint64_t va, uint64_t first, uint64_t second)
{
	uint32_t size = operation & ATOMIC_QWORD ? 1u << 19 : 0;

	emit(b, MI(0x2f, size | 1u << 18 | (uint32_t)operation << 8 | 9));
	emit_address(b, va);
	emit(b, (uint32_t)first);
	emit(b, (uint32_t)second);
	emit(b, first >> 32);
	emit(b, second >> 32);
	for (int i = 0; i < 4; i++)
		emit(b, 0);
}

/* Without operands: INC and DEC. */
static inline void mi_atomic_short(struct batch *b, enum atomic operation, uint64_t va)
{
	emit(b, MI(0x2f, (operation & ATOMIC_QWORD ? 1u << 19 : 0) | (uint32_t)operation << 8 | 1));
	emit_address(b, va);
}

/* Copy engine -------------------------------------------------------------------------------------------------- */

/* Memory object control state of uncached accesses on Xe2 (xe_mocs.c). */
#define MOCS_UNCACHED 3

#define BLT(opcode, flags, dwords) (2u << 29 | (uint32_t)(opcode) << 22 | (flags) | ((dwords) - 2))

/* `bytes` bytes in a row, at most 256 KiB. */
static inline void mem_copy(struct batch *b, uint64_t destination, uint64_t source, uint32_t bytes)
{
	emit(b, BLT(0x5a, 0, 10));
	emit(b, bytes - 1);
	emit(b, 0);
	emit(b, 0);
	emit(b, 0);
	emit_address(b, source);
	emit_address(b, destination);
	emit(b, MOCS_UNCACHED << 28 | MOCS_UNCACHED << 3);
}

/* `pages` pages of 256 bytes. */
static inline void mem_copy_pages(struct batch *b, uint64_t destination, uint64_t source, uint32_t pages)
{
	emit(b, BLT(0x5a, 1u << 19, 10));
	emit(b, pages - 1);
	emit(b, 0);
	emit(b, 0);
	emit(b, 0);
	emit_address(b, source);
	emit_address(b, destination);
	emit(b, MOCS_UNCACHED << 28 | MOCS_UNCACHED << 3);
}

/* `height` rows of `width` bytes. */
static inline void mem_copy_matrix(struct batch *b, uint64_t destination, uint32_t destination_pitch, uint64_t source,
				   uint32_t source_pitch, uint32_t width, uint32_t height)
{
	emit(b, BLT(0x5a, 1u << 17, 10));
	emit(b, width - 1);
	emit(b, height - 1);
	emit(b, source_pitch - 1);
	emit(b, destination_pitch - 1);
	emit_address(b, source);
	emit_address(b, destination);
	emit(b, MOCS_UNCACHED << 28 | MOCS_UNCACHED << 3);
}

static inline void mem_set(struct batch *b, uint64_t va, uint32_t bytes, uint8_t value)
{
	emit(b, BLT(0x5b, 0, 7));
	emit(b, bytes - 1);
	emit(b, 0);
	emit(b, 0);
	emit_address(b, va);
	emit(b, (uint32_t)value << 24 | MOCS_UNCACHED << 3);
}

static inline void mem_set_matrix(struct batch *b, uint64_t va, uint32_t pitch, uint32_t width, uint32_t height,
				  uint8_t value)
{
	emit(b, BLT(0x5b, 1u << 17, 7));
	emit(b, width - 1);
	emit(b, height - 1);
	emit(b, pitch - 1);
	emit_address(b, va);
	emit(b, (uint32_t)value << 24 | MOCS_UNCACHED << 3);
}

/* Workspace: what most checks begin with ----------------------------------------------------------------------- */

/* A VM with a queue on one engine, a batch of 60 KiB and 64 KiB of zeroed data, all mapped and bound. */
struct space {
	int fd;
	uint32_t vm, queue;
	engine engine;
	struct bo code, data;
	struct batch batch;
};

#define CODE_VA 0x100000ull
#define DATA_VA 0x200000ull
#define SPACE_SIZE 0x10000ull

struct space space_on(int fd, engine e, uint32_t data_placement, uint32_t vm_flags);
/* The usual one: data in VRAM where there is any, else in system memory. */
struct space space_open(int fd, engine e);
/* Another queue, batch and place in the data (`index` 1...) in the same VM. */
struct space space_beside(const struct space *space, engine e, unsigned index);

static inline uint64_t data_va(const struct space *space, unsigned dword)
{
	return space->data.va + 4ull * dword;
}

static inline volatile uint32_t *data(const struct space *space, unsigned dword)
{
	return (volatile uint32_t *)space->data.map + dword;
}

/* End the batch and submit it; the syncobj that its end signals.  The next command starts a new batch. */
uint32_t space_submit(struct space *space);
void space_run(struct space *space);

/*
 * A batch that loops until the CPU ends it, counting its rounds in GPR 0 and, seen by the CPU, in `rounds`.
 * Without `preemptible` it offers no place to be preempted at.
 */
struct spinner {
	struct space space;
	volatile uint32_t *rounds, *go_on;
	uint32_t done; /* syncobj */
};

struct spinner spinner_start(int fd, engine e);
struct spinner spinner_start_in(struct space space, bool preemptible);
/* Write its batch; the address to execute.  `rounds` and `go_on` are the data's dwords 0 and 2. */
uint64_t spinner_emit(struct spinner *spinner, bool preemptible);
/* Wait until it has gone round (again). */
void spinner_wait_progress(struct spinner *spinner);
/* End it and wait for its fence. */
void spinner_end(struct spinner *spinner);

#endif
