// SPDX-License-Identifier: MIT
/* Memory of this process that GPUs reach at the processor's addresses: xe's CPU address mirroring, in VMs in fault mode. */
#include "client.h"

#include <drm/xe_drm.h>
#include <sys/mman.h>

#define ALIGNMENT (2ull << 20)

long svm_memory(struct object *bo, uint64_t size)
{
	uint8_t *map = mmap(NULL, size + ALIGNMENT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		return -errno;
	bo->map = (uint8_t *)(((uintptr_t)map + ALIGNMENT - 1) & ~(ALIGNMENT - 1));
	bo->size = size;
	bo->va = (uintptr_t)bo->map;
	say("va=%#llx", (unsigned long long)bo->va);
	return 0;
}

/* Where pages of the range should be when `gpu` faults: in its own VRAM, in another GPU's, or in the system's memory. */
long svm_prefer(struct object *gpu, uint64_t va, uint64_t size, const char *where, struct object *other)
{
	struct drm_xe_madvise advice = {
		.start = va,
		.range = size,
		.vm_id = gpu->vm,
		.type = DRM_XE_MEM_RANGE_ATTR_PREFERRED_LOC,
	};

	if (!strcmp(where, "vram"))
		advice.preferred_mem_loc.devmem_fd = DRM_XE_PREFERRED_LOC_DEFAULT_DEVICE;
	else if (!strcmp(where, "system"))
		advice.preferred_mem_loc.devmem_fd = DRM_XE_PREFERRED_LOC_DEFAULT_SYSTEM;
	else if (other) {
		advice.preferred_mem_loc.devmem_fd = other->fd;
		/* The first tile's VRAM, as gem_create's placements count (xe_query.c). */
		advice.preferred_mem_loc.region_instance = 1;
	} else
		return -EINVAL;
	return call(gpu->fd, DRM_IOCTL_XE_MADVISE, &advice);
}
