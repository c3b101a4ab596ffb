// SPDX-License-Identifier: MIT
/*
 * Kernels on the execution units: a batch with the state that a walker needs, and the walker (Mesa's gen200.xml).
 * The kernels are files; kernels.py of the scenarios says what they expect.
 */
#include "client.h"

#include <drm/xe_drm.h>
#include <fcntl.h>

#define KERNELS "/usr/share/xe-dmabuf/%s.bin"
#define KERNEL_VA 0x60000000ull
#define AREA_SIZE 0x10000ull
#define KERNEL_OFFSET 0x8000u
#define ITEMS 256
#define SIMD16_ITEMS 16
#define PLACEMENTS 4

/* STATE_BASE_ADDRESS of 22 dwords, CFE_STATE of 6, COMPUTE_WALKER of 40, MI_BATCH_BUFFER_END. */
#define STATE_BASE_ADDRESS 0x61010014u
#define CFE_STATE 0x72000004u
#define COMPUTE_WALKER 0x72080026u
#define BATCH_END (0x0au << 23)
#define MODIFY 1u
#define WHOLE_SPACE 0xfffff001u

struct compute {
	struct object area;
	uint32_t queue;
};

static uint32_t *put_address(uint32_t *at, uint64_t va)
{
	*at++ = (uint32_t)va | MODIFY;
	*at++ = va >> 32;
	return at;
}

static uint32_t *put_state(uint32_t *at)
{
	*at++ = STATE_BASE_ADDRESS;
	at = put_address(at, 0); /* general state */
	*at++ = 0;
	for (unsigned i = 0; i < 4; i++) /* surfaces, dynamic and indirect state, instructions */
		at = put_address(at, KERNEL_VA);
	for (unsigned i = 0; i < 4; i++)
		*at++ = WHOLE_SPACE;
	at = put_address(at, KERNEL_VA); /* bindless surfaces and samplers, with their sizes */
	*at++ = WHOLE_SPACE;
	at = put_address(at, KERNEL_VA);
	*at++ = WHOLE_SPACE;
	*at++ = CFE_STATE;
	*at++ = 0;
	*at++ = 0;
	*at++ = 64u << 16; /* threads at most */
	*at++ = 0;
	*at++ = 0;
	return at;
}

static uint32_t *put_walker(uint32_t *at, uint32_t groups, uint64_t to, uint64_t from, uint32_t word)
{
	const uint32_t walker[] = {
		COMPUTE_WALKER,
		0,
		0,
		0,
		1u << 30 | 1u << 29 | 1u << 26 | 1u << 25, /* SIMD16, local ids of X, inline data */
		0xffff,					   /* lanes of the last thread */
		ITEMS - 1,				   /* work items of a group: Z, Y, X */
		groups, 1, 1,				   /* groups */
		0, 0, 0,				   /* the first one */
		0, 0, 0, 0, 0, 0,
		KERNEL_OFFSET, 0, 1u << 19, 0, 0, ITEMS / SIMD16_ITEMS, 0, 0, /* interface descriptor, with denormals */
		0, 0, 0, 0, 0,						      /* no post-sync */
		to, to >> 32, from, from >> 32, word, 0, 0, 0,
	};

	memcpy(at, walker, sizeof(walker));
	return at + sizeof(walker) / sizeof(*walker);
}

static long load(struct object *area, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), KERNELS, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	/* Threads fetch instructions ahead of what they execute: what is behind the end is there, and zero. */
	memset(area->map + KERNEL_OFFSET, 0, AREA_SIZE - KERNEL_OFFSET);
	long length = read(fd, area->map + KERNEL_OFFSET, AREA_SIZE - KERNEL_OFFSET - PAGE);
	long result = length < 0 ? -errno : length == 0 ? -ENODATA : 0;

	close(fd);
	return result;
}

/* The compute engines, or a render engine where there is none; how many, or a negative errno. */
static long choose_engines(int fd, struct drm_xe_engine_class_instance *chosen)
{
	static const uint16_t classes[] = { DRM_XE_ENGINE_CLASS_COMPUTE, DRM_XE_ENGINE_CLASS_RENDER };
	struct drm_xe_query_engines *engines = NULL;
	long result = gpu_query_engines(fd, &engines), count = 0;

	for (unsigned c = 0; result == 0 && !count && c < 2; c++)
		for (unsigned i = 0; i < engines->num_engines && count < PLACEMENTS; i++)
			if (engines->engines[i].instance.engine_class == classes[c])
				chosen[count++] = engines->engines[i].instance;
	free(engines);
	return result < 0 ? result : count ? count : -ENODEV;
}

static long prepare(struct object *gpu)
{
	struct drm_xe_engine_class_instance engines[PLACEMENTS];
	struct compute *compute = calloc(1, sizeof(*compute));
	long count = choose_engines(gpu->fd, engines), result = count < 0 ? count : 0;
	/* Several placements: a kernel runs on whichever engine is free. */
	struct drm_xe_exec_queue_create queue = {
		.width = 1,
		.num_placements = count,
		.vm_id = gpu->vm,
		.instances = (uintptr_t)engines,
	};

	if (result == 0)
		result = gpu_buffer(gpu, &compute->area, KERNEL_VA, AREA_SIZE, false);
	if (result == 0)
		result = call(gpu->fd, DRM_IOCTL_XE_EXEC_QUEUE_CREATE, &queue);
	if (result < 0) {
		free(compute);
		return result;
	}
	compute->queue = queue.exec_queue_id;
	gpu->compute = compute;
	return 0;
}

long gpu_kernel(struct object *gpu, const char *name, uint64_t groups, uint64_t to, uint64_t from, uint32_t word)
{
	long result = gpu->long_running || !groups || groups > UINT32_MAX ? -EINVAL : 0;

	if (result == 0 && !gpu->compute)
		result = prepare(gpu);
	if (result == 0)
		result = load(&gpu->compute->area, name);
	if (result < 0)
		return result;
	uint32_t *end = put_walker(put_state((uint32_t *)gpu->compute->area.map), groups, to, from, word);

	end[0] = BATCH_END;
	end[1] = 0;
	result = gpu_run(gpu, gpu->compute->queue, KERNEL_VA);
	return result < 0 ? result : gpu_check_queue(gpu, gpu->compute->queue);
}
