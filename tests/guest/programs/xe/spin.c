// SPDX-License-Identifier: MIT
/* Batches that do not end by themselves: preemption, time slices, and engines that do not wait for one another. */
#include "batch.h"

static void expect_progress(struct spinner *spinner)
{
	spinner_wait_progress(spinner);
}

CHECK(the_cpu_ends_a_spinner_on_every_engine)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct spinner spinner = spinner_start(fd, *e);

		expect_progress(&spinner);
		expect(!syncobj_is_signalled(fd, spinner.done));
		spinner_end(&spinner);
		uint32_t rounds = *spinner.rounds;
		sleep_ms(2);
		expect_eq(*spinner.rounds, rounds);
	}
}

CHECK(other_queues_of_the_engine_run_beside_a_spinner)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct spinner spinner = spinner_start(fd, *e);
		struct space space = space_open(fd, *e);

		for (unsigned i = 1; i < 6; i++) {
			mi_store_dword(&space.batch, data_va(&space, 0), i);
			space_run(&space);
			expect_eq(*data(&space, 0), i);
		}
		expect_progress(&spinner);
		expect(!syncobj_is_signalled(fd, spinner.done));
		spinner_end(&spinner);
	}
}

CHECK(queues_of_the_same_vm_run_beside_a_spinner)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct spinner spinner = spinner_start(fd, e);
	struct space space = space_beside(&spinner.space, e, 1);

	mi_store_dword(&space.batch, data_va(&space, 0), 7);
	space_run(&space);
	expect_eq(*data(&space, 0), 7);
	spinner_end(&spinner);
}

CHECK(a_queue_that_waits_for_a_semaphore_gives_way)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct space waiting = space_open(fd, e);
	struct space releasing = space_beside(&waiting, e, 1);

	mi_store_dword(&waiting.batch, data_va(&waiting, 2), 1);
	mi_semaphore_wait(&waiting.batch, data_va(&waiting, 0), EQUAL, 5);
	mi_store_dword(&waiting.batch, data_va(&waiting, 1), 6);
	uint32_t done = space_submit(&waiting);
	wait_until(*data(&waiting, 2) == 1, PATIENCE);
	expect(!syncobj_is_signalled(fd, done));
	/* What it waits for comes from the same engine. */
	mi_store_dword(&releasing.batch, data_va(&waiting, 0), 5);
	space_run(&releasing);
	syncobj_wait(fd, done);
	expect_eq(*data(&waiting, 1), 6);
}

CHECK(spinners_on_all_engines_at_once)
{
	int fd = xe_open();
	struct spinner spinners[64];
	unsigned count = 0;

	for_each_engine(fd, e)
		spinners[count++] = spinner_start(fd, *e);
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < count; i++)
			expect_progress(&spinners[i]);
	for (unsigned i = 0; i < count; i++)
		spinner_end(&spinners[i]);
}

CHECK(spinners_share_an_engine_in_turns)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct spinner spinners[4];

	for (unsigned i = 0; i < COUNT(spinners); i++)
		spinners[i] = spinner_start(fd, e);
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < COUNT(spinners); i++)
			expect_progress(&spinners[i]);
	/* They end in another order than they began. */
	spinner_end(&spinners[2]);
	spinner_end(&spinners[0]);
	expect_progress(&spinners[1]);
	expect_progress(&spinners[3]);
	spinner_end(&spinners[3]);
	spinner_end(&spinners[1]);
}

CHECK(a_preempted_batch_goes_on_where_it_was)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct spinner first = spinner_start(fd, e), second = spinner_start(fd, e);
	uint32_t last[2] = {};

	/* Counters in registers, which both queues use: they never go back, and never jump to the other's value. */
	for (unsigned round = 0; round < 100; round++) {
		uint32_t seen[] = { *first.rounds, *second.rounds };

		for (unsigned i = 0; i < 2; i++) {
			expect_le(last[i], seen[i]);
			last[i] = seen[i];
		}
		usleep(1000);
	}
	expect_progress(&first);
	expect_progress(&second);
	spinner_end(&first);
	spinner_end(&second);
}

CHECK(registers_survive_preemption)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct space waiting = space_open(fd, e), disturbing = space_open(fd, e);

	for (unsigned i = 0; i < 16; i++)
		mi_load_gpr(&waiting.batch, i, 0x1000000010ull * i + 3);
	mi_store_dword(&waiting.batch, data_va(&waiting, 2), 1);
	mi_semaphore_wait(&waiting.batch, data_va(&waiting, 0), NOT_EQUAL, 0);
	for (unsigned i = 0; i < 16; i++)
		mi_store_gpr(&waiting.batch, i, data_va(&waiting, 16 + 2 * i));
	uint32_t done = space_submit(&waiting);
	wait_until(*data(&waiting, 2) == 1, PATIENCE);

	for (unsigned i = 0; i < 16; i++)
		mi_load_gpr(&disturbing.batch, i, ~0ull);
	space_run(&disturbing);
	*data(&waiting, 0) = 1;
	syncobj_wait(fd, done);
	for (unsigned i = 0; i < 16; i++) {
		uint64_t value = 0x1000000010ull * i + 3;

		expect_eq(*data(&waiting, 16 + 2 * i), (uint32_t)value);
		expect_eq(*data(&waiting, 17 + 2 * i), value >> 32);
	}
}

CHECK(a_queue_keeps_its_registers_between_jobs)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct space keeping = space_open(fd, e), disturbing = space_open(fd, e);

	mi_load_gpr(&keeping.batch, 5, 0xabcdef0123456789);
	space_run(&keeping);
	mi_load_gpr(&disturbing.batch, 5, 0);
	space_run(&disturbing);
	mi_store_gpr(&keeping.batch, 5, data_va(&keeping, 0));
	space_run(&keeping);
	expect_eq(*data(&keeping, 0), 0x23456789);
	expect_eq(*data(&keeping, 1), 0xabcdef01);
}

CHECK(destroying_its_queue_ends_a_spinner)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct spinner spinner = spinner_start(fd, *e);

		must(try_queue_destroy(fd, spinner.space.queue));
		syncobj_wait(fd, spinner.done);
		uint32_t rounds = *spinner.rounds;
		sleep_ms(2);
		expect_eq(*spinner.rounds, rounds);

		struct space space = space_open(fd, *e);
		mi_store_dword(&space.batch, data_va(&space, 0), 5);
		space_run(&space);
		expect_eq(*data(&space, 0), 5);
	}
}

CHECK(a_short_timeslice_takes_turns_as_well)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct spinner spinners[2];

	for (unsigned i = 0; i < 2; i++) {
		struct space space = space_open(fd, e);
		struct drm_xe_ext_set_property timeslice = {
			.base.name = DRM_XE_EXEC_QUEUE_EXTENSION_SET_PROPERTY,
			.property = DRM_XE_EXEC_QUEUE_SET_PROPERTY_TIMESLICE,
			.value = 1000,
		};
		struct drm_xe_exec_queue_create arguments = {
			.extensions = (uintptr_t)&timeslice,
			.width = 1,
			.num_placements = 1,
			.vm_id = space.vm,
			.instances = (uintptr_t)&e,
		};

		must(try_queue_create(fd, &arguments));
		space.queue = arguments.exec_queue_id;
		spinners[i] = spinner_start_in(space, true);
	}
	for (unsigned round = 0; round < 5; round++)
		for (unsigned i = 0; i < 2; i++)
			expect_progress(&spinners[i]);
	for (unsigned i = 0; i < 2; i++)
		spinner_end(&spinners[i]);
}
