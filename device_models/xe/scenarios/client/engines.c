// SPDX-License-Identifier: MIT
/* Jobs on every engine of a GPU: each writes dwords by its own batch, and they are compared. */
#include "client.h"

#include <drm/xe_drm.h>

#define AREA_VA 0x40000000ull
#define AREA_SIZE 0x10000ull
#define RESULT_OFFSET 0x8000ull
#define RESULTS 8
#define PATIENCE_NS 20000000000ll

/* MI_STORE_DATA_IMM of one dword, MI_BATCH_BUFFER_END (Intel's public Xe2 command definitions). */
#define STORE_DWORD (0x20u << 23 | 2)
#define BATCH_END (0x0au << 23)

long gpu_query_engines(int fd, struct drm_xe_query_engines **answer)
{
	struct drm_xe_device_query query = { .query = DRM_XE_DEVICE_QUERY_ENGINES };
	long result = call(fd, DRM_IOCTL_XE_DEVICE_QUERY, &query);

	if (result < 0)
		return result;
	*answer = calloc(1, query.size);
	query.data = (uintptr_t)*answer;
	return call(fd, DRM_IOCTL_XE_DEVICE_QUERY, &query);
}

static void write_batch(struct object *area, uint32_t seed)
{
	uint32_t *at = (uint32_t *)area->map, *results = (uint32_t *)(area->map + RESULT_OFFSET);

	for (unsigned i = 0; i < RESULTS; i++) {
		uint64_t to = AREA_VA + RESULT_OFFSET + 4 * i;

		results[i] = 0;
		*at++ = STORE_DWORD;
		*at++ = to;
		*at++ = to >> 32;
		*at++ = pattern(4 * i, seed);
	}
	*at++ = BATCH_END;
	*at = 0;
}

long gpu_run(struct object *gpu, uint32_t queue, uint64_t va)
{
	struct drm_syncobj_create syncobj = {};
	long result = call(gpu->fd, DRM_IOCTL_SYNCOBJ_CREATE, &syncobj);

	if (result < 0)
		return result;
	struct drm_xe_sync done = {
		.type = DRM_XE_SYNC_TYPE_SYNCOBJ,
		.flags = DRM_XE_SYNC_FLAG_SIGNAL,
		.handle = syncobj.handle,
	};
	struct drm_xe_exec exec = {
		.exec_queue_id = queue,
		.num_syncs = 1,
		.syncs = (uintptr_t)&done,
		.address = va,
		.num_batch_buffer = 1,
	};
	struct drm_syncobj_wait wait = {
		.handles = (uintptr_t)&syncobj.handle,
		.timeout_nsec = now_ns() + PATIENCE_NS,
		.count_handles = 1,
	};
	struct drm_syncobj_destroy destroy = { .handle = syncobj.handle };

	result = call(gpu->fd, DRM_IOCTL_XE_EXEC, &exec);
	if (result == 0)
		result = call(gpu->fd, DRM_IOCTL_SYNCOBJ_WAIT, &wait);
	call(gpu->fd, DRM_IOCTL_SYNCOBJ_DESTROY, &destroy);
	return result;
}

static long run_on(struct object *gpu, struct drm_xe_engine_class_instance *engine, struct object *area,
		   uint32_t seed, uint64_t rounds)
{
	struct drm_xe_exec_queue_create queue = {
		.width = 1,
		.num_placements = 1,
		.vm_id = gpu->vm,
		.instances = (uintptr_t)engine,
	};
	long result = call(gpu->fd, DRM_IOCTL_XE_EXEC_QUEUE_CREATE, &queue);

	if (result < 0)
		return result;
	struct drm_xe_exec_queue_destroy destroy = { .exec_queue_id = queue.exec_queue_id };

	for (uint64_t i = 0; i < rounds && result == 0; i++) {
		write_batch(area, seed + i);
		result = gpu_run(gpu, queue.exec_queue_id, AREA_VA);
		for (unsigned j = 0; j < RESULTS && result == 0; j++)
			if (((uint32_t *)(area->map + RESULT_OFFSET))[j] != pattern(4 * j, seed + i))
				result = -EILSEQ;
	}
	call(gpu->fd, DRM_IOCTL_XE_EXEC_QUEUE_DESTROY, &destroy);
	return result;
}

long gpu_engines(struct object *gpu, uint64_t rounds, unsigned *jobs, uint64_t *gts)
{
	struct object area = {};
	struct drm_xe_query_engines *engines = NULL;
	long result = gpu_query_engines(gpu->fd, &engines);

	if (result == 0)
		result = gpu_buffer(gpu, &area, AREA_VA, AREA_SIZE, false);
	for (unsigned i = 0; result == 0 && i < engines->num_engines; i++) {
		struct drm_xe_engine_class_instance *engine = &engines->engines[i].instance;

		result = run_on(gpu, engine, &area, 16 * i + 1, rounds);
		if (result < 0)
			say("class=%u instance=%u gt=%u", engine->engine_class, engine->engine_instance, engine->gt_id);
		else
			*jobs += rounds;
		*gts |= 1ull << engine->gt_id;
	}
	if (area.map) {
		gpu_unbind(gpu, AREA_VA, AREA_SIZE);
		gpu_unmap(&area);
	}
	free(engines);
	return result;
}
