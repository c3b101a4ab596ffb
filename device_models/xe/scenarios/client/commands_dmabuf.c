// SPDX-License-Identifier: MIT
/* Commands on dma-bufs' descriptors, and on address spaces of iommufd. */
#define _GNU_SOURCE
#include "commands.h"
#include "objects.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>

long do_poll(char **w)
{
	WANT(dmabuf, w[0], DMABUF);
	struct pollfd ready = { .fd = dmabuf->fd, .events = POLLOUT };

	return poll(&ready, 1, to_number(w[1])) == 1 ? 0 : -ETIME;
}

/* path DMABUF NAME: an O_PATH descriptor, which holds its inode and not its file */
long do_path(char **w)
{
	WANT(dmabuf, w[0], DMABUF);
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", dmabuf->fd);
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	object_create(w[1], DMABUF)->fd = fd;
	return 0;
}

/* take PID FD NAME SIZE: a dma-buf of another process */
long do_take(char **w)
{
	int process = syscall(SYS_pidfd_open, (pid_t)to_number(w[0]), 0);

	if (process < 0)
		return -errno;
	int fd = syscall(SYS_pidfd_getfd, process, (int)to_number(w[1]), 0);
	long result = fd < 0 ? -errno : 0;

	close(process);
	if (fd >= 0) {
		struct object *dmabuf = object_create(w[2], DMABUF);

		dmabuf->fd = fd;
		dmabuf->size = to_number(w[3]);
		say("fd=%d", fd);
	}
	return result;
}

long do_iommufd(char **w)
{
	return iommufd_open(object_create(w[0], IOMMUFD));
}

/* ioas-map IOMMUFD DMABUF IOVA LENGTH */
long do_ioas_map(char **w)
{
	WANT(iommufd, w[0], IOMMUFD);
	WANT(dmabuf, w[1], DMABUF);
	return iommufd_map(iommufd, dmabuf->fd, to_number(w[2]), to_number(w[3]));
}

long do_ioas_unmap(char **w)
{
	WANT(iommufd, w[0], IOMMUFD);
	return iommufd_unmap(iommufd, to_number(w[1]), to_number(w[2]));
}
