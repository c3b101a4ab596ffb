// SPDX-License-Identifier: MIT
/* Commands on streams: a compositor's socket, a virtual machine's serial port. */
#define _GNU_SOURCE
#include "commands.h"
#include "objects.h"

/* listen NAME PATH: a compositor's socket */
long do_listen(char **w)
{
	return stream_listen(object_create(w[0], STREAM), w[1]);
}

/* accept LISTENER NAME MS: the next source */
long do_accept(char **w)
{
	WANT(listener, w[0], STREAM);
	return stream_accept(listener, object_create(w[1], STREAM), to_number(w[2]));
}

/* receive STREAM MS DMABUF: the next packet; the descriptor that it brings gets the name */
long do_receive(char **w)
{
	WANT(stream, w[0], STREAM);
	int fd;
	long result = stream_receive(stream, to_number(w[1]), &fd);

	if (fd >= 0) {
		struct object *dmabuf = object_create(w[2], DMABUF);

		dmabuf->fd = fd;
		dmabuf->size = lseek(fd, 0, SEEK_END);
	}
	return result;
}

/* port NAME: the virtio serial port of this name */
long do_port(char **w)
{
	int fd = port_open(w[0]);

	if (fd >= 0)
		object_create(w[0], STREAM)->fd = fd;
	return fd < 0 ? fd : 0;
}

/* tell STREAM WORDS...: a packet, or a line */
long do_tell(char **w)
{
	WANT(stream, w[0], STREAM);
	char line[MOST_LINE];

	return join_words(line, sizeof(line), w + 1) ? stream_send(stream, line) : -E2BIG;
}

/* hear PORT MS: the next line */
long do_hear(char **w)
{
	WANT(stream, w[0], STREAM);
	return stream_hear(stream, to_number(w[1]));
}
