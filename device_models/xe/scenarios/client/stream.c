// SPDX-License-Identifier: MIT
/* A compositor's socket, and a virtual machine's end of the stream to its VMM (docs/virtual-machine-frames.md). */
#define _GNU_SOURCE
#include "client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

static long ready(int fd, unsigned ms)
{
	struct pollfd waited = { .fd = fd, .events = POLLIN };
	int count = poll(&waited, 1, ms);

	return count < 0 ? -errno : count == 0 ? -ETIME : waited.revents & POLLIN ? 0 : -EPIPE;
}

/* "verb a=b" is reported as "said=verb a=b": words have names of their own, and one may be "verb". */
static void report(const char *line)
{
	say("said=%s", line);
}

long stream_listen(struct object *listener, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	unlink(path);
	listener->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (bind(listener->fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener->fd, 8) < 0)
		return -errno;
	return 0;
}

long stream_accept(struct object *listener, struct object *stream, unsigned ms)
{
	long result = ready(listener->fd, ms);

	if (result)
		return result;
	stream->fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
	return stream->fd < 0 ? -errno : 0;
}

long stream_packet(struct object *stream, unsigned ms, char *line, size_t size, int *fd)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec data = { .iov_base = line, .iov_len = size - 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_LEN(sizeof(int))
	};
	long result = ready(stream->fd, ms);

	*fd = -1;
	if (result)
		return result;
	ssize_t length = recvmsg(stream->fd, &message, MSG_CMSG_CLOEXEC);

	if (length < 0)
		return -errno;
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(header), sizeof(int));
	if (!length) {
		if (*fd >= 0)
			close(*fd);
		*fd = -1;
		return -EPIPE;
	}
	line[length] = 0;
	return 0;
}

long stream_receive(struct object *stream, unsigned ms, int *fd)
{
	char line[1024];
	long result = stream_packet(stream, ms, line, sizeof(line), fd);

	if (result == 0)
		report(line);
	return result;
}

long stream_send(struct object *stream, const char *line)
{
	char text[1026];
	int type;
	socklen_t size = sizeof(type);
	bool packets = getsockopt(stream->fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
	int length = snprintf(text, sizeof(text), "%s%s", line, packets ? "" : "\n");
	ssize_t done = packets ? send(stream->fd, text, length, MSG_NOSIGNAL) : write(stream->fd, text, length);

	return done < 0 ? -errno : done == length ? 0 : -EAGAIN;
}

long stream_line(struct object *stream, unsigned ms, char *line, size_t size)
{
	uint64_t end = now_ns() + ms * 1000000ull;

	/* Byte by byte: what follows the line is the next one's. */
	for (size_t length = 0; length < size - 1; length++) {
		uint64_t now = now_ns();
		long result = now < end ? ready(stream->fd, (end - now) / 1000000 + 1) : -ETIME;

		if (result)
			return result;
		if (read(stream->fd, line + length, 1) != 1)
			return -EPIPE;
		if (line[length] == '\n') {
			line[length] = 0;
			return 0;
		}
	}
	return -EMSGSIZE;
}

long stream_hear(struct object *stream, unsigned ms)
{
	char line[1024];
	long result = stream_line(stream, ms, line, sizeof(line));

	if (result == 0)
		report(line);
	return result;
}
