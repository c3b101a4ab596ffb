// SPDX-License-Identifier: MIT
/* More buffers than VRAM can hold: they move out and in, and keep their content. */
#include "batch.h"

#include <sys/mman.h>
#include <sys/sysinfo.h>

#define BUFFER_SIZE MIB(32)
#define OVERCOMMIT MIB(128)
#define VA GIB(16)
/* Places in each buffer, evenly spread, that hold who they are, and the number of the buffer in the bytes after. */
#define SAMPLES 16
#define SAMPLE_SIZE KIB(32)

static uint64_t sample_offset(const struct bo *bo, unsigned sample)
{
	return sample * (bo->size / SAMPLES);
}

static void fill(struct space *space, struct bo *bo, unsigned number)
{
	bind(space->fd, space->vm, bo, VA);
	for (unsigned i = 0; i < SAMPLES; i++)
		mem_set(&space->batch, VA + sample_offset(bo, i), SAMPLE_SIZE, number + 1);
	mi_flush_store(&space->batch, data_va(space, 0), 0);
	for (unsigned i = 0; i < SAMPLES; i++)
		mi_store_qword(&space->batch, VA + sample_offset(bo, i), (uint64_t)number << 32 | i);
	space_run(space);
	unbind(space->fd, space->vm, VA, bo->size);
}

static void verify_by_cpu(struct bo *bo, unsigned number)
{
	volatile uint64_t *words = bo_map(bo);

	for (unsigned i = 0; i < SAMPLES; i++) {
		uint64_t at = sample_offset(bo, i) / 8;

		expect_eq(words[at], (uint64_t)number << 32 | i);
		for (unsigned j = 1; j < SAMPLE_SIZE / 8; j += 511)
			expect_eq(words[at + j], 0x0101010101010101 * (number + 1));
		expect_eq(words[at + SAMPLE_SIZE / 8], 0);
	}
	munmap(bo->map, bo->size);
	bo->map = NULL;
}

/* The engine reads it, wherever it is: it is brought back into VRAM for that. */
static void verify_by_gpu(struct space *space, struct bo *bo, unsigned number)
{
	static const uint32_t places[] = { 0, 4, 8, SAMPLE_SIZE - 4, SAMPLE_SIZE };

	bind(space->fd, space->vm, bo, VA);
	for (unsigned i = 0; i < SAMPLES; i++)
		for (unsigned p = 0; p < COUNT(places); p++)
			mi_copy_mem_mem(&space->batch, data_va(space, 8 * i + p), VA + sample_offset(bo, i) + places[p]);
	space_run(space);
	unbind(space->fd, space->vm, VA, bo->size);
	for (unsigned i = 0; i < SAMPLES; i++) {
		expect_eq(*data(space, 8 * i), i);
		expect_eq(*data(space, 8 * i + 1), number);
		expect_eq(*data(space, 8 * i + 2), 0x01010101 * (number + 1));
		expect_eq(*data(space, 8 * i + 3), 0x01010101 * (number + 1));
		expect_eq(*data(space, 8 * i + 4), 0);
	}
}

CHECK(evicted_buffers_keep_their_content, .timeout = 120)
{
	int fd = xe_open();
	uint32_t placement = vram(fd);
	struct drm_xe_mem_region region = memory_region(fd, placement);
	struct space space = space_on(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY), system_memory(fd), 0);
	/* The processor reads them all: what competes is the part of VRAM that it sees. */
	uint64_t total = region.cpu_visible_size - region.cpu_visible_used + OVERCOMMIT;
	unsigned count = total / BUFFER_SIZE;
	struct bo *buffers = calloc(count, sizeof(*buffers));
	struct sysinfo memory;

	sysinfo(&memory);
	if ((uint64_t)memory.freeram * memory.mem_unit < 3 * OVERCOMMIT)
		skip("only %llu MiB of system memory are free", (unsigned long long)memory.freeram * memory.mem_unit >> 20);
	if (count > 250)
		skip("%llu MiB of visible VRAM are too many to fill", region.cpu_visible_size >> 20);
	note("%u buffers of %llu MiB in %llu MiB of visible VRAM", count, (unsigned long long)BUFFER_SIZE >> 20,
	     region.cpu_visible_size >> 20);
	uint64_t started = now();
	for (unsigned i = 0; i < count; i++) {
		buffers[i] = bo_create(fd, 0, BUFFER_SIZE, placement);
		fill(&space, &buffers[i], i);
	}
	note("filled after %llu ms", (unsigned long long)(now() - started) / 1000000);
	/* The oldest are out by now. */
	for (unsigned i = 0; i < 3; i++)
		verify_by_gpu(&space, &buffers[i], i);
	note("some brought back after %llu ms", (unsigned long long)(now() - started) / 1000000);
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
