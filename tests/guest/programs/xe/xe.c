// SPDX-License-Identifier: MIT
/* Buffers, virtual memories, queues, jobs and fences; see xe.h. */
#define _GNU_SOURCE
#include "xe.h"

#include <fcntl.h>
#include <linux/sync_file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

int try_ioctl(int fd, unsigned long request, void *argument)
{
	int result;

	do
		result = ioctl(fd, request, argument);
	while (result < 0 && (errno == EINTR || errno == EAGAIN));
	return result < 0 ? -errno : 0;
}

/* Buffers ------------------------------------------------------------------------------------------------------ */

int try_gem_create(int fd, struct drm_xe_gem_create *arguments)
{
	return try_ioctl(fd, DRM_IOCTL_XE_GEM_CREATE, arguments);
}

struct bo bo_create(int fd, uint32_t vm, uint64_t size, uint32_t placement)
{
	bool in_vram = placement & ~system_memory(fd);
	struct drm_xe_gem_create arguments = {
		.size = size,
		.placement = placement,
		.flags = in_vram ? DRM_XE_GEM_CREATE_FLAG_NEEDS_VISIBLE_VRAM : 0,
		.vm_id = vm,
		.cpu_caching = in_vram ? DRM_XE_GEM_CPU_CACHING_WC : DRM_XE_GEM_CPU_CACHING_WB,
	};

	must(try_gem_create(fd, &arguments));
	return (struct bo){ .fd = fd, .handle = arguments.handle, .size = size };
}

int try_gem_close(int fd, uint32_t handle)
{
	struct drm_gem_close arguments = { .handle = handle };

	return try_ioctl(fd, DRM_IOCTL_GEM_CLOSE, &arguments);
}

void bo_close(struct bo *bo)
{
	if (bo->map)
		munmap(bo->map, bo->size);
	must(try_gem_close(bo->fd, bo->handle));
	bo->map = NULL;
	bo->handle = 0;
}

uint64_t mmap_offset(int fd, uint32_t handle)
{
	struct drm_xe_gem_mmap_offset arguments = { .handle = handle };

	must(try_ioctl(fd, DRM_IOCTL_XE_GEM_MMAP_OFFSET, &arguments));
	return arguments.offset;
}

void *bo_map(struct bo *bo)
{
	if (!bo->map) {
		void *map = mmap(NULL, bo->size, PROT_READ | PROT_WRITE, MAP_SHARED, bo->fd,
				 mmap_offset(bo->fd, bo->handle));

		if (map == MAP_FAILED)
			FAIL("mmap of a buffer of %llu bytes: %s", (unsigned long long)bo->size, strerror(errno));
		bo->map = map;
	}
	return bo->map;
}

/* Virtual memories --------------------------------------------------------------------------------------------- */

int try_vm_create(int fd, uint32_t flags, uint32_t *vm)
{
	struct drm_xe_vm_create arguments = { .flags = flags };
	int result = try_ioctl(fd, DRM_IOCTL_XE_VM_CREATE, &arguments);

	*vm = arguments.vm_id;
	return result;
}

uint32_t vm_create(int fd, uint32_t flags)
{
	uint32_t vm;

	must(try_vm_create(fd, flags, &vm));
	return vm;
}

int try_vm_destroy(int fd, uint32_t vm)
{
	struct drm_xe_vm_destroy arguments = { .vm_id = vm };

	return try_ioctl(fd, DRM_IOCTL_XE_VM_DESTROY, &arguments);
}

int try_vm_bind(int fd, struct drm_xe_vm_bind *arguments)
{
	return try_ioctl(fd, DRM_IOCTL_XE_VM_BIND, arguments);
}

/* A user fence and not a syncobj, because VMs in long-running mode refuse to signal those. */
int try_bind_ops(int fd, uint32_t vm, struct drm_xe_vm_bind_op *operations, unsigned count)
{
	uint64_t fence = 0;
	struct drm_xe_sync done = signal_user_fence((uintptr_t)&fence, 1);
	struct drm_xe_vm_bind arguments = {
		.vm_id = vm,
		.num_binds = count,
		.num_syncs = 1,
		.syncs = (uintptr_t)&done,
	};

	if (count == 1)
		arguments.bind = *operations;
	else
		arguments.vector_of_binds = (uintptr_t)operations;
	int result = try_vm_bind(fd, &arguments);
	if (result == 0)
		user_fence_wait(fd, &fence, 1, 0);
	return result;
}

struct drm_xe_vm_bind_op map_op(const struct bo *bo, uint64_t offset, uint64_t va, uint64_t size)
{
	return (struct drm_xe_vm_bind_op){
		.obj = bo->handle,
		.pat_index = PAT_COHERENT,
		.obj_offset = offset,
		.range = size,
		.addr = va,
		.op = DRM_XE_VM_BIND_OP_MAP,
	};
}

struct drm_xe_vm_bind_op unmap_op(uint64_t va, uint64_t size)
{
	return (struct drm_xe_vm_bind_op){ .range = size, .addr = va, .op = DRM_XE_VM_BIND_OP_UNMAP };
}

void bind_part(int fd, uint32_t vm, struct bo *bo, uint64_t offset, uint64_t va, uint64_t size)
{
	struct drm_xe_vm_bind_op operation = map_op(bo, offset, va, size);

	must(try_bind_ops(fd, vm, &operation, 1));
	bo->va = va;
}

void bind(int fd, uint32_t vm, struct bo *bo, uint64_t va)
{
	bind_part(fd, vm, bo, 0, va, bo->size);
}

void bind_userptr(int fd, uint32_t vm, void *memory, uint64_t va, uint64_t size)
{
	struct drm_xe_vm_bind_op operation = {
		.pat_index = PAT_COHERENT,
		.userptr = (uintptr_t)memory,
		.range = size,
		.addr = va,
		.op = DRM_XE_VM_BIND_OP_MAP_USERPTR,
	};

	must(try_bind_ops(fd, vm, &operation, 1));
}

void unbind(int fd, uint32_t vm, uint64_t va, uint64_t size)
{
	struct drm_xe_vm_bind_op operation = unmap_op(va, size);

	must(try_bind_ops(fd, vm, &operation, 1));
}

/* Queues and jobs ---------------------------------------------------------------------------------------------- */

int try_queue_create(int fd, struct drm_xe_exec_queue_create *arguments)
{
	return try_ioctl(fd, DRM_IOCTL_XE_EXEC_QUEUE_CREATE, arguments);
}

uint32_t queue_create(int fd, uint32_t vm, engine e)
{
	struct drm_xe_exec_queue_create arguments = {
		.width = 1,
		.num_placements = 1,
		.vm_id = vm,
		.instances = (uintptr_t)&e,
	};

	must(try_queue_create(fd, &arguments));
	return arguments.exec_queue_id;
}

uint32_t bind_queue_create(int fd, uint32_t vm)
{
	return queue_create(fd, vm, (engine){ .engine_class = DRM_XE_ENGINE_CLASS_VM_BIND });
}

int try_queue_destroy(int fd, uint32_t queue)
{
	struct drm_xe_exec_queue_destroy arguments = { .exec_queue_id = queue };

	return try_ioctl(fd, DRM_IOCTL_XE_EXEC_QUEUE_DESTROY, &arguments);
}

bool is_banned(int fd, uint32_t queue)
{
	struct drm_xe_exec_queue_get_property arguments = {
		.exec_queue_id = queue,
		.property = DRM_XE_EXEC_QUEUE_GET_PROPERTY_BAN,
	};

	must(try_ioctl(fd, DRM_IOCTL_XE_EXEC_QUEUE_GET_PROPERTY, &arguments));
	return arguments.value;
}

int try_exec(int fd, uint32_t queue, uint64_t address, struct drm_xe_sync *syncs, unsigned count)
{
	struct drm_xe_exec arguments = {
		.exec_queue_id = queue,
		.num_syncs = count,
		.syncs = (uintptr_t)syncs,
		.address = canonical(address),
		.num_batch_buffer = 1,
	};

	return try_ioctl(fd, DRM_IOCTL_XE_EXEC, &arguments);
}

uint32_t exec(int fd, uint32_t queue, uint64_t address)
{
	uint32_t done = syncobj_create(fd);
	struct drm_xe_sync sync = signal_syncobj(done);

	must(try_exec(fd, queue, address, &sync, 1));
	return done;
}

void exec_and_wait(int fd, uint32_t queue, uint64_t address)
{
	uint32_t done = exec(fd, queue, address);

	syncobj_wait(fd, done);
	syncobj_destroy(fd, done);
}

/* Synchronisation ---------------------------------------------------------------------------------------------- */

uint32_t syncobj_create(int fd)
{
	struct drm_syncobj_create arguments = {};

	must(try_ioctl(fd, DRM_IOCTL_SYNCOBJ_CREATE, &arguments));
	return arguments.handle;
}

void syncobj_destroy(int fd, uint32_t syncobj)
{
	struct drm_syncobj_destroy arguments = { .handle = syncobj };

	must(try_ioctl(fd, DRM_IOCTL_SYNCOBJ_DESTROY, &arguments));
}

int try_syncobj_wait(int fd, uint32_t syncobj, unsigned milliseconds)
{
	struct drm_syncobj_wait arguments = {
		.handles = (uintptr_t)&syncobj,
		.timeout_nsec = now() + milliseconds * 1000000ll,
		.count_handles = 1,
	};

	return try_ioctl(fd, DRM_IOCTL_SYNCOBJ_WAIT, &arguments);
}

int try_timeline_wait(int fd, uint32_t syncobj, uint64_t point, unsigned milliseconds)
{
	struct drm_syncobj_timeline_wait arguments = {
		.handles = (uintptr_t)&syncobj,
		.points = (uintptr_t)&point,
		.timeout_nsec = now() + milliseconds * 1000000ll,
		.count_handles = 1,
	};

	return try_ioctl(fd, DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT, &arguments);
}

void syncobj_wait(int fd, uint32_t syncobj)
{
	int result = try_syncobj_wait(fd, syncobj, PATIENCE);

	if (result)
		FAIL("waiting %d ms for a job: %s", PATIENCE, strerror(-result));
}

bool syncobj_is_signalled(int fd, uint32_t syncobj)
{
	int result = try_syncobj_wait(fd, syncobj, 0);

	if (result && result != -ETIME)
		FAIL("syncobj wait: %s", strerror(-result));
	return result == 0;
}

int syncobj_to_sync_file(int fd, uint32_t syncobj)
{
	struct drm_syncobj_handle arguments = {
		.handle = syncobj,
		.flags = DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE,
	};

	must(try_ioctl(fd, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &arguments));
	return arguments.fd;
}

int sync_file_status(int sync_file)
{
	struct sync_file_info arguments = {};

	must(try_ioctl(sync_file, SYNC_IOC_FILE_INFO, &arguments));
	return arguments.status;
}

struct drm_xe_sync wait_for_syncobj(uint32_t syncobj)
{
	return (struct drm_xe_sync){ .type = DRM_XE_SYNC_TYPE_SYNCOBJ, .handle = syncobj };
}

struct drm_xe_sync signal_syncobj(uint32_t syncobj)
{
	return (struct drm_xe_sync){
		.type = DRM_XE_SYNC_TYPE_SYNCOBJ,
		.flags = DRM_XE_SYNC_FLAG_SIGNAL,
		.handle = syncobj,
	};
}

struct drm_xe_sync wait_for_point(uint32_t syncobj, uint64_t point)
{
	return (struct drm_xe_sync){
		.type = DRM_XE_SYNC_TYPE_TIMELINE_SYNCOBJ,
		.handle = syncobj,
		.timeline_value = point,
	};
}

struct drm_xe_sync signal_point(uint32_t syncobj, uint64_t point)
{
	struct drm_xe_sync sync = wait_for_point(syncobj, point);

	sync.flags = DRM_XE_SYNC_FLAG_SIGNAL;
	return sync;
}

struct drm_xe_sync signal_user_fence(uint64_t address, uint64_t value)
{
	return (struct drm_xe_sync){
		.type = DRM_XE_SYNC_TYPE_USER_FENCE,
		.flags = DRM_XE_SYNC_FLAG_SIGNAL,
		.addr = address,
		.timeline_value = value,
	};
}

int try_wait_user_fence(int fd, struct drm_xe_wait_user_fence *arguments)
{
	return try_ioctl(fd, DRM_IOCTL_XE_WAIT_USER_FENCE, arguments);
}

void user_fence_wait(int fd, uint64_t *address, uint64_t value, uint32_t queue)
{
	struct drm_xe_wait_user_fence arguments = {
		.addr = (uintptr_t)address,
		.op = DRM_XE_UFENCE_WAIT_OP_EQ,
		.value = value,
		.mask = ~0ull,
		.timeout = PATIENCE * 1000000ll,
		.exec_queue_id = queue,
	};
	int result = try_wait_user_fence(fd, &arguments);

	if (result)
		FAIL("waiting for a user fence of %#llx: %s; it is %#llx", (unsigned long long)value, strerror(-result),
		     (unsigned long long)*(volatile uint64_t *)address);
}

int try_prime_export(int fd, uint32_t handle, int *dmabuf)
{
	struct drm_prime_handle arguments = { .handle = handle, .flags = DRM_CLOEXEC | DRM_RDWR };
	int result = try_ioctl(fd, DRM_IOCTL_PRIME_HANDLE_TO_FD, &arguments);

	*dmabuf = arguments.fd;
	return result;
}

int try_prime_import(int fd, int dmabuf, uint32_t *handle)
{
	struct drm_prime_handle arguments = { .fd = dmabuf };
	int result = try_ioctl(fd, DRM_IOCTL_PRIME_FD_TO_HANDLE, &arguments);

	*handle = arguments.handle;
	return result;
}
