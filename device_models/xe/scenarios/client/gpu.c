// SPDX-License-Identifier: MIT
/* The importer's side: a render node of xe, one VM with one queue on the copy engine, buffers bound by hand. */
#include "client.h"

#include <drm/xe_drm.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>

#define PATIENCE_NS 15000000000ll
#define CODE_VA 0x100000ull
#define CODE_SIZE 0x10000ull
#define FENCE_OFFSET 0xf000ull
#define MIRRORED_BITS 47

/* MEM_COPY in units of 256 bytes (Intel's public Xe2 command definitions; xe_migrate.c uses the same). */
#define MEM_COPY_PAGES (2u << 29 | 0x5au << 22 | 1u << 19 | 8)
#define MEM_COPY_UNIT 256
#define MEM_COPY_MOST (4ull << 20)
#define MOCS_UNCACHED 3u
#define BATCH_END (0x0au << 23)

struct code {
	uint32_t handle;
	uint8_t *map;
	uint64_t fence_value;
};

static uint64_t canonical(uint64_t va)
{
	return (uint64_t)((int64_t)(va << 16) >> 16);
}

int open_render_node(const char *address)
{
	char path[512];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/drm", address);
	DIR *folder = opendir(path);

	if (!folder)
		return -errno;
	path[0] = 0;
	for (struct dirent *entry; (entry = readdir(folder));)
		if (!strncmp(entry->d_name, "renderD", 7))
			snprintf(path, sizeof(path), "/dev/dri/%s", entry->d_name);
	closedir(folder);
	int fd = path[0] ? open(path, O_RDWR | O_CLOEXEC) : -1;

	return fd < 0 ? -errno : fd;
}

static long wait_fence(int fd, uint64_t *fence, uint64_t value, uint32_t queue)
{
	struct drm_xe_wait_user_fence wait = {
		.addr = (uintptr_t)fence,
		.op = DRM_XE_UFENCE_WAIT_OP_EQ,
		.value = value,
		.mask = ~0ull,
		.timeout = PATIENCE_NS,
		.exec_queue_id = queue,
	};

	return call(fd, DRM_IOCTL_XE_WAIT_USER_FENCE, &wait);
}

static long bind_op(struct object *gpu, struct drm_xe_vm_bind_op operation)
{
	uint64_t fence = 0;
	struct drm_xe_sync done = {
		.type = DRM_XE_SYNC_TYPE_USER_FENCE,
		.flags = DRM_XE_SYNC_FLAG_SIGNAL,
		.addr = (uintptr_t)&fence,
		.timeline_value = 1,
	};
	struct drm_xe_vm_bind arguments = {
		.vm_id = gpu->vm,
		.num_binds = 1,
		.bind = operation,
		.num_syncs = 1,
		.syncs = (uintptr_t)&done,
	};
	long result = call(gpu->fd, DRM_IOCTL_XE_VM_BIND, &arguments);

	return result < 0 ? result : wait_fence(gpu->fd, &fence, 1, 0);
}

static long bind_handle(struct object *gpu, uint32_t handle, uint64_t va, uint64_t offset, uint64_t length, unsigned pat)
{
	return bind_op(gpu, (struct drm_xe_vm_bind_op){
				    .obj = handle,
				    .pat_index = pat,
				    .obj_offset = offset,
				    .range = length,
				    .addr = va,
				    .op = DRM_XE_VM_BIND_OP_MAP,
			    });
}

long gpu_bind(struct object *bo, uint64_t va, uint64_t offset, uint64_t length, unsigned pat)
{
	bo->va = va;
	return bind_handle(bo->gpu, bo->handle, va, offset, length, pat);
}

long gpu_unbind(struct object *gpu, uint64_t va, uint64_t length)
{
	return bind_op(gpu, (struct drm_xe_vm_bind_op){ .range = length, .addr = va, .op = DRM_XE_VM_BIND_OP_UNMAP });
}

/* Memory of the system or of the GPU, mapped by this process. */
static long create(int fd, uint64_t size, bool vram, uint32_t *handle, uint8_t **map)
{
	/* Bits of the placement mask are instances of memory: 0 the system's, 1 the first tile's VRAM (xe_query.c). */
	struct drm_xe_gem_create create = {
		.size = size,
		.placement = vram ? 2 : 1,
		/* Behind the end of a small BAR2 an access of the processor is a SIGBUS. */
		.flags = vram ? DRM_XE_GEM_CREATE_FLAG_NEEDS_VISIBLE_VRAM : 0,
		.cpu_caching = vram ? DRM_XE_GEM_CPU_CACHING_WC : DRM_XE_GEM_CPU_CACHING_WB,
	};
	long result = call(fd, DRM_IOCTL_XE_GEM_CREATE, &create);

	if (result < 0)
		return result;
	struct drm_xe_gem_mmap_offset where = { .handle = create.handle };

	result = call(fd, DRM_IOCTL_XE_GEM_MMAP_OFFSET, &where);
	if (result < 0)
		return result;
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, where.offset);

	if (memory == MAP_FAILED)
		return -errno;
	*handle = create.handle;
	*map = memory;
	return 0;
}

long gpu_open(struct object *gpu, const char *address, const char *mode)
{
	bool mirror = mode && !strcmp(mode, "svm"), long_running = mirror || (mode && !strcmp(mode, "lr"));

	gpu->fd = open_render_node(address);
	if (gpu->fd < 0)
		return gpu->fd;
	gpu->long_running = long_running;
	struct drm_xe_vm_create vm = {
		.flags = (long_running ? DRM_XE_VM_CREATE_FLAG_LR_MODE : 0) | (mirror ? DRM_XE_VM_CREATE_FLAG_FAULT_MODE : 0),
	};
	long result = call(gpu->fd, DRM_IOCTL_XE_VM_CREATE, &vm);

	if (result < 0)
		return result;
	gpu->vm = vm.vm_id;
	if (mirror) {
		result = bind_op(gpu, (struct drm_xe_vm_bind_op){
					      .range = 1ull << MIRRORED_BITS,
					      .op = DRM_XE_VM_BIND_OP_MAP,
					      .flags = DRM_XE_VM_BIND_FLAG_CPU_ADDR_MIRROR,
				      });
		if (result < 0)
			return result;
	}
	gpu->code = calloc(1, sizeof(*gpu->code));
	result = create(gpu->fd, CODE_SIZE, false, &gpu->code->handle, &gpu->code->map);
	if (result < 0)
		return result;
	result = bind_handle(gpu, gpu->code->handle, CODE_VA, 0, CODE_SIZE, 2);
	if (result < 0)
		return result;
	struct drm_xe_engine_class_instance copy = { .engine_class = DRM_XE_ENGINE_CLASS_COPY };
	struct drm_xe_exec_queue_create queue = {
		.width = 1,
		.num_placements = 1,
		.vm_id = gpu->vm,
		.instances = (uintptr_t)&copy,
	};

	result = call(gpu->fd, DRM_IOCTL_XE_EXEC_QUEUE_CREATE, &queue);
	gpu->queue = queue.exec_queue_id;
	say("render=%d", gpu->fd);
	return result;
}

void gpu_unmap_code(struct object *gpu)
{
	if (gpu->code && gpu->code->map)
		munmap(gpu->code->map, CODE_SIZE);
	free(gpu->code);
	gpu->code = NULL;
}

long gpu_buffer(struct object *gpu, struct object *bo, uint64_t va, uint64_t size, bool vram)
{
	long result = create(gpu->fd, size, vram, &bo->handle, &bo->map);

	bo->gpu = gpu;
	bo->size = size;
	return result < 0 ? result : gpu_bind(bo, va, 0, size, 2);
}

long gpu_import(struct object *gpu, int dmabuf, struct object *bo)
{
	struct drm_prime_handle prime = { .fd = dmabuf };
	long result = call(gpu->fd, DRM_IOCTL_PRIME_FD_TO_HANDLE, &prime);

	bo->gpu = gpu;
	bo->handle = prime.handle;
	bo->size = lseek(dmabuf, 0, SEEK_END);
	if (result == 0)
		say("handle=%u size=%#llx", bo->handle, (unsigned long long)bo->size);
	return result;
}

long gpu_export(struct object *bo, struct object *dmabuf)
{
	struct drm_prime_handle prime = { .handle = bo->handle, .flags = DRM_CLOEXEC | DRM_RDWR };
	long result = call(bo->gpu->fd, DRM_IOCTL_PRIME_HANDLE_TO_FD, &prime);

	dmabuf->fd = result < 0 ? -1 : prime.fd;
	dmabuf->size = bo->size;
	return result;
}

long gpu_close_handle(struct object *bo)
{
	struct drm_gem_close arguments = { .handle = bo->handle };

	return call(bo->gpu->fd, DRM_IOCTL_GEM_CLOSE, &arguments);
}

long gpu_unmap(struct object *bo)
{
	munmap(bo->map, bo->size);
	bo->map = NULL;
	return gpu_close_handle(bo);
}

/* Write a batch that copies; false when it does not fit. */
static bool write_copies(struct code *code, uint64_t to, uint64_t from, uint64_t length)
{
	uint32_t *at = (uint32_t *)code->map, *end = (uint32_t *)(code->map + FENCE_OFFSET) - 16;

	while (length) {
		uint64_t part = length < MEM_COPY_MOST ? length : MEM_COPY_MOST;

		if (at + 10 > end)
			return false;
		*at++ = MEM_COPY_PAGES;
		*at++ = part / MEM_COPY_UNIT - 1;
		*at++ = 0;
		*at++ = 0;
		*at++ = 0;
		*at++ = canonical(from);
		*at++ = canonical(from) >> 32;
		*at++ = canonical(to);
		*at++ = canonical(to) >> 32;
		*at++ = MOCS_UNCACHED << 28 | MOCS_UNCACHED << 3;
		to += part;
		from += part;
		length -= part;
	}
	*at++ = BATCH_END;
	*at = 0;
	return true;
}

static long wait_syncobj(int fd, uint32_t handle)
{
	struct drm_syncobj_wait wait = {
		.handles = (uintptr_t)&handle,
		.timeout_nsec = now_ns() + PATIENCE_NS,
		.count_handles = 1,
	};

	return call(fd, DRM_IOCTL_SYNCOBJ_WAIT, &wait);
}

long gpu_check_queue(struct object *gpu, uint32_t queue)
{
	struct drm_xe_exec_queue_get_property ban = {
		.exec_queue_id = queue,
		.property = DRM_XE_EXEC_QUEUE_GET_PROPERTY_BAN,
	};
	long result = call(gpu->fd, DRM_IOCTL_XE_EXEC_QUEUE_GET_PROPERTY, &ban);

	return result < 0 ? result : ban.value ? -EIO : 0;
}

long gpu_copy(struct object *gpu, uint64_t to, uint64_t from, uint64_t length, uint64_t *nanoseconds)
{
	struct code *code = gpu->code;
	uint64_t *fence = (uint64_t *)(code->map + FENCE_OFFSET);
	struct drm_syncobj_create syncobj = {};
	struct drm_xe_sync done = { .flags = DRM_XE_SYNC_FLAG_SIGNAL };
	struct drm_xe_exec exec = {
		.exec_queue_id = gpu->queue,
		.num_syncs = 1,
		.syncs = (uintptr_t)&done,
		.address = CODE_VA,
		.num_batch_buffer = 1,
	};
	long result;

	if (length % MEM_COPY_UNIT || !write_copies(code, to, from, length))
		return -EINVAL;
	if (gpu->long_running) {
		done.type = DRM_XE_SYNC_TYPE_USER_FENCE;
		done.addr = CODE_VA + FENCE_OFFSET;
		done.timeline_value = ++code->fence_value;
	} else {
		result = call(gpu->fd, DRM_IOCTL_SYNCOBJ_CREATE, &syncobj);
		if (result < 0)
			return result;
		done.type = DRM_XE_SYNC_TYPE_SYNCOBJ;
		done.handle = syncobj.handle;
	}
	uint64_t started = now_ns();

	result = call(gpu->fd, DRM_IOCTL_XE_EXEC, &exec);
	if (result == 0)
		result = gpu->long_running ? wait_fence(gpu->fd, fence, code->fence_value, gpu->queue) :
					     wait_syncobj(gpu->fd, syncobj.handle);
	*nanoseconds = now_ns() - started;
	if (syncobj.handle) {
		struct drm_syncobj_destroy destroy = { .handle = syncobj.handle };

		call(gpu->fd, DRM_IOCTL_SYNCOBJ_DESTROY, &destroy);
	}
	return result < 0 ? result : gpu_check_queue(gpu, gpu->queue);
}
