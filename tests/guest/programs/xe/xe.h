/* SPDX-License-Identifier: MIT */
/*
 * The xe uAPI without a library: what <drm/xe_drm.h> and <drm/drm.h> offer, one function per thing.
 *
 * Functions called try_... return 0 or a negative errno value; the others fail the check.  Everything belongs to the
 * process of the check, so most checks release nothing.
 */
#ifndef XE_H
#define XE_H

#include <drm/xe_drm.h>

#include "check.h"

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

/*
 * Indices of Xe2's PAT table (xe_pat.c, xe2_pat_table): cached and coherent with the CPU, which serves every buffer,
 * and uncached without coherency.
 */
#define PAT_COHERENT 2
#define PAT_INCOHERENT 3

/* How long a job may take that nothing holds up, in ms; generous, because an emulated device is slow. */
#define PATIENCE 15000

typedef struct drm_xe_engine_class_instance engine;

/* Device ------------------------------------------------------------------------------------------------------- */

int try_ioctl(int fd, unsigned long request, void *argument);
/* Open the device under test. */
int xe_open(void);
bool is_vf(void);
/* Query something; memory that is never freed.  With `size`, stores how many bytes there are. */
void *query(int fd, uint32_t what, uint32_t *size);
int try_query(int fd, struct drm_xe_device_query *arguments);

/* Engines that users can submit to, in the driver's order; at least one. */
unsigned engines(int fd, const engine **list);
/* The first engine of a class; skips the check when the device has none. */
engine engine_of(int fd, uint16_t engine_class);
const char *engine_name(engine e);

#define for_each_engine(fd, e)                                                                                         \
	for (const engine *list_, *e = (engines(fd, &list_), list_), *end_ = e + engines(fd, &list_); e < end_; e++)

/* Placement masks for buffers; `vram` skips the check when the device has none. */
uint32_t system_memory(int fd);
uint32_t vram(int fd);
struct drm_xe_mem_region memory_region(int fd, uint32_t placement);
/*
 * Bytes in use, once they have been the same for 100 ms: the driver's workers free what the check before had. They may free a little
 * of it later still: up to LATE less than expected is no failure.
 */
uint64_t steady_use(int fd, uint32_t placement);
#define LATE MIB(1)

/* Paths in sysfs and debugfs of the device under test; `gt` -1 for the device itself. */
const char *sysfs_path(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *debugfs_path(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A file's text without its last newline, in memory that is never freed; NULL when it cannot be read. */
char *read_file(const char *path);
int try_write_file(const char *path, const char *text);

/* Buffers ------------------------------------------------------------------------------------------------------ */

struct bo {
	int fd;
	uint32_t handle;
	uint64_t size;
	void *map; /* where bo_map put it, or NULL */
	uint64_t va; /* where bind put it last */
};

int try_gem_create(int fd, struct drm_xe_gem_create *arguments);
/* A buffer; in VRAM it can be mapped by the CPU.  `vm` 0 for one that can be shared. */
struct bo bo_create(int fd, uint32_t vm, uint64_t size, uint32_t placement);
void bo_close(struct bo *bo);
int try_gem_close(int fd, uint32_t handle);
uint64_t mmap_offset(int fd, uint32_t handle);
void *bo_map(struct bo *bo);

/* Virtual memories --------------------------------------------------------------------------------------------- */

int try_vm_create(int fd, uint32_t flags, uint32_t *vm);
uint32_t vm_create(int fd, uint32_t flags);
int try_vm_destroy(int fd, uint32_t vm);

int try_vm_bind(int fd, struct drm_xe_vm_bind *arguments);
/* One or more operations, waited for. */
int try_bind_ops(int fd, uint32_t vm, struct drm_xe_vm_bind_op *operations, unsigned count);
void bind(int fd, uint32_t vm, struct bo *bo, uint64_t va);
void bind_part(int fd, uint32_t vm, struct bo *bo, uint64_t offset, uint64_t va, uint64_t size);
void bind_userptr(int fd, uint32_t vm, void *memory, uint64_t va, uint64_t size);
void unbind(int fd, uint32_t vm, uint64_t va, uint64_t size);
struct drm_xe_vm_bind_op map_op(const struct bo *bo, uint64_t offset, uint64_t va, uint64_t size);
struct drm_xe_vm_bind_op unmap_op(uint64_t va, uint64_t size);

/* Bit 47 repeated above it, as addresses in commands and execs are written. */
static inline uint64_t canonical(uint64_t va)
{
	return (uint64_t)((int64_t)(va << 16) >> 16);
}

/* Queues and jobs ---------------------------------------------------------------------------------------------- */

int try_queue_create(int fd, struct drm_xe_exec_queue_create *arguments);
uint32_t queue_create(int fd, uint32_t vm, engine e);
uint32_t bind_queue_create(int fd, uint32_t vm);
int try_queue_destroy(int fd, uint32_t queue);
bool is_banned(int fd, uint32_t queue);

int try_exec(int fd, uint32_t queue, uint64_t address, struct drm_xe_sync *syncs, unsigned count);
/* Submit a batch; the syncobj that its end signals. */
uint32_t exec(int fd, uint32_t queue, uint64_t address);
void exec_and_wait(int fd, uint32_t queue, uint64_t address);

/* Synchronisation ---------------------------------------------------------------------------------------------- */

uint32_t syncobj_create(int fd);
void syncobj_destroy(int fd, uint32_t syncobj);
/* Wait for at most so many milliseconds; -ETIME when that was not enough. */
int try_syncobj_wait(int fd, uint32_t syncobj, unsigned milliseconds);
int try_timeline_wait(int fd, uint32_t syncobj, uint64_t point, unsigned milliseconds);
void syncobj_wait(int fd, uint32_t syncobj);
bool syncobj_is_signalled(int fd, uint32_t syncobj);
/* A sync file descriptor of the syncobj's fence. */
int syncobj_to_sync_file(int fd, uint32_t syncobj);
/* The status of a sync file's fence: 0 active, 1 signalled, negative errno. */
int sync_file_status(int sync_file);

struct drm_xe_sync wait_for_syncobj(uint32_t syncobj);
struct drm_xe_sync signal_syncobj(uint32_t syncobj);
struct drm_xe_sync wait_for_point(uint32_t syncobj, uint64_t point);
struct drm_xe_sync signal_point(uint32_t syncobj, uint64_t point);
struct drm_xe_sync signal_user_fence(uint64_t address, uint64_t value);

int try_wait_user_fence(int fd, struct drm_xe_wait_user_fence *arguments);
/* Wait until the qword at `address` equals `value`. */
void user_fence_wait(int fd, uint64_t *address, uint64_t value, uint32_t queue);

/* An exported dma-buf of a buffer. */
int try_prime_export(int fd, uint32_t handle, int *dmabuf);
int try_prime_import(int fd, int dmabuf, uint32_t *handle);

#endif
