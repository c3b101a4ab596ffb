// SPDX-License-Identifier: MIT
/* Jobs: on every engine, in numbers, from several threads, and at awkward moments. */
#include "batch.h"

#include <pthread.h>
#include <sys/wait.h>

CHECK(every_engine_stores_a_dword_in_every_memory)
{
	int fd = xe_open();
	uint32_t placements[] = { system_memory(fd), vram(fd) };

	for (unsigned p = 0; p < COUNT(placements); p++) {
		for_each_engine(fd, e) {
			struct space space = space_on(fd, *e, placements[p], 0);

			mi_store_dword(&space.batch, data_va(&space, 1), 0xc0ffee00 + p);
			mi_store_qword(&space.batch, data_va(&space, 2), 0x1122334455667788);
			space_run(&space);
			if (*data(&space, 1) != 0xc0ffee00 + p)
				FAIL("%s, placement %#x: the dword is %#x", engine_name(*e), placements[p],
				     *data(&space, 1));
			expect_eq(*data(&space, 0), 0);
			expect_eq(*data(&space, 2), 0x55667788);
			expect_eq(*data(&space, 3), 0x11223344);
			expect_eq(*data(&space, 4), 0);
		}
	}
}

CHECK(one_command_stores_many_dwords)
{
	int fd = xe_open();
	struct space space = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));

	emit(&space.batch, MI(0x20, 1u << 21 | (2 * 100 + 1)));
	emit_address(&space.batch, data_va(&space, 0));
	for (unsigned i = 0; i < 100; i++)
		emit64(&space.batch, 0x100000000ull * i + i + 1);
	space_run(&space);
	for (unsigned i = 0; i < 100; i++) {
		expect_eq(*data(&space, 2 * i), i + 1);
		expect_eq(*data(&space, 2 * i + 1), i);
	}
}

CHECK(every_dword_of_a_cache_line_and_of_a_page_end)
{
	int fd = xe_open();
	struct space space = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));

	for (unsigned i = 0; i < 64; i++)
		mi_store_dword(&space.batch, data_va(&space, 1008 + i), 5000 + i);
	space_run(&space);
	for (unsigned i = 0; i < 64; i++)
		expect_eq(*data(&space, 1008 + i), 5000 + i);
	expect_eq(*data(&space, 1007), 0);
	expect_eq(*data(&space, 1072), 0);
}

CHECK(batches_as_long_as_their_buffer)
{
	int fd = xe_open();
	struct space space = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	unsigned stores = SPACE_SIZE / 16 - 8;

	for (unsigned i = 0; i < stores; i++)
		mi_store_dword(&space.batch, data_va(&space, i), i ^ 0x5a5a);
	space_run(&space);
	for (unsigned i = 0; i < stores; i++)
		expect_eq(*data(&space, i), i ^ 0x5a5a);
}

CHECK(jobs_of_a_queue_run_in_order)
{
	int fd = xe_open();
	struct space space = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	uint32_t last = 0;

	/* Each job appends its number where the one before left off. */
	for (unsigned i = 0; i < 200; i++) {
		mi_store_dword(&space.batch, data_va(&space, 0), i);
		mi_fence(&space.batch);
		mi_copy_mem_mem(&space.batch, data_va(&space, 1 + i), data_va(&space, 0));
		last = space_submit(&space);
	}
	syncobj_wait(fd, last);
	for (unsigned i = 0; i < 200; i++)
		expect_eq(*data(&space, 1 + i), i);
	expect_eq(*data(&space, 0), 199);
}

CHECK(many_queues_of_one_vm)
{
	int fd = xe_open();
	const engine *list;
	unsigned count = engines(fd, &list), total = 48;
	struct space spaces[48], first = space_open(fd, list[0]);
	uint32_t done[48];

	for (unsigned i = 0; i < total; i++)
		spaces[i] = space_beside(&first, list[i % count], i + 1);
	for (unsigned round = 1; round < 4; round++) {
		for (unsigned i = 0; i < total; i++) {
			mi_store_dword(&spaces[i].batch, data_va(&spaces[i], round), 100 * i + round);
			done[i] = space_submit(&spaces[i]);
		}
		for (unsigned i = 0; i < total; i++) {
			syncobj_wait(fd, done[i]);
			expect_eq(*data(&spaces[i], round), 100 * i + round);
		}
	}
}

CHECK(many_vms)
{
	int fd = xe_open();
	const engine *list;
	unsigned count = engines(fd, &list), total = 24;
	struct space spaces[24];
	uint32_t done[24];

	for (unsigned i = 0; i < total; i++) {
		spaces[i] = space_open(fd, list[i % count]);
		mi_store_dword(&spaces[i].batch, data_va(&spaces[i], 0), i + 1);
		done[i] = space_submit(&spaces[i]);
	}
	for (unsigned i = 0; i < total; i++) {
		syncobj_wait(fd, done[i]);
		expect_eq(*data(&spaces[i], 0), i + 1);
	}
}

struct worker {
	pthread_t thread;
	int fd;
	engine engine;
	unsigned number;
	uint32_t vm;
};

static void *run_own_vm(void *argument)
{
	struct worker *worker = argument;
	struct space space = space_open(worker->fd, worker->engine);

	for (unsigned i = 0; i < 25; i++) {
		mi_store_dword(&space.batch, data_va(&space, i), worker->number * 1000 + i);
		space_run(&space);
		expect_eq(*data(&space, i), worker->number * 1000 + i);
	}
	return NULL;
}

static void *run_shared_vm(void *argument)
{
	struct worker *worker = argument;
	struct space beside = { .fd = worker->fd, .vm = worker->vm };
	struct space space = space_beside(&beside, worker->engine, worker->number + 1);
	struct bo bo = bo_create(worker->fd, 0, KIB(64), vram(worker->fd));
	uint64_t va = GIB(64) + GIB(1) * worker->number;

	for (unsigned i = 0; i < 10; i++) {
		bind(worker->fd, worker->vm, &bo, va);
		mi_store_dword(&space.batch, va + 4 * i, worker->number * 1000 + i);
		space_run(&space);
		expect_eq(((volatile uint32_t *)bo_map(&bo))[i], worker->number * 1000 + i);
		unbind(worker->fd, worker->vm, va, bo.size);
	}
	return NULL;
}

static void run_workers(int fd, void *(*run)(void *), uint32_t vm)
{
	struct worker workers[8];
	const engine *list;
	unsigned count = engines(fd, &list);

	for (unsigned i = 0; i < COUNT(workers); i++) {
		workers[i] = (struct worker){ .fd = fd, .engine = list[i % count], .number = i, .vm = vm };
		expect_eq(pthread_create(&workers[i].thread, NULL, run, &workers[i]), 0);
	}
	for (unsigned i = 0; i < COUNT(workers); i++)
		pthread_join(workers[i].thread, NULL);
}

CHECK(threads_with_a_vm_each)
{
	run_workers(xe_open(), run_own_vm, 0);
}

CHECK(threads_that_bind_and_run_in_one_vm)
{
	int fd = xe_open();

	run_workers(fd, run_shared_vm, vm_create(fd, 0));
}

CHECK(queues_with_a_low_latency_hint)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = space_open(fd, *e);
		struct drm_xe_exec_queue_create arguments = {
			.width = 1,
			.num_placements = 1,
			.vm_id = space.vm,
			.flags = DRM_XE_EXEC_QUEUE_LOW_LATENCY_HINT,
			.instances = (uintptr_t)e,
		};

		must(try_queue_create(fd, &arguments));
		space.queue = arguments.exec_queue_id;
		mi_store_dword(&space.batch, data_va(&space, 0), 6);
		space_run(&space);
		expect_eq(*data(&space, 0), 6);
	}
}

CHECK(queues_that_may_run_on_any_engine_of_a_class)
{
	int fd = xe_open();
	engine same[8];
	unsigned count = 0;

	for_each_engine(fd, e) {
		count = 0;
		for_each_engine(fd, other)
			if (other->engine_class == e->engine_class && other->gt_id == e->gt_id && count < COUNT(same))
				same[count++] = *other;
		if (count > 1)
			break;
	}
	if (count < 2)
		skip("the device has one engine of each class");
	struct spinner spinners[COUNT(same)];
	for (unsigned i = 0; i < count; i++) {
		struct space space = space_open(fd, same[0]);
		struct drm_xe_exec_queue_create arguments = {
			.width = 1,
			.num_placements = count,
			.vm_id = space.vm,
			.instances = (uintptr_t)same,
		};

		must(try_queue_create(fd, &arguments));
		space.queue = arguments.exec_queue_id;
		spinners[i] = spinner_start_in(space, true);
	}
	for (unsigned i = 0; i < count; i++)
		spinner_wait_progress(&spinners[i]);
	for (unsigned i = 0; i < count; i++)
		spinner_end(&spinners[i]);
}

CHECK(an_exec_without_a_batch_passes_fences_on)
{
	int fd = xe_open();
	struct spinner spinner = spinner_start(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	uint32_t done = syncobj_create(fd);
	struct drm_xe_sync sync = signal_syncobj(done);
	struct drm_xe_exec arguments = {
		.exec_queue_id = spinner.space.queue,
		.num_syncs = 1,
		.syncs = (uintptr_t)&sync,
	};

	must(try_ioctl(fd, DRM_IOCTL_XE_EXEC, &arguments));
	sleep_ms(10);
	expect(!syncobj_is_signalled(fd, done));
	spinner_end(&spinner);
	syncobj_wait(fd, done);
}

CHECK(the_vm_may_be_destroyed_while_its_jobs_run)
{
	int fd = xe_open();
	struct spinner spinner = spinner_start(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));

	/* The queue holds it: a destroyed VM is closed when its last job has ended, or its jobs are killed. */
	must(try_queue_destroy(fd, spinner.space.queue));
	must(try_vm_destroy(fd, spinner.space.vm));
	syncobj_wait(fd, spinner.done);

	struct space space = space_open(fd, spinner.space.engine);
	mi_store_dword(&space.batch, data_va(&space, 0), 3);
	space_run(&space);
	expect_eq(*data(&space, 0), 3);
}

CHECK(processes_that_end_in_the_middle_of_jobs_disturb_nobody)
{
	int fd = xe_open(), status;
	const engine *list;
	unsigned count = engines(fd, &list);

	for (unsigned i = 0; i < 2 * count; i++) {
		pid_t child = fork();

		if (child == 0) {
			spinner_start(xe_open(), list[i % count]);
			_exit(0);
		}
		waitpid(child, &status, 0);
		expect_eq(status, 0);
	}
	for (unsigned i = 0; i < count; i++) {
		struct space space = space_open(fd, list[i]);

		mi_store_dword(&space.batch, data_va(&space, 0), i + 5);
		space_run(&space);
		expect_eq(*data(&space, 0), i + 5);
	}
}

CHECK(wrong_execs_are_refused)
{
	int fd = xe_open();
	struct space space = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	struct drm_xe_exec good = { .exec_queue_id = space.queue, .address = CODE_VA, .num_batch_buffer = 1 }, wrong;
	struct drm_xe_sync sync = signal_syncobj(0x7777);

	mi_batch_buffer_end(&space.batch);
#define REFUSED(field, value, error)                                                                                   \
	do {                                                                                                           \
		wrong = good;                                                                                          \
		wrong.field = (value);                                                                                 \
		expect_error(try_ioctl(fd, DRM_IOCTL_XE_EXEC, &wrong), error);                                         \
	} while (0)
	REFUSED(exec_queue_id, 0x7777, ENOENT);
	REFUSED(exec_queue_id, bind_queue_create(fd, space.vm), EINVAL);
	REFUSED(num_batch_buffer, 2, EINVAL);
	REFUSED(extensions, 8, EINVAL);
	REFUSED(reserved[0], 1, EINVAL);
	REFUSED(num_syncs, DRM_XE_MAX_SYNCS + 1, EINVAL);
	REFUSED(num_syncs, 1, EFAULT);
#undef REFUSED
	expect_error(try_exec(fd, space.queue, CODE_VA, &sync, 1), ENOENT);
	sync.type = 77;
	expect_error(try_exec(fd, space.queue, CODE_VA, &sync, 1), EINVAL);
	sync = signal_syncobj(syncobj_create(fd));
	sync.flags = 1u << 30;
	expect_error(try_exec(fd, space.queue, CODE_VA, &sync, 1), EINVAL);
	exec_and_wait(fd, space.queue, CODE_VA);
}
