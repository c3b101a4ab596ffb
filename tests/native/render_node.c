/*
 * A render node of xe for one process: preloaded, it answers the driver's system calls and hands bindings and batches to
 * the engines of tests/native/engines.py, which execute them at once. So every fence is signalled when a call returns.
 *
 * Memory of buffers is in one file that both processes map; a handle is a range of it. What DEVICE_QUERY answers was
 * recorded in a guest (tests/native/queries.py) and lies in /native/queries.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <drm/drm.h>
#include <drm/xe_drm.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BIND = 1, UNBIND, QUEUE, EXECUTE, CYCLES };
enum { HANDLES = 1 << 20, LARGE = 2 << 20, SMALL = 1 << 16 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, asking = PTHREAD_MUTEX_INITIALIZER;
static int memory = -1, engines = -1;
static struct stat memory_file;
static uint64_t top = SMALL, begins[HANDLES], sizes[HANDLES];
static uint32_t handles = 1, numbers = 1;

static int is_node(const char *path)
{
	return path && !strcmp(path, "/dev/dri/renderD128");
}

static int is_ours(int fd)
{
	struct stat file;

	return memory >= 0 && !syscall(SYS_fstat, fd, &file) && file.st_ino == memory_file.st_ino &&
	       file.st_dev == memory_file.st_dev;
}

/* The engines send the file of the memory with the first byte. */
static int connect_engines(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/native/engines" };
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control),
	};

	engines = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(engines, (void *)&address, sizeof(address)) || recvmsg(engines, &message, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	memcpy(&memory, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(memory));
	return syscall(SYS_fstat, memory, &memory_file);
}

static int open_node(void)
{
	int failed = 0;

	pthread_mutex_lock(&lock);
	if (memory < 0)
		failed = connect_engines();
	pthread_mutex_unlock(&lock);
	return failed ? -1 : fcntl(memory, F_DUPFD_CLOEXEC, 3);
}

/* What the engines answer; a negative error, too. */
static int64_t answer_of(uint64_t what, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	uint64_t words[] = { what, a, b, c, d };
	int64_t answer = -EIO;

	pthread_mutex_lock(&asking);
	if (send(engines, words, sizeof(words), MSG_NOSIGNAL) != sizeof(words) ||
	    recv(engines, &answer, sizeof(answer), MSG_WAITALL) != sizeof(answer))
		answer = -EIO;
	pthread_mutex_unlock(&asking);
	return answer;
}

static int ask(uint64_t what, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	int64_t answer = answer_of(what, a, b, c, d);

	if (!answer)
		return 0;
	errno = -answer;
	return -1;
}

static uint64_t allocate(uint64_t size)
{
	uint64_t to = size >= LARGE ? LARGE : SMALL, at;

	pthread_mutex_lock(&lock);
	at = (top + to - 1) / to * to;
	top = at + (size + SMALL - 1) / SMALL * SMALL;
	pthread_mutex_unlock(&lock);
	return at;
}

static int create(struct drm_xe_gem_create *create)
{
	uint64_t at = allocate(create->size);

	create->handle = __sync_fetch_and_add(&handles, 1);
	if (create->handle >= HANDLES) {
		errno = ENOMEM;
		return -1;
	}
	begins[create->handle] = at;
	sizes[create->handle] = create->size;
	return 0;
}

/* Handles are not used again; the pages are given back. */
static int close_handle(uint32_t handle)
{
	return fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begins[handle], (sizes[handle] + 4095) & ~4095ull);
}

/* Memory of the process becomes part of the file, in place. */
static uint64_t adopt(void *there, uint64_t size)
{
	uint64_t at = allocate(size);
	void *copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, at);

	memcpy(copy, there, size);
	munmap(copy, size);
	mmap(there, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory, at);
	return at;
}

static void signal_fences(uint64_t syncs, uint32_t count)
{
	struct drm_xe_sync *sync = (void *)(uintptr_t)syncs;

	for (; count--; sync++)
		if (sync->type == DRM_XE_SYNC_TYPE_USER_FENCE && sync->flags & DRM_XE_SYNC_FLAG_SIGNAL)
			*(volatile uint64_t *)(uintptr_t)sync->addr = sync->timeline_value;
}

static int bind_one(uint32_t vm, const struct drm_xe_vm_bind_op *bind)
{
	if (bind->flags & DRM_XE_VM_BIND_FLAG_NULL)
		return 0;
	if (bind->op == DRM_XE_VM_BIND_OP_MAP && !(bind->flags & DRM_XE_VM_BIND_FLAG_CPU_ADDR_MIRROR))
		return ask(BIND, vm, bind->addr, bind->range, begins[bind->obj] + bind->obj_offset);
	if (bind->op == DRM_XE_VM_BIND_OP_MAP_USERPTR)
		return ask(BIND, vm, bind->addr, bind->range, adopt((void *)(uintptr_t)bind->userptr, bind->range));
	if (bind->op == DRM_XE_VM_BIND_OP_UNMAP)
		return ask(UNBIND, vm, bind->addr, bind->range, 0);
	errno = EINVAL;
	return -1;
}

static int bind_all(struct drm_xe_vm_bind *all)
{
	struct drm_xe_vm_bind_op *bind = all->num_binds == 1 ? &all->bind : (void *)(uintptr_t)all->vector_of_binds;

	for (uint32_t n = 0; n < all->num_binds; n++)
		if (bind_one(all->vm_id, &bind[n]))
			return -1;
	signal_fences(all->syncs, all->num_syncs);
	return 0;
}

static int create_queue(struct drm_xe_exec_queue_create *queue)
{
	struct drm_xe_engine_class_instance *engine = (void *)(uintptr_t)queue->instances;

	queue->exec_queue_id = __sync_fetch_and_add(&numbers, 1);
	return ask(QUEUE, queue->exec_queue_id, queue->vm_id, engine->engine_class, 0);
}

static int execute(struct drm_xe_exec *exec)
{
	if (exec->num_batch_buffer && ask(EXECUTE, exec->exec_queue_id, exec->address, 0, 0))
		return -1;
	signal_fences(exec->syncs, exec->num_syncs);
	return 0;
}

static uint64_t nanoseconds(clockid_t clock)
{
	struct timespec now = { 0 };

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* What the driver takes (xe_query.c:__clock_id_to_func). */
static int is_clock(clockid_t clock)
{
	return clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_REALTIME || clock == CLOCK_BOOTTIME ||
	       clock == CLOCK_TAI;
}

/* The engines' time stamp beside a clock of the processor (xe_query.c:query_engine_cycles). */
static int query_cycles(struct drm_xe_device_query *query)
{
	struct drm_xe_query_engine_cycles *cycles = (void *)(uintptr_t)query->data;
	uint64_t begun = nanoseconds(CLOCK_MONOTONIC);
	int64_t found;

	if (!query->size) {
		query->size = sizeof(*cycles);
		return 0;
	}
	if (query->size != sizeof(*cycles) || !is_clock(cycles->clockid)) {
		errno = EINVAL;
		return -1;
	}
	cycles->cpu_timestamp = nanoseconds(cycles->clockid);
	found = answer_of(CYCLES, 0, 0, 0, 0);
	if (found < 0) {
		errno = -found;
		return -1;
	}
	cycles->cpu_delta = nanoseconds(CLOCK_MONOTONIC) - begun;
	cycles->engine_cycles = found;
	cycles->width = 64;
	return 0;
}

static int query(struct drm_xe_device_query *query)
{
	char path[64];
	struct stat file;
	int fd, wrong;

	if (query->query == DRM_XE_DEVICE_QUERY_ENGINE_CYCLES)
		return query_cycles(query);
	snprintf(path, sizeof(path), "/native/queries/%u", query->query);
	fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
	if (fd < 0) {
		errno = EINVAL;
		return -1;
	}
	syscall(SYS_fstat, fd, &file);
	wrong = query->size && query->size != file.st_size;
	if (!query->size)
		query->size = file.st_size;
	else if (!wrong)
		wrong = read(fd, (void *)(uintptr_t)query->data, file.st_size) != file.st_size;
	close(fd);
	errno = EINVAL;
	return wrong ? -1 : 0;
}

static int version(struct drm_version *version)
{
	if (version->name && version->name_len >= 2)
		memcpy(version->name, "xe", 2);
	version->version_major = version->version_minor = 1;
	version->version_patchlevel = 0;
	version->name_len = 2;
	version->date_len = version->desc_len = 0;
	return 0;
}

static int capability(struct drm_get_cap *cap)
{
	cap->value = cap->capability == DRM_CAP_SYNCOBJ || cap->capability == DRM_CAP_SYNCOBJ_TIMELINE;
	return 0;
}

static int timeline(struct drm_syncobj_timeline_array *timeline)
{
	uint64_t *points = (void *)(uintptr_t)timeline->points;

	for (uint32_t n = 0; n < timeline->count_handles; n++)
		points[n] = INT64_MAX;
	return 0;
}

static int serve(unsigned long request, void *data)
{
	switch (request) {
	case DRM_IOCTL_VERSION:
		return version(data);
	case DRM_IOCTL_GET_CAP:
		return capability(data);
	case DRM_IOCTL_GEM_CLOSE:
		return close_handle(((struct drm_gem_close *)data)->handle);
	case DRM_IOCTL_SYNCOBJ_CREATE:
		((struct drm_syncobj_create *)data)->handle = __sync_fetch_and_add(&numbers, 1);
		return 0;
	case DRM_IOCTL_SYNCOBJ_QUERY:
		return timeline(data);
	case DRM_IOCTL_XE_DEVICE_QUERY:
		return query(data);
	case DRM_IOCTL_XE_GEM_CREATE:
		return create(data);
	case DRM_IOCTL_XE_GEM_MMAP_OFFSET: {
		struct drm_xe_gem_mmap_offset *map = data;

		if (map->flags) { /* The page that makes the device see writes is not there. */
			errno = EINVAL;
			return -1;
		}
		map->offset = begins[map->handle];
		return 0;
	}
	case DRM_IOCTL_XE_VM_CREATE:
		((struct drm_xe_vm_create *)data)->vm_id = __sync_fetch_and_add(&numbers, 1);
		return 0;
	case DRM_IOCTL_XE_VM_BIND:
		return bind_all(data);
	case DRM_IOCTL_XE_EXEC_QUEUE_CREATE:
		return create_queue(data);
	case DRM_IOCTL_XE_EXEC_QUEUE_GET_PROPERTY:
		((struct drm_xe_exec_queue_get_property *)data)->value = 0;
		return 0;
	case DRM_IOCTL_XE_EXEC:
		return execute(data);
	case DRM_IOCTL_XE_OBSERVATION:
		errno = EINVAL;
		return -1;
	default: /* Waits, and what ends things. */
		return 0;
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	static int (*real)(int, unsigned long, ...);
	va_list arguments;
	void *data;

	va_start(arguments, request);
	data = va_arg(arguments, void *);
	va_end(arguments);
	if (_IOC_TYPE(request) == 'd' && is_ours(fd))
		return serve(request, data);
	if (!real)
		real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
	return real(fd, request, data);
}

int fstat(int fd, struct stat *file)
{
	int failed = syscall(SYS_fstat, fd, file);

	if (!failed && is_ours(fd)) {
		file->st_mode = S_IFCHR | 0660;
		file->st_rdev = makedev(226, 128);
	}
	return failed;
}

int fstat64(int fd, struct stat64 *file)
{
	return fstat(fd, (struct stat *)file);
}

#define OPEN(name)                                                                   \
	int name(const char *path, int flags, ...)                                   \
	{                                                                            \
		static int (*real)(const char *, int, ...);                          \
		va_list arguments;                                                   \
		mode_t mode;                                                         \
                                                                                     \
		va_start(arguments, flags);                                          \
		mode = va_arg(arguments, mode_t);                                    \
		va_end(arguments);                                                   \
		if (is_node(path))                                                   \
			return open_node();                                          \
		if (!real)                                                           \
			real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
		return real(path, flags, mode);                                      \
	}

OPEN(open)
OPEN(open64)
