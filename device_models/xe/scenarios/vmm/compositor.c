// SPDX-License-Identifier: MIT
/* The compositor's socket: packets of text, each with at most one descriptor. */
#define _GNU_SOURCE
#include "vmm.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

static void lost(struct vmm *vmm)
{
	close(vmm->compositor);
	vmm->compositor = -1;
	fences_forget(vmm);
	log_line(vmm, "compositor gone");
}

bool compositor_send(struct vmm *vmm, const char *line, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = "";
	struct iovec data = { .iov_base = (char *)line, .iov_len = strlen(line) };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };

	if (vmm->compositor < 0)
		return false;
	if (fd >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);

		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(int));
	}
	if (sendmsg(vmm->compositor, &message, MSG_NOSIGNAL) == (ssize_t)data.iov_len)
		return true;
	lost(vmm);
	return false;
}

void compositor_connect(struct vmm *vmm)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char line[256];

	if (vmm->compositor >= 0)
		return;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", vmm->compositor_path);
	vmm->compositor = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); /* one that does not read is given up */
	if (connect(vmm->compositor, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(vmm->compositor);
		vmm->compositor = -1;
		return;
	}
	log_line(vmm, "compositor there");
	snprintf(line, sizeof(line), "hello version=1 name=%s", vmm->name);
	compositor_send(vmm, line, -1);
	for (struct resource *r = vmm->resources; r < vmm->resources + RESOURCES; r++)
		if (r->id) {
			snprintf(line, sizeof(line), "create resource=%llu size=%#llx kind=dma-buf", (unsigned long long)r->id,
				 (unsigned long long)r->size);
			compositor_send(vmm, line, r->dmabuf);
		}
	if (vmm->scanout[0])
		compositor_send(vmm, vmm->scanout, -1);
}

/* A packet and its descriptor, or -1; false when there is none, or the compositor is gone. */
static bool receive(struct vmm *vmm, char *line, size_t size, int *fd)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec data = { .iov_base = line, .iov_len = size - 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_LEN(sizeof(int))
	};
	ssize_t length = recvmsg(vmm->compositor, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	*fd = -1;
	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	struct cmsghdr *header = length < 0 ? NULL : CMSG_FIRSTHDR(&message);

	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(header), sizeof(int));
	if (length <= 0) {
		if (*fd >= 0)
			close(*fd);
		*fd = -1;
		lost(vmm);
		return false;
	}
	line[length] = 0;
	return true;
}

static void tell_done(struct vmm *vmm, const char *line)
{
	vmm->done++;
	log_line(vmm, "%.200s", line);
	port_send(vmm, line);
}

void fence_signalled(struct vmm *vmm, struct fence *fence)
{
	close(fence->fd);
	fence->fd = -1;
	tell_done(vmm, fence->line);
}

void fences_forget(struct vmm *vmm)
{
	for (struct fence *f = vmm->fences; f < vmm->fences + FENCES; f++) {
		if (f->fd >= 0)
			close(f->fd);
		f->fd = -1;
	}
}

static void done(struct vmm *vmm, const char *line, int fd)
{
	for (struct fence *f = vmm->fences; fd >= 0 && f < vmm->fences + FENCES; f++)
		if (f->fd < 0) {
			f->fd = fd;
			snprintf(f->line, sizeof(f->line), "%s", line);
			return;
		}
	/* Without a fence the compositor has done with the frame; with more than there is room for, the machine is told too early. */
	if (fd >= 0) {
		close(fd);
		log_line(vmm, "too many fences");
	}
	tell_done(vmm, line);
}

void compositor_read(struct vmm *vmm)
{
	char line[1024];
	int fd;

	while (vmm->compositor >= 0 && receive(vmm, line, sizeof(line), &fd)) {
		if (!strncmp(line, "done ", 5)) {
			done(vmm, line, fd);
			continue;
		}
		if (fd >= 0)
			close(fd);
		log_line(vmm, "%.200s", line);
		if (!strncmp(line, "error ", 6))
			port_send(vmm, line);
	}
}

bool compositor_revoke(struct vmm *vmm, const char *reason, int ms)
{
	uint64_t end = now_ns() + ms * 1000000ull;
	char line[1024];
	int fd;

	snprintf(line, sizeof(line), "revoke reason=%s", reason);
	if (!compositor_send(vmm, line, -1))
		return true;
	fences_forget(vmm);
	while (vmm->compositor >= 0 && now_ns() < end) {
		struct pollfd ready = { .fd = vmm->compositor, .events = POLLIN };

		if (poll(&ready, 1, 10) == 1 && receive(vmm, line, sizeof(line), &fd)) {
			if (fd >= 0)
				close(fd);
			if (!strcmp(line, "released"))
				return true;
		}
	}
	return vmm->compositor < 0;
}
