// SPDX-License-Identifier: MIT
/* More buffers than VRAM can hold: they move out and in, and keep their content. */
#include "batch.h"

#include <sys/sysinfo.h>

#define BUFFER_SIZE MIB(64)
#define OVERCOMMIT MIB(256)
#define VA GIB(16)
#define SAMPLES 16

/* Fill a buffer with a byte, and mark some of its places with what they are. */
static void fill(struct space *space, struct bo *bo, unsigned number)
{
	bind(space->fd, space->vm, bo, VA);
	for (uint64_t at = 0; at < bo->size; at += MIB(8))
		mem_set_matrix(&space->batch, VA + at, KIB(4), KIB(4), MIB(8) / KIB(4), number + 1);
	space_run(space);
	for (unsigned i = 0; i < SAMPLES; i++)
		mi_store_qword(&space->batch, VA + i * (bo->size / SAMPLES), (uint64_t)number << 32 | i);
	space_run(space);
	unbind(space->fd, space->vm, VA, bo->size);
}

static void verify_by_cpu(struct bo *bo, unsigned number)
{
	volatile uint64_t *words = bo_map(bo);

	for (unsigned i = 0; i < SAMPLES; i++) {
		uint64_t at = i * (bo->size / SAMPLES) / 8;

		expect_eq(words[at], (uint64_t)number << 32 | i);
		for (unsigned j = 1; j < 512; j += 101)
			expect_eq(words[at + j], 0x0101010101010101 * (number + 1));
		expect_eq(words[at + bo->size / SAMPLES / 8 - 1], 0x0101010101010101 * (number + 1));
	}
}

/* The engine reads it, wherever it is: it is brought back into VRAM for that. */
static void verify_by_gpu(struct space *space, struct bo *bo, unsigned number)
{
	bind(space->fd, space->vm, bo, VA);
	for (unsigned i = 0; i < SAMPLES; i++) {
		uint64_t at = VA + i * (bo->size / SAMPLES);

		mi_copy_mem_mem(&space->batch, data_va(space, 4 * i), at);
		mi_copy_mem_mem(&space->batch, data_va(space, 4 * i + 1), at + 4);
		mi_copy_mem_mem(&space->batch, data_va(space, 4 * i + 2), at + 8);
		mi_copy_mem_mem(&space->batch, data_va(space, 4 * i + 3), at + bo->size / SAMPLES - 4);
	}
	space_run(space);
	unbind(space->fd, space->vm, VA, bo->size);
	for (unsigned i = 0; i < SAMPLES; i++) {
		expect_eq(*data(space, 4 * i), i);
		expect_eq(*data(space, 4 * i + 1), number);
		expect_eq(*data(space, 4 * i + 2), 0x01010101 * (number + 1));
		expect_eq(*data(space, 4 * i + 3), 0x01010101 * (number + 1));
	}
}

CHECK(evicted_buffers_keep_their_content, .timeout = 120)
{
	int fd = xe_open();
	uint32_t placement = vram(fd);
	struct drm_xe_mem_region region = memory_region(fd, placement);
	struct space space = space_on(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY), system_memory(fd), 0);
	uint64_t total = region.total_size - region.used + OVERCOMMIT;
	unsigned count = total / BUFFER_SIZE;
	struct bo *buffers = calloc(count, sizeof(*buffers));
	struct sysinfo memory;

	sysinfo(&memory);
	if ((uint64_t)memory.freeram * memory.mem_unit < 2 * OVERCOMMIT)
		skip("only %llu MiB of system memory are free", (unsigned long long)memory.freeram * memory.mem_unit >> 20);
	if (count > 200)
		skip("%llu MiB of VRAM are too many to fill", region.total_size >> 20);
	note("%u buffers of %llu MiB in %llu MiB of VRAM", count, (unsigned long long)BUFFER_SIZE >> 20,
	     region.total_size >> 20);
	for (unsigned i = 0; i < count; i++) {
		buffers[i] = bo_create(fd, 0, BUFFER_SIZE, placement);
		fill(&space, &buffers[i], i);
	}
	/* The oldest are out by now. */
	for (unsigned i = 0; i < 6; i++)
		verify_by_gpu(&space, &buffers[i], i);
	for (unsigned i = 0; i < count; i++)
		verify_by_cpu(&buffers[i], i);
	verify_by_gpu(&space, &buffers[count - 1], count - 1);
}

CHECK(an_exec_that_needs_more_than_vram_is_refused, .timeout = 120)
{
	int fd = xe_open();
	uint32_t placement = vram(fd);
	struct drm_xe_mem_region region = memory_region(fd, placement);
	struct space space = space_on(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY), system_memory(fd), 0);
	unsigned count = region.total_size / MIB(256) + 1;

	if (count > 64)
		skip("%llu MiB of VRAM are too many", region.total_size >> 20);
	mi_batch_buffer_end(&space.batch);
	for (unsigned i = 0; i < count; i++) {
		struct drm_xe_gem_create arguments = {
			.size = MIB(256),
			.placement = placement,
			.flags = DRM_XE_GEM_CREATE_FLAG_DEFER_BACKING,
			.cpu_caching = DRM_XE_GEM_CPU_CACHING_WC,
		};
		struct bo bo = { .fd = fd, .size = arguments.size };

		must(try_gem_create(fd, &arguments));
		bo.handle = arguments.handle;
		struct drm_xe_vm_bind_op operation = map_op(&bo, 0, VA + GIB(1) * i, bo.size);
		int result = try_bind_ops(fd, space.vm, &operation, 1);
		if (result == -ENOMEM || result == -ENOSPC)
			return; /* refused when it was bound */
		must(result);
	}
	int result = try_exec(fd, space.queue, CODE_VA, NULL, 0);
	if (result != -ENOMEM && result != -ENOSPC)
		FAIL("the exec: %s", result ? strerror(-result) : "success");
}
