// SPDX-License-Identifier: MIT
/*
 * Long-running VMs: with preemption fences, where the driver stops and resumes jobs to change their memory under them,
 * and with page faults, where memory is mapped when an engine touches it.
 */
#include "batch.h"

#include <sys/mman.h>

#define LONG_RUNNING DRM_XE_VM_CREATE_FLAG_LR_MODE
#define FAULTING (DRM_XE_VM_CREATE_FLAG_LR_MODE | DRM_XE_VM_CREATE_FLAG_FAULT_MODE)

/* Where user fences are, in dwords of the data. */
#define FENCE 1024

static struct space open_long_running(int fd, engine e, uint32_t flags)
{
	return space_on(fd, e, vram(fd), flags);
}

static struct space open_copy(int fd, uint32_t flags)
{
	return open_long_running(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY), flags);
}

/* Submit a batch that starts at `address`; its end writes `value` to the space's fence. */
static void submit(struct space *space, uint64_t address, uint64_t value)
{
	struct drm_xe_sync sync = signal_user_fence(data_va(space, FENCE), value);

	must(try_exec(space->fd, space->queue, address, &sync, 1));
}

static void await(struct space *space, uint64_t value)
{
	user_fence_wait(space->fd, (uint64_t *)data(space, FENCE), value, space->queue);
}

static void run(struct space *space)
{
	static uint64_t number;

	mi_batch_buffer_end(&space->batch);
	submit(space, space->code.va, ++number);
	await(space, number);
	space->batch = batch_in(&space->code, 0);
}

static struct spinner start_spinner(struct space space)
{
	struct spinner spinner = { .space = space };

	submit(&spinner.space, spinner_emit(&spinner, true), 0x5717);
	spinner_wait_progress(&spinner);
	return spinner;
}

static void end_spinner(struct spinner *spinner)
{
	*spinner->go_on = 0;
	await(&spinner->space, 0x5717);
}

/* Preemption fences -------------------------------------------------------------------------------------------- */

CHECK(long_running_jobs_signal_user_fences_on_every_engine)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = open_long_running(fd, *e, LONG_RUNNING);

		for (unsigned i = 1; i < 10; i++) {
			mi_store_dword(&space.batch, data_va(&space, 0), i);
			run(&space);
			expect_eq(*data(&space, 0), i);
		}
	}
}

CHECK(long_running_jobs_cannot_signal_syncobjs)
{
	int fd = xe_open();
	struct space space = open_copy(fd, LONG_RUNNING);
	struct drm_xe_sync sync = signal_syncobj(syncobj_create(fd));

	mi_batch_buffer_end(&space.batch);
	expect_error(try_exec(fd, space.queue, CODE_VA, &sync, 1), EOPNOTSUPP);
}

CHECK(long_running_jobs_are_stopped_for_binds_and_go_on)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct spinner spinner = start_spinner(open_long_running(fd, e, LONG_RUNNING));
	struct space beside = space_beside(&spinner.space, e, 1);
	struct bo bo = bo_create(fd, 0, MIB(2), vram(fd));

	for (unsigned i = 0; i < 5; i++) {
		bind(fd, spinner.space.vm, &bo, GIB(1) * (i + 1));
		mi_store_dword(&beside.batch, GIB(1) * (i + 1) + 4 * i, i + 30);
		run(&beside);
		expect_eq(((volatile uint32_t *)bo_map(&bo))[i], i + 30);
		spinner_wait_progress(&spinner);
	}
	end_spinner(&spinner);
}

CHECK(long_running_jobs_follow_user_memory_that_moves)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct spinner spinner = start_spinner(open_long_running(fd, e, LONG_RUNNING));
	struct space beside = space_beside(&spinner.space, e, 1);
	volatile uint32_t *memory = mmap(NULL, KIB(64), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	bind_userptr(fd, spinner.space.vm, (void *)memory, GIB(1), KIB(64));
	for (unsigned i = 1; i < 6; i++) {
		mi_store_dword(&beside.batch, GIB(1) + KIB(4), i);
		run(&beside);
		expect_eq(memory[1024], i);
		/* Other pages come to the same address: the running job is stopped, its page tables change, it goes on. */
		expect(mmap((void *)memory, KIB(64), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		       memory);
		expect_eq(memory[1024], 0);
		spinner_wait_progress(&spinner);
	}
	expect(!is_banned(fd, spinner.space.queue));
	end_spinner(&spinner);
}

CHECK(long_running_jobs_have_no_time_limit, .timeout = 40)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	const char *file = sysfs_path("tile0/gt%u/engines/bcs/job_timeout_ms", e.gt_id);
	char *usual = read_file(file);

	if (!usual)
		skip("%s cannot be read", file);
	must(try_write_file(file, "300"));
	struct space space = open_copy(fd, LONG_RUNNING);
	must(try_write_file(file, usual));
	struct spinner spinner = start_spinner(space);
	sleep_ms(1200);
	expect(!is_banned(fd, space.queue));
	spinner_wait_progress(&spinner);
	end_spinner(&spinner);
}

/* Page faults -------------------------------------------------------------------------------------------------- */

CHECK(faulting_jobs_run_on_every_engine)
{
	int fd = xe_open();

	for_each_engine(fd, e) {
		struct space space = open_long_running(fd, *e, FAULTING);

		mi_store_dword(&space.batch, data_va(&space, 0), 0xfa17);
		run(&space);
		expect_eq(*data(&space, 0), 0xfa17);
	}
}

CHECK(faults_bring_buffers_of_either_memory_in)
{
	int fd = xe_open();
	struct space space = open_copy(fd, FAULTING);
	uint32_t placements[] = { system_memory(fd), vram(fd) };

	for (unsigned p = 0; p < COUNT(placements); p++) {
		struct bo bo = bo_create(fd, 0, MIB(4), placements[p]);
		volatile uint32_t *words = bo_map(&bo);
		uint64_t va = GIB(1) * (p + 1);

		for (unsigned page = 0; page < 1024; page++)
			words[1024 * page] = page ^ 0x55;
		bind(fd, space.vm, &bo, va);
		for (unsigned page = 0; page < 1024; page += 93) {
			mi_copy_mem_mem(&space.batch, data_va(&space, page), va + KIB(4) * page);
			mi_store_dword(&space.batch, va + KIB(4) * page + 8, page + 1);
		}
		run(&space);
		for (unsigned page = 0; page < 1024; page += 93) {
			expect_eq(*data(&space, page), page ^ 0x55);
			expect_eq(words[1024 * page + 2], page + 1);
		}
	}
}

CHECK(faults_bring_user_memory_in_wherever_it_is)
{
	int fd = xe_open();
	struct space space = open_copy(fd, FAULTING);
	volatile uint32_t *memory = mmap(NULL, MIB(1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	bind_userptr(fd, space.vm, (void *)memory, GIB(1), MIB(1));
	for (unsigned i = 1; i < 5; i++) {
		memory[KIB(512) / 4] = 100 + i;
		mi_copy_mem_mem(&space.batch, data_va(&space, 0), GIB(1) + KIB(512));
		mi_store_dword(&space.batch, GIB(1) + KIB(516), i);
		run(&space);
		expect_eq(*data(&space, 0), 100 + i);
		expect_eq(memory[KIB(516) / 4], i);
		expect(mmap((void *)memory, MIB(1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		       memory);
	}
}

CHECK(a_fault_where_nothing_is_bound_bans_the_queue, .expects_errors = true)
{
	int fd = xe_open();
	struct space space = open_copy(fd, FAULTING), other = open_copy(fd, FAULTING);

	mi_store_dword(&space.batch, data_va(&space, 0), 1);
	mi_store_dword(&space.batch, GIB(100) + 0x4008, 2);
	mi_semaphore_wait(&space.batch, data_va(&space, 2), EQUAL, 1);
	mi_batch_buffer_end(&space.batch);
	submit(&space, CODE_VA, 1);
	wait_until(is_banned(fd, space.queue), PATIENCE);
	expect_eq(*data(&space, 0), 1);
	mi_store_dword(&other.batch, data_va(&other, 0), 3);
	run(&other);
	expect_eq(*data(&other, 0), 3);

	struct drm_xe_vm_get_property faults = { .vm_id = space.vm, .property = DRM_XE_VM_GET_PROPERTY_FAULTS };
	int result = try_ioctl(fd, DRM_IOCTL_XE_VM_GET_PROPERTY, &faults);
	if (result) {
		note("the kernel does not list faults: %s", strerror(-result));
		return;
	}
	struct xe_vm_fault *list = calloc(1, faults.size + 1);
	faults.data = (uintptr_t)list;
	must(try_ioctl(fd, DRM_IOCTL_XE_VM_GET_PROPERTY, &faults));
	expect_ge(faults.size, sizeof(*list));
	note("%llu+%u, access %u, type %u, level %u", list->address, list->address_precision, list->access_type,
	     list->fault_type, list->fault_level);
	expect_le(list->address, GIB(100) + 0x4008);
	expect_lt(GIB(100) + 0x4008, list->address + list->address_precision);
	expect_eq(list->access_type, FAULT_ACCESS_TYPE_WRITE);
	expect_eq(list->fault_type, FAULT_TYPE_NOT_PRESENT);
}

CHECK(faulting_spinners_give_way_to_ordinary_jobs)
{
	int fd = xe_open();
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct spinner spinner = start_spinner(open_long_running(fd, e, FAULTING));
	struct space ordinary = space_open(fd, e);

	/* The driver suspends the one for the other, and resumes it. */
	for (unsigned i = 1; i < 5; i++) {
		mi_store_dword(&ordinary.batch, data_va(&ordinary, 0), i);
		space_run(&ordinary);
		expect_eq(*data(&ordinary, 0), i);
		spinner_wait_progress(&spinner);
	}
	end_spinner(&spinner);
}

/* Memory of the process, at its own addresses. */
CHECK(engines_share_the_address_space_of_the_process)
{
	int fd = xe_open();
	struct drm_xe_query_config *config = query(fd, DRM_XE_DEVICE_QUERY_CONFIG, NULL);
	uint32_t vm = vm_create(fd, FAULTING);
	struct drm_xe_vm_bind_op mirror = {
		.range = 1ull << config->info[DRM_XE_QUERY_CONFIG_VA_BITS],
		.op = DRM_XE_VM_BIND_OP_MAP,
		.flags = DRM_XE_VM_BIND_FLAG_CPU_ADDR_MIRROR,
	};

	if (!(config->info[DRM_XE_QUERY_CONFIG_FLAGS] & DRM_XE_QUERY_CONFIG_FLAG_HAS_CPU_ADDR_MIRROR))
		skip("the kernel was built without CONFIG_DRM_XE_GPUSVM");
	must(try_bind_ops(fd, vm, &mirror, 1));
	uint32_t queue = queue_create(fd, vm, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	uint32_t *memory = aligned_alloc(KIB(64), KIB(256));
	volatile uint64_t *fence = (uint64_t *)(memory + 16384);
	volatile uint32_t *target = memory + 32768;

	for (unsigned i = 1; i < 6; i++) {
		struct batch b = { .cpu = memory, .va = (uintptr_t)memory, .capacity = 16384 };
		struct drm_xe_sync sync = signal_user_fence((uintptr_t)fence, i);

		*target = 7 * i;
		mi_copy_mem_mem(&b, (uintptr_t)(target + 8192), (uintptr_t)target);
		mi_store_dword(&b, (uintptr_t)target, i);
		mi_batch_buffer_end(&b);
		must(try_exec(fd, queue, b.va, &sync, 1));
		user_fence_wait(fd, (uint64_t *)fence, i, queue);
		expect_eq(*target, i);
		expect_eq(target[8192], 7 * i);
	}
}
