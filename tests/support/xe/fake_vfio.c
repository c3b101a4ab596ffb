// SPDX-License-Identifier: MIT
/* VFIO and the virtio serial port of xe-vmm's tests: a device of files, and a UNIX socket for a port. */
#define _GNU_SOURCE
#include "client.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

__thread char notes[NOTES];
static uint32_t command;

void say(const char *format, ...)
{
	(void)format;
}

uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* Everything that is asked of the device succeeds. */
long call(int fd, unsigned long request, void *argument)
{
	(void)fd, (void)request, (void)argument;
	return 0;
}

int port_open(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s.port", name);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

long iommufd_open(struct object *iommufd)
{
	iommufd->fd = -1;
	return 0;
}

long vfio_open(struct object *vf, const char *address, const struct object *where)
{
	(void)address;
	printf("opened by its %s\n", where && where->kind == IOMMUFD ? "character device" : "group");
	vf->fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	vf->region_size[2] = 256ull << 20;
	return 0;
}

long vfio_reset(struct object *vf)
{
	(void)vf;
	command = 0;
	printf("device reset\n");
	return 0;
}

long vfio_config_read(struct object *vf, uint32_t offset, uint32_t size, uint32_t *value)
{
	(void)vf, (void)offset, (void)size;
	*value = command;
	return 0;
}

long vfio_config_write(struct object *vf, uint32_t offset, uint32_t size, uint32_t value)
{
	(void)vf, (void)size;
	command = value;
	printf("config %#x %#x\n", offset, value);
	return 0;
}

/* A file that holds the ranges instead of their memory. */
long vfio_export(struct object *vf, uint32_t region, uint32_t flags, const char *ranges, uint64_t *size)
{
	int fd = memfd_create("ranges", MFD_CLOEXEC);

	(void)vf, (void)flags, (void)size;
	if (region != 2 || write(fd, ranges, strlen(ranges)) != (ssize_t)strlen(ranges))
		return -EINVAL;
	return fd;
}
