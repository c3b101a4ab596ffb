// SPDX-License-Identifier: MIT
/* Virtual memories: binding in every form, page sizes, and what happens where nothing is bound. */
#include "batch.h"

#include <sys/mman.h>

static struct space open_default(int fd)
{
	return space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
}

static void store(struct space *space, uint64_t va, uint32_t value)
{
	mi_store_dword(&space->batch, va, value);
	space_run(space);
}

static uint32_t load(struct space *space, uint64_t va)
{
	*data(space, 0) = 0xdeadbeef;
	mi_copy_mem_mem(&space->batch, data_va(space, 0), va);
	space_run(space);
	return *data(space, 0);
}

#define SOMEWHERE GIB(4)

CHECK(a_rebound_address_reaches_the_new_buffer)
{
	int fd = xe_open();
	struct space space = open_default(fd);
	struct bo first = bo_create(fd, 0, KIB(64), vram(fd)), second = bo_create(fd, 0, KIB(64), system_memory(fd));
	volatile uint32_t *in_first = bo_map(&first), *in_second = bo_map(&second);

	for (unsigned round = 1; round < 5; round++) {
		bind(fd, space.vm, &first, SOMEWHERE);
		store(&space, SOMEWHERE + 16, round);
		unbind(fd, space.vm, SOMEWHERE, first.size);
		bind(fd, space.vm, &second, SOMEWHERE);
		store(&space, SOMEWHERE + 16, 100 + round);
		/* Over the old binding, without an unbind between. */
		bind(fd, space.vm, &first, SOMEWHERE);
		store(&space, SOMEWHERE + 32, 200 + round);
		unbind(fd, space.vm, SOMEWHERE, first.size);
		expect_eq(in_first[4], round);
		expect_eq(in_second[4], 100 + round);
		expect_eq(in_first[8], 200 + round);
		expect_eq(in_second[8], 0);
	}
}

CHECK(part_of_a_binding_can_be_replaced)
{
	int fd = xe_open();
	struct space space = open_default(fd);
	struct bo whole = bo_create(fd, 0, KIB(64), vram(fd)), piece = bo_create(fd, 0, KIB(16), vram(fd));
	volatile uint32_t *in_whole = bo_map(&whole), *in_piece = bo_map(&piece);

	bind(fd, space.vm, &whole, SOMEWHERE);
	bind_part(fd, space.vm, &piece, KIB(4), SOMEWHERE + KIB(20), KIB(8));
	for (unsigned page = 0; page < 16; page++)
		mi_store_dword(&space.batch, SOMEWHERE + KIB(4) * page, 1000 + page);
	space_run(&space);
	for (unsigned page = 0; page < 16; page++) {
		bool replaced = page == 5 || page == 6;

		expect_eq(in_whole[page * 1024], replaced ? 0 : 1000 + page);
		if (replaced)
			expect_eq(in_piece[(page - 4) * 1024], 1000 + page);
	}
}

CHECK(one_ioctl_binds_many)
{
	int fd = xe_open();
	struct space space = open_default(fd);
	struct bo bo = bo_create(fd, 0, MIB(1), vram(fd));
	volatile uint32_t *words = bo_map(&bo);
	struct drm_xe_vm_bind_op operations[128];

	/* Pages in reverse order, 2 MiB apart: every one needs a page table of its own. */
	for (unsigned i = 0; i < COUNT(operations); i++)
		operations[i] = map_op(&bo, KIB(4) * (COUNT(operations) - 1 - i), SOMEWHERE + MIB(2) * i, KIB(4));
	must(try_bind_ops(fd, space.vm, operations, COUNT(operations)));
	for (unsigned i = 0; i < COUNT(operations); i++)
		mi_store_dword(&space.batch, SOMEWHERE + MIB(2) * i + 8, i + 1);
	space_run(&space);
	for (unsigned i = 0; i < COUNT(operations); i++)
		expect_eq(words[(COUNT(operations) - 1 - i) * 1024 + 2], i + 1);

	for (unsigned i = 0; i < COUNT(operations); i++)
		operations[i] = unmap_op(SOMEWHERE + MIB(2) * i, KIB(4));
	must(try_bind_ops(fd, space.vm, operations, COUNT(operations)));
}

CHECK(one_ioctl_unbinds_and_binds)
{
	int fd = xe_open();
	struct space space = open_default(fd);
	struct bo first = bo_create(fd, 0, KIB(64), vram(fd)), second = bo_create(fd, 0, KIB(64), vram(fd));
	volatile uint32_t *in_first = bo_map(&first), *in_second = bo_map(&second);

	bind(fd, space.vm, &first, SOMEWHERE);
	struct drm_xe_vm_bind_op operations[] = {
		unmap_op(SOMEWHERE, KIB(64)),
		map_op(&second, 0, SOMEWHERE, KIB(32)),
		map_op(&first, KIB(32), SOMEWHERE + KIB(32), KIB(32)),
		map_op(&first, 0, SOMEWHERE + MIB(64), KIB(64)),
	};
	must(try_bind_ops(fd, space.vm, operations, COUNT(operations)));
	mi_store_dword(&space.batch, SOMEWHERE, 1);
	mi_store_dword(&space.batch, SOMEWHERE + KIB(32), 2);
	mi_store_dword(&space.batch, SOMEWHERE + MIB(64), 3);
	space_run(&space);
	expect_eq(in_second[0], 1);
	expect_eq(in_first[KIB(32) / 4], 2);
	expect_eq(in_first[0], 3);
}

/* Bind at addresses of various alignments, and write each 4 KiB page of the buffer once. */
static void check_every_page(uint32_t (*placement)(int), uint64_t size)
{
	static const uint64_t addresses[] = { SOMEWHERE, SOMEWHERE + KIB(64), SOMEWHERE + KIB(4), SOMEWHERE + GIB(1) - MIB(1) };
	int fd = xe_open();
	struct space space = open_default(fd);
	struct bo bo = bo_create(fd, 0, size, placement(fd));
	volatile uint32_t *words = bo_map(&bo);
	uint64_t pages = size / KIB(4);

	for (unsigned a = 0; a < COUNT(addresses); a++) {
		bind(fd, space.vm, &bo, addresses[a]);
		for (uint64_t page = 0; page < pages;) {
			for (unsigned i = 0; i < 512 && page < pages; i++, page++)
				mi_store_dword(&space.batch, addresses[a] + KIB(4) * page + 4 * a, page + a);
			space_run(&space);
		}
		unbind(fd, space.vm, addresses[a], size);
		for (uint64_t page = 0; page < pages; page++)
			expect_eq(words[1024 * page + a], page + a);
	}
}

CHECK(large_pages_of_vram_reach_every_page)
{
	check_every_page(vram, MIB(6));
}

CHECK(pages_of_system_memory_reach_every_page)
{
	check_every_page(system_memory, MIB(3));
}

CHECK(addresses_up_to_the_last_page)
{
	static const uint64_t addresses[] = {
		KIB(64), GIB(1), 1ull << 39, (1ull << 47) - KIB(4), 1ull << 47, (1ull << 48) - KIB(64), (1ull << 48) - KIB(4),
	};
	int fd = xe_open();
	struct space space = open_default(fd);
	struct bo bo = bo_create(fd, 0, KIB(4), vram(fd));
	volatile uint32_t *words = bo_map(&bo);

	for (unsigned i = 0; i < COUNT(addresses); i++) {
		bind(fd, space.vm, &bo, addresses[i]);
		store(&space, addresses[i] + 4092, i + 1);
		expect_eq(words[1023], i + 1);
		expect_eq(load(&space, addresses[i] + 4092), i + 1);
		unbind(fd, space.vm, addresses[i], KIB(4));
	}
}

CHECK(batches_run_from_high_addresses)
{
	int fd = xe_open();
	struct space space = open_default(fd);
	struct bo code = bo_create(fd, 0, KIB(64), system_memory(fd));

	bind(fd, space.vm, &code, (1ull << 48) - MIB(2));
	struct batch first = batch_in(&code, 0), second = batch_in(&code, KIB(8));
	mi_store_dword(&first, data_va(&space, 0), 11);
	mi_jump(&first, second.va);
	mi_store_dword(&second, data_va(&space, 1), 12);
	mi_batch_buffer_end(&second);
	exec_and_wait(fd, space.queue, code.va);
	expect_eq(*data(&space, 0), 11);
	expect_eq(*data(&space, 1), 12);
}

CHECK(vms_are_separate)
{
	int fd = xe_open();
	struct space first = open_default(fd), second = open_default(fd);

	store(&first, data_va(&first, 0), 1);
	store(&second, data_va(&second, 0), 2);
	expect_eq(*data(&first, 0), 1);
	expect_eq(*data(&second, 0), 2);
}

CHECK(user_memory_can_be_bound)
{
	int fd = xe_open();
	struct space space = open_default(fd);
	uint32_t *memory = mmap(NULL, MIB(1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memory[0] = 0x11223344;
	bind_userptr(fd, space.vm, memory, SOMEWHERE, MIB(1));
	expect_eq(load(&space, SOMEWHERE), 0x11223344);
	for (unsigned page = 0; page < 256; page++)
		mi_store_dword(&space.batch, SOMEWHERE + KIB(4) * page + 12, page + 7);
	space_run(&space);
	for (unsigned page = 0; page < 256; page++)
		expect_eq(((volatile uint32_t *)memory)[1024 * page + 3], page + 7);
}

CHECK(bound_user_memory_follows_its_mapping)
{
	int fd = xe_open();
	struct space space = open_default(fd);
	volatile uint32_t *memory = mmap(NULL, KIB(64), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	bind_userptr(fd, space.vm, (void *)memory, SOMEWHERE, KIB(64));
	for (unsigned round = 1; round < 6; round++) {
		store(&space, SOMEWHERE + KIB(8), round);
		expect_eq(memory[2048], round);
		/* New, zeroed pages at the same address. */
		expect(mmap((void *)memory, KIB(64), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		       memory);
		expect_eq(load(&space, SOMEWHERE + KIB(8)), 0);
	}
}

CHECK(null_bindings_read_zero_and_drop_writes)
{
	int fd = xe_open();
	struct space space = open_default(fd);
	struct drm_xe_vm_bind_op operation = {
		.range = MIB(4),
		.addr = SOMEWHERE,
		.op = DRM_XE_VM_BIND_OP_MAP,
		.flags = DRM_XE_VM_BIND_FLAG_NULL,
	};

	must(try_bind_ops(fd, space.vm, &operation, 1));
	for (uint64_t offset = 0; offset < MIB(4); offset += KIB(1020)) {
		store(&space, SOMEWHERE + offset, 0x55555555);
		expect_eq(load(&space, SOMEWHERE + offset), 0);
	}
	expect(!is_banned(fd, space.queue));
}

CHECK(scratch_pages_take_stray_accesses)
{
	int fd = xe_open();
	struct space space =
		space_on(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY), vram(fd), DRM_XE_VM_CREATE_FLAG_SCRATCH_PAGE);

	for (unsigned shift = 22; shift < 48; shift += 5) {
		store(&space, 1ull << shift, 1);
		load(&space, 1ull << shift);
	}
	*data(&space, 5) = 0;
	store(&space, data_va(&space, 5), 5);
	expect_eq(*data(&space, 5), 5);
	expect(!is_banned(fd, space.queue));
}

/* Submit what is expected to fault; the queue is banned and its fence signals all the same. */
static void run_into_ban(struct space *space)
{
	uint32_t done = space_submit(space);

	syncobj_wait(space->fd, done);
	wait_until(is_banned(space->fd, space->queue), PATIENCE);
	expect_error(try_exec(space->fd, space->queue, CODE_VA, NULL, 0), ECANCELED);
}

CHECK(unbound_accesses_ban_the_queue, .expects_errors = true)
{
	int fd = xe_open();
	struct space other = open_default(fd);

	for (unsigned reading = 0; reading < 2; reading++) {
		struct space space = open_default(fd);

		if (reading)
			mi_copy_mem_mem(&space.batch, data_va(&space, 0), SOMEWHERE);
		else
			mi_store_dword(&space.batch, SOMEWHERE, 1);
		run_into_ban(&space);
	}
	store(&other, data_va(&other, 0), 4);
	expect_eq(*data(&other, 0), 4);
}

CHECK(an_unbound_page_is_unreachable_at_once, .expects_errors = true)
{
	int fd = xe_open();
	struct space space = open_default(fd);
	struct bo bo = bo_create(fd, 0, KIB(64), vram(fd));
	volatile uint32_t *words = bo_map(&bo);

	bind(fd, space.vm, &bo, SOMEWHERE);
	store(&space, SOMEWHERE, 1);
	unbind(fd, space.vm, SOMEWHERE, bo.size);
	mi_store_dword(&space.batch, SOMEWHERE, 2);
	run_into_ban(&space);
	expect_eq(words[0], 1);
}

CHECK(read_only_bindings_are_not_written, .expects_errors = true)
{
	int fd = xe_open();
	struct space space = open_default(fd);
	struct bo bo = bo_create(fd, 0, KIB(64), vram(fd));
	volatile uint32_t *words = bo_map(&bo);
	struct drm_xe_vm_bind_op operation = map_op(&bo, 0, SOMEWHERE, bo.size);

	operation.flags = DRM_XE_VM_BIND_FLAG_READONLY;
	words[0] = 77;
	must(try_bind_ops(fd, space.vm, &operation, 1));
	expect_eq(load(&space, SOMEWHERE), 77);
	mi_store_dword(&space.batch, SOMEWHERE, 1);
	uint32_t done = space_submit(&space);
	syncobj_wait(fd, done);
	expect_eq(words[0], 77);
}

CHECK(all_bindings_of_a_buffer_go_at_once, .expects_errors = true)
{
	int fd = xe_open();
	struct space space = open_default(fd);
	struct bo bo = bo_create(fd, 0, KIB(64), vram(fd));
	struct drm_xe_vm_bind_op operation = { .obj = bo.handle, .op = DRM_XE_VM_BIND_OP_UNMAP_ALL };

	for (unsigned i = 0; i < 8; i++)
		bind(fd, space.vm, &bo, SOMEWHERE + GIB(1) * i);
	store(&space, SOMEWHERE + GIB(7), 1);
	must(try_bind_ops(fd, space.vm, &operation, 1));
	mi_store_dword(&space.batch, SOMEWHERE + GIB(7), 2);
	run_into_ban(&space);
	expect_eq(*(volatile uint32_t *)bo_map(&bo), 1);
}

CHECK(prefetched_buffers_keep_their_content)
{
	int fd = xe_open();
	uint32_t system = system_memory(fd), local = vram(fd);
	struct space space = open_default(fd);
	struct bo bo = bo_create(fd, 0, MIB(4), system | local);
	volatile uint32_t *words = bo_map(&bo);

	for (unsigned page = 0; page < 1024; page++)
		words[1024 * page] = page * 3 + 1;
	bind(fd, space.vm, &bo, SOMEWHERE);
	for (unsigned round = 0; round < 4; round++) {
		struct drm_xe_vm_bind_op operation = {
			.range = bo.size,
			.addr = SOMEWHERE,
			.op = DRM_XE_VM_BIND_OP_PREFETCH,
			.prefetch_mem_region_instance = memory_region(fd, round % 2 ? local : system).instance,
		};

		must(try_bind_ops(fd, space.vm, &operation, 1));
		expect_eq(load(&space, SOMEWHERE + KIB(4) * 1000), 3001);
		for (unsigned page = 0; page < 1024; page++)
			expect_eq(words[1024 * page], page * 3 + 1);
	}
}

CHECK(wrong_bindings_are_refused)
{
	int fd = xe_open();
	uint32_t vm = vm_create(fd, 0);
	struct bo bo = bo_create(fd, 0, KIB(64), system_memory(fd));
	struct drm_xe_vm_bind_op good = map_op(&bo, 0, SOMEWHERE, bo.size), wrong[20], *w = wrong;
	unsigned count = 0;

#define WRONG(field, value) (w[count] = good, w[count].field = (value), count++)
	WRONG(addr, SOMEWHERE + 1);
	WRONG(addr, SOMEWHERE + 2048);
	WRONG(range, 0);
	WRONG(range, KIB(4) + 1);
	WRONG(range, KIB(128));
	WRONG(range, 1ull << 49);
	WRONG(obj_offset, 1);
	WRONG(obj_offset, KIB(4));
	WRONG(addr, 1ull << 48);
	WRONG(addr, (1ull << 48) - KIB(4));
	WRONG(op, 99);
	WRONG(flags, 1u << 30);
	WRONG(flags, DRM_XE_VM_BIND_FLAG_NULL);
	WRONG(pat_index, 16); /* reserved */
	WRONG(pat_index, 500);
	WRONG(pat_index, PAT_INCOHERENT); /* for a buffer that the CPU caches */
	WRONG(obj, 0);
	WRONG(prefetch_mem_region_instance, 1);
#undef WRONG
	for (unsigned i = 0; i < count; i++) {
		int result = try_bind_ops(fd, vm, &wrong[i], 1);

		if (result != -EINVAL)
			FAIL("wrong binding %u: %s", i, result ? strerror(-result) : "success");
	}
	good.obj = 0x7777;
	expect_error(try_bind_ops(fd, vm, &good, 1), ENOENT);
	good.obj = bo.handle;
	expect_error(try_bind_ops(fd, 0x7777, &good, 1), EINVAL);
	must(try_bind_ops(fd, vm, &good, 1));
}

CHECK(binds_wait_for_and_signal_fences)
{
	int fd = xe_open();
	struct space space = open_default(fd);
	struct bo bo = bo_create(fd, 0, KIB(64), vram(fd));
	uint32_t queue = bind_queue_create(fd, space.vm), bound = syncobj_create(fd), ran = syncobj_create(fd);
	struct spinner spinner = spinner_start(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
	struct drm_xe_sync bind_syncs[] = { wait_for_syncobj(spinner.done), signal_syncobj(bound) };
	struct drm_xe_vm_bind arguments = {
		.vm_id = space.vm,
		.exec_queue_id = queue,
		.num_binds = 1,
		.bind = map_op(&bo, 0, SOMEWHERE, bo.size),
		.num_syncs = COUNT(bind_syncs),
		.syncs = (uintptr_t)bind_syncs,
	};
	struct drm_xe_sync exec_syncs[] = { wait_for_syncobj(bound), signal_syncobj(ran) };

	must(try_vm_bind(fd, &arguments));
	mi_store_dword(&space.batch, SOMEWHERE, 9);
	mi_batch_buffer_end(&space.batch);
	must(try_exec(fd, space.queue, space.code.va, exec_syncs, COUNT(exec_syncs)));
	sleep_ms(20);
	expect(!syncobj_is_signalled(fd, bound));
	expect(!syncobj_is_signalled(fd, ran));
	spinner_end(&spinner);
	syncobj_wait(fd, ran);
	expect(syncobj_is_signalled(fd, bound));
	expect_eq(*(volatile uint32_t *)bo_map(&bo), 9);
}
