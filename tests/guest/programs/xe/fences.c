// SPDX-License-Identifier: MIT
/* Fences: syncobjs, timelines and user fences, of jobs and of binds. */
#include "batch.h"

#include <poll.h>

static struct space open_copy(int fd)
{
	return space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
}

/* An engine other than the copy engine, if there is one. */
static engine other_engine(int fd)
{
	for_each_engine(fd, e)
		if (e->engine_class != DRM_XE_ENGINE_CLASS_COPY)
			return *e;
	return engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
}

CHECK(a_syncobj_signals_when_its_job_ends)
{
	int fd = xe_open();
	struct spinner spinner = spinner_start(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));

	expect(!syncobj_is_signalled(fd, spinner.done));
	expect_error(try_syncobj_wait(fd, spinner.done, 20), ETIME);
	spinner_end(&spinner);
	expect(syncobj_is_signalled(fd, spinner.done));
}

CHECK(jobs_wait_for_syncobjs_of_other_engines)
{
	int fd = xe_open();
	struct spinner spinner = spinner_start(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	struct space space = space_open(fd, other_engine(fd));
	uint32_t done = syncobj_create(fd);
	struct drm_xe_sync syncs[] = { wait_for_syncobj(spinner.done), signal_syncobj(done) };

	mi_store_dword(&space.batch, data_va(&space, 0), 1);
	mi_batch_buffer_end(&space.batch);
	must(try_exec(fd, space.queue, CODE_VA, syncs, COUNT(syncs)));
	sleep_ms(20);
	expect_eq(*data(&space, 0), 0);
	expect(!syncobj_is_signalled(fd, done));
	spinner_end(&spinner);
	syncobj_wait(fd, done);
	expect_eq(*data(&space, 0), 1);
}

CHECK(an_empty_syncobj_cannot_be_waited_for_by_a_job)
{
	int fd = xe_open();
	struct space space = open_copy(fd);
	struct drm_xe_sync sync = wait_for_syncobj(syncobj_create(fd));

	mi_batch_buffer_end(&space.batch);
	expect_error(try_exec(fd, space.queue, CODE_VA, &sync, 1), EINVAL);
}

CHECK(points_of_a_timeline_signal_in_order)
{
	int fd = xe_open();
	uint32_t timeline = syncobj_create(fd);
	struct spinner spinners[3];

	for (unsigned i = 0; i < 3; i++) {
		struct space space = open_copy(fd);
		struct drm_xe_sync sync = signal_point(timeline, 10 * (i + 1));

		spinners[i].space = space;
		must(try_exec(fd, space.queue, spinner_emit(&spinners[i], true), &sync, 1));
	}
	for (unsigned i = 0; i < 3; i++)
		expect_error(try_timeline_wait(fd, timeline, 10 * (i + 1), 0), ETIME);
	/* The last one first: a point is reached when all before it are. */
	*spinners[2].go_on = 0;
	expect_error(try_timeline_wait(fd, timeline, 30, 20), ETIME);
	*spinners[0].go_on = 0;
	must(try_timeline_wait(fd, timeline, 10, PATIENCE));
	must(try_timeline_wait(fd, timeline, 5, 0));
	expect_error(try_timeline_wait(fd, timeline, 20, 20), ETIME);
	*spinners[1].go_on = 0;
	must(try_timeline_wait(fd, timeline, 30, PATIENCE));
	must(try_timeline_wait(fd, timeline, 20, 0));
}

CHECK(jobs_wait_for_points_of_a_timeline)
{
	int fd = xe_open();
	uint32_t timeline = syncobj_create(fd), done = syncobj_create(fd);
	struct spinner spinner = { .space = open_copy(fd) };
	struct space space = space_open(fd, other_engine(fd));
	struct drm_xe_sync first = signal_point(timeline, 1);
	struct drm_xe_sync syncs[] = { wait_for_point(timeline, 1), signal_syncobj(done), signal_point(timeline, 2) };

	must(try_exec(fd, spinner.space.queue, spinner_emit(&spinner, true), &first, 1));
	mi_store_dword(&space.batch, data_va(&space, 0), 1);
	mi_batch_buffer_end(&space.batch);
	must(try_exec(fd, space.queue, CODE_VA, syncs, COUNT(syncs)));
	sleep_ms(20);
	expect_eq(*data(&space, 0), 0);
	*spinner.go_on = 0;
	must(try_timeline_wait(fd, timeline, 2, PATIENCE));
	expect_eq(*data(&space, 0), 1);
	expect(syncobj_is_signalled(fd, done));
	/* A point that nobody has promised. */
	syncs[0] = wait_for_point(timeline, 100);
	expect_error(try_exec(fd, space.queue, CODE_VA, syncs, 1), EINVAL);
	syncs[0] = wait_for_point(timeline, 0);
	expect_error(try_exec(fd, space.queue, CODE_VA, syncs, 1), EINVAL);
}

CHECK(a_job_writes_its_user_fence)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = space_on(fd, *e, system_memory(fd), 0);
		struct drm_xe_sync sync = signal_user_fence(data_va(&space, 16), 0x1234567890abcdef);

		mi_store_dword(&space.batch, data_va(&space, 0), 4);
		mi_batch_buffer_end(&space.batch);
		must(try_exec(fd, space.queue, CODE_VA, &sync, 1));
		user_fence_wait(fd, (uint64_t *)data(&space, 16), 0x1234567890abcdef, space.queue);
		expect_eq(*data(&space, 0), 4);
		expect_eq(*data(&space, 18), 0);
	}
}

CHECK(a_bind_writes_its_user_fence)
{
	int fd = xe_open();
	uint32_t vm = vm_create(fd, 0), bound = syncobj_create(fd);
	struct bo bo = bo_create(fd, 0, KIB(64), vram(fd));
	uint64_t fence = 0;
	struct drm_xe_sync syncs[] = { signal_user_fence((uintptr_t)&fence, 99), signal_syncobj(bound) };
	struct drm_xe_vm_bind arguments = {
		.vm_id = vm,
		.num_binds = 1,
		.bind = map_op(&bo, 0, GIB(1), bo.size),
		.num_syncs = COUNT(syncs),
		.syncs = (uintptr_t)syncs,
	};

	must(try_vm_bind(fd, &arguments));
	user_fence_wait(fd, &fence, 99, 0);
	syncobj_wait(fd, bound);
}

static int try_compare(int fd, uint64_t *address, uint16_t op, uint64_t value, uint64_t mask)
{
	struct drm_xe_wait_user_fence arguments = { .addr = (uintptr_t)address, .op = op, .value = value, .mask = mask };

	return try_wait_user_fence(fd, &arguments);
}

CHECK(waits_compare_in_every_way)
{
	static const struct {
		uint16_t op;
		bool below, same, above; /* whether memory below, at, above the value satisfies it */
	} cases[] = {
		{ DRM_XE_UFENCE_WAIT_OP_EQ, false, true, false },  { DRM_XE_UFENCE_WAIT_OP_NEQ, true, false, true },
		{ DRM_XE_UFENCE_WAIT_OP_GT, false, false, true },  { DRM_XE_UFENCE_WAIT_OP_GTE, false, true, true },
		{ DRM_XE_UFENCE_WAIT_OP_LT, true, false, false },  { DRM_XE_UFENCE_WAIT_OP_LTE, true, true, false },
	};
	int fd = xe_open();
	uint64_t memory = 1000;

	for (unsigned i = 0; i < COUNT(cases); i++) {
		expect_eq(try_compare(fd, &memory, cases[i].op, 1001, ~0ull), cases[i].below ? 0 : -ETIME);
		expect_eq(try_compare(fd, &memory, cases[i].op, 1000, ~0ull), cases[i].same ? 0 : -ETIME);
		expect_eq(try_compare(fd, &memory, cases[i].op, 999, ~0ull), cases[i].above ? 0 : -ETIME);
	}
	memory = 0xaaaa0000bbbb1111;
	expect_error(try_compare(fd, &memory, DRM_XE_UFENCE_WAIT_OP_EQ, 0x1111, ~0ull), ETIME);
	must(try_compare(fd, &memory, DRM_XE_UFENCE_WAIT_OP_EQ, 0x1111, 0xffff));
	must(try_compare(fd, &memory, DRM_XE_UFENCE_WAIT_OP_EQ, 0xaaaaull << 48, 0xffffull << 48));
}

CHECK(waits_end_when_their_time_is_over)
{
	int fd = xe_open();
	uint64_t memory = 0, started = now();
	struct drm_xe_wait_user_fence arguments = {
		.addr = (uintptr_t)&memory,
		.op = DRM_XE_UFENCE_WAIT_OP_EQ,
		.value = 1,
		.mask = ~0ull,
		.timeout = 30000000,
	};

	expect_error(try_wait_user_fence(fd, &arguments), ETIME);
	/* The kernel counts jiffies of up to 10 ms. */
	expect_le(20000000, now() - started);
	expect_lt(arguments.timeout, 10000000);

	started = now();
	arguments.timeout = started + 30000000;
	arguments.flags = DRM_XE_UFENCE_WAIT_FLAG_ABSTIME;
	expect_error(try_wait_user_fence(fd, &arguments), ETIME);
	expect_le(20000000, now() - started);
	expect_eq(arguments.timeout, started + 30000000);

	arguments.timeout = 1; /* long ago */
	expect_error(try_wait_user_fence(fd, &arguments), ETIME);
	arguments.flags = 0;
	arguments.timeout = 0;
	expect_error(try_wait_user_fence(fd, &arguments), ETIME);

	memory = 1;
	arguments.timeout = -1;
	must(try_wait_user_fence(fd, &arguments));
}

CHECK(wrong_waits_are_refused)
{
	int fd = xe_open();
	uint64_t memory = 0;
	struct drm_xe_wait_user_fence good = { .addr = (uintptr_t)&memory, .mask = ~0ull }, wrong;

#define REFUSED(field, value, error)                                                                                   \
	do {                                                                                                           \
		wrong = good;                                                                                          \
		wrong.field = (value);                                                                                 \
		expect_error(try_wait_user_fence(fd, &wrong), error);                                                  \
	} while (0)
	must(try_wait_user_fence(fd, &good));
	REFUSED(addr, (uintptr_t)&memory + 4, EINVAL);
	REFUSED(addr, 8, EFAULT);
	REFUSED(op, 6, EINVAL);
	REFUSED(flags, 2, EINVAL);
	REFUSED(pad, 1, EINVAL);
	REFUSED(pad2, 1, EINVAL);
	REFUSED(extensions, 8, EINVAL);
	REFUSED(reserved[1], 1, EINVAL);
	REFUSED(exec_queue_id, 0x7777, ENOENT);
#undef REFUSED
}

CHECK(wrong_user_fences_are_refused)
{
	int fd = xe_open();
	struct space space = open_copy(fd);
	struct bo bo = bo_create(fd, 0, KIB(64), system_memory(fd));
	uint64_t memory[2] = {};
	struct drm_xe_sync sync = signal_user_fence(data_va(&space, 1), 1);
	struct drm_xe_sync of_bind[] = { signal_user_fence((uintptr_t)&memory[0], 1), signal_user_fence((uintptr_t)&memory[1], 1) };
	struct drm_xe_vm_bind arguments = {
		.vm_id = space.vm,
		.num_binds = 1,
		.bind = map_op(&bo, 0, GIB(1), bo.size),
		.num_syncs = 2,
		.syncs = (uintptr_t)of_bind,
	};

	mi_batch_buffer_end(&space.batch);
	expect_error(try_exec(fd, space.queue, CODE_VA, &sync, 1), EINVAL);
	sync.addr -= 4;
	sync.flags = 0;
	expect_error(try_exec(fd, space.queue, CODE_VA, &sync, 1), EOPNOTSUPP);
	/* A bind has one user fence. */
	expect_error(try_vm_bind(fd, &arguments), EINVAL);
	of_bind[1].type = 77;
	expect_error(try_vm_bind(fd, &arguments), EINVAL);
}

CHECK(a_wait_for_a_banned_queue_ends, .expects_errors = true)
{
	int fd = xe_open();
	struct space space = open_copy(fd);
	uint64_t memory = 0;
	struct drm_xe_wait_user_fence arguments = {
		.addr = (uintptr_t)&memory,
		.op = DRM_XE_UFENCE_WAIT_OP_EQ,
		.value = 1,
		.mask = ~0ull,
		.timeout = PATIENCE * 1000000ll,
		.exec_queue_id = space.queue,
	};

	/* Nothing is bound there. */
	mi_store_dword(&space.batch, GIB(100), 1);
	space_submit(&space);
	expect_error(try_wait_user_fence(fd, &arguments), EIO);
}

CHECK(a_sync_file_of_a_job_can_be_polled)
{
	int fd = xe_open();
	struct spinner spinner = spinner_start(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	struct pollfd sync_file = { .fd = syncobj_to_sync_file(fd, spinner.done), .events = POLLIN };

	expect_eq(poll(&sync_file, 1, 20), 0);
	expect_eq(sync_file_status(sync_file.fd), 0);
	*spinner.go_on = 0;
	expect_eq(poll(&sync_file, 1, PATIENCE), 1);
	expect_eq(sync_file_status(sync_file.fd), 1);
}

CHECK(one_job_signals_and_awaits_many)
{
	int fd = xe_open();
	struct space space = open_copy(fd);
	struct drm_xe_sync syncs[64];
	uint32_t handles[COUNT(syncs)];

	mi_store_dword(&space.batch, data_va(&space, 0), 8);
	mi_batch_buffer_end(&space.batch);
	for (unsigned i = 0; i < COUNT(syncs); i++)
		syncs[i] = signal_syncobj(handles[i] = syncobj_create(fd));
	must(try_exec(fd, space.queue, CODE_VA, syncs, COUNT(syncs)));
	for (unsigned i = 0; i < COUNT(syncs); i++)
		syncs[i] = wait_for_syncobj(handles[i]);
	uint32_t done = syncobj_create(fd);
	syncs[0] = signal_syncobj(done);
	must(try_exec(fd, space.queue, CODE_VA, syncs, COUNT(syncs)));
	syncobj_wait(fd, done);
	for (unsigned i = 0; i < COUNT(syncs); i++)
		expect(syncobj_is_signalled(fd, handles[i]));
	expect_eq(*data(&space, 0), 8);
}
