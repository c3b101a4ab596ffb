// SPDX-License-Identifier: MIT
/* Creating buffers, VMs and queues: what is granted, what is refused, and that nothing of it leaks. */
#include "batch.h"

#include <sys/wait.h>

CHECK(buffers_of_all_sizes_in_every_region)
{
	static const uint64_t sizes[] = { KIB(4), KIB(8), KIB(64), KIB(68), MIB(2), MIB(2) + KIB(4), MIB(32) };
	int fd = xe_open();
	uint32_t placements[] = { system_memory(fd), vram(fd), system_memory(fd) | vram(fd) };

	for (unsigned p = 0; p < COUNT(placements); p++) {
		for (unsigned s = 0; s < COUNT(sizes); s++) {
			struct bo bo = bo_create(fd, 0, sizes[s], placements[p]);

			expect_ne(bo.handle, 0);
			bo_close(&bo);
		}
	}
}

CHECK(new_buffers_hold_nothing_of_old_ones)
{
	int fd = xe_open();
	uint32_t placements[] = { system_memory(fd), vram(fd) };

	for (unsigned p = 0; p < COUNT(placements); p++) {
		for (unsigned round = 0; round < 3; round++) {
			struct bo bo = bo_create(fd, 0, MIB(1), placements[p]);
			uint64_t *words = bo_map(&bo);

			for (unsigned i = 0; i < bo.size / 8; i += 32)
				expect_eq(words[i], 0);
			memset(words, 0xa5, bo.size);
			bo_close(&bo);
		}
	}
}

CHECK(buffers_of_wrong_sizes_are_refused)
{
	int fd = xe_open();
	uint32_t system = system_memory(fd);
	static const uint64_t sizes[] = { 0, 1, 4095, 4097, MIB(1) + 512 };

	for (unsigned i = 0; i < COUNT(sizes); i++) {
		struct drm_xe_gem_create arguments = {
			.size = sizes[i],
			.placement = system,
			.cpu_caching = DRM_XE_GEM_CPU_CACHING_WB,
		};

		expect_error(try_gem_create(fd, &arguments), EINVAL);
	}
}

CHECK(a_buffer_larger_than_vram_is_refused)
{
	int fd = xe_open();
	uint32_t placement = vram(fd);
	struct drm_xe_gem_create arguments = {
		.size = memory_region(fd, placement).total_size + MIB(2),
		.placement = placement,
		.cpu_caching = DRM_XE_GEM_CPU_CACHING_WC,
	};
	int result = try_gem_create(fd, &arguments);

	/* The kernel's allocator and its validation loop name this differently. */
	if (result != -ENOMEM && result != -ENOSPC && result != -E2BIG)
		FAIL("creating a buffer larger than VRAM: %s", result ? strerror(-result) : "success");
}

CHECK(wrong_placements_flags_and_cachings_are_refused)
{
	int fd = xe_open();
	uint32_t system = system_memory(fd), local = vram(fd);
	const struct drm_xe_gem_create wrong[] = {
		{ .placement = 0, .cpu_caching = DRM_XE_GEM_CPU_CACHING_WC },
		{ .placement = 1u << 31, .cpu_caching = DRM_XE_GEM_CPU_CACHING_WC },
		{ .placement = system, .cpu_caching = 0 },
		{ .placement = system, .cpu_caching = 3 },
		{ .placement = local, .cpu_caching = DRM_XE_GEM_CPU_CACHING_WB },
		{ .placement = system | local, .cpu_caching = DRM_XE_GEM_CPU_CACHING_WB },
		{ .placement = system, .cpu_caching = DRM_XE_GEM_CPU_CACHING_WB, .flags = 1u << 30 },
		{ .placement = system, .cpu_caching = DRM_XE_GEM_CPU_CACHING_WB,
		  .flags = DRM_XE_GEM_CREATE_FLAG_SCANOUT },
		{ .placement = system, .cpu_caching = DRM_XE_GEM_CPU_CACHING_WB,
		  .flags = DRM_XE_GEM_CREATE_FLAG_NEEDS_VISIBLE_VRAM },
		{ .placement = system, .cpu_caching = DRM_XE_GEM_CPU_CACHING_WB, .pad = { 1 } },
		{ .placement = system, .cpu_caching = DRM_XE_GEM_CPU_CACHING_WB, .reserved = { 1 } },
		{ .placement = system, .cpu_caching = DRM_XE_GEM_CPU_CACHING_WB, .handle = 1 },
	};

	for (unsigned i = 0; i < COUNT(wrong); i++) {
		struct drm_xe_gem_create arguments = wrong[i];

		arguments.size = KIB(64);
		int result = try_gem_create(fd, &arguments);
		if (result != -EINVAL)
			FAIL("wrong arguments %u: %s", i, result ? strerror(-result) : "success");
	}
}

CHECK(deferred_and_scanout_buffers)
{
	int fd = xe_open();
	uint32_t placement = vram(fd);
	static const uint32_t flags[] = {
		DRM_XE_GEM_CREATE_FLAG_DEFER_BACKING,
		DRM_XE_GEM_CREATE_FLAG_SCANOUT,
		DRM_XE_GEM_CREATE_FLAG_SCANOUT | DRM_XE_GEM_CREATE_FLAG_NEEDS_VISIBLE_VRAM,
		DRM_XE_GEM_CREATE_FLAG_DEFER_BACKING | DRM_XE_GEM_CREATE_FLAG_NEEDS_VISIBLE_VRAM,
	};

	for (unsigned i = 0; i < COUNT(flags); i++) {
		struct drm_xe_gem_create arguments = {
			.size = KIB(256),
			.placement = placement,
			.flags = flags[i],
			.cpu_caching = DRM_XE_GEM_CPU_CACHING_WC,
		};

		must(try_gem_create(fd, &arguments));
		struct bo bo = { .fd = fd, .handle = arguments.handle, .size = arguments.size };
		/* Others may lie behind the end of a small BAR2, where an access of the processor is a SIGBUS. */
		if (flags[i] & DRM_XE_GEM_CREATE_FLAG_NEEDS_VISIBLE_VRAM) {
			volatile uint32_t *words = bo_map(&bo);

			words[1000] = 7;
			expect_eq(words[1000], 7);
		}
		bo_close(&bo);
	}
}

CHECK(handles_end_when_closed)
{
	int fd = xe_open();
	struct bo bo = bo_create(fd, 0, KIB(4), system_memory(fd));
	struct drm_xe_gem_mmap_offset offset = { .handle = bo.handle };

	must(try_gem_close(fd, bo.handle));
	expect_error(try_gem_close(fd, bo.handle), EINVAL);
	expect_error(try_ioctl(fd, DRM_IOCTL_XE_GEM_MMAP_OFFSET, &offset), ENOENT);
}

CHECK(buffers_of_a_vm_stay_in_it)
{
	int fd = xe_open(), dmabuf;
	uint32_t vm = vm_create(fd, 0);
	struct bo bo = bo_create(fd, vm, KIB(64), system_memory(fd));
	struct drm_xe_vm_bind_op operation = map_op(&bo, 0, MIB(1), bo.size);
	struct drm_xe_gem_create in_unknown_vm = {
		.size = KIB(4),
		.placement = system_memory(fd),
		.vm_id = 0x7777,
		.cpu_caching = DRM_XE_GEM_CPU_CACHING_WB,
	};

	expect_error(try_prime_export(fd, bo.handle, &dmabuf), EPERM);
	must(try_bind_ops(fd, vm, &operation, 1));
	expect_error(try_gem_create(fd, &in_unknown_vm), ENOENT);
}

CHECK(vms_of_every_mode)
{
	static const uint32_t modes[] = {
		0,
		DRM_XE_VM_CREATE_FLAG_SCRATCH_PAGE,
		DRM_XE_VM_CREATE_FLAG_LR_MODE,
		DRM_XE_VM_CREATE_FLAG_LR_MODE | DRM_XE_VM_CREATE_FLAG_SCRATCH_PAGE,
		DRM_XE_VM_CREATE_FLAG_LR_MODE | DRM_XE_VM_CREATE_FLAG_FAULT_MODE,
	};
	int fd = xe_open();
	uint32_t vm;

	for (unsigned i = 0; i < COUNT(modes); i++) {
		must(try_vm_create(fd, modes[i], &vm));
		must(try_vm_destroy(fd, vm));
		expect_error(try_vm_destroy(fd, vm), ENOENT);
	}
	expect_error(try_vm_create(fd, DRM_XE_VM_CREATE_FLAG_FAULT_MODE, &vm), EINVAL);
	expect_error(try_vm_create(fd, 1u << 30, &vm), EINVAL);
}

static int try_queue(int fd, uint32_t vm, const engine *list, uint16_t width, uint16_t placements)
{
	struct drm_xe_exec_queue_create arguments = {
		.width = width,
		.num_placements = placements,
		.vm_id = vm,
		.instances = (uintptr_t)list,
	};

	return try_queue_create(fd, &arguments);
}

CHECK(queues_on_every_engine)
{
	int fd = xe_open();
	uint32_t vm = vm_create(fd, 0);

	for_each_engine(fd, e) {
		uint32_t queue = queue_create(fd, vm, *e);

		expect(!is_banned(fd, queue));
		must(try_queue_destroy(fd, queue));
		expect_error(try_queue_destroy(fd, queue), ENOENT);
	}
	must(try_queue_destroy(fd, bind_queue_create(fd, vm)));
}

CHECK(hundreds_of_queues)
{
	int fd = xe_open();
	uint32_t vm = vm_create(fd, 0), queues[256];
	const engine *list;
	unsigned count = engines(fd, &list);

	for (unsigned i = 0; i < COUNT(queues); i++)
		queues[i] = queue_create(fd, vm, list[i % count]);
	for (unsigned i = 0; i < COUNT(queues); i++)
		must(try_queue_destroy(fd, queues[i]));
}

CHECK(wrong_queues_are_refused)
{
	int fd = xe_open();
	uint32_t vm = vm_create(fd, 0);
	engine copy = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY), twice[] = { copy, copy };
	engine bad_class = copy, bad_instance = copy, bad_gt = copy;
	engine bind = { .engine_class = DRM_XE_ENGINE_CLASS_VM_BIND }, bind_twice[] = { bind, bind };

	bad_class.engine_class = 99;
	bad_instance.engine_instance = 99;
	bad_gt.gt_id = 99;
	expect_error(try_queue(fd, vm, &bad_class, 1, 1), EINVAL);
	expect_error(try_queue(fd, vm, &bad_instance, 1, 1), EINVAL);
	expect_error(try_queue(fd, vm, &bad_gt, 1, 1), EINVAL);
	expect_error(try_queue(fd, vm, twice, 2, 1), EINVAL);
	expect_error(try_queue(fd, vm, &copy, 0, 1), EINVAL);
	expect_error(try_queue(fd, vm, &copy, 1, 0), EINVAL);
	expect_error(try_queue(fd, vm, &copy, 64, 64), EINVAL);
	expect_error(try_queue(fd, vm, bind_twice, 2, 1), EINVAL);
	expect_error(try_queue(fd, vm, (engine *)8, 1, 1), EFAULT);
	expect_error(try_queue(fd, 0x7777, &copy, 1, 1), ENOENT);
	expect_error(try_queue_destroy(fd, 0x7777), ENOENT);

	struct drm_xe_exec_queue_create arguments = {
		.width = 1,
		.num_placements = 1,
		.vm_id = vm,
		.flags = 1u << 30,
		.instances = (uintptr_t)&copy,
	};
	expect_error(try_queue_create(fd, &arguments), EINVAL);
}

static int try_property(int fd, uint32_t vm, engine e, uint32_t property, uint64_t value)
{
	struct drm_xe_ext_set_property extension = {
		.base.name = DRM_XE_EXEC_QUEUE_EXTENSION_SET_PROPERTY,
		.property = property,
		.value = value,
	};
	struct drm_xe_exec_queue_create arguments = {
		.extensions = (uintptr_t)&extension,
		.width = 1,
		.num_placements = 1,
		.vm_id = vm,
		.instances = (uintptr_t)&e,
	};
	int result = try_queue_create(fd, &arguments);

	if (result == 0)
		must(try_queue_destroy(fd, arguments.exec_queue_id));
	return result;
}

CHECK(queues_take_priorities_and_timeslices)
{
	int fd = xe_open();
	uint32_t vm = vm_create(fd, 0);
	engine e = engine_of(fd, DRM_XE_ENGINE_CLASS_COPY);
	struct drm_xe_query_config *config = query(fd, DRM_XE_DEVICE_QUERY_CONFIG, NULL);
	uint64_t highest = config->info[DRM_XE_QUERY_CONFIG_MAX_EXEC_QUEUE_PRIORITY];

	for (uint64_t priority = 0; priority <= highest; priority++)
		must(try_property(fd, vm, e, DRM_XE_EXEC_QUEUE_SET_PROPERTY_PRIORITY, priority));
	/* Above the highest: -EPERM for one that exists but is not for this user, -EINVAL for others. */
	expect_error(try_property(fd, vm, e, DRM_XE_EXEC_QUEUE_SET_PROPERTY_PRIORITY, 99), EINVAL);
	must(try_property(fd, vm, e, DRM_XE_EXEC_QUEUE_SET_PROPERTY_TIMESLICE, 1000));
	must(try_property(fd, vm, e, DRM_XE_EXEC_QUEUE_SET_PROPERTY_TIMESLICE, 100000));
	expect_error(try_property(fd, vm, e, 0xffff, 0), EINVAL);
}

static void use_much(uint32_t placement)
{
	int fd = xe_open();

	for (unsigned i = 0; i < 4; i++) {
		struct space space = space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
		struct bo bo = bo_create(fd, 0, MIB(8), placement);

		bo_map(&bo);
		mi_store_dword(&space.batch, data_va(&space, 0), 1);
		space_run(&space);
	}
}

CHECK(everything_a_process_held_is_freed_at_its_end)
{
	int fd = xe_open(), status;
	uint32_t placement = vram(fd);
	uint64_t before = steady_use(fd, placement);
	pid_t child = fork();

	if (child == 0) {
		use_much(placement);
		expect_ge(memory_region(fd, placement).used, before + 4 * MIB(8) - LATE);
		_exit(0);
	}
	waitpid(child, &status, 0);
	expect_eq(status, 0);
	wait_until(memory_region(fd, placement).used <= before, PATIENCE);
}
