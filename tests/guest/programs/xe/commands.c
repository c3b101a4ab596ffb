// SPDX-License-Identifier: MIT
/* The command streamers' own commands (MI_*), on every engine: arithmetic, atomics, waits, jumps, predicates. */
#include "batch.h"

static void store64(struct space *space, unsigned dword, uint64_t value)
{
	*data(space, dword) = (uint32_t)value;
	*data(space, dword + 1) = value >> 32;
}

static uint64_t load64(struct space *space, unsigned dword)
{
	return *data(space, dword) | (uint64_t)*data(space, dword + 1) << 32;
}

static struct space open_copy(int fd)
{
	return space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
}

/* Registers ---------------------------------------------------------------------------------------------------- */

CHECK(registers_are_loaded_moved_and_stored_on_every_engine)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = space_open(fd, *e);

		store64(&space, 0, 0x0123456789abcdef);
		mi_load_register_mem(&space.batch, GPR(4), data_va(&space, 0));
		mi_load_register_mem(&space.batch, GPR(4) + 4, data_va(&space, 1));
		mi_load_register_reg(&space.batch, GPR(7), GPR(4) + 4);
		mi_load_register_reg(&space.batch, GPR(7) + 4, GPR(4));
		mi_store_gpr(&space.batch, 7, data_va(&space, 4));
		mi_load_gpr(&space.batch, 15, 0xfedcba9876543210);
		mi_store_gpr(&space.batch, 15, data_va(&space, 6));
		space_run(&space);
		expect_eq(load64(&space, 4), 0x89abcdef01234567);
		expect_eq(load64(&space, 6), 0xfedcba9876543210);
	}
}

CHECK(sixteen_registers_are_separate)
{
	struct space space = open_copy(xe_open());

	for (unsigned i = 0; i < 16; i++)
		mi_load_gpr(&space.batch, i, 0x1111111111111111ull * i);
	for (unsigned i = 0; i < 16; i++)
		mi_store_gpr(&space.batch, i, data_va(&space, 2 * i));
	space_run(&space);
	for (unsigned i = 0; i < 16; i++)
		expect_eq(load64(&space, 2 * i), 0x1111111111111111ull * i);
}

CHECK(one_command_loads_many_registers)
{
	struct space space = open_copy(xe_open());

	emit(&space.batch, MI(0x22, CS_RELATIVE | (2 * 16 - 1)));
	for (unsigned i = 0; i < 16; i++) {
		emit(&space.batch, GPR(i));
		emit(&space.batch, 0x700 + i);
	}
	for (unsigned i = 0; i < 16; i++)
		mi_store_register(&space.batch, GPR(i), data_va(&space, i));
	space_run(&space);
	for (unsigned i = 0; i < 16; i++)
		expect_eq(*data(&space, i), 0x700 + i);
}

CHECK(memory_is_copied_dword_by_dword)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = space_open(fd, *e);

		for (unsigned i = 0; i < 16; i++)
			*data(&space, i) = 0xabc00 + i;
		for (unsigned i = 0; i < 16; i++)
			mi_copy_mem_mem(&space.batch, data_va(&space, 47 - i), data_va(&space, i));
		space_run(&space);
		for (unsigned i = 0; i < 16; i++)
			expect_eq(*data(&space, 47 - i), 0xabc00 + i);
	}
}

CHECK(flushes_store_what_they_are_told)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = space_open(fd, *e);
		bool is_3d = e->engine_class == DRM_XE_ENGINE_CLASS_RENDER || e->engine_class == DRM_XE_ENGINE_CLASS_COMPUTE;

		(is_3d ? pipe_control_store : mi_flush_store)(&space.batch, data_va(&space, 2), 0x1122334455667788);
		space_run(&space);
		expect_eq(load64(&space, 2), 0x1122334455667788);
		expect_eq(load64(&space, 0), 0);
		expect_eq(load64(&space, 4), 0);
	}
}

CHECK(timestamps_count)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = space_open(fd, *e);

		mi_store_register(&space.batch, TIMESTAMP, data_va(&space, 0));
		mi_store_register(&space.batch, CTX_TIMESTAMP, data_va(&space, 1));
		for (unsigned i = 0; i < 500; i++)
			mi_store_dword(&space.batch, data_va(&space, 8), i);
		mi_store_register(&space.batch, TIMESTAMP, data_va(&space, 2));
		mi_store_register(&space.batch, CTX_TIMESTAMP, data_va(&space, 3));
		space_run(&space);
		uint32_t device = *data(&space, 2) - *data(&space, 0), context = *data(&space, 3) - *data(&space, 1);
		note("%s: 500 stores take %u ticks, %u of the context", engine_name(*e), device, context);
		expect_ne(device, 0);
		expect_lt(device, 1u << 31);
		expect_ne(context, 0);
		expect_lt(context, 1u << 31);
	}
}

/* Arithmetic --------------------------------------------------------------------------------------------------- */

static const uint64_t operands[][2] = {
	{ 0, 0 },
	{ 1, 2 },
	{ 2, 1 },
	{ 0xffffffff, 1 },
	{ 0xffffffffffffffff, 1 },
	{ 0x8000000000000000, 0x8000000000000000 },
	{ 0x0123456789abcdef, 0xfedcba9876543210 },
	{ 0xdeadbeefcafebabe, 0xdeadbeefcafebabe },
};

/* Store a op b, with its zero and carry flag, for each pair of operands. */
static void run_operation(struct space *space, enum alu_operation operation)
{
	for (unsigned i = 0; i < COUNT(operands); i++) {
		mi_load_gpr(&space->batch, 0, operands[i][0]);
		mi_load_gpr(&space->batch, 1, operands[i][1]);
		mi_math(&space->batch, operation, 2, 0, 1, ALU_ACCU);
		mi_store_gpr(&space->batch, 2, data_va(space, 8 * i));
		mi_math(&space->batch, operation, 3, 0, 1, ALU_ZF);
		mi_store_gpr(&space->batch, 3, data_va(space, 8 * i + 2));
		mi_math(&space->batch, operation, 4, 0, 1, ALU_CF);
		mi_store_gpr(&space->batch, 4, data_va(space, 8 * i + 4));
	}
	space_run(space);
}

static void expect_operation(const char *what, struct space *space, unsigned i, uint64_t result)
{
	if (load64(space, 8 * i) != result)
		FAIL("%#llx %s %#llx is %#llx, expected %#llx", (unsigned long long)operands[i][0], what,
		     (unsigned long long)operands[i][1], (unsigned long long)load64(space, 8 * i),
		     (unsigned long long)result);
}

CHECK(math_adds_and_subtracts_with_flags_on_every_engine)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = space_open(fd, *e);

		run_operation(&space, ALU_ADD);
		for (unsigned i = 0; i < COUNT(operands); i++) {
			uint64_t a = operands[i][0], b = operands[i][1];

			expect_operation("+", &space, i, a + b);
			expect_eq(load64(&space, 8 * i + 2), a + b == 0 ? ~0ull : 0);
			expect_eq(load64(&space, 8 * i + 4), a + b < a ? ~0ull : 0);
		}
		run_operation(&space, ALU_SUB);
		for (unsigned i = 0; i < COUNT(operands); i++) {
			uint64_t a = operands[i][0], b = operands[i][1];

			expect_operation("-", &space, i, a - b);
			expect_eq(load64(&space, 8 * i + 2), a == b ? ~0ull : 0);
			expect_eq(load64(&space, 8 * i + 4), a < b ? ~0ull : 0);
		}
	}
}

CHECK(math_combines_bits)
{
	struct space space = open_copy(xe_open());

	run_operation(&space, ALU_AND);
	for (unsigned i = 0; i < COUNT(operands); i++)
		expect_operation("and", &space, i, operands[i][0] & operands[i][1]);
	run_operation(&space, ALU_OR);
	for (unsigned i = 0; i < COUNT(operands); i++)
		expect_operation("or", &space, i, operands[i][0] | operands[i][1]);
	run_operation(&space, ALU_XOR);
	for (unsigned i = 0; i < COUNT(operands); i++)
		expect_operation("xor", &space, i, operands[i][0] ^ operands[i][1]);
}

/* The hardware shifts by powers of two up to 32 only. */
CHECK(math_shifts)
{
	static const uint64_t value = 0xf123456789abcde1;
	struct space space = open_copy(xe_open());

	for (unsigned i = 0; i < 6; i++) {
		mi_load_gpr(&space.batch, 0, value);
		mi_load_gpr(&space.batch, 1, 1ull << i);
		mi_math(&space.batch, ALU_SHL, 2, 0, 1, ALU_ACCU);
		mi_math(&space.batch, ALU_SHR, 3, 0, 1, ALU_ACCU);
		mi_math(&space.batch, ALU_SAR, 4, 0, 1, ALU_ACCU);
		for (unsigned j = 0; j < 3; j++)
			mi_store_gpr(&space.batch, 2 + j, data_va(&space, 8 * i + 2 * j));
	}
	space_run(&space);
	for (unsigned i = 0; i < 6; i++) {
		expect_eq(load64(&space, 8 * i), value << (1 << i));
		expect_eq(load64(&space, 8 * i + 2), value >> (1 << i));
		expect_eq(load64(&space, 8 * i + 4), (uint64_t)((int64_t)value >> (1 << i)));
	}
}

CHECK(math_loads_and_stores_inverted_and_constant)
{
	struct space space = open_copy(xe_open());
	struct batch *b = &space.batch;

	mi_load_gpr(b, 0, 0x00ff00ff00ff00ff);
	emit(b, MI(0x1a, 15));
	emit(b, alu(ALU_LOADINV, ALU_SRCA, 0));
	emit(b, alu(ALU_LOAD0, ALU_SRCB, 0));
	emit(b, alu(ALU_ADD, 0, 0));
	emit(b, alu(ALU_STORE, 1, ALU_ACCU));
	emit(b, alu(ALU_STOREINV, 2, ALU_ACCU));
	emit(b, alu(ALU_NOOP, 0, 0));
	emit(b, alu(ALU_LOAD, ALU_SRCA, 0));
	emit(b, alu(ALU_LOAD1, ALU_SRCB, 0));
	emit(b, alu(ALU_AND, 0, 0));
	emit(b, alu(ALU_STORE, 3, ALU_ACCU));
	emit(b, alu(ALU_SUB, 0, 0));
	emit(b, alu(ALU_STORE, 4, ALU_ACCU));
	emit(b, alu(ALU_STOREINV, 5, ALU_ZF));
	emit(b, alu(ALU_STORE, 6, ALU_CF));
	emit(b, alu(ALU_STOREINV, 7, ALU_CF));
	emit(b, alu(ALU_NOOP, 0, 0));
	for (unsigned i = 1; i < 8; i++)
		mi_store_gpr(b, i, data_va(&space, 2 * i));
	space_run(&space);
	expect_eq(load64(&space, 2), 0xff00ff00ff00ff00);
	expect_eq(load64(&space, 4), 0x00ff00ff00ff00ff);
	expect_eq(load64(&space, 6), 0x00ff00ff00ff00ff);
	expect_eq(load64(&space, 8), 0x00ff00ff00ff0100);
	expect_eq(load64(&space, 10), ~0ull); /* not zero */
	expect_eq(load64(&space, 12), ~0ull); /* borrowed */
	expect_eq(load64(&space, 14), 0);
}

/* Atomics ------------------------------------------------------------------------------------------------------ */

static uint64_t atomic_result(enum atomic operation, uint64_t old, uint64_t first, uint64_t second, bool qword)
{
	int64_t signed_old = qword ? (int64_t)old : (int32_t)old, signed_first = qword ? (int64_t)first : (int32_t)first;

	switch (operation) {
	case ATOMIC_AND:
		return old & first;
	case ATOMIC_OR:
		return old | first;
	case ATOMIC_XOR:
		return old ^ first;
	case ATOMIC_MOVE:
		return first;
	case ATOMIC_INC:
		return old + 1;
	case ATOMIC_DEC:
	case ATOMIC_PREDEC:
		return old - 1;
	case ATOMIC_ADD:
		return old + first;
	case ATOMIC_SUB:
		return old - first;
	case ATOMIC_RSUB:
		return first - old;
	case ATOMIC_IMAX:
		return signed_old > signed_first ? old : first;
	case ATOMIC_IMIN:
		return signed_old < signed_first ? old : first;
	case ATOMIC_UMAX:
		return old > first ? old : first;
	case ATOMIC_UMIN:
		return old < first ? old : first;
	case ATOMIC_CMP_WR:
		return old == first ? second : old;
	default:
		FAIL("no such operation");
	}
}

static void check_atomics(int fd, engine e, bool qword)
{
	static const uint64_t cases[][3] = { { 5, 7, 9 },
					     { 7, 7, 9 },
					     { 0xfffffffffffffff0, 0x20, 3 },
					     { 0x8000000080000000, 0x7fffffff7fffffff, 1 },
					     { 0, 1, 2 },
					     { 0x1234567887654321, 0x1234567887654321, 0xaaaaaaaabbbbbbbb } };
	struct space space = space_on(fd, e, vram(fd), 0);
	uint64_t mask = qword ? ~0ull : 0xffffffff;

	for (unsigned c = 0; c < COUNT(cases); c++) {
		for (enum atomic operation = ATOMIC_AND; operation <= ATOMIC_PREDEC; operation++) {
			/* In a qword whose upper half a dword operation must leave alone. */
			store64(&space, 4 * operation, (cases[c][0] & mask) | (0x77777777ull << 32 & ~mask));
			mi_atomic(&space.batch, operation | (qword ? ATOMIC_QWORD : 0), data_va(&space, 4 * operation),
				  cases[c][1] & mask, cases[c][2] & mask);
		}
		space_run(&space);
		for (enum atomic operation = ATOMIC_AND; operation <= ATOMIC_PREDEC; operation++) {
			uint64_t expected = atomic_result(operation, cases[c][0] & mask, cases[c][1] & mask,
							  cases[c][2] & mask, qword);

			expected = (expected & mask) | (0x77777777ull << 32 & ~mask);
			if (load64(&space, 4 * operation) != expected)
				FAIL("%s, operation %#x, case %u: %#llx, expected %#llx", engine_name(e),
				     operation | (qword ? ATOMIC_QWORD : 0), c,
				     (unsigned long long)load64(&space, 4 * operation), (unsigned long long)expected);
		}
	}
}

CHECK(atomics_on_dwords)
{
	int fd = xe_open();

	for_each_engine(fd, e)
		check_atomics(fd, *e, false);
}

CHECK(atomics_on_qwords)
{
	int fd = xe_open();

	for_each_engine(fd, e)
		check_atomics(fd, *e, true);
}

CHECK(atomics_without_operands)
{
	int fd = xe_open();
	struct space space = space_on(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY), vram(fd), 0);

	store64(&space, 2, 0xffffffff);
	for (unsigned i = 0; i < 10; i++) {
		mi_atomic_short(&space.batch, ATOMIC_INC, data_va(&space, 0));
		mi_atomic_short(&space.batch, ATOMIC_INC | ATOMIC_QWORD, data_va(&space, 2));
		mi_atomic_short(&space.batch, ATOMIC_DEC, data_va(&space, 4));
	}
	space_run(&space);
	expect_eq(*data(&space, 0), 10);
	expect_eq(*data(&space, 1), 0);
	expect_eq(load64(&space, 2), 0xffffffffull + 10);
	expect_eq(*data(&space, 4), (uint32_t)-10);
	expect_eq(*data(&space, 5), 0);
}

CHECK(atomics_of_all_engines_add_up)
{
	int fd = xe_open();
	struct space spaces[64], first = space_on(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY), vram(fd), 0);
	uint32_t done[64];
	unsigned count = 0;

	for_each_engine(fd, e) {
		struct space *space = &spaces[count];

		*space = space_beside(&first, *e, count + 1);
		for (unsigned i = 0; i < 1000; i++)
			mi_atomic_short(&space->batch, ATOMIC_INC, data_va(&first, 0));
		done[count++] = space_submit(space);
	}
	for (unsigned i = 0; i < count; i++)
		syncobj_wait(fd, done[i]);
	expect_eq(*data(&first, 0), 1000 * count);
}

/* Waits and ends ----------------------------------------------------------------------------------------------- */

static bool compare(uint32_t memory, enum comparison comparison, uint32_t value)
{
	switch (comparison) {
	case GREATER:
		return memory > value;
	case GREATER_OR_EQUAL:
		return memory >= value;
	case LESS:
		return memory < value;
	case LESS_OR_EQUAL:
		return memory <= value;
	case EQUAL:
		return memory == value;
	default:
		return memory != value;
	}
}

/* Memory around the value compared with, the last two around the sign bit, which means nothing. */
static const uint32_t values[][2] = { { 99, 100 }, { 100, 100 }, { 101, 100 }, { 0x80000000, 1 }, { 1, 0x80000000 } };

static uint32_t passing_value(enum comparison comparison, uint32_t value)
{
	return comparison == GREATER || comparison == NOT_EQUAL ? value + 1 : comparison == LESS ? value - 1 : value;
}

CHECK(semaphores_wait_exactly_while_the_comparison_fails)
{
	int fd = xe_open();
	struct space space = open_copy(fd);

	for (enum comparison comparison = GREATER; comparison <= NOT_EQUAL; comparison++) {
		for (unsigned i = 0; i < COUNT(values); i++) {
			bool passes = compare(values[i][0], comparison, values[i][1]);

			*data(&space, 0) = values[i][0];
			*data(&space, 2) = *data(&space, 3) = 0;
			mi_store_dword(&space.batch, data_va(&space, 2), 1);
			mi_semaphore_wait(&space.batch, data_va(&space, 0), comparison, values[i][1]);
			mi_store_dword(&space.batch, data_va(&space, 3), 1);
			uint32_t done = space_submit(&space);
			if (!passes) {
				wait_until(*data(&space, 2), PATIENCE);
				usleep(2000);
				if (*data(&space, 3))
					FAIL("comparison %d does not wait for %#x against %#x", comparison, values[i][0],
					     values[i][1]);
				*data(&space, 0) = passing_value(comparison, values[i][1]);
			}
			if (try_syncobj_wait(fd, done, PATIENCE))
				FAIL("comparison %d waits for %#x against %#x", comparison, *data(&space, 0),
				     values[i][1]);
			if (*data(&space, 3) != 1)
				FAIL("after comparison %d of %#x with %#x, which %s, the batch does not go on", comparison,
				     values[i][0], values[i][1], passes ? "passes" : "waited");
		}
	}
}

CHECK(batches_end_when_the_condition_fails)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = space_open(fd, *e);

		for (enum comparison comparison = GREATER; comparison <= NOT_EQUAL; comparison++) {
			for (unsigned i = 0; i < COUNT(values); i++) {
				*data(&space, 0) = values[i][0];
				*data(&space, 2) = 0;
				mi_conditional_end(&space.batch, data_va(&space, 0), comparison, values[i][1]);
				mi_store_dword(&space.batch, data_va(&space, 2), 1);
				space_run(&space);
				if (*data(&space, 2) != compare(values[i][0], comparison, values[i][1]))
					FAIL("%s, comparison %d of %#x with %#x: the batch %s", engine_name(*e), comparison,
					     values[i][0], values[i][1], *data(&space, 2) ? "goes on" : "ends");
			}
		}
	}
}

CHECK(a_loop_counts_to_its_limit)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = space_on(fd, *e, vram(fd), 0);
		uint64_t loop = here(&space.batch);

		mi_atomic_short(&space.batch, ATOMIC_INC, data_va(&space, 0));
		mi_fence(&space.batch);
		mi_conditional_end(&space.batch, data_va(&space, 0), NOT_EQUAL, 300);
		mi_jump(&space.batch, loop);
		space_run(&space);
		expect_eq(*data(&space, 0), 300);
	}
}

/* Jumps and predicates ----------------------------------------------------------------------------------------- */

CHECK(second_level_batches_return)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = space_open(fd, *e);
		struct batch second = batch_in(&space.code, KIB(16)), third = batch_in(&space.code, KIB(20));

		mi_store_dword(&space.batch, data_va(&space, 0), 1);
		mi_call(&space.batch, second.va);
		mi_store_dword(&space.batch, data_va(&space, 1), 2);
		mi_call(&space.batch, second.va);
		mi_store_dword(&space.batch, data_va(&space, 2), 3);
		/* It goes on elsewhere and returns from there. */
		mi_store_dword(&second, data_va(&space, 3), 4);
		mi_jump(&second, third.va);
		mi_store_dword(&second, data_va(&space, 4), 5);
		mi_atomic_short(&third, ATOMIC_INC, data_va(&space, 5));
		mi_batch_buffer_end(&third);
		space_run(&space);
		expect_eq(*data(&space, 0), 1);
		expect_eq(*data(&space, 1), 2);
		expect_eq(*data(&space, 2), 3);
		expect_eq(*data(&space, 3), 4);
		expect_eq(*data(&space, 4), 0);
		expect_eq(*data(&space, 5), 2);
	}
}

CHECK(chained_batches_end_where_the_last_ends)
{
	int fd = xe_open();
	struct space space = open_copy(fd);

	for (unsigned i = 0; i < 100; i++) {
		struct batch link = batch_in(&space.code, 256 + 512 * i);

		if (i == 0)
			mi_jump(&space.batch, link.va);
		mi_store_dword(&link, data_va(&space, i), i + 1);
		if (i < 99)
			mi_jump(&link, link.va + 512);
		else
			mi_batch_buffer_end(&link);
	}
	mi_store_dword(&space.batch, data_va(&space, 200), 1);
	space_run(&space);
	for (unsigned i = 0; i < 100; i++)
		expect_eq(*data(&space, i), i + 1);
	expect_eq(*data(&space, 200), 0);
}

CHECK(predicated_jumps_follow_the_second_result)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		/* What media engines do with predicates is not documented. */
		if (e->engine_class == DRM_XE_ENGINE_CLASS_VIDEO_DECODE || e->engine_class == DRM_XE_ENGINE_CLASS_VIDEO_ENHANCE)
			continue;
		for (unsigned set = 0; set < 2; set++) {
			for (unsigned on_set = 0; on_set < 2; on_set++) {
				struct space space = space_open(fd, *e);
				struct batch target = batch_in(&space.code, KIB(16));

				mi_load_register(&space.batch, PREDICATE_RESULT_2, set);
				mi_set_predicate(&space.batch, on_set ? NOOP_ON_RESULT_2_SET : NOOP_ON_RESULT_2_CLEAR);
				mi_jump_predicated(&space.batch, target.va);
				mi_set_predicate(&space.batch, NOOP_NEVER);
				mi_store_dword(&space.batch, data_va(&space, 0), 1);
				mi_set_predicate(&target, NOOP_NEVER);
				mi_store_dword(&target, data_va(&space, 1), 1);
				mi_batch_buffer_end(&target);
				space_run(&space);
				bool jumps = set != on_set;
				if (*data(&space, 0) != !jumps || *data(&space, 1) != jumps)
					FAIL("%s: with result 2 %u, a jump that is none when it is %s: %s", engine_name(*e), set,
					     on_set ? "set" : "clear", *data(&space, 1) ? "jumped" : "did not jump");
			}
		}
	}
}

CHECK(predicated_jumps_and_stores_follow_the_first_result)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_RENDER);

	for (unsigned set = 0; set < 2; set++) {
		struct space space = space_open(fd, e);
		struct batch target = batch_in(&space.code, KIB(16));

		mi_load_gpr(&space.batch, 0, 0x77);
		mi_load_register(&space.batch, PREDICATE_RESULT, set);
		mi_store_register_predicated(&space.batch, GPR(0), data_va(&space, 2));
		mi_set_predicate(&space.batch, NOOP_ON_RESULT_CLEAR);
		mi_jump_predicated(&space.batch, target.va);
		mi_set_predicate(&space.batch, NOOP_NEVER);
		mi_store_dword(&space.batch, data_va(&space, 0), 1);
		mi_set_predicate(&target, NOOP_NEVER);
		mi_store_dword(&target, data_va(&space, 1), 1);
		mi_batch_buffer_end(&target);
		space_run(&space);
		expect_eq(*data(&space, 0), !set);
		expect_eq(*data(&space, 1), set);
		expect_eq(*data(&space, 2), set ? 0x77 : 0);
	}
}

CHECK(a_section_can_be_skipped)
{
	int fd = xe_open();
	struct space space = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_RENDER));

	mi_store_dword(&space.batch, data_va(&space, 0), 1);
	mi_set_predicate(&space.batch, NOOP_ALWAYS);
	mi_store_dword(&space.batch, data_va(&space, 1), 1);
	mi_store_dword(&space.batch, data_va(&space, 2), 1);
	mi_set_predicate(&space.batch, NOOP_NEVER);
	mi_store_dword(&space.batch, data_va(&space, 3), 1);
	space_run(&space);
	expect_eq(*data(&space, 0), 1);
	expect_eq(*data(&space, 1), 0);
	expect_eq(*data(&space, 2), 0);
	expect_eq(*data(&space, 3), 1);
}

/* Privileges --------------------------------------------------------------------------------------------------- */

/* The GGTT is for privileged batches: what a user batch stores "there" reaches neither it nor an error. */
CHECK(user_batches_have_no_access_to_the_ggtt)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = space_open(fd, *e);

		mi_store_dword(&space.batch, data_va(&space, 0), 1);
		emit(&space.batch, MI(0x20, 1u << 22 | 2));
		emit_address(&space.batch, data_va(&space, 1));
		emit(&space.batch, 2);
		mi_store_dword(&space.batch, data_va(&space, 2), 3);
		space_run(&space);
		expect_eq(*data(&space, 0), 1);
		expect_eq(*data(&space, 2), 3);
		expect(!is_banned(fd, space.queue));
	}
}

CHECK(user_batches_cannot_write_the_registers_of_the_driver)
{
	const char *path = debugfs_path("gt0/hw_engines");
	int fd = xe_open();
	struct space space = open_copy(fd);

	if (access(path, F_OK))
		skip("%s is not there", path);
	/* RING_HWSTAM, which the driver sets to ones. */
	mi_load_register(&space.batch, 0x98, 0x5a5a5a5a);
	mi_store_dword(&space.batch, data_va(&space, 0), 1);
	space_run(&space);
	expect_eq(*data(&space, 0), 1);
	char *engines_dump = read_file(path);
	expect(engines_dump && strstr(engines_dump, "HWSTAM: 0xffffffff"));
	expect(!strstr(engines_dump, "HWSTAM: 0x5a5a5a5a"));
}
