// SPDX-License-Identifier: MIT
/* Commands on GPUs: buffers, imports, bindings, jobs; calls with any bytes. */
#define _GNU_SOURCE
#include "commands.h"
#include "objects.h"

#include <fcntl.h>

long do_gpu(char **w)
{
	return gpu_open(object_create(w[0], GPU), w[1], w[2]);
}

long do_buffer(char **w)
{
	WANT(gpu, w[0], GPU);
	return gpu_buffer(gpu, object_create(w[1], BO), to_number(w[2]), to_number(w[3]), w[4] && !strcmp(w[4], "vram"));
}

long do_import(char **w)
{
	WANT(gpu, w[0], GPU);
	WANT(dmabuf, w[1], DMABUF);
	return gpu_import(gpu, dmabuf->fd, object_create(w[2], BO));
}

long do_reexport(char **w)
{
	WANT(bo, w[0], BO);
	struct object *dmabuf = object_create(w[1], DMABUF);
	long result = gpu_export(bo, dmabuf);

	say("fd=%d", dmabuf->fd);
	return result;
}

/* bind BO VA [OFFSET LENGTH [PAT]] */
long do_bind(char **w)
{
	WANT(bo, w[0], BO);
	uint64_t offset = w[2] ? to_number(w[2]) : 0, length = w[2] ? to_number(w[3]) : bo->size;

	return gpu_bind(bo, to_number(w[1]), offset, length, w[2] && w[4] ? to_number(w[4]) : 2);
}

long do_unbind(char **w)
{
	WANT(gpu, w[0], GPU);
	return gpu_unbind(gpu, to_number(w[1]), to_number(w[2]));
}

long do_gem_close(char **w)
{
	WANT(bo, w[0], BO);
	return gpu_close_handle(bo);
}

/* copy GPU TO FROM LENGTH [TIMES] */
long do_copy(char **w)
{
	WANT(gpu, w[0], GPU);
	uint64_t times = w[4] ? to_number(w[4]) : 1, best = ~0ull, taken;
	long result = 0;

	for (uint64_t i = 0; i < times && result == 0; i++) {
		result = gpu_copy(gpu, to_number(w[1]), to_number(w[2]), to_number(w[3]), &taken);
		best = taken < best ? taken : best;
	}
	say("copy_us=%llu", (unsigned long long)(best / 1000));
	return result;
}

/* kernel GPU NAME GROUPS TO FROM WORD */
long do_kernel(char **w)
{
	WANT(gpu, w[0], GPU);
	uint64_t started = now_ns();
	long result = gpu_kernel(gpu, w[1], to_number(w[2]), to_number(w[3]), to_number(w[4]), to_number(w[5]));

	say("kernel_us=%llu", (unsigned long long)((now_ns() - started) / 1000));
	return result;
}

/* engines GPU ROUNDS: jobs on every engine */
long do_engines(char **w)
{
	WANT(gpu, w[0], GPU);
	unsigned jobs = 0;
	uint64_t gts = 0;
	long result = gpu_engines(gpu, to_number(w[1]), &jobs, &gts);

	say("jobs=%u gts=%d", jobs, __builtin_popcountll(gts));
	return result;
}

/* prefer GPU MEMORY vram|system|OTHER-GPU */
long do_prefer(char **w)
{
	WANT(gpu, w[0], GPU);
	WANT(memory, w[1], BO);
	struct object *other = NULL;

	if (strcmp(w[2], "vram") && strcmp(w[2], "system"))
		other = object_find(w[2], GPU);
	return svm_prefer(gpu, memory->va, memory->size, w[2], other);
}

/* device NAME PATH: any DRM device, to import into */
long do_device(char **w)
{
	int fd = open(w[1], O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	object_create(w[0], GPU)->fd = fd;
	return 0;
}

/* pages BUFFER ADDRESS: where in the GPU's BAR2 the buffer is, which has to be in VRAM */
long do_pages(char **w)
{
	WANT(bo, w[0], BO);
	char ranges[NOTES - 128];
	long pieces = bo->map ? pages_find(bo->map, bo->size, w[1], ranges, sizeof(ranges)) : -ERANGE;

	if (pieces > 0)
		say("pieces=%ld ranges=%s", pieces, ranges);
	return pieces < 0 ? pieces : 0;
}

/* raw-open SLOT ADDRESS: another descriptor of the device's render node */
long do_raw_open(char **w)
{
	int fd = open_render_node(w[1]);

	return fd < 0 ? fd : raw_keep(w[0], fd);
}

/* raw-take SLOT DMABUF: another descriptor of it */
long do_raw_take(char **w)
{
	WANT(dmabuf, w[1], DMABUF);
	int fd = fcntl(dmabuf->fd, F_DUPFD_CLOEXEC, 3);

	return fd < 0 ? -errno : raw_keep(w[0], fd);
}

long do_raw_close(char **w)
{
	return raw_close(w[0]);
}

long do_raw_poke(char **w)
{
	return raw_poke(to_number(w[0]), w[1]);
}

long do_raw_ioctl(char **w)
{
	if (w[3] && !w[4])
		return -EINVAL;
	return raw_ioctl(w[0], to_number(w[1]), w[2], w[3], w[4]);
}
