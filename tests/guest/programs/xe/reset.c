// SPDX-License-Identifier: MIT
/* Hangs and faults: they end the queue that caused them and nothing else; and the device can be reset. */
#define _GNU_SOURCE
#include "batch.h"

static const char *class_name(engine e)
{
	static const char *const names[] = { "rcs", "bcs", "vcs", "vecs", "ccs" };

	return names[e.engine_class];
}

/* The file with the job timeout, in ms, of new queues on the engine's class. */
static const char *timeout_file(engine e)
{
	return sysfs_path("tile0/gt%u/engines/%s/job_timeout_ms", e.gt_id, class_name(e));
}

#define SHORT_TIMEOUT 400 /* ms */

/* A space whose jobs time out soon, so that nobody has to wait for the usual five seconds. */
static struct space open_impatient(int fd, engine e)
{
	char *usual = read_file(timeout_file(e)), shortened[16];

	if (!usual)
		skip("%s cannot be read", timeout_file(e));
	snprintf(shortened, sizeof(shortened), "%d", SHORT_TIMEOUT);
	must(try_write_file(timeout_file(e), shortened));
	struct space space = space_open(fd, e);
	must(try_write_file(timeout_file(e), usual));
	return space;
}

static void expect_works(int fd, engine e)
{
	struct space space = space_open(fd, e);

	mi_store_dword(&space.batch, data_va(&space, 0), 0x600d);
	space_run(&space);
	expect_eq(*data(&space, 0), 0x600d);
}

static void expect_ban(struct space *space)
{
	wait_until(is_banned(space->fd, space->queue), PATIENCE);
	expect_error(try_exec(space->fd, space->queue, CODE_VA, NULL, 0), ECANCELED);
}

CHECK(an_endless_batch_is_ended_and_its_queue_banned, .expects_errors = true)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct spinner spinner = spinner_start_in(open_impatient(fd, *e), true);
		int sync_file = syncobj_to_sync_file(fd, spinner.done);

		expect_eq(sync_file_status(sync_file), 0);
		syncobj_wait(fd, spinner.done);
		expect_eq(sync_file_status(sync_file), -ETIME);
		expect_ban(&spinner.space);
		uint32_t rounds = *spinner.rounds;
		sleep_ms(2);
		expect_eq(*spinner.rounds, rounds);
		expect_works(fd, *e);
	}
}

CHECK(a_batch_that_cannot_be_preempted_is_ended_too, .expects_errors = true)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct spinner spinner = spinner_start_in(open_impatient(fd, e), false);

	spinner_wait_progress(&spinner);
	syncobj_wait(fd, spinner.done);
	expect_ban(&spinner.space);
	expect_works(fd, e);
}

CHECK(a_batch_that_cannot_be_preempted_makes_way_in_the_end, .expects_errors = true)
{
	int fd = xe_open();

	/* After the engine's preemption timeout, long before the job's own. */
	for_each_engine(fd, e) {
		struct spinner spinner = spinner_start_in(space_open(fd, *e), false);

		spinner_wait_progress(&spinner);
		expect_works(fd, *e);
		syncobj_wait(fd, spinner.done);
		expect_ban(&spinner.space);
	}
}

CHECK(a_semaphore_that_nobody_signals_is_ended_too, .expects_errors = true)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct space space = open_impatient(fd, e);

	mi_semaphore_wait(&space.batch, data_va(&space, 0), EQUAL, 1);
	uint32_t done = space_submit(&space);
	syncobj_wait(fd, done);
	expect_ban(&space);
	expect_works(fd, e);
}

CHECK(jobs_queued_behind_a_hang_end_with_it, .expects_errors = true)
{
	int fd = xe_open();
	struct spinner spinner = spinner_start_in(open_impatient(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY)), true);
	struct space *space = &spinner.space;

	/* Behind the spinner's own batch. */
	space->batch = batch_in(&space->code, KIB(8));
	mi_store_dword(&space->batch, data_va(space, 16), 1);
	uint32_t behind = space_submit(space);
	int sync_file = syncobj_to_sync_file(fd, behind);
	syncobj_wait(fd, spinner.done);
	syncobj_wait(fd, behind);
	expect_eq(sync_file_status(sync_file), -ECANCELED);
	expect_eq(*data(space, 16), 0);
}

CHECK(other_queues_live_through_a_hang, .expects_errors = true)
{
	int fd = xe_open();
	struct spinner bystanders[64];
	struct space resting[64];
	unsigned count = 0;
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);

	for_each_engine(fd, each) {
		resting[count] = space_open(fd, *each);
		mi_load_gpr(&resting[count].batch, 3, 0x3333);
		space_run(&resting[count]);
		bystanders[count++] = spinner_start(fd, *each);
	}
	struct spinner hanging = spinner_start_in(open_impatient(fd, e), true);
	syncobj_wait(fd, hanging.done);
	expect_ban(&hanging.space);
	for (unsigned i = 0; i < count; i++) {
		spinner_wait_progress(&bystanders[i]);
		expect(!is_banned(fd, bystanders[i].space.queue));
		spinner_end(&bystanders[i]);
		mi_store_gpr(&resting[i].batch, 3, data_va(&resting[i], 0));
		space_run(&resting[i]);
		expect_eq(*data(&resting[i], 0), 0x3333);
	}
}

CHECK(a_stray_access_bans_the_queue_at_once, .expects_errors = true)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = space_open(fd, *e);
		uint64_t started = now();

		mi_store_dword(&space.batch, data_va(&space, 0), 1);
		mi_store_dword(&space.batch, GIB(100), 2);
		mi_semaphore_wait(&space.batch, data_va(&space, 2), EQUAL, 1);
		uint32_t done = space_submit(&space);
		syncobj_wait(fd, done);
		note("%s: the fence signalled after %llu ms", engine_name(*e),
		     (unsigned long long)(now() - started) / 1000000);
		expect_ban(&space);
		expect_eq(*data(&space, 0), 1);
		expect_works(fd, *e);
	}
}

CHECK(a_batch_at_an_unbound_address_bans_the_queue, .expects_errors = true)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct space space = space_open(fd, e);
	uint32_t done = exec(fd, space.queue, GIB(200));

	syncobj_wait(fd, done);
	expect_ban(&space);
	expect_works(fd, e);
}

CHECK(a_hang_leaves_a_core_dump, .expects_errors = true)
{
	static const char *const sections[] = { "**** Xe Device Coredump ****", "**** GuC CT ****", "**** Contexts ****",
						"**** Job ****", "**** HW Engines ****", "**** VM state ****" };
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	const char *path = sysfs_path("devcoredump/data");

	/* There is one at most, and writing to it removes it. */
	while (access(path, F_OK) == 0) {
		try_write_file(path, "0");
		sleep_ms(10);
	}
	struct spinner spinner = spinner_start_in(open_impatient(fd, e), true);
	syncobj_wait(fd, spinner.done);
	wait_until(access(path, F_OK) == 0, PATIENCE);
	char *dump = read_file(path);
	expect(dump);
	for (unsigned i = 0; i < COUNT(sections); i++)
		if (!strstr(dump, sections[i]))
			FAIL("the dump of %zu bytes has no section %s", strlen(dump), sections[i]);
	char *process = strstr(dump, "Process: ");
	expect(process && !strncmp(process + 9, program_invocation_short_name, strlen(program_invocation_short_name)));
	must(try_write_file(path, "0"));
	wait_until(access(path, F_OK) != 0, PATIENCE);
}

static void force_reset(unsigned gt)
{
	const char *path = debugfs_path("gt%u/force_reset_sync", gt);

	if (access(path, F_OK))
		skip("%s is not there", path);
	must(try_write_file(path, "1"));
}

CHECK(jobs_run_after_a_reset_of_the_gt)
{
	int fd = xe_open();
	struct space before[64];
	unsigned count = 0;

	for_each_engine(fd, e) {
		before[count] = space_open(fd, *e);
		mi_store_dword(&before[count].batch, data_va(&before[count], 0), 1);
		space_run(&before[count++]);
	}
	for (unsigned round = 2; round < 5; round++) {
		force_reset(0);
		for_each_engine(fd, e)
			expect_works(fd, *e);
		/* Queues that were idle go on. */
		for (unsigned i = 0; i < count; i++) {
			mi_store_dword(&before[i].batch, data_va(&before[i], 0), round);
			space_run(&before[i]);
			expect_eq(*data(&before[i], 0), round);
		}
	}
}

CHECK(a_reset_bans_what_runs_and_keeps_memory, .expects_errors = true)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct bo bo = bo_create(fd, 0, MIB(1), vram(fd));
	volatile uint32_t *words = bo_map(&bo);
	struct spinner spinner = spinner_start(fd, e);

	for (unsigned i = 0; i < bo.size / 4; i += 333)
		words[i] = i;
	force_reset(e.gt_id);
	syncobj_wait(fd, spinner.done);
	expect_ban(&spinner.space);
	for (unsigned i = 0; i < bo.size / 4; i += 333)
		expect_eq(words[i], i);
	expect_works(fd, e);
}
